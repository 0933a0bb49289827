"""Channels that hold one value whatever the input: an int8 Graph whose weights say so, and whose tensors keep every byte.

A trained network has filters that died: all weights zero, and a bias that converters cut off at 2^30, where a sum of two such
numbers leaves 32 bits; generated kernels do not take these layers. What such a channel writes is known. Its bias can be small,
and what others add up of it belongs into their biases; then nobody reads it, and `graph.without_dead_channels` takes it out.

Source: ours; constant folding, by channels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tinyredux.fixedpoint import INT32_MAX, wrap_int32
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
    Relu,
    constant_names,
)
from tinyredux.int8.factors import quant_of, requantization
from tinyredux.int8.interpret import requantize, run_op

Values = npt.NDArray[np.int64]  # (C,) of a tensor: the value of each constant channel, VARIES for others
VARIES = 1 << 8
FINENESS = 8  # a constant's bias is 2^8 times what it writes: far from a half of rounding, and small


def fold_constant_channels(graph: Graph) -> Graph:
    """Returns an int8 graph with the same bytes in every tensor, whose constant channels have zero weights and small biases.

    Layers that share their constants with others stay as they are, and so do grouped ones.
    """
    known = {name: np.full(graph.tensors[name].shape[2], VARIES, np.int64) for name in graph.inputs}
    constants, ops = dict(graph.constants), list[Op]()
    for op in graph.ops:
        values = [known[name] for name in op.inputs]
        if _is_plain(graph, op):
            assert isinstance(op, Conv | Dense | DepthwiseConv)
            changed, constants[op.weights], constants[op.bias], known[op.output] = _folded(graph, op, values[0])
            ops.append(changed)
        else:
            known[op.output] = _passed_on(graph, op, values)
            ops.append(op)
    return graph.with_ops(ops, constants=constants)


def _is_plain(graph: Graph, op: Op) -> bool:
    names = [name for other in graph.ops for name in constant_names(other)]
    alone = all(names.count(name) == 1 for name in constant_names(op))
    return isinstance(op, Conv | Dense | DepthwiseConv) and alone and not (isinstance(op, Conv) and op.groups > 1)


def _passed_on(graph: Graph, op: Op, values: list[Values]) -> Values:
    """Returns what an operator makes of constant channels where it treats each by itself."""
    if isinstance(op, Concat):
        return np.concatenate(values)
    channels = graph.tensors[op.output].shape[2]
    if not isinstance(op, Bilinear | Pool | Relu | Add | Lookup | Mul):
        return np.full(channels, VARIES, np.int64)
    varies = np.logical_or.reduce([each == VARIES for each in values])
    shapes = [graph.tensors[name].shape for name in op.inputs]
    maps = [np.broadcast_to(np.where(varies, 0, each), (1, *shape)) for each, shape in zip(values, shapes, strict=True)]
    result = run_op(graph, op, [np.ascontiguousarray(each, np.int8) for each in maps])
    return np.where(varies, VARIES, result[0, 0, 0].astype(np.int64))


def _folded(graph: Graph, op: Conv | Dense | DepthwiseConv, values: Values) -> tuple[Op, Array, Array, Values]:
    """Returns an operator with its weights and bias, and the constant channels that it writes."""
    params, depthwise = requantization(graph, op), isinstance(op, DepthwiseConv)
    weights, bias = graph.constants[op.weights].copy(), graph.constants[op.bias].astype(np.int64)
    inner = values - params.input_zero_point
    padded = any(getattr(op, "padding", ()))  # around a map lie zeros, which a constant other than zero differs from
    taken = (values != VARIES) & ((inner == 0) | (not padded))
    rows = weights.reshape(-1, len(bias)).T if depthwise else weights.reshape(len(bias), -1)  # views: (outputs, taps)
    if depthwise:
        assert isinstance(op, DepthwiseConv)
        taken, inner = taken.repeat(op.multiplier), inner.repeat(op.multiplier)
        bias[taken] += rows[taken].astype(np.int64).sum(axis=1) * inner[taken]
        rows[taken] = 0
    else:
        columns = np.resize(taken, rows.shape[1])
        bias += rows[:, columns].astype(np.int64) @ np.resize(inner, rows.shape[1])[columns]
        rows[:, columns] = 0
    bias = wrap_int32(bias)
    low, high = _ends(rows.astype(np.int64), params.input_zero_point) + bias
    left = max(0, *params.shift)  # bits that a sum is moved up by first, which must not wrap
    ends = [requantize(end, np.zeros(1, np.int64), params).astype(np.int64) for end in (low, high)]
    fixed = (ends[0] == ends[1]) & (np.maximum(-low, high) <= INT32_MAX >> left)
    result = quant_of(graph.tensors[op.output])
    scale = result.scale[0] / quant_of(graph.tensors[op.inputs[0]]).scale[0] / (1 << FINENESS)
    small = np.where(fixed, (ends[0] - params.output_zero_point) << FINENESS, bias)
    scaled = replace(op, weight_scale=tuple(np.where(fixed, scale, op.weight_scale).tolist()))
    fixed &= requantize(small, np.zeros(1, np.int64), requantization(graph, scaled)) == ends[0]
    rows[fixed] = 0
    scales = tuple(np.where(fixed, scale, op.weight_scale).tolist())
    bias = np.where(fixed, small, bias).astype(np.int32)
    return replace(op, weight_scale=scales), weights, bias, np.where(fixed, ends[0], VARIES)


def _ends(rows: Array, zero_point: int) -> npt.NDArray[np.int64]:
    """Returns (2, outputs) the least and the largest sum of products that any input gives."""
    both = np.stack([rows * (-128 - zero_point), rows * (127 - zero_point)])
    return np.asarray(np.stack([both.min(axis=0).sum(axis=1), both.max(axis=0).sum(axis=1)]), np.int64)
