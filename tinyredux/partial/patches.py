"""Hybrid schedules: early layers in patches across several blocks, late blocks in channel slices, within a limit of MACs.

Where a single tensor is alive between two operators the network can be cut. A segment between two cuts runs whole, in slices
of channels, in patches of its output's rows (and columns), which compute the rows again that they share, or in rolling strips of
rows, which keep them. What a segment costs depends on nothing outside it, so the best choice of cuts is a shortest path in bytes
and MACs. Of a network with several outputs, what lies behind the last cut runs one operator after the other.
Source: ours; patches after Lin et al., MCUNetV2, arXiv 2110.15352.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tinyredux.graph import Bilinear, Conv, Extend, Graph, MatMul, Op, Rearrange, Shape, TrecConv, Windowed, seen, total_macs
from tinyredux.memory import (
    Box,
    Item,
    boxes_for,
    computed_macs,
    is_spread,
    is_whole,
    lifetimes,
    live_steps,
    moved_from,
    whole,
    windows_meet_map,
)
from tinyredux.partial.regions import Net, bytes_from, candidates, in_rows, internal_bytes

SPAN = 9  # most units in one segment
SLICE = 4  # channels in a slice
INNER_ROWS = (0, 1, 2, 4)  # rows of an inner region at a time, 0: those of the patch
PATCHES = (1, 2, 3, 4, 6, 9)  # patches per axis that are tried
STRIPS = (1, 2, 4, 8)  # rows of rolling strips that are tried
Edges = npt.NDArray[np.int64]
Counts = dict[tuple[int, int, tuple[int, ...]], dict[str, int]]  # rows (axis 0) or columns (1) by operator, for patches
ItemCost = Callable[[Item], float]  # predicted cycles of an item alone
Choices = list[tuple[int, tuple[Item, ...]]]  # peak bytes, and what runs one after the other
LEVEL_STEP = 1.03  # from one peak at which the fastest choice is sought to the next
GAIN = 0.98  # of the cycles of a choice of fewer bytes: what the next one may take at most
PATHS = 16  # to a cut that are followed on
UNPACK_CYCLES = 30  # of each input and output channel of a convolution for each strip: rough, 4x4 Winograd takes some 97
PATCH_CYCLES = 600  # of each operator for each patch: calls, edges


class Way(NamedTuple):
    """How a segment between two cuts runs: peak bytes, multiply-accumulates and predicted cycles, and its items."""

    first: int
    end: int
    peak: int
    macs: int
    cycles: float
    items: tuple[Item, ...]


class Path(NamedTuple):
    """Ways one after the other from the first cut on: their multiply-accumulates and cycles, the last way and those before."""

    macs: int
    cycles: float
    last: Way | None = None
    before: Path | None = None

    @property
    def items(self) -> tuple[Item, ...]:
        """The items of all ways."""
        return (*self.before.items, *self.last.items) if self.before and self.last else ()

    @property
    def peak(self) -> int:
        """The most bytes that one of its ways takes."""
        return max(self.before.peak, self.last.peak) if self.before and self.last else 0


def hybrid_items(net: Net, mac_limit: float, input_outside: bool, cost: ItemCost, rolling: bool) -> Choices:
    """Returns (peak bytes, items) of the fastest choices whose MACs are at most `mac_limit` times the network's, from the least
    peak on: each takes more bytes than the one before and is predicted to be faster. Empty where no choice keeps to the limit.
    `cost` says what an item alone is predicted to take. With `input_outside` the network's input does not count in a peak, with
    `rolling` strips that keep shared rows are tried. For a peak, the fastest choice is a shortest path within the MACs.
    """
    cuts = narrow_cuts(net.graph)
    every = [units_between(net, cuts), [[Item((op.name,)) for op in net.graph.ops[a:b]] for a, b in itertools.pairwise(cuts)]]
    costs, ways, edges = UnitCosts(net.graph, cost), list[Way](), sorted({*alone_after(net.graph), len(net.graph.ops)})
    for end, units in itertools.product(range(1, len(cuts)), every):
        ways += segment_ways(net, units, cuts, end, input_outside, costs)
    at = [edges.index(cut) for cut in cuts]
    ways = [way._replace(first=at[way.first], end=at[way.end]) for way in ways]
    ways += [way for end in range(1, len(edges) * rolling) for way in strip_ways(net, edges, end, input_outside, costs)]
    ways += [one_by_one(net, at, *pair, input_outside, costs) for at, pair in enumerate(itertools.pairwise(edges))]
    ways, ends = sorted(undominated(ways), key=lambda way: (way.end, way.first)), len(edges)
    most, peaks = int(mac_limit * total_macs(net.graph)), sorted({way.peak for way in ways})
    low = bisect_left(peaks, True, key=lambda peak: bool(fastest(ways, ends, peak, most)))
    found, fast, i = Choices(), math.inf, low
    while i < len(peaks):
        # The least peak alone, then the fastest of all within a step of the next one.
        last = bisect_right(peaks, LEVEL_STEP * peaks[i]) - 1 if found else i
        path = fastest(ways, ends, peaks[last], most)
        if path and path.cycles < GAIN * fast:
            fast = path.cycles
            found.append((path.peak, path.items))
        i = last + 1
    return found


def undominated(ways: list[Way]) -> list[Way]:
    """Returns the ways of each segment but those that take no less of anything than another."""
    found: dict[tuple[int, int], list[Way]] = {}
    for way in sorted(ways, key=lambda way: (way.peak, way.macs, way.cycles)):
        kept = found.setdefault((way.first, way.end), [])
        if not any(other.macs <= way.macs and other.cycles <= way.cycles for other in kept):
            kept.append(way)
    return list(itertools.chain.from_iterable(found.values()))


def fastest(ways: list[Way], cuts: int, most_bytes: int, most_macs: int) -> Path | None:
    """Returns the path over all cuts with the fewest cycles among ways of at most `most_bytes`, in order of their ends, whose
    multiply-accumulates are at most `most_macs`; None where there is none."""
    paths: list[list[Path]] = [[Path(0, 0.0)], *([] for _ in range(cuts - 1))]
    for end, group in itertools.groupby((way for way in ways if way.peak <= most_bytes), key=lambda way: way.end):
        pairs = [(way, before) for way in group for before in paths[way.first] if before.macs + way.macs <= most_macs]
        every = [Path(before.macs + way.macs, before.cycles + way.cycles, way, before) for way, before in pairs]
        for path in sorted(every, key=lambda path: path[:2]):
            if not paths[end] or path.cycles < paths[end][-1].cycles:
                paths[end].append(path)
        thin = max(1, -(-len(paths[end]) // PATHS))
        paths[end] = [*paths[end][:-1:thin], *paths[end][-1:]]
    return paths[-1][-1] if paths[-1] else None


class UnitCosts:
    """What units take in patches: the cycles of each alone, by how much of it is computed."""

    def __init__(self, graph: Graph, cost: ItemCost) -> None:
        self.graph, self.cost = graph, cache(cost)
        sizes = {op.name: graph.tensors[op.output].shape for op in graph.ops}
        pixel = {op.name: computed_macs(graph, op, Box(0, 1, 0, 1, 0, sizes[op.name][2])) for op in graph.ops}
        self.weight = {name: macs + sizes[name][2] for name, macs in pixel.items()}
        self.full = {name: height * width * self.weight[name] for name, (height, width, _) in sizes.items()}

    def patched(self, unit: Item, pixels: Mapping[str, int], patches: int) -> float:
        """Returns the cycles of a unit that computes so many pixels of each operator's output in so many patches."""
        base = unit.inner[0] if unit.kind == "spatial" else unit
        share = sum(pixels.get(name, 0) * self.weight[name] for name in unit.ops) / sum(self.full[name] for name in unit.ops)
        channels = self.graph.tensors[self.graph.by_name[unit.sink].output].shape[2]
        calls = len(unit.ops) * (-(-channels // base.width) if base.width else 1)
        if unit.patch[0]:  # a patch is about as high as it is wide
            calls *= max(1, round(math.sqrt(pixels.get(unit.sink, 0) / patches) / unit.patch[0]))
        return share * self.cost(base) + PATCH_CYCLES * patches * calls

    def rolling(self, item: Item) -> float:
        """Returns the cycles of an item that runs in rolling strips."""
        strips = -(-self.graph.tensors[self.graph.by_name[item.sink].output].shape[0] // item.patch[0])
        return sum(self.cost(Item((name,))) + strips * self._again(self.graph.by_name[name]) for name in item.ops)

    def _again(self, op: Op) -> float:
        """Returns the cycles that an operator takes in each strip whatever its rows: calls, edges, weights that are unpacked."""
        pairs = self.graph.constants[op.weights].size / math.prod(op.kernel) if isinstance(op, Conv) and op.groups == 1 else 0
        return PATCH_CYCLES + UNPACK_CYCLES * pairs


def alone_after(graph: Graph) -> dict[int, int]:
    """Returns the places between operators (0: before the first) where one tensor is alive, with its bytes."""
    spans, sizes = lifetimes(graph).items(), {0: graph.input.size_bytes}
    for i, op in enumerate(graph.ops):
        if [name for name, (first, last) in spans if first <= i and (last > i or name in graph.outputs)] == [op.output]:
            sizes[i + 1] = graph.tensors[op.output].size_bytes
    return sizes


def narrow_cuts(graph: Graph) -> list[int]:
    """Returns the places of `alone_after` that are at the foot of a rise in bytes."""
    sizes = alone_after(graph)
    values = [0, *list(sizes.values())[1:]]
    after = [next((other for other in values[i + 1 :] if other != size), size) for i, size in enumerate(values)]
    return [p for p, size, other in zip(sizes, values, after, strict=True) if size <= other or p == len(graph.ops)]


def segment_bound_bytes(graph: Graph) -> int:
    """Returns bytes that every hybrid schedule needs, the network's input counted.

    Proof: an operator runs in a segment between two cuts; the tensor at its first cut is needed whole until the segment ends,
    and the one at its last is written then, elsewhere. So one tensor from before the operator and one from behind it are alive
    together, each at least the smallest that there is. Behind the last cut every schedule does the same.
    """
    sizes = alone_after(graph)
    bounds = [step.live_bytes for step in live_steps(graph)[max(sizes) :]]
    for i in range(max(sizes)):
        before, after = (min(size for place, size in sizes.items() if (place <= i) == early) for early in (True, False))
        bounds.append(before + after)
    return max(bounds)


def one_by_one(net: Net, at: int, first: int, last: int, input_outside: bool, costs: UnitCosts) -> Way:
    """Returns the way from cut `at` to the next that runs operators `first` to `last` - 1 whole, one after the other."""
    graph, peak, macs, until = net.graph, 0, 0, lifetimes(net.graph)[net.graph.inputs[0]][1]
    items = tuple(Item((op.name,)) for op in graph.ops[first:last])
    for i, item in enumerate(items, first):
        outside = graph.input.size_bytes if input_outside and i <= until else 0
        peak = max(peak, live_steps(graph)[i].live_bytes + internal_bytes(net, item) - outside)
        macs += sum(op_macs(graph, item, whole(graph.tensors[net.output(item)].shape), {}).values())
    return Way(at, at + 1, peak, macs, sum(map(costs.cost, items)), items)


def segment_ways(
    net: Net, units: list[list[Item]], cuts: list[int], end: int, input_outside: bool, costs: UnitCosts
) -> list[Way]:
    """Returns the ways to run each segment that ends at `cuts[end]` and begins at most SPAN cuts before, in the order of its
    first cut; `units` are what runs between two cuts.

    A patch takes of each unit the same whether more units run before it or not: the longest segment is priced for all.
    """
    graph, ways = net.graph, list[Way]()
    output, beside = graph.tensors[graph.ops[cuts[end] - 1].output], dict[int, int]()
    for first in range(end - 1, max(0, end - SPAN) - 1, -1):
        source = graph.ops[cuts[first]].inputs[0]
        beside[first] = output.size_bytes + (0 if input_outside and source in graph.inputs else net.size(source))
    alone = len(units[end - 1]) == 1
    if alone:
        (item,) = units[end - 1]
        macs = op_macs(graph, item, whole(output.shape), {}).values()
        ways.append(Way(end - 1, end, beside[end - 1] + internal_bytes(net, item), sum(macs), costs.cost(item), (item,)))
    firsts = list(itertools.takewhile(lambda first: _patchable(graph, cuts[first], cuts[first + 1]), beside))
    if not firsts:
        return ways
    starts = {first: (cuts[first] - cuts[firsts[-1]], sum(map(len, units[firsts[-1] : first]))) for first in firsts}
    flat = [unit for some in units[firsts[-1] : end] for unit in some]
    for longest, needed, counts, cycles in prices(part_of(net, cuts[firsts[-1]], cuts[end]), flat, costs):
        for first, (op, unit) in starts.items():
            if first < end - 1 or not alone or output.shape[0] > 1:
                item = replace(longest, ops=longest.ops[op:], inner=longest.inner[unit:])
                ways.append(Way(first, end, beside[first] + needed[unit], sum(counts[op:]), sum(cycles[unit:]), (item,)))
    return sorted(ways, key=itemgetter(0))


def prices(net: Net, units: list[Item], costs: UnitCosts) -> Iterator[tuple[Item, list[int], list[int], list[float]]]:
    """Yields for each item that runs all of a network in patches: itself, bytes from each unit on as `bytes_from` counts them,
    multiply-accumulates of each operator, cycles of each unit."""
    box, counted = whole(net.graph.output.shape), Counts()
    for item in in_patches(units, box.shape):
        pixels = op_pixels(net.graph, item, box, counted)
        patches = math.prod(-(-size // (step or size)) for size, step in zip(box.shape, item.patch, strict=False))
        macs = [pixels.get(name, 0) * _macs_of_a_pixel(net.graph, name) for name in item.ops]
        yield item, bytes_from(net, item), macs, [costs.patched(unit, pixels, patches) for unit in item.inner]


def in_patches(units: list[Item], shape: Shape) -> Iterator[Item]:
    """Yields items that run units in patches of an output of this shape, a few rows of each region at a time or at once."""
    variants = [tuple(in_rows(unit, rows) if len(unit.ops) > 1 else unit for unit in units) for rows in INNER_ROWS]
    for patch in patch_sizes(shape[0], shape[1], all(len(unit.ops) == 1 for unit in units)):
        for inner in dict.fromkeys(variants):
            yield Item(tuple(name for unit in units for name in unit.ops), "spatial", 0, patch, inner)


def strip_ways(net: Net, edges: list[int], end: int, input_outside: bool, costs: UnitCosts) -> list[Way]:
    """Returns the ways to run the operators between two of the `edges` in rolling strips: those up to number `end` from each that
    begins at most SPAN of such segments before. A segment begins and ends where fewer bytes are alive than before."""
    graph, ways = net.graph, list[Way]()
    sizes = alone_after(graph)
    small = [i for i, edge in enumerate(edges) if edge in sizes and (not i or sizes[edge] < sizes.get(edges[i - 1], 0))]
    for first in [i for i in small if i < end][-SPAN:] if end in small else []:
        ops = graph.ops[edges[first] : edges[end]]
        beside = sizes[edges[end]] + (0 if input_outside and ops[0].inputs[0] in graph.inputs else sizes[edges[first]])
        for item in in_strips(graph, ops) if _patchable(graph, edges[first], edges[end]) else ():
            macs = sum(op_macs(graph, item, whole(graph.tensors[ops[-1].output].shape), {}).values())
            ways.append(Way(first, end, beside + internal_bytes(net, item), macs, costs.rolling(item), (item,)))
    return ways


def in_strips(graph: Graph, ops: Sequence[Op]) -> Iterator[Item]:
    """Yields items that run several operators in rolling strips of a few rows of the last one's output."""
    height = graph.tensors[ops[-1].output].shape[0]
    parts = boxes_for(graph, tuple(ops), ops[-1].output, whole(graph.tensors[ops[-1].output].shape))
    if len(ops) > 1 and all(op.output in parts and parts[op.output][4:] == (0, graph.tensors[op.output].shape[2]) for op in ops):
        for rows in (rows for rows in STRIPS if rows < height):
            yield Item(tuple(op.name for op in ops), "rolling", 0, (rows, 0))


def part_of(net: Net, first: int, end: int) -> Net:
    """Returns operators `first` to `end` - 1, which read one tensor from before and leave one, as a network of their own."""
    ops = net.graph.ops[first:end]
    names = dict.fromkeys(name for op in ops for name in (*op.inputs, op.output))
    tensors = {name: net.graph.tensors[name] for name in names}
    graph = net.graph.with_ops(ops, tensors=tensors, inputs=(ops[0].inputs[0],), outputs=(ops[-1].output,))
    return Net(graph, net.accumulator)


def _patchable(graph: Graph, first: int, end: int) -> bool:
    return all(windows_meet_map(graph, op) and not isinstance(op, Extend | MatMul | TrecConv) for op in graph.ops[first:end])


def units_between(net: Net, cuts: list[int]) -> list[list[Item]]:
    """Returns what runs between each two cuts: the longest channel regions that begin at each operator, others alone."""
    names = [op.name for op in net.graph.ops]
    regions = {item.ops: item for item in candidates(net) if item.kind in ("accumulate", "materialise") and len(item.ops) > 1}
    units = list[list[Item]]()
    for at, stop in itertools.pairwise(cuts):
        units.append([])
        while at < stop:
            ends = (end for end in range(stop, at + 1, -1) if tuple(names[at:end]) in regions)
            region = regions.get(tuple(names[at : next(ends, at + 1)]), Item((names[at],)))
            units[-1].append(replace(region, width=region.width * -(-SLICE // region.width)) if region.width else region)
            at += len(region.ops)
    return units


def patch_sizes(height: int, width: int, low: bool = False) -> list[tuple[int, int]]:
    """Returns (rows, columns) of patches: bands of whole rows, and patches with as many columns as rows; with `low` also bands of
    few rows, and of half the columns."""
    rows = sorted({-(-height // count) for count in PATCHES if count <= height} | ({1, 2} if low and height > 2 else set()))
    halves = [(r, -(-width // 2)) for r in rows if r < -(-width // 2)] if low else []
    return [(r, 0) for r in rows] + [(r, r) for r in rows if r < width] + halves


def op_macs(graph: Graph, item: Item, box: Box, counted: Counts) -> dict[str, int]:
    """Returns the multiply-accumulates of each operator while an item computes a box of its output, what is computed again
    included; `counted` as in `op_pixels`."""
    return {name: count * _macs_of_a_pixel(graph, name) for name, count in op_pixels(graph, item, box, counted).items()}


def _macs_of_a_pixel(graph: Graph, name: str) -> int:
    op = graph.by_name[name]
    return computed_macs(graph, op, Box(0, 1, 0, 1, 0, graph.tensors[op.output].shape[2]))


def op_pixels(graph: Graph, item: Item, box: Box, counted: Counts) -> dict[str, int]:
    """Returns how many pixels of each operator's output are computed while an item computes a box of its own, those that are
    computed again included. `counted` keeps what items of the same units have in common, that differ in their patches.

    Rows and columns are cut apart from each other: what an operator computes is its rows over all patches times its columns.
    """
    keys = [(axis, item.patch[axis], tuple(inner.patch[axis] for inner in item.inner)) for axis in (0, 1)]
    for axis, key in enumerate(keys):
        if key not in counted:
            edges = np.array([[box[2 * axis]], [box[2 * axis + 1]]])
            counted[key] = _extents(graph, item, edges, axis)
    rows, columns = (counted[key] for key in keys)
    return {name: count * columns[name] for name, count in rows.items()}


def _extents(graph: Graph, item: Item, edges: Edges, axis: int) -> dict[str, int]:
    """Returns for each operator how many rows (axis 0) or columns (1) of its output it computes in all parts together.

    edges: (2, N), first and one past the last row of the item's output in each of N parts that run one after the other.
    """
    ops = [graph.by_name[name] for name in item.ops]
    if item.kind == "spatial" and item.patch[axis]:
        step = item.patch[axis]
        counts = -(-(edges[1] - edges[0]) // step)
        first = np.concatenate([start + step * np.arange(count) for start, count in zip(edges[0], counts, strict=True)])
        edges = np.stack([first, np.minimum(first + step, np.repeat(edges[1], counts))])
    wanted = {ops[-1].output: edges}
    for op in reversed(ops):
        for index, name in enumerate(op.inputs if op.output in wanted else ()):
            needed = _input_edges(graph, op, index, wanted[op.output], axis)
            if name in wanted:
                low, high = np.minimum(wanted[name], needed), np.maximum(wanted[name], needed)
                needed = np.stack([low[0], high[1]])
            wanted[name] = needed
    if item.kind != "spatial":
        return {op.name: int((wanted[op.output][1] - wanted[op.output][0]).sum()) for op in ops if op.output in wanted}
    found: dict[str, int] = {}
    for inner in item.inner:
        output = graph.by_name[inner.sink].output
        found |= _extents(graph, inner, wanted[output], axis) if output in wanted else {}
    return found


def _input_edges(graph: Graph, op: Op, index: int, edges: Edges, axis: int) -> Edges:
    """Returns which rows or columns (2, N) of an operator's input number `index` it takes to compute those of its output."""
    size = graph.tensors[op.inputs[index]].shape[axis]
    if is_whole(op, index) or is_spread(graph, op, index):
        return np.broadcast_to([[0], [size]], edges.shape)
    if isinstance(op, Bilinear | Rearrange):
        return moved_from(graph, op, axis, *edges)
    return np.clip(np.stack(seen(op, axis, *edges)), 0, size) if isinstance(op, Windowed) else edges
