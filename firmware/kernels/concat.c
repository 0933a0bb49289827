/* concat.c: writes one input of a channel concatenation into its channels of the output, `rows` pixels of in_c values
 * each to channel_offset of out_c. All inputs have the output's quantisation, so values are copied. Scratch: none. */
#include "check.h"
#include "tinyredux.h"

void tr_concat_s8(int8_t *restrict out, const int8_t *restrict in, const struct tr_concat *restrict p)
{
    const int32_t in_c = p->in_c, out_c = p->out_c, in_row = p->in_row ? p->in_row : in_c;
    TR_ASSERT(p->channel_offset >= 0 && p->channel_offset + in_c <= out_c);
    out += p->channel_offset;
    for (int32_t row = 0; row < p->rows; row++) {
        for (int32_t c = 0; c < in_c; c++) {
            out[c] = in[c];
        }
        in += in_row;
        out += out_c;
    }
}
