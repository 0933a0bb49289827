"""Forms of TREC: the C kernel with generated inner loops, and the naive one that it is measured against.

The loops project a row of pixels, add up clusters, multiply means, and recover outputs; their functions stand at the end.

Blocks are whole taps of the window or equal shares of one, so that every part of a block has the same length. Means and pixels
stay raw int8: the zero point is in the bias, and in the start values of projections. Source: ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import numpy as np

from tinyredux.graph import Array, Graph, Op, TrecConv
from tinyredux.int8 import Clamp, Requantization, requantization
from tinyredux.kernels.asm import requantize
from tinyredux.kernels.asm.cost import function_cycles
from tinyredux.kernels.asm.forms import Form, Places
from tinyredux.kernels.asm.function import LARGEST_IMMEDIATE, Function
from tinyredux.kernels.asm.layers import PAIR_LIMIT, Fields, Sums, c_call, halves, paired, sums_of, window_fields, words
from tinyredux.kernels.cycles import Counts, c_cycles
from tinyredux.kernels.gemm import byte_pairs, part, product_round, start_sums, sums_of_rows
from tinyredux.memory import clustering, layerwise_peak, live_steps
from tinyredux.trec import NARROW, TrecSizes, block_vectors, blocks, trec_sizes

SLICES = (32, 16, 8)
MOST_BITS = 8
LOOPS = ("project", "add", "product", "recover")
ROUND_INSTRUCTIONS = 230  # of an unrolled loop: with its frame less than 1 KiB, the flash cache of an STM32F4
LARGEST_UNROLLED = 64  # values added in one straight line
OCTET = 8  # output channels at a time


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns one form per width of slice that fits beside what is alive, below the network's peak, else the narrowest.

    None where blocks are uneven or sums leave their bounds.
    """
    if not isinstance(op, TrecConv):
        return []
    sizes, sums = trec_sizes(graph, op), sums_of(graph, op)
    part, factors = part_length(sizes), sums.factors
    near = sizes.blocks * max(sizes.rows, sizes.clusters) <= LARGEST_IMMEDIATE
    if not part or not near or sizes.rows > NARROW or sizes.bits > MOST_BITS:
        return []
    if sizes.out_c - sizes.exact_c < OCTET or not sums.stay_below(PAIR_LIMIT):
        return []
    channels = octets(sizes)
    arrays = {
        "products": product_tables(sums, sizes, channels), "vectors": vector_tables(graph, op, sizes, part, sums),
        **_shared_arrays(graph, op, factors),
        "factors": np.ascontiguousarray(requantize.constants(factors)[channels].transpose(0, 2, 1)),
    }  # fmt: skip
    shapes = [replace(sizes, slice_c=width) for width in SLICES if width <= OCTET * len(channels)]
    fitting = [shape for shape in shapes if shape.scratch_bytes <= room(graph, op)] or shapes[-1:]
    return [_form(graph, op, shape, part, sums, arrays, core) for shape in fitting]


def room(graph: Graph, op: TrecConv) -> int:
    """Returns the bytes beside what is alive, below the network's peak."""
    return layerwise_peak(graph) - next(step.live_bytes for step in live_steps(graph) if step.op == op.name)


def part_length(sizes: TrecSizes) -> int:
    """Returns the columns of one tap that a block holds, the same for every tap and block; 0 where they differ."""
    part = min(sizes.in_c, sizes.length)
    even = sizes.length % part == 0 and sizes.in_c % part == 0 and sizes.columns % sizes.length == 0
    return part if even and part % 4 == 0 else 0


def octets(sizes: TrecSizes) -> Array:
    """Returns the channels (octets, 8) that are computed from means; the last eight may overlap those before."""
    firsts = range(sizes.exact_c, sizes.out_c, OCTET)
    return np.array([min(first, sizes.out_c - OCTET) + np.arange(OCTET) for first in firsts])


def product_tables(sums: Sums, sizes: TrecSizes, channels: Array) -> Array:
    """Returns (blocks, octets, 2, 4 + L) int32: of each four channels the start values and the byte pairs."""
    found = []
    for index, block in enumerate(blocks(sizes.columns, sizes.length)):
        start = sums.start if index == 0 else np.zeros_like(sums.start)
        for quad in channels.reshape(-1, 4):
            evens, odds = quad[::2], quad[1::2]
            found.append(byte_pairs(sums.rows[evens, block], sums.rows[odds, block], start[evens], start[odds]))
    return words(np.stack(found)).reshape(sizes.blocks, -1, 2, 4 + sizes.length)


def vector_tables(graph: Graph, op: TrecConv, sizes: TrecSizes, part: int, sums: Sums) -> Array:
    """Returns (parts of all blocks, H * (1 + part / 2)) int32: start values, then pairs 0 2 and 1 3 of each four values."""
    flat, found = graph.constants[op.weights].reshape(sizes.out_c, -1), []
    for index, block in enumerate(blocks(sizes.columns, sizes.length)):
        vectors = block_vectors(graph, op, flat, index, block).T.astype(np.int64)  # (H, L)
        for first in range(0, sizes.length, part):
            values = vectors[:, first : first + part]
            starts = -sums.factors.input_zero_point * values.sum(axis=1)
            found.append(np.concatenate([starts, halves(paired(values)).T.reshape(-1)]))
    return words(np.stack(found))


def rounds(sizes: TrecSizes, part: int, functions: tuple[Function, ...], core: str) -> Counts:
    """Returns the cycles of the functions in all, and how often the C around them assigns a slot, takes a mean, computes an exact
    output, widens a mean, copies an output, finishes one; in a layer in whose blocks every code is as likely."""
    pairs, quads = _pairs_and_quads(sizes)
    slices, one = -(-4 * quads // sizes.slice_c), sizes.blocks == 1
    return (
        sum(loops(sizes, part, functions, core)), sizes.rows * sizes.blocks * (1 + sizes.bits / 4),
        sizes.likely_clusters * sizes.columns, sizes.rows * sizes.exact_c, pairs * slices * sizes.length,
        one * quads * sizes.rows, one * quads * sizes.likely_clusters,
    )  # fmt: skip


def loops(sizes: TrecSizes, part: int, functions: tuple[Function, ...], core: str) -> tuple[float, ...]:
    """Returns the cycles in all of each of the functions, in the order of LOOPS."""
    project, add, product, recover = (function_cycles(function, core) for function in functions)
    passes, (pairs, quads) = sizes.rows * sizes.columns / part, _pairs_and_quads(sizes)
    return passes * project / 8, passes * add / 8, pairs * quads * product / 4, 0 if sizes.blocks == 1 else quads / 2 * recover


def _pairs_and_quads(sizes: TrecSizes) -> tuple[float, int]:
    return sizes.blocks * (sizes.likely_clusters + 0.5) / 2, 2 * -(-(sizes.out_c - sizes.exact_c) // OCTET)


def _form(
    graph: Graph, op: TrecConv, sizes: TrecSizes, part: int, sums: Sums, arrays: dict[str, Array], core: str
) -> Form:  # fmt: skip
    step, factors = op.stride[1] * sizes.in_c, sums.factors
    recovered = (sizes.rows, sizes.blocks, sizes.clusters, sizes.slice_c, sizes.out_c)
    functions = (
        project_function(part, sizes.bits, step, sizes.length > part), add_function(part, sizes.length, step),
        product_function(sizes.length, sizes.slice_c), recover_function(*recovered, factors.output_zero_point, factors.clamp),
    )  # fmt: skip
    fields = window_fields(graph, op) | trec_fields(op, sizes, 0) | point_fields(factors)
    names = ", ".join(f".{name} = {function.name}" for name, function in zip(LOOPS, functions, strict=True))
    call = _call(
        "conv", {key: value for key, value in fields.items() if not key.startswith("vector")},
        [f"(const int8_t *)({{{key}}})" for key in ("products", "vectors")], ["multiplier", "shift", "factors", "loops"],
        f"static const struct tr_trec_loops loops = {{{names}}};",
    )  # fmt: skip
    cycles = c_cycles(core, "trec loops", rounds(sizes, part, functions, core))
    proof = f"byte pairs: |sum of a channel| < 2^23 = {PAIR_LIMIT}"
    streamed = (sizes.clusters + 1) // 2 * arrays["products"].nbytes
    return Form(f"trec_{sizes.slice_c}", round(cycles), sizes.scratch_bytes, functions, call, arrays, proof, streamed)


def naive_forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns TREC by the tables of `trec_naive.c`, a template as those of `kernels.choice`; none for other operators."""
    if not isinstance(op, TrecConv):
        return []
    sizes, factors = clustering(graph, op), requantization(graph, op)
    arrays = {"weights": graph.constants[op.weights], **_shared_arrays(graph, op, factors)}
    if op.vectors:
        arrays["vectors"] = np.ascontiguousarray(graph.constants[op.vectors].transpose(0, 2, 1))
    own_vectors = len(arrays.get("vectors", ()))
    fields = window_fields(graph, op) | trec_fields(op, sizes, own_vectors) | point_fields(factors)
    numbers = ", ".join(map(str, (sizes.rows, sizes.columns, sizes.length, sizes.out_c, sizes.bits)))
    check = f'_Static_assert(TR_TREC_NAIVE_BYTES({numbers}) == {sizes.naive_bytes}, "scratch of {op.name}");'
    tables = ["{weights}", "{vectors}" if op.vectors else "{weights}"]
    call = _call("naive", fields, tables, ["multiplier", "shift"], check)
    return [Form("trec_naive", 0, sizes.naive_bytes, (), call, arrays)]


def trec_fields(op: TrecConv, sizes: TrecSizes, own_vectors: int) -> dict[str, int]:
    """Returns the fields of struct tr_trec beside those of any convolution. `own_vectors` counts blocks with hash vectors of
    their own: 0 where the filters serve, 1 where all blocks share one set."""
    row, block = (sizes.length, sizes.length * sizes.bits * (own_vectors > 1)) if own_vectors else (sizes.columns, sizes.length)
    return {
        "k_n": sizes.columns, "blocks": sizes.blocks, "sub_length": sizes.length, "hash_bits": sizes.bits,
        "mean_threshold": int(op.threshold == "mean"), "exact_c": sizes.exact_c, "vector_row": row, "vector_block": block,
        "most_clusters": sizes.clusters, "slice_c": sizes.slice_c,
    }  # fmt: skip


def point_fields(factors: Requantization) -> dict[str, int]:
    """Returns the fields of a layer's zero points and of its activation's limits."""
    return {
        "input_zero_point": factors.input_zero_point, "output_zero_point": factors.output_zero_point,
        "activation_min": factors.clamp.low, "activation_max": factors.clamp.high,
    }  # fmt: skip


def _shared_arrays(graph: Graph, op: TrecConv, factors: Requantization) -> dict[str, Array]:
    multiplier, shift = np.array([factors.multiplier, factors.shift], np.int32)
    return {"bias": graph.constants[op.bias], "multiplier": multiplier, "shift": shift}


def _call(kernel: str, fields: Fields, tables: Sequence[str], pointers: Sequence[str], before: str) -> Callable[[Places], str]:
    """Returns what writes the call of tr_trec_`kernel`_s8 behind a statement. Arrays are arguments, those of `tables` written as
    they say, or `pointers` in the struct; one that is no array names what the statement declares."""

    def call(places: Places) -> str:
        arguments = [places.out, places.inputs[0], *(table.format(**places.arrays) for table in tables), places.arrays["bias"]]
        arguments += ["&parameters", f"(int16_t *)(void *)({places.scratch})"]
        every = {**fields, **{key: places.arrays.get(key, f"&{key}") for key in pointers}}
        return c_call(f"tr_trec_{kernel}_s8", "const struct tr_trec", every, arguments, [before])

    return call


def largest_divisor(number: int, limit: int) -> int:
    """Returns the largest divisor of a number that is at most `limit`."""
    return next(each for each in range(max(1, min(number, limit)), 0, -1) if number % each == 0)


def project_function(n: int, bits: int, step: int, adds: bool) -> Function:
    """Projections of `count` pixels, `step` bytes apart, on `bits` vectors of n values.

    vectors: start values, then for each four values of a pixel the int16 pairs 0 2 of every vector, then the pairs 1 3.
    """
    fours = n // 4
    at_once = largest_divisor(fours, ROUND_INSTRUCTIONS // (4 * bits + 3))
    p = Function(
        f"tr_trec_project_{n}_{bits}_{step}_{int(adds)}",
        ("int32_t *projected", "const int8_t *pixel", "const int32_t *vectors", "int32_t count"),
        f"{'Adds' if adds else 'Writes'} the projections of count pixels, {step} bytes apart, on {bits} vectors of {n} values: "
        f"int32 [count][{bits}].\nExact: |sum| <= {n} * 128 * 127 + start.",
    )
    p.keep("*projected", "*end", "count")
    sums = [f"sum{h}" for h in range(bits)]
    p.new(*sums, "x", "*end")
    p.add("end", "vectors", 4 * bits + 4 * bits * n // 2)
    p.vmov("end_kept", "end")
    with p.loop("count_kept", 8, through="x"):
        p.ldm("vectors", *sums)
        with nullcontext() if at_once == fours else p.loop_until("vectors", "end", times=fours // at_once):
            _project_fours(p, at_once, sums)
        p.vmov("end", "projected_kept")
        for h, total in enumerate(sums):
            if adds:
                p.ldr("x", "end", 4 * h)
                p.add(total, total, "x")
            p.str(total, "end", 4 * h)
        p.add("end", "end", 4 * bits)
        p.vmov("projected_kept", "end")
        p.vmov("end", "end_kept")
        p.add("pixel", "pixel", step - n)
        p.move("vectors", "vectors", -(4 * bits + 2 * bits * n), "x")
    return p


def _project_fours(p: Function, fours: int, sums: list[str]) -> None:
    p.free("end")
    width = max(1, min(len(sums), p.free_count() - 1))
    weights = [f"w{i}" for i in range(width)]
    with p.registers("pair", *weights):
        at = 0  # no write-back: it would break the chain of loads
        for four in range(fours):
            p.ldr("x", "pixel", 4 * four)
            for extend in ("sxtb16", "sxtb16_ror8"):
                for first in range(0, len(sums), width):
                    some = sums[first : first + width]
                    p.load("vectors", at, *weights[: len(some)])
                    at += 4 * len(some)
                    if first == 0:
                        getattr(p, extend)("pair", "x")
                    for i, total in enumerate(some):
                        p.smlad(total, weights[i], "pair", total)
        p.add("pixel", "pixel", 4 * fours)
        p.add("vectors", "vectors", at)
    p.new("*end")
    p.vmov("end", "end_kept")


def add_function(n: int, length: int, step: int) -> Function:
    """Adds n values of each of `count` pixels to the int16 sums of its slot, `length` values each; n is a multiple of 4."""
    p = Function(
        f"tr_trec_add_{n}_{length}_{step}",
        ("int16_t *sums", "const int8_t *pixel", "const uint8_t *slots", "int32_t count"),
        f"Adds {n} values of each of count pixels, {step} bytes apart, to the int16 sums of its slot (0 2 1 3 of each four).\n"
        "Exact for at most 256 members.",
    )
    p.new("slot", "x0", "x1", "a0", "a1", "a2", "a3", "left", "*to")
    at_once = n if n <= LARGEST_UNROLLED else 4 * largest_divisor(n // 4, LARGEST_UNROLLED // 4)
    with p.loop("count", times=8):
        p.ldrb_post("slot", "slots", 1)
        p.movw("x0", 2 * length)
        p.mul("slot", "slot", "x0")
        p.add("to", "sums", "slot")
        if at_once == n:
            _add_values(p, n)
            p.move("pixel", "pixel", step, "x0")
        else:
            p.movw("left", n // at_once)
            with p.loop("left", times=n // at_once):
                _add_values(p, at_once)
                p.add("pixel", "pixel", at_once)
                p.add("to", "to", 2 * at_once)
            p.add("pixel", "pixel", step - n)
    return p


def _add_values(p: Function, n: int) -> None:
    for at in range(0, n, 8):
        words = min(2, (n - at) // 4)
        sums = [f"a{i}" for i in range(2 * words)]
        p.load("pixel", at, *("x0", "x1")[:words])
        p.load("to", 2 * at, *sums)
        for i, total in enumerate(sums):
            getattr(p, "sxtab16_ror8" if i % 2 else "sxtab16")(total, total, f"x{i // 2}")
        p.store("to", 2 * at, *sums)


def product_function(length: int, slice_c: int) -> Function:
    """Products of two means with `quads` groups of four channels, twice each sum: byte pairs as in `gemm`."""
    steps = largest_divisor(length // 2, 16)
    p = Function(
        f"tr_trec_product_{length}_{slice_c}",
        ("int32_t *to", "const int32_t *columns", "const int32_t *weights", "int32_t quads"),
        f"Twice the products of two means of {length} values, widened and interleaved, with groups of four channels: "
        f"int32 [2][{slice_c}].\n"
        "Weights of channels A, B are 256 * B + A; exact for |sum of B| < 2^23.",
    )
    p.keep("*to", "*end", "quads")
    p.new(*sums_of_rows(), "x0", "x1", "w0", "*end")
    p.move("end", "columns", 4 * length, "x0")
    p.vmov("end_kept", "end")
    with p.loop("quads_kept", 4, through="x0"):
        start_sums(p, "weights")
        with nullcontext() if 2 * steps == length else p.loop_until("columns", "end", times=length // (2 * steps)):
            product_round(p, steps, "weights")
            p.vmov("end", "end_kept")
        p.vmov("end", "to_kept")
        for pixel in range(2):
            for pair in range(2):
                raw, low = f"raw{pair}_{pixel}", f"low{pair}_{pixel}"
                part(p, raw, low, doubled=True)
                p.store("end", 4 * (pixel * slice_c + 2 * pair), low, raw)
        p.add("end", "end", 16)
        p.vmov("to_kept", "end")
        p.vmov("end", "end_kept")
        p.move("columns", "columns", -4 * length, "x0")
    return p


def recover_function(rows: int, blocks: int, clusters: int, slice_c: int, out_c: int, zero_point: int, clamp: Clamp) -> Function:
    """Eight output channels of all pixels: the products of each pixel's slots, added up and requantised."""
    numbers = (rows, blocks, clusters, slice_c, out_c, zero_point & 255, clamp.low & 255, clamp.high & 255)
    p = Function(
        f"tr_trec_recover_{'_'.join(map(str, numbers))}",
        ("int8_t *out", "const uint8_t *slots", "const int32_t *products", "const int32_t *factors"),
        f"Eight channels of {rows} pixels: doubled products of the slots in {blocks} blocks, added up and requantised.",
    )
    multipliers, shifts = [f"m{i}" for i in range(OCTET)], [f"r{i}" for i in range(OCTET)]
    p.new_float(*multipliers, *shifts, "*out_kept", "count_kept")
    p.vmov("out_kept", "out")
    with p.registers("first"):
        for i, name in enumerate((*multipliers, *shifts)):
            p.ldr("first", "factors", 4 * i)
            p.vmov(name, "first")
        p.movw("first", rows)
        p.vmov("count_kept", "first")
    p.free("out", "factors")
    sums, some = [f"a{i}" for i in range(OCTET)], ["t0", "t1", "t2"]
    p.new(*sums, *some, "*p")
    bits = (4 * slice_c).bit_length() - 1
    with p.loop("count_kept", rows, through="t2"):
        for block in range(blocks):
            p.ldrb("t0", "slots", block * rows)
            if block:
                p.add("t0", "t0", block * clusters)
            p.add("p", "products", "t0", f"lsl {bits}")
            if block == 0:
                p.ldm("p", *sums)
                continue
            for first, count in ((0, 3), (3, 3), (6, 2)):
                p.ldm("p", *some[:count])
                for i in range(count):
                    p.add(sums[first + i], sums[first + i], some[i])
        p.vmov("p", "out_kept")
        for i, total in enumerate(sums):
            p.vmov("t0", multipliers[i])
            p.vmov("t1", shifts[i])
            requantize.requantize(p, total, "t0", "t1", zero_point, clamp)
            p.strb(total, "p", i)
        p.move("p", "p", out_c, "t0")
        p.vmov("out_kept", "p")
        p.add("slots", "slots", 1)
    return p
