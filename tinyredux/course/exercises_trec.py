"""The exercises of lab 4, hashing and clustering: the library's own functions judge."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from tinyredux import fixedpoint
from tinyredux.course.teaching import Exercise
from tinyredux.trec import hashing

Rows = list[list[int]]


def hash_ids(projections: Rows) -> list[int]:
    """Returns each row's id: bit h is set where its projection h is above the mean of all rows' projections h."""
    return [int(found) for found in hashing.hash_ids(hashing.hash_bits(np.array(projections)[None], "mean"))[0]]


def stack(ids: list[int]) -> tuple[list[int], list[int]]:
    """Returns the slot of each row and the members of each slot; a new id takes the next slot."""
    seen = list(dict.fromkeys(ids))
    return [seen.index(each) for each in ids], [ids.count(each) for each in seen]


def mean(total: int, count: int) -> int:
    """Returns total / count to the nearest integer, halves up."""
    return int(fixedpoint.rounded_mean(np.array(total), np.array(count)))


def clustered_sums(rows: Rows, weights: Rows, bits: int) -> Rows:
    """Returns the sums of one block for every row and output: the first `bits` filters hash, and their sums are exact."""
    matrix, filters = np.array(rows), np.array(weights)
    exact = matrix @ filters.T
    found = hashing.cluster(np.array(hash_ids(exact[:, :bits].tolist()))[None])
    means = fixedpoint.rounded_mean(found.sums(matrix).astype(np.int64), found.counts[:, None])
    shared = (means @ filters.T)[found.slot]
    shared[:, :bits] = exact[:, :bits]
    return [[int(value) for value in row] for row in shared]


def _rows(chance: random.Random, count: int, length: int, limit: int) -> Rows:
    return [[chance.randint(-limit, limit) for _ in range(length)] for _ in range(count)]


def _draw_sums(chance: random.Random) -> tuple[Any, ...]:
    length, outputs = chance.randint(1, 6), chance.randint(2, 5)
    rows = _rows(chance, chance.randint(1, 9), length, 20)
    return rows, _rows(chance, outputs, length, 9), chance.randint(1, min(3, outputs))


EXERCISES = (
    Exercise(
        "lab4.hash_ids", lambda chance: (_rows(chance, chance.randint(1, 9), chance.randint(1, 4), 50),), hash_ids,
        ("Sum each column first: a projection is above the mean where it times the number of rows is above the sum.",
         "Bit h weighs 2**h. A row whose projection equals the mean has bit 0."),
        (([[3]],), ([[1], [2]],), ([[-1], [-2], [-2]],), ([[5, -5], [-5, 5], [0, 0]],)),
    ),
    Exercise(
        "lab4.stack", lambda chance: ([chance.randint(0, 7) for _ in range(chance.randint(1, 20))],), stack,
        ("Keep a dictionary from id to slot: the reversed ids.",
         "An id that is not in the dictionary takes the slot len(dictionary)."),
        (([4],), ([4, 4],), ([7, 0, 7, 3],)),
    ),
    Exercise(
        "lab4.mean", lambda chance: (chance.randint(-20000, 20000), chance.randint(1, 256)), mean,
        ("Python's // rounds towards minus infinity.", "floor(total / count + 1/2) = floor((2 * total + count) / (2 * count))."),
        ((1, 2), (-1, 2), (-3, 2), (5, 1), (0, 7), (-32768, 256)),
    ),
    Exercise(
        "lab4.clustered_sums", _draw_sums, clustered_sums,
        ("The projections are the products of the rows with the first `bits` filters: hash those.",
         "Average the members of each cluster with your mean, column by column, then multiply the means with all filters.",
         "At the end put the projections in the place of the first `bits` outputs."),
        (([[1, 2]], [[1, 0], [0, 1]], 1), ([[1, 2], [3, 4], [9, -9]], [[1, 0], [1, 1]], 1)),
    ),
)  # fmt: skip
