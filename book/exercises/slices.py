"""The exercises of lab 3: a schedule in parts by hand, and what a region in slices needs. The library's planner judges."""

import functools
import random
from typing import Any

from tinyredux import graph, partial
from tinyredux.course.given import SHAPES, STEPS
from tinyredux.course.teaching import exercise
from tinyredux.memory import Item
from tinyredux.partial import Net

STEPS_BYTES = (4000, 3072, 2816)  # the peaks that earn a point each in the schedule by hand


def small_net() -> Net:
    """Returns the network of lab 3, without weights: bytes depend on shapes alone."""
    tensors = {name: graph.Tensor(name, shape, "int8") for name, shape in SHAPES.items()}
    more: dict[str, Any] = {"filter": {"padding": (1, 1, 1, 1)}}
    ops = [
        getattr(graph, step["kind"])(**{key: value for key, value in step.items() if key != "kind"}, **more.get(step["name"], {}))
        for step in STEPS
    ]
    return Net(graph.Graph("lab3", tuple(ops), tensors, {}, ("input",), ("classes",)))


@functools.cache
def optimum_bytes() -> int:
    """Returns the least peak of live bytes of all schedules of lab 3's network."""
    return partial.plan_partial(small_net().graph).channel_bound_bytes


def live_bytes(found: Any) -> list[int]:
    """Returns the most bytes alive in each item of a schedule: a list of operators' names, joined by + where they run in slices.

    Raises ValueError saying what is wrong with it.
    """
    net, items = small_net(), []
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ValueError(f"expected a list such as ['expand', 'filter+project', ...], found {found!r}")
    ways: dict[frozenset[str], Item] = {}
    for item in sorted(partial.candidates(net), key=lambda item: -partial.internal_bytes(net, item)):
        ways[frozenset(item.ops)] = item  # of several ways to run the same operators the one with the fewest bytes is left
    for text in found:
        names = [name.strip() for name in text.split("+")]
        if unknown := [name for name in names if name not in net.index]:
            raise ValueError(f"there is no operator {unknown[0]!r}; there are {', '.join(net.index)}")
        if frozenset(names) not in ways:
            raise ValueError(f"{text} cannot run in slices of channels: some operator in it needs all channels of the one before")
        items.append(ways[frozenset(names)])
    run = [name for item in items for name in item.ops]
    if sorted(run) != sorted(net.index):
        raise ValueError(f"each operator has to run once, found {', '.join(run)}")
    done: set[str] = {"input"}
    for item in items:
        if missing := [name for name in net.inputs(item) if name not in done]:
            raise ValueError(f"{'+'.join(item.ops)} reads {missing[0]}, which nothing has written yet")
        done.add(net.output(item))
    costs = {item: partial.item_costs(net, item) for item in items}
    return [run.during for _, _, run in partial.replayed(partial.problem(net, items, frozenset(), costs), range(len(items)))]


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
    """Draws the most bytes alive in each item of a schedule, the highest in red, and the least peak of all schedules."""
    from tinyredux.notebook.plots_style import BLUE, INK, RED, Picture, figure_with_axes, name_steps, styled

    @styled
    def drawn(live: list[int], least: int) -> Picture:
        figure, (axes,) = figure_with_axes(8.6, 2.8)
        for i, count in enumerate(live):
            axes.bar(i + 0.5, count, 0.8, color=RED if count == max(live) else BLUE)
            axes.text(i + 0.5, count, f"{count:,}", ha="center", va="bottom", fontsize=9)
        axes.axhline(least, color=INK, lw=1.2, ls="--")
        name_steps(axes, list(found), fontsize=9)
        axes.set(ylabel="bytes alive", ylim=(0, 1.15 * max(live)), title=f"peak {max(live):,}; dashed: {least:,} are enough")
        return Picture(figure, f"A schedule of {len(live)} items with {', '.join(f'{count}' for count in live)} bytes alive.")

    return drawn(live_bytes(found), optimum_bytes())


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
