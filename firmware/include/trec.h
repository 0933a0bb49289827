/* trec.h: what the two kernels of TREC share: where the scratch lies, parts of windows, and the clustering (trec_clusters.c).
 *
 * The input as a matrix has one row per output pixel and columns (ky, kx, channel), cut into blocks. Inside a block, rows with
 * equal hashes form a cluster; a cluster's mean stands for its members. */
#ifndef TR_TREC_H
#define TR_TREC_H

#include "columns.h"
#include "micro.h"
#include "requantize.h"
#include "tinyredux.h"

/* Where everything lies in the scratch. What stage 1 alone needs shares its place with what stages 2 and 3 need. */
struct tr_clusters {
    uint8_t *slots;                       /* rows of each block, one byte or two */
    int32_t *stacked;                     /* clusters of each block */
    int8_t *means;                        /* block after block, room for most_clusters in each */
    int32_t *products;                    /* stage 2 and 3: most_clusters per block and one more, slice_c each */
    int16_t *columns;                     /* stage 2: two */
    int32_t *projected, *exact, *members; /* stage 1: rows x bits, rows x bits, one per cluster */
    int32_t *sums;                        /* stage 1: the stack, int32 or two int16 in each */
    uint16_t *table;                      /* stage 1: slot + 1 of an id, 0 for a new one */
    int8_t *padding;                      /* stage 1: a pixel of zero points */
};

/* A block, or the part of one that lies in one pixel: n columns from column `at` of the block on. */
struct tr_part {
    int32_t at, n, kernel_y, kernel_x, channel;
};

/* Output pixels: rows first_y .. last_y - 1, columns first_x .. last_x - 1. */
struct tr_range {
    int32_t first_y, last_y, first_x, last_x;
};

/* The kernel with generated inner loops, which tr_trec_conv_s8 calls where p->loops is given. */
void tr_trec_loops_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict weights,
                      const int8_t *restrict vectors, const int32_t *restrict bias, const struct tr_trec *restrict p,
                      int16_t *restrict scratch);

/* Returns where the parts of a scratch of TR_TREC_SCRATCH_BYTES lie. */
struct tr_clusters tr_clusters_in(int8_t *scratch, const struct tr_trec *restrict p);

/* What a kernel does its own way with a part of every row of a block: adds its products with the hash vectors to the projections;
 * adds it to the sums of the row's slot, outside the map as zero points. */
struct tr_clustering {
    void (*project)(const struct tr_clusters *restrict m, const int8_t *in, const int8_t *vectors, int32_t block,
                    const struct tr_part *restrict part, const struct tr_trec *restrict p);
    void (*add)(const struct tr_clusters *restrict m, const int8_t *in, int32_t block, const struct tr_part *restrict part,
                const struct tr_trec *restrict p);
};

/* Stage 1: slots and means of all blocks, and the exact channels of the output. */
void tr_cluster(const struct tr_clusters *restrict m, int8_t *out, const int8_t *in, const int8_t *vectors, const int32_t *bias,
                const struct tr_trec *restrict p, const struct tr_clustering *clustering);

/* The output pixels whose part lies inside the map. */
struct tr_range tr_part_inside(const struct tr_trec *restrict p, const struct tr_part *restrict part);

static inline const int8_t *tr_part_input(const int8_t *in, const struct tr_trec *restrict p, const struct tr_part *restrict part,
                                          int32_t y, int32_t x)
{
    const int32_t in_y = y * p->stride_h - p->pad_top + part->kernel_y, in_x = x * p->stride_w - p->pad_left + part->kernel_x;
    return in + (in_y * p->in_w + in_x) * p->in_c + part->channel;
}

static inline int32_t tr_slot(const uint8_t *slots, int32_t i, int32_t slot_bytes)
{
    return slot_bytes == 2 ? ((const uint16_t *)(const void *)slots)[i] : slots[i];
}

/* Adds n values to int16 sums, whole fours of which lie in the order of columns. */
static inline void tr_add_values(int16_t *sums, const int8_t *values, int32_t n)
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

static inline int8_t tr_trec_output(int32_t sum, int32_t c, const struct tr_trec *restrict p)
{
    return tr_requantize_s8(sum, p->multiplier[c], p->shift[c], p->output_zero_point, p->activation_min, p->activation_max);
}

#endif
