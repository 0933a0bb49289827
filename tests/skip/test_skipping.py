"""Skipping: laws of the pass, its statistics against plain sums, and significance that finds what does not matter."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from random_graphs import random_graph
from random_nets import int8_net
from torch.nn import functional

from tinyredux.graph import Conv, Dense, Graph, Pool, Quant, Tensor, Weighted
from tinyredux.int8 import evaluator, interpret
from tinyredux.int8.evaluator import Layer
from tinyredux.skip import Cut, Statistics, saliency
from tinyredux.skip import cuts as skipping

SHARES = (0.0, 0.2, 0.4)


def one_conv(seed: int, channels: int = 6, outputs: int = 5) -> Graph:
    """A 3x3 convolution on 9x9 maps whose inputs are related, so that some can stand in for others."""
    rng = np.random.default_rng(seed)
    tensors = {
        "input": Tensor("input", (9, 9, channels), "int8", Quant((0.05,), -3)),
        "output": Tensor("output", (9, 9, outputs), "int8", Quant((0.4,), 4)),
    }
    constants = {
        "w": rng.integers(-100, 101, (outputs, 3, 3, channels)).astype(np.int8),
        "b": rng.integers(-2000, 2000, outputs).astype(np.int32),
    }
    op = Conv("conv", ("input",), "output", "w", "b", "none", (0.01,) * outputs, (3, 3), (1, 1), (1, 1, 1, 1))
    return Graph("one", (op,), tensors, constants, ("input",), ("output",))


def related_images(graph: Graph, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    height, width, channels = graph.input.shape
    base = rng.normal(0, 25, (count, height, width, max(1, channels // 2)))
    mixed = base @ rng.normal(0, 1, (base.shape[-1], channels)) + rng.normal(0, 4, (count, height, width, channels)) + 10
    return np.clip(np.round(mixed), -128, 127).astype(np.int8)


@cache
def prepared(seed: int = 0) -> tuple[Graph, Statistics, np.ndarray]:
    graph = one_conv(seed)
    images = related_images(graph, 40, seed)
    return graph, saliency.collect(graph, images)["conv"], images


def test_statistics_are_the_plain_means() -> None:
    graph, found, images = prepared()
    op = graph.ops[0]
    assert isinstance(op, Conv)
    rows = interpret.windows(images.astype(np.int64) + 3, op.kernel, op.stride, op.padding, 0).reshape(-1, 54)
    ones = np.append(rows, np.ones((len(rows), 1)), axis=1)
    assert np.array_equal(found.gram, ones.T @ ones / len(rows))
    assert np.allclose(found.absolute, np.abs(rows).mean(axis=0))
    assert found.running.shape == (5, 54) and np.allclose(found.running[:, -1] > 0, True)


@pytest.mark.parametrize("seed", range(3))
def test_importance_is_the_squared_gradient_of_any_network(seed: int) -> None:
    graph, images = int8_net(seed)
    found = saliency.importances(graph, evaluator.quantized(graph, images))
    assert set(found) == {op.name for op in graph.ops if isinstance(op, Weighted)}
    assert all(np.isfinite(values).all() and (values >= 0).all() for values in found.values())


def test_importance_of_a_last_layer_in_closed_form() -> None:
    graph = one_conv(1, 4, 3)
    sizes = {"input": ((3, 3, 4), Quant((0.05,), 0)), "output": ((1, 1, 3), Quant((5.0,), 0))}
    tensors = {name: Tensor(name, shape, "int8", quant) for name, (shape, quant) in sizes.items()}
    graph = replace(graph, tensors=tensors, ops=(replace(graph.ops[0], padding=(0, 0, 0, 0)),))  # type: ignore[call-arg]
    images, layer, factor = related_images(graph, 2000, 1), Layer(graph, graph.ops[0]), 0.05 * 0.01 / 5.0  # type: ignore[arg-type]
    sums = functional.conv2d(torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32)), layer.weights) + layer.bias
    chances = functional.softmax((sums * factor).clamp(-128, 127) * 5.0, 1)
    expected = (chances * (1 - chances)).mean((0, 2, 3)).numpy() * (factor * 5.0) ** 2 / 2  # Fisher of a softmax
    assert np.allclose(saliency.importances(graph, images)["conv"], expected, rtol=0.15)


@pytest.mark.parametrize("unit", skipping.UNITS)
def test_units_divide_the_operands(unit: str) -> None:
    weights = np.zeros((5, 3, 2, 6), np.int8)
    numbers = skipping.unit_numbers(weights, unit)
    sizes = {"pair": 2, "block": 2, "row": 2, "tap": 6, "channels": 12, "line": 12, "input": 6}
    assert numbers.shape == (36,) and set(np.bincount(numbers)) == {sizes[unit]}
    one = np.zeros(weights.size // 5)
    one[7] = 1
    weights[2] = one.reshape(3, 2, 6)
    found = skipping.nonzero_units(weights, unit)
    assert found.sum() == 1 and found[2 // skipping.together(weights, unit), numbers[7]]


@pytest.mark.parametrize("unit", skipping.UNITS)
def test_nothing_left_out_changes_nothing_and_zeros_are_where_the_cut_is(unit: str) -> None:
    graph, found, _ = prepared()
    weights = graph.constants["w"]
    none, some, cut = skipping.cuts_by_expected_loss(weights, found, unit, SHARES)
    mask = skipping.weight_mask(weights, cut).reshape(weights.shape)
    assert (
        abs(cut.share - 0.4) < 0.5 / cut.kept.size + 1e-9
        and not (cut.kept & ~some.kept).any()
        and cut.threshold >= some.threshold
    )
    for repair in skipping.REPAIRS:
        same = skipping.skip(graph, {"conv": none}, {"conv": found}, repair)
        assert all(np.array_equal(same.constants[name], graph.constants[name]) for name in ("w", "b"))
        less = skipping.skip(graph, {"conv": cut}, {"conv": found}, repair).constants["w"]
        assert not less[~mask].any() and not (skipping.nonzero_units(less, unit) & ~cut.kept).any()


def error_left(cut: Cut, repair: str = "fit") -> float:
    """Returns the mean squared error of the outputs that a cut of the small convolution leaves."""
    graph, found, images = prepared()
    changed = skipping.skip(graph, {"conv": cut}, {"conv": found}, repair)
    before, after = (interpret.run(g, images).astype(float) for g in (graph, changed))
    return float(((before - after) ** 2).mean())


def cut_by(how: str, statistics: Statistics, unit: str) -> Cut:
    weights = prepared()[0].constants["w"]
    return skipping.cut_by_score(weights, skipping.SIGNIFICANCES[how](weights, statistics, unit), unit, 0.3)


def test_fitting_beats_the_bias_alone_and_that_beats_nothing() -> None:
    for how in ("magnitude", "share"):
        fit, bias, none = (error_left(cut_by(how, prepared()[1], "pair"), repair) for repair in ("fit", "bias", "none"))
        assert fit < bias < none


def test_expected_loss_beats_the_other_significances_after_the_fit() -> None:
    graph, found, _ = prepared()
    found = replace(found, importance=np.ones_like(found.importance))  # the error is summed over channels alike
    ours = skipping.cuts_by_expected_loss(graph.constants["w"], found, "block", (0.1, 0.2, 0.3))[-1]
    assert all(error_left(ours) < error_left(cut_by(how, found, "block")) for how in skipping.SIGNIFICANCES)


def test_the_significance_of_one_unit_is_the_error_that_the_fit_leaves() -> None:
    graph, found, _ = prepared()
    weights, moments = graph.constants["w"][:1], skipping.damped(found.gram)
    (cut,) = skipping.cuts_by_expected_loss(weights, found, "pair", [1 / 28])
    gone = np.flatnonzero(skipping.unit_numbers(weights, "pair") == np.argmin(cut.kept[0]))
    kept = np.setdiff1d(np.arange(len(moments)), gone)
    change = np.zeros(len(moments))
    change[gone] = -weights[0].ravel()[gone].astype(float)
    change[kept] = -np.linalg.solve(moments[np.ix_(kept, kept)], moments[np.ix_(kept, gone)] @ change[gone])
    assert len(gone) and np.isclose(cut.threshold, change @ moments @ change * found.importance[0])


def test_only_convolutions_with_one_group_are_cut() -> None:
    graphs = ((graph, op) for graph in map(random_graph, range(50)) for op in graph.ops)
    graph, op = next((graph, op) for graph, op in graphs if isinstance(op, Conv) and op.groups > 1)
    assert op.name not in skipping.skippable(graph)
    with pytest.raises(ValueError, match="not a convolution with one group"):
        skipping.skip(graph, {op.name: Cut("pair", np.ones((1, 1), bool), 0.0)}, {})
    with pytest.raises(ValueError, match="expected one of fit, bias, none"):
        skipping.skip(graph, {}, {}, "prayer")


def test_importance_before_a_mean_does_not_depend_on_the_mean_s_scale() -> None:
    """Without rounding a finer scale of what the mean writes changes nothing."""
    rng, found = np.random.default_rng(3), list[np.ndarray]()
    constants = {"w": rng.integers(-99, 99, (4, 1, 1, 3)).astype(np.int8), "b": rng.integers(-99, 99, 4).astype(np.int32)}
    constants |= {"v": rng.integers(-99, 99, (3, 4)).astype(np.int8), "c": np.zeros(3, np.int32)}
    images = rng.integers(-100, 100, (64, 5, 4, 3)).astype(np.int8)
    for mean in (Quant((0.5,), -7), Quant((0.25,), 20)):
        shapes = {"in": ((5, 4, 3), Quant((0.05,), 3)), "mid": ((5, 4, 4), Quant((0.5,), -7)), "mean": ((1, 1, 4), mean)}
        shapes["out"] = ((1, 1, 3), Quant((2.0,), 0))
        tensors = {name: Tensor(name, shape, "int8", quant) for name, (shape, quant) in shapes.items()}
        conv = Conv("conv", ("in",), "mid", "w", "b", "none", (0.02,) * 4)
        dense = Dense("dense", ("mean",), "out", "v", "c", "none", (0.02,) * 3)
        ops = (conv, Pool("pool", ("mid",), "mean", "mean", (5, 4)), dense)
        graph = Graph("mean", ops, tensors, constants, ("in",), ("out",))
        found.append(saliency.importances(graph, images)["conv"])
    assert found[0].max() > 0 and np.allclose(*found, rtol=1e-3)
