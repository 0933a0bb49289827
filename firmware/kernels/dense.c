/* dense.c: int8 matrix [out_n][in_n] times a vector.
 *
 * Two rows at a time share each loaded input: SXTAB16 unpacks four inputs and takes off the zero point, SXTB16 unpacks
 * four weights of each row, four SMLAD do the eight products.
 *
 * Accumulator: |sum| <= |bias| + in_n * 255 * 127, inside 32 bits for in_n <= 32768 with |bias| < 2^30.
 * Scratch: none. */
#include "dot.h"
#include "requantize.h"
#include "tinyredux.h"

/* Adds four weights of one row times four inputs. */
static inline int32_t step(int32_t sum, uint32_t weights, uint32_t in_02, uint32_t in_13)
{
    sum = tr_smlad(tr_sxtb16(weights), in_02, sum);
    return tr_smlad(tr_sxtb16_ror8(weights), in_13, sum);
}

struct two_sums {
    int32_t a, b;
};

static struct two_sums dot_two_rows(struct two_sums sums, const int8_t *in, const int8_t *weights, int32_t in_n,
                                    int32_t zero_point)
{
    const uint32_t minus_zero_point = tr_twice_s16(-zero_point);
    for (const int8_t *const end = in + (in_n & ~3); in != end; in += 4, weights += 4) {
        const uint32_t weights_b = tr_load_s8x4(weights + in_n), weights_a = tr_load_s8x4(weights), word = tr_load_s8x4(in);
        const uint32_t in_02 = tr_sxtab16(minus_zero_point, word), in_13 = tr_sxtab16_ror8(minus_zero_point, word);
        sums.a = step(sums.a, weights_a, in_02, in_13);
        sums.b = step(sums.b, weights_b, in_02, in_13);
    }
    for (int32_t i = 0; i < (in_n & 3); i++) {
        sums.a += (in[i] - zero_point) * weights[i];
        sums.b += (in[i] - zero_point) * weights[in_n + i];
    }
    return sums;
}

static int32_t dot_row(int32_t sum, const int8_t *in, const int8_t *weights, int32_t in_n, int32_t zero_point)
{
    const uint32_t minus_zero_point = tr_twice_s16(-zero_point);
    int32_t i = 0;
    for (; i + 4 <= in_n; i += 4) {
        const uint32_t word = tr_load_s8x4(in + i);
        sum = step(sum, tr_load_s8x4(weights + i), tr_sxtab16(minus_zero_point, word), tr_sxtab16_ror8(minus_zero_point, word));
    }
    for (; i < in_n; i++) {
        sum += (in[i] - zero_point) * weights[i];
    }
    return sum;
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
    (void)scratch;
    for (; c + 2 <= out_n; c += 2) {
        const struct two_sums start = {bias[c], bias[c + 1]};
        const struct two_sums sums = dot_two_rows(start, in, weights + c * in_n, in_n, zero_point);
        out[c] = output(sums.a, c, p);
        out[c + 1] = output(sums.b, c + 1, p);
    }
    if (c < out_n) {
        out[c] = output(dot_row(bias[c], in, weights + c * in_n, in_n, zero_point), c, p);
    }
}
