"""Torch's calls that move values: slices, splits, shuffles, upsampling, and the transposed convolution, which begins so."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from tinyredux.frontends.builder import Call, arguments, pair, refuse
from tinyredux.frontends.joins import beside
from tinyredux.graph import (
    Add,
    AddConstant,
    Array,
    Bilinear,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Lookup,
    Mul,
    Rearrange,
    dilated,
    resized,
)


def as_planes(weights: Array) -> Array:
    """Returns a kernel (O, I, H, W); one of (O, I, L) gets a height of 1."""
    return weights[:, :, None] if weights.ndim == 3 else weights


def part(call: Call) -> None:
    """A slice along channels, rows or columns, with a step."""
    axis, start, end, step = arguments(call.node, dim=0, start=0, end=None, step=1)
    extent = call.source_shape[axis]
    first, last, step = slice(start, end, step).indices(extent)
    take(call, axis % len(call.source_shape), first, len(range(first, last, step)), step)


def take(call: Call, axis: int, first: int, count: int, step: int = 1, source: fx.Node | None = None) -> None:
    """Takes `count` channels, rows or columns of what is read, `step` apart."""
    source = source or call.source
    height, width, channels = call.builder.graph.tensors[call.builder.value[source.name]].shape
    whole = source.meta["val"] if isinstance(source.meta["val"], torch.Tensor) else None  # of a split there are several
    if first == 0 and step == 1 and count == (1, channels, height, width)[axis]:
        call.alias(source)
        return
    flat = whole is not None and (whole.ndim not in (2, 4) or call.builder.holds_flat_map(source))
    if axis == 0 or (axis == 1 and step > 1) or flat:
        instead = "neighbouring channels, or rows and columns, of a map"
        raise refuse(call.node, f"{call.kind} along dimension {axis}", instead)
    size, start, by = [height, width], [0, 0], [1, 1]
    if axis > 1:
        size[axis - 2], start[axis - 2], by[axis - 2] = count, first, step
        first, count = 0, channels
    call.emit(
        "slice", Rearrange, reads=[source], size=tuple(size), channels=count, start=tuple(start), step=tuple(by),
        first_channel=first,
    )  # fmt: skip


def select(call: Call) -> None:
    """One channel, row or column, whose axis then goes."""
    axis, index = arguments(call.node, dim=0, index=0)
    axis %= len(call.source_shape)
    take(call, axis, index % call.source_shape[axis], 1)
    if axis == 1:
        call.note_rows()


def expand(call: Call) -> None:
    """A value for each channel at every place of a map: a product spreads it by itself, for others it is repeated."""
    height, width, channels = call.tensor.shape
    tensors, value, size = call.builder.graph.tensors, call.builder.value, call.shape[2:]

    def spreads(user: fx.Node) -> bool:
        others = [node for node in user.all_input_nodes if node is not call.node]
        whole = all(node.name in value and tensors[value[node.name]].shape == (*size, channels) for node in others)
        return getattr(user.target, "__name__", "").startswith("mul") and bool(others) and whole

    fits = (height, width) == (1, 1) and call.shape[1:2] == (channels,) and len(call.shape) == len(call.source_shape) == 4
    if call.shape == call.source_shape or (fits and all(map(spreads, call.node.users))):
        call.alias(call.source)
    elif fits:
        call.emit("repeat", Rearrange, size=size, channels=channels, repeat=size)
    else:
        raise refuse(call.node, f"{call.kind} of {call.source_shape} to {call.shape}", "one of (1, channels, 1, 1) to a map")


def piece(call: Call) -> None:
    """One of the pieces of a split: its place follows from the sizes of those before."""
    whole, number = call.source, int(call.node.args[1])  # type: ignore[arg-type]
    (axis,) = arguments(whole, dim=0)
    shapes = [tuple(value.shape) for value in whole.meta["val"]]
    axis %= len(shapes[0])
    take(call, axis, sum(shape[axis] for shape in shapes[:number]), shapes[number][axis], 1, call.source)


def split(call: Call) -> None:
    """Several pieces of a map: each is taken where it is read."""
    if call.builder.holds_flat_map(call.source) or len(call.source_shape) not in (2, 4):
        raise refuse(call.node, f"splitting a {call.source_shape} tensor", "a split of a map, before flatten")
    call.alias(call.source)  # its pieces are taken by getitem


def upsample(call: Call) -> None:
    """Nearest upsampling, each value a whole number of times."""
    height, width, channels = call.tensor.shape
    rows, columns = (after // before for after, before in zip(call.shape[2:], (height, width), strict=True))
    if (rows * height, columns * width) != call.shape[2:]:
        raise refuse(call.node, f"upsampling {height, width} to {tuple(call.shape[2:])}", "a whole number of times")
    call.emit("upsample", Rearrange, size=tuple(call.shape[2:]), channels=channels, repeat=(rows, columns))


def bilinear(call: Call) -> None:
    """Bilinear resizing; a factor that torch is given is what it goes by, not that of the sizes."""
    size, before = call.shape[2:], call.tensor.shape[:2]
    align, factors, *own = arguments(call.node, align_corners=False, scale_factors=(None, None), scales_h=None, scales_w=None)
    steps = []
    for extent, wanted, *given in zip(before, size, factors, own, strict=True):
        factor = None if align else given[0] or given[1]
        steps.append(1 / factor if factor else resized(extent, wanted, align))
    if size == before:
        call.alias(call.source)
        return
    call.emit("resize", Bilinear, size=size, extent=before, step=tuple(steps), half_pixel=not align)


def pixel_shuffle(call: Call) -> None:
    """Channels become places."""
    (times,) = arguments(call.node, upscale_factor=1)
    _, channels, height, width = call.shape
    call.emit("shuffle", Rearrange, size=(height, width), channels=channels, repeat=(times, times), blocks=True)


def pixel_unshuffle(call: Call) -> None:
    """Places become channels: every so manieth row and column side by side, then dealt out: torch has each channel's together."""
    (times,) = arguments(call.node, downscale_factor=1)
    _, _, height, width = call.shape
    channels, parts = call.tensor.shape[2], list[str]()
    for place in ((row, column) for row in range(times) for column in range(times)):
        call.emit("slice", Rearrange, size=(height, width), channels=channels, start=place, step=(times, times))
        parts.append(call.builder.value[call.node.name])
    call.emit("concat", Concat, reads=parts)
    if channels > 1:
        shape = {"size": (height, width), "channels": channels * times**2}
        call.emit("shuffle", Rearrange, reads=[call.node], **shape, groups=times**2)


def channel_shuffle(call: Call) -> None:
    """Deals channels out."""
    (groups,) = arguments(call.node, groups=1)
    shuffled(call, groups)


def shuffled(call: Call, groups: int) -> None:
    """Deals channels out: those of `groups` groups in turn."""
    height, width, channels = call.tensor.shape
    call.emit("shuffle", Rearrange, size=(height, width), channels=channels, groups=groups)


def joined(call: Call, names: list[str], axis: int) -> None:
    """Maps below each other (axis 0) or side by side (1): the sum of each amid zeros, which depthwise kernels of 1 put there."""
    tensors, done = call.builder.graph.tensors, ""
    if len(names) == 1:
        call.builder.value[call.node.name] = names[0]
        return
    for name, sides in zip(names, beside([tensors[name].shape[axis] for name in names], axis), strict=True):
        ones = np.ones((1, 1, tensors[name].shape[2]))
        call.emit_weighted("pad", DepthwiseConv, ones, np.zeros(()), reads=[name], padding=sides)
        if done:
            call.emit("join", Add, reads=[done, call.node])
        done = call.builder.value[call.node.name]


def conv_transpose(call: Call) -> None:
    """The map between zeros, then a convolution with the kernel turned round."""
    weight, bias, stride, padding, output_padding, groups, dilation = arguments(
        call.node, weight=None, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
    )
    weights = as_planes(call.constant(weight))  # (I, O / groups, H, W)
    inputs, each, *_ = weights.shape
    weights = weights.reshape(groups, inputs // groups, each, *weights.shape[2:]).transpose(0, 2, 1, 3, 4)
    weights = weights.reshape(groups * each, inputs // groups, *weights.shape[3:])[..., ::-1, ::-1]
    kernel, steps, source = pair(weights.shape[2:]), pair(stride), call.source
    reach, holes = dilated(kernel, pair(dilation))
    height, width, channels = call.tensor.shape
    if steps != (1, 1):
        size = ((height - 1) * steps[0] + 1, (width - 1) * steps[1] + 1)
        call.emit("between", Rearrange, size=size, channels=channels, repeat=steps, zeros=True)
        source = call.node
    before = tuple(extent - 1 - less for extent, less in zip(reach, pair(padding), strict=True))
    after = tuple(sides + more for sides, more in zip(before, pair(output_padding), strict=True))
    if min(*before, *after) < 0:
        raise refuse(call.node, f"a transposed convolution with padding {padding}", "less padding than the kernel's size")
    window: dict[str, Any] = {"kernel": kernel, "dilation": holes, "padding": (before[0], after[0], before[1], after[1])}
    call.emit_weighted("conv", Conv, weights.transpose(0, 2, 3, 1), call.constant(bias), reads=[source], **window, groups=groups)


def unflatten(call: Call, dense: Dense) -> None:
    """A dense layer whose outputs are a map afterwards: a transposed convolution of one place, plus the biases of each value."""
    graph, (_, channels, height, width) = call.builder.graph, call.shape
    weights, bias = graph.constants[dense.weights], graph.constants[dense.bias]
    if graph.tensors[dense.inputs[0]].shape[:2] != (1, 1):
        raise refuse(call.node, f"reshape of {call.source_shape} to {call.shape}", "one behind a Linear of a vector")
    kernel = weights.reshape(channels, height, width, -1)[:, ::-1, ::-1]
    sides = (height - 1, height - 1, width - 1, width - 1)
    call.emit_weighted("conv", Conv, kernel, np.zeros(()), reads=[dense.inputs[0]], kernel=(height, width), padding=sides)
    add_map(call, call.node, bias.reshape(channels, height, width).transpose(1, 2, 0), dense.activation)


def add_map(call: Call, node: fx.Node, values: Array, activation: str = "none") -> None:
    """Adds constants, (height, width, channels), to a map."""
    name = f"{call.builder.name('embed')}.values"
    call.builder.graph.constants[name] = values
    call.emit("embed", AddConstant, name, reads=[node], activation=activation)


def times_map(call: Call, node: fx.Node, factors: Array) -> None:
    """Multiplies a map by constants for each value, or for each place: zeros of its shape plus these are a map of them."""
    name = call.builder.value[node.name]
    height, width, channels = call.builder.graph.tensors[name].shape
    one = len(call.shape) == 4 and (factors.ndim < 3 or factors.shape[-3] == 1)
    if one and channels > 1:
        call.emit("slice", Rearrange, reads=[name], size=(height, width))
    else:
        call.alias(node)
    call.emit("zeros", Lookup, reads=[call.node], function="affine", parameters=(0.0, 0.0))
    shape = (1, 1, height, width) if one else call.shape
    values = np.broadcast_to(factors, shape).reshape(1 if one else channels, height, width).transpose(1, 2, 0)
    add_map(call, call.node, values)
    call.emit("mul", Mul, reads=[name, call.node])


def turn(call: Call) -> None:
    """Takes an exchange of axes, or a reshape behind one, as a remark: at the network's end it may be that of the values as they
    lie, row by row with the channels of each place together, which is how detection heads end."""
    height, width, channels = call.tensor.shape
    lie = torch.arange(call.tensor.elements).reshape(1, height, width, channels).permute(0, 3, 1, 2).reshape(call.source_shape)
    before = call.builder.turned.get(call.source.name, lie)
    call.builder.turned[call.node.name] = call.node.target(before.contiguous(), *call.node.args[1:], **call.node.kwargs)  # type: ignore[operator]
    call.alias(call.source)
