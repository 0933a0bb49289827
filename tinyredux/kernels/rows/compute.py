"""The Program that computes a strip of a packed-product row convolution, output channel by output channel."""

from __future__ import annotations

from tinyredux.kernels.asm.program import Program
from tinyredux.kernels.asm.requantize import requantize
from tinyredux.kernels.rows.layer import FIELD, OFFSET, Rows
from tinyredux.kernels.rows.pack import add
from tinyredux.kernels.rows.plan import REGISTERS, RowBlock, order_loads

UNPACK = 8192 | (-8191 & 0xFFFF) << 16  # SMUAD of (w1 + 256 * w0, w1) with it is w1 + w0 * 2^21
LEFT, HIGH = FIELD - 11, 32 - FIELD  # the middle field: 11 bits of the low word, 10 of the high one


def convolve_program(rows: Rows, name: str, strip_rows: float) -> Program:
    """Returns the Program that computes all output channels of a group for the rows of a strip, usually `strip_rows`."""
    g = rows.geometry
    about = (
        f"{g.kernel[0]}x{g.kernel[1]} convolution of {g.in_c} channels to {g.out_c}, rows of {g.out_w}, packed products.\n"
        f"Scratch: {rows.weight_bytes} bytes of unpacked weights, then the packed rows. Weights: per channel 3 words, then\n"
        f"{rows.groups} times four steps. Fields are drained every {rows.chunk * rows.unroll} of {rows.steps} steps, before\n"
        "they can leave 21 bits."
    )
    p = Program(name, ("int8_t *out", "int32_t *scratch", "const int32_t *weights", "const int32_t *table"), about)
    p.new_float("channel_out", "packed", "stored", "strip", "row_out", "row_in", "row_weights", "next_row", pointer=True)
    p.new_float("channels", "bias", "multiplier", "right", "row_count", "row_bias", "iterations", "beyond")
    for kept, argument in zip(("channel_out", "packed", "stored", "strip"), ("out", "scratch", "weights", "table"), strict=True):
        p.vmov(kept, argument)
    p.free("out", "scratch", "weights", "table")
    p.new("count")
    p.constant("count", g.out_c)
    p.vmov("channels", "count")
    p.free("count")
    with p.loop("channels", g.out_c):
        _unpack_weights(p, rows)
        _start_rows(p)
        with p.loop("row_count", strip_rows):
            _next_row(p, rows)
            for block in rows.plan.blocks:
                _block(p, rows, block)
            p.new_pointer("next")
            p.vmov("next", "row_out")
            add(p, "next", "next", g.out_row)
            p.vmov("row_out", "next")
            p.free("next")
        p.new_pointer("next")
        p.vmov("next", "channel_out")
        p.add("next", "next", 1)
        p.vmov("channel_out", "next")
        p.free("next")
    return p


def _unpack_weights(p: Program, rows: Rows) -> None:
    """The next channel's factors into their registers, its weights into scratch."""
    p.new_pointer("from", "to")
    p.new("unpack", "groups")
    p.vmov("from", "stored")
    p.vmov("to", "packed")
    p.new("x")
    for name in ("bias", "multiplier", "right"):
        p.ldr_post("x", "from", 4)
        p.vmov(name, "x")
    p.free("x")
    p.constant("unpack", UNPACK)
    p.constant("groups", rows.groups)
    pairs = rows.plan.pairs
    with p.loop("groups", rows.groups):
        for i, pair in enumerate(pairs):
            to = [rows.step_bytes * step + 4 * i for step in range(4)]
            if None in pair.taps:
                _unpack_lone(p, to, 0 if pair.taps[0] is None else FIELD)
            else:
                _unpack_pairs(p, to)
        p.add("to", "to", 4 * rows.step_bytes)
    p.vmov("stored", "from")
    p.free("from", "to", "unpack", "groups")


def _unpack_lone(p: Program, to: list[int], shift: int) -> None:
    p.new("word", "tap")
    p.ldr_post("word", "from", 4)
    for k, offset in enumerate(to):
        getattr(p, f"sxtb_ror{8 * k}" if k else "sxtb")("tap", "word")
        if shift:
            p.lsl("tap", "tap", shift)
        p.str("tap", "to", offset)
    p.free("word", "tap")


def _unpack_pairs(p: Program, to: list[int]) -> None:
    p.new("word", "other", "low", "a", "b")
    p.ldr("word", "from", 0)
    p.ldr("other", "from", 4)
    p.add("from", "from", 8)
    for word, first, second in (("word", *to[:2]), ("other", *to[2:])):
        p.sxtb16("low", word)
        p.pkhbt("a", word, "low", "lsl 16")
        p.pkhtb("b", "low", word, "asr 16")
        p.smuad("a", "a", "unpack")
        p.smuad("b", "b", "unpack")
        p.str("a", "to", first)
        p.str("b", "to", second)
    p.free("word", "other", "low", "a", "b")


def _start_rows(p: Program) -> None:
    p.new_pointer("place")
    p.new("count")
    p.vmov("place", "channel_out")
    p.vmov("row_out", "place")
    p.vmov("place", "strip")
    p.ldr_post("count", "place", 4)
    p.vmov("row_count", "count")
    p.vmov("next_row", "place")
    p.free("place", "count")


def _next_row(p: Program, rows: Rows) -> None:
    """Reads a row of the table: where its input and its weights begin, how many iterations, what its bias is."""
    p.new_pointer("place", "at")
    p.new("below", "skipped", "iterations_", "offset", "sum_")
    p.vmov("place", "next_row")
    p.ldr("below", "place", 0)
    p.ldr("skipped", "place", 4)
    p.ldr("iterations_", "place", 8)
    p.ldr("offset", "place", 12)
    p.add("place", "place", 16)
    p.vmov("next_row", "place")
    p.vmov("at", "packed")
    p.add("place", "at", "skipped")
    p.vmov("row_weights", "place")
    add(p, "at", "at", rows.weight_bytes)
    p.add("at", "at", "below")
    p.vmov("row_in", "at")
    p.vmov("iterations", "iterations_")
    p.vmov("sum_", "bias")
    p.sub("sum_", "sum_", "offset")
    p.vmov("row_bias", "sum_")
    p.free("place", "at", "below", "skipped", "iterations_", "offset", "sum_")


def _block(p: Program, rows: Rows, block: RowBlock) -> None:
    """All of a block: its accumulators over all steps, and its outputs; `count` times from left to right."""
    g, repeated = rows.geometry, block.count > 1
    p.new_float("block_in", "block_out", pointer=True)
    p.new_pointer("place")
    p.vmov("place", "row_in")
    add(p, "place", "place", 4 * block.column)
    p.vmov("block_in", "place")
    p.vmov("place", "row_out")
    add(p, "place", "place", max(2 * block.first - 1, 0) * g.out_pixel)
    p.vmov("block_out", "place")
    p.free("place")
    if not repeated:
        _block_once(p, rows, block)
    else:
        p.new_float("blocks")
        p.new("count")
        p.mov("count", block.count)
        p.vmov("blocks", "count")
        p.free("count")
        with p.loop("blocks", block.count):
            _block_once(p, rows, block)
            p.new_pointer("place")
            p.vmov("place", "block_in")
            add(p, "place", "place", 4 * block.n)
            p.vmov("block_in", "place")
            p.vmov("place", "block_out")
            add(p, "place", "place", 2 * block.n * g.out_pixel)
            p.vmov("block_out", "place")
            p.free("place")
        p.free("blocks")
    p.free("block_in", "block_out")


def _block_once(p: Program, rows: Rows, block: RowBlock) -> None:
    if rows.single_chunk:
        p.new(*(f"{part}{k}" for k in range(block.n) for part in ("lo", "hi")))
        p.new_pointer("in_", "weights_")
        p.new("iteration")
        p.vmov("in_", "block_in")
        p.vmov("weights_", "row_weights")
        p.vmov("iteration", "iterations")
        _accumulate(p, rows, block)
        p.free("in_", "weights_", "iteration")
        _finish(p, rows, block)
        p.free(*(f"{part}{k}" for k in range(block.n) for part in ("lo", "hi")))
        return
    outs = [i for i in range(2 * block.n) if _is_output(rows, block, i)]
    p.new_float(*(f"sum{i}" for i in outs), "left_iterations")
    _start_sums(p, block, outs)
    p.new_pointer("in_", "weights_")
    p.vmov("in_", "block_in")
    p.vmov("weights_", "row_weights")
    p.new("iteration")
    p.vmov("iteration", "iterations")
    p.vmov("left_iterations", "iteration")
    p.free("iteration")
    with p.loop_while("left_iterations", "ne", 0, rows.chunks):
        p.new("iteration", "left")
        p.vmov("left", "left_iterations")
        p.constant("iteration", rows.chunk)
        p.at_most("iteration", "left")
        p.sub("left", "left", "iteration")
        p.vmov("left_iterations", "left")
        p.free("left")
        p.new(*(f"{part}{k}" for k in range(block.n) for part in ("lo", "hi")))
        _accumulate(p, rows, block)
        _drain(p, rows, block)
        p.free(*(f"{part}{k}" for k in range(block.n) for part in ("lo", "hi")), "iteration")
    p.free("in_", "weights_")
    _finish_sums(p, rows, outs)
    p.free(*(f"sum{i}" for i in outs), "left_iterations")


def _is_output(rows: Rows, block: RowBlock, i: int) -> bool:
    """Whether output 2 * first - 1 + i exists: i = 2 k is the low field of accumulator k, i = 2 k + 1 its middle one."""
    return 0 <= 2 * block.first - 1 + i < rows.geometry.out_w


def _accumulate(p: Program, rows: Rows, block: RowBlock) -> None:
    """The inner loop: `iteration` times `unroll` steps of all accumulators."""
    for k in range(block.n):
        p.mov(f"lo{k}", OFFSET)
        p.mov(f"hi{k}", 1 << (2 * FIELD - 1 - 32))
    steps = next(n for n in (2, 3, 1) if rows.unroll % n == 0)
    temporaries = REGISTERS - 3 - 2 * block.n
    names = [f"t{i}" for i in range(temporaries)]
    p.new(*names)
    with p.loop("iteration", rows.iterations / rows.chunks):
        for start in range(0, rows.unroll, steps):
            _steps(p, rows, block, start, steps, names)
        add(p, "in_", "in_", rows.unroll * rows.pitch)
        add(p, "weights_", "weights_", rows.unroll * rows.step_bytes)
    p.free(*names)


def _steps(p: Program, rows: Rows, block: RowBlock, start: int, steps: int, names: list[str]) -> None:
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


def _finish(p: Program, rows: Rows, block: RowBlock) -> None:
    """From the only chunk's accumulators to outputs. `beyond` takes the last high field to the next block."""
    p.new_pointer("to")
    p.new("multiplier_", "right_", "bias_", "u")
    p.vmov("to", "block_out")
    for name, kept in (("multiplier_", "multiplier"), ("right_", "right"), ("bias_", "row_bias")):
        p.vmov(name, kept)
    skipped = int(block.first == 0)
    for k in range(block.n):
        if _is_output(rows, block, 2 * k):
            if k == 0:
                p.vmov("u", "beyond")
                p.add("bias_", "bias_", "u", "lsl 1")
            p.ubfx("u", f"lo{k}", 0, FIELD)
            if k:
                p.add("u", "u", f"hi{k - 1}", "asr 10")
            p.add("u", "bias_", "u", "lsl 1")
            if k == 0:
                p.vmov("bias_", "row_bias")
            _put(p, rows, 2 * k - skipped, "u")
        if _is_output(rows, block, 2 * k + 1):
            p.lsr(f"lo{k}", f"lo{k}", FIELD)
            p.bfi(f"lo{k}", f"hi{k}", HIGH, LEFT)
            p.add("u", "bias_", f"lo{k}", "lsl 1")
            _put(p, rows, 2 * k + 1 - skipped, "u")
    p.asr("u", f"hi{block.n - 1}", 10)
    p.vmov("beyond", "u")
    p.free("to", "multiplier_", "right_", "bias_", "u")


def _put(p: Program, rows: Rows, place: int, value: str) -> None:
    """Requantises a doubled sum and writes it `place` pixels behind `to`, which moves along where offsets have no room."""
    requantize(p, value, "multiplier_", "right_", rows.factors.output_zero_point, rows.factors.clamp)
    pixel = rows.geometry.out_pixel
    if 7 * pixel > 4095:
        p.strb(value, "to", 0)
        p.add("to", "to", pixel)
    else:
        p.strb(value, "to", place * pixel)


def _start_sums(p: Program, block: RowBlock, outs: list[int]) -> None:
    """Doubled sums begin as the bias; that of the output on the left also with what the block before has of it."""
    p.new("bias_", "u")
    p.vmov("bias_", "row_bias")
    for i in outs:
        if i:
            p.vmov(f"sum{i}", "bias_")
    if 0 in outs:
        p.vmov("u", "beyond")
        p.add("bias_", "bias_", "u", "lsl 1")
        p.vmov("sum0", "bias_")
    p.mov("u", 0)
    p.vmov("beyond", "u")
    p.free("bias_", "u")


def _drain(p: Program, rows: Rows, block: RowBlock) -> None:
    """Adds the fields of a chunk's accumulators to the sums."""
    p.new("u", "sum_")
    for k in range(block.n):
        if _is_output(rows, block, 2 * k):
            p.ubfx("u", f"lo{k}", 0, FIELD)
            p.vmov("sum_", f"sum{2 * k}")
            if k:
                p.add("u", "u", f"hi{k - 1}", "asr 10")
            p.add("sum_", "sum_", "u", "lsl 1")
            p.vmov(f"sum{2 * k}", "sum_")
        if _is_output(rows, block, 2 * k + 1):
            p.lsr(f"lo{k}", f"lo{k}", FIELD)
            p.vmov("sum_", f"sum{2 * k + 1}")
            p.bfi(f"lo{k}", f"hi{k}", HIGH, LEFT)
            p.add("sum_", "sum_", f"lo{k}", "lsl 1")
            p.vmov(f"sum{2 * k + 1}", "sum_")
    if block.count > 1 or 2 * (block.first + block.n) - 1 < rows.geometry.out_w:
        p.vmov("sum_", "beyond")
        p.add("sum_", "sum_", f"hi{block.n - 1}", "asr 10")
        p.vmov("beyond", "sum_")
    p.free("u", "sum_")


def _finish_sums(p: Program, rows: Rows, outs: list[int]) -> None:
    """From the sums of all chunks to outputs."""
    p.new_pointer("to")
    p.new("multiplier_", "right_", "u")
    p.vmov("to", "block_out")
    p.vmov("multiplier_", "multiplier")
    p.vmov("right_", "right")
    for i in outs:
        p.vmov("u", f"sum{i}")
        _put(p, rows, i - outs[0], "u")
    p.free("to", "multiplier_", "right_", "u")
