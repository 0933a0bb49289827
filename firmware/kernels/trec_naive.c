/* trec_naive.c: TREC as it is first thought of, to measure trec_conv.c against, which writes the same bytes.
 *
 * The whole matrix of windows is stored. Then block by block: projections of all rows, their ids, and tables with a place for
 * each of the 2^hash_bits ids: sums, numbers of members, means, products with every output channel. The products are added to
 * int32 sums of all outputs, which become int8 at the end. With kernel reuse the first channels' sums are the projections.
 *
 * Layouts: input [in_h][in_w][in_c], output [out_h][out_w][out_c], weights [out_c][k_n], vectors as tr_trec says.
 * Ranges: sums as in micro.h, sums of a cluster int32. Scratch: struct tables below, TR_TREC_NAIVE_BYTES. */
#include "micro.h"
#include "requantize.h"
#include "tinyredux.h"

struct tables {
    int32_t *projected;     /* rows x hash_bits */
    int32_t *sums, *counts; /* of each id: sub_length, one */
    int32_t *products;      /* of each id: out_c */
    int32_t *outputs;       /* rows x out_c */
    uint16_t *ids;          /* of each row */
    int8_t *matrix, *means; /* rows x k_n; of each id: sub_length */
};

static struct tables tables_of(int8_t *scratch, const struct tr_trec *p)
{
    const int32_t rows = p->out_h * p->out_w, codes = 1 << p->hash_bits;
    struct tables t;
    t.projected = (int32_t *)(void *)scratch;
    t.sums = t.projected + rows * p->hash_bits;
    t.counts = t.sums + codes * p->sub_length;
    t.products = t.counts + codes;
    t.outputs = t.products + codes * p->out_c;
    t.ids = (uint16_t *)(void *)(t.outputs + rows * p->out_c);
    t.matrix = (int8_t *)t.ids + TR_WORDS(2 * rows);
    t.means = t.matrix + TR_WORDS(rows * p->k_n);
    return t;
}

static void copy_windows(int8_t *to, const int8_t *in, const struct tr_trec *p)
{
    for (int32_t i = 0; i < p->out_h * p->out_w; i++) {
        const int32_t top = i / p->out_w * p->stride_h - p->pad_top, left = i % p->out_w * p->stride_w - p->pad_left;
        for (int32_t tap = 0; tap < p->kernel_h * p->kernel_w; tap++, to += p->in_c) {
            const int32_t y = top + tap / p->kernel_w, x = left + tap % p->kernel_w;
            if (y < 0 || y >= p->in_h || x < 0 || x >= p->in_w) {
                memset(to, p->input_zero_point, (size_t)p->in_c);
            } else {
                memcpy(to, in + (y * p->in_w + x) * p->in_c, (size_t)p->in_c);
            }
        }
    }
}

static TR_OUT_OF_LINE int32_t product(const int8_t *weights, const int8_t *values, int32_t n, int32_t zero_point)
{
    return tr_dot(0, weights, values, n, zero_point);
}

static void hash_rows(const struct tables *t, const int8_t *rows_at, const int8_t *vectors, int32_t n, const struct tr_trec *p)
{
    const int32_t rows = p->out_h * p->out_w;
    memset(t->ids, 0, 2 * (size_t)rows);
    for (int32_t h = 0; h < p->hash_bits; h++) {
        int64_t total = 0;
        for (int32_t i = 0; i < rows; i++) {
            const int32_t found = product(vectors + h * p->vector_row, rows_at + i * p->k_n, n, p->input_zero_point);
            t->projected[i * p->hash_bits + h] = found;
            total += found;
        }
        const int64_t mean = total / rows - (total % rows < 0), limit = p->mean_threshold ? mean : 0;
        for (int32_t i = 0; i < rows; i++) {
            t->ids[i] = (uint16_t)(t->ids[i] | (t->projected[i * p->hash_bits + h] > limit) << h);
        }
    }
}

static void average(const struct tables *t, const int8_t *rows_at, int32_t n, const struct tr_trec *p)
{
    const int32_t length = p->sub_length, codes = 1 << p->hash_bits;
    memset(t->sums, 0, 4 * (size_t)(codes * (length + 1))); /* and counts, which follow */
    for (int32_t i = 0; i < p->out_h * p->out_w; i++) {
        int32_t *const sums = t->sums + t->ids[i] * length;
        t->counts[t->ids[i]]++;
        for (int32_t k = 0; k < n; k++) {
            sums[k] += rows_at[i * p->k_n + k];
        }
    }
    for (int32_t id = 0; id < codes; id++) {
        const int32_t count = t->counts[id];
        for (int32_t k = 0; count > 0 && k < n; k++) {
            const int32_t sum = t->sums[id * length + k];
            t->means[id * length + k] = (int8_t)((2 * (sum + 128 * count) + count) / (2 * count) - 128);
        }
    }
}

static void multiply(const struct tables *t, const int8_t *weights, int32_t n, const struct tr_trec *p)
{
    const int32_t out_c = p->out_c;
    for (int32_t id = 0; id < 1 << p->hash_bits; id++) {
        for (int32_t c = p->exact_c; t->counts[id] > 0 && c < out_c; c++) {
            t->products[id * out_c + c] = product(weights + c * p->k_n, t->means + id * p->sub_length, n, p->input_zero_point);
        }
    }
    for (int32_t i = 0; i < p->out_h * p->out_w; i++) {
        for (int32_t c = 0; c < out_c; c++) {
            const int32_t *const from = c < p->exact_c ? t->projected + i * p->hash_bits : t->products + t->ids[i] * out_c;
            t->outputs[i * out_c + c] += from[c];
        }
    }
}

void tr_trec_naive_s8(int8_t *restrict out, const int8_t *restrict in, const int8_t *restrict weights,
                      const int8_t *restrict vectors, const int32_t *restrict bias, const struct tr_trec *restrict p,
                      int16_t *restrict scratch)
{
    const struct tables t = tables_of((int8_t *)scratch, p);
    const int32_t values = p->out_h * p->out_w * p->out_c;
    copy_windows(t.matrix, in, p);
    for (int32_t i = 0; i < values; i++) {
        t.outputs[i] = bias[i % p->out_c];
    }
    for (int32_t block = 0; block < p->blocks; block++) {
        const int32_t first = block * p->sub_length, n = tr_min(p->sub_length, p->k_n - first);
        hash_rows(&t, t.matrix + first, vectors + block * p->vector_block, n, p);
        average(&t, t.matrix + first, n, p);
        multiply(&t, weights + first, n, p);
    }
    for (int32_t i = 0; i < values; i++) {
        const int32_t c = i % p->out_c;
        out[i] = tr_requantize_s8(t.outputs[i], p->multiplier[c], p->shift[c], p->output_zero_point, p->activation_min,
                                  p->activation_max);
    }
}
