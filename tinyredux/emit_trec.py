"""The parameters of a TREC call in C, and the assertion that its scratch is what was planned."""

from __future__ import annotations

from tinyredux.graph import TrecConv
from tinyredux.trec_sizes import TrecSizes

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
