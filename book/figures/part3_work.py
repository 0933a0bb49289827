"""Pictures for part III of the book: redundancy, TREC, learned hashing, skipping."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from kit import BLUE, GREEN, GREY, INK, LARGE, ORANGE, PALE, PINK, RECORDS, RED, SKY, SMALL, Drawing

from tinyredux import find_board
from tinyredux.codegen import limits
from tinyredux.explore.bench import layer_forms, layer_graph, parse_spec
from tinyredux.kernels import Form, operator_cycles
from tinyredux.kernels.cycles import table
from tinyredux.kernels.trec import loops, part_length, rounds
from tinyredux.skip import UNITS
from tinyredux.trec import trec_sizes

BOARD = find_board("disco_f469ni")


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


def units() -> Drawing:
    """The units that kernels can skip, each on the weights of a kernel of 2x2 taps, four input and two output channels."""
    d = Drawing(
        404,
        "The weights of two output channels A and B as grids: a row per tap of a 2x2 kernel, a column per input channel. A "
        "pair is operands 0 and 2 of one tap in A alone; a block the same in both; a row one channel in the two taps of a "
        "kernel row; a tap all channels of one tap; channels two input channels in all taps; a line a kernel row in all channels; input one channel everywhere.",
    )
    everywhere = [(tap, k) for tap in range(4) for k in range(4)]
    chosen = {
        "pair": [(0, 0), (0, 2)], "block": [(0, 0), (0, 2)], "row": [(0, 0), (1, 0)], "tap": [(0, k) for k in range(4)],
        "channels": [(tap, k) for tap, k in everywhere if k in (0, 2)], "line": [(tap, k) for tap, k in everywhere if tap < 2],
        "input": [(tap, 0) for tap in range(4)],
    }  # fmt: skip
    cell = 17.0
    for i, (name, weights) in enumerate(chosen.items()):
        x, y = 20 + i % 4 * 168.0, 24 + i // 4 * 186.0
        d.text(x, y, name, bold=True)
        d.text(x, y + 18, _meaning(UNITS[name].meaning), SMALL)
        for k, channel in enumerate("AB"):
            left, top = x + k * 78, y + 90
            d.text(left + 2 * cell, top - 5, channel, SMALL, "middle")
            for tap, c in everywhere:
                off = (tap, c) in weights and (name != "pair" or k == 0)
                fill = ORANGE if off else SKY
                d.box(left + c * cell, top + tap * cell, cell, cell, fill=fill, alpha=0.9 if off else 0.2, round_by=0)
    d.note(524, 300, "A row is a tap, a column an input channel. Orange weights are left out as one: that saves instructions.")
    return d


def _meaning(words: str) -> str:
    """Returns a meaning in lines that fit a panel."""
    return "\n".join(textwrap.wrap(words, 23))


def share_and_walk() -> Drawing:
    """The sum of one output as a walk over its operands, and two ways to say how much an operand matters."""
    steps = [9.0, -4.0, 0.5, 7.0, -8.5, 1.0, -0.5, 3.0]
    path = np.concatenate([[0], np.cumsum(steps)])
    share = [abs(v) / abs(float(path[-1])) for v in steps]
    d = Drawing(
        286,
        f"Eight products of one output added one after the other: {', '.join(str(v) for v in steps)}; the sum ends at "
        f"{path[-1]:g}. Below, each product's size over the sum's, up to {100 * max(share):.0f} per cent; the smallest are the least "
        "significant.",
    )
    x0, y0, unit, wide = 60.0, 150.0, 7.0, 74.0
    d.text(20, 26, "the sum as a walk", bold=True)
    d.line([(x0, y0), (x0 + 8 * wide, y0)], PALE)
    d.text(x0 - 8, y0 + 4, "0", SMALL, "end")
    for i, value in enumerate(steps):
        a, b = y0 - float(path[i]) * unit, y0 - float(path[i + 1]) * unit
        x = x0 + (i + 0.5) * wide
        d.line([(x0 + i * wide, a), (x, a)], GREY, 1, dashed=True)
        if abs(value) > 1.4:
            d.arrow((x, a), (x, b), colour=GREEN if value > 0 else RED, width=2.2)
        else:
            d.dot(x, b, 4, GREY)
        d.text(x + 8, (a + b) / 2 + 4, f"{value:+g}", SMALL)
        d.line([(x, b), (x0 + (i + 1) * wide, b)], GREY, 1, dashed=True)
    end = y0 - float(path[-1]) * unit
    d.text(x0 + 8 * wide - 6, end - 8, f"{path[-1]:g}", bold=True, anchor="end")
    d.text(20, 214, "share: size of the product over size of the sum", bold=True)
    for i, value in enumerate(share):
        x = x0 + i * wide
        d.box(x, 262 - 33 * value, wide - 14, 33 * value, fill=GREY if value < 0.2 else BLUE, alpha=0.6, round_by=0)
        d.text(x + wide / 2 - 7, 278, f"{100 * value:.0f} %", SMALL, "middle")
    return d


def fields_in_a_register() -> Drawing:
    """A 64-bit accumulator as three fields of 21 bits, what one product adds to each, and the borrow between them."""
    d = Drawing(
        262,
        "A register pair of 64 bits, cut into three fields of 21 bits. One product of two packed words adds x1 times w0 to the "
        "high field, x0 times w0 plus x1 times w1 to the middle one, and x0 times w1 to the low one. A negative low field borrows one from its neighbour.",
    )
    x0, wide = 60.0, 560.0
    d.text(20, 26, "one SMLAL: two weights packed into a word times two pixels packed into a word", bold=True)
    for k, (words, colour) in enumerate((("w0 at bit 21", ORANGE), ("w1 at bit 0", ORANGE))):
        d.box(60 + k * 130, 44, 130, 30, words, colour, alpha=0.5, size=SMALL, round_by=0)
    d.text(340, 65, "×", LARGE, "middle", bold=True)
    for k, (words, colour) in enumerate((("x1 at bit 21", BLUE), ("x0 at bit 0", BLUE))):
        d.box(360 + k * 130, 44, 130, 30, words, colour, alpha=0.5, size=SMALL, round_by=0)
    d.arrow((340, 82), (340, 112))
    d.text(14, 132, "64-bit\nsum", SMALL)
    thirds = (("x1·w0", "begins the odd output, right"), ("x0·w0 + x1·w1", "the even output"), ("x0·w1", "the odd output, left"))
    for k, (words, meaning) in enumerate(thirds):
        x = x0 + k * wide / 3
        d.box(x, 118, wide / 3, 34, words, (GREEN, PINK, SKY)[k], alpha=0.5, round_by=0)
        d.text(x + wide / 6, 170, meaning, SMALL, "middle")
        d.text(x + 4, 114, f"bit {62 - 21 * k}", SMALL)
    d.arrow((x0 + 2 * wide / 3 + 40, 186), (x0 + 2 * wide / 3 - 30, 186), colour=RED)
    d.text(x0 + 2 * wide / 3 + 46, 190, "borrows one when negative", SMALL, colour=RED)
    d.note(
        20, 222,
        "A field is emptied before it can leave its 21 bits; adding one where the field below is negative undoes the borrow "
        "exactly. One instruction makes four products: for neighbouring pixels of one row all of them count.",
    )  # fmt: skip
    return d


def winograd_tile() -> Drawing:
    """F(2x2, 3x3): a tile of 4x4 inputs and a kernel of 3x3, transformed, multiplied place by place, and folded to 2x2 outputs."""
    d = Drawing(
        270,
        "A tile of 4 by 4 inputs is transformed by additions; a kernel of 3 by 3 is transformed once, beforehand, to 4 by 4. "
        "Their 16 products, place by place, fold by additions into 2 by 2 outputs, for which the direct way takes 36 products.",
    )
    cell = 24.0

    def grid(x: float, y: float, side: int, colour: str, alpha: float = 0.4) -> None:
        for i in range(side):
            for k in range(side):
                d.box(x + k * cell, y + i * cell, cell, cell, fill=colour, alpha=alpha, round_by=0)

    d.text(20, 26, "inputs, 4x4", bold=True)
    grid(20, 40, 4, BLUE)
    d.text(20, 164, "kernel, 3x3", bold=True)
    grid(20, 178, 3, ORANGE)
    d.arrow((122, 88), (186, 88))
    d.text(154, 78, "adds", SMALL, "middle")
    grid(194, 40, 4, BLUE, 0.7)
    d.arrow((98, 212), (186, 212))
    d.text(142, 202, "beforehand", SMALL, "middle")
    grid(194, 164, 4, ORANGE, 0.7)
    d.text(314, 150, "×", LARGE, "middle", bold=True)
    d.line([(294, 88), (314, 88), (314, 132)])
    d.line([(294, 212), (314, 212), (314, 158)])
    d.arrow((326, 146), (366, 146))
    d.text(376, 84, "16 products", bold=True)
    grid(376, 98, 4, PINK, 0.5)
    d.arrow((476, 146), (540, 146))
    d.text(508, 136, "adds", SMALL, "middle")
    d.text(548, 108, "outputs, 2x2", bold=True)
    grid(548, 122, 2, GREEN, 0.6)
    d.text(376, 226, "Direct: 4 outputs of 9 products, 36.", SMALL)
    d.text(376, 243, "In int8 the transformed values need more", SMALL)
    d.text(376, 260, "bits, which is why scratch holds 16 of them.", SMALL)
    return d


def trec_memory() -> Drawing:
    """Scratch of the naive form and of ours, for every layer that was trained with TREC."""
    layers = json.loads((RECORDS / "trec_memory.json").read_text())["layers"]
    rows = [
        (f"{one['net']}, {one['layer'].removeprefix('body.')}", one["naive"]["written"], one["ours"]["written"]) for one in layers
    ]
    said = "; ".join(f"{name} {naive:,} and {ours:,} bytes" for name, naive, ours in rows)
    d = Drawing(62 + 36 * len(rows), f"Pairs of bars, bytes of scratch that were written, naive and ours: {said}.")
    most = max(naive for _, naive, _ in rows)
    d.text(14, 24, "bytes of scratch, as written", bold=True)
    for i, (name, naive, ours) in enumerate(rows):
        y = 38 + 36 * i
        d.text(14, y + 18, name, SMALL)
        d.box(220, y, 330 * naive / most, 12, fill=ORANGE, alpha=0.6, round_by=0)
        d.box(220, y + 14, max(1, 330 * ours / most), 12, fill=BLUE, alpha=0.9, round_by=0)
        d.text(228 + 330 * naive / most, y + 12, f"{naive:,}", SMALL)
        d.text(228 + 330 * ours / most, y + 26, f"{ours:,}, {naive / ours:.1f} times less", SMALL)
    bottom = 44 + 36 * len(rows)
    d.text(
        14,
        bottom + 10,
        "Orange: the whole matrix and a place for each id. Blue: stacks of clusters, a slice of the outputs.",
        SMALL,
    )
    return d


def bits_and_pots() -> Drawing:
    """Right answers and the share of rows removed, by bits of the hash, and by how many images share their clusters."""
    bits, scope = (json.loads((RECORDS / f"trec_{name}.json").read_text()) for name in ("bits", "scope"))
    curve = [(run["hash_bits"], run["correct"], next(iter(run["redundancy"].values()))) for run in bits["runs"]]
    pots = [(run["together"], run["correct"], next(iter(run["redundancy"].values()))) for run in scope["runs"]]
    exact, total = bits["correct_exact"]["zfnet"], bits["validation_images"]
    said = "; ".join(f"{n} bits {right} right, {share:.0%} removed" for n, right, share in curve)
    more = "; ".join(f"{n} images in a pot {right} right, {share:.0%} removed" for n, right, share in pots)
    d = Drawing(276, f"Two panels. zfnet by bits of the hash, {exact} of {total} right exactly: {said}. cifarnet: {more}.")
    d.text(14, 24, "more bits, more clusters (zfnet)", bold=True)
    x0, y0 = 66.0, 220.0

    def at(n: int, right: float) -> tuple[float, float]:
        return x0 + (n - 1) * 52, y0 - 170 * (right / total - 0.8) / 0.08

    for share in (0.80, 0.82, 0.84, 0.86, 0.88):
        d.line([(x0 - 6, at(1, share * total)[1]), (x0 + 280, at(1, share * total)[1])], PALE, 1)
        d.text(x0 - 12, at(1, share * total)[1] + 4, f"{share:.0%}", SMALL, "end")
    d.line([(x0 - 6, at(1, exact)[1]), (x0 + 280, at(1, exact)[1])], INK, 1.2, dashed=True)
    d.text(x0 + 200, at(1, exact)[1] - 6, "exact network", SMALL)
    d.line([at(n, right) for n, right, _ in curve], BLUE, 2)
    for n, right, share in curve:
        d.dot(*at(n, right), 5, BLUE)
        d.text(at(n, right)[0], at(n, right)[1] + 20, f"{share:.0%}", SMALL, "middle", colour=BLUE)
        d.text(at(n, right)[0], y0 + 20, str(n), SMALL, "middle")
    d.text(x0, y0 + 40, "bits; in blue the share of rows removed", SMALL)
    d.text(400, 24, "one image, or a pot (cifarnet)", bold=True)
    for i, (n, right, share) in enumerate(pots):
        y = 60 + 74 * i
        d.text(400, y, f"{n} image{'s' * (n > 1)} clustered together", SMALL)
        d.box(400, y + 8, 250 * right / total, 18, fill=BLUE, alpha=0.6)
        d.text(408, y + 22, f"{right / total:.1%} right", SMALL)
        d.box(400, y + 30, 250 * share, 12, fill=ORANGE, alpha=0.6)
        d.text(408, y + 56, f"{share:.1%} of rows removed", SMALL, colour=ORANGE)
    d.note(
        400,
        226,
        "A pot of a hundred images removes more rows than any single image could, and what it computes is no longer an answer about one.",
    )
    return d


def surrogate_gradients() -> Drawing:
    """The gradient that a row's hash bit lets through, over its distance from the threshold."""
    d = Drawing(
        280,
        "Over the projection, from -4 to 4 spreads: the hash bit, a step at zero; the logistic membership that training uses in its place, "
        "whose slope is largest at the threshold and small far away; and a step's own slope, zero everywhere but at the threshold.",
    )
    x0, wide = 344.0, 76.0

    def curve(values: list[float], base: float, tall: float) -> list[tuple[float, float]]:
        return [(x0 + (-4 + i / 20) * wide, base - tall * v) for i, v in enumerate(values)]

    places = [-4 + i / 20 for i in range(161)]
    soft = [1 / (1 + math.exp(-p)) for p in places]
    slope = [4 * v * (1 - v) for v in soft]
    d.text(14, 24, "what the forward pass computes", bold=True)
    d.line([(40, 110), (x0, 110), (x0, 46), (648, 46)], ORANGE, 2.2)
    d.line(curve(soft, 110, 64), BLUE, 2)
    d.text(470, 66, "a chance, logistic", SMALL, colour=BLUE)
    d.text(360, 104, "the bit", SMALL, colour=ORANGE)
    d.text(14, 150, "what the backward pass may learn from", bold=True)
    d.line([(40, 236), (648, 236)], ORANGE, 2.2)
    d.line(curve(slope, 236, 64), BLUE, 2)
    d.text(420, 184, "every row says a little", SMALL, colour=BLUE)
    d.text(46, 254, "of the bit itself: nothing", SMALL, colour=ORANGE)
    d.line([(x0, 36), (x0, 240)], GREY, 1, dashed=True)
    d.text(x0, 258, "threshold", SMALL, "middle")
    d.text(648, 258, "projection, in spreads", SMALL, "end")
    return d


def threshold_matters() -> Drawing:
    """How rows behind a ReLU fall on the two sides of a threshold at zero and of one at the mean."""
    rng = np.random.default_rng(0)
    rows, vector = np.maximum(rng.normal(0.3, 1, (4000, 32)), 0), rng.normal(0, 1, 32) + 0.25
    projections = rows @ vector
    mean = float(projections.mean())
    shares = [float((projections > threshold).mean()) for threshold in (0.0, mean)]
    counts, edges = np.histogram(projections, 48, (-8, 24))
    d = Drawing(
        250,
        f"A histogram of the projections of 4,000 rows that are never negative onto one vector. {shares[0]:.0%} of them lie above zero, "
        f"so that bit says little; {shares[1]:.0%} lie above their mean.",
    )

    def at(value: float) -> float:
        return 40 + 608 * (value + 8) / 32

    for count, left, right in zip(counts, edges, edges[1:], strict=False):
        tall = 150 * float(count) / float(counts.max())
        d.box(
            at(float(left)),
            200 - tall,
            at(float(right)) - at(float(left)),
            tall,
            fill=SKY if left < mean else BLUE,
            alpha=0.6,
            round_by=0,
        )
    for value, words, colour, anchor in (
        (0.0, f"zero: {shares[0]:.0%} above", RED, "end"),
        (mean, f"mean: {shares[1]:.0%} above", INK, "start"),
    ):
        d.line([(at(value), 30), (at(value), 206)], colour, 1.8, dashed=True)
        d.text(at(value) + (8 if anchor == "start" else -8), 40, words, SMALL, anchor, bold=True, colour=colour)
    d.text(344, 224, "projection of a row onto one hash vector", SMALL, "middle")
    d.text(344, 242, "A bit tells most where it splits the rows in halves.", SMALL, "middle")
    return d


def _forms(layer: str) -> list[Form]:
    """Returns the forms of a layer whose scratch the compiler allows where nobody sets a limit, the fastest first."""
    net = layer_graph(parse_spec(layer))
    room = limits(BOARD, None, net)[0] - sum(tensor.size_bytes for tensor in net.tensors.values())
    return [form for form in layer_forms(layer, BOARD) if form.scratch_bytes <= room]


def _phases(layer: str) -> Iterator[tuple[str, float]]:
    """Yields the steps of a TREC layer with their predicted cycles on the F469's core; they add up to the form's."""
    net, form = layer_graph(parse_spec(layer)), _forms(layer)[0]
    sizes = replace(trec_sizes(net, net.ops[0]), slice_c=int(form.name.removeprefix("trec_")))
    prices, part = table()[BOARD.cpu]["trec loops"], part_length(sizes)
    project, add, product, recover = (prices[0] * cycles for cycles in loops(sizes, part, form.functions, BOARD.cpu))
    _, assign, mean, exact, widen, copy, finish = (
        price * times for price, times in zip(prices, rounds(sizes, part, form.functions, BOARD.cpu), strict=True)
    )
    yield "hash: project the rows", project
    yield "ids: find the slots", assign
    yield "sums: add up members", add
    yield "means: divide", mean
    yield "multiply the means", product + widen
    yield "recover the outputs", recover + exact + copy + finish


def trec_waterfall() -> Drawing:
    """The steps of TREC in two layers, one after the other, beside what exact kernels take for the same layer."""
    layers = (("conv1x1:128-256@16x16", "/L128H5", "1x1, 128 to 256 channels, 16x16, five bits"),
              ("conv3x3:32-128@16x16", "/L32H4", "3x3, 32 to 128 channels, 16x16, four bits"))  # fmt: skip
    panels, said = [], []
    for layer, bits, title in layers:
        net, forms = layer_graph(parse_spec(layer)), _forms(layer)
        exact = [("exact, reference kernel", operator_cycles(net, net.ops[0], BOARD.cpu), GREY)]
        if forms[0].name.startswith("winograd"):
            other = next(form for form in forms if not form.name.startswith("winograd"))
            exact += [("exact, fast, no Winograd", other.cycles, SKY), ("exact, fast, Winograd", forms[0].cycles, BLUE)]
        else:
            exact += [("exact, fast", forms[0].cycles, BLUE)]
        steps = list(_phases(layer + bits))
        whole = sum(cycles for _, cycles in steps)
        panels.append((title, exact, steps, whole))
        told = ", ".join(f"{name} {cycles / 1e6:.2f}" for name, cycles, *_ in [*exact, *steps])
        said.append(f"{title}: {told}, together {whole / 1e6:.2f}")
    d = Drawing(
        38 + sum(44 + 21 * (len(exact) + len(steps)) for _, exact, steps, _ in panels),
        f"Bars of predicted millions of cycles, exact kernels above, below them the steps of TREC one after the other. {'; '.join(said)}.",
    )
    y = 24.0
    for title, exact, steps, whole in panels:
        d.text(14, y, title, bold=True)
        most, at = exact[0][1], 0.0
        y += 10
        for name, cycles, colour in exact:
            d.text(14, y + 14, name, SMALL)
            d.box(206, y + 2, 400 * cycles / most, 16, fill=colour, alpha=0.7)
            d.text(212 + 400 * cycles / most, y + 15, f"{cycles / 1e6:.2f}", SMALL)
            y += 21
        for name, cycles in steps:
            x = 206 + 400 * at / most
            at += cycles
            d.text(14, y + 14, name, SMALL)
            d.box(x, y + 2, max(1.5, 400 * cycles / most), 16, fill=ORANGE, alpha=0.7, round_by=0)
            d.text(x + 8 + 400 * cycles / most, y + 15, f"{cycles / 1e6:.2f}", SMALL)
            y += 21
        fast = exact[-1][1]
        end = 206 + 400 * at / most
        d.text(
            end + 50, y - 6, f"TREC in all: {whole / 1e6:.2f}, {fast / whole:.2f} times as fast as fast exact", SMALL, bold=True
        )
        y += 34
    d.text(14, y - 6, "Millions of cycles, predicted from the kernels' instructions, as if every id were as likely.", SMALL)
    return d


def where_trec_wins() -> Drawing:
    """Predicted speedup of TREC over the fastest exact kernel, by output channels and bits; rings mark our trained layers."""
    outputs, bits = (32, 64, 128, 256), range(1, 7)
    panels = (("1x1, 64 input channels, one block", "conv1x1:64-{}@8x8", "/L64H{}", [(256, 4)]),
              ("3x3, 64 input channels, one block", "conv3x3:64-{}@8x8", "/L576H{}", [(64, 3), (256, 4)]))  # fmt: skip
    said, maps = [], []
    for title, layer, hashed, own in panels:
        times = {}
        for m in outputs:
            exact = _forms(layer.format(m))[0].cycles
            times |= {(m, h): exact / _forms(layer.format(m) + hashed.format(h))[0].cycles for h in bits}
        maps.append((title, times, own))
        rows = "; ".join(f"{h} bits {', '.join(f'{times[m, h]:.1f}' for m in outputs)}" for h in bits)
        said.append(f"{title}, for {', '.join(map(str, outputs))} outputs: {rows}")
    d = Drawing(304, f"Two tables of predicted speedups of TREC over the fastest exact kernel, maps of 8x8. {'. '.join(said)}.")
    for i, (title, times, own) in enumerate(maps):
        x0 = 46.0 + 344 * i
        d.text(x0, 24, title, bold=True)
        for k, m in enumerate(outputs):
            d.text(x0 + 35 + 70 * k, 48, f"M {m}", SMALL, "middle")
        for row, h in enumerate(bits):
            y = 56 + 32 * row
            d.text(x0 - 8, y + 21, f"H {h}", SMALL, "end")
            for k, m in enumerate(outputs):
                won = times[m, h]
                fill = BLUE if won > 1 else RED
                d.box(x0 + 70 * k, y, 70, 32, f"{won:.2f}", fill, PALE, min(0.8, 0.15 + 0.3 * abs(math.log2(won))), round_by=0)
                if (m, h) in own:
                    d.box(x0 + 70 * k + 4, y + 3, 62, 26, line=INK, round_by=13)
    d.text(14, 274, "Blue: TREC is so many times as fast as the fastest exact kernel. Orange: it is slower.", SMALL)
    d.text(14, 292, "Rings: layers of zfnet and squeezenet that were trained with so many bits and as many outputs.", SMALL)
    return d
