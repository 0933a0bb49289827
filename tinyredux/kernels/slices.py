"""Row convolutions in partial execution: slices and patches of maps, with scratch only where the plan has bytes to spare.

The plan of a partial program is made first, with the least peak. At most kernel calls some of the arena is idle; a convolution
that finds enough of it for its packed rows and weights runs as a row convolution, the others as before. With a limit above the
peak the arena grows for more of them, and no further.
`run_schedule.verify` follows the changed program like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tinyredux.graph import Array, Conv
from tinyredux.int8 import requantization
from tinyredux.kernels.asm.forms import Form
from tinyredux.kernels.asm.function import Function as Code
from tinyredux.kernels.cycles import cycles
from tinyredux.kernels.rows.layer import Rows, row_tables, rows_of, weight_array
from tinyredux.kernels.rows.plan import Geometry
from tinyredux.kernels.rows.template import SMALLEST_KERNEL, strip_forms
from tinyredux.memory import Arena, Buffer, Loop, Node, Program, Step, gap, restricted

WORTH = 0.7  # a row convolution is taken where it is predicted to need at most this part of the C kernel's cycles


@dataclass(frozen=True)
class SliceConv:
    """How one step is computed: strips of `height` rows, arrays `packed` and `table`, output channels from `channel` on, at
    predicted cycles."""

    rows: Rows
    height: int
    packed: str
    table: str
    channel: int
    pack: Code
    compute: Code
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
        return cycles(self.program.graph, self.program.steps(), self.core, {**self.forms, **self.convs})

    @property
    def form_of_operator(self) -> dict[str, Form]:
        """The form of each operator that has one."""
        return {step.op: form for step, form in self.forms.items()}

    def form_of(self, nodes: Sequence[Node]) -> tuple[Step, Form] | None:
        """Returns the step that the nodes of an item are, and its form, where it has one."""
        step = nodes[0] if nodes else None
        return (step, self.forms[step]) if isinstance(step, Step) and step in self.forms else None

    def codes(self) -> list[Code]:
        """Returns the Programs of row convolutions, each once."""
        return list({code.name: code for conv in self.convs.values() for code in (conv.pack, conv.compute)}.values())


def with_rows(
    program: Program, arena: Arena, core: str, limit_bytes: int = 0, forms: Mapping[Step, Form] | None = None
) -> FastSteps:
    """Returns the placed program with row convolutions for a core where idle bytes of its arena allow them; steps in `forms`
    stay as they are.

    The arena grows only for these, and at most to `limit_bytes`.
    """
    found = _Search(program, arena, core, max(limit_bytes, arena.size_bytes), frozenset(forms or ()))
    nodes, clock = [], 0
    for some in program.nodes:
        changed, clock = found.nodes(some, clock)
        nodes.append(changed)
    other, larger = with_scratch(replace(program, nodes=tuple(nodes)), arena, found.buffers, found.offsets)
    return FastSteps(other, larger, core, found.convs, found.arrays, dict(forms or {}))


def with_scratch(program: Program, arena: Arena, buffers: dict[str, Buffer], offsets: dict[str, int]) -> tuple[Program, Arena]:
    """Returns a program and its arena with more buffers, and without scratch that no step names any more."""
    used = {view.buffer for step in program.steps() for view in (*step.inputs, step.output)}
    used |= {step.scratch for step in program.steps()}
    kept = {name: buffer for name, buffer in (program.buffers | buffers).items() if name in used or name in program.graph.tensors}
    size = max([arena.size_bytes, *(offsets[name] + buffer.size_bytes for name, buffer in buffers.items())])
    larger = replace(arena, offsets=arena.offsets | offsets, size_bytes=size)
    return replace(program, buffers=kept), larger


class _Search:
    """Walks through a program as `lower.buffer_lifetimes` does and changes the steps that can be row convolutions."""

    def __init__(self, program: Program, arena: Arena, core: str, limit_bytes: int, done: frozenset[Step]) -> None:
        self.program, self.arena, self.core, self.limit_bytes, self.done = program, arena, core, limit_bytes, done
        self.by_name = {op.name: op for op in program.graph.ops}
        self.buffers: dict[str, Buffer] = {}
        self.offsets: dict[str, int] = {}
        self.convs: dict[Step, SliceConv] = {}
        self.arrays: dict[str, dict[str, Array]] = {}
        self.known: dict[tuple[str, Geometry, int], tuple[Rows, int, Code, Code, float] | None] = {}

    def nodes(self, nodes: tuple[Node, ...], clock: int) -> tuple[tuple[Node, ...], int]:
        """Returns changed nodes that begin at moment `clock`, and the moment after them."""
        changed: list[Node] = []
        for node in nodes:
            if isinstance(node, Step):
                changed.append(self.step(node, clock))
                clock += 1
                continue
            parts, ends = zip(*(self.nodes(part, clock) for part in node.parts), strict=True)
            scratch = {step.scratch for step in Loop(parts).steps() if step.scratch in self.buffers}
            changed.append(Loop(parts, node.private | scratch))
            clock = max(ends)
        return tuple(changed), clock

    def step(self, step: Step, moment: int) -> Step:
        """Returns a step, with other scratch where it becomes a row convolution."""
        op = self.by_name[step.op]
        if step in self.done or step.kind != "run":
            return step
        if not isinstance(op, Conv) or op.groups != 1 or op.kernel[1] < SMALLEST_KERNEL:
            return step
        offset, size = gap(self.program, self.arena, self.limit_bytes, step.scratch, moment)
        chosen = self.choose(op, step, size)
        if chosen is None:
            return step
        rows, height, pack, compute, cost = chosen
        needed = rows.scratch_bytes(height)
        name = f"{op.name}:rows:{offset}:{needed}"
        before = self.buffers.get(name, Buffer(needed, 4, moment, moment))
        self.buffers[name] = Buffer(needed, 4, min(before.first, moment), max(before.last, moment))
        self.offsets[name] = offset
        changed = replace(step, scratch=name)
        packed, table = self.arrays_of(op, rows, height)
        self.convs[changed] = SliceConv(rows, height, packed, table, step.output.box.c0, pack, compute, cost)
        return changed

    def choose(self, op: Conv, step: Step, free_bytes: int) -> tuple[Rows, int, Code, Code, float] | None:
        """Returns kernel, height of strips and Programs for a step within the free scratch; None where not worth it."""
        graph = self.program.graph
        _, small = restricted(graph, op, step.output.box)
        assert isinstance(small, Conv)
        source, target = step.inputs[0], step.output
        geometry = Geometry(
            *source.box.shape, *target.box.shape, small.kernel, small.stride, small.padding[0], small.padding[2],
            source.pixel_stride, source.row_stride, target.pixel_stride, target.row_stride,
        )  # fmt: skip
        key = (op.name, geometry, free_bytes)
        if key not in self.known:
            self.known[key] = None
            weights, bias = graph.constants[op.weights], graph.constants[op.bias]
            rows = rows_of(geometry, weights, bias, requantization(graph, op))
            if rows is not None:
                pack, compute, strips = strip_forms(rows, self.core)
                fitting = [(cost, height) for height, cost in strips if rows.scratch_bytes(height) <= free_bytes]
                if fitting and min(fitting)[0] <= WORTH * cycles(graph, [step], self.core):
                    cost, height = min(fitting)
                    self.known[key] = (rows, height, pack, compute, cost)
        return self.known[key]

    def arrays_of(self, op: Conv, rows: Rows, height: int) -> tuple[str, str]:
        """Returns the names of the packed weights and the row table of a kernel, made where they are new."""
        own = self.arrays.setdefault(op.name, {})
        graph = self.program.graph
        values = weight_array(graph.constants[op.weights], graph.constants[op.bias], rows)
        same = [name for name, array in own.items() if array.shape == values.shape and np.array_equal(array, values)]
        packed = same[0] if same else f"{op.name}.packed{len(own)}"
        own[packed] = values
        table = f"{op.name}.rows_{rows.name}_{height}"
        own[table] = np.concatenate(row_tables(rows, height))
        return packed, table
