"""Which form computes each operator: the fastest that fits into SRAM and flash.

Every operator has its reference kernel as the last resort. A form enters the choice only where it is predicted to be faster, by
more than the predictions are off.
Then the whole is made to fit: where arena and scratch are larger than the SRAM, the operator that reaches highest takes its next
form with less scratch, and what fits after all in the end is taken back; where arrays and code are larger than the flash,
whatever form loses the fewest cycles for a byte goes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tinyredux.graph import Graph, Op
from tinyredux.kernels import dense, depthwise, elementwise, gemm, pool, quads, rows, trec, winograd
from tinyredux.kernels.asm.forms import Form
from tinyredux.kernels.asm.schedule import scheduled
from tinyredux.kernels.reference_cost import reference_cycles
from tinyredux.kernels.slices import FastSteps
from tinyredux.memory import arrays, layer_by_layer, live_steps, place_operators, reference_scratch

Template = Callable[[Graph, Op, str], list[Form]]
TEMPLATES: tuple[Template, ...] = (
    pool.forms, elementwise.forms, depthwise.forms, dense.forms, rows.forms, gemm.forms, quads.forms, winograd.forms, trec.forms,
)  # fmt: skip
SURELY = 0.85  # of the reference kernel's predicted cycles: less is faster, whatever the prediction's error
UNSEEN_CYCLES = 100  # of a call, which no prediction counts to the end: what layers of a few pixels can win or lose


@dataclass(frozen=True)
class Choice:
    """A form for each operator that has one better than its reference kernel, and the program with them, placed with their
    scratch."""

    forms: dict[str, Form]
    fast: FastSteps


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
    def scratch_bytes(self) -> int:
        """Scratch of the form; none is counted for the reference kernel, which is the last resort."""
        return 0 if self.form is None else self.form.scratch_bytes

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
    _, fast = fitted(graph, {op.name: ways(graph, op, core, templates) for op in graph.ops}, sram_bytes, flash_bytes)
    forms = {step: on_core(form, core) for step, form in fast.forms.items()}
    return Choice({step.op: form for step, form in forms.items()}, replace(fast, core=core, forms=forms))


def ways(graph: Graph, op: Op, core: str, templates: Sequence[Template]) -> list[Way]:
    """Returns every way to compute an operator, the fastest first and the reference kernel last."""
    plain = sum(values.nbytes for values in arrays(graph.with_ops([op])).values())
    forms = [Way(form, form.cost, form.flash_bytes) for form in candidates(graph, op, core, templates)]
    return [*forms, Way(None, reference_cycles(graph, op, core), plain)]


def fitted(
    graph: Graph, ways_of: Mapping[str, list[Way]], sram_bytes: int | None, flash_bytes: int | None
) -> tuple[dict[str, Way], FastSteps]:
    """Returns one of its ways for every operator, within the bytes as `choose` has them, and the program placed with
    their forms and scratch."""
    live = {step.op: step.live_bytes for step in live_steps(graph)}
    most = math.inf if sram_bytes is None else sram_bytes
    costs = {
        op: [way for way in some if way.form is None or live[op] + way.scratch_bytes <= most] for op, some in ways_of.items()
    }
    could = dict(costs)
    while True:
        if flash_bytes is not None:
            fit_flash(costs, flash_bytes)
        chosen = {op: some[0] for op, some in costs.items()}
        fast = placed(graph, _forms(chosen))
        largest = _highest_scratch(fast)
        if fast.total_bytes <= most or largest is None:
            break
        costs[largest] = [way for way in costs[largest] if way.form is None or way.scratch_bytes < chosen[largest].scratch_bytes]
    for op, way in [(op, way) for op, some in could.items() for way in some if way.cycles < chosen[op].cycles]:
        other = chosen | {op: way}
        small = flash_bytes is None or sum(some.flash_bytes for some in other.values()) <= flash_bytes
        if way.cycles < chosen[op].cycles and small and (found := placed(graph, _forms(other))).total_bytes <= most:
            chosen, fast = other, found
    return chosen, fast


def _forms(chosen: Mapping[str, Way]) -> dict[str, Form]:
    return {op: way.form for op, way in chosen.items() if way.form is not None}


def placed(graph: Graph, forms: Mapping[str, Form]) -> FastSteps:
    """Returns the program layer by layer, placed with the scratch of these forms and of the others' reference kernels."""
    program = layer_by_layer(graph, reference_scratch(graph) | {op: form.scratch_bytes for op, form in forms.items()})
    by_form = {step: forms[step.op] for step in program.steps() if step.op in forms}
    return FastSteps(program, place_operators(program), forms=by_form)


def _highest_scratch(fast: FastSteps) -> str | None:
    """Returns the operator with a form whose scratch ends highest, None where no form has scratch."""
    offsets = fast.arena.offsets
    ends = {step.op: offsets[step.scratch] + form.scratch_bytes for step, form in fast.forms.items() if step.scratch}
    return max(ends, key=lambda op: ends[op], default=None)


def on_core(form: Form, core: str) -> Form:
    """Returns a form with all its programs, in the order of instructions that suits a core."""
    whole = form.complete()
    return replace(whole, functions=tuple(scheduled(function, core) for function in whole.functions))


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
