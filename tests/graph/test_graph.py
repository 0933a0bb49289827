"""Shape rules and what `verify` refuses: each error names the operator and the tensors that disagree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tinyredux import graph as ir
from tinyredux.graph import (
    Add,
    Array,
    Bilinear,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Graph,
    Lookup,
    Mul,
    Op,
    Pool,
    Rearrange,
    Relu,
    Shape,
    Softmax,
    Tensor,
)
from tinyredux.graph.shapes import window_outputs


def one_op(op: Op, shapes: list[Shape], out: Shape | None = None, **constants: Array) -> Graph:
    """Returns a graph of one operator on inputs in0, in1, ..., its output shape by the rule unless given."""
    tensors = {f"in{i}": Tensor(f"in{i}", shape) for i, shape in enumerate(shapes)}
    graph = Graph("test", (op,), tensors, constants, tuple(tensors), ("out",))
    return replace(graph, tensors={**tensors, "out": Tensor("out", out or ir.output_shape(graph, op))})


def conv(**fields: object) -> Conv:
    """Returns a 3x3 convolution from in0 to out."""
    return replace(Conv("conv1", ("in0",), "out", "w", "b", kernel=(3, 3)), **fields)  # type: ignore[arg-type]


ONE, TWO = ("in0",), ("in0", "in1")
WEIGHTS = {"w": np.zeros((8, 3, 3, 4)), "b": np.zeros(8)}
SHAPES = {
    "conv": (conv(), [(10, 9, 4)], (8, 7, 8), WEIGHTS),
    "conv strided and padded on one side": (conv(stride=(2, 3), padding=(0, 1, 2, 0)), [(10, 9, 4)], (5, 3, 8), WEIGHTS),
    "conv in groups": (conv(groups=2), [(5, 5, 8)], (3, 3, 8), WEIGHTS),
    "stride larger than kernel": (conv(stride=(5, 5)), [(9, 9, 4)], (2, 2, 8), WEIGHTS),
    "depthwise": (
        DepthwiseConv("d", ONE, "out", "w", "b", kernel=(3, 1), multiplier=2), [(7, 7, 3)], (5, 7, 6),
        {"w": np.zeros((3, 1, 6)), "b": np.zeros(6)},
    ),
    "dense flattens": (Dense("d", ONE, "out", "w", "b"), [(2, 3, 4)], (1, 1, 5), {"w": np.zeros((5, 24)), "b": np.zeros(5)}),
    "pool": (Pool("p", ONE, "out", "max", (2, 2), (2, 2)), [(7, 6, 5)], (3, 3, 5), {}),
    "pool whose last window is padded": (Pool("p", ONE, "out", "max", (3, 3), (2, 2), (0, 1, 0, 1)), [(8, 8, 5)], (4, 4, 5), {}),
    "add": (Add("a", TWO, "out"), [(2, 3, 4), (2, 3, 4)], (2, 3, 4), {}),
    "concat": (Concat("c", TWO, "out"), [(2, 3, 4), (2, 3, 5)], (2, 3, 9), {}),
    "relu": (Relu("r", ONE, "out"), [(2, 3, 4)], (2, 3, 4), {}),
    "upsampled": (Rearrange("u", ONE, "out", (4, 6), 4, repeat=(2, 2)), [(2, 3, 4)], (4, 6, 4), {}),
    "pixel shuffle": (Rearrange("p", ONE, "out", (4, 6), 1, repeat=(2, 2), blocks=True), [(2, 3, 4)], (4, 6, 1), {}),
    "resized": (Bilinear("b", ONE, "out", (5, 2), (2, 3), (0.4, 1.5)), [(2, 3, 4)], (5, 2, 4), {}),
    "mul": (Mul("m", TWO, "out"), [(2, 3, 4), (2, 3, 4)], (2, 3, 4), {}),
    "mul by channels": (Mul("m", TWO, "out"), [(2, 3, 4), (1, 1, 4)], (2, 3, 4), {}),
    "mul by places": (Mul("m", TWO, "out"), [(2, 3, 4), (2, 3, 1)], (2, 3, 4), {}),
    "lookup": (Lookup("l", ONE, "out", "elu", (1.0, 1.0, 1.0)), [(2, 3, 4)], (2, 3, 4), {}),
    "softmax": (Softmax("s", ONE, "out"), [(1, 1, 10)], (1, 1, 10), {}),
}  # fmt: skip


@pytest.mark.parametrize("case", SHAPES)
def test_output_shape(case: str) -> None:
    op, shapes, expected, constants = SHAPES[case]
    graph = one_op(op, shapes, **constants)
    assert graph.output.shape == expected
    ir.verify(graph)


@given(st.integers(1, 20), st.integers(1, 7), st.integers(1, 5), st.integers(0, 3))
def test_window_outputs_is_torchs_rule(size: int, kernel: int, stride: int, padding: int) -> None:
    if size + 2 * padding < kernel:
        return
    row = torch.zeros(1, 1, 1, size)
    expected = functional.conv2d(row, torch.zeros(1, 1, 1, kernel), stride=(1, stride), padding=(0, padding)).shape[3]
    assert window_outputs(size, kernel, stride, padding, padding) == expected


BAD: list[tuple[Op, list[Shape], dict[str, Array], str]] = [
    (conv(), [(2, 9, 4)], WEIGHTS, "conv1: a 3x3 window does not fit into 2x9"),
    (conv(), [(9, 9, 3)], WEIGHTS, r"conv1: weights have shape \(8, 3, 3, 4\), expected"),
    (conv(groups=3), [(9, 9, 12)], WEIGHTS, "12 input and 8 output channels do not divide into 3"),
    (Dense("d", ONE, "out", "w", "b"), [(2, 2, 2)], {"w": np.zeros((5, 9)), "b": np.zeros(5)}, "expect 9 inputs, in0 has 8"),
    (Add("a", TWO, "out"), [(2, 2, 2), (1, 1, 2)], {}, "no broadcasting"),
    (Rearrange("r", ONE, "out", (2, 2), 2, start=(1, 0)), [(2, 2, 2)], {}, r"r: \(2, 2\) places .* lie outside \(2, 2, 2\)"),
    (Mul("m", TWO, "out"), [(2, 2, 2), (2, 1, 2)], {}, r"the second must be \(2, 2, 2\), \(1, 1, 2\), a value a channel, or"),
    (Concat("c", TWO, "out"), [(2, 2, 2), (1, 2, 2)], {}, "only channels may differ"),
    (Lookup("l", ONE, "out", "cosine"), [(2, 2, 2)], {}, "l: function 'cosine', expected one of identity, clamp"),
    (Lookup("l", ONE, "out", "clamp", (0.0,)), [(2, 2, 2)], {}, r"expected 2 numbers \('low', 'high'\)"),
    (conv(), [(9, 9, 4)], WEIGHTS | {"b": np.zeros(7)}, r"bias has shape \(7,\), expected \(8,\)"),
    (conv(), [(9, 9, 4)], WEIGHTS | {"w": np.full((8, 3, 3, 4), np.nan)}, "conv1: w holds 288 of 288 values that are NaN"),
    (conv(), [(9, 9, 4)], WEIGHTS | {"b": np.full(8, np.inf)}, "conv1: b holds 8 of 8 values"),
]  # fmt: skip
RELU, LAYER = one_op(Relu("r", ONE, "out"), [(2, 2, 2)]), one_op(conv(), [(9, 9, 4)], **WEIGHTS)
WRONG = {
    "conv1: constant w is missing": replace(LAYER, constants={"b": WEIGHTS["b"]}),
    "conv1: tensor out is missing": replace(LAYER, tensors={"in0": LAYER.tensors["in0"]}),
    "r: reads late before any operator writes it": RELU.with_ops([Relu("r", ("late",), "out")]),
    "again: writes out a second time": RELU.with_ops([*RELU.ops, Relu("again", ONE, "out")]),
    "r: writes in0 a second time": RELU.with_ops([Relu("r", ONE, "in0")]),
    "output none is never written": replace(RELU, outputs=("none",)),
    r"has shape \(3, 2, 2\), expected": replace(RELU, tensors=RELU.tensors | {"out": Tensor("out", (3, 2, 2))}),
    "expected three positive sizes": replace(RELU, tensors=RELU.tensors | {"in0": Tensor("in0", (0, 2, 2))}),
    "tensor in0": replace(RELU, tensors=RELU.tensors | {"in0": Tensor("other", (2, 2, 2))}),
    **{message: one_op(op, shapes, out=(7, 7, 8), **constants) for op, shapes, constants, message in BAD},
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_verify_refuses(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ir.verify(WRONG[message])


def test_macs() -> None:
    graph = one_op(conv(groups=2, stride=(2, 2)), [(7, 7, 8)], **WEIGHTS)
    assert ir.macs(graph, graph.ops[0]) == ir.total_macs(graph) == 3 * 3 * 8 * 3 * 3 * 4
    for case, products in (("depthwise", 5 * 7 * 6 * 3), ("dense flattens", 5 * 24), ("relu", 0)):
        op, shapes, _, constants = SHAPES[case]
        assert ir.total_macs(one_op(op, shapes, **constants)) == products


def test_text_has_one_line_per_operator() -> None:
    text = repr(one_op(conv(stride=(2, 2)), [(9, 9, 4)], **WEIGHTS))
    assert text.splitlines()[0] == "graph test: in0 (9, 9, 4) float32"
    assert "out (4, 4, 8) = Conv(in0, kernel=(3, 3), stride=(2, 2)" in text
