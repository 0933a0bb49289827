"""Which kernel computes each operator: the fastest that fits into SRAM and flash, by the prices of `cycles`.

Every operator has its C kernel as the last resort. A form enters the choice only where it is predicted to be faster, by more than
the predictions are off.
Then the whole is made to fit: where arena and scratch are larger than the SRAM, the operator that reaches highest takes its next
form with less scratch, and what fits after all in the end is taken back; where arrays and code are larger than the flash,
whatever form loses the fewest cycles for a byte goes.

Layer by layer every choice is placed anew. A program in parts stays where it lies: `kernels.parts`.

Whether TREC pays is a choice, too, between two operators: `losing`, `picks`. Clusters are counted as if every code were as
likely; alike rows leave fewer. How far off the prices are: `kernels.cycles`.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tinyredux import memory
from tinyredux.graph import Attention, Conv, Graph, Op, TrecConv, constant_names
from tinyredux.kernels import attention, dense, depthwise, elementwise, gemm, phases, pool, quads, rows, trec, winograd
from tinyredux.kernels.asm.forms import Form
from tinyredux.kernels.asm.schedule import scheduled
from tinyredux.kernels.asm.stalls import OnBoard, byte_cycles
from tinyredux.kernels.cycles import called, operator_cycles
from tinyredux.kernels.slices import FastSteps
from tinyredux.simulator import RULES
from tinyredux.trec import Choice, exactly, with_trec

Template = Callable[[Graph, Op, str], list[Form]]
TEMPLATES: tuple[Template, ...] = (
    pool.forms, elementwise.forms, depthwise.forms, dense.forms, rows.forms, gemm.forms, quads.forms, winograd.forms, trec.forms,
    attention.forms,
)  # fmt: skip
KEPT_BYTES = 1 << 26
LADDER = 1.04  # between two sizes of arrays and code for which a plan is made
WORTH, MOST_BITS, LEAST_CHANNELS = 0.67, 6, 8  # of TREC where it pays: of the exact cycles at most, bits, channels at least
SURELY = 0.85  # of the C kernel's predicted cycles: less is faster, whatever the prediction's error


@dataclass(frozen=True)
class Way:
    """What an operator costs by a form, or by its C kernel (None): predicted cycles, bytes of arrays and code, and of scratch, of
    which none is counted for the C kernel: it is the last resort."""

    form: Form | None
    cycles: float
    flash_bytes: int
    scratch_bytes: int = 0


_kept: OrderedDict[Hashable, tuple[list[Form], int]] = OrderedDict()
Size = Callable[["FastSteps"], int]  # of a whole program, in bytes of flash
Put = Callable[[Mapping[str, Form]], FastSteps]  # the placed program in which operators have these forms
Limits = Callable[[Graph], tuple[int | None, int | None]]  # of SRAM and flash, in bytes
Ways = Mapping[str, list[Way]]  # of each operator, the fastest first and the C kernel last


def candidates(graph: Graph, op: Op, core: str, templates: Sequence[Template] = TEMPLATES) -> list[Form]:
    """Returns the forms of an operator that are sure to beat its C kernel, the fastest first."""
    limit = SURELY * operator_cycles(graph, op, core)
    found = [form for form in _formed(graph, op, core, tuple(templates)) if called(core, form.cost) < limit]
    return sorted(found, key=lambda form: (form.cost, form.scratch_bytes))


def _formed(graph: Graph, op: Op, core: str, templates: tuple[Template, ...]) -> list[Form]:
    """Returns all forms of an operator. Those of layers that were asked for last are kept, at most KEPT_BYTES of their arrays: a
    search asks for the same layer in nearly every design."""
    digests = tuple(hashlib.sha256(graph.constants[name].tobytes()).digest() for name in constant_names(op))
    around: float = 0  # what forms look at beside their own operator
    if isinstance(op, TrecConv):
        around = trec.room(graph, op)
    elif isinstance(op, Attention):
        around = attention.likely_queries(graph, op)
    views = tuple(graph.tensors[name] for name in (*op.inputs, op.output))
    flash = core.flash if isinstance(core, OnBoard) else None  # as names, all boards of a core are equal
    rules = RULES[core], flash, graph.rounding
    key = (repr((op, views)), digests, around, core, rules, templates)  # repr: a door may have left lists in an operator
    if key in _kept:
        _kept.move_to_end(key)
        return _kept[key][0]
    found = [on_board(form, core) for template in templates for form in phases.by_phases(template)(graph, op, core)]
    _kept[key] = found, sum(values.nbytes for form in found for values in form.arrays.values())
    while sum(size for _, size in _kept.values()) > KEPT_BYTES:
        _kept.popitem(last=False)
    return found


def on_board(form: Form, core: str) -> Form:
    """Returns a form with the price of reading its arrays on a core `OnBoard`, where each byte is fetched at least once."""
    if not isinstance(core, OnBoard):
        return form
    array_bytes = sum(values.nbytes for values in form.arrays.values())
    return replace(form, byte_cycles=byte_cycles(core, array_bytes), streamed_bytes=max(array_bytes, form.streamed_bytes))


def ways(graph: Graph, op: Op, core: str, templates: Sequence[Template]) -> list[Way]:
    """Returns every way to compute an operator, the fastest first and the C kernel last."""
    forms = candidates(graph, op, core, templates)
    found = [Way(form, called(core, form.cost), form.flash_bytes, form.scratch_bytes) for form in forms]
    return [*found, Way(None, operator_cycles(graph, op, core), _array_bytes(graph, [op]))]


def _array_bytes(graph: Graph, ops: Iterable[Op]) -> int:
    """Returns the bytes that the C kernels of some operators read from flash."""
    return sum(values.nbytes for op in ops for values in memory.arrays(graph.with_ops([op])).values())


def choose(
    graph: Graph, core: str, sram_bytes: int | None = None, flash_bytes: int | None = None,
    templates: Sequence[Template] = TEMPLATES, size: Size | None = None,
) -> FastSteps:  # fmt: skip
    """Returns the program layer by layer by the fastest forms of `templates` within the bytes for arena with scratch, and for
    weights with kernels; with `size`, for the whole program as this counts it.

    Where even the smallest forms do not fit, the choice is theirs: whoever checks the size says so.
    """
    ways_of = {op.name: ways(graph, op, core, templates) for op in graph.ops}
    if size is None or flash_bytes is None:
        return completed(fitted(graph, core, ways_of, sram_bytes, flash_bytes))
    return completed(within_flash(graph, core, ways_of, sram_bytes, flash_bytes, size))


def completed(fast: FastSteps) -> FastSteps:
    """Returns a program of whole operators whose forms have all their functions, in the order of instructions for its core."""
    return replace(fast, forms={step: on_core(form, fast.core) for step, form in fast.forms.items()})


def fitted(graph: Graph, core: str, ways_of: Ways, sram_bytes: int | None, flash_bytes: int | None) -> FastSteps:
    """Returns the program layer by layer with the fastest of its ways for each operator, within the bytes."""
    live, most = {step.op: step.live_bytes for step in memory.live_steps(graph)}, math.inf if sram_bytes is None else sram_bytes
    possible = {
        op: [way for way in some if way.form is None or live[op] + way.scratch_bytes <= most] for op, some in ways_of.items()
    }
    return _fastest(possible, lambda forms: placed(graph, core, forms), most, flash_bytes)


def within_flash(graph: Graph, core: str, ways_of: Ways, sram_bytes: int | None, flash_bytes: int, size: Size) -> FastSteps:
    """Returns the fastest of the programs for a ladder of sizes that takes at most `flash_bytes`, else the smallest.

    Which programs there are does not depend on the limit, so that more flash never gives a slower one.
    """
    sizes = [[way.flash_bytes for way in some] for some in ways_of.values()]
    least, budget = max(1, sum(map(min, sizes))), float(sum(map(max, sizes)))
    plans = list[FastSteps]()
    while not plans or budget * LADDER > least:
        plans.append(fitted(graph, core, ways_of, sram_bytes, max(least, int(budget))))
        budget /= LADDER
    fastest_first = sorted(plans, key=lambda plan: plan.cycles)
    return next((plan for plan in fastest_first if size(plan) <= flash_bytes), None) or min(fastest_first, key=size)


def placed(graph: Graph, core: str, forms: Mapping[str, Form]) -> FastSteps:
    """Returns the program layer by layer, placed with the scratch of these forms and of the others' C kernels."""
    scratch = memory.reference_scratch(graph) | {op: form.scratch_bytes for op, form in forms.items()}
    program = memory.layer_by_layer(graph, scratch)
    by_form = {step: forms[step.op] for step in program.steps() if step.op in forms}
    return FastSteps(program, memory.place_operators(program), core, forms=by_form)


def _fastest(ways_of: Ways, put: Put, sram_bytes: float, flash_bytes: int | None) -> FastSteps:
    """Returns the program that `put` makes of the fastest of its ways for each operator, within the bytes."""

    def made(chosen: Mapping[str, Way]) -> FastSteps:
        return put({op: way.form for op, way in chosen.items() if way.form is not None})

    left, flash = dict(ways_of), math.inf if flash_bytes is None else flash_bytes
    while True:
        fit_flash(left, flash)
        chosen = {op: some[0] for op, some in left.items()}
        fast = made(chosen)
        largest = _highest_scratch(fast)
        if fast.total_bytes <= sram_bytes or largest is None:
            break
        left[largest] = [way for way in left[largest] if way.form is None or way.scratch_bytes < chosen[largest].scratch_bytes]
    for op, way in [(op, way) for op, some in ways_of.items() for way in some]:
        other = chosen | {op: way}
        small = sum(some.flash_bytes for some in other.values()) <= flash
        if way.cycles < chosen[op].cycles and small and (found := made(other)).total_bytes <= sram_bytes:
            chosen, fast = other, found
    return fast


def _highest_scratch(fast: FastSteps) -> str | None:
    """Returns the operator with a form whose scratch ends highest, None where no form has scratch."""
    offsets = fast.arena.offsets
    ends = {step.op: offsets[step.scratch] + form.scratch_bytes for step, form in fast.forms.items() if step.scratch}
    return max(ends, key=lambda op: ends[op], default=None)


def fit_flash(left: dict[str, list[Way]], flash_bytes: float) -> None:
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


def network_costs(graph: Graph, core: str, ways_of: Ways, limits: Limits | None = None) -> tuple[int, float]:
    """Returns the bytes above the limit of SRAM and the predicted cycles of a network.

    Its operators take, of their ways, those that fit into the limits together.
    """
    sram_bytes, flash_bytes = limits(graph) if limits else (None, None)
    fast = fitted(graph, core, ways_of, sram_bytes, flash_bytes)
    return 0 if sram_bytes is None else max(0, fast.total_bytes - sram_bytes), fast.cycles


def losing(
    graph: Graph, core: str, templates: Sequence[Template] = (), limits: Limits | None = None, together: bool = False
) -> list[str]:
    """Returns the TREC layers without which the network fits, and is predicted to take fewer cycles.

    `limits` are the bytes for arena with scratch, and for weights with kernels, of a graph with some of the layers. What comes
    nearer to its SRAM is better, and of equals what takes fewer cycles.

    The network, not the layer: what a layer's tables leave of the flash may serve another's. Layers go one by one, those first
    that lose most by themselves; `together`: all of them or none.
    """
    exact_of = {op.name: op for op in exactly(graph, [op.name for op in graph.ops]).ops}
    trec = [op for op in graph.ops if isinstance(op, TrecConv)]
    plain = {op.name: ways(graph, op, core, templates) for op in graph.ops}
    other = {op.name: ways(exactly(graph, [op.name]), exact_of[op.name], core, templates) for op in trec}

    def total(without: set[str]) -> tuple[int, float]:
        return network_costs(exactly(graph, without), core, plain | {name: other[name] for name in without}, limits)

    names, dropped = {op.name for op in trec}, set[str]()
    least, none_left = total(dropped), total(names)
    for name in sorted(set() if together else names, key=lambda name: other[name][0].cycles - plain[name][0].cycles):
        found = total(dropped | {name})
        if found <= least:
            dropped, least = dropped | {name}, found
    return sorted(names if none_left <= least else dropped)


def fastest_cycles(graph: Graph, op: Op, kernels: str, core: str) -> float:
    """Returns the predicted cycles of an operator by the fastest kernel of a set."""
    return ways(graph, op, core, TEMPLATES if kernels == "fast" else ())[0].cycles


def picks(graph: Graph, core: str, kernels: str) -> dict[str, tuple[int, int]]:
    """Returns (sub-vector length, bits) for the convolutions in which TREC is predicted to pay, none for the others.

    Paying: at most WORTH of the exact convolution's cycles. Of what pays the most bits are taken, since more clusters are nearer
    to the rows they stand for, and of equal bits the shorter blocks: one tap of the window, else all of it. At least
    two bits; images stay exact.
    """
    found = {}
    for op in graph.ops:
        channels = graph.tensors[op.inputs[0]].shape[2]
        if not isinstance(op, Conv) or op.groups != 1 or channels < LEAST_CHANNELS:
            continue
        columns, limit = graph.constants[op.weights][0].size, WORTH * fastest_cycles(graph, op, kernels, core)
        most = min(MOST_BITS, graph.tensors[op.output].shape[2] - 1)
        for bits, length in itertools.product(range(most, 1, -1), sorted({channels, columns})):
            changed = with_trec(graph, {op.name: Choice(length, bits)})
            if fastest_cycles(changed, changed.by_name[op.name], kernels, core) <= limit:
                found[op.name] = (length, bits)
                break
    return found
