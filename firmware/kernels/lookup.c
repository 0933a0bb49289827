/* lookup.c: a function of each of n int8 values by itself, as a table of its 256 results. The table is made from the scales of
 * input and output when the network is compiled, so it may hold any function and any rounding. Scratch: none. */
#include "requantize.h"
#include "tinyredux.h"

void tr_lookup_s8(int8_t *out, const int8_t *in, const int8_t *restrict table, const struct tr_lookup *restrict p)
{
    const int32_t n = p->n;
    for (int32_t row = tr_max(p->rows, 1); row > 0; row--, in += p->in_row, out += p->out_row) {
        for (int32_t i = 0; i < n; i++) {
            out[i] = table[(uint8_t)in[i]];
        }
    }
}
