"""What method partial adds to the flow: the placed program of a network in parts, and the kernels for which it has bytes."""

from __future__ import annotations

import math

from tinyredux.boards import Board
from tinyredux.codegen import limits, templates_of
from tinyredux.graph import Graph
from tinyredux.kernels import FastSteps, fitted, predicted_cycles, ways, with_forms, with_rows
from tinyredux.memory import Arena, Item, Program, Schedule, lower, rough_cycles
from tinyredux.partial import MARGIN, SLOWDOWN, plan_hybrid, plan_partial, within_bytes

WIDER = (1.2, 2.0)  # limits of MACs at which a network that does not fit is tried in patches
WIDENED = (0.0, 0.5, 1.0)  # how far the arena of a plan may grow towards the exact network's, for scratch of fast kernels


def in_parts(
    graph: Graph, board: Board, kernels: str, unpack: bool, sram_bytes: int | None, options: tuple[str, float, bool]
) -> tuple[FastSteps, float]:  # fmt: skip
    """Returns the placed program of an int8 graph with the kernels of a set, `unpack` as `kernels.templates_of`, and by which
    factor it is predicted to be slower than layer by layer with the same kernels.

    options: the width of partial sums, the limit of MACs, whether the input lies apart. Without `sram_bytes` it is the plan with
    the fewest bytes whose predicted cycles are at most SLOWDOWN above layer by layer, else the fastest that saves bytes; within
    `sram_bytes` that with the fewest predicted cycles.
    """
    accumulator, mac_limit, input_outside = options
    pure, fast = mac_limit == 1 and not input_outside, kernels == "fast"
    if pure:
        found = plan_partial(graph, accumulator, sram_bytes or 0, math.inf if fast else SLOWDOWN)
    else:
        found = plan_hybrid(graph, mac_limit, accumulator, input_outside)
    templates, flash_bytes = templates_of(kernels, unpack), limits(board)[1]
    if not templates:
        layerwise = lower(graph, Schedule(tuple(Item((op.name,)) for op in graph.ops)))
        factor = rough_cycles(graph, found.program.steps()) / max(1, rough_cycles(graph, layerwise.steps()))
        return FastSteps(found.program, found.arena), factor
    ways_of = {op.name: ways(graph, op, board.cpu, templates) for op in graph.ops}

    def by_forms(program: Program, arena: Arena, limit: int) -> FastSteps:
        some = with_forms(program, arena, board.cpu, ways_of, limit, flash_bytes)
        return with_rows(some.program, some.arena, board.cpu, limit, some.forms) if fast else some

    chosen, whole = fitted(graph, ways_of, *limits(board, None, graph))
    exact, most = sum(way.cycles for way in chosen.values()), sram_bytes or whole.total_bytes - 1
    others = within_bytes(graph, most, accumulator) if fast and pure else []
    plans = [(found.program, found.arena), *others]
    if sram_bytes or not (fast and pure):
        best = min((by_forms(*one, sram_bytes or 0) for one in plans), key=predicted_cycles)
    else:
        sizes = [(one, arena, arena.size_bytes + share * (most - arena.size_bytes)) for one, arena in plans for share in WIDENED]
        best = _least([by_forms(one, arena, int(size)) for one, arena, size in sizes], exact, most)
    return best, predicted_cycles(best) / max(1, exact)


def _least(plans: list[FastSteps], exact: float, most_bytes: int) -> FastSteps:
    """Returns the smallest of the plans that are about as fast as `exact`; where none is, the fastest that saves bytes."""
    cycles = [predicted_cycles(plan) for plan in plans]
    enough = [i for i, count in enumerate(cycles) if count <= (1 + SLOWDOWN - MARGIN) * exact]
    if enough:
        return plans[min(enough, key=lambda i: (plans[i].arena.size_bytes, cycles[i]))]
    saving = [i for i, plan in enumerate(plans) if plan.arena.size_bytes <= most_bytes] or list(range(len(plans)))
    return plans[min(saving, key=lambda i: (cycles[i], plans[i].arena.size_bytes))]


def what_fits(graph: Graph, budget_bytes: int, method: str = "partial") -> str:
    """Returns which options make a network fit into the bytes for arena with scratch, or what the least plan needs; `method` is
    the name under which the graph runs in parts."""
    tried: dict[str, int] = {}
    for limit in (1.0, *WIDER):
        choice = f"--method {method}" if limit == 1 else f"--method {method} --mac-limit {limit}"
        tried[choice] = (plan_partial(graph) if limit == 1 else plan_hybrid(graph, limit)).peak_bytes
        if tried[choice] <= budget_bytes:
            return f"{choice} --sram {budget_bytes} fits: the plan needs {tried[choice]} bytes"
    least = min(tried, key=lambda name: tried[name])
    return f"the least plan ({least}) needs {tried[least]} bytes of {budget_bytes}; take a smaller network or a larger board"
