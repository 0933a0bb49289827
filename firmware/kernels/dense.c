/* dense.c: int8 matrix [out_n][in_n] times a vector.
 *
 * Two rows at a time share each loaded input: SXTAB16 unpacks four inputs and takes off the zero point, SXTB16 unpacks
 * four weights of each row, four SMLAD do the eight products.
 *
 * Layouts: input [in_n], output [out_n], weights [out_n][in_n].
 * Accumulator: |sum| <= |bias| + in_n * 255 * 127, inside 32 bits for in_n <= TR_MOST_VALUES with |bias| < 2^30.
 * Scratch: none. */
#include "micro.h"
#include "requantize.h"
#include "tinyredux.h"

/* Adds two rows of weights times the inputs to the sums a0 and b0. */
static struct tr_sums dot_two_rows(struct tr_sums sums, const int8_t *in, const int8_t *weights, int32_t in_n, int32_t zero_point)
{
    const uint32_t minus_zero_point = tr_twice_s16(-zero_point);
    for (const int8_t *const end = in + (in_n & ~3); in != end; in += 4, weights += 4) {
        const uint32_t weights_b = tr_load_s8x4(weights + in_n);
        const struct tr_words words = {tr_load_s8x4(weights), weights_b, tr_load_s8x4(in), 0};
        sums = tr_step_tile(sums, words, minus_zero_point, (struct tr_tile){1, 0});
    }
    for (int32_t i = 0; i < (in_n & 3); i++) {
        sums.a0 += (in[i] - zero_point) * weights[i];
        sums.b0 += (in[i] - zero_point) * weights[in_n + i];
    }
    return sums;
}

static inline int8_t output(int32_t sum, int32_t c, const struct tr_dense *p)
{
    return tr_requantize_s8(sum, p->multiplier[c], p->shift[c], p->output_zero_point, p->activation_min, p->activation_max);
}

void tr_dense_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict weights, const int32_t *restrict bias,
                 const struct tr_dense *restrict p, int16_t *restrict scratch)
{
    const int32_t in_n = p->in_n, out_n = p->out_n, zero_point = p->input_zero_point;
    int32_t c = 0;
    TR_ASSERT(in_n <= TR_MOST_VALUES);
    (void)scratch;
    for (; c + 2 <= out_n; c += 2) {
        const struct tr_sums start = {bias[c], 0, bias[c + 1], 0};
        const struct tr_sums sums = dot_two_rows(start, in, weights + c * in_n, in_n, zero_point);
        out[c] = output(sums.a0, c, p);
        out[c + 1] = output(sums.b0, c + 1, p);
    }
    if (c < out_n) {
        out[c] = output(tr_dot(bias[c], weights + c * in_n, in, in_n, zero_point), c, p);
    }
}
