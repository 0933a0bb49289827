"""Row convolutions in partial execution: the same bytes, never more memory than allowed, followed by the plan's checker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_graphs import random_graph

from tinyredux.codegen import emit_steps
from tinyredux.device import build_host
from tinyredux.device.host import HostTarget
from tinyredux.explore.bench import layer_graph, parse_spec
from tinyredux.graph import Graph
from tinyredux.int8 import interpret
from tinyredux.kernels import FastSteps, with_rows
from tinyredux.memory import Item, Schedule, lower, place, verify
from tinyredux.partial import plan_partial


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all builds go, so that the kernels are compiled once."""
    return tmp_path_factory.mktemp("build")


def check(graph: Graph, fast: FastSteps, folder: Path) -> None:
    """Fails unless the generated C writes the interpreter's bytes."""
    artifact = emit_steps(fast, "test")
    target = HostTarget(build_host(artifact.write(folder / artifact.model_hash), folder), graph.input.shape, graph.output.shape)
    for seed in range(3):
        image = np.random.default_rng(seed).integers(-128, 128, graph.input.shape).astype(np.int8)
        np.testing.assert_array_equal(target.run(image), interpret.run(graph, image[None])[0])


@pytest.mark.parametrize("seed", range(6))
def test_random_graphs_within_a_limit(seed: int, folder: Path) -> None:
    graph = random_graph(seed)
    plan = plan_partial(graph)
    assert with_rows(plan.program, plan.arena, "cortex-m4").arena.size_bytes == plan.arena.size_bytes
    limit = plan.arena.size_bytes + 4096
    fast = with_rows(plan.program, plan.arena, "cortex-m4", limit)
    assert plan.arena.size_bytes <= fast.arena.size_bytes <= limit
    check(graph, fast, folder)


PARTS = {
    "slices": Item(("layer",), "materialise", width=3),
    "patches": Item(("layer",), "spatial", patch=(5, 8), inner=(Item(("layer",)),)),
    "whole": Item(("layer",)),
}


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7"])
def test_a_convolution_in_parts(kind: str, core: str, folder: Path) -> None:
    """Slices of channels, patches of rows and columns with padding on some sides: each part is a row convolution."""
    graph = layer_graph(parse_spec("conv5x3:6-8@13x15"))
    program = lower(graph, Schedule((PARTS[kind],)))
    arena = place(program)
    fast = with_rows(program, arena, core, arena.size_bytes + 8192)
    runs = [step for step in fast.program.steps() if step.kind == "run"]
    assert runs and all(step in fast.convs for step in runs)
    assert verify(fast.program, fast.arena)["bytes"] <= fast.arena.size_bytes
    check(graph, fast, folder)
