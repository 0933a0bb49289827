"""TREC's sums: a convolution whose columns are replaced, block by block, by the means of their clusters.

Real numbers or integers, which is decided by the weights' type; in integers every step below is exact or says how it
rounds, and `firmware/kernels/trec_conv.c` computes the same bits. Source: Guan et al., NeurIPS 2022; integer form: ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from tinyredux.fixedpoint import rounded_mean
from tinyredux.graph import Array, Conv, Convolution, Graph, Op, TrecConv, constant_names
from tinyredux.trec.hashing import Clusters, blocks, cluster, hash_bits, hash_ids


@dataclass(frozen=True)
class Clustered:
    """What TREC computed for a batch: sums before bias (images, N, outputs), and the clusters of each image (images, blocks)."""

    sums: Array
    clusters: Array


def block_vectors(graph: Graph, op: TrecConv, weights: Array, index: int, block: slice) -> Array:
    """Returns the hash vectors of one block, (L, H): its slice of the first filters (outputs, K), or vectors of their own."""
    if not op.vectors:
        return weights[: op.hash_bits, block].T
    vectors = graph.constants[op.vectors]
    return vectors[index % len(vectors), : block.stop - block.start]


def clustered_sums(graph: Graph, op: TrecConv, columns: Array, weights: Array) -> Clustered:
    """Returns the sums for columns (images, N, K) and weights (outputs, K), both in a type that holds every sum exactly.

    Integer columns have their zero point taken off. With kernel reuse, the sums of the first `hash_bits` outputs are those
    of the ordinary convolution.
    """
    integer = graph.constants[op.weights].dtype == np.int8
    images, rows, _ = columns.shape
    sums = np.zeros((images, rows, len(weights)), columns.dtype)
    counts = []
    for index, block in enumerate(blocks(columns.shape[2], op.sub_length)):
        part = columns[:, :, block]
        projections = part @ block_vectors(graph, op, weights, index, block).astype(columns.dtype)
        ids = hash_ids(hash_bits(projections.astype(np.int64) if integer else projections, op.threshold))
        found = cluster(ids)
        products = centroids(found, part.reshape(images * rows, -1), integer) @ weights[:, block].T
        shared = products[found.slot].reshape(images, rows, -1)
        if not op.vectors:
            shared[:, :, : op.hash_bits] = projections
        sums += shared
        counts.append(found.per_image)
    return Clustered(sums, np.stack(counts, axis=1))


def centroids(found: Clusters, rows: Array, integer: bool) -> Array:
    """Returns the clusters' means (clusters, L); of integers, rounded to the nearest, halves up."""
    sums, sizes = found.sums(rows), found.counts[:, None]
    return np.asarray(rounded_mean(sums.astype(np.int64), sizes) if integer else sums / sizes, rows.dtype)


def exactly(graph: Graph, names: Iterable[str]) -> Graph:
    """Returns the graph with the named TrecConv operators computed by ordinary convolution. Chapter 9."""
    wanted = set(names)
    ops = [Conv(**convolution_fields(op)) if isinstance(op, TrecConv) and op.name in wanted else op for op in graph.ops]
    kept = {key for op in ops for key in constant_names(op)}
    return graph.with_ops(ops, constants={key: graph.constants[key] for key in graph.constants if key in kept})


def convolution_fields(op: Op) -> dict[str, Any]:
    """Returns what a convolution and its TREC form have in common, by field."""
    return {field.name: getattr(op, field.name) for field in fields(Convolution)}
