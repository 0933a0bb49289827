"""What the reference kernels cost, predicted from an operator's shape.

A kind of operator has a few counts (`counts`); a core has cycles for each, fitted to simulated layers by
tools/fit_reference_cost.py, which wrote reference_cost.json and says there how far off the prediction was at worst.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from tinyredux.graph import Add, Conv, Dense, DepthwiseConv, Graph, Op, Pool, Relu, macs
from tinyredux.memory import is_pointwise

FILE = Path(__file__).with_name("reference_cost.json")


def kind_of(op: Op) -> str | None:
    """Returns the row of the table that an operator belongs to, None where there is none."""
    if isinstance(op, Pool):
        return f"{op.kind} pool"
    if isinstance(op, Conv):
        return "1x1 convolution" if is_pointwise(op) else "convolution"
    return {DepthwiseConv: "depthwise", Dense: "dense", Add: "add", Relu: "relu"}.get(type(op))


def counts(graph: Graph, op: Op) -> list[int]:
    """Returns what an operator's cycles are a sum of: 1 for the call, then what its kernel does how often."""
    out = graph.tensors[op.output]
    pixels, channels = out.shape[0] * out.shape[1], out.shape[2]
    single = channels % 4 if getattr(op, "multiplier", 1) == 1 else channels  # those that do not go four at a time
    if isinstance(op, DepthwiseConv | Pool):
        window = op.kernel[0] * op.kernel[1]
        visits = [window * pixels * (channels - single), window * pixels * single, op.kernel[0] * pixels * (channels - single)]
        return [1, *visits, pixels * (channels - single), pixels * single, pixels]
    if isinstance(op, Conv):
        taps = op.kernel[0] * op.kernel[1] * graph.tensors[op.inputs[0]].shape[2]
        return [1, macs(graph, op), out.elements, pixels * taps, pixels * op.kernel[0] * op.kernel[1], pixels]
    return [1, macs(graph, op), out.elements]


def reference_cycles(graph: Graph, op: Op, core: str) -> float:
    """Returns the predicted cycles of an operator's reference kernel on a core, infinite for kinds without a prediction."""
    kind = kind_of(op)
    if kind is None:
        return float("inf")
    cycles: list[float] = _table()["cycles"][core][kind]
    return sum(n * each for n, each in zip(counts(graph, op), cycles, strict=True))


@cache
def _table() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found
