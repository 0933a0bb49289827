/* micro.h: the inner step of every convolution in C: four weights of up to two output channels times four inputs of up to two
 * output pixels. With 2 x 2 sums in registers, each word that is loaded and unpacked takes part in two products.
 *
 * SXTB16 takes bytes 0 and 2 out of a word and, rotated, bytes 1 and 3; a pair of weights meets the pair of the same two inputs,
 * and SMLAD adds both products. The three steps differ in what the inputs are: int16 columns, int8 values whose zero point the
 * caller has moved into the bias, or int8 values whose zero point SXTAB16 takes off. The order of the instructions is that in
 * which everything fits into the registers (see tr_smlad in dot.h); another one makes GCC spill.
 *
 * Accumulator: a product is at most 255 * 127 < 2^15, so k_n <= TR_MOST_VALUES of them stay below 2^30 and, on a bias below 2^30,
 * inside 32 bits. */
#ifndef TR_MICRO_H
#define TR_MICRO_H

#include "dot.h"

#define TR_MOST_VALUES 32768
#define TR_ALWAYS_INLINE static inline __attribute__((always_inline))

/* The sums of output channels a and b for pixels 0 and 1. */
struct tr_sums {
    int32_t a0, a1, b0, b1;
};

/* Adds four weights of two channels times four values of two columns, in the order of columns.h. */
static inline struct tr_sums tr_step_columns(struct tr_sums sums, uint32_t weights_a, uint32_t weights_b, const int16_t *column_0,
                                             const int16_t *column_1)
{
    const uint32_t a_02 = tr_sxtb16(weights_a), a_13 = tr_sxtb16_ror8(weights_a);
    const uint32_t b_02 = tr_sxtb16(weights_b), b_13 = tr_sxtb16_ror8(weights_b);
    const uint32_t x0_02 = tr_load_s16x2(column_0), x1_02 = tr_load_s16x2(column_1);
    sums.a0 = tr_smlad(a_02, x0_02, sums.a0);
    sums.a1 = tr_smlad(a_02, x1_02, sums.a1);
    sums.b0 = tr_smlad(b_02, x0_02, sums.b0);
    sums.b1 = tr_smlad(b_02, x1_02, sums.b1);
    const uint32_t x0_13 = tr_load_s16x2(column_0 + 2), x1_13 = tr_load_s16x2(column_1 + 2);
    sums.a0 = tr_smlad(a_13, x0_13, sums.a0);
    sums.a1 = tr_smlad(a_13, x1_13, sums.a1);
    sums.b0 = tr_smlad(b_13, x0_13, sums.b0);
    sums.b1 = tr_smlad(b_13, x1_13, sums.b1);
    return sums;
}

/* Adds four weights of two channels times four int8 values of two pixels, the zero point left in. */
static inline struct tr_sums tr_step_raw(struct tr_sums sums, const int8_t *weights, const int8_t *in, int32_t next_channel,
                                         int32_t next_pixel)
{
    const uint32_t word_b = tr_load_s8x4(weights + next_channel), word_a = tr_load_s8x4(weights);
    const uint32_t a_02 = tr_sxtb16(word_a), a_13 = tr_sxtb16_ror8(word_a);
    const uint32_t b_02 = tr_sxtb16(word_b), b_13 = tr_sxtb16_ror8(word_b);
    const uint32_t word_1 = tr_load_s8x4(in + next_pixel), word_0 = tr_load_s8x4(in);
    const uint32_t x0_02 = tr_sxtb16(word_0), x0_13 = tr_sxtb16_ror8(word_0);
    sums.a0 = tr_smlad(a_02, x0_02, sums.a0);
    sums.b0 = tr_smlad(b_02, x0_02, sums.b0);
    sums.a0 = tr_smlad(a_13, x0_13, sums.a0);
    sums.b0 = tr_smlad(b_13, x0_13, sums.b0);
    const uint32_t x1_02 = tr_sxtb16(word_1), x1_13 = tr_sxtb16_ror8(word_1);
    sums.a1 = tr_smlad(a_02, x1_02, sums.a1);
    sums.b1 = tr_smlad(b_02, x1_02, sums.b1);
    sums.a1 = tr_smlad(a_13, x1_13, sums.a1);
    sums.b1 = tr_smlad(b_13, x1_13, sums.b1);
    return sums;
}

/* The same in an order that needs one register less: pixel 1 is loaded when the products of pixel 0 are done, for which the M7
 * and the M33 wait. For callers that keep four pointers and would spill in the order above. */
TR_ALWAYS_INLINE struct tr_sums tr_step_raw_late(struct tr_sums sums, const int8_t *weights_a, const int8_t *weights_b,
                                                 const int8_t *in_0, const int8_t *in_1)
{
    const uint32_t word_a = tr_load_s8x4(weights_a), word_b = tr_load_s8x4(weights_b);
    const uint32_t a_02 = tr_sxtb16(word_a), a_13 = tr_sxtb16_ror8(word_a);
    const uint32_t b_02 = tr_sxtb16(word_b), b_13 = tr_sxtb16_ror8(word_b);
    const uint32_t word_0 = tr_load_s8x4(in_0), x0_02 = tr_sxtb16(word_0);
    sums.a0 = tr_smlad(a_02, x0_02, sums.a0);
    sums.b0 = tr_smlad(b_02, x0_02, sums.b0);
    const uint32_t x0_13 = tr_sxtb16_ror8(word_0);
    sums.a0 = tr_smlad(a_13, x0_13, sums.a0);
    sums.b0 = tr_smlad(b_13, x0_13, sums.b0);
    const uint32_t word_1 = tr_load_s8x4(in_1), x1_02 = tr_sxtb16(word_1);
    sums.a1 = tr_smlad(a_02, x1_02, sums.a1);
    sums.b1 = tr_smlad(b_02, x1_02, sums.b1);
    const uint32_t x1_13 = tr_sxtb16_ror8(word_1);
    sums.a1 = tr_smlad(a_13, x1_13, sums.a1);
    sums.b1 = tr_smlad(b_13, x1_13, sums.b1);
    return sums;
}

/* Which of the 2 x 2 sums there are: 1 where there is a second channel, a second pixel, else 0. */
struct tr_tile {
    int32_t two_channels, two_pixels;
};

/* Four weights of channels a and b and four inputs of pixels 0 and 1; those outside the tile are not looked at. */
struct tr_words {
    uint32_t a, b, x0, x1;
};

/* Adds four products to each sum of a tile, the zero point taken off the inputs. The tile is a constant of every caller, so that each
 * tile becomes a function of its own. */
TR_ALWAYS_INLINE struct tr_sums tr_step_tile(struct tr_sums sums, struct tr_words words, uint32_t minus_zero_point,
                                             struct tr_tile tile)
{
    const uint32_t a_02 = tr_sxtb16(words.a), a_13 = tr_sxtb16_ror8(words.a);
    const uint32_t x0_02 = tr_sxtab16(minus_zero_point, words.x0), x0_13 = tr_sxtab16_ror8(minus_zero_point, words.x0);
    sums.a0 = tr_smlad(a_13, x0_13, tr_smlad(a_02, x0_02, sums.a0));
    if (tile.two_channels) {
        const uint32_t b_02 = tr_sxtb16(words.b), b_13 = tr_sxtb16_ror8(words.b);
        sums.b0 = tr_smlad(b_13, x0_13, tr_smlad(b_02, x0_02, sums.b0));
        if (tile.two_pixels) {
            const uint32_t x1_02 = tr_sxtab16(minus_zero_point, words.x1), x1_13 = tr_sxtab16_ror8(minus_zero_point, words.x1);
            sums.a1 = tr_smlad(a_13, x1_13, tr_smlad(a_02, x1_02, sums.a1));
            sums.b1 = tr_smlad(b_13, x1_13, tr_smlad(b_02, x1_02, sums.b1));
        }
    } else if (tile.two_pixels) {
        const uint32_t x1_02 = tr_sxtab16(minus_zero_point, words.x1), x1_13 = tr_sxtab16_ror8(minus_zero_point, words.x1);
        sums.a1 = tr_smlad(a_13, x1_13, tr_smlad(a_02, x1_02, sums.a1));
    }
    return sums;
}

/* Returns sum and the products of n weights with n inputs, the zero point taken off the inputs. */
static inline int32_t tr_dot(int32_t sum, const int8_t *weights, const int8_t *in, int32_t n, int32_t zero_point)
{
    const uint32_t minus_zero_point = tr_twice_s16(-zero_point);
    for (; n >= 4; n -= 4, weights += 4, in += 4) {
        const uint32_t w = tr_load_s8x4(weights), x = tr_load_s8x4(in);
        sum = tr_smlad(tr_sxtb16(w), tr_sxtab16(minus_zero_point, x), sum);
        sum = tr_smlad(tr_sxtb16_ror8(w), tr_sxtab16_ror8(minus_zero_point, x), sum);
    }
    for (; n > 0; n--) {
        sum += *weights++ * (*in++ - zero_point);
    }
    return sum;
}

/* Adds the weighted values of four channels to sums; from key to key the values lie `next` apart. */
static inline void tr_add_four(int32_t sums[4], const int8_t *value, const int16_t *weights, int32_t keys, int32_t next)
{
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3], k = 0;
    for (; k + 2 <= keys; k += 2, value += 2 * next) {
        const uint32_t a = tr_load_s8x4(value), b = tr_load_s8x4(value + next), pair = tr_load_s16x2(weights + k);
        const uint32_t a_02 = tr_sxtb16(a), a_13 = tr_sxtb16_ror8(a), b_02 = tr_sxtb16(b), b_13 = tr_sxtb16_ror8(b);
        s0 = tr_smlad((a_02 & 0xffffu) | b_02 << 16, pair, s0);
        s1 = tr_smlad((a_13 & 0xffffu) | b_13 << 16, pair, s1);
        s2 = tr_smlad(a_02 >> 16 | (b_02 & 0xffff0000u), pair, s2);
        s3 = tr_smlad(a_13 >> 16 | (b_13 & 0xffff0000u), pair, s3);
    }
    const int32_t last = k < keys ? tr_load_s16(weights + k) : 0;
    const uint32_t word = k < keys ? tr_load_s8x4(value) : 0, x_02 = tr_sxtb16(word), x_13 = tr_sxtb16_ror8(word);
    sums[0] = s0 + last * tr_low(x_02);
    sums[1] = s1 + last * tr_low(x_13);
    sums[2] = s2 + last * tr_high(x_02);
    sums[3] = s3 + last * tr_high(x_13);
}

#endif
