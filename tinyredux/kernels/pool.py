"""Maximum and average pool, four channels in a word.

An output row is made of runs of pixels whose windows have the same shape: at the left border, inside, at the right border.
One Program does a run. For each pixel and each four channels it loads the words of the window, a few at a time, and merges
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
from tinyredux.kernels.asm.program import Program
from tinyredux.kernels.asm.schedule import cycles_of

UNROLLED = 16  # positions of a window that are written out; larger windows loop over their rows
LANE_POSITIONS = 256
LARGEST_OFFSET = 4095  # of a load
POINTERS = 3
SHAPES = 9
C_LOOP_CYCLES = 8  # of model.c, for each call


@dataclass(frozen=True)
class Window:
    """What a Program is made for. `pitch` and `step`: bytes from row to row, and from pixel to pixel of a run."""

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
    def average(self) -> bool:
        """Whether there is something to divide."""
        return self.kind == "average" and self.positions > 1

    @property
    def name(self) -> str:
        """The name of the Program."""
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
    if len(shapes) > SHAPES or any(w.average and w.positions > LANE_POSITIONS for w in shapes.values()):
        return []
    if any(_pointer_count(window) > POINTERS for window in shapes.values()):
        return []
    longest = {size: max(run.count for run in columns if run.size == size) for size in {run.size for run in columns}}
    programs = {shape: program(window, longest[window.columns]) for shape, window in shapes.items()}
    costs = {shape: cycles_of(p, core) / longest[shape[1]] for shape, p in programs.items()}
    cycles = sum(y.count * (x.count * costs[y.size, x.size] + C_LOOP_CYCLES) for y in rows for x in columns)
    distances = (out_w * channels, in_w * channels, channels)

    def call(places: Places) -> str:
        return _call(places, rows, columns, {shape: p.name for shape, p in programs.items()}, distances)

    return [Form(f"{op.kind}_words", round(cycles), 0, tuple(programs.values()), call)]


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


def _call(
    places: Places,
    rows: Sequence[Run],
    columns: Sequence[Run],
    names: dict[tuple[int, int], str],
    distances: tuple[int, int, int],
) -> str:
    out_row, in_row, pixel = distances
    lines = []
    for y in rows:
        lines.append(f"for (int32_t y = 0; y < {y.count}; y++) {{")
        for x in columns:
            out = f"{places.out} + {y.first * out_row + x.first * pixel} + y * {out_row}"
            source = f"{places.inputs[0]} + {y.start * in_row + x.start * pixel} + y * {y.step * in_row}"
            lines.append(f"    {names[y.size, x.size]}({out}, {source}, {x.count});")
        lines.append("}")
    return "\n".join(lines)


def program(window: Window, pixels: int) -> Program:
    """Returns the Program of one run; `pixels` is its usual length."""
    about = f"{window.kind} of {window.rows}x{window.columns} windows of {window.channels} channels: one run of pixels."
    p = Program(window.name, ("int8_t *out", "const int8_t *in", "int32_t pixels"), about)
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
    pointers = _pointers(p, window)
    if groups > 1:
        p.new("groups")
    with p.loop("pixels", times=pixels):
        if groups > 1:
            p.movw("groups", groups)
            with p.loop("groups", times=groups):
                _group(p, window, pointers)
        else:
            _group(p, window, pointers)
        if left:
            _advance(p, ["in", *pointers], left - window.lanes)
            _advance(p, ["out"], left - window.lanes)
            _group(p, window, pointers)
        _advance(p, ["in", *pointers], window.step - window.channels)
    return p


def _offsets(window: Window) -> list[int]:
    """Returns the bytes from the first position to each of those that are written out: all, or one row."""
    rows = window.rows if window.positions <= UNROLLED else 1
    return [y * window.pitch + x * window.channels for y in range(rows) for x in range(window.columns)]


def _anchors(window: Window) -> list[int]:
    """Returns the offsets at which a pointer stands, so that every position is near behind one."""
    found: list[int] = []
    for offset in _offsets(window):
        if not found or offset - found[-1] > LARGEST_OFFSET:
            found.append(offset)
    return found


def _pointer_count(window: Window) -> int:
    return len(_anchors(window))


def _pointers(p: Program, window: Window) -> list[str]:
    """Makes the pointers beside `in`; where rows are looped over, they are set again for every group."""
    names = [f"in_{i}" for i in range(1, _pointer_count(window))]
    if window.positions > UNROLLED:
        p.new_pointer("row")
        p.new("rows", "pitch")
        p.constant("pitch", window.pitch)
        p.new_pointer(*names)
        return []
    p.new_pointer(*names)
    for name, offset in zip(names, _anchors(window)[1:], strict=True):
        _add_constant(p, name, "in", offset)
    return names


def _add_constant(p: Program, to: str, source: str, value: int) -> None:
    if value <= LARGEST_OFFSET:
        p.add(to, source, value)
        return
    p.new("constant")
    p.constant("constant", value)
    p.add(to, source, "constant")
    p.free("constant")


def _advance(p: Program, names: Sequence[str], distance: int) -> None:
    for name in names if distance else ():
        if abs(distance) <= LARGEST_OFFSET:
            (p.add if distance > 0 else p.sub)(name, name, abs(distance))
        else:
            _add_constant(p, name, name, distance)


def _group(p: Program, window: Window, pointers: Sequence[str]) -> None:
    """The outputs of one pixel that lie in one word, or one output; moves all pointers behind them."""
    merge = _sum if window.average else _maximum
    sums = ["even", "odd"] if window.average and window.lanes == 4 else ["even"]
    p.new(*sums)
    if window.positions > UNROLLED:
        _loop_over_rows(p, window, merge)
    else:
        where = [("in", 0), *zip(pointers, _anchors(window)[1:], strict=True)]
        _positions(p, window, where, merge, start=True)
    if window.average:
        _divide(p, window)
    _clamp_and_store(p, window)
    _advance(p, ["in", *pointers], window.lanes)
    p.free(*sums)


Merge = Callable[[Program, Window, str, bool], None]


def _loop_over_rows(p: Program, window: Window, merge: Merge) -> None:
    for name in ("even", "odd") if window.average and window.lanes == 4 else ("even",):
        empty = 0 if window.average else 0x80808080 if window.lanes == 4 else -128 & 0xFFFFFFFF
        p.constant(name, empty)
    p.mov("row", "in")
    anchors = _anchors(window)
    names = [f"in_{i}" for i in range(1, len(anchors))]
    p.movw("rows", window.rows)
    with p.loop("rows", times=window.rows):
        for name, offset in zip(names, anchors[1:], strict=True):
            _add_constant(p, name, "row", offset)
        _positions(p, window, [("row", 0), *zip(names, anchors[1:], strict=True)], merge, start=False)
        p.add("row", "row", "pitch")


def _positions(p: Program, window: Window, where: Sequence[tuple[str, int]], merge: Merge, start: bool) -> None:
    """Loads the positions a batch at a time and merges each batch."""
    offsets = _offsets(window)
    spare = 0 if window.average else 1
    batch = min(p.free_count() - spare, len(offsets))
    words = [f"word_{i}" for i in range(batch)]
    p.new(*words)
    for first in range(0, len(offsets), batch):
        part = offsets[first : first + batch]
        for word, offset in zip(words, part, strict=False):
            name, anchor = next(pair for pair in reversed(where) if pair[1] <= offset)
            (p.ldr if window.lanes == 4 else p.ldrsb)(word, name, offset - anchor)
        for i, word in enumerate(words[: len(part)]):
            merge(p, window, word, start and first + i == 0)
    p.free(*words)


def _maximum(p: Program, window: Window, word: str, start: bool) -> None:
    if start:
        p.mov("even", word)
    elif window.lanes == 4:
        _larger(p, "even", word)
    else:
        p.at_least("even", word)


def _larger(p: Program, to: str, other: str) -> None:
    p.new("difference")
    p.ssub8("difference", to, other)
    p.sel(to, to, other)
    p.free("difference")


def _sum(p: Program, window: Window, word: str, start: bool) -> None:
    if window.lanes == 1:
        (p.mov("even", word) if start else p.add("even", "even", word))
    elif start:
        p.sxtb16("even", word)
        p.sxtb16_ror8("odd", word)
    else:
        p.sxtab16("even", "even", word)
        p.sxtab16_ror8("odd", "odd", word)


def _divide(p: Program, window: Window) -> None:
    """Turns the sums into their averages, as bytes of `even`."""
    double = [("lsl", 1)] if window.positions == 2 else []
    if window.lanes == 1:
        for _ in double:
            p.lsl("even", "even", 1)
        p.smmulr("even", "even", "inverse")
        return
    p.new("second", "third")
    p.asr("second", "even", 16)
    p.asr("third", "odd", 16)
    p.sxth("even", "even")
    p.sxth("odd", "odd")
    for name in ("even", "odd", "second", "third"):
        if double:
            p.lsl(name, name, 1)
        p.smmulr(name, name, "inverse")
    p.bfi("even", "odd", 8, 8)
    p.bfi("even", "second", 16, 8)
    p.bfi("even", "third", 24, 8)
    p.free("second", "third")


def _clamp_and_store(p: Program, window: Window) -> None:
    if window.clamp.low > -128:
        _larger(p, "even", "low") if window.lanes == 4 else p.at_least("even", "low")
    if window.clamp.high < 127 and window.lanes == 4:
        p.new("difference")
        p.ssub8("difference", "even", "high")
        p.sel("even", "high", "even")
        p.free("difference")
    elif window.clamp.high < 127:
        p.at_most("even", "high")
    (p.str_post if window.lanes == 4 else p.strb_post)("even", "out", window.lanes)
