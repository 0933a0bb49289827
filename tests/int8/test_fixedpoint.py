"""Every rounding rule against its definition in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyredux import fixedpoint
from tinyredux.fixedpoint import INT32_MAX, INT32_MIN

INT32 = st.one_of(st.integers(INT32_MIN, INT32_MAX), st.sampled_from([INT32_MIN, INT32_MIN + 1, -1, 0, 1, INT32_MAX]))
MULTIPLIER = st.one_of(st.just(0), st.integers(1 << 30, INT32_MAX))


def half_away(value: Fraction) -> int:
    """Returns the nearest integer, halves away from zero."""
    return math.floor(abs(value) + Fraction(1, 2)) * (1 if value >= 0 else -1)


def half_up(value: Fraction) -> int:
    """Returns the nearest integer, halves towards plus infinity."""
    return math.floor(value + Fraction(1, 2))


@given(st.integers(-(10**6), 10**6), st.integers(1, 1000))
def test_round_half_away(numerator: int, denominator: int) -> None:
    assert fixedpoint.round_half_away(numerator / 2) == half_away(Fraction(numerator, 2))
    value = numerator / denominator
    assert fixedpoint.round_half_away(value) == half_away(Fraction(value))


@given(st.floats(2.0**-40, 2.0**29))
def test_quantize_multiplier_is_the_nearest_31_bit_fraction(real: float) -> None:
    multiplier, shift = fixedpoint.quantize_multiplier(real)
    if real < 2.0**-32:
        assert (multiplier, shift) == (0, 0)
        return
    exact, stored = Fraction(real), multiplier * Fraction(2) ** (shift - 31)
    assert 1 << 30 <= multiplier <= INT32_MAX
    assert abs(exact - stored) <= Fraction(2) ** (shift - 32)


def test_quantize_multiplier_at_its_ends() -> None:
    """Just below 1 the mantissa rounds up to a power of two; above 2^30 no larger left shift exists."""
    ends = {0.0: (0, 0), 1.0: (1 << 30, 1), 1 - 2.0**-40: (1 << 30, 1), 2.0**31: (INT32_MAX, 30)}
    assert {real: fixedpoint.quantize_multiplier(real) for real in ends} == ends
    for real in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="expected a finite number >= 0"):
            fixedpoint.quantize_multiplier(real)


@given(INT32, INT32)
def test_high_mul(a: int, b: int) -> None:
    """Halves go up: gemmlowp's nudge makes the truncated quotient the floor of the value plus one half."""
    expected = min(half_up(Fraction(2 * a * b, 1 << 32)), INT32_MAX)
    assert int(fixedpoint.saturating_rounding_doubling_high_mul(a, b)) == expected


@given(INT32, st.integers(0, 31))
def test_rounding_divide_by_power_of_two(value: int, exponent: int) -> None:
    assert int(fixedpoint.rounding_divide_by_power_of_two(value, exponent)) == half_away(Fraction(value, 1 << exponent))


@given(st.integers(-(2**50), 2**50))
def test_wrap_int32(value: int) -> None:
    wrapped = int(fixedpoint.wrap_int32(value))
    assert INT32_MIN <= wrapped <= INT32_MAX and (wrapped - value) % (1 << 32) == 0


@given(INT32, MULTIPLIER, st.integers(-31, 30))
def test_multiply_by_quantized_multiplier_rounds_twice(value: int, multiplier: int, shift: int) -> None:
    left, right = max(shift, 0), max(-shift, 0)
    shifted = ((value << left) + 2**31) % 2**32 - 2**31
    expected = half_away(Fraction(half_up(Fraction(shifted * multiplier, 1 << 31)), 1 << right))
    assert int(fixedpoint.multiply_by_quantized_multiplier(value, multiplier, shift)) == expected


@given(st.integers(-(2**24), 2**24), st.integers(1, 4096))
def test_divide_half_away(value: int, divisor: int) -> None:
    """An odd divisor has no halves; an even one rounds them away from zero."""
    assert int(fixedpoint.divide_half_away(np.int64(value), divisor)) == half_away(Fraction(value, divisor))


@given(st.lists(st.integers(-2000, 2000), min_size=1), st.integers(-128, 127))
def test_quantize(numerators: list[int], zero_point: int) -> None:
    """Values that are exact in float32: eighths, so that halves occur."""
    values = np.array(numerators, np.float32) / 8
    expected = [max(-128, min(127, half_away(Fraction(n, 4)) + zero_point)) for n in numerators]
    assert fixedpoint.quantize(values, 0.5, zero_point).tolist() == expected


def test_exponential_is_close() -> None:
    """The softmax's exponential: the error is that of a Taylor series of degree 4 over an eighth, (1/8)^5 / 120."""
    integer_bits = 5
    values = np.concatenate([-np.arange(0, 1 << 20, 997), -np.arange(0, 1 << 31, 1999993)]).astype(np.int64)
    exact = np.exp(values / 2.0 ** (31 - integer_bits)) * 2.0**31
    found = fixedpoint.exp_on_negative_values(values, integer_bits)
    assert np.abs(found - exact).max() / 2.0**31 < 2.6e-7
    assert found[0] == INT32_MAX and (np.diff(found[1:1000]) <= 0).all()


def test_reciprocal_is_close() -> None:
    """1 / (1 + x) by Newton's method, for x over [0, 1]."""
    values = np.arange(0, 1 << 31, 1999993).astype(np.int64)
    exact = 2.0**31 / (1 + values / 2.0**31)
    assert np.abs(fixedpoint.one_over_one_plus(values) - exact).max() / 2.0**31 < 1e-8


FLOAT = st.floats(2.0**-40, 4.0, width=32)


def to_float32(value: Fraction) -> Fraction:
    """Returns the float32 next to a number, ties to an even last bit, from the definition of the format."""
    if value == 0:
        return value
    step = Fraction(2) ** (math.frexp(float(value))[1] - 24)
    while abs(value) >= step * 2**24:
        step *= 2
    while abs(value) < step * 2**23:
        step /= 2
    return step * half_even(value / step)


def half_even(value: Fraction) -> int:
    """Returns the nearest integer, halves to an even one."""
    return round(value)


@given(INT32, FLOAT)
def test_scale_once(value: int, scale: float) -> None:
    product = to_float32(to_float32(Fraction(value)) * Fraction(scale))
    assert int(fixedpoint.scale_once(value, scale)) == min(max(half_even(product), INT32_MIN), INT32_MAX)


@given(FLOAT, FLOAT, FLOAT)
def test_single_scale_rounds_at_each_step(source: float, weights: float, result: float) -> None:
    product = to_float32(Fraction(source) * Fraction(weights))
    assert Fraction(fixedpoint.single_scale(source, weights, result)) == to_float32(product / Fraction(result))


@given(st.floats(2.0**-9, 2.0**7), st.floats(2.0**-9, 2.0**7))
def test_single_add_is_near_the_sum(left: float, right: float) -> None:
    one, other, shift = fixedpoint.single_add(left, right, 1.0)
    assert 1 << 20 <= max(one, other) <= 1 << 21 and 13 <= shift <= 30
    for factor, exact in ((one, left), (other, right)):
        assert abs(Fraction(factor, 1 << shift) - Fraction(float(np.float32(exact)))) <= Fraction(1, 1 << (shift + 1))


def test_single_add_refuses_what_is_left_to_another_kernel() -> None:
    for left, right in ((2.0**-11, 1.0), (1.0, 2.0**8)):
        with pytest.raises(ValueError, match="expected 1/1024 to 256"):
            fixedpoint.single_add(left, right, 1.0)


@given(st.floats(2.0**-7, 2.0, width=32), st.integers(-128, 127))
def test_quantize_once(scale: float, zero_point: int) -> None:
    quotient = to_float32(Fraction(6) / Fraction(scale))
    assert fixedpoint.quantize_once(6.0, scale, zero_point) == half_even(to_float32(quotient + zero_point))
