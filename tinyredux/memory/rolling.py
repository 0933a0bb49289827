"""Rolling strips: which rows of each tensor a strip computes, and which it keeps because later strips read them again.

What a stream keeps from push to push, an item keeps from strip to strip of one map: so no row is computed twice, and of the
tensors inside only some rows lie in the arena.
Source: ours; line buffers after Alwani et al., Fused-Layer CNN Accelerators, MICRO 2016.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tinyredux.graph import Bilinear, Graph, Op, Rearrange, Windowed, seen, taken
from tinyredux.memory.reach import input_box, is_elementwise, is_spread, is_whole, moved_from
from tinyredux.memory.tiles import Box, Step, View, dense_view


class Strip(NamedTuple):
    """Of a tensor, while a strip is computed: rows `first` to `end` - 1 are new, `low` to `end` - 1 are held."""

    low: int
    first: int
    end: int


def strips_of(graph: Graph, ops: Sequence[Op], boxes: Mapping[str, Box], rows: int) -> list[dict[str, Strip]]:
    """Returns for each strip of so many rows of the last operator's output what lies of every tensor that `ops` compute.

    `boxes` say which box of each it takes in all. No row is computed before a strip takes it, and none is held longer than some
    strip reads it. Strips before the first row compute what later ones take, so that the first is no larger than the others.
    """
    sink, found = ops[-1].output, list[dict[str, Strip]]()
    height, done = boxes[sink].y1, {op.output: boxes[op.output].y0 for op in ops}
    early = itertools.takewhile(lambda ends: ends != done, (_ends(graph, ops, boxes, -rows * i) for i in itertools.count()))
    late = (_ends(graph, ops, boxes, min(end, height)) for end in range(rows, height + rows, rows))
    for after in [*reversed([*early]), *late]:
        lows = dict[str, int]()
        for op in ops:
            made = boxes[op.output]._replace(y0=done[op.output], y1=after[op.output])
            for i, name in enumerate(op.inputs if made.y0 < made.y1 else ()):
                low = input_box(graph, op, i, made).y0
                lows[name] = min(lows.get(name, low), low)
        found.append({name: Strip(min(lows.get(name, after[name]), done[name]), done[name], after[name]) for name in done})
        done = after
    for strip, before in itertools.pairwise(reversed(found)):  # from the last strip to the first
        before |= {name: each._replace(low=min(each.low, strip[name].low)) for name, each in before.items()}
    return found


def _ends(graph: Graph, ops: Sequence[Op], boxes: Mapping[str, Box], end: int) -> dict[str, int]:
    """Returns the rows of each tensor up to which it takes to compute the last one up to row `end`; before row 0 as many as
    windows that go on there would take."""
    ends = {ops[-1].output: end}
    for op in reversed(ops):
        for i, name in enumerate(op.inputs):
            needed = _end_of_input(graph, op, i, ends[op.output])
            ends[name] = max(ends.get(name, needed), needed)
    return {op.output: min(max(ends[op.output], boxes[op.output].y0), boxes[op.output].y1) for op in ops}


def _end_of_input(graph: Graph, op: Op, index: int, end: int) -> int:
    """Returns up to which row of its input an operator reads for its output up to row `end`, which may lie outside of both."""
    if isinstance(op, Windowed):
        return seen(op, 0, 0, end)[1]
    if isinstance(op, Rearrange):
        return taken(op, 0, 0, end)[1]
    if isinstance(op, Bilinear) and end > 0:
        return int(moved_from(graph, op, 0, 0, min(end, op.size[0]))[1])
    rows = graph.tensors[op.inputs[index]].shape[0]
    return rows if end > 0 and (is_whole(op, index) or is_spread(graph, op, index)) else end


def replaced(graph: Graph, ops: Sequence[Op], boxes: Mapping[str, Box]) -> dict[str, str]:
    """Returns tensors that one operator of `ops` alone reads and writes its result over, value by value, with that result."""
    found, inside = dict[str, str](), {op.output for op in ops}
    for op in (op for op in ops if is_elementwise(op)):
        for name in (name for name in dict.fromkeys(op.inputs) if name in inside and boxes[name] == boxes[op.output]):
            alone = sum(other.inputs.count(name) for other in graph.ops) == 1 and name not in graph.outputs
            if alone and op.output not in found.values():
                found[name] = op.output
    return found


def moves_up(tensor: str, strip: Mapping[str, Strip], after: Mapping[str, Strip]) -> bool:
    """True where rows of a tensor that the strip `after` holds do not lie at the start of its buffer yet."""
    return strip[tensor].low < after[tensor].low < strip[tensor].end


def held(buffer: str) -> str:
    """Returns the name of the buffer, at the start of another, of the rows that are kept from strip to strip."""
    return f"{buffer}:held"


def keep(op: Op, view: View, low: int) -> Step:
    """Returns the step that moves the rows of an operator's output from `low` on to the start of its buffer."""
    box = view.box._replace(y0=low)
    return Step(op.name, "keep", (view.part(box),), dense_view(op.output, box, held(view.buffer)))


def computing(strip: Mapping[str, Strip]) -> int:
    """Returns how many tensors a strip computes rows of."""
    return sum(first < end for _, first, end in strip.values())
