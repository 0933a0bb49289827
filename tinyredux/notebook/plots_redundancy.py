"""Figures of redundancy: which parts of an image form a cluster, what their means keep, what counting alone explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from statistics import fmean
from typing import Any

import matplotlib.cbook
import matplotlib.image
import numpy as np
import numpy.typing as npt

from tinyredux.notebook.plots_style import GREY, INK, PALETTE, Picture, bare_image, figure_with_axes, styled
from tinyredux.trec import Clusters, Redundancy

Pixels = npt.NDArray[Any]


def photograph(size: int = 128) -> Pixels:
    """Returns a photograph (size, size, 3) in 0 .. 255: Grace Hopper by James S. Davis, 1984, public domain, from matplotlib.

    Its upper square, each pixel the mean of a block of the original. `size` divides 512.
    """
    path = str(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    square = matplotlib.image.imread(path)[:512, :512].astype(np.float64)
    block = 512 // size
    return np.asarray(square.reshape(size, block, size, block, 3).mean(axis=(1, 3)).round())


def points(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns every measured point of a redundancy record with the network, the layer and the rows of its map."""
    place = ("net", "layer", "rows")
    return [{key: layer[key] for key in place} | point for layer in record["layers"] for point in layer["points"]]


def curve(record: Mapping[str, Any], net: str, layer: str) -> list[Redundancy]:
    """Returns a layer's points of a redundancy record, one image at a time, by rising number of bits."""
    names = [entry.name for entry in fields(Redundancy)]
    found = [point for point in points(record) if (point["net"], point["layer"], point["images_together"]) == (net, layer, 1)]
    return [Redundancy(**{name: point[name] for name in names}) for point in found]


@styled
def clusters(image: Pixels | None, windows: Pixels, found: Clusters) -> Picture:
    """Returns an image (if given), its clusters each in a colour, and the image drawn from the clusters' means alone.

    image: (H, W, 3) in 0 .. 255; windows: (h, w, kernel_h, kernel_w, 3), what each place sees; found: their clusters.
    """
    height, width = windows.shape[:2]
    means = found.sums(windows.reshape(height * width, -1)) / found.counts[:, None]
    middle = means.reshape(-1, *windows.shape[2:])[:, windows.shape[2] // 2, windows.shape[3] // 2]
    colours = np.random.default_rng(0).uniform(40, 235, (len(found.counts), 3))
    panels = {} if image is None else {f"{height * width:,} windows": image}
    panels[f"{len(found.counts)} clusters"] = colours[found.slot].reshape(height, width, 3)
    panels["every window by its mean"] = middle[found.slot].reshape(height, width, 3)
    figure, axes = figure_with_axes(8.6, 3.1, len(panels))
    for place, (title, pixels) in zip(axes, panels.items(), strict=True):
        bare_image(place, pixels, title)
    told = f"{height * width} windows, their {len(found.counts)} clusters, and the image from the means alone"
    return Picture(figure, f"An image with {told}.")


@styled
def removed_and_lost(series: Mapping[str, Sequence[Redundancy]]) -> Picture:
    """Returns two curves over the bits of the hash for each series: the share of vectors removed, above the share that any data
    of as many rows loses (dashed), and the error left."""
    figure, (left, right) = figure_with_axes(8.6, 3.3, 2)
    for i, (name, points) in enumerate(series.items()):
        bits = [point.bits for point in points]
        left.plot(bits, [100 * point.removed for point in points], "o-", ms=4, color=PALETTE[i], label=name)
        right.plot(bits, [100 * point.error for point in points], "o-", ms=4, color=PALETTE[i], label=name)
        left.plot(bits, [100 * point.floor for point in points], "--", color=PALETTE[i])
    left.plot([], [], "--", color=GREY, label="what any data loses")
    for axes, title in ((left, "removed, % of the vectors"), (right, "error, % of the variance")):
        axes.set(xlabel="bits of the hash", title=title, ylim=(0, 104))
    left.legend(loc="lower left")
    words = "; ".join(
        f"{name}: {100 * points[-1].removed:.1f} % removed with {points[-1].bits} bits, error {100 * points[-1].error:.1f} %"
        for name, points in series.items()
    )
    return Picture(figure, f"Vectors removed and error left over the bits of the hash. {words}.")


def ablation_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns a row per hash and threshold of an ablation record: % right before and after tuning, its spread over the seeds."""
    runs: dict[tuple[str, str], list[Any]] = {}
    for run in record["runs"]:
        runs.setdefault((run["hash"], run["threshold"]), []).append(run)
    share, rows = 100 / record["validation_images"], []
    for (name, threshold), these in runs.items():
        before, after = ([share * run[key] for run in these] for key in ("correct_before", "correct"))
        rows.append({
            "hash": name, "threshold": threshold, "before": round(fmean(before), 2), "after": round(fmean(after), 2),
            "spread": round(max(after) - min(after), 2), "removed": round(fmean(run["redundancy"] for run in these), 4),
        })  # fmt: skip
    return sorted(rows, key=lambda row: -row["after"])


@styled
def ablation(record: Mapping[str, Any]) -> Picture:
    """Returns accuracy before and after fine-tuning of every hash variant, the best first, beside the exact network's."""
    rows, exact = ablation_rows(record), 100 * record["correct_exact"] / record["validation_images"]
    figure, (axes,) = figure_with_axes(8.6, 0.9 + 0.36 * len(rows))
    for i, row in enumerate(rows):
        axes.barh(i, row["before"], 0.7, color=GREY, label="before fine-tuning" if i == 0 else None)
        more = row["after"] - row["before"]
        axes.barh(i, more, 0.7, row["before"], color=PALETTE[0], label="after" if i == 0 else None)
        axes.text(row["after"] + 0.4, i, f"{row['after']:.1f} %, {100 * row['removed']:.0f} % removed", va="center", fontsize=9)
    axes.axvline(exact, color=PALETTE[5], lw=1.2, ls="--", label=f"exact network, {exact:.1f} %")
    axes.set_yticks(range(len(rows)), [f"{row['hash']}, {row['threshold']}" for row in rows])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    title = f"Hashes of {record['hash_bits']} bits on {record['layer']} of {record['net']}"
    axes.set(xlim=(40, 100), xlabel="validation images right, %", title=title)
    axes.legend(loc="lower right")
    names = ", ".join(f"{row['hash']} {row['threshold']}" for row in rows)
    return Picture(figure, f"Hash variants after fine-tuning, best first: {names}.")


def sweep_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the runs of a sweep record with the share of validation images right in %, and the mean redundancy."""
    share = 100 / record["validation_images"]
    return [
        run | {"accuracy": round(share * run["correct"], 2), "removed": round(fmean(run["redundancy"].values()), 4)}
        for run in record["runs"]
    ]


def sensitivity_rows(record: Mapping[str, Any], net: str, bits: int) -> list[dict[str, Any]]:
    """Returns a network's layers of a sensitivity record with so many bits: points lost without tuning, kilocycles saved."""
    exact = record["exact"][net]
    own = [line for line in record["lines"] if (line["net"], line["hash_bits"]) == (net, bits)]
    return [
        line | {"removed": line["redundancy"], "lost": round(100 * (exact["correct"] - line["correct"]) / exact["images"], 1)}
        | {f"saved_{board}": round(saved / 1000) for board, saved in line["predicted_saved"].items()}
        for line in own
    ]  # fmt: skip


@styled
def front(record: Mapping[str, Any]) -> Picture:
    """Returns every point of a front record, a plot per board: points of accuracy gained over the exact network on test images,
    over how many times fewer cycles it takes than exact by reference kernels."""
    points = [point | {"right": point["correct_int8"] / point["images"]} for point in record["points"]]
    exact = {point["net"]: point["right"] for point in points if not point["table"]}
    rows = [
        point
        | {"gained": round(100 * (point["right"] - exact[point["net"]]), 2)}
        | {"times": round(point["reference_cycles"] / point["cycles"], 2)}
        for point in points
    ]
    nets, boards = (list(dict.fromkeys(row[key] for row in rows)) for key in ("net", "board"))
    figure, plots = figure_with_axes(8.6, 3.6, len(boards), sharey=True)
    for axes, board in zip(plots, boards, strict=True):
        for i, net in enumerate(nets):
            own = sorted((row for row in rows if (row["net"], row["board"]) == (net, board)), key=lambda row: row["times"])
            axes.plot([row["times"] for row in own], [row["gained"] for row in own], "-", lw=0.8, color=PALETTE[i])
            for row in own:
                marker, colour = ("o", PALETTE[i]) if row["table"] else ("s", GREY)
                axes.plot(row["times"], row["gained"], marker, ms=6, color=colour)
            axes.plot([], [], "o-", lw=0.8, color=PALETTE[i], label=net)
        axes.plot([], [], "s", color=GREY, label="exact, fast kernels")
        axes.axhline(0, color=INK, lw=0.6)
        axes.set(xlabel="times fewer cycles than exact by reference kernels", title=board)
    plots[0].set_ylabel("test images right, points gained")
    plots[0].legend(loc="lower left")
    best = max((row for row in rows if row["table"]), key=lambda row: row["gained"])
    told = f"{best['net']} on {best['board']}, {best['gained']:+.2f} points at {best['times']:.2f} times fewer cycles"
    return Picture(figure, f"Accuracy over cycles of {len(rows)} points. Best with TREC: {told}.")
