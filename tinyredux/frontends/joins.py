"""Maps below each other or side by side: the sum of each amid zeros, which depthwise kernels of one place put around it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from tinyredux.graph import Padding


def beside(sizes: Sequence[int], axis: int) -> list[Padding]:
    """Returns the padding of each of maps with so many rows (axis 0) or columns (1) that brings it to its place in the map of
    all, one behind another."""
    ends = list(accumulate(sizes))
    sides = [(end - size, ends[-1] - end) for size, end in zip(sizes, ends, strict=True)]
    return [(before, after, 0, 0) if axis == 0 else (0, 0, before, after) for before, after in sides]
