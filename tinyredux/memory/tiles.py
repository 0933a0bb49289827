"""Parts of tensors and parts of operators: the vocabulary of partial execution.

A `Box` is a range of rows, columns and channels of a tensor; a `View` says where its values lie; a `Step` is one kernel
call that computes a box. `restricted` turns an operator and a box into a smaller operator that computes just that box.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from tinyredux.graph import (
    Add,
    Concat,
    Conv,
    Convolution,
    Dense,
    DepthwiseConv,
    Graph,
    Op,
    Relu,
    Softmax,
    TrecConv,
    Weighted,
    Windowed,
    seen,
    weights_of,
)


class Box(NamedTuple):
    """Rows y0..y1-1, columns x0..x1-1, channels c0..c1-1 of a tensor."""

    y0: int
    y1: int
    x0: int
    x1: int
    c0: int
    c1: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.y1 - self.y0, self.x1 - self.x0, self.c1 - self.c0

    @property
    def elements(self) -> int:
        """Number of elements."""
        return (self.y1 - self.y0) * (self.x1 - self.x0) * (self.c1 - self.c0)

    def channels(self, c0: int, c1: int) -> Box:
        """Returns this box with other channels."""
        return Box(self.y0, self.y1, self.x0, self.x1, c0, c1)


class View(NamedTuple):
    """Where a box of a tensor lies: `offset` bytes into a buffer, with strides in elements."""

    tensor: str
    box: Box
    buffer: str
    offset: int
    row_stride: int
    pixel_stride: int
    element_bytes: int = 1

    @property
    def gaps(self) -> tuple[int, int]:
        """(row, pixel) distances in elements, 0 where nothing lies between two rows or two pixels."""
        _, width, channels = self.box.shape
        pixel = 0 if self.pixel_stride == channels else self.pixel_stride
        row = 0 if self.row_stride == width * self.pixel_stride or self.box.shape[0] == 1 else self.row_stride
        return row, pixel

    @property
    def span_bytes(self) -> int:
        """Bytes from the first element to the end of the last."""
        height, width, channels = self.box.shape
        return ((height - 1) * self.row_stride + (width - 1) * self.pixel_stride + channels) * self.element_bytes

    def part(self, box: Box) -> View:
        """Returns the view of a box inside this one."""
        own = self.box
        if box == own:
            return self
        moved = (box.y0 - own.y0) * self.row_stride + (box.x0 - own.x0) * self.pixel_stride + box.c0 - own.c0
        at = self.offset + moved * self.element_bytes
        return View(self.tensor, box, self.buffer, at, self.row_stride, self.pixel_stride, self.element_bytes)


@dataclass(frozen=True)
class Step:
    """One kernel call.

    kind "run" computes the output box; "start" sets sums to the bias, "add_up" adds the products of an input slice to them,
    "finish" requantises them; "copy" moves values.
    """

    op: str
    kind: str
    inputs: tuple[View, ...]
    output: View
    scratch: str = ""


def in_lines(step: Step) -> list[Step]:
    """Returns an elementwise step as steps that walk their maps in one loop: itself, or one for each row where a map has gaps
    between pixels and rows."""
    views = (*step.inputs, step.output)
    if all(view.gaps[0] == 0 for view in views) or all(view.gaps[1] == 0 for view in views):
        return [step]
    return row_by_row(step)


def row_by_row(step: Step) -> list[Step]:
    """Returns a step whose output pixels depend each on the same pixel of its inputs as one step for each row."""
    lines = []
    for y in range(step.output.box.shape[0]):
        rows = [view.part(view.box._replace(y0=view.box.y0 + y, y1=view.box.y0 + y + 1)) for view in (*step.inputs, step.output)]
        lines.append(replace(step, inputs=tuple(rows[:-1]), output=rows[-1]))
    return lines


def whole(shape: tuple[int, int, int]) -> Box:
    """Returns the box of a whole tensor."""
    return Box(0, shape[0], 0, shape[1], 0, shape[2])


def hull(a: Box, b: Box) -> Box:
    """Returns the smallest box that holds both."""
    low = (min(x, y) for x, y in zip(a[::2], b[::2], strict=True))
    high = (max(x, y) for x, y in zip(a[1::2], b[1::2], strict=True))
    return Box(*(value for pair in zip(low, high, strict=True) for value in pair))


def dense_view(tensor: str, box: Box, buffer: str, element_bytes: int = 1) -> View:
    """Returns a view of a box stored on its own, without gaps."""
    _, width, channels = box.shape
    return View(tensor, box, buffer, 0, width * channels, channels, element_bytes)


def group_sizes(graph: Graph, op: Op) -> tuple[int, int]:
    """Returns (input, output) channels that belong together: all for a convolution, (1, 1) for a pool."""
    match op:
        case Conv():
            return graph.tensors[op.inputs[0]].shape[2] // op.groups, graph.tensors[op.output].shape[2] // op.groups
        case DepthwiseConv():
            return 1, op.multiplier
        case Dense() | Softmax() | TrecConv():
            return graph.tensors[op.inputs[0]].shape[2], graph.tensors[op.output].shape[2]
    return 1, 1


def window_rows(graph: Graph, op: Op, step: Step) -> list[Step]:
    """Returns a step of an operator with windows as one step for each row of its output."""
    box, (source,) = step.output.box, step.inputs
    rows = [box._replace(y0=y, y1=y + 1) for y in range(box.y0, box.y1)]
    return [replace(step, inputs=(source.part(input_box(graph, op, 0, row)),), output=step.output.part(row)) for row in rows]


def windows_meet_map(graph: Graph, op: Op) -> bool:
    """True where every window of an operator holds a value of its input; where one lies in the padding as a whole, a patch of
    the output can need nothing, and the operator runs at once."""
    sizes, outputs = graph.tensors[op.inputs[0]].shape, graph.tensors[op.output].shape
    return not isinstance(op, Windowed) or all(
        seen(op, axis, 0, 1)[1] > 0 and seen(op, axis, outputs[axis] - 1, outputs[axis])[0] < sizes[axis] for axis in (0, 1)
    )


def reads_values(graph: Graph, op: Op) -> bool:
    """False for an operator all of whose windows lie in the padding: there is nothing that a part could compute for it."""
    box = input_box(graph, op, 0, whole(graph.tensors[op.output].shape))
    return min(box.shape) > 0


def input_box(graph: Graph, op: Op, index: int, out: Box) -> Box:
    """Returns which part of an operator's input number `index` it takes to compute `out`. May be empty for Concat."""
    height, width, channels = shape = graph.tensors[op.inputs[index]].shape
    if isinstance(op, (Dense, TrecConv)):
        return whole(shape)
    if isinstance(op, Concat):
        before = sum(graph.tensors[name].shape[2] for name in op.inputs[:index])
        return out.channels(max(out.c0 - before, 0), min(out.c1 - before, channels))
    in_group, out_group = group_sizes(graph, op)
    c0, c1 = out.c0 // out_group * in_group, -(-out.c1 // out_group) * in_group
    if not isinstance(op, Windowed):
        return out.channels(c0, c1)
    (y0, y1), (x0, x1) = seen(op, 0, out.y0, out.y1), seen(op, 1, out.x0, out.x1)
    return Box(min(max(y0, 0), height), max(min(y1, height), 0), min(max(x0, 0), width), max(min(x1, width), 0), c0, c1)


def restricted(graph: Graph, op: Op, out: Box, in_channels: tuple[int, int] | None = None) -> tuple[Graph, Op]:
    """Returns a graph and operator that compute `out` from `input_box`es, to the same bits as the whole operator.

    With `in_channels` the weights are those of a slice of the input, for partial sums. TREC layers are computed as a whole only.
    """
    if isinstance(op, TrecConv):
        return graph, op
    if isinstance(op, Windowed):
        height, width, _ = graph.tensors[op.inputs[0]].shape
        (y0, y1), (x0, x1) = seen(op, 0, out.y0, out.y1), seen(op, 1, out.x0, out.x1)
        op = replace(op, padding=(max(0, -y0), max(0, y1 - height), max(0, -x0), max(0, x1 - width)))
    if isinstance(op, Conv):
        op = replace(op, groups=-(-(out.c1 - out.c0) // group_sizes(graph, op)[1]))
    if not isinstance(op, Weighted):
        return graph, op
    constants = {
        op.weights: weights_of(graph, op, (out.c0, out.c1), in_channels),
        op.bias: graph.constants[op.bias][out.c0 : out.c1],
    }
    return replace(graph, constants=constants), replace(op, weight_scale=op.weight_scale[out.c0 : out.c1])


def computed_macs(graph: Graph, op: Op, out: Box, in_channels: int | None = None) -> int:
    """Returns the multiply-accumulates that computing a box takes, from `in_channels` channels where it is a partial sum."""
    if not isinstance(op, Weighted):
        return 0
    height, width, channels = graph.tensors[op.inputs[0]].shape
    if isinstance(op, Dense):
        return out.elements * height * width * (in_channels or channels)
    assert isinstance(op, Convolution)
    return out.elements * op.kernel[0] * op.kernel[1] * (in_channels or group_sizes(graph, op)[0])


def is_barrier(op: Op) -> bool:
    """True for an operator that cannot run in slices of channels, nor read or write them."""
    return isinstance(op, (Softmax, TrecConv))


def is_elementwise(op: Op) -> bool:
    """True where output element i depends on input element i alone, so that the output may replace the input."""
    return isinstance(op, (Add, Relu))


def is_generator(op: Op) -> bool:
    """True for an operator that needs its whole input for every slice of its output."""
    return isinstance(op, Dense) or (isinstance(op, Conv) and op.groups == 1)
