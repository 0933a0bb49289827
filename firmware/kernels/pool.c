/* pool.c: maximum and average of a window, per channel. Padding takes no part, so a window at the border is smaller.
 *
 * The average is rounded to the nearest, halves away from zero. A window that lies wholly in the padding does not occur:
 * the compiler refuses padding as large as the kernel.
 *
 * Accumulator: |sum| <= window * 128. Scratch: none. */
#include "requantize.h"
#include "tinyredux.h"

/* The part of a window inside the input: `in` is channel 0 of its first pixel. */
struct window {
    const int8_t *in;
    int32_t rows, columns;
};

static struct window clip(const int8_t *in, const struct tr_pool *p, int32_t out_y, int32_t out_x)
{
    const int32_t y = out_y * p->stride_h - p->pad_top, x = out_x * p->stride_w - p->pad_left;
    const int32_t first_y = tr_max(0, y), first_x = tr_max(0, x);
    return (struct window){in + (first_y * p->in_w + first_x) * p->c, tr_min(p->in_h, y + p->kernel_h) - first_y,
                           tr_min(p->in_w, x + p->kernel_w) - first_x};
}

static inline int32_t window_max(struct window window, int32_t c, int32_t row_n)
{
    int32_t largest = INT8_MIN;
    for (int32_t y = window.rows; y > 0; y--, window.in += row_n) {
        const int8_t *in = window.in;
        for (int32_t x = window.columns; x > 0; x--, in += c) {
            largest = tr_max(largest, *in);
        }
    }
    return largest;
}

static inline int32_t window_sum(struct window window, int32_t c, int32_t row_n)
{
    int32_t sum = 0;
    for (int32_t y = window.rows; y > 0; y--, window.in += row_n) {
        const int8_t *in = window.in;
        for (int32_t x = window.columns; x > 0; x--, in += c) {
            sum += *in;
        }
    }
    return sum;
}

void tr_max_pool_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_pool *restrict p)
{
    const int32_t channels = p->c, row_n = p->in_w * p->c, low = p->activation_min, high = p->activation_max;
    for (int32_t y = 0; y < p->out_h; y++) {
        for (int32_t x = 0; x < p->out_w; x++) {
            struct window window = clip(in, p, y, x);
            for (int32_t c = 0; c < channels; c++, window.in++) {
                *out++ = (int8_t)tr_clamp(window_max(window, channels, row_n), low, high);
            }
        }
    }
}

void tr_average_pool_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_pool *restrict p)
{
    const int32_t channels = p->c, row_n = p->in_w * p->c, low = p->activation_min, high = p->activation_max;
    for (int32_t y = 0; y < p->out_h; y++) {
        for (int32_t x = 0; x < p->out_w; x++) {
            struct window window = clip(in, p, y, x);
            const int32_t count = window.rows * window.columns;
            for (int32_t c = 0; c < channels; c++, window.in++) {
                const int32_t sum = window_sum(window, channels, row_n);
                *out++ = (int8_t)tr_clamp((sum > 0 ? sum + count / 2 : sum - count / 2) / count, low, high);
            }
        }
    }
}
