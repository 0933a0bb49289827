"""Depthwise convolution by planes: two neighbouring pixels of one channel in a word, two taps for each SMLAD.

Four channels at a time are copied out of the map into four planes of 16-bit pixels, with the zero point all around them where
padding is; so every row of a plane begins at a word. An output at an even distance from the row's start meets its taps in
pairs (0 1)(2 3)..., one at an odd distance in pairs 0 (1 2)(3 4)...; with the words (0 1), (1 2), (2 3) ... in memory, SMLAD
takes a pair, SMLABB, SMLABT or SMLATB the tap that is left over. Several outputs share what is loaded.

Weights and bias are doubled, as `requantize` wants its sums, and the bias takes the input's zero point along.
Where the planes are too large, a strip of output rows at a time is copied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyredux.graph import Array, DepthwiseConv, Graph, Op
from tinyredux.int8 import Clamp
from tinyredux.kernels.asm.forms import Form, Places
from tinyredux.kernels.asm.function import CORE_REGISTERS, LARGEST_IMMEDIATE, Function
from tinyredux.kernels.asm.layers import Sums, halves, sums_of, words
from tinyredux.kernels.asm.requantize import SUM_LIMIT, applies, constants, requantize
from tinyredux.kernels.asm.schedule import cycles_of

PLANES = 4
OUTPUTS = 4  # computed together
FIXED_REGISTERS = 5  # out, plane, taps and two counters
C_LOOP_CYCLES = 12
STRIPS = (8, 4, 2, 1)
TABLE_HEAD = 3  # words before the taps: bias, multiplier, right shift


@dataclass(frozen=True)
class Layer:
    """The numbers of a layer; `strip`: output rows for which the planes hold the input."""

    in_h: int
    in_w: int
    channels: int
    out_h: int
    out_w: int
    multiplier: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    top: int
    left: int
    strip: int
    input_zero_point: int
    output_zero_point: int
    clamp: Clamp

    @property
    def out_channels(self) -> int:
        """Output channels."""
        return self.channels * self.multiplier

    @property
    def pitch(self) -> int:
        """Pixels of a plane's row, an even number."""
        needed = max((self.out_w - 1) * self.stride[1] + self.kernel[1], self.left + self.in_w)
        return (needed + 1) // 2 * 2

    @property
    def plane_rows(self) -> int:
        """Rows of a plane."""
        return (self.strip - 1) * self.stride[0] + self.kernel[0]

    @property
    def plane_bytes(self) -> int:
        """Bytes of a plane."""
        return 2 * self.pitch * self.plane_rows

    @property
    def pairs(self) -> list[int]:
        """The first taps of the words that hold a row of taps: all pairs, or where outputs begin at words every other one."""
        step = 2 if self.stride[1] % 2 == 0 or self.out_w == 1 else 1
        return list(range(0, max(1, self.kernel[1] - (step == 1)), step))

    @property
    def outputs(self) -> int:
        """How many outputs are computed together: as many as registers allow, an even number where they lie oddly."""
        free = len(CORE_REGISTERS) - FIXED_REGISTERS - len(self.pairs) - 1
        return min(OUTPUTS, free if self.stride[1] % 2 == 0 else free // 2 * 2)

    @property
    def taps_bytes(self) -> int:
        """Bytes of the taps of one output channel."""
        return 4 * self.kernel[0] * len(self.pairs)

    @property
    def every_strip_has_input(self) -> bool:
        """Whether each strip of outputs sees a row of the map: one that lies wholly in padding has nothing to copy."""
        strips = [(y, min(y + self.strip, self.out_h) - 1) for y in range(0, self.out_h, self.strip)]  # first and last row
        tops = [(first * self.stride[0] - self.top, last * self.stride[0] - self.top) for first, last in strips]
        return all(first < self.in_h and last + self.kernel[0] > 0 for first, last in tops)

    @property
    def scratch_bytes(self) -> int:
        """Bytes of the planes, each behind the taps of its channel."""
        return PLANES * (self.plane_bytes + self.taps_bytes)


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns the forms of a depthwise convolution of at least four channels: whole planes, and smaller and smaller strips."""
    if not isinstance(op, DepthwiseConv):
        return []
    in_h, in_w, channels = graph.tensors[op.inputs[0]].shape
    out_h, out_w, _ = graph.tensors[op.output].shape
    sums = sums_of(graph, op, channels_last=True)
    factors = sums.factors
    if not applies(factors) or sums.largest >= SUM_LIMIT:
        return []
    layers = [
        Layer(
            in_h, in_w, channels, out_h, out_w, op.multiplier, op.kernel, op.stride, op.padding[0], op.padding[2], strip,
            factors.input_zero_point, factors.output_zero_point, factors.clamp,
        )
        for strip in (out_h, *(rows for rows in STRIPS if rows < out_h))
    ]  # fmt: skip
    return [_form(layer, sums, core) for layer in layers if _applies(layer)]


def _applies(layer: Layer) -> bool:
    last_tap = 2 * layer.pitch * layer.kernel[0]
    distances = (last_tap, layer.taps_bytes, PLANES * layer.channels, OUTPUTS * layer.out_channels)
    return layer.channels >= PLANES and layer.outputs >= 2 and max(distances) <= LARGEST_IMMEDIATE and layer.every_strip_has_input


def _table(layer: Layer, sums: Sums) -> Array:
    """Returns (out_c, words) int32 with doubled bias, factors and pairs of doubled taps of each output channel."""
    taps = np.pad(2 * sums.rows.reshape(-1, *layer.kernel), ((0, 0), (0, 0), (0, 2)))
    pairs = np.stack([taps[:, :, layer.pairs], taps[:, :, [x + 1 for x in layer.pairs]]], axis=-1)
    return words(np.column_stack([2 * sums.start, constants(sums.factors), halves(pairs).reshape(len(taps), -1)]))


def _form(layer: Layer, sums: Sums, core: str) -> Form:
    pack, rows, fill = pack_function(layer), rows_function(layer), fill_function()
    strips = -(-layer.out_h // layer.strip)
    groups = -(-layer.channels // PLANES)
    cycles = groups * strips * (cycles_of(pack, core) + C_LOOP_CYCLES)
    cycles += strips * layer.out_channels * (cycles_of(rows, core) + C_LOOP_CYCLES) + layer.scratch_bytes
    if strips > 1:
        cycles += groups * PLANES * (layer.kernel[0] - 1) * (cycles_of(fill, core) + 2 * layer.pitch)

    def call(places: Places) -> str:
        return _call(layer, places, (pack.name, rows.name, fill.name))

    name = "depthwise_planes" if strips == 1 else f"depthwise_strips_of_{layer.strip}"
    proof = f"largest |sum| {sums.largest}, below 2^30"
    arrays = {"table": _table(layer, sums)}
    return Form(name, round(cycles), layer.scratch_bytes, (pack, rows, fill), call, arrays, proof)


def _call(layer: Layer, places: Places, names: tuple[str, str, str]) -> str:
    pack, rows, fill = names
    zero, words = (layer.input_zero_point & 0xFFFF) * 0x10001, layer.pitch // 2
    planes, plane = f"{places.scratch} + {layer.taps_bytes}", layer.taps_bytes + layer.plane_bytes
    in_row, out_row = layer.in_w * layer.channels, layer.out_w * layer.out_channels
    source = f"{places.inputs[0]} + first * {in_row} + c"
    table = f"{places.arrays['table']} + to * {TABLE_HEAD + layer.taps_bytes // 4}"
    lines = f"""{fill}({places.scratch}, {zero}u, {layer.scratch_bytes // 4});
for (int32_t group = 0; group < {layer.channels}; group += {PLANES}) {{
    const int32_t c = group + {PLANES} <= {layer.channels} ? group : {layer.channels - PLANES};
    for (int32_t y = 0; y < {layer.out_h}; y += {layer.strip}) {{
        const int32_t rows = {layer.out_h} - y < {layer.strip} ? {layer.out_h} - y : {layer.strip};
        const int32_t top = y * {layer.stride[0]} - {layer.top}, end = top + (rows - 1) * {layer.stride[0]} + {layer.kernel[0]};
        const int32_t first = top < 0 ? 0 : top, last = end > {layer.in_h} ? {layer.in_h} : end;"""
    if layer.strip < layer.out_h:
        lines += f"""
        for (int32_t k = 0; k < {PLANES}; k++) {{
            int8_t *const plane = {planes} + k * {plane};
            if (first > top) {fill}(plane, {zero}u, (first - top) * {words});
            if (last < end) {fill}(plane + (last - top) * {4 * words}, {zero}u, (end - last) * {words});
        }}"""
    return f"""{lines}
        {pack}({planes} + (first - top) * {4 * words} + {2 * layer.left}, {source}, last - first);
        for (int32_t k = (group - c) * {layer.multiplier}; k < {PLANES * layer.multiplier}; k++) {{
            const int32_t to = c * {layer.multiplier} + k;
            {rows}({places.out} + y * {out_row} + to, {places.scratch} + k / {layer.multiplier} * {plane}, {table}, rows);
        }}
    }}
}}"""


def fill_function() -> Function:
    """Returns the function that fills words with one value."""
    p = Function("tr_fill_words", ("int8_t *to", "uint32_t value", "int32_t words"), "Fills words with one value.")
    with p.loop("words"):
        p.str_post("value", "to", 4)
    return p


def pack_function(layer: Layer) -> Function:
    """Returns the function that copies rows of four channels into four planes, from the first pixel inside the padding on."""
    plane, pixel = layer.taps_bytes + layer.plane_bytes, layer.channels
    name = f"tr_planes_w{layer.in_w}_c{pixel}_p{layer.pitch}_d{plane}_o{layer.left % 2}"
    p = Function(name, ("int8_t *plane_0", "const int8_t *in", "int32_t rows"), "Copies rows of four channels into four planes.")
    p.new(*(f"*plane_{k}" for k in range(1, PLANES)))
    with p.registers("distance"):
        p.constant("distance", plane)
        for k in range(1, PLANES):
            p.add(f"plane_{k}", f"plane_{k - 1}", "distance")
    single = layer.left % 2  # the first pixel is the second half of a word
    fours, left = divmod(layer.in_w - single, 4)
    if fours > 1:
        p.new("fours")
    with p.loop("rows", times=min(layer.in_h, layer.plane_rows)):
        _pack(p, pixel, single)
        with p.repeated("fours", max(1, fours)):
            _pack(p, pixel, 4 if fours else 0)
        _pack(p, pixel, left)
        for k in range(PLANES):
            p.add(f"plane_{k}", f"plane_{k}", 2 * (layer.pitch - layer.in_w))
    return p


def _pack(p: Function, pixel: int, count: int) -> None:
    """Copies up to four pixels of four channels: words of two pixels into the planes, halfwords of the last of an odd number."""
    loaded = [f"word_{i}" for i in range(count)]
    with p.registers(*loaded, "even", "odd", "pair"):
        p.load("in", 0, *loaded, step=pixel)
        if count:
            p.add("in", "in", count * pixel)
        for first, second in zip(loaded[::2], loaded[1::2], strict=False):
            for extend, low, high in ((p.sxtb16, 0, 2), (p.sxtb16_ror8, 1, 3)):
                extend("even", first)
                extend("odd", second)
                p.pkhbt("pair", "even", "odd", "lsl 16")
                p.str_post("pair", f"plane_{low}", 4)
                p.pkhtb("pair", "odd", "even", "asr 16")
                p.str_post("pair", f"plane_{high}", 4)
        for word in loaded[count // 2 * 2 :]:
            for extend, low, high in ((p.sxtb16, 0, 2), (p.sxtb16_ror8, 1, 3)):
                extend("even", word)
                p.strh_post("even", f"plane_{low}", 2)
                p.lsr("even", "even", 16)
                p.strh_post("even", f"plane_{high}", 2)


def rows_function(layer: Layer) -> Function:
    """Returns the function that computes rows of one output channel from a plane, in front of which it keeps the taps.

    Outputs that follow each other are stored a pixel apart. `table` holds bias, multiplier, shift, and words of taps.
    """
    limits = f"{layer.clamp.low + 128:02x}{layer.clamp.high + 128:02x}"
    name = f"tr_rows{layer.kernel[0]}x{layer.kernel[1]}_s{layer.stride[0]}x{layer.stride[1]}_w{layer.out_w}"
    name += f"_c{layer.out_channels}_p{layer.pitch}_z{layer.output_zero_point + 128:02x}{limits}"
    arguments = ("int8_t *out", "int8_t *plane", "const int32_t *table", "int32_t rows")
    p = Function(name, arguments, "Rows of one channel of a depthwise convolution.")
    p.new_float("bias", "multiplier", "right")
    p.new("*taps")
    with p.registers("word"):
        for i, kept in enumerate(("bias", "multiplier", "right")):
            p.ldr("word", "table", 4 * i)
            p.vmov(kept, "word")
        p.mov("taps", "plane")
        for _ in range(TABLE_HEAD - 1):
            p.add("table", "table", 4)
        for _ in range(layer.taps_bytes // 4):
            p.ldr_pre("word", "table", 4)
            p.str_post("word", "plane", 4)
    p.free("table")
    batches, left = divmod(layer.out_w, layer.outputs)
    if batches > 1:
        p.new("batches")
    with p.loop("rows", times=layer.strip):
        if batches:
            with p.repeated("batches", batches):
                _outputs(p, layer, layer.outputs)
        if left:
            _outputs(p, layer, left)
        p.add("plane", "plane", 2 * (layer.stride[0] * layer.pitch - layer.out_w * layer.stride[1]))
    return p


def _outputs(p: Function, layer: Layer, count: int) -> None:
    """Some outputs side by side; moves `plane` and `out` behind them."""
    sums, taps = [f"sum_{k}" for k in range(count)], [f"taps_{t}" for t in layer.pairs]
    p.new(*sums, *taps)
    p.vmov(sums[-1], "bias")
    started = {count - 1}
    seen = sorted({(k * layer.stride[1] + t) // 2 for k in range(count) for t in range(layer.kernel[1])})
    pixels = [f"pixels_{i}" for i in range(min(p.free_count(), len(seen)))]
    p.new(*pixels)
    for y in range(layer.kernel[0]):
        p.load("taps", 4 * y * len(taps), *taps)
        for first in range(0, len(seen), len(pixels)):
            part = list(zip(pixels, seen[first : first + len(pixels)], strict=False))
            for word, pair in part:
                p.ldr(word, "plane", 2 * y * layer.pitch + 4 * pair)
            for word, pair in part:
                for k in range(count):
                    _multiply(p, layer, sums, k, started, word, 2 * pair - k * layer.stride[1])
    p.free(*pixels, *taps)
    with p.registers("factor", "shift"):
        p.vmov("factor", "multiplier")
        p.vmov("shift", "right")
        for k, name in enumerate(sums):
            requantize(p, name, "factor", "shift", layer.output_zero_point, layer.clamp)
            p.strb(name, "out", k * layer.out_channels)
        p.add("out", "out", count * layer.out_channels)
        p.add("plane", "plane", 2 * count * layer.stride[1])
    p.free(*sums)


def _multiply(p: Function, layer: Layer, sums: list[str], k: int, started: set[int], word: str, tap: int) -> None:
    """Adds a pair of pixels to sum k, on whose first pixel lies `tap`; the last sum brings the bias for all."""
    size, name = layer.kernel[1], sums[k]
    if not -1 <= tap < size:
        return
    base = name if k in started else sums[-1]
    started.add(k)
    if tap == -1:
        p.smlatb(name, word, "taps_0", base)
    elif tap in layer.pairs and tap + 1 < size:
        p.smlad(name, word, f"taps_{tap}", base)
    elif tap in layer.pairs:
        p.smlabb(name, word, f"taps_{tap}", base)
    else:
        p.smlabt(name, word, f"taps_{tap - 1}", base)
