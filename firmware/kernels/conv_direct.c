/* conv_direct.c: int8 convolution of one group without scratch, between maps with gaps, for partial execution.
 *
 * The kernel is multiplied where it lies in the map (field.h), for two output channels and two output pixels at a time.
 * Input [in_h][in_w][in_c] and output [out_h][out_w][out_c] may have gaps; weights [out_c][kernel_h][kernel_w][in_c].
 *
 * Accumulator: see micro.h. Scratch: none. */
#include "field.h"

void tr_conv_direct_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict weights,
                       const int32_t *restrict bias, const struct tr_conv *restrict p)
{
    const int32_t out_c = p->out_c, pixel = p->out_pixel ? p->out_pixel : out_c, row = p->out_row ? p->out_row : p->out_w * pixel;
    const uint32_t minus_zero_point = tr_twice_s16(-p->input_zero_point);
    for (int32_t y = 0; y < p->out_h; y++) {
        int8_t *to = out + y * row;
        for (int32_t x = 0, pair; x < p->out_w; x += 1 + pair, to += pixel + pair * pixel) {
            const struct tr_field field = tr_field_at(in, weights, p, y, x);
            pair = field.pair;
            for (int32_t c = 0; c < out_c; c += 2) {
                const int32_t two = c + 1 < out_c, bias_b = two ? bias[c + 1] : 0;
                const struct tr_sums start = {bias[c], bias[c], bias_b, bias_b};
                const struct tr_sums sums = tr_field_sums(&field, start, c, minus_zero_point);
                to[c] = tr_conv_output(sums.a0, c, p);
                if (two) {
                    to[c + 1] = tr_conv_output(sums.b0, c + 1, p);
                }
                if (pair) {
                    to[pixel + c] = tr_conv_output(sums.a1, c, p);
                }
                if (pair && two) {
                    to[pixel + c + 1] = tr_conv_output(sums.b1, c + 1, p);
                }
            }
        }
    }
}
