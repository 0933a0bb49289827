/* gather.h: the window of an output pixel as consecutive bytes. */
#ifndef TR_GATHER_H
#define TR_GATHER_H

#include "dot.h"

/* Writes n values of padding; returns where they end. */
static inline int8_t *tr_put_padding(int8_t *restrict to, int32_t zero_point, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        to[i] = (int8_t)zero_point;
    }
    return to + n;
}

/* Copies n values; returns where they end. */
static inline int8_t *tr_put_values(int8_t *restrict to, const int8_t *restrict from, int32_t n)
{
    int32_t i = 0;
    for (; i + 4 <= n; i += 4) {
        tr_store_s8x4(to + i, tr_load_s8x4(from + i));
    }
    for (; i < n; i++) {
        to[i] = from[i];
    }
    return to + n;
}

#endif
