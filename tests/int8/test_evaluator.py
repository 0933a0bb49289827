"""The fast evaluator writes the interpreter's bytes, whatever the network."""

from __future__ import annotations

import io
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_graphs import random_graph
from random_nets import int8_net, int8_sequence
from strategies import random_layers
from torch import nn

from tinyredux import datasets
from tinyredux.graph import Graph
from tinyredux.int8 import evaluator, interpret
from tinyredux.memory import run_schedule
from tinyredux.partial import plan_partial


def images_of(graph: Graph, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-128, 128, (count, *graph.input.shape)).astype(np.int8)


def test_random_graphs() -> None:
    """And layers of every window and quantisation, over batches of equal images and unlike ones; TREC goes to the interpreter."""
    for seed in range(60):
        graph = random_graph(seed)
        images = images_of(graph, 5, seed)
        assert np.array_equal(evaluator.Evaluator(graph).run(images), interpret.run_joined(graph, images)), f"seed {seed}"
    for seed, layer in enumerate(layer for kind in ("conv", "square", "trec") for layer in random_layers(kind, 40, seed=7)):
        other = images_of(layer.graph, 3, seed)
        batch = np.concatenate([layer.inputs[0][None], other, other[:1] // 2, np.full_like(other[:1], -128)])
        np.testing.assert_array_equal(evaluator.Evaluator(layer.graph).run(batch), interpret.run(layer.graph, batch))


def test_sums_too_large_for_float32_are_taken_in_float64() -> None:
    graph = random_graph(3, kinds=("conv",))
    op = next(op for op in graph.ops if hasattr(op, "weights"))
    large = np.full((1, 64, 64, 8), 127, np.int8)  # 64 * 64 * 8 * 127 * 255 is above 2^24
    layer = evaluator.Layer(
        replace(graph, constants=graph.constants | {op.weights: large, op.bias: np.zeros(1, np.int32)}),
        replace(op, weight_scale=(0.01,)),
    )
    assert str(layer.kind) == "torch.float64"


def test_a_float_graph_is_refused() -> None:
    graph = random_graph(0)
    floats = replace(graph, tensors={name: replace(tensor, quant=None) for name, tensor in graph.tensors.items()})
    with pytest.raises(ValueError, match=r"run quantize first"):
        evaluator.Evaluator(floats)


def test_counts_as_the_interpreter_does_with_progress_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, images = int8_net(0)
    outputs = interpret.run(graph, evaluator.quantized(graph, images)).reshape(len(images), -1).argmax(axis=1)
    labels = np.where(np.arange(len(images)) % 3 == 0, outputs, 0)
    shown = []
    for terminal in (False, True):
        written = io.StringIO()
        written.isatty = lambda answer=terminal: answer
        monkeypatch.setattr(sys, "stderr", written)
        assert evaluator.correct(graph, datasets.Split(images, labels)) == np.count_nonzero(outputs == labels)
        shown.append(written.getvalue())
    assert shown[0] == "" and "int8" in shown[1] and "\n" not in shown[1]


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(4, 32, 1), nn.ReLU(), nn.Conv2d(32, 4, 3, padding=1), nn.MaxPool2d(2)),
        (nn.Conv2d(4, 32, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 10)),
    ],
)
def test_sums_of_16_bits_as_in_the_plan(layers: tuple[nn.Module, ...]) -> None:
    """A plan with int16 sums, run byte by byte, and the same slices in batches give the same outputs; not those of int32."""
    tool = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "int16_sums.py"))
    torch.manual_seed(0)
    graph = int8_sequence((4, 8, 8), *layers)
    plan, few = plan_partial(graph, "int16"), images_of(graph, 20, 0)
    slices = tool["int16_slices"](graph)
    found = tool["run_sliced"](graph, slices, few)
    assert slices and np.array_equal(found, np.stack([run_schedule.run(plan.program, plan.arena, image) for image in few]))
    assert not np.array_equal(found, evaluator.Evaluator(graph).run(few))
