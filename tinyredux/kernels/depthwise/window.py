"""Depthwise convolution whose one window is its whole map, as a push of a stream has them: four channels at a time.

A word is four channels of a place. The words of two places are sorted into four pairs of one channel each, and SMLAD multiplies
a pair by its two taps. Weights and bias are doubled, as `requantize` wants its sums, and the bias takes the input's zero point
along. A table holds, for each four channels, the biases, the taps in the order in which they are read, and the factors.

Source: ours.
"""

from __future__ import annotations

import numpy as np

from tinyredux.graph import Array, DepthwiseConv, Graph, Op
from tinyredux.int8 import Requantization
from tinyredux.kernels.asm.forms import Form, Places
from tinyredux.kernels.asm.function import LARGEST_IMMEDIATE, Function
from tinyredux.kernels.asm.layers import Sums, halves, sums_of, words
from tinyredux.kernels.asm.requantize import SUM_LIMIT, applies, constants, requantize
from tinyredux.kernels.asm.schedule import cycles_of

LANES = 4  # channels in a word
READ = (0, 2, 1, 3)  # in this order a word's channels are sorted out
MOST_PLACES = 16  # of a window, which is written out


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns the form of a depthwise convolution of one window and no padding."""
    if not isinstance(op, DepthwiseConv) or op.multiplier > 1 or any(op.padding):
        return []
    height, width, channels = graph.tensors[op.inputs[0]].shape
    places = height * width
    one = op.kernel == (height, width) and places <= MOST_PLACES and places * channels <= LARGEST_IMMEDIATE
    if not one or channels % LANES:
        return []
    sums = sums_of(graph, op, channels_last=True)
    if not applies(sums.factors) or sums.largest >= SUM_LIMIT:
        return []
    function = window_function(places, channels, sums.factors)

    def call(places: Places) -> str:
        return f"{function.name}({places.out}, {places.inputs[0]}, {places.arrays['table']}, {channels // LANES});"

    proof = f"largest |sum| {sums.largest}, below 2^30"
    cycles = round(cycles_of(function, core))
    return [Form("depthwise_window", cycles, 0, (function,), call, {"table": _table(sums, places)}, proof)]


def _table(sums: Sums, places: int) -> Array:
    """Returns (channels / 4, words) int32: doubled biases, pairs of doubled taps, multipliers and right shifts."""
    taps = 2 * sums.rows.reshape(-1, LANES, places)[:, READ]  # (groups, lanes, places)
    pairs = taps[..., : places // 2 * 2].reshape(len(taps), LANES, -1, 2).transpose(0, 2, 1, 3)
    parts = [2 * sums.start.reshape(-1, LANES)[:, READ], halves(pairs).reshape(len(taps), -1)]
    if places % 2:  # of a word's halves only one is this channel's
        low = np.array([channel < 2 for channel in READ])
        last = taps[..., -1]
        parts.append(halves(np.stack([np.where(low, last, 0), np.where(low, 0, last)], axis=-1)))
    return words(np.column_stack([*parts, constants(sums.factors).reshape(len(taps), -1)]))


def window_function(places: int, channels: int, factors: Requantization) -> Function:
    """Returns the function of one window of `places` places, four channels in each round."""
    zero_point, clamp = factors.output_zero_point, factors.clamp
    name = f"tr_window{places}_c{channels}_z{zero_point + 128:02x}{clamp.low + 128:02x}{clamp.high + 128:02x}"
    arguments = ("int8_t *out", "const int8_t *in", "const int32_t *table", "int32_t groups")
    p = Function(name, arguments, f"A depthwise convolution of one window of {places} places, {LANES} channels each time.")
    p.new_float("*to", "groups_left")
    p.vmov("to", "out")
    p.vmov("groups_left", "groups")
    p.free("out", "groups")
    sums = [f"sum_{channel}" for channel in READ]
    p.new(*sums)
    with p.loop("groups_left", times=channels // LANES):
        p.load("table", 0, *sums)
        for first in range(0, places, 2):
            _two_places(p, sums, first * channels, channels if first + 1 < places else 0, 8 * first + 16)
        p.add("table", "table", 16 + 16 * -(-places // 2))
        p.add("in", "in", LANES)
        with p.fetched("out", "to"), p.registers("factor", "shift"):
            for channel in range(LANES):
                p.load("table", 8 * channel, "factor", "shift")
                requantize(p, f"sum_{channel}", "factor", "shift", zero_point, clamp)
                p.strb(f"sum_{channel}", "out", channel)
            p.add("table", "table", 8 * LANES)
            p.add("out", "out", LANES)
    return p


def _two_places(p: Function, sums: list[str], at: int, pixel: int, taps: int) -> None:
    """Adds the products of a place, `at` bytes further on, and of the one `pixel` bytes behind it, where there is one."""
    with p.registers("first", "second", "even", "odd", "pair"):
        p.ldr("first", "in", at)
        if pixel:
            p.ldr("second", "in", at + pixel)
        for half, extend in enumerate((p.sxtb16, p.sxtb16_ror8)):
            low, high = sums[2 * half : 2 * half + 2]
            extend("even", "first")
            if pixel:
                extend("odd", "second")
                p.pkhbt("pair", "even", "odd", "lsl 16")
                p.pkhtb("odd", "odd", "even", "asr 16")
            values = ("pair", "odd") if pixel else ("even", "even")
            with p.registers("tap_0", "tap_1"):
                p.load("table", taps + 8 * half, "tap_0", "tap_1")
                p.smlad(low, values[0], "tap_0", low)
                p.smlad(high, values[1], "tap_1", high)
