"""Pictures for part I of the book: one network on one chip."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from unittest import mock

from kit import BLUE, GREEN, GREY, INK, LARGE, ORANGE, PALE, PINK, RECORDS, RED, SKY, SMALL, Drawing

from tinyredux import find_board, fixedpoint, quant_from_range
from tinyredux.explore.bench import layer_forms, layer_graph, parse_spec
from tinyredux.graph import total_macs
from tinyredux.simulator.timing import RULES

FAMILIES = {"winograd": PINK, "rows": BLUE, "gemm": GREEN, "quads": ORANGE, "depthwise": SKY, "reference": GREY}


def smlad_lanes() -> Drawing:
    """How SXTB16 spreads bytes and SMLAD multiplies two pairs of them at once."""
    d = Drawing(
        318,
        "Two words of four bytes, inputs and weights. SXTB16 takes bytes 0 and 2 of each and widens them to 16 bits; SMLAD "
        "multiplies both pairs and adds both products to a sum of 32 bits. Bytes 1 and 3 follow with a rotation by 8 bits.",
    )
    for row, (name, colour, letter) in enumerate((("inputs", BLUE, "x"), ("weights", ORANGE, "w"))):
        y = 36 + row * 108
        d.text(14, y + 20, f"a word of\n{name}", SMALL)
        for k in range(4):
            d.box(96 + k * 60, y, 60, 32, f"{letter}{3 - k}", colour, alpha=0.5 if k % 2 else 0.15, round_by=0)
        d.text(96, y - 8, "bit 31", SMALL)
        d.text(336, y - 8, "0", SMALL, "end")
        d.text(352, y + 22, "sxtb16", mono=True)
        d.arrow((410, y + 17), (436, y + 17))
        for k, byte in enumerate((2, 0)):
            d.box(444 + k * 112, y, 112, 32, f"{letter}{byte} in 16 bits", colour, alpha=0.5, size=SMALL, round_by=0)
    y = 222
    for k in range(2):
        x = 500 + k * 112
        d.line([(x, 68), (x, 96)], BLUE)
        d.text(x, 112, "×", LARGE, "middle", bold=True)
        d.line([(x, 120), (x, 144)], ORANGE)
        d.arrow((x, 176), (x, y + 8))
    d.box(444, y + 12, 224, 36, "sum + x2·w2 + x0·w0", GREEN, bold=True, round_by=0)
    d.text(352, y + 34, "smlad", mono=True)
    d.arrow((400, y + 30), (438, y + 30))
    d.text(14, y + 24, "Then x3, x1 with w3, w1: the same after a", SMALL)
    d.text(14, y + 41, "rotation by 8 bits. Four products take two", SMALL)
    d.text(14, y + 58, "loads, four SXTB16 and two SMLAD.", SMALL)
    d.text(14, y + 82, "A weight that is widened once serves every pixel that shares it.", SMALL)
    return d


def laptop_and_chip() -> Drawing:
    """The memory of a laptop and of the STM32F469, to scale; then the chip's flash and SRAM, to scale of their own."""
    board = find_board("disco_f469ni")
    sram, flash = board.sram_bytes, board.flash_bytes
    laptop = 16 << 30
    d = Drawing(
        300,
        f"A square stands for the 16 GiB of a laptop. At that scale the {flash >> 20} MiB of flash of the chip are a dot and its "
        f"{sram >> 10} KiB of SRAM cannot be seen: {laptop // sram:,} times less. Beside it the chip's own memory, enlarged: "
        f"flash with code and weights, SRAM with the arena, static data and the stack.",
    )
    side = 190.0
    d.text(20, 26, "a laptop: 16 GiB", bold=True)
    d.box(20, 40, side, side, fill=SKY, round_by=0)
    dot = side * (flash / laptop) ** 0.5
    d.box(232, 222, dot, dot, fill=RED, alpha=1, line=RED, round_by=0)
    d.text(232, 206, "the chip's\nflash", SMALL, colour=RED)
    d.text(20, 252, f"Drawn to scale, the chip's SRAM would be {side * (sram / laptop) ** 0.5:.1f} pixels wide:", SMALL)
    d.text(20, 270, f"{laptop // sram:,} times less than the laptop has.", SMALL)
    d.line([(234, 218), (330, 60)], GREY, 1, dashed=True)
    d.line([(236, 226), (330, 230)], GREY, 1, dashed=True)
    height, x = 190.0, 340.0
    d.text(x, 26, f"the chip, enlarged {(130 * height) ** 0.5 / dot:.0f} times", bold=True)
    d.box(x, 40, 130, height, fill=BLUE, alpha=0.15, round_by=0)
    d.text(x + 65, 60, f"flash, {flash >> 20} MiB", SMALL, "middle", bold=True)
    d.box(x + 8, 74, 114, 28, "code", BLUE, size=SMALL)
    d.box(x + 8, 108, 114, 84, "weights", BLUE, alpha=0.5, size=SMALL)
    d.text(x + 65, 214, "kept, only read", SMALL, "middle")
    tall = height * sram / flash * 4
    d.box(x + 170, 40, 150, tall, fill=ORANGE, alpha=0.15, round_by=0)
    d.text(x + 245, 58, f"SRAM, {sram >> 10} KiB", SMALL, "middle", bold=True)
    d.box(x + 178, 66, 134, 24, "arena: activations", ORANGE, alpha=0.5, size=SMALL)
    d.box(x + 178, 94, 64, 20, "static", ORANGE, size=SMALL)
    d.box(x + 248, 94, 64, 20, "stack", GREEN, size=SMALL)
    d.note(x + 170, 40 + tall + 22, "four times taller than the flash is drawn; lost without power, and first to run out")
    return d


def one_iteration() -> Drawing:
    """The loop of four instructions, and what each costs on a Cortex-M4 in an iteration that goes round again."""
    rules = RULES["cortex-m4"]
    rows = (
        ("ldr.w  r3, [r2], #4", rules.load, "load: the address, then the word", BLUE),
        ("cmp    r2, r1", 1, "", GREY),
        ("add    r0, r3", 1, "", GREEN),
        ("bne    loop", 1 + rules.taken, "a taken branch empties the pipeline", ORANGE),
    )
    total = sum(cycles for _, cycles, *_ in rows)
    d = Drawing(
        224,
        f"A loop of four instructions with the cycles of each on a Cortex-M4: a load takes {rules.load}, compare and addition one each, "
        f"and the branch that is taken {1 + rules.taken}, {total} cycles for one useful addition.",
    )
    x0, unit, x = 210.0, 50.0, 0
    for k in range(total + 1):
        d.line([(x0 + k * unit, 40), (x0 + k * unit, 182)], PALE, 1)
        if k < total:
            d.text(x0 + (k + 0.5) * unit, 32, str(k + 1), SMALL, "middle")
    d.text(x0 - 12, 32, "cycle", SMALL, "end")
    for i, (code, cycles, why, colour) in enumerate(rows):
        y = 50 + i * 34
        d.text(20, y + 17, code, mono=True, size=SMALL)
        d.box(x0 + x * unit, y, cycles * unit, 24, fill=colour, alpha=0.6)
        if why:
            side = "start" if i == 0 else "end"
            d.text(x0 + (x + cycles) * unit + 10 if i == 0 else x0 + x * unit - 10, y + 17, why, SMALL, side)
        x += cycles
    d.text(20, 208, f"{total} cycles, of which one adds: fewer loads and branches per product make a kernel fast.", SMALL)
    return d


def the_one_flow() -> Drawing:
    """From a torch module to a measurement, with the chapters that treat each step."""
    d = Drawing(
        312,
        "Boxes and arrows from left to right and back: a torch module is exported to a graph, quantised to int8, rewritten by "
        "passes, scheduled into a program of steps, placed in an arena, given kernels, written as C, built, and run on host, "
        "simulator or board; the measurement is compared with the interpreter. Each arrow names its chapters.",
    )
    boxes = {
        "torch\nmodule": (20, 50, SKY), "graph": (160, 50, SKY), "int8\ngraph": (300, 50, BLUE), "int8 graph,\nless work": (460, 50, BLUE),
        "program\nof steps": (560, 160, ORANGE), "placed in\nan arena": (400, 160, ORANGE), "kernels\nchosen": (240, 160, ORANGE),
        "C and\nweights": (80, 160, GREEN), "host, simulator\nor board": (80, 250, GREEN), "measurement": (380, 250, PINK),
    }  # fmt: skip
    wide, tall = 100.0, 44.0
    for words, (x, y, colour) in boxes.items():
        d.box(x, y, 124 if "board" in words else wide, tall, words, colour, size=SMALL)
    arrows = (
        ((120, 72), (160, 72), "export", "1"), ((260, 72), (300, 72), "quantise", "2"), ((400, 72), (460, 72), "TREC, skip", "8 to 11"),
        ((540, 182), (500, 182), "place", "3"), ((400, 182), (340, 182), "choose", "4"), ((240, 182), (180, 182), "emit", "1"),
        ((204, 272), (380, 272), "run, compare every byte", "1, 5"),
    )  # fmt: skip
    for start, end, verb, chapter in arrows:
        d.arrow(start if start[0] != 540 else (560, 182), end)
        middle, y = (start[0] + end[0]) / 2, start[1] - 28
        d.text(middle, y if len(verb) < 12 else start[1] - 8, verb, SMALL, "middle")
        d.text(middle, start[1] + 36 if len(verb) < 12 else start[1] + 18, f"ch. {chapter}", SMALL, "middle", colour=RED)
    d.arrow((560, 72), (610, 72), (610, 160))
    d.text(618, 112, "schedule", SMALL)
    d.text(618, 130, "ch. 3, 6", SMALL, colour=RED)
    d.arrow((130, 204), (130, 250))
    d.text(140, 232, "build", SMALL)
    d.text(490, 264, "instructions, cycles, bytes;", SMALL)
    d.text(490, 282, "one wrong bit is a bug", SMALL)
    d.text(20, 24, "One flow for all methods", bold=True)
    return d


def number_line() -> Drawing:
    """The 256 codes of a byte over the real numbers of its range."""
    quant = quant_from_range(-1.0, 3.0)
    scale, zero = quant.scale[0], quant.zero_point
    d = Drawing(
        170,
        f"A line of real numbers from -1.5 to 3.7. The range -1 to 3 holds 256 codes, a step of {scale:.4f} apart; code {zero} "
        f"means 0 exactly. What lies outside is stored as -128 or 127.",
    )

    def at(real: float) -> float:
        return 60 + (real + 1.5) * 110

    d.text(20, 26, "real numbers", bold=True)
    d.arrow((at(-1.5), 62), (at(3.9), 62))
    for real in (-1, 0, 1, 2, 3):
        d.line([(at(real), 56), (at(real), 68)])
        d.text(at(real), 48, str(real), SMALL, "middle")
    d.text(20, 136, "codes", bold=True)
    for code in range(-128, 128):
        x = at((code - zero) * scale)
        d.line([(x, 100), (x, 112 if code % 16 else 118)], BLUE, 0.7)
    for code in (-128, zero, 0, 64, 127):
        x = at((code - zero) * scale)
        d.line([(x, 98), (x, 120)], RED if code == zero else INK, 1.6)
        d.text(x, 136, str(code), SMALL, "middle", colour=RED if code == zero else INK)
    d.arrow((at(0), 70), (at(0), 96), colour=RED)
    d.text(at(0) + 6, 88, "zero has a code of its own", SMALL, colour=RED)
    d.arrow((at(3.6), 70), (at(3.08), 100), colour=ORANGE)
    d.text(at(3.7), 88, "saturates", SMALL, "middle", colour=ORANGE)
    d.text(20, 160, f"One step is 4/255 = {scale:.4f}; a value inside is at most half a step from its code.", SMALL)
    return d


def conv_is_a_matrix_product() -> Drawing:
    """A window of a map, the row of the matrix that it becomes, and the product with one column per output channel."""
    d = Drawing(
        300,
        "A map of 5 by 5 pixels with a window of 3 by 3 marked. Its nine values, of each channel, are one row of a matrix with "
        "a row for every output pixel, N rows of K numbers. Times a matrix of weights, K by M, it gives N by M: every output pixel in every channel.",
    )
    size = 24.0
    d.text(20, 26, "a map", bold=True)
    for i in range(5):
        for k in range(5):
            inside = 1 <= i < 4 and k < 3
            d.box(
                20 + k * size, 40 + i * size, size, size, fill=ORANGE if inside else SKY, alpha=0.6 if inside else 0.2, round_by=0
            )
    d.box(20, 40 + size, 3 * size, 3 * size, line=RED, round_by=0)
    d.text(20, 182, "3x3 window, C channels:", SMALL)
    d.text(20, 199, "K = 9 C numbers", SMALL)
    x, y, cell, rows = 200.0, 40.0, 19.0, 9
    d.text(x, 26, "one row per output pixel", bold=True)
    for i in range(rows):
        for k in range(9):
            d.box(x + k * cell, y + i * 16, cell, 16, fill=ORANGE if i == 3 else SKY, alpha=0.6 if i == 3 else 0.2, round_by=0)
    d.arrow((96, 112), (196, y + 3.5 * 16))
    d.text(x + 4.5 * cell, y + rows * 16 + 18, "N rows of K", SMALL, "middle")
    d.text(394, 112, "×", LARGE, "middle", bold=True)
    x2 = 414.0
    d.text(x2, 26, "weights", bold=True)
    for i in range(9):
        for k in range(4):
            d.box(x2 + k * cell, y + i * 16, cell, 16, fill=GREEN, alpha=0.7 if k == 1 else 0.25, round_by=0)
    d.text(x2 + 2 * cell, y + 9 * 16 + 18, "K by M channels", SMALL, "middle")
    d.text(516, 112, "=", LARGE, "middle", bold=True)
    x3 = 540.0
    d.text(x3, 26, "output", bold=True)
    for i in range(rows):
        for k in range(4):
            marked = i == 3 and k == 1
            d.box(x3 + k * cell, y + i * 16, cell, 16, fill=PINK, alpha=1 if marked else 0.25, round_by=0)
    d.text(x3 + 2 * cell, y + rows * 16 + 18, "N by M", SMALL, "middle")
    d.note(
        20, 242,
        "N K M multiply-accumulates. Neighbouring windows overlap, so the rows repeat each other: fast kernels use exactly that "
        "(chapter 4), TREC makes rows that are merely alike the same (chapter 9). No kernel here ever stores the whole matrix.",
    )  # fmt: skip
    return d


def requantise_bits() -> Drawing:
    """The accumulator 5 through both roundings of the reference, and through one."""
    m, shift = 1518500250, 3
    exact = 5 * m / 2**31
    first = int(fixedpoint.saturating_rounding_doubling_high_mul(5, m))
    twice = int(fixedpoint.rounding_divide_by_power_of_two(first, shift))
    once = (5 * m + (1 << (30 + shift))) >> (31 + shift)
    d = Drawing(
        214,
        f"The accumulator 5 times {m / 2**31:.4f} is {exact:.2f}, rounded to {first}; divided by 8 that is {first / 8}, a "
        f"half, rounded up to {twice}. In one step 5 times {m / 2**31:.4f} / 8 is {exact / 8:.2f}, rounded to {once}.",
    )
    d.text(20, 28, "rounded twice", bold=True)
    d.text(20, 128, "rounded once", bold=True)
    chain = ((20, "5"), (176, f"{exact:.2f}"), (312, str(first)), (446, f"{first / 8}"), (580, str(twice)))
    for x, words in chain:
        d.box(x, 46, 74, 36, words, ORANGE if words in (str(first), str(twice)) else SKY, size=LARGE)
    for (x, _), (to, _), words in zip(chain, chain[1:], (f"× {m / 2**31:.4f}", "round", "÷ 8", "round"), strict=False):
        d.arrow((x + 76, 64), (to - 3, 64))
        d.text((x + 74 + to) / 2, 58, words, SMALL, "middle")
    chain = ((20, "5"), (446, f"{exact / 8:.2f}"), (580, str(once)))
    for x, words in chain:
        d.box(x, 146, 74, 36, words, ORANGE if words == str(once) else SKY, size=LARGE)
    d.arrow((96, 164), (443, 164))
    d.text(260, 158, f"× {m / 2**31:.4f} ÷ 8", SMALL, "middle")
    d.arrow((522, 164), (577, 164))
    d.text(550, 158, "round", SMALL, "middle")
    d.text(
        20,
        206,
        f"The first rounding lifts {exact:.2f} to {first}, whose eighth is exactly a half, and the second lifts that again.",
        SMALL,
    )
    return d


def sram_painted() -> Drawing:
    """SRAM before a run and after it: arena, static data, paint, and the stack that has eaten into the paint."""
    d = Drawing(
        250,
        "Two bars of SRAM. Before main all free bytes hold a pattern. After the run the arena and static data lie at the "
        "bottom, the stack has grown from the top and overwritten some of the pattern; the deepest byte that changed is the stack's depth.",
    )
    for x, title, after in ((40.0, "painted before main", False), (270.0, "after the run", True)):
        d.text(x, 26, title, bold=True)
        d.box(x, 40, 130, 180, round_by=0)
        d.box(x, 132, 130, 70, "arena", ORANGE, alpha=0.5, size=SMALL, round_by=0)
        d.box(x, 202, 130, 18, "static", ORANGE, size=SMALL, round_by=0)
        top = 74 if after else 40
        for k in range((132 - top) // 14):
            y = 128 - 14 * k
            d.text(x + 65, float(y), "a5 a5 a5 a5 a5", SMALL, "middle", mono=True, colour=GREY)
        if after:
            d.box(x, 40, 130, 34, "stack", GREEN, alpha=0.5, size=SMALL, round_by=0)
    d.text(174, 50, "highest\naddress", SMALL)
    d.text(174, 216, "lowest", SMALL)
    d.arrow((416, 42), (416, 74), colour=GREEN)
    d.text(426, 54, "grows down: the first", SMALL)
    d.text(426, 71, "byte whose paint is gone", SMALL)
    d.text(426, 88, "says how deep it was", SMALL)
    d.text(426, 124, "paint that is left: free", SMALL, colour=GREY)
    d.text(426, 170, "planned, to the byte", SMALL)
    d.text(426, 214, "the linker's .data, .bss", SMALL)
    return d


def one_exchange() -> Drawing:
    """One inference over the serial line, and what happens when a line is damaged."""
    d = Drawing(
        300,
        "A sequence between host and board. The host asks who is there; the board answers with the model's hash. The host "
        "sends the input with a checksum; a damaged line is refused and sent again; the board runs and answers output, cycles and checksum.",
    )
    left, right = 150.0, 540.0
    for x, words in ((left, "this computer"), (right, "the board")):
        d.box(x - 60, 14, 120, 28, words, SKY, bold=True)
        d.line([(x, 42), (x, 286)], PALE)
    steps = (
        (64, 1, "who are you?", INK), (92, -1, "model hash, input and output bytes", INK), (128, 1, "input, CRC-32", INK),
        (156, -1, "CRC is wrong: again", RED), (184, 1, "input, CRC-32", INK), (248, -1, "output, cycles, CRC-32", INK),
    )  # fmt: skip
    for y, way, words, colour in steps:
        a, b = (left, right) if way > 0 else (right, left)
        d.arrow((a + 4 * way, float(y)), (b - 4 * way, float(y + 10)), colour=colour)
        d.text((left + right) / 2, y - 2.0, words, SMALL, "middle", colour=colour)
    d.box(right - 8, 200, 16, 44, fill=GREEN, alpha=0.8)
    d.text(right + 16, 226, "runs; counter on", SMALL)
    d.text(left - 16, 106, "another hash:\nrefused", SMALL, "end")
    d.text(left - 16, 262, "every byte\nis compared", SMALL, "end")
    return d


def _loads_of(layer: str) -> dict[str, float]:
    """Returns for each form of a layer the load instructions per product: by how much it gets dearer if a load costs one more."""
    board, macs = find_board("disco_f469ni"), total_macs(layer_graph(parse_spec(layer)))
    cycles = {form.name: form.cycles for form in layer_forms(layer, board)}
    dearer = replace(RULES[board.cpu], load=RULES[board.cpu].load + 1)
    with mock.patch.dict(RULES, {board.cpu: dearer}):
        return {form.name: (form.cycles - cycles[form.name]) / macs for form in layer_forms(layer, board) if form.name in cycles}


def roofline() -> Drawing:
    """Cycles per product over loads per product, on two cores: what the multiplications allow, what the loads, and our kernels."""
    layer = "conv5x5:32-32@16x16"
    macs, loads = total_macs(layer_graph(parse_spec(layer))), _loads_of(layer)
    record = json.loads((RECORDS / "layers.json").read_text())["boards"]
    families = {"rows": "packed rows", "gemm": "byte pairs", "winograd": "Winograd"}
    points: dict[str, list[tuple[str, float, float]]] = {}
    for name in ("disco_f469ni", "nucleo_f746zg"):
        reference = next(row["per_mac"] for row in record[name] if row["layer"] == layer and row["kernels"] == "reference")
        forms = [form for form in layer_forms(layer, find_board(name)) if form.name in loads]
        points[name] = [(form.name.split("_")[0], loads[form.name], form.cycles / macs) for form in forms]
        points[name].append(("reference", 0.25, reference))
    best = {name: min(some, key=lambda point: point[2]) for name, some in points.items()}
    d = Drawing(
        372,
        "Two panels, cycles per product upwards, loads per product to the right. On the Cortex-M4 the floor is a sloping line, "
        "loads plus multiplications; on the Cortex-M7 it is flat, then sloping, the larger of the two. Of a 5x5 layer the "
        f"reference kernel lies at {points['disco_f469ni'][-1][2]:.2f} and {points['nucleo_f746zg'][-1][2]:.2f} cycles, the fastest "
        f"form at {best['disco_f469ni'][2]:.2f} and {best['nucleo_f746zg'][2]:.2f}.",
    )
    titles = {"disco_f469ni": "Cortex-M4: one after the other", "nucleo_f746zg": "Cortex-M7: side by side"}
    for panel, (name, title) in enumerate(titles.items()):
        x0, y0, wide, tall, most_x, most_y = 52.0 + 346 * panel, 280.0, 270.0, 230.0, 0.55, 2.2

        def at(x: float, y: float, x0: float = x0, y0: float = y0, wide: float = wide / most_x, tall: float = tall / most_y):
            return x0 + wide * x, y0 - tall * y

        d.text(x0, 26, title, bold=True)
        for y in (0.0, 0.5, 1.0, 1.5, 2.0):
            d.line([at(0, y), at(most_x, y)], PALE, 1)
            d.text(x0 - 6, at(0, y)[1] + 4, f"{y:g}", SMALL, "end")
        for x in (0.0, 0.125, 0.25, 0.5):
            d.line([at(x, 0), at(x, -0.04)], GREY, 1)
            d.text(at(x, 0)[0], y0 + 18, f"{x:g}", SMALL, "middle")
        for part, dashed in ((0.5, True), (0.25, False)):
            roof = [(0, part), (0.5, 0.5 + part)] if panel == 0 else [(0, part), (part, part), (0.5, 0.5)]
            d.line([at(*point) for point in roof], INK, 1.6, dashed)
        for family, x, y in points[name]:
            d.dot(*at(x, y), 4.5, FAMILIES[family])
        said = {
            family: min((p for p in points[name] if p[0] == family), key=lambda p: p[2]) for family in (*families, "reference")
        }
        for family, (_, x, y) in said.items():
            words, (across, down) = families.get(family, "reference kernel"), at(x, y)
            if family == "rows":
                d.text(across + 6, at(x, 0.12)[1], words, SMALL)
            else:
                side = ("end", -8) if family == "winograd" else ("start", 10)
                d.text(across + side[1], down - 4, words, SMALL, side[0])
        d.text(x0 + wide / 2, y0 + 36, "loads per product", SMALL, "middle")
    d.text(16, 165, "cycles per product", SMALL, "middle", turn=-90)
    d.line([(52, 338), (84, 338)], INK, 1.6)
    d.text(92, 342, "floor with four products a multiplication (SMLAL)", SMALL)
    d.line([(52, 358), (84, 358)], INK, 1.6, dashed=True)
    d.text(92, 362, "floor with two (SMLAD)", SMALL)
    d.text(300, 362, "A dot: a form of one 5x5 layer, 32 channels to 32.", SMALL)
    return d


def form_by_budget() -> Drawing:
    """The fastest form of five layers by the scratch that there is."""
    board = find_board("disco_f469ni")
    layers = {
        "conv3x3:32-32@16x16": "3x3, 32 to 32", "conv5x5:32-32@16x16": "5x5, 32 to 32", "conv5x5:3-32@32x32": "5x5, 3 to 32",
        "conv1x1:64-64@16x16": "1x1, 64 to 64", "depthwise3x3:64@16x16": "depthwise 3x3, 64",
    }  # fmt: skip
    record = json.loads((RECORDS / "layers.json").read_text())["boards"][board.name]
    ladders: dict[str, list[tuple[int, str, float]]] = {}
    for layer in layers:
        macs, ladder = total_macs(layer_graph(parse_spec(layer))), list[tuple[int, str, float]]()
        for form in sorted(layer_forms(layer, board), key=lambda form: (form.scratch_bytes, form.cycles)):
            if not ladder or form.cycles / macs < ladder[-1][2] - 0.005:
                ladder.append((form.scratch_bytes, form.name, form.cycles / macs))
        reference = next(row["per_mac"] for row in record if row["layer"] == layer and row["kernels"] == "reference")
        ladders[layer] = [(0, "reference", reference), *ladder]
    low, high = 256, 20480
    ends = "; ".join(f"{name} from {ladders[key][0][2]:.2f} to {ladders[key][-1][2]:.2f}" for key, name in layers.items())
    d = Drawing(
        112 + 46 * len(layers),
        "Five layers as bars over the bytes of scratch that are free, on a logarithmic scale. Along each bar the form changes "
        f"from the reference kernel to faster forms, and the cycles per product fall: {ends}.",
    )

    def at(size: float) -> float:
        return 150 + 520 * math.log2(max(low, size) / low) / math.log2(high / low)

    top = 44
    for size in (256, 512, 1024, 2048, 4096, 8192, 16384):
        d.line([(at(size), top - 8), (at(size), top + 46 * len(layers))], PALE, 1)
        d.text(at(size), top - 14, f"{size / 1024:g}", SMALL, "middle")
    d.text(14, top - 14, "KiB of scratch", SMALL)
    for i, (layer, name) in enumerate(layers.items()):
        y = top + 6 + 46.0 * i
        d.text(14, y + 20, name, SMALL, bold=True)
        ladder = ladders[layer]
        for (size, form, per_mac), following in zip(ladder, [*(size for size, *_ in ladder[1:]), high], strict=True):
            left, right = at(size), at(following)
            d.box(left, y, right - left, 32, fill=FAMILIES[form.split("_")[0]], alpha=0.5, round_by=0)
            if right - left > 30:
                d.text((left + right) / 2, y + 21, f"{per_mac:.2f}", SMALL, "middle")
    y = top + 46.0 * len(layers) + 14
    words = {
        "reference": "reference",
        "gemm": "byte pairs",
        "rows": "packed rows",
        "winograd": "Winograd",
        "quads": "quads",
        "depthwise": "planes",
    }
    for i, (family, word) in enumerate(words.items()):
        d.box(14 + i * 112, y, 14, 14, fill=FAMILIES[family], alpha=0.5)
        d.text(34 + i * 112, y + 12, word, SMALL)
    d.text(
        14,
        y + 38,
        "In the bars: cycles per product on a Cortex-M4. Blue steps are ever higher strips of rows.",
        SMALL,
    )
    return d


def mlperf_tiny() -> Drawing:
    """Million cycles of MLPerf Tiny's networks on the NUCLEO-L4R5ZI: ours as modelled, with the band, and published ones."""
    record, board = json.loads((RECORDS / "mlperf.json").read_text()), "nucleo_l4r5zi"
    rows = [row for row in record["rows"] if (row["board"], row["rounding"]) == (board, "double")]
    beside = [row for row in record["published"] if row["beside"] == board]
    named = [(re.split("[ ,]", one["by"])[0], one["million_cycles"]) for one in beside]
    others = [sorted((cycles[row["test"]], by) for by, cycles in named if row["test"] in cycles) for row in rows]
    told = "; ".join(
        f"{row['test']} {row['cycles'] / 1e6:.3g} ours, {', '.join(f'{value:g} {by}' for value, by in known) or 'none published'}"
        for row, known in zip(rows, others, strict=True)
    )
    bottom = 36 + 58 * len(rows)
    d = Drawing(bottom + 28, f"Million cycles on a logarithmic scale, for each network of MLPerf Tiny: {told}.")

    def at(million: float) -> float:
        return 150 + 185 * math.log10(million / 0.4)

    for tick in (0.5, 1, 2, 5, 10, 20, 50, 100):
        d.line([(at(tick), 30), (at(tick), bottom)], PALE, 1)
        d.text(at(tick), 22, f"{tick:g}", SMALL, "middle")
    d.text(14, 22, "million cycles", SMALL)
    for i, (row, known) in enumerate(zip(rows, others, strict=True)):
        y, ours = 48.0 + 58 * i, row["cycles"] / 1e6
        low, high = (at(ours * end) for end in row["error_band"])
        d.text(14, y + 14, row["test"], bold=True)
        d.box(low, y - 6, high - low, 12, fill=BLUE, alpha=0.35, line="none", round_by=0)
        d.dot(at(ours), y, 5, BLUE)
        d.text(low - 6, y + 4, f"ours {ours:.3g}", SMALL, "end", colour=BLUE)
        for k, (value, by) in enumerate(known):
            place, anchor, down = (-8, "end", 22) if k == 0 else (8, "start", 22) if k == len(known) - 1 else (0, "middle", 38)
            d.dot(at(value), y + 18, 4, GREY if k else ORANGE)
            d.text(at(value) + place, y + down, f"{by} {value:g}", SMALL, anchor, colour=GREY if k else ORANGE)
    d.text(14, bottom + 18, "Blue: modelled, with what a board may take. Orange: best published. Grey: others published.", SMALL)
    return d
