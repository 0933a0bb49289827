"""The least peak of a small network by trying every plan; shares no cost model, search or placement with the planner.

What is alive while an item runs depends on which operators ran before it, not on their order or parts: between items tensors
are whole. So a plan's peak is the worst of its items, each measured in a lowered program in which all else runs whole, and
the best way to go on from a set of operators is found once for all prefixes that lead to it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

from tinyredux.memory import Item, Program, Schedule, blocks_of, live_bytes, lower, moments, storages
from tinyredux.memory.place import Block
from tinyredux.partial import Net, candidates
from tinyredux.partial.plan import can_alias
from tinyredux.partial.regions import in_place_sources


def least_live_bytes(net: Net) -> int:
    """Returns the least peak of live bytes of all plans: items, order, outputs in place, concatenations without copies."""
    return min(plans.least(0) for plans in every_plan(net))


def least_placed_bytes(net: Net, known: int) -> int:
    """Returns the least bytes that any plan takes with the best offsets for its buffers, or `known` where none takes less."""
    least = [known]
    for plans in every_plan(net):
        for program in plans.programs_below(least):
            least[0] = placed_bytes(program, least[0])
    return least[0]


def every_plan(net: Net) -> Iterator[Plans]:
    """Yields the plans of each choice of concatenations without copies."""
    able = [op.name for op in net.graph.ops if can_alias(net, op)]
    for count in range(len(able) + 1):
        for some in itertools.combinations(able, count):
            yield Plans(net, frozenset(some))


class Plans:
    """All plans of a network in which the concatenations of `aliased` are done without copies."""

    def __init__(self, net: Net, aliased: frozenset[str]) -> None:
        self.net, self.aliased, self.full = net, aliased, (1 << len(net.graph.ops)) - 1
        self.items = [(item, net.mask(item)) for item in candidates(net) if item.kind == "whole" or not aliased & set(item.ops)]
        self.root = {name: storage.root for name, storage in storages(net.graph, aliased).items()}
        self.least, self.bytes = functools.cache(self._least), functools.cache(self._bytes)

    def _least(self, done: int) -> int:
        """Returns the least peak of the items that run after those of `done`."""
        if done == self.full:
            return 0
        peaks = []
        for item, mask in self.ready(done):
            during = min(self.bytes(done, item, source) for source in self.places(done | mask, item))
            peaks.append(max(during, self.least(done | mask)))
        return min(peaks)

    def ready(self, done: int) -> Iterator[tuple[Item, int]]:
        """Yields items, and masks of their operators, that can run after those of `done`."""
        made = self.net.producer
        for item, mask in self.items:
            if not mask & done and all(name not in made or done >> made[name] & 1 for name in self.net.inputs(item)):
                yield item, mask

    def places(self, done: int, item: Item) -> Iterator[str | None]:
        """Yields none and each input whose bytes the output may take over: neither part of another, nobody reads them later."""
        yield None
        for name in in_place_sources(self.net, item) if self.root[self.net.output(item)] == self.net.output(item) else ():
            inside = [other for other, root in self.root.items() if root == name]
            if self.root[name] == name and not any(self.net.readers[other] & ~done for other in inside):
                yield name

    def _bytes(self, done: int, item: Item, source: str | None) -> int:
        """Returns the most bytes alive while an item runs after the operators of `done`, its output in `source`'s place."""
        mask, single = self.net.mask(item), [Item((op.name,)) for op in self.net.graph.ops]
        before = [some for i, some in enumerate(single) if done >> i & 1]
        after = [some for i, some in enumerate(single) if not (done | mask) >> i & 1]
        program = self.program((*before, item, *after), {self.net.output(item): source} if source else {})
        clock = sum(moments(nodes) for nodes in program.nodes[: len(before)])
        end = clock + moments(program.nodes[len(before)])
        return max(live_bytes(blocks_of(program.buffers, program.ties))[clock:end], default=0)

    def program(self, items: tuple[Item, ...], in_place: dict[str, str]) -> Program:
        """Returns the program of items in this order."""
        return lower(self.net.graph, Schedule(items, in_place, self.aliased, frozenset(self.net.index)), full=False)

    def programs_below(self, most: list[int]) -> Iterator[Program]:
        """Yields the program of every order and every place of outputs whose peak is below most[0], which may fall meanwhile."""
        todo: list[tuple[int, tuple[Item, ...], dict[str, str]]] = [(0, (), {})]
        while todo:
            done, items, in_place = todo.pop()
            if done == self.full:
                yield self.program(items, in_place)
            for item, mask in self.ready(done):
                for source in self.places(done | mask, item) if self.least(done | mask) < most[0] else ():
                    if self.bytes(done, item, source) < most[0]:
                        places = in_place | ({self.net.output(item): source} if source else {})
                        todo.append((done | mask, (*items, item), places))


def placed_bytes(program: Program, most: int) -> int:
    """Returns the bytes of the best placement of a program's buffers, or `most` where none is below it.

    Every placement can be pushed down until no block moves; placing its blocks by offset, each as low as it goes, gives it again.
    """
    blocks = blocks_of(program.buffers, program.ties)
    return _placed([], sorted(blocks, key=lambda block: -block.size_bytes), 0, most)


def _placed(done: list[tuple[int, Block]], todo: list[Block], last: int, most: int) -> int:
    if not todo:
        return max(offset + block.size_bytes for offset, block in done)
    for i, block in enumerate(todo):
        offset = 0
        while hit := next((end for at, other in done if (end := _end_of_overlap(at, other, offset, block))), 0):
            offset = -(-hit // block.align) * block.align
        if offset >= last and offset + block.size_bytes < most:
            most = _placed([*done, (offset, block)], todo[:i] + todo[i + 1 :], offset, most)
    return most


def _end_of_overlap(at: int, other: Block, offset: int, block: Block) -> int:
    """Returns the end of a buffer of a placed block that one of `block` would share a byte and a moment with, 0 for none."""
    for m, n in itertools.product(other.members, block.members):
        together = m.first <= n.last and n.first <= m.last
        if together and at < offset + n.size_bytes and offset < at + m.size_bytes:
            return at + m.size_bytes
    return 0
