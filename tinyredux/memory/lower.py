"""Turns a schedule into loops of kernel calls and says when each buffer is in use.

Each part is made from its end: what its output takes decides which box of every tensor above it is computed. So halos,
slices through concatenations and what no window reaches need no rules of their own.
"""

from __future__ import annotations

from collections.abc import Callable

from tinyredux.graph import Concat, Graph, Op, TrecConv
from tinyredux.memory.layerwise import scratch_bytes
from tinyredux.memory.program import ACCUMULATOR_BYTES, Buffer, Item, Loop, Node, Program, Schedule, Storage, segments, storages
from tinyredux.memory.tiles import Box, Step, View, dense_view, hull, input_box, is_elementwise, is_generator, whole
from tinyredux.trec import trec_sizes

Span = tuple[int, int]  # first and last moment
_Part = Callable[["_Body", int, int], None]


class Lowering:
    """Makes the loops of one schedule. `full` False makes the largest part of each loop only, all that planning asks for."""

    def __init__(self, graph: Graph, schedule: Schedule, full: bool = True) -> None:
        self.graph, self.schedule, self.full = graph, schedule, full
        self.storage = storages(graph, schedule.aliased)
        self.patches: dict[str, View] = {}
        self.split: frozenset[str] = frozenset()  # tensors, or patches of them, that are written in several parts
        self.apart: set[str] = set()  # buffers that sums are finished into elsewhere than at their start
        self.sizes: dict[str, tuple[int, int]] = {}
        self.ties: dict[str, str] = {}

    def declare(self, name: str, size_bytes: int, align: int = 1) -> None:
        """Notes a buffer that must hold `size_bytes`."""
        self.sizes[name] = (max(size_bytes, self.sizes.get(name, (0, 1))[0]), align)

    def stored(self, tensor: str) -> View:
        """Returns the view of a tensor, or of its patch, in the buffer that keeps it, which it declares."""
        if tensor in self.patches:
            return self.patches[tensor]
        shape, place = self.graph.tensors[tensor].shape, self.storage[tensor]
        self.declare(place.root, self.graph.tensors[place.root].size_bytes)
        return View(tensor, whole(shape), place.root, place.channel, shape[1] * place.channels, place.channels)

    def item(self, item: Item) -> list[Node]:
        """Returns what runs for an item."""
        ops = tuple(self.graph.by_name[name] for name in item.ops)
        sink = ops[-1]
        if sink.output in self.schedule.in_place and sink.output not in self.patches:
            self.ties[sink.output] = self.schedule.in_place[sink.output]
        if item.kind == "spatial":
            return self._spatial(item, ops)
        if isinstance(sink, Concat) and item.kind == "whole":
            return [] if sink.name in self.schedule.aliased else self._copies(sink)
        if item.kind == "accumulate":
            return self._accumulate(item, ops)
        if item.kind == "materialise":
            return self._materialise(item, ops)
        target = self.stored(sink.output)
        inputs = tuple(self.stored(name).part(input_box(self.graph, sink, i, target.box)) for i, name in enumerate(sink.inputs))
        return [Step(sink.name, "run", inputs, target, self.scratch(sink, f"{sink.name}:scratch"))]

    def _copies(self, sink: Op) -> list[Node]:
        target, at, steps = self.stored(sink.output), 0, list[Node]()
        for i, name in enumerate(sink.inputs):
            count = self.graph.tensors[name].shape[2]
            box = target.box.channels(at, at + count)
            source = self.stored(name).part(input_box(self.graph, sink, i, box))
            steps.append(Step(sink.name, "copy", (source,), target.part(box)))
            at += count
        return steps

    def _materialise(self, item: Item, ops: tuple[Op, ...]) -> list[Node]:
        sink = ops[-1]
        target = self.stored(sink.output)
        through = sink.output in self.ties and not is_elementwise(sink)

        def part(body: _Body, c0: int, c1: int) -> None:
            box = target.box.channels(c0, c1)
            if through:
                body.steps.append(Step(sink.name, "copy", (body.compute(sink.output, box),), target.part(box)))
            else:
                body.compute(sink.output, box, target.part(box))

        return self._slices(item, ops, sink.output, part)

    def _accumulate(self, item: Item, ops: tuple[Op, ...]) -> list[Node]:
        sink = ops[-1]
        target, width = self.stored(sink.output), ACCUMULATOR_BYTES[self.schedule.accumulator]
        sums = dense_view(sink.output, target.box, f"{sink.name}:sums", width)
        self.declare(sums.buffer, sums.box.elements * width, 4)
        source = input_box(self.graph, sink, 0, target.box)

        def part(body: _Body, c0: int, c1: int) -> None:
            values = body.compute(sink.inputs[0], source.channels(c0, c1))
            body.steps.append(Step(sink.name, "add_up", (values,), sums))

        loops = self._slices(item, ops[:-1], sink.inputs[0], part)
        if not self._alone(target):
            self.apart.add(target.buffer)
            self.ties.pop(target.buffer, None)
        elif target.buffer not in self.apart:
            self.ties[target.buffer] = sums.buffer
        return [Step(sink.name, "start", (), sums), *loops, Step(sink.name, "finish", (sums,), target)]

    def _alone(self, target: View) -> bool:
        """True where a view is all that its buffer holds."""
        if target.tensor in self.split:
            return False
        kept = target.buffer in self.graph.tensors
        return target.box == whole(self.graph.tensors[target.tensor].shape) and target.buffer == target.tensor if kept else True

    def _slices(self, item: Item, ops: tuple[Op, ...], sliced: str, part: _Part) -> list[Node]:
        loops = list[Node]()
        for number, (start, width, count) in enumerate(segments(self.graph, ops, sliced, item.width)):
            parts, private = [], set()
            for i in range(count if self.full else 1):
                body = _Body(self, ops, f"{ops[-1].name}:{number}:")
                part(body, start + i * width, start + (i + 1) * width)
                parts.append(tuple(body.steps))
                private |= body.private
            loops.append(Loop(tuple(parts), frozenset(private)))
        return loops

    def _spatial(self, item: Item, ops: tuple[Op, ...]) -> list[Node]:
        """Returns loops over rows and columns of patches; the tensors between the inner items exist as patches."""
        sink, outer, split = ops[-1], dict(self.patches), self.split
        target = self.stored(sink.output)
        (height, width, _), top, left = target.box.shape, target.box.y0, target.box.x0
        rows, columns = (self._patches(size, step) for size, step in zip((height, width), item.patch, strict=True))
        known, parts = set(self.sizes), []
        for y0, y1 in rows:
            line = []
            for x0, x1 in columns:
                box = Box(top + y0, top + y1, left + x0, left + x1, target.box.c0, target.box.c1)
                self.split = split | {sink.output} if box != target.box else split
                self.patches = outer | self._patch_views(item, ops, box) | {sink.output: target.part(box)}
                line.append(tuple(node for inner in item.inner for node in self.item(inner)))
            parts.append(tuple(line))
        self.patches, self.split = outer, split
        own = frozenset(set(self.sizes) - known - {self.storage[name].root for name in self.graph.tensors})
        if len(columns) == 1:
            return [Loop(tuple(line[0] for line in parts), own)]
        return [Loop(tuple((Loop(line, own),) for line in parts), own)]

    def _patches(self, size: int, step: int) -> list[tuple[int, int]]:
        step = step or size
        found = [(first, min(first + step, size)) for first in range(0, size, step)]
        return found if self.full or len(found) < 3 else [found[(len(found) - 1) // 2]]  # the one least cut by the edges

    def _patch_views(self, item: Item, ops: tuple[Op, ...], box: Box) -> dict[str, View]:
        """Returns where the patches lie of the tensors that the inner items leave to each other."""
        wanted, views = boxes_for(self.graph, ops, ops[-1].output, box), {}
        for inner in item.inner:
            tensor = self.graph.by_name[inner.sink].output
            if tensor in wanted and tensor != ops[-1].output:
                name = f"{ops[-1].name}:patch:{tensor}"
                views[tensor] = dense_view(tensor, wanted[tensor], name)
                self.declare(name, wanted[tensor].elements)
        return views

    def scratch(self, op: Op, name: str) -> str:
        """Returns the name of the scratch that an operator needs, declared; empty where it needs none."""
        size = trec_sizes(self.graph, op).scratch_bytes if isinstance(op, TrecConv) else scratch_bytes(self.graph, op)
        if not size or (op.name in self.schedule.direct and is_generator(op)):
            return ""
        self.declare(name, size, 4)
        return name


def boxes_for(graph: Graph, ops: tuple[Op, ...], tensor: str, box: Box) -> dict[str, Box]:
    """Returns which box of each tensor it takes to compute a box of `tensor` with `ops`, in which order they are listed."""
    wanted = {tensor: box}
    for op in reversed(ops):
        for i, name in enumerate(op.inputs):
            inner = input_box(graph, op, i, wanted[op.output]) if op.output in wanted else None
            if inner is not None and inner.c0 < inner.c1:
                wanted[name] = hull(wanted[name], inner) if name in wanted else inner
    return wanted


class _Body:
    """The steps of one part, made from its end: first which box of each tensor it takes, then what computes them."""

    def __init__(self, lowering: Lowering, ops: tuple[Op, ...], prefix: str) -> None:
        self.lowering, self.ops, self.prefix = lowering, ops, prefix
        self.steps: list[Step] = []
        self.views: dict[str, View] = {}
        self.private: set[str] = set()

    def compute(self, tensor: str, box: Box, target: View | None = None) -> View:
        """Adds the steps that compute a box of a tensor, into `target` or a slice of its own. Returns where it lies."""
        wanted = boxes_for(self.lowering.graph, self.ops, tensor, box)
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
            self.lowering.declare(name, box.elements)
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
                return self._view(name, box.channels(box.c0 - before, box.c1 - before))._replace(tensor=op.output, box=box)
            before += graph.tensors[name].shape[2]
        raise ValueError(f"{op.name}: no input holds channels {box.c0} to {box.c1}")


def lower(graph: Graph, schedule: Schedule, full: bool = True) -> Program:
    """Returns the loops of a schedule and the lifetimes of its buffers."""
    lowering = Lowering(graph, schedule, full)
    for name in graph.inputs:
        lowering.stored(name)
    nodes = tuple(tuple(lowering.item(item)) for item in schedule.items)
    spans = buffer_lifetimes(graph, nodes, lowering.storage)
    buffers = {name: Buffer(size, align, *spans[name]) for name, (size, align) in lowering.sizes.items()}
    return Program(graph, schedule, nodes, buffers, lowering.ties)


def buffer_lifetimes(graph: Graph, nodes: tuple[tuple[Node, ...], ...], storage: dict[str, Storage]) -> dict[str, Span]:
    """Returns the first and last moment of each buffer; a moment is one step of the innermost loop's body."""
    spans = dict[str, Span]()
    end = _touches(tuple(node for some in nodes for node in some), 0, spans)
    for name in graph.inputs:
        spans[storage[name].root] = (0, spans.get(storage[name].root, (0, 0))[1])
    for name in graph.outputs:
        spans[storage[name].root] = (spans[storage[name].root][0], end - 1)
    return spans


def _touches(nodes: tuple[Node, ...], clock: int, spans: dict[str, Span]) -> int:
    """Notes in `spans` when each buffer is in use from `clock` on. Returns the moment after.

    What a loop reads or writes beyond its private buffers is needed from its first moment to its last.
    """
    for node in nodes:
        if isinstance(node, Step):
            for name in (*(view.buffer for view in node.inputs), node.output.buffer, *filter(None, [node.scratch])):
                _widen(spans, name, (clock, clock))
            clock += 1
            continue
        inner, end = dict[str, Span](), clock
        for part in node.parts:
            end = max(end, _touches(part, clock, inner))
        for name, span in inner.items():
            _widen(spans, name, span if name in node.private else (clock, end - 1))
        clock = end
    return clock


def _widen(spans: dict[str, Span], name: str, span: Span) -> None:
    first, last = spans.get(name, span)
    spans[name] = min(first, span[0]), max(last, span[1])


def moments(nodes: tuple[Node, ...]) -> int:
    """Returns how many moments a list of steps and loops takes: those of one part of each loop."""
    return _touches(nodes, 0, {})
