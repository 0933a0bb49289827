"""Graph and memory plan -> C: one call per operator, in order, under a comment with shapes and byte ranges."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyredux import __version__
from tinyredux.codegen.fast import FORM_MACROS, described_form, form_call, programs, prototypes, sources
from tinyredux.codegen.trec import trec_check, trec_fields
from tinyredux.files import write_whole
from tinyredux.graph import Add, Concat, Conv, Dense, DepthwiseConv, Graph, Op, Pool, Relu, Softmax, TrecConv, Weighted, macs
from tinyredux.int8 import ADD_LEFT_SHIFT, Clamp, add_params, clamp_of, quant_of, requantization, softmax_params
from tinyredux.kernels import Form, scratch_of
from tinyredux.memory import Blob, MemoryPlan, clustering, is_pointwise, pack, verify_plan

HASH_PLACEHOLDER = "@MODEL_HASH@"


@dataclass(frozen=True)
class Artifact:
    """All that a board needs of a network: text files, weights and manifest under one hash."""

    files: dict[str, str]
    blob: bytes
    manifest: dict[str, Any]
    model_hash: str

    def write(self, folder: Path) -> Path:
        """Writes the files into `folder`, and returns it. Each appears whole or not at all, the manifest last."""
        for name, text in self.files.items():
            write_whole(folder / name, text)
        write_whole(folder / "weights.bin", self.blob)
        write_whole(folder / "manifest.json", json.dumps(self.manifest, indent=1, sort_keys=True) + "\n")
        return folder


def emit(graph: Graph, plan: MemoryPlan, call: str, forms: Mapping[str, Form] | None = None) -> Artifact:
    """Returns the Artifact of an int8 graph. Equal input gives equal bytes; `call` is how to make it again.

    `forms` says how to compute operators, by name; the others, or all without it, are calls of the reference kernels.
    Raises ValueError for a wrong plan, a tensor without quantisation, and a network's name that C cannot hold.
    """
    if not re.fullmatch(r"[\w.+-]+", graph.name, re.ASCII):
        raise ValueError(f"the network's name is {graph.name!r}; use letters, digits and _ . + - only")
    call = " ".join(call.replace("*/", "* /").split())
    chosen = forms or {}
    verify_plan(graph, plan, None if forms is None else scratch_of(graph, chosen))
    blob = pack(graph, {name: form.arrays for name, form in chosen.items()})
    declarations, calls = [prototypes(programs(chosen))], []
    for index, (op, (declaration, text)) in enumerate(zip(graph.ops, statements(graph, plan, blob, chosen), strict=True)):
        declarations.append(declaration)
        calls.append(f"{_comment(graph, plan, blob, op)}\n    tr_mark({index});\n{text}")
    ops = [_described_op(graph, op) | ({} if forms is None else described_form(chosen.get(op.name))) for op in graph.ops]
    sizes = (plan.arena_bytes, plan.scratch_bytes)
    body, macros = "\n".join(calls), FORM_MACROS if chosen else ""
    files = sources(programs(chosen), head(graph, call, "The kernels")) if chosen else {}
    return artifact(graph, ops, blob, "".join(declarations), body, plan.offsets, sizes, call, macros, files)


def statements(graph: Graph, plan: MemoryPlan, blob: Blob, forms: Mapping[str, Form]) -> list[tuple[str, str]]:
    """Returns for each operator the declaration of its parameters, empty for a form, and the statements that compute it."""
    return [
        ("", form_call(plan.offsets, plan.scratch, blob, op, forms[op.name]))
        if op.name in forms
        else _operator(graph, plan, blob, op)
        for op in graph.ops
    ]


def artifact(
    graph: Graph, ops: list[dict[str, Any]], blob: Blob, declarations: str, body: str,
    offsets: dict[str, int], sizes: tuple[int, int], call: str, macros: str = "", more: Mapping[str, str] | None = None,
) -> Artifact:  # fmt: skip
    """Returns the Artifact of parameter declarations and the body of tr_model_run. `sizes` are the bytes of arena and scratch;
    `ops` describes what lies between two calls of tr_mark; `more` are further files."""
    model_c = _model_c(graph, ops, offsets, declarations, body, call, macros)
    files = {"model.c": model_c, "model.h": _model_h(graph, len(ops), sizes, call), "weights.S": WEIGHTS_S, **(more or {})}
    model_hash = hash_of(blob.data, files)
    files = {name: text.replace(HASH_PLACEHOLDER, model_hash) for name, text in files.items()}
    manifest = {
        "schema": 1, "name": graph.name, "model_hash": model_hash, "tinyredux": __version__, "call": call,
        "input": _described(graph, graph.inputs[0]), "output": _described(graph, graph.outputs[0]),
        "arena_bytes": sizes[0], "scratch_bytes": sizes[1], "weights_bytes": len(blob.data), "ops": ops,
        "weights": [asdict(entry) for entry in blob.entries.values()],
    }  # fmt: skip
    return Artifact(files, blob.data, manifest, model_hash)


def hash_of(blob: bytes, files: Mapping[str, str]) -> str:
    """Returns the hash of a model: over its weights, then over its files by name, the hash in them left open."""
    digest = hashlib.sha256(blob)
    for name in sorted(files):
        digest.update(files[name].encode())
    return digest.hexdigest()[:16]


WEIGHTS_S = """/* The weights as they lie in weights.bin; model.c says what is where. */
    .section .rodata.tr_weights, "a"
    .global tr_weights
    .balign 16
tr_weights:
    .incbin "weights.bin"
    .balign 4
    .section .note.GNU-stack, "", %progbits
"""


def _described(graph: Graph, name: str) -> dict[str, Any]:
    tensor = graph.tensors[name]
    quant = quant_of(tensor)
    return {"name": name, "shape": tensor.shape, "dtype": tensor.dtype, "scale": quant.scale[0], "zero_point": quant.zero_point}


def _described_op(graph: Graph, op: Op) -> dict[str, Any]:
    return {"name": op.name, "kind": type(op).__name__, "module": graph.origin.get(op.name, ""), "macs": macs(graph, op)}


def head(graph: Graph, call: str, what: str) -> str:
    """Returns the comment at the head of a generated file."""
    return (
        f"/* {what} of network {graph.name}, model hash {HASH_PLACEHOLDER}.\n"
        f" * Generated by tinyredux {__version__}: {call}\n * Do not edit: change the network and generate it again. */\n"
    )


def _model_h(graph: Graph, op_count: int, sizes: tuple[int, int], call: str) -> str:
    return f"""{head(graph, call, "Sizes")}#ifndef TR_MODEL_H
#define TR_MODEL_H

#include <stdint.h>

#define TR_MODEL_HASH "{HASH_PLACEHOLDER}"
#define TR_MODEL_NAME "{graph.name}"
#define TR_OP_COUNT {op_count}
#define TR_INPUT_BYTES {graph.input.size_bytes}
#define TR_OUTPUT_BYTES {graph.output.size_bytes}
#define TR_ARENA_BYTES {sizes[0]}
#define TR_SCRATCH_BYTES {sizes[1]}

extern const char *const tr_op_names[TR_OP_COUNT];
extern int8_t tr_arena[TR_ARENA_BYTES + TR_SCRATCH_BYTES];

int8_t *tr_input(void);
const int8_t *tr_output(void);
void tr_model_run(void); /* overwrites the input unless the plan keeps it */

#endif
"""


def _model_c(
    graph: Graph, ops: list[dict[str, Any]], offsets: dict[str, int], declarations: str, body: str, call: str, macros: str
) -> str:
    names = ", ".join(f'"{op["name"]}"' for op in ops)
    return f"""{head(graph, call, "The inference")}#include "model.h"

#include "port.h"
#include "tinyredux.h"

#define I8(offset) (tr_weights + (offset))
#define I32(offset) ((const int32_t *)(const void *)(tr_weights + (offset)))
#define SCRATCH(offset) ((int16_t *)(void *)(tr_arena + (offset)))
{macros}
extern const int8_t tr_weights[];

int8_t tr_arena[TR_ARENA_BYTES + TR_SCRATCH_BYTES] __attribute__((aligned(16)));
const char *const tr_op_names[TR_OP_COUNT] = {{{names}}};

{declarations}
int8_t *tr_input(void)
{{
    return tr_arena + {offsets[graph.inputs[0]]};
}}

const int8_t *tr_output(void)
{{
    return tr_arena + {offsets[graph.outputs[0]]};
}}

void tr_model_run(void)
{{
{body}
    tr_mark({len(ops)});
}}
"""


def _range(start: int, size: int) -> str:
    return f"{start}..{start + size}"


def _comment(graph: Graph, plan: MemoryPlan, blob: Blob, op: Op) -> str:
    shapes = " + ".join("x".join(map(str, graph.tensors[name].shape)) for name in op.inputs)
    result = graph.tensors[op.output]
    reads = ", ".join(f"{name} {_range(plan.offsets[name], graph.tensors[name].size_bytes)}" for name in op.inputs)
    lines = [f"    /* {op.name}: {type(op).__name__} {shapes} -> {'x'.join(map(str, result.shape))}{_details(op)}"]
    lines.append(f"     * arena: reads {reads}; writes {op.output} {_range(plan.offsets[op.output], result.size_bytes)}")
    if op.name in plan.scratch:
        lines[-1] += f"; scratch {_range(*plan.scratch[op.name])}"
    named = {"weights": op.weights, "bias": op.bias} if isinstance(op, Weighted) else {}
    if named.get("weights") not in blob.entries:
        named = {name.removeprefix(f"{op.name}."): name for name in blob.entries if name.startswith(f"{op.name}.")}
    entries = {key: blob.entries[name] for key, name in named.items()}
    where = ", ".join(f"{key} {_range(entry.offset, entry.size_bytes)}" for key, entry in entries.items())
    lines += [f"     * weights.bin: {where}"] if where else []
    return "\n".join(lines) + " */"


def _details(op: Op) -> str:
    text = ""
    if isinstance(op, (Conv, TrecConv, DepthwiseConv, Pool)):
        text = f", {op.kernel[0]}x{op.kernel[1]} stride {op.stride[0]}x{op.stride[1]} padding {op.padding}"
    if isinstance(op, Pool):
        text = f", {op.kind}{text}"
    if isinstance(op, TrecConv):
        text += f", blocks of {op.sub_length}, {op.hash_bits} bits, threshold {op.threshold}"
    activation = getattr(op, "activation", "none")
    return text if activation == "none" else f"{text}, {activation}"


def c_struct(kind: str, name: str, fields: dict[str, Any]) -> str:
    """Returns the declaration of a constant parameter struct."""
    body = ", ".join(f".{key} = {value}" for key, value in fields.items())
    return f"static const struct {kind} {name} = {{{body}}};\n"


def _operator(graph: Graph, plan: MemoryPlan, blob: Blob, op: Op) -> tuple[str, str]:
    """Returns the parameter struct of an operator and its call."""
    out = f"tr_arena + {plan.offsets[op.output]}"
    sources = [f"tr_arena + {plan.offsets[name]}" for name in op.inputs]
    match op:
        case Conv() | TrecConv() | DepthwiseConv() | Dense():
            return _weighted(graph, plan, blob, op, out, sources[0])
        case Pool():
            fields = _map_fields(graph, op, {"c": graph.tensors[op.output].shape[2]})
            fields |= clamp_fields(clamp_of(op.activation, quant_of(graph.tensors[op.output])))
            return c_struct("tr_pool", op.name, fields), f"    tr_{op.kind}_pool_s8({out}, {sources[0]}, &{op.name});"
        case Add():
            fields = _add_fields(graph, op)
            return c_struct("tr_add", op.name, fields), f"    tr_add_s8({out}, {sources[0]}, {sources[1]}, &{op.name});"
        case Concat():
            return _concat(graph, op, out, sources)
        case Relu():
            clamp = clamp_of(op.activation, quant_of(graph.tensors[op.output]))
            fields = {"n": graph.tensors[op.output].elements} | clamp_fields(clamp)
            return c_struct("tr_relu", op.name, fields), f"    tr_relu_s8({out}, {sources[0]}, &{op.name});"
        case Softmax():
            height, width, channels = graph.tensors[op.output].shape
            fields = {"rows": height * width, "n": channels} | asdict(softmax_params(graph, op))
            return c_struct("tr_softmax", op.name, fields), f"    tr_softmax_s8({out}, {sources[0]}, &{op.name});"
    raise ValueError(f"{op.name}: no C kernel for {type(op).__name__}")


def clamp_fields(clamp: Clamp) -> dict[str, Any]:
    """Returns the fields of an activation's limits."""
    return {"activation_min": clamp.low, "activation_max": clamp.high}


def _map_fields(graph: Graph, op: Conv | TrecConv | DepthwiseConv | Pool, channels: dict[str, int]) -> dict[str, Any]:
    in_h, in_w, _ = graph.tensors[op.inputs[0]].shape
    out_h, out_w, _ = graph.tensors[op.output].shape
    return {
        "in_h": in_h, "in_w": in_w, "out_h": out_h, "out_w": out_w, **channels,
        "kernel_h": op.kernel[0], "kernel_w": op.kernel[1], "stride_h": op.stride[0], "stride_w": op.stride[1],
        "pad_top": op.padding[0], "pad_left": op.padding[2],
    }  # fmt: skip


def _weighted(graph: Graph, plan: MemoryPlan, blob: Blob, op: Weighted, out: str, source: str) -> tuple[str, str]:
    in_c, out_c = graph.tensors[op.inputs[0]].shape[2], graph.tensors[op.output].shape[2]
    factors = requantization(graph, op)
    check = vectors = ""
    match op:
        case Conv():
            kind, kernel = "tr_conv", "tr_conv_s8"
            fields = _map_fields(graph, op, {"in_c": in_c, "out_c": out_c}) | {"groups": op.groups}
            window = f"{op.kernel[0]}, {op.kernel[1]}, {in_c}, {op.groups}, {int(is_pointwise(op))}"
            planned = plan.scratch.get(op.name, (0, 0))[1]
            check = f'_Static_assert(TR_CONV_SCRATCH_BYTES({window}) <= {planned}, "scratch of {op.name}");\n'
        case TrecConv():
            kind, kernel, sizes = "tr_trec", "tr_trec_conv_s8", clustering(graph, op)
            own = graph.constants[op.vectors].shape[0] if op.vectors else 0
            fields = _map_fields(graph, op, {"in_c": in_c, "out_c": out_c}) | trec_fields(op, sizes, own)
            check, vectors = (
                trec_check(op, sizes, plan.scratch[op.name][1]),
                f"I8({blob.entries[op.vectors or op.weights].offset}), ",
            )
        case DepthwiseConv():
            kind, kernel = "tr_depthwise", "tr_depthwise_conv_s8"
            fields = _map_fields(graph, op, {"in_c": in_c, "multiplier_c": op.multiplier})
        case _:
            kind, kernel = "tr_dense", "tr_dense_s8"
            fields = {"in_n": graph.tensors[op.inputs[0]].elements, "out_n": out_c}
    fields |= {"input_zero_point": factors.input_zero_point, "output_zero_point": factors.output_zero_point}
    fields |= clamp_fields(factors.clamp)
    fields |= {key: f"I32({blob.entries[f'{op.name}.{key}'].offset})" for key in ("multiplier", "shift")}
    scratch = f"SCRATCH({plan.scratch[op.name][0]})" if op.name in plan.scratch else "0"
    weights, bias = blob.entries[op.weights].offset, blob.entries[op.bias].offset
    call = f"    {kernel}({out}, {source}, I8({weights}), {vectors}I32({bias}), &{op.name}, {scratch});"
    return check + c_struct(kind, op.name, fields), call


def _add_fields(graph: Graph, op: Add) -> dict[str, Any]:
    params = add_params(graph, op)
    return {
        "n": graph.tensors[op.output].elements,
        "a_zero_point": params.zero_points[0], "b_zero_point": params.zero_points[1], "out_zero_point": params.output_zero_point,
        "a_multiplier": params.multipliers[0], "a_shift": params.shifts[0],
        "b_multiplier": params.multipliers[1], "b_shift": params.shifts[1],
        "out_multiplier": params.output_multiplier, "out_shift": params.output_shift, "left_shift": ADD_LEFT_SHIFT,
        **clamp_fields(params.clamp),
    }  # fmt: skip


def _concat(graph: Graph, op: Concat, out: str, sources: list[str]) -> tuple[str, str]:
    height, width, out_c = graph.tensors[op.output].shape
    declarations, calls, offset = [], [], 0
    for i, (name, source) in enumerate(zip(op.inputs, sources, strict=True)):
        in_c = graph.tensors[name].shape[2]
        fields = {"rows": height * width, "in_c": in_c, "out_c": out_c, "channel_offset": offset}
        declarations.append(c_struct("tr_concat", f"{op.name}_{i}", fields))
        calls.append(f"    tr_concat_s8({out}, {source}, &{op.name}_{i});")
        offset += in_c
    return "".join(declarations), "\n".join(calls)
