"""Dead channels: whatever weights are zero, the network without what nobody reads gives the same bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from random_graphs import random_graph

from tinyredux.graph import MULTIPLE, Array, Conv, Dense, Graph, live_channels, verify, without_dead_channels
from tinyredux.int8 import interpret


def with_holes(graph: Graph, seed: int) -> Graph:
    """Zeroes random input channels of convolutions and dense layers."""
    rng, constants = np.random.default_rng(seed), dict(graph.constants)
    for op in graph.ops:
        if isinstance(op, Conv | Dense):
            channels = graph.tensors[op.inputs[0]].shape[2] // getattr(op, "groups", 1)
            weights: Array = constants[op.weights].reshape(-1, channels).copy()
            weights[:, rng.random(channels) < 0.7] = 0
            constants[op.weights] = weights.reshape(constants[op.weights].shape)
    return replace(graph, constants=constants)


def chain(channels: int, zeros: int) -> Graph:
    """Two convolutions with `channels` between them, of which the second reads all but `zeros`."""
    graph = next(graph for graph in map(random_graph, range(500)) if [type(op) for op in graph.ops] == [Conv, Conv])
    first, second = (replace(op, kernel=(1, 1), padding=(0, 0, 0, 0), stride=(1, 1), groups=1) for op in graph.ops)  # type: ignore[call-arg]
    first = replace(first, weight_scale=(0.01,) * channels)
    second = replace(second, weight_scale=(0.01,) * 3)
    height, width, inputs = graph.input.shape
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 100, (3, 1, 1, channels)).astype(np.int8)
    weights[..., :zeros] = 0
    constants = {
        first.weights: rng.integers(-100, 100, (channels, 1, 1, inputs)).astype(np.int8),
        first.bias: np.zeros(channels, np.int32), second.weights: weights, second.bias: np.zeros(3, np.int32),
    }  # fmt: skip
    tensors = dict(graph.tensors)
    for op, count in ((first, channels), (second, 3)):
        tensors[op.output] = replace(tensors[op.output], shape=(height, width, count))
    made = graph.with_ops((first, second), tensors=tensors, constants=constants)
    verify(made)
    return made


def test_every_byte_of_the_output_stays() -> None:
    smaller = 0
    for seed in range(60):
        graph = with_holes(random_graph(seed), seed)
        small = without_dead_channels(graph)
        verify(small)
        images = np.random.default_rng(seed).integers(-128, 128, (2, *graph.input.shape)).astype(np.int8)
        assert np.array_equal(interpret.run(small, images), interpret.run(graph, images)), f"seed {seed}"
        assert all(small.tensors[name].shape[2] <= tensor.shape[2] for name, tensor in graph.tensors.items())
        smaller += small is not graph
    assert smaller > 5


def test_what_is_read_stays() -> None:
    for graph in (chain(16, 0), replace(gone := chain(16, 16), outputs=(gone.ops[0].output, *gone.outputs))):
        assert without_dead_channels(graph) is graph


@pytest.mark.parametrize(("zeros", "left"), [(1, 16), (4, 12), (7, 12), (8, 8), (15, 4), (16, 4)])
def test_what_is_left_is_a_multiple_of_four_with_every_channel_that_is_read(zeros: int, left: int) -> None:
    graph = chain(16, zeros)
    live = live_channels(graph)[graph.ops[0].output]
    assert live.sum() == left and left % MULTIPLE == 0 and live[zeros:].all()
    assert without_dead_channels(graph).constants[graph.ops[0].weights].shape[0] == left  # type: ignore[attr-defined]
