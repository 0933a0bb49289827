"""Which kernel computes each operator: the fastest that fits into SRAM and flash, by the prices of `cycles`.

Every operator has its C kernel as the last resort. A form enters the choice only where it is predicted to be faster, by more than
the predictions are off.
Then the whole is made to fit: where arena and scratch are larger than the SRAM, the operator that reaches highest takes its next
form with less scratch, and what fits after all in the end is taken back; where arrays and code are larger than the flash,
whatever form loses the fewest cycles for a byte goes.

Layer by layer every choice is placed anew. A program in parts stays where it lies: its operators that run at once have their
scratch in bytes that are idle at that moment, as row convolutions do (`kernels.slices`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tinyredux.graph import Graph, Op
from tinyredux.kernels import dense, depthwise, elementwise, gemm, pool, quads, rows, trec, winograd
from tinyredux.kernels.asm.forms import Form
from tinyredux.kernels.asm.schedule import scheduled
from tinyredux.kernels.cycles import operator_cycles
from tinyredux.kernels.slices import FastSteps, with_scratch
from tinyredux.memory import (
    Arena,
    Buffer,
    Item,
    Node,
    Program,
    Step,
    arrays,
    layer_by_layer,
    live_steps,
    lowest_gap,
    moments,
    place_operators,
    reference_scratch,
    whole,
)

Template = Callable[[Graph, Op, str], list[Form]]
TEMPLATES: tuple[Template, ...] = (
    pool.forms, elementwise.forms, depthwise.forms, dense.forms, rows.forms, gemm.forms, quads.forms, winograd.forms, trec.forms,
)  # fmt: skip
SURELY = 0.85  # of the C kernel's predicted cycles: less is faster, whatever the prediction's error
OTHERS = 2  # bytes of flash for a byte of the weights of operators in parts, which row convolutions widen


@dataclass(frozen=True)
class Way:
    """What an operator costs by a form, or by its C kernel (None): predicted cycles, bytes of arrays and code."""

    form: Form | None
    cycles: float
    flash_bytes: int

    @property
    def scratch_bytes(self) -> int:
        """Scratch of the form; none is counted for the C kernel, which is the last resort."""
        return 0 if self.form is None else self.form.scratch_bytes


Ways = Mapping[str, list[Way]]  # of each operator, the fastest first and the C kernel last


def candidates(graph: Graph, op: Op, core: str, templates: Sequence[Template] = TEMPLATES) -> list[Form]:
    """Returns the forms of an operator that are sure to beat its C kernel, the fastest first."""
    limit = SURELY * operator_cycles(graph, op, core)
    found = [form for template in templates for form in template(graph, op, core)]
    faster = [form for form in found if operator_cycles(graph, op, core, form) < limit]
    return sorted(faster, key=lambda form: (form.cost, form.scratch_bytes))


def ways(graph: Graph, op: Op, core: str, templates: Sequence[Template]) -> list[Way]:
    """Returns every way to compute an operator, the fastest first and the C kernel last."""
    plain = sum(values.nbytes for values in arrays(graph.with_ops([op])).values())
    forms = candidates(graph, op, core, templates)
    found = [Way(form, operator_cycles(graph, op, core, form), form.flash_bytes) for form in forms]
    return [*found, Way(None, operator_cycles(graph, op, core), plain)]


def choose(
    graph: Graph, core: str, sram_bytes: int | None = None, flash_bytes: int | None = None,
    templates: Sequence[Template] = TEMPLATES,
) -> FastSteps:  # fmt: skip
    """Returns the program layer by layer by the fastest forms of `templates` within the bytes for arena with scratch, and for
    weights with kernels.

    Where even the smallest forms do not fit, the choice is theirs: whoever checks the size says so.
    """
    fast = fitted(graph, core, {op.name: ways(graph, op, core, templates) for op in graph.ops}, sram_bytes, flash_bytes)
    return replace(fast, forms={step: on_core(form, core) for step, form in fast.forms.items()})


def fitted(graph: Graph, core: str, ways_of: Ways, sram_bytes: int | None, flash_bytes: int | None) -> FastSteps:
    """Returns the program layer by layer with the fastest of its ways for each operator, within the bytes."""
    live, most = {step.op: step.live_bytes for step in live_steps(graph)}, math.inf if sram_bytes is None else sram_bytes
    possible = {
        op: [way for way in some if way.form is None or live[op] + way.scratch_bytes <= most] for op, some in ways_of.items()
    }
    return _fastest(possible, lambda forms: placed(graph, core, forms), most, flash_bytes)


def placed(graph: Graph, core: str, forms: Mapping[str, Form]) -> FastSteps:
    """Returns the program layer by layer, placed with the scratch of these forms and of the others' C kernels."""
    program = layer_by_layer(graph, reference_scratch(graph) | {op: form.scratch_bytes for op, form in forms.items()})
    by_form = {step: forms[step.op] for step in program.steps() if step.op in forms}
    return FastSteps(program, place_operators(program), core, forms=by_form)


def with_forms(
    program: Program, arena: Arena, core: str, ways_of: Ways, limit_bytes: int = 0, flash_bytes: int | None = None
) -> FastSteps:
    """Returns the placed program with the fastest of its ways for each operator that runs at once.

    The arena grows only for their scratch, and at most to `limit_bytes`; their arrays and code take, with the other operators',
    about `flash_bytes` at most. An operator without a form that fits keeps its C kernel.
    """
    alone, clock, rest = dict[str, tuple[int, Step, int]](), 0, 0  # operator -> place in the program, step, moment
    for index, (item, nodes) in enumerate(zip(program.schedule.items, program.nodes, strict=True)):
        step = _alone(program, arena, item, nodes)
        if step is not None:
            alone[step.op] = index, step, clock
        clock += moments(nodes)
    for op in program.graph.ops:
        if op.name not in alone:
            rest += OTHERS * sum(values.nbytes for values in arrays(program.graph.with_ops([op])).values())

    def put(forms: Mapping[str, Form]) -> FastSteps:
        nodes, by_form = list(program.nodes), dict[Step, Form]()
        buffers, offsets = dict[str, Buffer](), dict[str, int]()
        for name, form in forms.items():
            index, step, moment = alone[name]
            scratch = f"{name}:form" if form.scratch_bytes else ""
            if scratch:
                alive = {one: held for one, held in program.buffers.items() if held.first <= moment <= held.last}
                busy = [(arena.offsets[one], held.size_bytes) for one, held in alive.items() if one != step.scratch]
                buffers[scratch] = Buffer(form.scratch_bytes, 4, moment, moment)
                offsets[scratch] = lowest_gap(busy, form.scratch_bytes, 4)
            changed = replace(step, scratch=scratch)
            nodes[index], by_form[changed] = (changed,), form
        return FastSteps(*with_scratch(replace(program, nodes=tuple(nodes)), arena, buffers, offsets), core, forms=by_form)

    left = None if flash_bytes is None else flash_bytes - rest
    fast = _fastest({name: ways_of[name] for name in alone}, put, max(limit_bytes, arena.size_bytes), left)
    return replace(fast, forms={step: on_core(form, core) for step, form in fast.forms.items()})


def _alone(program: Program, arena: Arena, item: Item, nodes: tuple[Node, ...]) -> Step | None:
    """Returns the step of an operator that runs at once between maps as forms want them: whole, without gaps, at words, the
    output apart from the inputs. None for other items."""
    step = nodes[0] if item.kind == "whole" and len(nodes) == 1 else None
    if not isinstance(step, Step) or step.kind != "run":
        return None
    views, shapes = (*step.inputs, step.output), program.graph.tensors
    starts = [arena.offsets[view.buffer] + view.offset for view in views]
    parts = [view for view in views if view.box != whole(shapes[view.tensor].shape) or any(view.gaps)]
    if parts or any(start % 4 for start in starts):
        return None
    first, last = starts[-1], starts[-1] + step.output.box.elements
    for view, start in zip(step.inputs, starts, strict=False):
        if start < last and first < start + view.box.elements:
            return None
    return step


def _fastest(
    ways_of: Ways, put: Callable[[Mapping[str, Form]], FastSteps], sram_bytes: float, flash_bytes: int | None
) -> FastSteps:
    """Returns the program that `put` makes of the fastest of its ways for each operator, within the bytes."""

    def made(chosen: Mapping[str, Way]) -> FastSteps:
        return put({op: way.form for op, way in chosen.items() if way.form is not None})

    left = dict(ways_of)
    while True:
        if flash_bytes is not None:
            fit_flash(left, flash_bytes)
        chosen = {op: some[0] for op, some in left.items()}
        fast = made(chosen)
        largest = _highest_scratch(fast)
        if fast.total_bytes <= sram_bytes or largest is None:
            break
        left[largest] = [way for way in left[largest] if way.form is None or way.scratch_bytes < chosen[largest].scratch_bytes]
    for op, way in [(op, way) for op, some in ways_of.items() for way in some if way.cycles < chosen[op].cycles]:
        other = chosen | {op: way}
        small = flash_bytes is None or sum(some.flash_bytes for some in other.values()) <= flash_bytes
        if way.cycles < chosen[op].cycles and small and (found := made(other)).total_bytes <= sram_bytes:
            chosen, fast = other, found
    return fast


def _highest_scratch(fast: FastSteps) -> str | None:
    """Returns the operator with a form whose scratch ends highest, None where no form has scratch."""
    offsets = fast.arena.offsets
    ends = {step.op: offsets[step.scratch] + form.scratch_bytes for step, form in fast.forms.items() if step.scratch}
    return max(ends, key=lambda op: ends[op], default=None)


def fit_flash(left: dict[str, list[Way]], flash_bytes: int) -> None:
    """Drops ways from the front of the lists until arrays and code fit, those first that save most bytes for a cycle."""
    while sum(found[0].flash_bytes for found in left.values()) > flash_bytes:
        moves = [
            ((later.cycles - found[0].cycles) / (found[0].flash_bytes - later.flash_bytes), name, i)
            for name, found in left.items()
            for i, later in enumerate(found)
            if later.flash_bytes < found[0].flash_bytes
        ]
        if not moves:
            return
        _, name, dropped = min(moves)
        left[name] = left[name][dropped:]


def on_core(form: Form, core: str) -> Form:
    """Returns a form with all its functions, in the order of instructions that suits a core."""
    complete = form.complete()
    return replace(complete, functions=tuple(scheduled(function, core) for function in complete.functions))
