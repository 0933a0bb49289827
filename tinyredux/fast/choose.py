"""Which form computes each operator: the fastest that fits into SRAM and flash.

Every operator has its reference kernel as the last resort. A form enters the choice only where it is predicted to be faster.
Then the whole is made to fit: where the memory plan is larger than the SRAM, the operator that reaches highest takes its next
form with less scratch; where arrays and code are larger than the flash, whatever form loses the fewest cycles for a byte goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tinyredux import memory
from tinyredux.blob import arrays
from tinyredux.fast import dense, depthwise, elementwise, gemm, pool, rows, winograd
from tinyredux.fast.forms import Form
from tinyredux.fast.reference_cost import reference_cycles
from tinyredux.fast.schedule import scheduled
from tinyredux.graph import Graph, Op
from tinyredux.memory import MemoryPlan, reference_scratch

TEMPLATES = (pool.forms, elementwise.forms, depthwise.forms, dense.forms, rows.forms, gemm.forms, winograd.forms)


@dataclass(frozen=True)
class Choice:
    """A form for each operator that has one better than its reference kernel, and the memory plan with their scratch."""

    forms: dict[str, Form]
    plan: MemoryPlan


def candidates(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns the forms of an operator that are predicted to beat its reference kernel, the fastest first."""
    limit = reference_cycles(graph, op, core)
    found = [form for template in TEMPLATES for form in template(graph, op, core)]
    return sorted((form for form in found if form.cycles < limit), key=lambda form: (form.cycles, form.scratch_bytes))


def choose(graph: Graph, core: str, sram_bytes: int | None = None, flash_bytes: int | None = None) -> Choice:
    """Returns the fastest forms within the bytes for arena with scratch, and for weights with kernels.

    Where even the smallest forms do not fit, the choice is theirs: whoever checks the size says so.
    """
    open_forms = {op.name: candidates(graph, op, core) for op in graph.ops}
    if flash_bytes is not None:
        _fit_flash(graph, open_forms, core, flash_bytes)
    while True:
        forms = {name: found[0] for name, found in open_forms.items() if found}
        plan = memory.plan_words(graph, scratch_of(graph, forms))
        largest = _highest_scratch(plan, forms)
        if sram_bytes is None or plan.total_bytes <= sram_bytes or largest is None:
            return Choice({name: _scheduled(form, core) for name, form in forms.items()}, plan)
        limit = forms[largest].scratch_bytes
        open_forms[largest] = [form for form in open_forms[largest] if form.scratch_bytes < limit]


def _scheduled(form: Form, core: str) -> Form:
    return replace(form, programs=tuple(scheduled(program, core) for program in form.programs))


def scratch_of(graph: Graph, forms: Mapping[str, Form]) -> dict[str, int]:
    """Returns the bytes of scratch that each operator needs, by its form or its reference kernel."""
    return reference_scratch(graph) | {name: form.scratch_bytes for name, form in forms.items()}


def _highest_scratch(plan: MemoryPlan, forms: Mapping[str, Form]) -> str | None:
    """Returns the operator with a form whose scratch ends highest, None where no form has scratch."""
    ends = {name: sum(plan.scratch[name]) for name, form in forms.items() if form.scratch_bytes}
    return max(ends, key=lambda name: ends[name], default=None)


def _fit_flash(graph: Graph, open_forms: dict[str, list[Form]], core: str, flash_bytes: int) -> None:
    """Drops forms from the front of the lists until arrays and code fit."""
    plain = {op.name: _reference_bytes(graph, op) for op in graph.ops}
    slow = {op.name: reference_cycles(graph, op, core) for op in graph.ops}
    while True:
        costs = {
            name: [*((form.flash_bytes, form.cycles) for form in found), (plain[name], slow[name])]
            for name, found in open_forms.items()
        }  # (flash bytes, cycles) of each form that is left, the reference kernel last
        moves = [
            ((later[1] - found[0][1]) / (found[0][0] - later[0]), name, i)
            for name, found in costs.items()
            for i, later in enumerate(found)
            if later[0] < found[0][0]
        ]
        if not moves or sum(found[0][0] for found in costs.values()) <= flash_bytes:
            return
        _, name, dropped = min(moves)
        open_forms[name] = open_forms[name][dropped:]


def _reference_bytes(graph: Graph, op: Op) -> int:
    """Returns the bytes of the arrays that an operator's reference kernel reads."""
    return sum(values.nbytes for values in arrays(graph.with_ops([op])).values())
