"""Branch-free requantisation: from a doubled int32 sum to int8 in five instructions, bit for bit LiteRT's double rounding.

With x = 2 * sum, m the multiplier and r >= 1 the right shift of a channel:

    SMMULR  t = floor(x * m / 2^32 + 1/2)       the rounding, doubling high product of sum and m
    ADD     t = t + (t >> 31)                   negative values lose 1, so that halves below round away from zero
    ASRS    t = t >> r, carry = bit r - 1       the carry is the rounding bit
    ADC     t = t + zero point + carry
    SSAT    t to int8

Where the lowest output is the zero point (a ReLU), every negative t ends there, however it is rounded: ADD is left out.

Exact for |sum| < 2^30 and 1 <= r <= 31. A multiplier of 0 gives the zero point for any r. A shift of 0 has no second rounding
and a left shift comes before the product: a layer with such a channel keeps its reference kernel (`applies` says so).

With single rounding (`clamp.single`) the multiplier is half the scale as a float32, and the FPU rounds:

    VMOV    x and the multiplier to the FPU
    VCVT    x = float(x), rounded: twice the rounded sum
    VMUL    x = x * multiplier, rounded
    VCVTR   x to the nearest integer, halves to even; VMOV back
    ADD, SSAT as above

Exact for |sum| < 2^30 and a scale below 1, whose half is a normal number.

Source: ours, from the definitions in `fixedpoint`.
"""

from __future__ import annotations

import numpy as np

from tinyredux.graph import Array
from tinyredux.int8 import Clamp, Requantization
from tinyredux.kernels.asm.function import Function

SUM_LIMIT = 2**30
LEAST_SCALE = 2.0**-100
INT8 = Clamp(-128, 127)


def symmetric(weights: Array) -> bool:
    """Returns whether no weight is -128: quantisation never gives one, and a word has room for two weights of 127 and no more."""
    return int(weights.min(initial=0)) >= -127


def applies(factors: Requantization) -> bool:
    """Returns whether every channel has a right shift of 1 to 31 or the multiplier 0; rounded once, a scale in bounds."""
    if factors.single:
        return all(scale == 0 or LEAST_SCALE <= scale < 1 for scale in _scales(factors).tolist())
    return all(multiplier == 0 or -31 <= shift <= -1 for multiplier, shift in zip(factors.multiplier, factors.shift, strict=True))


def _scales(factors: Requantization) -> Array:
    return np.array(factors.multiplier, np.int32).view(np.float32)


def constants(factors: Requantization) -> Array:
    """Returns (channels, 2) int32: multiplier and right shift of each channel, as `requantize` reads them."""
    if factors.single:
        halves = (_scales(factors) / np.float32(2)).view(np.int32)
        return np.column_stack([halves, np.ones_like(halves)])
    pairs = [(m, -shift if m else 1) for m, shift in zip(factors.multiplier, factors.shift, strict=True)]
    return np.array(pairs, np.int32)


def requantize(p: Function, x: str, multiplier: str, right: str | int, zero_point: int, clamp: Clamp) -> None:
    """Turns register `x`, twice a sum, into the int8 output within `clamp`; `right` may be a number.

    Limits other than int8's take four or five instructions in the place of SSAT, still without a branch or a register.
    """
    if clamp.single:
        _round_once(p, x, multiplier)
        kept_within(p, x, zero_point, clamp)
        return
    p.smmulr(x, x, multiplier)
    if clamp.low < zero_point:
        p.add(x, x, x, "asr 31")
    p.asrs(x, x, right)
    kept_within(p, x, zero_point, clamp, carry=True)


def kept_within(p: Function, x: str, zero_point: int, clamp: Clamp, carry: bool = False) -> None:
    """Adds the zero point to register `x`, with the carry if asked, and keeps the sum within `clamp`."""
    add = p.adc if carry else p.add
    if (clamp.low, clamp.high) == (INT8.low, INT8.high):
        add(x, x, zero_point)
        p.ssat(x, 8, x)
        return
    add(x, x, zero_point - clamp.low)
    p.bic(x, x, x, "asr 31")
    p.sub(x, x, clamp.high - clamp.low)
    p.and_(x, x, x, "asr 31")
    p.add(x, x, clamp.high)


def _round_once(p: Function, x: str, multiplier: str) -> None:
    p.new_float("product_", "scale_")
    p.vmov("product_", x)
    p.vmov("scale_", multiplier)
    p.vcvt("product_", "product_")
    p.vmul("product_", "product_", "scale_")
    p.vcvtr("product_", "product_")
    p.vmov(x, "product_")
    p.free("product_", "scale_")


def name(zero_point: int, clamp: Clamp) -> str:
    """Returns what distinguishes the names of functions that requantise to this zero point and these limits."""
    limits = "" if (clamp.low, clamp.high) == (INT8.low, INT8.high) else f"_{clamp.low + 128:02x}{clamp.high + 128:02x}"
    return f"{'s' if clamp.single else 'z'}{zero_point + 128:02x}{limits}"
