"""A schedule says in which order and in which parts a network runs; lower.py turns it into loops of kernel calls.

Five kinds of items: "whole" runs one operator at once; "materialise" computes a chain slice by slice of channels and
keeps the last operator's output; "accumulate" feeds a convolution or dense layer slice by slice, which adds up 32-bit
sums until the last slice; "spatial" runs other items patch by patch of rows and columns of its output; "rolling" computes strips
of rows, and keeps of every tensor inside the rows that later strips read again. Between items tensors are whole; inside an item
only slices, patches and rows exist.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeGuard

from tinyredux.graph import Graph, Op, Rearrange, Recall
from tinyredux.memory.tiles import Step, View, whole

ACCUMULATOR_BYTES = {"int32": 4, "int16": 2}


@dataclass(frozen=True)
class Item:
    """Operators that run together, last the one whose output is kept: in parts of `width` channels, in patches of
    `patch` rows and columns in which the `inner` items run one after the other, or in rolling strips of `patch[0]` rows."""

    ops: tuple[str, ...]
    kind: str = "whole"
    width: int = 0
    patch: tuple[int, int] = (0, 0)
    inner: tuple[Item, ...] = ()

    @property
    def sink(self) -> str:
        """The operator whose output is kept."""
        return self.ops[-1]


@dataclass(frozen=True)
class Schedule:
    """All decisions: items in order, outputs that replace a dead input, concatenations without copies, convolutions
    that do without scratch, the width of partial sums, and whether patches may compute a value again."""

    items: tuple[Item, ...]
    in_place: dict[str, str] = field(default_factory=dict)  # output tensor -> input tensor whose bytes it takes over
    aliased: frozenset[str] = frozenset()
    direct: frozenset[str] = frozenset()
    accumulator: str = "int32"
    recomputes: bool = False


def one_by_one(graph: Graph) -> Schedule:
    """Returns the schedule of a network one operator after the other."""
    return Schedule(tuple(Item((op.name,)) for op in graph.ops))


@dataclass(frozen=True)
class Loop:
    """Parts alike that run one after the other; `private` buffers carry nothing from part to part. It takes at least `moments`,
    so that what follows has the same moments in parts in which there is less to do."""

    parts: tuple[tuple[Node, ...], ...]
    private: frozenset[str] = frozenset()
    moments: int = 0

    def steps(self) -> Iterator[Step]:
        """Yields every kernel call in order."""
        for node in itertools.chain.from_iterable(self.parts):
            yield from [node] if isinstance(node, Step) else node.steps()


Node = Step | Loop


@dataclass(frozen=True)
class Buffer:
    """A range of the arena: its size, alignment and the first and last moment at which it holds something."""

    size_bytes: int
    align: int = 1
    first: int = 0
    last: int = 0


@dataclass(frozen=True)
class Program:
    """What runs for each item, the buffers used, and which buffer begins where another lies (an output in place)."""

    graph: Graph
    schedule: Schedule
    nodes: tuple[tuple[Node, ...], ...]
    buffers: dict[str, Buffer]
    ties: dict[str, str]

    def steps(self) -> Iterator[Step]:
        """Returns every kernel call in order."""
        return Loop(self.nodes).steps()


@dataclass(frozen=True)
class Storage:
    """The buffer that holds a tensor, and the channel and row at which it begins there."""

    root: str
    channel: int
    channels: int
    row: int = 0


def storages(graph: Graph, aliased: frozenset[str]) -> dict[str, Storage]:
    """Returns where each tensor lies: in a buffer of its own, among the channels of a concatenation it is part of, or among the
    rows of a Recall that it is part of: its state always, other parts where they begin at a word."""
    found = {name: Storage(name, 0, tensor.shape[2]) for name, tensor in graph.tensors.items()}
    for op in reversed(graph.ops):
        if op.name in aliased:
            at = found[op.output].channel
            for name in op.inputs:
                found[name] = Storage(found[op.output].root, at, found[op.output].channels)
                at += graph.tensors[name].shape[2]
    parts = {name for op in graph.ops if isinstance(op, Recall) for name in (*op.inputs, op.state)}
    for op in graph.ops:
        if isinstance(op, Recall):
            found |= _rows_of(graph, op)
            for crop in graph.consumers(op.output):
                if is_row_crop(crop, graph) and crop.output not in parts:
                    found |= _row_storage(graph, crop.output, op.output, crop.start[0])
    return found


def is_row_crop(op: Op, graph: Graph) -> TypeGuard[Rearrange]:
    """True for an operator whose output is some rows of its input, one after the other."""
    if not isinstance(op, Rearrange):
        return False
    _, *rest = graph.tensors[op.inputs[0]].shape
    return op == Rearrange(op.name, op.inputs, op.output, (op.size[0], rest[0]), rest[1], start=(op.start[0], 0))


def _rows_of(graph: Graph, op: Recall) -> dict[str, Storage]:
    """Returns where the parts of a map of rows lie in it."""
    row, found = 0, dict[str, Storage]()
    for name in (*op.inputs[:-1], op.state, op.inputs[-1]):
        found |= _row_storage(graph, name, op.output, row)
        row += graph.tensors[name].shape[0]
    return found


def _row_storage(graph: Graph, name: str, root: str, row: int) -> dict[str, Storage]:
    _, width, channels = graph.tensors[name].shape
    apart = name in (*graph.inputs, *graph.outputs) or row * width * channels % 4 != 0
    return {} if apart and name not in graph.states else {name: Storage(root, 0, channels, row)}


def kept_buffers(graph: Graph, storage: dict[str, Storage]) -> dict[str, str]:
    """Returns the buffers that hold something from run to run, and for which map: a state that begins its map is a buffer of its
    own, tied to the map's, so that the other rows are free at other times; around any other the map's buffer is kept whole."""
    return {(storage[name].root if storage[name].row else name): storage[name].root for name in graph.states}


def view_of(graph: Graph, storage: Mapping[str, Storage], tensor: str) -> View:
    """Returns the view of a tensor in the buffer that holds it."""
    shape, place = graph.tensors[tensor].shape, storage[tensor]
    row_stride = shape[1] * place.channels
    return View(tensor, whole(shape), place.root, place.channel + place.row * row_stride, row_stride, place.channels)
