"""Figures of the book. Each takes results or records, never numbers of its own, and returns a Picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MultipleLocator

from tinyredux import fixedpoint
from tinyredux.boards import find_board
from tinyredux.datasets import DEVIATION, MEAN, Dataset, generated
from tinyredux.graph import Graph, Quant
from tinyredux.measurement import Measurement
from tinyredux.memory import MemoryPlan, lifetimes
from tinyredux.notebook.plots_style import BLUE, GREEN, GREY, INK, ORANGE, PALETTE, RED, SKY, Picture
from tinyredux.notebook.plots_style import figure_with_axes as _figure
from tinyredux.notebook.plots_style import styled as _styled

CLASS_NAMES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "synthetic": generated.CLASS_NAMES,
}
BITS_PER_BYTE_SENT = 10  # start bit, eight bits, stop bit


def _bytes(count: int) -> str:
    return f"{count:,} B" if count < 1024 else f"{count / 1024:.1f} KiB"


@_styled
def memory_timeline(graph: Graph, plan: MemoryPlan) -> Picture:
    """Returns the arena over time: a block per tensor, from the operator that writes it to the last that reads it."""
    figure, (axes,) = _figure(8.6, 4.6)
    spans, steps = lifetimes(graph), len(graph.ops)
    for i, name in enumerate(spans):
        first, last = spans[name]
        place = (first, last - first + 1, plan.offsets[name], graph.tensors[name].size_bytes)
        _block(axes, place, steps, plan.total_bytes, name, PALETTE[i % len(PALETTE)])
    for step, op in enumerate(graph.ops):
        if op.name in plan.scratch:
            offset, size = plan.scratch[op.name]
            axes.add_patch(Rectangle((step + 0.06, offset), 0.88, size, facecolor="white", edgecolor=INK, hatch="////", lw=0.6))
    axes.axhline(plan.lower_bound_bytes, color=INK, lw=1.2, ls="--")
    note = f"largest sum of live tensors: {plan.lower_bound_bytes:,} bytes"
    axes.text(steps, plan.lower_bound_bytes, note, ha="right", va="bottom", fontsize=9)
    axes.set_xlim(0, steps)
    axes.set_ylim(0, plan.total_bytes * 1.1)
    axes.set_xticks(
        [i + 0.5 for i in range(steps)], [op.name for op in graph.ops], rotation=40, ha="right", rotation_mode="anchor"
    )
    axes.yaxis.set_major_locator(MultipleLocator(1024 * 2 ** max(0, round(np.log2(plan.total_bytes / 1024 / 8)))))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value / 1024:.0f}")
    axes.set_ylabel("offset in the arena, KiB")
    axes.set_title(f"Where each activation of {graph.name} lies while each operator runs (hatched: scratch)")
    return Picture(
        figure,
        f"Memory timeline of {graph.name}: {len(spans)} tensors over {steps} operators in {plan.arena_bytes} bytes, "
        f"scratch beyond them {plan.scratch_bytes}; the largest sum of live tensors is {plan.lower_bound_bytes}.",
    )


def _block(axes: Axes, place: tuple[int, int, int, int], end: int, top: int, name: str, colour: str) -> None:
    """Draws a tensor (first step, steps, offset, size), with its name and size where they can be read."""
    first, steps, offset, size = place
    axes.add_patch(Rectangle((first + 0.03, offset), steps - 0.06, size, facecolor=colour, alpha=0.32, lw=0))
    axes.add_patch(Rectangle((first + 0.03, offset), steps - 0.06, size, fill=False, edgecolor=colour, lw=1.4))
    two_lines = size > 0.075 * top
    text = f"{name}\n{_bytes(size)}" if two_lines else f"{name} {_bytes(size)}"
    points = min(9.0, 850 * steps / end / max(len(line) for line in text.split("\n")))
    if points > 5 and size > (0.04 if points > 7.5 else 0.02) * top:
        axes.text(
            first + steps / 2, offset + size / 2, text, ha="center", va="center", fontsize=min(points, 9.0 if two_lines else 7.5)
        )


@_styled
def cycles_per_operator(records: Sequence[Measurement]) -> Picture:
    """Returns cycles of each operator, one bar per record; at the bar its cycles per multiply-accumulate.

    Raises ValueError for records without cycles or of different networks.
    """
    names = [op.name for op in records[0].per_op]
    if any(record.cycles is None or [op.name for op in record.per_op] != names for record in records):
        raise ValueError("cycles_per_operator needs records with cycles, all of one network; found others")
    figure, (axes,) = _figure(8.6, 1.1 + 0.30 * len(names) * len(records))
    height = 0.8 / len(records)
    for i, record in enumerate(records):
        places = [row + (i - (len(records) - 1) / 2) * height for row in range(len(names))]
        values = [(op.cycles or 0) / 1e6 for op in record.per_op]
        kind = {"modelled": "modelled", "modelled-estimate": "modelled, an estimate"}.get(record.cycles_kind or "", "measured")
        hatch = "///" if record.cycles_kind == "modelled-estimate" else ""
        label = f"{record.board}, {record.kernels} kernels: {kind}, {sum(values):.2f} M in all"
        axes.barh(places, values, height * 0.9, color=PALETTE[i], label=label, hatch=hatch, edgecolor="white", lw=0)
        for op, place, value in zip(record.per_op, places, values, strict=True):
            rate = f"  {op.cycles / op.macs_dense:.2f} per MAC" if op.macs_dense and op.cycles else ""
            axes.text(value, place, rate, va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.14)
    axes.set_xlabel("million cycles per image")
    axes.set_title(f"Where the time of {records[0].net} goes")
    axes.legend(loc="lower right")
    most = [max(record.per_op, key=lambda op: op.cycles or 0).name for record in records]
    words = "; ".join(f"{record.board}: most in {name}" for record, name in zip(records, most, strict=True))
    return Picture(figure, f"Cycles per operator of {records[0].net}, {len(names)} operators. {words}.")


@_styled
def quantization(values: npt.NDArray[Any], quant: Quant, name: str) -> Picture:
    """Returns two histograms: real values with the range that int8 covers, and the error of storing them, in steps."""
    scale, zero = quant.scale[0], quant.zero_point
    real = np.asarray(values, np.float64).ravel()
    stored = fixedpoint.quantize(real, scale, zero).astype(np.float64)
    inside = (stored > -128) & (stored < 127)
    error = (scale * (stored - zero) - real)[inside] / scale
    figure, (left, right) = _figure(8.6, 3.1, 2)
    left.hist(real, bins=80, color=BLUE, log=True)
    low, high = scale * (-128 - zero), scale * (127 - zero)
    for edge, side, text in ((low, "left", "-128"), (high, "right", "127")):
        left.axvline(edge, color=RED, lw=1.3, ls="--")
        left.annotate(text, (edge, 1.0), xycoords=("data", "axes fraction"), ha=side, va="top", color=RED, fontsize=9)
    left.set_xlabel("real value")
    left.set_ylabel("how many (log scale)")
    left.set_title(f"{name}: {real.size:,} values")
    right.hist(error, bins=np.linspace(-0.5, 0.5, 41).tolist(), color=GREEN)
    right.set_xlabel("error in steps of the scale")
    right.set_ylabel("how many")
    right.set_title(f"Rounding error: at most half of {scale:.4f}")
    spread = float(np.sqrt(np.mean(error**2))) if error.size else 0.0
    return Picture(
        figure,
        f"{name}: {real.size} values between {real.min():.2f} and {real.max():.2f}; the error of int8 has a root mean square of "
        f"{spread:.2f} steps and never exceeds half a step.",
    )


@_styled
def rounding_staircase(multiplier: int, shift: int, low: int, high: int) -> Picture:
    """Returns requantised accumulators from `low` to `high`: rounded once, rounded twice, and where the two differ."""
    x = np.arange(low, high + 1)
    exact = x * (multiplier * 2.0 ** (shift - 31))
    once = np.sign(exact) * np.floor(np.abs(exact) + 0.5)
    twice = fixedpoint.multiply_by_quantized_multiplier(x, multiplier, shift)
    differ = once != twice
    figure, (axes,) = _figure(8.6, 3.6)
    axes.plot(x, exact, color=GREY, lw=1.2, label="exact product")
    axes.step(x, once, where="mid", color=BLUE, lw=2.2, label="rounded once")
    axes.step(x, twice, where="mid", color=ORANGE, lw=1.6, ls="--", label="rounded twice, as LiteRT and our C do")
    axes.plot(x[differ], twice[differ], "o", color=RED, ms=6, label=f"they differ: {int(differ.sum())} of {x.size}")
    axes.set_xlabel("accumulator")
    axes.set_ylabel("result")
    axes.set_title(f"multiplier {multiplier:,}, shift {shift}")
    axes.legend(loc="upper left")
    return Picture(
        figure, f"Accumulators {low} to {high}, requantised: rounding twice differs at {int(differ.sum())} of {x.size}."
    )


@_styled
def predictions(data: Dataset, outputs: npt.NDArray[Any], which: Sequence[int]) -> Picture:
    """Returns test images by number, each with its class above and the predicted class below.

    outputs: (N, ...) of the first N test images. Raises ValueError for data whose classes have no names.
    """
    if data.name not in CLASS_NAMES or data.test.labels is None:
        raise ValueError(f"the classes of {data.name} have no names; there are names for {', '.join(CLASS_NAMES)}")
    names, labels = CLASS_NAMES[data.name], data.test.labels[list(which)]
    shown = data.test.images[list(which)].transpose(0, 2, 3, 1) * DEVIATION + MEAN
    pixels = np.clip(np.rint(shown * 255), 0, 255).astype(np.uint8)
    predicted = outputs.reshape(len(outputs), -1).argmax(axis=1)[list(which)]
    figure, axes = _figure(1.12 * len(pixels), 1.75, len(pixels))
    for place, image, label, guess in zip(axes, pixels, labels, predicted, strict=True):
        place.imshow(image, interpolation="nearest")
        place.set_xticks([])
        place.set_yticks([])
        place.grid(visible=False)
        right = label == guess
        for side in place.spines.values():
            side.set(visible=True, color=GREEN if right else RED, linewidth=2.5)
        place.set_title(_wrapped(names[label]), fontsize=8, fontweight="normal", loc="center")
        place.set_xlabel(
            _wrapped(f"✓ {names[guess]}" if right else f"✗ {names[guess]}"), fontsize=8, color=GREEN if right else RED
        )
    answers = ", ".join(f"{names[a]} -> {names[b]}" for a, b in zip(labels, predicted, strict=True))
    return Picture(figure, f"Images with their class and the predicted one: {answers}.")


def _wrapped(name: str) -> str:
    return name.replace(" stripes", "\nstripes")


@_styled
def memory_use(records: Sequence[Measurement]) -> Picture:
    """Returns, for each record, SRAM and flash by use against what the board has."""
    figure, axes = _figure(8.6, 1.6 + 0.5 * len(records), 2, sharey=True)
    for place, memory in zip(axes, ("SRAM", "flash"), strict=True):
        for row, record in enumerate(records):
            board = find_board(record.board)
            uses = record.sram_bytes if memory == "SRAM" else record.flash_bytes
            there = board.sram_bytes if memory == "SRAM" else board.flash_bytes
            place.barh(row, there / 1024, 0.62, fill=False, edgecolor=GREY, lw=1)
            start = 0.0
            for i, (use, count) in enumerate((use, count or 0) for use, count in uses.items() if use != "total"):
                place.barh(row, count / 1024, 0.62, start, color=PALETTE[i], label=use if row == 0 else None)
                start += count / 1024
            place.text(start + 0.01 * there / 1024, row, f"{100 * start * 1024 / there:.0f} %", va="center", fontsize=9)
        place.set_yticks(range(len(records)), [f"{record.net}\n{record.board}" for record in records])
        place.grid(visible=False, axis="y")
        place.set_xlabel("KiB (outline: what the board has)")
        place.set_title(memory)
        place.legend(loc="upper center", bbox_to_anchor=(0.5, -0.45 / len(records)), ncols=4, columnspacing=1.0, handlelength=1.2)
    axes[0].invert_yaxis()
    words = "; ".join(
        f"{record.net} on {record.board}: {record.sram_bytes['total']} bytes of SRAM, {record.flash_bytes['total']} of flash"
        for record in records
    )
    return Picture(figure, f"Memory by use. {words}.")


@_styled
def serial_exchange(record: Measurement, input_bytes: int, output_bytes: int, baud: int) -> Picture:
    """Returns how long one inference over the serial line takes: input, computing, output."""
    send, receive = (1000 * BITS_PER_BYTE_SENT * count / baud for count in (input_bytes, output_bytes))
    compute = record.ms or 0.0
    figure, (axes,) = _figure(8.6, 1.7)
    start = 0.0
    parts = (
        (f"input: {input_bytes:,} bytes", send, SKY),
        ("computing", compute, ORANGE),
        (f"output: {output_bytes} bytes", receive, GREEN),
    )
    for text, width, colour in parts:
        axes.barh(0, width, 0.5, start, color=colour, label=f"{text}, {width:.1f} ms")
        start += width
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("milliseconds")
    axes.set_title(f"One image over the serial line at {baud:,} baud: {record.net} on {record.board}")
    figure.legend(loc="outside lower center", ncols=3)
    return Picture(
        figure, f"One image of {record.net} at {baud} baud: {send:.0f} ms to send the input, {receive:.1f} ms for the output."
    )
