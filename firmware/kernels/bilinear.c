/* bilinear.c: a map at other sizes, each value the mean of its four nearest.
 *
 * The weights of the four are products of those along rows and columns and add up to 2^bits. The sum is divided by that: halves go
 * upward, with `away` away from zero, with `even` to even, of the sum less the zero point. The map begins at the first row and
 * column that are read. Where a weight is 0 the neighbour is not read. Scratch: none. */
#include "check.h"
#include "tinyredux.h"

#define FIRST 12 /* the bit from which on an entry holds the number of the first neighbour */

void tr_bilinear_s8(int8_t *restrict out, const int8_t *restrict in, const int32_t *restrict rows, const int32_t *restrict columns,
                    const struct tr_bilinear *restrict p)
{
    const int32_t bits = p->bits, even = p->even, zero_point = p->zero_point, one = 1 << bits / 2, channels = p->out_c;
    const int32_t half = 1 << (bits - 1), centre = zero_point * (1 << bits), away = p->away;
    for (int32_t y = 0; y < p->out_h; y++, out += p->out_row) {
        const int32_t row = (rows[y] >> FIRST) - (rows[0] >> FIRST), below = rows[y] & ((1 << FIRST) - 1);
        const int32_t down = below ? p->in_row : 0;
        TR_ASSERT(row + (below != 0) < p->in_h);
        int8_t *to = out;
        for (int32_t x = 0; x < p->out_w; x++, to += p->out_pixel) {
            const int32_t column = (columns[x] >> FIRST) - (columns[0] >> FIRST), beside = columns[x] & ((1 << FIRST) - 1);
            const int32_t right = beside ? p->in_pixel : 0;
            const int32_t a = (one - below) * (one - beside), b = (one - below) * beside;
            const int32_t c = below * (one - beside), d = below * beside;
            const int8_t *from = in + row * p->in_row + column * p->in_pixel;
            TR_ASSERT(column + (beside != 0) < p->in_w);
            for (int32_t i = 0; i < channels; i++) {
                const int8_t *at = from + i;
                const int32_t sum = at[0] * a + at[right] * b + at[down] * c + at[down + right] * d - centre;
                const int32_t less = (away & (sum < 0)) | (even & ~(sum >> bits)); /* of a half */
                to[i] = (int8_t)(((sum + half - less) >> bits) + zero_point);
            }
        }
    }
}
