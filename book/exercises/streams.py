"""The exercises on streams: chapter 15 and lab 7."""

import random
from typing import Any

from tinyredux.course.teaching import exercise


def _draw_slide(chance: random.Random) -> tuple[int, ...]:
    first, kernel, stride = chance.randint(0, 4), chance.randint(1, 5), chance.randint(1, 3)
    return first, first + chance.randint(kernel, 30), chance.randint(1, 6), kernel, stride, chance.randint(0, kernel - 1)


@exercise(
    "chapter15.survivors", _draw_slide,
    edges=((0, 30, 1, 3, 1, 0), (0, 25, 1, 3, 1, 1), (1, 24, 1, 3, 1, 1), (0, 49, 2, 10, 2, 4), (0, 49, 1, 10, 2, 4)),
)  # fmt: skip
def survivors(first: int, end: int, by: int, kernel: int, stride: int, above: int) -> tuple[int, int, int]:
    """Returns by how many rows a map moves, and from which row to before which, whose windows reach rows `first` to `end` - 1."""
    if by % stride:
        return 0, 0, 0
    return by // stride, -(-(first + above) // stride), (end + above - kernel) // stride + 1


def _draw_valid(chance: random.Random) -> tuple[int, list[int]]:
    kernels = [chance.randint(1, 6) for _ in range(chance.randint(1, 5))]
    return sum(kernels) + chance.randint(0, 20), kernels


@exercise("lab7.kept", _draw_valid, edges=((30, [3, 5, 10, 15]), (5, [1]), (5, [5]), (9, [1, 3])))
def kept(height: int, kernels: list[int]) -> list[tuple[int, int]]:
    """Returns for each map that a window reads which rows the next push finds: from the first to before the last."""
    found = []
    for kernel in kernels:
        found.append((height - kernel, height - 1))
        height -= kernel - 1
    return found


def _draw_same(chance: random.Random) -> tuple[int, list[int]]:
    return chance.randint(3, 40), [chance.choice((1, 3, 5, 7)) for _ in range(chance.randint(1, 6))]


@exercise(
    "lab7.computed", _draw_same, edges=((25, [3, 3, 3, 3]), (25, [1]), (3, [3]), (4, [3]), (7, [3, 3, 3, 3]), (9, [5, 1, 3]))
)
def computed(height: int, kernels: list[int]) -> list[int]:
    """Returns how many rows of each map a push computes where padding keeps all maps at one height."""
    found, edge = [], 0
    for kernel in kernels:
        edge += kernel // 2
        found.append(min(height, 2 * edge + 1))
    return found


def _draw_push(chance: random.Random) -> tuple[Any, ...]:
    taps = [chance.randint(-9, 9) for _ in range(chance.randint(1, 5))]
    return [chance.randint(-128, 127) for _ in range(chance.randint(0, len(taps) - 1))], chance.randint(-128, 127), taps


@exercise("lab7.push", _draw_push, edges=(([], 5, [2]), ([], 5, [1, 2]), ([4], 5, [1, 2]), ([1, 2], 3, [1, 10, 100])))
def push(state: list[int], value: int, taps: list[int]) -> tuple[int | None, list[int]]:
    """Returns a window's sum, None where it is not full, and what the next push needs."""
    window = [*state, value]
    if len(window) < len(taps):
        return None, window
    return sum(a * b for a, b in zip(window, taps, strict=True)), window[1:]
