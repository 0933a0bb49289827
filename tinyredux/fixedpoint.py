"""Every rounding and saturation rule of the int8 arithmetic, once, on NumPy arrays.

The rules are those of LiteRT's 8-bit reference kernels (gemmlowp's fixed point), which TFLM and CMSIS-NN share: a sum is rounded
twice on its way to int8. Those of single rounding, `scale_once` and what follows it, are those of LiteRT's default interpreter,
XNNPACK. `firmware/include/requantize.h` states them in C; the tests hold the two together bit for bit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
IntegerLike = Integers | int

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def round_half_away(value: float) -> int:
    """Returns the nearest integer, halves away from zero, as C's `round`."""
    return int(math.floor(abs(value) + 0.5) * (1 if value >= 0 else -1))


def quantize_multiplier(real: float) -> tuple[int, int]:
    """Returns (multiplier, shift) with real = multiplier * 2^(shift - 31), multiplier in [2^30, 2^31) or 0.

    Source: LiteRT `QuantizeMultiplier`. Raises ValueError for a negative or non-finite factor.
    """
    if not math.isfinite(real) or real < 0:
        raise ValueError(f"a requantisation factor is {real}, expected a finite number >= 0; check the tensors' scales")
    if real == 0:
        return 0, 0
    fraction, shift = math.frexp(real)
    multiplier = round_half_away(fraction * 2**31)
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    if shift < -31:
        return 0, 0
    if shift > 30:
        return INT32_MAX, 30
    return multiplier, shift


def saturating_rounding_doubling_high_mul(a: IntegerLike, b: IntegerLike) -> Integers:
    """Returns the high 32 bits of 2ab, rounded to nearest, halves up.

    gemmlowp adds 2^30 or 1 - 2^30 and divides by 2^31 towards zero: for either sign this is the floor below.
    """
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    return np.asarray(np.minimum((product + 2**30) >> 31, INT32_MAX), np.int64)


def rounding_divide_by_power_of_two(value: IntegerLike, exponent: IntegerLike) -> Integers:
    """Returns value / 2^exponent, rounded to nearest, halves away from zero."""
    value, exponent = np.asarray(value, np.int64), np.asarray(exponent, np.int64)
    half = (np.int64(1) << exponent) >> 1
    below_half = (value >> 63) * (exponent > 0)  # -1 for negative values: their halves go down
    return np.asarray((value + half + below_half) >> exponent, np.int64)


def wrap_int32(value: IntegerLike) -> Integers:
    """Returns the value modulo 2^32 as the CPU's registers hold it."""
    return ((np.asarray(value, np.int64) + 2**31) & 0xFFFFFFFF) - 2**31


def multiply_by_quantized_multiplier(value: IntegerLike, multiplier: IntegerLike, shift: IntegerLike) -> Integers:
    """Returns value * multiplier * 2^(shift - 31) with LiteRT's double rounding; a left shift wraps at 32 bits."""
    shift = np.asarray(shift, np.int64)
    shifted = wrap_int32(np.asarray(value, np.int64) << np.maximum(shift, 0))
    return rounding_divide_by_power_of_two(saturating_rounding_doubling_high_mul(shifted, multiplier), np.maximum(-shift, 0))


# Single rounding. XNNPACK rounds convolutions, depthwise convolutions, dense layers and products by `scale_once` with the
# factor of `single_scale`, means by `mean_once`, sums and differences by `single_add`, and limits of theirs and of max pools by
# `quantize_once`. Average pools, softmax and an activation that stands alone are LiteRT's own kernels: there the rules are the
# same for both roundings, but for softmax, which is `single_softmax`.


def single_scale(source: float, weights: float, result: float) -> float:
    """Returns the factor from a sum to an output, source * weights / result, each step rounded to float32."""
    return float(np.float32(source) * np.float32(weights) / np.float32(result))


def float_bits(value: float) -> int:
    """Returns the bits of a float32 as a signed 32-bit integer."""
    return int(np.float32(value).view(np.int32))


def scale_once(value: IntegerLike, scale: npt.NDArray[np.float32] | float) -> Integers:
    """Returns value * scale to the nearest integer, halves to even, saturated to 32 bits.

    The value is rounded to float32 first, and so is the product: what VCVT, VMUL and VCVTR do on a Cortex-M.
    """
    product = np.asarray(value, np.int64).astype(np.float32) * np.asarray(scale, np.float32)
    return np.asarray(np.clip(np.rint(product.astype(np.float64)), INT32_MIN, INT32_MAX), np.int64)


def single_add(left: float, right: float, result: float) -> tuple[int, int, int]:
    """Returns (multiplier, multiplier, shift) of an addition: (a * m_a + b * m_b + 2^(shift - 1)) >> shift, halves up.

    The larger multiplier lies in [2^20, 2^21]. Raises ValueError for an input that is 2^10 times finer than the output, or 2^8
    times coarser: XNNPACK leaves such an addition to a kernel that rounds otherwise.
    """
    ratios = [np.float32(scale) / np.float32(result) for scale in (left, right)]
    if not all(2.0**-10 <= ratio < 2.0**8 for ratio in ratios):
        raise ValueError(f"scales {left:.3g} and {right:.3g} are added into {result:.3g}, expected 1/1024 to 256 of it")
    shift = 21 - int(np.frexp(max(ratios))[1])
    one, other = (int(np.rint(np.ldexp(np.float64(ratio), shift))) for ratio in ratios)
    return one, other, shift


def single_exps(scale: float) -> npt.NDArray[np.float32]:
    """Returns (256,) exp(-scale * i) of float32: what a softmax reads for a value that lies i below the largest."""
    return np.exp((np.float32(-scale) * np.arange(256, dtype=np.float32)).astype(np.float64)).astype(np.float32)


def single_softmax(below: Integers, exps: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """Returns the softmax (..., n) int8, scale 1/256, zero point -128, of values that lie `below` (..., n) the largest.

    LiteRT's own kernel, in float32: the exponentials are added from the first to the last, multiplied by 256 / sum and rounded,
    halves away from zero.
    """
    found, total = exps[below], np.zeros(below.shape[:-1], np.float32)
    for i in range(below.shape[-1]):
        total = total + found[..., i]
    shares = found * (np.float32(1) / (total * np.float32(1 / 256)))[..., None]
    return clamp_int8(np.floor(shares.astype(np.float64) + 0.5).astype(np.int64) - 128)


def single_rescale(value: Integers, ratios: npt.NDArray[np.float32] | np.float32) -> Integers | None:
    """Returns value * ratio, the ratio rounded to 1/256 and the product to an integer, halves up: a map in another scale.

    None for a ratio below 1/256: XNNPACK leaves such a map to a kernel that rounds otherwise.
    """
    if np.abs(ratios).min() < 2.0**-8:
        return None
    factors = np.rint(256 * np.asarray(ratios, np.float64)).astype(np.int64)
    return np.asarray((value * factors + 128) >> 8, np.int64)


def quantized_mean(count: int, source: float, result: float) -> tuple[int, int]:
    """Returns (multiplier, shift) from a sum of `count` values to their mean in another scale: TFLM's MEAN.

    The count is divided out of the multiplier, which is cut off and may lie below 2^30 then.
    """
    multiplier, shift = quantize_multiplier(source / result)
    factor, less = divided(multiplier, shift, count)
    return int(factor), int(less)


def divided(multiplier: int, shift: int, count: IntegerLike) -> tuple[Integers, Integers]:
    """Returns (multiplier, shift) of a factor divided by counts from 1 to 2^32; the division is cut off."""
    count = np.asarray(count, np.int64)
    down = np.minimum(np.frexp(count.astype(np.float64))[1] - 1, min(32, 31 + shift)).astype(np.int64)
    return (np.int64(multiplier) << down) // count, shift - down


def single_mean(count: int, source: float, source_zero_point: int, result: float, zero_point: int) -> tuple[float, float]:
    """Returns (factor, constant) from a sum of `count` stored values to their mean: LiteRT's, by XNNPACK, as `mean_once` takes
    them. Each step is rounded to float32."""
    factor = np.float32(source) / np.float32(result) * (np.float32(1) / np.float32(count))
    return float(factor), float(np.float32(zero_point) - factor * np.float32(count * source_zero_point))


def mean_once(total: IntegerLike, factor: float, constant: float) -> Integers:
    """Returns total * factor + constant to the nearest integer, halves to even; total, product and sum are rounded to float32."""
    scaled = np.asarray(total, np.int64).astype(np.float32) * np.float32(factor) + np.float32(constant)
    return np.asarray(np.clip(np.rint(scaled), INT32_MIN, INT32_MAX), np.int64)


def quantize_once(value: float, scale: float, zero_point: int) -> int:
    """Returns value / scale + zero_point to the nearest integer, halves to even; each step is rounded to float32."""
    return int(np.rint(np.float32(value) / np.float32(scale) + np.float32(zero_point)))


def clamp_int8(value: Integers, low: int = -128, high: int = 127) -> npt.NDArray[np.int8]:
    """Returns int8 values limited to [low, high]."""
    return np.asarray(np.clip(value, low, high), np.int8)


def divide_half_away(value: Integers, divisor: IntegerLike) -> Integers:
    """Returns value / divisor rounded to nearest, halves away from zero: the average pool's rule."""
    divisor = np.asarray(divisor, np.int64)
    biased = value + np.where(value > 0, divisor // 2, -(divisor // 2))
    return np.sign(biased) * (np.abs(biased) // divisor)


def rounded_mean(total: Integers, count: IntegerLike) -> Integers:
    """Returns total / count rounded to the nearest, halves up: the mean of a TREC cluster. Source: ours.

    Halves go up so that a shift of all values shifts the mean: it does not matter whether the zero point is taken off before.
    """
    return np.asarray((2 * total + count) // (2 * np.asarray(count, np.int64)), np.int64)


def quantize(values: npt.NDArray[Any], scale: float, zero_point: int) -> npt.NDArray[np.int8]:
    """Returns round(values / scale) + zero_point in int8, halves away from zero."""
    scaled = np.asarray(values, np.float32) / np.float32(scale)
    rounded = np.trunc(scaled + np.copysign(np.float32(0.5), scaled))
    return np.asarray(np.clip(rounded + zero_point, -128, 127), np.int8)


# Tokens. Layer normalisation and attention round once each by the rules above, whatever a graph's rounding; no other library has
# integers for them that would have to be met. Source: ours.

ROOT_BITS = 6  # of a fraction under which a root of integers is taken, for an epsilon below one
NORM_BITS = 7  # of a fraction that a normalised value keeps until its second rounding
WEIGHT_BITS, POWER_BITS = 12, 8  # an attention's weight is e^(score - largest score) in steps of 2^-12
POWERS = np.rint(2.0 ** (15 - np.arange(1 << POWER_BITS) / (1 << POWER_BITS))).astype(np.int64)


def root_up(value: Integers) -> tuple[Integers, Integers]:
    """Returns (root, up): the floor of sqrt(value * 4^up), the `up` with which it has 31 bits; 1 <= value < 2^62."""
    value, up = np.asarray(value, np.int64), np.zeros(np.shape(value), np.int64)
    for step in (16, 8, 4, 2, 1):
        small = value < 1 << (62 - 2 * step)
        value, up = np.where(small, value << 2 * step, value), up + step * small
    root = np.zeros_like(value)
    for bit in range(30, -1, -1):
        more = root + (1 << bit)
        root = np.where(more * more <= value, more, root)
    return root, up


def layer_norm(values: Integers, epsilon: int, multiplier: int, shift: int) -> Integers:
    """Returns stored values (..., n) less their mean, by their deviation, in units of the output, before its zero point.

    All is n times as large, so that no mean is rounded: n * x - sum, over the root of n * sum of squares - sum^2 + `epsilon`,
    which is n^2 times the variance, in steps of 2^-12. `multiplier` and `shift` are those of 1 / scale of the output, which the
    root divides.
    """
    count, total = values.shape[-1], values.sum(axis=-1, keepdims=True)
    spread = count * (values * values).sum(axis=-1, keepdims=True) - total * total
    root, up = root_up((spread << 2 * ROOT_BITS) + epsilon)
    factor, fine = (np.int64(multiplier) << 30) // root, (count * values - total) << NORM_BITS
    return multiply_by_quantized_multiplier(fine, factor, np.minimum(shift + up + ROOT_BITS - NORM_BITS - 30, 31))


def attention_weights(scores: Integers, multiplier: int, shift: int, least: int) -> Integers:
    """Returns weights (..., keys) of 0 to 2^12, the largest score's, for scores; not divided by their sum.

    A difference to the largest score times the factor is a power of 2 in steps of 2^-8, which a table has to 15 bits and a shift
    rounds, halves up. From `least` on it is none.
    """
    below = scores - scores.max(axis=-1, keepdims=True)
    power = -multiply_by_quantized_multiplier(np.maximum(below, least), multiplier, shift)
    right = (power >> POWER_BITS) + 15 - WEIGHT_BITS
    return np.where(below > least, (POWERS[power % len(POWERS)] + (1 << (right - 1))) >> right, 0)


# Softmax: gemmlowp fixed point. A number in format Q(i) has i integer bits and 31 - i fraction bits.

_EXP_STEPS = (  # (exponent, exp(-2^exponent) in Q0)
    (-2, 1672461947), (-1, 1302514674), (0, 790015084), (1, 290630308), (2, 39332535), (3, 720401), (4, 242),
)  # fmt: skip


def exp_on_negative_values(value: Integers, integer_bits: int) -> Integers:
    """Returns exp(value) in Q0 for value <= 0 in Q(integer_bits). Source: gemmlowp fixedpoint.h."""
    fraction_bits = 31 - integer_bits
    quarter = np.int64(1) << (fraction_bits - 2)
    remainder = (value & (quarter - 1)) - quarter
    result = _exp_between_minus_quarter_and_zero(remainder << integer_bits)
    rest = remainder - value
    for exponent, multiplier in _EXP_STEPS:
        if integer_bits > exponent:
            bit = (rest >> (fraction_bits + exponent)) & 1
            result = np.where(bit == 1, saturating_rounding_doubling_high_mul(result, multiplier), result)
    if integer_bits > 5:
        result = np.where(value < -(1 << (fraction_bits + 5)), 0, result)
    return np.asarray(np.where(value == 0, INT32_MAX, result), np.int64)


def _exp_between_minus_quarter_and_zero(value: Integers) -> Integers:
    eighth_exp, third = 1895147668, 715827883  # exp(-1/8) and 1/3 in Q0
    x = value + (1 << 28)
    x2 = saturating_rounding_doubling_high_mul(x, x)
    x3 = saturating_rounding_doubling_high_mul(x2, x)
    x4 = saturating_rounding_doubling_high_mul(x2, x2)
    x4_quarter = rounding_divide_by_power_of_two(x4, 2)
    inner = rounding_divide_by_power_of_two(saturating_rounding_doubling_high_mul(x4_quarter + x3, third) + x2, 1)
    total = np.clip(eighth_exp + saturating_rounding_doubling_high_mul(eighth_exp, x + inner), INT32_MIN, INT32_MAX)
    return np.asarray(total, np.int64)


def one_over_one_plus(value: Integers) -> Integers:
    """Returns 1 / (1 + value) in Q0 for value in [0, 1] in Q0. Source: gemmlowp fixedpoint.h."""
    return _shift_left_saturating(_two_over_one_plus(value), 1)


def logistic(value: Integers, integer_bits: int) -> Integers:
    """Returns 1 / (1 + exp(-value)) in Q0 for value in Q(integer_bits). Source: gemmlowp fixedpoint.h."""
    positive = one_over_one_plus(exp_on_negative_values(-np.abs(value), integer_bits))
    return np.asarray(np.where(value == 0, 1 << 30, np.where(value > 0, positive, INT32_MAX - positive)), np.int64)


def tanh(value: Integers, integer_bits: int) -> Integers:
    """Returns the hyperbolic tangent in Q0 for value in Q(integer_bits). Source: gemmlowp fixedpoint.h."""
    twice = exp_on_negative_values(-np.abs(value), integer_bits + 1)  # the same bits with the point one further right
    return np.sign(value) * _shift_left_saturating(_two_over_one_plus(twice) - (1 << 29), 2)


def _two_over_one_plus(value: Integers) -> Integers:
    """Returns 2 / (1 + value) in Q2 for value in [0, 1] in Q0, by three Newton steps."""
    half_denominator = (value + INT32_MAX + 1) >> 1
    x = 1515870810 + saturating_rounding_doubling_high_mul(half_denominator, -1010580540)  # 48/17 and -32/17 in Q2
    for _ in range(3):
        error = (1 << 29) - saturating_rounding_doubling_high_mul(half_denominator, x)
        x = x + _shift_left_saturating(saturating_rounding_doubling_high_mul(x, error), 2)
    return x


def _shift_left_saturating(value: Integers, bits: int) -> Integers:
    return np.asarray(np.clip(value << bits, INT32_MIN, INT32_MAX), np.int64)
