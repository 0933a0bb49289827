"""The exercises of lab 4, hashing and clustering."""

import random
from typing import Any

from tinyredux.course.teaching import exercise

Rows = list[list[int]]


def _rows(chance: random.Random, count: int, length: int, limit: int) -> Rows:
    return [[chance.randint(-limit, limit) for _ in range(length)] for _ in range(count)]


def _draw_sums(chance: random.Random) -> tuple[Any, ...]:
    length, outputs = chance.randint(1, 6), chance.randint(2, 5)
    rows = _rows(chance, chance.randint(1, 9), length, 20)
    return rows, _rows(chance, outputs, length, 9), chance.randint(1, min(3, outputs))


def _compared(arguments: tuple[Any, ...], expected: Any, found: Any) -> Any:
    """Draws the rows of a case beside the answers expected and found, those that differ in red."""
    from tinyredux.notebook import plots_labs

    return plots_labs.rows_compared(arguments[0], list(expected), list(found))


def _compared_slots(arguments: tuple[Any, ...], expected: Any, found: Any) -> Any:
    return _compared(([[each] for each in arguments[0]],), expected[0], found[0])


@exercise(
    "lab4.hash_ids", lambda chance: (_rows(chance, chance.randint(1, 9), chance.randint(1, 4), 50),),
    edges=(([[3]],), ([[1], [2]],), ([[-1], [-2], [-2]],), ([[5, -5], [-5, 5], [0, 0]],)), picture=_compared,
)  # fmt: skip
def hash_ids(projections: Rows) -> list[int]:
    """Returns each row's id: bit h is set where its projection h is above the mean of all rows' projections h."""
    count, sums = len(projections), [sum(column) for column in zip(*projections, strict=True)]
    above = [[count * value > total for value, total in zip(row, sums, strict=True)] for row in projections]
    return [sum(bit << h for h, bit in enumerate(row)) for row in above]


@exercise(
    "lab4.stack", lambda chance: ([chance.randint(0, 7) for _ in range(chance.randint(1, 20))],),
    edges=(([4],), ([4, 4],), ([7, 0, 7, 3],)), picture=_compared_slots,
)  # fmt: skip
def stack(ids: list[int]) -> tuple[list[int], list[int]]:
    """Returns the slot of each row and the members of each slot; a new id takes the next slot."""
    slots: dict[int, int] = {}
    found = [slots.setdefault(each, len(slots)) for each in ids]
    return found, [found.count(slot) for slot in range(len(slots))]


@exercise(
    "lab4.mean", lambda chance: (chance.randint(-20000, 20000), chance.randint(1, 256)),
    edges=((1, 2), (-1, 2), (-3, 2), (5, 1), (0, 7), (-32768, 256)),
)  # fmt: skip
def mean(total: int, count: int) -> int:
    """Returns total / count to the nearest integer, halves up."""
    return (2 * total + count) // (2 * count)


@exercise(
    "lab4.clustered_sums", _draw_sums, points=2, picture=_compared,
    edges=(([[1, 2]], [[1, 0], [0, 1]], 1), ([[1, 2], [3, 4], [9, -9]], [[1, 0], [1, 1]], 1)),
)  # fmt: skip
def clustered_sums(rows: Rows, weights: Rows, bits: int) -> Rows:
    """Returns the sums of one block for every row and output: the first `bits` filters hash, and their sums are exact."""
    exact = [[sum(a * w for a, w in zip(row, filters, strict=True)) for filters in weights[:bits]] for row in rows]
    slots, counts = stack(hash_ids(exact))
    shared = []
    for slot, count in enumerate(counts):
        members = [row for row, own in zip(rows, slots, strict=True) if own == slot]
        means = [mean(sum(column), count) for column in zip(*members, strict=True)]
        shared.append([sum(a * w for a, w in zip(means, filters, strict=True)) for filters in weights])
    return [own + shared[slot][bits:] for own, slot in zip(exact, slots, strict=True)]
