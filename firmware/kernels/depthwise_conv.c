/* depthwise_conv.c: int8 convolution of each input channel with its own kernels, any kernel size, stride, dilation and padding.
 *
 * With one kernel per channel, four neighbouring channels are computed together: a word of four inputs and a word of four
 * weights are unpacked to int16 lanes by SXTAB16 (which takes off the zero point) and SXTB16, and each lane has its own sum.
 * Only kernel positions inside the input are visited, so padding costs nothing. Channels left over, and layers with several
 * kernels per channel, go one output at a time.
 *
 * Layouts: input [in_h][in_w][in_c], output [out_h][out_w][out_c], weights [kernel_h][kernel_w][out_c]; maps may have gaps.
 * Accumulator: |sum| <= |bias| + kernel_h * kernel_w * 255 * 127, inside 32 bits for kernels up to 32768 with |bias| < 2^30.
 * Scratch: none. */
#include "dot.h"
#include "requantize.h"
#include "tinyredux.h"

/* The part of the kernel that lies inside the input for one output pixel: rows y .. y_end - 1, columns x .. x_end - 1.
 * `in` and `weights` point at channel 0 of that first position, and advance by in_row_n and weight_row_n from row to row. */
struct window {
    const int8_t *in, *weights;
    int32_t rows, columns, in_row_n, in_pixel_n, weight_row_n;
};

static struct window clip(const int8_t *in, const int8_t *weights, const struct tr_depthwise *p, int32_t out_y, int32_t out_x)
{
    const int32_t in_y = out_y * p->stride_h - p->pad_top, in_x = out_x * p->stride_w - p->pad_left;
    const int32_t y = tr_taps(tr_max(0, -in_y), p->holes_h), y_end = tr_min(p->kernel_h, tr_taps(p->in_h - in_y, p->holes_h));
    const int32_t x = tr_taps(tr_max(0, -in_x), p->holes_w), x_end = tr_min(p->kernel_w, tr_taps(p->in_w - in_x, p->holes_w));
    if (y >= y_end || x >= x_end) {
        return (struct window){in, weights, 0, 0, 0, 0, 0};
    }
    const int32_t out_c = p->in_c * p->multiplier_c, in_pixel = p->in_pixel ? p->in_pixel : p->in_c;
    const int32_t in_row = p->in_row ? p->in_row : p->in_w * in_pixel;
    const int32_t tap_row = in_row * (1 + p->holes_h), tap = in_pixel * (1 + p->holes_w);
    return (struct window){.in = in + (in_y * in_row + y * tap_row + in_x * in_pixel + x * tap),
                           .weights = weights + (y * p->kernel_w + x) * out_c,
                           .rows = y_end - y,
                           .columns = x_end - x,
                           .in_row_n = tap_row,
                           .in_pixel_n = tap,
                           .weight_row_n = p->kernel_w * out_c};
}

static inline int8_t output(int32_t sum, int32_t c, const struct tr_depthwise *p)
{
    return tr_requantize_s8(sum, p->multiplier[c], p->shift[c], p->output_zero_point, p->activation_min, p->activation_max);
}

/* The first `channels` channels of one pixel, a multiple of four, for layers with one kernel per channel. Without gaps in
 * the input one index serves input and weights; the constant gap of 0 makes two functions of this text. */
static inline __attribute__((always_inline)) void channels_by_four(int8_t *restrict out, const struct window *restrict window,
                                                                   const int32_t *restrict bias, int32_t channels,
                                                                   const struct tr_depthwise *restrict p, int32_t gap)
{
    const int32_t in_c = p->in_c, row_n = window->columns * in_c, in_skip = window->in_row_n, weight_skip = window->weight_row_n;
    const int32_t row_gap = window->columns * gap;
    const uint32_t minus_zero_point = tr_twice_s16(-p->input_zero_point);
    const int32_t zero_point = p->output_zero_point, low = p->activation_min, high = p->activation_max;
    const int32_t *multiplier = p->multiplier, *shift = p->shift;
    for (int32_t c = 0; c < channels; c += 4) {
        const int8_t *in = window->in + c, *weights = window->weights + c;
        int32_t sum_0 = bias[c], sum_1 = bias[c + 1], sum_2 = bias[c + 2], sum_3 = bias[c + 3];
        for (int32_t y = window->rows; y > 0; y--) {
            int32_t at = 0;
            do { /* a window with rows has columns */
                const uint32_t input = tr_load_s8x4(in + at), weight = tr_load_s8x4(weights + at);
                const uint32_t in_02 = tr_sxtab16(minus_zero_point, input), in_13 = tr_sxtab16_ror8(minus_zero_point, input);
                const uint32_t weight_02 = tr_sxtb16(weight), weight_13 = tr_sxtb16_ror8(weight);
                sum_0 += tr_low(in_02) * tr_low(weight_02);
                sum_1 += tr_low(in_13) * tr_low(weight_13);
                sum_2 += tr_high(in_02) * tr_high(weight_02);
                sum_3 += tr_high(in_13) * tr_high(weight_13);
                at += in_c;
                in += gap;
            } while (at < row_n);
            in += in_skip - row_gap;
            weights += weight_skip;
        }
        out[c] = tr_requantize_s8(sum_0, multiplier[c], shift[c], zero_point, low, high);
        out[c + 1] = tr_requantize_s8(sum_1, multiplier[c + 1], shift[c + 1], zero_point, low, high);
        out[c + 2] = tr_requantize_s8(sum_2, multiplier[c + 2], shift[c + 2], zero_point, low, high);
        out[c + 3] = tr_requantize_s8(sum_3, multiplier[c + 3], shift[c + 3], zero_point, low, high);
    }
}

static TR_OUT_OF_LINE void by_four(int8_t *restrict out, const struct window *restrict window, const int32_t *restrict bias,
                                   int32_t channels, const struct tr_depthwise *restrict p)
{
    channels_by_four(out, window, bias, channels, p, 0);
}

static TR_OUT_OF_LINE void by_four_with_gaps(int8_t *restrict out, const struct window *restrict window,
                                             const int32_t *restrict bias, int32_t channels,
                                             const struct tr_depthwise *restrict p)
{
    channels_by_four(out, window, bias, channels, p, window->in_pixel_n - p->in_c);
}

/* Output channel c = input channel * multiplier_c + m of one pixel. */
static int8_t one_channel(struct window window, const int32_t *bias, int32_t c, const struct tr_depthwise *p)
{
    const int32_t in_c = p->in_c, out_c = in_c * p->multiplier_c, zero_point = p->input_zero_point;
    const int8_t *in = window.in + c / p->multiplier_c, *weights = window.weights + c;
    int32_t sum = bias[c];
    for (int32_t y = 0; y < window.rows; y++) {
        for (int32_t x = 0; x < window.columns; x++) {
            sum += (in[x * window.in_pixel_n] - zero_point) * weights[x * out_c];
        }
        in += window.in_row_n;
        weights += window.weight_row_n;
    }
    return output(sum, c, p);
}

void tr_depthwise_conv_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict weights,
                          const int32_t *restrict bias, const struct tr_depthwise *restrict p, int16_t *restrict scratch)
{
    const int32_t out_c = p->in_c * p->multiplier_c;
    const int32_t fours = p->multiplier_c == 1 ? out_c & ~3 : 0;
    const int32_t pixel = p->out_pixel ? p->out_pixel : out_c, row = p->out_row ? p->out_row : p->out_w * pixel;
    const int32_t gaps = (p->in_pixel != 0 && p->in_pixel != p->in_c) || p->holes_w != 0;
    TR_ASSERT(p->kernel_h * p->kernel_w <= 32768);
    (void)scratch;
    for (int32_t y = 0; y < p->out_h; y++) {
        int8_t *to = out + y * row;
        for (int32_t x = 0; x < p->out_w; x++, to += pixel) {
            const struct window window = clip(in, weights, p, y, x);
            (gaps ? by_four_with_gaps : by_four)(to, &window, bias, fours, p);
            for (int32_t c = fours; c < out_c; c++) {
                to[c] = one_channel(window, bias, c, p);
            }
        }
    }
}
