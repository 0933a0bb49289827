"""What an operator reads to compute a part of its output, and which operators can be computed in slices of channels."""

from __future__ import annotations

import numpy as np

from tinyredux.graph import (
    Add,
    AddConstant,
    Array,
    Attention,
    Bilinear,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Extend,
    Graph,
    LayerNorm,
    Lookup,
    MatMul,
    Mul,
    Op,
    Rearrange,
    Relu,
    Softmax,
    TrecConv,
    Windowed,
    seen,
    taken,
)
from tinyredux.int8 import bilinear
from tinyredux.memory.tiles import Box, whole


def group_sizes(graph: Graph, op: Op) -> tuple[int, int]:
    """Returns (input, output) channels that belong together: all for a convolution, (1, 1) for a pool."""
    match op:
        case Conv():
            return graph.tensors[op.inputs[0]].shape[2] // op.groups, graph.tensors[op.output].shape[2] // op.groups
        case DepthwiseConv():
            return 1, op.multiplier
        case Dense() | Softmax() | TrecConv() | LayerNorm() | Attention() | AddConstant() | MatMul() | Extend():
            return graph.tensors[op.inputs[0]].shape[2], graph.tensors[op.output].shape[2]
    return 1, 1


def windows_meet_map(graph: Graph, op: Op) -> bool:
    """True where every window of an operator holds a value of its input; where one lies in the padding as a whole, a patch of
    the output can need nothing, and the operator runs at once."""
    sizes, outputs = graph.tensors[op.inputs[0]].shape, graph.tensors[op.output].shape
    return not isinstance(op, Windowed) or all(
        seen(op, axis, 0, 1)[1] > 0 and seen(op, axis, outputs[axis] - 1, outputs[axis])[0] < sizes[axis] for axis in (0, 1)
    )


def reads_values(graph: Graph, op: Op) -> bool:
    """False for an operator all of whose windows lie in the padding: there is nothing that a part could compute for it."""
    return min(input_box(graph, op, 0, whole(graph.tensors[op.output].shape)).shape) > 0


def input_box(graph: Graph, op: Op, index: int, out: Box) -> Box:
    """Returns which part of an operator's input number `index` it takes to compute `out`. May be empty for Concat."""
    height, width, channels = shape = graph.tensors[op.inputs[index]].shape
    if is_whole(op, index):
        return whole(shape)
    if is_spread(graph, op, index):
        return Box(0, 1, 0, 1, out.c0, out.c1)
    if index == 1 and is_gated(graph, op):
        return out.channels(0, 1)
    if isinstance(op, Concat):
        before = sum(graph.tensors[name].shape[2] for name in op.inputs[:index])
        return out.channels(max(out.c0 - before, 0), min(out.c1 - before, channels))
    if isinstance(op, Bilinear | Rearrange):
        y0, y1 = map(int, moved_from(graph, op, 0, out.y0, out.y1))
        x0, x1 = map(int, moved_from(graph, op, 1, out.x0, out.x1))
        all_channels = isinstance(op, Rearrange) and moves_channels(graph, op)
        return Box(y0, y1, x0, x1, *((0, channels) if all_channels else (out.c0, out.c1)))
    in_group, out_group = group_sizes(graph, op)
    c0, c1 = out.c0 // out_group * in_group, -(-out.c1 // out_group) * in_group
    if not isinstance(op, Windowed):
        return out.channels(c0, c1)
    (y0, y1), (x0, x1) = seen(op, 0, out.y0, out.y1), seen(op, 1, out.x0, out.x1)
    return Box(min(max(y0, 0), height), max(min(y1, height), 0), min(max(x0, 0), width), max(min(x1, width), 0), c0, c1)


def moved_from(graph: Graph, op: Bilinear | Rearrange, axis: int, first: Array | int, end: Array | int) -> Array:
    """Returns (2, ...) the first row (axis 0) or column (1) of the input that outputs `first` to `end` - 1 are made of, and one
    past the last."""
    if isinstance(op, Rearrange):
        return np.stack(taken(op, axis, np.asarray(first), np.asarray(end)))
    lower, weights = bilinear.places(op, axis, graph.rounding)
    start, last = np.minimum(first, len(lower) - 1), np.maximum(end, 1) - 1  # a box may be empty
    return np.stack([lower[start], lower[last] + 1 + (weights[last] > 0)])


def is_barrier(graph: Graph, op: Op) -> bool:
    """True for an operator that cannot run in slices of channels, nor read or write them."""
    moves = isinstance(op, Rearrange) and moves_channels(graph, op)
    return isinstance(op, (Softmax, TrecConv, LayerNorm, Attention, AddConstant, MatMul, Extend)) or moves or is_gated(graph, op)


def is_whole(op: Op, index: int) -> bool:
    """True for an input that every part of an operator's output needs as a whole: of an attention keys and values."""
    return isinstance(op, (Dense, TrecConv, MatMul, Extend)) or (isinstance(op, Attention) and index > 0)


def moves_channels(graph: Graph, op: Rearrange) -> bool:
    """True where an output channel is another channel of the input."""
    return op.groups > 1 or op.blocks or op.channels != graph.tensors[op.inputs[0]].shape[2]


def is_elementwise(op: Op) -> bool:
    """True where output element i depends on input element i alone, so that the output may replace the input; of Mul, an input of
    the output's shape."""
    return isinstance(op, (Add, AddConstant, Lookup, Mul, Relu))


def is_spread(graph: Graph, op: Op, index: int) -> bool:
    """True for an input of one value a channel that an operator applies to every place of a map."""
    return isinstance(op, Mul) and index == 1 and graph.tensors[op.inputs[1]].shape[:2] != graph.tensors[op.output].shape[:2]


def is_gated(graph: Graph, op: Op) -> bool:
    """True for a product with one value for each place, which all channels share."""
    return isinstance(op, Mul) and graph.tensors[op.inputs[1]].shape[2] != graph.tensors[op.output].shape[2]


def is_generator(op: Op) -> bool:
    """True for an operator that needs its whole input for every slice of its output."""
    return isinstance(op, Dense) or (isinstance(op, Conv) and op.groups == 1)
