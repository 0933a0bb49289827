/* rearrange.c: values at other places: crops, splits, strides, nearest upsampling, pixel and channel shuffles, maps between zeros.
 *
 * Output row y is input row start_h + (y + phase_h) / repeat_h * step_h, columns alike. Output channel c is input channel
 * first_c + (c % groups) * (out_c / groups) + c / groups * step_c; with `blocks` the place within the repeated pixel is added.
 * With `zeros` all but the first of the repeated rows and columns hold the zero point. Channels that stay in their order are
 * copied by words, and a row of such pixels without gaps at once. Scratch: none. */
#include "check.h"
#include "dot.h"
#include "tinyredux.h"

static inline void copy_eight(int8_t *restrict out, const int8_t *restrict in)
{
    const uint32_t first = tr_load_s8x4(in), second = tr_load_s8x4(in + 4);
    tr_store_s8x4(out, first);
    tr_store_s8x4(out + 4, second);
}

/* Eight at a time; the last eight of a length that is no multiple of eight twice. */
static inline void copy_values(int8_t *restrict out, const int8_t *restrict in, int32_t n)
{
    for (int32_t i = 0; i + 8 <= n; i += 8) {
        copy_eight(out + i, in + i);
    }
    if (n >= 8 && n % 8 != 0) {
        copy_eight(out + n - 8, in + n - 8);
    }
    for (int32_t i = 0; n < 8 && i < n; i++) {
        out[i] = in[i];
    }
}

static inline void fill_values(int8_t *out, int8_t value, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        out[i] = value;
    }
}

/* Channels c of two groups in turn, four of each group at a time: a0 b0 a1 b1, a2 b2 a3 b3. */
static void deal_two(int8_t *restrict out, const int8_t *restrict a, const int8_t *restrict b, int32_t each)
{
    for (; each >= 4; each -= 4, a += 4, b += 4, out += 8) {
        const uint32_t left = tr_load_s8x4(a), right = tr_load_s8x4(b);
        tr_store_s8x4(out, (left & 0xff) | (right & 0xff) << 8 | (left & 0xff00) << 8 | (right & 0xff00) << 16);
        tr_store_s8x4(out + 4, (left >> 16 & 0xff) | (right >> 8 & 0xff00) | (left >> 8 & 0xff0000) | (right & 0xff000000));
    }
    for (; each > 0; each--) {
        *out++ = *a++;
        *out++ = *b++;
    }
}

static void put_pixel(int8_t *restrict out, const int8_t *restrict in, int32_t groups, int32_t each, int32_t step)
{
    if (groups == 2 && step == 1) {
        deal_two(out, in, in + each, each);
        return;
    }
    for (int32_t j = 0; j < groups; j++, in += each, out++) {
        const int8_t *from = in;
        for (int32_t i = 0; i < each; i++, from += step) {
            out[i * groups] = *from;
        }
    }
}

void tr_rearrange_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_rearrange *restrict p)
{
    const int32_t groups = p->groups, channels = p->out_c, each = channels / groups, repeat_w = p->repeat_w, columns = p->out_w;
    const int32_t in_pixel = p->in_pixel, out_pixel = p->out_pixel, step = p->step_c, further = p->step_w * in_pixel;
    const int32_t first_w = p->phase_w % repeat_w, from_w = (p->start_w + p->phase_w / repeat_w * p->step_w) * in_pixel;
    const int runs = groups == 1 && step == 1 && !p->zeros;
    const int lines = runs && repeat_w == 1 && further == channels && out_pixel == channels;
    TR_ASSERT(p->start_w + (columns - 1 + p->phase_w) / repeat_w * p->step_w < p->in_w);
    for (int32_t y = 0; y < p->out_h; y++, out += p->out_row) {
        const int32_t turn = y + p->phase_h, row = turn % p->repeat_h, at = p->start_h + turn / p->repeat_h * p->step_h;
        const int8_t *from = in + at * p->in_row + from_w + p->first_c;
        TR_ASSERT(at < p->in_h);
        if (lines) {
            copy_values(out, from, columns * channels);
            continue;
        }
        int8_t *to = out;
        for (int32_t x = 0, column = first_w; x < columns; x++, to += out_pixel) {
            if (p->zeros && (row > 0 || column > 0)) {
                fill_values(to, (int8_t)p->zero_point, channels);
            } else if (runs) {
                copy_values(to, from, channels);
            } else {
                put_pixel(to, from + (p->blocks ? row * repeat_w + column : 0), groups, each, step);
            }
            if (++column == repeat_w) {
                column = 0;
                from += further;
            }
        }
    }
}
