"""Forms of TREC: the C kernel with generated inner loops.

Blocks are whole taps of the window or equal shares of one, so that every part of a block has the same length. Means and pixels
stay raw int8: the zero point is in the bias, and in the start values of projections. Source: ours.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinyredux.graph import Array, Graph, Op, TrecConv
from tinyredux.kernels.asm import requantize
from tinyredux.kernels.asm.cost import function_cycles
from tinyredux.kernels.asm.forms import Form, Places
from tinyredux.kernels.asm.function import LARGEST_IMMEDIATE, Function
from tinyredux.kernels.asm.layers import PAIR_LIMIT, Sums, c_call, halves, paired, sums_of, window_fields, words
from tinyredux.kernels.cycles import Counts, c_cycles
from tinyredux.kernels.gemm import byte_pairs
from tinyredux.kernels.trec.functions import OCTET, add_function, product_function, project_function, recover_function
from tinyredux.memory import layerwise_peak, live_steps
from tinyredux.trec import NARROW, TrecSizes, block_vectors, blocks, trec_sizes

SLICES = (32, 16, 8)
MOST_BITS = 8
LOOPS = ("project", "add", "product", "recover")


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
        "bias": graph.constants[op.bias], "multiplier": np.array(factors.multiplier, np.int32),
        "shift": np.array(factors.shift, np.int32),
        "factors": np.ascontiguousarray(requantize.constants(factors)[channels].transpose(0, 2, 1)),
    }  # fmt: skip
    shapes = [replace(sizes, slice_c=width) for width in SLICES if width <= OCTET * len(channels)]
    room = layerwise_peak(graph) - next(step.live_bytes for step in live_steps(graph) if step.op == op.name)
    fitting = [shape for shape in shapes if shape.scratch_bytes <= room] or shapes[-1:]
    return [_form(graph, op, shape, part, sums, arrays, core) for shape in fitting]


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
    project, add, product, recover = (function_cycles(function, core) for function in functions)
    passes, pairs = sizes.rows * sizes.columns / part, sizes.blocks * (sizes.likely_clusters + 0.5) / 2
    quads = 2 * -(-(sizes.out_c - sizes.exact_c) // OCTET)
    slices, one = -(-4 * quads // sizes.slice_c), sizes.blocks == 1
    generated = passes * (project + add) / 8 + pairs * quads * product / 4 + (0 if one else quads / 2 * recover)
    return (
        generated, sizes.rows * sizes.blocks * (1 + sizes.bits / 4), sizes.likely_clusters * sizes.columns,
        sizes.rows * sizes.exact_c, pairs * slices * sizes.length, one * quads * sizes.rows, one * quads * sizes.likely_clusters,
    )  # fmt: skip


def _form(
    graph: Graph, op: TrecConv, sizes: TrecSizes, part: int, sums: Sums, arrays: dict[str, Array], core: str
) -> Form:  # fmt: skip
    step, factors = op.stride[1] * sizes.in_c, sums.factors
    recovered = (sizes.rows, sizes.blocks, sizes.clusters, sizes.slice_c, sizes.out_c)
    functions = (
        project_function(part, sizes.bits, step, sizes.length > part), add_function(part, sizes.length, step),
        product_function(sizes.length, sizes.slice_c), recover_function(*recovered, factors.output_zero_point, factors.clamp),
    )  # fmt: skip
    fields = window_fields(graph, op) | {
        "k_n": sizes.columns, "blocks": sizes.blocks, "sub_length": sizes.length, "hash_bits": sizes.bits,
        "mean_threshold": int(op.threshold == "mean"), "exact_c": sizes.exact_c, "most_clusters": sizes.clusters,
        "slice_c": sizes.slice_c, "input_zero_point": factors.input_zero_point, "output_zero_point": factors.output_zero_point,
        "activation_min": factors.clamp.low, "activation_max": factors.clamp.high,
    }  # fmt: skip

    def call(places: Places) -> str:
        loops = ", ".join(f".{name} = {function.name}" for name, function in zip(LOOPS, functions, strict=True))
        pointers = {key: places.arrays[key] for key in ("multiplier", "shift", "factors")} | {"loops": "&loops"}
        tables = (f"(const int8_t *)({places.arrays[key]})" for key in ("products", "vectors"))
        arguments = [places.out, places.inputs[0], *tables, places.arrays["bias"], "&parameters"]
        arguments.append(f"(int16_t *)(void *)({places.scratch})")
        before = [f"static const struct tr_trec_loops loops = {{{loops}}};"]
        return c_call("tr_trec_conv_s8", "const struct tr_trec", fields | pointers, arguments, before)

    cycles = c_cycles(core, "trec loops", rounds(sizes, part, functions, core))
    proof = f"byte pairs: |sum of a channel| < 2^23 = {PAIR_LIMIT}"
    streamed = (sizes.clusters + 1) // 2 * arrays["products"].nbytes
    return Form(f"trec_{sizes.slice_c}", round(cycles), sizes.scratch_bytes, functions, call, arrays, proof, streamed)
