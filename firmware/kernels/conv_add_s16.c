/* conv_add_s16.c: convolution fed with slices of the input's channels, for partial execution; sums of 16 bits, lossy.
 *
 * As conv_add_s32.c, but a sum is held as round(sum / 2^right[c]) and rounded once for each slice. The caller chooses `right` so
 * that they fit; what does not is clamped to int16.
 *
 * Accumulator: a slice's sums are int32 (micro.h) before they are shifted. Scratch: none. */
#include "field.h"

void tr_sums_start_s16(int16_t *restrict sums, const int32_t *restrict bias, const int32_t *restrict right,
                       const struct tr_conv *restrict p)
{
    for (int32_t pixel = p->out_h * p->out_w; pixel > 0; pixel--, sums += p->out_c) {
        for (int32_t c = 0; c < p->out_c; c++) {
            TR_ASSERT(right[c] >= 0 && right[c] <= 31);
            sums[c] = (int16_t)tr_clamp(tr_round_shift(bias[c], right[c]), INT16_MIN, INT16_MAX);
        }
    }
}

void tr_conv_add_s16(int16_t *restrict sums, const int8_t *restrict in, const int8_t *restrict weights,
                     const int32_t *restrict right, const struct tr_conv *restrict p)
{
    const int32_t out_c = p->out_c;
    const uint32_t minus_zero_point = tr_twice_s16(-p->input_zero_point);
    for (int32_t y = 0; y < p->out_h; y++) {
        for (int32_t x = 0; x < p->out_w; x++, sums += out_c) {
            const struct tr_field field = tr_field_at(in, weights, p, y, x);
            for (int32_t c = 0; c < out_c; c++) {
                const int8_t *of_channel = field.weights + c * field.next_channel;
                const struct tr_sums sum = tr_field_1x1((struct tr_sums){0, 0, 0, 0}, &field, of_channel, minus_zero_point);
                sums[c] = (int16_t)tr_clamp(sums[c] + tr_round_shift(sum.a0, right[c]), INT16_MIN, INT16_MAX);
            }
        }
    }
}

void tr_sums_finish_s16(int8_t *out, const int16_t *sums, const int32_t *restrict right, const struct tr_conv *restrict p)
{
    const int32_t out_c = p->out_c, pixel = p->out_pixel ? p->out_pixel : out_c, row = p->out_row ? p->out_row : p->out_w * pixel;
    for (int32_t y = 0; y < p->out_h; y++) {
        for (int32_t x = 0; x < p->out_w; x++, sums += out_c) {
            int8_t *const to = out + y * row + x * pixel;
            for (int32_t c = 0; c < out_c; c++) {
                to[c] = tr_conv_output((int32_t)((uint32_t)sums[c] << right[c]), c, p);
            }
        }
    }
}
