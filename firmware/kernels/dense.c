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

static inline void dot_two_rows(int32_t sum[2], const int8_t *in, const int8_t *weights, int32_t in_n, uint32_t minus_zero_point)
{
    const int8_t *row_a = weights, *row_b = weights + in_n;
    const int8_t *const end = in + (in_n & ~3);
    for (; in != end; in += 4, row_a += 4, row_b += 4) {
        const uint32_t word = tr_load_s8x4(in);
        const uint32_t in_02 = tr_sxtab16(minus_zero_point, word), in_13 = tr_sxtab16_ror8(minus_zero_point, word);
        sum[0] = step(sum[0], tr_load_s8x4(row_a), in_02, in_13);
        sum[1] = step(sum[1], tr_load_s8x4(row_b), in_02, in_13);
    }
    const int32_t zero_point = -tr_low(minus_zero_point);
    for (int32_t i = 0; i < (in_n & 3); i++) {
        sum[0] += (in[i] - zero_point) * row_a[i];
        sum[1] += (in[i] - zero_point) * row_b[i];
    }
}

static inline int32_t dot_row(int32_t sum, const int8_t *in, const int8_t *weights, int32_t in_n, uint32_t minus_zero_point)
{
    int32_t i = 0;
    for (; i + 4 <= in_n; i += 4) {
        const uint32_t word = tr_load_s8x4(in + i);
        sum = step(sum, tr_load_s8x4(weights + i), tr_sxtab16(minus_zero_point, word), tr_sxtab16_ror8(minus_zero_point, word));
    }
    for (const int32_t zero_point = -tr_low(minus_zero_point); i < in_n; i++) {
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
    const int32_t in_n = p->in_n, out_n = p->out_n;
    const uint32_t minus_zero_point = tr_twice_s16(-p->input_zero_point);
    int32_t c = 0;
    (void)scratch;
    for (; c + 2 <= out_n; c += 2) {
        int32_t sum[2] = {bias[c], bias[c + 1]};
        dot_two_rows(sum, in, weights + c * in_n, in_n, minus_zero_point);
        out[c] = output(sum[0], c, p);
        out[c + 1] = output(sum[1], c + 1, p);
    }
    if (c < out_n) {
        out[c] = output(dot_row(bias[c], in, weights + c * in_n, in_n, minus_zero_point), c, p);
    }
}
