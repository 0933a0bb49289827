/* twin.h: what the machine instructions of a generated kernel do, in plain C, for the host.
 *
 * Registers are uint32_t, addresses uintptr_t. Each function is one instruction of Armv7E-M, to the bit; `carry` and `ge` are
 * the flags. Multiplications are done in 64 bits, so that none overflows a signed type. */
#ifndef TR_TWIN_H
#define TR_TWIN_H

#include <stdint.h>
#include <string.h>

#include "dot.h"

static inline int64_t tw_wide(uint32_t x) { return (int32_t)x; }

static inline uint32_t tw_ror(uint32_t x, uint32_t n) { return n == 0 ? x : x >> n | x << (32 - n); }
static inline uint32_t tw_lsl(uint32_t x, uint32_t n) { return (n & 255) < 32 ? x << (n & 255) : 0; }
static inline uint32_t tw_lsr(uint32_t x, uint32_t n) { return (n & 255) < 32 ? x >> (n & 255) : 0; }
static inline uint32_t tw_asr(uint32_t x, uint32_t n) { return (uint32_t)((int32_t)x >> ((n & 255) < 32 ? n & 255 : 31)); }

static inline uint32_t tw_sxtb(uint32_t x, uint32_t n) { return (uint32_t)(int8_t)(tw_ror(x, n) & 0xffu); }
static inline uint32_t tw_uxtb(uint32_t x, uint32_t n) { return tw_ror(x, n) & 0xffu; }
static inline uint32_t tw_sxth(uint32_t x, uint32_t n) { return (uint32_t)(int16_t)(tw_ror(x, n) & 0xffffu); }
static inline uint32_t tw_uxth(uint32_t x, uint32_t n) { return tw_ror(x, n) & 0xffffu; }
static inline uint32_t tw_sxtab(uint32_t to, uint32_t x, uint32_t n) { return to + tw_sxtb(x, n); }

/* Two int16 lanes. */
static inline int32_t tw_low(uint32_t x) { return (int16_t)(x & 0xffffu); }
static inline int32_t tw_high(uint32_t x) { return (int16_t)(x >> 16); }
static inline uint32_t tw_pair(int32_t low, int32_t high) { return ((uint32_t)low & 0xffffu) | (uint32_t)high << 16; }
static inline uint32_t tw_uxtb16(uint32_t x, uint32_t n) { return tw_ror(x, n) & 0x00ff00ffu; }
static inline uint32_t tw_sxtb16(uint32_t x, uint32_t n)
{
    return tw_pair((int8_t)(tw_ror(x, n) & 0xffu), (int8_t)(tw_ror(x, n) >> 16 & 0xffu));
}
static inline uint32_t tw_sxtab16(uint32_t to, uint32_t x, uint32_t n)
{
    const uint32_t pair = tw_sxtb16(x, n);
    return tw_pair(tw_low(to) + tw_low(pair), tw_high(to) + tw_high(pair));
}

static inline int32_t tw_clipped(int32_t x) { return x > 32767 ? 32767 : x < -32768 ? -32768 : x; }
static inline uint32_t tw_qadd16(uint32_t a, uint32_t b)
{
    return tw_pair(tw_clipped(tw_low(a) + tw_low(b)), tw_clipped(tw_high(a) + tw_high(b)));
}
static inline uint32_t tw_qsub16(uint32_t a, uint32_t b)
{
    return tw_pair(tw_clipped(tw_low(a) - tw_low(b)), tw_clipped(tw_high(a) - tw_high(b)));
}

/* Saturation to `bits`. */
static inline uint32_t tw_ssat(uint32_t bits, uint32_t x)
{
    const int32_t most = (int32_t)(((uint32_t)1 << (bits - 1)) - 1), value = (int32_t)x;
    return (uint32_t)(value > most ? most : value < -most - 1 ? -most - 1 : value);
}
static inline uint32_t tw_max(uint32_t a, uint32_t b) { return (int32_t)a < (int32_t)b ? b : a; }
static inline uint32_t tw_min(uint32_t a, uint32_t b) { return (int32_t)a > (int32_t)b ? b : a; }

/* Four int8 lanes; SEL takes lane i of a where flag i is set. */
static inline uint32_t tw_ssub8(uint32_t a, uint32_t b, uint32_t *ge)
{
    uint32_t lanes = 0;
    *ge = 0;
    for (uint32_t i = 0; i < 4; i++) {
        const int32_t lane = (int8_t)(a >> 8 * i & 0xffu) - (int8_t)(b >> 8 * i & 0xffu);
        lanes |= ((uint32_t)lane & 0xffu) << 8 * i;
        *ge |= (uint32_t)(lane >= 0) << i;
    }
    return lanes;
}
static inline uint32_t tw_sel(uint32_t a, uint32_t b, uint32_t ge)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < 4; i++) {
        mask |= (ge >> i & 1u) * (0xffu << 8 * i);
    }
    return (a & mask) | (b & ~mask);
}

/* Bit fields. */
static inline uint32_t tw_ubfx(uint32_t x, uint32_t first, uint32_t n) { return x >> first & (uint32_t)(((uint64_t)1 << n) - 1); }
static inline uint32_t tw_bfi(uint32_t to, uint32_t x, uint32_t first, uint32_t n)
{
    const uint32_t mask = (uint32_t)(((uint64_t)1 << n) - 1) << first;
    return (to & ~mask) | (x << first & mask);
}

/* Products. SMLAD adds low * low and high * high, SMMULR rounds half up. */
static inline uint32_t tw_smlad(uint32_t a, uint32_t b, uint32_t sum)
{
    return sum + (uint32_t)(tw_low(a) * tw_low(b)) + (uint32_t)(tw_high(a) * tw_high(b));
}
static inline uint32_t tw_smlabb(uint32_t a, uint32_t b, uint32_t sum) { return sum + (uint32_t)(tw_low(a) * tw_low(b)); }
static inline uint32_t tw_smlabt(uint32_t a, uint32_t b, uint32_t sum) { return sum + (uint32_t)(tw_low(a) * tw_high(b)); }
static inline uint32_t tw_smlatb(uint32_t a, uint32_t b, uint32_t sum) { return sum + (uint32_t)(tw_high(a) * tw_low(b)); }
static inline uint32_t tw_smlatt(uint32_t a, uint32_t b, uint32_t sum) { return sum + (uint32_t)(tw_high(a) * tw_high(b)); }
static inline void tw_smlal(uint32_t *low, uint32_t *high, uint32_t a, uint32_t b)
{
    const uint64_t sum = ((uint64_t)*high << 32 | *low) + (uint64_t)(tw_wide(a) * tw_wide(b));
    *low = (uint32_t)sum;
    *high = (uint32_t)(sum >> 32);
}
static inline uint32_t tw_smmulr(uint32_t a, uint32_t b)
{
    return (uint32_t)(((uint64_t)(tw_wide(a) * tw_wide(b)) + ((uint64_t)1 << 31)) >> 32);
}

/* Floating-point registers hold bits: of an integer, of a float. */
static inline float tw_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline uint32_t tw_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline uint32_t tw_vcvt(uint32_t x) { return tw_bits((float)(int32_t)x); }
static inline uint32_t tw_vmul(uint32_t a, uint32_t b) { return tw_bits(tw_float(a) * tw_float(b)); }
static inline uint32_t tw_vcvtr(uint32_t x) { return (uint32_t)tr_round_even(tw_float(x)); }

/* ASRS sets the carry: the last bit shifted out (1 <= n <= 31). */
static inline uint32_t tw_asrs(uint32_t x, uint32_t n, uint32_t *carry)
{
    *carry = x >> (n - 1) & 1u;
    return tw_asr(x, n);
}

/* Memory. */
static inline uint32_t tw_ldr(uintptr_t from)
{
    uint32_t word;
    memcpy(&word, (const void *)from, sizeof word);
    return word;
}
static inline uint32_t tw_ldrh(uintptr_t from)
{
    uint16_t half;
    memcpy(&half, (const void *)from, sizeof half);
    return half;
}
static inline uint32_t tw_ldrb(uintptr_t from) { return *(const uint8_t *)from; }
static inline uint32_t tw_ldrsh(uintptr_t from) { return tw_sxth(tw_ldrh(from), 0); }
static inline uint32_t tw_ldrsb(uintptr_t from) { return tw_sxtb(tw_ldrb(from), 0); }
static inline void tw_str(uintptr_t to, uint32_t word) { memcpy((void *)to, &word, sizeof word); }
static inline void tw_strh(uintptr_t to, uint32_t half) { memcpy((void *)to, &(uint16_t){(uint16_t)half}, sizeof(uint16_t)); }
static inline void tw_strb(uintptr_t to, uint32_t byte) { *(uint8_t *)to = (uint8_t)byte; }

#endif
