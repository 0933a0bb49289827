"""Row convolutions in partial execution: slices and patches of maps, with scratch only where the plan has bytes to spare.

The plan of a partial program is made first, with the least peak. At most kernel calls some of the arena is idle; a convolution
that finds enough of it for its packed rows and weights runs as a row convolution, the others as before. With a limit above the
peak the arena grows for more of them, and no further.
`run_schedule.verify` follows the changed program like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from itertools import count

import numpy as np

from tinyredux.graph import Array, Conv, Graph
from tinyredux.kernels.asm.forms import Form
from tinyredux.kernels.asm.function import Function as Code
from tinyredux.kernels.cycles import cycles
from tinyredux.kernels.rows.layer import row_table
from tinyredux.kernels.rows.plan import Geometry
from tinyredux.kernels.rows.template import RowKernel, row_kernel
from tinyredux.memory import Arena, Buffer, Loop, Node, Program, Step, gap, restricted

Forms = Mapping[Step, Form]
Change = Callable[[Step, int], Step]  # of a step that runs at a moment
WORTH = 0.7  # a row convolution is taken where it is predicted to need at most this part of the C kernel's cycles
BETTER = 0.95  # and of the cycles of the form that a step has already


@dataclass(frozen=True)
class SliceConv:
    """How one step is computed: strips of `height` rows, arrays `packed` and `table`, output channels from `channel` on, at
    predicted cycles."""

    kernel: RowKernel
    height: int
    packed: str
    table: str
    channel: int
    cost: float


@dataclass
class FastSteps:
    """A placed program in which some steps are row convolutions, and the arrays that these read."""

    program: Program
    arena: Arena
    core: str = ""
    convs: dict[Step, SliceConv] = field(default_factory=dict)
    arrays: dict[str, dict[str, Array]] = field(default_factory=dict)
    forms: dict[Step, Form] = field(default_factory=dict)  # of operators that run at once
    factor: float | None = None  # predicted cycles against layer by layer, where they are known

    @property
    def total_bytes(self) -> int:
        """Bytes of the arena, scratch included."""
        return self.arena.size_bytes

    @property
    def cycles(self) -> float:
        """Predicted cycles."""
        costs = {step: form.cost for step, form in self.forms.items()} | {step: conv.cost for step, conv in self.convs.items()}
        return cycles(self.program.graph, self.program.steps(), self.core, costs)

    @cached_property
    def names(self) -> tuple[dict[str, Array], dict[Step, dict[str, str]]]:
        """The arrays of all forms by name, and under which names each step finds its own. Those of an operator with equal values
        are one; the first of a kind is named OPERATOR.KIND, the next ones with a number behind."""
        found, names, by_form = dict[str, Array](), dict[Step, dict[str, str]](), dict[tuple[str, int], dict[str, str]]()
        for step in (step for step in self.program.steps() if step in self.forms):
            form = self.forms[step]
            own = by_form.setdefault((step.op, id(form)), {})
            for key, values in form.arrays.items() if not own else ():
                every = (f"{step.op}.{key}{number or ''}" for number in count())
                own[key] = next(name for name in every if name not in found or np.array_equal(found[name], values))
                found.setdefault(own[key], values)
            names[step] = own
        return found, names

    @property
    def form_of_operator(self) -> dict[str, Form]:
        """The form of each operator that has one."""
        return {step.op: form for step, form in self.forms.items()}

    def form_of(self, nodes: Sequence[Node]) -> tuple[Step, Form] | None:
        """Returns the step that the nodes of an item are, and its form, where it has one."""
        step = nodes[0] if nodes else None
        return (step, self.forms[step]) if isinstance(step, Step) and step in self.forms else None

    def codes(self) -> list[Code]:
        """Returns the functions of row convolutions, each once."""
        return list({code.name: code for conv in self.convs.values() for code in conv.kernel.functions}.values())


def with_rows(program: Program, arena: Arena, core: str, limit_bytes: int = 0, forms: Forms | None = None) -> FastSteps:
    """Returns the placed program with row convolutions for a core where idle bytes of its arena allow them; a step in `forms`
    keeps its form where that is about as fast.

    The arena grows only for these, and at most to `limit_bytes`.
    """
    graph, kept, limit = program.graph, dict(forms or {}), max(limit_bytes, arena.size_bytes)
    convs, arrays, buffers = dict[Step, SliceConv](), dict[str, dict[str, Array]](), dict[str, Buffer]()
    offsets, kernel_of = dict[str, int](), cache(partial(row_kernel, graph, core=core))

    def changed(step: Step, moment: int) -> Step:
        op = graph.by_name[step.op]
        if step.kind != "run" or not isinstance(op, Conv) or op.groups != 1 or op.dilation != (1, 1):
            return step
        offset, free_bytes = gap(program, arena, limit, step.scratch, moment)
        kernel = kernel_of(op, _geometry(graph, op, step))
        fitting = [strip for strip in kernel.strips if kernel.rows.scratch_bytes(strip[1]) <= free_bytes] if kernel else []
        most = BETTER * kept[step].cost if step in kept else WORTH * cycles(graph, [step], core)
        if kernel is None or not fitting or min(fitting)[0] > most:
            return step
        (cost, height), rows, weights = min(fitting), kernel.rows, kernel.weights
        needed = rows.scratch_bytes(height)
        name, table = f"{op.name}:rows:{offset}:{needed}", f"{op.name}.rows_{rows.name}_{height}"
        before = buffers.get(name, Buffer(needed, 4, moment, moment))
        buffers[name] = replace(before, first=min(before.first, moment), last=max(before.last, moment))
        own, offsets[name] = arrays.setdefault(op.name, {}), offset
        packed = next((key for key, array in own.items() if np.array_equal(array, weights)), f"{op.name}.packed{len(own)}")
        own |= {packed: weights, table: row_table(rows, height)}
        found = replace(step, scratch=name)
        convs[found] = SliceConv(kernel, height, packed, table, step.output.box.c0, cost)
        return found

    nodes, clock = list[tuple[Node, ...]](), 0
    for item in program.nodes:
        found, clock = walked(item, clock, changed, buffers)
        nodes.append(found)
    other, larger = with_scratch(replace(program, nodes=tuple(nodes)), arena, buffers, offsets)
    left = set(other.steps())
    return FastSteps(other, larger, core, convs, arrays, {step: form for step, form in kept.items() if step in left})


def walked(nodes: Sequence[Node], clock: int, change: Change, new: Container[str]) -> tuple[tuple[Node, ...], int]:
    """Returns nodes that begin at moment `clock` with every step changed, and the moment after them. Scratch that is `new` in a
    loop is private to it. Moments are those of `lower.buffer_lifetimes`."""
    found = list[Node]()
    for node in nodes:
        if isinstance(node, Step):
            found.append(change(node, clock))
            clock += 1
            continue
        parts, ends = zip(*(walked(part, clock, change, new) for part in node.parts), strict=True)
        scratch = {step.scratch for step in Loop(parts).steps() if step.scratch in new}
        found.append(replace(node, parts=parts, private=node.private | scratch))
        clock = max(clock + node.moments, *ends)
    return tuple(found), clock


def _geometry(graph: Graph, op: Conv, step: Step) -> Geometry:
    """Returns the geometry of the part of a convolution that a step computes, between the maps that it works on."""
    small, source, target = restricted(graph, op, step.output.box)[1], step.inputs[0], step.output
    assert isinstance(small, Conv)
    return Geometry(
        *source.box.shape, *target.box.shape, small.kernel, small.stride, small.padding[0], small.padding[2],
        source.pixel_stride, source.row_stride, target.pixel_stride, target.row_stride,
    )  # fmt: skip


def with_scratch(program: Program, arena: Arena, buffers: dict[str, Buffer], offsets: dict[str, int]) -> tuple[Program, Arena]:
    """Returns a program and its arena with more buffers, and without scratch that no step names any more."""
    used = {view.buffer for step in program.steps() for view in (*step.inputs, step.output)}
    used |= {step.scratch for step in program.steps()}
    kept = {name: buffer for name, buffer in (program.buffers | buffers).items() if name in used or name in program.graph.tensors}
    size = max([arena.size_bytes, *(offsets[name] + buffer.size_bytes for name, buffer in buffers.items())])
    larger = replace(arena, offsets=arena.offsets | offsets, size_bytes=size)
    return replace(program, buffers=kept), larger
