"""The function that computes a strip of a packed-product row convolution, output channel by output channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tinyredux.kernels.asm.function import LARGEST_IMMEDIATE, Function
from tinyredux.kernels.asm.requantize import requantize
from tinyredux.kernels.rows.layer import FIELD, OFFSET, Rows
from tinyredux.kernels.rows.plan import REGISTERS, RowBlock, order_loads

UNPACK = 8192 | (-8191 & 0xFFFF) << 16  # SMUAD of (w1 + 256 * w0, w1) with it is w1 + w0 * 2^21
LEFT, HIGH = FIELD - 11, 32 - FIELD  # the middle field: 11 bits of the low word, 10 of the high one


def convolve_function(rows: Rows, name: str, strip_rows: float) -> Function:
    """Returns the function that computes all output channels of a group for the rows of a strip, usually `strip_rows`."""
    g = rows.geometry
    about = (
        f"{g.kernel[0]}x{g.kernel[1]} convolution of {g.in_c} channels to {g.out_c}, rows of {g.out_w}, packed products.\n"
        f"Scratch: {rows.weight_bytes} bytes of unpacked weights, then the packed rows. Weights: per channel 3 words, then\n"
        f"{rows.groups} times four steps. Fields are drained every {rows.chunk * rows.unroll} of {rows.steps} steps, before\n"
        "they can leave 21 bits."
    )
    p = Function(name, ("int8_t *out", "int32_t *scratch", "const int32_t *weights", "const int32_t *table"), about)
    p.new_float("*channel_out", "*packed", "*stored", "*strip", "*row_out", "*row_in", "*row_weights", "*next_row")
    p.new_float("channels", "bias", "multiplier", "right", "row_count", "row_bias", "iterations", "beyond")
    p.vmovs(channel_out="out", packed="scratch", stored="weights", strip="table")
    p.free("out", "scratch", "weights", "table")
    with p.registers("count"):
        p.constant("count", g.out_c)
        p.vmov("channels", "count")
    with p.loop("channels", g.out_c):
        _unpack_weights(p, rows)
        _start_rows(p)
        with p.loop("row_count", strip_rows):
            _next_row(p, rows)
            for block in rows.plan.blocks:
                _block(p, rows, block)
            _advance(p, "row_out", g.out_row, "next")
        _advance(p, "channel_out", 1, "next")
    return p


def _advance(p: Function, kept: str, distance: int, through: str, start: str = "") -> None:
    """Moves an address that a floating-point register keeps, or what `start` keeps into it, through a core register."""
    with p.registers(f"*{through}"):
        p.vmov(through, start or kept)
        p.move(through, through, distance)
        p.vmov(kept, through)


def _unpack_weights(p: Function, rows: Rows) -> None:
    """The next channel's factors into their registers, its weights into scratch."""
    with p.registers("*from", "*to", "unpack", "groups"):
        p.vmovs(**{"from": "stored", "to": "packed"})
        with p.registers("x"):
            for name in ("bias", "multiplier", "right"):
                p.ldr_post("x", "from", 4)
                p.vmov(name, "x")
        p.constant("unpack", UNPACK)
        p.constant("groups", rows.groups)
        with p.loop("groups", rows.groups):
            for i, pair in enumerate(rows.plan.pairs):
                to = [rows.step_bytes * step + 4 * i for step in range(4)]
                if None in pair.taps:
                    _unpack_lone(p, to, 0 if pair.taps[0] is None else FIELD)
                else:
                    _unpack_pairs(p, to)
            p.add("to", "to", 4 * rows.step_bytes)
        p.vmov("stored", "from")


def _unpack_lone(p: Function, to: list[int], shift: int) -> None:
    with p.registers("word", "tap"):
        p.ldr_post("word", "from", 4)
        for k, offset in enumerate(to):
            getattr(p, f"sxtb_ror{8 * k}" if k else "sxtb")("tap", "word")
            if shift:
                p.lsl("tap", "tap", shift)
            p.str("tap", "to", offset)


def _unpack_pairs(p: Function, to: list[int]) -> None:
    with p.registers("word", "other", "low", "a", "b"):
        p.load("from", 0, "word", "other")
        p.add("from", "from", 8)
        for word, first, second in (("word", *to[:2]), ("other", *to[2:])):
            p.sxtb16("low", word)
            p.pkhbt("a", word, "low", "lsl 16")
            p.pkhtb("b", "low", word, "asr 16")
            p.smuad("a", "a", "unpack")
            p.smuad("b", "b", "unpack")
            p.str("a", "to", first)
            p.str("b", "to", second)


def _start_rows(p: Function) -> None:
    with p.registers("*place", "count"):
        p.vmovs(place="channel_out", row_out="place")
        p.vmov("place", "strip")
        p.ldr_post("count", "place", 4)
        p.vmovs(row_count="count", next_row="place")


def _next_row(p: Function, rows: Rows) -> None:
    """Reads a row of the table: where its input and its weights begin, how many iterations, what its bias is."""
    columns = ("below", "skipped", "iterations_", "offset")
    with p.registers("*place", "*at", *columns, "sum_"):
        p.vmov("place", "next_row")
        p.load("place", 0, *columns)
        p.add("place", "place", 16)
        p.vmovs(next_row="place", at="packed")
        p.add("place", "at", "skipped")
        p.vmov("row_weights", "place")
        p.move("at", "at", rows.weight_bytes)
        p.add("at", "at", "below")
        p.vmovs(row_in="at", iterations="iterations_", sum_="bias")
        p.sub("sum_", "sum_", "offset")
        p.vmov("row_bias", "sum_")


def _block(p: Function, rows: Rows, block: RowBlock) -> None:
    """All of a block: its accumulators over all steps, and its outputs; `count` times from left to right."""
    pixel = rows.geometry.out_pixel
    p.new_float("*block_in", "*block_out")
    _advance(p, "block_in", 4 * block.column, "place", "row_in")
    _advance(p, "block_out", max(2 * block.first - 1, 0) * pixel, "place", "row_out")
    if block.count == 1:
        _block_once(p, rows, block)
    else:
        p.new_float("blocks")
        with p.registers("count"):
            p.mov("count", block.count)
            p.vmov("blocks", "count")
        with p.loop("blocks", block.count):
            _block_once(p, rows, block)
            _advance(p, "block_in", 4 * block.n, "place")
            _advance(p, "block_out", 2 * block.n * pixel, "place")
        p.free("blocks")
    p.free("block_in", "block_out")


def _block_once(p: Function, rows: Rows, block: RowBlock) -> None:
    accumulators = [f"{part}{k}" for k in range(block.n) for part in ("lo", "hi")]
    if rows.chunk * rows.unroll >= rows.steps:  # no row is drained more than once
        with p.registers(*accumulators):
            with p.registers("*in_", "*weights_", "iteration"):
                p.vmovs(in_="block_in", weights_="row_weights", iteration="iterations")
                _accumulate(p, rows, block)
            _finish(p, rows, block)
        return
    outs = _outputs(rows, block)
    kept = (*(f"sum{i}" for i in outs), "left_iterations")
    p.new_float(*kept)
    _start_sums(p, outs)
    with p.registers("*in_", "*weights_"):
        p.vmovs(in_="block_in", weights_="row_weights")
        with p.registers("iteration"):
            p.vmovs(iteration="iterations", left_iterations="iteration")
        with p.loop_until("left_iterations", 0, rows.chunks), p.registers("iteration"):
            with p.fetched("left", "left_iterations"):
                p.constant("iteration", rows.chunk)
                p.at_most("iteration", "left")
                p.sub("left", "left", "iteration")
            with p.registers(*accumulators):
                _accumulate(p, rows, block)
                _drain(p, rows, block)
    _finish_sums(p, rows, outs)
    p.free(*kept)


def _outputs(rows: Rows, block: RowBlock) -> list[int]:
    """Returns each i for which output 2 * first - 1 + i exists: 2 k is the low field of accumulator k, 2 k + 1 its middle one."""
    return [i for i in range(2 * block.n) if 0 <= 2 * block.first - 1 + i < rows.geometry.out_w]


def _accumulate(p: Function, rows: Rows, block: RowBlock) -> None:
    """The inner loop: `iteration` times `unroll` steps of all accumulators."""
    for k in range(block.n):
        p.mov(f"lo{k}", OFFSET)
        p.mov(f"hi{k}", 1 << (2 * FIELD - 1 - 32))
    steps = next(n for n in (2, 3, 1) if rows.unroll % n == 0)
    names = [f"t{i}" for i in range(REGISTERS - 3 - 2 * block.n)]
    with p.registers(*names):
        with p.loop("iteration", rows.iterations / rows.chunks):
            for start in range(0, rows.unroll, steps):
                _steps(p, rows, block, start, steps, names)
            p.move("in_", "in_", rows.unroll * rows.pitch)
            p.move("weights_", "weights_", rows.unroll * rows.step_bytes)


def _steps(p: Function, rows: Rows, block: RowBlock, start: int, steps: int, names: list[str]) -> None:
    """Some steps of an iteration, from step `start` on, in the order that `order_loads` found."""
    batches = order_loads(block.products, steps, len(names))
    last = {operand: i for i, (_, macs) in enumerate(batches) for _, w, x in macs for operand in (w, x)}
    held: dict[tuple[int, str, int], str] = {}
    for i, (loads, macs) in enumerate(batches):
        spare = [name for name in names if name not in held.values()]
        for name, (step, kind, index) in zip(spare, loads, strict=False):
            held[step, kind, index] = name
            stride = rows.step_bytes if kind == "w" else rows.pitch
            p.ldr(name, "weights_" if kind == "w" else "in_", (start + step) * stride + 4 * index)
        for a, w, x in macs:
            p.smlal(f"lo{a}", f"hi{a}", held[x], held[w])
        held = {operand: name for operand, name in held.items() if last[operand] > i}


def _fields(p: Function, rows: Rows, block: RowBlock, before: Callable[[int], None]) -> Iterator[tuple[int, str]]:
    """Yields each output of a block and the register of its field; `before(output)` comes behind the first instruction of each.

    The low field of an accumulator and the high one of the accumulator before it are one output's.
    """
    for i in _outputs(rows, block):
        low, high = f"lo{i // 2}", f"hi{i // 2}"
        if i % 2:
            p.lsr(low, low, FIELD)
            before(i)
            p.bfi(low, high, HIGH, LEFT)
            yield i, low
        else:
            p.ubfx("u", low, 0, FIELD)
            before(i)
            if i:
                p.add("u", "u", f"hi{i // 2 - 1}", "asr 10")
            yield i, "u"


def _finish(p: Function, rows: Rows, block: RowBlock) -> None:
    """From the only chunk's accumulators to outputs. `beyond` takes the last high field to the next block."""
    with p.registers("*to", "multiplier_", "right_", "bias_", "u"):
        p.vmovs(to="block_out", multiplier_="multiplier", right_="right", bias_="row_bias")
        if 0 in _outputs(rows, block):
            p.vmov("u", "beyond")
            p.add("bias_", "bias_", "u", "lsl 1")
        for i, field in _fields(p, rows, block, lambda i: None):
            p.add("u", "bias_", field, "lsl 1")
            if i == 0:
                p.vmov("bias_", "row_bias")
            _put(p, rows, i - (block.first == 0), "u")
        p.asr("u", f"hi{block.n - 1}", 10)
        p.vmov("beyond", "u")


def _put(p: Function, rows: Rows, place: int, value: str) -> None:
    """Requantises a doubled sum and writes it `place` pixels behind `to`, which moves along where offsets have no room."""
    requantize(p, value, "multiplier_", "right_", rows.factors.output_zero_point, rows.factors.clamp)
    pixel = rows.geometry.out_pixel
    if 7 * pixel > LARGEST_IMMEDIATE:
        p.strb(value, "to", 0)
        p.add("to", "to", pixel)
    else:
        p.strb(value, "to", place * pixel)


def _start_sums(p: Function, outs: list[int]) -> None:
    """Doubled sums begin as the bias; that of the output on the left also with what the block before has of it."""
    with p.registers("bias_", "u"):
        p.vmovs(bias_="row_bias", **{f"sum{i}": "bias_" for i in outs if i})
        if 0 in outs:
            p.vmov("u", "beyond")
            p.add("bias_", "bias_", "u", "lsl 1")
            p.vmov("sum0", "bias_")
        p.mov("u", 0)
        p.vmov("beyond", "u")


def _drain(p: Function, rows: Rows, block: RowBlock) -> None:
    """Adds the fields of a chunk's accumulators to the sums."""
    with p.registers("u", "sum_"):
        for i, field in _fields(p, rows, block, lambda i: p.vmov("sum_", f"sum{i}")):
            p.add("sum_", "sum_", field, "lsl 1")
            p.vmov(f"sum{i}", "sum_")
        if block.count > 1 or 2 * (block.first + block.n) - 1 < rows.geometry.out_w:
            p.vmov("sum_", "beyond")
            p.add("sum_", "sum_", f"hi{block.n - 1}", "asr 10")
            p.vmov("beyond", "sum_")


def _finish_sums(p: Function, rows: Rows, outs: list[int]) -> None:
    """From the sums of all chunks to outputs."""
    with p.registers("*to", "multiplier_", "right_", "u"):
        p.vmovs(to="block_out", multiplier_="multiplier", right_="right")
        for i in outs:
            p.vmov("u", f"sum{i}")
            _put(p, rows, i - outs[0], "u")
