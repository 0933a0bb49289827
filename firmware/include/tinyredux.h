/* tinyredux.h: the kernels that a generated model calls.
 *
 * Layouts. Activations are int8, height x width x channels, channels innermost, one image. Convolution weights are
 * [out_c][kernel_h][kernel_w][in_c / groups], depthwise weights [kernel_h][kernel_w][in_c * multiplier_c], dense weights
 * [out_n][in_n]; all int8 in [-127, 127] with zero point 0. A real value is scale * (stored - zero_point).
 *
 * Arithmetic is that of LiteRT's 8-bit reference kernels to the bit (see requantize.h). `multiplier` and `shift` have one
 * entry per output channel: real multiplier = multiplier * 2^(shift - 31), multiplier in [2^30, 2^31), shift > 0 is left.
 *
 * `row` and `pixel` fields are distances in values from one row and one pixel of a map to the next; 0 stands for a map without
 * gaps. With them a kernel works on some of a larger map's channels, rows or columns (partial execution).
 *
 * `holes` fields count the rows or columns of the input between two neighbouring ones that a window sees: its dilation less 1.
 *
 * Memory belongs to the caller and no two arguments overlap, except that tr_add_s8, tr_sub_s8, tr_mul_s8, tr_relu_s8 and tr_lookup_s8 may
 * write over an input tr_sums_finish may write over its sums, and tr_keep_s8 moves within one map. Scratch is aligned to 4 bytes; how much there must be says
 * a macro behind the struct or the contract, and a kernel with neither needs none. Kernels trust their arguments: the compiler that writes the calls has checked them, and tests check
 * them again (TR_ASSERT in check.h).
 *
 * Each kernel follows as contract, struct, scratch, prototype; how it works stands at the head of its file in kernels/. */
#ifndef TINYREDUX_H
#define TINYREDUX_H

#include <stdint.h>

/* Bytes rounded up to words; the larger of two sizes. */
#define TR_WORDS(bytes) (((bytes) + 3) / 4 * 4)
#define TR_LARGER(a, b) ((a) > (b) ? (a) : (b))

/* Convolution of any kernel, stride, padding and number of groups. Two int16 columns of scratch, one per output pixel in flight, each
 * rounded up to whole groups of four; `pointwise` is 1 for a convolution that reads its input in place: kernel 1x1, stride 1x1,
 * no padding, groups 1. */
struct tr_conv {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t kernel_h, kernel_w;
    uint16_t stride_h, stride_w, holes_h, holes_w;
    int32_t pad_top, pad_left, groups;
    int32_t input_zero_point, output_zero_point, activation_min, activation_max;
    const int32_t *multiplier, *shift;
    int32_t in_row, in_pixel, out_row, out_pixel; /* tr_conv_s8: no out_row; 1x1 convolutions no in_row, in_pixel */
};
#define TR_CONV_SCRATCH_BYTES(kernel_h, kernel_w, in_c, groups, pointwise) \
    ((pointwise) ? 0 : 2 * 2 * (((kernel_h) * (kernel_w) * ((in_c) / (groups)) + 3) / 4 * 4))
void tr_conv_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict weights, const int32_t *restrict bias,
                const struct tr_conv *restrict p, int16_t *restrict scratch);

/* Convolution of one group without scratch, between maps with gaps. */
void tr_conv_direct_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict weights,
                       const int32_t *restrict bias, const struct tr_conv *restrict p);

/* Convolution fed with slices of the input's channels: start the sums (out_h x out_w x out_c, no gaps) with the bias, add each
 * slice with its weights [out_c][kernel_h][kernel_w][in_c of the slice], finish. */
void tr_sums_start_s32(int32_t *restrict sums, const int32_t *restrict bias, const struct tr_conv *restrict p);
void tr_conv_add_s32(int32_t *restrict sums, const int8_t *restrict in, const int8_t *restrict weights,
                     const struct tr_conv *restrict p);
void tr_sums_finish_s32(int8_t *out, const int32_t *sums, const struct tr_conv *restrict p);

/* The same with 16-bit sums, which are shifted right by right[c]. */
void tr_sums_start_s16(int16_t *restrict sums, const int32_t *restrict bias, const int32_t *restrict right,
                       const struct tr_conv *restrict p);
void tr_conv_add_s16(int16_t *restrict sums, const int8_t *restrict in, const int8_t *restrict weights,
                     const int32_t *restrict right, const struct tr_conv *restrict p);
void tr_sums_finish_s16(int8_t *out, const int16_t *sums, const int32_t *restrict right, const struct tr_conv *restrict p);

/* Generated inner loops of TREC (kernels/trec of the library), for maps of at most 256 rows. */
struct tr_trec_loops {
    void (*project)(int32_t *projected, const int8_t *pixel, const int32_t *vectors, int32_t count);
    void (*add)(int16_t *sums, const int8_t *pixel, const uint8_t *slots, int32_t count);
    void (*product)(int32_t *to, const int32_t *columns, const int32_t *weights, int32_t quads);
    void (*recover)(int8_t *out, const uint8_t *slots, const int32_t *products, const int32_t *factors);
};

/* TREC: `blocks` blocks of sub_length columns (ky, kx, channel; the last may be shorter) of k_n; hash_bits vectors per block, which
 * lie vector_row apart, those of the next block vector_block apart; exact_c is hash_bits where they are the first filters, else
 * 0. most_clusters = min(2^hash_bits, out_h * out_w); slice_c output channels at a time, a multiple of 4. */
struct tr_trec {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left;
    int32_t k_n, blocks, sub_length, hash_bits, mean_threshold, exact_c, vector_row, vector_block, most_clusters, slice_c;
    int32_t input_zero_point, output_zero_point, activation_min, activation_max;
    const int32_t *multiplier, *shift;
    const struct tr_trec_loops *loops; /* 0: plain C; else weights and vectors are the loops' tables, slice_c a multiple of 8 */
    const int32_t *factors;            /* of the loops: 8 multipliers and 8 right shifts of each 8 channels */
};

/* The stages share their bytes: the stack of sums with the products. */
#define TR_TREC_MOST_BITS 12
#define TR_TREC_SLOT_BYTES(clusters) ((clusters) > 256 ? 2 : 1)
#define TR_TREC_SUM_BYTES(rows) ((rows) > 256 ? 4 : 2)
#define TR_TREC_SCRATCH_BYTES(rows, k_n, blocks, length, in_c, bits, exact_c, clusters, slice_c) \
    (TR_WORDS((rows) * (blocks) * TR_TREC_SLOT_BYTES(clusters)) + 4 * (blocks) + TR_WORDS((clusters) * (k_n)) + \
     TR_LARGER(4 * ((blocks) * (clusters) + 1) * (slice_c) + 4 * TR_WORDS(length), \
               4 * (rows) * ((bits) + (exact_c)) + 4 * (clusters) + TR_WORDS((clusters) * (length) * TR_TREC_SUM_BYTES(rows)) + \
                   TR_WORDS(2 << (bits)) + TR_WORDS(in_c)))
void tr_trec_conv_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict weights,
                     const int8_t *restrict vectors, const int32_t *restrict bias, const struct tr_trec *restrict p,
                     int16_t *restrict scratch);

/* TREC by tables of all 2^hash_bits ids, to measure tr_trec_conv_s8 against; the same bytes. */
#define TR_TREC_NAIVE_BYTES(rows, k_n, length, out_c, bits) \
    (4 * (rows) * ((bits) + (out_c)) + 4 * (1 << (bits)) * ((length) + 1 + (out_c)) + TR_WORDS(2 * (rows)) + \
     TR_WORDS((rows) * (k_n)) + TR_WORDS((1 << (bits)) * (length)))
void tr_trec_naive_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict weights,
                      const int8_t *restrict vectors, const int32_t *restrict bias, const struct tr_trec *restrict p,
                      int16_t *restrict scratch);

/* A convolution of one group through columns, its products generated code; pixels at least 2, out_c at least 4. Scratch: columns of a
 * strip, a group where it is copied, two windows of bytes. */
struct tr_gemm {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, input_zero_point;
    int32_t row_words, group_words, strip; /* words of a widened pixel, of four channels' data; pixels at a time, even */
    int32_t in_row, in_pixel, out_pixel;   /* values of a row; of a pixel, of which in_c and out_c are a group's */
    int32_t out_bytes;                     /* of a value: 1, or 4 where products are added to the sums in `out` */
    int32_t together, copied;              /* windows are pixels one behind the other; groups are copied */
    void (*widen)(int32_t *to, const int8_t *a, const int8_t *b, int32_t n); /* from a row to the next; together: pairs */
    void (*copy)(int32_t *to, const int32_t *from, int32_t eights);
    void (*product)(int8_t *out, const int32_t *columns, const int32_t *group, int32_t pairs);
};
void tr_gemm_conv_s8(int8_t *restrict out, const int8_t *restrict in, const int32_t *restrict groups,
                     const struct tr_gemm *restrict p, int32_t *restrict scratch);

/* A 1x1 convolution at stride 1 without padding, its products generated code; pixels at least 4, in_c a multiple of 4, out_c at
 * least 5. Scratch: the larger group where groups are copied, columns and rows of a strip, sums. */
struct tr_quads {
    int32_t in_c, out_c, pixels, strip; /* pixels of the map; at a time, a multiple of 4 */
    int32_t pair_words, group_words;    /* of two pixels; of a group's data */
    int32_t second_row_words, second_group_words;
    int32_t copied; /* groups are copied to RAM */
    void (*pack)(int32_t *columns, int32_t *rows, const int8_t *in);
    void (*copy)(int32_t *to, const int32_t *from, int32_t eights);
    void (*second)(int32_t *out, const int32_t *rows, const int32_t *group, int32_t pairs);
    void (*product)(int8_t *out, const int32_t *columns, const int32_t *group, const int32_t *sums);
};
void tr_quads_conv_s8(int8_t *restrict out, const int8_t *restrict in, const int32_t *restrict groups,
                      const int32_t *restrict seconds, const struct tr_quads *restrict p, int32_t *restrict scratch);

/* A convolution with a square kernel at stride 1 by transformed tiles, transforms and products generated code; n x n inputs give
 * m x m outputs, m at most 5; in_c a multiple of 4, out_c at least 2. Scratch: v_words, then sums or a widened tile. */
struct tr_winograd {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c, n, m, pad_top, pad_left;
    int32_t batches;                          /* of four tiles, multiplied with two channels after another */
    int32_t group_words, v_words, work_words; /* of two channels' data; of four transformed tiles; of their sums or one tile */
    uint32_t filling;                         /* zero point + 128 in both halves */
    void (*widen)(uint32_t *to, const int8_t *from, int32_t pixels);
    void (*input)(uint32_t *v, uint32_t *tile, int32_t pairs);
    void (*product)(int32_t *sums, const uint32_t *v, const int32_t *group);
    void (*unpack)(uint32_t *to, const int32_t *from); /* NULL: groups are transformed already */
    void (*columns)(int32_t *sums);
    void (*output)(int8_t *out, const int32_t *sums, const int32_t *factors);
    void (*edge_output)(int8_t *out, const int32_t *sums, const int32_t *factors);
};
void tr_winograd_conv_s8(int8_t *restrict out, const int8_t *restrict in, const int32_t *restrict groups,
                         const struct tr_winograd *restrict p, int32_t *restrict scratch);

/* A convolution whose weights are generated code (unpacked.c): products[i] writes output channels 2 i and 2 i + 1 of `quads`
 * groups of four pixels; `fours` is a window's length in fours of operands, rounded up.
 * Scratch: strip * 4 * 2 * fours words of columns, 4 * fours words of bytes. */
typedef void (*tr_unpacked_product)(int8_t *out, const int32_t *columns, int32_t quads);
struct tr_unpacked {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c, kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, input_zero_point;
    int32_t fours, strip, pairs;
    void (*interleave)(int32_t *to, const int8_t *rows, int32_t fours);
    const tr_unpacked_product *products;
};
void tr_unpacked_conv_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_unpacked *restrict p,
                         int32_t *restrict scratch);

/* Depthwise convolution: output channel = input channel * multiplier_c + m; out_c = in_c * multiplier_c. */
struct tr_depthwise {
    int32_t in_h, in_w, in_c, out_h, out_w, multiplier_c;
    int32_t kernel_h, kernel_w;
    uint16_t stride_h, stride_w, holes_h, holes_w;
    int32_t pad_top, pad_left;
    int32_t input_zero_point, output_zero_point, activation_min, activation_max;
    const int32_t *multiplier, *shift;
    int32_t in_row, in_pixel, out_row, out_pixel;
};
void tr_depthwise_conv_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict weights,
                          const int32_t *restrict bias, const struct tr_depthwise *restrict p, int16_t *restrict scratch);

/* One phase of dilation_h * dilation_w of a map between padding, without gaps, and back; of an axis whose dilation is 1 all of it.
 * part_in_h x part_in_w pixels are taken; rows of part_out_w pixels are put back, as far as the output has them. */
struct tr_phases {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c, dilation_h, dilation_w, pad_top, pad_left;
    int32_t part_in_h, part_in_w, part_out_w, zero_point;
};
void tr_phase_take_s8(int8_t *restrict to, const int8_t *restrict in, const struct tr_phases *restrict p, int32_t phase);
void tr_phase_put_s8(int8_t *restrict out, const int8_t *restrict from, const struct tr_phases *restrict p, int32_t phase);

/* A matrix [out_n][in_n] times a vector. */
struct tr_dense {
    int32_t in_n, out_n;
    int32_t input_zero_point, output_zero_point, activation_min, activation_max;
    const int32_t *multiplier, *shift;
};
void tr_dense_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict weights, const int32_t *restrict bias,
                 const struct tr_dense *restrict p, int16_t *restrict scratch);

/* Maximum and average of a window. Padding takes no part: neither in the maximum nor in the average's divisor. */
struct tr_pool {
    int32_t in_h, in_w, c, out_h, out_w;
    int32_t kernel_h, kernel_w;
    uint16_t stride_h, stride_w, holes_h, holes_w;
    int32_t pad_top, pad_left;
    int32_t activation_min, activation_max;
    int32_t in_row, in_pixel, out_row, out_pixel;
};
void tr_max_pool_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_pool *restrict p);
void tr_average_pool_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_pool *restrict p);

/* The mean of a window in a scale of its own, without padding. */
struct tr_mean {
    struct tr_pool window;
    int32_t multiplier, shift, correction, zero_point;
};
void tr_mean_pool_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_mean *restrict p);

/* Sum and difference of two tensors: n values in each of `rows` rows (0: one), which begin a_row, b_row, out_row apart; shifts <= 0; left_shift 20. */
struct tr_add {
    int32_t n, a_zero_point, b_zero_point, out_zero_point;
    int32_t a_multiplier, a_shift, b_multiplier, b_shift, out_multiplier, out_shift, left_shift;
    int32_t activation_min, activation_max;
    int32_t rows, a_row, b_row, out_row;
};
void tr_add_s8(int8_t *out, const int8_t *a, const int8_t *b, const struct tr_add *restrict p);
void tr_sub_s8(int8_t *out, const int8_t *a, const int8_t *b, const struct tr_add *restrict p);

/* Product of two maps of h x w pixels of c values; distances of rows and pixels are given in full, and 0 for a second input of one
 * pixel, which holds a value for each channel. b_each: from value to value of the second input, 0 where a pixel has one for all. */
struct tr_mul {
    int32_t h, w, c, a_row, a_pixel, b_row, b_pixel, out_row, out_pixel;
    int32_t a_zero_point, b_zero_point, out_zero_point, multiplier, shift, activation_min, activation_max;
    int32_t b_each;
};
void tr_mul_s8(int8_t *out, const int8_t *a, const int8_t *b, const struct tr_mul *restrict p);

/* One input of a concatenation, one call for each; rows = height * width; in_row: from pixel to pixel of the input, 0 for in_c. */
struct tr_concat {
    int32_t rows, in_c, out_c, channel_offset;
    int32_t in_row;
};
void tr_concat_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_concat *restrict p);

/* Moves n values towards lower addresses: rows that the next run reads again. `out` may lie anywhere below `in`, n values over it. */
struct tr_keep {
    int32_t n;
};
void tr_keep_s8(int8_t *out, const int8_t *in, const struct tr_keep *p);

/* Values at other places, as rearrange.c says; distances of rows and pixels are given in full. */
struct tr_rearrange {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t start_h, start_w, step_h, step_w, repeat_h, repeat_w, phase_h, phase_w, first_c, step_c, groups, blocks, zeros, zero_point;
    int32_t in_row, in_pixel, out_row, out_pixel;
};
void tr_rearrange_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_rearrange *restrict p);

/* A map at other sizes, as bilinear.c says; distances of rows and pixels are given in full. rows[out_h] and columns[out_w] hold the
 * number of the first of two neighbours from bit 12 on, below it the weight of the second, of 2^(bits / 2). */
struct tr_bilinear {
    int32_t in_h, in_w, in_c, out_h, out_w, out_c;
    int32_t bits, away, even, zero_point;
    int32_t in_row, in_pixel, out_row, out_pixel;
};
void tr_bilinear_s8(int8_t *restrict out, const int8_t *restrict in, const int32_t *restrict rows, const int32_t *restrict columns,
                    const struct tr_bilinear *restrict p);

/* ReLU and ReLU6: input and output share one quantisation; n values in each of `rows` rows (0: one). */
struct tr_relu {
    int32_t n, activation_min, activation_max;
    int32_t rows, in_row, out_row;
};
void tr_relu_s8(int8_t *out, const int8_t *in, const struct tr_relu *restrict p);

/* A function of each value: table[256] holds the results by the byte of the stored value, 0 .. 127 and then -128 .. -1; n values in
 * each of `rows` rows (0: one). */
struct tr_lookup {
    int32_t n, rows, in_row, out_row;
};
void tr_lookup_s8(int8_t *out, const int8_t *in, const int8_t *restrict table, const struct tr_lookup *restrict p);

/* Softmax of rows of n values, n < 4096; output scale 1/256, zero point -128; shift >= 0. */
struct tr_softmax {
    int32_t rows, n, multiplier, shift, diff_min;
};
void tr_softmax_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_softmax *restrict p);
/* As LiteRT's own kernel does, in float; exps: bits of 256 floats, exp of 0, -1, ... steps of the input. */
void tr_softmax_once_s8(int8_t *restrict out, const int8_t *restrict in, const int32_t *restrict exps,
                        const struct tr_softmax *restrict p);

/* Rows of n values less their mean, by their deviation: epsilon is n^2 times that of the variance, in units of the input
 * of 2^-12; multiplier and shift are those of 1 / output scale, shift >= 0. */
struct tr_layer_norm {
    int32_t rows, n;
    int64_t epsilon;
    int32_t multiplier, shift, output_zero_point;
};
void tr_layer_norm_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_layer_norm *restrict p);

/* Attention of queries to keys and their values, each token with its heads one behind the other, `depth` channels each. How far
 * a score is below the largest, times the score's factor, is a power of 2 in steps of 2^-8; from `least` on it counts for nothing.
 * bias: one for each query and key, -128 for a key that the query does not see, those of heads `bias_head` apart; 0 for none. A score
 * has bias_step times its bias added, or is `masked`, which lies at least `least` below every other one. */
struct tr_attention {
    int32_t heads, queries, keys, depth, value_depth;
    int32_t score_multiplier, score_shift, least, multiplier, shift;
    int32_t query_zero_point, value_zero_point, output_zero_point;
    int32_t bias_step, masked, bias_head;
};
#define TR_ATTENTION_SCRATCH_BYTES(keys) (4 * (keys))
void tr_attention_s8(int8_t *restrict out, const int8_t *restrict queries, const int8_t *restrict keys, const int8_t *restrict values,
                     const int8_t *restrict bias, const struct tr_attention *restrict p, int16_t *restrict scratch);

/* The same, two queries of a head at a time, with generated loops; rows of key_words and of value_words are filled up with zeros.
 * shares: not 0 where queries that are equal are computed once. bias: as of tr_attention_s8, 0 for none. */
struct tr_attention_pairs {
    int32_t heads, queries, keys, depth, value_depth, key_words, value_words, shares;
    int32_t multiplier, shift, query_zero_point, value_zero_point, output_zero_point;
    void (*score)(int32_t *out, const uint32_t *columns, const uint32_t *rows, int32_t groups);
    void (*weigh)(int32_t *scores, int16_t *weights, const uint16_t *powers);
    void (*blend)(int32_t *out, const uint32_t *columns, const uint32_t *rows, int32_t groups);
    const int8_t *bias;
    int32_t bias_head, bias_step, masked;
};
void tr_attention_pairs_s8(int8_t *restrict out, const int8_t *restrict queries, const int8_t *restrict keys,
                           const int8_t *restrict values, const struct tr_attention_pairs *restrict p, int32_t *restrict scratch);

/* n values amid constant ones, `before` and `behind` of them, which `values` holds one after the other. */
struct tr_extend {
    int32_t n, before, behind;
};
void tr_extend_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict values, const struct tr_extend *restrict p);

/* Products of matrices of two activations, one for each head, whose values lie anywhere: `first` is where the first one lies, the
 * others say how far the next head's, row's and column's is; `inner` those of which products are summed. Columns of the output
 * lie side by side. */
struct tr_matmul {
    int32_t heads, rows, inner, columns;
    int32_t left_first, left_head, left_row, left_inner, right_first, right_head, right_inner, right_column;
    int32_t out_head, out_row;
    int32_t left_zero_point, right_zero_point, output_zero_point, multiplier, shift;
};
#define TR_MATMUL_SCRATCH_BYTES(inner) ((2 * (inner) + 3) / 4 * 4)
void tr_matmul_s8(int8_t *restrict out, const int8_t *restrict left, const int8_t *restrict right, const struct tr_matmul *restrict p,
                  int16_t *restrict scratch);

#endif
