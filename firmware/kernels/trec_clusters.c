/* trec_clusters.c: stage 1 of TREC's two kernels: which row belongs to which cluster, and the clusters' means (trec.h).
 *
 * A block's projections [rows][hash_bits] become ids by their signs; a table from id to slot (the reversed ids) gives every new
 * id the next slot of a stack; the members' sums are added up in the stack and then replaced by int8 means. No table has 2^H
 * means. With kernel reuse (exact_c > 0) the projections are the partial sums of the first channels, which come out exact.
 *
 * Ranges: projections and sums of channels as in micro.h. Sums of a cluster are int16 up to 256 rows (256 * -128 = INT16_MIN),
 * int32 above. A mean is floor((2 * sum + n) / (2 * n)): halves go up. Scratch: struct tr_clusters, TR_TREC_SCRATCH_BYTES. */
#include "trec.h"

static inline void *take(int8_t **from, int32_t bytes)
{
    void *const place = *from;
    *from += TR_WORDS(bytes);
    return place;
}

struct tr_clusters tr_clusters_in(int8_t *scratch, const struct tr_trec *restrict p)
{
    const int32_t rows = p->out_h * p->out_w, length = p->sub_length;
    TR_ASSERT(p->hash_bits >= 1 && p->hash_bits <= TR_TREC_MOST_BITS && p->k_n <= TR_MOST_VALUES && p->slice_c % 4 == 0);
    TR_ASSERT(p->most_clusters == tr_min(1 << p->hash_bits, rows) && (p->exact_c == 0 || p->exact_c == p->hash_bits));
    struct tr_clusters m;
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

/* The part of block columns first .. end - 1 that begins at column k of the matrix. */
static struct tr_part part_at(const struct tr_trec *restrict p, int32_t first, int32_t end, int32_t k)
{
    const int32_t tap = k / p->in_c, channel = k % p->in_c;
    return (struct tr_part){k - first, tr_min(p->in_c - channel, end - k), tap / p->kernel_w, tap % p->kernel_w, channel};
}

/* The first output coordinate whose window has its element `k` at or behind input coordinate `limit`. */
static int32_t first_output(int32_t limit, int32_t k, int32_t pad, int32_t stride, int32_t outputs)
{
    const int32_t distance = limit + pad - k;
    return distance <= 0 ? 0 : tr_min((distance + stride - 1) / stride, outputs);
}

struct tr_range tr_part_inside(const struct tr_trec *restrict p, const struct tr_part *restrict part)
{
    return (struct tr_range){
        first_output(0, part->kernel_y, p->pad_top, p->stride_h, p->out_h),
        first_output(p->in_h, part->kernel_y, p->pad_top, p->stride_h, p->out_h),
        first_output(0, part->kernel_x, p->pad_left, p->stride_w, p->out_w),
        first_output(p->in_w, part->kernel_x, p->pad_left, p->stride_w, p->out_w),
    };
}

/* Means of the projections, rounded down, or zeros. */
static void find_thresholds(int32_t *thresholds, const int32_t *projected, int32_t rows, const struct tr_trec *restrict p)
{
    for (int32_t h = 0; h < p->hash_bits; h++) {
        int64_t total = 0;
        for (int32_t i = 0; p->mean_threshold && i < rows; i++) {
            total += projected[i * p->hash_bits + h];
        }
        thresholds[h] = (int32_t)(total / rows - (total % rows < 0));
    }
}

/* Hashes the rows of a block, gives every id a slot in the order in which ids appear, and returns how many slots there are. */
static int32_t assign_slots(const struct tr_clusters *restrict m, int32_t block, const struct tr_trec *restrict p)
{
    const int32_t rows = p->out_h * p->out_w, bits = p->hash_bits, slot_bytes = TR_TREC_SLOT_BYTES(p->most_clusters);
    const int32_t *projected = m->projected;
    uint16_t *const table = m->table;
    int32_t *const members = m->members;
    int32_t thresholds[TR_TREC_MOST_BITS], used = 0;
    find_thresholds(thresholds, projected, rows, p);
    memset(table, 0, sizeof *table << bits);
    uint8_t *to = m->slots + block * rows * slot_bytes;
    for (const uint8_t *const end = to + rows * slot_bytes; to != end; to += slot_bytes, projected += bits) {
        uint32_t id = 0;
        for (int32_t h = 0; h < bits; h++) {
            id |= (uint32_t)(projected[h] > thresholds[h]) << h;
        }
        if (table[id] == 0) {
            members[used++] = 0;
            table[id] = (uint16_t)used;
        }
        const int32_t slot = table[id] - 1;
        members[slot]++;
        if (slot_bytes == 2) {
            *(uint16_t *)(void *)to = (uint16_t)slot;
        } else {
            *to = (uint8_t)slot;
        }
    }
    return used;
}

static inline int8_t mean(int32_t sum, int32_t n)
{
    return (int8_t)((int32_t)((uint32_t)(2 * (sum + 128 * n) + n) / (uint32_t)(2 * n)) - 128);
}

/* Replaces a part of each cluster's sums by its mean, at `means`. Whole fours of int16 sums lie in the order of columns. */
static void divide_part(int8_t *means, const struct tr_clusters *restrict m, const struct tr_part *restrict part, int32_t used,
                        int32_t length, const struct tr_trec *restrict p)
{
    const int32_t in_16 = TR_TREC_SUM_BYTES(p->out_h * p->out_w) == 2, part_n = part->n;
    for (int32_t slot = 0; slot < used; slot++) {
        const int32_t n = m->members[slot], from = slot * p->sub_length + part->at;
        const int32_t *const sums = m->sums + from;
        const int16_t *const halves = (const int16_t *)(const void *)m->sums + from;
        int8_t *const to = means + slot * length + part->at;
        int32_t k = 0;
        for (; in_16 && k + 4 <= part_n; k += 4) {
            const uint32_t sums_02 = tr_load_s16x2(halves + k), sums_13 = tr_load_s16x2(halves + k + 2);
            to[k] = mean(tr_low(sums_02), n);
            to[k + 1] = mean(tr_low(sums_13), n);
            to[k + 2] = mean(tr_high(sums_02), n);
            to[k + 3] = mean(tr_high(sums_13), n);
        }
        for (; k < part_n; k++) {
            to[k] = mean(in_16 ? tr_load_s16(halves + k) : sums[k], n);
        }
    }
}

/* Slots and means of one block. */
static void cluster_block(const struct tr_clusters *restrict m, const int8_t *in, const int8_t *vectors, int32_t block,
                          const struct tr_trec *restrict p, const struct tr_clustering *clustering)
{
    const int32_t first = block * p->sub_length, end = tr_min(first + p->sub_length, p->k_n), rows = p->out_h * p->out_w;
    const int32_t exact = rows * p->exact_c;
    int32_t *const projected = m->projected;
    struct tr_part part;
    memset(projected, 0, sizeof *projected * (size_t)(rows * p->hash_bits));
    for (int32_t k = first; k < end; k += part.n) {
        part = part_at(p, first, end, k);
        clustering->project(m, in, vectors, block, &part, p);
    }
    for (int32_t i = 0; i < exact; i++) {
        m->exact[i] += projected[i];
    }
    const int32_t used = assign_slots(m, block, p);
    TR_ASSERT(used <= p->most_clusters);
    m->stacked[block] = used;
    memset(m->sums, 0, (size_t)(used * p->sub_length * TR_TREC_SUM_BYTES(rows)));
    for (int32_t k = first; k < end; k += part.n) {
        part = part_at(p, first, end, k);
        clustering->add(m, in, block, &part, p);
    }
    for (int32_t k = first; k < end; k += part.n) {
        part = part_at(p, first, end, k);
        divide_part(m->means + p->most_clusters * first, m, &part, used, end - first, p);
    }
}

void tr_cluster(const struct tr_clusters *restrict m, int8_t *out, const int8_t *in, const int8_t *vectors, const int32_t *bias,
                const struct tr_trec *restrict p, const struct tr_clustering *clustering)
{
    const int32_t rows = p->out_h * p->out_w, exact_c = p->exact_c;
    memset(m->padding, p->input_zero_point, (size_t)p->in_c);
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t c = 0; c < exact_c; c++) {
            m->exact[i * exact_c + c] = bias[c];
        }
    }
    for (int32_t block = 0; block < p->blocks; block++) {
        cluster_block(m, in, vectors, block, p, clustering);
    }
    for (int32_t i = 0; i < rows; i++) {
        for (int32_t c = 0; c < exact_c; c++) {
            out[i * p->out_c + c] = tr_trec_output(m->exact[i * exact_c + c], c, p);
        }
    }
}
