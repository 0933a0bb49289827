"""Which operators can run together in parts, and what each such item costs in bytes.

Along channels an operator is a generator (convolution, dense: needs its whole input, writes slices), passes slices through
(depthwise, pools, additions, activations), places them (concatenation), adds them up (convolution, dense) or is a barrier
(softmax, layer normalisation, attention, TREC). A region is a generator, or a tensor that is there, then operators that pass
slices through, then one that keeps them or adds them up. Source: Liberis and Lane, arXiv 2211.17246; classes and rules ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import or_

from tinyredux import memory
from tinyredux.graph import (
    Attention,
    Bilinear,
    Concat,
    Dense,
    DepthwiseConv,
    Extend,
    Graph,
    MatMul,
    Op,
    Pool,
    Rearrange,
    Softmax,
    Windowed,
    extent,
)
from tinyredux.memory import Buffer, Item, Node, Price, Program, Schedule, Step, Storage

CANDIDATES_PER_SINK = 64


@dataclass(frozen=True)
class Net:
    """A graph with the relations that planning asks for again and again; operators by index, sets as bit masks.

    `price` says what steps cost.
    """

    graph: Graph
    accumulator: str = "int32"
    price: Price = memory.executed_macs

    @cached_property
    def index(self) -> dict[str, int]:
        """Operator name -> place in the graph's order."""
        return {op.name: i for i, op in enumerate(self.graph.ops)}

    @cached_property
    def producer(self) -> dict[str, int]:
        """Tensor -> operator that writes it."""
        return {op.output: i for i, op in enumerate(self.graph.ops)}

    @cached_property
    def readers(self) -> dict[str, int]:
        """Tensor -> mask of the operators that read it."""
        masks = dict.fromkeys(self.graph.tensors, 0)
        for op in self.graph.ops:
            masks |= {name: masks[name] | 1 << self.index[op.name] for name in op.inputs}
        return masks

    @cached_property
    def before(self) -> list[int]:
        """Mask of all operators that must run before each one."""
        masks: list[int] = []
        for op in self.graph.ops:
            makers = {self.producer[name] for name in op.inputs if name in self.producer}
            masks.append(union(masks[i] | 1 << i for i in makers))
        return masks

    @cached_property
    def after(self) -> list[int]:
        """Mask of all operators that must run after each one."""
        masks = [0] * len(self.graph.ops)
        for i, mask in enumerate(self.before):
            for k in bits(mask):
                masks[k] |= 1 << i
        return masks

    def around(self, mask: int) -> tuple[int, int]:
        """Returns the masks of the others that must run before and after some of the operators of a mask."""
        return union(self.before[i] for i in bits(mask)) & ~mask, union(self.after[i] for i in bits(mask)) & ~mask

    def size(self, tensor: str) -> int:
        """Bytes of a tensor."""
        return self.graph.tensors[tensor].size_bytes

    @cached_property
    def places(self) -> dict[str, Storage]:
        """Where each tensor would lie if every concatenation were done without copies."""
        return memory.storages(self.graph, frozenset(op.name for op in self.graph.ops if isinstance(op, Concat)))

    def together_bytes(self, tensors: set[str]) -> int:
        """Returns the least bytes of tensors that are alive together: the channels of a concatenation count once."""
        channels: dict[str, set[int]] = {}
        for name in tensors:
            place, depth = self.places[name], self.graph.tensors[name].shape[2]
            channels.setdefault(place.root, set()).update(range(place.channel, place.channel + depth))
        return sum(len(some) * self.size(root) // self.graph.tensors[root].shape[2] for root, some in channels.items())

    def mask(self, item: Item) -> int:
        """Mask of an item's operators."""
        return sum(1 << self.index[name] for name in item.ops)

    def ops(self, item: Item) -> list[Op]:
        """An item's operators."""
        return [self.graph.by_name[name] for name in item.ops]

    def inputs(self, item: Item) -> list[str]:
        """Tensors that an item reads from outside, each once."""
        own = {op.output for op in self.ops(item)}
        return sorted({name for op in self.ops(item) for name in op.inputs} - own)

    def output(self, item: Item) -> str:
        """The tensor that an item keeps."""
        return self.graph.by_name[item.sink].output


@dataclass(frozen=True)
class Phase:
    """A stretch of an item: inputs that are still read, whether its output is begun, bytes of all else inside.

    Sums that the output is finished into the start of count apart from it.
    """

    inputs: frozenset[str]
    begun: bool
    extra: int

    def covers(self, other: Phase) -> bool:
        """True where the other phase needs nothing that this one does not."""
        return self.inputs >= other.inputs and self.begun >= other.begun and self.extra >= other.extra


@dataclass(frozen=True)
class Inside:
    """An item by itself: its loops and buffers, those that are no tensors, bytes of these by moment, and how many of its sums'
    bytes the kept output takes over."""

    program: Program
    buffers: dict[str, Buffer]
    totals: list[int]
    in_sums: int


Cost = tuple[tuple[Phase, ...], dict[str, tuple[Phase, ...]]]


def union(masks: Iterable[int]) -> int:
    """Returns the mask of all that some mask has."""
    return reduce(or_, masks, 0)


def bits(mask: int) -> Iterator[int]:
    """Yields the places of the ones in a mask."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def candidates(net: Net) -> list[Item]:
    """Returns every item that the planner may choose, in its narrowest parts: each operator at once, the regions that end at
    it, and these in patches of one row, of one pixel where that computes nothing twice, in a single patch where that leaves
    out what nobody reads."""
    found = [Item((op.name,)) for op in net.graph.ops]
    for i, op in enumerate(net.graph.ops):
        source = op.inputs[0]
        if not memory.is_generator(op):
            regions = [] if memory.is_barrier(net.graph, op) or isinstance(op, Concat) else _regions(net, op, "materialise")
        elif source in net.producer and net.readers[source] == 1 << i and source not in net.graph.outputs:
            regions = _regions(net, op, "accumulate")
        else:
            continue
        found += regions
        for item in (item for item in regions if len(item.ops) > 1):
            if parts_are_free(net, item, 0):
                found.append(in_rows(item, 1, 1 if parts_are_free(net, item, 1) else 0))
            if leaves_out(net, item):
                found.append(at_once(item))
    return found


def at_once(item: Item) -> Item:
    """Returns an item that runs the operators of another whole, one after the other, as a single patch."""
    return Item(item.ops, "spatial", 0, (0, 0), tuple(Item((name,)) for name in item.ops))


def leaves_out(net: Net, item: Item) -> bool:
    """True where something that is made inside is not read to its last row, column or channel."""
    ops = tuple(net.ops(item))
    wanted = memory.boxes_for(net.graph, ops, ops[-1].output, memory.whole(net.graph.tensors[ops[-1].output].shape))
    return any(wanted.get(op.output) != memory.whole(net.graph.tensors[op.output].shape) for op in ops)


def in_rows(item: Item, rows: int, columns: int = 0) -> Item:
    """Returns an item that runs another in patches of so many rows and columns (0: all) of its output; rows 0: at once."""
    return Item(item.ops, "spatial", 0, (rows, columns), (item,)) if rows else item


def parts_are_free(net: Net, item: Item, axis: int) -> bool:
    """True where parts of rows (axis 0) or columns (1) compute nothing twice: what is made inside is read in windows that
    do not overlap."""
    ops = net.ops(item)
    inside = {op.output for op in ops}
    if net.graph.tensors[ops[-1].output].shape[axis] < 2 or not all(memory.windows_meet_map(net.graph, op) for op in ops):
        return False
    readers = [op for op in ops if inside & set(op.inputs)]
    overlap = any(isinstance(op, Windowed) and extent(op, axis) > op.stride[axis] for op in readers)
    overlap |= any(isinstance(op, Bilinear) for op in readers)
    overlap |= any(isinstance(op, Rearrange) and op.repeat[axis] > 1 for op in readers)
    overlap |= any(name in inside and memory.is_spread(net.graph, op, i) for op in readers for i, name in enumerate(op.inputs))
    return not overlap and not any(isinstance(op, (Dense, Extend, MatMul, Softmax, Attention)) for op in readers)


def _regions(net: Net, sink: Op, kind: str) -> list[Item]:
    last, found = 1 << net.index[sink.name], list[Item]()
    masks = (mask for mask in _closures(net, sink, last) if _splittable(net, mask, last))
    for mask in itertools.islice(masks, CANDIDATES_PER_SINK):
        ops = tuple(net.graph.ops[i] for i in bits(mask))
        if mask == last and (kind == "accumulate" or not isinstance(sink, (DepthwiseConv, Pool))):
            continue
        inner, sliced = (ops[:-1], sink.inputs[0]) if kind == "accumulate" else (ops, sink.output)
        width, breaks = memory.slices_of(net.graph, inner, sliced)
        if all(channel >= 0 and channel % width == 0 for channel in breaks):
            found.append(Item(tuple(op.name for op in ops), kind, width))
    return found


def _closures(net: Net, op: Op, mask: int) -> list[int]:
    """Returns sets of operators that end at `op`: each input from outside, or with its producer and what that takes."""
    sets = [mask]
    for name in dict.fromkeys(op.inputs if memory.reads_values(net.graph, op) else ()):
        producer = net.graph.ops[net.producer[name]] if name in net.producer else None
        if producer is None or memory.is_barrier(net.graph, producer) or name in net.graph.outputs:
            continue
        own = 1 << net.index[producer.name]
        above = [own] if memory.is_generator(producer) else _closures(net, producer, own)
        sets = [s | extra for s in sets for extra in (0, *above)][: 8 * CANDIDATES_PER_SINK]
    return sorted(set(sets), key=lambda s: (s.bit_count(), s))


def _splittable(net: Net, mask: int, last: int) -> bool:
    """True where slices suffice: no other reader, no generator fed by a slice, no concatenation of one slice twice, no
    path out and back in."""
    before, after = net.around(mask)
    if before & after:
        return False
    ops = [net.graph.ops[i] for i in bits(mask)]
    made = {op.output for op in ops}
    for op in (net.graph.ops[i] for i in bits(mask & ~last)):
        if net.readers[op.output] & ~mask or op.output in net.graph.outputs or (memory.is_generator(op) and made & {*op.inputs}):
            return False
    places = [op for op in ops if isinstance(op, Concat)]
    shared = any(net.readers[name].bit_count() > 1 and net.readers[name] & mask for name in made)
    twice = any(op.inputs.count(name) > 1 for op in places for name in made)
    return not (places and (shared or twice))  # what several read would be needed in two slices


def in_place_sources(net: Net, item: Item) -> list[str]:
    """Returns the inputs whose bytes the item's output may take over, should they be dead afterwards."""
    ops = net.ops(item)
    sink = ops[-1]
    if item.kind == "accumulate" or (item.kind == "whole" and not memory.is_elementwise(sink)):
        return []
    if item.kind == "spatial" and item.inner[0].kind != "materialise":
        return []
    height, width, channels = net.graph.tensors[sink.output].shape
    found = []
    for name in net.inputs(item):
        rows, columns, depth = net.graph.tensors[name].shape
        fits = depth == channels and height * width <= rows * columns
        pointwise = item.kind != "spatial" or all(memory.is_elementwise(op) for op in ops if name in op.inputs)
        if fits and pointwise and name not in net.graph.outputs and _channel_wise_from(name, ops):
            found.append(name)
    return found


def _channel_wise_from(tensor: str, ops: list[Op]) -> bool:
    """True where every operator between a tensor and the last of `ops` computes channel c from channel c."""
    reached = {tensor}
    for op in ops:
        if reached & set(op.inputs):
            single = isinstance(op, DepthwiseConv) and op.multiplier == 1
            if not (single or isinstance(op, Pool) or memory.is_elementwise(op)):
                return False
            reached.add(op.output)
    return True


def inside(net: Net, item: Item, source: str | None = None, convs: frozenset[str] | None = None) -> Inside:
    """Returns what lies in the arena for an item beside tensors of the graph.

    Its kept output takes `source`'s place where one is named; all but the direct `convs` (None: every operator) have scratch.
    """
    output = net.output(item)
    convs = frozenset(item.ops) if convs is None else convs
    schedule = Schedule((item,), {output: source} if source else {}, frozenset(), convs, net.accumulator)
    program = memory.lower(replace(net.graph, inputs=(), outputs=()), schedule, full=False)
    buffers = {name: buffer for name, buffer in program.buffers.items() if name not in net.graph.tensors}
    ties = {name: other for name, other in program.ties.items() if name in buffers and other in buffers}
    totals = memory.live_bytes(memory.blocks_of(buffers, ties)) if buffers else []
    totals += [0] * (memory.moments(program.nodes[0]) - len(totals))
    return Inside(program, buffers, totals, net.size(output) if program.ties.get(output) in buffers else 0)


def phases(net: Net, item: Item, source: str | None = None, convs: frozenset[str] | None = None) -> tuple[Phase, ...]:
    """Returns what an item needs from its first moment to its last, without phases that ask for no more than another does.

    `source` and `convs` as in `inside`.
    """
    its, found = inside(net, item, source, convs), list[Phase]()
    last = {name: buffer.last for name, buffer in its.program.buffers.items()}
    for moment, total in enumerate(its.totals):
        read = frozenset(name for name in net.inputs(item) if name == source or last.get(name, -1) >= moment)
        begun = its.program.buffers[net.output(item)].first <= moment
        phase = Phase(read, begun, total - its.in_sums * begun)
        if not any(other.covers(phase) for other in found):
            found = [other for other in found if not phase.covers(other)] + [phase]
    return tuple(found)


def item_costs(net: Net, item: Item) -> Cost:
    """Returns an item's phases, plain and by the input whose place its output can take."""
    return phases(net, item), {name: phases(net, item, name) for name in in_place_sources(net, item)}


def internal_bytes(net: Net, item: Item, source: str | None = None, convs: frozenset[str] | None = None) -> int:
    """Returns the most bytes that an item needs beside its inputs and its kept output, arguments as in `phases`."""
    return max(phase.extra - (0 if phase.begun else net.size(net.output(item))) for phase in phases(net, item, source, convs))


def bytes_from(net: Net, item: Item) -> list[int]:
    """Returns for each unit of a spatial item the most bytes that the units from it to the last need beside what the first of
    them reads, whole then, and the item's output: what `internal_bytes` is for an item of these."""
    its, starts, found = inside(net, item), dict[str, int](), list[int]()
    _starts(its.program.nodes[0], 0, starts)
    for unit in item.inner:
        start = min((starts[name] for name in unit.ops if name in starts), default=0)
        read = [buffer for buffer in its.buffers.values() if buffer.first < start <= buffer.last]
        after = [total - sum(b.size_bytes for b in read if b.last >= at) for at, total in enumerate(its.totals) if at >= start]
        found.append(max(after, default=0) - its.in_sums)
    return found


def _starts(nodes: tuple[Node, ...], clock: int, starts: dict[str, int]) -> int:
    """Notes the first moment of each operator among nodes that begin at `clock`. Returns the moment after them."""
    for node in nodes:
        if isinstance(node, Step):
            starts.setdefault(node.op, clock)
            clock += 1
        else:
            clock = max(clock + node.moments, *(_starts(part, clock, starts) for part in node.parts))
    return clock
