"""Generated kernels: the fastest exact code for each operator, written for one core by templates in Python.

Each module (`dense`, `depthwise`, `gemm`, `rows`, `winograd`, `pool`, ...) is one template: it returns the variants it has for an
operator, with their predicted cycles and scratch. `cycles` prices a step by any kernel, `choice` takes the fastest that fit, and
`parts` and `slices` do so for operators in parts. `asm` is the assembler with its C twin, its scheduler and its timing. Chapter 4
and appendix A of the book teach it.
"""

from __future__ import annotations

from tinyredux.kernels import unpacked
from tinyredux.kernels.asm.cost import code_bytes
from tinyredux.kernels.asm.forms import Form, Places
from tinyredux.kernels.asm.function import Function
from tinyredux.kernels.asm.printers import ASSEMBLY_HEAD, ASSEMBLY_TAIL, C_HEAD, print_assembly, print_c, print_longest_loop
from tinyredux.kernels.asm.schedule import scheduled
from tinyredux.kernels.asm.stalls import OnBoard, byte_cycles, code_stalls
from tinyredux.kernels.choice import (
    TEMPLATES,
    Template,
    Way,
    candidates,
    choose,
    completed,
    fitted,
    losing,
    picks,
    placed,
    ways,
    within_flash,
)
from tinyredux.kernels.cycles import STALLED, cycles, operator_cycles
from tinyredux.kernels.parts import StepWays, with_forms
from tinyredux.kernels.phases import by_phases
from tinyredux.kernels.slices import FastSteps, with_rows
from tinyredux.kernels.trec import naive_forms, point_fields, trec_fields

__all__ = [
    "ASSEMBLY_HEAD", "ASSEMBLY_TAIL", "C_HEAD", "STALLED", "TEMPLATES", "FastSteps", "Form", "Function", "OnBoard",
    "Places", "StepWays", "Template", "Way", "asm", "by_phases", "byte_cycles", "candidates", "choose", "code_bytes",
    "code_stalls", "completed", "cycles", "fitted", "losing", "naive_forms", "operator_cycles", "picks", "placed", "point_fields",
    "print_assembly", "print_c", "print_longest_loop", "scheduled", "trec_fields", "unpacked", "ways", "with_forms",
    "with_rows", "within_flash",
]  # fmt: skip
