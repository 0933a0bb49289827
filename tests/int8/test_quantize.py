"""Post-training quantisation: close to the float network, with the scales that the kernels need, and clear refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from random_nets import RandomNet, images_for

from tinyredux import graph as ir
from tinyredux.frontends import export
from tinyredux.graph import Add, Concat, Conv, Dense, DepthwiseConv, Graph, Op, Pool, Relu, Shape, Softmax, Tensor, Weighted
from tinyredux.int8 import add_params, interpret, quant_of, quantize, requantization
from tinyredux.int8.factors import SOFTMAX_OUTPUT
from tinyredux.int8.quantization import LEAST_SCALE, quant_from_range
from tinyredux.kernels.asm import requantize


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=shape)


def graph_of(ops: list[Op], shape: Shape, **constants: np.ndarray) -> Graph:
    """Returns a verified float graph from `input` to the last operator's output."""
    tensors = {"input": Tensor("input", shape)}
    graph = Graph("small", tuple(ops), tensors, constants, ("input",), (ops[-1].output,))
    for op in ops:
        tensors[op.output] = Tensor(op.output, ir.output_shape(graph, op))
    ir.verify(graph)
    return graph


def images(graph: Graph, count: int = 6) -> np.ndarray:
    """Returns normal images (N, C, H, W) for a graph."""
    height, width, channels = graph.input.shape
    return normal(count, channels, height, width).astype(np.float32)


def reals(graph: Graph, pictures: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns an int8 graph's output in real units, and its scale."""
    quant = quant_of(graph.output)
    stored = interpret.run(graph, interpret.quantize_input(graph, pictures))
    return (stored.astype(np.float64) - quant.zero_point) * quant.scale[0], quant.scale[0]


def steps_apart(graph: Graph, pictures: np.ndarray) -> np.ndarray:
    """Returns int8 minus float output in units of the output's scale."""
    found, scale = reals(quantize(graph, pictures), pictures)
    return (found - interpret.run(graph, pictures.transpose(0, 2, 3, 1))) / scale


@pytest.mark.parametrize("seed", range(4))
def test_int8_is_close_to_float(seed: int) -> None:
    """Eight bits: the error's root mean square is a few steps of 255, over up to eight layers without training.

    Without filters thirty times as large as their neighbours: those leave the neighbours few of the steps.
    """
    net = RandomNet(200 + seed, outliers=False)
    graph = export(net, name="net")
    apart = steps_apart(graph, images_for(net, 16, seed))
    assert np.sqrt((apart**2).mean()) < 8
    assert abs(apart.mean()) < 4


@pytest.mark.parametrize("seed", range(4))
def test_every_tensor_has_the_scales_that_its_kernels_need(seed: int) -> None:
    net = RandomNet(300 + seed)
    graph = quantize(export(net, name="net"), images_for(net, 4, seed))
    ir.verify(graph)
    for op in graph.ops:
        inputs = [quant_of(graph.tensors[name]) for name in op.inputs]
        output = quant_of(graph.tensors[op.output])
        if isinstance(op, (Concat, Pool, Relu)):
            assert all(quant == output for quant in inputs)
        if isinstance(op, Softmax):
            assert output == SOFTMAX_OUTPUT
        if isinstance(op, Weighted):
            weights, bias = graph.constants[op.weights], graph.constants[op.bias]
            assert weights.dtype == np.int8 and bias.dtype == np.int32 and weights.min() >= -127
            assert len(op.weight_scale) == len(bias) and np.abs(bias.astype(np.int64)).max() <= 1 << 30
            assert all(np.float32(scale) == scale for scale in op.weight_scale)
    for tensor in graph.tensors.values():
        quant = quant_of(tensor)
        assert tensor.dtype == "int8" and -128 <= quant.zero_point <= 127 and np.float32(quant.scale[0]) == quant.scale[0]


def conv_graph(weights: np.ndarray, bias: np.ndarray, activation: str = "none") -> Graph:
    """Returns a pointwise convolution of a 4x4 map."""
    op = Conv("conv1", ("input",), "out", "w", "b", activation)
    return graph_of([op], (4, 4, weights.shape[3]), w=weights, b=bias)


def test_channels_of_zeros() -> None:
    """No weight sets the channel's scale, so the bias does, however coarse the input is. A filter that died in training costs a
    layer nothing: it takes a scale whose factor the fast kernels apply as they do the others'."""
    dead = conv_graph(np.zeros((4, 1, 1, 3)), np.array([0.1, 0.0123, 0.0, -0.2]))
    assert np.abs(steps_apart(dead, 100 * images(dead))).max() <= 0.51
    nothing = conv_graph(np.zeros((4, 1, 1, 3)), np.zeros(4), "relu")
    assert (reals(quantize(nothing, images(nothing)), images(nothing))[0] == 0).all()
    weights = normal(4, 1, 1, 3)
    weights[2] = 0
    graph = quantize(conv_graph(weights, np.zeros(4)), images(nothing))
    assert requantize.applies(requantization(graph, graph.ops[0])) and not graph.constants["w"][2].any()


@pytest.mark.parametrize("size", [1e-3, 1e-9, 1e-20, 1e-38, 1e-42])
def test_tiny_weights_with_a_large_bias(size: float) -> None:
    """The bias does not fit into 32 bits at the weights' scale: the scale gives way."""
    weights = normal(2, 1, 1, 3)
    weights[0] *= size
    graph = conv_graph(weights, np.array([5.0, -1.0]))
    assert np.abs(quantize(graph, images(graph)).constants["b"].astype(np.int64)).max() <= 1 << 30
    assert np.abs(steps_apart(graph, images(graph))).max() < 3


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-35, 1e6])
def test_constant_images(value: float) -> None:
    graph = conv_graph(normal(4, 1, 1, 3), normal(4))
    pictures = np.full((3, 3, 4, 4), value, np.float32)
    assert np.abs(steps_apart(graph, pictures)).max() < 2


def test_depthwise_and_dense_have_a_scale_per_channel() -> None:
    """A channel a thousand times weaker keeps its precision."""
    strength = np.array([1000.0, 1.0, 1e-3])
    ops = [
        DepthwiseConv("d", ("input",), "a", "dw", "db", kernel=(3, 3)),
        Dense("e", ("a",), "out", "ew", "eb"),
    ]
    constants = {"dw": normal(3, 3, 3) * strength, "db": np.zeros(3)}
    constants |= {"ew": normal(3, 12) * strength[:, None], "eb": np.zeros(3)}
    graph = quantize(made := graph_of(ops, (4, 4, 3), **constants), images(made))
    for name, axes in (("dw", (0, 1)), ("ew", 1)):
        assert np.abs(graph.constants[name]).max(axis=axes).tolist() == [127, 127, 127]


def test_relu_that_stands_alone_sets_the_range_of_both_sides() -> None:
    """What a ReLU cuts off needs no codes: both sides share the range behind it."""
    ops = [Conv("c", ("input",), "a", "w", "b"), Relu("r", ("a",), "out", "relu6")]
    made = graph_of(ops, (4, 4, 3), w=20 * normal(4, 1, 1, 3), b=np.zeros(4))
    pictures = images(made)
    graph = quantize(made, pictures)
    assert quant_of(graph.output) == quant_of(graph.tensors["a"])
    assert quant_of(graph.output).scale[0] * 255 == pytest.approx(6.0)
    assert np.abs(steps_apart(made, pictures)).max() < 30  # the weights are 20 times larger than the range


def test_quant_from_range() -> None:
    for low, high in [(-1.0, 1.0), (0.0, 6.0), (-3.0, 0.0), (2.0, 5.0), (-5.0, -2.0), (-1e-3, 1000.0)]:
        quant = quant_from_range(low, high)
        least, most = ((code - quant.zero_point) * quant.scale[0] for code in (-128, 127))
        assert least <= min(low, 0) + quant.scale[0] / 1.9 and most >= max(high, 0) - quant.scale[0] / 1.9
    assert quant_from_range(0.0, 0.0).scale[0] > LEAST_SCALE and quant_from_range(0.0, 1e-40).scale[0] > LEAST_SCALE


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_what_is_refused() -> None:
    """Images of another shape, values that are not finite, a sum beyond the 20 bits that the kernel shifts by, a softmax joined
    with other values; the float graph stays as it was."""
    graph = conv_graph(np.ones((2, 1, 1, 3)), np.zeros(2))
    before = replace(graph, constants={name: value.copy() for name, value in graph.constants.items()})
    int8, pictures = quantize(graph, images(graph)), np.ones((2, 3, 4, 4), np.float32)
    assert graph.tensors == before.tensors and graph.ops == before.ops
    assert all((graph.constants[name] == before.constants[name]).all() for name in before.constants)
    huge = conv_graph(np.full((2, 1, 1, 3), 1e38), np.zeros(2))
    ops = [DepthwiseConv("d", ("input",), "a", "w", "b"), Add("add1", ("input", "a"), "out")]
    cancels = graph_of(ops, (2, 2, 3), w=np.full((1, 1, 3), 1e-7 - 1), b=np.zeros(3))  # x + (1e-7 - 1) x
    joined = graph_of([Softmax("s", ("input",), "a"), Concat("c", ("a", "input"), "out")], (2, 2, 3))
    refused: list[tuple[Callable[[], object], str]] = [
        (
            lambda: add_params(found := quantize(cancels, images(cancels)), found.ops[1]),
            r"add1: adds .* at most 2\^19",
        ),
        (lambda: quantize(joined, images(joined)), "a, a softmax, is joined with tensors that leave its range"),
        (lambda: quantize(huge, 100 * pictures), "tensor out of small holds NaN or infinity"),
        (lambda: quantize(huge, pictures * np.nan), "calibration images for small hold values that are NaN or infinite"),
        (lambda: interpret.quantize_input(graph, pictures), r"tensor input is float32 without quantisation; run quantize first"),
    ]
    shapes = r"calibration images have shape .*, small takes \(N, 3, 4, 4\), N >= 1"
    for shape in [(3, 4, 4), (2, 4, 4, 3), (0, 3, 4, 4), (2, 3, 4, 5)]:
        refused.append((partial(quantize, graph, np.zeros(shape, np.float32)), shapes))
    for wrong in [np.zeros((1, 4, 4, 2), np.int8), np.zeros((1, 4, 4, 3), np.float32), np.zeros((4, 4, 3), np.int8)]:
        refused.append((partial(interpret.run, int8, wrong), r"small takes int8 images \(N, \(4, 4, 3\)\)"))
    for make, words in refused:
        with pytest.raises(ValueError, match=words):
            make()
