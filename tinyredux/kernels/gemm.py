"""Products of int8 rows with an int8 weight matrix on SMLAD: 1x1 convolutions, and any other window through columns.

Four channels by two pixels in eight sums. Weights of channels A and B lie as one int16, 256 * B + A: SMLAD with the raw word
adds to S_A + 256 * S_B, with SXTB16 of it to S_A, so S_B = (raw - S_A) >> 8. That is exact while |S_B| < 2^23, checked from the
weights for every possible input. Pixels are widened to int16 pairs once for all channels, a strip of them at a time.

Source: ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyredux.graph import Array, Conv, Graph, Op
from tinyredux.int8 import Clamp, Requantization, requantization
from tinyredux.kernels.asm import requantize
from tinyredux.kernels.asm.forms import Form, Places
from tinyredux.kernels.asm.program import Program
from tinyredux.kernels.asm.schedule import cycles_of
from tinyredux.memory import is_pointwise

PAIR_LIMIT = 2**23  # of a sum of channel B
STEPS_MAX = 16  # of two values, in one round of the inner loop: 0.9 KiB of code, less than the flash cache of an STM32F4
STRIPS = (2, 8, 32)  # pixels at a time; from 8 on it pays to copy the weights to RAM
COPIED_STRIP = 8
ACCUMULATORS = ("raw0", "low0", "raw1", "low1")
# Of the C around: a pixel, a group of channels, a row of a gathered window, a byte of it. Least squares over 18 simulated layers.
C_CYCLES = {"cortex-m4": (84, 47, 122, 2.6), "cortex-m7": (40, 15, 79, 4.2), "cortex-m33": (80, 35, 113, 1.8)}


@dataclass(frozen=True)
class Shape:
    """A product of rows of `k` values with `channels` columns: `rounds` of `steps` pairs of values cover k."""

    k: int
    channels: int
    steps_max: int = STEPS_MAX

    @property
    def rounds(self) -> int:
        """How often the inner loop runs."""
        return -(-self._pairs // self.steps_max)

    @property
    def steps(self) -> int:
        """Pairs of values in one round, an even number: four values make two words."""
        return 2 * -(-self._pairs // (2 * self.rounds))

    @property
    def _pairs(self) -> int:
        return 2 * self.fours

    @property
    def fours(self) -> int:
        """Groups of four values in a row."""
        return -(-self.k // 4)

    @property
    def row_words(self) -> int:
        """Words of one widened row, padding included."""
        return self.rounds * self.steps

    @property
    def groups(self) -> int:
        """Groups of four channels; the last one overlaps its neighbour where four does not divide the channels."""
        return -(-self.channels // 4)

    @property
    def group_words(self) -> int:
        """Words of one group's data: start values, weights, multipliers and shifts, filled up to a multiple of 8."""
        return -(-(4 + 2 * self.row_words + 8) // 8) * 8


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns one form per length of strip for a convolution of one group whose sums stay in their bounds."""
    if not isinstance(op, Conv) or op.groups > 1:
        return []
    (height, width, channels), weights = graph.tensors[op.output].shape, graph.constants[op.weights]
    factors = requantization(graph, op)
    rows = weights.reshape(len(weights), -1)
    start = folded_bias(rows, graph.constants[op.bias], factors.input_zero_point)
    fits = requantize.symmetric(rows) and largest_sums(rows, start).max(initial=0) < PAIR_LIMIT
    if channels < 4 or height * width < 2 or not fits or not requantize.applies(factors):
        return []
    shape = Shape(rows.shape[1], channels)
    groups = data(shape, rows, start, requantize.constants(factors))
    lengths = sorted({min(strip, height * width // 2 * 2) for strip in STRIPS})
    return [_form(graph, op, core, shape, factors, groups, strip) for strip in lengths]


def _form(
    graph: Graph, op: Conv, core: str, shape: Shape, factors: Requantization, groups: Array, strip: int
) -> Form:  # fmt: skip
    (in_h, in_w, in_c), (out_h, out_w, out_c) = graph.tensors[op.inputs[0]].shape, graph.tensors[op.output].shape
    in_place = op.kernel == (1, 1) and not any(op.padding) and in_c % 4 == 0
    copied = strip >= COPIED_STRIP
    programs = (
        widen_program(shape), copy_program(shape), product_program(shape, strip // 2, (factors.output_zero_point, factors.clamp)),
    )  # fmt: skip
    widen, copy, product = (cycles_of(program, core) for program in programs)
    pixels, strips = out_h * out_w, -(-out_h * out_w // strip)
    c_pixel, c_group, c_row, c_byte = C_CYCLES[core]
    gathered = 0 if in_place else c_row * op.kernel[0] + c_byte * shape.k
    broken = 0 if copied or core == "cortex-m7" else 2 * (strip // 2) * shape.row_words  # chains of loads, between flash and SRAM
    cycles = pixels * (widen / 2 + c_pixel + gathered) + pixels / strip * shape.groups * (product + (0 if copied else broken))
    cycles += strips * shape.groups * (c_group + (copy if copied else 0))
    words = strip * shape.row_words + (shape.group_words if copied else 0) + (0 if in_place else 2 * shape.fours)
    fields: dict[str, int | str] = {
        "in_h": in_h, "in_w": in_w, "in_c": in_c, "out_h": out_h, "out_w": out_w, "out_c": out_c,
        "kernel_h": op.kernel[0], "kernel_w": op.kernel[1], "stride_h": op.stride[0], "stride_w": op.stride[1],
        "pad_top": op.padding[0], "pad_left": op.padding[2], "input_zero_point": factors.input_zero_point,
        "row_words": shape.row_words, "group_words": shape.group_words, "strip": strip,
        "in_place": int(in_place), "copied": int(copied),
        "widen": programs[0].name, "copy": programs[1].name, "product": programs[2].name,
    }  # fmt: skip

    def call(places: Places) -> str:
        return kernel_call("gemm", places, fields)

    kind = "pointwise" if is_pointwise(op) else "columns"
    proof = f"byte pairs: |sum of a channel| < 2^23 = {PAIR_LIMIT}"
    streamed = strips * (1 if copied else strip // 2) * groups.nbytes
    return Form(f"gemm_{kind}_{strip}", round(cycles), 4 * words, programs, call, {"groups": groups}, proof, streamed)


def kernel_call(kind: str, places: Places, fields: dict[str, int | str]) -> str:
    """Returns the call of the C kernel tr_`kind`_conv_s8 with its parameters."""
    body = ", ".join(f".{name} = {value}" for name, value in fields.items())
    arguments = f"{places.out}, {places.inputs[0]}, {places.arrays['groups']}, &parameters, (int32_t *)(void *)({places.scratch})"
    return f"{{\n    static const struct tr_{kind} parameters = {{{body}}};\n    tr_{kind}_conv_s8({arguments});\n}}"


def largest_sums(weights: Array, bias: Array) -> Array:
    """Returns (channels,) the largest |bias + sum| that any int8 input can reach; weights: (channels, k)."""
    return np.asarray(np.abs(bias.astype(np.int64)) + 128 * np.abs(weights.astype(np.int64)).sum(axis=1), np.int64)


def folded_bias(weights: Array, bias: Array, zero_point: int) -> Array:
    """Returns (channels,) int64: what a sum of raw inputs starts from, bias - zero_point * (sum of the channel's weights)."""
    return np.asarray(bias.astype(np.int64) - zero_point * weights.astype(np.int64).sum(axis=1), np.int64)


def data(shape: Shape, weights: Array, bias: Array, factors: Array) -> Array:
    """Returns (groups, group_words) int32 for `product_program`: group g begins with channel min(4 * g, channels - 4).

    weights: (channels, k); bias: (channels,) folded; factors: (channels, 2) multiplier and right shift.
    """
    found = np.zeros((shape.groups, shape.group_words), np.int64)
    padded = np.zeros((shape.channels, 2 * shape.row_words), np.int64)
    padded[:, : shape.k] = weights
    # Of four values SXTB16 delivers 0 and 2, then 1 and 3.
    ordered = padded.reshape(shape.channels, -1, 2, 2).transpose(0, 1, 3, 2).reshape(shape.channels, -1, 2)
    behind = 4 + 2 * shape.row_words
    for group in range(shape.groups):
        first = min(4 * group, shape.channels - 4)
        evens, odds = slice(first, first + 4, 2), slice(first + 1, first + 4, 2)
        halves = (256 * ordered[odds] + ordered[evens]) & 0xFFFF
        words = halves[:, :, 0] | halves[:, :, 1] << 16
        found[group, :4] = np.stack([bias[evens] + 256 * bias[odds], bias[evens]], axis=1).reshape(-1)
        found[group, 4:behind] = words.T.reshape(-1)
        found[group, behind : behind + 8] = factors[first : first + 4].reshape(-1)
    return (found & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def widen_program(shape: Shape) -> Program:
    """Returns the function that widens two int8 rows to int16 pairs, words of both in turn; `fours` is their length / 4."""
    about = "Two int8 rows as int16 pairs: of four values 0 and 2, then 1 and 3; words of both rows in turn."
    p = Program("tr_widen_rows", ("int32_t *to", "const int8_t *a", "const int8_t *b", "int32_t fours"), about)
    p.new("even_a", "even_b", "odd_a", "odd_b")
    with p.loop("fours", times=shape.fours):
        p.ldr_post("odd_a", "a", 4)
        p.ldr_post("odd_b", "b", 4)
        p.sxtb16("even_a", "odd_a")
        p.sxtb16("even_b", "odd_b")
        p.sxtb16_ror8("odd_a", "odd_a")
        p.sxtb16_ror8("odd_b", "odd_b")
        p.stm("to", "even_a even_b odd_a odd_b")
    return p


def copy_program(shape: Shape) -> Program:
    """Returns the function that copies 8 words `eights` times."""
    p = Program("tr_copy_words", ("int32_t *to", "const int32_t *from", "int32_t eights"), "Copies 8 words at a time.")
    words = [f"word{i}" for i in range(8)]
    p.new(*words)
    with p.loop("eights", times=shape.group_words // 8):
        p.ldm("from", " ".join(words))
        p.stm("to", " ".join(words))
    return p


def product_program(shape: Shape, pairs: int, output: tuple[int, Clamp] | None) -> Program:
    """Returns the function that multiplies pairs of widened rows with one group of four channels; `pairs` is their usual number.

    columns: per pair and step a word of each row; group: one row of `data`; out: the group's first channel of the first row,
    rows `channels` values apart: int8 by `output` (zero point and limits), or the int32 sums themselves where that is None.
    """
    about = f"Byte pairs: 4 of {shape.channels} channels x 2 rows, {shape.row_words} words of two values a row."
    name = f"tr_gemm_k{shape.row_words}_c{shape.channels}_{requantize.name(*output) if output else 'sums'}"
    result = f"{'int8_t' if output else 'int32_t'} *out"
    p = Program(name, (result, "const int32_t *columns", "const int32_t *group", "int32_t pairs"), about)
    p.new_float("out_kept", "end_kept", pointer=True)
    p.new_float("pairs_kept")
    p.vmov("out_kept", "out")
    p.vmov("pairs_kept", "pairs")
    p.free("out", "pairs")
    p.new(*(f"{total}_{pixel}" for pixel in range(2) for total in ACCUMULATORS), "x0", "x1", "w0")
    p.new_pointer("end")
    with p.loop_while("x0", "ne", 0, times=pairs):
        requantize.advance(p, "end", "columns", 8 * shape.row_words, "x0")
        p.vmov("end_kept", "end")
        p.ldm("group", " ".join(f"{total}_0" for total in ACCUMULATORS))
        for total in ACCUMULATORS:
            p.mov(f"{total}_1", f"{total}_0")
        _rounds(p, shape)
        p.free("end")
        p.new_pointer("out")
        p.vmov("out", "out_kept")
        if output:
            _requantize(p, shape.channels, *output)
        else:
            _store(p, shape.channels)
        requantize.advance(p, "out", "out", (2 if output else 8) * shape.channels, "x0")
        p.vmov("out_kept", "out")
        p.free("out")
        p.new_pointer("end")
        requantize.advance(p, "group", "group", -8 * shape.row_words - 16, "x0")
        p.vmov("x0", "pairs_kept")
        p.sub("x0", "x0", 1)
        p.vmov("pairs_kept", "x0")
    return p


def _rounds(p: Program, shape: Shape) -> None:
    """The inner loop; leaves `columns` and `group` behind what was read."""
    if shape.rounds == 1:
        product_round(p, shape.steps, "group")
        return
    with p.loop_while("columns", "ne", "end", times=shape.rounds):
        product_round(p, shape.steps, "group")
        p.vmov("end", "end_kept")


def product_round(p: Program, steps: int, weights: str) -> None:
    """Four channels by two pixels, `steps` pairs of values each, from `columns` and `weights`, which move on."""
    p.free("end")
    p.new("w1")
    for step in range(steps):
        p.ldr("x0", "columns", 8 * step)
        p.ldr("x1", "columns", 8 * step + 4)
        p.ldr("w0", weights, 8 * step)
        p.ldr("w1", weights, 8 * step + 4)
        for pair in range(2):
            for total in ("raw", "low"):
                for pixel in range(2):
                    p.smlad(f"{total}{pair}_{pixel}", f"w{pair}", f"x{pixel}", f"{total}{pair}_{pixel}")
                if total == "raw":
                    p.sxtb16(f"w{pair}", f"w{pair}")
    p.free("w1")
    p.new_pointer("end")
    p.add("columns", "columns", 8 * steps)
    p.add(weights, weights, 8 * steps)


def _requantize(p: Program, channels: int, zero_point: int, clamp: Clamp) -> None:
    """Stores the eight sums; `group` points to four multipliers and shifts."""
    for pair in range(2):
        for pixel in range(2):
            raw, low = f"raw{pair}_{pixel}", f"low{pair}_{pixel}"
            p.sub(raw, raw, low)
            p.asr(raw, raw, 7)
            p.add(low, low, low)
    for channel in range(4):
        p.ldr("x0", "group", 8 * channel)
        p.ldr("x1", "group", 8 * channel + 4)
        for pixel in range(2):
            total = f"{('low', 'raw')[channel % 2]}{channel // 2}_{pixel}"
            requantize.requantize(p, total, "x0", "x1", zero_point, clamp)
            p.strb(total, "out", pixel * channels + channel)


def _store(p: Program, channels: int) -> None:
    """Stores the eight sums as they are."""
    for pixel in range(2):
        for pair in range(2):
            raw, low = f"raw{pair}_{pixel}", f"low{pair}_{pixel}"
            p.sub(raw, raw, low)
            p.asr(raw, raw, 8)
            p.str(low, "out", 8 * pair)
            p.str(raw, "out", 8 * pair + 4)
        if pixel == 0:
            requantize.advance(p, "out", "out", 4 * channels, "x0")
    requantize.advance(p, "out", "out", -4 * channels, "x0")
