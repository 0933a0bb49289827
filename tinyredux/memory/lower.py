"""Turns a schedule into loops of kernel calls and says when each buffer is in use.

Each part is made from its end: what its output takes decides which box of every tensor above it is computed. So halos,
slices through concatenations and what no window reaches need no rules of their own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from tinyredux.graph import Concat, Graph, Op, Rearrange, Recall, TrecConv
from tinyredux.memory.layerwise import scratch_bytes
from tinyredux.memory.program import (
    ACCUMULATOR_BYTES,
    Buffer,
    Item,
    Loop,
    Node,
    Program,
    Schedule,
    Storage,
    kept_buffers,
    storages,
    view_of,
)
from tinyredux.memory.reach import group_sizes, input_box, is_elementwise, is_generator
from tinyredux.memory.rolling import computing, held, keep, moves_up, replaced, strips_of
from tinyredux.memory.tiles import Box, Step, View, dense_view, hull, whole
from tinyredux.trec import trec_sizes

Span = tuple[int, int]  # first and last moment
Ops = tuple[Op, ...]
Part = tuple[list[Node], set[str]]  # steps, and the buffers that nothing but these steps uses
Computed = tuple[list[Node], View, set[str]]  # the same, and in the middle where the result lies


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
        root = self.storage[tensor].root
        self.declare(root, self.graph.tensors[root].size_bytes)
        return view_of(self.graph, self.storage, tensor)

    def item(self, item: Item) -> list[Node]:
        """Returns what runs for an item."""
        ops = tuple(self.graph.by_name[name] for name in item.ops)
        sink = ops[-1]
        if sink.output in self.schedule.in_place and sink.output not in self.patches:
            self.ties[sink.output] = self.schedule.in_place[sink.output]
        if item.kind != "whole":
            kinds = {"accumulate": self._accumulate, "materialise": self._materialise, "rolling": self._rolling}
            return (kinds | {"spatial": self._spatial})[item.kind](item, ops)
        if sink.name in self.schedule.aliased:
            return []
        target = self.stored(sink.output)
        if isinstance(sink, Concat):
            return self._copies(sink, target)
        if isinstance(sink, Recall):
            return self._rows(sink, target)
        if target.buffer in sink.inputs and isinstance(sink, Rearrange):  # rows of the map that it reads
            source = self.stored(sink.inputs[0]).part(input_box(self.graph, sink, 0, target.box))
            return [Step(sink.name, "keep", (source,), target)] if sink.output in self.graph.states else []
        inputs = tuple(self.stored(name).part(input_box(self.graph, sink, i, target.box)) for i, name in enumerate(sink.inputs))
        return [Step(sink.name, "run", inputs, target, self.scratch(sink, f"{sink.name}:scratch"))]

    def _copies(self, sink: Op, target: View) -> list[Node]:
        edges = itertools.accumulate((self.graph.tensors[name].shape[2] for name in sink.inputs), initial=0)
        steps = list[Node]()
        for i, (c0, c1) in enumerate(itertools.pairwise(edges)):
            box = target.box.channels(c0, c1)
            source = self.stored(sink.inputs[i]).part(input_box(self.graph, sink, i, box))
            steps.append(Step(sink.name, "copy", (source,), target.part(box)))
        return steps

    def _rows(self, sink: Recall, target: View) -> list[Node]:
        """Returns the copies of those rows of a map that do not lie there already."""
        row, steps = 0, list[Node]()
        for name in (*sink.inputs[:-1], sink.state, sink.inputs[-1]):
            source = self.stored(name)
            place = target.part(target.box._replace(y0=row, y1=row + source.box.shape[0]))
            steps += [Step(sink.name, "copy", (source,), place)] if source.buffer != target.buffer else []
            row = place.box.y1
        return steps

    def _materialise(self, item: Item, ops: Ops) -> list[Node]:
        sink, target = ops[-1], self.stored(ops[-1].output)
        through = sink.output in self.ties and not is_elementwise(sink)

        def part(prefix: str, c0: int, c1: int) -> Part:
            place = target.part(target.box.channels(c0, c1))
            steps, made, own = self._computed(ops, prefix, sink.output, place.box, None if through else place)
            return [*steps, Step(sink.name, "copy", (made,), place)] if through else steps, own

        return self._slices(item, ops, sink.output, part)

    def _accumulate(self, item: Item, ops: Ops) -> list[Node]:
        sink, target = ops[-1], self.stored(ops[-1].output)
        width = ACCUMULATOR_BYTES[self.schedule.accumulator]
        sums = dense_view(sink.output, target.box, f"{sink.name}:sums", width)
        self.declare(sums.buffer, sums.box.elements * width, 4)
        source = input_box(self.graph, sink, 0, target.box)

        def part(prefix: str, c0: int, c1: int) -> Part:
            steps, values, own = self._computed(ops[:-1], prefix, sink.inputs[0], source.channels(c0, c1))
            return [*steps, Step(sink.name, "add_up", (values,), sums)], own

        loops = self._slices(item, ops[:-1], sink.inputs[0], part)
        full = target.buffer == sink.output and target.box == whole(self.graph.tensors[sink.output].shape)
        alone = sink.output not in self.split and (full or target.buffer not in self.graph.tensors)
        if not alone:  # its buffer holds more than these results
            self.apart.add(target.buffer)
            self.ties.pop(target.buffer, None)
        elif target.buffer not in self.apart:
            self.ties[target.buffer] = sums.buffer
        return [Step(sink.name, "start", (), sums), *loops, Step(sink.name, "finish", (sums,), target)]

    def _slices(self, item: Item, ops: Ops, sliced: str, part: Callable[[str, int, int], Part]) -> list[Node]:
        """Returns loops over slices of a tensor's channels; `part` makes the steps of channels c0 to c1 - 1."""
        loops = list[Node]()
        for number, (start, width, count) in enumerate(segments(self.graph, ops, sliced, item.width)):
            firsts = [start + i * width for i in range(count if self.full else 1)]
            made = [part(f"{ops[-1].name}:{number}:", c0, c0 + width) for c0 in firsts]
            loops.append(Loop(tuple(tuple(steps) for steps, _ in made), frozenset().union(*(own for _, own in made))))
        return loops

    def _computed(self, ops: Ops, prefix: str, tensor: str, box: Box, target: View | None = None) -> Computed:
        """Returns what computes a box of a tensor, into `target` or a slice of its own, and where it lies.

        First it says which box of each tensor that takes, then what computes them.
        """
        wanted = boxes_for(self.graph, ops, tensor, box)
        steps, views, own = list[Node](), dict[str, View](), set[str]()

        def view(name: str, part: Box) -> View:
            return (views[name] if name in views else self.stored(name)).part(part)

        for op in (op for op in ops if op.output in wanted):
            made, place = wanted[op.output], target if op.output == tensor else None
            boxes = [input_box(self.graph, op, i, made) for i in range(len(op.inputs))]
            if isinstance(op, Concat):  # a slice lies in one input
                name, part = next((name, part) for name, part in zip(op.inputs, boxes, strict=True) if part.c0 < part.c1)
                piece = view(name, part)._replace(tensor=op.output, box=made)
                steps += [Step(op.name, "copy", (piece,), place)] if place else []
                views[op.output] = place or piece
                continue
            if place is None:
                place = dense_view(op.output, made, f"{prefix}{op.output}")
                self.declare(place.buffer, made.elements)
                own.add(place.buffer)
            inputs = tuple(view(name, part) for name, part in zip(op.inputs, boxes, strict=True))
            scratch = self.scratch(op, f"{prefix}{op.name}:scratch")
            own |= {scratch} if scratch else set()
            views[op.output] = place
            steps.append(Step(op.name, "run", inputs, place, scratch))
        return steps, view(tensor, box), own

    def _spatial(self, item: Item, ops: Ops) -> list[Node]:
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
        own = frozenset(set(self.sizes) - known - {place.root for place in self.storage.values()})
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

    def _rolling(self, item: Item, ops: Ops) -> list[Node]:
        """Returns a loop over strips of rows, in which nothing is computed twice: each strip computes of every tensor inside the
        rows that it takes and that are not there yet; those that later strips read again move to the start of its buffer after
        their last reader, and the rest of it is free for others until the next strip computes there. What an operator does takes
        the same moments in every strip."""
        target, outer, parts = self.stored(ops[-1].output), self.patches, list[list[list[Node]]]()
        boxes = boxes_for(self.graph, ops, ops[-1].output, target.box)
        ops = tuple(op for op in ops if op.output in boxes)
        every, over = strips_of(self.graph, ops, boxes, item.patch[0]), replaced(self.graph, ops, boxes)
        inside = {op.output: f"{item.sink}:rows:{op.output}" for op in ops[:-1] if op.output not in over}
        moving = {name: [i for i, pair in enumerate(itertools.pairwise(every)) if moves_up(name, *pair)] for name in inside}
        for tensor, name in inside.items():
            rows = max(strip[tensor].end - strip[tensor].low for strip in every)
            self.declare(name, boxes[tensor]._replace(y0=0, y1=rows).elements)
            if moving[tensor]:  # the rows that are kept lie at its start, in a buffer of their own that is tied to it
                kept = max(strip[tensor].first - strip[tensor].low for strip in every)
                self.ties[name] = held(name)
                self.declare(held(name), boxes[tensor]._replace(y0=0, y1=kept).elements)
        fullest = max(range(len(every)), key=lambda i: computing(every[i]))
        shown = range(len(every)) if self.full or computing(every[fullest]) < len(ops) else [fullest]
        for i in sorted({*shown, *(some[0] for some in moving.values() if some)}):
            views, slots, self.patches = dict[str, View](), list[list[Node]](), dict(outer)
            for op in reversed(ops):
                box = boxes[op.output]._replace(y0=every[i][op.output].low, y1=every[i][op.output].end)
                own = inside.get(op.output)
                within = dense_view(op.output, box, own) if own else views.get(over.get(op.output, ""), target).part(box)
                views[op.output] = within._replace(tensor=op.output)
            last = {views[name].buffer: k for k, op in enumerate(ops) for name in (*op.inputs, op.output) if name in views}
            for k, op in enumerate(ops):
                _, first, end = every[i][op.output]
                self.patches[op.output] = views[op.output].part(views[op.output].box._replace(y0=first))
                slots.append(self.item(Item((op.name,))) if first < end else [])
                self.patches[op.output] = views[op.output]
                done = [other for other in ops if other.output in inside and last[inside[other.output]] == k]
                slots[k] += [keep(o, views[o.output], every[i + 1][o.output].low) for o in done if i in moving[o.output]]
            parts.append(slots)
        self.patches = outer
        lasting = {
            inside[name] for name in inside if not moving[name] and any(strip[name].low < strip[name].first for strip in every)
        }
        longest = [max(map(len, some)) for some in zip(*parts, strict=True)]
        aligned = [[Loop((tuple(some),), moments=most) for some, most in zip(slots, longest, strict=True)] for slots in parts]
        private = {*inside.values()} - lasting | {step.scratch for nodes in aligned for step in Loop((tuple(nodes),)).steps()}
        return [Loop(tuple(map(tuple, aligned)), frozenset(private - {""}))]

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
    return spans | dict.fromkeys(kept_buffers(graph, storage), (0, end - 1))


def _touches(nodes: tuple[Node, ...], clock: int, spans: dict[str, Span]) -> int:
    """Notes in `spans` when each buffer is in use from `clock` on. Returns the moment after.

    What a loop reads or writes beyond its private buffers is needed from its first moment to its last.
    """
    for node in nodes:
        if isinstance(node, Step):
            buffers = (*(view.buffer for view in node.inputs), node.output.buffer, *filter(None, [node.scratch]))
            inner, private, end = dict.fromkeys(buffers, (clock, clock)), frozenset[str](), clock + 1
        else:
            inner, private = dict[str, Span](), node.private
            end = max(clock + node.moments, *(_touches(part, clock, inner) for part in node.parts))
        for name, (first, last) in inner.items():
            first, last = (first, last) if name in private else (clock, end - 1)
            known = spans.get(name, (first, last))
            spans[name] = min(known[0], first), max(known[1], last)
        clock = end
    return clock


def moments(nodes: tuple[Node, ...]) -> int:
    """Returns how many moments a list of steps and loops takes: those of one part of each loop."""
    return _touches(nodes, 0, {})


def slices_of(graph: Graph, ops: Ops, tensor: str) -> tuple[int, set[int]]:
    """Returns the smallest number of channels of a tensor that a part can compute, `ops` being those that run in parts; and the
    channels at which a part must end: where one input of a concatenation meets the next.

    -1 among them says that one lies inside a group of channels that belong together.
    """
    op = next((op for op in ops if op.output == tensor), None)
    if op is None or is_generator(op):
        return 1, set()
    units, breaks, at = list[int](), set[int](), 0
    in_group, out_group = group_sizes(graph, op)
    for name in op.inputs:
        unit, edges = slices_of(graph, ops, name)
        units.append(math.lcm(in_group, unit) // in_group * out_group)
        breaks |= {-1 if edge < 0 or edge % in_group else at + edge // in_group * out_group for edge in edges}
        if isinstance(op, Concat):
            at += graph.tensors[name].shape[2]
            breaks.add(at)
    return math.lcm(*units), breaks


def segments(graph: Graph, ops: tuple[Op, ...], tensor: str, width: int) -> list[tuple[int, int, int]]:
    """Returns (first channel, width, count) runs of equal slices that cover a tensor's channels and cross none of its breaks."""
    found, channels = list[tuple[int, int, int]](), graph.tensors[tensor].shape[2]
    edges = sorted({0, channels} | {b for b in slices_of(graph, ops, tensor)[1] if 0 < b < channels})
    for start, stop in itertools.pairwise(edges):
        count, rest = divmod(stop - start, width)
        found += [(start, width, count), (stop - rest, rest, 1)]
    return [run for run in found if run[1] and run[2]]
