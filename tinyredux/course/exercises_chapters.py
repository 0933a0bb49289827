"""The exercises of the chapters that a machine checks, beside those of the labs."""

from __future__ import annotations

import random
from typing import Any

from tinyredux import fixedpoint, memory
from tinyredux.course.claims import Claim
from tinyredux.course.teaching import Exercise
from tinyredux.device import link
from tinyredux.graph import window_outputs

Run = tuple[int, int]


def per_element(short: Run, long: Run) -> Run:
    """Returns the instructions of one element and those of everything else, from (elements, instructions) of two runs."""
    each = (long[1] - short[1]) // (long[0] - short[0])
    return each, short[1] - each * short[0]


def _draw_runs(chance: random.Random) -> tuple[Run, Run]:
    each, rest = chance.randint(1, 12), chance.randint(20, 400)
    low, high = sorted(chance.sample(range(1, 2000), 2))
    return (low, rest + each * low), (high, rest + each * high)


def store(real: float, scale: float, zero_point: int) -> int:
    """Returns the int8 that stands for a real number."""
    return int(fixedpoint.quantize(real, scale, zero_point))


def peak(sizes: dict[str, int], spans: dict[str, memory.Lifetime]) -> int:
    """Returns the most bytes that are alive at one step."""
    last = max(span[1] for span in spans.values())
    return max(sum(sizes[name] for name, (born, dies) in spans.items() if born <= step <= dies) for step in range(last + 1))


def draw_lives(chance: random.Random) -> tuple[Any, ...]:
    """Returns sizes and lifetimes of up to eight tensors."""
    names = "abcdefgh"[: chance.randint(2, 8)]
    starts = [chance.randint(0, 6) for _ in names]
    sizes = {name: 16 * chance.randint(1, 64) for name in names}
    return sizes, {name: (start, start + chance.randint(0, 3)) for name, start in zip(names, starts, strict=True)}


def verdict(ours: float, low: float, high: float, higher_is_better: bool) -> str:
    """Returns what is said of a claim whose interval is `low` to `high`."""
    return Claim("", "", "", "", "", "", "", band=(low, high), higher_is_better=higher_is_better).verdict(ours)


def _draw_claim(chance: random.Random) -> tuple[float, float, float, bool]:
    low, high = sorted(chance.sample(range(1, 100), 2))
    return float(chance.randint(0, 100)), float(low), float(high), chance.random() < 0.5


def fields(total: int) -> list[int]:
    """Returns the low, the middle and the high of three signed fields of 21 bits."""
    low = (total + 2**20) % 2**21 - 2**20
    rest = (total - low) >> 21
    middle = (rest + 2**20) % 2**21 - 2**20
    return [low, middle, (rest - middle) >> 21]


def _draw_fields(chance: random.Random) -> tuple[int, ...]:
    return (sum(chance.randint(1 - 2**20, 2**20 - 1) << (21 * place) for place in range(3)),)


def intact(line: str) -> bool:
    """Returns whether a line of the serial link ends in the CRC of its text."""
    return link.unseal(line.encode()) is not None


def _draw_line(chance: random.Random) -> tuple[str, ...]:
    line = link.seal(
        f"#{chance.randint(1, 99)} run {chance.randint(1, 4096)} {chance.choice(('info', 'a*b', '', 'halt'))}"
    ).decode()
    place = chance.randrange(len(line) - 1)
    return (line.strip() if chance.random() < 0.5 else f"{line[:place]}{chance.choice('0f*# ')}{line[place + 1 : -1]}",)


def rows_needed(rows: int, layers: list[list[int]]) -> int:
    """Returns how many rows of the first layer's input some rows of the last layer's output need; a layer is (kernel, stride)."""
    for kernel, stride in reversed(layers):
        rows = (rows - 1) * stride + kernel
    return rows


def _draw_windows(chance: random.Random) -> tuple[Any, ...]:
    return chance.randint(1, 8), [[chance.randint(1, 7), chance.randint(1, 3)] for _ in range(chance.randint(0, 5))]


EXERCISES = (
    Exercise(
        "chapter0.per_element", _draw_runs, per_element,
        ("Two runs differ by some elements and by some instructions. What does one element take?",
         "What is left of a run when its elements are paid for?"),
    ),
    Exercise(
        "chapter1.store",
        lambda chance: (chance.uniform(-4, 4), 2.0 ** -chance.randint(3, 7), chance.randint(-128, 127)), store,
        ("Divide by the scale, round to the nearest whole number, add the zero point.",
         "A byte holds -128 to 127: what is beyond ends there."),
        ((0.0, 0.25, 7), (100.0, 0.25, 0), (-100.0, 0.25, 0), (1.0, 0.5, -128)),
    ),
    Exercise(
        "chapter3.peak", draw_lives, peak,
        ("A tensor with the lifetime (2, 4) is alive at steps 2, 3 and 4.",
         "For each step, add the sizes of the tensors that are alive there."),
        (({"a": 16, "b": 16}, {"a": (0, 1), "b": (1, 2)}), ({"a": 16, "b": 32}, {"a": (0, 0), "b": (1, 1)})),
    ),
    Exercise(
        "chapter13.outputs",
        lambda chance: (chance.randint(7, 96), chance.randint(1, 7), chance.randint(1, 3), *(chance.randint(0, 3) for _ in "pp")),
        window_outputs,
        ("The window starts at -before. Where may its last position start?",
         "So many positions fit beside the first one: what is left of the padded width, divided by the stride, rounded down."),
        ((5, 5, 1, 0, 0), (32, 3, 2, 1, 1), (32, 3, 2, 0, 1)),
    ),
    Exercise(
        "chapter14.verdict", _draw_claim, verdict,
        ("Inside the interval, ends included, a figure is reproduced.",
         "Beyond the better end it is exceeded. Which end is better?"),
        ((5.0, 4.0, 6.0, True), (6.0, 4.0, 6.0, True), (7.0, 4.0, 6.0, True), (7.0, 4.0, 6.0, False), (3.0, 4.0, 6.0, False)),
    ),
    Exercise(
        "chapter4.fields", _draw_fields, fields,
        ("The low field is what is left of the sum modulo 2**21, read as a signed number: from -2**20 to 2**20 - 1.",
         "Take the low field off before you shift: a negative one has borrowed from its neighbour."),
        ((0,), (-1,), (-153931604819962,)),
    ),
    Exercise(
        "chapter5.intact", _draw_line, intact,
        ("rpartition splits at the last star.", "zlib.crc32 wants bytes; f'{number:08x}' writes eight hexadecimal digits."),
        (("#1 info*8713e938",), ("#1 ingo*8713e938",), ("#1 info",), ("*00000000",)),
    ),
    Exercise(
        "chapter7.rows_needed", _draw_windows, rows_needed,
        ("Begin at the end: how many rows of its own input does the last layer need?",
         "The first row of output needs a whole window; each further row needs as many rows more as the stride is wide."),
        ((1, []), (2, [[3, 1]]), (2, [[3, 1], [3, 1]]), (1, [[2, 2], [3, 2]])),
    ),
)  # fmt: skip
