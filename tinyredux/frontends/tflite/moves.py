"""A .tflite file's operators that move values or join neighbours: crops, splits, padding, nearest upsampling, means, transposed
convolutions; and the sizes that a file computes, which are known before it runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyredux.frontends.joins import beside
from tinyredux.frontends.tflite.call import SAME, Call, RefusedError, activation_quant, map_shape
from tinyredux.graph import (
    Add,
    Array,
    Bilinear,
    Concat,
    Conv,
    DepthwiseConv,
    Pair,
    Pool,
    Quant,
    Rearrange,
    Shape,
    Tensor,
    resized,
)

if TYPE_CHECKING:
    from tinyredux.frontends.tflite.call import Loader
    from tinyredux.frontends.tflite.file import FileOperator

WHOLE = slice(None)


def same_quant(call: Call) -> None:
    """Raises for an operator that moves values and would rescale them."""
    maps = [number for number in call.op.inputs if number != -1 and call.loader.file.tensors[number].dtype == "int8"]
    there, result = [activation_quant(call.loader.file.tensors[number]) for number in maps], activation_quant(call.result)
    if any(quant != result for quant in there):
        raise RefusedError(f"its scales and zero points differ, {there} and {result}; expected one for all")


def map_axis(call: Call, axis: int, source: int = 0) -> int:
    """Returns which of the graph's axes (rows, columns, channels) an axis of the file's tensor is; -1 for that of the images."""
    rank = len(call.file_tensor(source).shape)
    own = axis % rank - max(rank, 2) + 3 if axis % rank else -1
    return 1 - own if own in (0, 1) and call.turned(source) else own


def mean(call: Call) -> None:
    """The mean of all rows, all columns or both, in a scale of its own."""
    axes = {map_axis(call, int(axis)) for axis in call.constant(1, "axes").reshape(-1)}
    if not axes <= {0, 1}:
        raise RefusedError(f"it is a mean along axes {call.constant(1, 'axes').tolist()}, expected height, width or both")
    height, width, _ = call.source().shape
    kernel = (height if 0 in axes else 1, width if 1 in axes else 1)
    call.emit("mean", Pool, kind="mean", kernel=kernel)


def ranges(call: Call) -> list[slice]:
    """Returns what a SLICE or STRIDED_SLICE takes along each axis of the file's tensor."""
    begin, second = (call.constant(i, "places").reshape(-1).tolist() for i in (1, 2))
    if call.op.code == "SLICE":
        return [slice(first, None if count == -1 else first + count) for first, count in zip(begin, second, strict=True)]
    masks = {name: call.op.options[f"{name}Mask"] for name in ("Begin", "End", "Ellipsis", "NewAxis", "ShrinkAxis")}
    if masks["Ellipsis"] or masks["NewAxis"] or call.op.options.get("Offset"):
        raise RefusedError("it leaves axes out or adds some, expected places along each axis")
    found = []
    for axis, (first, end, step) in enumerate(zip(begin, second, call.constant(3, "steps").reshape(-1).tolist(), strict=True)):
        if masks["ShrinkAxis"] >> axis & 1:
            found.append(slice(first, first + 1 or None))
        else:
            found.append(slice(None if masks["Begin"] >> axis & 1 else first, None if masks["End"] >> axis & 1 else end, step))
    return found


def crop(call: Call) -> None:
    """A part of a map."""
    take(call, ranges(call))


def take(call: Call, parts: list[slice]) -> None:
    """Takes what `parts` say along the axes of the file's tensor."""
    same_quant(call)
    shape = call.source().shape
    taken = [range(size) for size in shape]
    for axis, part in enumerate(parts):
        own, there = map_axis(call, axis), range(call.file_tensor(0).shape[axis])[part]
        if own == -1 and there != range(1):
            raise RefusedError(f"it takes {part} of the images, expected the only one")
        if own >= 0:
            taken[own] = there
    if not all(taken) or min(each.step for each in taken) < 1 or taken[2].step > 1:
        raise RefusedError(f"it takes {parts}, expected steps of 1 or more, and neighbouring channels")
    if all(each == range(size) for each, size in zip(taken, shape, strict=True)):
        call.alias()
        return
    rows, columns, channels = taken
    call.emit(
        "slice", Rearrange, size=(len(rows), len(columns)), channels=len(channels), start=(rows.start, columns.start),
        step=(rows.step, columns.step), first_channel=channels.start,
    )  # fmt: skip


def split(call: Call) -> None:
    """Several pieces, side by side along one axis: each is a part of the map."""
    at, axis_at = (1, 0) if call.op.code == "SPLIT" else (0, 2)
    whole = replace(call.op, inputs=(call.op.inputs[at],))
    rank, first = len(call.file_tensor(at).shape), 0
    axis = int(call.constant(axis_at, "axis").reshape(-1)[0]) % rank
    for number in call.op.outputs:
        count = call.loader.file.tensors[number].shape[axis]
        parts = [WHOLE] * axis + [slice(first, first + count)]
        take(Call(call.loader, replace(whole, outputs=(number,))), parts)
        first += count


def resize(call: Call) -> None:
    """Nearest values: each repeated, or each so manieth."""
    same_quant(call)
    shape, size, options = map_shape(call.file_tensor(0)), map_shape(call.result)[:2], call.op.options
    ways = [
        repeats(nearest(before, after, bool(options["AlignCorners"]), bool(options["HalfPixelCenters"])))
        for before, after in zip(shape[:2], size, strict=True)
    ]
    if None in ways:
        raise RefusedError(f"it makes {size} of {shape[:2]}, expected each value as often as the others")
    pairs = [size, *zip(*(way for way in ways if way), strict=True)]
    size, start, step, repeat, phase = (pair[::-1] if call.turned() else pair for pair in pairs)
    call.emit("resize", Rearrange, size=size, channels=shape[2], start=start, step=step, repeat=repeat, phase=phase)


def bilinear(call: Call) -> None:
    """Means of the four nearest values."""
    same_quant(call)
    before, size, options = map_shape(call.file_tensor(0))[:2], map_shape(call.result)[:2], call.op.options
    if options["AlignCorners"] and options["HalfPixelCenters"]:
        raise RefusedError("it has both AlignCorners and HalfPixelCenters, expected one of them or none")
    step = tuple(resized(*sizes, bool(options["AlignCorners"])) for sizes in zip(before, size, strict=True))
    fields: dict[str, Any] = {"size": size, "extent": before, "step": step}
    fields = {name: pair[::-1] if call.turned() else pair for name, pair in fields.items()}
    call.emit("resize", Bilinear, half_pixel=bool(options["HalfPixelCenters"]), **fields)


def nearest(before: int, after: int, align: bool, half: bool) -> Array:
    """Returns which of `before` values each of `after` is. Source: LiteRT, `GetNearestNeighbor`."""
    scale = np.float32(before - 1) / np.float32(after - 1) if align and after > 1 else np.float32(before) / np.float32(after)
    at = (np.arange(after, dtype=np.float32) + np.float32(half / 2)) * scale
    return np.asarray(np.clip(np.floor(at + np.float32(align / 2)), 0, before - 1), np.int64)


def repeats(taken: Array) -> tuple[int, int, int, int] | None:
    """Returns (start, step, repeat, phase) of a Rearrange that takes these places of an axis, None for others."""
    values, counts = np.unique(taken, return_counts=True)
    repeat, step = int(counts.max()), int(values[1] - values[0]) if len(values) > 1 else 1
    start, phase = int(values[0]), repeat - int(counts[0])
    fits = np.array_equal(start + (np.arange(len(taken)) + phase) // repeat * step, taken)
    return (start, step, repeat, phase) if fits else None


def pad(call: Call) -> None:
    """Zeros around a map wait for the convolutions that read it, the least value for the max pools; else a convolution that only
    copies writes them."""
    before, after = call.constant(1, "paddings").T.tolist()
    if before[0] or after[0] or min((*before, *after)) < 0:
        raise RefusedError("it pads the images, or by less than nothing; expected height, width and channels")
    sides = [[0, 0], [0, 0], [0, 0]]
    for axis in range(1, len(before)):
        sides[axis - len(before) + 3] = [before[axis], after[axis]]
    zero = activation_quant(call.file_tensor(0)).zero_point
    value = int(call.constant(2, "values").reshape(-1)[0]) if call.has(2) else zero
    wanted = {zero: ("CONV_2D", "DEPTHWISE_CONV_2D")}.get(value, ()) + (("MAX_POOL_2D",) if value == -128 else ())
    readers = {one.code for one in call.loader.file.operators if call.op.outputs[0] in one.inputs}
    source, waits = call.source(), readers and readers <= {*wanted} and call.op.outputs[0] not in call.loader.file.outputs
    if waits and not any(sides[2]):
        call.alias()
        there = call.loader.padded.get(call.op.inputs[0], (0, 0, 0, 0))
        top, bottom, left, right = (side + own for side, own in zip((*sides[0], *sides[1]), there, strict=True))
        call.loader.padded[call.op.outputs[0]] = (top, bottom, left, right)
        return
    if value != zero or call.op.inputs[0] in call.loader.padded:
        raise RefusedError(f"a padding of {value} goes into {', '.join(sorted(readers)) or 'the output'}, expected {zero}")
    same_quant(call)
    channels = source.shape[2]
    sides = [sides[1], sides[0], sides[2]] if call.turned() else sides
    if not any(sides[2]):
        call.loader.value[call.op.outputs[0]] = copied(call, source, (*sides[0], *sides[1]))
        return
    weights = np.pad(np.eye(channels, dtype=np.int8), (sides[2], (0, 0)))[:, None, None]
    count = len(weights)
    call.emit(
        "pad", Conv, padding=(*sides[0], *sides[1]), weight_scale=(1.0,) * count,
        constants={"weights": weights, "bias": np.zeros(count, np.int32)},
    )  # fmt: skip


def copied(call: Call, source: Tensor, sides: tuple[int, ...]) -> str:
    """Appends a map amid zeros, (top, bottom, left, right), which a convolution that only copies writes; returns its name."""
    channels = source.shape[2]
    constants: dict[str, Array] = {"weights": np.ones((1, 1, channels), np.int8), "bias": np.zeros(channels, np.int32)}
    scale = (1.0,) * channels
    return call.append("pad", DepthwiseConv, (source.name,), source.quant, constants, padding=sides, weight_scale=scale)


def joined(call: Call, sources: list[Tensor], axis: int) -> None:
    """Maps in one scale below each other (axis 0) or side by side (1): each amid zeros, then their sum, which is exact."""
    sides = beside([source.shape[axis] for source in sources], axis)
    done, *others = (copied(call, *each) for each in zip(sources, sides, strict=True))
    for other in others:
        done = call.append("join", Add, (done, other), sources[0].quant)
    call.loader.value[call.op.outputs[0]] = done


def transposed_conv(call: Call) -> None:
    """The map between zeros, then a convolution with the kernel turned round."""
    (_, *rest), options = call.op.inputs, call.op.options
    inner = Call(call.loader, replace(call.op, inputs=(rest[1], rest[0], *rest[2:])))
    weights, scale = inner.weights(0)
    source, steps = inner.source(), (options["StrideH"], options["StrideW"])
    if inner.turned():
        weights, steps = weights.transpose(0, 2, 1, 3), steps[::-1]
    size = map_shape(call.result)[:2]
    size = size[::-1] if inner.turned() else size
    sides: list[int] = []
    for before, after, kernel, step in zip(source.shape[:2], size, weights.shape[1:3], steps, strict=True):
        wide = (before - 1) * step + 1
        less = max(0, wide + kernel - 1 - after) // 2 if options["Padding"] == SAME else 0
        sides += [kernel - 1 - less, after - wide + less]
    if min(sides) < 0:
        raise RefusedError(f"it makes {size} of {source.shape[:2]}, expected a kernel at least as large as what it leaves out")
    reads = (source.name,) if steps == (1, 1) else (between(inner, steps),)
    fields = {"kernel": weights.shape[1:3], "padding": tuple(sides), "reads": reads}
    inner.emit_weighted("conv", Conv, weights[:, ::-1, ::-1], scale, **fields)


def between(call: Call, steps: Pair) -> str:
    """Appends the map with zeros between its rows and columns, which the file does not have, and returns its name."""
    height, width, channels = call.source().shape
    return moved(call, "between", ((height - 1) * steps[0] + 1, (width - 1) * steps[1] + 1, channels), repeat=steps, zeros=True)


def moved(call: Call, kind: str, shape: Shape, **fields: Any) -> str:
    """Appends a map of the first input's values at other places, which the file does not have, and returns its name."""
    source = call.source()
    return call.append(kind, Rearrange, (source.name,), source.quant, size=shape[:2], channels=shape[2], **fields)


def factors(call: Call, source: Tensor, values: Array, quant: Quant) -> str:
    """Appends constants, (1, 1, channels), and returns their name: a layer whose weights are zeros writes its biases."""
    channels, name = source.shape[2], source.name
    if values.size != channels or values.shape[-1:] != (channels,):
        raise RefusedError(
            f"it multiplies a map by a constant of shape {values.shape}, expected a factor for each channel, or one"
        )
    if source.shape[:2] != (1, 1):
        name = call.append("slice", Rearrange, (name,), source.quant, channels=channels)
    constants: dict[str, Array] = {"weights": np.zeros((1, 1, channels), np.int8)}
    constants["bias"] = values.reshape(-1).astype(np.int32) - quant.zero_point
    scale = quant.scale[0] / source.quant.scale[0] if source.quant else 0.0
    return call.append("factors", DepthwiseConv, (name,), quant, constants, weight_scale=(scale,) * channels)


def _blocks(call: Call) -> tuple[int, Shape]:
    """Returns the side of a block of places, and the shape of the map that is read."""
    same_quant(call)
    if call.turned():
        raise RefusedError("it reads a row that was a column before, expected a map as it was computed")
    side, shape = int(call.op.options["BlockSize"]), call.source().shape
    parts = (shape[2], side * side) if call.op.code == "DEPTH_TO_SPACE" else (math.gcd(*shape[:2]), side)
    if side < 1 or parts[0] % parts[1]:
        raise RefusedError(f"its blocks of {side} x {side} do not divide {shape}")
    return side, shape


def depth_to_space(call: Call) -> None:
    """Channels become places. The format has the channels of a place together, so they are dealt out first."""
    side, (height, width, channels) = _blocks(call)
    dealt = moved(call, "shuffle", (height, width, channels), groups=side * side)
    fields: dict[str, Any] = {
        "size": (height * side, width * side),
        "channels": channels // side**2,
        "repeat": (side, side),
        "blocks": True,
    }
    call.emit("shuffle", Rearrange, (dealt,), **fields)


def space_to_depth(call: Call) -> None:
    """Places become channels: every so manieth row and column, side by side."""
    side, (height, width, channels) = _blocks(call)
    shape, places = (height // side, width // side, channels), [(row, column) for row in range(side) for column in range(side)]
    call.emit("concat", Concat, tuple(moved(call, "slice", shape, start=place, step=(side, side)) for place in places))


def transpose(call: Call) -> None:
    """Axes in another order, where only those of one place move: the values stay where they are."""
    order, shape = call.constant(1, "order").reshape(-1).tolist(), call.file_tensor(0).shape
    if (moving := [axis for axis in order if shape[axis] > 1]) != sorted(moving):
        raise RefusedError(f"it puts the axes of {shape} into the order {order}, expected values that stay where they are")
    call.source(flat=True)
    call.alias()


FOLDS: dict[str, Callable[[Call], Array]] = {
    "SHAPE": lambda call: np.array(call.file_tensor(0).shape, np.int32),
    "PACK": lambda call: np.stack([call.constant(i, "values") for i in range(len(call.op.inputs))], call.op.options["Axis"]),
    "CONCATENATION": lambda call: np.concatenate([np.atleast_1d(call.constant(i, "values")) for i in range(len(call.op.inputs))]),
    "STRIDED_SLICE": lambda call: call.constant(0, "values")[tuple(ranges(call))].reshape(call.result.shape),
    "SLICE": lambda call: call.constant(0, "values")[tuple(ranges(call))],
    "REDUCE_PROD": lambda call: np.prod(call.constant(0, "values"), dtype=np.int32).reshape(call.result.shape),
    "MUL": lambda call: call.constant(0, "values") * call.constant(1, "values"),
}


def folded(loader: Loader, op: FileOperator) -> bool:
    """Returns whether an operator computes sizes, which are known before the network runs; notes its result.

    Keras flattens a map so: SHAPE, STRIDED_SLICE and PACK make the shape that a RESHAPE takes.
    """
    call = Call(loader, op)
    if op.code not in FOLDS or call.result.dtype not in ("int32", "int64"):
        return False
    loader.folded[op.outputs[0]] = FOLDS[op.code](call)
    return True


MOVES: dict[str, Callable[[Call], None]] = {
    "MEAN": mean, "SLICE": crop, "STRIDED_SLICE": crop, "SPLIT": split, "SPLIT_V": split, "RESIZE_NEAREST_NEIGHBOR": resize,
    "RESIZE_BILINEAR": bilinear,
    "PAD": pad, "PADV2": pad, "TRANSPOSE_CONV": transposed_conv, "TRANSPOSE": transpose, "DEPTH_TO_SPACE": depth_to_space,
    "SPACE_TO_DEPTH": space_to_depth,
}  # fmt: skip
