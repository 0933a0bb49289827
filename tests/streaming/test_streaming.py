"""The law of streaming: every byte of every push is that of the whole window, in NumPy, in the arena and in C."""

from __future__ import annotations

import numpy as np
import pytest
from random_streams import RandomStream

from tinyredux import memory, streaming
from tinyredux.flow import compile
from tinyredux.graph import Graph
from tinyredux.int8 import interpret
from tinyredux.memory import run_schedule
from tinyredux.methods.streaming import Streaming


def rows_of(graph: Graph, pushes: int, frames: int, seed: int) -> np.ndarray:
    height, *rest = graph.input.shape
    return np.random.default_rng(seed).integers(-128, 128, (height + pushes * frames, *rest)).astype(np.int8)


def check(seed: int, pushes: int, compiled: bool) -> streaming.Plan:
    """Pushes random rows through a random network; returns its plan."""
    net = RandomStream(seed)
    graph, frames = net.graph(), net.frames
    plan = streaming.plan(graph, frames)
    pushed, windows = streaming.sliding(plan.graph, rows_of(graph, pushes, frames, seed))
    expected = interpret.run_joined(graph, windows)
    stream = streaming.Stream(plan.graph)
    outputs = [stream.push(frame) for frame in pushed]
    silent = plan.graph.pushes - 1
    assert all(output is None for output in outputs[:silent])
    np.testing.assert_array_equal(np.stack(outputs[silent:]), expected, err_msg=f"seed {seed}")  # type: ignore[arg-type]
    program, arena = memory.place_reference(plan.graph)
    memory.verify(program, arena)
    held = np.full(arena.size_bytes, 0x55, np.int8)
    in_arena = [run_schedule.run(program, arena, frame, held) for frame in pushed][silent:]
    np.testing.assert_array_equal(np.stack(in_arena), expected, err_msg=f"seed {seed}")
    assert plan.state_bytes == sum(plan.graph.tensors[name].size_bytes for name in plan.graph.states)
    assert plan.macs[0] <= plan.macs[1]
    if compiled:
        model = compile(graph, passes=[Streaming(frames)])
        with model.open("host") as target:
            by_c = [target.push(frame, number).output for number, frame in enumerate(pushed)][silent:]
        np.testing.assert_array_equal(np.stack(by_c), expected, err_msg=f"seed {seed}")
    return plan


@pytest.mark.parametrize("seed", range(24))
def test_every_push_has_the_bytes_of_its_window(seed: int) -> None:
    check(seed, 12, compiled=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24, 30))
def test_every_push_of_the_c_has_the_bytes_of_its_window(seed: int) -> None:
    check(seed, 12, compiled=True)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(1000, 1500))
def test_the_law_at_large(seed: int) -> None:
    check(seed, 100, compiled=seed % 5 == 0)
