"""Partial execution as a schedule: the placed program of a network in parts, with the kernels for which it has bytes."""

import math
from dataclasses import dataclass, replace
from functools import partial

from tinyredux.boards import Board
from tinyredux.codegen import Kernels, compacted, limits, step_ways, templates_of, trec_bytes
from tinyredux.datasets import Dataset
from tinyredux.files import check_types, require
from tinyredux.graph import Graph
from tinyredux.kernels import STALLED, FastSteps, OnBoard, completed, cycles, fitted, ways, with_forms, with_rows
from tinyredux.memory import ACCUMULATOR_BYTES, Arena, Price, Program, layer_by_layer, place_operators
from tinyredux.methods.layerwise import check_flash, check_sram
from tinyredux.methods.space import NETWORK, Space
from tinyredux.methods.trec import has_trec
from tinyredux.partial import (
    MARGIN,
    SLOWDOWN,
    PartialPlan,
    check_macs,
    hybrids,
    layerwise_price,
    plan_hybrid,
    plan_partial,
    within_bytes,
)

LIMITS = 4  # of SRAM that a search tries
WIDER = (1.2, 2.0)  # limits of MACs at which a network that does not fit is tried in patches
WIDENED = (0.0, 0.5, 1.0)  # how far the arena of a plan may grow towards the exact network's, for scratch of fast kernels


@dataclass(frozen=True)
class Partial:
    """Computes a network in parts, so that its large activations never lie in SRAM at once. Source: Pex, arXiv 2211.17246.

    Without `sram` it is the plan with the fewest bytes whose predicted cycles are at most 5 % above layer by layer with the same
    kernels, else the fastest that saves bytes; within `sram` bytes it is the fastest. `accumulator` is the width of partial sums,
    int32 or int16 (which loses bits); `mac_limit`: above 1.0, early layers run in patches that compute shared rows again, up to
    so many times the MACs; `input_outside`: the network's input lies behind the arena's other bytes; `flash`: as `Layerwise`.
    Chapter 6.
    """

    sram: int | None = None
    accumulator: str = "int32"
    mac_limit: float = 1.0
    input_outside: bool = False
    flash: int | str | None = None

    def __post_init__(self) -> None:
        """Rejects what no plan can be, naming what it can."""
        check_types(self)
        check_sram(self.sram)
        check_flash(self.flash)
        check_macs(self.mac_limit)
        if self.accumulator not in ACCUMULATOR_BYTES:
            raise ValueError(f"accumulator is {self.accumulator!r}, expected one of {', '.join(ACCUMULATOR_BYTES)}")

    def __call__(self, graph: Graph, board: Board, kernels: Kernels) -> FastSteps:
        """Returns the placed program of an int8 graph in parts, with the kernels that its steps have, and by which factor it is
        predicted to be slower than layer by layer with the same kernels."""
        require(not graph.window, f"{graph.name} is a stream, which runs layer by layer; compile it without Partial")
        graph, fast = compacted(graph, kernels.immediates), kernels.name == "fast"
        pure, price = self.mac_limit == 1 and not self.input_outside, partial(cycles, core=STALLED)
        templates = templates_of(kernels.name, kernels.immediates)
        if not templates:
            found = self._plan(graph, SLOWDOWN, price)
            factor = price(graph, found.program.steps()) / max(1, layerwise_price(graph, price))
            return FastSteps(found.program, found.arena, OnBoard(board), factor=factor)
        flash = "board" if self.flash is None and kernels.immediates else self.flash
        at_once_bytes, flash_bytes = limits(board, trec_bytes(graph, board) if has_trec(graph) else None, graph, flash)
        ways_of = {op.name: ways(graph, op, OnBoard(board), templates) for op in graph.ops}
        known = step_ways(graph, board, kernels)

        def by_forms(program: Program, arena: Arena, limit: int) -> FastSteps:
            some = with_forms(program, arena, known, limit, flash_bytes)
            return with_rows(some.program, some.arena, OnBoard(board), limit, some.forms) if fast else some

        whole = fitted(graph, OnBoard(board), ways_of, at_once_bytes, flash_bytes)
        exact, most = whole.cycles, self.sram or whole.total_bytes - 1
        plans = list[tuple[Program, Arena]]()
        if not pure:
            at_once = {name: some[0].cycles for name, some in ways_of.items()}
            plans += hybrids(graph, self.mac_limit, self.accumulator, self.input_outside, price, at_once, self.sram or 0)
        if pure or (self.sram and not self.input_outside):
            found = plan_partial(graph, self.accumulator, self.sram or 0, math.inf if fast else SLOWDOWN, price)
            plans += [(found.program, found.arena), *(within_bytes(graph, most, self.accumulator, price) if fast else [])]
        if self.sram:
            ready = [by_forms(*one, self.sram) for one in plans]
            if not self.input_outside:
                ready.append(completed(fitted(graph, OnBoard(board), ways_of, self.sram, flash_bytes)))
            best = best_within(ready, self.sram)
        elif pure and fast:
            sizes = [(*one, one[1].size_bytes + share * (most - one[1].size_bytes)) for one in plans for share in WIDENED]
            best = _least([by_forms(program, arena, int(size)) for program, arena, size in sizes], exact, most)
        else:
            best = best_within([by_forms(*one, 0) for one in plans], 0)
        return replace(best, factor=best.cycles / max(1, exact))

    def _plan(self, graph: Graph, slowdown: float, price: Price) -> PartialPlan:
        """Returns the plan for reference kernels."""
        if self.mac_limit == 1 and not self.input_outside:
            return plan_partial(graph, self.accumulator, self.sram or 0, slowdown, price)
        return plan_hybrid(graph, self.mac_limit, self.accumulator, self.input_outside, price)

    def notes(self, steps: FastSteps) -> tuple[str, ...]:
        """Returns what a reader must know of a placed program: how much slower it is predicted to be."""
        if steps.factor is None or not math.isfinite(steps.factor):
            return ()
        said = f"in parts: {steps.factor:.2f} times the cycles of layer by layer with these kernels, as predicted"
        asked = self.sram is not None or self.mac_limit != 1 or self.input_outside  # patches know no limit in bytes
        return (said if asked else f"{said}; --sram BYTES asks for fewer bytes or fewer cycles",)


class PartialSpace(Space):
    """What a search may do by partial execution: one schedule of the whole network, in slices within limits of SRAM between the
    least plan and layer by layer, and in patches that compute shared rows again."""

    label, kind = "partial", Partial

    def __init__(self, graph: Graph, data: Dataset, board: Board, kernels: str) -> None:
        """Finds the least plan, which is what the first limit is."""
        least, whole = plan_partial(graph).peak_bytes, place_operators(layer_by_layer(graph)).size_bytes
        steps = range(LIMITS) if least < whole else ()
        sizes = sorted({round(least * (whole / least) ** (step / LIMITS)) for step in steps}, reverse=True)
        schedules = [Partial(size, flash="board") for size in sizes]
        schedules += [Partial(None, mac_limit=factor, flash="board") for factor in WIDER]
        self.choices, self.starts = {NETWORK: schedules}, [{NETWORK: schedule} for schedule in schedules]


def best_within(plans: list[FastSteps], limit_bytes: int) -> FastSteps:
    """Returns the fastest of the plans of at most `limit_bytes`, of equally fast ones the smallest; where none is so small, the
    smallest, of equally small ones the fastest."""
    fitting = [plan for plan in plans if plan.arena.size_bytes <= limit_bytes]
    if fitting:
        return min(fitting, key=lambda plan: (plan.cycles, plan.arena.size_bytes))
    return min(plans, key=lambda plan: (plan.arena.size_bytes, plan.cycles))


def _least(plans: list[FastSteps], exact: float, most_bytes: int) -> FastSteps:
    """Returns the smallest of the plans that are about as fast as `exact`; where none is, the fastest that saves bytes."""
    enough = [plan for plan in plans if plan.cycles <= (1 + SLOWDOWN - MARGIN) * exact]
    if enough:
        return min(enough, key=lambda plan: (plan.arena.size_bytes, plan.cycles))
    saving = [plan for plan in plans if plan.arena.size_bytes <= most_bytes] or plans
    return min(saving, key=lambda plan: (plan.cycles, plan.arena.size_bytes))


def what_fits(graph: Graph, budget_bytes: int, method: str = "partial") -> str:
    """Returns which options make a network fit into the bytes for arena with scratch, or what the least plan needs; `method` is
    the name under which the graph runs in parts."""
    tried: dict[str, int] = {}
    for limit in (1.0, *WIDER):
        choice = f"--method {method}" if limit == 1 else f"--method {method} --mac-limit {limit}"
        tried[choice] = (plan_partial(graph) if limit == 1 else plan_hybrid(graph, limit)).peak_bytes
        if tried[choice] <= budget_bytes:
            return f"{choice} --sram {budget_bytes} fits: the plan needs {tried[choice]} bytes"
    least = min(tried, key=tried.__getitem__)
    return f"the least plan ({least}) needs {tried[least]} bytes of {budget_bytes}; take a smaller network or a larger board"
