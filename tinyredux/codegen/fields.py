"""The fields of the structs of kernels that take several maps, or move values."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from tinyredux.graph import Attention, Bilinear, Extend, Graph, LayerNorm, MatMul, Mul, Rearrange
from tinyredux.int8 import Clamp, attention_params, bilinear, layer_norm_params, mul_params, quant_of
from tinyredux.memory import Step, is_gated, is_spread


def clamp_fields(clamp: Clamp) -> dict[str, int]:
    """Returns the fields of an activation's limits."""
    return {"activation_min": clamp.low, "activation_max": clamp.high}


def mul_fields(graph: Graph, op: Mul, step: Step) -> dict[str, int]:
    """Returns the fields of a product; of equal maps without gaps, one row of all values."""
    params, views = mul_params(graph, op), (*step.inputs, step.output)
    height, width, channels = step.output.box.shape
    distances = [(view.row_stride, view.pixel_stride) for view in views]
    gated = is_gated(graph, op)
    if is_spread(graph, op, 1):
        distances[1] = (0, 0)
    elif not gated and not any(gap for view in views for gap in view.gaps):
        height, width, channels = 1, 1, step.output.box.elements
        distances = [(channels, channels)] * 3
    names = [f"{side}_{what}" for side in ("a", "b", "out") for what in ("row", "pixel")]
    return {
        "h": height, "w": width, "c": channels, **dict(zip(names, (gap for pair in distances for gap in pair), strict=True)),
        "a_zero_point": params.input_zero_point, "b_zero_point": quant_of(graph.tensors[op.inputs[1]]).zero_point,
        "out_zero_point": params.output_zero_point, "multiplier": params.multiplier[0], "shift": params.shift[0],
        **clamp_fields(params.clamp), "b_each": int(not gated),
    }  # fmt: skip


def extend_fields(graph: Graph, op: Extend) -> dict[str, int]:
    """Returns the fields of a map amid constant places."""
    more, channels = graph.constants[op.values].shape
    own = graph.tensors[op.inputs[0]].elements
    return {"n": own, "before": op.before * channels, "behind": (more - op.before) * channels}


def matmul_fields(graph: Graph, op: MatMul) -> dict[str, int]:
    """Returns the fields of products of matrices."""
    params, row = mul_params(graph, op), op.heads * op.columns if op.beside else op.columns
    sides = {"left": (op.left, ("first", "head", "row", "inner")), "right": (op.right, ("first", "head", "inner", "column"))}
    return {
        "heads": op.heads, "rows": op.rows, "inner": op.inner, "columns": op.columns,
        **{f"{side}_{name}": by for side, (steps, names) in sides.items() for by, name in zip(steps, names, strict=True)},
        "out_head": op.columns if op.beside else op.rows * op.columns, "out_row": row,
        "left_zero_point": params.input_zero_point, "right_zero_point": quant_of(graph.tensors[op.inputs[1]]).zero_point,
        "output_zero_point": params.output_zero_point, "multiplier": params.multiplier[0], "shift": params.shift[0],
    }  # fmt: skip


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


def layer_norm_fields(graph: Graph, op: LayerNorm, step: Step) -> dict[str, int]:
    """Returns the fields of a normalisation of the places of a step."""
    height, width, channels = step.output.box.shape
    return {"rows": height * width, "n": channels, **asdict(layer_norm_params(graph, op))}


def attention_fields(graph: Graph, op: Attention, step: Step) -> dict[str, int]:
    """Returns the fields of an attention of a step's queries to all keys."""
    out, keys, values = (view.box.shape for view in (step.output, *step.inputs[1:]))
    sizes = {"heads": op.heads, "queries": out[0] * out[1], "keys": keys[0] * keys[1]}
    depths = {"depth": keys[2] // op.heads, "value_depth": values[2] // op.heads}
    bias = graph.constants[op.bias] if op.bias else np.zeros(0)
    return sizes | depths | asdict(attention_params(graph, op)) | {"bias_head": bias[0].size if len(bias) > 1 else 0}
