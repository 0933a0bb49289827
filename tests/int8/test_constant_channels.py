"""Channels that hold one value: every byte of every tensor stays, dead filters with huge biases become small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from random_graphs import random_graph

from tinyredux.graph import ROUNDINGS, Conv, Dense, DepthwiseConv, Graph, Pool, Quant, Tensor, Weighted, without_dead_channels
from tinyredux.int8 import fold_constant_channels, interpret
from tinyredux.kernels import choose

HUGE = (1 << 30, -(1 << 30), (1 << 30) + 128, -(1 << 31), (1 << 31) - 1, 1 << 29, 0, -5)


def with_dead_filters(graph: Graph, rng: np.random.Generator) -> Graph:
    """Returns a graph of which some filters have zero weights, and some huge biases."""
    constants = dict(graph.constants)
    for op in graph.ops:
        if isinstance(op, Weighted):
            weights, bias = constants[op.weights].copy(), constants[op.bias].copy()
            rows = weights.reshape(-1, len(bias)).T if isinstance(op, DepthwiseConv) else weights.reshape(len(bias), -1)
            rows[rng.random(len(bias)) < 0.5] = 0
            far = rng.random(len(bias)) < 0.4
            bias[far] = rng.choice(np.array(HUGE), int(far.sum()))
            constants |= {op.weights: weights, op.bias: bias}
    return replace(graph, constants=constants)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("seed", range(25))
def test_every_byte_of_every_tensor_stays(seed: int, rounding: str) -> None:
    rng = np.random.default_rng(seed)
    kinds = ("conv", "pointwise", "depthwise", "grouped", "pool", "relu", "lookup", "add", "concat")
    graph = replace(with_dead_filters(random_graph(seed, kinds=kinds), rng), rounding=rounding)
    images = rng.integers(-128, 128, (12, *graph.input.shape)).astype(np.int8)
    images[:2] = np.array([-128, 127], np.int8)[:, None, None, None]
    folded = fold_constant_channels(graph)
    expected, found = interpret.run_all(graph, images), interpret.run_all(folded, images)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    live = interpret.run_all(without_dead_channels(folded), images)
    for output in graph.outputs:
        np.testing.assert_array_equal(live[output], expected[output])


def dense(weights: list[int], bias: int, factor: float, rounding: str, zero_points: tuple[int, int] = (-128, 0)) -> Graph:
    tensors = {
        "in": Tensor("in", (1, 1, len(weights)), "int8", Quant((0.5,), zero_points[0])),
        "out": Tensor("out", (1, 1, 1), "int8", Quant((0.25,), zero_points[1])),
    }
    op = Dense("dense", ("in",), "out", "w", "b", "none", (factor / 2,))
    constants = {"w": np.array([weights], np.int8), "b": np.array([bias], np.int32)}
    return Graph("dense", (op,), tensors, constants, ("in",), ("out",), rounding=rounding)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_exactly_the_channels_whose_every_sum_gives_one_value(rounding: str) -> None:
    """One weight: all 256 inputs are all sums that there are."""
    images, rng, fixed = np.arange(-128, 128).astype(np.int8).reshape(256, 1, 1, 1), np.random.default_rng(0), 0
    for _ in range(300):
        factor = float(2.0 ** rng.uniform(-20, 0))
        bias = int(np.clip(rng.normal(0, 300) / factor, -(2**31), 2**31 - 1))
        graph = dense(
            [int(rng.integers(-127, 128))], bias, factor, rounding, (int(rng.integers(-128, 128)), int(rng.integers(-128, 128)))
        )
        folded, expected = fold_constant_channels(graph), interpret.run(graph, images)
        np.testing.assert_array_equal(interpret.run(folded, images), expected)
        constant = len(np.unique(expected)) == 1
        fixed += constant
        assert constant == (not folded.constants["w"].any()) or not graph.constants["w"].any()
    assert 50 < fixed < 250


def test_sums_that_wrap_are_left_alone() -> None:
    graph = dense([127, 127], 2**31 - 1, 2.0**-20, "double")
    assert np.array_equal(fold_constant_channels(graph).constants["w"], graph.constants["w"])
    assert fold_constant_channels(graph).constants["b"] == 2**31 - 1


def test_a_constant_beside_padding_counts_as_such() -> None:
    """Around a map lie zeros: a constant that is none differs from them at the border, one that is zero does not."""
    quant = Quant((0.5,), -3)
    tensors = {name: Tensor(name, (5, 5, 2), "int8", quant) for name in ("in", "mid", "out")}
    first = Conv("first", ("in",), "mid", "w1", "b1", "none", (1 / 16, 1 / 16))
    second = Conv("second", ("mid",), "out", "w2", "b2", "none", (1 / 16, 1 / 16), (3, 3), (1, 1), (1, 1, 1, 1))
    rng = np.random.default_rng(1)
    weights = {"w1": rng.integers(-9, 9, (2, 1, 1, 2)).astype(np.int8), "w2": rng.integers(-9, 9, (2, 3, 3, 2)).astype(np.int8)}
    weights["w1"][1] = 0
    for bias, folds in ((0, True), (2_000_000_000, False)):
        constants = {**weights, "b1": np.array([7, bias], np.int32), "b2": np.zeros(2, np.int32)}
        graph = Graph("two", (first, second), tensors, constants, ("in",), ("out",))
        folded = fold_constant_channels(graph)
        assert (not folded.constants["w2"][..., 1].any()) == folds
        images = rng.integers(-128, 128, (4, 5, 5, 2)).astype(np.int8)
        np.testing.assert_array_equal(interpret.run(folded, images), interpret.run(graph, images))
        assert abs(folded.constants["b1"][1]) <= 256 * 255


def test_generated_kernels_take_what_was_too_large() -> None:
    """A filter that died with a bias of 2^30, as two files of MLPerf Tiny have them, sends no layer to the reference kernel."""
    quant, rng = Quant((0.5,), -128), np.random.default_rng(2)
    tensors = {"in": Tensor("in", (8, 8, 8), "int8", quant), "mid": Tensor("mid", (8, 8, 8), "int8", quant)}
    tensors["out"] = Tensor("out", (1, 1, 8), "int8", quant)
    conv = Conv("conv", ("in",), "mid", "w", "b", "relu", (1e-3,) * 7 + (1e-8,), (3, 3), (1, 1), (1, 1, 1, 1))
    weights, bias = rng.integers(-127, 128, (8, 3, 3, 8)).astype(np.int8), rng.integers(-99, 99, 8).astype(np.int32)
    weights[7], bias[7] = 0, -(1 << 30)
    ops = (conv, Pool("pool", ("mid",), "out", "average", (8, 8)))
    graph = Graph("one", ops, tensors, {"w": weights, "b": bias}, ("in",), ("out",))
    assert "conv" not in choose(graph, "cortex-m4").form_of_operator
    assert "conv" in choose(fold_constant_channels(graph), "cortex-m4").form_of_operator
