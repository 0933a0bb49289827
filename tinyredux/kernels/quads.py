"""1x1 convolutions with four products in an SMLAL, three of them for its price and the fourth from SMLADs.

Two pixels p and q in one word, x_p + x_q * 2^21, times two channels A and B in another, w_A + w_B * 2^21, summed over the inputs:

    S_pA  +  (S_pB + S_qA) * 2^21  +  S_qB * 2^42

The outer fields are sums that are wanted, the middle one is two of them together. So one in four sums, S_pB, is computed
beforehand by byte pairs (`gemm`), and the accumulator begins with -S_pB in its middle field: S_qA is what is left there. That
makes 1.5 multiplications for four products where SMLADs take two. A field overflows for no input while the magnitudes of each
channel's weights sum up to less than 2^20 / 128 = 8192: in between, the accumulator may wrap around as it likes.

Source: ours.
"""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np

from tinyredux.graph import Array, Conv, Graph, Op
from tinyredux.int8 import Clamp
from tinyredux.kernels import gemm
from tinyredux.kernels.asm import requantize
from tinyredux.kernels.asm.forms import Form
from tinyredux.kernels.asm.function import Function
from tinyredux.kernels.asm.layers import Sums, kernel_call, sums_of, words
from tinyredux.kernels.asm.schedule import cycles_of
from tinyredux.kernels.asm.stalls import Priced, fastest
from tinyredux.kernels.gemm import PAIRS
from tinyredux.memory import is_pointwise

FIELD = 21
OFFSET = 1 << (FIELD - 1)  # keeps the two lower fields positive, so that they borrow nothing
WEIGHT_LIMIT = OFFSET // 128  # of the sum of a channel's magnitudes
CHANNELS_MAX, INPUTS_MAX = 1024, 4000  # so that offsets of outputs fit into instructions
STEPS = {"cortex-m4": (8, 4), "cortex-m33": (16, 8, 4), "cortex-m7": (64, 16, 8, 4)}  # inputs, at most, in a round of the loop
STRIPS = (8, 16, 32, 64)  # pixels at a time
C_STRIP_CYCLES, C_GROUP_CYCLES = 40, 24  # of the C around


class Shape:
    """A product of four pixels' `k` inputs with `channels` weights each: `rounds` of `steps` inputs cover k.

    `strip` pixels lie in scratch at a time, a multiple of 4.
    """

    def __init__(self, k: int, channels: int, strip: int, most: int, second: gemm.Shape) -> None:
        """Divides the inputs into rounds of at most `most`; `second` multiplies pixels p with channels B, two of each four."""
        self.k, self.channels, self.strip = k, channels, strip
        self.rounds = -(-k // most)
        self.steps = 4 * -(-k // (4 * self.rounds))
        self.quads = strip // 4  # groups of four pixels in a strip
        self.groups = -(-channels // 4)  # of four channels
        self.pair_words = self.rounds * self.steps  # of two pixels
        # Words of one group's data: weights, then bias, multiplier and shift of each channel; a multiple of 8.
        self.group_words = -(-(2 * self.pair_words + 12) // 8) * 8
        self.second = second


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns one form per length of strip for a 1x1 convolution of one group whose sums fit into fields."""
    if not isinstance(op, Conv) or not is_pointwise(op):
        return []
    (out_h, out_w, channels), sums = graph.tensors[op.output].shape, sums_of(graph, op)
    k, pixels, largest = sums.rows.shape[1], out_h * out_w, np.abs(sums.start).max(initial=0)
    if k % 4 or k > INPUTS_MAX or not 5 <= channels <= CHANNELS_MAX or pixels < 4:
        return []
    if magnitude(sums) >= WEIGHT_LIMIT or largest >= requantize.SUM_LIMIT // 2 or not sums.stay_below(requantize.SUM_LIMIT):
        return []
    strips = {min(4 * -(-pixels // (4 * -(-pixels // strip))), pixels // 4 * 4) for strip in STRIPS}  # as equal as can be
    return [_form(core, sums, pixels, strip) for strip in sorted(strips)]


def magnitude(sums: Sums) -> int:
    """Returns the largest sum of a channel's magnitudes."""
    return int(np.abs(sums.rows).sum(axis=1).max(initial=0))


def _form(core: str, sums: Sums, pixels: int, strip: int) -> Form:
    """Returns the form whose strips have this length, both products in the shapes that are fastest."""
    (channels, k), factors, strips, copied = sums.rows.shape, sums.factors, -(-pixels // strip), core != "cortex-m7"
    any_shape = gemm.Shape(k, channels)
    copying = cycles_of(gemm.copy_function(any_shape), core) / any_shape.group_words if copied else 0  # of a word

    def priced(shape: Shape | gemm.Shape, function: Function) -> Priced:
        each = cycles_of(function, core) + C_GROUP_CYCLES + copying * shape.group_words
        return strips * shape.groups * each, shape, (function,)

    seconds = gemm.shapes_of(k, 2 * -(-channels // 4), (max(16, STEPS[core][0]), *gemm.STEPS[1:]), factors=False)
    ways = (priced(shape, gemm.product_function(shape, strip // 4, gemm.STORED)) for shape in seconds)
    first_cycles, second, first = fastest(core, ways)
    shapes = (Shape(k, channels, strip, most, second) for most in STEPS[core])
    ways = (priced(shape, product_function(shape, factors.output_zero_point, factors.clamp)) for shape in shapes)
    last_cycles, shape, last = fastest(core, ways)
    functions = (pack_function(shape), gemm.copy_function(second), *first, *last)
    cycles = first_cycles + last_cycles + strips * (cycles_of(functions[0], core) + C_STRIP_CYCLES)
    arrays = {"groups": data(shape, sums), "seconds": second_data(shape, sums.rows)}
    scratch_words = shape.strip // 2 * (shape.pair_words + second.row_words + 2 * shape.groups)
    scratch_words += max(shape.group_words, second.group_words) if copied else 0
    fields: dict[str, int | str] = {
        "in_c": shape.k, "out_c": shape.channels, "pixels": pixels, "strip": shape.strip,
        "pair_words": shape.pair_words, "group_words": shape.group_words,
        "second_row_words": second.row_words, "second_group_words": second.group_words, "copied": int(copied),
        **dict(zip(("pack", "copy", "second", "product"), (function.name for function in functions), strict=True)),
    }  # fmt: skip
    proof = f"fields: the magnitudes of a channel's weights sum up to {magnitude(sums)} at most, below {WEIGHT_LIMIT}"
    streamed = strips * sum(values.nbytes for values in arrays.values())
    return Form(
        f"quads_{shape.strip}", round(cycles), 4 * scratch_words, functions, kernel_call("quads", fields), arrays, proof, streamed
    )


def data(shape: Shape, sums: Sums) -> Array:
    """Returns (groups, group_words) int32 for `product_function`."""
    found, factors = np.zeros((shape.groups, shape.group_words), np.int64), requantize.constants(sums.factors)
    behind = 2 * shape.pair_words
    for group, first in zip(found, gemm.first_channels(shape.channels), strict=True):
        a, b = sums.rows[first : first + 4 : 2], sums.rows[first + 1 : first + 5 : 2]
        group[: 2 * shape.k] = (a + (b << FIELD)).T.reshape(-1)
        doubled = 2 * sums.start[first : first + 4] - np.array([2 * OFFSET, 0, 2 * OFFSET, 0])
        group[behind : behind + 12] = np.column_stack([doubled, factors[first : first + 4]]).reshape(-1)
    return words(found)


def second_data(shape: Shape, weights: Array) -> Array:
    """Returns `gemm.data` of channels B: what `product_function` begins from, OFFSET minus the sum."""
    chosen = np.concatenate([[first + 1, first + 3] for first in gemm.first_channels(shape.channels)])
    return gemm.data(shape.second, -weights[chosen], np.full(len(chosen), OFFSET), np.zeros((len(chosen), 2), np.int32))


def pack_function(shape: Shape) -> Function:
    """Returns the function that reads a strip of pixels p q r s and so on.

    columns: words p + q * 2^21 and r + s * 2^21, input by input; rows: p and r as `gemm.widen_function` writes them.
    """
    about = f"Packs {shape.quads} times four pixels of {shape.k} inputs, and widens two of each four."
    name = f"tr_pack_quads_k{shape.k}_n{shape.quads}_{shape.pair_words}"
    p = Function(name, ("int32_t *columns", "int32_t *rows", "const int8_t *in"), about)
    p.new("quads", "fours", "p", "q", *(f"low{i}" for i in range(4)), "high0", "high1")
    p.constant("quads", shape.quads)
    with p.loop("quads", shape.quads):
        for pair, behind in enumerate((8 * shape.k - 4, 8 * (shape.pair_words - shape.k) - 4)):
            p.mov("fours", shape.k // 4)
            with p.loop("fours", shape.k // 4):
                _pack_four(p, shape.k)
            p.advance("in", shape.k)
            p.advance("columns", behind * (-1, 1)[pair])
            p.advance("rows", (4 - 4 * shape.k, 8 * shape.second.row_words - 4 * shape.k - 4)[pair])
    return p


def _pack_four(p: Function, k: int) -> None:
    p.ldr("q", "in", k)
    p.ldr_post("p", "in", 4)
    for i, rotation in enumerate(("", "_ror8", "_ror16", "_ror24")):
        low, high = f"low{i}", f"high{i % 2}"
        getattr(p, f"sxtb{rotation}")(low, "p")
        if rotation in ("", "_ror24"):  # the byte to the top, with nothing below: a core may do it beside SXTB
            (p.lsl if i == 0 else p.bic)(high, "q", 24 if i == 0 else 0xFFFFFF)
            p.add(low, low, high, f"asr {24 - FIELD}")
        else:
            getattr(p, f"sxtb{rotation}")(high, "q")
            p.add(low, low, high, f"lsl {FIELD}")
        p.str(low, "columns", 8 * i)
    p.sxtb16("low0", "p")
    p.sxtb16_ror8("low1", "p")
    p.store("rows", 0, "low0", "low1", step=8)
    p.add("columns", "columns", 32)
    p.add("rows", "rows", 16)


def product_function(shape: Shape, zero_point: int, clamp: Clamp) -> Function:
    """Returns the function that computes one group of four channels of a strip.

    columns: per quad of pixels and input the words of both pairs; group: a row of `data`; sums: OFFSET minus the sums of two
    channels B, per pair of pixels a row of 2 * groups; out: the group's first channel of the first pixel.
    """
    about = f"Quads: 4 of {shape.channels} channels x 4 pixels, {shape.pair_words} words of two pixels; {shape.quads} times."
    rounds = f"x{shape.rounds}" if shape.rounds > 1 else ""
    name = f"tr_quads_k{shape.pair_words}{rounds}_c{shape.channels}_n{shape.quads}_{requantize.name(zero_point, clamp)}"
    p = Function(name, ("int8_t *out", "const int32_t *columns", "const int32_t *group", "const int32_t *sums"), about)
    p.keep("*out", "*columns", "*sums")
    p.new_float("quads", *(f"second{i}{j}" for i, j in PAIRS))
    with p.registers("count"):
        p.constant("count", shape.quads)
        p.vmov("quads", "count")
    with p.loop("quads", shape.quads):
        with p.registers(*(f"{part}{i}{j}" for i, j in PAIRS for part in ("low", "high"))):
            _start(p, shape)
            _rounds(p, shape)
            _finish(p, shape.channels, zero_point, clamp)
        with p.registers("spare"):
            p.move("group", "group", -8 * shape.pair_words, "spare")
    return p


def _start(p: Function, shape: Shape) -> None:
    """Accumulators begin with what `sums` holds in their middle fields."""
    with p.registers("x", "offset"), p.fetched("sums"):
        p.mov("offset", OFFSET)
        for i, j in PAIRS:
            p.ldr("x", "sums", 4 * (2 * shape.groups * j + i))
            p.vmov(f"second{i}{j}", "x")
            p.asr(f"high{i}{j}", "x", 32 - FIELD)
            p.add(f"low{i}{j}", "offset", "x", f"lsl {FIELD}")
        p.move("sums", "sums", 16 * shape.groups, "x")


def _rounds(p: Function, shape: Shape) -> None:
    """The inner loop; leaves `group` behind the weights."""
    with p.fetched("columns"):
        p.new_float("rounds")
        with p.registers("count"):
            p.mov("count", shape.rounds)
            p.vmov("rounds", "count")
        with p.loop("rounds", shape.rounds) if shape.rounds > 1 else nullcontext():
            with p.registers("x0", "x1", "w0", "w1"):
                for step in range(shape.steps):
                    p.load("columns", 8 * step, "x0", "x1")
                    p.load("group", 8 * step, "w0", "w1")
                    for i, j in PAIRS:
                        p.smlal(f"low{i}{j}", f"high{i}{j}", f"x{j}", f"w{i}")
            p.add("columns", "columns", 8 * shape.steps)
            p.add("group", "group", 8 * shape.steps)
        p.free("rounds")


def _finish(p: Function, channels: int, zero_point: int, clamp: Clamp) -> None:
    """From four accumulators and the four sums that were known to sixteen outputs; `group` points to the channels' factors.

    Of a channel A the low and the middle fields are pixels p and q; of a channel B the high fields are pixels q, and pixels p
    are the sums that were known.
    """

    def put(total: str, pixel: int, channel: int) -> None:
        """Requantises the doubled sum and stores it."""
        requantize.requantize(p, total, "multiplier", "right", zero_point, clamp)
        p.strb(total, "out", pixel * channels + channel)

    with p.fetched("out"), p.registers("bias", "multiplier", "right", "u"):
        for channel in range(4):
            p.load("group", 12 * channel, "bias", "multiplier", "right")
            fields = [(f"low{channel // 2}{j}", f"high{channel // 2}{j}") for j in range(2)]
            for j, (low, high) in enumerate(fields):
                if channel % 2:
                    p.asr(high, high, 2 * FIELD - 32)
                    p.add(high, "bias", high, "lsl 1")
                    put(high, 2 * j + 1, channel)
                    continue
                p.ubfx("u", low, 0, FIELD)
                p.add("u", "bias", "u", "lsl 1")
                put("u", 2 * j, channel)
                p.lsr(low, low, FIELD)
                p.bfi(low, high, 32 - FIELD, 2 * FIELD - 32)
                p.add(low, "bias", low, "lsl 1")
                put(low, 2 * j + 1, channel)
            if channel % 2:
                p.add("bias", "bias", 2 * OFFSET)
                for j, (low, _) in enumerate(fields):
                    p.vmov(low, f"second{channel // 2}{j}")
                    p.sub(low, "bias", low, "lsl 1")
                    put(low, 2 * j, channel)
        p.move("out", "out", 4 * channels, "bias")
