"""How wide the slices and patches of a schedule's items are: as wide as the memory allows, for wide ones are faster."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from functools import cache

from tinyredux.memory import Item, Loop, Lowering, Schedule, blocks_of, is_generator, live_bytes, lower, place, storages
from tinyredux.partial.order import peak_of, problem, replayed, stages_of
from tinyredux.partial.regions import Cost, Net, at_once, in_place_sources, in_rows, internal_bytes, parts_are_free, phases

LIMIT_STEP = 1.02  # limits that are tried grow by this factor
Choice = tuple[Item, frozenset[str]]  # a way to run an item, and which of its convolutions run without scratch


class Fitter:
    """Finds fast forms of a schedule with the narrowest parts, whose items cost `costs`, in at most `most_bytes`."""

    def __init__(self, net: Net, schedule: Schedule, costs: dict[Item, Cost], most_bytes: int) -> None:
        self.net, self.schedule, self.most_bytes = net, schedule, most_bytes
        self.places = storages(net.graph, schedule.aliased)
        given = problem(net, schedule.items, schedule.aliased, costs)
        self.around = {move.item: (live, run) for move, live, run in replayed(given, range(len(given.moves)))}
        self.ways = {item: self._ways(item) for item in self.around}
        self.bytes, self.price = cache(self._bytes), cache(self._price)

    def within_price(self, least: int, wanted: float) -> Schedule:
        """Returns the schedule of the lowest limit whose price is at most `wanted`, or as low as the bytes allow."""
        wanted = max(wanted, self._total(self.within(self.most_bytes)))
        limits = [least]
        while limits[-1] < self.most_bytes:
            limits.append(min(int(limits[-1] * LIMIT_STEP) + 1, self.most_bytes))
        low = bisect_left(limits[:-1], True, key=lambda limit: self._total(self.within(limit)) <= wanted)
        return self.within(limits[low])

    def within(self, limit: int) -> Schedule:
        """Returns the schedule with each item in the way that costs least and still fits into `limit` bytes.

        Where the placement of all together takes more, the items with the largest gain in bytes go back to their narrowest
        form.
        """
        narrow = [(item, self._direct(item)) for item in self.schedule.items]
        chosen = [self.cheapest(item, limit) for item in self.schedule.items]
        keep = set(range(len(chosen)))
        while True:
            ways = [chosen[i] if i in keep else way for i, way in enumerate(narrow)]
            direct = frozenset().union(*(direct for _, direct in ways))
            wider = replace(self.schedule, items=tuple(item for item, _ in ways), direct=direct)
            if not keep or self._fits(wider, limit):
                return wider
            keep.remove(max(keep, key=lambda i: internal_bytes(self.net, chosen[i][0], None, chosen[i][1])))

    def cheapest(self, item: Item, limit: int) -> Choice:
        """Returns the way to run an item that costs least of those while which at most `limit` bytes are alive: the item
        itself, without scratch, where no other fits."""
        fitting = [next((way for way in ways if self.bytes(item, way) <= limit), None) for ways in self.ways.get(item, [])]
        return min((way for way in fitting if way), key=self.price, default=(item, self._direct(item)))

    def _direct(self, item: Item) -> frozenset[str]:
        return frozenset(op.name for op in self.net.ops(item) if is_generator(op))

    def _ways(self, item: Item) -> list[list[Choice]]:
        """Returns ways to run an item in lists, the fastest first."""
        source = self.schedule.in_place.get(self.net.output(item))
        able = [[i for i in ways if not source or source in in_place_sources(self.net, i)] for ways in variants(self.net, item)]
        directs = dict.fromkeys((frozenset[str](), self._direct(item)))
        return [[(way, direct) for way in ways] for direct in directs for ways in able]

    def _bytes(self, item: Item, way: Choice) -> int:
        """Returns the most bytes alive while an item of the schedule runs in this way."""
        live, run = self.around[item]
        needed = phases(self.net, way[0], self.schedule.in_place.get(self.net.output(item)), way[1])
        return peak_of(stages_of(self.net, way[0], self.places, needed), live, run.fresh, run.dying)

    def _price(self, way: Choice) -> float:
        output = self.net.output(way[0])
        in_place = {name: source for name, source in self.schedule.in_place.items() if name == output}
        alone = Schedule((way[0],), in_place, frozenset(), way[1], self.net.accumulator)
        return self.net.price(self.net.graph, Loop((tuple(Lowering(self.net.graph, alone).item(way[0])),)).steps())

    def _total(self, schedule: Schedule) -> float:
        return sum(self.price((item, schedule.direct & self._direct(item))) for item in schedule.items)

    def _fits(self, schedule: Schedule, limit: int) -> bool:
        program = lower(self.net.graph, schedule, full=False)
        live = max(live_bytes(blocks_of(program.buffers, program.ties)))
        return live <= limit and place(program, limit).size_bytes <= limit


def variants(net: Net, item: Item) -> list[list[Item]]:
    """Returns ways to run an item in lists, widest first: by height of bands all slice widths, patches of columns, and
    its operators whole one after the other (a single patch)."""
    if item.kind == "whole" or item == at_once(item):
        return [[item]]
    base = item.inner[0] if item.kind == "spatial" else item
    sink = net.ops(item)[-1]
    channels = net.graph.tensors[sink.inputs[0] if base.kind == "accumulate" else sink.output].shape[2]
    widths = [channels, *reversed([base.width << k for k in range(12) if base.width << k < channels])]
    rows, columns, _ = net.graph.tensors[sink.output].shape
    free = [len(item.ops) > 1 and parts_are_free(net, base, axis) for axis in (0, 1)]
    heights = [r for r in (1, 2, 4, 8, 16, 32) if r < rows] if free[0] else []
    found = [[in_rows(replace(base, width=width), height) for width in widths] for height in (0, *heights)]
    if all(free):
        patches = [c for c in (32, 16, 8, 4, 2, 1) if c < columns]
        found.append([in_rows(replace(base, width=channels), 1, count) for count in patches])
    if len(item.ops) > 1:
        found.append([at_once(item)])
    return found
