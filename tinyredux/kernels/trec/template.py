"""Forms of TREC: the C kernel with generated inner loops, and the naive one that it is measured against.

Blocks are whole taps of the window or equal shares of one, so that every part of a block has the same length. Means and pixels
stay raw int8: the zero point is in the bias, and in the start values of projections. Source: ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tinyredux.graph import Array, Graph, Op, TrecConv
from tinyredux.int8 import Requantization, requantization
from tinyredux.kernels.asm import requantize
from tinyredux.kernels.asm.cost import function_cycles
from tinyredux.kernels.asm.forms import Form, Places
from tinyredux.kernels.asm.function import LARGEST_IMMEDIATE, Function
from tinyredux.kernels.asm.layers import PAIR_LIMIT, Fields, Sums, c_call, halves, paired, sums_of, window_fields, words
from tinyredux.kernels.cycles import Counts, c_cycles
from tinyredux.kernels.gemm import byte_pairs
from tinyredux.kernels.trec.functions import OCTET, add_function, product_function, project_function, recover_function
from tinyredux.memory import clustering, layerwise_peak, live_steps
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
        **_shared_arrays(graph, op, factors),
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
