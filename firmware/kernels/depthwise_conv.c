/* depthwise_conv.c: int8 convolution of each input channel with its own kernels, any kernel size, stride and padding.
 *
 * With one kernel per channel, four neighbouring channels are computed together: a word of four inputs and a word of four
 * weights are unpacked to int16 lanes by SXTAB16 (which takes off the zero point) and SXTB16, and each lane has its own sum.
 * Only kernel positions inside the input are visited, so padding costs nothing. Channels left over, and layers with several
 * kernels per channel, go one output at a time.
 *
 * Accumulator: |sum| <= |bias| + kernel_h * kernel_w * 255 * 127, inside 32 bits for kernels up to 32768 with |bias| < 2^30.
 * Scratch: none. */
#include "dot.h"
#include "requantize.h"
#include "tinyredux.h"

/* The part of the kernel that lies inside the input for one output pixel: rows y .. y_end - 1, columns x .. x_end - 1.
 * `in` and `weights` point at channel 0 of that first position. */
struct window {
    const int8_t *in, *weights;
    int32_t rows, columns;
};

static struct window clip(const int8_t *in, const int8_t *weights, const struct tr_depthwise *p, int32_t out_y, int32_t out_x)
{
    const int32_t in_y = out_y * p->stride_h - p->pad_top, in_x = out_x * p->stride_w - p->pad_left;
    const int32_t y = tr_max(0, -in_y), y_end = tr_min(p->kernel_h, p->in_h - in_y);
    const int32_t x = tr_max(0, -in_x), x_end = tr_min(p->kernel_w, p->in_w - in_x);
    if (y >= y_end || x >= x_end) {
        return (struct window){in, weights, 0, 0};
    }
    return (struct window){in + ((in_y + y) * p->in_w + in_x + x) * p->in_c,
                           weights + (y * p->kernel_w + x) * p->in_c * p->multiplier_c, y_end - y, x_end - x};
}

static inline int8_t output(int32_t sum, int32_t c, const struct tr_depthwise *p)
{
    return tr_requantize_s8(sum, p->multiplier[c], p->shift[c], p->output_zero_point, p->activation_min, p->activation_max);
}

/* Four channels of one pixel: inputs and weights of channel c, c+1, c+2, c+3 are neighbours. */
static void four_channels(int8_t *out, struct window window, const int32_t *bias, int32_t c, const struct tr_depthwise *p)
{
    const int32_t in_c = p->in_c, in_skip = (p->in_w - window.columns) * in_c, weight_skip = (p->kernel_w - window.columns) * in_c;
    const uint32_t minus_zero_point = tr_twice_s16(-p->input_zero_point);
    const int8_t *in = window.in + c, *weights = window.weights + c;
    int32_t sum_0 = bias[c], sum_1 = bias[c + 1], sum_2 = bias[c + 2], sum_3 = bias[c + 3];
    for (int32_t y = window.rows; y > 0; y--) {
        for (int32_t x = window.columns; x > 0; x--) {
            const uint32_t input = tr_load_s8x4(in), weight = tr_load_s8x4(weights);
            const uint32_t in_02 = tr_sxtab16(minus_zero_point, input), in_13 = tr_sxtab16_ror8(minus_zero_point, input);
            const uint32_t weight_02 = tr_sxtb16(weight), weight_13 = tr_sxtb16_ror8(weight);
            sum_0 += tr_low(in_02) * tr_low(weight_02);
            sum_1 += tr_low(in_13) * tr_low(weight_13);
            sum_2 += tr_high(in_02) * tr_high(weight_02);
            sum_3 += tr_high(in_13) * tr_high(weight_13);
            in += in_c;
            weights += in_c;
        }
        in += in_skip;
        weights += weight_skip;
    }
    out[c] = output(sum_0, c, p);
    out[c + 1] = output(sum_1, c + 1, p);
    out[c + 2] = output(sum_2, c + 2, p);
    out[c + 3] = output(sum_3, c + 3, p);
}

/* Output channel c = input channel * multiplier_c + m of one pixel. */
static int8_t one_channel(struct window window, const int32_t *bias, int32_t c, const struct tr_depthwise *p)
{
    const int32_t in_c = p->in_c, out_c = in_c * p->multiplier_c, zero_point = p->input_zero_point;
    const int8_t *in = window.in + c / p->multiplier_c, *weights = window.weights + c;
    int32_t sum = bias[c];
    for (int32_t y = 0; y < window.rows; y++) {
        for (int32_t x = 0; x < window.columns; x++) {
            sum += (in[x * in_c] - zero_point) * weights[x * out_c];
        }
        in += p->in_w * in_c;
        weights += p->kernel_w * out_c;
    }
    return output(sum, c, p);
}

void tr_depthwise_conv_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict weights,
                          const int32_t *restrict bias, const struct tr_depthwise *restrict p, int16_t *restrict scratch)
{
    const int32_t out_c = p->in_c * p->multiplier_c;
    (void)scratch;
    for (int32_t y = 0; y < p->out_h; y++) {
        for (int32_t x = 0; x < p->out_w; x++) {
            const struct window window = clip(in, weights, p, y, x);
            int32_t c = 0;
            for (; p->multiplier_c == 1 && c + 4 <= out_c; c += 4) {
                four_channels(out, window, bias, c, p);
            }
            for (; c < out_c; c++) {
                out[c] = one_channel(window, bias, c, p);
            }
            out += out_c;
        }
    }
}
