"""Bytes that TREC works with beside input and output: the kernel's form, and the naive form it is measured against.

`TR_TREC_SCRATCH_BYTES` in tinyredux.h says the same in C; the generated model asserts that the two agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tinyredux.graph import Graph, TrecConv

SLICES = (32, 16, 8, 4)  # output channels at a time
NARROW = 256  # clusters that a byte numbers; rows whose int8 sum fits int16


@dataclass(frozen=True)
class TrecSizes:
    """What the bytes depend on. `slice_c` output channels are computed at a time."""

    rows: int
    columns: int
    blocks: int
    length: int
    in_c: int
    out_c: int
    bits: int
    exact_c: int
    slice_c: int = SLICES[-1]

    @property
    def clusters(self) -> int:
        """Clusters that a block can have at most."""
        return min(1 << self.bits, self.rows)

    @property
    def likely_clusters(self) -> float:
        """Clusters that a block has where every code is as likely: what cost models count with. Alike rows leave fewer."""
        codes = 1 << self.bits
        return codes * (1 - (1 - 1 / codes) ** self.rows)

    @property
    def stored_bytes(self) -> int:
        """Bytes that live from the first stage to the last: slots of all rows, sizes of the stacks, means."""
        slots = words(self.rows * self.blocks * (1 if self.clusters <= NARROW else 2))
        return slots + 4 * self.blocks + words(self.clusters * self.columns)

    @property
    def clustering_bytes(self) -> int:
        """Bytes of the first stage: projections, exact sums, the stack of sums, the reversed ids, a pixel of padding."""
        sums = words(self.clusters * self.length * (2 if self.rows <= NARROW else 4))
        return 4 * self.rows * (self.bits + self.exact_c) + 4 * self.clusters + sums + words(2 << self.bits) + words(self.in_c)

    @property
    def product_bytes(self) -> int:
        """Bytes of the later stages: products of the means with a slice of the weights, two widened means."""
        return 4 * (self.blocks * self.clusters + 1) * self.slice_c + 4 * words(self.length)

    @property
    def scratch_bytes(self) -> int:
        """Bytes of scratch of tr_trec_conv_s8."""
        return self.stored_bytes + max(self.clustering_bytes, self.product_bytes)

    @property
    def naive_bytes(self) -> int:
        """Bytes of scratch of tr_trec_naive_s8: the whole matrix, 2^H places in every table, all int32 outputs."""
        codes = 1 << self.bits
        tables = 4 * codes * (self.length + 1 + self.out_c) + words(codes * self.length)
        rows = 4 * self.rows * (self.bits + self.out_c) + words(2 * self.rows) + words(self.rows * self.columns)
        return rows + tables


def words(size: int) -> int:
    """Returns a number of bytes rounded up to whole words."""
    return -(-size // 4) * 4


def trec_sizes(graph: Graph, op: TrecConv, room: int = 0) -> TrecSizes:
    """Returns the sizes of an operator, with the widest slice whose scratch fits into `room` bytes, else the narrowest."""
    height, width, outputs = graph.tensors[op.output].shape
    columns, inputs = graph.constants[op.weights][0].size, graph.tensors[op.inputs[0]].shape[2]
    blocks, exact = -(-columns // op.sub_length), 0 if op.vectors else op.hash_bits
    least = TrecSizes(height * width, columns, blocks, op.sub_length, inputs, outputs, op.hash_bits, exact)
    wide = (replace(least, slice_c=slice_c) for slice_c in SLICES if slice_c - 3 <= outputs - exact)
    return next((sizes for sizes in wide if sizes.scratch_bytes <= room), least)
