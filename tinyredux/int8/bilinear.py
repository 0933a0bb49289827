"""Bilinear resizing: between which rows and columns a value lies, with which weights, and how their mean is rounded.

Weights of two neighbours along an axis are integers that add up to 2^10 (double) or 2^11 (single), so the sum of four products is
exact and has twice as many bits behind its point. Three rules, read out of what the packages compute:

- double, TFLM's integer kernel: the step is round(1024 * step) / 1024; halves away from zero.
- single, LiteRT's default interpreter (XNNPACK): places in float32, of the second neighbour's weight 11 bits, halves to even; of
  the mean halves upward.
- single and `even`, ONNX Runtime and torch: the same weights, the zero point taken off first, halves to even. Theirs are
  float32 and not rounded, so that a half may fall on either side: of drawn maps about 2 % of the bytes differ, by one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyredux.graph import Array, Bilinear, Graph
from tinyredux.int8.factors import quant_of

BITS = {"double": 10, "single": 11}  # of a weight along one axis
COLUMN = 12  # an entry of a table holds the number of the first neighbour from this bit on, below it the weight of the second
Places = tuple[npt.NDArray[np.int64], Array]


def places(op: Bilinear, axis: int, rounding: str) -> Places:
    """Returns (size,) the first of the two rows (axis 0) or columns (1) between which each output lies, and the second's weight.

    Weights are integers, or for a `rounding` of "" real ones below 1; with a weight of 0 the second row is not read.
    """
    first, size = op.first[axis], op.size[axis]
    lower, weights = _places(first + size, op.extent[axis], op.step[axis], op.half_pixel, rounding)
    return lower[first:], weights[first:]


@lru_cache(maxsize=10_000)
def _places(count: int, extent: int, step: float, half_pixel: bool, rounding: str) -> Places:
    if rounding == "double":
        fine = int(1024 * step + 0.5)
        at = np.clip(np.arange(count) * fine + (fine // 2 - 512 if half_pixel else 0), 0, (extent - 1) << 10)
        return at >> 10, at & 1023
    kind: Any = np.float32 if rounding else np.float64
    offset = kind(0.5) * kind(step) - kind(0.5) if half_pixel else kind(0)
    real = np.clip(np.arange(count, dtype=kind) * kind(step) + offset, 0, extent - 1)
    lower = real.astype(np.int64)
    if not rounding:
        return lower, real - lower
    weights = np.rint((real - lower.astype(kind)) * kind(2048)).astype(np.int64)
    return lower + (weights >> 11), weights & 2047


def table(op: Bilinear, axis: int, rounding: str) -> npt.NDArray[np.int32]:
    """Returns (size,) the entries that the kernel reads, of rows (axis 0) or columns (1)."""
    lower, weights = places(op, axis, rounding)
    return np.asarray(lower << COLUMN | weights, np.int32)


def is_even(graph: Graph, op: Bilinear) -> bool:
    """True where halves of what is meant go to even."""
    return op.even and graph.rounding == "single"


def interpolated(graph: Graph, op: Bilinear, images: Array) -> Array:
    """Returns what an operator makes of maps (N, H, W, C), int8 or float32: whole ones, or from the first row and column on that
    are read."""
    int8 = images.dtype == np.int8
    rounding = graph.rounding if int8 else ""
    values: Array = images.astype(np.int64 if int8 else np.float64)
    zero_point = quant_of(graph.tensors[op.output]).zero_point if int8 and is_even(graph, op) else 0
    one, values = (1 << BITS[rounding] if int8 else 1), values - zero_point
    for axis in (0, 1):
        lower, weights = places(op, axis, rounding)
        lower, along = (
            lower - (lower[0] if values.shape[1 + axis] < op.extent[axis] else 0),
            weights.reshape(-1, *[1] * (2 - axis)),
        )
        upper = np.minimum(lower + 1, values.shape[1 + axis] - 1)
        values = values.take(lower, 1 + axis) * (one - along) + values.take(upper, 1 + axis) * along
    if not int8:
        return values.astype(np.float32)
    bits = 2 * BITS[rounding]
    down = values < 0 if rounding == "double" else 1 - (values >> bits & 1) if is_even(graph, op) else 0
    return np.asarray((values + (1 << (bits - 1)) - down >> bits) + zero_point, np.int8)
