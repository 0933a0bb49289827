"""Which shapes operators write, and which part of its input a window sees."""

from __future__ import annotations

from functools import lru_cache

from tinyredux.files import require
from tinyredux.graph.functions import check_function
from tinyredux.graph.operators import (
    MOST_BITS,
    THRESHOLDS,
    Add,
    AddConstant,
    Attention,
    Bilinear,
    Concat,
    Conv,
    Convolution,
    Dense,
    DepthwiseConv,
    Extend,
    Graph,
    Lookup,
    MatMul,
    Mul,
    Op,
    Pair,
    Place,
    Pool,
    Rearrange,
    Recall,
    Shape,
    TrecConv,
    Windowed,
)


def seen(op: Windowed, axis: int, first: Place, end: Place) -> tuple[Place, Place]:
    """Returns the first row (axis 0) or column (1) of the input, and one past the last, that outputs `first` to `end` - 1 see.

    They may lie in the padding, before 0 or behind the last.
    """
    start = -op.padding[2 * axis]
    return first * op.stride[axis] + start, (end - 1) * op.stride[axis] + start + extent(op, axis)


def dilated(kernel: Pair, dilation: Pair) -> tuple[Pair, Pair]:
    """Returns the rows and columns that a dilated window reaches over, and its dilation: 1 along an axis of which it sees one."""
    found = tuple(step if size > 1 else 1 for size, step in zip(kernel, dilation, strict=True))
    return ((kernel[0] - 1) * found[0] + 1, (kernel[1] - 1) * found[1] + 1), (found[0], found[1])


def extent(op: Windowed, axis: int) -> int:
    """Returns from the first to the last row (axis 0) or column (1) that a window sees, those between included."""
    return dilated(op.kernel, op.dilation)[0][axis]


def taps_inside(op: Windowed, axis: int, first: int, end: int, size: int) -> list[int]:
    """Returns how many rows (axis 0) or columns (1) of its window outputs `first` to `end` - 1 each see of an input of `size`."""
    return _taps(op.kernel[axis], op.stride[axis], op.dilation[axis], op.padding[2 * axis], first, end, size)


@lru_cache(maxsize=10_000)
def _taps(kernel: int, stride: int, dilation: int, before: int, first: int, end: int, size: int) -> list[int]:
    starts = [i * stride - before for i in range(first, end)]
    return [max(0, min(kernel, -((start - size) // dilation)) + min(0, start) // dilation) for start in starts]


def taken(op: Rearrange, axis: int, first: Place, end: Place) -> tuple[Place, Place]:
    """Returns the first row (axis 0) or column (1) of the input, and one past the last, that outputs `first` to `end` - 1 are."""
    start, step, repeat, phase = op.start[axis], op.step[axis], op.repeat[axis], op.phase[axis]
    return start + (first + phase) // repeat * step, start + (end - 1 + phase) // repeat * step + 1


def resized(before: int, after: int, align_corners: bool) -> float:
    """Returns the `step` of a Bilinear that makes `after` rows or columns of `before`."""
    return (before - 1) / (after - 1) if align_corners and after > 1 else before / after


def window_outputs(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """Returns how many windows fit along one axis of `size` elements padded by `before` and `after`."""
    return (size + before + after - kernel) // stride + 1


def output_shape(graph: Graph, op: Op) -> Shape:
    """Returns the shape that an operator writes. Raises ValueError naming operator, tensor and shapes that disagree."""
    height, width, channels = graph.tensors[op.inputs[0]].shape
    match op:
        case Convolution() | Pool():
            top, bottom, left, right = op.padding
            require(
                1 <= min(*op.stride, *op.dilation),
                f"{op.name}: stride {op.stride} and dilation {op.dilation}, expected 1 or more",
            )
            require(
                max(*op.stride, *op.dilation) < 1 << 16, f"{op.name}: stride {op.stride} and dilation {op.dilation} need 17 bits"
            )
            rows = window_outputs(height, extent(op, 0), op.stride[0], top, bottom)
            columns = window_outputs(width, extent(op, 1), op.stride[1], left, right)
            window = f"a {extent(op, 0)}x{extent(op, 1)} window"
            fits = rows >= 1 and columns >= 1 and not (isinstance(op, Pool) and op.kind == "mean" and any(op.padding))
            require(fits, f"{op.name}: {window} does not fit into {height}x{width} with padding {op.padding}")
            if isinstance(op, Pool) and op.dilation != (1, 1):
                values = min(*taps_inside(op, 0, 0, rows, height), *taps_inside(op, 1, 0, columns, width))
                require(
                    values, f"{op.name}: of padding {op.padding} alone there is no maximum; expected windows that meet the map"
                )
            return rows, columns, channels if isinstance(op, Pool) else _output_channels(graph, op, channels)
        case Dense():
            weights = graph.constants[op.weights]
            there = f"{op.inputs[0]} has {height * width * channels}"
            fits = weights.shape[1:] == (height * width * channels,)
            require(fits, f"{op.name}: weights {weights.shape} expect {weights.shape[-1]} inputs, {there}")
            return 1, 1, int(weights.shape[0])
        case Add():
            one, other = (graph.tensors[name].shape for name in op.inputs)
            require(one == other, f"{op.name}: adds {one} and {other}; both must have one shape (no broadcasting)")
            return other
        case Mul():
            one, other = (graph.tensors[name].shape for name in op.inputs)
            by_channel, by_place = (1, 1, one[2]), (*one[:2], 1)
            others = f"{one}, {by_channel}, a value a channel, or {by_place}, a value a place"
            fits = other in (one, by_channel, by_place)
            require(fits, f"{op.name}: multiplies {one} by {other}; the second must be {others}")
            return one
        case Concat():
            shapes = [graph.tensors[name].shape for name in op.inputs]
            alike = len({shape[:2] for shape in shapes}) == 1
            require(alike, f"{op.name}: concatenates maps of different sizes {shapes}; only channels may differ")
            return height, width, sum(shape[2] for shape in shapes)
        case Recall():
            parts = [graph.tensors[name].shape for name in (*op.inputs, op.state)]
            alike = len({shape[1:] for shape in parts}) == 1
            require(alike, f"{op.name}: rows {parts} one below another; width and channels must be equal")
            return sum(shape[0] for shape in parts), *parts[0][1:]
        case Attention():
            return _attended(graph, op)
        case Extend():
            more, wide = graph.constants[op.values].shape
            fits = wide == channels and 0 <= op.before <= more
            require(fits, f"{op.name}: {op.before} of {more} places of {wide} channels before a map of {channels}")
            return height * width + more, 1, channels
        case MatMul():
            return _multiplied(graph, op)
        case AddConstant():
            shape, own = graph.constants[op.values].shape, (height, width, channels)
            require(shape == own, f"{op.name}: adds a constant of {shape} to {own}; expected one shape")
        case Lookup():
            check_function(op.name, op.function, op.parameters)
        case Bilinear():
            whole = op.extent == (height, width) and min(op.size) >= 1 and min(op.step) >= 0
            require(whole, f"{op.name}: {op.size} places of {op.extent}, {op.step} apart; it reads {height, width}")
            return *op.size, channels
        case Rearrange():
            ends = [taken(op, axis, 0, op.size[axis])[1] for axis in (0, 1)]
            many = op.repeat[0] * op.repeat[1] if op.blocks else 1
            inside = ends[0] <= height and ends[1] <= width and op.first_channel + op.channels * many <= channels
            positive = min(*op.size, op.channels, *op.step, *op.repeat, op.groups) >= 1 and min(*op.start, op.first_channel) >= 0
            places = f"{op.size} places of {op.channels} channels from {op.start}"
            fits = inside and positive and not op.channels % op.groups
            require(fits, f"{op.name}: {places} lie outside {height, width, channels}")
            return *op.size, op.channels
    return height, width, channels


def _attended(graph: Graph, op: Attention) -> Shape:
    queries, keys, values = (graph.tensors[name].shape for name in op.inputs)
    alike = queries[2] == keys[2] and keys[:2] == values[:2]
    require(alike, f"{op.name}: queries {queries}, keys {keys}, values {values}; keys have their channels and their places")
    split = op.heads >= 1 and not queries[2] % op.heads and not values[2] % op.heads
    require(split, f"{op.name}: {queries[2]} and {values[2]} channels do not divide into {op.heads} heads")
    if op.bias:
        shape, own = graph.constants[op.bias].shape, (queries[0] * queries[1], keys[0] * keys[1])
        fits = shape in ((1, *own), (op.heads, *own))
        require(fits, f"{op.name}: a bias of {shape}, expected {(op.heads, *own)}, or 1 in front for all heads")
    return *queries[:2], values[2]


def _multiplied(graph: Graph, op: MatMul) -> Shape:
    counts = {"heads": op.heads, "rows": op.rows, "inner": op.inner, "columns": op.columns}
    require(min(counts.values()) >= 1, f"{op.name}: multiplies matrices of {counts}, expected 1 or more of each")
    for name, by, most in zip(op.inputs, (op.left, op.right), ((op.rows, op.inner), (op.inner, op.columns)), strict=True):
        last = by[0] + sum(step * (count - 1) for step, count in zip(by[1:], (op.heads, *most), strict=True))
        inside = min(by) >= 0 and last < graph.tensors[name].elements
        require(inside, f"{op.name}: reads value {last} of {name}, which has {graph.tensors[name].elements}")
    values, places = op.heads * op.rows * op.columns, op.size[0] * op.size[1]
    fits = places >= 1 and not values % places and (op.heads == 1 or places == op.rows * (1 if op.beside else op.heads))
    require(fits, f"{op.name}: writes {counts} to a map of {op.size} places")
    return *op.size, values // places


def _output_channels(graph: Graph, op: Convolution, channels: int) -> int:
    shape = graph.constants[op.weights].shape
    if isinstance(op, TrecConv):
        _verify_hash(graph, op, shape[0], op.kernel[0] * op.kernel[1] * channels)
    if isinstance(op, DepthwiseConv):
        outputs = channels * op.multiplier
        expected: tuple[int, ...] = (*op.kernel, outputs)
    else:
        outputs, groups = shape[0], op.groups if isinstance(op, Conv) else 1
        both = f"{channels} input and {outputs} output channels"
        require(not channels % groups and not outputs % groups, f"{op.name}: {both} do not divide into {groups} groups")
        expected = (outputs, *op.kernel, channels // groups)
    require(shape == expected, f"{op.name}: weights have shape {shape}, expected {expected} for {channels} input channels")
    return int(outputs)


def _verify_hash(graph: Graph, op: TrecConv, outputs: int, columns: int) -> None:
    require(op.dilation == (1, 1), f"{op.name}: TREC with dilation {op.dilation}, expected (1, 1); leave this layer exact")
    most = MOST_BITS if op.vectors else min(MOST_BITS, outputs)
    if not 1 <= op.hash_bits <= most or not 1 <= op.sub_length <= columns or op.threshold not in THRESHOLDS:
        raise ValueError(
            f"{op.name}: {op.hash_bits} hash bits, sub-vectors of {op.sub_length}, threshold {op.threshold!r}; expected 1 to "
            f"{most} bits, a length of 1 to {columns} and one of {', '.join(THRESHOLDS)}"
        )
    if not op.vectors:
        return
    expected = (-(-columns // op.sub_length), op.sub_length, op.hash_bits)
    shape = graph.constants[op.vectors].shape
    fits = shape in (expected, (1, *expected[1:]))
    require(fits, f"{op.name}: hash vectors have shape {shape}, expected {expected}, or 1 in front for all blocks")
