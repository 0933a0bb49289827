"""One step of a partial program as a kernel call: which kernel, with which parameters, at which addresses."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from tinyredux.codegen import fields as fields_of
from tinyredux.fixedpoint import wrap_int32
from tinyredux.graph import (
    Add,
    AddConstant,
    Array,
    Attention,
    Bilinear,
    Conv,
    DepthwiseConv,
    Extend,
    Graph,
    LayerNorm,
    Lookup,
    MatMul,
    Mul,
    Pool,
    Rearrange,
    Relu,
    Softmax,
    TrecConv,
    Weighted,
    Windowed,
    weights_of,
)
from tinyredux.int8 import (
    ADD_LEFT_SHIFT,
    add_params,
    clamp_for,
    int16_shifts,
    mean_params,
    requantization,
    softmax_params,
)
from tinyredux.kernels import FastSteps, Places, point_fields, trec_fields
from tinyredux.memory import Arena, Blob, Step, View, arrays, conv_loops, pack_arrays, restricted
from tinyredux.trec import trec_sizes

Fields = tuple[tuple[str, int], ...]
ARRAYS = {"int8": "I8", "int16": "I16", "int32": "I32"}
TREC_SIZES = ("rows", "columns", "blocks", "length", "in_c", "bits", "exact_c", "clusters", "slice_c")  # of its scratch


@dataclass(frozen=True)
class Address:
    """`kind`(base + each * i ...): bytes into the arena or into weights.bin; `terms` are (loop variable, bytes each).

    Addresses that differ in their base alone are equal: calls with equal addresses may be one call in a loop.
    """

    kind: str
    base: int = field(compare=False)
    terms: tuple[tuple[str, int], ...] = ()

    def text(self) -> str:
        """Returns the C expression."""
        return f"{self.kind}({' + '.join([str(self.base), *(f'{each} * {name}' for name, each in self.terms)])})"


@dataclass(frozen=True)
class Call:
    """One kernel call: struct type and fields, the arguments before it, the pointers set in it, the argument after it."""

    op: str
    kernel: str
    struct: str  # empty where there are only arguments
    fields: Fields
    arguments: tuple[Address, ...]
    factors: tuple[Address, ...] = ()
    scratch: str = ""
    check: str = ""  # the assertion in C that the scratch is what the kernel needs
    text: str = ""  # of a form: its statements, in which `mark(k)` stands for argument k

    def addresses(self) -> tuple[Address, ...]:
        """Returns all addresses that may grow from part to part."""
        return (*self.arguments, *self.factors)

    def moved(self, addresses: Iterator[Address]) -> Call:
        """Returns this call with the next ones of other addresses."""
        arguments = tuple(next(addresses) for _ in self.arguments)
        return replace(self, arguments=arguments, factors=tuple(next(addresses) for _ in self.factors))


class Weights:
    """The arrays of weights.bin, and where the part for a box of an operator's output begins.

    A convolution without padding and a dense layer take their input raw where they add up sums or run straight from the map,
    `raw` names them: the zero point times the sum of the weights is taken off the bias. 16-bit sums would round otherwise
    then, so not with them.
    """

    def __init__(self, fast: FastSteps, hot: Container[str] = ()) -> None:
        """Packs the arrays of a placed program, those that are `hot` behind the others, from `self.hot` on."""
        self.graph, self.fast, (by_form, _) = fast.program.graph, fast, fast.names
        lossy, found = fast.program.schedule.accumulator == "int16", dict[str, Array]()
        self.at, self.raw = dict[tuple[Any, ...], int](), set[str]()
        parts: dict[str, dict[tuple[Any, ...], Array]] = {step.op: {} for step in fast.program.steps() if step.kind == "start"}
        for step in fast.program.steps():
            op = self.graph.by_name[step.op]
            if not lossy and _takes_raw(self.graph, step):
                self.raw.add(op.name)
            if isinstance(op, Weighted) and step.kind in ("run", "add_up") and not (step in fast.convs or step in fast.forms):
                key = self.key(op, step)
                parts.setdefault(op.name, {}).setdefault(key, weights_of(self.graph, op, *key[1:]))
        for op in self.graph.ops:
            found |= {key: values for key, values in by_form.items() if key.rpartition(".")[0] == op.name}
            found |= fast.arrays.get(op.name, {})
            if isinstance(op, Lookup | Softmax | AddConstant | Bilinear | Attention | Extend):
                found |= arrays(self.graph.with_ops([op]))
            if isinstance(op, Weighted) and op.name in parts:
                found |= self._packed(op, parts[op.name])
                if lossy and any(len(key) == 3 for key in parts[op.name]):
                    found[f"{op.name}.right"] = int16_shifts(self.graph, op).astype(np.int32)
        last = {name: values for name, values in found.items() if name in hot}
        self.blob: Blob = pack_arrays({name: values for name, values in found.items() if name not in hot} | last)
        self.hot = min((self.blob.entries[name].offset for name in last), default=None)

    def _packed(self, op: Weighted, parts: dict[tuple[Any, ...], Array]) -> dict[str, Array]:
        """Returns the arrays of an operator, its weights part by part, and notes where each begins."""
        at, found = 0, arrays(self.graph.with_ops([op]))
        for key, values in parts.items():
            self.at[key] = at
            at += values.size
        weights = np.concatenate([values.reshape(-1) for values in parts.values()] or [np.zeros(0, np.int8)])
        found[op.weights] = weights.reshape(found[op.weights].shape) if at == found[op.weights].size else weights
        if op.name in self.raw:
            sums = self.graph.constants[op.weights].astype(np.int64).reshape(len(found[op.bias]), -1).sum(axis=1)
            zero_point = requantization(self.graph, op).input_zero_point
            found[op.bias] = wrap_int32(found[op.bias] - zero_point * sums).astype(np.int32)
        return found

    def key(self, op: Weighted, step: Step) -> tuple[Any, ...]:
        """Returns what names the weights that a step reads."""
        boxes = [step.output.box, *([step.inputs[0].box] if step.kind == "add_up" else [])]
        return op.name, *((box.c0, box.c1) for box in boxes)

    def weights(self, op: Weighted, step: Step) -> Address:
        """Returns where a step's weights begin."""
        return Address("I8", self.blob.entries[op.weights].offset + self.at[self.key(op, step)])

    def per_channel(self, array: str, channel: int = 0) -> Address:
        """Returns where the 32-bit entry of an output channel lies."""
        return Address("I32", self.blob.entries[array].offset + 4 * channel)

    def rows(self, array: str, step: Step, values: int) -> Address:
        """Returns where the part of an array begins that has so many `values` for each place of an operator's output."""
        box, width = step.output.box, self.graph.tensors[step.output.tensor].shape[1]
        return Address("I8", self.blob.entries[array].offset + (width * box.y0 + box.x0) * values)

    def factors(self, op: Weighted, channel: int = 0) -> tuple[Address, ...]:
        """Returns where multipliers and shifts lie from an output channel on."""
        return tuple(self.per_channel(f"{op.name}.{key}", channel) for key in ("multiplier", "shift"))

    def points(self, op: Weighted) -> dict[str, int]:
        """Returns the fields of an operator's zero points and of its activation's limits."""
        raw = {"input_zero_point": 0} if op.name in self.raw else {}
        return point_fields(requantization(self.graph, op)) | raw


def _takes_raw(graph: Graph, step: Step) -> bool:
    op = graph.by_name[step.op]
    direct = step.kind == "add_up" or (step.kind == "run" and isinstance(op, Conv) and conv_loops(op, step) == "direct")
    return direct and not any(getattr(op, "padding", ()))


def calls_of(fast: FastSteps, weights: Weights, step: Step) -> list[Call]:
    """Returns the kernel calls of a step: one, or two for each strip of a row convolution."""
    conv = fast.convs.get(step)
    if step in fast.forms:
        return [form_call(fast, weights.blob, step)]
    if conv is None:
        return [call_of(weights, step)]
    rows, (pack, compute) = conv.kernel.rows, (function.name for function in conv.kernel.functions)
    scratch, (out, source), found = fast.arena.offsets[step.scratch], _places(fast.arena, step), list[Call]()
    packed, table = (weights.blob.entries[name] for name in (conv.packed, conv.table))
    own = Address("I32", packed.offset + packed.size_bytes // packed.shape[0] * conv.channel)
    for y, seen, start in rows.strips(conv.height):
        strip_in = replace(source, base=source.base + seen.start * rows.geometry.in_row)
        strip_out = replace(out, base=out.base + y * rows.geometry.out_row)
        to, row_table = Address("SUMS32", scratch + rows.weight_bytes), Address("I32", table.offset + 4 * start)
        found.append(Call(step.op, pack, "", (), (to, strip_in, Address("", len(seen)))))
        found.append(Call(step.op, compute, "", (), (strip_out, Address("SUMS32", scratch), own, row_table)))
    return found


def form_call(fast: FastSteps, blob: Blob, step: Step) -> Call:
    """Returns the statements that compute a step by its form as a call: of its maps, output first, and of the form's arrays."""
    form, names = fast.forms[step], fast.names[1][step]
    entries = {key: blob.entries[names[key]] for key in form.arrays}
    maps = tuple(Address("AT", fast.arena.offsets[view.buffer] + view.offset) for view in (step.output, *step.inputs))
    arrays = tuple(Address(ARRAYS[entry.dtype], entry.offset) for entry in entries.values())
    out, *inputs = (mark(k) for k in range(len(maps)))
    places = Places(
        out=out,
        inputs=tuple(inputs),
        scratch=f"(tr_arena + {fast.arena.offsets[step.scratch]})" if step.scratch else "0",
        arrays={key: mark(k) for k, key in enumerate(entries, len(maps))},
    )
    return Call(step.op, form.name, "", (), (*maps, *arrays), text=form.call(places).rstrip())


def mark(number: int) -> str:
    """Returns what stands for an argument in the text of a form."""
    return f"@{number}@"


def call_of(weights: Weights, step: Step) -> Call:
    """Returns the reference kernel's call of a step."""
    graph, maps, box = weights.graph, _places(weights.fast.arena, step), step.output.box
    _, op = restricted(graph, graph.by_name[step.op], box)
    fields: dict[str, int]
    struct = scratch = check = ""  # the struct is named as the kernel unless it is said
    match op:
        case _ if step.kind == "copy":
            kernel, fields = "concat", _copy(step)
        case _ if step.kind == "keep":
            kernel, fields = "keep", {"n": box.elements}
        case Weighted():
            return (_weighted if step.kind == "run" else _sums)(weights, op, step, maps)
        case Pool():
            kernel, struct = f"{op.kind}_pool", "mean" if op.kind == "mean" else "pool"
            fields = _window(op, step) | {"c": box.shape[2]}
            if op.kind == "mean":
                fields = {f"window.{key}": value for key, value in (fields | _strides(step)).items()}
                fields |= asdict(mean_params(graph, op))
            else:
                fields |= _clamps(graph, op) | _strides(step)
        case Add() | AddConstant():
            kernel, struct = "sub" if op.subtract and graph.rounding == "double" else "add", "add"
            fields = _add(graph, op) | _rows(step, ("a_row", "b_row")[: len(op.inputs)])
            if isinstance(op, AddConstant):
                maps = (*maps, weights.rows(op.values, step, box.shape[2]))
        case LayerNorm():
            kernel, fields = "layer_norm", fields_of.layer_norm_fields(graph, op, step)
        case Attention():
            kernel, fields = "attention", fields_of.attention_fields(graph, op, step)
            maps = (*maps, weights.rows(op.bias, step, fields["keys"]) if op.bias else Address("", 0))
            scratch, check = _scratch(weights, step, f"TR_ATTENTION_SCRATCH_BYTES({fields['keys']})")
        case Extend():
            kernel, fields = "extend", fields_of.extend_fields(graph, op)
            maps = (*maps, Address("I8", weights.blob.entries[op.values].offset))
        case MatMul():
            kernel, fields = "matmul", fields_of.matmul_fields(graph, op)
            scratch, check = _scratch(weights, step, f"TR_MATMUL_SCRATCH_BYTES({op.inner})")
        case Mul():
            kernel, fields = "mul", fields_of.mul_fields(graph, op, step)
        case Relu():
            kernel, fields = "relu", _clamps(graph, op) | _rows(step, ("in_row",))
        case Rearrange():
            kernel, fields = "rearrange", fields_of.rearrange_fields(graph, op, step)
        case Bilinear():
            kernel, fields = "bilinear", fields_of.bilinear_fields(graph, op, step)
            maps += tuple(weights.per_channel(f"{op.name}.{key}", at) for key, at in (("rows", box.y0), ("columns", box.x0)))
        case Lookup():
            kernel, fields = "lookup", _rows(step, ("in_row",))
            maps = (*maps, Address("I8", weights.blob.entries[f"{op.name}.table"].offset))
        case Softmax():
            rows = box.shape[0] * box.shape[1]
            kernel, fields = "softmax", {"rows": rows, "n": box.shape[2], **asdict(softmax_params(graph, op))}
            if graph.rounding == "single":
                kernel, struct, maps = "softmax_once", "softmax", (*maps, weights.per_channel(f"{op.name}.exps"))
        case _:
            raise ValueError(f"{op.name}: no C kernel for {type(op).__name__}")
    return Call(op.name, f"tr_{kernel}_s8", f"tr_{struct or kernel}", tuple(fields.items()), maps, (), scratch, check)


def _scratch(weights: Weights, step: Step, needed: str) -> tuple[str, str]:
    """Returns the argument of a step's scratch, and C that fails to compile where it has fewer bytes than `needed`."""
    planned = weights.fast.program.buffers[step.scratch].size_bytes
    check = f'_Static_assert({needed} <= {planned}, "scratch of {step.op}");\n'
    return f"SCRATCH({weights.fast.arena.offsets[step.scratch]})", check


def _places(arena: Arena, step: Step) -> tuple[Address, ...]:
    """Returns where a step's output and inputs begin."""
    kinds = {1: "AT", 2: "SUMS16", 4: "SUMS32"}
    views = (step.output, *step.inputs)
    return tuple(Address(kinds[view.element_bytes], arena.offsets[view.buffer] + view.offset) for view in views)


def _clamps(graph: Graph, op: Pool | Relu) -> dict[str, int]:
    return fields_of.clamp_fields(clamp_for(graph, op))


def _window(op: Windowed, step: Step) -> dict[str, int]:
    in_h, in_w, _ = step.inputs[0].box.shape
    out_h, out_w, _ = step.output.box.shape
    return {
        "in_h": in_h, "in_w": in_w, "out_h": out_h, "out_w": out_w, "kernel_h": op.kernel[0], "kernel_w": op.kernel[1],
        "stride_h": op.stride[0], "stride_w": op.stride[1], "pad_top": op.padding[0], "pad_left": op.padding[2],
        **{f"holes_{axis}": step - 1 for axis, step in zip("hw", op.dilation, strict=True) if step > 1},
    }  # fmt: skip


def _strides(step: Step, sides: tuple[str, ...] = ("in", "out")) -> dict[str, int]:
    """Returns the fields of the distances in those maps whose rows or pixels have gaps."""
    views = {"in": step.inputs[0], "out": step.output}
    gaps = {f"{side}_{key}": gap for side in sides for key, gap in zip(("row", "pixel"), views[side].gaps, strict=True)}
    return {key: gap for key, gap in gaps.items() if gap}


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


def _copy(step: Step) -> dict[str, int]:
    rows, values, (source, target) = _lines((step.inputs[0], step.output))
    fields = {"rows": rows, "in_c": values, "out_c": target if rows > 1 else values, "channel_offset": 0}
    return fields | ({"in_row": source} if rows > 1 and source != values else {})


def _add(graph: Graph, op: Add | AddConstant) -> dict[str, int]:
    params = add_params(graph, op)
    return {
        "a_zero_point": params.zero_points[0], "b_zero_point": params.zero_points[1], "out_zero_point": params.output_zero_point,
        "a_multiplier": params.multipliers[0], "a_shift": params.shifts[0],
        "b_multiplier": params.multipliers[1], "b_shift": params.shifts[1],
        "out_multiplier": params.output_multiplier, "out_shift": params.output_shift, "left_shift": ADD_LEFT_SHIFT,
        **fields_of.clamp_fields(params.clamp),
    }  # fmt: skip


def _weighted(weights: Weights, op: Weighted, step: Step, maps: tuple[Address, ...]) -> Call:
    program, arena, first = weights.fast.program, weights.fast.arena, step.output.box.c0
    in_c, out_c = step.inputs[0].box.shape[2], step.output.box.shape[2]
    arguments = (*maps, weights.weights(op, step), weights.per_channel(op.bias, first))
    scratch = f"SCRATCH({arena.offsets[step.scratch]})" if step.scratch else "0"
    planned = program.buffers[step.scratch].size_bytes if step.scratch else 0
    strides, check = _strides(step), ""
    match op:
        case Conv():
            kernel, struct, loops = "conv", "conv", conv_loops(op, step)
            if loops == "direct":
                kernel, scratch = "conv_direct", ""
            else:
                window = ", ".join(map(str, (*op.kernel, in_c, op.groups, int(loops == "pointwise"))))
                check = f'_Static_assert(TR_CONV_SCRATCH_BYTES({window}) <= {planned}, "scratch of {op.name}");\n'
            fields = _window(op, step) | {"in_c": in_c, "out_c": out_c, "groups": op.groups} | strides
        case DepthwiseConv():
            kernel, struct = "depthwise_conv", "depthwise"
            fields = _window(op, step) | {"in_c": in_c, "multiplier_c": op.multiplier} | strides
        case TrecConv():
            kernel, struct, own = "trec_conv", "trec", len(weights.graph.constants[op.vectors]) if op.vectors else 0
            sizes = trec_sizes(weights.graph, op, planned)
            numbers = ", ".join(str(getattr(sizes, name)) for name in TREC_SIZES)
            check = f'_Static_assert(TR_TREC_SCRATCH_BYTES({numbers}) == {planned}, "scratch of {op.name}");\n'
            fields = _window(op, step) | {"in_c": in_c, "out_c": out_c} | trec_fields(op, sizes, own)
            vectors = Address("I8", weights.blob.entries[op.vectors or op.weights].offset)
            arguments = (*arguments[:3], vectors, arguments[3])
        case _:
            kernel, struct = "dense", "dense"
            fields = {"in_n": step.inputs[0].box.elements, "out_n": out_c}
    named = tuple((fields | weights.points(op)).items())
    return Call(op.name, f"tr_{kernel}_s8", f"tr_{struct}", named, arguments, weights.factors(op, first), scratch, check)


def _sums(weights: Weights, op: Weighted, step: Step, maps: tuple[Address, ...]) -> Call:
    """Returns the call that starts, adds to or finishes the sums of a convolution or dense layer."""
    bits = "s16" if weights.fast.program.schedule.accumulator == "int16" else "s32"
    right = (weights.per_channel(f"{op.name}.right"),) if bits == "s16" else ()
    fields, factors = dict(zip(("out_h", "out_w", "out_c"), step.output.box.shape, strict=True)), tuple[Address, ...]()
    match step.kind:
        case "start":
            kernel, arguments = "sums_start", (*maps, weights.per_channel(op.bias))
        case "finish":
            kernel, arguments, factors = "sums_finish", maps, weights.factors(op)
            fields |= _strides(step, ("out",)) | weights.points(op)
        case _:
            kernel, arguments, source = "conv_add", (*maps, weights.weights(op, step)), step.inputs[0]
            conv = op if isinstance(op, Conv) else Conv(op.name, op.inputs, op.output, kernel=source.box.shape[:2])
            fields = _window(conv, step) | {"in_c": source.box.shape[2], "out_c": fields["out_c"]}
            fields |= {"input_zero_point": weights.points(op)["input_zero_point"]} | _strides(step, ("in",))
    return Call(op.name, f"tr_{kernel}_{bits}", "tr_conv", tuple(fields.items()), (*arguments, *right), factors)
