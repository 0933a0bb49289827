/* field.c: products of a field (field.h) with one or two output channels at one or two output pixels: the part that
 * conv_direct.c, conv_add_s32.c and conv_add_s16.c share.
 *
 * Four weights and four values are loaded as words from where they lie and multiplied by a step of micro.h. Two channels at two
 * pixels take sixteen values at a time; a rest of 1 to 3 values takes the last four again, the weights of those already counted
 * masked out.
 *
 * Accumulator: see micro.h; a field has at most k_n values. Scratch: none. */
#include "field.h"

/* Two pixels' inputs and two channels' weights that lie in a row. */
struct run {
    const int8_t *in, *weights;
    int32_t next_pixel, next_channel;
};

TR_ALWAYS_INLINE struct tr_words words_2x2(const int8_t *weights_a, const int8_t *weights_b, const int8_t *in_0,
                                           const int8_t *in_1)
{
    return (struct tr_words){tr_load_s8x4(weights_a), tr_load_s8x4(weights_b), tr_load_s8x4(in_0), tr_load_s8x4(in_1)};
}

/* Sixteen values at a time. Out of line, or the caller's variables would push pointers onto the stack. */
static TR_OUT_OF_LINE void add_sixteens_2x2(struct tr_sums *restrict to, const int8_t *in, const int8_t *weights,
                                            int32_t sixteens, int32_t next_pixel, int32_t next_channel, uint32_t minus_zero_point)
{
    const struct tr_tile tile = {1, 1};
    const int8_t *in_1 = in + next_pixel, *weights_b = weights + next_channel;
    struct tr_sums sums = *to;
    for (const int8_t *const end = weights + 16 * sixteens; weights != end;
         weights += 16, weights_b += 16, in += 16, in_1 += 16) {
        sums = tr_step_tile(sums, words_2x2(weights, weights_b, in, in_1), minus_zero_point, tile);
        sums = tr_step_tile(sums, words_2x2(weights + 4, weights_b + 4, in + 4, in_1 + 4), minus_zero_point, tile);
        sums = tr_step_tile(sums, words_2x2(weights + 8, weights_b + 8, in + 8, in_1 + 8), minus_zero_point, tile);
        sums = tr_step_tile(sums, words_2x2(weights + 12, weights_b + 12, in + 12, in_1 + 12), minus_zero_point, tile);
    }
    *to = sums;
}

/* The same for a zero point of 0: everything but `end` lies in registers. */
static TR_OUT_OF_LINE void add_raw_sixteens_2x2(struct tr_sums *restrict to, const int8_t *in, const int8_t *weights,
                                                int32_t sixteens, int32_t next_pixel, int32_t next_channel)
{
    const int8_t *in_1 = in + next_pixel, *weights_b = weights + next_channel;
    struct tr_sums sums = *to;
    for (const int8_t *const end = weights + 16 * sixteens; weights != end;) {
        sums = tr_step_raw_late(sums, weights, weights_b, in, in_1);
        sums = tr_step_raw_late(sums, weights + 4, weights_b + 4, in + 4, in_1 + 4);
        sums = tr_step_raw_late(sums, weights + 8, weights_b + 8, in + 8, in_1 + 8);
        sums = tr_step_raw_late(sums, weights + 12, weights_b + 12, in + 12, in_1 + 12);
        weights += 16;
        weights_b += 16;
        in += 16;
        in_1 += 16;
    }
    *to = sums;
}

/* A run of n values. */
TR_ALWAYS_INLINE struct tr_sums add_run(struct tr_sums sums, struct run run, int32_t n, uint32_t minus_zero_point,
                                        struct tr_tile tile)
{
    const int8_t *in = run.in, *weights = run.weights;
    if (tile.two_channels && tile.two_pixels && n >= 16) {
        if (minus_zero_point == 0) {
            add_raw_sixteens_2x2(&sums, in, weights, n >> 4, run.next_pixel, run.next_channel);
        } else {
            add_sixteens_2x2(&sums, in, weights, n >> 4, run.next_pixel, run.next_channel, minus_zero_point);
        }
        in += n & ~15;
        weights += n & ~15;
        n &= 15;
    }
    const int8_t *in_1 = in + run.next_pixel, *weights_b = weights + run.next_channel;
    for (int32_t k = n >> 2; k > 0; k--) {
        const struct tr_words words = {tr_load_s8x4(weights), tile.two_channels ? tr_load_s8x4(weights_b) : 0, tr_load_s8x4(in),
                                       tile.two_pixels ? tr_load_s8x4(in_1) : 0};
        sums = tr_step_tile(sums, words, minus_zero_point, tile);
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
        const struct tr_words words = {tr_load_s8x4(weights + back) & mask,
                                       tile.two_channels ? tr_load_s8x4(weights_b + back) & mask : 0, tr_load_s8x4(in + back),
                                       tile.two_pixels ? tr_load_s8x4(in_1 + back) : 0};
        return tr_step_tile(sums, words, minus_zero_point, tile);
    }
    const struct tr_words words = {tr_load_s8_tail(weights, rest), tile.two_channels ? tr_load_s8_tail(weights_b, rest) : 0,
                                   tr_load_s8_tail(in, rest), tile.two_pixels ? tr_load_s8_tail(in_1, rest) : 0};
    return tr_step_tile(sums, words, minus_zero_point, tile);
}

/* The whole field, one run after another. */
TR_ALWAYS_INLINE struct tr_sums add_field(struct tr_sums sums, const struct tr_field *field, const int8_t *weights,
                                          uint32_t minus_zero_point, struct tr_tile tile)
{
    const int32_t run_n = field->run_n, next_pixel = field->next_pixel, next_channel = field->next_channel;
    const int8_t *in_row = field->in;
    for (int32_t y = field->rows; y > 0; y--) {
        const int8_t *in = in_row, *of_run = weights;
        for (int32_t i = field->runs; i > 0; i--) {
            sums = add_run(sums, (struct run){in, of_run, next_pixel, next_channel}, run_n, minus_zero_point, tile);
            in += field->in_pixel;
            of_run += run_n;
        }
        in_row += field->in_row;
        weights += field->weight_row;
    }
    return sums;
}

TR_OUT_OF_LINE struct tr_sums tr_field_1x1(struct tr_sums sums, const struct tr_field *field, const int8_t *weights,
                                           uint32_t minus_zero_point)
{
    return add_field(sums, field, weights, minus_zero_point, (struct tr_tile){0, 0});
}

static TR_OUT_OF_LINE struct tr_sums field_1x2(struct tr_sums sums, const struct tr_field *field, const int8_t *weights,
                                               uint32_t minus_zero_point)
{
    return add_field(sums, field, weights, minus_zero_point, (struct tr_tile){0, 1});
}

static TR_OUT_OF_LINE struct tr_sums field_2x1(struct tr_sums sums, const struct tr_field *field, const int8_t *weights,
                                               uint32_t minus_zero_point)
{
    return add_field(sums, field, weights, minus_zero_point, (struct tr_tile){1, 0});
}

static TR_OUT_OF_LINE struct tr_sums field_2x2(struct tr_sums sums, const struct tr_field *field, const int8_t *weights,
                                               uint32_t minus_zero_point)
{
    return add_field(sums, field, weights, minus_zero_point, (struct tr_tile){1, 1});
}

struct tr_sums tr_field_sums(const struct tr_field *field, struct tr_sums sums, int32_t c, uint32_t minus_zero_point)
{
    const int8_t *weights = field->weights + c * field->next_channel;
    const int32_t two = c + 1 < field->out_c;
    if (field->pair) {
        return two ? field_2x2(sums, field, weights, minus_zero_point) : field_1x2(sums, field, weights, minus_zero_point);
    }
    return two ? field_2x1(sums, field, weights, minus_zero_point) : tr_field_1x1(sums, field, weights, minus_zero_point);
}

struct tr_field tr_field_at(const int8_t *in, const int8_t *weights, const struct tr_conv *p, int32_t out_y, int32_t out_x)
{
    const int32_t pixel = p->in_pixel ? p->in_pixel : p->in_c, row = p->in_row ? p->in_row : p->in_w * pixel;
    TR_ASSERT(p->groups == 1 && p->kernel_h * p->kernel_w * p->in_c <= TR_MOST_VALUES);
    const int32_t in_y = out_y * p->stride_h - p->pad_top, in_x = out_x * p->stride_w - p->pad_left;
    const int32_t y = tr_taps(tr_max(0, -in_y), p->holes_h), x = tr_taps(tr_max(0, -in_x), p->holes_w);
    const int32_t rows = tr_min(p->kernel_h, tr_taps(p->in_h - in_y, p->holes_h)) - y;
    const int32_t columns = tr_min(p->kernel_w, tr_taps(p->in_w - in_x, p->holes_w)) - x;
    const int32_t tap_row = row * (1 + p->holes_h), tap = pixel * (1 + p->holes_w), together = tap == p->in_c,
                  plane = together && columns == p->kernel_w && tap_row == columns * tap && rows > 0;
    return (struct tr_field){.in = in + (in_y * row + y * tap_row + in_x * pixel + x * tap),
                             .weights = weights + (y * p->kernel_w + x) * p->in_c,
                             .rows = columns <= 0 ? 0
                                     : plane      ? 1
                                                  : rows,
                             .runs = together ? 1 : columns,
                             .run_n = (together ? columns * p->in_c : p->in_c) * (plane ? rows : 1),
                             .in_row = tap_row,
                             .in_pixel = tap,
                             .weight_row = p->kernel_w * p->in_c,
                             .next_pixel = p->stride_w * pixel,
                             .next_channel = p->kernel_h * p->kernel_w * p->in_c,
                             .out_c = p->out_c,
                             .pair = out_x + 1 < p->out_w && in_x >= 0 && in_x + p->stride_w + (p->kernel_w - 1) * (1 + p->holes_w) < p->in_w};
}
