"""Dead channels: whatever weights are zero, the network without what nobody reads gives the same bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from random_graphs import random_graph
from random_nets import int8_sequence
from torch import nn

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
    torch.manual_seed(0)
    second = nn.Conv2d(channels, 3, 1)
    second.weight.data = second.weight.data.abs() + 0.1
    second.weight.data[:, :zeros] = 0
    return int8_sequence((4, 5, 6), nn.Conv2d(4, channels, 1), second)


def test_every_byte_of_the_output_stays() -> None:
    smaller = 0
    for seed in range(150):
        graph = with_holes(random_graph(seed), seed)
        small = without_dead_channels(graph)
        verify(small)
        images = np.random.default_rng(seed).integers(-128, 128, (2, *graph.input.shape)).astype(np.int8)
        assert np.array_equal(interpret.run_joined(small, images), interpret.run_joined(graph, images)), f"seed {seed}"
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
