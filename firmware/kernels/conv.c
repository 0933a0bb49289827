/* conv.c: int8 convolution of any kernel size, stride, dilation, padding and number of groups, in the structure of CMSIS-NN.
 *
 * The receptive field of an output pixel is copied into a column of k_n = kernel_h * kernel_w * in_c / groups int16 values
 * with the zero point taken off (im2col); padding is 0 there. When two columns are full, two output channels at a time are
 * multiplied with both: 2 x 2 accumulators, so each value loaded takes part in two products. A 1x1 kernel with stride 1
 * needs no columns: an input pixel is its own column, int8, and its zero point moves into the bias.
 *
 * Order in a column: of each four, 0 2 1 3, which is the order in which SXTB16 takes four weights out of a word.
 *
 * The last 1 to 3 weights of a row are loaded as a word filled up with zeros, so columns end on a whole four.
 *
 * Layouts: input [in_h][in_w][in_c], output [out_h][out_w][out_c], weights [out_c][kernel_h][kernel_w][in_c / groups].
 * Accumulator: |sum| <= |bias| + k_n * 255 * 127, inside 32 bits for every k_n <= 32768 with |bias| < 2^30.
 * Scratch: two columns, TR_CONV_SCRATCH_BYTES. */
#include "columns.h"
#include "micro.h"
#include "requantize.h"
#include "tinyredux.h"

/* The output channels of one group and what they need. */
struct channels {
    const int8_t *weights;
    const int32_t *bias, *multiplier, *shift;
    int32_t n, k_n;
};

static void fill_zeros(int16_t *column, int32_t k, int32_t n)
{
    for (int32_t end = k + n; k < end; k++) {
        column[tr_column_index(k)] = 0;
    }
}

/* Fills one column with the field whose top left corner is (y, x), channels first_c .. first_c + in_c - 1 of the input. */
static void fill_column(int16_t *column, const int8_t *in, const struct tr_conv *p, int32_t y, int32_t x, int32_t first_c)
{
    const int32_t in_c = p->in_c / p->groups, kernel_w = p->kernel_w, pixel = p->in_pixel ? p->in_pixel : p->in_c;
    const int32_t row = p->in_row ? p->in_row : p->in_w * pixel;
    const int32_t tap = pixel * (1 + p->holes_w), first = tr_clamp(tr_taps(-x, p->holes_w), 0, kernel_w);
    const int32_t last = tr_max(tr_min(kernel_w, tr_taps(p->in_w - x, p->holes_w)), first);
    int32_t k = 0;
    for (int32_t kernel_y = 0, in_y = y; kernel_y < p->kernel_h; kernel_y++, in_y += 1 + p->holes_h, k += kernel_w * in_c) {
        if (in_y < 0 || in_y >= p->in_h || first == last) {
            fill_zeros(column, k, kernel_w * in_c);
            continue;
        }
        const int8_t *from = in + (in_y * row + x * pixel + first * tap + first_c);
        fill_zeros(column, k, first * in_c);
        if (in_c == tap) {
            tr_fill_values(column, k + first * in_c, from, (last - first) * in_c, p->input_zero_point);
        } else {
            for (int32_t kernel_x = first; kernel_x < last; kernel_x++, from += tap) {
                tr_fill_values(column, k + kernel_x * in_c, from, in_c, p->input_zero_point);
            }
        }
        fill_zeros(column, k + last * in_c, (kernel_w - last) * in_c);
    }
    fill_zeros(column, k, -k & 3);
}

static TR_OUT_OF_LINE struct tr_sums dot_2x2(int32_t bias_a, int32_t bias_b, const int8_t *weights, const int16_t *column,
                                             int32_t k_n)
{
    struct tr_sums sums = {bias_a, bias_a, bias_b, bias_b};
    const int8_t *weights_a = weights, *weights_b = weights + k_n;
    const int16_t *column_0 = column, *column_1 = column + (k_n + (-k_n & 3));
    for (const int8_t *const end = weights_a + (k_n & ~3); weights_a != end;) {
        sums = tr_step_columns(sums, tr_load_s8x4(weights_a), tr_load_s8x4(weights_b), column_0, column_1);
        weights_a += 4;
        weights_b += 4;
        column_0 += 4;
        column_1 += 4;
    }
    if ((k_n & 3) != 0) {
        sums =
            tr_step_columns(sums, tr_load_s8_tail(weights_a, k_n & 3), tr_load_s8_tail(weights_b, k_n & 3), column_0, column_1);
    }
    return sums;
}

/* Returns sum + one channel's weights times one column. */
static inline int32_t dot_1x1(int32_t sum, const int8_t *weights, const int16_t *column, int32_t k_n)
{
    for (const int8_t *const end = weights + (k_n & ~3); weights != end; weights += 4, column += 4) {
        const uint32_t word = tr_load_s8x4(weights);
        sum = tr_smlad(tr_sxtb16(word), tr_load_s16x2(column), sum);
        sum = tr_smlad(tr_sxtb16_ror8(word), tr_load_s16x2(column + 2), sum);
    }
    if ((k_n & 3) != 0) {
        const uint32_t word = tr_load_s8_tail(weights, k_n & 3);
        sum = tr_smlad(tr_sxtb16(word), tr_load_s16x2(column), sum);
        sum = tr_smlad(tr_sxtb16_ror8(word), tr_load_s16x2(column + 2), sum);
    }
    return sum;
}

/* What all outputs share on the way from sum to int8. */
struct stage {
    int32_t zero_point, low, high;
};

static inline struct stage stage_of(const struct tr_conv *p)
{
    return (struct stage){p->output_zero_point, p->activation_min, p->activation_max};
}

static inline int8_t output(int32_t sum, int32_t multiplier, int32_t shift, struct stage stage)
{
    return tr_requantize_s8(sum, multiplier, shift, stage.zero_point, stage.low, stage.high);
}

/* Writes channels a and b, c and c + 1, of the two pixels at `out` and `next`. */
static inline void put_2x2(int8_t *out, int8_t *next, struct tr_sums sums, const struct channels *channels, int32_t c,
                           struct stage stage)
{
    const int32_t multiplier_a = channels->multiplier[c], shift_a = channels->shift[c];
    const int32_t multiplier_b = channels->multiplier[c + 1], shift_b = channels->shift[c + 1];
    out[c] = output(sums.a0, multiplier_a, shift_a, stage);
    next[c] = output(sums.a1, multiplier_a, shift_a, stage);
    out[c + 1] = output(sums.b0, multiplier_b, shift_b, stage);
    next[c + 1] = output(sums.b1, multiplier_b, shift_b, stage);
}

/* Channels first .. n - 1 of the pixel at `out`, one at a time. */
static void multiply_pixel(int8_t *restrict out, const int16_t *column, const struct channels *channels, int32_t first,
                           struct stage stage)
{
    for (int32_t c = first; c < channels->n; c++) {
        const int32_t sum = dot_1x1(channels->bias[c], channels->weights + c * channels->k_n, column, channels->k_n);
        out[c] = output(sum, channels->multiplier[c], channels->shift[c], stage);
    }
}

/* All channels of the two pixels at `out` and `next`. */
static void multiply_two_pixels(int8_t *restrict out, int8_t *restrict next, const int16_t *column,
                                const struct channels *channels, struct stage stage)
{
    const int32_t k_n = channels->k_n, n = channels->n;
    const int8_t *weights = channels->weights;
    int32_t c = 0;
    for (; c + 2 <= n; c += 2, weights += 2 * k_n) {
        const struct tr_sums sums = dot_2x2(channels->bias[c], channels->bias[c + 1], weights, column, k_n);
        put_2x2(out, next, sums, channels, c, stage);
    }
    multiply_pixel(out, column, channels, c, stage);
    multiply_pixel(next, column + (k_n + (-k_n & 3)), channels, c, stage);
}

static void convolve_group(int8_t *restrict out, const int8_t *restrict in, const struct channels *channels, int32_t first_c,
                           const struct tr_conv *p, int16_t *restrict scratch)
{
    const int32_t column_n = channels->k_n + (-channels->k_n & 3), out_pixel = p->out_pixel ? p->out_pixel : p->out_c;
    const struct stage stage = stage_of(p);
    int32_t columns = 0;
    for (int32_t y = 0; y < p->out_h; y++) {
        for (int32_t x = 0; x < p->out_w; x++) {
            const int32_t in_y = y * p->stride_h - p->pad_top, in_x = x * p->stride_w - p->pad_left;
            fill_column(scratch + columns * column_n, in, p, in_y, in_x, first_c);
            columns++;
            if (columns == 2) {
                multiply_two_pixels(out, out + out_pixel, scratch, channels, stage);
                out += 2 * out_pixel;
                columns = 0;
            }
        }
    }
    if (columns == 1) {
        multiply_pixel(out, scratch, channels, 0, stage);
    }
}

static inline struct tr_sums dot_pointwise_2x2(int32_t bias_a, int32_t bias_b, const int8_t *weights, const int8_t *in,
                                               int32_t k_n)
{
    struct tr_sums sums = {bias_a, bias_a, bias_b, bias_b};
    for (const int8_t *const end = weights + (k_n & ~15); weights != end; weights += 16, in += 16) {
        sums = tr_step_raw(sums, weights, in, k_n, k_n);
        sums = tr_step_raw(sums, weights + 4, in + 4, k_n, k_n);
        sums = tr_step_raw(sums, weights + 8, in + 8, k_n, k_n);
        sums = tr_step_raw(sums, weights + 12, in + 12, k_n, k_n);
    }
    for (const int8_t *const end = weights + (k_n & 12); weights != end; weights += 4, in += 4) {
        sums = tr_step_raw(sums, weights, in, k_n, k_n);
    }
    for (int32_t k = 0; k < (k_n & 3); k++) {
        sums.a0 += weights[k] * in[k];
        sums.a1 += weights[k] * in[k_n + k];
        sums.b0 += weights[k_n + k] * in[k];
        sums.b1 += weights[k_n + k] * in[k_n + k];
    }
    return sums;
}

static inline int32_t dot_pointwise_1x1(int32_t sum, const int8_t *weights, const int8_t *in, int32_t k_n)
{
    int32_t k = 0;
    for (; k + 4 <= k_n; k += 4) {
        const uint32_t word = tr_load_s8x4(weights + k), pixel = tr_load_s8x4(in + k);
        sum = tr_smlad(tr_sxtb16(word), tr_sxtb16(pixel), sum);
        sum = tr_smlad(tr_sxtb16_ror8(word), tr_sxtb16_ror8(pixel), sum);
    }
    for (; k < k_n; k++) {
        sum += weights[k] * in[k];
    }
    return sum;
}

/* bias - zero_point * (sum of the channel's weights): what each sum of raw inputs starts from. */
static int32_t pointwise_bias(const struct channels *channels, int32_t c, int32_t zero_point)
{
    const int8_t *weights = channels->weights + c * channels->k_n;
    int32_t total = 0;
    for (int32_t k = 0; k < channels->k_n; k++) {
        total += weights[k];
    }
    return channels->bias[c] - zero_point * total;
}

/* Two channels over all pixels, then the next two; `pixels` is out_h * out_w. */
static TR_OUT_OF_LINE void convolve_pointwise(int8_t *restrict out, const int8_t *restrict in, const struct channels *channels,
                                              int32_t pixels, int32_t out_pixel, int32_t zero_point, struct stage stage)
{
    const int32_t k_n = channels->k_n, out_c = channels->n;
    for (int32_t c = 0; c < out_c; c += 2) {
        const int32_t two = c + 1 < out_c;
        const int32_t bias_a = pointwise_bias(channels, c, zero_point);
        const int32_t bias_b = two ? pointwise_bias(channels, c + 1, zero_point) : 0;
        const int8_t *weights = channels->weights + c * k_n, *pixel = in;
        int8_t *to = out;
        int32_t done = 0;
        for (; two && done + 2 <= pixels; done += 2, pixel += 2 * k_n, to += 2 * out_pixel) {
            const struct tr_sums sums = dot_pointwise_2x2(bias_a, bias_b, weights, pixel, k_n);
            put_2x2(to, to + out_pixel, sums, channels, c, stage);
        }
        for (; done < pixels; done++, pixel += k_n, to += out_pixel) {
            const int32_t sum = dot_pointwise_1x1(bias_a, weights, pixel, k_n);
            to[c] = output(sum, channels->multiplier[c], channels->shift[c], stage);
            if (two) {
                const int32_t other = dot_pointwise_1x1(bias_b, weights + k_n, pixel, k_n);
                to[c + 1] = output(other, channels->multiplier[c + 1], channels->shift[c + 1], stage);
            }
        }
    }
}

void tr_conv_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict weights, const int32_t *restrict bias,
                const struct tr_conv *restrict p, int16_t *restrict scratch)
{
    const int32_t in_c = p->in_c / p->groups, out_c = p->out_c / p->groups, k_n = p->kernel_h * p->kernel_w * in_c;
    TR_ASSERT(k_n <= TR_MOST_VALUES && (uintptr_t)scratch % 4 == 0);
    struct channels channels = {weights, bias, p->multiplier, p->shift, out_c, k_n};
    if (p->groups == 1 && p->kernel_h == 1 && p->kernel_w == 1 && p->stride_h == 1 && p->stride_w == 1 && p->out_h == p->in_h &&
        p->out_w == p->in_w) {
        convolve_pointwise(out, in, &channels, p->out_h * p->out_w, p->out_pixel ? p->out_pixel : out_c, p->input_zero_point,
                           stage_of(p));
        return;
    }
    for (int32_t group = 0; group < p->groups; group++) {
        convolve_group(out + group * out_c, in, &channels, group * in_c, p, scratch);
        channels.weights += out_c * k_n;
        channels.bias += out_c;
        channels.multiplier += out_c;
        channels.shift += out_c;
    }
}
