"""Branch-free requantisation against the rules of fixedpoint: every right shift, extreme and random sums, all clamps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fast_tools import host_library, pointer

from tinyredux.fixedpoint import clamp_int8, multiply_by_quantized_multiplier, scale_once
from tinyredux.int8 import Clamp, Requantization
from tinyredux.kernels import Function
from tinyredux.kernels.asm import requantize

SETTINGS = {-128: (-128, 127), 127: (-128, 127), 5: (5, 127), -3: (-3, 61), 0: (-128, 100), -9: (-100, -8)}  # zero point, clamp


def many(zero_point: int, clamp: Clamp) -> Function:
    """Returns a function that requantises `n` sums with a multiplier and a shift each."""
    p = Function("tr_many", ("int8_t *out", "const int32_t *sums", "const int32_t *factors", "int32_t n"))
    p.new("x", "multiplier", "right")
    with p.loop("n"):
        p.ldr_post("x", "sums", 4)
        p.ldr_post("multiplier", "factors", 4)
        p.ldr_post("right", "factors", 4)
        p.add("x", "x", "x")
        requantize.requantize(p, "x", "multiplier", "right", zero_point, clamp)
        p.strb_post("x", "out", 1)
    return p


def cases(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns sums and (multiplier, right shift): sums whose product lies on or beside a half, small, large and extreme ones."""
    rng = np.random.default_rng(0)
    right = rng.integers(1, 32, count)
    multiplier = rng.integers(2**30, 2**31, count)
    multiplier[::5] = rng.choice([2**30, 2**30 + 1, 2**31 - 1, 3 * 2**29], multiplier[::5].size)
    halves = ((rng.integers(-300, 300, count) * 2 + 1) << (right - 1)) * 2**31 // multiplier + rng.integers(-2, 3, count)
    sums = np.where(rng.random(count) < 0.5, halves, rng.integers(-(2**30) + 1, 2**30, count) >> rng.integers(0, 30, count))
    sums[:4] = (2**30 - 1, -(2**30) + 1, 0, -1)
    sums = sums.clip(-(2**30) + 1, 2**30 - 1)
    multiplier[10], right[10] = 0, 1
    return sums.astype(np.int32), np.column_stack([multiplier, right]).astype(np.int32)


@pytest.mark.parametrize("zero_point", SETTINGS)
def test_host_twin_equals_fixedpoint(zero_point: int, tmp_path: Path) -> None:
    (sums, factors), clamp = cases(100_000), Clamp(*SETTINGS[zero_point])
    out = np.zeros(len(sums), np.int8)
    host_library(tmp_path, [many(zero_point, clamp)]).tr_many(pointer(out), pointer(sums), pointer(factors), len(sums))
    scaled = multiply_by_quantized_multiplier(sums.astype(np.int64), factors[:, 0], -factors[:, 1])
    assert np.array_equal(out, clamp_int8(scaled + zero_point, clamp.low, clamp.high))


@pytest.mark.parametrize("zero_point", SETTINGS)
def test_host_twin_equals_single_rounding(zero_point: int, tmp_path: Path) -> None:
    (sums, _), clamp, rng = cases(100_000), Clamp(*SETTINGS[zero_point], True), np.random.default_rng(1)
    scales = np.exp2(rng.uniform(-34, 0, len(sums))).astype(np.float32)
    scales[::3] = np.exp2(-rng.integers(1, 30, scales[::3].size)).astype(np.float32)  # products on a half
    factors = Requantization(tuple(scales.view(np.int32).tolist()), (), 0, 0, clamp)
    assert requantize.applies(factors)
    halved, out = np.ascontiguousarray(requantize.constants(factors), np.int32), np.zeros(len(sums), np.int8)
    host_library(tmp_path, [many(zero_point, clamp)]).tr_many(pointer(out), pointer(sums), pointer(halved), len(sums))
    assert np.array_equal(out, clamp_int8(scale_once(sums.astype(np.int64), scales) + zero_point, clamp.low, clamp.high))


def test_single_rounding_applies_to_scales_below_one() -> None:
    def applies(*scales: float) -> bool:
        bits = tuple(np.array(scales, np.float32).view(np.int32).tolist())
        return requantize.applies(Requantization(bits, (0,) * len(bits), 0, 0, Clamp(-128, 127, True)))

    assert applies(0.5, 2.0**-60, 0.0, 0.99)
    assert not applies(0.5, 1.0)
    assert not applies(2.0**-120)


def test_where_it_applies() -> None:
    def factors(*pairs: tuple[int, int]) -> Requantization:
        return Requantization(tuple(m for m, _ in pairs), tuple(s for _, s in pairs), 0, 0, Clamp(-128, 127))

    assert requantize.applies(factors((2**30, -1), (2**31 - 1, -31), (0, 0)))
    assert not requantize.applies(factors((2**30, -1), (2**30, 0)))
    assert not requantize.applies(factors((2**30, 3)))
    assert requantize.constants(factors((2**30, -7), (0, 0))).tolist() == [[2**30, 7], [0, 1]]
