"""What a kernel call costs in cycles, roughly: enough to choose between ways to run the same thing.

The constants are fitted by eye to the simulator's Cortex-M4; no number that is reported comes from here.
"""

from __future__ import annotations

from collections.abc import Iterable

from tinyredux.graph import Add, Conv, Dense, DepthwiseConv, Graph, Op, Pool, Relu
from tinyredux.memory import is_pointwise
from tinyredux.tiles import Step, computed_macs

CALL = 150


def rough_cycles(graph: Graph, steps: Iterable[Step]) -> int:
    """Returns the cycles of kernel calls."""
    by_name = {op.name: op for op in graph.ops}
    return sum(step_cycles(graph, by_name[step.op], step) for step in steps)


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


def step_cycles(graph: Graph, op: Op, step: Step) -> int:
    """Returns the cycles of one call."""
    height, width, channels = step.output.box.shape
    pixels, outputs = height * width, step.output.box.elements
    if step.kind == "copy":
        return CALL + 10 * pixels + 5 * outputs
    if step.kind in ("start", "finish"):
        return CALL + (5 if step.kind == "start" else 40) * outputs
    match op:
        case Conv() | Dense():
            return CALL + _convolution(graph, op, step, pixels, channels)
        case DepthwiseConv():
            taps = op.kernel[0] * op.kernel[1]
            return CALL + pixels * (250 + 62 * taps + channels // 4 * (10 * taps + 161) + channels % 4 * (14 * taps + 70))
        case Pool():
            taps = op.kernel[0] * op.kernel[1]
            return CALL + pixels * (70 + channels // 4 * (18 * taps + 70) + channels % 4 * (12 * taps + 40))
        case Add() | Relu():
            return CALL + (74 if isinstance(op, Add) else 8) * outputs
    return CALL + 200 * outputs


def _convolution(graph: Graph, op: Conv | Dense, step: Step, pixels: int, channels: int) -> int:
    height, width, in_c = step.inputs[0].box.shape
    kernel = op.kernel if isinstance(op, Conv) else (height, width)
    groups = op.groups if isinstance(op, Conv) else 1
    in_c = in_c // groups if groups > 1 else in_c
    column = kernel[0] * kernel[1] * in_c
    blocks = (pixels + 1) // 2 * ((channels + 1) // 2)
    if step.kind == "run" and isinstance(op, Dense):
        return channels * (10 * column // 4 + 100)
    if step.kind == "run" and isinstance(op, Conv) and is_pointwise(op):
        return blocks * (32 * -(-column // 4) + 150)
    if step.kind == "run" and step.scratch:
        return pixels * groups * column * (4 if in_c >= 4 else 10) + blocks * (32 * -(-column // 4) + 300)
    runs = kernel[0] * -(-kernel[1] * in_c // 4)
    raw = isinstance(op, Dense) or not any(op.padding)  # the zero point is part of the bias
    each = (31 if raw else 36) * runs + 60 * kernel[0] + (260 if step.kind == "run" else 130)
    each += 0 if raw or kernel[1] * in_c % 4 == 0 else 120 * kernel[0]  # the end of a row, value by value
    return (pixels + 1) // 2 * 350 + blocks * each
