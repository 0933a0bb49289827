"""Operators that move values: reshapes and transpositions are views, the others an operator each, in whatever scale they have."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tinyredux.frontends.joins import beside
from tinyredux.frontends.qdq.values import NO_PADDING, Call, Constant, Limits, Pending, RefusedError, Stored
from tinyredux.frontends.qdq.views import View, dealt, is_map, plain, regroup, shape_of, sizes
from tinyredux.graph import Add, Bilinear, Concat, DepthwiseConv, Quant, Rearrange, Shape, resized

Activation = Stored | Pending


def moved(call: Call, value: Activation, shape: Shape, view: View, move: Callable[[str], str]) -> Activation:
    """Returns a value moved by an operator that `move` appends: at once, or when the value is stored."""
    if isinstance(value, Stored):
        return replace(value, tensor=move(value.tensor), view=view, padding=NO_PADDING)

    def finish(quant: Quant, limits: Limits) -> str:
        return move(value.finish(quant, limits))

    return Pending(shape, view, finish, value.limits)


def rearranged(call: Call, value: Activation, kind: str, shape: Shape, view: View, **fields: Any) -> Activation:
    """Returns a value whose map of `shape` is a Rearrange of what it was."""

    def move(tensor: str) -> str:
        quant = call.loader.quant(tensor)
        return call.loader.append(kind, Rearrange, (tensor,), quant, size=shape[:2], channels=shape[2], **fields)

    return moved(call, value, shape, view, move)


def as_map(call: Call, value: Activation) -> Activation:
    """Returns a value as a map with channels first; channels that are dealt out are moved. Raises for another order."""
    shape = call.loader.shape(value)
    if is_map(value.view, shape):
        return value
    if (groups := dealt(value.view, shape)) > 1 and value.padding == NO_PADDING:
        return rearranged(call, value, "shuffle", shape, plain(shape, len(value.view)), groups=groups)
    raise RefusedError(f"it reads a map of {shape} reshaped or transposed to {sizes(value.view)}; expected channels first")


def reshape(call: Call) -> None:
    """Reshape, Flatten, Squeeze and Unsqueeze: another view. The network's input takes the shape in which it is read first."""
    value, given, before = call.activation(), call.node.attributes, call.sizes()
    rank = len(before)
    if call.kind == "Flatten":
        axis = int(given.get("axis", 1)) % (rank + 1)
        wanted = [math.prod(before[:axis]), math.prod(before[axis:])]
    elif call.kind == "Reshape":
        wanted = call.integers(1, "sizes")
        wanted = [before[i] if size == 0 and not given.get("allowzero") else size for i, size in enumerate(wanted)]
        if -1 in wanted:
            wanted[wanted.index(-1)] = math.prod(before) // max(1, -math.prod(wanted))
    else:
        axes = call.integers(1, "axes") if call.has(1) else [int(one) for one in given.get("axes") or ()]
        if call.kind == "Squeeze":
            axes = [axis % rank for axis in axes] or [i for i, size in enumerate(before) if size == 1]
            wanted = [size for i, size in enumerate(before) if i not in axes]
        else:
            axes, rest = [axis % (rank + len(axes)) for axis in axes], list(before)
            wanted = [1 if i in axes else rest.pop(0) for i in range(rank + len(axes))]
    if isinstance(value, Pending) and value.is_input and 1 < len(wanted) < 5 and wanted[0] == 1:
        call.loader.to_input.append(lambda images: images.reshape(len(images), *before[1:]))
        shape = shape_of(wanted)
        call.write(call.loader.entry(shape, plain(shape, len(wanted))))
        return
    view = regroup(value.view, wanted)
    if view is None:
        raise RefusedError(f"it gives {tuple(wanted)} the values of {before}")
    call.write(replace(value, view=view))


def transpose(call: Call) -> None:
    """Transpose: another view; before anything else reads it, the network's input is then taken as it lies behind."""
    value, rank = call.activation(), len(call.sizes())
    order = [int(one) for one in call.node.attributes.get("perm") or range(rank)[::-1]]
    if isinstance(value, Pending) and value.is_input and rank < 5 and order[0] == 0:
        call.loader.to_input.append(lambda images: images.transpose(*np.argsort(order)))
        shape = shape_of([sizes(value.view)[axis] for axis in order])
        call.write(call.loader.entry(shape, plain(shape, rank)))
        return
    call.write(replace(value, view=tuple(value.view[axis] for axis in order)))


def alias(call: Call) -> None:
    """Identity, Dropout, Cast: another name."""
    call.write(call.activation(0, padded=True))


def pad(call: Call) -> None:
    """Zeros around a map wait for the convolution or average pool that reads it."""
    value, given = as_map(call, call.activation(0, padded=True)), call.node.attributes
    sides = call.integers(1, "paddings") if call.has(1) else [int(one) for one in given["pads"]]
    rank = len(value.view)
    axes = [axis % rank for axis in call.integers(3, "axes")] if call.has(3) else list(range(rank))
    around = {axis: (sides[i], sides[i + len(axes)]) for i, axis in enumerate(axes)}
    zero = _pad_value(call, value)
    outside = any(any(around.get(axis, (0, 0))) for axis in range(min(2, rank)))
    if given.get("mode", "constant") != "constant" or min(sides) < 0 or outside or not zero:
        raise RefusedError("it pads other axes than rows and columns, or with other values than 0")
    rows, columns = around.get(rank - 2, (0, 0)) if rank == 4 else (0, 0), around.get(rank - 1, (0, 0))
    top, bottom, left, right = value.padding
    padding = (top + rows[0], bottom + rows[1], left + columns[0], right + columns[1])
    call.write(replace(value, padding=padding))


def _pad_value(call: Call, value: Stored | Pending) -> bool:
    """Returns whether the padding stands for 0: as a real number, or as stored in integers."""
    if not call.has(2):
        return not call.node.attributes.get("value")
    held = call.numbers(2, "padding")
    number = float(held.real.reshape(-1)[0])
    if held.scale is None and held.stored.dtype in (np.int8, np.uint8):
        return isinstance(value, Stored) and number == call.loader.quant(value.tensor).zero_point + 128 * value.unsigned
    return number == 0


def _part(call: Call, value: Activation, axis: int, first: int, count: int, step: int = 1) -> Activation:
    """Returns `count` channels, rows or columns of a map, `step` apart."""
    shape, rank = call.loader.shape(value), len(value.view)
    if first == 0 and step == 1 and count == sizes(value.view)[axis]:
        return value
    if axis == 0 or (axis == 1 and step > 1) or step < 1 or count < 1:
        raise RefusedError(f"it takes {count} of axis {axis}, {step} apart; expected neighbouring channels, or rows and columns")
    size, start, by, first_channel = list(shape), [0, 0], [1, 1], 0
    if axis == 1:
        size[2], first_channel = count, first
    else:
        place = axis - 2 if rank == 4 else 1
        size[place], start[place], by[place] = count, first, step
    result = (size[0], size[1], size[2])
    return rearranged(
        call, value, "slice", result, plain(result, rank), start=tuple(start), step=tuple(by), first_channel=first_channel
    )


def slices(call: Call) -> None:
    """Slice: parts of channels, rows or columns, one axis after the other."""
    value, given = as_map(call, call.activation()), call.node.attributes
    before = sizes(value.view)
    starts, ends = (call.integers(1, "starts"), call.integers(2, "ends")) if call.has(1) else (given["starts"], given["ends"])
    axes = call.integers(3, "axes") if call.has(3) else [int(one) for one in given.get("axes") or range(len(starts))]
    steps = call.integers(4, "steps") if call.has(4) else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis %= len(before)
        first, last, by = slice(int(start), int(end), step).indices(before[axis])
        value = _part(call, value, axis, first, len(range(first, last, by)), by)
    call.write(value)


def split(call: Call) -> None:
    """Split: each piece is a slice."""
    value, given = as_map(call, call.activation()), call.node.attributes
    axis = int(given.get("axis", 0)) % len(value.view)
    extent, outputs = sizes(value.view)[axis], len(call.node.outputs)
    each = -(-extent // outputs)
    counts = call.integers(1, "sizes") if call.has(1) else given.get("split")
    counts = [int(one) for one in counts or [each] * (outputs - 1) + [extent - each * (outputs - 1)]]
    call.write(*(_part(call, value, axis, sum(counts[:i]), count) for i, count in enumerate(counts)))


def resize(call: Call) -> None:
    """Resize and Upsample of rows and columns, to the nearest value each a whole number of times, or to means of the nearest."""
    value, given = as_map(call, call.activation()), call.node.attributes
    (height, width, channels), rank, before = call.loader.shape(value), len(value.view), sizes(value.view)
    axes = [int(axis) % rank for axis in given.get("axes") or range(rank)]
    after, factors = list(before), [0.0] * rank
    if call.has(3):
        for axis, size in zip(axes, call.integers(3, "sizes"), strict=True):
            after[axis] = size
    else:
        scales = call.numbers(1 if call.kind == "Upsample" else 2, "scales").real.reshape(-1)
        for axis, factor in zip(axes, scales.tolist(), strict=True):
            after[axis], factors[axis] = math.floor(before[axis] * factor), factor
    if after[:2] != list(before[:2]) or rank not in (3, 4) or given.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise RefusedError(f"it makes {tuple(after)} of {before}, expected other rows and columns alone")
    places = [[before[axis], after[axis], factors[axis]] for axis in range(2, rank)]
    places = places if rank == 4 else [[1, 1, 0.0], *places]
    result = (int(places[0][1]), int(places[1][1]), channels)
    if result[:2] == (height, width):
        call.write(value)
    elif given.get("mode", "nearest") == "nearest":
        call.write(rearranged(call, value, "upsample", result, plain(result, rank), repeat=_repeated(call, places)))
    else:
        fields = {"size": result[:2], "extent": (height, width), **_between(call, places)}

        def move(tensor: str) -> str:
            return call.loader.append("resize", Bilinear, (tensor,), call.loader.quant(tensor), even=True, **fields)

        call.write(moved(call, value, result, plain(result, rank), move))


def _between(call: Call, places: list[list[Any]]) -> dict[str, Any]:
    """Returns the fields of a Bilinear for (before, after, factor or 0) of rows and of columns."""
    given = call.node.attributes
    mode = "asymmetric" if call.kind == "Upsample" else given.get("coordinate_transformation_mode", "half_pixel")
    if given.get("mode") != "linear" or given.get("antialias"):
        raise RefusedError(f"its mode is {given.get('mode')}, expected nearest, or linear without antialias")
    if mode not in ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners"):
        raise RefusedError(f"its coordinates are {mode}, expected asymmetric, half_pixel or align_corners")
    align, half = mode == "align_corners", mode.endswith("half_pixel")
    steps = [1 / factor if factor and not align else resized(before, after, align) for before, after, factor in places]
    if mode == "pytorch_half_pixel":  # one row is the first
        steps = [step if after > 1 else 1.0 for step, (_, after, _) in zip(steps, places, strict=True)]
    return {"step": tuple(steps), "half_pixel": half}


def _repeated(call: Call, places: list[list[Any]]) -> tuple[int, ...]:
    """Returns how often each row and column is repeated. Raises for what is not a whole number of times, in a row."""
    for before, after, _ in places:
        times, rows = after // before, np.arange(after)
        if times * before != after or (times > 1 and (_nearest(call, rows, times) != rows // times).any()):
            raise RefusedError(f"it makes {after} of {before}, expected rows and columns a whole number of times")
    return tuple(after // before for before, after, _ in places)


def _nearest(call: Call, places: Any, times: int) -> Any:
    """Returns which row of the input each row of the output is."""
    given = call.node.attributes
    mode = "asymmetric" if call.kind == "Upsample" else given.get("coordinate_transformation_mode", "half_pixel")
    rounds = "floor" if call.kind == "Upsample" else given.get("nearest_mode", "round_prefer_floor")
    if mode not in ("asymmetric", "half_pixel", "pytorch_half_pixel"):
        raise RefusedError(f"its coordinates are {mode}, expected asymmetric or half_pixel")
    real = places / times if mode == "asymmetric" else (places + 0.5) / times - 0.5
    rules: dict[str, Callable[[Any], Any]] = {
        "floor": np.floor, "ceil": np.ceil, "round_prefer_floor": lambda x: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    }  # fmt: skip
    return np.clip(rules[rounds](real), 0, places[-1] // times)


def depth_to_space(call: Call) -> None:
    """DepthToSpace: channels become places. In mode DCR they are dealt out first."""
    value, given = as_map(call, call.activation()), call.node.attributes
    times, (height, width, channels) = int(given["blocksize"]), call.loader.shape(value)
    if given.get("mode", "DCR") == "DCR":
        value = rearranged(call, value, "shuffle", (height, width, channels), value.view, groups=times * times)
    shape = (height * times, width * times, channels // (times * times))
    call.write(rearranged(call, value, "shuffle", shape, plain(shape, 4), repeat=(times, times), blocks=True))


def space_to_depth(call: Call) -> None:
    """SpaceToDepth: every so manieth row and column, side by side."""
    value, side = as_map(call, call.activation()), int(call.node.attributes["blocksize"])
    height, width, channels = call.loader.shape(value)
    if height % side or width % side:
        raise RefusedError(f"its blocks of {side} x {side} do not divide {height, width}")
    shape = (height // side, width // side, channels * side * side)

    def move(tensor: str) -> str:
        fields: dict[str, Any] = {"size": shape[:2], "channels": channels, "step": (side, side)}
        quant, starts = call.loader.quant(tensor), [(row, column) for row in range(side) for column in range(side)]
        parts = [call.loader.append("slice", Rearrange, (tensor,), quant, start=start, **fields) for start in starts]
        return call.loader.append("concat", Concat, tuple(parts), quant)

    call.write(moved(call, value, shape, plain(shape, 4), move))


def joined(call: Call, names: list[str], axis: int, quant: Quant) -> str:
    """Appends maps in one scale below each other (axis 0) or side by side (1), each amid zeros and then their sum, which is
    exact; returns its name."""
    loader, placed = call.loader, list[str]()
    shapes = [loader.graph.tensors[name].shape for name in names]
    for name, shape, sides in zip(names, shapes, beside([shape[axis] for shape in shapes], axis), strict=True):
        ones, zeros = np.ones((1, 1, shape[2]), np.int8), np.zeros(shape[2], np.int32)
        fields: dict[str, Any] = {"padding": sides, "weight_scale": (1.0,) * shape[2]}
        placed.append(loader.append("pad", DepthwiseConv, (name,), quant, {"weights": ones, "bias": zeros}, **fields))
    return functools.reduce(lambda left, right: loader.append("join", Add, (left, right), quant), placed)


def shape_of_map(call: Call) -> None:
    """Shape: sizes are known here."""
    given, value = call.node.attributes, call.activation()
    found = np.array(sizes(value.view), np.int64)[int(given.get("start", 0)) : given.get("end")]
    call.write(Constant(found))
