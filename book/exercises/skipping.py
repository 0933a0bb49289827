"""The exercises of lab 5: significance, units, the repair of the bias, and the front of what is worth having."""

import random
from typing import Any

from tinyredux.course.teaching import exercise

Row = list[int]
Point = tuple[int, int]


def _draw_share(chance: random.Random) -> tuple[Any, ...]:
    count = chance.randint(1, 6)
    images = [[chance.randint(-128, 127) for _ in range(count)] for _ in range(chance.randint(1, 5))]
    return [chance.randint(-127, 127) for _ in range(count)], images


def _draw_repair(chance: random.Random) -> tuple[Any, ...]:
    count = chance.randint(1, 8)
    means = [chance.randint(-300, 300) / 3 for _ in range(count)]  # their sums are never halves, which one may round either way
    kept = [chance.random() < 0.5 for _ in range(count)]
    return [chance.randint(-127, 127) for _ in range(count)], kept, means, chance.randint(-5000, 5000)


def _draw_front(chance: random.Random) -> tuple[Any, ...]:
    return ([(chance.randint(1, 12), chance.randint(1, 12)) for _ in range(chance.randint(0, 12))],)


def _draw_points(arguments: tuple[Any, ...], expected: Any, found: Any) -> Any:
    """Draws points of (cycles, right): those of the front, those found that are none, and those missed."""
    from tinyredux.notebook.plots_style import GREEN, GREY, RED, Picture, figure_with_axes, styled

    @styled
    def drawn(points: list[Point], given: list[Point]) -> Picture:
        missed, extra = [p for p in expected if p not in given], [p for p in given if p not in expected]
        figure, (axes,) = figure_with_axes(8.6, 2.8)
        sets = (
            (points, "o", GREY, "points"),
            (expected, "o", GREEN, "front"),
            (missed, "s", RED, "missed"),
            (extra, "x", RED, "extra"),
        )
        for which, marker, colour, label in sets:
            axes.plot([p[0] for p in which], [p[1] for p in which], marker, color=colour, ms=8, label=f"{label}: {len(which)}")
        axes.set(xlabel="cycles", ylabel="right", title=f"{len(missed)} missed, {len(extra)} too many")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        said = f"{len(points)} points, {len(expected)} on the front, {len(missed)} missed, {len(extra)} too many"
        return Picture(figure, f"{said}.")

    return drawn(arguments[0], [tuple(point) for point in found])


@exercise(
    "lab5.share", _draw_share, near=1e-6,
    edges=(([2, -3], [[1, 1]]), ([1, 1], [[0, 0], [0, 0]]), ([5, -5], [[1, 1], [3, 3]])),
)  # fmt: skip
def share(weights: Row, inputs: list[Row]) -> list[float]:
    """Returns E|w_i a_i| / |sum_j E[w_j a_j]| of each product, or / 1 where the sum is smaller than that."""
    products = [[w * a for w, a in zip(weights, row, strict=True)] for row in inputs]
    whole = max(1, abs(sum(map(sum, products))) / len(inputs))
    return [sum(map(abs, column)) / len(inputs) / whole for column in zip(*products, strict=True)]


@exercise(
    "lab5.saved", lambda chance: ([chance.random() < 0.6 for _ in range(chance.randint(1, 16))],),
    edges=(([True, True],), ([True, False, True, False],), ([False, False, False, False, True],), ([True] * 8,)),
)  # fmt: skip
def saved(unimportant: list[bool]) -> int:
    """Returns how many SMLADs are saved: of each four operands the first and third are a pair, the second and fourth another."""
    padded = [*unimportant, *[True] * (-len(unimportant) % 4)]
    fours = [padded[i : i + 4] for i in range(0, len(padded), 4)]
    return sum((four[0] and four[2]) + (four[1] and four[3]) for four in fours)


@exercise(
    "lab5.repaired_bias", _draw_repair,
    edges=(([3, 4], [True, True], [10.0, 10.0], 7), ([3, 4], [False, True], [10.25, 10.0], -1)),
)  # fmt: skip
def repaired_bias(weights: Row, kept: list[bool], means: list[float], bias: int) -> int:
    """Returns the bias plus the mean of what is left out, to the nearest integer."""
    lost = sum(weight * mean for weight, keep, mean in zip(weights, kept, means, strict=True) if not keep)
    return bias + round(lost)


@exercise("lab5.front", _draw_front, edges=(([],), ([(5, 5), (5, 5)],), ([(5, 5), (5, 7), (4, 5)],)), picture=_draw_points)
def front(points: list[Point]) -> list[Point]:
    """Returns the (cycles, right) that no other point beats in both, fewest cycles first, equal points once."""
    found: list[Point] = []
    for cycles, right in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not found or right > found[-1][1]:
            found.append((cycles, right))
    return found
