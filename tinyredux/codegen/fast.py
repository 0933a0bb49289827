"""Chosen forms -> calls in model.c, and their functions -> fast.S for boards, fast_host.c for a computer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tinyredux.graph import Op
from tinyredux.kernels import ASSEMBLY_HEAD, ASSEMBLY_TAIL, C_HEAD, Form, Function, Places, print_assembly, print_c
from tinyredux.memory import Blob

FORM_MACROS = "#define I16(offset) ((const int16_t *)(const void *)(tr_weights + (offset)))\n"
MACROS = {"int8": "I8", "int16": "I16", "int32": "I32"}
GUARD = "defined(__ARM_FEATURE_DSP)"


def form_call(
    offsets: Mapping[str, int], scratch: Mapping[str, tuple[int, int]], blob: Blob, op: Op, form: Form
) -> str:  # fmt: skip
    """Returns the statements that compute an operator by a form; offsets of tensors, (offset, size) of operators' scratch."""
    arrays = {key: blob.entries[f"{op.name}.{key}"] for key in form.arrays}
    places = Places(
        out=f"(tr_arena + {offsets[op.output]})",
        inputs=tuple(f"(tr_arena + {offsets[name]})" for name in op.inputs),
        scratch=f"(tr_arena + {scratch[op.name][0]})" if op.name in scratch else "0",
        arrays={key: f"{MACROS[entry.dtype]}({entry.offset})" for key, entry in arrays.items()},
    )
    return "\n".join(f"    {line}" for line in form.call(places).rstrip().splitlines())


def described_form(form: Form | None) -> dict[str, Any]:
    """Returns what the manifest says of the way an operator is computed."""
    if form is None:
        return {"form": "reference"}
    facts: dict[str, Any] = {"form": form.name, "cycles_predicted": form.cycles, "scratch_bytes": form.scratch_bytes}
    return facts | ({"proof": form.proof} if form.proof else {})


def functions(forms: Mapping[str, Form]) -> list[Function]:
    """Returns the functions of all forms, each once. Raises ValueError for two of one name that differ."""
    found: dict[str, Function] = {}
    for form in forms.values():
        for function in form.functions:
            if print_c(found.setdefault(function.name, function)) != print_c(function):
                raise ValueError(f"two kernels are named {function.name}; put what differs into the name")
    return list(found.values())


def prototypes(found: Sequence[Function]) -> str:
    """Returns the C declarations of functions."""
    return "".join(f"{function.declaration};\n" for function in found)


def sources(found: Sequence[Function], head: str) -> dict[str, str]:
    """Returns fast.S and fast_host.c: the same functions for cores with the DSP instructions and for every other machine."""
    assembly = "\n".join(print_assembly(function) for function in found)
    c = "\n".join(f"{function.declaration};\n{print_c(function)}" for function in found)
    return {
        "fast.S": f"{head}#if {GUARD}\n{ASSEMBLY_HEAD}{assembly}#endif\n{ASSEMBLY_TAIL}",
        "fast_host.c": f"{head}#if !{GUARD}\n{C_HEAD}\n{c}#else\ntypedef int tr_no_host_code;\n#endif\n",
    }
