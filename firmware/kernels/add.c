/* add.c: sum and difference of two int8 tensors of n values, each with its own scale.
 *
 * Both are brought to a common scale, twice the larger one, with left_shift = 20 more bits than int8 has, added, and
 * brought to the output's scale. The inputs may be the same tensor, and the output may lie where an input does.
 *
 * With single rounding each value less its zero point is multiplied by a factor of its own, that of what is taken off is
 * negative, the sum shifted once.
 *
 * Range: |value - zero_point| <= 255, times 2^20 is below 2^28; each scaled term is at most half of that. Scratch: none. */
#include "requantize.h"
#include "tinyredux.h"

#if defined(TR_SINGLE_ROUNDING)
void tr_add_s8(int8_t *out, const int8_t *a, const int8_t *b, const struct tr_add *restrict p)
{
    const int32_t n = p->n, a_zero_point = p->a_zero_point, b_zero_point = p->b_zero_point, right = -p->out_shift;
    const int32_t a_multiplier = p->a_multiplier, b_multiplier = p->b_multiplier, half = (int32_t)1 << (right - 1);
    const int32_t low = p->activation_min, high = p->activation_max;
    TR_ASSERT(right >= 13 && right <= 30 && a_multiplier <= 1 << 21 && b_multiplier <= 1 << 21);
    for (int32_t row = tr_max(p->rows, 1); row > 0; row--, a += p->a_row, b += p->b_row, out += p->out_row) {
        for (int32_t i = 0; i < n; i++) {
            const int32_t sum = (a[i] - a_zero_point) * a_multiplier + (b[i] - b_zero_point) * b_multiplier + half;
            out[i] = (int8_t)tr_clamp((sum >> right) + p->out_zero_point, low, high);
        }
    }
}

/* A factor below 0 subtracts. */
void tr_sub_s8(int8_t *out, const int8_t *a, const int8_t *b, const struct tr_add *restrict p) { tr_add_s8(out, a, b, p); }
#else
static inline void combine(int8_t *out, const int8_t *a, const int8_t *b, const struct tr_add *restrict p, int32_t sign)
{
    const int32_t n = p->n, a_zero_point = p->a_zero_point, b_zero_point = p->b_zero_point, unit = (int32_t)1 << p->left_shift;
    const int32_t a_multiplier = p->a_multiplier, b_multiplier = p->b_multiplier, out_multiplier = p->out_multiplier;
    const int32_t a_right = -p->a_shift, b_right = -p->b_shift, out_right = -p->out_shift;
    const int32_t out_zero_point = p->out_zero_point, low = p->activation_min, high = p->activation_max;
    TR_ASSERT(p->left_shift == 20 && a_right >= 0 && b_right >= 0 && out_right >= 0);
    for (int32_t row = tr_max(p->rows, 1); row > 0; row--, a += p->a_row, b += p->b_row, out += p->out_row) {
        for (int32_t i = 0; i < n; i++) {
            const int32_t scaled_a = tr_round_shift(tr_high_mul((a[i] - a_zero_point) * unit, a_multiplier), a_right);
            const int32_t scaled_b = tr_round_shift(tr_high_mul((b[i] - b_zero_point) * unit, b_multiplier), b_right);
            const int32_t sum = tr_round_shift(tr_high_mul(scaled_a + sign * scaled_b, out_multiplier), out_right);
            out[i] = (int8_t)tr_clamp(sum + out_zero_point, low, high);
        }
    }
}

void tr_add_s8(int8_t *out, const int8_t *a, const int8_t *b, const struct tr_add *restrict p) { combine(out, a, b, p, 1); }

void tr_sub_s8(int8_t *out, const int8_t *a, const int8_t *b, const struct tr_add *restrict p) { combine(out, a, b, p, -1); }
#endif
