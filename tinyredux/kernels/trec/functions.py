"""TREC's inner loops as functions: projections of a row of pixels, sums of clusters, products of means, recovery of outputs."""

from __future__ import annotations

from contextlib import nullcontext

from tinyredux.int8 import Clamp
from tinyredux.kernels.asm import requantize
from tinyredux.kernels.asm.function import Function
from tinyredux.kernels.gemm import part, product_round, start_sums, sums_of_rows

ROUND_INSTRUCTIONS = 230  # of an unrolled loop: with its frame less than 1 KiB, the flash cache of an STM32F4
LARGEST_UNROLLED = 64  # values added in one straight line
OCTET = 8  # output channels at a time


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
