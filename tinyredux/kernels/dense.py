"""Dense layer: eight outputs at a time, two weights in each 16-bit half.

The weights of two outputs lie as byte pairs (`asm.layers`). Inputs are taken in chunks short enough for these whatever they are,
and the sums of the chunks are kept in floating-point registers.

Eight sums and the pointers leave four registers: two for a word of inputs, widened, two for words of weights, which are loaded in
pairs. So 32 products take 40 cycles of a Cortex-M4, those of four outputs 21 for 16, and an input is loaded half as often.

A table holds the weights in the order in which they are read, once, and behind those of eight outputs (four, or the last two, of
which the second may be zeros) the doubled bias, multiplier and right shift of each.

Source: ours.
"""

from __future__ import annotations

import numpy as np

from tinyredux.graph import Array, Dense, Graph, Op
from tinyredux.int8 import Requantization
from tinyredux.kernels.asm.forms import Form, Places
from tinyredux.kernels.asm.function import Function
from tinyredux.kernels.asm.layers import PAIR_LIMIT, halves, paired, sums_of, words
from tinyredux.kernels.asm.requantize import SUM_LIMIT, constants, requantize
from tinyredux.kernels.asm.schedule import cycles_of

STEP = 4  # inputs in a word
UNIT = 16  # inputs in one round of the inner loop
GROUPS = (8, 4, 2)  # outputs together


class Layer:
    """The numbers of a layer; `units`: rounds of the inner loop between two drains of the sums."""

    def __init__(self, weights: Array, factors: Requantization) -> None:
        """Finds how often the sums are drained."""
        self.inputs, self.units = weights.shape[1], chunk_units(weights)
        self.zero_point, self.clamp = factors.output_zero_point, factors.clamp
        self.chunks = max(0, -(-(self.inputs // UNIT) // self.units) - 1)  # drains before the last time


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns the form of a dense layer."""
    if not isinstance(op, Dense):
        return []
    sums = sums_of(graph, op)
    if not sums.stay_below(SUM_LIMIT):
        return []
    weights, layer = sums.rows, Layer(sums.rows, sums.factors)
    params = np.column_stack([2 * sums.start, constants(sums.factors)])
    tables, calls, read, first = list[Array](), list[tuple[Function, int, int, int]](), 0, 0
    for rows, stored, times in groups_of(len(weights)):
        calls.append((groups_function(layer, rows, stored, times), first, read, times))
        tables += [group_table(weights, params, first + rows * i, rows) for i in range(times)]
        read, first = sum(map(len, tables)), first + rows * times

    def call(places: Places) -> str:
        table, out = places.arrays["table"], places.out
        return "\n".join(f"{p.name}({out} + {first}, {places.inputs[0]}, {table} + {at}, {n});" for p, first, at, n in calls)

    cycles = sum(cycles_of(p, core) for p, *_ in calls)
    proof = f"largest |sum| {sums.largest}, below 2^30; sums of {UNIT * layer.units} inputs below 2^23"
    arrays = {"table": words(np.concatenate(tables))}
    return [Form("dense_pairs", round(cycles), 0, tuple(p for p, *_ in calls), call, arrays, proof)]


def groups_of(outputs: int) -> list[tuple[int, int, int]]:
    """Returns the groups of a layer of so many outputs: the rows of a group, how many of them exist, how often."""
    found = list[tuple[int, int, int]]()
    for rows in GROUPS:
        times, outputs = divmod(outputs, rows)
        found += [(rows, rows, times)] if times else []
    return found + ([(2, 1, 1)] if outputs else [])


def chunk_units(weights: Array) -> int:
    """Returns how many rounds keep every |S_B| below 2^23, as equal chunks as can be; inputs beyond the last go with it."""
    units = weights.shape[1] // UNIT
    for chunks in range(1, units + 1):
        size: int = -(-units // chunks)
        starts = np.arange(0, units, size) * UNIT
        if 128 * int(np.add.reduceat(np.abs(weights), starts, axis=1).max()) < PAIR_LIMIT:
            return size
    return 1


def group_table(weights: Array, params: Array, first: int, rows: int) -> Array:
    """Returns the words of `rows` outputs from `first` on: weights, then bias, multiplier and right shift of each output."""
    own = weights[first : first + rows]
    padded = np.pad(own, ((0, rows - len(own)), (0, -own.shape[1] % STEP)))
    pairs = halves(paired(padded[::2] + 256 * padded[1::2]))  # (pairs of outputs, words): of each step two words
    steps = pairs.reshape(rows // 2, -1, 2).transpose(1, 0, 2)
    return np.concatenate([steps.reshape(-1), params[first : first + rows].reshape(-1)])


def groups_function(layer: Layer, rows: int, stored: int, groups: int) -> Function:
    """Returns the function of some groups of `rows` outputs, of which the first `stored` exist."""
    name = f"tr_dense{rows}_n{layer.inputs}_u{layer.units}_o{stored}"
    name += f"_z{layer.zero_point + 128:02x}{layer.clamp.low + 128:02x}{layer.clamp.high + 128:02x}"
    arguments = ("int8_t *out", "const int8_t *in", "const int32_t *table", "int32_t groups")
    p = Function(name, arguments, f"{stored} outputs of a dense layer of {layer.inputs} inputs, `groups` times.")
    p.new_float("*to", "groups_left")
    p.vmov("to", "out")
    p.vmov("groups_left", "groups")
    p.free("out", "groups")
    sums = [f"{kind}_{pair}" for pair in range(rows // 2) for kind in ("raw", "low")]
    p.new(*sums)
    if layer.chunks:
        p.new_float("chunks", *(f"kept_{name}" for name in sums))
    with p.loop("groups_left", times=groups):
        if layer.chunks:
            _drained_chunks(p, layer, sums)
        _chunk(p, sums, layer.inputs // UNIT - layer.chunks * layer.units)
        for at in range(layer.inputs // UNIT * UNIT, layer.inputs, STEP):
            _step(p, sums, min(STEP, layer.inputs - at), 0)
            p.add("table", "table", 4 * len(sums))
        _finish(p, layer, sums, stored)
        p.move("in", "in", layer.inputs % STEP - layer.inputs, "distance")
    return p


def _drained_chunks(p: Function, layer: Layer, sums: list[str]) -> None:
    """All chunks but the last; keeps S_A as kept_low and 2 * S_B as kept_raw."""
    with p.registers("x"):
        p.mov("x", 0)
        for name in sums:
            p.vmov(f"kept_{name}", "x")
        p.movw("x", layer.chunks)
        p.vmov("chunks", "x")
    with p.loop("chunks", times=layer.chunks):
        _chunk(p, sums, layer.units)
        with p.registers("x"):
            for raw, low in zip(sums[::2], sums[1::2], strict=True):
                p.sub(raw, raw, low)
                for name, shift in ((low, ()), (raw, ("asr 7",))):
                    p.vmov("x", f"kept_{name}")
                    p.add("x", "x", name, *shift)
                    p.vmov(f"kept_{name}", "x")


def _chunk(p: Function, sums: list[str], units: int) -> None:
    """Sums of `units` rounds of the inner loop, from 0."""
    for name in sums:
        p.mov(name, 0)
    if not units:
        return
    p.new_float("*end")
    with p.registers("*stop"):
        p.move("stop", "in", UNIT * units)
        p.vmov("end", "stop")
    with p.loop_until("end", "in", times=units):
        for i in range(UNIT // STEP):
            _step(p, sums, STEP, i)
        p.add("table", "table", 4 * len(sums) * UNIT // STEP)
    p.free("end")


def _step(p: Function, sums: list[str], inputs: int, at: int) -> None:
    """The next four inputs, or the last ones: their word times a word of weights for each sum, `at` steps further on."""
    with p.registers("even", "odd"):
        if inputs == STEP:
            p.ldr_post("odd", "in", STEP)
        else:
            p.ldrb("odd", "in", 0)
            for i in range(1, inputs):
                p.ldrb("even", "in", i)
                p.orr("odd", "odd", "even", f"lsl {8 * i}")
        p.sxtb16("even", "odd")
        p.sxtb16_ror8("odd", "odd")
        together = min(p.free_count() // 2 * 2, len(sums))
        words = [f"word_{i}" for i in range(together)]
        with p.registers(*words):
            for first in range(0, len(sums), together):
                some = words[: len(sums) - first]
                p.load("table", 4 * (len(sums) * at + first), *some)
                for i, word in enumerate(some, first):
                    values, raw, low = "odd" if i % 2 else "even", sums[i // 2 * 2], sums[i // 2 * 2 + 1]
                    p.smlad(raw, word, values, raw)
                    p.sxtb16(word, word)
                    p.smlad(low, word, values, low)


def _finish(p: Function, layer: Layer, sums: list[str], stored: int) -> None:
    """Turns the sums into outputs."""
    with p.fetched("out", "to"), p.registers("bias", "multiplier", "right"):
        for raw, low in zip(sums[::2], sums[1::2], strict=True):
            p.sub(raw, raw, low)
            p.asr(raw, raw, 7)
            for name in (low, raw) if layer.chunks else ():
                p.vmov("bias", f"kept_{name}")
                p.add(name, name, "bias")
        outputs = [name for pair in zip(sums[1::2], sums[::2], strict=True) for name in pair]
        for i, name in enumerate(outputs[:stored]):
            p.load("table", 12 * i, "bias", "multiplier", "right")
            if i % 2:
                p.add(name, name, "bias")
            else:
                p.add(name, "bias", name, "lsl 1")
            requantize(p, name, "multiplier", "right", layer.zero_point, layer.clamp)
            p.strb(name, "out", i)
        p.add("table", "table", 12 * stored)
        p.add("out", "out", stored)
