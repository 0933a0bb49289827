/* dot.h: the DSP instructions of Armv7E-M and Armv8-M, each with a twin in plain C.
 *
 * A uint32_t holds four int8 lanes (byte 0 lowest) or two int16 lanes (low half first). With __ARM_FEATURE_DSP each
 * function is one instruction; without, the twin computes the same bits, so the kernels are ordinary C on any machine. The
 * rotated extensions are written as assembly because GCC 12 makes two instructions of the intrinsic. */
#ifndef TR_DOT_H
#define TR_DOT_H

#include <stdint.h>
#include <string.h>

#include "check.h"

#if defined(__ARM_FEATURE_DSP)
#include <arm_acle.h>
#endif

/* A function whose inner loop needs every register: kept apart, or the caller's variables would push some onto the stack. */
#define TR_OUT_OF_LINE __attribute__((noinline))

/* |x| to the nearest integer below 2^31; a half goes up where `up` or the integer below is odd. From the bits of x, for compilers
 * may join a product and a difference into one instruction that rounds once. */
static inline uint32_t tr_round_magnitude(float x, uint32_t up)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const int32_t exponent = (int32_t)(bits >> 23 & 255u) - 150;
    const uint32_t mantissa = (bits & 0x7fffffu) | 0x800000u;
    if (exponent >= 0) {
        return exponent < 8 ? mantissa << exponent : 0x80000000u;
    }
    if (exponent < -24) {
        return 0;
    }
    const uint32_t right = (uint32_t)-exponent, whole = mantissa >> right, rest = mantissa - (whole << right);
    const uint32_t half = (uint32_t)1 << (right - 1);
    return whole + (rest > half || (rest == half && ((whole & 1u) | up)));
}

/* x >= 0 to the nearest integer, halves up. */
static inline int32_t tr_round_away(float x) { return (int32_t)(tr_round_magnitude(x, 1) & 0x7fffffffu); }

/* x to the nearest integer, halves to even, saturated to 32 bits: VCVTR in the rounding mode that a core starts in. */
static inline int32_t tr_round_even(float x)
{
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FP)
    float rounded;
    __asm("vcvtr.s32.f32 %0, %1" : "=t"(rounded) : "t"(x));
    int32_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    return bits;
#else
    const uint32_t magnitude = tr_round_magnitude(x, 0);
    if (x < 0) {
        return (int32_t)(0u - magnitude);
    }
    return magnitude > INT32_MAX ? INT32_MAX : (int32_t)magnitude;
#endif
}

/* Four int8 or two int16 from any address: one LDR, for these cores load unaligned words. */
static inline uint32_t tr_load_s8x4(const int8_t *from)
{
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

static inline uint32_t tr_load_s16x2(const int16_t *from)
{
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

static inline void tr_store_s16x2(int16_t *to, uint32_t pair) { memcpy(to, &pair, sizeof pair); }

static inline void tr_store_s8x4(int8_t *to, uint32_t word) { memcpy(to, &word, sizeof word); }

/* One int16 of memory that also holds other types. */
static inline int32_t tr_load_s16(const int16_t *from)
{
    int16_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

static inline void tr_store_s16(int16_t *to, int32_t value)
{
    const int16_t low = (int16_t)value;
    memcpy(to, &low, sizeof low);
}

/* The last n of a row, 0 <= n <= 3, as lanes 0 .. n-1; the other lanes are 0. Reads nothing behind them. */
static inline uint32_t tr_load_s8_tail(const int8_t *from, int32_t n)
{
    TR_ASSERT(n >= 0 && n <= 3);
    uint32_t word = 0;
    for (int32_t i = 0; i < n; i++) {
        word |= (uint32_t)(uint8_t)from[i] << (8 * i);
    }
    return word;
}

/* Two int16 lanes of the same value. */
static inline uint32_t tr_twice_s16(int32_t value) { return ((uint32_t)value & 0xffffu) | (uint32_t)value << 16; }

static inline int32_t tr_low(uint32_t pair) { return (int16_t)(pair & 0xffffu); }
static inline int32_t tr_high(uint32_t pair) { return (int16_t)(pair >> 16); }

#if defined(__ARM_FEATURE_DSP)

static inline uint32_t tr_sxtb16(uint32_t x) { return (uint32_t)__sxtb16((int32_t)x); }

static inline uint32_t tr_sxtb16_ror8(uint32_t x)
{
    uint32_t pair;
    __asm__ volatile("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(x));
    return pair;
}

static inline uint32_t tr_sxtab16(uint32_t to, uint32_t x) { return (uint32_t)__sxtab16((int32_t)to, (int32_t)x); }

static inline uint32_t tr_sxtab16_ror8(uint32_t to, uint32_t x)
{
    uint32_t pair;
    __asm__ volatile("sxtab16 %0, %1, %2, ror #8" : "=r"(pair) : "r"(to), "r"(x));
    return pair;
}

/* Volatile keeps the order of the source, in which a 2 x 2 step just fits into the registers; left to itself, GCC loads
 * everything early and spills. */
static inline int32_t tr_smlad(uint32_t a, uint32_t b, int32_t sum)
{
    int32_t result;
    __asm__ volatile("smlad %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

#else

static inline uint32_t tr_pair(int32_t low, int32_t high) { return ((uint32_t)low & 0xffffu) | (uint32_t)high << 16; }

/* SXTB16: bytes 0 and 2 as two int16; with rotation by 8, bytes 1 and 3. SXTAB16 adds them to the lanes of `to`. */
static inline uint32_t tr_sxtb16(uint32_t x) { return tr_pair((int8_t)(x & 0xffu), (int8_t)(x >> 16 & 0xffu)); }

static inline uint32_t tr_sxtb16_ror8(uint32_t x) { return tr_sxtb16(x >> 8); }

static inline uint32_t tr_sxtab16(uint32_t to, uint32_t x)
{
    const uint32_t pair = tr_sxtb16(x);
    return tr_pair(tr_low(to) + tr_low(pair), tr_high(to) + tr_high(pair));
}

static inline uint32_t tr_sxtab16_ror8(uint32_t to, uint32_t x) { return tr_sxtab16(to, x >> 8); }

/* SMLAD: sum + low * low + high * high, modulo 2^32. */
static inline int32_t tr_smlad(uint32_t a, uint32_t b, int32_t sum)
{
    return (int32_t)((uint32_t)sum + (uint32_t)(tr_low(a) * tr_low(b)) + (uint32_t)(tr_high(a) * tr_high(b)));
}

#endif
#endif
