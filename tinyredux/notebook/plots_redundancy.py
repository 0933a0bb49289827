"""Figures of redundancy: which parts of an image form a cluster, what their means keep, what counting alone explains."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from statistics import fmean
from typing import Any

import matplotlib.cbook
import matplotlib.image
import numpy as np
import numpy.typing as npt

from tinyredux.graph import Conv, Graph
from tinyredux.int8 import interpret
from tinyredux.notebook.plots_style import GREY, INK, PALETTE, Picture, bare_image, figure_with_axes, styled
from tinyredux.trec import Clusters, Redundancy, hashing

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
def clusters_inside(graph: Graph, image: interpret.Batch, bits: int) -> Picture:
    """Returns an int8 image (1, H, W, C) and, for each convolution of a network, the pixels of the map that it reads, each in the
    colour of its cluster: hashed by the middle taps of the layer's first filters, with r_t, floor and error below."""
    values, convs, words = interpret.run_all(graph, image), [op for op in graph.ops if isinstance(op, Conv)], []
    figure, (first, *axes) = figure_with_axes(8.6, 2.5, 1 + len(convs))
    low, high = float(image.min()), float(image.max())
    bare_image(first, 255 * (image[0] - low) / (high - low), "image", fontsize=9)
    for place, op in zip(axes, convs, strict=True):
        maps = values[op.inputs[0]][0].astype(np.int64)
        rows, taps = maps.reshape(1, -1, maps.shape[2]), graph.constants[op.weights][:bits]
        vectors = taps[:, op.kernel[0] // 2, op.kernel[1] // 2].T.astype(np.int64)
        ids, one = hashing.hash_ids(hashing.hash_bits(rows @ vectors, "mean")), hashing.measure(rows, vectors)
        colours = np.random.default_rng(0).uniform(40, 235, (1 << bits, 3))
        bare_image(place, colours[ids].reshape(*maps.shape[:2], 3), f"{op.name}, {len(maps)}x{maps.shape[1]}", fontsize=9)
        told = f"r_t {100 * one.removed:.0f} %", f"floor {100 * one.floor:.0f} %", f"error {100 * one.error:.0f} %"
        place.set_xlabel("\n".join(told), fontsize=9)
        words.append(f"{op.name} {', '.join(told)}")
    return Picture(
        figure, f"Clusters of the pixels that each convolution of {graph.name} reads, {bits} bits: {'; '.join(words)}."
    )


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
    """Returns accuracy before and after fine-tuning of every hash variant, a dot for each seed, the best first, beside the exact
    network's."""
    rows, share = ablation_rows(record), 100 / record["validation_images"]
    exact = share * record["correct_exact"]
    figure, (axes,) = figure_with_axes(8.6, 0.9 + 0.36 * len(rows))
    for i, row in enumerate(rows):
        own = [run for run in record["runs"] if (run["hash"], run["threshold"]) == (row["hash"], row["threshold"])]
        for key, colour, label in (("correct_before", GREY, "before fine-tuning"), ("correct", PALETTE[0], "after")):
            axes.plot([share * run[key] for run in own], [i] * len(own), "o", ms=6, color=colour, label=label if i == 0 else None)
        axes.text(exact + 1, i, f"{row['after']:.1f} %, {100 * row['removed']:.0f} % removed", va="center", fontsize=9)
    axes.axvline(exact, color=PALETTE[5], lw=1.2, ls="--", label=f"exact network, {exact:.1f} %")
    axes.set_yticks(range(len(rows)), [f"{row['hash']}, {row['threshold']}" for row in rows])
    axes.invert_yaxis()
    title = f"Hashes of {record['hash_bits']} bits on {record['layer']} of {record['net']}"
    axes.set(xlim=(None, exact + 17), xlabel="validation images right, %; a dot is a seed", title=title)
    figure.legend(loc="outside lower center", ncols=3)
    names = ", ".join(f"{row['hash']} {row['threshold']} {row['after']:.1f} %" for row in rows)
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
def sweep(record: Mapping[str, Any]) -> Picture:
    """Returns test images right and modelled cycles over the number of layers with TREC, of a sweep record."""
    figure, (left, right) = figure_with_axes(8.6, 3.0, 2)
    layers = [run["layers"] for run in record["runs"]]
    rights = [100 * run["correct_int8"] / record["images"] for run in record["runs"]]
    cycles = [run["cycles"] / 1e6 for run in record["runs"]]
    for axes, values, title, colour in (
        (left, rights, "test images right, %", 0),
        (right, cycles, "million cycles, modelled", 1),
    ):
        axes.plot(layers, values, "o-", ms=4, color=PALETTE[colour])
        axes.set(xlabel="layers with TREC", title=title)
    fewest = min(range(len(cycles)), key=lambda i: cycles[i])
    told = f"fewest cycles with {layers[fewest]} layers, {cycles[fewest]:.1f} million; least right {min(rights):.2f} %"
    return Picture(figure, f"Layers with TREC from {layers[0]} to {layers[-1]}: {told}.")


@styled
def lost_and_saved(record: Mapping[str, Any], net: str, bits: int, board: str) -> Picture:
    """Returns points of accuracy lost without training over cycles saved, predicted, of every layer and block length of a
    sensitivity record."""
    figure, (axes,) = figure_with_axes(8.6, 3.2)
    rows = sensitivity_rows(record, net, bits)
    names = list(dict.fromkeys(row["layer"] for row in rows))
    for i, name in enumerate(names):
        own = [row for row in rows if row["layer"] == name]
        axes.plot([row[f"saved_{board}"] / 1000 for row in own], [row["lost"] for row in own], "o", color=PALETTE[i], label=name)
    axes.axvline(0, color=INK, lw=0.6)
    axes.set(xlabel="million cycles saved (predicted)", ylabel="points lost", title=f"{net}, {bits} bits, no training: {board}")
    axes.legend()
    told = ", ".join(f"{name} {min(row['lost'] for row in rows if row['layer'] == name):.1f} at least" for name in names)
    return Picture(figure, f"Points of accuracy that the layers of {net} lose with {bits} bits: {told}.")


@styled
def front(record: Mapping[str, Any], controls: Mapping[str, Any]) -> Picture:
    """Returns every TREC point of a front record, a plot per board: points of accuracy on test images over the exact network,
    over how many times as fast as that it is, both with fast kernels.

    Filled: against the exact network after as many epochs of the same training, of a `trec_exact` record. Hollow: where there is
    none, against the exact network as it is.
    """
    points = [point | {"right": point["correct_int8"] / point["images"]} for point in record["points"]]
    exact = {(point["net"], point["board"]): point for point in points if not point["table"]}
    same = {(run["net"], run["recipe"]["epochs"]): run["correct_int8"] / controls["images"] for run in controls["runs"]}
    rows = []
    for point in (point for point in points if point["table"]):
        whole, control = exact[point["net"], point["board"]], same.get((point["net"], point["epochs"]))
        gained = round(100 * (point["right"] - (control or whole["right"])), 2)
        rows.append(
            {**point, "gained": gained, "times": round(point["exact_cycles"] / point["cycles"], 2), "fair": control is not None}
        )
    nets, boards = (list(dict.fromkeys(row[key] for row in rows)) for key in ("net", "board"))
    figure, plots = figure_with_axes(8.6, 3.6, len(boards), sharey=True)
    for axes, board in zip(plots, boards, strict=True):
        for i, net in enumerate(nets):
            for row in (row for row in rows if (row["net"], row["board"]) == (net, board)):
                face = PALETTE[i] if row["fair"] else "white"
                axes.plot(row["times"], row["gained"], "o", ms=7, mfc=face, mec=PALETTE[i])
            axes.plot([], [], "o", color=PALETTE[i], label=net)
        axes.plot(1, 0, "s", color=GREY, label="exact, fast kernels")
        axes.axhline(0, color=INK, lw=0.6)
        axes.set(xlabel="times as fast as exact, fast kernels", title=board)
    plots[0].set_ylabel("test images right, points gained")
    plots[0].legend(loc="lower left")
    told = "; ".join(
        f"{row['net']} on {row['board']} {row['gained']:+.2f} points, {row['times']:.2f} times as fast" for row in rows
    )
    return Picture(figure, f"TREC against exact inference by fast kernels: {told}.")
