/* conv_add_s32.c: convolution fed with slices of the input's channels, for partial execution; sums of 32 bits.
 *
 * The sums [out_h][out_w][out_c], without gaps, start with the bias (tr_sums_start_s32); each slice, of in_c of the input's
 * channels with its weights [out_c][kernel_h][kernel_w][in_c], is added (tr_conv_add_s32); then they become int8
 * (tr_sums_finish_s32). The input and the output may have gaps. A dense layer is a convolution whose kernel is the whole map, so
 * the slices of dense layers are added up here too.
 *
 * Accumulator: see micro.h; k_n is that of all slices together. Scratch: none. */
#include "field.h"

void tr_sums_start_s32(int32_t *restrict sums, const int32_t *restrict bias, const struct tr_conv *restrict p)
{
    for (int32_t pixel = p->out_h * p->out_w; pixel > 0; pixel--, sums += p->out_c) {
        for (int32_t c = 0; c < p->out_c; c++) {
            sums[c] = bias[c];
        }
    }
}

void tr_conv_add_s32(int32_t *restrict sums, const int8_t *restrict in, const int8_t *restrict weights,
                     const struct tr_conv *restrict p)
{
    const int32_t out_c = p->out_c;
    const uint32_t minus_zero_point = tr_twice_s16(-p->input_zero_point);
    for (int32_t y = 0; y < p->out_h; y++) {
        for (int32_t x = 0, pair; x < p->out_w; x += 1 + pair, sums += out_c + pair * out_c) {
            const struct tr_field field = tr_field_at(in, weights, p, y, x);
            pair = field.pair;
            int32_t *const next = pair ? sums + out_c : sums;
            for (int32_t c = 0; c < out_c; c += 2) {
                const int32_t b = tr_min(c + 1, out_c - 1);
                const struct tr_sums old = {sums[c], next[c], sums[b], next[b]};
                const struct tr_sums new = tr_field_sums(&field, old, c, minus_zero_point);
                next[b] = new.b1; /* of one channel or one pixel the second sums are the old ones, overwritten by the first */
                next[c] = new.a1;
                sums[b] = new.b0;
                sums[c] = new.a0;
            }
        }
    }
}

/* Sum i is read before value i is written and lies no lower, so `out` may begin where `sums` does. */
void tr_sums_finish_s32(int8_t *out, const int32_t *sums, const struct tr_conv *restrict p)
{
    const int32_t out_c = p->out_c, pixel = p->out_pixel ? p->out_pixel : out_c, row = p->out_row ? p->out_row : p->out_w * pixel;
    for (int32_t y = 0; y < p->out_h; y++) {
        for (int32_t x = 0; x < p->out_w; x++, sums += out_c) {
            int8_t *const to = out + y * row + x * pixel;
            for (int32_t c = 0; c < out_c; c++) {
                to[c] = tr_conv_output(sums[c], c, p);
            }
        }
    }
}
