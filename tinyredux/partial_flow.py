"""What method partial adds to the flow: the placed program of a network in parts, and the kernels for which it has bytes."""

from __future__ import annotations

import math

from tinyredux.arena import Arena
from tinyredux.boards import Board
from tinyredux.fast.choose import ways
from tinyredux.fast.slices import FastSteps, with_rows
from tinyredux.fast.whole import predicted_cycles, with_forms
from tinyredux.graph import Graph
from tinyredux.kernels import limits, templates_of
from tinyredux.passes.partial import SLOWDOWN, plan_hybrid, plan_partial, within_bytes
from tinyredux.schedule import Program


def in_parts(
    graph: Graph, board: Board, kernels: str, unpack: bool, sram_bytes: int | None, options: tuple[str, float, bool]
) -> FastSteps:  # fmt: skip
    """Returns the placed program of an int8 graph with the kernels of a set, `unpack` as `kernels.templates_of`.

    options: the width of partial sums, the limit of MACs, whether the input lies apart. Without `sram_bytes` fast kernels take
    the plan with the least peak and what bytes it has idle; within `sram_bytes` the plan with the fewest predicted cycles.
    """
    accumulator, mac_limit, input_outside = options
    pure, fast = mac_limit == 1 and not input_outside, kernels == "fast"
    if pure:
        found = plan_partial(graph, accumulator, sram_bytes or 0, math.inf if fast else SLOWDOWN)
    else:
        found = plan_hybrid(graph, mac_limit, accumulator, input_outside)
    templates, flash_bytes = templates_of(kernels, unpack), limits(board)[1]
    if not templates:
        return FastSteps(found.program, found.arena)
    ways_of, limit = {op.name: ways(graph, op, board.cpu, templates) for op in graph.ops}, sram_bytes or 0

    def by_forms(program: Program, arena: Arena) -> FastSteps:
        some = with_forms(program, arena, board.cpu, ways_of, limit, flash_bytes)
        return with_rows(some.program, some.arena, board.cpu, limit, some.forms) if fast else some

    others = within_bytes(graph, limit, accumulator) if limit and fast and pure else []
    return min((by_forms(*one) for one in [(found.program, found.arena), *others]), key=predicted_cycles)
