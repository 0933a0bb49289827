"""Figures of the book. Each takes results or records, never numbers of its own, and returns a Picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.patches import Rectangle
from matplotlib.ticker import MultipleLocator

from tinyredux import fixedpoint
from tinyredux.boards import find_board
from tinyredux.datasets import DEVIATION, MEAN, Dataset, generated
from tinyredux.graph import Graph, Quant
from tinyredux.measurement import Measurement
from tinyredux.memory import MemoryPlan, lifetimes
from tinyredux.notebook import plots_style as _style
from tinyredux.notebook.plots_style import BLUE, GREEN, GREY, INK, ORANGE, PALETTE, RED, SKY, Picture

CLASS_NAMES = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "synthetic": generated.CLASS_NAMES,
}
BITS_PER_BYTE_SENT = 10  # start bit, eight bits, stop bit


def _bytes(count: int) -> str:
    return f"{count:,} B" if count < 1024 else f"{count / 1024:.1f} KiB"


@_style.styled
def memory_timeline(graph: Graph, plan: MemoryPlan) -> Picture:
    """Returns the arena over time: a block per tensor, from the operator that writes it to the last that reads it."""
    figure, (axes,) = _style.figure_with_axes(8.6, 4.6)
    spans, steps = lifetimes(graph), len(graph.ops)
    for i, (name, (first, last)) in enumerate(spans.items()):
        offset, size = plan.offsets[name], graph.tensors[name].size_bytes
        _style.buffer(axes, (first, last), (offset, size), PALETTE[i % len(PALETTE)], 0.32, 1.4)
        two_lines = size > 0.075 * plan.total_bytes
        text = f"{name}\n{_bytes(size)}" if two_lines else f"{name} {_bytes(size)}"
        points = min(9.0, 850 * (last - first + 1) / steps / max(map(len, text.split("\n"))))
        if points > 5 and size > (0.04 if points > 7.5 else 0.02) * plan.total_bytes:
            centre, points = ((first + last + 1) / 2, offset + size / 2), min(points, 9.0 if two_lines else 7.5)
            axes.text(*centre, text, ha="center", va="center", fontsize=points)
    for step, op in enumerate(graph.ops):
        if op.name in plan.scratch:
            offset, size = plan.scratch[op.name]
            axes.add_patch(Rectangle((step + 0.06, offset), 0.88, size, facecolor="white", edgecolor=INK, hatch="////", lw=0.6))
    axes.axhline(plan.lower_bound_bytes, color=INK, lw=1.2, ls="--")
    note = f"largest sum of live tensors: {plan.lower_bound_bytes:,} bytes"
    axes.text(steps, plan.lower_bound_bytes, note, ha="right", va="bottom", fontsize=9)
    _style.name_steps(axes, [op.name for op in graph.ops])
    axes.yaxis.set_major_locator(MultipleLocator(1024 * 2 ** max(0, round(np.log2(plan.total_bytes / 1024 / 8)))))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value / 1024:.0f}")
    title = f"Where each activation of {graph.name} lies while each operator runs (hatched: scratch)"
    axes.set(ylim=(0, plan.total_bytes * 1.1), ylabel="offset in the arena, KiB", title=title)
    told = f"{len(spans)} tensors over {steps} operators in {plan.arena_bytes} bytes, scratch beyond them {plan.scratch_bytes}"
    bound = f"the largest sum of live tensors is {plan.lower_bound_bytes}"
    return Picture(figure, f"Memory timeline of {graph.name}: {told}; {bound}.")


@_style.styled
def cycles_per_operator(records: Sequence[Measurement]) -> Picture:
    """Returns cycles of each operator, one bar per record; at the bar its cycles per multiply-accumulate.

    Raises ValueError for records without cycles or of different networks.
    """
    names = [op.name for op in records[0].per_op]
    if any(record.cycles is None or [op.name for op in record.per_op] != names for record in records):
        raise ValueError("cycles_per_operator needs records with cycles, all of one network; found others")
    figure, (axes,) = _style.figure_with_axes(8.6, 1.1 + 0.30 * len(names) * len(records))
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
    axes.set(xlabel="million cycles per image", title=f"Where the time of {records[0].net} goes")
    axes.legend(loc="lower right")
    most = [max(record.per_op, key=lambda op: op.cycles or 0).name for record in records]
    words = "; ".join(f"{record.board}: most in {name}" for record, name in zip(records, most, strict=True))
    return Picture(figure, f"Cycles per operator of {records[0].net}, {len(names)} operators. {words}.")


@_style.styled
def quantization(values: npt.NDArray[Any], quant: Quant, name: str) -> Picture:
    """Returns two histograms: real values with the range that int8 covers, and the error of storing them, in steps."""
    scale, zero = quant.scale[0], quant.zero_point
    real = np.asarray(values, np.float64).ravel()
    stored = fixedpoint.quantize(real, scale, zero).astype(np.float64)
    inside = (stored > -128) & (stored < 127)
    error = (scale * (stored - zero) - real)[inside] / scale
    figure, (left, right) = _style.figure_with_axes(8.6, 3.1, 2)
    left.hist(real, bins=80, color=BLUE, log=True)
    low, high = scale * (-128 - zero), scale * (127 - zero)
    for edge, side, text in ((low, "left", "-128"), (high, "right", "127")):
        left.axvline(edge, color=RED, lw=1.3, ls="--")
        left.annotate(text, (edge, 1.0), xycoords=("data", "axes fraction"), ha=side, va="top", color=RED, fontsize=9)
    left.set(xlabel="real value", ylabel="how many (log scale)", title=f"{name}: {real.size:,} values")
    right.hist(error, bins=np.linspace(-0.5, 0.5, 41).tolist(), color=GREEN)
    title = f"Rounding error: at most half of {scale:.4f}"
    right.set(xlabel="error in steps of the scale", ylabel="how many", title=title)
    spread = float(np.sqrt(np.mean(error**2))) if error.size else 0.0
    told = f"{name}: {real.size} values between {real.min():.2f} and {real.max():.2f}"
    error_told = f"the error of int8 has a root mean square of {spread:.2f} steps and never exceeds half a step"
    return Picture(figure, f"{told}; {error_told}.")


@_style.styled
def rounding_staircase(multiplier: int, shift: int, low: int, high: int) -> Picture:
    """Returns requantised accumulators from `low` to `high`: rounded once, rounded twice, and where the two differ."""
    x = np.arange(low, high + 1)
    exact = x * (multiplier * 2.0 ** (shift - 31))
    once = np.sign(exact) * np.floor(np.abs(exact) + 0.5)
    twice = fixedpoint.multiply_by_quantized_multiplier(x, multiplier, shift)
    differ = once != twice
    count = int(differ.sum())
    figure, (axes,) = _style.figure_with_axes(8.6, 3.6)
    axes.plot(x, exact, color=GREY, lw=1.2, label="exact product")
    axes.step(x, once, where="mid", color=BLUE, lw=2.2, label="rounded once")
    axes.step(x, twice, where="mid", color=ORANGE, lw=1.6, ls="--", label="rounded twice, as LiteRT and our C do")
    axes.plot(x[differ], twice[differ], "o", color=RED, ms=6, label=f"they differ: {count} of {x.size}")
    axes.set(xlabel="accumulator", ylabel="result", title=f"multiplier {multiplier:,}, shift {shift}")
    axes.legend(loc="upper left")
    return Picture(figure, f"Accumulators {low} to {high}, requantised: rounding twice differs at {count} of {x.size}.")


@_style.styled
def predictions(data: Dataset, outputs: npt.NDArray[Any], which: Sequence[int]) -> Picture:
    """Returns test images by number, each with its class above and the predicted class below.

    outputs: (N, ...) of the first N test images. Raises ValueError for data whose classes have no names.
    """
    if data.name not in CLASS_NAMES or data.test.labels is None:
        raise ValueError(f"the classes of {data.name} have no names; there are names for {', '.join(CLASS_NAMES)}")
    names, labels = CLASS_NAMES[data.name], data.test.labels[list(which)]
    shown = data.test.images[list(which)].transpose(0, 2, 3, 1) * DEVIATION + MEAN
    pixels = np.rint(shown * 255)
    predicted = outputs.reshape(len(outputs), -1).argmax(axis=1)[list(which)]
    figure, axes = _style.figure_with_axes(1.12 * len(pixels), 1.75, len(pixels))
    for place, image, label, guess in zip(axes, pixels, labels, predicted, strict=True):
        _style.bare_image(place, image, _wrapped(names[label]), fontsize=8, fontweight="normal", loc="center")
        mark, colour = ("✓", GREEN) if label == guess else ("✗", RED)
        for side in place.spines.values():
            side.set(visible=True, color=colour, linewidth=2.5)
        place.set_xlabel(_wrapped(f"{mark} {names[guess]}"), fontsize=8, color=colour)
    answers = ", ".join(f"{names[a]} -> {names[b]}" for a, b in zip(labels, predicted, strict=True))
    return Picture(figure, f"Images with their class and the predicted one: {answers}.")


def _wrapped(name: str) -> str:
    return name.replace(" stripes", "\nstripes")


@_style.styled
def memory_use(records: Sequence[Measurement]) -> Picture:
    """Returns, for each record, SRAM and flash by use against what the board has."""
    figure, axes = _style.figure_with_axes(8.6, 1.6 + 0.5 * len(records), 2, sharey=True)
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
        place.set(xlabel="KiB (outline: what the board has)", title=memory)
        place.legend(loc="upper center", bbox_to_anchor=(0.5, -0.45 / len(records)), ncols=4, columnspacing=1.0, handlelength=1.2)
    axes[0].invert_yaxis()
    words = "; ".join(
        f"{record.net} on {record.board}: {record.sram_bytes['total']} bytes of SRAM, {record.flash_bytes['total']} of flash"
        for record in records
    )
    return Picture(figure, f"Memory by use. {words}.")


@_style.styled
def serial_exchange(record: Measurement, input_bytes: int, output_bytes: int, baud: int) -> Picture:
    """Returns how long one inference over the serial line takes: input, computing, output."""
    send, receive = (1000 * BITS_PER_BYTE_SENT * count / baud for count in (input_bytes, output_bytes))
    figure, (axes,) = _style.figure_with_axes(8.6, 1.7)
    start, names = 0.0, (f"input: {input_bytes:,} bytes", "computing", f"output: {output_bytes} bytes")
    for text, width, colour in zip(names, (send, record.ms or 0.0, receive), (SKY, ORANGE, GREEN), strict=True):
        axes.barh(0, width, 0.5, start, color=colour, label=f"{text}, {width:.1f} ms")
        start += width
    axes.grid(visible=False, axis="y")
    title = f"One image over the serial line at {baud:,} baud: {record.net} on {record.board}"
    axes.set(yticks=[], xlabel="milliseconds", title=title)
    figure.legend(loc="outside lower center", ncols=3)
    told = f"{send:.0f} ms to send the input, {receive:.1f} ms for the output"
    return Picture(figure, f"One image of {record.net} at {baud} baud: {told}.")
