"""Figures of partial execution: the arena layer by layer beside the arena in parts, and what fewer bytes cost in MACs."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from tinyredux.model import Model
from tinyredux.notebook.plots_style import GREY, INK, PALETTE, Picture, buffer, figure_with_axes, name_steps, styled

Step = Mapping[str, Any]
READABLE = 0.045  # share of the height below which a bar has no room for its name


@styled
def partial_timeline(answer: Mapping[str, Any]) -> Picture:
    """Returns the arena of a plan (what `plan.plan` returns) layer by layer and in parts, to one scale.

    A bar per buffer, from the first step in which it is alive to the last, at its offset, with name and bytes; a tensor has one
    colour in both halves, and scratch is hatched. A step of the right half is shown at its moment of most bytes, so a bar that is
    a part of a map stands for all parts of the loop: it is named at the end of a line.
    """
    halves = {"layer by layer": answer["layerwise"], "in parts": answer["steps"]}
    figure, axes = figure_with_axes(7.6, 4.4, 2, sharey=True)
    top = max(offset + size for steps in halves.values() for step in steps for offset, size in step["buffers"].values())
    tensors = dict.fromkeys(_tensor(name) for steps in halves.values() for step in steps for name in step["buffers"])
    colours = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(tensors)}
    words = []
    for ax, (title, steps) in zip(axes, halves.items(), strict=True):
        end = _draw(ax, steps, top, colours)
        ax.set_title(f"{answer['net']} {title}: {end:,} bytes", fontsize=10)
        words.append(f"{title} {end} bytes in {len(steps)} steps")
    axes[0].set_ylabel("KiB from the arena's beginning")
    return Picture(figure, f"Memory timeline of {answer['net']}: {'; '.join(words)}.")


def _tensor(name: str) -> str:
    """Returns the tensor that a buffer is, or is a part of, or whose kernel's scratch it is."""
    return [part for part in name.split(":") if not part.isdigit() and part != "scratch"][-1]


def _draw(axes: Axes, steps: Sequence[Step], top: int, colours: Mapping[str, str]) -> int:
    """Draws every buffer of some steps and returns the bytes that they reach."""
    spans: dict[str, tuple[int, int]] = {}
    for i, step in enumerate(steps):
        for name in step["buffers"]:
            spans[name] = (spans.get(name, (i, i))[0], i)
    places = {name: place for step in steps for name, place in step["buffers"].items()}
    lines = 0
    for name, (first, last) in spans.items():
        (offset, size), scratch = places[name], ":scratch" in name
        middle, width = (first + last + 1) / 2, last - first + 1
        buffer(axes, (first, last), (offset, size), GREY if scratch else colours[_tensor(name)], 0.2 if scratch else 0.4, 1.2)
        if scratch:
            axes.fill_between((first + 0.03, last + 0.97), offset, offset + size, hatch="////", fc="none", ec=GREY, lw=0)
        label, room = "scratch" if scratch else _tensor(name), 330 * width / len(steps)
        text = f"{label} {size:,}" if room > 6.5 * len(f"{label} {size:,}") else label
        if room > 6.5 * len(text) and size > READABLE * top:
            axes.text(middle, offset + size / 2, text, ha="center", va="center", fontsize=min(8.5, room / len(text)))
        elif ":" in name and not scratch:
            text, height = f"part of {label}: {size:,}", (0.75 - 0.1 * (lines % 4)) * top
            line = {"arrowstyle": "-", "color": INK, "lw": 0.8, "relpos": (0, 0)}
            axes.annotate(text, (middle, offset + size / 2), (middle, height), fontsize=8.5, arrowprops=line)
            lines += 1
    name_steps(axes, [step["op"] if len(step["op"]) < 22 else f"{step['op'][:19]}..." for step in steps], fontsize=8.5)
    axes.set(ylim=(0, 1.03 * top), xlabel="step")
    axes.yaxis.set_major_locator(MultipleLocator(max(1, top // 8192) * 1024))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value / 1024:g}")
    axes.grid(visible=False, axis="x")
    return int(max(offset + size for offset, size in places.values()))


@styled
def accuracy_and_bytes(points: Sequence[Step], title: str) -> Picture:
    """Returns accuracy in per cent against bytes of SRAM of a curve's points (a record `sram_curve.*`): each network layer by
    layer (hollow) and in parts (filled), joined by a line; pruned ones are squares. Upright strokes: one standard error of a
    share counted on so many images, up and down."""
    figure, (axes,) = figure_with_axes(8.6, 4.6)
    for point in points:
        right = 100 * point["correct_int8"] / point["images"]
        error = (right * (100 - right) / point["images"]) ** 0.5
        marker = "s" if point["aim"] else "o"
        colour = {None: PALETTE[0], "peak": PALETTE[1]}.get(point["aim"], PALETTE[3])
        sizes = point["partial_bytes"], point["layerwise_bytes"]
        axes.plot(sizes, (right, right), "-", color=colour, alpha=0.4, lw=1)
        axes.plot((sizes[0], sizes[0]), (right - error, right + error), "-", color=colour, alpha=0.4, lw=1)
        axes.plot(sizes[1], right, marker, markerfacecolor="white", color=colour, ms=5)
        axes.plot(sizes[0], right, marker, color=colour, ms=5)
        axes.annotate(point["net"], (sizes[0], right), (0, 5), textcoords="offset points", fontsize=7, ha="center")
    axes.set_xscale("log", base=2)
    axes.margins(0.08, 0.12)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1024:g}")
    label = "KiB of SRAM: layer by layer (hollow), in parts (filled); squares are pruned"
    axes.set(xlabel=label, ylabel="correct, %", title=title)
    best = min(points, key=lambda point: point["partial_bytes"])
    least = f"{best['partial_bytes']} bytes ({best['correct_int8']} of {best['images']} right, {best['net']})"
    most = max(point["partial_bytes"] for point in points)
    return Picture(figure, f"Accuracy and SRAM of {len(points)} networks, in parts from {least} to {most}.")


@styled
def cycles_and_bytes(runs: Sequence[Step], title: str) -> Picture:
    """Returns modelled cycles against bytes of SRAM of the runs of a record `together.*`: a line for each method through its
    fewest cycles within more and more bytes, a mark for every run that is no slower than with fewer bytes."""
    figure, (axes,) = figure_with_axes(8.6, 4.6)
    words = []
    for number, method in enumerate(dict.fromkeys(run["method"] for run in runs)):
        front: list[Step] = []
        for run in sorted((run for run in runs if run["method"] == method), key=lambda run: (run["arena_bytes"], run["cycles"])):
            if not front or run["cycles"] < front[-1]["cycles"]:
                front.append(run)
        sizes, cycles = [run["arena_bytes"] / 1024 for run in front], [run["cycles"] / 1e6 for run in front]
        axes.step(sizes, cycles, where="post", color=PALETTE[number], lw=1, alpha=0.6)
        axes.plot(sizes, cycles, "os^Dv"[number % 5], color=PALETTE[number], ms=6, label=method)
        ends = [f"{run['arena_bytes']} bytes ({run['cycles'] / 1e6:.1f} M)" for run in (front[0], front[-1])]
        words.append(f"{method} from {ends[0]} to {ends[1]}")
    axes.set(ylim=(0, None), xlabel="KiB of SRAM, arena with scratch", ylabel="modelled cycles, millions", title=title)
    axes.legend()
    return Picture(figure, f"Cycles and SRAM: {'; '.join(words)}.")


@styled
def idle_bytes(model: Model) -> Picture:
    """Returns the arena of a compiled network over its steps: tensors and their parts, scratch hatched, what is idle white."""
    program, offsets = model.steps.program, model.steps.arena.offsets
    figure, (axes,) = figure_with_axes(8.6, 3.8)
    last, scratch = max(buffer.last for buffer in program.buffers.values()) + 1, {step.scratch for step in program.steps()}
    held = 0
    for name, one in program.buffers.items():
        moments, offset = one.last - one.first + 1, offsets[name]
        held += moments * one.size_bytes
        colour, hatch = (PALETTE[1], "////") if name in scratch else (PALETTE[0], "")
        face, place = f"{colour}55", (offset / 1024, one.size_bytes / 1024)
        axes.broken_barh([(one.first, moments)], place, fc=face, ec=colour, hatch=hatch, lw=0.5)
        if moments * one.size_bytes > 0.03 * last * model.plan.total_bytes:
            label = "scratch" if hatch else name.rpartition(":")[2]
            axes.text(one.first + moments / 2, (offset + one.size_bytes / 2) / 1024, label, ha="center", va="center")
    idle = 1 - held / (last * model.plan.total_bytes)
    title = f"{model.graph.name}, {model.method}: white is idle, {idle:.0%} of bytes times moments"
    axes.grid(visible=False)
    axes.set(xlim=(0, last), ylim=(0, model.plan.total_bytes / 1024), xlabel="step", ylabel="KiB of the arena", title=title)
    return Picture(figure, f"The arena of {model.graph.name}, {model.plan.total_bytes} bytes in {last} moments, {idle:.0%} idle.")
