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
from itertools import pairwise

import numpy as np

from tinyredux.graph import Array, Conv, Graph, Op
from tinyredux.int8 import requantization
from tinyredux.kernels.asm import requantize
from tinyredux.kernels.asm.cost import code_bytes, function_cycles
from tinyredux.kernels.asm.forms import Form, Later
from tinyredux.kernels.asm.function import Function
from tinyredux.kernels.asm.layers import PAIR_LIMIT, Sums, kernel_call, paired, sums_of, window_fields
from tinyredux.kernels.asm.schedule import DUAL_ISSUE
from tinyredux.simulator import RULES

PIXELS = 4
STRIPS = (1, 4, 8)  # groups of four pixels for which one pair's code runs before the next pair's
MOST_OPERANDS = 1360  # four rows of bytes within a load's reach
C_PIXEL_CYCLES, C_ROW_CYCLES, C_CALL_CYCLES, C_BYTE_CYCLES = 30, 80, 12, 2  # of the C around
PREFETCHED = 0.4  # of a line's wait is left where code runs straight on: the next line comes while four instructions run
SHARED, OWN = 15, 6  # cycles of a unit beyond its load: byte pairs for both channels, or constants of one


class Pair:
    """Two neighbouring channels as words: `a` and `b` (units, 2) hold two weights each; b is zero where `both` is false."""

    def __init__(self, sums: Sums, number: int, digest: str) -> None:
        """Lays out channels 2 * number and 2 * number + 1; `digest` distinguishes the code of layers that differ."""
        channels, self.first = slice(2 * number, 2 * number + 2), 2 * number
        rows, start = sums.rows[channels], sums.start[channels].tolist()
        self.channels, self.both, self.digest = len(sums.rows), len(rows) == 2, digest
        self.a, self.b = paired(np.pad(rows, ((0, 2 - len(rows)), (0, -rows.shape[1] % 4))))
        self.bias, self.output = [*start, 0][:2], (sums.factors.output_zero_point, sums.factors.clamp)
        self.factors = requantize.constants(sums.factors)[channels].tolist()
        self.kept = np.flatnonzero(self.a.any(axis=1) | self.b.any(axis=1))  # units that are not left out
        self.shared = shares_words(self.a, self.b)


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns one form per length of strip for a convolution of one group whose sums stay in their bounds."""
    if not isinstance(op, Conv) or op.groups > 1:
        return []
    (height, width, _), pairs = graph.tensors[op.output].shape, pairs_of(graph, op)
    if not pairs or height * width < PIXELS or 2 * len(pairs[0].a) > MOST_OPERANDS:
        return []
    strips = sorted({min(strip, -(-height * width // PIXELS)) for strip in STRIPS})
    prices = [product_price(pair, core) for pair in pairs]
    return [_form(graph, op, core, pairs, prices, strip) for strip in strips]


def pairs_of(graph: Graph, op: Conv) -> list[Pair]:
    """Returns the pairs of channels of a convolution, none where a sum could leave its bounds or needs another requantisation."""
    sums = sums_of(graph, op)
    if not sums.stay_below(PAIR_LIMIT):
        return []
    channels = len(sums.rows)
    units = paired(np.pad(sums.rows, ((0, channels % 2), (0, -sums.rows.shape[1] % 4))))
    parts = (units[0::2], units[1::2], np.pad(sums.start, (0, channels % 2)))
    text = b"".join([*(part.tobytes() for part in parts), repr((sums.factors, channels)).encode()])
    digest = hashlib.sha256(text).hexdigest()[:6]
    return [Pair(sums, number, digest) for number in range(-(-channels // 2))]


def shares_words(a: Array, b: Array) -> bool:
    """Returns whether byte pairs are the cheaper way for two channels, given as (units, 2) weights."""
    in_a, in_b = a.any(axis=1), b.any(axis=1)
    return bool(SHARED * np.count_nonzero(in_a | in_b) <= OWN * (np.count_nonzero(in_a) + np.count_nonzero(in_b)) + 3)


def product_name(name: str, pair: Pair) -> str:
    """Returns the name of the function of one pair of channels."""
    return f"tr_{name}_{pair.digest}_c{pair.first}"


def product_price(pair: Pair, core: str) -> tuple[float, int]:
    """Returns the cycles of a call of STRIPS[-1] groups and the bytes of a pair's function, by counting its instructions.

    The function without units is written and priced; what each unit adds follows from its weights.
    """
    a, b, kept, shared, rules = pair.a, pair.b, pair.kept, pair.shared, RULES[core]
    bare = product_function("bare", pair, np.zeros(0, np.int64))
    words = 256 * b[kept] + a[kept] if shared else np.concatenate([a[a.any(axis=1)], b[b.any(axis=1)]])
    constants = len(words) + int(np.count_nonzero(words[:, 1] & 0xFFFF))  # MOVW, and MOVT where there is an upper half
    gaps = np.diff(kept, prepend=-1, append=len(a)) - 1
    steps = int((-(-gaps // 255)).sum()) - -(-len(a) // 255)
    products, others = 4 * len(words) * (1 + shared), constants + len(words) * shared + steps
    load, other = (3, 0.5) if core in DUAL_ISSUE else (rules.many + PIXELS, 1)
    waits = rules.load_use * np.count_nonzero(gaps[1:]) + rules.address_wait * bool(len(kept) and gaps[0])
    more = len(kept) * load + products + other * others + waits
    return function_cycles(bare, core) + STRIPS[-1] * more, code_bytes(bare) + 4 * (len(kept) + products + others)


def product_function(name: str, pair: Pair, kept: Array | None = None) -> Function:
    """Returns the code of one pair of channels for any number of groups of four pixels, by all units or those that are `kept`.

    out: the first channel of the first pixel; columns: words of the groups, one behind the other; quads: groups, at least one.
    """
    kept = pair.kept if kept is None else kept
    about = (
        f"Channels {pair.first}{f' and {pair.first + 1}' if pair.both else ''} of {name} x {PIXELS} pixels: "
        f"{len(kept)}/{len(pair.a)} units, {'byte pairs' if pair.shared else 'constants of each channel'}."
    )
    p = Function(product_name(name, pair), ("int8_t *out", "const int32_t *columns", "int32_t quads"), about)
    p.keep("*out", "quads")
    p.new("x0", "x1", "x2", "x3", "w", *(f"{channel}{i}" for channel in ("a", "b") for i in range(PIXELS)))
    with p.loop("quads_kept", STRIPS[-1], through="x0"):
        _units(p, pair, kept)
        _store(p, pair)
    return p


def _units(p: Function, pair: Pair, kept: Array) -> None:
    """Leaves the doubled sums of channels A and B, and `columns` at the next four pixels."""
    a, b, (start_a, start_b), shared = pair.a, pair.b, pair.bias, pair.shared
    for channel, start in (("a", start_a), ("b", start_b * 256 + start_a if shared else start_b)):
        p.constant(f"{channel}0", start & 0xFFFFFFFF)
        for i in range(1, PIXELS):
            p.mov(f"{channel}{i}", f"{channel}0")
    places = [*kept.tolist(), len(a)]
    _step_over(p, places[0])
    for unit, following in pairwise(places):
        p.ldm("columns", "x0", "x1", "x2", "x3")
        _step_over(p, following - unit - 1)
        if shared:
            _multiply(p, "b", 256 * b[unit] + a[unit])
            p.sxtb16("w", "w")
            _multiply(p, "a", None)
            continue
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


def _store(p: Function, pair: Pair) -> None:
    p.free("x3")
    with p.fetched("to", "out_kept"):
        for channel, (multiplier, right) in enumerate(pair.factors):
            p.constant("w", multiplier)
            for i in range(PIXELS):
                total = f"{'ab'[channel]}{i}"
                requantize.requantize(p, total, "w", right, *pair.output)
                p.strb(total, "to", i * pair.channels + channel)
        p.constant("w", PIXELS * pair.channels)
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


def _form(graph: Graph, op: Conv, core: str, pairs: list[Pair], prices: list[tuple[float, int]], strip: int) -> Form:
    out_h, out_w, _ = graph.tensors[op.output].shape
    fours = len(pairs[0].a) // 2
    interleave = interleave_function(fours)
    quads, operands = -(-out_h * out_w // PIXELS), op.kernel[0] * op.kernel[1] * graph.tensors[op.inputs[0]].shape[2]
    gathered = C_PIXEL_CYCLES + op.kernel[0] * C_ROW_CYCLES + C_BYTE_CYCLES * operands
    cycles = quads * (function_cycles(interleave, core) + PIXELS * gathered)
    cycles += quads * sum(each / STRIPS[-1] for each, _ in prices)
    cycles += -(-quads // strip) * len(pairs) * C_CALL_CYCLES
    code = sum(bytes_ for _, bytes_ in prices)
    scratch = 4 * PIXELS * fours * (2 * strip + 1)
    fields = window_fields(graph, op) | {
        "input_zero_point": requantization(graph, op).input_zero_point, "fours": fours, "strip": strip, "pairs": len(pairs),
        "interleave": interleave.name, "products": "products",
    }  # fmt: skip
    table = ", ".join(product_name(op.name, pair) for pair in pairs)
    call = kernel_call("unpacked", fields, [f"static const tr_unpacked_product products[] = {{{table}}};"])
    later = Later(lambda: tuple(product_function(op.name, pair) for pair in pairs), code)
    proof = f"|sum of a channel| < 2^23 = {PAIR_LIMIT}"
    streamed = round(PREFETCHED * -(-quads // strip) * code)
    return Form(f"unpacked_{strip}", round(cycles), scratch, (interleave,), call, {}, proof, streamed, later)
