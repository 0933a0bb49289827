/* trec_loops.c: convolution on cluster means (TREC), its four inner loops generated code (tinyredux.kernels.trec).
 *
 * The stages are those of trec_conv.c, which calls this kernel where p->loops is given. Maps have at most 256 rows and parts a
 * multiple of four values, so slots are bytes and sums int16. `weights` and `vectors` are tables that the loops read: for each
 * block and each eight channels, start values and int16 pairs; for each part, the same of every vector.
 *
 * Ranges: trec_clusters.c. Scratch: struct tr_clusters, TR_TREC_SCRATCH_BYTES; stage 1 puts a part's table into the stack of sums. */
#include "gather.h"
#include "trec.h"

/* Adds a part's products with all vectors to the projections of the rows whose part lies inside the map; a part's table is start values and int16 pairs of every vector. All
 * pixels read the whole table, so it goes to RAM, where loads do not wait: into the stack of sums, which is not in use yet. */
static void project_part(const struct tr_clusters *restrict m, const int8_t *in, const int8_t *vectors, int32_t block,
                         const struct tr_part *restrict part, const struct tr_trec *restrict p)
{
    const struct tr_range range = tr_part_inside(p, part);
    const int32_t words = p->hash_bits * (1 + part->n / 2), number = (block * p->sub_length + part->at) / part->n;
    const int32_t *table = (const int32_t *)(const void *)vectors + number * words;
    int32_t *const projected = m->projected;
    if (2 * words <= p->most_clusters * p->sub_length) {
        for (int32_t i = 0; i < words; i++) {
            m->sums[i] = table[i];
        }
        table = m->sums;
    }
    for (int32_t y = range.first_y; y < range.last_y && range.first_x < range.last_x; y++) {
        int32_t *const row = projected + (y * p->out_w + range.first_x) * p->hash_bits;
        p->loops->project(row, tr_part_input(in, p, part, y, range.first_x), table, range.last_x - range.first_x);
    }
}

/* Adds a part of every row to the sums of its slot: runs inside the map by the loop, zero points outside. */
static void add_part(const struct tr_clusters *restrict m, const int8_t *in, int32_t block, const struct tr_part *restrict part,
                     const struct tr_trec *restrict p)
{
    const int32_t step = p->stride_w * p->in_c;
    const struct tr_range range = tr_part_inside(p, part);
    int16_t *const sums = (int16_t *)(void *)m->sums + part->at;
    int32_t i = block * p->out_h * p->out_w;
    for (int32_t y = 0; y < p->out_h; y++) {
        const int32_t in_map = y >= range.first_y && y < range.last_y;
        const int8_t *pixel = tr_part_input(in, p, part, y, 0);
        for (int32_t x = 0; x < p->out_w; x++, i++, pixel += step) {
            const int32_t count = in_map && x >= range.first_x ? range.last_x - x : 0;
            if (count > 0) {
                p->loops->add(sums, pixel, m->slots + i, count);
                x += count - 1;
                i += count - 1;
                pixel += (count - 1) * step;
                continue;
            }
            tr_add_values(sums + m->slots[i] * p->sub_length, m->padding, part->n);
        }
    }
}

/* Stage 2 by the generated loop: `octets` groups of eight channels, whose tables begin at `tables`. */
static void multiply_block(const struct tr_clusters *restrict m, const int32_t *tables, int32_t block, int32_t octets,
                           const struct tr_trec *restrict p)
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
static void copy_octet(int8_t *restrict out, const struct tr_clusters *restrict m, int32_t *products, int32_t c,
                       const struct tr_trec *restrict p)
{
    for (int32_t slot = 0; slot < m->stacked[0]; slot++) {
        int32_t *const product = products + slot * p->slice_c;
        for (int32_t i = 0; i < 8; i++) {
            ((int8_t *)product)[i] = tr_trec_output(product[i] / 2, c + i, p);
        }
    }
    for (int32_t pixel = 0; pixel < p->out_h * p->out_w; pixel++) {
        tr_put_values(out + pixel * p->out_c + c, (const int8_t *)(products + m->slots[pixel] * p->slice_c), 8);
    }
}

/* Stages 2 and 3 by the generated loops: eight channels at a time, the last eight over some of those before. */
static void produce(const struct tr_clusters *restrict m, int8_t *restrict out, const int32_t *tables,
                    const struct tr_trec *restrict p)
{
    const int32_t octets = (p->out_c - p->exact_c + 7) / 8, table = 4 * (4 + p->sub_length) / 2;
    for (int32_t first = 0; first < octets; first += p->slice_c / 8) {
        const int32_t n = tr_min(p->slice_c / 8, octets - first);
        for (int32_t block = 0; block < p->blocks; block++) {
            multiply_block(m, tables + (block * octets + first) * table, block, n, p);
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

void tr_trec_loops_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict weights,
                      const int8_t *restrict vectors, const int32_t *restrict bias, const struct tr_trec *restrict p,
                      int16_t *restrict scratch)
{
    const struct tr_clusters m = tr_clusters_in((int8_t *)scratch, p);
    TR_ASSERT(p->out_h * p->out_w <= 256 && p->slice_c % 8 == 0);
    tr_cluster(&m, out, in, vectors, bias, p, &(const struct tr_clustering){project_part, add_part});
    produce(&m, out, (const int32_t *)(const void *)weights, p);
}
