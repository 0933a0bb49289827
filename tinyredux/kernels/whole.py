"""Whole operators in partial execution: by the forms of layer by layer, where the plan has bytes to spare for their scratch.

What a plan does not run in parts it runs as one kernel call between whole maps, and that is what a form computes. Its scratch
goes into the largest range that is idle at that moment, as that of row convolutions does (`kernels.slices`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf

from tinyredux.graph import TrecConv
from tinyredux.kernels.asm.forms import Form
from tinyredux.kernels.choose import Way, fit_flash, on_core
from tinyredux.kernels.slices import FastSteps, with_scratch
from tinyredux.memory import Arena, Buffer, Item, Node, Program, Step, arrays, gap, moments, step_cycles, whole

OTHERS = 2  # bytes of flash for a byte of the weights of operators in parts, which row convolutions widen


def with_forms(
    program: Program,
    arena: Arena,
    core: str,
    ways_of: Mapping[str, list[Way]],
    limit_bytes: int = 0,
    flash_bytes: int | None = None,
) -> FastSteps:
    """Returns the placed program with the fastest of its `ways_of` being computed for each operator that runs at once.

    The arena grows only for their scratch, and at most to `limit_bytes`; their arrays and code take, with the other operators',
    about `flash_bytes` at most. An operator without a form that fits keeps its reference kernel.
    """
    found, clock = dict[str, tuple[int, Step, int]](), 0  # operator -> place in the program, step, moment
    for place, (item, nodes) in enumerate(zip(program.schedule.items, program.nodes, strict=True)):
        step = _alone(program, arena, item, nodes)
        if step is not None:
            found[step.op] = place, step, clock
        clock += moments(nodes)
    most = max(limit_bytes, arena.size_bytes)
    gaps = {name: gap(program, arena, most, step.scratch, at) for name, (_, step, at) in found.items()}
    chosen = _chosen(program, ways_of, {name: size for name, (_, size) in gaps.items()}, flash_bytes)
    changed, buffers, offsets, forms = list(program.nodes), dict[str, Buffer](), dict[str, int](), dict[Step, Form]()
    for name, form in chosen.items():
        place, step, moment = found[name]
        scratch = f"{name}:form" if form.scratch_bytes else ""
        if scratch:
            buffers[scratch], offsets[scratch] = Buffer(form.scratch_bytes, 4, moment, moment), gaps[name][0]
        step = replace(step, scratch=scratch)
        changed[place], forms[step] = (step,), on_core(form, core)
    other, larger = with_scratch(replace(program, nodes=tuple(changed)), arena, buffers, offsets)
    return FastSteps(other, larger, core, forms=forms)


def _chosen(program: Program, ways_of: Mapping[str, list[Way]], free: dict[str, int], flash_bytes: int | None) -> dict[str, Form]:
    """Returns the form of each operator of `free` that has one within its bytes of scratch, all of them within the flash."""
    graph, costs, rest = program.graph, dict[str, list[Way]](), 0
    for op in graph.ops:
        if op.name in free:
            costs[op.name] = [way for way in ways_of[op.name] if way.scratch_bytes <= free[op.name]]
        else:
            rest += OTHERS * sum(values.nbytes for values in arrays(graph.with_ops([op])).values())
    if flash_bytes is not None:
        fit_flash(costs, flash_bytes - rest)
    return {name: found[0].form for name, found in costs.items() if found[0].form is not None}


def predicted_cycles(fast: FastSteps) -> float:
    """Returns the predicted cycles of a program, for a choice between programs of one network; infinite with a TREC layer by
    plain C, whose cycles are not among these predictions."""
    by_name, total = {op.name: op for op in fast.program.graph.ops}, 0.0
    for step in fast.program.steps():
        if step in fast.forms:
            total += fast.forms[step].cost
        elif step in fast.convs:
            total += fast.convs[step].cycles
        else:
            total += inf if isinstance(by_name[step.op], TrecConv) else step_cycles(fast.program.graph, by_name[step.op], step)
    return total


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
