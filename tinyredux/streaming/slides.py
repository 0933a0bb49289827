"""By how many rows each tensor moves from push to push, and which of its rows the window's ends do not touch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd

from tinyredux.files import require
from tinyredux.graph import (
    Add,
    AddConstant,
    Attention,
    Concat,
    Convolution,
    Dense,
    Extend,
    Graph,
    LayerNorm,
    Lookup,
    MatMul,
    Mul,
    Op,
    Pool,
    Rearrange,
    Relu,
    Softmax,
    TrecConv,
)
from tinyredux.memory import windows_meet_map


@dataclass(frozen=True)
class Slide:
    """A tensor whose rows `first` to `end` - 1 move up by `by` rows in each push; its other rows belong to their window alone.

    `note` says what an operator takes away from that: why rows are computed again, or why all are (`by` is 0).
    """

    by: int
    first: int
    end: int
    note: str = ""

    @property
    def moves(self) -> bool:
        """True where a push finds rows that earlier ones have computed."""
        return self.end - self.first > self.by > 0


STILL = Slide(0, 0, 0)


def slides(graph: Graph, frames: int = 1) -> dict[str, Slide]:
    """Returns how each tensor of a network moves when `frames` new rows of its input arrive in each push.

    Raises ValueError for a network that has states already, or for more frames than its window has rows.
    """
    height = graph.input.shape[0]
    require(not graph.window, f"{graph.name} is a stream already; give the network whose input is the whole window")
    require(1 <= frames < height, f"frames is {frames}, expected 1 to {height - 1}: the window of {graph.name} has {height} rows")
    found = {graph.inputs[0]: Slide(frames, 0, height)}
    for op in graph.ops:
        sources = [found[name] for name in op.inputs]
        moved = all(source.moves for source in sources)
        found[op.output] = _slide(graph, op, sources, frames) if moved else STILL
    return found


def _slide(graph: Graph, op: Op, sources: list[Slide], frames: int) -> Slide:
    source, rows = sources[0], graph.tensors[op.output].shape[0]
    match op:
        case TrecConv():
            return Slide(0, 0, 0, "clusters the rows of the whole window")
        case Dense() | Attention() | MatMul() | Extend():
            return Slide(0, 0, 0, "reads the whole window at once")
        case Convolution() | Pool():
            if not windows_meet_map(graph, op):
                return Slide(0, 0, 0, "has windows that lie in the padding as a whole")
            slide = _strided(source, op.stride[0], -op.padding[0], op.kernel[0], rows, frames)
            ends = (("first", slide.first), ("last", rows - slide.end))
            reached = " and ".join(f"the {end} {count}" for end, count in ends if count)
            said = f"has padding, which reaches {reached} rows: every window has these anew"
            return replace(slide, note=said) if slide.moves and any(op.padding[:2]) else slide
        case Rearrange() if op.repeat[0] == 1:
            return _strided(source, op.step[0], op.start[0], 1, rows, frames)
        case Add() | Concat() | Mul() | Relu() | Lookup() | Softmax() | LayerNorm():
            if len({some.by for some in sources}) == 1:
                return Slide(source.by, max(some.first for some in sources), min(some.end for some in sources))
            return Slide(0, 0, 0, "joins maps that move by different numbers of rows")
    adds = isinstance(op, AddConstant)
    return Slide(0, 0, 0, "adds other values to each row" if adds else "repeats rows, or makes some between them")


def _strided(source: Slide, stride: int, start: int, kernel: int, rows: int, frames: int) -> Slide:
    """Returns how a map of `rows` rows moves of which row r is made of rows `start` + r * `stride` on, `kernel` of them."""
    if rows == 1:
        return Slide(0, 0, 0, "sees all rows at once" if kernel > 1 else "")
    if source.by % stride:
        least = frames * stride // gcd(source.by, stride)
        return Slide(0, 0, 0, f"moves by {stride} rows where {source.by} arrive; pushes of {least} frames would stream on")
    first, end = -((start - source.first) // stride), (source.end - start - kernel) // stride + 1
    slide = Slide(source.by // stride, min(max(first, 0), rows), min(max(end, 0), rows))
    return slide if slide.moves else Slide(0, 0, 0, "has no row that two windows share")
