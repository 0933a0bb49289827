/* quads.c: 1x1 convolution, four products in an SMLAL and the sums that share a field by byte pairs (tinyredux.kernels.quads).
 *
 * The map's pixels are taken `strip` at a time, in fours p q r s; the last strip overlaps the one before. Words of (p, q) and
 * (r, s) go to `columns`, p and r widened to `rows`. First the sums of p and r with every second channel (p->second), then all
 * outputs, four channels at a time (p->product).
 *
 * Layouts: input [pixels][in_c], output [pixels][out_c], groups and seconds one group of data per four channels.
 * Accumulator: sums are fields of 64 bits; the library takes this kernel only where no field overflows for any input.
 * Scratch: the larger group where groups are copied, strip / 2 * (pair_words + second_row_words) words, then the sums. */
#include "check.h"
#include "tinyredux.h"

/* The group where the products read it: where it lies, or in RAM. */
static const int32_t *placed(int32_t *copy, const int32_t *group, const struct tr_quads *p, int32_t words)
{
    if (!p->copied) {
        return group;
    }
    p->copy(copy, group, words / 8);
    return copy;
}

static void multiply(int8_t *restrict out, const int8_t *restrict in, const int32_t *restrict groups,
                     const int32_t *restrict seconds, const struct tr_quads *p, int32_t first, int32_t *restrict scratch)
{
    const int32_t larger = p->group_words > p->second_group_words ? p->group_words : p->second_group_words;
    const int32_t channels = (p->out_c + 3) / 4 * 2; /* those of every group whose sums come first */
    int32_t *const columns = scratch + (p->copied ? larger : 0), *const rows = columns + p->strip / 2 * p->pair_words;
    int32_t *const sums = rows + p->strip / 2 * p->second_row_words;
    p->pack(columns, rows, in + first * p->in_c);
    for (int32_t c = 0; c < channels; c += 4, seconds += p->second_group_words) {
        const int32_t *const group = placed(scratch, seconds, p, p->second_group_words);
        p->second(sums + (c < channels - 4 ? c : channels - 4), rows, group, p->strip / 4);
    }
    for (int32_t c = 0; c < p->out_c; c += 4, groups += p->group_words) {
        const int32_t *const group = placed(scratch, groups, p, p->group_words);
        p->product(out + first * p->out_c + (c < p->out_c - 4 ? c : p->out_c - 4), columns, group, sums + c / 2);
    }
}

void tr_quads_conv_s8(int8_t *restrict out, const int8_t *restrict in, const int32_t *restrict groups,
                      const int32_t *restrict seconds, const struct tr_quads *restrict p, int32_t *restrict scratch)
{
    TR_ASSERT(p->pixels >= 4 && p->in_c % 4 == 0 && p->out_c >= 5 && p->strip > 0 && p->strip % 4 == 0);
    for (int32_t first = 0; first < p->pixels; first += p->strip) {
        multiply(out, in, groups, seconds, p, first < p->pixels - p->strip ? first : p->pixels - p->strip, scratch);
    }
}
