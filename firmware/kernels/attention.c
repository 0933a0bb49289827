/* attention.c: scaled dot-product attention, one query of one head after the other.
 *
 * Scores of the query with all keys lie in scratch. They become weights of 13 bits in the same place, 2^12 for the largest, by a
 * table of powers of 2 and a shift. The sum of the weights divides the factor by which the weighted sum of the values becomes an
 * output. A key's zero point would add the same to each score, of which differences alone count.
 *
 * Scores go by two keys and four channels, sums by four channels and two keys, whose values PKHBT and PKHTB bring side by side.
 *
 * Layouts: queries and output [queries][heads][depth], keys and values [keys][heads][depth], bias [heads][queries][keys].
 * Range: a head has at most 16384 channels, so scores differ by less than 2^30, those with a bias too; a
 * masked one lies within 2^31 of each. 2048 keys of weights up to 2^12 times values
 * below 2^8 stay inside 32 bits. Scratch: TR_ATTENTION_SCRATCH_BYTES. */
#include "attention.h"
#include "micro.h"
#include "requantize.h"
#include "tinyredux.h"

/* The scores of a query with all keys; returns the largest. */
static int32_t score(int32_t *scores, const int8_t *query, const int8_t *key, const struct tr_attention *p)
{
    const int32_t depth = p->depth, zero_point = p->query_zero_point, next = p->heads * depth, keys = p->keys;
    const uint32_t minus_zero_point = tr_twice_s16(-zero_point);
    int32_t largest = INT32_MIN, k = 0;
    for (; k + 2 <= keys; k += 2, key += 2 * next) {
        struct tr_sums sums = {0, 0, 0, 0};
        int32_t i = 0;
        for (; i + 4 <= depth; i += 4) {
            const struct tr_words words = {tr_load_s8x4(key + i), tr_load_s8x4(key + next + i), tr_load_s8x4(query + i), 0};
            sums = tr_step_tile(sums, words, minus_zero_point, (struct tr_tile){1, 0});
        }
        for (; i < depth; i++) {
            sums.a0 += (query[i] - zero_point) * key[i];
            sums.b0 += (query[i] - zero_point) * key[next + i];
        }
        scores[k] = sums.a0;
        scores[k + 1] = sums.b0;
        largest = tr_max(largest, tr_max(sums.a0, sums.b0));
    }
    if (k < keys) {
        scores[k] = tr_dot(0, key, query, depth, zero_point);
        largest = tr_max(largest, scores[k]);
    }
    return largest;
}

/* The weights of scores, in their place; returns their sum. */
static int32_t weigh(int32_t *scores, int32_t largest, const struct tr_attention *p)
{
    int16_t *const weights = (int16_t *)(void *)scores;
    int32_t total = 0;
    for (int32_t k = 0; k < p->keys; k++) {
        const int32_t below = scores[k] - largest;
        int32_t weight = 0;
        if (below > p->least) {
            const int32_t power = -tr_requantize(below, p->score_multiplier, p->score_shift), whole = power >> 8;
            weight = (tr_powers[power & 255] + (4 << whole)) >> (3 + whole);
        }
        tr_store_s16(weights + k, weight);
        total += weight;
    }
    return total;
}

/* The values of one head, weighted, over the sum of the weights. */
static void blend(int8_t *out, const int8_t *values, const int16_t *weights, int32_t total, const struct tr_attention *p)
{
    const int32_t depth = p->value_depth, next = p->heads * depth, start = -p->value_zero_point * total;
    const struct tr_share share = tr_share_of(total, p->multiplier, p->shift);
    for (int32_t c = 0; c < depth; c += 4) {
        int32_t sums[4] = {start, start, start, start};
        const int32_t n = tr_min(4, depth - c);
        if (n == 4) {
            tr_add_four(sums, values + c, weights, p->keys, next);
        } else {
            for (int32_t k = 0; k < p->keys; k++) {
                for (int32_t i = 0; i < n; i++) {
                    sums[i] += tr_load_s16(weights + k) * values[k * next + c + i];
                }
            }
        }
        tr_put_shares(out + c, sums, n, share, p->output_zero_point);
    }
}

void tr_attention_s8(int8_t *restrict out, const int8_t *restrict queries, const int8_t *restrict keys,
                     const int8_t *restrict values, const int8_t *restrict bias, const struct tr_attention *restrict p,
                     int16_t *restrict scratch)
{
    int32_t *const scores = (int32_t *)(void *)scratch;
    TR_ASSERT(p->keys >= 1 && p->keys <= 2048 && p->depth <= 16384);
    for (int32_t query = 0; query < p->queries; query++) {
        for (int32_t head = 0; head < p->heads; head++, queries += p->depth, out += p->value_depth) {
            int32_t largest = score(scores, queries, keys + head * p->depth, p);
            if (bias) {
                largest = tr_add_bias(scores, bias + head * p->bias_head + query * p->keys, p->keys, p->bias_step, p->masked);
            }
            const int32_t total = weigh(scores, largest, p);
            blend(out, values + head * p->value_depth, scratch, total, p);
        }
    }
}
