"""The exercises of lab 3: a schedule in parts by hand, and what a region in slices needs."""

import random
from typing import Any

from tinyredux.course.exercises_partial import live_bytes, optimum_bytes
from tinyredux.course.teaching import exercise

STEPS_BYTES = (4000, 3072, 2816)  # the peaks that earn a point each in the schedule by hand


def _judge_by_hand(arguments: tuple[Any, ...], found: Any) -> str | None:
    try:
        peak = max(live_bytes(found))
    except ValueError as wrong:
        return str(wrong)
    least = optimum_bytes()
    return None if peak <= least else f"it runs, and needs {peak:,} bytes; {least:,} are enough"


def _award(found: Any) -> int:
    try:
        return sum(max(live_bytes(found)) <= most for most in STEPS_BYTES)
    except Exception:  # an answer may be anything
        return 0


def _draw_schedule(arguments: tuple[Any, ...], expected: Any, found: Any) -> Any:
    from tinyredux.notebook import plots_labs

    return plots_labs.schedule(found, live_bytes(found), optimum_bytes())


exercise("lab3.by_hand", judge=_judge_by_hand, points=3, award=_award, picture=_draw_schedule)(
    lambda: ["expand+filter", "project+shortcut+sum+classify"]
)


def _draw_slice(chance: random.Random) -> tuple[int, ...]:
    return chance.randint(1, 24), chance.randint(1, 24), chance.randint(1, 32), chance.randint(1, 32), chance.randint(1, 16)


def _draw_widest(chance: random.Random) -> tuple[int, ...]:
    height, width, in_c, out_c, wide_c = (chance.randint(1, high) for high in (12, 12, 16, 16, 96))
    return height, width, in_c, wide_c, out_c, chance.randint(0, 2 * slice_bytes(height, width, in_c, out_c, wide_c // 2 + 1))


@exercise("lab3.slice_bytes", _draw_slice, edges=((1, 1, 1, 1, 1), (8, 8, 4, 4, 1)))
def slice_bytes(height: int, width: int, in_c: int, out_c: int, slice_c: int) -> int:
    """Returns the bytes of widen, filter, narrow in slices: input, a slice of each of two wide maps, 32-bit sums."""
    return height * width * (in_c + 2 * slice_c + 4 * out_c)


@exercise(
    "lab3.widest_slice", _draw_widest,
    edges=((8, 8, 4, 24, 4, 8 * 8 * 22), (8, 8, 4, 24, 4, 8 * 8 * 22 - 1), (8, 8, 4, 24, 4, 0)),
)  # fmt: skip
def widest_slice(height: int, width: int, in_c: int, wide_c: int, out_c: int, budget_bytes: int) -> int:
    """Returns the most channels of a slice that divide `wide_c` and fit the budget, 0 where none does."""
    fitting = [c for c in range(1, wide_c + 1) if wide_c % c == 0 and slice_bytes(height, width, in_c, out_c, c) <= budget_bytes]
    return max(fitting, default=0)
