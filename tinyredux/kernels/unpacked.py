"""Convolution with its weights as immediates: straight-line code, in which a unit of zeros has no instruction at all.

Two output channels by four pixels in eight sums. The windows of four pixels are widened to int16 pairs and lie interleaved:
for each two operands the words of four pixels, one LDM. A unit is what follows it: a constant made by MOVW and MOVT, and SMLADs
with the four words. Which operands share a word is SXTB16's order: of each four 0 and 2, then 1 and 3.

A pair of channels A, B whose zeros lie together takes byte pairs (`asm.layers`): SMLAD with the constant adds
S_A + 256 * S_B, with SXTB16 of it S_A. Where the zeros of A and B differ enough, each has constants of its own; the cheaper of
the two is taken.

Source: ours; weights as immediates and the omission of SMLADs are those of arXiv 2409.16815.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from tinyredux.graph import Array, Conv, Graph, Op
from tinyredux.int8 import Requantization
from tinyredux.kernels.asm import requantize
from tinyredux.kernels.asm.cost import code_bytes, function_cycles
from tinyredux.kernels.asm.forms import Form, Later
from tinyredux.kernels.asm.function import Function
from tinyredux.kernels.asm.layers import PAIR_LIMIT, kernel_call, paired, sums_of, window_fields
from tinyredux.kernels.asm.schedule import DUAL_ISSUE
from tinyredux.simulator import RULES

PIXELS = 4
STRIPS = (1, 4, 8)  # groups of four pixels for which one pair's code runs before the next pair's
MOST_OPERANDS = 1360  # four rows of bytes within a load's reach
C_PIXEL_CYCLES, C_ROW_CYCLES, C_CALL_CYCLES, C_BYTE_CYCLES = 30, 80, 12, 2  # of the C around
PREFETCHED = 0.4  # of a line's wait is left where code runs straight on: the next line comes while four instructions run
SHARED, OWN = 15, 6  # cycles of a unit beyond its load: byte pairs for both channels, or constants of one


@dataclass(frozen=True)
class Layer:
    """A convolution as words: `a` and `b` (pairs of channels, units) hold two weights each; b is zero for a missing channel."""

    a: Array
    b: Array
    bias: Array
    factors: Requantization
    channels: int
    fours: int

    @cached_property
    def digest(self) -> str:
        """Distinguishes the code of layers that differ."""
        parts = (self.a.tobytes(), self.b.tobytes(), self.bias.tobytes(), repr((self.factors, self.channels)).encode())
        return hashlib.sha256(b"".join(parts)).hexdigest()[:6]


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns one form per length of strip for a convolution of one group whose sums stay in their bounds."""
    if not isinstance(op, Conv) or op.groups > 1:
        return []
    height, width, _ = graph.tensors[op.output].shape
    layer = layer_of(graph, op)
    if layer is None or height * width < PIXELS or 4 * layer.fours > MOST_OPERANDS:
        return []
    strips = sorted({min(strip, -(-height * width // PIXELS)) for strip in STRIPS})
    prices = [product_price(layer, pair, core) for pair in range(len(layer.a))]
    return [_form(graph, op, core, layer, prices, strip) for strip in strips]


def layer_of(graph: Graph, op: Conv) -> Layer | None:
    """Returns a convolution's weights in words, None where a sum could leave its bounds or needs another requantisation."""
    sums = sums_of(graph, op)
    if not sums.stay_below(PAIR_LIMIT):
        return None
    channels, k = sums.rows.shape
    units = paired(np.pad(sums.rows, ((0, channels % 2), (0, -k % 4))))
    return Layer(units[0::2], units[1::2], np.pad(sums.start, (0, channels % 2)), sums.factors, channels, -(-k // 4))


def shares_words(a: Array, b: Array) -> bool:
    """Returns whether byte pairs are the cheaper way for two channels, given as (units, 2) weights."""
    in_a, in_b = a.any(axis=1), b.any(axis=1)
    return bool(SHARED * np.count_nonzero(in_a | in_b) <= OWN * (np.count_nonzero(in_a) + np.count_nonzero(in_b)) + 3)


def product_name(name: str, layer: Layer, pair: int) -> str:
    """Returns the name of the function of one pair of channels."""
    return f"tr_{name}_{layer.digest}_c{2 * pair}"


def product_price(layer: Layer, pair: int, core: str) -> tuple[float, int]:
    """Returns the cycles of a call of STRIPS[-1] groups and the bytes of a pair's function, by counting its instructions.

    The function without units is written and priced; what each unit adds follows from its weights.
    """
    a, b, kept, rules = layer.a[pair], layer.b[pair], _kept(layer, pair), RULES[core]
    shared, bare = shares_words(a, b), product_function("bare", layer, pair, np.zeros(0, np.int64))
    words = 256 * b[kept] + a[kept] if shared else np.concatenate([a[a.any(axis=1)], b[b.any(axis=1)]])
    constants = len(words) + int(np.count_nonzero(words[:, 1] & 0xFFFF))  # MOVW, and MOVT where there is an upper half
    gaps = np.diff(kept, prepend=-1, append=len(a)) - 1
    steps = int((-(-gaps // 255)).sum()) - -(-len(a) // 255)
    products, others = 4 * len(words) * (1 + shared), constants + len(words) * shared + steps
    load, other = (3, 0.5) if core in DUAL_ISSUE else (rules.many + PIXELS, 1)
    waits = rules.load_use * np.count_nonzero(gaps[1:]) + rules.address_wait * bool(len(kept) and gaps[0])
    more = len(kept) * load + products + other * others + waits
    return function_cycles(bare, core) + STRIPS[-1] * more, code_bytes(bare) + 4 * (len(kept) + products + others)


def _kept(layer: Layer, pair: int) -> Array:
    return np.flatnonzero(layer.a[pair].any(axis=1) | layer.b[pair].any(axis=1))


def product_function(name: str, layer: Layer, pair: int, kept: Array | None = None) -> Function:
    """Returns the code of one pair of channels for any number of groups of four pixels, by all units or those that are `kept`.

    out: the first channel of the first pixel; columns: words of the groups, one behind the other; quads: groups, at least one.
    """
    kept = _kept(layer, pair) if kept is None else kept
    a, b = layer.a[pair], layer.b[pair]
    shared, both = shares_words(a, b), 2 * pair + 1 < layer.channels
    about = (
        f"Channels {2 * pair}{f' and {2 * pair + 1}' if both else ''} of {name} x {PIXELS} pixels: {len(kept)}/{len(a)} units, "
        + ("byte pairs." if shared else "constants of each channel.")
    )
    p = Function(product_name(name, layer, pair), ("int8_t *out", "const int32_t *columns", "int32_t quads"), about)
    p.keep("*out", "quads")
    p.new("x0", "x1", "x2", "x3", "w", *(f"{channel}{i}" for channel in ("a", "b") for i in range(PIXELS)))
    with p.loop("quads_kept", STRIPS[-1], through="x0"):
        _units(p, layer, pair, kept, shared)
        _store(p, layer, pair, both)
    return p


def _units(p: Function, layer: Layer, pair: int, kept: Array, shared: bool) -> None:
    """Leaves the doubled sums of channels A and B, and `columns` at the next four pixels."""
    a, b, bias = layer.a[pair], layer.b[pair], [int(value) for value in layer.bias[2 * pair : 2 * pair + 2]]
    for channel, start in (("a", bias[0]), ("b", bias[1] * 256 + bias[0] if shared else bias[1])):
        p.constant(f"{channel}0", start & 0xFFFFFFFF)
        for i in range(1, PIXELS):
            p.mov(f"{channel}{i}", f"{channel}0")
    places = [*(int(unit) for unit in kept), len(a)]
    _step_over(p, places[0])
    for unit, following in pairwise(places):
        p.ldm("columns", "x0", "x1", "x2", "x3")
        _step_over(p, following - unit - 1)
        if shared:
            _multiply(p, "b", 256 * b[unit] + a[unit])
            p.sxtb16("w", "w")
            _multiply(p, "a", None)
        else:
            for channel, weights in (("a", a[unit]), ("b", b[unit])):
                if weights.any():
                    _multiply(p, channel, weights)
    for i in range(PIXELS):
        if shared:
            p.sub(f"b{i}", f"b{i}", f"a{i}")
            p.asr(f"b{i}", f"b{i}", 7)
        else:
            p.add(f"b{i}", f"b{i}", f"b{i}")
        p.add(f"a{i}", f"a{i}", f"a{i}")


def _multiply(p: Function, channel: str, weights: Array | None) -> None:
    """Adds the products of two weights, or of what `w` holds, to a channel's four sums."""
    if weights is not None:
        low, high = (int(value) & 0xFFFF for value in weights)
        p.constant("w", low | high << 16)
    for i in range(PIXELS):
        p.smlad(f"{channel}{i}", "w", f"x{i}", f"{channel}{i}")


def _step_over(p: Function, units: int) -> None:
    """Moves `columns` over units that are left out; an immediate holds 255 of them."""
    while units > 0:
        p.add("columns", "columns", 4 * PIXELS * min(units, 255))
        units -= 255


def _store(p: Function, layer: Layer, pair: int, both: bool) -> None:
    p.free("x3")
    with p.fetched("to", "out_kept"):
        constants = requantize.constants(layer.factors).tolist()
        for channel, (multiplier, right) in enumerate(constants[2 * pair : 2 * pair + 1 + both]):
            p.constant("w", multiplier)
            for i in range(PIXELS):
                total = f"{'ab'[channel]}{i}"
                requantize.requantize(p, total, "w", right, layer.factors.output_zero_point, layer.factors.clamp)
                p.strb(total, "to", i * layer.channels + channel)
        p.constant("w", PIXELS * layer.channels)
        p.add("to", "to", "w")
    p.new("x3")


def interleave_function(fours: int) -> Function:
    """Returns the function that widens four rows of bytes, `fours` * 4 long and one behind the other, to interleaved words."""
    about = "Four rows of bytes as int16 pairs: of four values 0 and 2, then 1 and 3; the words of the four rows in turn."
    p = Function(f"tr_interleave_{4 * fours}", ("int32_t *to", "const int8_t *rows", "int32_t fours"), about)
    even, odd = ([f"{name}{i}" for i in range(PIXELS)] for name in ("even", "odd"))
    p.new(*even, *odd)
    with p.loop("fours", times=fours):
        p.load("rows", 4 * fours, *odd[1:], step=4 * fours)
        p.ldr_post(odd[0], "rows", 4)
        for i in range(PIXELS):
            p.sxtb16(even[i], odd[i])
            p.sxtb16_ror8(odd[i], odd[i])
        p.stm("to", *even)
        p.stm("to", *odd)
    return p


def _form(graph: Graph, op: Conv, core: str, layer: Layer, prices: Sequence[tuple[float, int]], strip: int) -> Form:
    out_h, out_w, _ = graph.tensors[op.output].shape
    interleave = interleave_function(layer.fours)
    quads, operands = -(-out_h * out_w // PIXELS), op.kernel[0] * op.kernel[1] * graph.tensors[op.inputs[0]].shape[2]
    gathered = C_PIXEL_CYCLES + op.kernel[0] * C_ROW_CYCLES + C_BYTE_CYCLES * operands
    cycles = quads * (function_cycles(interleave, core) + PIXELS * gathered)
    cycles += quads * sum(each / STRIPS[-1] for each, _ in prices)
    cycles += -(-quads // strip) * len(prices) * C_CALL_CYCLES
    code = sum(bytes_ for _, bytes_ in prices)
    scratch = 4 * (strip * PIXELS * 2 * layer.fours + PIXELS * layer.fours)
    fields = window_fields(graph, op) | {
        "input_zero_point": layer.factors.input_zero_point, "fours": layer.fours, "strip": strip, "pairs": len(prices),
        "interleave": interleave.name, "products": "products",
    }  # fmt: skip
    table = ", ".join(product_name(op.name, layer, pair) for pair in range(len(prices)))

    def write() -> tuple[Function, ...]:
        return tuple(product_function(op.name, layer, pair) for pair in range(len(prices)))

    call = kernel_call("unpacked", fields, [f"static const tr_unpacked_product products[] = {{{table}}};"])
    proof = f"|sum of a channel| < 2^23 = {PAIR_LIMIT}"
    streamed = round(PREFETCHED * -(-quads // strip) * code)
    return Form(f"unpacked_{strip}", round(cycles), scratch, (interleave,), call, {}, proof, streamed, Later(write, code))
