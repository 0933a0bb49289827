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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tinyredux.graph import Graph, Op, Pool
from tinyredux.int8 import Clamp, clamp_of, quant_of
from tinyredux.kernels.asm.forms import Form, Places
from tinyredux.kernels.asm.function import LARGEST_IMMEDIATE, Function
from tinyredux.kernels.asm.schedule import cycles_of

UNROLLED = 16  # positions of a window that are written out; larger windows loop over their rows
LANE_POSITIONS = 256
POINTERS = 3
SHAPES = 9
C_LOOP_CYCLES = 8  # of model.c, for each call


@dataclass(frozen=True)
class Window:
    """What a function is made for. `pitch` and `step`: bytes from row to row, and from pixel to pixel of a run."""

    kind: str
    rows: int
    columns: int
    channels: int
    pitch: int
    step: int
    clamp: Clamp

    @property
    def lanes(self) -> int:
        """Channels at a time."""
        return 4 if self.channels >= 4 else 1

    @property
    def positions(self) -> int:
        """Positions in the window."""
        return self.rows * self.columns

    @property
    def unrolled(self) -> bool:
        """Whether all positions are written out."""
        return self.positions <= UNROLLED

    @property
    def average(self) -> bool:
        """Whether there is something to divide."""
        return self.kind == "average" and self.positions > 1

    @property
    def sums(self) -> tuple[str, ...]:
        """The registers in which outputs come to be: a word or value, or the 16-bit sums of four channels in two."""
        return ("even", "odd") if self.average and self.lanes == 4 else ("even",)

    @property
    def name(self) -> str:
        """The name of the function."""
        limits = f"{self.clamp.low + 128:02x}{self.clamp.high + 128:02x}"
        return f"tr_{self.kind}{self.rows}x{self.columns}_c{self.channels}_p{self.pitch}_s{self.step}_{limits}"


@dataclass(frozen=True)
class Run:
    """Neighbouring output positions along one axis, `size` of the window inside the map for each, from `start` by `step`."""

    first: int
    count: int
    start: int
    step: int
    size: int


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns the form of a pool whose windows have few shapes."""
    if not isinstance(op, Pool):
        return []
    in_h, in_w, channels = graph.tensors[op.inputs[0]].shape
    out_h, out_w, _ = graph.tensors[op.output].shape
    rows = runs(out_h, in_h, op.kernel[0], op.stride[0], op.padding[0])
    columns = runs(out_w, in_w, op.kernel[1], op.stride[1], op.padding[2])
    clamp = clamp_of(op.activation, quant_of(graph.tensors[op.output]))
    shapes = {
        (y.size, x.size): Window(op.kind, y.size, x.size, channels, in_w * channels, op.stride[1] * channels, clamp)
        for y in rows for x in columns
    }  # fmt: skip
    far = any(len(_anchors(window)) > POINTERS for window in shapes.values())
    if far or len(shapes) > SHAPES or any(w.average and w.positions > LANE_POSITIONS for w in shapes.values()):
        return []
    longest = {size: max(run.count for run in columns if run.size == size) for size in {run.size for run in columns}}
    functions = {shape: run_function(window, longest[window.columns]) for shape, window in shapes.items()}
    costs = {shape: cycles_of(p, core) / longest[shape[1]] for shape, p in functions.items()}
    cycles = sum(y.count * (x.count * costs[y.size, x.size] + C_LOOP_CYCLES) for y in rows for x in columns)

    def call(places: Places) -> str:
        lines = []
        for y in rows:
            lines.append(f"for (int32_t y = 0; y < {y.count}; y++) {{")
            for x in columns:
                out = f"{places.out} + {(y.first * out_w + x.first) * channels} + y * {out_w * channels}"
                source = f"{places.inputs[0]} + {(y.start * in_w + x.start) * channels} + y * {y.step * in_w * channels}"
                lines.append(f"    {functions[y.size, x.size].name}({out}, {source}, {x.count});")
            lines.append("}")
        return "\n".join(lines)

    return [Form(f"{op.kind}_words", round(cycles), 0, tuple(functions.values()), call)]


def runs(outputs: int, inputs: int, kernel: int, stride: int, before: int) -> list[Run]:
    """Returns the output positions of one axis in runs of equal windows."""
    found: list[Run] = []
    for i in range(outputs):
        start = max(0, i * stride - before)
        size = min(inputs, i * stride - before + kernel) - start
        last = found[-1] if found else None
        if last and last.size == size and last.start + last.count * stride == start:
            found[-1] = replace(last, count=last.count + 1)
        else:
            found.append(Run(i, 1, start, stride, size))
    return found


def run_function(window: Window, pixels: int) -> Function:
    """Returns the function of one run; `pixels` is its usual length."""
    about = f"{window.kind} of {window.rows}x{window.columns} windows of {window.channels} channels: one run of pixels."
    p = Function(window.name, ("int8_t *out", "const int8_t *in", "int32_t pixels"), about)
    groups, left = divmod(window.channels, window.lanes)
    for name, value, needed in (
        ("low", window.clamp.low, window.clamp.low > -128), ("high", window.clamp.high, window.clamp.high < 127),
    ):  # fmt: skip
        if needed:
            p.new(name)
            p.constant(name, (value & 255) * 0x01010101 if window.lanes == 4 else value & 0xFFFFFFFF)
    if window.average:
        p.new("inverse")
        p.constant("inverse", (1 << 32) // max(window.positions, 4 if window.positions == 2 else 3) + 1)
    anchors = _anchors(window)
    if not window.unrolled:
        p.new("*row", "rows", "pitch")
        p.constant("pitch", window.pitch)
    p.new(*(f"*{name}" for name in list(anchors)[1:]))
    if window.unrolled:
        _point(p, anchors)
    pointers = list(anchors) if window.unrolled else ["in"]
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


def _offsets(window: Window) -> list[int]:
    """Returns the bytes from the first position to each of those that are written out: all, or one row."""
    rows = window.rows if window.unrolled else 1
    return [y * window.pitch + x * window.channels for y in range(rows) for x in range(window.columns)]


def _anchors(window: Window) -> dict[str, int]:
    """Returns the pointers into a window, and the bytes from its first position to each: every position is near behind one."""
    found = {"in" if window.unrolled else "row": 0}
    for offset in _offsets(window):
        if offset - max(found.values()) > LARGEST_IMMEDIATE:
            found[f"in_{len(found)}"] = offset
    return found


def _point(p: Function, anchors: dict[str, int]) -> None:
    """Sets the pointers behind the first."""
    first, *others = anchors
    for name in others:
        p.move(name, first, anchors[name], "constant")


def _advance(p: Function, names: Sequence[str], distance: int) -> None:
    for name in names:
        p.move(name, name, distance, "constant")


def _group(p: Function, window: Window, pointers: Sequence[str]) -> None:
    """The outputs of one pixel that lie in one word, or one output; moves all pointers behind them."""
    merge = _sum if window.average else _maximum
    with p.registers(*window.sums):
        if window.unrolled:
            _positions(p, window, merge, start=True)
        else:
            _loop_over_rows(p, window, merge)
        if window.average:
            _divide(p, window)
        _clamp_and_store(p, window)
        _advance(p, pointers, window.lanes)


Merge = Callable[[Function, Window, str, bool], None]


def _loop_over_rows(p: Function, window: Window, merge: Merge) -> None:
    empty = 0 if window.average else 0x80808080 if window.lanes == 4 else -128 & 0xFFFFFFFF
    for name in window.sums:
        p.constant(name, empty)
    p.mov("row", "in")
    p.movw("rows", window.rows)
    with p.loop("rows", times=window.rows):
        _point(p, _anchors(window))
        _positions(p, window, merge, start=False)
        p.add("row", "row", "pitch")


def _positions(p: Function, window: Window, merge: Merge, start: bool) -> None:
    """Loads the positions a batch at a time and merges each batch."""
    offsets = _offsets(window)
    spare = 0 if window.average else 1
    batch = min(p.free_count() - spare, len(offsets))
    words = [f"word_{i}" for i in range(batch)]
    with p.registers(*words):
        for first in range(0, len(offsets), batch):
            part = list(zip(words, offsets[first : first + batch], strict=False))
            for word, offset in part:
                name, anchor = next(pair for pair in reversed(_anchors(window).items()) if pair[1] <= offset)
                (p.ldr if window.lanes == 4 else p.ldrsb)(word, name, offset - anchor)
            for word, offset in part:
                merge(p, window, word, start and offset == 0)


def _maximum(p: Function, window: Window, word: str, start: bool) -> None:
    if start:
        p.mov("even", word)
    else:
        _limit(p, window, "even", word, larger=True)


def _limit(p: Function, window: Window, to: str, other: str, larger: bool) -> None:
    """Keeps the larger, or the smaller, of two bytes in each lane, or of two values."""
    if window.lanes == 1:
        (p.at_least if larger else p.at_most)(to, other)
        return
    with p.registers("difference"):
        p.ssub8("difference", to, other)
        p.sel(to, *((to, other) if larger else (other, to)))


def _sum(p: Function, window: Window, word: str, start: bool) -> None:
    if window.lanes == 1:
        (p.mov("even", word) if start else p.add("even", "even", word))
    elif start:
        p.sxtb16("even", word)
        p.sxtb16_ror8("odd", word)
    else:
        p.sxtab16("even", "even", word)
        p.sxtab16_ror8("odd", "odd", word)


def _divide(p: Function, window: Window) -> None:
    """Turns the sums into their averages, as bytes of `even`."""
    if window.lanes == 1:
        if window.positions == 2:
            p.lsl("even", "even", 1)
        p.smmulr("even", "even", "inverse")
        return
    with p.registers("second", "third"):
        p.asr("second", "even", 16)
        p.asr("third", "odd", 16)
        p.sxth("even", "even")
        p.sxth("odd", "odd")
        for name in ("even", "odd", "second", "third"):
            if window.positions == 2:
                p.lsl(name, name, 1)
            p.smmulr(name, name, "inverse")
        for lane, name in enumerate(("odd", "second", "third"), 1):
            p.bfi("even", name, 8 * lane, 8)


def _clamp_and_store(p: Function, window: Window) -> None:
    if window.clamp.low > -128:
        _limit(p, window, "even", "low", larger=True)
    if window.clamp.high < 127:
        _limit(p, window, "even", "high", larger=False)
    (p.str_post if window.lanes == 4 else p.strb_post)("even", "out", window.lanes)
