"""TREC: convolution that hashes similar input vectors on line, computes each cluster's mean once and shares the result.

A window of the input is cut into blocks of L values. `hashing` gives each block an identifier of H bits, the signs of H
projections; blocks with the same identifier are a cluster. `sums` multiplies the mean of each cluster with the weights once and
adds the products where its members are: this is the operator's definition, bit for bit. `scratch` says which bytes that takes.
`rewrite` puts the operator into an int8 graph, `layer` is the same as a torch module whose hash is learned.

Read `hashing`, then `sums`. Chapters 8 (redundancy), 9 (the operator) and 10 (learned hashing) teach it.
Source: Guan et al., NeurIPS 2022; Liu et al., ASPLOS 2023 and IEEE TC 2024.
"""

from __future__ import annotations

from tinyredux.trec import hashing
from tinyredux.trec.hashing import Clusters, Redundancy, blocks, pigeonhole_floor, redundancy
from tinyredux.trec.rewrite import Choice, module_path, with_trec
from tinyredux.trec.scratch import NARROW, TrecSizes, trec_sizes
from tinyredux.trec.sums import Clustered, block_vectors, clustered_sums, exactly

__all__ = [
    "NARROW", "Choice", "Clustered", "Clusters", "Redundancy", "TrecSizes", "block_vectors", "blocks", "clustered_sums",
    "exactly", "hashing", "layer", "module_path", "pigeonhole_floor", "redundancy", "sums", "trec_sizes", "with_trec",
]  # fmt: skip
