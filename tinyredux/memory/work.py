"""The work of steps: which loops of the reference kernels run a convolution, and how many products a step computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tinyredux.graph import Conv, Graph
from tinyredux.memory.tiles import Step, computed_macs

Price = Callable[[Graph, Iterable[Step]], float]  # what steps cost: their products, or their cycles on a core


def executed_macs(graph: Graph, steps: Iterable[Step]) -> int:
    """Returns the multiply-accumulates that kernel calls execute."""
    by_name = {op.name: op for op in graph.ops}
    total = 0
    for step in steps:
        if step.kind == "run":
            total += computed_macs(graph, by_name[step.op], step.output.box)
        elif step.kind == "add_up":
            total += computed_macs(graph, by_name[step.op], step.output.box, step.inputs[0].box.shape[2])
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
