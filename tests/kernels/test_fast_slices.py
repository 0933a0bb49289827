"""Row convolutions in partial execution: the same bytes, never more memory than allowed, followed by the plan's checker."""

from __future__ import annotations

import pytest
from generated import assert_c_equals_interpreter
from random_graphs import random_graph

from tinyredux.codegen import emit_steps
from tinyredux.explore.bench import layer_graph, parse_spec
from tinyredux.kernels import with_rows
from tinyredux.memory import Item, Schedule, lower, place, verify
from tinyredux.partial import plan_partial


@pytest.mark.parametrize("seed", range(6))
def test_random_graphs_within_a_limit(seed: int) -> None:
    graph = random_graph(seed)
    plan = plan_partial(graph)
    assert with_rows(plan.program, plan.arena, "cortex-m4").arena.size_bytes == plan.arena.size_bytes
    limit = plan.arena.size_bytes + 4096
    fast = with_rows(plan.program, plan.arena, "cortex-m4", limit)
    assert plan.arena.size_bytes <= fast.arena.size_bytes <= limit
    assert_c_equals_interpreter(graph, emit_steps(fast, "test"))


PARTS = {
    "slices": Item(("layer",), "materialise", width=3),
    "patches": Item(("layer",), "spatial", patch=(5, 8), inner=(Item(("layer",)),)),
    "whole": Item(("layer",)),
}


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7"])
def test_a_convolution_in_parts(kind: str, core: str) -> None:
    """Slices of channels, patches of rows and columns with padding on some sides: each part is a row convolution."""
    graph = layer_graph(parse_spec("conv5x3:6-8@13x15"))
    program = lower(graph, Schedule((PARTS[kind],)))
    arena = place(program)
    fast = with_rows(program, arena, core, arena.size_bytes + 8192)
    runs = [step for step in fast.program.steps() if step.kind == "run"]
    assert runs and all(step in fast.convs for step in runs)
    assert verify(fast.program, fast.arena)["bytes"] <= fast.arena.size_bytes
    assert_c_equals_interpreter(graph, emit_steps(fast, "test"))
