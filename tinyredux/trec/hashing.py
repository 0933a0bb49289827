"""Sign hashing and clustering of sub-vectors: what TREC finds redundant in one input, in real numbers or in integers.

A convolution's input as a matrix has one row per output pixel and K columns in the order (ky, kx, channel). Columns are cut
into blocks of L; inside a block, rows whose hashes are equal form a cluster and are replaced by their mean. Source: Guan et
al., NeurIPS 2022. Clusters never reach over images: a board sees one image at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Clusters:
    """Rows of all images by cluster: `slot` (images * N,) numbers each row's cluster, clusters of one image side by side."""

    slot: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    per_image: npt.NDArray[np.int64]

    def sums(self, rows: Array) -> Array:
        """Returns the members' sums (clusters, L) of rows (images * N, L), in float64."""
        order = np.argsort(self.slot, kind="stable")
        starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        return np.asarray(np.add.reduceat(rows[order], starts, axis=0, dtype=np.float64))


def blocks(columns: int, length: int) -> list[slice]:
    """Returns the column blocks of K columns: `length` each, the last one shorter where it does not divide K."""
    return [slice(start, min(start + length, columns)) for start in range(0, columns, length)]


def hash_bits(projections: Array, threshold: str) -> npt.NDArray[np.bool_]:
    """Returns the bits (images, N, H) of projections (images, N, H): each above zero, or above the mean over its N rows.

    For integers the mean is rounded down, which changes no comparison: p > S / N holds exactly where p > floor(S / N).
    """
    if threshold == "zero":
        return np.asarray(projections > 0)
    if projections.dtype.kind == "f":
        return np.asarray(projections > projections.mean(axis=1, keepdims=True))
    return np.asarray(projections > projections.sum(axis=1, keepdims=True) // projections.shape[1])


def hash_ids(bits: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Returns the hash value of each row (images, N): bit h weighs 2^h."""
    return np.asarray(bits.astype(np.int64) @ (1 << np.arange(bits.shape[2])), np.int64)


def cluster(ids: npt.NDArray[np.int64]) -> Clusters:
    """Returns the clusters of rows with equal ids (images, N), image by image."""
    images = len(ids)
    codes = int(ids.max(initial=0)) + 1
    keys, slot, counts = np.unique(ids + codes * np.arange(images)[:, None], return_inverse=True, return_counts=True)
    return Clusters(slot.reshape(-1), counts, np.bincount(keys // codes, minlength=images))


def redundancy(clusters: float, vectors: int) -> float:
    """Returns r_t, the share of sub-vectors that clustering removes, from the number of clusters left."""
    return 1 - clusters / vectors


def pigeonhole_floor(bits: int, rows: int) -> float:
    """Returns the share that any data loses with so few codes: 1 - 2^H / N, at least 0. Nothing can lose over 1 - 1 / N."""
    return max(0.0, 1 - (1 << bits) / rows)


@dataclass(frozen=True)
class Redundancy:
    """What clustering with so many bits does to sub-vectors: the share that goes, what any data loses, the error left.

    `error` is the squared distance of the vectors from their clusters' means, as a share of that from the mean of all.
    """

    bits: int
    vectors: int
    clusters: int
    removed: float
    floor: float
    error: float


def measure(rows: Array, vectors: Array, threshold: str = "mean") -> Redundancy:
    """Returns the redundancy of rows (groups, N, L), each group clustered by itself, under hash vectors (L, H).

    A group is a block of an image, or of several images at once; vectors (groups, L, H) give each group its own.
    """
    groups, count, length = rows.shape
    found = cluster(hash_ids(hash_bits(rows @ vectors, threshold)))
    flat = rows.reshape(-1, length).astype(np.float64)
    means = found.sums(flat) / found.counts[:, None]
    left = ((flat - means[found.slot]) ** 2).sum()
    spread = ((rows - rows.mean(axis=1, keepdims=True, dtype=np.float64)) ** 2).sum()
    clusters, bits, error = len(found.counts), vectors.shape[-1], float(left / max(spread, 1e-30))
    removed = redundancy(clusters, groups * count)
    return Redundancy(bits, groups * count, clusters, removed, pigeonhole_floor(bits, count), error)
