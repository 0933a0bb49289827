/* field.h: what the kernel of a convolution covers at an output pixel, multiplied where it lies in the map (field.c).
 *
 * Nothing is copied into columns. A row of the kernel meets a run of neighbouring input values; the part of the kernel that lies in
 * the padding is left out. Where the input has gaps between pixels, a run is one pixel; where it has none and the kernel is as
 * wide as the map, all rows are one run. */
#ifndef TR_FIELD_H
#define TR_FIELD_H

#include "micro.h"
#include "requantize.h"
#include "tinyredux.h"

/* `rows` rows of `runs` runs of run_n values each, with the weights of output channel 0; then the distances in values. `pair` is 1
 * where the kernel lies inside the input's columns both here and at the next pixel, so that both are multiplied together, else 0. */
struct tr_field {
    const int8_t *in, *weights;
    int32_t rows, runs, run_n, in_row, in_pixel, weight_row, next_pixel, next_channel, out_c, pair;
};

/* Returns the field of output pixel (out_y, out_x): the kernel clipped to the input. */
struct tr_field tr_field_at(const int8_t *in, const int8_t *weights, const struct tr_conv *p, int32_t out_y, int32_t out_x);

/* Returns `sums` and the products of output channels c and, where there is one, c + 1 at the field's one or two pixels.
 * minus_zero_point: of the input, in both halves of the word. */
struct tr_sums tr_field_sums(const struct tr_field *field, struct tr_sums sums, int32_t c, uint32_t minus_zero_point);

/* The same for one channel, whose weights begin at `weights`, at one pixel. */
struct tr_sums tr_field_1x1(struct tr_sums sums, const struct tr_field *field, const int8_t *weights, uint32_t minus_zero_point);

static inline int8_t tr_conv_output(int32_t sum, int32_t c, const struct tr_conv *p)
{
    return tr_requantize_s8(sum, p->multiplier[c], p->shift[c], p->output_zero_point, p->activation_min, p->activation_max);
}

#endif
