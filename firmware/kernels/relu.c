/* relu.c: clamps n int8 values. Input and output share one quantisation, so ReLU is a maximum with the zero point, and
 * ReLU6 also a minimum with the code of 6. Scratch: none. */
#include "requantize.h"
#include "tinyredux.h"

void tr_relu_s8(int8_t *out, const int8_t *in, const struct tr_relu *restrict p)
{
    const int32_t n = p->n, low = p->activation_min, high = p->activation_max;
    for (int32_t row = tr_max(p->rows, 1); row > 0; row--, in += p->in_row, out += p->out_row) {
        for (int32_t i = 0; i < n; i++) {
            out[i] = (int8_t)tr_clamp(in[i], low, high);
        }
    }
}
