/* mul.c: product of two int8 tensors, the second of the first one's shape, or of a value for each channel or place.
 *
 * Range: |value - zero_point| <= 255, so a product is below 2^16. The output may lie where an input of its shape does.
 * Scratch: none. */
#include "requantize.h"
#include "tinyredux.h"

void tr_mul_s8(int8_t *out, const int8_t *a, const int8_t *b, const struct tr_mul *restrict p)
{
    const int32_t c_n = p->c, a_zero_point = p->a_zero_point, b_zero_point = p->b_zero_point, multiplier = p->multiplier;
    const int32_t b_each = p->b_each, shift = p->shift, out_zero_point = p->out_zero_point, low = p->activation_min, high = p->activation_max;
    for (int32_t y = 0; y < p->h; y++) {
        for (int32_t x = 0; x < p->w; x++) {
            const int8_t *const left = a + y * p->a_row + x * p->a_pixel, *const right = b + y * p->b_row + x * p->b_pixel;
            int8_t *const to = out + y * p->out_row + x * p->out_pixel;
            for (int32_t c = 0; c < c_n; c++) {
                const int32_t product = (left[c] - a_zero_point) * (right[c * b_each] - b_zero_point);
                to[c] = tr_requantize_s8(product, multiplier, shift, out_zero_point, low, high);
            }
        }
    }
}
