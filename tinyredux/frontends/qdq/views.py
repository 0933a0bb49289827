"""How a network with channels first sees a map that lies here as (height, width, channels).

A view says of each axis of theirs which parts of h, w and c it runs over: atoms (letter, stride, size), outermost first. A
reshape regroups atoms, a transposition permutes axes; neither moves a byte. (1, C, H, W) of a map is ((), c, h, w), flattened
it is ((), c h w).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tinyredux.graph import Array, Shape

Atom = tuple[str, int, int]
View = tuple[tuple[Atom, ...], ...]


def plain(shape: Shape, rank: int) -> View:
    """Returns the view (1, C, H, W), (1, C, W) or (1, C) of a map, by its rank; other ranks end in axes of one element."""
    height, width, channels = (((letter, 1, size),) if size > 1 else () for letter, size in zip("hwc", shape, strict=True))
    axes: list[tuple[Atom, ...]] = [(), channels, *((width,) if rank == 3 else (height, width))][: max(rank, 2)]
    return (*axes, *[()] * (rank - len(axes))) if rank > 1 else (channels,)


def shape_of(sizes: Sequence[int]) -> Shape:
    """Returns (height, width, channels) of sizes (1, C, H, W), (1, C, W), (1, C) or (C,)."""
    channels, *places = sizes[1:] if len(sizes) > 1 else sizes
    height, width = ([1] * (2 - len(places)) + [*places]) if len(places) < 3 else (0, 0)
    return height, width, channels


def sizes(view: View) -> tuple[int, ...]:
    """Returns the sizes of the axes."""
    return tuple(math.prod(size for _, _, size in axis) for axis in view)


def regroup(view: View, wanted: Sequence[int]) -> View | None:
    """Returns the view reshaped to the sizes `wanted`; None where an axis would end within an atom that it does not divide."""
    rest, axes = [atom for axis in view for atom in axis], list[tuple[Atom, ...]]()
    if math.prod(wanted) != math.prod(sizes(view)):
        return None
    for count in wanted:
        axis: list[Atom] = []
        while count > 1:
            letter, stride, size = rest.pop(0)
            if count % size and size % count:
                return None
            taken = min(size, count)
            if taken < size:
                rest.insert(0, (letter, stride, size // taken))
                stride *= size // taken
            if axis and axis[-1][:2] == (letter, stride * taken):  # two parts of an atom are one again
                axis.append((letter, stride, axis.pop()[2] * taken))
            else:
                axis.append((letter, stride, taken))
            count //= taken
        axes.append(tuple(axis))
    return tuple(axes)


def is_map(view: View, shape: Shape) -> bool:
    """Returns whether a view is (1, C, H, W), or one of its lower ranks."""
    return len(view) in (1, 2, 3, 4) and view == plain(shape, len(view)) and math.prod(sizes(view)) == math.prod(shape)


def dealt(view: View, shape: Shape) -> int:
    """Returns of how many groups the channels of an else plain view are dealt out in turn; 1 where they are not."""
    axis = view[1] if len(view) == 4 else ()
    if [letter for letter, _, _ in axis] != ["c", "c"] or not is_map((view[0], (("c", 1, shape[2]),), *view[2:]), shape):
        return 1
    (_, stride, size), (_, across, groups) = axis
    return groups if (stride, across) == (1, size) else 1


def places(view: View, shape: Shape) -> Array:
    """Returns (n,) the place in (height, width, channels) order of each value in the view's order."""
    strides = {"h": shape[1] * shape[2], "w": shape[2], "c": 1}
    found = np.zeros(1, np.int64)
    for letter, stride, size in (atom for axis in view for atom in axis):
        found = (found[:, None] + strides[letter] * stride * np.arange(size)).reshape(-1)
    return found
