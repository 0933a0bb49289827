"""Pictures for part III of the book: redundancy, TREC, learned hashing, skipping."""

from __future__ import annotations

import numpy as np
from kit import BLUE, GREEN, ORANGE, SKY, SMALL, Drawing


def trec_pipeline() -> Drawing:
    """The example of the chapter: six rows, one bit, two clusters, their means, products, and the rows that come back."""
    rows = np.array([[1, 2, 9, 0], [1, 3, 8, 1], [7, 7, 0, 2], [2, 2, 9, 1], [8, 7, 1, 2], [7, 8, 1, 1]])
    weights = np.array([[1, -1, 2, 0], [0, 3, -2, 1], [2, 1, 1, -1]])
    projections = rows @ weights[0]
    ids = (projections > projections.mean()).astype(int)
    order = list(dict.fromkeys(ids.tolist()))
    slots = [order.index(i) for i in ids]
    sums = np.array([rows[ids == i].sum(0) for i in order])
    counts = [int((ids == i).sum()) for i in order]
    means = np.array([(2 * s + n) // (2 * n) for s, n in zip(sums, counts, strict=True)])
    products = means @ weights.T
    colours = (ORANGE, BLUE)
    of_row = [colours[slot] for slot in slots]

    d = Drawing(
        400,
        "Six rows of four numbers are hashed with one bit each. Two clusters of three rows are added up and divided, and only "
        "the two means are multiplied by the weights of three channels; every row takes the products of its cluster. "
        f"Slots of the rows: {slots}; means {means.tolist()}; products {products.tolist()}.",
    )
    top = 62
    d.text(14, 26, "rows", bold=True)
    d.text(14, 44, "one per pixel", SMALL)
    d.matrix(14, top, rows.tolist(), fills=[[colour] * 4 for colour in of_row])
    d.text(164, 26, "one bit each", bold=True)
    d.text(164, 44, "row · first filter > mean", SMALL)
    cells = [[f"{int(p)}", f"{i}"] for p, i in zip(projections, ids, strict=True)]
    d.matrix(164, top, cells, fills=[["none", colour] for colour in of_row])
    d.arrow((136, top + 66), (160, top + 66))
    d.text(352, 26, "sums and counts", bold=True)
    d.text(352, 44, "a slot for each id that occurs", SMALL)
    for slot in range(2):
        y = top + 22 + slot * 52
        d.matrix(352, y, [[*sums[slot].tolist(), f"÷{counts[slot]}"]], cell=(34, 22), fills=[[colours[slot]] * 4 + ["none"]])
        for i, own in enumerate(slots):
            if own == slot:
                d.line([(226, top + 11 + 22 * i), (348, y + 11)], colours[slot], 1.2)
    y = 240
    d.text(352, y + 4, "means", bold=True)
    d.matrix(352, y + 14, means.tolist(), cell=(34, 22), fills=[[c] * 4 for c in colours])
    d.arrow((437, top + 102), (437, y - 14))
    d.text(442, y - 24, "divide, rounded", SMALL)
    d.text(164, y + 4, "products", bold=True)
    d.matrix(164, y + 14, products.tolist(), cell=(34, 22), fills=[[c] * 3 for c in colours])
    d.arrow((346, y + 36), (272, y + 36))
    d.text(310, y + 28, "× weights", SMALL, "middle")
    d.text(164, y + 78, "two rows multiplied,", SMALL)
    d.text(164, y + 95, "not six", SMALL)
    d.text(14, y + 4, "output", bold=True)
    d.matrix(14, y + 14, [products[slot].tolist() for slot in slots], cell=(34, 22), fills=[[colour] * 3 for colour in of_row])
    d.arrow((158, y + 36), (122, y + 36))
    d.text(536, y + 20, "Every row takes the", SMALL)
    d.text(536, y + 37, "products of its slot.", SMALL)
    d.text(536, y + 66, "Weights of 3 channels:", SMALL)
    d.matrix(536, y + 74, weights.tolist(), cell=(30, 20))
    return d


def planes() -> Drawing:
    """Points in the plane and two lines: through the mean they cut four clusters, through zero hardly any."""
    rng = np.random.default_rng(3)
    centres = np.array([[1.2, 2.6], [3.2, 3.0], [1.0, 0.8], [3.0, 1.0]])
    points = np.concatenate([c + rng.normal(0, 0.33, (9, 2)) for c in centres])
    vectors = np.array([[1.0, 0.15], [-0.2, 1.0]])
    colours, unit, y0 = (BLUE, ORANGE, GREEN, SKY), 62.0, 300.0
    panels = []
    for x0, middle, title in ((40.0, points.mean(0), "thresholds at the mean"), (380.0, np.zeros(2), "thresholds at zero")):
        ids = ((points - middle) @ vectors.T > 0) @ np.array([1, 2])
        panels.append((x0, middle, title, ids))
    sizes = [", ".join(str(int((ids == i).sum())) for i in np.unique(ids)) for *_, ids in panels]
    d = Drawing(
        330,
        f"{len(points)} points that are never negative, as behind a ReLU, and two straight lines. Lines through the mean cut "
        f"them into clusters of {sizes[0]} points, each with its mean as a square; lines through zero into {sizes[1]}.",
    )
    for x0, middle, title, ids in panels:
        d.text(x0, 24, title, bold=True)
        d.arrow((x0, y0), (x0 + 4.4 * unit, y0))
        d.arrow((x0, y0), (x0, y0 - 4.2 * unit))
        for vector in vectors:
            ends = middle + np.linspace(-6, 6, 1201)[:, None] * np.array([-vector[1], vector[0]])
            inside = ends[((ends >= -0.2) & (ends <= (4.2, 4.0))).all(1)]
            d.line([(float(x0 + x * unit), float(y0 - y * unit)) for x, y in inside[[0, -1]]], dashed=True)
        for (x, y), i in zip(points, ids, strict=True):
            d.dot(float(x0 + x * unit), float(y0 - y * unit), 4, colours[i])
        for i in np.unique(ids):
            x, y = (float(v) for v in points[ids == i].mean(0) * unit)
            d.box(x0 + x - 7, y0 - y - 7, 14, 14, fill=colours[i], alpha=1, round_by=0)
            d.text(x0 + x + 11, y0 - y - 10, f"{i >> 1}{i & 1}: {int((ids == i).sum())}", SMALL, bold=True)
        d.text(x0 + 2.2 * unit, y0 + 20, f"{len(np.unique(ids))} clusters of {len(points)} rows", SMALL, "middle")
    return d
