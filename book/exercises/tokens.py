"""The exercises on tokens: chapter 16."""

import random

from tinyredux.course.teaching import exercise


@exercise(
    "chapter16.centred_and_spread", lambda chance: ([chance.randint(-128, 127) for _ in range(chance.randint(1, 12))],),
    edges=(([5, 5, 5],), ([-128, 127],), ([7],), ([1, 2, 4],), ([-128] * 4,)),
)  # fmt: skip
def centred_and_spread(token: list[int]) -> tuple[list[int], int]:
    """Returns a token less its mean, times its length, and its variance times the square of that."""
    n, total = len(token), sum(token)
    return [n * value - total for value in token], n * sum(value * value for value in token) - total * total


def _draw_shared(chance: random.Random) -> tuple[int, int, int, list[int]]:
    rows, bits = chance.choice((16, 64, 196)), chance.randint(1, 8)
    outputs = [chance.choice((32, 64, 96, 192)) for _ in range(chance.randint(1, 3))]
    return rows, bits, chance.randint(1, min(rows, 1 << bits)), outputs


@exercise(
    "chapter16.products_left", _draw_shared,
    edges=((64, 4, 16, [96, 96, 96]), (64, 4, 16, [96]), (64, 8, 64, [32]), (1, 1, 1, [32])),
)  # fmt: skip
def products_left(rows: int, bits: int, clusters: int, outputs: list[int]) -> float:
    """Returns the share of the products of layers with so many outputs that one hash for all of them leaves, its own included."""
    return bits / sum(outputs) + clusters / rows
