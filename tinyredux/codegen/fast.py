"""Chosen forms -> calls in model.c, and their functions -> fast.S for boards, fast_host.c for a computer."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import indent

from tinyredux.kernels import ASSEMBLY_HEAD, ASSEMBLY_TAIL, C_HEAD, FastSteps, Form, Function, Places, print_assembly, print_c
from tinyredux.memory import Blob, Step, View

FORM_MACROS = "#define I16(offset) ((const int16_t *)(const void *)(tr_weights + (offset)))\n"
MACROS = {"int8": "I8", "int16": "I16", "int32": "I32"}
GUARD = "defined(__ARM_FEATURE_DSP)"


def form_call(fast: FastSteps, blob: Blob, step: Step, form: Form) -> str:
    """Returns the statements that compute a step by a form."""

    def at(view: View) -> str:
        return f"(tr_arena + {fast.arena.offsets[view.buffer] + view.offset})"

    arrays = {key: blob.entries[f"{step.op}.{key}"] for key in form.arrays}
    places = Places(
        out=at(step.output),
        inputs=tuple(map(at, step.inputs)),
        scratch=f"(tr_arena + {fast.arena.offsets[step.scratch]})" if step.scratch else "0",
        arrays={key: f"{MACROS[entry.dtype]}({entry.offset})" for key, entry in arrays.items()},
    )
    return indent(form.call(places).rstrip(), "    ")


def functions(forms: Iterable[Form]) -> list[Function]:
    """Returns the functions of all forms, each once. Raises ValueError for two of one name that differ."""
    found: dict[str, Function] = {}
    for function in (function for form in forms for function in form.functions):
        if print_c(found.setdefault(function.name, function)) != print_c(function):
            raise ValueError(f"two kernels are named {function.name}; put what differs into the name")
    return list(found.values())


def sources(found: list[Function], head: str) -> dict[str, str]:
    """Returns fast.S and fast_host.c: the same functions for cores with the DSP instructions and for every other machine."""
    assembly = "\n".join(print_assembly(function) for function in found)
    c = "\n".join(f"{function.declaration};\n{print_c(function)}" for function in found)
    return {
        "fast.S": f"{head}#if {GUARD}\n{ASSEMBLY_HEAD}{assembly}#endif\n{ASSEMBLY_TAIL}",
        "fast_host.c": f"{head}#if !{GUARD}\n{C_HEAD}\n{c}#else\ntypedef int tr_no_host_code;\n#endif\n",
    }
