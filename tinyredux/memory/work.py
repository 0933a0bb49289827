"""The work of steps: the smaller operator that a step computes, its products, and the loops of the kernels that run it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from tinyredux.graph import (
    AddConstant,
    Attention,
    Bilinear,
    Conv,
    Convolution,
    Dense,
    Graph,
    MatMul,
    Op,
    Rearrange,
    TrecConv,
    Weighted,
    Windowed,
    macs,
    seen,
    weights_of,
)
from tinyredux.memory.reach import group_sizes, input_box, moves_channels
from tinyredux.memory.tiles import Box, Step, View

Price = Callable[[Graph, Iterable[Step]], float]  # what steps cost: their products, or their cycles on a core


def window_rows(graph: Graph, op: Op, step: Step) -> list[Step]:
    """Returns a step as one step for each row of its output, which reads what that row takes."""

    def seen_by(row: View) -> tuple[View, ...]:
        return tuple(view.part(input_box(graph, op, i, row.box)) for i, view in enumerate(step.inputs))

    return [replace(step, inputs=seen_by(row), output=row) for row in step.output.rows()]


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
    if isinstance(op, Rearrange):
        turns = zip((out.y0, out.x0), op.phase, op.repeat, strict=True)
        rows, columns = ((first + phase) % repeat for first, phase, repeat in turns)
        first = op.first_channel if moves_channels(graph, op) else 0
        op = replace(op, size=out.shape[:2], channels=out.shape[2], start=(0, 0), phase=(rows, columns), first_channel=first)
        return graph, op
    if isinstance(op, Bilinear):
        return graph, replace(op, size=out.shape[:2], first=(op.first[0] + out.y0, op.first[1] + out.x0))
    if isinstance(op, Conv):
        op = replace(op, groups=-(-(out.c1 - out.c0) // group_sizes(graph, op)[1]))
    if isinstance(op, AddConstant):
        part = graph.constants[op.values][out.y0 : out.y1, out.x0 : out.x1, out.c0 : out.c1]
        return replace(graph, constants={op.values: part}), op
    if isinstance(op, Attention) and op.bias:
        bias, size = graph.constants[op.bias], graph.tensors[op.inputs[0]].shape[:2]
        part = bias.reshape(len(bias), *size, -1)[:, out.y0 : out.y1, out.x0 : out.x1]
        return replace(graph, constants={op.bias: part.reshape(len(bias), -1, bias.shape[-1])}), op
    if not isinstance(op, Weighted):
        return graph, op
    constants = {
        op.weights: weights_of(graph, op, (out.c0, out.c1), in_channels),
        op.bias: graph.constants[op.bias][out.c0 : out.c1],
    }
    return replace(graph, constants=constants), replace(op, weight_scale=op.weight_scale[out.c0 : out.c1])


def computed_macs(graph: Graph, op: Op, out: Box, in_channels: int | None = None) -> int:
    """Returns the multiply-accumulates that computing a box takes, from `in_channels` channels where it is a partial sum."""
    if isinstance(op, Attention | MatMul):
        return macs(graph, op) * out.elements // graph.tensors[op.output].elements
    if not isinstance(op, Weighted):
        return 0
    height, width, channels = graph.tensors[op.inputs[0]].shape
    if isinstance(op, Dense):
        return out.elements * height * width * (in_channels or channels)
    assert isinstance(op, Convolution)
    return out.elements * op.kernel[0] * op.kernel[1] * (in_channels or group_sizes(graph, op)[0])


def executed_macs(graph: Graph, steps: Iterable[Step]) -> int:
    """Returns the multiply-accumulates that kernel calls execute."""
    total = 0
    for step in steps:
        if step.kind in ("run", "add_up"):
            channels = step.inputs[0].box.shape[2] if step.kind == "add_up" else None
            total += computed_macs(graph, graph.by_name[step.op], step.output.box, channels)
    return total


def conv_loops(op: Conv, step: Step) -> str:
    """Returns which loops of the reference kernels run a convolution: "pointwise", "columns" (im2col) or "direct".

    A part of a 1x1 convolution with padding may lie inside the map: tr_conv_s8 reads it in place, and then knows no gaps.
    """
    source, target = step.inputs[0], step.output
    in_place = op.groups == 1 and op.kernel == op.stride == (1, 1) and source.box.shape[:2] == target.box.shape[:2]
    if in_place and not (source.gaps[0] or source.gaps[1] or target.gaps[0]):
        return "pointwise"
    return "direct" if op.groups == 1 and (in_place or target.gaps[0] or not step.scratch) else "columns"
