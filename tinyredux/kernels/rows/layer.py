"""Packed-product row convolution of one layer: its sizes, its arrays, and the proof that no field overflows.

One SMLAL does up to four products (see `rows_plan`). A strip of input rows is packed into scratch once; then for each output
channel the weights are unpacked into scratch and every row of the strip is computed, block by block (see `rows_functions`).
Padding is never stored nor multiplied: input pixels have their zero point taken off, so what lies outside the map is 0, and rows
and columns of products outside the map are left out.

An accumulator begins as 2^20 + 2^41: every field then is a positive number with an offset of 2^20, and comes out by a bit-field
instruction. It is drained into 32-bit sums before a field can leave 0 .. 2^21 - 1; how many steps that takes is found from the
actual weights (`_with_chunk`), for every possible input.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from tinyredux.graph import Array
from tinyredux.int8 import Requantization
from tinyredux.kernels.asm import requantize
from tinyredux.kernels.asm.function import LARGEST_IMMEDIATE
from tinyredux.kernels.asm.layers import halves, words
from tinyredux.kernels.rows.plan import CODE_BYTES, Geometry, RowPlan, plan_rows

FIELD = 21
OFFSET = 1 << (FIELD - 1)
LARGEST_UNROLL, TRIED = 16, 4
LOOP_CYCLES, DRAIN_CYCLES = 5.0, 50.0  # of a block: an iteration's end, and a drain of three accumulators


@dataclass(frozen=True)
class Rows:
    """A layer's kernel before it is printed. A step is one kernel row and channel; `unroll` steps make an iteration.

    `channels`: input channels with those added to fill iterations; `chunk`: iterations between two drains; `most`: the largest
    magnitude that a field can have in one.
    """

    geometry: Geometry
    plan: RowPlan
    channels: int
    unroll: int
    chunk: int
    most: int
    factors: Requantization

    @property
    def name(self) -> str:
        """The end of its functions' names: sizes for the reader, and a digest of all that the code depends on."""
        g, f = self.geometry, self.factors
        code = (g, self.plan, self.channels, self.unroll, self.chunk, f.input_zero_point, f.output_zero_point, f.clamp)
        digest = hashlib.sha256(repr(code).encode()).hexdigest()[:8]
        return f"{g.kernel[0]}x{g.kernel[1]}_{g.in_c}_{g.out_c}_{digest}"

    @property
    def steps(self) -> int:
        """Steps of a row with all its kernel rows inside the map."""
        return self.geometry.kernel[0] * self.channels

    @property
    def groups(self) -> int:
        """Groups of four steps in which weights are stored and unpacked."""
        return -(-self.steps // 4)

    @property
    def pitch(self) -> int:
        """Bytes from one channel to the next in a packed row."""
        return 4 * len(self.plan.columns)

    @property
    def step_bytes(self) -> int:
        """Bytes of a step's unpacked weights."""
        return 4 * len(self.plan.pairs)

    @property
    def weight_bytes(self) -> int:
        """Bytes of one channel's unpacked weights."""
        return 4 * self.groups * self.step_bytes

    @property
    def iterations(self) -> float:
        """Iterations of a row, the mean over the output rows."""
        return sum(self.geometry.seen) / self.geometry.out_h * self.channels / self.unroll

    @property
    def chunks(self) -> float:
        """Drains of a row, the mean over the output rows."""
        return sum(-(-(rows * self.channels // self.unroll) // self.chunk) for rows in self.geometry.seen) / self.geometry.out_h

    def strip(self, y: int, rows: int) -> range:
        """Returns the input rows that output rows y .. y + rows - 1 see together."""
        last = min(y + rows, self.geometry.out_h) - 1
        return range(self.geometry.input_rows(y).start, self.geometry.input_rows(last).stop)

    def strips(self, height: int) -> list[tuple[int, range, int]]:
        """Returns for each strip of `height` output rows its first row, the input rows that it sees, and where its part of the
        `row_table` begins."""
        return [(y, self.strip(y, height), y // height + 4 * y) for y in range(0, self.geometry.out_h, height)]

    def scratch_bytes(self, height: int) -> int:
        """Returns the scratch for strips of `height` output rows: one channel's weights and the packed input rows."""
        most = max(len(seen) for _, seen, _ in self.strips(height))
        return self.weight_bytes + most * self.channels * self.pitch


def rows_of(g: Geometry, weights: Array, bias: Array, factors: Requantization) -> Rows | None:
    """Returns the cheapest kernel for weights (out_c, kernel_h, kernel_w, in_c) of all groups, or None where there is none.

    There is none where an output row sees only padding, a channel needs another requantisation, a weight is -128, or a distance
    does not fit into the instructions.
    """
    largest = np.abs(bias.astype(np.int64)) + 255 * np.abs(weights.astype(np.int64)).sum(axis=(1, 2, 3))
    if not requantize.applies(factors) or int(largest.max()) >= requantize.SUM_LIMIT or not requantize.symmetric(weights):
        return None
    plan = plan_rows(g)
    if plan is None or 0 in g.seen or max(g.in_pixel * g.stride[1], g.out_pixel, 16 * len(plan.columns)) > LARGEST_IMMEDIATE:
        return None
    sizes = [(c, unroll) for c in range(g.in_c, g.in_c + 4) for unroll in range(1, LARGEST_UNROLL + 1) if c % unroll == 0]
    fitting = filter(_fits, (Rows(g, plan, channels, unroll, 0, 0, factors) for channels, unroll in sizes))
    proven = [_with_chunk(rows, weights) for rows in sorted(fitting, key=_row_cycles)[:TRIED]]
    return min((rows for rows in proven if rows.chunk), key=_row_cycles, default=None)


def _fits(rows: Rows) -> bool:
    """Whether an iteration stays in the instruction cache and in reach of offsets."""
    code = 4 * rows.unroll * max(2 * len(block.products) + 4 for block in rows.plan.blocks)
    return code <= CODE_BYTES and rows.unroll * max(rows.pitch, rows.step_bytes) < 4096


def _row_cycles(rows: Rows) -> float:
    """Estimated cycles of a row: steps, loops, drains."""
    loops = len(rows.plan.blocks) * (LOOP_CYCLES + (DRAIN_CYCLES / rows.chunk if rows.chunk else 0)) / rows.unroll
    return rows.channels * (rows.plan.step_cycles + loops)


def _with_chunk(rows: Rows, weights: Array) -> Rows:
    """Returns the kernel with the most iterations between two drains that keep every field inside its 21 bits for every input.

    With inputs in low .. high (zero point taken off) the middle field, the sum of x0 * w0 + x1 * w1, is at most
    high * P - low * N and at least low * P - high * N; P and N are the sums of the positive and of the negative weights'
    magnitudes in the chunk. The other two fields have part of its terms. A chunk may begin at any iteration. Its length is 0
    where one iteration is too much.
    """
    low, high = -128 - rows.factors.input_zero_point, 127 - rows.factors.input_zero_point
    values = steps_of(weights, rows).astype(np.int64)  # (out_c, steps, kernel_w)
    positive, negative = (np.maximum(sign * values, 0).sum(axis=2) for sign in (1, -1))
    parts = high * positive - low * negative, high * negative - low * positive
    sums = [np.pad(part.cumsum(axis=1), ((0, 0), (1, 0)))[:, :: rows.unroll] for part in parts]
    best, most, beyond = 0, 0, rows.steps // rows.unroll + 1
    while beyond - best > 1:  # longer chunks only have larger sums
        n = (best + beyond) // 2
        up, down = (int((part[:, n:] - part[:, :-n]).max()) for part in sums)
        if up < OFFSET and down <= OFFSET:
            best, most = n, max(up, down)
        else:
            beyond = n
    return replace(rows, chunk=best, most=most)


def steps_of(weights: Array, rows: Rows) -> Array:
    """Returns weights as (out_c, steps, kernel_w): kernel rows, then channels, those added to fill iterations 0."""
    added = np.pad(weights, ((0, 0), (0, 0), (0, 0), (0, rows.channels - rows.geometry.in_c)))
    return added.transpose(0, 1, 3, 2).reshape(len(weights), rows.steps, rows.geometry.kernel[1])


def weight_array(weights: Array, bias: Array, rows: Rows) -> Array:
    """Returns int32 (out_c, words): doubled bias, multiplier, right shift, then four steps at a time the weights as bytes.

    Of four steps, a pair of taps takes two words, each with w1 + 256 * w0 of two steps; a lone tap takes one with four bytes.
    """
    steps = steps_of(weights, rows).astype(np.int32)
    steps = np.pad(steps, ((0, 0), (0, 4 * rows.groups - rows.steps), (0, 1))).reshape(len(weights), rows.groups, 4, -1)
    found = []
    for pair in rows.plan.pairs:
        w0, w1 = (steps[..., -1 if tap is None else tap] for tap in pair.taps)
        if None in pair.taps:
            lone = (w0 + w1) & 0xFF
            found.append(sum(lone[..., i] << 8 * i for i in range(4)))
        else:
            both = w1 + 256 * w0
            found += [halves(both[..., :2]), halves(both[..., 2:])]
    packed = words(np.stack(found, axis=-1)).reshape(len(weights), -1)
    return np.column_stack([words(2 * bias), requantize.constants(rows.factors), packed])


def row_table(rows: Rows, height: int) -> Array:
    """Returns int32: for each strip the number of its rows; then for each row the byte offset of its packed input in the strip
    and of its first weights, its iterations, and what the offsets of its fields add up to in the doubled sum."""
    g, table = rows.geometry, list[int]()
    for start, strip, _ in rows.strips(height):
        stop = min(start + height, g.out_h)
        table.append(stop - start)
        for y in range(start, stop):
            seen = g.input_rows(y)
            below, skipped = seen.start - strip.start, seen.start - (y * g.stride[0] - g.pad_top)
            iterations = len(seen) * rows.channels // rows.unroll
            table += [below * rows.channels * rows.pitch, skipped * rows.channels * rows.step_bytes, iterations]
            table.append(-(-iterations // rows.chunk) * 2 * OFFSET)
    return np.array(table, np.int32)
