"""The parameters of a TREC call in C, the assertion that its scratch is what was planned, and the naive form of the call."""

from __future__ import annotations

import numpy as np

from tinyredux.graph import Graph, Op, TrecConv
from tinyredux.int8 import requantization
from tinyredux.kernels import Form, Places
from tinyredux.kernels.asm.layers import c_call, window_fields
from tinyredux.memory import clustering
from tinyredux.trec import TrecSizes

ASSERTED = ("rows", "columns", "blocks", "length", "in_c", "bits", "exact_c", "clusters", "slice_c")


def trec_fields(op: TrecConv, sizes: TrecSizes, own_vectors: int) -> dict[str, int]:
    """Returns the fields of struct tr_trec beside those of any convolution. `own_vectors` counts blocks with hash vectors of
    their own: 0 where the filters serve, 1 where all blocks share one set."""
    row, block = (sizes.length, sizes.length * sizes.bits * (own_vectors > 1)) if own_vectors else (sizes.columns, sizes.length)
    return {
        "k_n": sizes.columns, "blocks": sizes.blocks, "sub_length": sizes.length, "hash_bits": sizes.bits,
        "mean_threshold": int(op.threshold == "mean"), "exact_c": sizes.exact_c, "vector_row": row, "vector_block": block,
        "most_clusters": sizes.clusters, "slice_c": sizes.slice_c,
    }  # fmt: skip


def trec_check(op: TrecConv, sizes: TrecSizes, planned: int) -> str:
    """Returns the static assertion that the kernel's own figure is the planned one."""
    values = ", ".join(str(getattr(sizes, name)) for name in ASSERTED)
    return f'_Static_assert(TR_TREC_SCRATCH_BYTES({values}) == {planned}, "scratch of {op.name}");\n'


def naive_forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns TREC by the tables of `trec_naive.c`, a template as those of `kernels.choice`; none for other operators."""
    if not isinstance(op, TrecConv):
        return []
    sizes, factors = clustering(graph, op), requantization(graph, op)
    arrays = {
        "weights": graph.constants[op.weights], "bias": graph.constants[op.bias],
        "multiplier": np.array(factors.multiplier, np.int32), "shift": np.array(factors.shift, np.int32),
    }  # fmt: skip
    if op.vectors:
        arrays["vectors"] = np.ascontiguousarray(graph.constants[op.vectors].transpose(0, 2, 1))
    fields = window_fields(graph, op) | trec_fields(op, sizes, len(arrays["vectors"]) if op.vectors else 0) | {
        "input_zero_point": factors.input_zero_point, "output_zero_point": factors.output_zero_point,
        "activation_min": factors.clamp.low, "activation_max": factors.clamp.high,
    }  # fmt: skip
    numbers = ", ".join(map(str, (sizes.rows, sizes.columns, sizes.length, sizes.out_c, sizes.bits)))
    check = f'_Static_assert(TR_TREC_NAIVE_BYTES({numbers}) == {sizes.naive_bytes}, "scratch of {op.name}");'

    def call(places: Places) -> str:
        pointers = {key: places.arrays[key] for key in ("multiplier", "shift")}
        tables = (places.arrays[key] for key in ("weights", "vectors" if op.vectors else "weights", "bias"))
        arguments = [places.out, places.inputs[0], *tables, "&parameters", f"(int16_t *)(void *)({places.scratch})"]
        return c_call("tr_trec_naive_s8", "const struct tr_trec", fields | pointers, arguments, [check])

    return [Form("trec_naive", 0, sizes.naive_bytes, (), call, arrays)]
