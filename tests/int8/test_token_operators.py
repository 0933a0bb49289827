"""Layer normalisation and attention in integers, beside exact arithmetic and beside float."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from random_tokens import random_block
from strategies import Layer, random_layers

from tinyredux import fixedpoint
from tinyredux.graph import AddConstant, Attention, Graph, LayerNorm, MatMul, Op, Quant, Tensor
from tinyredux.int8 import interpret, quant_of
from tinyredux.int8.quantization import quant_from_range


def real(graph: Graph, name: str, stored: np.ndarray) -> np.ndarray:
    quant = quant_of(graph.tensors[name])
    return (stored.astype(np.float64) - quant.zero_point) * quant.scale[0]


def errors(layer: Layer) -> np.ndarray:
    """Returns how far each stored output is from what float makes of the stored inputs, in steps of the output."""
    graph, op = layer.graph, layer.op
    inputs = [real(graph, name, values)[None] for name, values in zip(op.inputs, layer.inputs, strict=True)]
    floats = replace(graph, tensors={name: replace(tensor, dtype="float32") for name, tensor in graph.tensors.items()})
    if isinstance(op, AddConstant) and op.values_quant:
        stored = graph.constants[op.values].astype(np.float64) - op.values_quant.zero_point
        floats = replace(floats, constants={op.values: stored * op.values_quant.scale[0]})
    if isinstance(op, Attention) and op.bias:
        step = op.bias_step * op.scale * math.prod(quant_of(graph.tensors[name]).scale[0] for name in op.inputs[:2])
        stored = graph.constants[op.bias].astype(np.float64)
        floats = replace(floats, constants={op.bias: np.where(stored == -128, -np.inf, stored * step)})
    out = quant_of(graph.tensors[op.output])
    exact = np.clip(interpret.run_op(floats, op, inputs)[0] / out.scale[0] + out.zero_point, -128, 127)
    return np.asarray(exact - layer.expected())


def steps_off(layer: Layer) -> float:
    """Returns the largest error of an operator."""
    return float(np.abs(errors(layer)).max())


def layer_of(op: Op, shapes: list[tuple[int, int, int]], scale: float, out: Quant, seed: int) -> Layer:
    rng, names = np.random.default_rng(seed), op.inputs
    tensors = {name: Tensor(name, shape, "int8", Quant((scale,), -7)) for name, shape in zip(names, shapes, strict=True)}
    graph = Graph("layer", (op,), tensors | {"out": Tensor("out", shapes[0], "int8", out)}, {}, names, ("out",))
    return Layer(graph, tuple(np.clip(rng.normal(0, 45, shape), -128, 127).round().astype(np.int8) for shape in shapes))


@pytest.mark.parametrize("first", [1, 1 << 31, (1 << 62) - 1000])
def test_the_root_is_exact(first: int) -> None:
    values = np.unique(np.concatenate([first + np.arange(1000), np.random.default_rng(0).integers(1, 1 << 62, 1000)]))
    root, up = fixedpoint.root_up(values)
    assert root.min() >= 1 << 30 and root.max() < 1 << 31
    assert root.tolist() == [math.isqrt(int(value) << 2 * int(by)) for value, by in zip(values, up, strict=True)]


@pytest.mark.parametrize("channels", [1, 2, 3, 17, 64, 192, 1000])
def test_a_norm_is_within_a_step_of_float(channels: int) -> None:
    """Half a step, and what the root and the factor, of 31 bits each, and the first of the output's two roundings add."""
    for seed, (scale, most) in enumerate([(0.05, 4.0), (1.0, 8.0), (0.001, 3.0)]):
        layer = layer_of(LayerNorm("op", ("in",), "out"), [(3, 5, channels)], scale, quant_from_range(-most, most), seed)
        assert steps_off(layer) <= 0.6


def test_a_norm_of_equal_values_is_zero() -> None:
    layer = layer_of(LayerNorm("op", ("in",), "out", 0.0), [(1, 2, 9)], 0.1, Quant((0.01,), 5), 0)
    flat = Layer(layer.graph, (np.full((1, 2, 9), 77, np.int8),))
    assert (flat.expected() == 5).all()


@pytest.mark.parametrize(("tokens", "heads", "depth"), [(1, 1, 3), (2, 8, 1), (64, 4, 16), (197, 3, 64), (2048, 1, 2)])
def test_attention_is_within_a_step_of_float(tokens: int, heads: int, depth: int) -> None:
    """Weights of 13 bits: an error of at most half a step of 2^-12 for each, of which each value takes its share."""
    shape = (1, tokens, heads * depth)
    for seed, scale in enumerate((0.0, 0.05, 0.5, 5.0)):
        op = Attention("op", ("q", "k", "v"), "out", heads, scale)
        layer = layer_of(op, [shape] * 3, 0.03, quant_from_range(-3.0, 3.0), seed)
        assert steps_off(layer) <= 0.8


def test_an_added_constant_is_within_a_step_of_float() -> None:
    assert max(map(steps_off, random_layers("add_constant", 50, seed=4))) <= 1.01


def test_each_operator_of_random_blocks_is_close_to_float(capsys: pytest.CaptureFixture[str]) -> None:
    """Signal to noise of each operator of blocks for its own stored inputs: what int8 costs it. A step is at most a tenth of
    the root of the mean square of what is written, which has 20 + 10 log10(12), 31 dB, where nothing but it is rounded."""
    signal, noise = dict[str, float](), dict[str, float]()
    for seed in range(30):
        graph = random_block(seed, most_tokens=30)
        image = np.random.default_rng(seed).integers(-128, 128, (1, *graph.input.shape)).astype(np.int8)
        values = interpret.run_all(graph, image)
        for op in (op for op in graph.ops if isinstance(op, LayerNorm | Attention | AddConstant | MatMul)):
            single = graph.with_ops([op], inputs=op.inputs, outputs=(op.output,))
            layer, kind = Layer(single, tuple(values[name][0] for name in op.inputs)), type(op).__name__
            assert steps_off(layer) <= 1.01
            written = layer.expected().astype(np.float64) - quant_of(single.output).zero_point
            signal[kind] = signal.get(kind, 0.0) + float((written**2).sum())
            noise[kind] = noise.get(kind, 0.0) + float((errors(layer) ** 2).sum())
    found = {kind: round(10 * math.log10(signal[kind] / noise[kind]), 1) for kind in signal}
    with capsys.disabled():
        print(f"\nsignal to noise of operators of tokens, dB: {found}")
    assert len(found) == 4 and min(found.values()) > 31
