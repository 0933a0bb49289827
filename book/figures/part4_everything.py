"""Pictures for part IV of the book: the methods together, and the claims of the papers."""

from __future__ import annotations

import json
import math

import numpy as np
from kit import BLUE, GREEN, GREY, INK, ORANGE, PALE, PINK, RECORDS, RED, SKY, SMALL, Drawing

from tinyredux.course.claims import reproduce
from tinyredux.graph import Graph, Pool, Quant, Tensor
from tinyredux.notebook.trec_report import per_cent
from tinyredux.streaming import Rows, plan

METHODS = {"exact": BLUE, "trec": ORANGE, "skip": ORANGE, "partial": GREEN, "trec+partial": PINK, "skip+partial": PINK}
COLOURS = {"reproduced": GREEN, "exceeded": BLUE, "not reproduced": RED}


def claims() -> Drawing:
    """Every claim with a published figure: the band in which ours counts as reproduced, and ours, over the band's middle."""
    rows = [row for row in reproduce() if row["band"] and isinstance(row["ours"], float | int)]
    said = "; ".join(f"{row['id']} {row['published']} published, {row['ours']:g} ours, {row['verdict']}" for row in rows)
    d = Drawing(78 + 26 * len(rows), f"A row for each claim: {said}.")

    def at(ratio: float) -> float:
        return 470 + 190 * math.log2(max(0.5, min(2, ratio)))

    bottom = 44 + 26 * len(rows)
    d.line([(at(1), 30), (at(1), bottom)], PALE)
    for ratio, words in ((0.5, "half"), (1, "middle of the interval"), (2, "twice")):
        d.text(at(ratio), 22, words, SMALL, "end" if ratio == 2 else "middle")
    for i, row in enumerate(rows):
        y, (low, high), colour = 40 + 26 * i, row["band"], COLOURS[row["verdict"]]
        middle = (low + high) / 2
        d.text(14, y + 13, row["id"], SMALL)
        d.text(190, y + 13, row["published"].split(" (")[0], SMALL, colour=GREY)
        d.box(
            at(low / middle),
            y + 3,
            max(3, at(high / middle) - at(low / middle)),
            12,
            fill=SKY,
            alpha=0.5,
            line="none",
            round_by=0,
        )
        d.dot(at(row["ours"] / middle), y + 9.0, 5, colour)
        ratio = row["ours"] / middle
        if not 0.5 <= ratio <= 2:
            side, gap = ("end", -9) if ratio > 2 else ("start", 9)
            d.text(at(ratio) + gap, y + 13, f"{ratio:.2f} times", SMALL, side)
    for i, (verdict, colour) in enumerate(COLOURS.items()):
        d.dot(20 + i * 150, bottom + 20.0, 5, colour)
        d.text(32 + i * 150, bottom + 24, verdict, SMALL)
    d.text(460, bottom + 24, "blue bars: counts as reproduced", SMALL)
    return d


def what_each_adds() -> Drawing:
    """zfnet on the F469, from reference kernels to everything: cycles, and the bytes that they need."""
    together = json.loads((RECORDS / "together.zfnet.disco_f469ni.json").read_text())["runs"]
    first = json.loads((RECORDS / "zfnet.exact.reference.disco_f469ni.simulator.cifar10.json").read_text())
    rows = [("exact, reference kernels", first["cycles"], first["sram_bytes"]["arena"] + first["sram_bytes"]["scratch"], GREY)]
    fastest = {
        method: min((run for run in together if run["method"] == method), key=lambda run: run["cycles"])
        for method in ("exact", "trec")
    }
    rows.append(("exact, fast kernels", fastest["exact"]["cycles"], fastest["exact"]["arena_bytes"], BLUE))
    rows.append(("TREC, fast kernels", fastest["trec"]["cycles"], fastest["trec"]["arena_bytes"], ORANGE))
    for method, limit in (("partial", 20480), ("trec+partial", 24576), ("partial", 12288)):
        run = next((run for run in together if (run["method"], run["limit_bytes"]) == (method, limit)), None)
        if run:
            rows.append(
                (
                    f"{method}, within {limit // 1024} KiB",
                    run["cycles"],
                    run["arena_bytes"],
                    GREEN if method == "partial" else PINK,
                )
            )
    said = "; ".join(f"{name} {cycles / 1e6:.1f} million cycles in {size:,} bytes" for name, cycles, size, _ in rows)
    d = Drawing(56 + 34 * len(rows), f"Bars of modelled cycles: {said}.")
    most = max(cycles for _, cycles, *_ in rows)
    d.text(14, 24, "zfnet, STM32F469", bold=True)
    d.text(236, 24, "million cycles, modelled", SMALL)
    d.text(674, 24, "arena and scratch, bytes", SMALL, "end")
    for i, (name, cycles, size, colour) in enumerate(rows):
        y = 38 + 34 * i
        d.text(14, y + 16, name, SMALL)
        d.box(236, y, 300 * cycles / most, 22, fill=colour, alpha=0.6)
        d.text(242 + 300 * cycles / most, y + 16, f"{cycles / 1e6:.1f}", SMALL, bold=True)
        d.text(674, y + 16, f"{size:,}", SMALL, "end")
    return d


def joint_front() -> Drawing:
    """Two networks by every method that their records hold: cycles over SRAM, over flash and over right answers."""
    nets = (("zfnet", "trec"), ("lenet", "skip"))
    d, said = Drawing(520, ""), []
    for row, (net, method) in enumerate(nets):
        runs = json.loads((RECORDS / f"together.{net}.disco_f469ni.json").read_text())["runs"]
        record = RECORDS / f"{method}_exact.json"
        controls = json.loads(record.read_text())["runs"] if record.is_file() else []
        right = {name: per_cent(net, method if method in name else "exact") for name in METHODS}
        same = [run["correct_int8"] / 100 for run in controls if run["net"] == net]
        fastest = [
            min((run for run in runs if run["method"] == name), key=lambda run: run["cycles"])
            for name in METHODS if any(run["method"] == name for run in runs)
        ]  # fmt: skip
        columns = (
            ("KiB of arena and scratch", [(run, run["arena_bytes"] / 1024) for run in runs]),
            ("KiB of flash", [(run, run["flash_bytes"] / 1024) for run in runs]),
            ("per cent right of 10,000", [(run, right[run["method"]]) for run in fastest]),
        )
        y0, top = 210 + 232.0 * row, 1.05 * max(run["cycles"] for run in runs)
        d.text(14, y0 - 168, f"{net}: millions of cycles, modelled, over ...", bold=True)
        for k, (title, points) in enumerate(columns):
            values = [value for _, value in points] + same * (k == 2)
            low, high = (0, 1.08 * max(values)) if k < 2 else (math.floor(min(values)) - 0.2, math.ceil(max(values)) + 0.2)
            x0, wide = 44 + 222.0 * k, 186.0

            def at(value: float, cycles: float, box: tuple[float, ...] = (x0, wide, low, high, y0, top)) -> tuple[float, float]:
                x, width, first, last, y, most = box
                return x + width * (value - first) / (last - first), y - 140 * cycles / most

            d.line([(x0, y0 - 144), (x0, y0), (x0 + wide, y0)], GREY)
            for tick in _ticks(0, top / 1e6):
                d.text(x0 - 5, at(low, tick * 1e6)[1] + 4, str(tick), SMALL, "end")
            for tick in _ticks(low, high):
                d.text(at(tick, 0)[0], y0 + 15, str(tick), SMALL, "middle")
            d.text(x0 + wide / 2, y0 + 31, title, SMALL, "middle")
            for value in same * (k == 2):
                d.line([at(value, 0), at(value, top)], INK, 1.2, dashed=True)
            for run, value in points:
                d.dot(*at(value, run["cycles"]), 4.5, METHODS[run["method"]])
        names = ", ".join(f"{run['method']} {run['cycles'] / 1e6:.1f} in {run['arena_bytes']:,} bytes of SRAM" for run in fastest)
        least = min(runs, key=lambda run: run["arena_bytes"])
        said.append(
            f"{net}, fewest million cycles of each method: {names}; fewest bytes: {least['method']} {least['arena_bytes']:,}. "
            f"Per cent right: exact {right['exact']:.2f}, {''.join(f'exact with the same training {one:.2f}, ' for one in same)}"
            f"{method} {right[method]:.2f}"
        )
    for i, (name, colour) in enumerate(
        (("exact, fast kernels", BLUE), ("TREC or skipping", ORANGE), ("partial", GREEN), ("both", PINK))
    ):
        d.dot(20 + 172.0 * i, 17, 5, colour)
        d.text(30 + 172 * i, 21, name, SMALL)
    d.text(14, 506, "Dashed: right answers of the exact network after the same training as the orange one.", SMALL)
    d.alt = f"Three panels of dots for each of two networks, every method within many limits of SRAM. {'. '.join(said)}."
    return d


def _ticks(low: float, high: float) -> list[int]:
    """Returns at most six round numbers of a range."""
    unit = next(unit for unit in (1, 2, 5, 10, 20, 50, 100, 200, 500) if (high - low) / unit < 5)
    return list(range(math.ceil(low / unit) * unit, math.floor(high) + 1, unit))


def rows_that_survive() -> Drawing:
    """Three maps of a small network on a window that slides: which rows a push computes, which it has kept, which it never sees."""
    sizes, ops, tensors = (4, 3), [], {"input": Tensor("input", (12, 1, 1), "int8", Quant((1.0,), 0))}
    value = "input"
    for rows in (*sizes, 12 - sum(sizes) + len(sizes)):
        ops.append(Pool(f"window of {rows}", (value,), f"map{len(ops)}", kernel=(rows, 1)))
        height = tensors[value].shape[0] - rows + 1
        value = ops[-1].output
        tensors[value] = Tensor(value, (height, 1, 1), "int8", Quant((1.0,), 0))
    graph = Graph("small", tuple(ops), tensors, {}, ("input",), (value,))
    layers = {layer.tensor: layer for layer in plan(graph).layers}
    kept = {name: layer.kept for name, layer in layers.items()} | {"input": Rows(12 - sizes[0], 11)}
    heights = {name: tensors[name].shape[0] for name in ("input", "map0", "map1", "map2")}
    said = "; ".join(f"{name} has {height} rows, {kept[name].height} kept" for name, height in heights.items())
    d = Drawing(330, f"Maps as columns of rows, one row new in each: {said}. Of the others nobody reads a value again.")
    for i, (name, height) in enumerate(heights.items()):
        x, title = 40 + 170 * i, "input" if name == "input" else ops[i - 1].name
        d.text(x + 35, 24, title if i < 3 else "window of all", SMALL, "middle", bold=True)
        for row in range(height):
            new, held = row == height - 1, kept[name].first <= row < kept[name].end
            fill = ORANGE if new else SKY if held else "none"
            d.box(x, 40.0 + 20 * (row + 12 - height), 70, 18, fill=fill, line=INK if new or held else PALE, alpha=0.7, round_by=0)
        if i < 3:
            bottom = 40 + 20 * 12 - 2
            reach = (*sizes, heights["map1"])[i]
            d.shape(
                [(x + 70, bottom - 20.0 * reach + 2), (x + 70, bottom), (x + 170, bottom), (x + 170, bottom - 18)],
                PALE,
                0.25,
                "none",
            )
    for i, (words, colour) in enumerate((("computed", ORANGE), ("kept", SKY), ("in the whole window alone", "none"))):
        d.box(40.0 + 150 * i, 296, 16, 14, fill=colour, line=INK if i < 2 else PALE, alpha=0.7, round_by=0)
        d.text(62 + 150 * i, 308, words, SMALL)
    return d


def one_head() -> Drawing:
    """One head of attention on four tokens: queries times keys, shares of each row, and the mean of the values."""
    queries, keys = np.array([[2, 0], [0, 2], [1, 1], [-1, 1]]), np.array([[1, 0], [0, 1], [1, 1], [-1, 0]])
    values = np.array([[8, 0], [0, 8], [4, 4], [-8, 0]])
    scores = queries @ keys.T
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares = powers / powers.sum(axis=1, keepdims=True)
    means = shares @ values
    said = "; ".join(f"token {i + 1}: {', '.join(f'{share:.0%}' for share in row)}" for i, row in enumerate(shares))
    d = Drawing(
        262, f"Queries times keys are scores, a row of them becomes shares, shares times values are outputs. Shares of {said}."
    )
    top, cell = 132, (36, 24)
    d.text(14, top - 8, "queries", SMALL, bold=True)
    d.matrix(14, top, queries.tolist(), cell, [[SKY] * 2] * 4)
    d.text(104, top - 64, "keys", SMALL, bold=True)
    d.matrix(104, top - 56, keys.T.tolist(), cell, [[ORANGE] * 4] * 2)
    d.matrix(104, top, scores.tolist(), cell)
    d.text(104, top + 112, "scores", SMALL, bold=True)
    d.arrow((254, top + 48), (322, top + 48))
    d.text(288, top + 40, "softmax", SMALL, "middle")
    d.matrix(330, top, [[f"{share:.2f}" for share in row] for row in shares], (44, 24), [[GREEN] * 4] * 4)
    d.text(330, top + 112, "shares: rows add up to 1", SMALL, bold=True)
    d.text(540, top - 112, "values", SMALL, bold=True)
    d.matrix(540, top - 104, values.tolist(), (50, 24), [[PINK] * 2] * 4)
    d.matrix(540, top, [[f"{value:.1f}" for value in row] for row in means], (50, 24))
    d.text(540, top + 112, "outputs", SMALL, bold=True)
    return d
