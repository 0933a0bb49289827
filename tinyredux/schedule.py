"""A schedule says in which order and in which parts a network runs; `lower` turns it into loops of kernel calls.

Three kinds of items: "whole" runs one operator at once; "materialise" computes a chain slice by slice of channels and
keeps the last operator's output; "accumulate" feeds a convolution or dense layer slice by slice, which adds up 32-bit
sums until the last slice. Between items tensors are whole; inside an item only slices exist.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from tinyredux.graph import Concat, Conv, Dense, Graph, Op
from tinyredux.memory import scratch_bytes
from tinyredux.tiles import Box, Step, View, dense_view, group_sizes, hull, input_box, is_elementwise, whole

_Part = Callable[["_Body", int, int], None]
ACCUMULATOR_BYTES = {"int32": 4, "int16": 2}


@dataclass(frozen=True)
class Item:
    """Operators that run together, last the one whose output is kept; `width` channels a part."""

    ops: tuple[str, ...]
    kind: str = "whole"
    width: int = 0

    @property
    def sink(self) -> str:
        """The operator whose output is kept."""
        return self.ops[-1]


@dataclass(frozen=True)
class Schedule:
    """All decisions: items in order, outputs that replace a dead input, concatenations without copies, convolutions
    that do without scratch, and the width of partial sums."""

    items: tuple[Item, ...]
    in_place: dict[str, str] = field(default_factory=dict)  # output tensor -> input tensor whose bytes it takes over
    aliased: frozenset[str] = frozenset()
    direct: frozenset[str] = frozenset()
    accumulator: str = "int32"


@dataclass(frozen=True)
class Loop:
    """Equal parts that run one after the other; `private` buffers carry nothing from part to part."""

    item: int
    parts: tuple[tuple[Step, ...], ...]
    count: int
    private: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Buffer:
    """A range of the arena: its size, alignment and the first and last moment at which it holds something."""

    size_bytes: int
    align: int = 1
    first: int = 0
    last: int = 0


@dataclass(frozen=True)
class Program:
    """Loops in order, the buffers they use, and which buffer begins where another lies (an output in place)."""

    graph: Graph
    schedule: Schedule
    loops: tuple[Loop, ...]
    buffers: dict[str, Buffer]
    ties: dict[str, str]

    def steps(self) -> Iterator[Step]:
        """Yields every kernel call in order."""
        for loop in self.loops:
            for part in loop.parts:
                yield from part


@dataclass(frozen=True)
class Storage:
    """The buffer that holds a tensor, and the channel at which it begins there."""

    root: str
    channel: int
    channels: int


def storages(graph: Graph, aliased: frozenset[str]) -> dict[str, Storage]:
    """Returns where each tensor lies: in a buffer of its own, or among the channels of a concatenation it is part of."""
    found = {name: Storage(name, 0, tensor.shape[2]) for name, tensor in graph.tensors.items()}
    for op in reversed(graph.ops):
        if op.name in aliased:
            at = found[op.output].channel
            for name in op.inputs:
                found[name] = Storage(found[op.output].root, at, found[op.output].channels)
                at += graph.tensors[name].shape[2]
    return found


def part_unit(graph: Graph, ops: tuple[Op, ...], tensor: str) -> int:
    """Returns the smallest number of channels of a tensor that a part can compute, `ops` being those that run in parts."""
    op = next((op for op in ops if op.output == tensor), None)
    if op is None or (isinstance(op, Conv) and op.groups == 1) or isinstance(op, Dense):
        return 1
    in_group, out_group = group_sizes(graph, op)
    return math.lcm(*(math.lcm(in_group, part_unit(graph, ops, name)) // in_group * out_group for name in op.inputs))


def part_breaks(graph: Graph, ops: tuple[Op, ...], tensor: str) -> set[int]:
    """Returns the channels at which a part must end: where one input of a concatenation meets the next.

    -1 among them says that one lies inside a group of channels that belong together.
    """
    op = next((op for op in ops if op.output == tensor), None)
    if op is None or (isinstance(op, Conv) and op.groups == 1) or isinstance(op, Dense):
        return set()
    breaks, at = set(), 0
    in_group, out_group = group_sizes(graph, op)
    for name in op.inputs:
        start = at if isinstance(op, Concat) else 0
        for channel in part_breaks(graph, ops, name):
            breaks.add(-1 if channel < 0 or channel % in_group else start + channel // in_group * out_group)
        at += graph.tensors[name].shape[2]
        if isinstance(op, Concat):
            breaks.add(at)
    return breaks


def segments(channels: int, width: int, breaks: set[int]) -> list[tuple[int, int, int]]:
    """Returns (first channel, width, count) runs of equal slices that cover the channels and cross no break."""
    found = []
    edges = sorted({0, channels} | {b for b in breaks if 0 < b < channels})
    for start, stop in zip(edges, edges[1:], strict=False):
        count, rest = divmod(stop - start, width)
        if count:
            found.append((start, width, count))
        if rest:
            found.append((stop - rest, rest, 1))
    return found


class Lowering:
    """Makes the loops of one schedule. `full` False makes the first part of each loop only, for planning."""

    def __init__(self, graph: Graph, schedule: Schedule, full: bool = True) -> None:
        self.graph, self.schedule, self.full = graph, schedule, full
        self.by_name = {op.name: op for op in graph.ops}
        self.storage = storages(graph, schedule.aliased)
        self.sizes: dict[str, tuple[int, int]] = {}
        self.ties: dict[str, str] = {}
        self.loops: list[Loop] = []

    def stored(self, tensor: str) -> View:
        """Returns the view of a whole tensor in the buffer that keeps it, which it declares."""
        shape, place = self.graph.tensors[tensor].shape, self.storage[tensor]
        self.sizes[place.root] = (self.graph.tensors[place.root].size_bytes, 1)
        return View(tensor, whole(shape), place.root, place.channel, shape[1] * place.channels, place.channels)

    def item(self, index: int, item: Item) -> None:
        """Adds the loops of one item."""
        ops = tuple(self.by_name[name] for name in item.ops)
        sink = ops[-1]
        if isinstance(sink, Concat) and item.kind == "whole":
            if sink.name not in self.schedule.aliased:
                self._copies(index, sink)
            return
        if sink.output in self.schedule.in_place:
            self.ties[sink.output] = self.schedule.in_place[sink.output]
        if item.kind == "accumulate":
            self._accumulate(index, item, ops)
        elif item.kind == "materialise":
            self._materialise(index, item, ops)
        else:
            inputs = tuple(self.stored(name) for name in sink.inputs)
            step = Step(sink.name, "run", inputs, self.stored(sink.output), self.scratch(sink, f"{sink.name}:scratch"))
            self.loops.append(Loop(index, ((step,),), 1))

    def _copies(self, index: int, sink: Op) -> None:
        target, at = self.stored(sink.output), 0
        for name in sink.inputs:
            source = self.stored(name)
            box = target.box.channels(at, at + source.box.c1)
            self.loops.append(Loop(index, ((Step(sink.name, "copy", (source,), target.part(box)),),), 1))
            at += source.box.c1

    def _materialise(self, index: int, item: Item, ops: tuple[Op, ...]) -> None:
        sink = ops[-1]
        target = self.stored(sink.output)
        through = sink.output in self.schedule.in_place and not is_elementwise(sink)

        def part(body: _Body, c0: int, c1: int) -> None:
            box = target.box.channels(c0, c1)
            if through:
                body.steps.append(Step(sink.name, "copy", (body.compute(sink.output, box),), target.part(box)))
            else:
                body.compute(sink.output, box, target.part(box))

        self._loops(index, item, ops, sink.output, part)

    def _accumulate(self, index: int, item: Item, ops: tuple[Op, ...]) -> None:
        sink = ops[-1]
        shape, width = self.graph.tensors[sink.output].shape, ACCUMULATOR_BYTES[self.schedule.accumulator]
        sums = dense_view(sink.output, whole(shape), f"{sink.name}:sums", width)
        self.sizes[sums.buffer] = (sums.box.elements * width, 4)
        source = whole(self.graph.tensors[sink.inputs[0]].shape)

        def part(body: _Body, c0: int, c1: int) -> None:
            values = body.compute(sink.inputs[0], source.channels(c0, c1))
            body.steps.append(Step(sink.name, "add_up", (values,), sums))

        self.loops.append(Loop(index, ((Step(sink.name, "start", (), sums),),), 1))
        self._loops(index, item, ops[:-1], sink.inputs[0], part)
        target = self.stored(sink.output)
        if self.storage[sink.output].root == sink.output:
            self.ties[sink.output] = sums.buffer
        self.loops.append(Loop(index, ((Step(sink.name, "finish", (sums,), target),),), 1))

    def _loops(self, index: int, item: Item, ops: tuple[Op, ...], sliced: str, part: _Part) -> None:
        channels = self.graph.tensors[sliced].shape[2]
        for number, (start, width, count) in enumerate(segments(channels, item.width, part_breaks(self.graph, ops, sliced))):
            parts, private = [], set()
            for i in range(count if self.full else 1):
                body = _Body(self, ops, f"{ops[-1].name}:{number}:")
                part(body, start + i * width, start + (i + 1) * width)
                parts.append(tuple(body.steps))
                private |= body.private
            self.loops.append(Loop(index, tuple(parts), count, frozenset(private)))

    def scratch(self, op: Op, name: str) -> str:
        """Returns the name of the scratch that an operator needs, declared; empty where it needs none."""
        size = scratch_bytes(op, self.graph.tensors[op.inputs[0]].shape[2])
        if not size or op.name in self.schedule.direct:
            return ""
        self.sizes[name] = (size, 4)
        return name


class _Body:
    """The steps of one part, made from its end: first which box of each tensor it takes, then what computes them."""

    def __init__(self, lowering: Lowering, ops: tuple[Op, ...], prefix: str) -> None:
        self.lowering, self.ops, self.prefix = lowering, ops, prefix
        self.steps: list[Step] = []
        self.views: dict[str, View] = {}
        self.private: set[str] = set()

    def compute(self, tensor: str, box: Box, target: View | None = None) -> View:
        """Adds the steps that compute a box of a tensor, into `target` or a slice of its own. Returns where it lies."""
        graph = self.lowering.graph
        wanted = {tensor: box}
        for op in reversed(self.ops):
            for i, name in enumerate(op.inputs):
                inner = input_box(graph, op, i, wanted[op.output]) if op.output in wanted else None
                if inner is not None and inner.c0 < inner.c1:
                    wanted[name] = hull(wanted[name], inner) if name in wanted else inner
        for op in self.ops:
            if op.output in wanted:
                self._run(op, wanted[op.output], target if op.output == tensor else None)
        return self._view(tensor, box)

    def _run(self, op: Op, box: Box, target: View | None) -> None:
        if isinstance(op, Concat):
            if target is None:
                self.views[op.output] = self._piece(op, box)
            else:
                self.steps.append(Step(op.name, "copy", (self._piece(op, box),), target))
            return
        if target is None:
            name = f"{self.prefix}{op.output}"
            self.lowering.sizes[name] = (box.elements, 1)
            self.private.add(name)
            target = dense_view(op.output, box, name)
        inputs = tuple(self._view(name, input_box(self.lowering.graph, op, i, box)) for i, name in enumerate(op.inputs))
        scratch = self.lowering.scratch(op, f"{self.prefix}{op.name}:scratch")
        if scratch:
            self.private.add(scratch)
        self.views[op.output] = target
        self.steps.append(Step(op.name, "run", inputs, target, scratch))

    def _view(self, tensor: str, box: Box) -> View:
        return self.views[tensor].part(box) if tensor in self.views else self.lowering.stored(tensor).part(box)

    def _piece(self, op: Op, box: Box) -> View:
        """Returns the slice of a concatenation's input that `box` is, as a view of the concatenation."""
        graph, before = self.lowering.graph, 0
        for index, name in enumerate(op.inputs):
            inner = input_box(graph, op, index, box)
            if inner.c0 < inner.c1:
                return replace(self._view(name, box.channels(box.c0 - before, box.c1 - before)), tensor=op.output, box=box)
            before += graph.tensors[name].shape[2]
        raise ValueError(f"{op.name}: no input holds channels {box.c0} to {box.c1}")


def lower(graph: Graph, schedule: Schedule, full: bool = True) -> Program:
    """Returns the loops of a schedule and the lifetimes of its buffers."""
    lowering = Lowering(graph, schedule, full)
    lowering.stored(graph.inputs[0])
    for index, item in enumerate(schedule.items):
        lowering.item(index, item)
    buffers = {name: Buffer(size, align) for name, (size, align) in lowering.sizes.items()}
    spans = lifetimes(graph, lowering.loops, lowering.storage)
    buffers = {name: replace(buffer, first=spans[name][0], last=spans[name][1]) for name, buffer in buffers.items()}
    return Program(graph, schedule, tuple(lowering.loops), buffers, lowering.ties)


def lifetimes(graph: Graph, loops: list[Loop], storage: dict[str, Storage]) -> dict[str, tuple[int, int]]:
    """Returns the first and last moment of each buffer; a moment is one step of a loop's body.

    What a loop reads or writes beyond its own slices is needed from its first moment to its last.
    """
    spans: dict[str, tuple[int, int]] = {storage[name].root: (0, 0) for name in graph.inputs}
    clock = 0
    for loop in loops:
        end = clock + len(loop.parts[0]) - 1
        for offset, step in enumerate(loop.parts[0]):
            names = {view.buffer for view in (*step.inputs, step.output)} | ({step.scratch} if step.scratch else set())
            for name in names:
                first, last = (clock + offset, clock + offset) if name in loop.private else (clock, end)
                old = spans.get(name, (first, last))
                spans[name] = (min(old[0], first), max(old[1], last))
        clock = end + 1
    for name in graph.outputs:
        spans[storage[name].root] = (spans[storage[name].root][0], clock - 1)
    return spans
