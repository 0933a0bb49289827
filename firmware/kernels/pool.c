/* pool.c: maximum, average and mean of a window, per channel. Padding takes no part, so a window at the border is smaller.
 *
 * The mean brings a sum to a scale of its own, as requantize.h says. The average is rounded to the nearest, halves away from zero. A window that sees only padding does not occur:
 * the compiler refuses it.
 *
 * Four channels at a time keep their maxima or sums in registers; channels left over go one by one.
 *
 * Layouts: input [in_h][in_w][c], output [out_h][out_w][c]; maps may have gaps.
 * Accumulator: |sum| <= window * 128. Scratch: none. */
#include "requantize.h"
#include "tinyredux.h"

/* The part of a window inside the input: `in` is channel 0 of its first pixel. */
struct window {
    const int8_t *in;
    int32_t rows, columns;
};

/* Values from row to row and from pixel to pixel: of both maps, and of what a window sees of the input. */
struct steps {
    int32_t in_row, in_pixel, out_row, out_pixel, tap_row, tap;
};

static struct steps steps_of(const struct tr_pool *p)
{
    const int32_t in_pixel = p->in_pixel ? p->in_pixel : p->c, out_pixel = p->out_pixel ? p->out_pixel : p->c;
    const int32_t in_row = p->in_row ? p->in_row : p->in_w * in_pixel;
    return (struct steps){in_row, in_pixel, p->out_row ? p->out_row : p->out_w * out_pixel, out_pixel,
                          in_row * (1 + p->holes_h), in_pixel * (1 + p->holes_w)};
}

static struct window clip(const int8_t *in, const struct tr_pool *p, struct steps steps, int32_t out_y, int32_t out_x)
{
    const int32_t y = out_y * p->stride_h - p->pad_top, x = out_x * p->stride_w - p->pad_left;
    const int32_t first_y = tr_taps(tr_max(0, -y), p->holes_h), first_x = tr_taps(tr_max(0, -x), p->holes_w);
    const int32_t rows = tr_min(p->kernel_h, tr_taps(p->in_h - y, p->holes_h)) - first_y;
    const int32_t columns = tr_min(p->kernel_w, tr_taps(p->in_w - x, p->holes_w)) - first_x;
    TR_ASSERT(rows > 0 && columns > 0);
    const int32_t first = y * steps.in_row + first_y * steps.tap_row + x * steps.in_pixel + first_x * steps.tap;
    return (struct window){in + first, rows, columns};
}

/* Maxima or sums of four neighbouring channels. */
struct four {
    int32_t c0, c1, c2, c3;
};

static struct four max_of_four(const int8_t *in, struct window window, int32_t c, int32_t row_n)
{
    struct four max = {INT8_MIN, INT8_MIN, INT8_MIN, INT8_MIN};
    for (int32_t y = window.rows; y > 0; y--, in += row_n) {
        const int8_t *pixel = in;
        for (int32_t x = window.columns; x > 0; x--, pixel += c) {
            max.c0 = tr_max(max.c0, pixel[0]);
            max.c1 = tr_max(max.c1, pixel[1]);
            max.c2 = tr_max(max.c2, pixel[2]);
            max.c3 = tr_max(max.c3, pixel[3]);
        }
    }
    return max;
}

static struct four sum_of_four(const int8_t *in, struct window window, int32_t c, int32_t row_n)
{
    struct four sum = {0, 0, 0, 0};
    for (int32_t y = window.rows; y > 0; y--, in += row_n) {
        const int8_t *pixel = in;
        for (int32_t x = window.columns; x > 0; x--, pixel += c) {
            sum.c0 += pixel[0];
            sum.c1 += pixel[1];
            sum.c2 += pixel[2];
            sum.c3 += pixel[3];
        }
    }
    return sum;
}

static int32_t max_of_one(const int8_t *in, struct window window, int32_t c, int32_t row_n)
{
    int32_t max = INT8_MIN;
    for (int32_t y = 0; y < window.rows; y++, in += row_n) {
        for (int32_t x = 0; x < window.columns; x++) {
            max = tr_max(max, in[x * c]);
        }
    }
    return max;
}

static int32_t sum_of_one(const int8_t *in, struct window window, int32_t c, int32_t row_n)
{
    int32_t sum = 0;
    for (int32_t y = 0; y < window.rows; y++, in += row_n) {
        for (int32_t x = 0; x < window.columns; x++) {
            sum += in[x * c];
        }
    }
    return sum;
}

/* To the nearest, halves away from zero. */
static inline int32_t divide(int32_t sum, int32_t count) { return (sum > 0 ? sum + count / 2 : sum - count / 2) / count; }

static void max_of_pixel(int8_t *restrict out, struct window window, struct steps steps, const struct tr_pool *p)
{
    const int32_t channels = p->c, low = p->activation_min, high = p->activation_max;
    int32_t c = 0;
    for (; c + 4 <= channels; c += 4) {
        const struct four max = max_of_four(window.in + c, window, steps.tap, steps.tap_row);
        out[c] = (int8_t)tr_clamp(max.c0, low, high);
        out[c + 1] = (int8_t)tr_clamp(max.c1, low, high);
        out[c + 2] = (int8_t)tr_clamp(max.c2, low, high);
        out[c + 3] = (int8_t)tr_clamp(max.c3, low, high);
    }
    for (; c < channels; c++) {
        out[c] = (int8_t)tr_clamp(max_of_one(window.in + c, window, steps.tap, steps.tap_row), low, high);
    }
}

static void average_of_pixel(int8_t *restrict out, struct window window, struct steps steps, const struct tr_pool *p)
{
    const int32_t channels = p->c, low = p->activation_min, high = p->activation_max;
    const int32_t count = window.rows * window.columns;
    int32_t c = 0;
    for (; c + 4 <= channels; c += 4) {
        const struct four sum = sum_of_four(window.in + c, window, steps.tap, steps.tap_row);
        out[c] = (int8_t)tr_clamp(divide(sum.c0, count), low, high);
        out[c + 1] = (int8_t)tr_clamp(divide(sum.c1, count), low, high);
        out[c + 2] = (int8_t)tr_clamp(divide(sum.c2, count), low, high);
        out[c + 3] = (int8_t)tr_clamp(divide(sum.c3, count), low, high);
    }
    for (; c < channels; c++) {
        out[c] = (int8_t)tr_clamp(divide(sum_of_one(window.in + c, window, steps.tap, steps.tap_row), count), low, high);
    }
}

/* A sum of stored values as their mean in the output's scale. With single rounding the zero points are in one constant. */
static inline int8_t mean(int32_t sum, const struct tr_mean *p)
{
#if !defined(TR_SINGLE_ROUNDING)
    return tr_requantize_s8(sum - p->correction, p->multiplier, p->shift, p->zero_point, INT8_MIN, INT8_MAX);
#else
    return (int8_t)tr_clamp(tr_mean_once(sum, p->multiplier, p->correction), INT8_MIN, INT8_MAX);
#endif
}

static void mean_of_pixel(int8_t *restrict out, struct window window, struct steps steps, const struct tr_mean *p)
{
    int32_t c = 0;
    for (; c + 4 <= p->window.c; c += 4) {
        const struct four sum = sum_of_four(window.in + c, window, steps.tap, steps.tap_row);
        out[c] = mean(sum.c0, p);
        out[c + 1] = mean(sum.c1, p);
        out[c + 2] = mean(sum.c2, p);
        out[c + 3] = mean(sum.c3, p);
    }
    for (; c < p->window.c; c++) {
        out[c] = mean(sum_of_one(window.in + c, window, steps.tap, steps.tap_row), p);
    }
}

void tr_max_pool_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_pool *restrict p)
{
    const struct steps steps = steps_of(p);
    for (int32_t y = 0; y < p->out_h; y++, out += steps.out_row) {
        for (int32_t x = 0; x < p->out_w; x++) {
            max_of_pixel(out + x * steps.out_pixel, clip(in, p, steps, y, x), steps, p);
        }
    }
}

void tr_average_pool_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_pool *restrict p)
{
    const struct steps steps = steps_of(p);
    for (int32_t y = 0; y < p->out_h; y++, out += steps.out_row) {
        for (int32_t x = 0; x < p->out_w; x++) {
            average_of_pixel(out + x * steps.out_pixel, clip(in, p, steps, y, x), steps, p);
        }
    }
}

void tr_mean_pool_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_mean *restrict p)
{
    const struct tr_pool *window = &p->window;
    const struct steps steps = steps_of(window);
    for (int32_t y = 0; y < window->out_h; y++, out += steps.out_row) {
        for (int32_t x = 0; x < window->out_w; x++) {
            mean_of_pixel(out + x * steps.out_pixel, clip(in, window, steps, y, x), steps, p);
        }
    }
}
