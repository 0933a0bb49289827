/* partial_conv.c: convolution without scratch between maps with gaps, and convolution of a slice of the input's channels
 * that adds to sums kept by the caller: the two halves of partial execution.
 *
 * Nothing is copied into columns. A row of the kernel meets a run of neighbouring input values, and for two output
 * channels and two output pixels at a time the run is multiplied straight from the map: four weights and four values are
 * loaded as words and unpacked by SXTB16 and SXTAB16 (which takes off the zero point). The part of the kernel that lies in the
 * padding is left out. Where the input has gaps between pixels, a run is one pixel.
 *
 * A dense layer is a convolution whose kernel is the whole map, so tr_conv_add_s32 adds up dense layers too.
 *
 * 16-bit sums hold round(sum / 2^right[c]), rounded once for each slice; the caller chooses `right` so that they fit.
 *
 * Accumulator: |sum| <= |bias| + k_n * 255 * 127, inside 32 bits for every k_n <= 32768 with |bias| < 2^30. Scratch: none. */
#include "dot.h"
#include "requantize.h"
#include "tinyredux.h"

/* Sums of output channels a and b for pixels 0 and 1. */
struct sums {
    int32_t a0, a1, b0, b1;
};

/* What the kernel covers at one output pixel: `rows` runs of `run_n` values, `runs` of them in each kernel row. */
struct field {
    const int8_t *in, *weights;
    int32_t rows, runs, run_n, in_row, in_pixel, weight_row, next_pixel, next_channel;
};

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Adds four products for each of up to 2 x 2 sums; the constants say which exist. */
ALWAYS_INLINE struct sums step(struct sums sums, uint32_t weights_a, uint32_t weights_b, uint32_t in_0, uint32_t in_1,
                               uint32_t minus_zero_point, int two_channels, int two_pixels)
{
    const uint32_t a_02 = tr_sxtb16(weights_a), a_13 = tr_sxtb16_ror8(weights_a);
    const uint32_t x0_02 = tr_sxtab16(minus_zero_point, in_0), x0_13 = tr_sxtab16_ror8(minus_zero_point, in_0);
    sums.a0 = tr_smlad(a_13, x0_13, tr_smlad(a_02, x0_02, sums.a0));
    if (two_channels) {
        const uint32_t b_02 = tr_sxtb16(weights_b), b_13 = tr_sxtb16_ror8(weights_b);
        sums.b0 = tr_smlad(b_13, x0_13, tr_smlad(b_02, x0_02, sums.b0));
        if (two_pixels) {
            const uint32_t x1_02 = tr_sxtab16(minus_zero_point, in_1), x1_13 = tr_sxtab16_ror8(minus_zero_point, in_1);
            sums.a1 = tr_smlad(a_13, x1_13, tr_smlad(a_02, x1_02, sums.a1));
            sums.b1 = tr_smlad(b_13, x1_13, tr_smlad(b_02, x1_02, sums.b1));
        }
    } else if (two_pixels) {
        const uint32_t x1_02 = tr_sxtab16(minus_zero_point, in_1), x1_13 = tr_sxtab16_ror8(minus_zero_point, in_1);
        sums.a1 = tr_smlad(a_13, x1_13, tr_smlad(a_02, x1_02, sums.a1));
    }
    return sums;
}

ALWAYS_INLINE struct sums raw_step(struct sums sums, const int8_t *weights_a, const int8_t *weights_b, const int8_t *in_0,
                                   const int8_t *in_1)
{
    const uint32_t word_a = tr_load_s8x4(weights_a), word_b = tr_load_s8x4(weights_b);
    const uint32_t a_02 = tr_sxtb16(word_a), a_13 = tr_sxtb16_ror8(word_a);
    const uint32_t b_02 = tr_sxtb16(word_b), b_13 = tr_sxtb16_ror8(word_b);
    const uint32_t word_0 = tr_load_s8x4(in_0), x0_02 = tr_sxtb16(word_0);
    sums.a0 = tr_smlad(a_02, x0_02, sums.a0);
    sums.b0 = tr_smlad(b_02, x0_02, sums.b0);
    const uint32_t x0_13 = tr_sxtb16_ror8(word_0);
    sums.a0 = tr_smlad(a_13, x0_13, sums.a0);
    sums.b0 = tr_smlad(b_13, x0_13, sums.b0);
    const uint32_t word_1 = tr_load_s8x4(in_1), x1_02 = tr_sxtb16(word_1);
    sums.a1 = tr_smlad(a_02, x1_02, sums.a1);
    sums.b1 = tr_smlad(b_02, x1_02, sums.b1);
    const uint32_t x1_13 = tr_sxtb16_ror8(word_1);
    sums.a1 = tr_smlad(a_13, x1_13, sums.a1);
    sums.b1 = tr_smlad(b_13, x1_13, sums.b1);
    return sums;
}

/* Sixteen values at a time. Out of line, or the caller's variables would push pointers onto the stack. */
static TR_OUT_OF_LINE void add_sixteens_2x2(struct sums *restrict to, const int8_t *in, const int8_t *weights, int32_t sixteens,
                                            int32_t next_pixel, int32_t next_channel, uint32_t minus_zero_point)
{
    const int8_t *in_1 = in + next_pixel, *weights_b = weights + next_channel;
    struct sums sums = *to;
    for (const int8_t *const end = weights + 16 * sixteens; weights != end; weights += 16, weights_b += 16, in += 16, in_1 += 16) {
        sums = step(sums, tr_load_s8x4(weights), tr_load_s8x4(weights_b), tr_load_s8x4(in), tr_load_s8x4(in_1), minus_zero_point, 1, 1);
        sums = step(sums, tr_load_s8x4(weights + 4), tr_load_s8x4(weights_b + 4), tr_load_s8x4(in + 4), tr_load_s8x4(in_1 + 4),
                    minus_zero_point, 1, 1);
        sums = step(sums, tr_load_s8x4(weights + 8), tr_load_s8x4(weights_b + 8), tr_load_s8x4(in + 8), tr_load_s8x4(in_1 + 8),
                    minus_zero_point, 1, 1);
        sums = step(sums, tr_load_s8x4(weights + 12), tr_load_s8x4(weights_b + 12), tr_load_s8x4(in + 12), tr_load_s8x4(in_1 + 12),
                    minus_zero_point, 1, 1);
    }
    *to = sums;
}

/* The same for a zero point of 0, in the order in which everything fits into the registers: `end` alone lies on the stack. */
static TR_OUT_OF_LINE void add_raw_sixteens_2x2(struct sums *restrict to, const int8_t *in, const int8_t *weights,
                                                int32_t sixteens, int32_t next_pixel, int32_t next_channel)
{
    const int8_t *in_1 = in + next_pixel, *weights_b = weights + next_channel;
    struct sums sums = *to;
    for (const int8_t *const end = weights + 16 * sixteens; weights != end;) {
        sums = raw_step(sums, weights, weights_b, in, in_1);
        sums = raw_step(sums, weights + 4, weights_b + 4, in + 4, in_1 + 4);
        sums = raw_step(sums, weights + 8, weights_b + 8, in + 8, in_1 + 8);
        sums = raw_step(sums, weights + 12, weights_b + 12, in + 12, in_1 + 12);
        weights += 16;
        weights_b += 16;
        in += 16;
        in_1 += 16;
    }
    *to = sums;
}

/* One run. A rest of 1 to 3 values takes the last four again, the weights of those already counted masked out. */
ALWAYS_INLINE struct sums add_run(struct sums sums, const int8_t *in, const int8_t *weights, int32_t n, int32_t next_pixel,
                                  int32_t next_channel, uint32_t minus_zero_point, int two_channels, int two_pixels)
{
    if (two_channels && two_pixels && n >= 16) {
        if (minus_zero_point == 0) {
            add_raw_sixteens_2x2(&sums, in, weights, n >> 4, next_pixel, next_channel);
        } else {
            add_sixteens_2x2(&sums, in, weights, n >> 4, next_pixel, next_channel, minus_zero_point);
        }
        in += n & ~15;
        weights += n & ~15;
        n &= 15;
    }
    const int8_t *in_1 = in + next_pixel, *weights_b = weights + next_channel;
    for (int32_t k = n >> 2; k > 0; k--) {
        sums = step(sums, tr_load_s8x4(weights), two_channels ? tr_load_s8x4(weights_b) : 0, tr_load_s8x4(in),
                    two_pixels ? tr_load_s8x4(in_1) : 0, minus_zero_point, two_channels, two_pixels);
        weights += 4;
        weights_b += 4;
        in += 4;
        in_1 += 4;
    }
    const int32_t rest = n & 3;
    if (rest == 0) {
        return sums;
    }
    if (n > 4) {
        const int32_t back = rest - 4;
        const uint32_t mask = ~0u << (32 - 8 * rest);
        return step(sums, tr_load_s8x4(weights + back) & mask, two_channels ? tr_load_s8x4(weights_b + back) & mask : 0,
                    tr_load_s8x4(in + back), two_pixels ? tr_load_s8x4(in_1 + back) : 0, minus_zero_point, two_channels,
                    two_pixels);
    }
    return step(sums, tr_load_s8_tail(weights, rest), two_channels ? tr_load_s8_tail(weights_b, rest) : 0,
                tr_load_s8_tail(in, rest), two_pixels ? tr_load_s8_tail(in_1, rest) : 0, minus_zero_point, two_channels,
                two_pixels);
}

ALWAYS_INLINE struct sums add_field(struct sums sums, const struct field *field, const int8_t *weights, uint32_t minus_zero_point,
                                    int two_channels, int two_pixels)
{
    const int32_t run_n = field->run_n, next_pixel = field->next_pixel, next_channel = field->next_channel;
    const int8_t *in_row = field->in;
    for (int32_t y = field->rows; y > 0; y--) {
        const int8_t *in = in_row, *of_run = weights;
        for (int32_t run = field->runs; run > 0; run--) {
            sums = add_run(sums, in, of_run, run_n, next_pixel, next_channel, minus_zero_point, two_channels, two_pixels);
            in += field->in_pixel;
            of_run += run_n;
        }
        in_row += field->in_row;
        weights += field->weight_row;
    }
    return sums;
}

static TR_OUT_OF_LINE struct sums field_2x2(struct sums sums, const struct field *field, const int8_t *weights, uint32_t zero)
{
    return add_field(sums, field, weights, zero, 1, 1);
}

static TR_OUT_OF_LINE struct sums field_1x2(struct sums sums, const struct field *field, const int8_t *weights, uint32_t zero)
{
    return add_field(sums, field, weights, zero, 0, 1);
}

static TR_OUT_OF_LINE struct sums field_2x1(struct sums sums, const struct field *field, const int8_t *weights, uint32_t zero)
{
    return add_field(sums, field, weights, zero, 1, 0);
}

static TR_OUT_OF_LINE struct sums field_1x1(struct sums sums, const struct field *field, const int8_t *weights, uint32_t zero)
{
    return add_field(sums, field, weights, zero, 0, 0);
}

/* The field of output pixel (out_y, out_x): the kernel clipped to the input. */
static struct field clip(const int8_t *in, const int8_t *weights, const struct tr_conv *p, int32_t out_y, int32_t out_x)
{
    const int32_t pixel = p->in_pixel ? p->in_pixel : p->in_c, row = p->in_row ? p->in_row : p->in_w * pixel;
    const int32_t in_y = out_y * p->stride_h - p->pad_top, in_x = out_x * p->stride_w - p->pad_left;
    const int32_t y = tr_max(0, -in_y), x = tr_max(0, -in_x);
    const int32_t rows = tr_min(p->kernel_h, p->in_h - in_y) - y, columns = tr_min(p->kernel_w, p->in_w - in_x) - x;
    const int32_t together = pixel == p->in_c, plane = together && columns == p->kernel_w && row == columns * pixel && columns > 0;
    return (struct field){.in = in + (in_y + y) * row + (in_x + x) * pixel,
                          .weights = weights + (y * p->kernel_w + x) * p->in_c,
                          .rows = columns <= 0 ? 0 : plane ? 1 : rows,
                          .runs = together ? 1 : columns,
                          .run_n = (together ? columns * p->in_c : p->in_c) * (plane ? rows : 1),
                          .in_row = row,
                          .in_pixel = pixel,
                          .weight_row = p->kernel_w * p->in_c,
                          .next_pixel = p->stride_w * pixel,
                          .next_channel = p->kernel_h * p->kernel_w * p->in_c};
}

/* Sums of channels c and, where `two`, c + 1 at a field and, where `pair`, at the next one. */
static struct sums sums_of(const struct field *field, struct sums sums, int32_t c, int32_t two, int32_t pair, uint32_t zero)
{
    const int8_t *weights = field->weights + c * field->next_channel;
    if (pair) {
        return two ? field_2x2(sums, field, weights, zero) : field_1x2(sums, field, weights, zero);
    }
    return two ? field_2x1(sums, field, weights, zero) : field_1x1(sums, field, weights, zero);
}

/* True where the kernel lies inside the input's columns both at out_x and at the next pixel. */
static int32_t is_pair(const struct tr_conv *p, int32_t out_x)
{
    const int32_t in_x = out_x * p->stride_w - p->pad_left;
    return out_x + 1 < p->out_w && in_x >= 0 && in_x + p->stride_w + p->kernel_w <= p->in_w;
}

static inline int8_t output(int32_t sum, int32_t c, const struct tr_conv *p)
{
    return tr_requantize_s8(sum, p->multiplier[c], p->shift[c], p->output_zero_point, p->activation_min, p->activation_max);
}

void tr_conv_direct_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict weights,
                       const int32_t *restrict bias, const struct tr_conv *restrict p)
{
    const int32_t out_c = p->out_c, pixel = p->out_pixel ? p->out_pixel : out_c, row = p->out_row ? p->out_row : p->out_w * pixel;
    const uint32_t zero = tr_twice_s16(-p->input_zero_point);
    for (int32_t y = 0; y < p->out_h; y++) {
        int8_t *to = out + y * row;
        for (int32_t x = 0, pair; x < p->out_w; x += 1 + pair, to += pixel + pair * pixel) {
            const struct field field = clip(in, weights, p, y, x);
            pair = is_pair(p, x);
            for (int32_t c = 0; c < out_c; c += 2) {
                const int32_t two = c + 1 < out_c, bias_b = two ? bias[c + 1] : 0;
                const struct sums sums = sums_of(&field, (struct sums){bias[c], bias[c], bias_b, bias_b}, c, two, pair, zero);
                to[c] = output(sums.a0, c, p);
                if (two) {
                    to[c + 1] = output(sums.b0, c + 1, p);
                }
                if (pair) {
                    to[pixel + c] = output(sums.a1, c, p);
                }
                if (pair && two) {
                    to[pixel + c + 1] = output(sums.b1, c + 1, p);
                }
            }
        }
    }
}

void tr_conv_add_s32(int32_t *restrict sums, const int8_t *restrict in, const int8_t *restrict weights,
                     const struct tr_conv *restrict p)
{
    const int32_t out_c = p->out_c;
    const uint32_t zero = tr_twice_s16(-p->input_zero_point);
    for (int32_t y = 0; y < p->out_h; y++) {
        for (int32_t x = 0, pair; x < p->out_w; x += 1 + pair, sums += out_c + pair * out_c) {
            const struct field field = clip(in, weights, p, y, x);
            pair = is_pair(p, x);
            int32_t *const next = pair ? sums + out_c : sums;
            for (int32_t c = 0; c < out_c; c += 2) {
                const int32_t two = c + 1 < out_c, b = two ? c + 1 : c;
                const struct sums old = {sums[c], next[c], sums[b], next[b]};
                const struct sums new = sums_of(&field, old, c, two, pair, zero);
                sums[c] = new.a0;
                if (two) {
                    sums[b] = new.b0;
                }
                if (pair) {
                    next[c] = new.a1;
                }
                if (pair && two) {
                    next[b] = new.b1;
                }
            }
        }
    }
}

void tr_conv_add_s16(int16_t *restrict sums, const int8_t *restrict in, const int8_t *restrict weights,
                     const int32_t *restrict right, const struct tr_conv *restrict p)
{
    const int32_t out_c = p->out_c;
    const uint32_t zero = tr_twice_s16(-p->input_zero_point);
    for (int32_t y = 0; y < p->out_h; y++) {
        for (int32_t x = 0; x < p->out_w; x++, sums += out_c) {
            const struct field field = clip(in, weights, p, y, x);
            for (int32_t c = 0; c < out_c; c++) {
                const struct sums sum = sums_of(&field, (struct sums){0, 0, 0, 0}, c, 0, 0, zero);
                sums[c] = (int16_t)tr_clamp(sums[c] + tr_round_shift(sum.a0, right[c]), INT16_MIN, INT16_MAX);
            }
        }
    }
}

void tr_sums_start_s32(int32_t *restrict sums, const int32_t *restrict bias, const struct tr_conv *restrict p)
{
    for (int32_t pixel = p->out_h * p->out_w; pixel > 0; pixel--, sums += p->out_c) {
        for (int32_t c = 0; c < p->out_c; c++) {
            sums[c] = bias[c];
        }
    }
}

void tr_sums_start_s16(int16_t *restrict sums, const int32_t *restrict bias, const int32_t *restrict right,
                       const struct tr_conv *restrict p)
{
    for (int32_t pixel = p->out_h * p->out_w; pixel > 0; pixel--, sums += p->out_c) {
        for (int32_t c = 0; c < p->out_c; c++) {
            sums[c] = (int16_t)tr_clamp(tr_round_shift(bias[c], right[c]), INT16_MIN, INT16_MAX);
        }
    }
}

/* Sum i is read before value i is written and lies no lower, so `out` may begin where `sums` does. */
void tr_sums_finish_s32(int8_t *out, const int32_t *sums, const struct tr_conv *restrict p)
{
    const int32_t out_c = p->out_c, pixel = p->out_pixel ? p->out_pixel : out_c, row = p->out_row ? p->out_row : p->out_w * pixel;
    for (int32_t y = 0; y < p->out_h; y++) {
        for (int32_t x = 0; x < p->out_w; x++, sums += out_c) {
            int8_t *const to = out + y * row + x * pixel;
            for (int32_t c = 0; c < out_c; c++) {
                to[c] = output(sums[c], c, p);
            }
        }
    }
}

void tr_sums_finish_s16(int8_t *out, const int16_t *sums, const int32_t *restrict right, const struct tr_conv *restrict p)
{
    const int32_t out_c = p->out_c, pixel = p->out_pixel ? p->out_pixel : out_c, row = p->out_row ? p->out_row : p->out_w * pixel;
    for (int32_t y = 0; y < p->out_h; y++) {
        for (int32_t x = 0; x < p->out_w; x++, sums += out_c) {
            int8_t *const to = out + y * row + x * pixel;
            for (int32_t c = 0; c < out_c; c++) {
                to[c] = output((int32_t)((uint32_t)sums[c] << right[c]), c, p);
            }
        }
    }
}
