/* columns.h: int8 values widened to columns of int16, in the order in which SXTB16 takes four weights out of a word. */
#ifndef TR_COLUMNS_H
#define TR_COLUMNS_H

#include "dot.h"

/* Where value k of a column lies: of each four, 0 2 1 3. */
static inline int32_t tr_column_index(int32_t k) { return (k & ~3) | (k & 1) << 1 | (k >> 1 & 1); }

/* Writes n values of a column from value k on, with the zero point taken off. */
static __attribute__((unused)) void tr_fill_values(int16_t *column, int32_t k, const int8_t *in, int32_t n, int32_t zero_point)
{
    const uint32_t minus_zero_point = tr_twice_s16(-zero_point);
    const int32_t end = k + n;
    for (; k < end && (k & 3) != 0; k++) {
        column[tr_column_index(k)] = (int16_t)(*in++ - zero_point);
    }
    for (; k + 4 <= end; k += 4) {
        const uint32_t word = tr_load_s8x4(in);
        tr_store_s16x2(column + k, tr_sxtab16(minus_zero_point, word));
        tr_store_s16x2(column + k + 2, tr_sxtab16_ror8(minus_zero_point, word));
        in += 4;
    }
    for (; k < end; k++) {
        column[tr_column_index(k)] = (int16_t)(*in++ - zero_point);
    }
}

#endif
