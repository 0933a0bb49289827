/* phases.c: a map's phases, between which a dilated convolution is one without dilation.
 *
 * Phase (a, b) of a map holds its rows a, a + dilation_h, ... and its columns b, b + dilation_w, ...: a window with holes meets
 * neighbours there. Of a map with its padding around it, tr_phase_take_s8 writes one phase without gaps, the padding as the zero
 * point; tr_phase_put_s8 writes back what was computed of it. Phases that are smaller than others are filled up.
 *
 * Layouts: maps [h][w][c]; phases [part_h][part_w][c]. Scratch: none. */
#include "gather.h"
#include "requantize.h"
#include "tinyredux.h"

void tr_phase_take_s8(int8_t *restrict to, const int8_t *restrict in, const struct tr_phases *restrict p, int32_t phase)
{
    const int32_t channels = p->in_c, columns = p->part_in_w, step = p->dilation_w * channels;
    const int32_t top = phase / p->dilation_w - p->pad_top, left = phase % p->dilation_w - p->pad_left;
    const int32_t first = tr_clamp(tr_taps(-left, p->dilation_w - 1), 0, columns);
    const int32_t last = tr_max(tr_min(tr_taps(p->in_w - left, p->dilation_w - 1), columns), first);
    for (int32_t i = 0, y = top; i < p->part_in_h; i++, y += p->dilation_h) {
        if (y < 0 || y >= p->in_h || first == last) {
            to = tr_put_padding(to, p->zero_point, columns * channels);
            continue;
        }
        const int8_t *from = in + (y * p->in_w + left + first * p->dilation_w) * channels;
        to = tr_put_padding(to, p->zero_point, first * channels);
        for (int32_t j = first; j < last; j++, from += step) {
            to = tr_put_values(to, from, channels);
        }
        to = tr_put_padding(to, p->zero_point, (columns - last) * channels);
    }
}

void tr_phase_put_s8(int8_t *restrict out, const int8_t *restrict from, const struct tr_phases *restrict p, int32_t phase)
{
    const int32_t channels = p->out_c, left = phase % p->dilation_w;
    for (int32_t y = phase / p->dilation_w; y < p->out_h; y += p->dilation_h, from += p->part_out_w * channels) {
        const int8_t *pixel = from;
        for (int32_t x = left; x < p->out_w; x += p->dilation_w, pixel += channels) {
            tr_put_values(out + (y * p->out_w + x) * channels, pixel, channels);
        }
    }
}
