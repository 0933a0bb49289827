/* gemm.c: convolution as a product of widened rows with byte-pair weights; the inner products are generated code.
 *
 * The map's pixels are taken `strip` at a time. Each pixel's window is widened to int16 once (`columns`), from where it lies, or
 * gathered at an edge of the map; then every group of four channels goes over the strip: its data are copied to RAM first where
 * p->copied says so, for RAM has no wait states and loads from one memory chain. The products are called with pairs of pixels; a last strip of an odd number begins a pixel early.
 *
 * Layouts: input [in_h][in_w][in_pixel], of which in_c are read, rows in_row apart, from any byte on; output
 * [out_h][out_w][out_pixel], groups [out_c / 4, rounded up][group_words].
 * Accumulator: two channels share one, so the library takes this kernel only for weights of which no sum reaches 2^23.
 * Where out_bytes is 4, `out` holds int32 sums, to which the products are added: of a pixel that is computed again its zero
 * point stands in for the values, and of a channel the weights are 0.
 * Scratch: 4 * strip * row_words bytes of columns, 4 * group_words where groups are copied, two windows of whole words at edges. */
#include "gather.h"
#include "tinyredux.h"

/* Whether the window that begins in row `top` and column `left` lies in the map as a whole. */
static int32_t is_inside(const struct tr_gemm *p, int32_t top, int32_t left)
{
    return top >= 0 && left >= 0 && top + p->kernel_h <= p->in_h && left + p->kernel_w <= p->in_w;
}

/* Writes such a window with its padding as consecutive bytes. */
static void gather(int8_t *restrict to, const int8_t *restrict in, const struct tr_gemm *restrict p, int32_t top, int32_t left)
{
    const int32_t first = left < 0 ? 0 : left, end = left + p->kernel_w < p->in_w ? left + p->kernel_w : p->in_w;
    for (int32_t y = top; y < top + p->kernel_h; y++) {
        if (y < 0 || y >= p->in_h || end <= first) {
            to = tr_put_padding(to, p->input_zero_point, p->kernel_w * p->in_c);
            continue;
        }
        to = tr_put_padding(to, p->input_zero_point, (first - left) * p->in_c);
        to = tr_put_values(to, in + y * p->in_row + first * p->in_c, (end - first) * p->in_c);
        to = tr_put_padding(to, p->input_zero_point, (left + p->kernel_w - end) * p->in_c);
    }
}

/* Widens the windows of an output pixel and of the next: where they lie, or by way of `bytes` at an edge of the map. */
static void widen(int32_t *restrict to, int8_t *restrict bytes, const int8_t *restrict in, const struct tr_gemm *restrict p,
                  int32_t pixel)
{
    const int32_t y = pixel / p->out_w, x = pixel - y * p->out_w, turns = x + 1 == p->out_w;
    const int32_t top = y * p->stride_h - p->pad_top, left = x * p->stride_w - p->pad_left;
    const int32_t next_top = turns ? top + p->stride_h : top, next_left = turns ? -p->pad_left : left + p->stride_w;
    if (is_inside(p, top, left) && is_inside(p, next_top, next_left)) {
        p->widen(to, in + top * p->in_row + left * p->in_pixel, in + next_top * p->in_row + next_left * p->in_pixel, p->in_row);
        return;
    }
    int8_t *const next = bytes + (p->kernel_h * p->kernel_w * p->in_c + 3) / 4 * 4;
    gather(bytes, in, p, top, left);
    gather(next, in, p, next_top, next_left);
    p->widen(to, bytes, next, p->kernel_w * p->in_c);
}

static void multiply(int8_t *restrict out, const int8_t *restrict in, const int32_t *restrict groups, const struct tr_gemm *p,
                     int32_t first, int32_t n, int32_t again, int32_t *restrict scratch)
{
    int32_t *const columns = scratch, *const copy = columns + p->strip * p->row_words;
    int8_t *const bytes = (int8_t *)(copy + (p->copied ? p->group_words : 0));
    if (p->together) {
        p->widen(columns, in + first * p->in_pixel, in + (first + 1) * p->in_pixel, n / 2);
    }
    for (int32_t i = 0; i < n && !p->together; i += 2) {
        widen(columns + i * p->row_words, bytes, in, p, first + i);
    }
    for (int32_t i = 0; i < p->row_words && p->out_bytes > 1 && again; i++) {
        columns[2 * i] = (int32_t)(((uint32_t)p->input_zero_point & 0xffffu) * 0x10001u); /* adds nothing to the first pixel */
    }
    for (int32_t c = 0; c < p->out_c; c += 4, groups += p->group_words) {
        const int32_t channel = c < p->out_c - 4 ? c : p->out_c - 4;
        const int32_t *group = groups;
        if (p->copied) {
            p->copy(copy, groups, p->group_words / 8);
            group = copy;
        }
        p->product(out + (first * p->out_pixel + channel) * p->out_bytes, columns, group, n / 2);
    }
}

void tr_gemm_conv_s8(int8_t *restrict out, const int8_t *restrict in, const int32_t *restrict groups,
                     const struct tr_gemm *restrict p, int32_t *restrict scratch)
{
    const int32_t pixels = p->out_h * p->out_w;
    TR_ASSERT(pixels >= 2 && p->out_c >= 4 && p->strip > 0 && p->strip % 2 == 0 && p->strip <= pixels);
    for (int32_t first = 0; first < pixels; first += p->strip) {
        const int32_t left = pixels - first, n = left < p->strip ? left : p->strip;
        multiply(out, in, groups, p, first - n % 2, n + n % 2, n % 2, scratch);
    }
}
