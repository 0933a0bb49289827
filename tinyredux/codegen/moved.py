"""The fields of kernels that read a map at other places: every size and every distance in full."""

from __future__ import annotations

from tinyredux.graph import Bilinear, Graph, Rearrange
from tinyredux.int8 import bilinear, quant_of
from tinyredux.memory import Step


def _sizes(step: Step) -> dict[str, int]:
    """Returns the fields of the shapes of one input and the output, with every distance in full."""
    views = {"in": step.inputs[0], "out": step.output}
    sizes = {f"{side}_{key}": size for side, view in views.items() for key, size in zip("hwc", view.box.shape, strict=True)}
    gaps = {f"{side}_{key}": getattr(view, f"{key}_stride") for side, view in views.items() for key in ("row", "pixel")}
    return sizes | gaps


def bilinear_fields(graph: Graph, op: Bilinear, step: Step) -> dict[str, int]:
    """Returns the fields of resized maps."""
    even = bilinear.is_even(graph, op)
    zero_point = quant_of(graph.tensors[op.output]).zero_point if even else 0
    bits = 2 * bilinear.BITS[graph.rounding]
    away = int(graph.rounding == "double")
    return _sizes(step) | {"bits": bits, "away": away, "even": int(even), "zero_point": zero_point}


def rearrange_fields(graph: Graph, op: Rearrange, step: Step) -> dict[str, int]:
    """Returns the fields of moved values."""
    many = op.repeat[0] * op.repeat[1]
    pairs = {"start": op.start, "step": op.step, "repeat": op.repeat, "phase": op.phase}
    return {
        **_sizes(step),
        **{f"{name}_{axis}": value for name, pair in pairs.items() for axis, value in zip("hw", pair, strict=True)},
        "first_c": op.first_channel, "step_c": many if op.blocks else 1, "groups": op.groups, "blocks": int(op.blocks),
        "zeros": int(op.zeros), "zero_point": quant_of(graph.tensors[op.output]).zero_point,
    }  # fmt: skip
