"""Depthwise convolution by planes: two neighbouring pixels of one channel in a word, two taps for each SMLAD.

Four channels at a time, or all of one to three, are copied out of the map into planes of 16-bit pixels, with the zero point all
around them where padding is; so every row of a plane begins at a word. An output at an even distance from the row's start meets
its taps in pairs (0 1)(2 3)..., one at an odd distance in pairs 0 (1 2)(3 4)...; with the words (0 1), (1 2), (2 3) ... in
memory, SMLAD takes a pair, SMLABB, SMLABT or SMLATB the tap that is left over. Several outputs share what is loaded.

A convolution of groups of one channel is the same layer; and one of one channel is one for row convolution too.

Weights and bias are doubled, as `requantize` wants its sums, and the bias takes the input's zero point along.
Where the planes are too large, a strip of output rows at a time is copied.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np

from tinyredux.graph import Array, Conv, DepthwiseConv, Graph, Op, Shape
from tinyredux.int8 import Requantization
from tinyredux.kernels import rows as row_convolution
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
TABLE_HEAD = ("bias", "multiplier", "right")  # words before the taps


class Layer:
    """A layer between maps of two shapes; `strip`: output rows for which the planes hold the input."""

    def __init__(self, op: Conv | DepthwiseConv, source: Shape, target: Shape, factors: Requantization, strip: int) -> None:
        """Measures the planes."""
        self.op, self.source, self.target, self.factors, self.strip = op, source, target, factors, strip
        self.planes, self.multiplier = min(PLANES, source[2]), target[2] // source[2]
        even, (rows, columns) = op.stride[1] % 2 == 0, op.kernel
        needed = max((target[1] - 1) * op.stride[1] + columns, op.padding[2] + source[1])
        self.pitch = (needed + 1) // 2 * 2  # pixels of a plane's row, an even number
        self.plane_rows = (strip - 1) * op.stride[0] + rows
        # The first taps of the words that hold a row of taps: all pairs, or where outputs begin at words every other one.
        step = 2 if even or target[1] == 1 else 1
        self.pairs = list(range(0, max(1, columns - (step == 1)), step))
        self.taps_bytes = 4 * rows * len(self.pairs)  # of one output channel
        self.plane_bytes = 2 * self.pitch * self.plane_rows + self.taps_bytes  # the taps of its channel lie in front of a plane
        free = len(CORE_REGISTERS) - FIXED_REGISTERS - len(self.pairs) - 1
        most = OUTPUTS + (even and target[1] == OUTPUTS + 1)  # none is left alone
        self.outputs = min(most, free if even else free // 2 * 2)  # computed together: an even number where they lie oddly

    def applies(self) -> bool:
        """Returns whether registers and distances suffice, and each strip of outputs sees a row of the map: one that lies wholly
        in padding has nothing to copy."""
        last_tap = 2 * self.pitch * self.op.kernel[0]
        distances = (last_tap, self.taps_bytes, PLANES * self.source[2], (OUTPUTS + 1) * self.target[2])
        if self.outputs < 2 or max(distances) > LARGEST_IMMEDIATE:
            return False
        tops = [row * self.op.stride[0] - self.op.padding[0] for row in range(self.target[0])]  # of the window of each row
        first, last = tops[:: self.strip], [*tops[self.strip - 1 :: self.strip], tops[-1]]
        return max(first) < self.source[0] and min(last) + self.op.kernel[0] > 0


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns the forms of a depthwise convolution: whole planes, and smaller and smaller strips."""
    if not isinstance(op, Conv | DepthwiseConv) or (isinstance(op, Conv) and graph.constants[op.weights].shape[-1] > 1):
        return []
    graph, op = _trimmed(graph, op)
    source, target = graph.tensors[op.inputs[0]].shape, graph.tensors[op.output].shape
    sums = sums_of(graph, op, channels_last=isinstance(op, DepthwiseConv))
    if not applies(sums.factors) or sums.largest >= SUM_LIMIT:
        return []
    strips = (target[0], *(strip for strip in STRIPS if strip < target[0]))
    layers = [Layer(op, source, target, sums.factors, strip) for strip in strips]
    found = [_form(layer, sums, core) for layer in layers if layer.applies()]
    if isinstance(op, DepthwiseConv) and source[2] == 1:
        found += row_convolution.forms(*_convolution(graph, op), core)
    return found


def _trimmed(graph: Graph, op: Conv | DepthwiseConv) -> tuple[Graph, Conv | DepthwiseConv]:
    """Returns a layer without the outer taps that lie in padding at every output, as those of large windows on small maps do."""
    weights, first_axis = graph.constants[op.weights], 0 if isinstance(op, DepthwiseConv) else 1
    kernel, padding = list(op.kernel), list(op.padding)
    for axis in range(2):
        size, outputs = graph.tensors[op.inputs[0]].shape[axis], graph.tensors[op.output].shape[axis]
        starts = np.arange(outputs) * op.stride[axis] - padding[2 * axis]
        seen = [t for t in range(kernel[axis]) if np.any((starts + t >= 0) & (starts + t < size))]
        if not seen:
            return graph, op
        weights = weights.take(range(seen[0], seen[-1] + 1), first_axis + axis)
        padding[2 * axis] -= seen[0]
        padding[2 * axis + 1] -= kernel[axis] - 1 - seen[-1]
        kernel[axis] = seen[-1] + 1 - seen[0]
    changed = replace(op, kernel=(kernel[0], kernel[1]), padding=(padding[0], padding[1], padding[2], padding[3]))
    return replace(graph, constants={**graph.constants, op.weights: weights}), changed


def _convolution(graph: Graph, op: DepthwiseConv) -> tuple[Graph, Conv]:
    """Returns a layer of one input channel as a convolution."""
    fields = {name: value for name, value in vars(op).items() if name != "multiplier"}
    weights = graph.constants[op.weights].transpose(2, 0, 1)[..., None]
    return replace(graph, constants={**graph.constants, op.weights: weights}), Conv(**fields)


def _table(layer: Layer, sums: Sums) -> Array:
    """Returns (out_c, words) int32 with doubled bias, factors and pairs of doubled taps of each output channel."""
    taps = np.pad(2 * sums.rows.reshape(-1, *layer.op.kernel), ((0, 0), (0, 0), (0, 2)))
    pairs = np.stack([taps[:, :, layer.pairs], taps[:, :, [x + 1 for x in layer.pairs]]], axis=-1)
    return words(np.column_stack([2 * sums.start, constants(sums.factors), halves(pairs).reshape(len(taps), -1)]))


def _form(layer: Layer, sums: Sums, core: str) -> Form:
    functions, (out_h, _, out_c) = (pack_function(layer), rows_function(layer), fill_function()), layer.target
    pack, rows, fill = (cycles_of(function, core) for function in functions)
    strips, groups = -(-out_h // layer.strip), -(-layer.source[2] // layer.planes)
    scratch_bytes = layer.planes * layer.plane_bytes
    cycles = groups * strips * (pack + C_LOOP_CYCLES) + strips * out_c * (rows + C_LOOP_CYCLES) + scratch_bytes
    if strips > 1:
        cycles += groups * layer.planes * (layer.op.kernel[0] - 1) * (fill + 2 * layer.pitch)
    name = "depthwise_planes" if strips == 1 else f"depthwise_strips_of_{layer.strip}"
    proof, arrays = f"largest |sum| {sums.largest}, below 2^30", {"table": _table(layer, sums)}
    names = [function.name for function in functions]
    return Form(name, round(cycles), scratch_bytes, functions, lambda places: _call(layer, places, *names), arrays, proof)


def _call(layer: Layer, places: Places, pack: str, rows: str, fill: str) -> str:
    (in_h, in_w, in_c), (out_h, out_w, out_c), op = layer.source, layer.target, layer.op
    strip, many = layer.strip, layer.planes
    zero, words, plane = (layer.factors.input_zero_point & 0xFFFF) * 0x10001, layer.pitch // 2, layer.plane_bytes
    source = f"{places.inputs[0]} + first * {in_w * in_c} + c"
    planes = f"{places.scratch} + {layer.taps_bytes}"
    table = f"{places.arrays['table']} + to * {len(TABLE_HEAD) + layer.taps_bytes // 4}"
    lines = f"""{fill}({places.scratch}, {zero}u, {many * plane // 4});
for (int32_t group = 0; group < {in_c}; group += {many}) {{
    const int32_t c = group + {many} <= {in_c} ? group : {in_c - many};
    for (int32_t y = 0; y < {out_h}; y += {strip}) {{
        const int32_t rows = {out_h} - y < {strip} ? {out_h} - y : {strip};
        const int32_t top = y * {op.stride[0]} - {op.padding[0]}, end = top + (rows - 1) * {op.stride[0]} + {op.kernel[0]};
        const int32_t first = top < 0 ? 0 : top, last = end > {in_h} ? {in_h} : end;"""
    if strip < out_h and any(op.padding[:2]):
        lines += f"""
        for (int32_t k = 0; k < {many}; k++) {{
            int8_t *const plane = {planes} + k * {plane};
            if (first > top) {fill}(plane, {zero}u, (first - top) * {words});
            if (last < end) {fill}(plane + (last - top) * {4 * words}, {zero}u, (end - last) * {words});
        }}"""
    return f"""{lines}
        {pack}({planes} + (first - top) * {4 * words} + {2 * op.padding[2]}, {source}, last - first);
        for (int32_t k = (group - c) * {layer.multiplier}; k < {many * layer.multiplier}; k++) {{
            const int32_t to = c * {layer.multiplier} + k;
            {rows}({places.out} + y * {out_w * out_c} + to, {places.scratch} + k / {layer.multiplier} * {plane}, {table}, rows);
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
    """Returns the function that copies rows of a few channels into planes, from the first pixel inside the padding on."""
    (in_h, in_w, pixel), left, planes = layer.source, layer.op.padding[2], [f"plane_{k}" for k in range(layer.planes)]
    single = left % 2 if pixel >= PLANES else 0  # the first pixel is the second half of a word
    name = f"tr_planes_w{in_w}_c{pixel}_p{layer.pitch}_d{layer.plane_bytes}_o{single}"
    about = f"Copies rows of {layer.planes} channels into as many planes."
    p = Function(name, ("int8_t *plane_0", "const int8_t *in", "int32_t rows"), about)
    p.new(*(f"*{plane}" for plane in planes[1:]))
    with p.registers("distance"):
        p.constant("distance", layer.plane_bytes)
        for before, plane in pairwise(planes):
            p.add(plane, before, "distance")
    fours, rest = divmod(in_w - single, 4)
    pack = _pack if pixel >= PLANES else _pack_bytes
    if fours > 1:
        p.new("fours")
    with p.loop("rows", times=min(in_h, layer.plane_rows)):
        pack(p, pixel, single)
        with p.repeated("fours", max(1, fours)):
            pack(p, pixel, 4 if fours else 0)
        pack(p, pixel, rest)
        for plane in planes:
            p.add(plane, plane, 2 * (layer.pitch - in_w))
    return p


def _pack_bytes(p: Function, pixel: int, count: int) -> None:
    """Copies some pixels of one to three channels, byte by byte."""
    values = [f"value_{i}" for i in range(count)]
    with p.registers(*values):
        for k in range(pixel):
            for i, value in enumerate(values):
                p.ldrsb(value, "in", i * pixel + k)
            for value in values:
                p.strh_post(value, f"plane_{k}", 2)
        p.move("in", "in", count * pixel)


def _pack(p: Function, pixel: int, count: int) -> None:
    """Copies up to four pixels of four channels: words of two pixels into the planes, halfwords of the last of an odd number."""
    loaded = [f"word_{i}" for i in range(count)]
    with p.registers(*loaded, "even", "odd", "pair"):
        p.load("in", 0, *loaded, step=pixel)
        p.move("in", "in", count * pixel)
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
    op, (_, out_w, out_c), clamp = layer.op, layer.target, layer.factors.clamp
    name = f"tr_rows{op.kernel[0]}x{op.kernel[1]}_s{op.stride[0]}x{op.stride[1]}_w{out_w}_c{out_c}_p{layer.pitch}"
    name += f"_z{layer.factors.output_zero_point + 128:02x}{clamp.low + 128:02x}{clamp.high + 128:02x}"
    arguments = ("int8_t *out", "int8_t *plane", "const int32_t *table", "int32_t rows")
    p = Function(name, arguments, "Rows of one channel of a depthwise convolution.")
    p.new_float(*TABLE_HEAD)
    p.new("*taps")
    with p.registers("word"):
        for i, kept in enumerate(TABLE_HEAD):
            p.ldr("word", "table", 4 * i)
            p.vmov(kept, "word")
        p.mov("taps", "plane")
        for _ in TABLE_HEAD[1:]:
            p.add("table", "table", 4)
        for _ in range(layer.taps_bytes // 4):
            p.ldr_pre("word", "table", 4)
            p.str_post("word", "plane", 4)
    p.free("table")
    batches, left = divmod(out_w, layer.outputs)
    if batches > 1:
        p.new("batches")
    with p.loop("rows", times=layer.strip):
        if batches:
            with p.repeated("batches", batches):
                _outputs(p, layer, layer.outputs)
        if left:
            _outputs(p, layer, left)
        p.add("plane", "plane", 2 * (op.stride[0] * layer.pitch - out_w * op.stride[1]))
    return p


def _outputs(p: Function, layer: Layer, count: int) -> None:
    """Some outputs side by side; moves `plane` and `out` behind them."""
    (rows, columns), step, out_c = layer.op.kernel, layer.op.stride[1], layer.target[2]
    sums, taps = [f"sum_{k}" for k in range(count)], [f"taps_{t}" for t in layer.pairs]
    p.new(*sums, *taps)
    p.vmov(sums[-1], "bias")
    started = {count - 1}
    seen = sorted({(k * step + t) // 2 for k in range(count) for t in range(columns)})
    pixels = [f"pixels_{i}" for i in range(min(p.free_count(), len(seen)))]
    p.new(*pixels)
    for y in range(rows):
        p.load("taps", 4 * y * len(taps), *taps)
        for first in range(0, len(seen), len(pixels)):
            part = list(zip(pixels, seen[first : first + len(pixels)], strict=False))
            for word, pair in part:
                p.ldr(word, "plane", 2 * y * layer.pitch + 4 * pair)
            for word, pair in part:
                for k in range(count):
                    _multiply(p, layer, sums, k, started, word, 2 * pair - k * step)
    p.free(*pixels, *taps)
    with p.registers("factor", "shift"):
        p.vmov("factor", "multiplier")
        p.vmov("shift", "right")
        for k, name in enumerate(sums):
            requantize(p, name, "factor", "shift", layer.factors.output_zero_point, layer.factors.clamp)
            p.strb(name, "out", k * out_c)
        p.add("out", "out", count * out_c)
        p.add("plane", "plane", 2 * count * step)
    p.free(*sums)


def _multiply(p: Function, layer: Layer, sums: list[str], k: int, started: set[int], word: str, tap: int) -> None:
    """Adds a pair of pixels to sum k, on whose first pixel lies `tap`; the last sum brings the bias for all."""
    size, name = layer.op.kernel[1], sums[k]
    if not -1 <= tap < size:
        return
    base = name if k in started else sums[-1]
    started.add(k)
    if tap in layer.pairs:
        (p.smlad if tap + 1 < size else p.smlabb)(name, word, f"taps_{tap}", base)
    elif tap == -1:
        p.smlatb(name, word, "taps_0", base)
    else:
        p.smlabt(name, word, f"taps_{tap - 1}", base)
