/* layer_norm.c: rows of n values less their mean, over the root of their variance.
 *
 * Everything is n times as large, so that no mean is rounded: n * x - sum over the root of n * sum of squares - sum^2 + epsilon,
 * under which epsilon has 2 * ROOT_BITS bits behind the point.
 * The root is taken of that times 4^up, which fills 62 bits, and has 31; it divides the factor of the output, once a row.
 *
 * Range: n < 65536, so sums of squares stay below 2^30 and n * x - sum below 2^24, which leaves room for the NORM_BITS
 * that a value keeps until its second rounding; epsilon is at most 2^60. Scratch: none. */
#include "micro.h"
#include "requantize.h"
#include "tinyredux.h"

#define ROOT_BITS 6
#define NORM_BITS 7

/* The largest integer whose square is at most x < 2^62. */
static uint32_t root_of(uint64_t x)
{
    uint32_t root = 0;
    for (uint32_t bit = (uint32_t)1 << 30; bit != 0; bit >>= 1) {
        const uint32_t more = root | bit;
        root = (uint64_t)more * more <= x ? more : root;
    }
    return root;
}

static void normalise_row(int8_t *restrict out, const int8_t *restrict in, const struct tr_layer_norm *restrict p)
{
    const int32_t n = p->n, zero_point = p->output_zero_point;
    int32_t total = 0, squares = 0, i = 0, up = 0;
    for (; i + 4 <= n; i += 4) {
        const uint32_t word = tr_load_s8x4(in + i), x_02 = tr_sxtb16(word), x_13 = tr_sxtb16_ror8(word);
        total = tr_smlad(x_13, tr_twice_s16(1), tr_smlad(x_02, tr_twice_s16(1), total));
        squares = tr_smlad(x_13, x_13, tr_smlad(x_02, x_02, squares));
    }
    for (; i < n; i++) {
        total += in[i];
        squares += in[i] * in[i];
    }
    uint64_t spread = (uint64_t)((int64_t)n * squares - (int64_t)total * total) << 2 * ROOT_BITS;
    spread += (uint64_t)p->epsilon;
    for (int32_t step = 16; step > 0; step /= 2) {
        if (spread < (uint64_t)1 << (62 - 2 * step)) {
            spread <<= 2 * step;
            up += step;
        }
    }
    const int32_t multiplier = (int32_t)(((uint64_t)p->multiplier << 30) / root_of(spread));
    const int32_t shift = tr_min(p->shift + up + ROOT_BITS - NORM_BITS - 30, 31);
    for (i = 0; i < n; i++) {
        const int32_t value = tr_requantize((n * in[i] - total) * (1 << NORM_BITS), multiplier, shift);
        out[i] = (int8_t)tr_clamp(value + zero_point, INT8_MIN, INT8_MAX);
    }
}

void tr_layer_norm_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_layer_norm *restrict p)
{
    TR_ASSERT(p->n < 65536 && p->epsilon >= 1 && p->epsilon <= (int64_t)1 << 60 && p->shift >= 0);
    for (int32_t row = 0; row < p->rows; row++) {
        normalise_row(out + row * p->n, in + row * p->n, p);
    }
}
