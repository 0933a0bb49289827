/* unpacked.c: the C around convolutions whose weights are immediates of generated code.
 *
 * The output's pixels are taken four at a time, and `strip` fours for each pair of output channels. The windows of four pixels
 * are gathered as bytes, padding as the zero point, widened and interleaved by p->interleave; then each of p->products writes two
 * channels of the whole strip. Of pixels that do not divide by four the first ones are written twice.
 *
 * Layouts: input [in_h][in_w][in_c], output [out_h][out_w][out_c]; there are no weights in memory.
 * Accumulator: two channels share one, so the library takes this kernel only for weights of which no sum reaches 2^23.
 * Scratch: strip * 4 * 2 * fours words of columns, 4 * fours words of bytes. */
#include "gather.h"
#include "requantize.h"
#include "tinyredux.h"

static void gather(int8_t *restrict to, const int8_t *restrict in, const struct tr_unpacked *p, int32_t top, int32_t left)
{
    const int32_t first = tr_clamp(-left, 0, p->kernel_w), last = tr_max(tr_min(p->kernel_w, p->in_w - left), first);
    for (int32_t y = top; y < top + p->kernel_h; y++) {
        if (y < 0 || y >= p->in_h || first == last) {
            to = tr_put_padding(to, p->input_zero_point, p->kernel_w * p->in_c);
            continue;
        }
        to = tr_put_padding(to, p->input_zero_point, first * p->in_c);
        to = tr_put_values(to, in + (y * p->in_w + left + first) * p->in_c, (last - first) * p->in_c);
        to = tr_put_padding(to, p->input_zero_point, (p->kernel_w - last) * p->in_c);
    }
}

static void multiply(int8_t *restrict out, const int8_t *restrict in, const struct tr_unpacked *p, int32_t first, int32_t quads,
                     int32_t *restrict scratch)
{
    int32_t *const columns = scratch;
    int8_t *const bytes = (int8_t *)(scratch + p->strip * 8 * p->fours);
    int32_t y = first / p->out_w, x = first % p->out_w;
    for (int32_t i = 0; i < quads; i++) {
        for (int32_t pixel = 0; pixel < 4; pixel++) {
            gather(bytes + 4 * p->fours * pixel, in, p, y * p->stride_h - p->pad_top, x * p->stride_w - p->pad_left);
            x++;
            if (x == p->out_w) {
                x = 0;
                y++;
            }
        }
        p->interleave(columns + 8 * p->fours * i, bytes, p->fours);
    }
    for (int32_t pair = 0; pair < p->pairs; pair++) {
        p->products[pair](out + first * p->out_c + 2 * pair, columns, quads);
    }
}

void tr_unpacked_conv_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_unpacked *restrict p,
                         int32_t *restrict scratch)
{
    const int32_t pixels = p->out_h * p->out_w, rest = pixels % 4;
    TR_ASSERT(pixels >= 4 && p->strip > 0);
    if (rest != 0) {
        multiply(out, in, p, 0, 1, scratch);
    }
    for (int32_t first = rest; first < pixels; first += 4 * p->strip) {
        multiply(out, in, p, first, tr_min(p->strip, (pixels - first) / 4), scratch);
    }
}
