"""Maximum and average pool, four channels in a word.

An output row is made of runs of pixels whose windows have the same shape: at the left border, inside, at the right border.
One Function does a run. For each pixel and each four channels it loads the words of the window, a few at a time, and merges
them: SSUB8 and SEL keep the larger of each byte; SXTAB16 adds bytes 0 and 2, and 1 and 3, to two pairs of 16-bit sums, which
hold windows of up to 256 positions. Channels that are no multiple of four end with the last four again, which writes some
bytes twice; fewer than four go one by one.

The average divides by a product: with M = floor(2^32 / n) + 1, (s * M + 2^31) >> 32 is s / n to the nearest, halves away from
zero, for |s| <= 128 n and 3 <= n < 4096. For the error of s * M / 2^32 is away from zero and less than 1 / 2n, and
s / n + 1/2 is a multiple of 1 / 2n. For n = 2 both s and n are doubled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from tinyredux.graph import Graph, Op, Pool
from tinyredux.int8 import Clamp, clamp_for
from tinyredux.kernels.asm.forms import Form, Places
from tinyredux.kernels.asm.function import LARGEST_IMMEDIATE, Function
from tinyredux.kernels.asm.schedule import cycles_of
from tinyredux.kernels.elementwise import keep_limit, limits_of

UNROLLED = 16  # positions of a window that are written out; larger windows loop over their rows
LANE_POSITIONS = 256
POINTERS = 3
SHAPES = 9
C_LOOP_CYCLES = 8  # of model.c, for each call


class Window:
    """What a function is made for. `pitch` and `step`: bytes from row to row, and from pixel to pixel of a run."""

    def __init__(self, op: Pool, rows: int, columns: int, channels: int, pitch: int, clamp: Clamp) -> None:
        """Finds the registers and the pointers of a window of so many rows and columns inside the map."""
        self.kind, self.rows, self.columns, self.channels, self.clamp = op.kind, rows, columns, channels, clamp
        self.pitch, self.step = pitch, op.stride[1] * channels
        self.lanes = 4 if channels >= 4 else 1  # channels at a time
        self.positions = rows * columns
        self.unrolled = self.positions <= UNROLLED
        self.average = op.kind == "average" and self.positions > 1  # there is something to divide
        # Outputs come to be in a register each: a word or value; or the 16-bit sums of four channels in two.
        self.sums = ("even", "odd") if self.average and self.lanes == 4 else ("even",)
        # The bytes from the first position to each of those that are written out, all or one row; and the pointers into the
        # window, with the bytes to each: every position is near behind one.
        self.offsets = [y * pitch + x * channels for y in range(rows if self.unrolled else 1) for x in range(columns)]
        self.anchors = {"in" if self.unrolled else "row": 0}
        for offset in self.offsets:
            if offset - max(self.anchors.values()) > LARGEST_IMMEDIATE:
                self.anchors[f"in_{len(self.anchors)}"] = offset


@dataclass(frozen=True)
class Run:
    """Neighbouring output positions along one axis, `size` of the window inside the map for each, from `start` on."""

    first: int
    count: int
    start: int
    size: int


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns the form of a pool whose windows have few shapes."""
    if not isinstance(op, Pool) or op.kind == "mean":
        return []
    in_h, in_w, channels = graph.tensors[op.inputs[0]].shape
    out_h, out_w, _ = graph.tensors[op.output].shape
    rows = runs(out_h, in_h, op.kernel[0], op.stride[0], op.padding[0])
    columns = runs(out_w, in_w, op.kernel[1], op.stride[1], op.padding[2])
    clamp = clamp_for(graph, op)
    pitch = in_w * channels
    shapes = {(y.size, x.size): Window(op, y.size, x.size, channels, pitch, clamp) for y in rows for x in columns}
    far = any(len(window.anchors) > POINTERS for window in shapes.values())
    if far or len(shapes) > SHAPES or any(w.average and w.positions > LANE_POSITIONS for w in shapes.values()):
        return []
    longest = {x.size: x.count for x in sorted(columns, key=lambda run: run.count)}
    functions = {shape: run_function(window, longest[window.columns]) for shape, window in shapes.items()}
    costs = {shape: cycles_of(p, core) / longest[shape[1]] for shape, p in functions.items()}
    cycles = sum(y.count * (x.count * costs[y.size, x.size] + C_LOOP_CYCLES) for y in rows for x in columns)

    def call(places: Places) -> str:
        lines = []
        for y in rows:
            lines.append(f"for (int32_t y = 0; y < {y.count}; y++) {{")
            for x in columns:
                out = f"{places.out} + {(y.first * out_w + x.first) * channels} + y * {out_w * channels}"
                source = f"{places.inputs[0]} + {(y.start * in_w + x.start) * channels} + y * {op.stride[0] * in_w * channels}"
                lines.append(f"    {functions[y.size, x.size].name}({out}, {source}, {x.count});")
            lines.append("}")
        return "\n".join(lines)

    return [Form(f"{op.kind}_words", round(cycles), 0, tuple(functions.values()), call)]


def runs(outputs: int, inputs: int, kernel: int, stride: int, before: int) -> list[Run]:
    """Returns the output positions of one axis in runs of equal windows, each a stride behind the one before."""
    starts = [max(0, i * stride - before) for i in range(outputs)]
    sizes = [min(inputs, i * stride - before + kernel) - start for i, start in enumerate(starts)]
    alike = (list(run) for _, run in groupby(range(outputs), lambda i: (starts[i] - i * stride, sizes[i])))
    return [Run(run[0], len(run), starts[run[0]], sizes[run[0]]) for run in alike]


def run_function(window: Window, pixels: int) -> Function:
    """Returns the function of one run; `pixels` is its usual length."""
    about = f"{window.kind} of {window.rows}x{window.columns} windows of {window.channels} channels: one run of pixels."
    name = f"tr_{window.kind}{window.rows}x{window.columns}_c{window.channels}_p{window.pitch}_s{window.step}"
    name += f"_{window.clamp.low + 128:02x}{window.clamp.high + 128:02x}"
    p = Function(name, ("int8_t *out", "const int8_t *in", "int32_t pixels"), about)
    groups, left = divmod(window.channels, window.lanes)
    for limit, value in limits_of(window.clamp).items():
        p.new(limit)
        p.constant(limit, (value & 255) * 0x01010101 if window.lanes == 4 else value & 0xFFFFFFFF)
    if window.average:
        p.new("inverse")
        p.constant("inverse", (1 << 32) // max(window.positions, 4 if window.positions == 2 else 3) + 1)
    if not window.unrolled:
        p.new("*row", "rows", "pitch")
        p.constant("pitch", window.pitch)
    p.new(*(f"*{name}" for name in list(window.anchors)[1:]))
    if window.unrolled:
        _point(p, window)
    pointers = list(window.anchors) if window.unrolled else ["in"]
    if groups > 1:
        p.new("groups")
    with p.loop("pixels", times=pixels):
        with p.repeated("groups", groups):
            _group(p, window, pointers)
        if left:
            _advance(p, [*pointers, "out"], left - window.lanes)
            _group(p, window, pointers)
        _advance(p, pointers, window.step - window.channels)
    return p


def _point(p: Function, window: Window) -> None:
    """Sets the pointers behind the first."""
    first, *others = window.anchors
    for name in others:
        p.move(name, first, window.anchors[name], "constant")


def _advance(p: Function, names: Sequence[str], distance: int) -> None:
    for name in names:
        p.move(name, name, distance, "constant")


def _group(p: Function, window: Window, pointers: Sequence[str]) -> None:
    """The outputs of one pixel that lie in one word, or one output; moves all pointers behind them."""
    with p.registers(*window.sums):
        if window.unrolled:
            _positions(p, window)
        else:
            _loop_over_rows(p, window)
        if window.average:
            _divide(p, window)
        for limit in limits_of(window.clamp):
            _limit(p, window, limit, larger=limit == "low")
        (p.str_post if window.lanes == 4 else p.strb_post)("even", "out", window.lanes)
        _advance(p, pointers, window.lanes)


def _loop_over_rows(p: Function, window: Window) -> None:
    empty = 0 if window.average else 0x80808080 if window.lanes == 4 else -128 & 0xFFFFFFFF
    for name in window.sums:
        p.constant(name, empty)
    p.mov("row", "in")
    p.movw("rows", window.rows)
    with p.loop("rows", times=window.rows):
        _point(p, window)
        _positions(p, window)
        p.add("row", "row", "pitch")


def _positions(p: Function, window: Window) -> None:
    """Loads the positions a batch at a time and merges each batch."""
    offsets = window.offsets
    batch = min(p.free_count() - (not window.average), len(offsets))
    words = [f"word_{i}" for i in range(batch)]
    with p.registers(*words):
        for first in range(0, len(offsets), batch):
            part = list(zip(words, offsets[first : first + batch], strict=False))
            for word, offset in part:
                name, anchor = next(pair for pair in reversed(window.anchors.items()) if pair[1] <= offset)
                (p.ldr if window.lanes == 4 else p.ldrsb)(word, name, offset - anchor)
            for word, offset in part:
                _merge(p, window, word, start=window.unrolled and offset == 0)


def _merge(p: Function, window: Window, word: str, start: bool) -> None:
    """Takes one position into the outputs: at the `start` as it is, then into the sums, or where it is larger."""
    if len(window.sums) == 2:
        for total, end in (("even", ""), ("odd", "_ror8")):
            getattr(p, f"sxtb16{end}" if start else f"sxtab16{end}")(total, *([] if start else [total]), word)
    elif start:
        p.mov("even", word)
    elif window.average:
        p.add("even", "even", word)
    else:
        _limit(p, window, word, larger=True)


def _limit(p: Function, window: Window, other: str, larger: bool) -> None:
    """Keeps the larger, or the smaller, of the outputs and others."""
    if window.lanes == 1:
        (p.at_least if larger else p.at_most)("even", other)
        return
    with p.registers("difference"):
        keep_limit(p, "even", other, larger)


def _divide(p: Function, window: Window) -> None:
    """Turns the sums into their averages, as bytes of `even`."""
    with p.registers(*(("second", "third") if window.lanes == 4 else ())):
        if window.lanes == 4:
            p.asr("second", "even", 16)
            p.asr("third", "odd", 16)
            p.sxth("even", "even")
            p.sxth("odd", "odd")
        lanes = ("even", "odd", "second", "third")[: window.lanes]
        for name in lanes:
            if window.positions == 2:
                p.lsl(name, name, 1)
            p.smmulr(name, name, "inverse")
        for lane, name in enumerate(lanes[1:], 1):
            p.bfi("even", name, 8 * lane, 8)
