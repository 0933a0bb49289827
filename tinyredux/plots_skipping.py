"""Figures of skipping: which products matter, what leaving them out costs, which weights are left, the front of designs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from tinyredux.graph import Graph
from tinyredux.passes.skipping import Statistics, running_significance, share_significance, skippable, windows
from tinyredux.plots_style import BLUE, GREY, INK, ORANGE, PALETTE, Picture, figure_with_axes, styled

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
        place.set_yscale("log")
        place.set_xlabel("pair of products, in the order of the sum")
        place.set_title(title)
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
    axes.set_xlabel("left out of every layer, % of the units")
    axes.set_ylabel("right, % of validation images")
    axes.set_title("What leaving operands out costs")
    axes.legend(loc="lower left")
    last = "; ".join(
        f"{name}: {list(points.values())[-1]} of {images} at {list(points)[-1]:.0%}" for name, points in curves.items()
    )
    return Picture(figure, f"Right answers by share left out; exact {exact} of {images}. {last}.")


@styled
def skip_maps(graph: Graph, skipped: Graph, unit: str = "block") -> Picture:
    """Returns a map of each convolution's weights, a row for an output channel and a column for an operand: what is gone.

    White: left out of `skipped`; coloured: kept, darker for larger weights.
    """
    names = skippable(graph, unit)
    figure, axes = figure_with_axes(8.6, 2.6, len(names))
    words = []
    for place, name in zip(axes, names, strict=True):
        weights = windows(skipped, name)
        _map(place, weights.reshape(len(weights), -1), name)
        words.append(f"{name} {np.count_nonzero(weights == 0) / weights.size:.0%}")
    return Picture(figure, f"Weights of {graph.name} that are zero in the skipped network: {', '.join(words)}.")


def _map(axes: Axes, weights: Any, name: str) -> None:
    shades = np.array(
        [[1.0, 1.0, 1.0, 1.0], *[(0.75 - 0.7 * t, 0.85 - 0.5 * t, 0.95 - 0.25 * t, 1.0) for t in np.linspace(0, 1, 8)]]
    )
    level = np.where(weights == 0, 0, 1 + np.minimum(7, np.abs(weights.astype(int)) // 16))
    axes.imshow(level, aspect="auto", interpolation="nearest", cmap=ListedColormap(shades), vmin=0, vmax=8)
    axes.grid(visible=False)
    axes.set_title(name)
    axes.set_xlabel("operand")
    axes.set_ylabel("output channel")


@styled
def front(results: Sequence[Mapping[str, Any]]) -> Picture:
    """Returns fronts of accuracy over cycles, of results of `explore` for one network and board, with exact inference marked.

    Filled: simulated and tested. Hollow: predicted. The accuracy is that on validation images, by which designs were chosen.
    """
    figure, (axes,) = figure_with_axes(8.6, 4.2)
    words = []
    for i, result in enumerate(results):
        images, exact = result["validation"]["images"], result["validation"]["exact"]
        points = sorted((_cycles(one), 100 * one["validation_correct"] / one["validation_images"], one["measured"] is not None)
                        for one in result["front"])  # fmt: skip
        best = [p for j, p in enumerate(points) if not any(q[1] >= p[1] for q in points[:j])]
        label = f"left out, {result['kernels']} kernels"
        axes.plot([p[0] / 1e6 for p in best], [p[1] for p in best], "-", color=PALETTE[i], lw=1.2, label=label)
        for measured in (False, True):
            some = [p for p in best if p[2] == measured]
            face = PALETTE[i] if measured else "white"
            axes.plot([p[0] / 1e6 for p in some], [p[1] for p in some], "o", ms=6, mfc=face, mec=PALETTE[i])
        whole = _exact_cycles(result, result["kernels"])
        kept = [p[0] for p in best if p[1] >= 100 * exact / images]
        if kept:
            words.append(
                f"{result['kernels']}: {100 * (1 - min(kept) / whole):.1f} % fewer cycles at no loss on validation images"
            )
    first = results[0]
    for one in first["baselines"]:
        accuracy = 100 * first["validation"]["exact"] / first["validation"]["images"]
        axes.plot(
            one["measured"]["cycles"] / 1e6, accuracy, MARKS[one["kernels"]], ms=12, color=INK, label=f"exact, {one['kernels']}"
        )
    axes.set_xlabel("million cycles per image (modelled)")
    axes.set_ylabel("right, % of validation images")
    axes.set_title(f"{first['net']} on {first['board']}, {first['data']}: accuracy against cycles")
    axes.legend(loc="lower right")
    return Picture(figure, f"Fronts of {first['net']} on {first['board']}. {'; '.join(words)}.")


def _cycles(one: Mapping[str, Any]) -> int:
    return int((one["measured"] or one["predicted"])["cycles"])


def _exact_cycles(result: Mapping[str, Any], kernels: str) -> int:
    (cycles,) = [one["measured"]["cycles"] for one in result["baselines"] if one["kernels"] == kernels]
    return int(cycles)
