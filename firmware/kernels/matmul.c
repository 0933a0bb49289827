/* matmul.c: products of matrices of two activations, whose values lie anywhere in their maps.
 *
 * A row of the left matrix comes as int16, less its zero point, into scratch, where all columns of the right one meet it. Columns
 * whose values lie side by side go two at a time by four values, in the order of columns.h; rows whose values do, four columns at
 * a time by two values; others value by value. The right one's zero point times the row's sum is where each sum begins.
 *
 * Range: |value - zero_point| <= 255, inner <= 16384, so sums and their parts stay below 2^31.
 * Scratch: TR_MATMUL_SCRATCH_BYTES. */
#include "columns.h"
#include "micro.h"
#include "requantize.h"
#include "tinyredux.h"

/* A row of the left matrix as int16 less its zero point; returns the sum of its values. */
static int32_t widen(int16_t *row, const int8_t *from, const struct tr_matmul *p)
{
    const int32_t inner = p->inner, step = p->left_inner, zero_point = p->left_zero_point;
    int32_t sum = 0;
    for (int32_t k = 0; k < inner; k++) {
        const int32_t value = from[k * step] - zero_point;
        row[p->right_inner == 1 && k < (inner & ~3) ? tr_column_index(k) : k] = (int16_t)value;
        sum += value;
    }
    return sum;
}

/* Adds products of a row with two columns, each side by side, to the sums a0 and b0. */
static struct tr_sums add_columns(struct tr_sums sums, const int16_t *row, const int8_t *column, int32_t next, int32_t inner)
{
    int32_t k = 0;
    for (; k + 4 <= inner; k += 4, column += 4) {
        const uint32_t a = tr_load_s8x4(column), b = tr_load_s8x4(column + next);
        const uint32_t row_02 = tr_load_s16x2(row + k), row_13 = tr_load_s16x2(row + k + 2);
        sums.a0 = tr_smlad(tr_sxtb16_ror8(a), row_13, tr_smlad(tr_sxtb16(a), row_02, sums.a0));
        sums.b0 = tr_smlad(tr_sxtb16_ror8(b), row_13, tr_smlad(tr_sxtb16(b), row_02, sums.b0));
    }
    for (; k < inner; k++, column++) {
        sums.a0 += row[k] * column[0];
        sums.b0 += row[k] * column[next];
    }
    return sums;
}

static void put(int8_t *out, const int32_t *sums, int32_t n, const struct tr_matmul *p)
{
    for (int32_t i = 0; i < n; i++) {
        out[i] = tr_requantize_s8(sums[i], p->multiplier, p->shift, p->output_zero_point, INT8_MIN, INT8_MAX);
    }
}

/* A row of the output: that of the left matrix times the right matrix. */
static void multiply_row(int8_t *out, const int16_t *row, int32_t start, const int8_t *right, const struct tr_matmul *p)
{
    const int32_t inner = p->inner, across = p->right_column, down = p->right_inner;
    const int32_t side_by_side = down != 1 && across == 1 ? 4 : 2;
    for (int32_t c = 0; c < p->columns; c += side_by_side) {
        const int32_t n = tr_min(side_by_side, p->columns - c);
        int32_t sums[4] = {start, start, start, start};
        const int8_t *const column = right + c * across;
        if (n == 4) {
            tr_add_four(sums, column, row, inner, down);
        } else if (down == 1) {
            const struct tr_sums two = add_columns((struct tr_sums){start, 0, start, 0}, row, column, n == 2 ? across : 0, inner);
            sums[0] = two.a0;
            sums[1] = two.b0;
        } else {
            for (int32_t k = 0; k < inner; k++) {
                for (int32_t i = 0; i < n; i++) {
                    sums[i] += row[k] * column[k * down + i * across];
                }
            }
        }
        put(out + c, sums, n, p);
    }
}

void tr_matmul_s8(int8_t *restrict out, const int8_t *restrict left, const int8_t *restrict right, const struct tr_matmul *restrict p,
                  int16_t *restrict scratch)
{
    TR_ASSERT(p->inner >= 1 && p->inner <= 16384 && (uintptr_t)scratch % 4 == 0);
    for (int32_t head = 0; head < p->heads; head++) {
        for (int32_t i = 0; i < p->rows; i++) {
            const int32_t sum = widen(scratch, left + p->left_first + head * p->left_head + i * p->left_row, p);
            multiply_row(out + head * p->out_head + i * p->out_row, scratch, -p->right_zero_point * sum,
                         right + p->right_first + head * p->right_head, p);
        }
    }
}
