/* attention_pairs.c: scaled dot-product attention with generated loops (tinyredux.kernels.attention), two queries of a head at a time.
 *
 * Of each head, keys and values are widened once for all queries: keys in groups of four, of each two channels a word of every key;
 * values in groups of four channels, of each two keys a word of every channel. p->score multiplies two queries with all keys,
 * p->weigh turns the scores of one into weights and leaves their sum in the place of the first, p->blend multiplies both rows of
 * weights with all values. An odd last query runs beside itself.
 *
 * With p->shares, queries that are equal byte by byte, as TREC leaves them, are computed once: what the first of them gives is
 * copied to the others.
 *
 * Layouts: as in attention.c. Range: as there. Scratch, in words: keys [keys / 4][key_words][4], values [value_depth / 4]
 * [value_words][4], two rows of key_words and two of value_words, eight sums for each group of four keys or channels, whichever
 * are more; all rounded up, rows with zeros at their ends. With p->shares, two int16 for each query behind them. */
#include <string.h>

#include "attention.h"
#include "dot.h"
#include "tinyredux.h"

static int32_t fours(int32_t n) { return (n + 3) / 4; }

/* Up to four bytes in a word, zeros behind them. */
static uint32_t word_of(const int8_t *from, int32_t n)
{
    uint32_t word = 0;
    if (n >= 4) {
        return tr_load_s8x4(from);
    }
    for (int32_t i = 0; i < n; i++) {
        word |= (uint32_t)(uint8_t)from[i] << (8 * i);
    }
    return word;
}

static void widen_keys(uint32_t *to, const int8_t *keys, const struct tr_attention_pairs *p)
{
    const int32_t next = p->heads * p->depth;
    for (int32_t first = 0; first < p->keys; first += 4, keys += 4 * next, to += 4 * p->key_words) {
        const int32_t n = tr_min(4, p->keys - first);
        for (int32_t k = 0; k < 4; k++) {
            uint32_t *at = to + k;
            for (int32_t i = 0; i < p->depth; i += 4, at += 8) {
                const uint32_t word = k < n ? word_of(keys + k * next + i, p->depth - i) : 0;
                at[0] = tr_sxtb16(word);
                at[4] = tr_sxtb16_ror8(word);
            }
        }
    }
}

static void pair_values(uint32_t *to, const int8_t *values, const struct tr_attention_pairs *p)
{
    const int32_t next = p->heads * p->value_depth;
    for (int32_t c = 0; c < p->value_depth; c += 4, to += 4 * p->value_words) {
        const int8_t *from = values + c;
        uint32_t *at = to;
        for (int32_t k = 0; k < p->keys; k += 2, from += 2 * next, at += 4) {
            const uint32_t a = word_of(from, p->value_depth - c);
            const uint32_t b = k + 1 < p->keys ? word_of(from + next, p->value_depth - c) : 0;
            const uint32_t a_02 = tr_sxtb16(a), a_13 = tr_sxtb16_ror8(a), b_02 = tr_sxtb16(b), b_13 = tr_sxtb16_ror8(b);
            at[0] = (a_02 & 0xffffu) | b_02 << 16;
            at[1] = (a_13 & 0xffffu) | b_13 << 16;
            at[2] = a_02 >> 16 | (b_02 & 0xffff0000u);
            at[3] = a_13 >> 16 | (b_13 & 0xffff0000u);
        }
    }
}

static void widen_query(uint32_t *to, const int8_t *query, const struct tr_attention_pairs *p)
{
    const uint32_t minus_zero_point = tr_twice_s16(-p->query_zero_point);
    for (int32_t i = 0; i < p->depth; i += 4, to += 2) {
        const uint32_t word = word_of(query + i, p->depth - i);
        to[0] = tr_sxtab16(minus_zero_point, word);
        to[1] = tr_sxtab16_ror8(minus_zero_point, word);
    }
}

/* The scores of a query with its bias, where there is one. */
static void biased(int32_t *scores, int32_t head, int32_t query, const struct tr_attention_pairs *p)
{
    if (p->bias) {
        tr_add_bias(scores, p->bias + head * p->bias_head + query * p->keys, p->keys, p->bias_step, p->masked);
    }
}

static void put(int8_t *out, int32_t *sums, int32_t total, const struct tr_attention_pairs *p)
{
    for (int32_t c = 0; c < p->value_depth; c++) {
        sums[c] -= p->value_zero_point * total;
    }
    tr_put_shares(out, sums, p->value_depth, tr_share_of(total, p->multiplier, p->shift), p->output_zero_point);
}

static int equal(const int8_t *a, const int8_t *b, int32_t n)
{
    for (; n >= 4; n -= 4, a += 4, b += 4) {
        if (tr_load_s8x4(a) != tr_load_s8x4(b)) {
            return 0;
        }
    }
    return word_of(a, n) == word_of(b, n);
}

/* Lists the queries that differ from all before them, and for each query where in the list its equal is; returns the list's length. */
static int32_t list_queries(int16_t *restrict list, int16_t *restrict place, const int8_t *restrict queries,
                            const struct tr_attention_pairs *restrict p)
{
    const int32_t next = p->heads * p->depth;
    int32_t count = 0;
    for (int32_t query = 0; query < p->queries; query++) {
        int32_t i = 0;
        while (i < count && !equal(queries + query * next, queries + list[i] * next, next)) {
            i++;
        }
        if (i == count) {
            list[count++] = (int16_t)query;
        }
        place[query] = (int16_t)i;
    }
    return count;
}

/* Gives each query the output of its equal in the list. */
static void copy_outputs(int8_t *out, const int16_t *list, const int16_t *place, const struct tr_attention_pairs *p)
{
    const int32_t width = p->heads * p->value_depth;
    for (int32_t query = 0; query < p->queries; query++) {
        const int32_t from = list[place[query]];
        if (from != query) {
            memcpy(out + query * width, out + from * width, (size_t)width);
        }
    }
}

void tr_attention_pairs_s8(int8_t *restrict out, const int8_t *restrict queries, const int8_t *restrict keys,
                           const int8_t *restrict values, const struct tr_attention_pairs *restrict p, int32_t *restrict scratch)
{
    const int32_t key_fours = fours(p->keys), value_fours = fours(p->value_depth), next = p->heads * p->depth;
    uint32_t *const wide_keys = (uint32_t *)scratch, *const pairs = wide_keys + 4 * key_fours * p->key_words;
    uint32_t *const rows = pairs + 4 * value_fours * p->value_words, *const weights = rows + 2 * p->key_words;
    int32_t *const sums = (int32_t *)(weights + 2 * p->value_words);
    int16_t *const list = (int16_t *)(void *)(sums + 8 * (key_fours > value_fours ? key_fours : value_fours));
    int16_t *const place = list + p->queries;
    TR_ASSERT(p->keys >= 1 && p->keys <= 2048 && p->depth <= 16384 && (!p->shares || p->queries <= INT16_MAX));
    const int32_t count = p->shares ? list_queries(list, place, queries, p) : p->queries;
    for (uint32_t *at = rows; at < (uint32_t *)sums; at++) {
        *at = 0;
    }
    for (int32_t head = 0; head < p->heads; head++) {
        widen_keys(wide_keys, keys + head * p->depth, p);
        pair_values(pairs, values + head * p->value_depth, p);
        for (int32_t i = 0; i < count; i += 2) {
            const int32_t after = tr_min(i + 1, count - 1), query = p->shares ? list[i] : i, second = p->shares ? list[after] : after;
            widen_query(rows, queries + query * next + head * p->depth, p);
            widen_query(rows + p->key_words, queries + second * next + head * p->depth, p);
            p->score(sums, wide_keys, rows, key_fours);
            biased(sums, head, query, p);
            biased(sums + 4 * key_fours, head, second, p);
            p->weigh(sums, (int16_t *)(void *)weights, tr_powers);
            p->weigh(sums + 4 * key_fours, (int16_t *)(void *)(weights + p->value_words), tr_powers);
            const int32_t total[2] = {sums[0], sums[4 * key_fours]};
            p->blend(sums, pairs, weights, value_fours);
            put(out + (query * p->heads + head) * p->value_depth, sums, total[0], p);
            if (after > i) {
                put(out + (second * p->heads + head) * p->value_depth, sums + 4 * value_fours, total[1], p);
            }
        }
    }
    if (p->shares) {
        copy_outputs(out, list, place, p);
    }
}
