/* requantize.h: from int32 accumulators back to int8, rounding twice as LiteRT's reference kernels do.
 *
 * A network that rounds once, as LiteRT's default interpreter does, has a file single_rounding.h beside its model.c, which
 * defines TR_SINGLE_ROUNDING: a multiplier is then the bits of a float, and no shift counts.
 *
 * Every function states what it returns in exact arithmetic; tests compare them with exact fractions. */
#ifndef TR_REQUANTIZE_H
#define TR_REQUANTIZE_H

#include <stdint.h>

#include "check.h"
#include "dot.h"

#if __has_include("single_rounding.h")
#include "single_rounding.h"
#endif

static inline int32_t tr_min(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t tr_max(int32_t a, int32_t b) { return a > b ? a : b; }
static inline int32_t tr_clamp(int32_t x, int32_t low, int32_t high) { return tr_min(tr_max(x, low), high); }

/* How many of the places 0, 1 + holes, 2 * (1 + holes), ... lie before place n; at most 0 where n is. */
static inline int32_t tr_taps(int32_t n, int32_t holes) { return (n + holes) / (1 + holes); }

/* floor(a * b / 2^31 + 1/2), "saturating rounding doubling high multiply". The one product that would need the
 * saturation is INT32_MIN * INT32_MIN; multipliers are never negative, so only softmax.c, which multiplies values, would
 * have to look at it, and there neither factor comes near. */
static inline int32_t tr_high_mul(int32_t a, int32_t b)
{
    TR_ASSERT(a != INT32_MIN || b != INT32_MIN);
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 30)) >> 31);
}

/* x / 2^exponent to the nearest, halves away from zero; exponent in 0 .. 31. */
static inline int32_t tr_round_shift(int32_t x, int32_t exponent)
{
    TR_ASSERT(exponent >= 0 && exponent <= 31);
    const int32_t mask = (int32_t)(((uint32_t)1 << exponent) - 1u);
    const int32_t threshold = (mask >> 1) + (x < 0);
    return (x >> exponent) + ((x & mask) > threshold);
}

/* x * multiplier * 2^(shift - 31), rounded by the product and again by the right shift. A left shift comes first and
 * wraps like the reference's; whoever chooses scales keeps x * 2^shift in 32 bits. */
static inline int32_t tr_requantize(int32_t x, int32_t multiplier, int32_t shift)
{
    const int32_t left = tr_max(shift, 0), right = tr_max(-shift, 0);
    return tr_round_shift(tr_high_mul((int32_t)((uint32_t)x << left), multiplier), right);
}

/* x * the float whose bits are given, to the nearest integer, halves to even; x and the product are rounded to float32. */
static inline int32_t tr_scale_once(int32_t x, int32_t bits)
{
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return tr_round_even((float)x * scale);
}

/* x * factor + constant of floats whose bits are given, to the nearest integer, halves to even; each step is rounded to float32. */
static inline int32_t tr_mean_once(int32_t x, int32_t factor_bits, int32_t constant_bits)
{
    float factor, constant;
    memcpy(&factor, &factor_bits, sizeof factor);
    memcpy(&constant, &constant_bits, sizeof constant);
    volatile const float product = (float)x * factor; /* no VFMA, which would round once */
    return tr_round_even(product + constant);
}

#if !defined(TR_SINGLE_ROUNDING)
/* An accumulator as the int8 that the next layer reads. */
static inline int8_t tr_requantize_s8(int32_t x, int32_t multiplier, int32_t shift, int32_t zero_point, int32_t low, int32_t high)
{
    return (int8_t)tr_clamp(tr_requantize(x, multiplier, shift) + zero_point, low, high);
}
#else
/* The same rounded once; the limits come first, for what is rounded may be the largest int32. */
static inline int8_t tr_requantize_s8(int32_t x, int32_t multiplier, int32_t shift, int32_t zero_point, int32_t low, int32_t high)
{
    (void)shift;
    return (int8_t)(tr_clamp(tr_scale_once(x, multiplier), low - zero_point, high - zero_point) + zero_point);
}
#endif

#endif
