"""Runs any Graph in NumPy, on a batch of images: float, or int8 to the bit. C is right when it gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyredux import fixedpoint
from tinyredux.graph import (
    ACTIVATIONS,
    Add,
    AddConstant,
    Array,
    Attention,
    Bilinear,
    Concat,
    Conv,
    Convolution,
    Dense,
    DepthwiseConv,
    Extend,
    Graph,
    LayerNorm,
    Lookup,
    MatMul,
    Mul,
    Op,
    Padding,
    Pair,
    Pool,
    Rearrange,
    Recall,
    Relu,
    Softmax,
    TrecConv,
    Weighted,
    apart,
    apply,
    joined,
)
from tinyredux.int8 import bilinear
from tinyredux.int8.factors import (
    Requantization,
    add_params,
    clamp_for,
    mean_params,
    mul_params,
    quant_of,
    requantization,
    softmax_params,
)
from tinyredux.int8.lookup import table_of
from tinyredux.int8.tokens import attended, attended_int8, extended, multiplied, normalized, normalized_int8
from tinyredux.trec import clustered_sums

Batch = npt.NDArray[Any]  # (N, H, W, C)
Counts = dict[str, list[Batch]]  # operator -> clusters of each part of the batch, (N, blocks)
CHUNK = 8  # images at a time, so that what an operator touches stays in the processor's cache


def run(graph: Graph, images: Batch) -> Any:
    """Returns the network's output (N, H, W, C) for images (N, H, W, C) of the input tensor's dtype; a tuple of several."""
    return apart(run_joined(graph, images), [tensor.shape for tensor in graph.results])


def run_joined(graph: Graph, images: Batch) -> Batch:
    """Returns what `run` does as one array: several outputs (N, 1, 1, values), one after the other, as a target gives them."""
    shape = graph.input.shape
    if images.shape[1:] != shape or images.dtype != graph.input.dtype:
        raise ValueError(f"{graph.name} takes {graph.input.dtype} images (N, {shape}), found {images.dtype} {images.shape}")
    return run_counted(graph, images)[0]


def run_all(
    graph: Graph, images: Batch, clusters: Counts | None = None, states: Mapping[str, Batch] | None = None
) -> dict[str, Batch]:
    """Returns every tensor of the network by name, each (N, H, W, C); adds to `clusters` those of each TrecConv, (N, blocks).

    `states` has what the last run left in `graph.states`, each (N, H, W, C). Raises ValueError where it is missing.
    """
    values: dict[str, Batch] = {graph.inputs[0]: images}
    if graph.states and states is None:
        raise ValueError(f"{graph.name} keeps rows from run to run; run it by tinyredux.streaming, push after push")
    for op in graph.ops:
        kept = [states[op.state]] if states is not None and isinstance(op, Recall) else []
        values[op.output] = run_op(graph, op, [*(values[name] for name in op.inputs), *kept], clusters)
    return values


def run_counted(graph: Graph, images: Batch) -> tuple[Batch, dict[str, Batch]]:
    """Returns what `run_joined` does for images (N, H, W, C), and the clusters of every TrecConv, each (N, blocks)."""
    clusters: Counts = {}
    chunks = (images[i : i + CHUNK] for i in range(0, len(images), CHUNK))
    parts = [joined(run_all(graph, chunk, clusters), graph.outputs) for chunk in chunks]
    return np.concatenate(parts), {name: np.concatenate(found) for name, found in clusters.items()}


def run_op(graph: Graph, op: Op, inputs: list[Batch], clusters: Counts | None = None) -> Batch:
    """Returns one operator's output for its inputs, each (N, H, W, C), a Recall's state last; `clusters` as for `run_all`."""
    if isinstance(op, Concat):
        return np.concatenate(inputs, axis=3)
    if isinstance(op, Recall):
        *above, last, kept = inputs
        return np.concatenate([*above, kept, last], axis=1)
    int8 = graph.tensors[op.output].dtype == "int8"
    if isinstance(op, Rearrange):
        return rearranged(op, inputs[0], quant_of(graph.tensors[op.output]).zero_point if int8 else 0)
    if isinstance(op, Bilinear):
        return bilinear.interpolated(graph, op, inputs[0])
    return _run_int8(graph, op, inputs, clusters) if int8 else _run_float(graph, op, inputs, clusters)


def as_maps(graph: Graph, images: npt.NDArray[Any], what: str = "images") -> npt.NDArray[Any]:
    """Returns images (N, C, H, W), or (N, C, L) for a network whose maps have a height of 1, as (N, C, H, W).

    Raises ValueError for images of another shape or none at all; `what` is what they are called.
    """
    height, width, channels = graph.input.shape
    maps = images[:, :, None] if np.ndim(images) == 3 and height == 1 else images
    if np.ndim(maps) != 4 or maps.shape[1:] != (channels, height, width) or not len(maps):
        expected = f"(N, {channels}, {height}, {width})" + (f" or (N, {channels}, {width})" if height == 1 else "")
        raise ValueError(f"{what} have shape {np.shape(images)}, {graph.name} takes {expected}, N >= 1")
    return maps


def quantize_input(graph: Graph, images: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """Returns int8 images (N, H, W, C) for float images (N, C, H, W) or (N, C, L), with the input tensor's scale."""
    quant = quant_of(graph.input)
    return fixedpoint.quantize(as_maps(graph, images).transpose(0, 2, 3, 1), quant.scale[0], quant.zero_point)


def windows(images: Batch, kernel: Pair, stride: Pair, padding: Padding, fill: float, dilation: Pair = (1, 1)) -> Batch:
    """Returns (N, out_h, out_w, kernel_h, kernel_w, C): what each output position sees."""
    top, bottom, left, right = padding
    padded = np.pad(images, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    spans = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True))
    seen = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(1, 2))
    taken = seen[:, :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]]
    return np.asarray(taken.transpose(0, 1, 2, 4, 5, 3))


def accumulate(graph: Graph, op: Weighted, images: Batch, clusters: Counts | None = None) -> Batch:
    """Returns the sums of products before bias, (N, out_h, out_w, out_c), in floating point, which is exact for int8; stored
    inputs have their zero point taken off. `clusters` as for `run_all`."""
    weights = graph.constants[op.weights]
    kind = _exact_type(op, images, weights)
    images, weights = np.asarray(images, kind), weights.astype(kind)
    if isinstance(op, Dense):
        return np.asarray(images.reshape(len(images), -1) @ weights.T).reshape(len(images), 1, 1, -1)
    assert isinstance(op, Convolution)
    seen = windows(images, op.kernel, op.stride, op.padding, 0, op.dilation)
    match op:
        case DepthwiseConv():
            filters = weights.reshape(*op.kernel, images.shape[3], op.multiplier)
            sums = np.einsum("nhwyxc,yxcm->nhwcm", seen, filters, optimize=True)
            return np.asarray(sums.reshape(*sums.shape[:3], -1))
        case TrecConv():
            found = clustered_sums(graph, op, seen.reshape(len(images), -1, weights[0].size), weights.reshape(len(weights), -1))
            if clusters is not None:
                clusters.setdefault(op.name, []).append(found.clusters)
            return np.asarray(found.sums.reshape(len(images), *graph.tensors[op.output].shape))
        case Conv():
            parts = zip(np.split(seen, op.groups, axis=5), np.split(weights, op.groups), strict=True)
            columns = [(part.reshape(*seen.shape[:3], -1), rows.reshape(len(rows), -1)) for part, rows in parts]
            return np.concatenate([part @ rows.T for part, rows in columns], axis=3)
    raise ValueError(f"{op.name}: the interpreter has no {type(op).__name__}")


def _exact_type(op: Weighted, images: Batch, weights: Array) -> type[np.floating[Any]]:
    """Returns float32 where every partial sum of integers stays below 2^24, so that none is rounded; else float64."""
    if weights.dtype != np.int8 or not images.size or (isinstance(op, TrecConv) and op.vectors):
        return np.float64
    axes = (0, 1) if isinstance(op, DepthwiseConv) else tuple(range(1, weights.ndim))
    largest = int(np.abs(weights.astype(np.int64)).sum(axis=axes).max()) * int(np.abs(images).max())
    return np.float32 if largest < 1 << 24 else np.float64


def requantize(sums: Batch, bias: Array, params: Requantization) -> npt.NDArray[np.int8]:
    """Returns int8 outputs for accumulators (..., out_c)."""
    accumulators = fixedpoint.wrap_int32(sums.astype(np.int64) + bias)
    if params.single:
        scaled = fixedpoint.scale_once(accumulators, np.array(params.multiplier, np.int32).view(np.float32))
    else:
        scaled = fixedpoint.multiply_by_quantized_multiplier(accumulators, np.array(params.multiplier), np.array(params.shift))
    return fixedpoint.clamp_int8(scaled + params.output_zero_point, params.clamp.low, params.clamp.high)


def _run_int8(graph: Graph, op: Op, inputs: list[Batch], clusters: Counts | None) -> Batch:
    images = inputs[0]
    match op:
        case Weighted():
            params = requantization(graph, op)
            centred = images.astype(np.int16) - params.input_zero_point
            return requantize(accumulate(graph, op, centred, clusters), graph.constants[op.bias], params)
        case Pool(kind="mean"):
            return _mean_int8(graph, op, images)
        case Pool() | Relu():
            clamp = clamp_for(graph, op)
            values = _pool(op, images) if isinstance(op, Pool) else images
            return fixedpoint.clamp_int8(values, clamp.low, clamp.high)
        case Add():
            return _add_int8(graph, op, inputs)
        case Mul():
            zero_points = [quant_of(graph.tensors[name]).zero_point for name in op.inputs]
            left, right = (values.astype(np.int64) - point for values, point in zip(inputs, zero_points, strict=True))
            return requantize(left * right, np.zeros(1, np.int64), mul_params(graph, op))
        case Lookup():
            return table_of(graph, op)[images.view(np.uint8)]
        case Softmax():
            return _softmax_int8(graph, op, images)
        case LayerNorm():
            return normalized_int8(graph, op, images)
        case Attention():
            return attended_int8(graph, op, inputs)
        case Extend():
            return extended(op, images, graph.constants[op.values])
        case MatMul():
            points = [quant_of(graph.tensors[name]).zero_point for name in op.inputs]
            reals = [values.astype(np.float64) - point for values, point in zip(inputs, points, strict=True)]  # exact
            return requantize(multiplied(op, *reals), np.zeros(1, np.int64), mul_params(graph, op))
        case AddConstant():
            return _add_int8(graph, op, [images, graph.constants[op.values]])
    raise ValueError(f"{op.name}: the interpreter has no int8 {type(op).__name__}")


def rearranged(op: Rearrange, images: Batch, zero: int) -> Batch:
    """Returns values (N, H, W, C) at the places of a Rearrange; `zero` stands between those that it moves apart."""
    at, within, channel = [], [], np.arange(op.channels)
    for axis in (0, 1):
        turns = np.arange(op.size[axis]) + op.phase[axis]
        at.append(op.start[axis] + turns // op.repeat[axis] * op.step[axis])
        within.append(turns % op.repeat[axis])
    rows, columns, own = np.ix_(at[0], at[1], channel % op.groups * (op.channels // op.groups) + channel // op.groups)
    row, column, _ = np.ix_(within[0], within[1], channel)
    own = own * op.repeat[0] * op.repeat[1] + row * op.repeat[1] + column if op.blocks else own
    values = images[:, rows, columns, op.first_channel + own]
    return np.where((row > 0) | (column > 0), np.asarray(zero, images.dtype), values) if op.zeros else values


def _pool(op: Pool, images: Batch) -> Batch:
    """Returns the maxima, or the means of what each window covers beside padding; of integers, rounded halves away from zero."""
    integer = images.dtype == np.int8
    if op.kind == "max":
        lowest = -128 if integer else -np.inf
        return np.asarray(windows(images, op.kernel, op.stride, op.padding, lowest, op.dilation).max(axis=(3, 4)))
    ones = np.ones((1, *images.shape[1:3], 1), np.int64)
    sums, count = (windows(each, op.kernel, op.stride, op.padding, 0, op.dilation).sum(axis=(3, 4)) for each in (images, ones))
    return fixedpoint.divide_half_away(sums, count) if integer else np.asarray(sums / count)


def _mean_int8(graph: Graph, op: Pool, images: Batch) -> Batch:
    """Returns the means of whole windows in the output's own scale."""
    params, totals = (
        mean_params(graph, op),
        windows(images.astype(np.int64), op.kernel, op.stride, op.padding, 0).sum(axis=(3, 4)),
    )
    if graph.rounding == "single":
        factor, constant = np.array([params.multiplier, params.correction], np.int32).view(np.float32)
        return fixedpoint.clamp_int8(fixedpoint.mean_once(totals, factor, constant))
    scaled = fixedpoint.multiply_by_quantized_multiplier(totals - params.correction, params.multiplier, params.shift)
    return fixedpoint.clamp_int8(scaled + params.zero_point)


def _add_int8(graph: Graph, op: Add | AddConstant, inputs: list[Batch]) -> Batch:
    params = add_params(graph, op)
    if params.single:
        centred = [values.astype(np.int64) - zero_point for values, zero_point in zip(inputs, params.zero_points, strict=True)]
        sums = centred[0] * params.multipliers[0] + centred[1] * params.multipliers[1]
        once = (sums + (1 << (-params.output_shift - 1))) >> -params.output_shift
        return fixedpoint.clamp_int8(once + params.output_zero_point, params.clamp.low, params.clamp.high)
    total = np.zeros(inputs[0].shape, np.int64)
    signs = (1, -1 if op.subtract else 1)
    rows = zip(inputs, signs, params.zero_points, params.multipliers, params.shifts, strict=True)
    for values, sign, zero_point, multiplier, shift in rows:
        fine = (values.astype(np.int64) - zero_point) << 20
        total += sign * fixedpoint.multiply_by_quantized_multiplier(fine, multiplier, shift)
    scaled = fixedpoint.multiply_by_quantized_multiplier(total, params.output_multiplier, params.output_shift)
    return fixedpoint.clamp_int8(scaled + params.output_zero_point, params.clamp.low, params.clamp.high)


def _softmax_int8(graph: Graph, op: Softmax, images: Batch) -> Batch:
    params = softmax_params(graph, op)
    diff = images.astype(np.int64) - images.max(axis=3, keepdims=True)
    if graph.rounding == "single":
        return fixedpoint.single_softmax(-diff, fixedpoint.single_exps(quant_of(graph.tensors[op.inputs[0]]).scale[0]))
    scaled = fixedpoint.saturating_rounding_doubling_high_mul(diff << params.shift, params.multiplier)
    exps = np.where(diff >= params.diff_min, fixedpoint.exp_on_negative_values(np.maximum(scaled, -(2**31)), 5), 0)
    sums = fixedpoint.rounding_divide_by_power_of_two(exps, 12).sum(axis=3, keepdims=True)
    headroom = 31 - np.floor(np.log2(sums)).astype(np.int64)
    reciprocal = fixedpoint.one_over_one_plus((sums << headroom) - (1 << 31))
    product = fixedpoint.saturating_rounding_doubling_high_mul(reciprocal, exps)
    output = fixedpoint.rounding_divide_by_power_of_two(product, 12 - headroom + 31 - 8) - 128
    return fixedpoint.clamp_int8(np.where(diff >= params.diff_min, output, -128))


def _run_float(graph: Graph, op: Op, inputs: list[Batch], clusters: Counts | None) -> Batch:
    images = inputs[0]
    match op:
        case Weighted():
            result = accumulate(graph, op, images, clusters) + graph.constants[op.bias]
        case Pool():
            result = _pool(op, images)
        case Add():
            result = inputs[0] - inputs[1] if op.subtract else inputs[0] + inputs[1]
        case Mul():
            result = inputs[0] * inputs[1]
        case Lookup():
            result = apply(op.function, op.parameters, images)
        case Softmax():
            powers = np.exp(images - images.max(axis=3, keepdims=True))
            result = powers / powers.sum(axis=3, keepdims=True)
        case LayerNorm():
            result = normalized(op, images)
        case Attention():
            result = attended(graph, op, inputs)
        case Extend():
            result = extended(op, images, graph.constants[op.values])
        case MatMul():
            result = multiplied(op, *inputs) * op.scale
        case AddConstant():
            result = images + graph.constants[op.values] * (-1 if op.subtract else 1)
        case _:
            result = images
    low, high = ACTIVATIONS[getattr(op, "activation", "none")]
    return np.asarray(np.clip(result, low, high), np.float32)
