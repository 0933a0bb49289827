"""Forms of TREC: the C kernel with generated inner loops.

Blocks are whole taps of the window or equal shares of one, so that every part of a block has the same length. Means and pixels
stay raw int8: the zero point is in the bias, and in the start values of projections. Source: ours.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinyredux.graph import Array, Graph, Op, TrecConv
from tinyredux.int8 import Requantization, requantization
from tinyredux.kernels import gemm
from tinyredux.kernels.asm import requantize
from tinyredux.kernels.asm.cost import program_cycles
from tinyredux.kernels.asm.forms import Form, Places
from tinyredux.kernels.asm.program import Program
from tinyredux.kernels.cycles import Counts, c_cycles
from tinyredux.kernels.trec.programs import OCTET, add_program, product_program, project_program, recover_program
from tinyredux.memory import layerwise_peak, live_steps
from tinyredux.trec import NARROW, TrecSizes, block_vectors, blocks, trec_sizes

SLICES = (32, 16, 8)
IMMEDIATE = 4095  # largest number in an instruction
MOST_BITS = 8
LOOPS = ("project", "add", "product", "recover")


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns one form per width of slice that fits beside what is alive, below the network's peak, else the narrowest.

    None where blocks are uneven or sums leave their bounds.
    """
    if not isinstance(op, TrecConv):
        return []
    sizes, factors = trec_sizes(graph, op), requantization(graph, op)
    part = part_length(sizes)
    flat = graph.constants[op.weights].reshape(sizes.out_c, -1)
    start = gemm.folded_bias(flat, graph.constants[op.bias], factors.input_zero_point)
    fits = requantize.symmetric(flat) and gemm.largest_sums(flat, start).max(initial=0) < gemm.PAIR_LIMIT
    near = sizes.blocks * max(sizes.rows, sizes.clusters) <= IMMEDIATE and sizes.rows <= NARROW and sizes.bits <= MOST_BITS
    if not part or not near or not fits or sizes.out_c - sizes.exact_c < OCTET or not requantize.applies(factors):
        return []
    channels = octets(sizes)
    arrays = {
        "products": product_tables(flat, start, sizes, channels), "vectors": vector_tables(graph, op, sizes, part, factors),
        "bias": graph.constants[op.bias], "multiplier": np.array(factors.multiplier, np.int32),
        "shift": np.array(factors.shift, np.int32),
        "factors": np.ascontiguousarray(requantize.constants(factors)[channels].transpose(0, 2, 1)),
    }  # fmt: skip
    shapes = [replace(sizes, slice_c=width) for width in SLICES if width <= OCTET * len(channels)]
    room = layerwise_peak(graph) - next(step.live_bytes for step in live_steps(graph) if step.op == op.name)
    fitting = [shape for shape in shapes if shape.scratch_bytes <= room] or shapes[-1:]
    return [_form(graph, op, shape, part, factors, arrays, core) for shape in fitting]


def part_length(sizes: TrecSizes) -> int:
    """Returns the columns of one tap that a block holds, the same for every tap and block; 0 where they differ."""
    part = min(sizes.in_c, sizes.length)
    even = sizes.length % part == 0 and sizes.in_c % part == 0 and sizes.columns % sizes.length == 0
    return part if even and part % 4 == 0 else 0


def octets(sizes: TrecSizes) -> Array:
    """Returns the channels (octets, 8) that are computed from means; the last eight may overlap those before."""
    firsts = range(sizes.exact_c, sizes.out_c, OCTET)
    return np.array([min(first, sizes.out_c - OCTET) + np.arange(OCTET) for first in firsts])


def product_tables(flat: Array, start: Array, sizes: TrecSizes, channels: Array) -> Array:
    """Returns (blocks, octets, 2, 4 + L) int32: of each four channels the start values and the byte pairs."""
    quads = channels.reshape(-1, 4)
    found = np.zeros((sizes.blocks, len(quads), 4 + sizes.length), np.int64)
    evens, odds = quads[:, ::2], quads[:, 1::2]
    found[0, :, :4] = np.stack([start[evens] + 256 * start[odds], start[evens]], axis=2).reshape(-1, 4)
    for index, block in enumerate(blocks(sizes.columns, sizes.length)):
        ordered = flat[:, block].astype(np.int64).reshape(sizes.out_c, -1, 2, 2).transpose(0, 1, 3, 2)  # fours: 0 2, 1 3
        halves = (256 * ordered[odds] + ordered[evens]) & 0xFFFF
        words = halves[..., 0] | halves[..., 1] << 16
        found[index, :, 4:] = words.reshape(*evens.shape, -1).transpose(0, 2, 1).reshape(len(quads), -1)
    return found.reshape(sizes.blocks, -1, 2, 4 + sizes.length).astype(np.uint32).view(np.int32)


def vector_tables(graph: Graph, op: TrecConv, sizes: TrecSizes, part: int, factors: Requantization) -> Array:
    """Returns (parts of all blocks, H * (1 + part / 2)) int32: start values, then pairs 0 2 and 1 3 of each four values."""
    flat, found = graph.constants[op.weights].reshape(sizes.out_c, -1), []
    for index, block in enumerate(blocks(sizes.columns, sizes.length)):
        vectors = block_vectors(graph, op, flat, index, block).T.astype(np.int64)  # (H, L)
        for first in range(0, sizes.length, part):
            values = vectors[:, first : first + part]
            fours = values.reshape(sizes.bits, -1, 2, 2).transpose(1, 3, 0, 2) & 0xFFFF  # four, pair, vector, half
            words = (fours[..., 0] | fours[..., 1] << 16).reshape(-1)
            found.append(np.concatenate([(-factors.input_zero_point * values.sum(axis=1)) & 0xFFFFFFFF, words]))
    return np.stack(found).astype(np.uint32).view(np.int32)


def _programs(graph: Graph, op: TrecConv, sizes: TrecSizes, part: int, factors: Requantization) -> tuple[Program, ...]:
    step = op.stride[1] * sizes.in_c
    return (
        project_program(part, sizes.bits, step, sizes.length > part), add_program(part, sizes.length, step),
        product_program(sizes.length, sizes.slice_c),
        recover_program(
            sizes.rows, sizes.blocks, sizes.clusters, sizes.slice_c, sizes.out_c, factors.output_zero_point, factors.clamp
        ),
    )  # fmt: skip


def rounds(sizes: TrecSizes, part: int, programs: tuple[Program, ...], core: str) -> Counts:
    """Returns the cycles of the programs in all, and how often the C around them assigns a slot, takes a mean, computes an exact
    output, widens a mean, copies an output, finishes one; in a layer in whose blocks every code is as likely."""
    project, add, product, recover = (program_cycles(program, core) for program in programs)
    passes, pairs = sizes.rows * sizes.columns / part, sizes.blocks * (sizes.likely_clusters + 0.5) / 2
    quads = 2 * -(-(sizes.out_c - sizes.exact_c) // OCTET)
    slices, one = -(-4 * quads // sizes.slice_c), sizes.blocks == 1
    generated = passes * (project + add) / 8 + pairs * quads * product / 4 + (0 if one else quads / 2 * recover)
    return (
        generated, sizes.rows * sizes.blocks * (1 + sizes.bits / 4), sizes.likely_clusters * sizes.columns,
        sizes.rows * sizes.exact_c, pairs * slices * sizes.length, one * quads * sizes.rows, one * quads * sizes.likely_clusters,
    )  # fmt: skip


def _form(
    graph: Graph, op: TrecConv, sizes: TrecSizes, part: int, factors: Requantization, arrays: dict[str, Array], core: str
) -> Form:  # fmt: skip
    (in_h, in_w, in_c), (out_h, out_w, out_c) = graph.tensors[op.inputs[0]].shape, graph.tensors[op.output].shape
    programs = _programs(graph, op, sizes, part, factors)
    fields = {
        "in_h": in_h, "in_w": in_w, "in_c": in_c, "out_h": out_h, "out_w": out_w, "out_c": out_c,
        "kernel_h": op.kernel[0], "kernel_w": op.kernel[1], "stride_h": op.stride[0], "stride_w": op.stride[1],
        "pad_top": op.padding[0], "pad_left": op.padding[2],
        "k_n": sizes.columns, "blocks": sizes.blocks, "sub_length": sizes.length, "hash_bits": sizes.bits,
        "mean_threshold": int(op.threshold == "mean"), "exact_c": sizes.exact_c, "most_clusters": sizes.clusters,
        "slice_c": sizes.slice_c, "input_zero_point": factors.input_zero_point, "output_zero_point": factors.output_zero_point,
        "activation_min": factors.clamp.low, "activation_max": factors.clamp.high,
    }  # fmt: skip

    def call(places: Places) -> str:
        loops = ", ".join(f".{name} = {program.name}" for name, program in zip(LOOPS, programs, strict=True))
        pointers = {key: places.arrays[key] for key in ("multiplier", "shift", "factors")} | {"loops": "&loops"}
        body = ", ".join(f".{name} = {value}" for name, value in (fields | pointers).items())
        tables = ", ".join(f"(const int8_t *)({places.arrays[key]})" for key in ("products", "vectors"))
        scratch = f"(int16_t *)(void *)({places.scratch})"
        arguments = f"{places.out}, {places.inputs[0]}, {tables}, {places.arrays['bias']}, &parameters, {scratch}"
        return (
            f"{{\n    static const struct tr_trec_loops loops = {{{loops}}};\n"
            f"    const struct tr_trec parameters = {{{body}}};\n    tr_trec_conv_s8({arguments});\n}}"
        )

    cycles = c_cycles(core, "trec loops", rounds(sizes, part, programs, core))
    proof = f"byte pairs: |sum of a channel| < 2^23 = {gemm.PAIR_LIMIT}"
    streamed = (sizes.clusters + 1) // 2 * arrays["products"].nbytes
    return Form(f"trec_{sizes.slice_c}", round(cycles), sizes.scratch_bytes, programs, call, arrays, proof, streamed)
