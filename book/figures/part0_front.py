"""Pictures for the pages before the chapters: the boards, and how far the simulator is from them."""

from __future__ import annotations

import json
from pathlib import Path

from kit import BLUE, GREY, INK, ORANGE, PALE, RECORDS, RED, SKY, SMALL, Drawing

from tinyredux import board_names, find_board, simulator

VALIDATION = json.loads(Path(simulator.__file__).with_name("validation.json").read_text())


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
