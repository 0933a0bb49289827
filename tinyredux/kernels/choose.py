"""Which form computes each operator: the fastest that fits into SRAM and flash.

Every operator has its reference kernel as the last resort. A form enters the choice only where it is predicted to be faster, by
more than the predictions are off.
Then the whole is made to fit: where the memory plan is larger than the SRAM, the operator that reaches highest takes its next
form with less scratch; where arrays and code are larger than the flash, whatever form loses the fewest cycles for a byte goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tinyredux import memory
from tinyredux.graph import Graph, Op
from tinyredux.kernels import dense, depthwise, elementwise, gemm, pool, quads, rows, trec, winograd
from tinyredux.kernels.asm.forms import Form
from tinyredux.kernels.asm.schedule import scheduled
from tinyredux.kernels.reference_cost import reference_cycles
from tinyredux.memory import MemoryPlan, arrays, reference_scratch

Template = Callable[[Graph, Op, str], list[Form]]
TEMPLATES: tuple[Template, ...] = (
    pool.forms, elementwise.forms, depthwise.forms, dense.forms, rows.forms, gemm.forms, quads.forms, winograd.forms, trec.forms,
)  # fmt: skip
SURELY = 0.85  # of the reference kernel's predicted cycles: less is faster, whatever the prediction's error
UNSEEN_CYCLES = 100  # of a call, which no prediction counts to the end: what layers of a few pixels can win or lose


@dataclass(frozen=True)
class Choice:
    """A form for each operator that has one better than its reference kernel, and the memory plan with their scratch."""

    forms: dict[str, Form]
    plan: MemoryPlan


def candidates(graph: Graph, op: Op, core: str, templates: Sequence[Template] = TEMPLATES) -> list[Form]:
    """Returns the forms of an operator that are sure to beat its reference kernel, the fastest first."""
    limit = SURELY * reference_cycles(graph, op, core) - UNSEEN_CYCLES
    found = [form for template in templates for form in template(graph, op, core)]
    return sorted((form for form in found if form.cycles < limit), key=lambda form: (form.cost, form.scratch_bytes))


@dataclass(frozen=True)
class Way:
    """What an operator costs by a form, or by its reference kernel (None): predicted cycles, bytes of arrays and code."""

    form: Form | None
    cycles: float
    flash_bytes: int

    @property
    def name(self) -> str:
        """Name of the form, or "reference"."""
        return "reference" if self.form is None else self.form.name


def choose(
    graph: Graph, core: str, sram_bytes: int | None = None, flash_bytes: int | None = None,
    templates: Sequence[Template] = TEMPLATES,
) -> Choice:  # fmt: skip
    """Returns the fastest forms of `templates` within the bytes for arena with scratch, and for weights with kernels.

    Where even the smallest forms do not fit, the choice is theirs: whoever checks the size says so.
    """
    chosen, plan = fitted(graph, {op.name: ways(graph, op, core, templates) for op in graph.ops}, sram_bytes, flash_bytes)
    return Choice({name: on_core(way.form, core) for name, way in chosen.items() if way.form is not None}, plan)


def ways(graph: Graph, op: Op, core: str, templates: Sequence[Template]) -> list[Way]:
    """Returns every way to compute an operator, the fastest first and the reference kernel last."""
    plain = sum(values.nbytes for values in arrays(graph.with_ops([op])).values())
    forms = [Way(form, form.cost, form.flash_bytes) for form in candidates(graph, op, core, templates)]
    return [*forms, Way(None, reference_cycles(graph, op, core), plain)]


def fitted(
    graph: Graph, ways_of: Mapping[str, list[Way]], sram_bytes: int | None, flash_bytes: int | None
) -> tuple[dict[str, Way], MemoryPlan]:
    """Returns one of its ways for every operator, within the bytes as `choose` has them, and the memory plan."""
    costs = dict(ways_of)
    while True:
        if flash_bytes is not None:
            fit_flash(costs, flash_bytes)
        forms = {name: found[0].form for name, found in costs.items() if found[0].form is not None}
        plan = memory.plan_words(graph, scratch_of(graph, forms))
        largest = _highest_scratch(plan, forms)
        if sram_bytes is None or plan.total_bytes <= sram_bytes or largest is None:
            return {name: found[0] for name, found in costs.items()}, plan
        limit = forms[largest].scratch_bytes
        costs[largest] = [way for way in costs[largest] if way.form is None or way.form.scratch_bytes < limit]


def on_core(form: Form, core: str) -> Form:
    """Returns a form with all its programs, in the order of instructions that suits a core."""
    whole = form.complete()
    return replace(whole, programs=tuple(scheduled(program, core) for program in whole.programs))


def scratch_of(graph: Graph, forms: Mapping[str, Form]) -> dict[str, int]:
    """Returns the bytes of scratch that each operator needs, by its form or its reference kernel."""
    return reference_scratch(graph) | {name: form.scratch_bytes for name, form in forms.items()}


def _highest_scratch(plan: MemoryPlan, forms: Mapping[str, Form]) -> str | None:
    """Returns the operator with a form whose scratch ends highest, None where no form has scratch."""
    ends = {name: sum(plan.scratch[name]) for name, form in forms.items() if form.scratch_bytes}
    return max(ends, key=lambda name: ends[name], default=None)


def fit_flash(costs: dict[str, list[Way]], flash_bytes: int) -> None:
    """Drops forms from the front of the lists until arrays and code fit, those first that save most bytes for a cycle."""
    while sum(found[0].flash_bytes for found in costs.values()) > flash_bytes:
        moves = [
            ((later.cycles - found[0].cycles) / (found[0].flash_bytes - later.flash_bytes), name, i)
            for name, found in costs.items()
            for i, later in enumerate(found)
            if later.flash_bytes < found[0].flash_bytes
        ]
        if not moves:
            return
        _, name, dropped = min(moves)
        costs[name] = costs[name][dropped:]
