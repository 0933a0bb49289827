/* unpacked.c: the C around convolutions whose weights are immediates of generated code.
 *
 * The output's pixels are taken four at a time, and `strip` fours for each pair of output channels. The windows of four pixels
 * are gathered as bytes, padding as the zero point, widened and interleaved by p->interleave; then each of p->products writes two
 * channels of the whole strip. Of pixels that do not divide by four the first ones are written twice.
 * Scratch: strip * 4 * 2 * fours words of columns, 4 * fours words of bytes. */
#include "dot.h"
#include "requantize.h"
#include "tinyredux.h"

static int8_t *put_zero_points(int8_t *restrict to, int32_t zero_point, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        to[i] = (int8_t)zero_point;
    }
    return to + n;
}

static int8_t *put_row(int8_t *restrict to, const int8_t *restrict from, int32_t n)
{
    int32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const uint32_t word = tr_load_s8x4(from + i);
        memcpy(to + i, &word, sizeof word);
    }
    for (; i < n; i++) {
        to[i] = from[i];
    }
    return to + n;
}

static void gather(int8_t *restrict to, const int8_t *restrict in, const struct tr_unpacked *p, int32_t top, int32_t left)
{
    const int32_t first = tr_clamp(-left, 0, p->kernel_w), last = tr_max(tr_min(p->kernel_w, p->in_w - left), first);
    for (int32_t y = top; y < top + p->kernel_h; y++) {
        if (y < 0 || y >= p->in_h || first == last) {
            to = put_zero_points(to, p->input_zero_point, p->kernel_w * p->in_c);
            continue;
        }
        to = put_zero_points(to, p->input_zero_point, first * p->in_c);
        to = put_row(to, in + (y * p->in_w + left + first) * p->in_c, (last - first) * p->in_c);
        to = put_zero_points(to, p->input_zero_point, (p->kernel_w - last) * p->in_c);
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
    if (rest != 0) {
        multiply(out, in, p, 0, 1, scratch);
    }
    for (int32_t first = rest; first < pixels; first += 4 * p->strip) {
        multiply(out, in, p, first, tr_min(p->strip, (pixels - first) / 4), scratch);
    }
}
