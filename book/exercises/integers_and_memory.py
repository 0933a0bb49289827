"""The exercises of labs 1 and 2, integers and memory, and of chapter 3.

What is right is written as a student would write it, in Python alone: `lab solutions` shows these very functions. Tests hold
them against what the library computes.
"""

import random
from itertools import combinations
from typing import Any

from tinyredux import memory
from tinyredux.course.given import BRANCH_SIZES, BRANCH_SPANS
from tinyredux.course.teaching import exercise

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
Sizes = dict[str, int]
Spans = dict[str, memory.Lifetime]


def _draw_requantize(chance: random.Random) -> tuple[int, ...]:
    return chance.randint(-(2**20), 2**20), chance.randint(2**30, 2**31 - 1), -chance.randint(4, 14), chance.randint(-128, 127)


def _draw_round_shift(chance: random.Random) -> tuple[int, ...]:
    exponent = chance.randint(0, 12)
    half = (1 << exponent) >> 1
    return chance.choice((chance.randint(-5000, 5000), (chance.randint(-40, 40) << exponent) + half)), exponent


@exercise(
    "lab1.round_shift", _draw_round_shift,
    edges=((5, 1), (-5, 1), (7, 0), (-1, 1), (3, 2), (-6, 2), (INT32_MAX, 31), (INT32_MIN, 31)),
)  # fmt: skip
def round_shift(value: int, exponent: int) -> int:
    """Returns value / 2^exponent to the nearest, halves away from zero."""
    half = (1 << exponent) >> 1
    return (value + half) >> exponent if value >= 0 else -((half - value) >> exponent)


@exercise(
    "lab1.high_mul", lambda chance: (chance.randint(INT32_MIN, INT32_MAX), chance.randint(INT32_MIN, INT32_MAX)),
    edges=((1, 2**30), (-1, 2**30), (3, 2**30), (-3, 2**30), (INT32_MIN, INT32_MIN), (INT32_MIN, INT32_MAX), (0, 5)),
)  # fmt: skip
def high_mul(a: int, b: int) -> int:
    """Returns a * b / 2^31 to the nearest, halves up, saturated."""
    return min((a * b + 2**30) >> 31, 2**31 - 1)


@exercise(
    "lab1.quantize_multiplier", lambda chance: (chance.uniform(0.5, 1) * 2.0 ** -chance.randint(0, 16),),
    edges=((0.5,), (1.0,), (0.0,), (0.75,), (2.0**-8,), (1 - 2.0**-40,), (3.0,)),
)  # fmt: skip
def quantize_multiplier(real: float) -> tuple[int, int]:
    """Returns (multiplier, shift) with real = multiplier * 2^(shift - 31)."""
    import math

    fraction, shift = math.frexp(real)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    return (2**30, shift + 1) if multiplier == 2**31 else (multiplier, shift)


@exercise(
    "lab1.requantize", _draw_requantize,
    edges=((1, 2**30, -1, 0), (-3, 2**30, 0, 5), (2**20, 2**30, -4, 127), (-(2**20), 2**30, -4, -128)),
)  # fmt: skip
def requantize(accumulator: int, multiplier: int, shift: int, zero_point: int) -> int:
    """Returns the int8 that an accumulator becomes."""
    return max(-128, min(127, round_shift(high_mul(accumulator, multiplier), -shift) + zero_point))


def draw_lives(chance: random.Random) -> tuple[Any, ...]:
    """Returns sizes and lifetimes of up to eight tensors."""
    names = "abcdefgh"[: chance.randint(2, 8)]
    starts = [chance.randint(0, 6) for _ in names]
    sizes = {name: 16 * chance.randint(1, 64) for name in names}
    return sizes, {name: (start, start + chance.randint(0, 3)) for name, start in zip(names, starts, strict=True)}


@exercise(
    "chapter3.peak", draw_lives,
    edges=(({"a": 16, "b": 16}, {"a": (0, 1), "b": (1, 2)}), ({"a": 16, "b": 32}, {"a": (0, 0), "b": (1, 1)})),
)  # fmt: skip
def peak(sizes: dict[str, int], spans: dict[str, memory.Lifetime]) -> int:
    """Returns the most bytes that are alive at one step."""
    last = max(span[1] for span in spans.values())
    return max(sum(sizes[name] for name, (born, dies) in spans.items() if born <= step <= dies) for step in range(last + 1))


BRANCH_BOUND = peak(BRANCH_SIZES, BRANCH_SPANS)


def placement_fault(sizes: Sizes, spans: Spans, offsets: Any, limit_bytes: int) -> str | None:
    """Returns what is wrong with offsets: a tensor left out, two that overlap, or an arena above the limit; else None."""
    if not isinstance(offsets, dict) or set(offsets) != set(sizes):
        return f"expected a dictionary with an offset for each of {', '.join(sizes)}, found {offsets!r}"
    if any(not isinstance(offset, int) or offset < 0 for offset in offsets.values()):
        return f"expected offsets that are whole numbers from 0, found {offsets!r}"
    for one, other in combinations(sorted(sizes), 2):
        apart = offsets[one] + sizes[one] <= offsets[other] or offsets[other] + sizes[other] <= offsets[one]
        if memory.overlap(spans[one], spans[other]) and not apart:
            places = (f"{name} (bytes {offsets[name]} to {offsets[name] + sizes[name]})" for name in (one, other))
            step = max(spans[one][0], spans[other][0])
            return f"{' and '.join(places)} share bytes, and both are alive at step {step}"
    arena = memory.arena_end(sizes, offsets)
    return None if arena <= limit_bytes else f"no overlap, but the arena has {arena} bytes; {limit_bytes} are enough"


def _judge_branch(arguments: tuple[Any, ...], found: Any) -> str | None:
    return placement_fault(BRANCH_SIZES, BRANCH_SPANS, found, BRANCH_BOUND)


def _judge_place(arguments: tuple[Any, ...], found: Any) -> str | None:
    sizes, spans = arguments
    return placement_fault(sizes, spans, found, memory.arena_end(sizes, place(sizes, spans)))


def _draw_branch(arguments: tuple[Any, ...], expected: Any, found: Any) -> Any:
    from tinyredux.notebook import plots_labs

    sizes, spans = arguments or (BRANCH_SIZES, BRANCH_SPANS)
    return plots_labs.placement(sizes, spans, found)


exercise("lab2.by_hand", judge=_judge_branch, picture=_draw_branch)(
    lambda: {"a": 0, "input": 4096, "c": 0, "b": 7168, "d": 2048, "out": 0}
)


@exercise(
    "lab2.place", draw_lives, judge=_judge_place, points=2, picture=_draw_branch,
    edges=(({"a": 16, "b": 16}, {"a": (0, 1), "b": (1, 2)}), ({"a": 16, "b": 32}, {"a": (0, 0), "b": (1, 1)})),
)  # fmt: skip
def place(sizes: Sizes, spans: Spans) -> dict[str, int]:
    """Returns the largest tensor first, each at the lowest free place."""
    offsets: dict[str, int] = {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        (first, last), offset = spans[name], 0
        busy = [other for other in offsets if spans[other][0] <= last and first <= spans[other][1]]
        for other in sorted(busy, key=lambda other: offsets[other]):
            if offset + sizes[name] <= offsets[other]:
                break
            offset = max(offset, offsets[other] + sizes[other])
        offsets[name] = offset
    return offsets
