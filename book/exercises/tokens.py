"""The exercises on tokens: chapter 16 and lab 8."""

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


def _draw_scores(chance: random.Random) -> tuple[list[int], int]:
    return [chance.randint(-300, 300) for _ in range(chance.randint(1, 9))], chance.randint(1, 64)


@exercise(
    "lab8.weights", _draw_scores,
    edges=(([7], 3), ([5, 5, 5], 16), ([0, -1], 256), ([0, -13], 256), ([0, -14], 256), ([-300, 300], 64)),
)  # fmt: skip
def weights(scores: list[int], step: int) -> list[int]:
    """Returns 4096 times 2 to the power of each score less the largest, times step / 256; rounded, halves up."""
    largest = max(scores)
    return [int(4096 * 2.0 ** ((score - largest) * step / 256) + 0.5) for score in scores]


def _draw_queries(chance: random.Random) -> tuple[list[list[int]]]:
    kinds = [[chance.randint(-3, 3) for _ in range(2)] for _ in range(chance.randint(1, 5))]
    return ([list(chance.choice(kinds)) for _ in range(chance.randint(1, 12))],)


@exercise(
    "lab8.once", _draw_queries, edges=(([[1, 2]],), ([[1, 2], [2, 1], [1, 2]],), ([[0, 0], [0, 0]],), ([[3, 0], [1, 0], [2, 0]],))
)
def once(queries: list[list[int]]) -> tuple[list[int], list[int]]:
    """Returns the numbers of the queries that differ from all before, and for each query the number of the first one like it."""
    first = [queries.index(query) for query in queries]
    return sorted(set(first)), first


def _draw_block(chance: random.Random) -> tuple[int, int, int, int, int, int]:
    tokens, width, query_bits, mlp_bits = (
        chance.choice((16, 64, 196)),
        chance.choice((48, 96, 192)),
        chance.randint(1, 5),
        chance.randint(1, 5),
    )
    return (
        tokens,
        width,
        chance.randint(1, min(tokens, 1 << query_bits)),
        query_bits,
        chance.randint(1, min(tokens, 1 << mlp_bits)),
        mlp_bits,
    )


@exercise(
    "lab8.block_left",
    _draw_block,
    edges=((64, 96, 16, 4, 8, 3), (64, 96, 64, 6, 64, 6), (196, 192, 1, 1, 1, 1), (16, 48, 2, 1, 4, 2)),
)
def block_left(tokens: int, width: int, queries: int, query_bits: int, mlp: int, mlp_bits: int) -> float:
    """Returns the share of a block's products that is left where queries and both layers of the perceptron are hashed."""
    square = width * width
    exact = tokens * 8 * square + 2 * tokens * tokens * width
    linear = (queries + 3 * tokens + 4 * mlp) * square
    hashes = tokens * width * query_bits + tokens * 3 * width * mlp_bits
    return (linear + hashes + 2 * queries * tokens * width) / exact
