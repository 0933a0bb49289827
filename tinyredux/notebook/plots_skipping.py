"""Figures of skipping: which products matter, what leaving them out costs, which weights are left, the front of designs."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from tinyredux.graph import Graph
from tinyredux.notebook.plots_style import BLUE, GREEN, GREY, INK, ORANGE, PALETTE, Picture, figure_with_axes, styled
from tinyredux.notebook.skip_report import cycles_of, exact_cycles, points_lost
from tinyredux.skip import Statistics, running_significance, share_significance, skippable, windows

MARKS = {"reference": "s", "fast": "*"}


@styled
def two_readings(graph: Graph, op: str, statistics: Statistics, channel: int = 0) -> Picture:
    """Returns the significance of each pair of products of one output channel, by place in the sum: running sum, and share."""
    weights = windows(graph, op)
    figure, axes = figure_with_axes(8.6, 3.0, 2)
    words = []
    for place, reading, colour, title in (
        (axes[0], running_significance, ORANGE, "|sum up to here / whole sum|"),
        (axes[1], share_significance, BLUE, "share of the output"),
    ):
        values = reading(weights, statistics, "pair")[channel]
        place.plot(values, ".", ms=4, color=colour)
        place.set(yscale="log", xlabel="pair of products, in the order of the sum", title=title)
        order = np.corrcoef(np.argsort(np.argsort(values)), np.arange(len(values)))[0, 1]
        words.append(f"the ranks of {title} and of the place correlate by {order:.2f}")
    return Picture(figure, f"Two readings of significance for channel {channel} of {op}: {'; '.join(words)}.")


@styled
def right_by_share(curves: Mapping[str, Mapping[float, int]], exact: int, images: int) -> Picture:
    """Returns how many images are right when a share of every layer's units is left out, a line for each curve."""
    figure, (axes,) = figure_with_axes(8.6, 3.6)
    for i, (name, points) in enumerate(curves.items()):
        shares, rights = [100 * share for share in points], [100 * right / images for right in points.values()]
        axes.plot(shares, rights, "o-", ms=4, color=PALETTE[i], label=name)
    axes.axhline(100 * exact / images, color=GREY, ls="--", lw=1.2, label="exact")
    label = "left out of every layer, % of the units"
    axes.set(xlabel=label, ylabel="right, % of validation images", title="What leaving operands out costs")
    axes.legend(loc="lower left")
    last = "; ".join(
        f"{name}: {list(points.values())[-1]} of {images} at {list(points)[-1]:.0%}" for name, points in curves.items()
    )
    return Picture(figure, f"Right answers by share left out; exact {exact} of {images}. {last}.")


@styled
def skip_maps(graph: Graph, skipped: Graph, unit: str = "block", most: tuple[int | None, int | None] = (None, None)) -> Picture:
    """Returns a map of each convolution's weights, a row for an output channel and a column for an operand: what is gone.

    White: weights that `skipped` leaves out; coloured: kept, darker for larger weights. `most`: only the first rows and columns.
    """
    names = skippable(graph, unit)
    figure, axes = figure_with_axes(8.6, 2.6, len(names))
    shades = ["white", *((0.75 - 0.7 * t, 0.85 - 0.5 * t, 0.95 - 0.25 * t) for t in np.linspace(0, 1, 8))]
    words = []
    for place, name in zip(axes, names, strict=True):
        weights = windows(skipped, name)
        gone = (weights == 0) & (windows(graph, name) != 0)
        level = np.where(gone, 0, 1 + np.minimum(7, np.abs(weights.astype(int)) // 16)).reshape(len(weights), -1)[
            : most[0], : most[1]
        ]
        place.imshow(level, aspect="auto", interpolation="nearest", cmap=ListedColormap(shades), vmin=0, vmax=8)
        place.grid(visible=False)
        place.set(title=name, xlabel="operand", ylabel="output channel")
        words.append(f"{name} {gone.mean():.0%}")
    return Picture(figure, f"Weights of {graph.name} that the skipped network leaves out: {', '.join(words)}.")


@styled
def fronts(results: Sequence[Mapping[str, Any]], tuned: Sequence[Mapping[str, Any]] = ()) -> Picture:
    """Returns fronts of `explore`, points of accuracy against cycles: a row for each network, a column for each board.

    Filled: simulated and tested. Hollow: predicted. Points are lost on validation images, by which designs were chosen. The
    square and the star are exact inference, the diamonds networks tuned under their mask, as `skip_report.tuned` returns them.
    """
    nets, boards = (list(dict.fromkeys(result[key] for result in results)) for key in ("net", "board"))
    figure, grid = figure_with_axes(8.6, 0.6 + 3.1 * len(nets), len(boards), len(nets), sharey=True)
    words = []
    for axes, (net, board) in zip(grid, product(nets, boards), strict=True):
        own = [result for result in results if (result["net"], result["board"]) == (net, board)]
        words += [_front(axes, result, colour) for result, colour in zip(own, PALETTE, strict=False)]
        for one in (one for one in tuned if (one["net"], one["board"]) == (net, board)):
            label = f"tuned, {one['kernels']}"
            axes.plot(one["cycles"] / 1e6, one["points"], "D", ms=7, color=GREEN, mec=INK, label=label)
        axes.axhline(0, color=GREY, lw=0.8, ls="--", zorder=0)
        axes.set(title=f"{net}, {board}", xlim=(0, None))
        if net == nets[-1]:
            axes.set_xlabel("million cycles per image (modelled)")
        if board == boards[0]:
            axes.set_ylabel("points of accuracy")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return Picture(figure, f"Points of accuracy against exact inference, on validation images. {'; '.join(words)}.")


def _best(result: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> list[tuple[int, float, bool]]:
    """Returns cycles, points gained and whether they are simulated, of what no other entry beats in both."""
    points = sorted((cycles_of(one), -points_lost(result, one), one["measured"] is not None) for one in entries)
    return [p for j, p in enumerate(points) if not any(q[1] >= p[1] for q in points[:j])]


def _front(axes: Axes, result: Mapping[str, Any], colour: str) -> str:
    """Draws one front with its exact baselines, dashed what each method finds alone; returns what it says of designs without
    loss."""
    kernels, alone = result["kernels"], result.get("alone") or {}
    for found, (method, entries) in zip(PALETTE[1:], alone.items(), strict=False):
        single = _best(result, entries)
        axes.plot([p[0] / 1e6 for p in single], [p[1] for p in single], "--", color=found, lw=1, label=f"{method} alone")
    best, kind = _best(result, result["front"]), "all together" if alone else "left out"
    axes.plot([p[0] / 1e6 for p in best], [p[1] for p in best], "-", color=colour, lw=1.2, label=f"{kind}, {kernels}")
    for measured in (False, True):
        some = [p for p in best if p[2] == measured]
        face = colour if measured else "white"
        axes.plot([p[0] / 1e6 for p in some], [p[1] for p in some], "o", ms=5, mfc=face, mec=colour)
    whole = exact_cycles(result, kernels)
    if whole is None:
        return f"{result['net']}, {result['board']}, {kernels}: exact inference does not fit"
    axes.plot(whole / 1e6, 0, MARKS[kernels], ms=10, color=colour, mec=INK, label=f"exact, {kernels}")
    least = min((p[0] for p in best if p[1] >= 0), default=whole)
    fewer = 100 * (1 - least / whole)
    return f"{result['net']}, {result['board']}, {kernels}: {fewer:.1f} % fewer cycles at no loss"
