"""One function per torch operator: what it becomes in a Graph, or why it cannot."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import fx

from tinyredux.frontends import moves
from tinyredux.frontends.builder import Builder, Call, arguments, pair, refuse
from tinyredux.graph import (
    ACTIVATIONS,
    Add,
    Array,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Lookup,
    Mul,
    Pool,
    Relu,
    Softmax,
    TrecConv,
    Weighted,
    dilated,
)

LIMITS: dict[str, dict[str, float | None]] = {  # lowest and highest value: what torch calls them, and the defaults
    "relu": {"min": 0.0, "max": None}, "relu6": {"min": 0.0, "max": 6.0}, "hardtanh": {"min_val": -1.0, "max_val": 1.0},
}  # fmt: skip
UNARY: dict[str, tuple[str, dict[str, Any]]] = {  # torch's function of one value: ours, and torch's names of its parameters
    **{name: (name, {}) for name in ("sigmoid", "tanh", "hardsigmoid", "hardswish", "silu", "mish", "abs", "exp", "square")},
    "leaky_relu": ("leaky_relu", {"negative_slope": 0.01}), "softplus": ("softplus", {"beta": 1.0}),
    "elu": ("elu", {"alpha": 1.0, "scale": 1.0, "input_scale": 1.0}),
}  # fmt: skip


def flatten(call: Call) -> None:
    """Takes a reshape as a remark on the tensor: the next Linear orders its weights by it.

    Torch may see a map as (1, C, H, W), as (1, C, H * W) or flat as (1, C * H * W); here it stays a map.
    """
    height, width, channels = call.tensor.shape
    dense = call.builder.graph.producer(call.tensor.name)
    if len(call.shape) == 4 > len(call.source_shape) and call.shape[2:] != (1, 1) and isinstance(dense, Dense):
        moves.unflatten(call, dense)
        return
    if call.shape not in ((1, channels, height, width), (1, channels, height * width), (1, height * width * channels)):
        if call.shape[0] != 1:
            raise refuse(call.node, f"reshape of {call.source_shape} to {call.shape}", "flatten to (1, features)")
        moves.turn(call)
    call.alias(call.source)


def _conv2d(call: Call) -> None:
    weight, bias, stride, padding, dilation, groups = arguments(
        call.node, weight=None, bias=None, stride=1, padding=0, dilation=1, groups=1
    )
    weights = moves.as_planes(call.constant(weight))
    kernel = pair(weights.shape[2:])
    (height, width), holes = dilated(kernel, pair(dilation))
    before = after = (0, 0)
    if padding == "same":
        before, after = ((height - 1) // 2, (width - 1) // 2), (height // 2, width // 2)
    elif padding != "valid":
        before = after = pair(padding)
    window: dict[str, Any] = {"kernel": kernel, "stride": pair(stride), "dilation": holes, "padding": call.padded(before, after)}
    if groups == call.tensor.shape[2] and groups > 1:
        multiplier = len(weights) // groups
        weights = weights[:, 0].transpose(1, 2, 0)
        call.emit_weighted("depthwise", DepthwiseConv, weights, call.constant(bias), **window, multiplier=multiplier)
    else:
        call.emit_weighted("conv", Conv, weights.transpose(0, 2, 3, 1), call.constant(bias), **window, groups=groups)


def trec_conv(call: Call, reads: list[str] | None = None) -> None:
    """A convolution that clusters, of the node's own operand or of `reads`."""
    names = ("weight", "bias", "vectors", "stride", "padding", "sub_length", "hash_bits", "threshold")
    weight, bias, vectors, stride, padding, length, bits, threshold = arguments(call.node, **dict.fromkeys(names))
    weights = call.constant(weight).transpose(0, 2, 3, 1)
    own = None if vectors is None else call.constant(vectors)
    if own is not None:
        own = own.reshape(-1, *own.shape[-2:])  # one set may come without its axis
    call.emit_weighted(
        "trec", TrecConv, weights, call.constant(bias), own, kernel=pair(weights.shape[1:3]), stride=pair(stride),
        padding=call.padded(pair(padding), pair(padding)), sub_length=length, hash_bits=bits, threshold=threshold,
        reads=reads,
    )  # fmt: skip


def _linear(call: Call) -> None:
    weight, bias = arguments(call.node, weight=None, bias=None)
    if len(call.source_shape) != 2:
        raise refuse(call.node, f"Linear on a tensor of shape {call.source_shape}", "flatten before Linear, or a 1x1 Conv2d")
    height, width, channels = call.tensor.shape
    weights = call.constant(weight)
    by_place = weights.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(weights), -1)
    call.emit_weighted("dense", Dense, by_place, call.constant(bias))


def _batch_norm(call: Call) -> None:
    gamma, beta, running_mean, running_var, training, epsilon = arguments(
        call.node, weight=None, bias=None, running_mean=None, running_var=None, training=False, eps=1e-5
    )
    if running_mean is None:
        raise refuse(call.node, "batch norm without running statistics", "track_running_stats=True")
    if training:
        raise refuse(call.node, "batch norm with the statistics of the images (training=True)", "training=self.training")
    if call.builder.holds_flat_map(call.source):
        raise refuse(call.node, "batch norm of a flattened map", "nn.BatchNorm2d before flatten")
    factor = call.constant(gamma, 1.0) / np.sqrt(call.constant(running_var) + epsilon)
    scale(call, factor, call.constant(beta) - call.constant(running_mean) * factor)


def scale(call: Call, factor: Array, shift: Array, source: fx.Node | None = None) -> None:
    """Multiplies each channel by a factor and adds to it, (C,) or one for all: within the layer before where that is possible."""
    source = source or call.source
    producer, constants = call.builder.sole_producer(source), call.builder.graph.constants
    if isinstance(producer, Weighted) and producer.activation == "none":
        weights = constants[producer.weights]
        whole = isinstance(producer, DepthwiseConv) or factor.size == 1
        along = factor if whole else factor.reshape(-1, *[1] * (weights.ndim - 1))
        constants[producer.weights] = weights * along
        constants[producer.bias] = constants[producer.bias] * factor + shift
        call.alias(source)
    elif factor.size == shift.size == 1:
        call.emit("affine", Lookup, reads=[source], function="affine", parameters=(float(factor.item()), float(shift.item())))
    else:
        channels = call.builder.graph.tensors[call.builder.value[source.name]].shape[2]
        factor = np.broadcast_to(factor, channels).reshape(1, 1, -1)
        call.emit_weighted("depthwise", DepthwiseConv, factor, shift, reads=[source])


def _relu(call: Call) -> None:
    low, high = arguments(call.node, **LIMITS.get(call.kind, {"min": None, "max": None}))
    if isinstance(low, fx.Node) or isinstance(high, fx.Node):
        raise refuse(call.node, "a clamp to a tensor", "nn.ReLU or nn.ReLU6")
    low, high = (-float("inf") if low is None else float(low)), (float("inf") if high is None else float(high))
    activation = next((name for name, limits in ACTIVATIONS.items() if limits == (low, high)), None)
    if activation is None:
        call.emit("clamp", Lookup, function="clamp", parameters=(low, high))
        return
    builder = call.builder
    if makers := _makers(builder, call.tensor.name):
        ops = [replace(op, activation=activation) if op.name in makers else op for op in builder.graph.ops]  # type: ignore[call-arg]
        builder.graph = builder.graph.with_ops(ops)
        call.alias(call.source)
    else:
        call.emit("relu", Relu, activation=activation)


def _unary(call: Call) -> None:
    function, parameters = UNARY[call.kind]
    call.emit(function, Lookup, function=function, parameters=tuple(map(float, arguments(call.node, **parameters))))


def _glu(call: Call) -> None:
    """One half of the channels times the sigmoid of the other."""
    axis, half = arguments(call.node, dim=-1)[0] % len(call.shape), call.tensor.shape[2] // 2
    if axis != 1:
        raise refuse(call.node, f"glu along dimension {axis}", "glu(x, dim=1), of channels")
    moves.take(call, 1, 0, half)
    first = call.builder.value[call.node.name]
    moves.take(call, 1, half, half)
    call.emit("sigmoid", Lookup, reads=[call.node], function="sigmoid")
    call.emit("mul", Mul, reads=[first, call.node])


def _gelu(call: Call) -> None:
    function = {"none": "gelu", "tanh": "gelu_tanh"}[arguments(call.node, approximate="none")[0]]
    call.emit(function, Lookup, function=function)


def _celu(call: Call) -> None:
    (alpha,) = map(float, arguments(call.node, alpha=1.0))
    call.emit("elu", Lookup, function="elu", parameters=(alpha, 1.0, 1 / alpha))


def _selu(call: Call) -> None:
    call.emit("elu", Lookup, function="elu", parameters=(1.6732632423543772, 1.0507009873554805, 1.0))  # Klambauer et al. 2017


def _prelu(call: Call) -> None:
    (weight,) = arguments(call.node, weight=None)
    slope = call.constant(weight)
    if np.unique(slope).size != 1:
        raise refuse(call.node, "PReLU with a slope for each channel", "nn.PReLU(1), nn.LeakyReLU")
    call.emit("leaky_relu", Lookup, function="leaky_relu", parameters=(float(slope.flat[0]),))


def _makers(builder: Builder, tensor: str) -> set[str]:
    """Returns the operators into which a ReLU behind a tensor can move, through max pools and concats; none if it cannot.

    Nothing else may read what they write. A ReLU before a max pool gives the same values and a tighter range to quantise.
    """
    op = builder.graph.producer(tensor)
    if op is None or builder.readers(tensor) != 1:
        return set()
    if isinstance(op, Concat):
        parts = [_makers(builder, name) for name in op.inputs]
        return set[str]().union(*parts) if all(parts) else set()
    if getattr(op, "activation", "") != "none":
        return set()
    before = _makers(builder, op.inputs[0]) if isinstance(op, Pool) and op.kind == "max" else set()
    return before or {op.name}


def _pool(call: Call) -> None:
    kind = "max" if call.kind.startswith("max") else "average"
    kernel, stride, padding, dilation, counts, divisor = arguments(
        call.node, kernel_size=None, stride=None, padding=0, dilation=1, count_include_pad=kind == "average",
        divisor_override=None,
    )  # fmt: skip
    if divisor is not None:
        raise refuse(call.node, "average pooling with divisor_override", "the window's own size as divisor")
    kernel = pair(kernel)
    reach, holes = dilated(kernel, pair(dilation))
    stride, (top, left) = pair(stride) if stride else kernel, pair(padding)
    places = zip(call.shape[2:], stride, reach, call.tensor.shape[:2], (top, left), strict=True)
    bottom, right = (max(before, (count - 1) * step + size - extent - before) for count, step, size, extent, before in places)
    if not counts or not (top or left):
        call.emit(f"{kind}pool", Pool, kind, kernel, stride, (top, bottom, left, right), dilation=holes)
    elif (bottom, right) != (top, left):
        raise refuse(call.node, "average pooling that counts padding, with ceil_mode", "count_include_pad=False")
    else:  # a depthwise convolution with equal weights
        equal, sides = np.full((*kernel, call.tensor.shape[2]), 1 / (kernel[0] * kernel[1])), (top, top, left, left)
        call.emit_weighted("depthwise", DepthwiseConv, equal, np.zeros(()), kernel=kernel, stride=stride, padding=sides)


def _adaptive(call: Call) -> None:
    kind, size, whole = "max" if "max" in call.kind else "average", call.shape[2:], call.tensor.shape[:2]
    if whole[0] % size[0] or whole[1] % size[1]:
        raise refuse(call.node, f"adaptive pooling of {whole} to {tuple(size)}", "an output size that divides the input's")
    kernel = (whole[0] // size[0], whole[1] // size[1])
    call.emit(f"{kind}pool", Pool, kind, kernel, kernel)


def _reduce(call: Call) -> None:
    """A mean, sum or maximum over height, width or both is a pool as large as the map; a mean over channels a 1x1 convolution."""
    (axes,) = arguments(call.node, dim=None)
    rank = len(call.source_shape)
    axes = [axis % rank for axis in ([axes] if isinstance(axes, int) else axes or range(rank))]
    if rank < 2 or 0 in axes or (1 in axes and call.kind == "amax"):
        name, instead = (
            ("maximum", "of rows and columns") if call.kind == "amax" else (call.kind, "of channels, rows and columns")
        )
        raise refuse(call.node, f"a {name} over dimensions {axes}", f"one {instead} of each image, such as dim=(2, 3)")
    height, width, channels = call.tensor.shape
    kernel = (height if rank < 4 or 2 in axes else 1, width if rank < 4 or 3 in axes else 1)
    kind, reads = "max" if call.kind == "amax" else "average", call.source
    if axes != [1] or rank == 2:
        call.emit(f"{kind}pool", Pool, kind, kernel, kernel)
        reads = call.node
    if 1 in axes:
        call.emit_weighted("conv", Conv, np.full((1, 1, 1, channels), 1 / channels), np.zeros(()), reads=[reads])
        call.note_rows()
    if call.kind == "sum":
        count = math.prod(call.source_shape[axis] for axis in axes)
        scale(call, np.asarray(float(count)), np.zeros(()), call.node)


def _add(call: Call) -> None:
    left, right, alpha = arguments(call.node, **{"self": None, "other": None, "alpha": 1})
    operands = call.activations((left, right))
    sign = alpha if call.kind == "add" else -alpha
    if call.kind == "rsub":  # the first is subtracted from the second
        left, right, operands, sign = right, left, operands[::-1], -alpha
    if len(operands) == 1:
        _add_constant(call, left, right, sign)
        return
    if sign not in (1, -1) or (call.kind == "rsub" and alpha != 1):
        raise refuse(call.node, "adding a scaled tensor", "an addition of two activations")
    shapes = [tuple(arg.meta["val"].shape) for arg in operands]
    if shapes[0] != shapes[1]:
        instead = "an addition of equal shapes; there is no broadcasting"
        raise refuse(call.node, f"adding tensors of shapes {shapes[0]} and {shapes[1]}", instead)
    call.emit("add" if sign == 1 else "sub", Add, reads=operands, subtract=sign == -1)


def _add_constant(call: Call, left: Any, right: Any, sign: float) -> None:
    """Adds numbers to an activation, or subtracts it from them."""
    first = bool(call.activations((left,)))
    operand, constant = left if first else right, _numbers(call, *((right, left) if first else (left, right)))
    times = np.asarray(float(1 if first else sign))
    constant = constant * (sign if first else 1)
    if not constant.any() and times == 1:  # where Python's sum() starts
        call.alias(operand)
    elif (by_channel := _by_channel(call, constant, operand)) is not None:
        scale(call, times, by_channel, operand)
    else:
        if times != 1:
            scale(call, times, np.zeros(()), operand)
        height, width, channels = call.builder.graph.tensors[call.builder.value[operand.name]].shape
        values = np.broadcast_to(constant, call.shape).reshape(channels, height, width).transpose(1, 2, 0)
        moves.add_map(call, call.node if times != 1 else operand, values)


def _numbers(call: Call, value: Any, operand: fx.Node) -> Array:
    """Returns the numbers of a constant beside an operand, which has its shape afterwards."""
    constant = call.constant(value) if isinstance(value, fx.Node) else np.asarray(float(value))
    if tuple(operand.meta["val"].shape) != tuple(call.shape):
        what = f"{call.kind} of shape {tuple(operand.meta['val'].shape)} with a constant of shape {constant.shape}"
        raise refuse(call.node, what, "a constant that does not make the tensor larger")
    return constant


def _by_channel(call: Call, constant: Array, operand: fx.Node) -> Array | None:
    """Returns a constant beside an operand as one number, or one for each channel, (C,); None for another."""
    if constant.size == 1:
        return constant.reshape(())
    wanted = (call.builder.graph.tensors[call.builder.value[operand.name]].shape[2], *[1] * (len(call.shape) - 2))
    return constant.reshape(-1) if constant.shape in (wanted, (1, *wanted)) else None


def _mul(call: Call) -> None:
    left, right = arguments(call.node, **{"self": None, "other": None})
    operands = call.activations((left, right))
    if len(operands) == 1:
        numbers = _numbers(call, right if operands[0] is left else left, operands[0])
        constant = _by_channel(call, numbers, operands[0])
        held = numbers if constant is None else constant
        if call.kind == "div" and (operands[0] is not left or not held.all()):
            raise refuse(call.node, "a division by an activation", "a multiplication")
        held = 1 / held if call.kind == "div" else held
        if constant is None:
            moves.times_map(call, operands[0], held)
        else:
            scale(call, held, np.zeros(()), operands[0])
        return
    shapes = [call.builder.graph.tensors[call.builder.value[arg.name]].shape for arg in operands]
    if call.kind == "div" or any(map(call.builder.holds_flat_map, operands)):
        raise refuse(call.node, f"{call.kind} of two activations of shapes {shapes}", "a product of maps")
    if (shapes[0][:2] == (1, 1) and shapes[0] != shapes[1]) or shapes[0][2] < shapes[1][2]:
        operands, shapes = operands[::-1], shapes[::-1]
    ranks = {len(arg.meta["val"].shape) for arg in operands}  # torch lays a vector (1, C) along the width of a map
    if shapes[1] not in (shapes[0], (1, 1, shapes[0][2]), (*shapes[0][:2], 1)) or len(ranks) > 1:
        instead = "a factor for each value, for each channel, or for each place"
        raise refuse(call.node, f"multiplying tensors of shapes {shapes[0]} and {shapes[1]}", instead)
    call.emit("mul", Mul, reads=operands)


def _cat(call: Call) -> None:
    parts = [part for part in call.node.args[0] if isinstance(part, fx.Node)]  # type: ignore[union-attr]
    axis = arguments(call.node, dim=0)[0] % len(call.shape)
    if len(call.activations(parts)) < len(call.node.args[0]):  # type: ignore[arg-type]
        raise refuse(call.node, "cat with a constant", "a cat of activations")
    if axis == 0 or (axis > 1 and len(call.shape) != 4):
        raise refuse(call.node, f"cat along dimension {axis} of {call.shape}", "cat of maps along channels, rows or columns")
    if any(map(call.builder.holds_flat_map, parts)):
        raise refuse(call.node, "cat of flattened maps", "cat of the maps before flatten")
    if axis == 1:
        call.emit("concat", Concat, reads=parts)
    else:
        moves.joined(call, [call.builder.value[part.name] for part in parts], axis - 2)


def _softmax(call: Call) -> None:
    (axis,) = arguments(call.node, dim=-1)
    if axis % len(call.source_shape) != 1 or call.builder.holds_flat_map(call.source):
        what = f"softmax over dimension {axis} of a {call.source_shape} tensor"
        raise refuse(call.node, what, "softmax over channels, dim=1")
    call.emit("softmax", Softmax)


def _pad(call: Call) -> None:
    sides, mode, value = arguments(call.node, pad=None, mode="constant", value=0.0)
    if mode != "constant" or value not in (0, None) or len(sides) not in (2, 4) or min(sides) < 0 or len(call.source_shape) != 4:
        what = f"padding {list(sides)} with mode {mode!r}, value {value}"
        raise refuse(call.node, what, "zero padding of height and width before a convolution")
    left, right, top, bottom = (*sides, 0, 0)[:4]
    around = call.padded((top, left), (bottom, right))
    call.alias(call.source)
    if any(around):
        call.builder.padded[call.node.name] = around


HANDLERS: dict[str, Callable[[Call], None]] = {
    **dict.fromkeys(("relu", "relu6", "hardtanh", "clamp", "clip", "clamp_min"), _relu),
    **dict.fromkeys(("batch_norm", "_native_batch_norm_legit_no_training"), _batch_norm),
    **dict.fromkeys(("max_pool2d", "avg_pool2d"), _pool),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d"), _adaptive),
    **dict.fromkeys(("mean", "amax", "sum"), _reduce), "glu": _glu,
    **dict.fromkeys(("cat", "concat"), _cat),
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split"), moves.split),
    **dict.fromkeys(("upsample_nearest2d", "_upsample_nearest_exact2d"), moves.upsample),
    "upsample_bilinear2d": moves.bilinear, "slice": moves.part, "select": moves.select, "pixel_shuffle": moves.pixel_shuffle,
    "pixel_unshuffle": moves.pixel_unshuffle, "channel_shuffle": moves.channel_shuffle, "conv_transpose2d": moves.conv_transpose,
    "gelu": _gelu, "celu": _celu, "selu": _selu, "prelu": _prelu,
    "conv2d": _conv2d, "trec_conv": trec_conv, "linear": _linear, **dict.fromkeys(("add", "sub", "rsub"), _add),
    **dict.fromkeys(("mul", "div"), _mul), **dict.fromkeys(("expand", "expand_as"), moves.expand),
    "softmax": _softmax,
}  # fmt: skip
