/* attention.c: scaled dot-product attention, one query of one head after the other.
 *
 * Scores of the query with all keys lie in scratch. They become weights of 13 bits in the same place, 2^12 for the largest, by a
 * table of powers of 2 and a shift. The sum of the weights divides the factor by which the weighted sum of the values becomes an
 * output. A key's zero point would add the same to each score, of which differences alone count.
 *
 * Scores go by two keys and four channels, sums by four channels and two keys, whose values PKHBT and PKHTB bring side by side.
 *
 * Layouts: queries and output [queries][heads][depth], keys and values [keys][heads][depth].
 * Range: a head has at most 16384 channels, so scores differ by less than 2^30; 2048 keys of weights up to 2^12 times values
 * below 2^8 stay inside 32 bits. Scratch: TR_ATTENTION_SCRATCH_BYTES. */
#include "micro.h"
#include "requantize.h"
#include "tinyredux.h"

/* 2^(15 - i / 256). */
static const uint16_t powers[256] = {
    32768, 32679, 32591, 32503, 32415, 32327, 32240, 32153, 32066, 31979, 31893, 31806, 31720, 31635, 31549, 31464, 31379, 31294,
    31209, 31125, 31041, 30957, 30873, 30790, 30706, 30623, 30541, 30458, 30376, 30293, 30212, 30130, 30048, 29967, 29886, 29805,
    29725, 29644, 29564, 29484, 29405, 29325, 29246, 29167, 29088, 29009, 28931, 28852, 28774, 28697, 28619, 28542, 28464, 28388,
    28311, 28234, 28158, 28082, 28006, 27930, 27855, 27779, 27704, 27629, 27554, 27480, 27406, 27332, 27258, 27184, 27110, 27037,
    26964, 26891, 26818, 26746, 26674, 26601, 26530, 26458, 26386, 26315, 26244, 26173, 26102, 26031, 25961, 25891, 25821, 25751,
    25681, 25612, 25543, 25474, 25405, 25336, 25268, 25199, 25131, 25063, 24995, 24928, 24860, 24793, 24726, 24659, 24593, 24526,
    24460, 24394, 24328, 24262, 24196, 24131, 24066, 24001, 23936, 23871, 23806, 23742, 23678, 23614, 23550, 23486, 23423, 23359,
    23296, 23233, 23170, 23108, 23045, 22983, 22921, 22859, 22797, 22735, 22674, 22613, 22552, 22491, 22430, 22369, 22309, 22248,
    22188, 22128, 22068, 22009, 21949, 21890, 21831, 21772, 21713, 21654, 21595, 21537, 21479, 21421, 21363, 21305, 21247, 21190,
    21133, 21076, 21019, 20962, 20905, 20849, 20792, 20736, 20680, 20624, 20568, 20513, 20457, 20402, 20347, 20292, 20237, 20182,
    20127, 20073, 20019, 19965, 19911, 19857, 19803, 19750, 19696, 19643, 19590, 19537, 19484, 19431, 19379, 19326, 19274, 19222,
    19170, 19118, 19066, 19015, 18963, 18912, 18861, 18810, 18759, 18708, 18658, 18607, 18557, 18507, 18457, 18407, 18357, 18308,
    18258, 18209, 18160, 18110, 18061, 18013, 17964, 17915, 17867, 17819, 17770, 17722, 17674, 17627, 17579, 17531, 17484, 17437,
    17390, 17343, 17296, 17249, 17202, 17156, 17109, 17063, 17017, 16971, 16925, 16879, 16834, 16788, 16743, 16697, 16652, 16607,
    16562, 16518, 16473, 16428,
};

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
        if (below >= p->least) {
            const int32_t power = -tr_requantize(below, p->score_multiplier, p->score_shift), whole = power >> 8;
            weight = (powers[power & 255] + (4 << whole)) >> (3 + whole);
        }
        tr_store_s16(weights + k, weight);
        total += weight;
    }
    return total;
}

/* Adds the weighted values of four channels to sums. */
static void add_four(int32_t sums[4], const int8_t *value, const int16_t *weights, int32_t keys, int32_t next)
{
    int32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3], k = 0;
    for (; k + 2 <= keys; k += 2, value += 2 * next) {
        const uint32_t a = tr_load_s8x4(value), b = tr_load_s8x4(value + next), pair = tr_load_s16x2(weights + k);
        const uint32_t a_02 = tr_sxtb16(a), a_13 = tr_sxtb16_ror8(a), b_02 = tr_sxtb16(b), b_13 = tr_sxtb16_ror8(b);
        s0 = tr_smlad((a_02 & 0xffffu) | b_02 << 16, pair, s0);
        s1 = tr_smlad((a_13 & 0xffffu) | b_13 << 16, pair, s1);
        s2 = tr_smlad(a_02 >> 16 | (b_02 & 0xffff0000u), pair, s2);
        s3 = tr_smlad(a_13 >> 16 | (b_13 & 0xffff0000u), pair, s3);
    }
    const int32_t last = k < keys ? tr_load_s16(weights + k) : 0;
    const uint32_t word = k < keys ? tr_load_s8x4(value) : 0, x_02 = tr_sxtb16(word), x_13 = tr_sxtb16_ror8(word);
    sums[0] = s0 + last * tr_low(x_02);
    sums[1] = s1 + last * tr_low(x_13);
    sums[2] = s2 + last * tr_high(x_02);
    sums[3] = s3 + last * tr_high(x_13);
}

/* The values of one head, weighted, over the sum of the weights. */
static void blend(int8_t *out, const int8_t *values, const int16_t *weights, int32_t total, const struct tr_attention *p)
{
    const int32_t depth = p->value_depth, next = p->heads * depth, start = -p->value_zero_point * total;
    int32_t down = 0, c = 0;
    while (down < 31 + p->shift && total >> (down + 1) > 0) {
        down++;
    }
    const int32_t multiplier = (int32_t)(((uint64_t)p->multiplier << down) / (uint32_t)total), shift = p->shift - down;
    for (; c < depth; c += 4) {
        int32_t sums[4] = {start, start, start, start};
        const int32_t n = tr_min(4, depth - c);
        if (n == 4) {
            add_four(sums, values + c, weights, p->keys, next);
        } else {
            for (int32_t k = 0; k < p->keys; k++) {
                for (int32_t i = 0; i < n; i++) {
                    sums[i] += tr_load_s16(weights + k) * values[k * next + c + i];
                }
            }
        }
        for (int32_t i = 0; i < n; i++) {
            const int32_t value = tr_requantize(sums[i], multiplier, shift) + p->output_zero_point;
            out[c + i] = (int8_t)tr_clamp(value, INT8_MIN, INT8_MAX);
        }
    }
}

void tr_attention_s8(int8_t *restrict out, const int8_t *restrict queries, const int8_t *restrict keys,
                     const int8_t *restrict values, const struct tr_attention *restrict p, int16_t *restrict scratch)
{
    int32_t *const scores = (int32_t *)(void *)scratch;
    TR_ASSERT(p->keys >= 1 && p->keys <= 2048 && p->depth <= 16384);
    for (int32_t query = 0; query < p->queries; query++) {
        for (int32_t head = 0; head < p->heads; head++, queries += p->depth, out += p->value_depth) {
            const int32_t largest = score(scores, queries, keys + head * p->depth, p);
            const int32_t total = weigh(scores, largest, p);
            blend(out, values + head * p->value_depth, scratch, total, p);
        }
    }
}
