"""Products of int8 rows with an int8 weight matrix on SMLAD: 1x1 convolutions, and any other window through columns.

Four channels by two pixels in eight sums, by byte pairs (`asm.layers`): the raw word gives S_A + 256 * S_B, its bytes give S_A.
Pixels are widened to int16 pairs once for all channels, a strip of them at a time.

Source: ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from tinyredux.graph import Array, Conv, Graph, Op
from tinyredux.int8 import Clamp
from tinyredux.kernels.asm import requantize
from tinyredux.kernels.asm.forms import Form, Lies, Places
from tinyredux.kernels.asm.function import Function
from tinyredux.kernels.asm.layers import PAIR_LIMIT, Sums, halves, kernel_call, paired, sums_of, window_fields, words
from tinyredux.kernels.asm.schedule import cycles_of
from tinyredux.kernels.asm.stalls import fastest
from tinyredux.kernels.asm.widening import lanes, widen_function
from tinyredux.memory import is_pointwise

STEPS = (16, 12, 8, 4)  # of two values, at most, in a round of the inner loop: with 16 its code has 0.9 KiB
STRIPS = (2, 8, 32, 64)  # pixels at a time; from 8 on it pays to copy the weights to RAM
COPIED_STRIP = 8
START_BYTES = 16  # of the sums' start values
STORED, ADDED = "sums", "added"  # what becomes of int32 sums
PAIRS = ((0, 0), (0, 1), (1, 0), (1, 1))  # (pair of channels, pixel) of two sums
# Of the C around: a pixel, a group of channels, a row of a gathered window, a byte of it. Least squares over 18 simulated layers.
C_CYCLES = {"cortex-m4": (42, 47, 118, 1.6), "cortex-m7": (23, 15, 99, 1.2), "cortex-m33": (35, 35, 107, 1.4)}


class Shape:
    """A product of rows of `k` values with `channels` columns: `rounds` of `steps` pairs of values cover its `words`.

    Rows of the input lie `pixels[0]` values apart, those of the output `pixels[1]`: more than k and channels in a group of many.
    """

    def __init__(
        self, k: int, channels: int, steps_max: int = STEPS[0], pixels: tuple[int, int] | None = None, factors: bool = True
    ) -> None:
        """Divides the values into rounds of at most `steps_max` pairs; `factors`: sums are requantised."""
        self.k, self.channels = k, channels
        self.in_pixel, self.out_pixel = pixels or (k, channels)
        self.words = -(-k // 4) * 2 - (k % 4 in (1, 2))  # four values make two, one or two that are left one
        self.rounds = -(-self.words // steps_max)
        self.steps = -(-self.words // self.rounds)
        self.row_words = self.rounds * self.steps  # of one widened row, padding included
        self.groups = -(-channels // 4)  # of four channels
        # Words of one group's data: start values, weights, multipliers and shifts, filled up to a multiple of 8.
        self.factor_words = 8 if factors else 0
        self.group_words = -(-(4 + 2 * self.row_words + self.factor_words) // 8) * 8


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns one form per length of strip for a convolution whose sums stay in their bounds, in groups where it is 1x1."""
    if not isinstance(op, Conv):
        return []
    (height, width, out_c), sums = graph.tensors[op.output].shape, sums_of(graph, op)
    channels, pixels = out_c // op.groups, height * width
    if channels < 4 or pixels < 2 or not sums.stay_below(PAIR_LIMIT) or (op.groups > 1 and not _reads_pixels(op)):
        return []
    shapes = shapes_of(sums.rows.shape[1], channels, STEPS, (graph.tensors[op.inputs[0]].shape[2], out_c))
    return [_form(graph, op, core, shapes, sums, strip) for strip in _lengths(pixels)]


def adding_forms(graph: Graph, op: Conv, core: str, zero_point: int) -> list[Form]:
    """Returns one form per length of strip that adds a convolution's products to int32 sums: of inputs less `zero_point`."""
    (height, width, channels), own = graph.tensors[op.output].shape, sums_of(graph, op)
    sums, pixels = replace(own, start=-zero_point * own.rows.sum(axis=1)), height * width
    if channels < 4 or pixels < 2 or not sums.stay_below(PAIR_LIMIT) or op.groups > 1 or op.dilation != (1, 1):
        return []
    pixel = graph.tensors[op.inputs[0]].shape[2], channels
    shapes = shapes_of(sums.rows.shape[1], channels, pixels=pixel, factors=False)
    return [_form(graph, op, core, shapes, sums, strip, zero_point) for strip in _lengths(pixels)]


def _lengths(pixels: int) -> list[int]:
    """Returns the lengths of strips that are tried."""
    equal = [-(-pixels // -(-pixels // strip)) for strip in STRIPS]  # as equal as can be
    return sorted({min(length + length % 2, pixels // 2 * 2) for length in equal})


def _reads_pixels(op: Conv) -> bool:
    """Returns whether the windows of a convolution, or of a group of it, are pixels of its input."""
    return op.kernel == (1, 1) and not any(op.padding)


def shapes_of(
    k: int, channels: int, steps: Sequence[int] = STEPS, pixels: tuple[int, int] | None = None, factors: bool = True
) -> list[Shape]:
    """Returns the shapes of a product that differ, of the largest loop first."""
    shapes = [Shape(k, channels, most, pixels, factors) for most in steps]
    return [*{(shape.rounds, shape.steps): shape for shape in shapes}.values()]


def _form(
    graph: Graph, op: Conv, core: str, shapes: list[Shape], sums: Sums, strip: int, added: int | None = None
) -> Form:  # fmt: skip
    """Returns the form whose strips have this length, in the shape that is fastest; its sums of inputs less `added` are added to
    those that there are, where that is a number."""
    (in_h, in_w, _), (out_h, out_w, _) = graph.tensors[op.inputs[0]].shape, graph.tensors[op.output].shape
    k, together = sums.rows.shape[1], _reads_pixels(op) and op.stride == (1, 1)
    lines, edges = (op.kernel[0], k // op.kernel[0]), edge_pairs(op, (in_h, in_w), (out_h, out_w))
    copied, output = strip >= COPIED_STRIP, ADDED if added is not None else (sums.factors.output_zero_point, sums.factors.clamp)
    zero_point = sums.factors.input_zero_point if added is None else added
    pixels, strips = out_h * out_w, -(-out_h * out_w // strip)
    c_pixel, c_group, c_row, c_byte = C_CYCLES[core]
    gathered = 2 * edges * (c_row * op.kernel[0] + c_byte * k)

    def priced(shape: Shape) -> tuple[float, Shape, tuple[Function, ...]]:
        widening = widen_function(lines, shape, strip // 2 if together else 0)
        functions = (widening, copy_function(shape), product_function(shape, strip // 2, output))
        widen, copy, products = (cycles_of(function, core) for function in functions)
        broken = 0 if copied or core == "cortex-m7" else 2 * (strip // 2) * shape.row_words  # chains, between flash and SRAM
        widened = strips * (widen + c_group) if together else pixels * (widen / 2 + c_pixel) + gathered
        cycles = widened + pixels / strip * shape.groups * (products + broken)
        cycles += strips * shape.groups * (c_group + (copy if copied else 0))
        return cycles, shape, functions

    each_cycles, shape, functions = fastest(core, map(priced, shapes))
    scratch_words = strip * shape.row_words + (shape.group_words if copied else 0) + (2 * -(-k // 4) if edges else 0)
    fields = window_fields(graph, op) | {
        "in_c": shape.in_pixel // op.groups, "out_c": shape.channels, "in_pixel": shape.in_pixel, "out_pixel": shape.out_pixel,
        "input_zero_point": zero_point, "out_bytes": 1 if added is None else 4, "row_words": shape.row_words,
        "group_words": shape.group_words, "strip": strip, "together": int(together), "copied": int(copied),
        **dict(zip(("widen", "copy", "product"), (function.name for function in functions), strict=True)),
    }  # fmt: skip
    name = f"gemm_{'pointwise' if together or is_pointwise(op) else 'columns'}{'' if added is None else '_added'}_{strip}"
    proof = f"byte pairs: |sum of a channel| < 2^23 = {PAIR_LIMIT}"
    rows = np.pad(sums.rows, ((0, 0), (0, 1)))[:, lanes(*lines)]
    values = rows, sums.start, requantize.constants(sums.factors)
    parts = (np.split(each, op.groups) for each in (values if added is None else _each_once(*values)))
    arrays = {"groups": np.concatenate([data(shape, *part) for part in zip(*parts, strict=True)])}
    streamed = strips * (1 if copied else strip // 2) * arrays["groups"].nbytes

    def call(places: Places) -> str:
        distance = places.in_row or in_w * shape.in_pixel
        return grouped_call(kernel_call("gemm", fields | {"in_row": distance}), op.groups, shape)(places)

    reads = Lies.IN_ROWS if not together else Lies.ANYWHERE
    return Form(name, round(op.groups * each_cycles), 4 * scratch_words, functions, call, arrays, proof, streamed, lies=reads)


def _each_once(*values: Array) -> list[Array]:
    """Returns values per channel for groups of four that do not overlap: 0 where the last would compute a channel again."""
    again = -len(values[0]) % 4
    last = len(values[0]) + again - 4  # the first channel that is of the last group alone
    return [np.concatenate([each[:last], 0 * each[:again], each[last:]]) if again else each for each in values]


def edge_pairs(op: Conv, sizes: tuple[int, int], outputs: tuple[int, int]) -> int:
    """Returns in how many pairs of output pixels a window reaches over an edge of the map; both maps' height and width."""
    inside = []
    for axis, (size, count) in enumerate(zip(sizes, outputs, strict=True)):
        first = np.arange(count) * op.stride[axis] - op.padding[2 * axis]
        inside.append((first >= 0) & (first + op.kernel[axis] <= size))
    every = (inside[0][:, None] & inside[1]).reshape(-1)
    return int((~(every[0::2] & np.resize(every[1::2], every[0::2].shape))).sum())


def grouped_call(call: Callable[[Places], str], groups: int, shape: Shape) -> Callable[[Places], str]:
    """Returns what writes the call of the kernel for each group of a convolution."""

    def each(places: Places) -> str:
        source = (f"{places.inputs[0]} + group * {shape.k}",)
        data = {"groups": f"{places.arrays['groups']} + group * {shape.groups * shape.group_words}"}
        found = call(Places(f"{places.out} + group * {shape.channels}", source, places.scratch, data))
        return f"for (int32_t group = 0; group < {groups}; group++) {found}"

    return each if groups > 1 else call


def first_channels(channels: int) -> list[int]:
    """Returns the first channel of each group of four; the last overlaps its neighbour where four does not divide them."""
    return [min(first, channels - 4) for first in range(0, channels, 4)]


def data(shape: Shape, weights: Array, start: Array, factors: Array) -> Array:
    """Returns (groups, group_words) int32 for `product_function`.

    weights: (channels, k); start: (channels,) of the sums; factors: (channels, 2) multiplier and right shift.
    """
    padded = np.pad(weights.astype(np.int64), ((0, 0), (0, -(-shape.row_words // 2) * 4 - weights.shape[1])))
    found, behind = np.zeros((shape.groups, shape.group_words), np.int64), 4 + 2 * shape.row_words
    for group, first in zip(found, first_channels(len(weights)), strict=True):
        evens, odds = slice(first, first + 4, 2), slice(first + 1, first + 4, 2)
        group[:behind] = byte_pairs(padded[evens], padded[odds], start[evens], start[odds])[:behind]
        group[behind : behind + 8] = factors[first : first + 4].reshape(-1) if shape.factor_words else 0
    return words(found)


def byte_pairs(a: Array, b: Array, start_a: Array, start_b: Array) -> Array:
    """Returns (4 + k,) the start values of two pairs of channels A and B, then step by step a word of each; a and b: (2, k)."""
    starts = np.stack([start_a + 256 * start_b, start_a], axis=1)
    return np.concatenate([starts.reshape(-1), halves(paired(256 * b + a)).T.reshape(-1)])


def copy_function(shape: Shape) -> Function:
    """Returns the function that copies 8 words `eights` times."""
    p = Function("tr_copy_words", ("int32_t *to", "const int32_t *from", "int32_t eights"), "Copies 8 words at a time.")
    eight = [f"word{i}" for i in range(8)]
    p.new(*eight)
    with p.loop("eights", times=shape.group_words // 8):
        p.ldm("from", *eight)
        p.stm("to", *eight)
    return p


def product_function(shape: Shape, pairs: int, output: tuple[int, Clamp] | str) -> Function:
    """Returns the function that multiplies pairs of widened rows with one group of four channels; `pairs` is their usual number.

    columns: per pair and step a word of each row; group: one row of `data`; out: the group's first channel of the first row,
    rows `out_pixel` values apart: int8 by `output` (zero point and limits), or int32 sums that are STORED or ADDED.
    """
    about = f"Byte pairs: 4 of {shape.out_pixel} channels x 2 rows, {shape.row_words} words of two values a row."
    rounds = f"x{shape.rounds}" if shape.rounds > 1 else ""
    name = (
        f"tr_gemm_k{shape.row_words}{rounds}_c{shape.out_pixel}_{output if isinstance(output, str) else requantize.name(*output)}"
    )
    result = f"{'int32_t' if output == STORED else 'int8_t'} *out"
    p = Function(name, (result, "const int32_t *columns", "const int32_t *group", "int32_t pairs"), about)
    p.keep("*out")
    p.new_float("*end_kept", "*last")
    with p.registers("distance", "*end"):  # where the columns end
        p.constant("distance", 8 * shape.row_words)
        p.mul("distance", "pairs", "distance")
        p.add("end", "columns", "distance")
        p.vmov("last", "end")
    p.free("pairs")
    p.new(*sums_of_rows(), "x0", "x1", "w0", "*end")
    with p.loop_until("columns", "end", pairs):
        if shape.rounds == 1:
            p.load("group", 0, *sums_of_rows()[:4])
            product_round(p, shape.steps, "group", START_BYTES)
        else:
            p.move("end", "columns", 8 * shape.row_words, "x0")
            p.vmov("end_kept", "end")
            start_sums(p, "group")
            with p.loop_until("columns", "end", times=shape.rounds):
                product_round(p, shape.steps, "group")
                p.vmov("end", "end_kept")
        p.free("end")
        behind = START_BYTES + 8 * shape.row_words if shape.rounds == 1 else 0
        with p.fetched("out"):
            if isinstance(output, str):
                _store(p, shape.out_pixel, output == ADDED)
            else:
                _requantize(p, shape.out_pixel, output, behind)
            p.move("out", "out", (8 if isinstance(output, str) else 2) * shape.out_pixel, "x0")
        p.new("*end")
        p.move("group", "group", behind - START_BYTES - 8 * shape.row_words, "x0")
        p.vmov("end", "last")
    return p


def sums_of_rows() -> list[str]:
    """Returns the registers of the sums of four channels and two rows: raw and low of each pair of channels, row by row."""
    return [f"{kind}{pair}_{row}" for row in range(2) for pair in range(2) for kind in ("raw", "low")]


def start_sums(p: Function, source: str) -> None:
    """Loads the start values at `source` into the sums of both rows."""
    first, second = sums_of_rows()[:4], sums_of_rows()[4:]
    p.ldm(source, *first)
    for to, value in zip(second, first, strict=True):
        p.mov(to, value)


def product_round(p: Function, steps: int, weights: str, behind: int = 0) -> None:
    """Four channels by two pixels, `steps` pairs of values, from `columns` and `weights`, which move on; `end` makes room.

    `behind`: the only round; its weights begin so many bytes behind `weights`, which stays, and row 0 holds what both start from.
    """
    p.free("end")
    with p.registers("w1"):
        for step in range(steps):
            p.load("columns", 8 * step, "x0", "x1")
            p.load(weights, behind + 8 * step, "w0", "w1")
            for pair, total in product(range(2), ("raw", "low")):
                for pixel in (1, 0):
                    start = f"{total}{pair}_{0 if behind and step == 0 else pixel}"
                    p.smlad(f"{total}{pair}_{pixel}", f"w{pair}", f"x{pixel}", start)
                if total == "raw":
                    p.sxtb16(f"w{pair}", f"w{pair}")
    p.new("*end")
    p.add("columns", "columns", 8 * steps)
    if not behind:
        p.add(weights, weights, 8 * steps)


def part(p: Function, raw: str, low: str, doubled: bool) -> None:
    """Leaves the sum of channel B in `raw` and that of channel A in `low`, twice them if `doubled`."""
    p.sub(raw, raw, low)
    p.asr(raw, raw, 7 if doubled else 8)
    if doubled:
        p.add(low, low, low)


def _requantize(p: Function, channels: int, output: tuple[int, Clamp], behind: int) -> None:
    """Stores the eight sums; four multipliers and shifts lie `behind` bytes behind `group`."""
    for pair, pixel in PAIRS:
        part(p, f"raw{pair}_{pixel}", f"low{pair}_{pixel}", doubled=True)
    for channel in range(4):
        p.load("group", behind + 8 * channel, "x0", "x1")
        for pixel in range(2):
            total = f"{('low', 'raw')[channel % 2]}{channel // 2}_{pixel}"
            requantize.requantize(p, total, "x0", "x1", *output)
            p.strb(total, "out", pixel * channels + channel)


def _store(p: Function, channels: int, adds: bool) -> None:
    """Stores the eight sums as they are, or what is there with each added."""
    for pixel in range(2):
        for pair in range(2):
            raw, low = f"raw{pair}_{pixel}", f"low{pair}_{pixel}"
            part(p, raw, low, doubled=False)
            if adds:
                p.load("out", 8 * pair, "x0", "x1")
                p.add(low, low, "x0")
                p.add(raw, raw, "x1")
            p.store("out", 8 * pair, low, raw)
        p.move("out", "out", (4, -4)[pixel] * channels, "x0")
