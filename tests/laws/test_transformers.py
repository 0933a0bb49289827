"""Transformer blocks: interpreter, C twin and machine code write the same bytes, layer by layer and in parts."""

from __future__ import annotations

import numpy as np
import pytest
from network_sweep import sweep_graph
from random_tokens import random_block

from tinyredux import memory
from tinyredux.graph import Attention
from tinyredux.int8 import interpret
from tinyredux.int8.evaluator import Evaluator
from tinyredux.memory import run_schedule
from tinyredux.partial import plan_partial


@pytest.mark.parametrize("seeds", [range(12), pytest.param(range(12, 400), marks=pytest.mark.sweep)], ids=["few", "many"])
def test_plans_of_random_blocks_keep_every_bit(seeds: range) -> None:
    """In parts, and by the evaluator; no plan takes more than layer by layer."""
    for seed in seeds:
        graph = random_block(seed, most_tokens=30)
        images = np.random.default_rng(seed).integers(-128, 128, (2, *graph.input.shape)).astype(np.int8)
        plan, expected = plan_partial(graph), interpret.run_joined(graph, images)
        assert memory.verify(plan.program, plan.arena)["bytes"] <= plan.peak_bytes <= plan.peaks["layerwise"]
        np.testing.assert_array_equal(run_schedule.run(plan.program, plan.arena, images[0]), expected[0])
        np.testing.assert_array_equal(Evaluator(graph).run(images), expected)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(4, 200))])
def test_random_blocks_in_c(seed: int) -> None:
    """On this computer and on a core, by fast and reference kernels, in parts, and rounded once."""
    right, wrong = sweep_graph(seed, random_block)
    assert not wrong and right >= 2


def test_blocks_are_of_all_sizes() -> None:
    """What the law promises to draw: one head and eight, one token and 197, odd widths and even."""
    drawn = [op for seed in range(100) for op in random_block(seed).ops if isinstance(op, Attention)]
    sizes = {graph.input.shape[0] * graph.input.shape[1] for graph in map(random_block, range(100))}
    widths = {graph.input.shape[2] % 2 for graph in map(random_block, range(100))}
    assert {op.heads for op in drawn} == set(range(1, 9)) and {1, 197} <= sizes and widths == {0, 1}
