"""Post-training quantisation to int8: ranges from calibration images, scales per tensor and per output channel.

Source: LiteRT's 8-bit quantisation specification; Jacob et al., arXiv 1712.05877, section 2.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tinyredux import fixedpoint
from tinyredux.files import expect
from tinyredux.graph import (
    AddConstant,
    Array,
    Attention,
    Bilinear,
    Concat,
    DepthwiseConv,
    Extend,
    Graph,
    Lookup,
    Op,
    Pool,
    Quant,
    Rearrange,
    Relu,
    Softmax,
    Tensor,
    TrecConv,
    Weighted,
)
from tinyredux.int8 import interpret
from tinyredux.int8.factors import SOFTMAX_OUTPUT, quant_of
from tinyredux.int8.lookup import FIXED_OUTPUT
from tinyredux.int8.tokens import quantized_bias

Range = tuple[float, float]
LEAST_SCALE = 1e-30  # below, a tensor counts as zero: products of scales must stay normal numbers
SHARES_SCALE = (Bilinear, Concat, Extend, Pool, Rearrange, Relu)  # operators that move values and must not rescale them


def quantize(graph: Graph, images: npt.NDArray[np.float32]) -> Graph:
    """Returns the int8 graph of a float graph; `images` (N, C, H, W), or (N, C, L) of a height of 1, set the activations' ranges.

    Raises ValueError for images of another shape, none at all, or with values that are not finite, and where a tensor
    overflows on the way. Chapter 2.
    """
    expect(Graph, graph, "what to quantize", "such as export(module, name)")
    images = np.asarray(interpret.as_maps(graph, images, "calibration images"), np.float32)
    if not np.isfinite(images).all():
        raise ValueError(f"calibration images for {graph.name} hold values that are NaN or infinite")
    quants = activation_quants(graph, activation_ranges(graph, images))
    tensors = {name: replace(tensor, dtype="int8", quant=quants[name]) for name, tensor in graph.tensors.items()}
    constants: dict[str, Array] = {}
    ops = [_quantize_op(graph, op, tensors, constants) for op in graph.ops]
    return graph.with_ops(ops, tensors=tensors, constants=constants)


def activation_ranges(graph: Graph, images: npt.NDArray[np.float32]) -> dict[str, Range]:
    """Returns the least and greatest value of each tensor over the images, zero included."""
    ranges: dict[str, Range] = {name: (0.0, 0.0) for name in graph.tensors}
    for i in range(0, len(images), interpret.CHUNK):
        values = interpret.run_all(graph, images[i : i + interpret.CHUNK].transpose(0, 2, 3, 1))
        for name, value in values.items():
            if not np.isfinite(value).all():
                raise ValueError(
                    f"tensor {name} of {graph.name} holds NaN or infinity on the calibration images; check the weights"
                )
            low, high = ranges[name]
            ranges[name] = (min(low, float(value.min())), max(high, float(value.max())))
    return ranges


def activation_quants(graph: Graph, ranges: dict[str, Range]) -> dict[str, Quant]:
    """Returns one quantisation per tensor; tensors joined by an operator that must not rescale share theirs."""
    leader = {name: name for name in graph.tensors}

    def find(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for op in graph.ops:
        if isinstance(op, SHARES_SCALE):
            for name in op.inputs:
                leader[find(name)] = find(op.output)
    joined: dict[str, Range] = {}
    for name, (low, high) in ranges.items():
        if _before_fused_relu(graph, name):
            continue
        other = joined.get(find(name), (0.0, 0.0))
        joined[find(name)] = (min(low, other[0]), max(high, other[1]))
    quants = {name: quant_from_range(*joined[find(name)]) for name in graph.tensors}
    fixed = {find(op.output): op.output for op in graph.ops if isinstance(op, Softmax)}
    for group, output in fixed.items():
        if joined[group][0] < 0 or joined[group][1] > 1:
            raise ValueError(
                f"{output}, a softmax, is joined with tensors that leave its range of 0 to 1; end the network with the softmax"
            )
    chosen = dict.fromkeys(fixed, SOFTMAX_OUTPUT)
    for op in graph.ops:  # the prescribed scale, unless the tensor is joined with others that leave its range
        prescribed = FIXED_OUTPUT.get(op.function) if isinstance(op, Lookup) else None
        if prescribed and _holds(prescribed, *joined[find(op.output)]):
            chosen.setdefault(find(op.output), prescribed)
    return {name: chosen.get(find(name), quant) for name, quant in quants.items()}


def _holds(quant: Quant, low: float, high: float) -> bool:
    """True where a range is one that a quantisation covers, but for the last step at its upper end."""
    (scale,), zero_point = quant.scale, quant.zero_point
    return (-128 - zero_point) * scale <= low and high <= (128 - zero_point) * scale


def _before_fused_relu(graph: Graph, name: str) -> bool:
    """True where only Relu operators read the tensor: what they cut off needs no range."""
    readers = graph.consumers(name)
    return bool(readers) and name not in graph.outputs and all(isinstance(op, Relu) for op in readers)


def quant_from_range(low: float, high: float) -> Quant:
    """Returns the asymmetric int8 quantisation of [low, high], which is widened to hold zero exactly. Chapter 2."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / 255))
    scale = scale if scale > LEAST_SCALE else float(np.float32(1 / 255))
    return Quant((scale,), int(np.clip(round(-128 - low / scale), -128, 127)))


def weight_scales(weights: Array, channel_axis: int) -> tuple[float, ...]:
    """Returns one symmetric scale per output channel: the greatest magnitude maps to 127.

    A channel of zeros can have any; it takes the largest of the layer, whose factor the fast kernels can apply (0: no weights).
    """
    axes = tuple(axis for axis in range(weights.ndim) if axis != channel_axis % weights.ndim)
    peaks = np.abs(weights).max(axis=axes)
    return tuple(float(np.float32(peak / 127)) for peak in np.where(peaks > 0, peaks, peaks.max(initial=0)))


def _quantize_op(graph: Graph, op: Op, tensors: dict[str, Tensor], constants: dict[str, Array]) -> Op:
    if isinstance(op, AddConstant):
        values = graph.constants[op.values]
        quant = quant_from_range(float(values.min()), float(values.max()))
        constants[op.values] = fixedpoint.quantize(values, quant.scale[0], quant.zero_point)
        return replace(op, values_quant=quant)
    if isinstance(op, Extend):
        own = quant_of(tensors[op.output])
        constants[op.values] = fixedpoint.quantize(graph.constants[op.values], own.scale[0], own.zero_point)
    if isinstance(op, Attention) and op.bias:
        queries, keys = (quant_of(tensors[name]).scale[0] for name in op.inputs[:2])
        constants[op.bias], step = quantized_bias(graph.constants[op.bias], queries * keys * op.scale)
        return replace(op, bias_step=step)
    if not isinstance(op, Weighted):
        return op
    axis = -1 if isinstance(op, DepthwiseConv) else 0
    weights, bias = graph.constants[op.weights].astype(np.float64), graph.constants[op.bias].astype(np.float64)
    input_scale = quant_of(tensors[op.inputs[0]]).scale[0]
    scales = tuple(_wide_enough(scale, input_scale, b) for scale, b in zip(weight_scales(weights, axis), bias, strict=True))
    along = np.array(scales) if axis == -1 else np.array(scales).reshape(-1, *[1] * (weights.ndim - 1))
    constants[op.weights] = np.clip(np.rint(weights / along), -127, 127).astype(np.int8)
    constants[op.bias] = np.rint(bias / (input_scale * np.array(scales))).astype(np.int32)
    if isinstance(op, TrecConv) and op.vectors:
        constants[op.vectors] = quantize_vectors(graph.constants[op.vectors])
    return replace(op, weight_scale=scales)


def quantize_vectors(vectors: Array) -> Array:
    """Returns hash vectors (blocks, L, H) as int8, each with a scale of its own that no sign depends on."""
    peaks = np.abs(vectors).max(axis=1, keepdims=True)
    return np.rint(vectors * (127 / np.where(peaks > 0, peaks, 1))).astype(np.int8)


def _wide_enough(scale: float, input_scale: float, bias: float) -> float:
    """Returns a weight scale with which the bias fits into 30 bits: a channel of tiny weights can have a large bias."""
    least = abs(bias) / (input_scale * (1 << 30))
    wide = float(np.float32(max(scale, least * (1 + 1e-6))))
    return wide if wide > LEAST_SCALE else 1.0
