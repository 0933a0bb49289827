"""Pictures for the pages before the chapters: the cover, the cast, and how far the simulator is from boards."""

from __future__ import annotations

import json
import math
from pathlib import Path

from kit import BLUE, GREEN, GREY, INK, LARGE, ORANGE, PALE, PINK, RECORDS, RED, SKY, SMALL, Drawing

from tinyredux import board_names, export, find_board, nets, simulator
from tinyredux.datasets import generated
from tinyredux.graph import total_macs

VALIDATION = json.loads(Path(simulator.__file__).with_name("validation.json").read_text())
LAYERS = {
    "convolution": BLUE,
    "depthwise": SKY,
    "dense": ORANGE,
    "pool": GREY,
    "addition": PINK,
    "concat": GREEN,
    "attention, norm": RED,
}
KINDS = dict(zip(("Conv", "DepthwiseConv", "Dense", "Pool", "Add", "Concat", "Attention"), LAYERS, strict=True))
KINDS |= {"AddConstant": KINDS["Add"], "LayerNorm": KINDS["Attention"]}


def cover() -> Drawing:
    """The three ideas, and what two networks gain by them: bytes and cycles, as shares of the fastest exact network."""
    d = Drawing(464, "")
    _idea_of_parts(d, 14, 44)
    _idea_of_means(d, 14, 196)
    _idea_of_skipping(d, 14, 348)
    said = _shares(d, 306, 40, 356, 362)
    d.alt = (
        "Three ideas: a map is computed slice by slice and never exists as a whole; rows that are alike become one mean; "
        "products that hardly matter are left out. Beside them cycles over bytes of SRAM of two networks, as shares of the exact "
        f"network with fast kernels. {said}"
    )
    return d


def _idea_of_parts(d: Drawing, x: float, y: float) -> None:
    d.text(x, y - 20, "Maps that never exist", LARGE, bold=True, colour=GREEN)
    d.note(x, y - 2, "The same answer in less memory:\npartial execution", 270)
    for i in range(4):
        d.block(x + 4 + 36 * i, y + 52, 14, 46, 16, GREEN, 0.7 if i == 1 else 0.06, INK if i == 1 else GREY)
    d.arrow((x + 158, y + 70), (x + 190, y + 70))
    d.block(x + 198, y + 56, 30, 30, 16, GREEN, 0.25)


def _idea_of_means(d: Drawing, x: float, y: float) -> None:
    d.text(x, y - 20, "Products that repeat", LARGE, bold=True, colour=BLUE)
    d.note(x, y - 2, "Nearly the same answer with less work: means of clusters (TREC)", 270)
    for i, cluster in enumerate((0, 1, 0, 0, 1)):
        for k in range(6):
            d.box(x + 4 + 16 * k, y + 36 + 13 * i, 16, 11, fill=(BLUE, SKY)[cluster], alpha=0.75, round_by=0)
        d.line([(x + 104, y + 41 + 13 * i), (x + 150, y + 54 + 26 * cluster)], (BLUE, SKY)[cluster])
    for cluster in (0, 1):
        for k in range(6):
            d.box(x + 152 + 16 * k, y + 48 + 26 * cluster, 16, 11, fill=(BLUE, SKY)[cluster], alpha=0.75, round_by=0)


def _idea_of_skipping(d: Drawing, x: float, y: float) -> None:
    d.text(x, y - 20, "Products that hardly matter", LARGE, bold=True, colour=RED)
    d.note(x, y - 2, "Nearly the same answer with less work: skipping operands", 270)
    for i in range(4):
        for k in range(14):
            kept = k not in (2, 3, 7, 11)
            fill = RED if kept else "none"
            d.box(x + 4 + 17 * k, y + 38 + 16 * i, 15, 14, fill=fill, line=INK if kept else PALE, alpha=0.6, round_by=0)


def _front(net: str, method: str) -> list[tuple[float, float]]:
    """Returns the designs of a method that none of its others beats: bytes and cycles as shares of the fastest exact network."""
    runs = json.loads((RECORDS / f"together.{net}.disco_f469ni.json").read_text())["runs"]
    exact = min((run for run in runs if run["method"] == "exact"), key=lambda run: run["cycles"])
    best: list[tuple[float, float]] = []
    for run in sorted((run for run in runs if run["method"] == method), key=lambda run: (run["arena_bytes"], run["cycles"])):
        share = run["arena_bytes"] / exact["arena_bytes"], run["cycles"] / exact["cycles"]
        if not best or share[1] < best[-1][1]:
            best.append(share)
    return best


def _shares(d: Drawing, x0: float, y0: float, wide: float, high: float) -> str:
    """Draws the fronts of two networks and returns in words where they begin and end."""

    def at(share: tuple[float, float]) -> tuple[float, float]:
        up = math.log(share[1] / 0.7) / math.log(3.6 / 0.7)
        return x0 + 30 + (wide - 30) * (share[0] - 0.1) / 1.15, y0 + high * (1 - up)

    (left, top), (right, bottom), one = at((0.1, 3.6)), at((1.25, 0.7)), at((1, 1))
    d.text(left - 30, y0 - 16, "cycles, times those of the exact network", SMALL)
    d.text(right, bottom + 36, "bytes of SRAM, times those of the exact network", SMALL, "end")
    d.box(left, one[1], one[0] - left, bottom - one[1], fill=GREEN, alpha=0.14, line="none", round_by=0)
    d.text(left + 8, bottom - 8, "less of both", SMALL)
    d.line([(left, top), (left, bottom), (right, bottom)], GREY)
    for tick in (0.7, 1.0, 1.5, 2.0, 3.0):
        d.text(left - 6, at((0.1, tick))[1] + 4, f"{tick:g}", SMALL, "end")
    for tick in (0.2, 0.4, 0.6, 0.8, 1.0):
        d.text(at((tick, 1))[0], bottom + 17, f"{tick:g}", SMALL, "middle")
    said = []
    for net, methods in (("zfnet", ("partial", "trec")), ("lenet", ("partial", "skip", "skip+partial"))):
        for method in methods:
            colour = {"partial": GREEN, "trec": BLUE, "skip": RED}.get(method, PINK)
            front = _front(net, method)
            d.line([at(share) for share in front], colour, 2, dashed=net == "zfnet")
            for share in front:
                d.dot(*at(share), 4.5, colour)
            (least, cycles), (most, fewest) = front[0], front[-1]
            said.append(f"{net}, {method}: {cycles:.2f} of the cycles in {least:.2f} of the bytes, {fewest:.2f} in {most:.2f}")
            words, i, anchor, right, down = {
                "partial": (f"{net},\nin parts", 0, "end", -8, 0), "trec": (f"{net}, TREC", 0, "start", -4, -10),
                "skip": (f"{net}, skipping", -1, "start", -30, 20),
            }.get(method, (f"{net}, both", -3, "end", -8, 14))  # fmt: skip
            d.text(at(front[i])[0] + right, at(front[i])[1] + down, words, SMALL, anchor, True, colour)
    d.dot(*one, 6, INK)
    d.text(one[0] + 9, one[1] + 16, "exact,\nfast kernels", SMALL, bold=True)
    return "; ".join(said) + "."


def cast_of_networks() -> Drawing:
    """The built-in networks, smallest input first: a block for each layer, as high as the root of its output's bytes."""
    graphs = [export(net.eval(), net.input_shape, name=name) for name, net in ((name, nets.NETS[name]()) for name in nets.NETS)]
    graphs.sort(key=lambda graph: (graph.input.elements, total_macs(graph)))
    most = max(tensor.elements for graph in graphs for tensor in graph.tensors.values())
    d, said = Drawing(40 + 46 * len(graphs), ""), []
    for i, graph in enumerate(graphs):
        base, wide = 76.0 + 46 * i, min(22, 490 / (len(graph.ops) + 1))
        size = "x".join(map(str, graph.input.shape))
        d.text(14, base - 18, graph.name, SMALL, bold=True)
        d.text(14, base - 3, f"{size}, {total_macs(graph) / 1e6:.1f} M MACs", SMALL)
        tall = {name: max(2, 42 * math.sqrt(tensor.elements / most)) for name, tensor in graph.tensors.items()}
        d.box(186, base - tall[graph.input.name], wide - 1, tall[graph.input.name], round_by=0, line=GREY)
        for k, op in enumerate(graph.ops):
            colour = LAYERS[KINDS[type(op).__name__]]
            d.box(186 + wide * (k + 1), base - tall[op.output], wide - 1, tall[op.output], "", colour, colour, 0.75, round_by=0)
        largest = max(graph.tensors.values(), key=lambda tensor: tensor.elements)
        shape = "x".join(map(str, largest.shape))
        said.append(f"{graph.name} takes {size} and has {len(graph.ops)} layers, the largest map {shape}")
    x = 14.0
    for kind, colour in LAYERS.items():
        d.box(x, 10, 12, 12, "", colour, colour, 0.75, round_by=0)
        d.text(x + 17, 20, kind, SMALL)
        x += 38 + 6.6 * len(kind)
    d.alt = f"A row of blocks for each network, one for each layer, as high as the root of its output's size: {'; '.join(said)}."
    return d


def samples_of_synthetic() -> Drawing:
    """The first test image of each class of the generated set."""
    pixels, labels = generated.pixels_and_labels(1000, 2)
    wide = 64.0
    d = Drawing(wide + 4, f"Ten generated images, one of each class: {', '.join(generated.CLASS_NAMES)}.")
    for i in range(len(generated.CLASS_NAMES)):
        d.image(8 + 68 * i, 2, wide, pixels[labels.tolist().index(i)])
    return d


def simulator_against_boards() -> Drawing:
    """Modelled over published cycles of every comparison, with the band of 10 per cent to both sides."""
    rows = [(row, True) for row in VALIDATION["rows"]] + [(row, False) for row in VALIDATION["not_counted"]]
    spans = [
        (row, [a * b for a, b in zip(row["model_over_published"], row.get("change", (1, 1)), strict=True)]) for row, _ in rows
    ]
    said = "; ".join(f"{row['cpu']} on {row['board'].split(',')[0]} {low:.2f} to {high:.2f}" for row, (low, high) in spans)
    d = Drawing(70 + 44 * len(rows), f"Modelled cycles over published ones, least to most, beside a band of 10 per cent: {said}.")

    def at(ratio: float) -> float:
        return 330 + (ratio - 0.75) * 760

    bottom = 50 + 44 * len(rows)
    d.box(at(0.9), 34, at(1.1) - at(0.9), bottom - 34, fill=SKY, alpha=0.25, line="none", round_by=0)
    for tick in (0.8, 0.9, 1.0, 1.1, 1.2):
        d.line([(at(tick), 34), (at(tick), bottom)], INK if tick == 1 else PALE, 1)
        d.text(at(tick), 26, f"{tick:.1f}", SMALL, "middle")
    d.text(16, 26, "modelled / published", bold=True)
    for i, ((row, (low, high)), (_, counted)) in enumerate(zip(spans, rows, strict=True)):
        y = 56 + 44 * i
        colour = {"cortex-m4": BLUE, "cortex-m7": ORANGE, "cortex-m33": RED}[row["cpu"]] if counted else GREY
        d.box(at(low), y, max(3, at(high) - at(low)), 14, fill=colour, alpha=0.8, line=colour)
        d.text(
            16,
            y + 4,
            f"{row['cpu'].replace('cortex', 'Cortex').replace('-m', '-M')}, {row['board'].split(',')[0]}",
            SMALL,
            bold=True,
        )
        d.text(16, y + 20, row["workload"].split(",")[0].split(":")[0][:44], SMALL, colour=INK if counted else GREY)
    d.text(16, bottom + 14, "Grey: kernels alone against whole programs, so not counted in the bands.", SMALL, colour=GREY)
    return d


def four_boards() -> Drawing:
    """SRAM, flash and clock of the boards that the library knows, as dots on three lines."""
    boards = [find_board(name) for name in board_names()]
    values = {
        "SRAM, KiB": [board.sram_bytes / 1024 for board in boards], "flash, KiB": [board.flash_bytes / 1024 for board in boards],
        "clock, MHz": [board.clock_hz / 1e6 for board in boards],
    }  # fmt: skip
    said = "; ".join(
        f"{b.name} {b.sram_bytes >> 10} KiB SRAM, {b.flash_bytes >> 10} KiB flash, {b.clock_hz // 1_000_000} MHz" for b in boards
    )
    d = Drawing(34 + 40 * len(boards), f"Bars of SRAM, flash and clock for each board: {said}.")
    for k, (title, column) in enumerate(values.items()):
        x = 190 + k * 170
        d.text(x, 20, title, bold=True)
        for i, value in enumerate(column):
            wide = 100 * value / max(column)
            d.box(x, 34 + 40 * i, wide, 18, fill=(ORANGE, BLUE, GREY)[k], alpha=0.6)
            d.text(x + wide + 6, 48 + 40 * i, f"{value:,.0f}", SMALL)
    for i, board in enumerate(boards):
        d.text(14, 42 + 40 * i, board.name, SMALL, bold=True)
        d.text(14, 58 + 40 * i, board.cpu.replace("cortex-m", "Cortex-M"), SMALL)
    return d


def fits_or_not() -> Drawing:
    """Arena and scratch of the networks, layer by layer and in parts, beside the SRAM of usual chips."""
    pairs = []
    for path in sorted(RECORDS.glob("*.partial.reference.disco_f469ni.simulator.*.json")):
        exact = path.with_name(path.name.replace(".partial.", ".exact."))
        if exact.exists():
            whole, parts = (json.loads(file.read_text())["sram_bytes"] for file in (exact, path))
            pairs.append((path.name.split(".")[0], whole["arena"] + whole["scratch"], parts["arena"] + parts["scratch"]))
    pairs.sort(key=lambda pair: pair[1])
    said = "; ".join(f"{name} {whole:,} and {parts:,} bytes" for name, whole, parts in pairs)
    d = Drawing(
        92 + 30 * len(pairs),
        f"Arena of each network layer by layer and in parts, reference kernels, with chips of 32 to 320 KiB: {said}.",
    )

    def at(size: float) -> float:
        return 140 + 520 * min(size, 340 << 10) / (340 << 10)

    bottom = 44 + 30 * len(pairs)
    for kib in (32, 64, 128, 320):
        d.line([(at(kib << 10), 30), (at(kib << 10), bottom)], GREY, 1, dashed=True)
        d.text(at(kib << 10), 22, f"{kib} KiB", SMALL, "middle")
    for i, (name, whole, parts) in enumerate(pairs):
        y = 44 + 30 * i
        d.text(14, y + 13, name, SMALL, bold=True)
        d.box(140, y, at(whole) - 140, 8, fill=ORANGE, alpha=0.7, round_by=0)
        d.box(140, y + 10, at(parts) - 140, 8, fill=BLUE, alpha=0.9, round_by=0)
    d.note(
        14,
        bottom + 20,
        "Orange: layer by layer. Blue: partial execution, at most 5 % slower as planned. A chip keeps some of its SRAM for the stack and static data.",
    )
    return d
