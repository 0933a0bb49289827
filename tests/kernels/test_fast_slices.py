"""A row convolution in parts: the same bytes, followed by the plan's checker. Of random graphs: tests/methods."""

from __future__ import annotations

import pytest
from generated import assert_c_equals_interpreter

from tinyredux.codegen import emit_steps
from tinyredux.explore.bench import layer_graph, parse_spec
from tinyredux.kernels import with_rows
from tinyredux.memory import Item, Schedule, lower, place, verify

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
