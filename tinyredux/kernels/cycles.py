"""What steps cost on a core: the one function that the choice of kernels, plans in parts, TREC and `explore` ask.

Generated code is priced from its own instructions by the simulator's timing rules (`asm.cost`). A C kernel's cycles are a sum:
how often each of its loops runs, times what a round takes on the core; cycles.json has that, fitted to random layers in the
simulator by `python tools/fit_cycles.py`. Stalls of the flash belong to a board: where a core is `OnBoard` they are counted
(`asm.stalls`), of C kernels those of their weights; otherwise only arrays that are read over and over are. Plans in parts trade
one C kernel for another whose loops fill the instruction cache more: they are priced with the stalls of one board, STALLED, an
entry of its own. (That is an earlier fit, which the command keeps: with a new one lenet within 12 KiB took more cycles.) No
measured number comes from here; the note of a plan in parts says that its factor is predicted.

How far off the prices are, on layers of random networks that the fit has not seen, is data/records/cycle_prices.json.

Source: ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path

from tinyredux.graph import (
    Add,
    AddConstant,
    Attention,
    Bilinear,
    Conv,
    Dense,
    DepthwiseConv,
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
    TrecConv,
    Weighted,
    taps_inside,
)
from tinyredux.kernels.asm.stalls import OnBoard, byte_cycles
from tinyredux.memory import (
    Item,
    Loop,
    Lowering,
    Schedule,
    Step,
    clustering,
    conv_loops,
    group_sizes,
    in_lines,
    is_gated,
    is_spread,
)
from tinyredux.trec import TrecSizes

Counts = tuple[float, ...]
FILE = Path(__file__).with_name("cycles.json")
STALLED = "disco_f469ni"  # stands for a core where the stalls of its flash count


def cycles(graph: Graph, steps: Iterable[Step], core: str, costs: Mapping[Step, float] | None = None) -> float:
    """Returns the predicted cycles of steps on a core: each by its generated kernel, of which `costs` has the cycles, or by its C
    kernel."""
    known = costs or {}
    return sum(
        called(core, known[step]) if step in known else step_cycles(graph, graph.by_name[step.op], step, core) for step in steps
    )


def step_cycles(graph: Graph, op: Op, step: Step, core: str) -> float:
    """Returns the predicted cycles of a step by its C kernel; on a core `OnBoard` with what reading the weights costs.

    Convolutions read them once for two pixels, depthwise ones for each.
    """
    found = c_cycles(core, *counts(graph, op, step))
    if isinstance(core, OnBoard) and isinstance(op, Weighted) and step.kind in ("run", "add_up"):
        weights, box = graph.constants[op.weights], step.output.box
        array_bytes = weights.nbytes * box.shape[2] // graph.tensors[op.output].shape[2]
        pixels = box.shape[0] * box.shape[1]
        times = pixels if isinstance(op, DepthwiseConv) else (pixels + 1) // 2
        found += times * array_bytes * byte_cycles(core, array_bytes)
    return found


def operator_cycles(graph: Graph, op: Op, core: str) -> float:
    """Returns the predicted cycles of an operator that is computed as a whole by its C kernel."""
    item = Item((op.name,))
    return cycles(graph, Loop((tuple(Lowering(graph, Schedule((item,))).item(item)),)).steps(), core)


def called(core: str, cost: float) -> float:
    """Returns the predicted cycles of a generated kernel that costs so much, its call included."""
    return c_cycles(core, "call", (1,)) + cost


def c_cycles(core: str, kernel: str, rounds: Counts) -> float:
    """Returns the predicted cycles of C whose loops run so often."""
    return sum(cost * times for cost, times in zip(table()[core][kernel], rounds, strict=True))


def counts(graph: Graph, op: Op, step: Step) -> tuple[str, Counts]:
    """Returns which kernel a call runs, and how often each of its loops: once, for each pixel, ... in the order of the costs."""
    height, width, channels = step.output.box.shape
    pixels, outputs = height * width, step.output.box.elements
    if step.kind == "keep":
        return "copy", (1, 1, outputs)
    if step.kind == "copy":
        return "copy", (len(in_lines(step)), pixels, outputs)
    if step.kind in ("start", "finish"):
        return step.kind, (1, pixels, outputs)
    match op:
        case TrecConv():
            return "trec", _trec(clustering(graph, op))
        case Dense() if step.kind == "run":
            taps = step.inputs[0].box.elements
            return "dense", (1, channels, (channels + 1) // 2 * (taps // 4), channels * (taps % 4))
        case Conv() | Dense():
            loops = conv_loops(op, step) if isinstance(op, Conv) and step.kind == "run" else "sums"
            if isinstance(op, Conv) and loops == "columns":
                return loops, _columns(graph, op, step, pixels, channels)
            pointwise = loops == "pointwise"
            return loops, _pointwise(pixels, channels, step.inputs[0].box.shape[2]) if pointwise else _direct(graph, op, step)
        case DepthwiseConv() | Pool():
            rows, columns = windows(graph, op, step)
            fours = channels // 4 if isinstance(op, Pool) or op.multiplier == 1 else 0
            ones, taps, gaps = (
                channels - 4 * fours,
                sum(rows) * sum(columns),
                int(step.inputs[0].gaps[1] > 0 or op.dilation[1] > 1),
            )
            kernel = op.kind if isinstance(op, Pool) else "depthwise"
            by_four = (pixels * fours, sum(rows) * width * fours, taps * fours, taps * fours * gaps)
            return kernel, (1, pixels, *by_four, pixels * ones, taps * ones)
        case Add():
            return "add", (len(in_lines(step)), outputs)
        case Rearrange():
            return "rearrange", _moved(op, step)
        case Bilinear():
            return "bilinear", (1, height, pixels, outputs)
        case Mul():
            gaps = (
                is_spread(graph, op, 1)
                or is_gated(graph, op)
                or any(gap for view in (*step.inputs, step.output) for gap in view.gaps)
            )
            return "mul", (1, pixels if gaps else 1, outputs)
        case AddConstant():
            return "add", (len(in_lines(step)), outputs)
        case LayerNorm():
            return "layer_norm", (1, pixels, outputs)
        case Attention():
            return "attention", _attended(op, step)
        case Extend():
            return "copy", (3, 3, outputs)
        case MatMul():
            return "matmul", _multiplied(op)
        case Relu() | Lookup():
            return type(op).__name__.lower(), (len(in_lines(step)), outputs)
    return "softmax", (1, outputs)


def _attended(op: Attention, step: Step) -> Counts:
    """How often an attention begins a query of a head, scores a pair of keys, adds four products to a pair's scores, takes an
    exponential; sums a group of four values, adds four products of a pair of keys to it; ends an output."""
    keys, depths = step.inputs[1].box.shape, [view.box.shape[2] // op.heads for view in step.inputs[1:]]
    rows, count = op.heads * step.output.box.elements // step.output.box.shape[2], keys[0] * keys[1]
    pairs, fours = -(-count // 2), -(-depths[1] // 4)
    return (
        1, rows, rows * pairs, rows * pairs * -(-depths[0] // 4), rows * count, rows * fours, rows * fours * pairs,
        rows * depths[1],
    )  # fmt: skip


def _multiplied(op: MatMul) -> Counts:
    """How often a product of matrices begins a row, widens a value of it, ends an output; adds four values to two columns, or
    one; adds two values to four columns, or one to a column."""
    rows, across, down = op.heads * op.rows, op.right[3], op.right[2]
    fours = op.columns // 4 if down != 1 and across == 1 else 0
    twos, ones = (-(-op.columns // 2), 0) if down == 1 else (0, op.columns - 4 * fours)
    return (
        1, rows, rows * op.inner, rows * op.columns, rows * twos * (op.inner // 4), rows * twos * (op.inner % 4),
        rows * fours * -(-op.inner // 2), rows * ones * op.inner,
    )  # fmt: skip


def _moved(op: Rearrange, step: Step) -> Counts:
    """How often a kernel that moves values begins a row, a pixel that is copied, one that is filled; moves eight or one of a run,
    deals four of two groups out, gathers a value, fills one in."""
    (height, width, channels), (source,), target = step.output.box.shape, step.inputs, step.output
    pixels = height * width
    runs = op.groups == 1 and not op.blocks
    step_bytes = op.step[1] * source.pixel_stride
    lines = runs and not op.zeros and op.repeat[1] == 1 and step_bytes == channels == target.pixel_stride
    copied = -(-height // op.repeat[0]) * -(-width // op.repeat[1]) if op.zeros else pixels
    many, length = (height, width * channels) if lines else (copied, channels)
    eights, ones = (many * -(-length // 8), 0) if length >= 8 else (0, many * length)
    dealt = op.groups == 2 and not op.blocks
    each = channels // op.groups
    return (
        1, height, 0 if lines else copied, pixels - copied, eights * runs, ones * runs, pixels * (each // 4) * dealt,
        copied * (0 if runs else 2 * (each % 4) if dealt else channels), (pixels - copied) * channels,
    )  # fmt: skip


def windows(graph: Graph, op: Conv | DepthwiseConv | Pool, step: Step) -> tuple[list[int], list[int]]:
    """Returns how many rows and how many columns of the kernel lie inside the map, for each row and column of the output."""
    box, (height, width, _) = step.output.box, graph.tensors[op.inputs[0]].shape
    return taps_inside(op, 0, box.y0, box.y1, height), taps_inside(op, 1, box.x0, box.x1, width)


def _pointwise(pixels: int, channels: int, taps: int) -> Counts:
    blocks = (pixels // 2) * (channels // 2)
    ones = pixels * channels - 4 * blocks
    return (
        1, channels, channels * taps, blocks, blocks * (taps // 16), blocks * (taps % 16 // 4), blocks * (taps % 4), ones,
        ones * (taps // 4), ones * (taps % 4),
    )  # fmt: skip


def _columns(graph: Graph, op: Conv, step: Step, pixels: int, channels: int) -> Counts:
    """im2col, then two channels times two pixels: what is left over goes one by one."""
    in_c, out_c = group_sizes(graph, op)
    groups, row = -(-channels // out_c), op.kernel[1] * in_c
    together = step.inputs[0].pixel_stride == in_c and op.dilation[1] == 1
    taps, fills, run = op.kernel[0] * row, op.kernel[0] * (1 if together else op.kernel[1]), row if together else in_c
    blocks = groups * (pixels // 2) * (min(out_c, channels) // 2)
    ones = pixels * channels - 4 * blocks
    rows, columns = windows(graph, op, step)
    copied = groups * sum(rows) * sum(columns) * in_c
    return (
        1, pixels * groups, pixels * groups * fills, copied * (run % 4 == 0), copied * (run % 4 != 0),
        pixels * groups * taps - copied, blocks, blocks * (taps // 4), blocks * (taps % 4), ones, ones * (taps // 4),
        ones * (taps % 4),
    )  # fmt: skip


def _direct(graph: Graph, op: Conv | Dense, step: Step) -> Counts:
    """Straight from the map: rows of the kernel, in each one run of values, or one for each pixel where the map has gaps.

    Runs go by sixteen values, with an offset or raw, then by four, then the rest, for two channels and two pixels; by four for
    what is left over.
    """
    view, (height, _, channels) = step.inputs[0], step.output.box.shape
    in_c, gaps = view.box.shape[2], view.gaps[1] > 0 or (isinstance(op, Conv) and op.dilation[1] > 1)
    if isinstance(op, Dense):
        rows, columns, kernel = [view.box.shape[0]], [view.box.shape[1]], view.box.shape[1]
    else:
        (rows, columns), kernel = windows(graph, op, step), op.kernel[1]
    plane = not gaps and view.row_stride == kernel * view.pixel_stride and (isinstance(op, Dense) or op.dilation[0] == 1)
    raw = isinstance(op, Dense) or not any(op.padding)
    lines = sum(1 for count in rows if count) if plane else sum(rows)
    deep = sum(rows) / max(1, lines)  # rows in one run
    pairs, alone = _pairs(tuple(columns), kernel)
    twos, odd = channels // 2, channels % 2
    n = round((in_c if gaps else kernel * in_c) * deep)
    blocks, entries = pairs * height * twos, pairs * lines * twos * (kernel if gaps else 1)
    sixteens, fours, rest = n // 16, n % 16 // 4, n % 4
    full = (
        blocks, pairs * lines * twos, entries, entries * (n >= 16), entries * sixteens * raw, entries * sixteens * (not raw),
        entries * fours, entries * (rest > 0 and n > 4), entries * rest * (n <= 4),
    )  # fmt: skip
    shapes = [(1, column, twos, True) for column in alone] + [(1, column, odd, False) for column in alone]
    left = [0.0] * 7
    for many, column, of, two in [*shapes, (pairs, kernel, odd, False)]:
        n = round((in_c if gaps else column * in_c) * deep)
        runs = many * of * lines * (column if gaps else 1)
        by_four, ends = runs * (n // 4), runs * (n % 4)
        found = (many * of * height, many * of * lines, runs, by_four * two, by_four * (not two), ends * (n > 4), ends * (n <= 4))
        left = [a + b for a, b in zip(left, found, strict=True)]
    return (1, (pairs + len(alone)) * height, *full, *left)


@lru_cache(maxsize=10_000)
def _pairs(columns: tuple[int, ...], kernel: int) -> tuple[int, list[int]]:
    """Returns how many pairs of neighbouring output pixels see the whole kernel, and the columns that the others see."""
    pairs, alone = 0, list[int]()
    for seen, run in groupby(columns):
        count = len(list(run))
        pairs += count // 2 if seen == kernel else 0
        alone += [seen] * (count % 2 if seen == kernel else count)
    return pairs, alone


def _trec(sizes: TrecSizes) -> Counts:
    """How often TREC multiplies for a hash, assigns, adds to a mean, multiplies a mean and widens it, adds up a product, finishes
    a sum, copies an output; where every code is as likely."""
    outputs, matrix = sizes.out_c - sizes.exact_c, sizes.likely_clusters * sizes.columns
    passes, slices = sizes.rows * sizes.blocks, -(-outputs // sizes.slice_c)
    added = outputs if sizes.blocks > 1 else 0
    return (
        sizes.rows * sizes.columns * sizes.bits, passes * (1 + sizes.bits), sizes.rows * sizes.columns, matrix * outputs,
        matrix * slices, passes * added, sizes.rows * added, sizes.rows * (outputs - added + sizes.exact_c),
    )  # fmt: skip


@cache
def table() -> dict[str, dict[str, list[float]]]:
    """Returns for each core and kernel what a round of each of its loops takes, in the order of `counts`."""
    found: dict[str, dict[str, list[float]]] = json.loads(FILE.read_text())["cycles"]
    return found
