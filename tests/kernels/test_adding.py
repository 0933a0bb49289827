"""Slices of input channels whose products are added to int32 sums: as C and as machine code of each core, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compiled import NEEDS_COMPILER
from generated import CPU_MODELS, assert_c_equals_interpreter, on_core
from random_nets import int8_sequence
from torch import nn

from tinyredux import memory
from tinyredux.boards import find_board
from tinyredux.codegen import Kernels, emit_steps, step_ways
from tinyredux.graph import Graph
from tinyredux.int8 import interpret
from tinyredux.kernels import FastSteps, with_forms
from tinyredux.memory import Item, Schedule

BOARD = {"cortex-m4": "nucleo_l4r5zi", "cortex-m7": "nucleo_f746zg", "cortex-m33": "nucleo_u575zi_q"}


def in_slices(seed: int, core: str) -> tuple[Graph, FastSteps]:
    """Returns two drawn convolutions, the second fed slice by slice of the first one's output, and its program with forms."""
    rng, _ = np.random.default_rng(seed), torch.manual_seed(seed)
    (height, width), kernel = rng.integers(3, 9, 2), int(rng.choice([1, 1, 2, 3]))
    middle, out = int(rng.integers(4, 24)), int(rng.integers(4, 20))
    stride, padding = int(rng.choice([1, 1, 2])), int(rng.integers(0, 2))
    convs = nn.Conv2d(5, middle, 1), nn.Conv2d(middle, out, kernel, stride, padding)
    graph = int8_sequence((5, int(height), int(width)), convs[0], nn.ReLU(), convs[1], nn.ReLU())
    item = Item(tuple(op.name for op in graph.ops), "accumulate", int(rng.integers(1, middle + 1)))
    program = memory.lower(graph, Schedule((item,)))
    ways = step_ways(graph, find_board(BOARD[core]), Kernels("fast"))
    return graph, with_forms(program, memory.place(program), ways, 1 << 20)


def adding(steps: FastSteps) -> int:
    """Returns how many steps add by a form; the plan is safe."""
    memory.verify(steps.program, steps.arena)
    return sum(step.kind == "add_up" for step in steps.forms)


def test_sums_of_slices_in_c() -> None:
    found = 0
    for seed in (0, 1, 2):
        graph, steps = in_slices(seed, "cortex-m4")
        found += adding(steps)
        assert_c_equals_interpreter(graph, emit_steps(steps, "test"))
    assert found > 5


@pytest.mark.slow
@NEEDS_COMPILER
@pytest.mark.parametrize("core", CPU_MODELS)
def test_sums_of_slices_as_machine_code(core: str) -> None:
    found, seeds = 0, range(20, 32)
    for seed in seeds:
        graph, steps = in_slices(seed, core)
        images = np.random.default_rng(seed).choice([-128, -3, 90, 127], (3, *graph.input.shape)).astype(np.int8)
        expected = interpret.run_joined(graph, images)
        np.testing.assert_array_equal(on_core(emit_steps(steps, "test"), images, expected.shape[1:], core), expected)
        found += adding(steps)
    assert found > 30
