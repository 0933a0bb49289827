/* softmax.c: int8 softmax over rows of n values, in the fixed-point arithmetic of LiteRT's reference kernel.
 *
 * Numbers are "Qm": int32 with m integer bits, value = raw / 2^(31 - m). Differences to the row's largest value are Q5,
 * exponentials Q0, their sum Q12; the reciprocal of the sum comes from Newton's method. The output scale is 1/256 and its
 * zero point -128.
 *
 * Range: the Q12 sum holds rows of fewer than 4096 values. Differences below diff_min count as exp = 0, which also keeps
 * difference * 2^shift in 32 bits. Scratch: none. */
#include "requantize.h"
#include "tinyredux.h"

#define ONE_Q0 INT32_MAX
#define ONE_Q2 ((int32_t)1 << 29)
#define SUM_INTEGER_BITS 12

/* x * 2^exponent, saturating. */
static int32_t shift_left_saturating(int32_t x, int32_t exponent)
{
    const int32_t limit = INT32_MAX >> exponent;
    if (x > limit) {
        return INT32_MAX;
    }
    return x < -limit - 1 ? INT32_MIN : x * ((int32_t)1 << exponent);
}

/* exp(x) for Q0 x in [-1/4, 0): Taylor series of degree 4 around -1/8; Q0. */
static int32_t exp_between_minus_quarter_and_0(int32_t x)
{
    const int32_t exp_minus_eighth = 1895147668, third = 715827883;
    const int32_t t = x + ((int32_t)1 << 28);
    const int32_t t2 = tr_high_mul(t, t), t3 = tr_high_mul(t2, t), t4 = tr_high_mul(t2, t2);
    const int32_t high_terms = tr_round_shift(tr_high_mul(tr_round_shift(t4, 2) + t3, third) + t2, 1);
    return exp_minus_eighth + tr_high_mul(exp_minus_eighth, t + high_terms);
}

/* exp(x) for Q5 x <= 0; Q0. The fraction modulo 1/4 by the series, each remaining bit by one product. */
static int32_t exp_not_positive(int32_t x)
{
    static const int32_t exp_minus_power[7] = {1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242};
    const int32_t quarter = (int32_t)1 << 24;
    const int32_t fraction = (x & (quarter - 1)) - quarter;
    const int32_t remainder = fraction - x;
    int32_t result = exp_between_minus_quarter_and_0(shift_left_saturating(fraction, 5));
    for (int32_t i = 0; i < 7; i++) { /* exp(-2^(i - 2)) */
        if ((remainder & (quarter << i)) != 0) {
            result = tr_high_mul(result, exp_minus_power[i]);
        }
    }
    return x == 0 ? ONE_Q0 : result;
}

/* 1 / (1 + x) for Q0 x in [0, 1]: three steps of Newton's method on (1 + x) / 2; Q0. */
static int32_t reciprocal_of_one_plus(int32_t x)
{
    const int32_t half_denominator = (int32_t)(((int64_t)x + ONE_Q0 + 1) / 2);
    const int32_t q2_48_over_17 = 1515870810, q2_minus_32_over_17 = -1010580540;
    int32_t estimate = q2_48_over_17 + tr_high_mul(half_denominator, q2_minus_32_over_17);
    for (int32_t i = 0; i < 3; i++) {
        const int32_t error = ONE_Q2 - tr_high_mul(half_denominator, estimate);
        estimate += shift_left_saturating(tr_high_mul(estimate, error), 2);
    }
    return shift_left_saturating(estimate, 1);
}

static int32_t leading_zeros(uint32_t x)
{
    int32_t count = 0;
    for (; count < 32 && (x & 0x80000000u) == 0; count++) {
        x <<= 1;
    }
    return count;
}

static int32_t exp_of_difference(int32_t difference, const struct tr_softmax *p)
{
    return exp_not_positive(tr_high_mul((int32_t)((uint32_t)difference << p->shift), p->multiplier));
}

static void softmax_row(int8_t *restrict out, const int8_t *restrict in, const struct tr_softmax *restrict p)
{
    int32_t largest = INT8_MIN, sum = 0;
    for (int32_t i = 0; i < p->n; i++) {
        largest = tr_max(largest, in[i]);
    }
    for (int32_t i = 0; i < p->n; i++) {
        const int32_t difference = in[i] - largest;
        if (difference >= p->diff_min) {
            sum += tr_round_shift(exp_of_difference(difference, p), SUM_INTEGER_BITS);
        }
    }
    const int32_t headroom = leading_zeros((uint32_t)sum);
    const int32_t scale = reciprocal_of_one_plus((int32_t)(((uint32_t)sum << headroom) - 0x80000000u));
    const int32_t right = SUM_INTEGER_BITS - headroom + 31 - 8;
    for (int32_t i = 0; i < p->n; i++) {
        const int32_t difference = in[i] - largest;
        out[i] = INT8_MIN;
        if (difference >= p->diff_min) {
            /* from a sum of 512 on, where no share reaches half a step, the shift would leave the 31 bits */
            const int32_t share = right > 31 ? 0 : tr_round_shift(tr_high_mul(scale, exp_of_difference(difference, p)), right);
            out[i] = (int8_t)tr_clamp(share + INT8_MIN, INT8_MIN, INT8_MAX);
        }
    }
}

void tr_softmax_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_softmax *restrict p)
{
    TR_ASSERT(p->n < 4096 && p->shift >= 0 && p->diff_min <= 0);
    for (int32_t row = 0; row < p->rows; row++) {
        softmax_row(out + row * p->n, in + row * p->n, p);
    }
}

static float float_of(int32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

void tr_softmax_once_s8(int8_t *restrict out, const int8_t *restrict in, const int32_t *restrict exps,
                        const struct tr_softmax *restrict p)
{
    for (int32_t row = 0; row < p->rows; row++, in += p->n, out += p->n) {
        int32_t largest = INT8_MIN;
        float sum = 0.0f;
        for (int32_t i = 0; i < p->n; i++) {
            largest = tr_max(largest, in[i]);
        }
        for (int32_t i = 0; i < p->n; i++) {
            sum += float_of(exps[largest - in[i]]);
        }
        const float scale = 1.0f / (sum * (1.0f / 256));
        for (int32_t i = 0; i < p->n; i++) {
            const int32_t share = tr_round_away(float_of(exps[largest - in[i]]) * scale);
            out[i] = (int8_t)tr_min(share + INT8_MIN, INT8_MAX);
        }
    }
}
