"""Hybrid schedules: early layers in patches across several blocks, late blocks in channel slices, within a limit of MACs.

Where a single tensor is alive between two operators the network can be cut. A segment between two cuts runs whole, in slices
of channels, or in patches of its output's rows (and columns); the rows that neighbouring patches share are computed again. What
a segment costs depends on nothing outside it, so the best choice of cuts is a shortest path in bytes and MACs.

Source: ours; patches after Lin et al., MCUNetV2, arXiv 2110.15352.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tinyredux.graph import Conv, Dense, DepthwiseConv, Graph, Op, Pool, TrecConv, total_macs
from tinyredux.regions import Net, candidates, in_rows, internal_bytes
from tinyredux.schedule import Item
from tinyredux.tiles import Box, computed_macs, whole, windows_meet_map

SPAN = 9  # most units in one segment
SLICE = 4  # channels in a slice
INNER_ROWS = (0, 1, 2, 4)  # rows of an inner region at a time, 0: those of the patch
PATCHES = (1, 2, 3, 4, 6, 9)  # patches per axis that are tried
Edges = npt.NDArray[np.int64]
Way = tuple[int, int, tuple[Item, ...]]  # peak in bytes, multiply-accumulates, items


def hybrid_items(net: Net, mac_limit: float, input_outside: bool) -> tuple[Item, ...] | None:
    """Returns the items with the least peak whose MACs are at most `mac_limit` times those of the network; None where no
    choice stays within it. With `input_outside` the network's input does not count.

    For a peak that is allowed, the fewest MACs are a shortest path over the cuts; the least such peak is found by halving.
    """
    cuts = narrow_cuts(net.graph)
    regions = {item.ops: item for item in candidates(net) if item.kind in ("accumulate", "materialise") and len(item.ops) > 1}
    ways: dict[tuple[int, int], list[Way]] = {}
    for b in range(1, len(cuts)):
        for a in range(max(0, b - SPAN), b):
            found = segment_ways(net, regions, cuts[a : b + 1], input_outside)
            ways[a, b] = [(peak, macs, items) for items, peak, macs in found]
    most = int(mac_limit * total_macs(net.graph))
    peaks = sorted({peak for some in ways.values() for peak, _, _ in some})
    low, high, best = 0, len(peaks), None
    while low < high:
        middle = (low + high) // 2
        path = fewest_macs(ways, len(cuts), peaks[middle])
        if path is not None and path[0] <= most:
            high, best = middle, path[1]
        else:
            low = middle + 1
    return best


def fewest_macs(ways: dict[tuple[int, int], list[Way]], cuts: int, most_bytes: int) -> tuple[int, tuple[Item, ...]] | None:
    """Returns (MACs, items) of the path over all cuts with the fewest MACs among ways of at most `most_bytes`."""
    paths: list[tuple[int, tuple[Item, ...]] | None] = [(0, ()), *([None] * (cuts - 1))]
    for (a, b), some in ways.items():  # in order of b
        before = paths[a]
        for peak, macs, items in some if before is not None else ():
            path = paths[b]
            if peak <= most_bytes and before is not None and (path is None or before[0] + macs < path[0]):
                paths[b] = before[0] + macs, (*before[1], *items)
    return paths[-1]


def narrow_cuts(graph: Graph) -> list[int]:
    """Returns the places between operators (0: before the first) where one tensor is alive, at
    the foot of each rise in bytes."""
    last = {name: i for i, op in enumerate(graph.ops) for name in op.inputs}
    places, sizes = [0], [0]
    for i, op in enumerate(graph.ops):
        alive = [n for n in (*graph.inputs, *(o.output for o in graph.ops[: i + 1])) if last.get(n, -1) > i or n in graph.outputs]
        if alive == [op.output]:
            places.append(i + 1)
            sizes.append(graph.tensors[op.output].size_bytes)
    after = [next((other for other in sizes[i + 1 :] if other != size), size) for i, size in enumerate(sizes)]
    return [p for p, size, following in zip(places, sizes, after, strict=True) if size <= following or p == len(graph.ops)]


def segment_bound_bytes(graph: Graph) -> int:
    """Returns bytes that every hybrid schedule needs, the network's input counted.

    Proof: an operator runs in a segment between two cuts; the tensor at its first cut is needed whole until the segment ends,
    and the one at its last is written then, elsewhere. So one tensor from before the operator and one from behind it are alive
    together, each at least the smallest that there is.
    """
    sizes = {0: graph.input.size_bytes} | {p: graph.tensors[graph.ops[p - 1].output].size_bytes for p in narrow_cuts(graph) if p}
    return max(
        min(size for place, size in sizes.items() if place <= i) + min(size for place, size in sizes.items() if place > i)
        for i in range(len(graph.ops))
    )


def segment_ways(
    net: Net, regions: dict[tuple[str, ...], Item], cuts: list[int], input_outside: bool
) -> Iterator[tuple[tuple[Item, ...], int, int]]:
    """Yields (items, peak, MACs) of ways to run the operators from the first of `cuts` to the last."""
    graph, names = net.graph, [op.name for op in net.graph.ops]
    ops = tuple(names[cuts[0] : cuts[-1]])
    units = [inner for a, b in itertools.pairwise(cuts) for inner in in_regions(regions, names[a:b])]
    source, output = graph.ops[cuts[0]].inputs[0], graph.tensors[graph.ops[cuts[-1] - 1].output]
    outside = input_outside and source in graph.inputs
    beside = output.size_bytes + (0 if outside else net.size(source))
    box = whole(output.shape)
    if len(cuts) == 2 and len(units) == 1:
        item = units[0] if len(ops) > 1 else Item(ops)
        yield (item,), beside + internal_bytes(net, item), item_macs(graph, item, box)
    patchable = all(windows_meet_map(graph, op) and not isinstance(op, TrecConv) for op in graph.ops[cuts[0] : cuts[-1]])
    if not patchable or (output.shape[0] == 1 and len(units) == 1):
        return
    for patch in patch_sizes(output.shape[0], output.shape[1]):
        for inner in dict.fromkeys(
            tuple(in_rows(unit, rows) if len(unit.ops) > 1 else unit for unit in units) for rows in INNER_ROWS
        ):
            item = Item(ops, "spatial", 0, patch, inner)
            yield (item,), beside + internal_bytes(net, item), item_macs(graph, item, box)


def in_regions(regions: dict[tuple[str, ...], Item], names: list[str]) -> list[Item]:
    """Returns operators in a row as items: the longest channel regions that begin at each, others alone."""
    found, at = [], 0
    while at < len(names):
        end = next((e for e in range(len(names), at + 1, -1) if tuple(names[at:e]) in regions), at + 1)
        region = regions.get(tuple(names[at:end]))
        width = region.width * -(-SLICE // region.width) if region else 0
        found.append(Item(region.ops, region.kind, width) if region else Item((names[at],)))
        at = end
    return found


def patch_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Returns (rows, columns) of patches: bands of whole rows, and patches with as many columns as rows."""
    rows = sorted({-(-height // count) for count in PATCHES if count <= height})
    return [(r, 0) for r in rows] + [(r, r) for r in rows if r < width]


def item_macs(graph: Graph, item: Item, box: Box) -> int:
    """Returns the multiply-accumulates that an item takes to compute a box of its output, what is computed again included.

    Rows and columns are cut apart from each other: what an operator computes is its rows over all patches times its columns.
    """
    by_name = {op.name: op for op in graph.ops}
    edges = [np.array([[box[2 * axis]], [box[2 * axis + 1]]]) for axis in (0, 1)]
    rows, columns = (_extents(graph, by_name, item, edges[axis], axis) for axis in (0, 1))
    total = 0
    for name, count in rows.items():
        _, _, channels = graph.tensors[by_name[name].output].shape
        total += computed_macs(graph, by_name[name], Box(0, 1, 0, 1, 0, channels)) * count * columns[name]
    return total


def _extents(graph: Graph, by_name: dict[str, Op], item: Item, edges: Edges, axis: int) -> dict[str, int]:
    """Returns for each operator how many rows (axis 0) or columns (1) of its output it computes in all parts together.

    edges: (2, N), first and one past the last row of the item's output in each of N parts that run one after the other.
    """
    ops = [by_name[name] for name in item.ops]
    if item.kind == "spatial" and item.patch[axis]:
        step = item.patch[axis]
        counts = -(-(edges[1] - edges[0]) // step)
        first = np.concatenate([start + step * np.arange(count) for start, count in zip(edges[0], counts, strict=True)])
        edges = np.stack([first, np.minimum(first + step, np.repeat(edges[1], counts))])
    wanted = {ops[-1].output: edges}
    for op in reversed(ops):
        for name in op.inputs if op.output in wanted else ():
            needed = _input_edges(graph, op, wanted[op.output], axis)
            if name in wanted:
                low, high = np.minimum(wanted[name], needed), np.maximum(wanted[name], needed)
                needed = np.stack([low[0], high[1]])
            wanted[name] = needed
    if item.kind != "spatial":
        return {op.name: int((wanted[op.output][1] - wanted[op.output][0]).sum()) for op in ops if op.output in wanted}
    found: dict[str, int] = {}
    for inner in item.inner:
        output = by_name[inner.sink].output
        found |= _extents(graph, by_name, inner, wanted[output], axis) if output in wanted else {}
    return found


def _input_edges(graph: Graph, op: Op, edges: Edges, axis: int) -> Edges:
    """Returns which rows or columns (2, N) of an operator's inputs it takes to compute those of its output."""
    size = graph.tensors[op.inputs[0]].shape[axis]
    if isinstance(op, (Dense, TrecConv)):
        return np.broadcast_to([[0], [size]], edges.shape)
    if not isinstance(op, (Conv, DepthwiseConv, Pool)):
        return edges
    kernel, stride, before = op.kernel[axis], op.stride[axis], op.padding[2 * axis]
    first, last = edges[0] * stride - before, (edges[1] - 1) * stride - before + kernel
    return np.stack([np.minimum(np.maximum(first, 0), size), np.minimum(np.maximum(last, 0), size)])
