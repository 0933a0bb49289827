/* winograd.c: convolution at stride 1 by transformed tiles; transforms and products are generated code (tinyredux.kernels.winograd).
 *
 * Four tiles at a time: the window of each is widened (p->widen, padding filled in), transformed (p->input) into `v`; then two
 * channels after two are multiplied (p->product), the columns of their sums transformed (p->columns), and tile by tile their rows
 * turned into outputs (p->output; a tile that hangs over the map's edge by p->edge_output into bytes of its own, of which the part
 * inside is copied). Each function does one thing to all that there is, so that its loop stays in a small instruction cache.
 *
 * Groups hold transformed weights, or a byte for each weight: then p->unpack transforms two channels into scratch before
 * p->batches times four tiles are multiplied with them.
 *
 * Layouts: input [in_h][in_w][in_c], output [out_h][out_w][out_c], groups [out_c / 2, rounded up][group_words].
 * Accumulator: int32; the library takes this kernel only for weights whose largest output stays below the tile's limit.
 * Scratch: batches * v_words words of v; work_words of the sums of four tiles or of a widened tile, whichever is larger; then two
 * channels' transformed weights, where the groups hold bytes. */
#include <stddef.h>

#include "check.h"
#include "tinyredux.h"

#define TILES 4
#define MOST_OUTPUTS 5

struct place {
    int32_t y, x;
};

static struct place place_of(const struct tr_winograd *p, int32_t tile)
{
    const int32_t across = (p->out_w + p->m - 1) / p->m;
    return (struct place){tile / across * p->m, tile % across * p->m};
}

/* Fills `n` pixels of a tile with the zero point. */
static void fill(uint32_t *to, const struct tr_winograd *p, int32_t n)
{
    for (int32_t pair = 0; pair < p->in_c / 2; pair++, to += p->n * p->n) {
        for (int32_t i = 0; i < n; i++) {
            to[i] = p->filling;
        }
    }
}

static void widen_tile(uint32_t *restrict to, const int8_t *restrict in, const struct tr_winograd *p, struct place at)
{
    const int32_t left = at.x - p->pad_left, before = left < 0 ? -left : 0;
    const int32_t right = left + p->n < p->in_w ? p->n : p->in_w - left;
    for (int32_t i = 0; i < p->n; i++, to += p->n) {
        const int32_t y = at.y - p->pad_top + i;
        if (y < 0 || y >= p->in_h || right <= before) {
            fill(to, p, p->n);
            continue;
        }
        fill(to, p, before);
        p->widen(to + before, in + (y * p->in_w + left + before) * p->in_c, right - before);
        fill(to + right, p, p->n - right);
    }
}

static void put_tile(int8_t *restrict out, const int32_t *restrict sums, const int32_t *restrict factors, const struct tr_winograd *p,
                     struct place at)
{
    int8_t bytes[MOST_OUTPUTS * MOST_OUTPUTS * 2];
    if (at.y + p->m <= p->out_h && at.x + p->m <= p->out_w) {
        p->output(out + (at.y * p->out_w + at.x) * p->out_c, sums, factors);
        return;
    }
    p->edge_output(bytes, sums, factors);
    for (int32_t y = 0; y < p->m && at.y + y < p->out_h; y++) {
        for (int32_t x = 0; x < p->m && at.x + x < p->out_w; x++) {
            int8_t *const to = out + ((at.y + y) * p->out_w + at.x + x) * p->out_c;
            to[0] = bytes[2 * (y * p->m + x)];
            to[1] = bytes[2 * (y * p->m + x) + 1];
        }
    }
}

/* Transforms `count` tiles from number `first` on, four after four, by way of scratch for one widened tile. */
static void transform(uint32_t *restrict v, uint32_t *restrict tile, const int8_t *restrict in, const struct tr_winograd *p,
                      int32_t first, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        widen_tile(tile, in, p, place_of(p, first + i));
        p->input(v + i / TILES * p->v_words + i % TILES, tile, p->in_c / 2);
    }
}

void tr_winograd_conv_s8(int8_t *restrict out, const int8_t *restrict in, const int32_t *restrict groups,
                         const struct tr_winograd *restrict p, int32_t *restrict scratch)
{
    uint32_t *const v = (uint32_t *)scratch, *const tile = v + p->batches * p->v_words, *const unpacked = tile + p->work_words;
    int32_t *const sums = (int32_t *)tile;
    TR_ASSERT(p->in_c % 4 == 0 && p->out_c >= 2 && p->m <= MOST_OUTPUTS && p->batches > 0);
    const int32_t tiles = ((p->out_h + p->m - 1) / p->m) * ((p->out_w + p->m - 1) / p->m), most = TILES * p->batches;
    for (int32_t first = 0; first < tiles; first += most) {
        const int32_t count = tiles - first < most ? tiles - first : most;
        transform(v, tile, in, p, first, count);
        const int32_t *group = groups;
        for (int32_t c = 0; c < p->out_c; c += 2, group += p->group_words) {
            const int32_t channel = c < p->out_c - 2 ? c : p->out_c - 2;
            if (p->unpack != NULL) {
                p->unpack(unpacked, group);
            }
            for (int32_t i = 0; i < count; i++) {
                if (i % TILES == 0) {
                    p->product(sums, v + i / TILES * p->v_words, p->unpack != NULL ? (const int32_t *)unpacked : group);
                    p->columns(sums);
                }
                put_tile(out + channel, sums + i % TILES, group + p->group_words - 6, p, place_of(p, first + i));
            }
        }
    }
}
