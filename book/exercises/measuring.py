"""The exercises of lab 0, an honest measurement, of lab 6, a network within a budget, and those that chapters ask."""

import functools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyredux import fixedpoint
from tinyredux.course.claims import Claim
from tinyredux.course.teaching import exercise
from tinyredux.device import link
from tinyredux.graph import window_outputs

NET, DATA, BOARD = "lenet", "synthetic", "disco_f469ni"  # of the project
SRAM_BYTES, FLASH_BYTES = 24_000, 256_000
PARS = (8_000_000, 6_000_000, 5_000_000)  # modelled cycles that earn a point each, beside the one for keeping the budget
IMAGES, MOST_WRONG = 200, 6  # images that are classified, and how many more than the exact network may be wrong
CHOICES: dict[str, Sequence[Any]] = {
    "method": ("exact", "partial", "skip", "skip+partial"), "kernels": ("reference", "fast"),
    "mac_limit": (1.0, 1.1, 1.2, 1.35, 1.5), "sram": range(1_000, 320_001),
}  # fmt: skip


def _draw_lists(chance: random.Random) -> tuple[Any, ...]:
    one = [chance.randint(-128, 127) for _ in range(chance.randint(0, 12))]
    other = list(one)
    if one and chance.random() < 0.6:
        other[chance.randrange(len(one))] += chance.choice((-1, 1))
    return one, other[: len(other) - (chance.random() < 0.2)]


@exercise(
    "lab0.first_difference", _draw_lists,
    edges=(([1, 2, 3], [1, 2, 3]), ([1, 2, 3], [1, 0, 3]), ([1, 2], [1, 2, 3]), ([], []), ([], [5])),
)  # fmt: skip
def first_difference(one: list[int], other: list[int]) -> int:
    """Returns the first place at which two lists differ, also by being longer; -1 where they are equal."""
    for place in range(max(len(one), len(other))):
        if one[place : place + 1] != other[place : place + 1]:
            return place
    return -1


@exercise(
    "lab0.honest", lambda chance: ([chance.randint(100, 999) for _ in range(2 * chance.randint(1, 5))],),
    edges=(([900, 100],), ([9, 3, 1, 2],)),
)  # fmt: skip
def honest(readings: list[int]) -> tuple[int, int, int]:
    """Returns the median, the least and the largest of an odd number of readings, without the first one."""
    warm = sorted(readings[1:])
    return warm[len(warm) // 2], warm[0], warm[-1]


def _draw_counter(chance: random.Random) -> tuple[int, int, int]:
    return chance.randrange(2**32), chance.randrange(2**32), chance.choice((80, 120, 160, 180, 216)) * 10**6


@exercise("lab0.milliseconds", _draw_counter, edges=((180_000, 0, 180_000_000), (100, 2**32 - 100, 200_000_000)), near=1e-9)
def milliseconds(cycles: int, before: int, clock_hz: int) -> float:
    """Returns the time between two readings of a 32-bit counter of cycles, which may have wrapped once."""
    return 1000 * ((cycles - before) % 2**32) / clock_hz


def _judge_project(arguments: tuple[Any, ...], found: Any) -> str | None:
    if not isinstance(found, dict) or set(found) - set(CHOICES) or "method" not in found:
        return f"expected a dictionary with 'method', and perhaps {', '.join(list(CHOICES)[1:])}; found {found!r}"
    for name, value in found.items():
        if type(value) is bool or value not in CHOICES[name]:
            choices = CHOICES[name]
            known = f"{choices[0]} to {choices[-1]}" if isinstance(choices, range) else ", ".join(map(str, choices))
            return f"{name} is {value!r}, expected one of {known}"
    return _built(tuple(sorted(found.items())))[1]


@functools.cache
def _built(asked: tuple[tuple[str, Any], ...]) -> tuple[tuple[int, str] | None, str | None]:
    """Returns the score of a project, its cycles and all of it in words, or why it has none."""
    from tinyredux import settings
    from tinyredux.device import BuildError, MissingTool

    try:
        wanted = settings.Settings(NET, data=DATA, board=BOARD, images=1, **dict(asked))
        compiled = settings.compile_net(wanted)
        flash, sram = len(compiled.artifact.blob), compiled.plan.total_bytes
        for what, needed, most in (("SRAM", sram, SRAM_BYTES), ("flash", flash, FLASH_BYTES)):
            if needed > most:
                return None, f"it needs {needed:,} bytes of {what}, the budget is {most:,}"
        wrong, exact = _wrong(compiled), _wrong(settings.compile_net(settings.Settings(NET, data=DATA, kernels="reference")))
        if wrong > exact + MOST_WRONG:
            return None, f"{wrong} of {IMAGES} images are wrong, exact inference has {exact}; at most {MOST_WRONG} more"
        record = settings.measure_compiled(wanted, compiled)
    except MissingTool:
        raise
    except (ValueError, BuildError) as refused:
        return None, str(refused)
    if not record.bit_exact or record.cycles is None:
        return None, "its bytes are not those of the interpreter"
    said = f"{record.cycles:,} modelled cycles, {sram:,} bytes of SRAM, {flash:,} of flash, {IMAGES - wrong} of {IMAGES} right"
    return (record.cycles, said), None


def _wrong(compiled: Any) -> int:
    """Returns how many of the first test images are classified wrongly."""
    from tinyredux.int8 import evaluator, interpret

    test = compiled.data.test.first(IMAGES)
    answers = evaluator.Evaluator(compiled.int8).run(interpret.quantize_input(compiled.int8, test.images))
    return int((answers.reshape(IMAGES, -1).argmax(1) != test.labels).sum())


def _score(found: Any) -> tuple[int, str]:
    return _built(tuple(sorted(found.items())))[0] or (0, "")


def _award(found: Any) -> int:
    cycles = None if _judge_project((), found) else _score(found)[0]
    return 0 if cycles is None else 1 + sum(cycles <= most for most in PARS)


exercise("lab6.project", judge=_judge_project, points=1 + len(PARS), award=_award, score=_score)(
    lambda: {"method": "skip+partial", "kernels": "fast", "sram": SRAM_BYTES}
)

Run = tuple[int, int]


def _draw_runs(chance: random.Random) -> tuple[Run, Run]:
    each, rest = chance.randint(1, 12), chance.randint(20, 400)
    low, high = sorted(chance.sample(range(1, 2000), 2))
    return (low, rest + each * low), (high, rest + each * high)


@exercise("chapter0.per_element", _draw_runs)
def per_element(short: Run, long: Run) -> Run:
    """Returns the instructions of one element and those of everything else, from (elements, instructions) of two runs."""
    each = (long[1] - short[1]) // (long[0] - short[0])
    return each, short[1] - each * short[0]


@exercise(
    "chapter1.store", lambda chance: (chance.uniform(-4, 4), 2.0 ** -chance.randint(3, 7), chance.randint(-128, 127)),
    edges=((0.0, 0.25, 7), (100.0, 0.25, 0), (-100.0, 0.25, 0), (1.0, 0.5, -128)),
)  # fmt: skip
def store(real: float, scale: float, zero_point: int) -> int:
    """Returns the int8 that stands for a real number."""
    return int(fixedpoint.quantize(np.array(real), scale, zero_point))


def _draw_fields(chance: random.Random) -> tuple[int, ...]:
    return (sum(chance.randint(1 - 2**20, 2**20 - 1) << (21 * place) for place in range(3)),)


@exercise("chapter4.fields", _draw_fields, edges=((0,), (-1,), (-153931604819962,)))
def fields(total: int) -> list[int]:
    """Returns the low, the middle and the high of three signed fields of 21 bits."""
    low = (total + 2**20) % 2**21 - 2**20
    rest = (total - low) >> 21
    middle = (rest + 2**20) % 2**21 - 2**20
    return [low, middle, (rest - middle) >> 21]


def _draw_line(chance: random.Random) -> tuple[str, ...]:
    line = link.seal(
        f"#{chance.randint(1, 99)} run {chance.randint(1, 4096)} {chance.choice(('info', 'a*b', '', 'halt'))}"
    ).decode()
    place = chance.randrange(len(line) - 1)
    return (line.strip() if chance.random() < 0.5 else f"{line[:place]}{chance.choice('0f*# ')}{line[place + 1 : -1]}",)


@exercise("chapter5.intact", _draw_line, edges=(("#1 info*8713e938",), ("#1 ingo*8713e938",), ("#1 info",), ("*00000000",)))
def intact(line: str) -> bool:
    """Returns whether a line of the serial link ends in the CRC of its text."""
    return link.unseal(line.encode()) is not None


def _draw_windows(chance: random.Random) -> tuple[Any, ...]:
    return chance.randint(1, 8), [[chance.randint(1, 7), chance.randint(1, 3)] for _ in range(chance.randint(0, 5))]


@exercise("chapter7.rows_needed", _draw_windows, edges=((1, []), (2, [[3, 1]]), (2, [[3, 1], [3, 1]]), (1, [[2, 2], [3, 2]])))
def rows_needed(rows: int, layers: list[list[int]]) -> int:
    """Returns how many rows of the first layer's input some rows of the last layer's output need; a layer is (kernel, stride)."""
    for kernel, stride in reversed(layers):
        rows = (rows - 1) * stride + kernel
    return rows


@exercise(
    "chapter8.floor", lambda chance: tuple(chance.randint(1, most) for most in (9, 256, 9, 100)),
    edges=((6, 15876, 1, 1), (4, 16, 9, 1), (10, 100, 25, 100)), near=1e-9,
)  # fmt: skip
def floor(bits: int, rows: int, blocks: int, images: int) -> float:
    """Returns the least share of sub-vectors that hashing removes: `blocks` of each row by themselves, `images` in one pot."""
    from tinyredux.trec import hashing  # needs torch, and labs are listed without it

    return hashing.pigeonhole_floor(bits, rows * images)


def _draw_cost(chance: random.Random) -> tuple[int, ...]:
    bits, rows = chance.randint(1, 6), chance.randint(1, 256)
    return rows, chance.randint(1, 600), chance.randint(8, 256), bits, chance.randint(1, min(rows, 1 << bits))


@exercise("chapter9.cost", _draw_cost, edges=((256, 128, 256, 5, 32), (4, 8, 8, 1, 2)), near=1e-9)
def cost(rows: int, columns: int, outputs: int, bits: int, clusters: int) -> float:
    """Returns the products of a TREC layer of one block with kernel reuse, as a share of the exact layer's."""
    return (rows * columns * bits + clusters * columns * (outputs - bits)) / (rows * columns * outputs)


def _draw_gradients(chance: random.Random) -> tuple[Any, ...]:
    count, length = chance.randint(1, 8), chance.randint(1, 4)
    return [[chance.randint(-20, 20) for _ in range(length)] for _ in range(count)], [chance.randint(0, 2) for _ in range(count)]


@exercise("chapter10.row_gradients", _draw_gradients, edges=(([[4]], [0]), ([[2, 0], [4, 2], [5, 5]], [1, 1, 0])), near=1e-9)
def row_gradients(gradients: list[list[int]], slots: list[int]) -> list[list[float]]:
    """Returns what each row is told, when its cluster's mean is told the sum of `gradients`: the mean over its cluster."""
    matrix, own = np.array(gradients, float), np.array(slots)
    return [[float(value) for value in matrix[own == slot].mean(axis=0)] for slot in slots]


exercise(
    "chapter13.outputs",
    lambda chance: (chance.randint(7, 96), chance.randint(1, 7), chance.randint(1, 3), *(chance.randint(0, 3) for _ in "pp")),
    edges=((5, 5, 1, 0, 0), (32, 3, 2, 1, 1), (32, 3, 2, 0, 1)),
)(window_outputs)


def _draw_claim(chance: random.Random) -> tuple[float, float, float, bool]:
    low, high = sorted(chance.sample(range(1, 100), 2))
    return float(chance.randint(0, 100)), float(low), float(high), chance.random() < 0.5


@exercise(
    "chapter14.verdict", _draw_claim,
    edges=((5.0, 4.0, 6.0, True), (6.0, 4.0, 6.0, True), (7.0, 4.0, 6.0, True), (7.0, 4.0, 6.0, False), (3.0, 4.0, 6.0, False)),
)  # fmt: skip
def verdict(ours: float, low: float, high: float, higher_is_better: bool) -> str:
    """Returns what is said of a claim whose interval is `low` to `high`."""
    return Claim("", "", "", "", "", "", "", band=(low, high), higher_is_better=higher_is_better).verdict(ours)
