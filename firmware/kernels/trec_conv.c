/* trec_conv.c: convolution on cluster means (TREC), in a form that needs little memory.
 *
 * The input as a matrix has one row per output pixel and columns (ky, kx, channel), cut into blocks. Inside a block, rows with
 * equal hashes form a cluster; a cluster's mean stands for its members. Three stages:
 *
 *   1. block by block: projections of all rows; ids from their signs; a table from id to slot (the reversed ids) gives every
 *      new id the next slot of a stack; the members' sums are added up in the stack and then replaced by int8 means;
 *   2. for a slice of the output channels: means of all blocks times weights;
 *   3. each pixel adds the products of its slots, one per block, and becomes int8. With one block there is nothing to add: the
 *      products become int8 once, and pixels copy them. Then the next slice.
 *
 * No row is stored, no table has 2^H means, and of the N x M int32 sums only one pixel's exist. With kernel reuse (exact_c > 0)
 * the projections are the partial sums of the first channels, which come out exact; the slices begin behind them.
 *
 * Ranges: projections and sums <= k_n * 255 * 127 + |bias|, as in conv.c. Sums of a cluster are int16 up to 256 rows
 * (256 * -128 = INT16_MIN), int32 above. A mean is floor((2 * sum + n) / (2 * n)): halves go up.
 * Scratch: struct memory below, TR_TREC_SCRATCH_BYTES. */
#include "columns.h"
#include "dot.h"
#include "requantize.h"
#include "tinyredux.h"

/* Where everything lies in the scratch. What stage 1 alone needs shares its place with what stages 2 and 3 need. */
struct memory {
    uint8_t *slots;    /* rows of each block, one byte or two */
    int32_t *stacked;  /* clusters of each block */
    int8_t *means;     /* block after block, room for most_clusters in each */
    int32_t *products; /* stage 2 and 3: most_clusters per block and one more, slice_c each */
    int16_t *columns;  /* stage 2: two */
    int32_t *projected, *exact, *members; /* stage 1: rows x bits, rows x bits, one per cluster */
    int32_t *sums;     /* stage 1: the stack, int32 or two int16 in each */
    uint16_t *table;   /* stage 1: slot + 1 of an id, 0 for a new one */
    int8_t *padding;   /* stage 1: a pixel of zero points */
};

/* A block, or the part of one that lies in one pixel: n columns from column `at` of the block on. */
struct part {
    int32_t at, n, kernel_y, kernel_x, channel;
};

static inline void *take(int8_t **from, int32_t bytes)
{
    void *const place = *from;
    *from += TR_WORDS(bytes);
    return place;
}

static struct memory memory_of(int8_t *scratch, const struct tr_trec *p)
{
    const int32_t rows = p->out_h * p->out_w, length = p->sub_length;
    struct memory m;
    m.slots = take(&scratch, rows * p->blocks * TR_TREC_SLOT_BYTES(p->most_clusters));
    m.stacked = take(&scratch, 4 * p->blocks);
    m.means = take(&scratch, p->most_clusters * p->k_n);
    int8_t *const shared = scratch;
    m.products = take(&scratch, 4 * (p->blocks * p->most_clusters + 1) * p->slice_c);
    m.columns = take(&scratch, 4 * TR_WORDS(length));
    scratch = shared;
    m.projected = take(&scratch, 4 * rows * p->hash_bits);
    m.exact = take(&scratch, 4 * rows * p->exact_c);
    m.members = take(&scratch, 4 * p->most_clusters);
    m.sums = take(&scratch, p->most_clusters * length * TR_TREC_SUM_BYTES(rows));
    m.table = take(&scratch, 2 << p->hash_bits);
    m.padding = take(&scratch, p->in_c);
    return m;
}

static inline int32_t slot_of(const uint8_t *slots, int32_t i, int32_t wide)
{
    return wide ? ((const uint16_t *)(const void *)slots)[i] : slots[i];
}

/* The part of block columns first .. end - 1 that begins at column k of the matrix. */
static struct part part_at(const struct tr_trec *p, int32_t first, int32_t end, int32_t k)
{
    const int32_t tap = k / p->in_c, channel = k % p->in_c;
    return (struct part){k - first, tr_min(p->in_c - channel, end - k), tap / p->kernel_w, tap % p->kernel_w, channel};
}

/* The first output coordinate whose window has its element `k` at or behind input coordinate `limit`. */
static int32_t first_output(int32_t limit, int32_t k, int32_t pad, int32_t stride, int32_t outputs)
{
    const int32_t distance = limit + pad - k;
    return distance <= 0 ? 0 : tr_min((distance + stride - 1) / stride, outputs);
}

static inline const int8_t *input_at(const int8_t *in, const struct tr_trec *p, const struct part *part, int32_t y, int32_t x)
{
    const int32_t in_y = y * p->stride_h - p->pad_top + part->kernel_y, in_x = x * p->stride_w - p->pad_left + part->kernel_x;
    return in + (in_y * p->in_w + in_x) * p->in_c + part->channel;
}

/* The output pixels whose part lies inside the map. */
struct range {
    int32_t first_y, last_y, first_x, last_x;
};

static struct range inside(const struct tr_trec *p, const struct part *part)
{
    return (struct range){
        first_output(0, part->kernel_y, p->pad_top, p->stride_h, p->out_h),
        first_output(p->in_h, part->kernel_y, p->pad_top, p->stride_h, p->out_h),
        first_output(0, part->kernel_x, p->pad_left, p->stride_w, p->out_w),
        first_output(p->in_w, part->kernel_x, p->pad_left, p->stride_w, p->out_w),
    };
}

/* Two vectors times two pixels, of n values each. */
struct dots {
    int32_t a0, a1, b0, b1;
};

static TR_OUT_OF_LINE struct dots project_2x2(struct dots sums, const int8_t *a, const int8_t *b, const int8_t *x0,
                                              const int8_t *x1, int32_t n)
{
    for (const int8_t *const end = a + (n & ~3); a != end; a += 4, b += 4, x0 += 4, x1 += 4) {
        const uint32_t word_a = tr_load_s8x4(a), word_b = tr_load_s8x4(b);
        const uint32_t a_02 = tr_sxtb16(word_a), a_13 = tr_sxtb16_ror8(word_a);
        const uint32_t b_02 = tr_sxtb16(word_b), b_13 = tr_sxtb16_ror8(word_b);
        const uint32_t pixel_0 = tr_load_s8x4(x0), pixel_1 = tr_load_s8x4(x1);
        const uint32_t x0_02 = tr_sxtb16(pixel_0), x0_13 = tr_sxtb16_ror8(pixel_0);
        sums.a0 = tr_smlad(a_13, x0_13, tr_smlad(a_02, x0_02, sums.a0));
        sums.b0 = tr_smlad(b_13, x0_13, tr_smlad(b_02, x0_02, sums.b0));
        const uint32_t x1_02 = tr_sxtb16(pixel_1), x1_13 = tr_sxtb16_ror8(pixel_1);
        sums.a1 = tr_smlad(a_13, x1_13, tr_smlad(a_02, x1_02, sums.a1));
        sums.b1 = tr_smlad(b_13, x1_13, tr_smlad(b_02, x1_02, sums.b1));
    }
    for (int32_t k = 0; k < (n & 3); k++) {
        sums.a0 += a[k] * x0[k];
        sums.a1 += a[k] * x1[k];
        sums.b0 += b[k] * x0[k];
        sums.b1 += b[k] * x1[k];
    }
    return sums;
}

static int32_t minus_zero_point_times_sum(const int8_t *vector, int32_t n, int32_t zero_point)
{
    int32_t total = 0;
    for (int32_t k = 0; k < n; k++) {
        total += vector[k];
    }
    return -zero_point * total;
}

/* Adds a part's products with vectors h and h + 1 (the last one alone: twice itself) to the projections of the rows whose
 * part lies inside the map; outside, values less their zero point are 0. */
static void project_pair(int32_t *projected, const int8_t *in, const int8_t *vectors, const struct tr_trec *p,
                         const struct part *part, int32_t h)
{
    const int32_t bits = p->hash_bits, next = h + 1 < bits, step = p->stride_w * p->in_c;
    const int8_t *a = vectors + h * p->vector_row, *b = a + next * p->vector_row;
    const int32_t start_a = minus_zero_point_times_sum(a, part->n, p->input_zero_point);
    const int32_t start_b = minus_zero_point_times_sum(b, part->n, p->input_zero_point);
    const struct range range = inside(p, part);
    for (int32_t y = range.first_y; y < range.last_y; y++) {
        const int8_t *pixel = input_at(in, p, part, y, range.first_x);
        int32_t *row = projected + (y * p->out_w + range.first_x) * bits + h;
        for (int32_t x = range.first_x; x < range.last_x; x += 2, pixel += 2 * step, row += 2 * bits) {
            const int32_t two = x + 1 < range.last_x;
            const struct dots start = {start_a, start_a, start_b, start_b};
            const struct dots found = project_2x2(start, a, b, pixel, pixel + two * step, part->n);
            row[0] += found.a0;
            row[next] += next ? found.b0 : 0;
            row[two * bits] += two ? found.a1 : 0;
            row[two * bits + next] += two && next ? found.b1 : 0;
        }
    }
}

/* The same for all vectors at once by the generated loop; a part's table is start values and int16 pairs of every vector. All
 * pixels read the whole table, so it goes to RAM, where loads do not wait: into the stack of sums, which is not in use yet. */
static void project_rows(const struct memory *m, const int8_t *in, const int32_t *table, const struct tr_trec *p,
                         const struct part *part)
{
    const struct range range = inside(p, part);
    const int32_t words = p->hash_bits * (1 + part->n / 2);
    int32_t *const projected = m->projected;
    if (2 * words <= p->most_clusters * p->sub_length) {
        for (int32_t i = 0; i < words; i++) {
            m->sums[i] = table[i];
        }
        table = m->sums;
    }
    for (int32_t y = range.first_y; y < range.last_y && range.first_x < range.last_x; y++) {
        int32_t *const row = projected + (y * p->out_w + range.first_x) * p->hash_bits;
        p->loops->project(row, input_at(in, p, part, y, range.first_x), table, range.last_x - range.first_x);
    }
}

/* floor(total / n) */
static int32_t mean_below(int64_t total, int32_t n)
{
    const int64_t quotient = total / n;
    return (int32_t)(quotient - (quotient * n > total));
}

static void find_thresholds(int32_t *thresholds, const int32_t *projected, int32_t rows, const struct tr_trec *p)
{
    for (int32_t h = 0; h < p->hash_bits; h++) {
        int64_t total = 0;
        for (int32_t i = 0; p->mean_threshold && i < rows; i++) {
            total += projected[i * p->hash_bits + h];
        }
        thresholds[h] = mean_below(total, rows);
    }
}

/* Hashes the rows of a block, gives every id a slot in the order in which ids appear, and returns how many slots there are. */
static int32_t assign_slots(const struct memory *m, int32_t block, const struct tr_trec *p)
{
    const int32_t rows = p->out_h * p->out_w, bits = p->hash_bits, wide = TR_TREC_SLOT_BYTES(p->most_clusters) == 2;
    const int32_t *projected = m->projected;
    int32_t thresholds[TR_TREC_MOST_BITS], used = 0;
    find_thresholds(thresholds, projected, rows, p);
    for (int32_t id = 0; id < 1 << bits; id++) {
        m->table[id] = 0;
    }
    for (int32_t i = 0; i < rows; i++, projected += bits) {
        uint32_t id = 0;
        for (int32_t h = 0; h < bits; h++) {
            id |= (uint32_t)(projected[h] > thresholds[h]) << h;
        }
        if (m->table[id] == 0) {
            m->members[used++] = 0;
            m->table[id] = (uint16_t)used;
        }
        const int32_t slot = m->table[id] - 1;
        m->members[slot]++;
        if (wide) {
            ((uint16_t *)(void *)m->slots)[block * rows + i] = (uint16_t)slot;
        } else {
            m->slots[block * rows + i] = (uint8_t)slot;
        }
    }
    return used;
}

/* Adds n values to int16 sums, whole fours of which lie in the order of columns. */
static inline void add_values(int16_t *sums, const int8_t *values, int32_t n)
{
    for (const int8_t *const end = values + (n & ~3); values != end; values += 4, sums += 4) {
        const uint32_t word = tr_load_s8x4(values), low = tr_load_s16x2(sums), high = tr_load_s16x2(sums + 2);
        tr_store_s16x2(sums, tr_sxtab16(low, word));
        tr_store_s16x2(sums + 2, tr_sxtab16_ror8(high, word));
    }
    for (int32_t k = 0; k < (n & 3); k++) {
        int16_t *const sum = sums + k;
        tr_store_s16(sum, tr_load_s16(sum) + values[k]);
    }
}

/* Adds a part of every row to the sums of its slot. */
static void add_part(const struct memory *m, const int8_t *in, const struct part *part, int32_t block, const struct tr_trec *p)
{
    const int32_t rows = p->out_h * p->out_w, wide = TR_TREC_SLOT_BYTES(p->most_clusters) == 2, step = p->stride_w * p->in_c;
    const struct range range = inside(p, part);
    int32_t i = block * rows;
    for (int32_t y = 0; y < p->out_h; y++) {
        const int32_t in_map = y >= range.first_y && y < range.last_y;
        const int8_t *pixel = input_at(in, p, part, y, 0);
        for (int32_t x = 0; x < p->out_w; x++, i++, pixel += step) {
            const int32_t count = in_map && x >= range.first_x ? range.last_x - x : 0;
            if (p->loops && count > 0) {
                p->loops->add((int16_t *)(void *)m->sums + part->at, pixel, m->slots + i, count);
                x += count - 1;
                i += count - 1;
                pixel += (count - 1) * step;
                continue;
            }
            const int32_t at = slot_of(m->slots, i, wide) * p->sub_length + part->at;
            const int8_t *const values = count > 0 ? pixel : m->padding;
            if (TR_TREC_SUM_BYTES(rows) == 2) {
                add_values((int16_t *)(void *)m->sums + at, values, part->n);
                continue;
            }
            for (int32_t k = 0; k < part->n; k++) {
                m->sums[at + k] += values[k];
            }
        }
    }
}

/* Replaces a part of each cluster's sums by its mean, at `means`. */
static void divide_part(int8_t *means, const struct memory *m, const struct part *part, int32_t used, int32_t length,
                        const struct tr_trec *p)
{
    const int32_t in_16 = TR_TREC_SUM_BYTES(p->out_h * p->out_w) == 2, whole = part->n & ~3;
    for (int32_t slot = 0; slot < used; slot++) {
        const int32_t n = m->members[slot], from = slot * p->sub_length + part->at;
        int8_t *const to = means + slot * length + part->at;
        for (int32_t k = 0; k < part->n; k++) {
            const int16_t *const pair = (const int16_t *)(const void *)m->sums + from;
            const int32_t sum = in_16 ? tr_load_s16(pair + (k < whole ? tr_column_index(k) : k)) : m->sums[from + k];
            to[k] = (int8_t)((int32_t)((uint32_t)(2 * (sum + 128 * n) + n) / (uint32_t)(2 * n)) - 128);
        }
    }
}

/* Stage 1 for the columns first .. end - 1. */
static void cluster_block(const struct memory *m, const int8_t *in, const int8_t *vectors, int32_t block, const struct tr_trec *p)
{
    const int32_t first = block * p->sub_length, end = tr_min(first + p->sub_length, p->k_n), rows = p->out_h * p->out_w;
    struct part part;
    for (int32_t i = 0; i < rows * p->hash_bits; i++) {
        m->projected[i] = 0;
    }
    for (int32_t k = first; k < end; k += part.n) {
        part = part_at(p, first, end, k);
        if (p->loops) {
            const int32_t *const tables = (const int32_t *)(const void *)vectors;
            project_rows(m, in, tables + k / part.n * p->hash_bits * (1 + part.n / 2), p, &part);
            continue;
        }
        for (int32_t h = 0; h < p->hash_bits; h += 2) {
            project_pair(m->projected, in, vectors + block * p->vector_block + part.at, p, &part, h);
        }
    }
    for (int32_t i = 0; i < rows * p->exact_c; i++) {
        m->exact[i] += m->projected[i];
    }
    const int32_t used = assign_slots(m, block, p);
    m->stacked[block] = used;
    for (int32_t i = 0; 4 * i < used * p->sub_length * TR_TREC_SUM_BYTES(rows); i++) {
        m->sums[i] = 0;
    }
    for (int32_t k = first; k < end; k += part.n) {
        part = part_at(p, first, end, k);
        add_part(m, in, &part, block, p);
    }
    for (int32_t k = first; k < end; k += part.n) {
        part = part_at(p, first, end, k);
        divide_part(m->means + p->most_clusters * first, m, &part, used, end - first, p);
    }
}

static inline int8_t output(int32_t sum, int32_t c, const struct tr_trec *p)
{
    return tr_requantize_s8(sum, p->multiplier[c], p->shift[c], p->output_zero_point, p->activation_min, p->activation_max);
}

/* Stage 1: slots and means of all blocks, and the exact channels of the output. */
static void cluster(const struct memory *m, int8_t *out, const int8_t *in, const int8_t *vectors, const int32_t *bias,
                    const struct tr_trec *p)
{
    const int32_t rows = p->out_h * p->out_w, exact_c = p->exact_c;
    for (int32_t c = 0; c < p->in_c; c++) {
        m->padding[c] = (int8_t)p->input_zero_point;
    }
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t c = 0; c < exact_c; c++) {
            m->exact[i * exact_c + c] = bias[c];
        }
    }
    for (int32_t block = 0; block < p->blocks; block++) {
        cluster_block(m, in, vectors, block, p);
    }
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t c = 0; c < exact_c; c++) {
            out[i * p->out_c + c] = output(m->exact[i * exact_c + c], c, p);
        }
    }
}

/* Two channels times two columns of n values. */
static TR_OUT_OF_LINE struct dots multiply_2x2(const int8_t *a, const int8_t *b, const int16_t *column, int32_t n)
{
    struct dots sums = {0, 0, 0, 0};
    const int16_t *next = column + TR_WORDS(n);
    for (int32_t k = 0; k < n; k += 4, column += 4, next += 4, a += 4, b += 4) {
        const uint32_t word_a = n - k >= 4 ? tr_load_s8x4(a) : tr_load_s8_tail(a, n - k);
        const uint32_t word_b = n - k >= 4 ? tr_load_s8x4(b) : tr_load_s8_tail(b, n - k);
        const uint32_t a_02 = tr_sxtb16(word_a), a_13 = tr_sxtb16_ror8(word_a);
        const uint32_t b_02 = tr_sxtb16(word_b), b_13 = tr_sxtb16_ror8(word_b);
        const uint32_t x0_02 = tr_load_s16x2(column), x1_02 = tr_load_s16x2(next);
        sums.a0 = tr_smlad(a_02, x0_02, sums.a0);
        sums.a1 = tr_smlad(a_02, x1_02, sums.a1);
        sums.b0 = tr_smlad(b_02, x0_02, sums.b0);
        sums.b1 = tr_smlad(b_02, x1_02, sums.b1);
        const uint32_t x0_13 = tr_load_s16x2(column + 2), x1_13 = tr_load_s16x2(next + 2);
        sums.a0 = tr_smlad(a_13, x0_13, sums.a0);
        sums.a1 = tr_smlad(a_13, x1_13, sums.a1);
        sums.b0 = tr_smlad(b_13, x0_13, sums.b0);
        sums.b1 = tr_smlad(b_13, x1_13, sums.b1);
    }
    return sums;
}

/* Stage 2 for one block: products of its means with the n channels whose weights begin at `weights`. Means go two by two; where
 * their number is odd, the last one's neighbour is what was in its column before, and its products go where nothing is yet. */
static void multiply_block(const struct memory *m, const int8_t *weights, int32_t block, int32_t n, const struct tr_trec *p)
{
    const int32_t first = block * p->sub_length, length = tr_min(p->sub_length, p->k_n - first), used = m->stacked[block];
    const int8_t *mean = m->means + p->most_clusters * first;
    int32_t *to = m->products + block * p->most_clusters * p->slice_c;
    for (int32_t k = length; k < TR_WORDS(length); k++) {
        m->columns[tr_column_index(k)] = m->columns[TR_WORDS(length) + tr_column_index(k)] = 0;
    }
    for (int32_t slot = 0; slot < used; slot += 2, mean += 2 * length, to += 2 * p->slice_c) {
        const int32_t next = slot + 1 < used;
        tr_fill_values(m->columns, 0, mean, length, p->input_zero_point);
        tr_fill_values(m->columns + TR_WORDS(length), 0, mean + next * length, length, p->input_zero_point);
        for (int32_t c = 0; c < n; c += 2) {
            const int8_t *const a = weights + c * p->k_n + first;
            const struct dots found = multiply_2x2(a, c + 1 < n ? a + p->k_n : a, m->columns, length);
            to[c] = found.a0;
            to[c + 1] = found.b0;
            to[p->slice_c + c] = found.a1;
            to[p->slice_c + c + 1] = found.b1;
        }
    }
}

/* Stage 3: channels c .. c + n - 1 of one pixel, whose slots lie `rows` apart. Channels go four by four; the last four may
 * reach behind n, where products are anything, so sums wrap. */
static inline void recover_pixel(int8_t *out, const struct memory *m, const int32_t *bias, int32_t pixel, int32_t c, int32_t n,
                                 int32_t wide, const struct tr_trec *p)
{
    const int32_t rows = p->out_h * p->out_w, slice_c = p->slice_c, size = p->most_clusters * slice_c;
    for (int32_t i = 0; i < n; i += 4) {
        const int32_t *products = m->products + i;
        uint32_t sums[4] = {0, 0, 0, 0};
        for (int32_t block = 0, at = pixel; block < p->blocks; block++, at += rows, products += size) {
            const int32_t *const product = products + slot_of(m->slots, at, wide) * slice_c;
            sums[0] += (uint32_t)product[0];
            sums[1] += (uint32_t)product[1];
            sums[2] += (uint32_t)product[2];
            sums[3] += (uint32_t)product[3];
        }
        for (int32_t k = 0; k < tr_min(4, n - i); k++) {
            out[c + i + k] = output((int32_t)sums[k] + bias[c + i + k], c + i + k, p);
        }
    }
}

/* Stage 3 with one block: products become int8 in place, cluster by cluster, and pixels copy them. */
static void copy_slice(int8_t *restrict out, const struct memory *m, const int32_t *bias, int32_t c, int32_t n,
                       const struct tr_trec *p)
{
    const int32_t rows = p->out_h * p->out_w, wide = TR_TREC_SLOT_BYTES(p->most_clusters) == 2;
    int8_t *const ready = (int8_t *)m->products;
    for (int32_t slot = 0; slot < m->stacked[0]; slot++) {
        for (int32_t i = 0; i < n; i++) {
            ready[slot * p->slice_c + i] = output(m->products[slot * p->slice_c + i] + bias[c + i], c + i, p);
        }
    }
    for (int32_t pixel = 0; pixel < rows; pixel++) {
        const int8_t *from = ready + slot_of(m->slots, pixel, wide) * p->slice_c;
        int8_t *to = out + pixel * p->out_c + c;
        int32_t i = 0;
        for (; i + 4 <= n; i += 4) {
            tr_store_s8x4(to + i, tr_load_s8x4(from + i));
        }
        for (; i < n; i++) {
            to[i] = from[i];
        }
    }
}

/* Stage 2 by the generated loop: `octets` groups of eight channels, whose tables begin at `tables`. */
static void multiply_block_fast(const struct memory *m, const int32_t *tables, int32_t block, int32_t octets,
                                const struct tr_trec *p)
{
    const int32_t length = p->sub_length, used = m->stacked[block];
    const int8_t *mean = m->means + p->most_clusters * block * length;
    int32_t *to = m->products + block * p->most_clusters * p->slice_c;
    for (int32_t slot = 0; slot < used; slot += 2, mean += 2 * length, to += 2 * p->slice_c) {
        const int8_t *const other = slot + 1 < used ? mean + length : mean;
        uint32_t *const columns = (uint32_t *)(void *)m->columns;
        for (int32_t k = 0; k < length; k += 4) {
            const uint32_t a = tr_load_s8x4(mean + k), b = tr_load_s8x4(other + k);
            columns[k] = tr_sxtb16(a);
            columns[k + 1] = tr_sxtb16(b);
            columns[k + 2] = tr_sxtb16_ror8(a);
            columns[k + 3] = tr_sxtb16_ror8(b);
        }
        p->loops->product(to, (const int32_t *)columns, tables, 2 * octets);
    }
}

/* Stage 3 with one block, eight channels from c on: products, twice each sum, become int8 in place, and pixels copy them. */
static void copy_octet(int8_t *restrict out, const struct memory *m, int32_t *products, int32_t c, const struct tr_trec *p)
{
    for (int32_t slot = 0; slot < m->stacked[0]; slot++) {
        int32_t *const product = products + slot * p->slice_c;
        for (int32_t i = 0; i < 8; i++) {
            ((int8_t *)product)[i] = output(product[i] / 2, c + i, p);
        }
    }
    for (int32_t pixel = 0; pixel < p->out_h * p->out_w; pixel++) {
        const int8_t *from = (const int8_t *)(products + m->slots[pixel] * p->slice_c);
        int8_t *const to = out + pixel * p->out_c + c;
        const uint32_t low = tr_load_s8x4(from), high = tr_load_s8x4(from + 4);
        tr_store_s8x4(to, low);
        tr_store_s8x4(to + 4, high);
    }
}

/* Stages 2 and 3 by the generated loops: eight channels at a time, the last eight over some of those before. */
static void produce_fast(const struct memory *m, int8_t *restrict out, const int32_t *tables, const struct tr_trec *p)
{
    const int32_t octets = (p->out_c - p->exact_c + 7) / 8, table = 4 * (4 + p->sub_length) / 2;
    for (int32_t first = 0; first < octets; first += p->slice_c / 8) {
        const int32_t n = tr_min(p->slice_c / 8, octets - first);
        for (int32_t block = 0; block < p->blocks; block++) {
            multiply_block_fast(m, tables + (block * octets + first) * table, block, n, p);
        }
        for (int32_t i = 0; i < n; i++) {
            const int32_t c = tr_min(p->exact_c + 8 * (first + i), p->out_c - 8);
            if (p->blocks == 1) {
                copy_octet(out, m, m->products + 8 * i, c, p);
            } else {
                p->loops->recover(out + c, m->slots, m->products + 8 * i, p->factors + 16 * (first + i));
            }
        }
    }
}

void tr_trec_conv_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict weights,
                     const int8_t *restrict vectors, const int32_t *restrict bias, const struct tr_trec *restrict p,
                     int16_t *restrict scratch)
{
    const struct memory m = memory_of((int8_t *)scratch, p);
    const int32_t rows = p->out_h * p->out_w, wide = TR_TREC_SLOT_BYTES(p->most_clusters) == 2;
    cluster(&m, out, in, vectors, bias, p);
    if (p->loops) {
        produce_fast(&m, out, (const int32_t *)(const void *)weights, p);
        return;
    }
    for (int32_t c = p->exact_c; c < p->out_c; c += p->slice_c) {
        const int32_t n = tr_min(p->slice_c, p->out_c - c);
        for (int32_t block = 0; block < p->blocks; block++) {
            multiply_block(&m, weights + c * p->k_n, block, n, p);
        }
        if (p->blocks == 1) {
            copy_slice(out, &m, bias, c, n, p);
            continue;
        }
        for (int32_t pixel = 0; pixel < rows; pixel++) {
            recover_pixel(out + pixel * p->out_c, &m, bias, pixel, c, n, wide, p);
        }
    }
}
