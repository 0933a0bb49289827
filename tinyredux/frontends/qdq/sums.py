"""Operators with sums of products: convolutions, dense layers, average pools; and what is folded into them or stands for them.

A product or sum with a constant for each channel, and an average that changes the scale, are depthwise convolutions here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tinyredux.fixedpoint import INT32_MAX
from tinyredux.frontends.qdq.moves import as_map, rearranged
from tinyredux.frontends.qdq.values import Call, Constant, Limits, Pending, RefusedError, Stored, Sums, clamped, rescaled
from tinyredux.frontends.qdq.views import View, places, plain
from tinyredux.graph import Array, Conv, Dense, DepthwiseConv, Lookup, Op, Padding, Pool, Quant, Shape, dilated, window_outputs

LARGEST = 127  # of a weight that stands for a factor


def weights_of(call: Call, i: int, axis: int) -> tuple[Array, Array]:
    """Returns the int8 weights at a place and one scale per output channel, which lie along `axis`."""
    held = call.numbers(i, "weights")
    values, count = held.centred, held.stored.shape[axis]
    if held.scale is None or held.stored.dtype not in (np.int8, np.uint8):
        raise RefusedError(f"its weights are {held.stored.dtype} without scale, expected int8: quantise them, too")
    if values.min(initial=0) < -128 or values.max(initial=0) > 127:
        raise RefusedError("its weights less their zero point leave -128 .. 127; quantise them symmetrically (weight_type QInt8)")
    if held.scale.size not in (1, count) or (held.scale.size > 1 and held.axis % held.stored.ndim != axis % held.stored.ndim):
        raise RefusedError(
            f"its weights have {held.scale.size} scales along axis {held.axis}, expected 1, or {count} along {axis}"
        )
    return values.astype(np.int8), np.broadcast_to(held.scale.astype(np.float64), count)


def pending_sums(call: Call, sums: Sums, shape: Shape, view: View) -> Pending:
    """Returns sums of products that wait for their scale."""

    def finish(quant: Quant, limits: Limits) -> str:
        bias, source = sums.stored_bias, call.loader.quant(sums.source)
        if bias is None:
            units = np.rint(sums.bias / (source.scale[0] * sums.scale))
            if np.abs(units).max(initial=0) > INT32_MAX:
                raise RefusedError(f"its largest bias is {np.abs(units).max():.3g} products, more than 32 bits hold")
            bias = units.astype(np.int32)
        return call.loader.append(
            sums.kind, sums.operator, (sums.source,), quant, {"weights": np.ascontiguousarray(sums.weights), "bias": bias},
            weight_scale=tuple(map(float, sums.scale)), activation=clamped(call.loader, limits, quant), **sums.fields,
        )  # fmt: skip

    return Pending(shape, view, finish, sums=sums)


def _bias(call: Call, i: int, scale: Array, factor: float = 1.0) -> tuple[Array, Array | None]:
    """Returns the biases at a place in real units, and as they are stored where their scale is that of the products."""
    if not call.has(i):
        return np.zeros(len(scale)), np.zeros(len(scale), np.int32)
    held = call.numbers(i, "biases")
    products = call.loader.quant(call.stored(0, padded=True).tensor).scale[0] * scale
    if held.stored.dtype == np.int32 and held.stored.size == len(scale) and factor == 1:
        stored = held.centred.reshape(-1).astype(np.int32)
        if held.scale is None or np.allclose(np.broadcast_to(held.scale, len(scale)), products, rtol=1e-4, atol=0):
            return stored * products, stored
    if held.real.size not in (1, len(scale)):
        raise RefusedError(f"its biases have shape {held.stored.shape}, expected ({len(scale)},)")
    return np.broadcast_to(factor * held.real.reshape(-1), len(scale)), None


def _pair(call: Call, key: str, default: int) -> tuple[int, int]:
    """Returns an attribute of rows and columns; for a network of one dimension, `default` of its only row."""
    values = [int(one) for one in call.node.attributes.get(key) or [default] * (len(call.sizes()) - 2)]
    return (default, values[0]) if len(values) == 1 else (values[0], values[1])


def window(call: Call, kernel: tuple[int, int], shape: Shape, padding: Padding, is_pool: bool = False) -> dict[str, Any]:
    """Returns kernel, stride, dilation and padding of an operator with windows, with `padding` around what it reads."""
    given = call.node.attributes
    reach, dilation = dilated(kernel, _pair(call, "dilations", 1))
    stride, pads = _pair(call, "strides", 1), [int(one) for one in given.get("pads") or [0] * 4]
    before, after = ([0, *pads[:1]], [0, *pads[1:]]) if len(pads) == 2 else (pads[:2], pads[2:])
    before, after = ([own + side for own, side in zip(each, sides, strict=True)] for each, sides in (
        (before, padding[::2]), (after, padding[1::2])
    ))  # fmt: skip
    auto = given.get("auto_pad", "NOTSET")
    for axis in range(2):
        extent = shape[axis] + before[axis] + after[axis]
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            total = max(0, (-(-extent // stride[axis]) - 1) * stride[axis] + reach[axis] - extent)
            first = total // 2 if auto == "SAME_UPPER" else total - total // 2
            before[axis], after[axis] = before[axis] + first, after[axis] + total - first
        elif is_pool and given.get("ceil_mode"):
            count = -(-(extent - reach[axis]) // stride[axis]) + 1
            count -= (count - 1) * stride[axis] >= shape[axis] + before[axis]  # no window begins behind the last place
            after[axis] = max(after[axis], (count - 1) * stride[axis] + reach[axis] - shape[axis] - before[axis])
    padding = (before[0], after[0], before[1], after[1])
    return {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}


def seen_by(fields: dict[str, Any], shape: Shape, channels: int) -> Shape:
    """Returns the shape of what windows give. Raises where none fits."""
    top, bottom, left, right = fields["padding"]
    reach, _ = dilated(fields["kernel"], fields["dilation"])
    sides = zip(shape, reach, fields["stride"], ((top, bottom), (left, right)), strict=False)
    height, width = (window_outputs(size, kernel, stride, *pads) for size, kernel, stride, pads in sides)
    if min(height, width) < 1:
        raise RefusedError(f"its {reach} window does not fit into {shape[:2]}")
    return height, width, channels


def _stored_map(call: Call) -> Stored:
    """Returns the map that a call reads, stored, with channels first; zeros may lie around it."""
    source = as_map(call, call.stored(0, padded=True))
    assert isinstance(source, Stored)
    return source


def conv(call: Call) -> None:
    """Conv and QLinearConv."""
    source = _stored_map(call)
    weights, scale = weights_of(call, 1, 0)
    weights = weights[:, :, None] if weights.ndim == 3 else weights
    fields = window(call, (weights.shape[2], weights.shape[3]), call.loader.shape(source), source.padding)
    _write_conv(call, source, weights, scale, fields)


def conv_transpose(call: Call) -> None:
    """ConvTranspose: the map between zeros, then a convolution with the kernel turned round."""
    source, given, groups = _stored_map(call), call.node.attributes, int(call.node.attributes.get("group", 1))
    shape, (weights, scale) = call.loader.shape(source), weights_of(call, 1, 1)
    weights = weights[:, :, None] if weights.ndim == 3 else weights
    inputs, each, *kernel = weights.shape  # of a group, whose inputs come first
    weights = weights.reshape(groups, inputs // groups, each, *kernel).transpose(0, 2, 1, 3, 4)
    weights = weights.reshape(groups * each, inputs // groups, *kernel)[..., ::-1, ::-1]
    fields = window(call, (kernel[0], kernel[1]), shape, (0, 0, 0, 0))
    (reach, _), more, sides = dilated(fields["kernel"], fields["dilation"]), _pair(call, "output_padding", 0), list[int]()
    auto = given.get("auto_pad", "NOTSET")
    steps, asked = fields["stride"], _pair(call, "output_shape", 1) if given.get("output_shape") else None
    for axis in range(2):
        head, tail = fields["padding"][2 * axis : 2 * axis + 2]
        if asked or auto in ("SAME_UPPER", "SAME_LOWER"):
            less = (shape[axis] - 1) * steps[axis] + reach[axis] + more[axis]
            less -= asked[axis] if asked else shape[axis] * steps[axis]
            head = (max(0, less) + (auto != "SAME_UPPER")) // 2
            tail = less - head
        sides += [reach[axis] - 1 - head, reach[axis] - 1 - tail + more[axis]]
    if min(sides) < 0 or any(source.padding):
        raise RefusedError(f"it leaves out more than its {reach} window sees, or reads a map with zeros around it")
    if steps != (1, 1):
        wide = ((shape[0] - 1) * steps[0] + 1, (shape[1] - 1) * steps[1] + 1, shape[2])
        spread = rearranged(call, source, "between", wide, plain(wide, len(source.view)), repeat=steps, zeros=True)
        assert isinstance(spread, Stored)
        source = spread
    _write_conv(call, source, weights, np.tile(scale, groups), {**fields, "stride": (1, 1), "padding": tuple(sides)})


def _write_conv(call: Call, source: Stored, weights: Array, scale: Array, fields: dict[str, Any]) -> None:
    """Writes a convolution of a map by weights (O, I / groups, H, W)."""
    shape, groups = call.loader.shape(source), int(call.node.attributes.get("group", 1))
    bias, stored_bias = _bias(call, 2, scale)
    result = seen_by(fields, shape, len(weights))
    if groups == shape[2] > 1:
        kind: tuple[str, Callable[..., Op], int] = "depthwise", DepthwiseConv, 2
        held, fields["multiplier"] = weights[:, 0].transpose(1, 2, 0), len(weights) // groups
    else:
        kind, held, fields["groups"] = ("conv", Conv, 0), weights.transpose(0, 2, 3, 1), groups
    name, operator, axis = kind
    sums = Sums(name, operator, source.tensor, held, axis, scale, bias, stored_bias, fields)
    call.write(pending_sums(call, sums, result, plain(result, len(source.view))))


def dense(call: Call) -> None:
    """Gemm, QGemm, MatMul and QLinearMatMul by constant weights."""
    source, given = call.stored(), call.node.attributes
    alpha, beta = float(given.get("alpha", 1.0)), float(given.get("beta", 1.0))
    across = int(call.kind == "Gemm" and given.get("transB", 0))
    if call.kind == "Gemm" and given.get("transA", 0):
        raise RefusedError("it transposes what it reads (transA)")
    weights, scale = weights_of(call, 1, 0 if across else 1)
    weights, sizes = weights if across else weights.T, call.sizes()
    if weights.ndim != 2 or sizes[-1] != weights.shape[1] or max(sizes[:-1], default=1) > 1:
        raise RefusedError(f"it multiplies {sizes} by weights {weights.shape[::-1]}, expected one row, (1, {weights.shape[1]})")
    ordered = np.zeros_like(weights)
    ordered[:, places(source.view, call.loader.shape(source))] = weights
    scale = scale * alpha
    bias, stored_bias = _bias(call, 2, scale, beta)
    shape, sums = (1, 1, len(weights)), Sums("dense", Dense, source.tensor, ordered, 0, scale, bias, stored_bias, {})
    call.write(pending_sums(call, sums, shape, plain(shape, len(sizes)) if len(sizes) < 3 else _last(shape, len(sizes))))


def _last(shape: Shape, rank: int) -> View:
    return (*[()] * (rank - 1), *plain(shape, 1))


def average(call: Call) -> None:
    """Average pools and means over places. In another scale they are a depthwise convolution of ones, which rounds once, too."""
    source, given = _stored_map(call), call.node.attributes
    shape, sizes = call.loader.shape(source), call.sizes()
    padding, view = source.padding, None
    if call.kind == "AveragePool":
        kernel = [int(one) for one in given["kernel_shape"]]
        fields = window(call, (([1] * (2 - len(kernel))) + kernel)[:2], shape, padding, True)  # type: ignore[arg-type]
    else:
        axes, keep = set(range(2, len(sizes))), True
        if call.kind == "ReduceMean":
            held = call.integers(1, "axes") if call.has(1) else given.get("axes") or range(len(sizes))
            axes, keep = {int(axis) % len(sizes) for axis in held}, bool(given.get("keepdims", 1))
        if not axes or not axes <= set(range(2, len(sizes))):
            raise RefusedError(f"a mean over axes {sorted(axes)}, expected rows and columns")
        if any(padding):
            raise RefusedError("a mean over a padded map")
        kernel = [shape[i] if len(sizes) - 2 + i in axes else 1 for i in range(2)]
        fields = {"kernel": tuple(kernel), "stride": tuple(kernel), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
        result = seen_by(fields, shape, shape[2])
        view = tuple(axis for i, axis in enumerate(plain(result, len(sizes))) if keep or i not in axes)
    result = seen_by(fields, shape, shape[2])
    _write_average(call, source, fields, result, view or plain(result, len(sizes)))


def _write_average(call: Call, source: Stored, fields: dict[str, Any], result: Shape, view: View) -> None:
    height, width = fields["kernel"]
    shape, padded, ceiled = call.loader.shape(source), any(fields["padding"]), bool(call.node.attributes.get("ceil_mode"))
    counts = not padded or bool(call.node.attributes.get("count_include_pad")) or any(source.padding)
    if padded and counts and ceiled:
        raise RefusedError("an average that counts padding, with ceil_mode; expected count_include_pad 0")
    if (
        padded
        and any(source.padding)
        and not call.node.attributes.get("count_include_pad")
        and any(call.node.attributes.get("pads") or [0])
    ):
        raise RefusedError("an average over a padded map that pads again")

    def finish(quant: Quant, limits: Limits) -> str:
        same = quant == call.loader.quant(source.tensor)
        activation = clamped(call.loader, limits, quant)
        if not counts or (same and not padded):
            name = call.loader.append("pool", Pool, (source.tensor,), call.loader.quant(source.tensor), kind="average",
                                      activation=activation if same else "none", **fields)  # fmt: skip
            return rescaled(call.loader, name, quant, limits)
        ones = np.ones((height, width, shape[2]), np.int8)
        scale = (float(np.float32(1 / (height * width))),) * shape[2]
        return call.loader.append(
            "depthwise", DepthwiseConv, (source.tensor,), quant, {"weights": ones, "bias": np.zeros(shape[2], np.int32)},
            weight_scale=scale, activation=activation, **fields,
        )  # fmt: skip

    call.write(Pending(result, view, finish))


def affine(call: Call, source: Stored | Pending, factor: Array, constant: Array, exact: Constant | None = None) -> None:
    """factor * x + constant, each one number, or one for each channel; folded into sums that wait, else an operator of its own.

    `exact` holds the factors as the network stores them.
    """
    shape = call.loader.shape(source)
    factors, constants = (_by_channel(source.view, shape, each) for each in (factor, constant))
    if isinstance(source, Pending):
        call.write(_folded(call, source, factors, constants))
        return
    if factors.size == constants.size == 1:
        parameters = (float(factors.reshape(-1)[0]), float(constants.reshape(-1)[0]))
        call.write(of_one_value(call, source, "affine", parameters))
        return
    count = shape[2]
    factors, constants = np.broadcast_to(factors, count), np.broadcast_to(constants, count)
    weights, scale = np.sign(factors) * LARGEST, np.where(factors == 0, 1.0, np.abs(factors)) / LARGEST
    if exact is not None and exact.scale is not None and np.abs(exact.centred).max() <= LARGEST and exact.scale.size == 1:
        weights = np.broadcast_to(_by_channel(source.view, shape, exact.centred), count)
        scale = np.full(count, float(exact.scale.reshape(-1)[0]))
    sums = Sums(
        "depthwise", DepthwiseConv, source.tensor, weights.reshape(1, 1, -1).astype(np.int8), 2, scale, constants, None, {}
    )
    call.write(pending_sums(call, sums, shape, source.view))


def _folded(call: Call, source: Pending, factors: Array, constants: Array) -> Pending:
    """Sums of products times factors, plus constants; a factor of 0 leaves the channel's constant."""
    sums = source.sums
    if sums is None or source.limits != (-np.inf, np.inf):
        raise RefusedError("what it reads has no scale; expected QuantizeLinear and DequantizeLinear before it")
    count = len(sums.scale)
    factors, constants = np.broadcast_to(factors, count), np.broadcast_to(constants, count)
    signs = np.sign(factors).astype(np.int8).reshape([-1 if i == sums.channel_axis else 1 for i in range(sums.weights.ndim)])
    flipped = sums.weights * signs
    if (flipped.astype(np.int64) != sums.weights.astype(np.int64) * signs).any():  # -128 has no counterpart
        raise RefusedError("a factor below 0 turns a weight of -128; quantise weights to -127 .. 127")
    scale = sums.scale * np.where(factors == 0, 1.0, np.abs(factors))
    kept = sums.stored_bias if (factors == 1).all() and not constants.any() else None
    changed = replace(sums, weights=flipped, scale=scale, bias=sums.bias * factors + constants, stored_bias=kept)
    return pending_sums(call, changed, source.shape, source.view)


def _by_channel(view: View, shape: Shape, numbers: Array) -> Array:
    """Returns the numbers of a constant beside a map: one, or one for each channel, (C,)."""
    if numbers.size == 1:
        return numbers.reshape(())
    along = [i for i, size in enumerate(numbers.shape) if size > 1]
    axis = along[0] - numbers.ndim + len(view)
    if len(along) > 1 or axis < 0 or view[axis] != (("c", 1, shape[2]),) or numbers.size != shape[2]:
        raise RefusedError(f"a constant of shape {numbers.shape}, expected one number, or one for each channel")
    return numbers.reshape(-1)


def of_one_value(call: Call, source: Stored, function: str, parameters: tuple[float, ...] = ()) -> Pending:
    """Returns a function of each value that waits for its scale."""

    def finish(quant: Quant, limits: Limits) -> str:
        name = call.loader.append(function, Lookup, (source.tensor,), quant, function=function, parameters=parameters, even=True)
        return rescaled(call.loader, name, quant, limits)

    return Pending(call.loader.shape(source), source.view, finish, function=(source.tensor, function, parameters))
