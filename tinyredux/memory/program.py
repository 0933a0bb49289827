"""A schedule says in which order and in which parts a network runs; lower.py turns it into loops of kernel calls.

Four kinds of items: "whole" runs one operator at once; "materialise" computes a chain slice by slice of channels and
keeps the last operator's output; "accumulate" feeds a convolution or dense layer slice by slice, which adds up 32-bit
sums until the last slice; "spatial" runs other items patch by patch of rows and columns of its output. Between items
tensors are whole; inside an item only slices and patches exist.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from tinyredux.graph import Graph
from tinyredux.memory.tiles import Step

ACCUMULATOR_BYTES = {"int32": 4, "int16": 2}


@dataclass(frozen=True)
class Item:
    """Operators that run together, last the one whose output is kept: in parts of `width` channels, or in patches of
    `patch` rows and columns in which the `inner` items run one after the other."""

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
    """Parts alike that run one after the other; `private` buffers carry nothing from part to part."""

    parts: tuple[tuple[Node, ...], ...]
    private: frozenset[str] = frozenset()

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
