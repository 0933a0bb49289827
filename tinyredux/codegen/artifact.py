"""What a board needs of a network: model.c around the body of tr_model_run, kernels, weights and manifest under one hash."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyredux import __version__
from tinyredux.files import write_whole
from tinyredux.graph import Graph, Lookup, Op, Pool, TrecConv, Windowed
from tinyredux.int8 import quant_of
from tinyredux.kernels import ASSEMBLY_HEAD, ASSEMBLY_TAIL, C_HEAD, Form, Function, print_assembly, print_c
from tinyredux.memory import Blob

HASH_PLACEHOLDER = "@MODEL_HASH@"
GUARD = "defined(__ARM_FEATURE_DSP)"  # of a core that runs the generated kernels


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


@dataclass(frozen=True)
class Copies:
    """What start-up copies from flash to RAM: functions and arrays by name, and the bytes of their sections. `copies` chooses."""

    functions: tuple[str, ...] = ()
    arrays: tuple[str, ...] = ()
    code_bytes: int = 0
    weights_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of RAM in all."""
        return self.code_bytes + self.weights_bytes


NOTHING = Copies()

SINGLE_ROUNDING = """/* Sums are rounded once on their way to int8, as LiteRT's default interpreter does. */
#define TR_SINGLE_ROUNDING 1
"""  # the same for every network, so that the kernels are compiled once


def artifact(
    graph: Graph, ops: list[dict[str, Any]], blob: Blob, files: dict[str, str], sizes: tuple[int, int], call: str,
    hot: int | None = None,
) -> Artifact:  # fmt: skip
    """Returns the Artifact of model.c and what is beside it in `files`. `sizes` are the bytes of arena and scratch; `ops` says
    what lies between two calls of tr_mark; `call` is how to make it again; `hot`: the first byte of weights that are copied to
    RAM. Raises ValueError for a tensor without quantisation.
    """
    files = files | {"model.h": _model_h(graph, len(ops), sizes, call), "weights.S": weights_s(hot)}
    if graph.rounding == "single":
        files["single_rounding.h"] = SINGLE_ROUNDING
    model_hash = hash_of(blob.data, files)
    files = {name: text.replace(HASH_PLACEHOLDER, model_hash) for name, text in files.items()}
    manifest = {
        "schema": 1, "name": graph.name, "model_hash": model_hash, "tinyredux": __version__, "call": call,
        "input": _described(graph, graph.inputs[0]), "output": _described(graph, graph.outputs[0]),
        "arena_bytes": sizes[0], "scratch_bytes": sizes[1], "weights_bytes": len(blob.data), "ops": ops,
        "weights": [asdict(entry) for entry in blob.entries.values()],
    }  # fmt: skip
    manifest |= {} if hot is None else {"hot_weights_from": hot}
    manifest |= {"rounding": graph.rounding} if graph.rounding != "double" else {}
    manifest |= {"outputs": [_described(graph, name) for name in graph.outputs]} if len(graph.outputs) > 1 else {}
    return Artifact(files, blob.data, manifest, model_hash)


def check_name(name: str, what: str = "the network's name") -> None:
    """Raises ValueError for a name that C cannot hold; `what` says whose."""
    if not re.fullmatch(r"[\w.+-]+", name, re.ASCII):
        raise ValueError(f"{what} is {name!r}; use letters, digits and _ . + - only")


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
HOT_WEIGHTS_S = """    .balign 4
/* What is read most: firmware's linker script puts it into RAM, start-up copies it there. Another one leaves it in flash. */
    .section .tr_weights, "a"
    .global tr_hot_weights
    .balign 16
tr_hot_weights:
    .incbin "weights.bin", @HOT@
"""
HOT_MACROS = """#define HOT @HOT@ /* from this byte on weights lie in RAM if memory.ld has a section .tr_weights */
#define WEIGHTS(offset) ((offset) < HOT ? tr_weights + (offset) : tr_hot_weights + ((offset) - HOT))
"""


def weights_s(hot: int | None) -> str:
    """Returns weights.S, in which the bytes from `hot` on are a section of their own."""
    if hot is None:
        return WEIGHTS_S
    first = WEIGHTS_S.replace('"weights.bin"', f'"weights.bin", 0, {hot}')
    return first.replace("    .balign 4\n", HOT_WEIGHTS_S.replace("@HOT@", str(hot)) + "    .balign 4\n")


def with_hot_weights(c: str, hot: int | None) -> str:
    """Returns model.c with the weights from byte `hot` on behind a name of their own."""
    if hot is None:
        return c
    c = c.replace("tr_weights + (offset)", "WEIGHTS(offset)").replace(
        "#define I8(", HOT_MACROS.replace("@HOT@", str(hot)) + "#define I8(", 1
    )
    return c.replace("extern const int8_t tr_weights[];", "extern const int8_t tr_weights[], tr_hot_weights[];")


def _described(graph: Graph, name: str) -> dict[str, Any]:
    tensor = graph.tensors[name]
    quant = quant_of(tensor)
    return {"name": name, "shape": tensor.shape, "dtype": tensor.dtype, "scale": quant.scale[0], "zero_point": quant.zero_point}


def head(graph: Graph, call: str, what: str) -> str:
    """Returns the comment at the head of a generated file."""
    call = " ".join(call.replace("*/", "* /").split())
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
#define TR_OUTPUT_BYTES {sum(tensor.size_bytes for tensor in graph.results)}
#define TR_ARENA_BYTES {sizes[0]}
#define TR_SCRATCH_BYTES {sizes[1]}

extern const char *const tr_op_names[TR_OP_COUNT];
extern int8_t tr_arena[TR_ARENA_BYTES + TR_SCRATCH_BYTES];

int8_t *tr_input(void);
const int8_t *tr_output(void);
void tr_model_run(void); /* overwrites the input unless the plan keeps it */
{_table_h(graph)}{_stream_h(graph)}
#endif
"""


def _table_h(graph: Graph) -> str:
    """Returns the declaration of the table of several outputs, nothing for one."""
    if len(graph.outputs) == 1:
        return ""
    return f"""
/* The outputs, which stay in the arena until the next run. tr_output is the first; TR_OUTPUT_BYTES are those of all. */
#define TR_OUTPUTS {len(graph.outputs)}
struct tr_tensor {{
    const char *name;
    const int8_t *values; /* height, width, channels */
    uint32_t bytes;
}};
extern const struct tr_tensor tr_outputs[TR_OUTPUTS];
"""


def _stream_h(graph: Graph) -> str:
    """Returns the declarations of a stream, nothing for a network whose runs know nothing of each other."""
    if not graph.window:
        return ""
    state = sum(graph.tensors[name].size_bytes for name in graph.states)
    return f"""
/* A stream: the input is the newest TR_STREAM_ROWS rows of a window of {graph.window}.
 * TR_STATE_BYTES of the arena last from push to push.
 * tr_push runs one frame of TR_INPUT_BYTES and returns 1 where an output is ready: from push number TR_STREAM_PUSHES on, which
 * fills the window. tr_stream_next is the number of frames pushed, which is that of the next frame, counted from 0: who
 * numbers frames sees before a push that one was lost or came twice. */
#define TR_STREAM_ROWS {graph.input.shape[0]}
#define TR_STREAM_PUSHES {graph.pushes}
#define TR_STATE_BYTES {state}
int32_t tr_push(const int8_t *frame);
uint32_t tr_stream_next(void);
void tr_stream_restart(void); /* the next frame is number 0, of an empty window */
"""


def _stream_c(graph: Graph) -> str:
    """Returns the functions of a stream, nothing for another network."""
    if not graph.window:
        return ""
    return """
static uint32_t stream_next, stream_rows; /* frames so far, modulo 2^32; those in the window */

uint32_t tr_stream_next(void)
{
    return stream_next;
}

void tr_stream_restart(void)
{
    stream_next = 0;
    stream_rows = 0;
}

int32_t tr_push(const int8_t *frame)
{
    int8_t *const input = tr_input();
    for (uint32_t i = 0; i < TR_INPUT_BYTES; i++) {
        input[i] = frame[i];
    }
    tr_model_run();
    stream_next++;
    stream_rows += stream_rows < TR_STREAM_PUSHES ? 1u : 0u;
    return stream_rows == TR_STREAM_PUSHES ? 1 : 0;
}
"""


def _table_c(graph: Graph, offsets: dict[str, int]) -> str:
    """Returns the table of several outputs, nothing for one."""
    if len(graph.outputs) == 1:
        return ""
    rows = ""
    for tensor in graph.results:
        quant, shape = quant_of(tensor), "x".join(map(str, tensor.shape))
        rows += f'    {{"{tensor.name}", tr_arena + {offsets[tensor.name]}, {tensor.size_bytes}}},'
        rows += f" /* {shape}, scale {quant.scale[0]:.9g}, zero point {quant.zero_point} */\n"
    return f"const struct tr_tensor tr_outputs[TR_OUTPUTS] = {{\n{rows}}};\n\n"


def model_c(
    graph: Graph, ops: list[dict[str, Any]], offsets: dict[str, int], declarations: str, body: str, call: str, macros: str
) -> str:
    """Returns model.c around the declarations of parameters and the body of tr_model_run; `ops` as for `artifact`."""
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
{_table_c(graph, offsets)}int8_t *tr_input(void)
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
{_stream_c(graph)}"""


def details(op: Op) -> str:
    """Returns what a comment says of an operator beside its shapes."""
    text = f", {op.kind}" if isinstance(op, Pool) else ""
    if isinstance(op, Windowed):
        text += f", {op.kernel[0]}x{op.kernel[1]} stride {op.stride[0]}x{op.stride[1]} padding {op.padding}"
        text += f" dilation {op.dilation[0]}x{op.dilation[1]}" if op.dilation != (1, 1) else ""
    if isinstance(op, TrecConv):
        text += f", blocks of {op.sub_length}, {op.hash_bits} bits, threshold {op.threshold}"
    if isinstance(op, Lookup):
        text += f", {op.function}" + (f" {op.parameters}" if op.parameters else "")
    activation = getattr(op, "activation", "none")
    return text if activation == "none" else f"{text}, {activation}"


def functions(forms: Iterable[Form], others: Iterable[Function] = ()) -> list[Function]:
    """Returns other functions and those of all forms, each once. Raises ValueError for two of one name that differ."""
    found: dict[str, Function] = {}
    for function in (*others, *(function for form in forms for function in form.functions)):
        if print_c(found.setdefault(function.name, function)) != print_c(function):
            raise ValueError(f"two kernels are named {function.name}; put what differs into the name")
    return list(found.values())


def sources(found: list[Function], head: str, hot: Container[str] = ()) -> dict[str, str]:
    """Returns fast.S and fast_host.c: the same functions for cores with the DSP instructions and for every other machine. Those
    that are `hot` lie in a section of their own, which start-up copies to RAM where the linker script says so."""
    assembly = "\n".join(
        print_assembly(function).replace(".section .text.", f".section .{'tr_code' if function.name in hot else 'text'}.", 1)
        for function in found
    )
    c = "\n".join(f"{function.declaration};\n{print_c(function)}" for function in found)
    return {
        "fast.S": f"{head}#if {GUARD}\n{ASSEMBLY_HEAD}{assembly}#endif\n{ASSEMBLY_TAIL}",
        "fast_host.c": f"{head}#if !{GUARD}\n{C_HEAD}\n{c}#else\ntypedef int tr_no_host_code;\n#endif\n",
    }
