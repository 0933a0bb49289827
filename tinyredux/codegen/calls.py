"""One step of a partial program as a kernel call: which kernel, with which parameters, at which addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyredux.codegen.trec import trec_check, trec_fields
from tinyredux.fixedpoint import wrap_int32
from tinyredux.graph import Add, Array, Conv, Dense, DepthwiseConv, Graph, Op, Pool, Relu, Softmax, TrecConv, Weighted, weights_of
from tinyredux.int8 import ADD_LEFT_SHIFT, Clamp, add_params, clamp_of, int16_shifts, quant_of, requantization, softmax_params
from tinyredux.kernels import FastSteps
from tinyredux.memory import Arena, Blob, Program, Step, View, conv_loops, pack_arrays, restricted
from tinyredux.trec import trec_sizes

Fields = tuple[tuple[str, int], ...]
TAKES_SCRATCH = ("tr_conv_s8", "tr_depthwise_conv_s8", "tr_dense_s8")


@dataclass(frozen=True)
class Address:
    """`kind`(base + each * i ...): bytes into the arena or into weights.bin; `terms` are (loop variable, bytes each)."""

    kind: str
    base: int
    terms: tuple[tuple[str, int], ...] = ()

    def text(self) -> str:
        """Returns the C expression."""
        return f"{self.kind}({' + '.join([str(self.base), *(f'{each} * {name}' for name, each in self.terms)])})"


@dataclass(frozen=True)
class Call:
    """One kernel call: struct type and fields, the arguments before it, the pointers set in it, the arguments after it."""

    op: str
    kernel: str
    struct: str
    fields: Fields
    arguments: tuple[Address, ...]
    factors: tuple[Address, ...] = ()
    scratch: tuple[Address, ...] = ()  # `struct` is empty where there are only arguments
    check: str = ""  # the assertion in C that the scratch is what the kernel needs

    def shape(self) -> tuple[Any, ...]:
        """Returns what calls must share to be one call in a loop."""
        return self.op, self.kernel, self.fields, [(a.kind, a.terms) for a in self.addresses()], self.scratch

    def addresses(self) -> tuple[Address, ...]:
        """Returns all addresses that may grow from part to part."""
        return (*self.arguments, *self.factors)

    def moved(self, addresses: Sequence[Address]) -> Call:
        """Returns this call with other addresses."""
        count = len(self.arguments)
        return replace(self, arguments=tuple(addresses[:count]), factors=tuple(addresses[count:]))


class Weights:
    """The arrays of weights.bin, and where the part for a box of an operator's output begins.

    A convolution without padding and a dense layer take their input raw where they add up sums or run straight from the map,
    `raw` names them: the zero point times the sum of the weights is taken off the bias. 16-bit sums would round otherwise
    then, so not with them.
    """

    def __init__(self, fast: FastSteps) -> None:
        program = fast.program
        self.graph, arrays = program.graph, dict[str, Array]()
        lossy = program.schedule.accumulator == "int16"
        self.at: dict[tuple[Any, ...], int] = {}
        by_name = {op.name: op for op in program.graph.ops}
        unpadded = {step.op for step in program.steps() if _takes_raw(by_name[step.op], step)}
        self.raw = frozenset() if lossy else frozenset(unpadded)
        parts: dict[str, dict[tuple[Any, ...], Array]] = {}
        for step in program.steps():
            op = by_name[step.op]
            if isinstance(op, Weighted) and step.kind in ("run", "add_up") and not (step in fast.convs or step in fast.forms):
                key = self.key(op, step)
                parts.setdefault(op.name, {}).setdefault(key, weights_of(self.graph, op, *key[1:]))
        forms = {step.op: form for step, form in fast.forms.items()}
        for op in program.graph.ops:
            own = forms[op.name].arrays if op.name in forms else {}
            arrays |= {f"{op.name}.{key}": values for key, values in own.items()} | fast.arrays.get(op.name, {})
            if not isinstance(op, Weighted) or op.name not in parts:
                continue
            at = 0
            for key, values in parts[op.name].items():
                self.at[key] = at
                at += values.size
            flat = [np.ascontiguousarray(values).reshape(-1) for values in parts[op.name].values()]
            whole_weights = self.graph.constants[op.weights]
            arrays[op.weights] = (
                np.concatenate(flat).reshape(whole_weights.shape) if at == whole_weights.size else np.concatenate(flat)
            )
            factors = requantization(self.graph, op)
            off = factors.input_zero_point * _sums_of_weights(self.graph, op) if op.name in self.raw else 0
            arrays[op.bias] = wrap_int32(self.graph.constants[op.bias] - off).astype(np.int32)
            if isinstance(op, TrecConv) and op.vectors:  # as the filters lie: blocks, H, L
                arrays[op.vectors] = self.graph.constants[op.vectors].transpose(0, 2, 1)
            arrays[f"{op.name}.multiplier"] = np.array(factors.multiplier, np.int32)
            arrays[f"{op.name}.shift"] = np.array(factors.shift, np.int32)
            if lossy and any(len(key) == 3 for key in parts[op.name]):
                arrays[f"{op.name}.right"] = int16_shifts(self.graph, op).astype(np.int32)
        self.blob: Blob = pack_arrays(arrays)

    def key(self, op: Weighted, step: Step) -> tuple[Any, ...]:
        """Returns what names the weights that a step reads."""
        box = step.output.box
        if step.kind == "add_up":
            return op.name, (box.c0, box.c1), (step.inputs[0].box.c0, step.inputs[0].box.c1)
        return op.name, (box.c0, box.c1)

    def weights(self, op: Weighted, step: Step) -> Address:
        """Returns where a step's weights begin."""
        return Address("I8", self.blob.entries[op.weights].offset + self.at[self.key(op, step)])

    def per_channel(self, array: str, channel: int) -> Address:
        """Returns where the 32-bit entry of an output channel lies."""
        return Address("I32", self.blob.entries[array].offset + 4 * channel)


def _takes_raw(op: Op, step: Step) -> bool:
    direct = step.kind == "add_up" or (step.kind == "run" and isinstance(op, Conv) and conv_loops(op, step) == "direct")
    return direct and not any(getattr(op, "padding", ()))


def _sums_of_weights(graph: Graph, op: Weighted) -> Array:
    weights = graph.constants[op.weights].astype(np.int64)
    return np.asarray(weights.reshape(len(weights), -1).sum(axis=1))


def calls_of(fast: FastSteps, weights: Weights, step: Step) -> list[Call]:
    """Returns the kernel calls of a step: one, or two for each strip of a row convolution."""
    conv = fast.convs.get(step)
    if conv is None:
        return [call_of(fast.program, fast.arena, weights, step)]
    g, scratch, found = conv.rows.geometry, fast.arena.offsets[step.scratch], []
    source, out = _place(fast.arena, step.inputs[0]), _place(fast.arena, step.output)
    packed, table = (weights.blob.entries[name] for name in (conv.packed, conv.table))
    own = Address("I32", packed.offset + packed.size_bytes // packed.shape[0] * conv.channel)
    start = 0
    for y in range(0, g.out_h, conv.height):
        seen = conv.rows.strip(y, conv.height)
        strip_in = replace(source, base=source.base + seen.start * g.in_row)
        strip_out = replace(out, base=out.base + y * g.out_row)
        to = Address("SUMS32", scratch + conv.rows.weight_bytes)
        found.append(Call(step.op, conv.pack.name, "", (), (to, strip_in, Address("", len(seen)))))
        row_table = Address("I32", table.offset + 4 * start)
        found.append(Call(step.op, conv.compute.name, "", (), (strip_out, Address("SUMS32", scratch), own, row_table)))
        start += 1 + 4 * (min(y + conv.height, g.out_h) - y)
    return found


def call_of(program: Program, arena: Arena, weights: Weights, step: Step) -> Call:
    """Returns the reference kernel's call of a step."""
    graph = program.graph
    op = next(op for op in graph.ops if op.name == step.op)
    out = _place(arena, step.output)
    if step.kind == "copy":
        return _copy(arena, op, step)
    if step.kind in ("start", "add_up", "finish"):
        assert isinstance(op, Weighted)
        return _sums(program, arena, weights, op, step)
    ins = tuple(_place(arena, view) for view in step.inputs)
    _, small = restricted(graph, op, step.output.box)
    match small:
        case Weighted():
            return _weighted(program, arena, weights, small, step)
        case Pool():
            fields = _window(graph, small, step) | {"c": step.output.box.shape[2]} | _clamps(graph, op) | _strides(step)
            return Call(op.name, f"tr_{small.kind}_pool_s8", "tr_pool", _fields(fields), (out, *ins))
        case Add():
            return Call(
                op.name, "tr_add_s8", "tr_add", _fields(_add(graph, small) | _rows(step, ("a_row", "b_row"))), (out, *ins)
            )
        case Relu():
            return Call(op.name, "tr_relu_s8", "tr_relu", _fields(_clamps(graph, op) | _rows(step, ("in_row",))), (out, *ins))
        case Softmax():
            height, width, channels = step.output.box.shape
            softmax = softmax_params(graph, small)
            fields = {"rows": height * width, "n": channels, "multiplier": softmax.multiplier, "shift": softmax.shift}
            return Call(op.name, "tr_softmax_s8", "tr_softmax", _fields(fields | {"diff_min": softmax.diff_min}), (out, *ins))
    raise ValueError(f"{op.name}: no C kernel for {type(op).__name__}")


def _place(arena: Arena, view: View) -> Address:
    kind = {1: "AT", 2: "SUMS16", 4: "SUMS32"}[view.element_bytes]
    return Address(kind, arena.offsets[view.buffer] + view.offset)


def _fields(values: dict[str, int]) -> Fields:
    return tuple(values.items())


def clamp_fields(clamp: Clamp) -> dict[str, int]:
    """Returns the fields of an activation's limits."""
    return {"activation_min": clamp.low, "activation_max": clamp.high}


def _clamps(graph: Graph, op: Op) -> dict[str, int]:
    return clamp_fields(clamp_of(getattr(op, "activation", "none"), quant_of(graph.tensors[op.output])))


def _window(graph: Graph, op: Conv | TrecConv | DepthwiseConv | Pool, step: Step) -> dict[str, int]:
    in_h, in_w, _ = step.inputs[0].box.shape
    out_h, out_w, _ = step.output.box.shape
    return {
        "in_h": in_h, "in_w": in_w, "out_h": out_h, "out_w": out_w, "kernel_h": op.kernel[0], "kernel_w": op.kernel[1],
        "stride_h": op.stride[0], "stride_w": op.stride[1], "pad_top": op.padding[0], "pad_left": op.padding[2],
    }  # fmt: skip


def _strides(step: Step) -> dict[str, int]:
    (in_row, in_pixel), (out_row, out_pixel) = step.inputs[0].gaps, step.output.gaps
    found = {"in_row": in_row, "in_pixel": in_pixel, "out_row": out_row, "out_pixel": out_pixel}
    return {key: value for key, value in found.items() if value}


def _lines(views: Sequence[View]) -> tuple[int, int, list[int]]:
    """Returns (rows, values in each, distance of rows of each map) in which the maps of one of `in_lines` are walked: at best one
    row of everything."""
    height, width, channels = views[0].box.shape
    if all(view.gaps == (0, 0) for view in views):
        return 1, height * width * channels, [0 for _ in views]
    if all(view.gaps[0] == 0 for view in views):
        return height * width, channels, [view.pixel_stride for view in views]
    return height, width * channels, [view.row_stride for view in views]


def _rows(step: Step, names: tuple[str, ...]) -> dict[str, int]:
    rows, values, distances = _lines((*step.inputs, step.output))
    return {"n": values} | ({"rows": rows, **dict(zip((*names, "out_row"), distances, strict=True))} if rows > 1 else {})


def _copy(arena: Arena, op: Op, step: Step) -> Call:
    rows, values, (source, target) = _lines((step.inputs[0], step.output))
    fields = {"rows": rows, "in_c": values, "out_c": target if rows > 1 else values, "channel_offset": 0}
    fields |= {"in_row": source} if rows > 1 and source != values else {}
    return Call(
        op.name, "tr_concat_s8", "tr_concat", _fields(fields), (_place(arena, step.output), _place(arena, step.inputs[0]))
    )


def _add(graph: Graph, op: Add) -> dict[str, int]:
    params = add_params(graph, op)
    return {
        "a_zero_point": params.zero_points[0], "b_zero_point": params.zero_points[1], "out_zero_point": params.output_zero_point,
        "a_multiplier": params.multipliers[0], "a_shift": params.shifts[0],
        "b_multiplier": params.multipliers[1], "b_shift": params.shifts[1],
        "out_multiplier": params.output_multiplier, "out_shift": params.output_shift, "left_shift": ADD_LEFT_SHIFT,
        **clamp_fields(params.clamp),
    }  # fmt: skip


def _points(graph: Graph, weights: Weights, op: Weighted) -> dict[str, int]:
    factors = requantization(graph, op)
    return {
        "input_zero_point": 0 if op.name in weights.raw else factors.input_zero_point,
        "output_zero_point": factors.output_zero_point,
        **clamp_fields(factors.clamp),
    }


def _factors(weights: Weights, op: Op, channel: int) -> tuple[Address, ...]:
    return tuple(weights.per_channel(f"{op.name}.{key}", channel) for key in ("multiplier", "shift"))


def _weighted(program: Program, arena: Arena, weights: Weights, op: Weighted, step: Step) -> Call:
    graph = program.graph
    in_c, (_, _, out_c) = step.inputs[0].box.shape[2], step.output.box.shape
    first = step.output.box.c0
    arguments: tuple[Address, ...] = (
        _place(arena, step.output),
        _place(arena, step.inputs[0]),
        weights.weights(op, step),
        weights.per_channel(op.bias, first),
    )
    scratch = (Address("SCRATCH", arena.offsets[step.scratch]),) if step.scratch else ()
    planned = program.buffers[step.scratch].size_bytes if step.scratch else 0
    fields, points, check = {}, _points(graph, weights, op), ""
    match op:
        case Conv():
            fields = _window(graph, op, step) | {"in_c": in_c, "out_c": out_c, "groups": op.groups}
            kernel = "tr_conv_s8"
            if conv_loops(op, step) == "direct":
                kernel, scratch = "tr_conv_direct_s8", ()
            else:
                window = ", ".join(map(str, (*op.kernel, in_c, op.groups, int(conv_loops(op, step) == "pointwise"))))
                check = f'_Static_assert(TR_CONV_SCRATCH_BYTES({window}) <= {planned}, "scratch of {op.name}");\n'
            fields |= _strides(step)
            struct = "tr_conv"
        case DepthwiseConv():
            kernel, struct = "tr_depthwise_conv_s8", "tr_depthwise"
            fields = _window(graph, op, step) | {"in_c": in_c, "multiplier_c": op.multiplier} | _strides(step)
        case TrecConv():
            kernel, struct, own = "tr_trec_conv_s8", "tr_trec", graph.constants[op.vectors].shape[0] if op.vectors else 0
            sizes = trec_sizes(graph, op, planned)
            check = trec_check(op, sizes, planned)
            fields = _window(graph, op, step) | {"in_c": in_c, "out_c": out_c} | trec_fields(op, sizes, own)
            vectors = Address("I8", weights.blob.entries[op.vectors or op.weights].offset)
            arguments = (*arguments[:3], vectors, *arguments[3:])
        case _:
            kernel, struct = "tr_dense_s8", "tr_dense"
            fields = {"in_n": step.inputs[0].box.elements, "out_n": out_c}
    return Call(op.name, kernel, struct, _fields(fields | points), arguments, _factors(weights, op, first), scratch, check)


def _sums(program: Program, arena: Arena, weights: Weights, op: Weighted, step: Step) -> Call:
    """Returns the call that starts, adds to or finishes the sums of a convolution or dense layer."""
    bits = "s16" if program.schedule.accumulator == "int16" else "s32"
    right = (weights.per_channel(f"{op.name}.right", 0),) if bits == "s16" else ()
    out = _place(arena, step.output)
    fields = dict(zip(("out_h", "out_w", "out_c"), step.output.box.shape, strict=True))
    if step.kind == "start":
        return Call(op.name, f"tr_sums_start_{bits}", "tr_conv", _fields(fields), (out, weights.per_channel(op.bias, 0), *right))
    source = step.inputs[0]
    if step.kind == "finish":
        row, pixel = step.output.gaps
        fields |= ({"out_row": row} if row else {}) | ({"out_pixel": pixel} if pixel else {})
        return Call(
            op.name, f"tr_sums_finish_{bits}", "tr_conv", _fields(fields | _points(program.graph, weights, op)),
            (out, _place(arena, source), *right), _factors(weights, op, 0),
        )  # fmt: skip
    _, small = restricted(program.graph, op, step.output.box)
    if isinstance(small, Dense):
        height, width, _ = source.box.shape
        small = Conv(op.name, op.inputs, op.output, kernel=(height, width))
    assert isinstance(small, Conv)
    row, pixel = source.gaps
    fields = _window(program.graph, small, step) | {"in_c": source.box.shape[2], "out_c": fields["out_c"]}
    fields |= {"input_zero_point": _points(program.graph, weights, op)["input_zero_point"]}
    fields |= ({"in_row": row} if row else {}) | ({"in_pixel": pixel} if pixel else {})
    arguments = (out, _place(arena, source), weights.weights(op, step), *right)
    return Call(op.name, f"tr_conv_add_{bits}", "tr_conv", _fields(fields), arguments)
