/* attention.h: what both kernels of attention share: the table of powers, outputs from sums of weighted values, biases of scores. */
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

/* Adds the bias of a query of a head to its scores; returns the largest. */
static inline int32_t tr_add_bias(int32_t *scores, const int8_t *bias, int32_t keys, int32_t step, int32_t masked)
{
    int32_t largest = INT32_MIN;
    for (int32_t k = 0; k < keys; k++) {
        scores[k] = bias[k] == INT8_MIN ? masked : scores[k] + bias[k] * step;
        largest = tr_max(largest, scores[k]);
    }
    return largest;
}

#endif
