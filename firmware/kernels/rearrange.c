/* rearrange.c: values at other places: crops, splits, strides, nearest upsampling, pixel and channel shuffles, maps between zeros.
 *
 * Output row y is input row start_h + (y + phase_h) / repeat_h * step_h, columns alike. Output channel c is input channel
 * first_c + (c % groups) * (out_c / groups) + c / groups * step_c; with `blocks` the place within the repeated pixel is added.
 * With `zeros` all but the first of the repeated rows and columns hold the zero point. Scratch: none. */
#include "check.h"
#include "tinyredux.h"

static void put_pixel(int8_t *restrict out, const int8_t *restrict in, const struct tr_rearrange *restrict p)
{
    const int32_t groups = p->groups, each = p->out_c / groups, step = p->step_c;
    for (int32_t i = 0; i < each; i++, in += step) {
        for (int32_t j = 0; j < groups; j++) {
            *out++ = in[j * each];
        }
    }
}

void tr_rearrange_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_rearrange *restrict p)
{
    for (int32_t y = 0; y < p->out_h; y++) {
        const int32_t turn_h = y + p->phase_h, row = turn_h % p->repeat_h;
        const int8_t *const line = in + (p->start_h + turn_h / p->repeat_h * p->step_h) * p->in_row + p->first_c;
        for (int32_t x = 0; x < p->out_w; x++) {
            const int32_t turn_w = x + p->phase_w, column = turn_w % p->repeat_w, at = p->start_w + turn_w / p->repeat_w * p->step_w;
            int8_t *const to = out + y * p->out_row + x * p->out_pixel;
            TR_ASSERT(at < p->in_w && (line - in) / p->in_row < p->in_h);
            if (p->zeros && (row > 0 || column > 0)) {
                for (int32_t c = 0; c < p->out_c; c++) {
                    to[c] = (int8_t)p->zero_point;
                }
            } else {
                put_pixel(to, line + at * p->in_pixel + (p->blocks ? row * p->repeat_w + column : 0), p);
            }
        }
    }
}
