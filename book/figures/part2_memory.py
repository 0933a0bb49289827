"""Pictures for part II of the book: partial execution and what a plan costs."""

from __future__ import annotations

import json
import math

from kit import BLUE, GREEN, GREY, INK, ORANGE, PALE, PINK, RECORDS, RED, SKY, SMALL, Drawing

from tinyredux import memory
from tinyredux.explore import plans
from tinyredux.partial import MARGIN, SLOWDOWN


def three_ways_to_cut() -> Drawing:
    """A map as a block, cut into slices of channels, strips of rows, patches; and what each needs of the layer before."""
    d = Drawing(
        344,
        "A feature map as a block, cut in three ways. A slice of channels needs all channels of a convolution's input. A strip "
        "of rows needs as many rows and the window's edge, a patch the window's edge on all sides; both need all channels.",
    )
    ways = (
        ("slices of channels", "needs every channel of the\ninput of a convolution,\none channel of that of a pool"),
        ("strips of rows", "needs its rows and those that\nwindows reach beside them:\ntwo more of a 3x3 kernel"),
        ("patches", "needs a border on all sides:\ncomputed again in the next\npatch where windows overlap"),
    )
    for i, (title, need) in enumerate(ways):
        x = 20 + i * 230
        d.text(x, 26, title, bold=True)
        for k, (y, fill) in enumerate(((74, GREEN), (190, BLUE))):
            width, height, depth = 84, 70, 60
            d.block(x + 8, y, width, height, depth, "none", 0, PALE)
            if i == 0:
                if k == 0:
                    d.block(x + 8 + 26, y - 15.6, width, height, 9, fill, 0.45)
                else:
                    d.block(x + 8, y, width, height, depth, fill, 0.3)
            elif i == 1:
                part = (24, 18) if k == 0 else (16, 34)
                d.block(x + 8, y + part[0], width, part[1], depth, fill, 0.4)
            else:
                part = (26, 24, 30, 18) if k == 0 else (16, 16, 50, 34)
                d.block(x + 8 + part[0], y + part[1], part[2], part[3], depth, fill, 0.4)
        d.arrow((x + 168, 218), (x + 186, 190), (x + 186, 120), (x + 168, 96), colour=ORANGE)
        d.text(x, 300, need, SMALL)
    d.text(20, 160, "output", SMALL, colour=GREEN)
    d.text(20, 276, "input", SMALL, colour=BLUE)
    return d


def first_fit_film() -> Drawing:
    """Six tensors are placed one after the other at the lowest gap that is free during their life."""
    tensors = {"a": (0, 1, 40), "b": (1, 2, 60), "c": (2, 4, 30), "d": (3, 4, 50), "e": (4, 5, 40), "f": (2, 3, 20)}
    order = sorted(tensors, key=lambda name: -tensors[name][2])
    colours = dict(zip(tensors, (BLUE, ORANGE, GREEN, PINK, SKY, RED), strict=True))
    sizes, spans = {name: size for name, (*_, size) in tensors.items()}, {name: span[:2] for name, span in tensors.items()}
    places = memory.first_fit(order, sizes, spans, 1)
    d = Drawing(
        330,
        "Six small pictures, time to the right and addresses upwards. Tensors are placed largest first, each at the lowest "
        f"address that nobody alive at the same time holds: {', '.join(order)}.",
    )
    for i, name in enumerate(order):
        x0, y0 = 30 + i % 3 * 226.0, 146 + i // 3 * 160.0
        d.text(x0, y0 - 118, f"{i + 1}. {name}, {sizes[name]} bytes, goes to {places[name]}", SMALL, bold=True)
        d.line([(x0, y0 - 108), (x0, y0), (x0 + 190, y0)], GREY)
        for o in order[: i + 1]:
            (begin, end, bytes_), at = tensors[o], places[o]
            new = o == name
            box = (x0 + begin * 31 + 2, y0 - (at + bytes_) * 0.9, (end - begin + 1) * 31 - 4, bytes_ * 0.9)
            d.box(*box, o, colours[o], alpha=0.9 if new else 0.3, size=SMALL, round_by=0)
    return d


def operator_classes() -> Drawing:
    """Five classes of operators by what a slice of their channels needs, and a region made of them."""
    d = Drawing(
        330,
        "Five pictograms. A generator needs all input channels for any output channel. What passes slices through needs only "
        "the same channel. A placement moves channels to their place. An accumulator takes input channels one by one and gives "
        "all outputs at the end. A barrier needs everything. Below, a region: generator, pass, pass, accumulator.",
    )
    names = (
        ("generator", "convolution,\ndense"), ("passes slices", "depthwise, pool,\naddition, ReLU"), ("placement", "concatenation"),
        ("accumulator", "convolution,\nfed slice by slice"), ("barrier", "softmax"),
    )  # fmt: skip
    wires = {
        "generator": [(i, 1) for i in range(4)], "passes slices": [(1, 1)], "placement": [(1, 3)],
        "accumulator": [(1, i) for i in range(4)], "barrier": [(i, k) for i in range(4) for k in range(4)],
    }  # fmt: skip
    for p, (name, which) in enumerate(names):
        x, y = 20 + p * 136.0, 50.0
        d.text(x, 26, name, bold=True)
        d.text(x, 148, which, SMALL)
        for i in range(4):
            used_in, used_out = any(a == i for a, _ in wires[name]), any(b == i for _, b in wires[name])
            d.box(x, y + i * 20, 26, 16, fill=BLUE, alpha=0.7 if used_in else 0.1, round_by=0)
            d.box(x + 80, y + i * 20, 26, 16, fill=GREEN, alpha=0.7 if used_out else 0.1, round_by=0)
        for a, b in wires[name]:
            d.line([(x + 26, y + a * 20 + 8.0), (x + 80, y + b * 20 + 8.0)], GREY, 1.2)
    d.text(20, 206, "a region: one slice at a time goes through, and only slices of the maps between exist", bold=True)
    chain = (
        ("input", 130, BLUE),
        ("conv, a slice", 40, ORANGE),
        ("depthwise", 40, ORANGE),
        ("pool", 24, ORANGE),
        ("conv, adds up", 110, GREEN),
    )
    x = 20.0
    for i, (words, bytes_, colour) in enumerate(chain):
        tall = bytes_ * 0.6
        d.box(x, 260 - tall / 2, 76, tall, fill=colour, alpha=0.5)
        d.text(x + 38, 316, words, SMALL, "middle")
        if i:
            d.arrow((x - 54, 260), (x - 4, 260))
        x += 134
    return d


def halo() -> Drawing:
    """Two patches of an output, the windows that they look through, and the rows that both compute."""
    d = Drawing(
        300,
        "Two patches of two rows of an output, computed through two layers of 3x3 windows. Each needs four rows of the map "
        "between and six of the input; the rows that both need are computed twice.",
    )
    cell, cols = 20.0, 8
    maps = (
        ("input", 40.0, BLUE, 10, (0, 6), (2, 8)),
        ("map between", 270.0, ORANGE, 8, (0, 4), (2, 6)),
        ("output", 500.0, GREEN, 6, (0, 2), (2, 4)),
    )
    for title, x, colour, rows, one, two in maps:
        top = 50 + (10 - rows) * cell / 2
        d.text(x, 30, title, bold=True)
        for r in range(rows):
            inside = (one[0] <= r < one[1], two[0] <= r < two[1])
            fill = RED if all(inside) else colour if any(inside) else "none"
            d.box(x, top + r * cell, cols * cell, cell, fill=fill, alpha=0.55 if inside[0] else 0.25, round_by=0)
        for k, (low, high) in enumerate((one, two)):
            side = x - 7 - 7 * k
            d.line([(side, top + low * cell + 2), (side, top + high * cell - 2)], INK, 2.4, dashed=bool(k))
    d.arrow((206, 150), (250, 150))
    d.arrow((436, 150), (480, 150))
    d.text(228, 142, "3x3", SMALL, "middle")
    d.text(458, 142, "3x3", SMALL, "middle")
    d.note(
        40, 274,
        "Solid: what the first patch needs. Dashed: the second. Red rows serve both: of the input they are only read twice, of "
        "the map between they are computed twice.",
    )  # fmt: skip
    return d


def predicted_against_simulated() -> Drawing:
    """Cycles in parts over cycles layer by layer, as predicted and as simulated, for each network of the record."""
    record = json.loads((RECORDS / "part_costs.json").read_text())
    points = [(one["predicted"], one["simulated"], kind == "nets") for kind in ("random", "nets") for one in record[kind]]
    worst, keeps = max(abs(a - b) for a, b, _ in points), 1 + SLOWDOWN - MARGIN
    d = Drawing(
        330,
        f"{len(points)} networks as dots, predicted factor to the right, simulated factor upwards, both near the diagonal; the largest "
        f"difference is {worst:.3f}. The planner keeps predictions below {keeps:.2f}.",
    )
    low, high = min(min(a, b) for a, b, _ in points) - 0.02, max(max(a, b) for a, b, _ in points) + 0.02

    def at(predicted: float, simulated: float) -> tuple[float, float]:
        return 90 + 300 * (predicted - low) / (high - low), 280 - 250 * (simulated - low) / (high - low)

    for tick in (t / 20 for t in range(10, 24)):
        if low < tick < high:
            d.line([at(tick, low), at(tick, high)], PALE, 1)
            d.line([at(low, tick), at(high, tick)], PALE, 1)
            d.text(at(tick, low)[0], 298, f"{tick:.2f}", SMALL, "middle")
            d.text(82, at(low, tick)[1] + 4, f"{tick:.2f}", SMALL, "end")
    d.line([at(low, low), at(high, high)], GREY, 1.2, dashed=True)
    for predicted, simulated, ours in points:
        d.dot(*at(predicted, simulated), 5, BLUE if ours else ORANGE)
    d.text(240, 318, "predicted", SMALL, "middle")
    d.text(30, 160, "simulated", SMALL, "middle", turn=-90)
    d.dot(424, 60, 5, BLUE)
    d.text(436, 64, "networks of the library", SMALL)
    d.dot(424, 84, 5, ORANGE)
    d.text(436, 88, "random networks", SMALL)
    d.note(
        424,
        122,
        f"Cycles in parts over cycles layer by layer. On the dashed line the prediction is exact. The planner spends bytes until it predicts less than {keeps:.2f}, and leaves the rest of its {100 * SLOWDOWN:.0f} per cent for its error.",
    )
    return d


def bytes_against_cycles() -> Drawing:
    """Every recorded run of zfnet, layer by layer and in parts, with reference and with fast kernels: bytes against cycles."""
    together = json.loads((RECORDS / "together.zfnet.disco_f469ni.json").read_text())["runs"]
    whole = json.loads((RECORDS / "zfnet.exact.reference.disco_f469ni.simulator.cifar10.json").read_text())
    costs = next(one for one in json.loads((RECORDS / "part_costs.json").read_text())["nets"] if one["net"] == "zfnet")
    in_parts = [(run["arena_bytes"], run["cycles"]) for run in together if run["method"] == "partial"]
    exact = sorted((run["cycles"], run["arena_bytes"]) for run in together if run["method"] == "exact")
    star = exact[0]
    marks = [
        (whole["sram_bytes"]["arena"], whole["cycles"], "reference kernels, layer by layer", GREY),
        (costs["partial_bytes"], costs["partial_cycles"], "the default plan, reference kernels", GREY),
        (*min(in_parts), "the least plan, fast kernels", ORANGE),
    ]
    d = Drawing(
        352,
        f"Plans of zfnet as dots, bytes to the right, modelled cycles upwards. Fast kernels layer by layer: {star[1]:,} bytes, "
        f"{star[0] / 1e6:.1f} million cycles. In parts with fast kernels the dots fall from {min(in_parts)[1] / 1e6:.1f} million "
        f"cycles in {min(in_parts)[0]:,} bytes to {max(in_parts)[1] / 1e6:.1f} million in {max(in_parts)[0]:,}. Reference kernels "
        f"take {whole['cycles'] / 1e6:.1f} million layer by layer and {costs['partial_cycles'] / 1e6:.1f} million in parts.",
    )

    def at(size: float, cycles: float) -> tuple[float, float]:
        return 70 + 560 * (size / 1024 - 10) / 31, 296 - 250 * cycles / 60e6

    for tick in range(12, 41, 4):
        d.text(at(tick * 1024, 0)[0], 314, str(tick), SMALL, "middle")
    for tick in range(0, 61, 10):
        d.line([at(10 * 1024, tick * 1e6), at(10.2 * 1024, tick * 1e6)], GREY, 1)
        d.text(62, at(0, tick * 1e6)[1] + 4, str(tick), SMALL, "end")
    d.line([at(10 * 1024, 62e6), at(10 * 1024, 0), at(41 * 1024, 0)], GREY, 1)
    d.line([at(10 * 1024, star[0]), at(41 * 1024, star[0])], BLUE, 1.2, dashed=True)
    d.line([at(*run) for run in sorted(in_parts)], ORANGE, 1.2)
    for run in in_parts:
        d.dot(*at(*run), 5, ORANGE)
    d.dot(*at(exact[-1][1], exact[-1][0]), 5, BLUE)
    d.text(at(exact[-1][1], 0)[0] + 9, at(0, exact[-1][0])[1] + 4, "fast, layer by layer, without\nroom for its scratch", SMALL)
    for size, cycles, words, colour in marks:
        x, y = at(size, cycles)
        d.dot(x, y, 5, colour)
        said = f"{words},\n{cycles / star[0]:.1f} times fast exact"
        d.text(x + (42 if colour == ORANGE else 10), y + (20 if colour == ORANGE else -16), said, SMALL)
    x, y = at(star[1], star[0])
    _star(d, x, y)
    d.text(x - 10, y + 26, "fast exact", SMALL, "middle", bold=True, colour=BLUE)
    for size, cycles in sorted(in_parts)[1:4]:
        x, y = at(size, cycles)
        below = cycles > 2 * star[0]
        d.text(
            x - 8 if below else x + 8,
            y + 16 if below else y - 8,
            f"{cycles / star[0]:.1f} times",
            SMALL,
            "end" if below else "start",
        )
    d.text(350, 338, "KiB of SRAM: arena with scratch", SMALL, "middle")
    d.text(20, 170, "million cycles, modelled", SMALL, "middle", turn=-90)
    return d


def _star(d: Drawing, x: float, y: float) -> None:
    points = [(r * math.sin(k * math.pi / 5), r * math.cos(k * math.pi / 5)) for k, r in enumerate((10, 4.2) * 5)]
    d.shape([(x + dx, y - dy) for dx, dy in points], BLUE, alpha=1, line="none")


def peak_before_and_after_pruning() -> Drawing:
    """CifarNet and its pruned form: the bytes alive in each step of their plans, and the channels of each layer."""
    before, after = (plans.int8_graph(name, "random") for name in ("cifarnet", "cifarnet_pruned"))
    record = json.loads((RECORDS / "cifarnet_pruned.partial.reference.disco_f469ni.simulator.cifar10.json").read_text())
    first = json.loads((RECORDS / "cifarnet.plan-least.json").read_text())
    halves = (
        ("cifarnet", before, [(step["op"], step["live_bytes"]) for step in first["steps"]]),
        ("cifarnet_pruned", after, [(step["name"], step["sram_live_bytes"]) for step in record["per_op"]]),
    )
    channels = {op.name: [g.tensors[g.by_name[op.name].output].shape[2] for g in (before, after)] for op in before.ops}
    gone = {name: counts for name, counts in channels.items() if counts[0] != counts[1] and not name.startswith("maxpool")}
    peaks = [max(size for _, size in steps) for *_, steps in halves]
    d = Drawing(
        360,
        f"Above, bars of the bytes alive in each step in parts: the peak of cifarnet is {peaks[0]:,} bytes, of cifarnet_pruned "
        f"{peaks[1]:,}, both in the step of the first convolution and its pool. Below, channels of each layer before and after: "
        f"{'; '.join(f'{name} {old} to {new}' for name, (old, new) in gone.items())}; the other layers keep theirs.",
    )
    base, tall = 188.0, 130.0
    for half, (name, _, steps) in enumerate(halves):
        x0 = 20 + 340.0 * half
        d.text(x0, 24, name, bold=True)
        d.text(x0 + 130, 24, f"peak {peaks[half]:,} bytes", SMALL)
        d.line([(x0, base), (x0 + 318, base)], GREY, 1)
        for i, (op, size) in enumerate(steps):
            x, height = x0 + 4 + 63.0 * i, tall * size / peaks[0]
            d.box(x, base - height, 54, height, fill=ORANGE if size == peaks[half] else BLUE, alpha=0.6, round_by=0)
            d.text(x + 27, base - height - 6, f"{size:,}", SMALL, "middle")
            d.text(x + 27, base + 16, op.replace("+", "+\n"), SMALL, "middle")
    top = 262.0
    d.text(20, top - 14, "channels of each layer; hollow: removed", bold=True)
    layers = [name for name in channels if not name.startswith("maxpool")]
    for i, name in enumerate(layers):
        old, new = channels[name]
        x, wide = 20 + 132.0 * i, 104.0
        d.text(x, top + 14, name, SMALL)
        d.box(x, top + 22, wide, 20, dashed=True, round_by=0)
        d.box(x, top + 22, wide * new / old, 20, fill=GREEN, alpha=0.6, round_by=0)
        d.text(x, top + 60, f"{old}" if old == new else f"{old} to {new}", SMALL, bold=old != new)
    d.text(20, top + 86, "Only channels that are alive in the peak's step went; all others are still there.", SMALL)
    return d
