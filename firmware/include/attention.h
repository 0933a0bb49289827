/* attention.h: what both kernels of attention share: the table of powers, and outputs from sums of weighted values. */
#ifndef TR_ATTENTION_H
#define TR_ATTENTION_H

#include <stdint.h>

#include "requantize.h"

extern const uint16_t tr_powers[256];

/* The factor from sums of weighted values to outputs: multiplier * 2^(shift - 31). */
struct tr_share {
    int32_t multiplier, shift;
};

/* The factor of the layer over the sum of the weights. */
static inline struct tr_share tr_share_of(int32_t total, int32_t multiplier, int32_t shift)
{
    int32_t down = 0;
    while (down < 31 + shift && total >> (down + 1) > 0) {
        down++;
    }
    return (struct tr_share){(int32_t)(((uint64_t)multiplier << down) / (uint32_t)total), shift - down};
}

/* `n` outputs from sums. */
static inline void tr_put_shares(int8_t *out, const int32_t *sums, int32_t n, struct tr_share share, int32_t zero_point)
{
    for (int32_t i = 0; i < n; i++) {
        const int32_t value = tr_requantize(sums[i], share.multiplier, share.shift) + zero_point;
        out[i] = (int8_t)tr_clamp(value, INT8_MIN, INT8_MAX);
    }
}

#endif
