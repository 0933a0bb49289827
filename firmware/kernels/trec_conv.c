/* trec_conv.c: convolution on cluster means (TREC), in a form that needs little memory; plain C (with generated inner loops:
 * trec_loops.c).
 *
 *   1. block by block, every row becomes a member of a cluster, and each cluster an int8 mean (trec.h);
 *   2. for a slice of the output channels: means of all blocks times weights [out_c][k_n];
 *   3. each pixel adds the products of its slots, one per block, and becomes int8. With one block there is nothing to add: the
 *      products become int8 once, and pixels copy them. Then the next slice.
 *
 * Input [in_h][in_w][in_c], output [out_h][out_w][out_c]. No row of the matrix is stored, and of the N x M int32 sums only one
 * pixel's exist. The slices begin behind the exact_c channels that clustering brings out exact.
 *
 * Ranges: trec_clusters.c; products and sums as in micro.h. Scratch: struct tr_clusters, TR_TREC_SCRATCH_BYTES. */
#include "gather.h"
#include "trec.h"

/* Two vectors times two pixels, of n values each. */
static TR_OUT_OF_LINE struct tr_sums project_2x2(struct tr_sums sums, const int8_t *vector, const int8_t *pixel,
                                                 int32_t next_vector, int32_t next_pixel, int32_t n)
{
    for (const int8_t *const end = vector + (n & ~3); vector != end; vector += 4, pixel += 4) {
        sums = tr_step_raw(sums, vector, pixel, next_vector, next_pixel);
    }
    for (int32_t k = 0; k < (n & 3); k++) {
        sums.a0 += vector[k] * pixel[k];
        sums.a1 += vector[k] * pixel[next_pixel + k];
        sums.b0 += vector[next_vector + k] * pixel[k];
        sums.b1 += vector[next_vector + k] * pixel[next_pixel + k];
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

/* Adds a part's products with the vectors, two at a time (the last one alone: twice itself), to the projections of the rows whose
 * part lies inside the map; outside, values less their zero point are 0. */
static void project_part(const struct tr_clusters *restrict m, const int8_t *in, const int8_t *vectors, int32_t block,
                         const struct tr_part *restrict part, const struct tr_trec *restrict p)
{
    const int32_t bits = p->hash_bits, step = p->stride_w * p->in_c;
    const struct tr_range range = tr_part_inside(p, part);
    for (int32_t h = 0; h < bits; h += 2) {
        const int32_t next = h + 1 < bits;
        const int8_t *a = vectors + block * p->vector_block + part->at + h * p->vector_row, *b = a + next * p->vector_row;
        const int32_t start_a = minus_zero_point_times_sum(a, part->n, p->input_zero_point);
        const int32_t start_b = minus_zero_point_times_sum(b, part->n, p->input_zero_point);
        const struct tr_sums start = {start_a, start_a, start_b, start_b};
        for (int32_t y = range.first_y; y < range.last_y; y++) {
            const int8_t *pixel = tr_part_input(in, p, part, y, range.first_x);
            int32_t *row = m->projected + (y * p->out_w + range.first_x) * bits + h;
            for (int32_t x = range.first_x; x < range.last_x; x += 2, pixel += 2 * step, row += 2 * bits) {
                const int32_t two = x + 1 < range.last_x;
                const struct tr_sums found = project_2x2(start, a, pixel, next * p->vector_row, two * step, part->n);
                row[0] += found.a0;
                row[next] += next ? found.b0 : 0;
                row[two * bits] += two ? found.a1 : 0;
                row[two * bits + next] += two && next ? found.b1 : 0;
            }
        }
    }
}

/* Adds a part of every row to the sums of its slot; outside the map, zero points. */
static void add_part(const struct tr_clusters *restrict m, const int8_t *in, int32_t block, const struct tr_part *restrict part,
                     const struct tr_trec *restrict p)
{
    const int32_t rows = p->out_h * p->out_w, slot_bytes = TR_TREC_SLOT_BYTES(p->most_clusters), step = p->stride_w * p->in_c;
    const struct tr_range range = tr_part_inside(p, part);
    int32_t i = block * rows;
    for (int32_t y = 0; y < p->out_h; y++) {
        const int32_t in_map = y >= range.first_y && y < range.last_y;
        const int8_t *pixel = tr_part_input(in, p, part, y, 0);
        for (int32_t x = 0; x < p->out_w; x++, i++, pixel += step) {
            const int32_t at = tr_slot(m->slots, i, slot_bytes) * p->sub_length + part->at;
            const int8_t *const values = in_map && x >= range.first_x && x < range.last_x ? pixel : m->padding;
            if (TR_TREC_SUM_BYTES(rows) == 2) {
                tr_add_values((int16_t *)(void *)m->sums + at, values, part->n);
                continue;
            }
            for (int32_t k = 0; k < part->n; k++) {
                m->sums[at + k] += values[k];
            }
        }
    }
}

/* Two channels times two columns of n values. */
static TR_OUT_OF_LINE struct tr_sums multiply_2x2(const int8_t *a, const int8_t *b, const int16_t *column, int32_t n)
{
    struct tr_sums sums = {0, 0, 0, 0};
    const int16_t *next = column + TR_WORDS(n);
    for (int32_t k = 0; k < n; k += 4, column += 4, next += 4, a += 4, b += 4) {
        const uint32_t word_a = n - k >= 4 ? tr_load_s8x4(a) : tr_load_s8_tail(a, n - k);
        const uint32_t word_b = n - k >= 4 ? tr_load_s8x4(b) : tr_load_s8_tail(b, n - k);
        sums = tr_step_columns(sums, word_a, word_b, column, next);
    }
    return sums;
}

/* Stage 2 for one block: products of its means with the n channels whose weights begin at `weights`. Means go two by two; where
 * their number is odd, the last one's neighbour is what was in its column before, and its products go where nothing is yet. */
static void multiply_block(const struct tr_clusters *restrict m, const int8_t *weights, int32_t block, int32_t n,
                           const struct tr_trec *restrict p)
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
            const struct tr_sums found = multiply_2x2(a, c + 1 < n ? a + p->k_n : a, m->columns, length);
            to[c] = found.a0;
            to[c + 1] = found.b0;
            to[p->slice_c + c] = found.a1;
            to[p->slice_c + c + 1] = found.b1;
        }
    }
}

/* Stage 3: channels c .. c + n - 1 of one pixel, whose slots lie `rows` apart. Channels go four by four; the last four may
 * reach behind n, where products are anything, so sums wrap. */
static inline void recover_pixel(int8_t *out, const struct tr_clusters *restrict m, const int32_t *bias, int32_t pixel, int32_t c,
                                 int32_t n, const struct tr_trec *restrict p)
{
    const int32_t rows = p->out_h * p->out_w, slice_c = p->slice_c, size = p->most_clusters * slice_c;
    const int32_t slot_bytes = TR_TREC_SLOT_BYTES(p->most_clusters);
    for (int32_t i = 0; i < n; i += 4) {
        const int32_t *products = m->products + i;
        uint32_t sums[4] = {0, 0, 0, 0};
        for (int32_t block = 0, at = pixel; block < p->blocks; block++, at += rows, products += size) {
            const int32_t *const product = products + tr_slot(m->slots, at, slot_bytes) * slice_c;
            sums[0] += (uint32_t)product[0];
            sums[1] += (uint32_t)product[1];
            sums[2] += (uint32_t)product[2];
            sums[3] += (uint32_t)product[3];
        }
        for (int32_t k = 0; k < tr_min(4, n - i); k++) {
            out[c + i + k] = tr_trec_output((int32_t)sums[k] + bias[c + i + k], c + i + k, p);
        }
    }
}

/* Stage 3 with one block: products become int8 in place, cluster by cluster, and pixels copy them. */
static void copy_slice(int8_t *restrict out, const struct tr_clusters *restrict m, const int32_t *bias, int32_t c, int32_t n,
                       const struct tr_trec *restrict p)
{
    const int32_t rows = p->out_h * p->out_w, slot_bytes = TR_TREC_SLOT_BYTES(p->most_clusters);
    int8_t *const ready = (int8_t *)m->products;
    for (int32_t slot = 0; slot < m->stacked[0]; slot++) {
        for (int32_t i = 0; i < n; i++) {
            ready[slot * p->slice_c + i] = tr_trec_output(m->products[slot * p->slice_c + i] + bias[c + i], c + i, p);
        }
    }
    for (int32_t pixel = 0; pixel < rows; pixel++) {
        const int8_t *from = ready + tr_slot(m->slots, pixel, slot_bytes) * p->slice_c;
        tr_put_values(out + pixel * p->out_c + c, from, n);
    }
}

void tr_trec_conv_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict weights,
                     const int8_t *restrict vectors, const int32_t *restrict bias, const struct tr_trec *restrict p,
                     int16_t *restrict scratch)
{
    const struct tr_clusters m = tr_clusters_in((int8_t *)scratch, p);
    const int32_t rows = p->out_h * p->out_w;
    if (p->loops) {
        tr_trec_loops_s8(out, in, weights, vectors, bias, p, scratch);
        return;
    }
    tr_cluster(&m, out, in, vectors, bias, p, &(const struct tr_clustering){project_part, add_part});
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
            recover_pixel(out + pixel * p->out_c, &m, bias, pixel, c, n, p);
        }
    }
}
