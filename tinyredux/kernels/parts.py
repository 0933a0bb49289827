"""Fast forms for the steps of a placed program: whole operators, patches of maps and slices of channels alike.

A form is made for a geometry: the shapes of the boxes that a step reads and writes, and the padding at each side of them. Steps
of one geometry share it. Templates know maps without gaps that begin at words and lie apart; where a patch lies otherwise, its
rows are copied into scratch without gaps, and the output from there to its place. The program stays where it lies: scratch
takes bytes that are idle while the step runs, and the arena grows for it within a limit and no further. So each step takes the
fastest form whose scratch ends below the limit, whatever the others take, and more bytes never make a step slower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tinyredux import memory
from tinyredux.graph import Add, Concat, Conv, Graph, Lookup, Op, Relu, TrecConv
from tinyredux.int8 import quant_of
from tinyredux.kernels.asm.cost import code_bytes
from tinyredux.kernels.asm.forms import Form, Lies, Places
from tinyredux.kernels.asm.function import Function
from tinyredux.kernels.asm.schedule import cycles_of
from tinyredux.kernels.choice import SURELY, Way, on_board, on_core
from tinyredux.kernels.cycles import called, cycles
from tinyredux.kernels.gemm import adding_forms
from tinyredux.kernels.slices import FastSteps, walked, with_scratch
from tinyredux.memory import Arena, Buffer, Node, Program, Step, View

WaysOf = Callable[[Graph, Op], list[Way]]
COPY_WORDS = 4  # in one round of a loop that copies


@dataclass
class StepWays:
    """The ways to compute steps of a graph on a core: `ways_of` says those of an operator, each geometry is asked for once."""

    graph: Graph
    core: str
    ways_of: WaysOf
    known: dict[tuple[Any, ...], list[Way]] = field(default_factory=dict)

    def key(self, step: Step, arena: Arena) -> tuple[Any, ...]:
        """Returns all that the ways of a step depend on: its operator, channels, shapes and padding, and how its maps lie."""
        op = self.graph.by_name[step.op]
        _, small = memory.restricted(self.graph, op, step.output.box)
        padding = getattr(small, "padding", ())
        channels = (*step.output.box[4:], *(step.inputs[0].box[4:] if step.kind == "add_up" else ()))
        shapes = tuple((view.box.shape, view.gaps) for view in (*step.inputs, step.output))
        return step.op, channels, padding, shapes, lies(op, step, arena)

    def __call__(self, step: Step, key: tuple[Any, ...]) -> list[Way]:
        """Returns the ways to compute a step, the fastest first and the C kernel, where its scratch lies already, last."""
        if key not in self.known:
            graph, op = part_of(self.graph, step)
            c_cycles = cycles(self.graph, [step], self.core)
            adds = step.kind == "add_up"
            forms = self._adding(step, graph, op) if adds else [way.form for way in self.ways_of(graph, op) if way.form]
            forms = [with_copies(form, step, key[-1], self.core) for form in forms]
            ways = [Way(form, called(self.core, form.cost), form.flash_bytes, form.scratch_bytes) for form in forms]
            arrays = sum(values.nbytes for values in memory.arrays(graph.with_ops([op])).values())
            faster = [way for way in ways if way.cycles < SURELY * c_cycles]
            self.known[key] = [*sorted(faster, key=lambda way: (way.cycles, way.scratch_bytes)), Way(None, c_cycles, arrays)]
        return self.known[key]

    def _adding(self, step: Step, graph: Graph, op: Op) -> list[Form]:
        """Returns the forms that add up a slice; without padding the zero point has been taken off where the sums start."""
        whole = self.graph.by_name[step.op]
        assert isinstance(op, Conv) and isinstance(whole, Conv)
        zero_point = quant_of(self.graph.tensors[op.inputs[0]]).zero_point if any(whole.padding) else 0
        return [on_board(form, self.core) for form in adding_forms(graph, op, self.core, zero_point)]


def part_of(graph: Graph, step: Step) -> tuple[Graph, Op]:
    """Returns a graph of one operator, between maps as small as the boxes of a step, that computes what the step does."""
    op, views = graph.by_name[step.op], (*step.inputs, step.output)
    if all(view.box == memory.whole(graph.tensors[view.tensor].shape) for view in views) or isinstance(op, TrecConv):
        return graph, op
    graph, op = memory.restricted(graph, op, step.output.box, views[0].box[4:] if step.kind == "add_up" else None)
    named = zip((*op.inputs, op.output), views, strict=True)
    tensors = graph.tensors | {name: replace(graph.tensors[name], shape=view.box.shape) for name, view in named}
    return graph.with_ops([op], tensors=tensors, inputs=tuple(dict.fromkeys(op.inputs)), outputs=(op.output,)), op


def lies(op: Op, step: Step, arena: Arena) -> tuple[Lies, ...]:
    """Returns how each input of a step lies, and then its output.

    An input that the output overlaps is to be copied as one with gaps everywhere is, unless the operator takes value by value,
    four at a time.
    """
    views = (*step.inputs, step.output)
    starts = [arena.offsets[view.buffer] + view.offset for view in views]
    found = [_lies(view, start) for view, start in zip(views, starts, strict=True)]
    by_fours = isinstance(op, (Add, Lookup, Relu)) and step.output.box.elements % 4 == 0
    for i, view in enumerate(step.inputs):
        apart = starts[i] + view.span_bytes <= starts[-1] or starts[-1] + step.output.span_bytes <= starts[i]
        if not (apart or (by_fours and starts[i] == starts[-1] and found[-1] == Lies.AT_WORD)):
            found[i] = Lies.APART
    return tuple(found)


def _lies(view: View, start: int) -> Lies:
    row, pixel = view.gaps
    return Lies.APART if pixel else Lies.IN_ROWS if row else Lies.ANYWHERE if start % 4 else Lies.AT_WORD


def with_copies(form: Form, step: Step, how: Sequence[Lies], core: str) -> Form:
    """Returns a form that works on copies of those maps of a step that do not lie as it can take them; `how` they lie, inputs
    first and the output last."""
    loosest = [form.lies, *(Lies.AT_WORD for _ in how[2:]), min(form.lies, Lies.ANYWHERE)]
    which, views = [one > most for one, most in zip(how, loosest, strict=True)], (*step.inputs, step.output)
    in_row = step.inputs[0].gaps[0] if not which[0] else 0
    if not any(which):
        return replace(form, call=lambda places: form.call(replace(places, in_row=in_row))) if in_row else form
    at, end, moves = dict[int, int](), -(-form.scratch_bytes // 4) * 4, dict[int, tuple[Function, int, int]]()
    for i, view in enumerate(views):
        if which[i]:
            at[i], end = end, end + -(-view.box.elements // 4) * 4
            moves[i] = _move(view, i == len(views) - 1)
    last = len(views) - 1

    def call(places: Places) -> str:
        maps, lines = [*places.inputs, places.out], list[str]()
        own = [f"({places.scratch} + {at[i]})" if i in at else place for i, place in enumerate(maps)]
        lines += [line for i in at if i < last for line in _copying(*moves[i], own[i], maps[i], views[i], False)]
        lines.append(form.call(replace(places, out=own[last], inputs=tuple(own[:last]), in_row=in_row)).rstrip())
        lines += _copying(*moves[last], maps[last], own[last], views[last], True) if last in at else []
        return "\n".join(lines)

    functions = tuple({function.name: function for function, _, _ in moves.values()}.values())
    cost = sum(lines * called(core, cycles_of(function, core)) for function, _, lines in moves.values())
    return replace(
        form, name=f"{form.name}_copied", cycles=round(form.cycles + cost), scratch_bytes=end,
        functions=(*form.functions, *functions), call=call,
    )  # fmt: skip


def _move(view: View, back: bool) -> tuple[Function, int, int]:
    """Returns the function that copies runs of values between a view and a map without gaps, how many runs it copies in a call,
    and how many calls there are."""
    (height, width, channels), (row, pixel) = view.box.shape, view.gaps
    runs, values, distance, calls = height, width * channels, view.row_stride, 1
    if pixel:
        runs, values, distance, calls = (width, channels, pixel, height) if row else (height * width, channels, pixel, 1)
    elif not row:
        runs, values, distance = 1, view.box.elements, view.box.elements
    return copy_function(values, *((values, distance) if back else (distance, values)), runs), runs, calls


def _copying(function: Function, runs: int, calls: int, to: str, source: str, view: View, back: bool) -> list[str]:
    """Returns the lines that copy a view into a map without gaps, or `back`."""
    if calls == 1:
        return [f"{function.name}({to}, {source}, {runs});"]
    apart, dense = view.row_stride, view.box.elements // calls
    steps = (apart, dense) if back else (dense, apart)
    line = f"{function.name}({to} + line * {steps[0]}, {source} + line * {steps[1]}, {runs});"
    return [f"for (int32_t line = 0; line < {calls}; line++) {{", f"    {line}", "}"]


def copy_function(values: int, source_step: int, target_step: int, runs: int) -> Function:
    """Returns the function that copies runs of so many values, which begin `source_step` and `target_step` bytes apart."""
    name = f"tr_copy_runs_{values}_{source_step}_{target_step}"
    p = Function(name, ("int8_t *to", "const int8_t *from", "int32_t runs"), f"Copies runs of {values} values.")
    rounds, rest = divmod(values, 4 * COPY_WORDS)
    with p.loop("runs", times=runs):
        with p.registers(*(f"word_{i}" for i in range(COPY_WORDS))):
            if rounds:
                with p.repeated("rounds", rounds):
                    _copy_words(p, COPY_WORDS)
            _copy_words(p, rest // 4)
            for _ in range(rest % 4):
                p.ldrb_post("word_0", "from", 1)
                p.strb_post("word_0", "to", 1)
        p.move("from", "from", source_step - values)
        p.move("to", "to", target_step - values)
    return p


def _copy_words(p: Function, words: int) -> None:
    for i in range(words):
        p.ldr_post(f"word_{i}", "from", 4)
    for i in range(words):
        p.str_post(f"word_{i}", "to", 4)


@dataclass
class _Chosen:
    """The ways that are left to the steps of one geometry at one moment: the first is taken. `steps`: how many there are;
    `offsets`: of the scratch of each."""

    ways: list[Way]
    offsets: list[int]
    steps: int = 0

    def drop(self, count: int) -> None:
        """Gives up the first ways."""
        del self.ways[:count], self.offsets[:count]


def with_forms(program: Program, arena: Arena, ways: StepWays, limit_bytes: int = 0, flash_bytes: int | None = None) -> FastSteps:
    """Returns the placed program with the fastest of its ways for each step that computes a box of an operator.

    The arena grows only for their scratch, and at most to `limit_bytes`; their arrays and code, with the arrays of C kernels,
    take at most about `flash_bytes`. A step without a form that fits keeps its C kernel.
    """
    limit, chosen, at = max(limit_bytes, arena.size_bytes), dict[Any, _Chosen](), dict[int, dict[str, tuple[int, int]]]()

    def noted(step: Step, moment: int) -> Step:
        if not forms_apply(program.graph, step):
            return step
        key = ways.key(step, arena), moment
        if key not in chosen:
            if moment not in at:
                alive = {name: held for name, held in program.buffers.items() if held.first <= moment <= held.last}
                at[moment] = {name: (arena.offsets[name], held.size_bytes) for name, held in alive.items()}
            busy = [place for name, place in at[moment].items() if name != step.scratch]
            every = ways(step, key[0])
            offsets = [memory.lowest_gap(busy, way.scratch_bytes, 4) if way.scratch_bytes else 0 for way in every]
            fit = [i for i, way in enumerate(every) if offsets[i] + way.scratch_bytes <= limit or not way.scratch_bytes]
            chosen[key] = _Chosen([every[i] for i in fit], [offsets[i] for i in fit])
        chosen[key].steps += 1
        return step

    clock = 0
    for nodes in program.nodes:
        _, clock = walked(nodes, clock, noted, ())
    _fit_flash(chosen, flash_bytes)
    buffers, offsets, forms = dict[str, Buffer](), dict[str, int](), dict[Step, Form]()
    scheduled_of = {id(one.ways[0].form): on_core(one.ways[0].form, ways.core) for one in chosen.values() if one.ways[0].form}

    def changed(step: Step, moment: int) -> Step:
        one = chosen.get((ways.key(step, arena), moment)) if forms_apply(program.graph, step) else None
        form = one.ways[0].form if one else None
        if one is None or form is None:
            return step
        scratch = f"{step.op}:form:{one.offsets[0]}:{form.scratch_bytes}" if form.scratch_bytes else ""
        if scratch:
            before = buffers.get(scratch, Buffer(form.scratch_bytes, 4, moment, moment))
            buffers[scratch] = replace(before, first=min(before.first, moment), last=max(before.last, moment))
            offsets[scratch] = one.offsets[0]
        found = replace(step, scratch=scratch)
        forms[found] = scheduled_of[id(form)]
        return found

    made, clock = list[tuple[Node, ...]](), 0
    for nodes in program.nodes:
        other, clock = walked(nodes, clock, changed, buffers)
        made.append(other)
    placed = with_scratch(replace(program, nodes=tuple(made)), arena, buffers, offsets)
    return FastSteps(*placed, ways.core, forms=forms)


def forms_apply(graph: Graph, step: Step) -> bool:
    """True for a step that computes a box of an operator that templates know, or adds up a slice in int32."""
    op = graph.by_name[step.op]
    adds = step.kind == "add_up" and isinstance(op, Conv) and step.output.element_bytes == 4
    return adds or (step.kind == "run" and not isinstance(op, Concat))


def _fit_flash(chosen: Mapping[Any, _Chosen], flash_bytes: int | None) -> None:
    """Drops ways until arrays and code fit, those first that save most bytes for a cycle."""
    while flash_bytes is not None and _flash(chosen) > flash_bytes:
        moves = [
            ((later.cycles - one.ways[0].cycles) * one.steps / (one.ways[0].flash_bytes - later.flash_bytes), k, i)
            for k, one in enumerate(chosen.values())
            for i, later in enumerate(one.ways)
            if later.flash_bytes < one.ways[0].flash_bytes
        ]
        if not moves:
            return
        _, k, dropped = min(moves)
        list(chosen.values())[k].drop(dropped)


def _flash(chosen: Mapping[Any, _Chosen]) -> int:
    """Returns the bytes of the arrays and the code of what is chosen, each array of an operator and each function once."""
    found = dict[Any, int]()
    for ((op, channels, *_), _), one in chosen.items():
        form = one.ways[0].form
        if form is None:
            found[op, channels] = one.ways[0].flash_bytes
            continue
        found |= {(op, key, values.tobytes()): values.nbytes for key, values in form.arrays.items()}
        found |= {function.name: code_bytes(function) for function in form.functions}
        found |= {(op, "later"): form.later.code_bytes} if form.later else {}
    return sum(found.values())
