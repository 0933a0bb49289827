"""Figures of the labs: the first wrong case of an answer, and what a student's own functions do inside a network."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle

from tinyredux import fixedpoint
from tinyredux.datasets import Split
from tinyredux.graph import Conv, Graph, Weighted
from tinyredux.int8 import interpret, requantization
from tinyredux.memory import MemoryPlan, arena_end, layerwise_peak, lifetimes, live_steps, overlap
from tinyredux.notebook import plots_style as _style
from tinyredux.notebook.plots import memory_timeline
from tinyredux.notebook.plots_redundancy import clusters, photograph
from tinyredux.notebook.plots_style import INK, PALETTE, RED, SKY, Picture
from tinyredux.tables import Words
from tinyredux.trec import Clusters

Rows = Sequence[Sequence[int]]
Answer = Callable[..., Any]
ROWS_APART = 37  # of the windows that the layer of `own_mask` sees, so that it takes a second


@_style.styled
def placement(sizes: dict[str, int], spans: dict[str, tuple[int, int]], offsets: dict[str, int]) -> Picture:
    """Returns tensors at their offsets over their lives; what two of them share is red, tensors without a place are left out."""
    placed = [name for name in sizes if name in offsets]
    steps = 1 + max(last for _, last in spans.values())
    bound = max(sum(sizes[n] for n, (first, last) in spans.items() if first <= step <= last) for step in range(steps))
    figure, (axes,) = _style.figure_with_axes(8.6, 3.6)
    for i, name in enumerate(placed):
        (first, last), offset, size = spans[name], offsets[name], sizes[name]
        _style.buffer(axes, (first, last), (offset, size), PALETTE[i % 5], 0.3, 1.4)
        if size > 0.04 * arena_end(sizes, offsets):
            axes.text((first + last + 1) / 2, offset + size / 2, f"{name} {size:,}", ha="center", va="center", fontsize=9)
    shared = []
    for one, other in combinations(placed, 2):
        low = max(offsets[one], offsets[other])
        high = min(offsets[one] + sizes[one], offsets[other] + sizes[other])
        if overlap(spans[one], spans[other]) and low < high:
            shared.append(f"{one} and {other}")
            first, last = max(spans[one][0], spans[other][0]), min(spans[one][1], spans[other][1])
            look: Any = {"facecolor": RED, "edgecolor": RED, "alpha": 0.7, "hatch": "xx"}
            axes.add_patch(Rectangle((first, low), last - first + 1, high - low, **look))
    top = max([bound, *(offsets[name] + sizes[name] for name in placed)])
    axes.axhline(bound, color=INK, lw=1.2, ls="--")
    axes.text(steps, bound, f"largest sum of live tensors: {bound:,}", ha="right", va="bottom", fontsize=9)
    axes.set(xlim=(0, steps), ylim=(0, 1.12 * top), xlabel="step", ylabel="offset, bytes")
    axes.set_xticks([step + 0.5 for step in range(steps)], [str(step) for step in range(steps)])
    said = f"red: {', '.join(shared)} share bytes" if shared else f"{top:,} bytes, and no overlap"
    axes.set_title(said if len(said) < 90 else f"red: {len(shared)} pairs of tensors share bytes")
    return Picture(figure, f"A placement of {len(placed)} tensors over {steps} steps; {said}.")


@_style.styled
def rows_compared(values: Rows, expected: Sequence[Any], found: Sequence[Any]) -> Picture:
    """Returns the rows of a case, each with the answer expected and the one found; rows that differ are red."""
    figure, (axes,) = _style.figure_with_axes(8.6, 0.7 + 0.26 * (len(values) + 1))
    wrong = []
    for i, row in enumerate(values):
        differs = i >= len(found) or expected[i] != found[i]
        wrong += [str(i)] * differs
        axes.add_patch(Rectangle((0, i - 0.45), 3, 0.9, facecolor=RED if differs else SKY, alpha=0.3, lw=0))
        told = (f"row {i}: {list(row)}", f"expected {expected[i]}", f"found {found[i] if i < len(found) else 'nothing'}")
        for place, text in enumerate(told):
            axes.text(place + 0.03, i, text, va="center", fontsize=9)
    axes.set(
        xlim=(0, 3), ylim=(len(values) - 0.4, -0.6), xticks=[], yticks=[], title=f"{len(wrong)} of {len(values)} rows differ"
    )
    axes.grid(visible=False)
    return Picture(figure, f"{len(wrong)} of {len(values)} rows differ: {', '.join(wrong)}.")


def _tried(draw: Callable[[], Picture]) -> Picture | Words:
    """Returns a picture that needs a student's functions, or why they do not work yet."""
    try:
        return draw()
    except NotImplementedError:
        return Words("Not written yet; this cell draws what your functions do.")
    except Exception as wrong:  # whatever a student's code raises
        return Words(f"Not drawn: {type(wrong).__name__}: {wrong}")


def own_answers(answer: Answer, cases: Sequence[Sequence[Any]], expected: Sequence[Any]) -> Picture | Words:
    """Returns the answers of a student's function to cases, beside what is expected of them, such as a target's."""
    return _tried(lambda: rows_compared(cases, expected, [answer(*case) for case in cases]))


def own_requantisation(graph: Graph, image: Any, requantize: Answer) -> Picture | Words:
    """Returns what a network computes of an int8 image (H, W, C) where a student's function ends every layer with weights.

    The channel of the first layer that differs most, and where; in words, bytes that differ in all layers, and classes.
    """
    return _tried(lambda: _requantised(graph, image, requantize))


@_style.styled
def _requantised(graph: Graph, image: Any, requantize: Answer) -> Picture:
    exact, own, wrong, total = interpret.run_all(graph, image[None]), {graph.inputs[0]: image[None]}, 0, 0
    for op in graph.ops:
        inputs = [own[name] for name in op.inputs]
        if not isinstance(op, Weighted):
            own[op.output] = interpret.run_op(graph, op, inputs)
            continue
        params = requantization(graph, op)
        sums = interpret.accumulate(graph, op, inputs[0].astype(np.int16) - params.input_zero_point)
        sums = fixedpoint.wrap_int32(sums.astype(np.int64) + graph.constants[op.bias])
        factors = zip(np.array(params.multiplier).tolist(), np.array(params.shift).tolist(), strict=True)
        columns = zip(sums.reshape(-1, sums.shape[3]).T.tolist(), factors, strict=True)
        values = [[requantize(each, *factor, params.output_zero_point) for each in column] for column, factor in columns]
        made = np.clip(np.array(values).T.reshape(sums.shape), params.clamp.low, params.clamp.high).astype(np.int8)
        own[op.output], total = made, total + made.size
        wrong += int((made != exact[op.output]).sum())
    first = next(op.output for op in graph.ops if isinstance(op, Weighted))
    differ, spread = (exact[first] != own[first]).sum(axis=(0, 1, 2)), exact[first].std(axis=(0, 1, 2))
    channel = int(np.lexsort((spread, differ))[-1])
    maps = [values[first][0, :, :, channel].astype(int) for values in (exact, own)]
    low, high = int(maps[0].min()), max(int(maps[0].max()), int(maps[0].min()) + 1)
    figure, axes = _style.figure_with_axes(8.6, 3.1, 3)
    for place, pixels, title in zip(axes, maps, (f"{first}, exact", f"{first}, your requantize"), strict=False):
        _style.bare_image(place, np.repeat(pixels[:, :, None] - low, 3, 2) * 255 / (high - low), title)
    _style.bare_image(axes[2], np.where((maps[0] != maps[1])[:, :, None], (213, 94, 0), (235, 235, 235)), "red: they differ")
    answers = [int(values[graph.outputs[0]].argmax()) for values in (exact, own)]
    said = f"{wrong:,} of {total:,} bytes of {graph.name}'s layers differ; class {answers[0]} exactly, {answers[1]} with yours"
    figure.suptitle(said, fontsize=10)
    return Picture(figure, f"{said}.")


def own_placement(graph: Graph, place: Answer) -> Picture | Words:
    """Returns the arena of a network, placed by a student's function; where tensors share bytes, the picture that shows it."""
    return _tried(lambda: _placed(graph, place))


def _placed(graph: Graph, place: Answer) -> Picture:
    spans = lifetimes(graph)
    sizes = {name: graph.tensors[name].size_bytes for name in spans}
    offsets, bound = {name: int(offset) for name, offset in place(dict(sizes), dict(spans)).items()}, layerwise_peak(graph)
    ends = {name: range(offsets[name], offsets[name] + sizes[name]) for name in spans}
    for one, other in combinations(spans, 2):
        if overlap(spans[one], spans[other]) and max(ends[one].start, ends[other].start) < min(ends[one].stop, ends[other].stop):
            return placement(sizes, spans, offsets)
    return memory_timeline(graph, MemoryPlan(offsets, {}, arena_end(sizes, offsets), 0, live_steps(graph), bound))


def own_clusters(hash_ids: Answer, stack: Answer, bits: int) -> Picture | Words:
    """Returns a photograph whose windows of 3x3 pixels a student's functions cluster, by `bits` random vectors."""

    def draw() -> Picture:
        image = photograph(64)
        windows = interpret.windows(image[None], (3, 3), (1, 1), (0, 0, 0, 0), 0)[0]
        rows = windows.reshape(-1, windows[0, 0].size).astype(np.int64)
        vectors = np.random.default_rng(0).integers(-64, 64, (rows.shape[1], bits))
        slots, counts = stack(hash_ids((rows @ vectors).tolist()))
        return clusters(image, windows, Clusters(np.array(slots), np.array(counts), np.array([len(counts)])))

    return _tried(draw)


def own_mask(graph: Graph, op: str, data: Split, answers: tuple[Answer, Answer, Answer], threshold: float) -> Picture | Words:
    """Returns what a layer keeps where a student's share of a product, in both operands of a pair, is below a threshold.

    `answers` are share, saved and repaired_bias. Left: weights kept, a row for an output; right: images right, exactly, without
    the weights, and with the repaired bias.
    """
    return _tried(lambda: _masked(graph, op, data, answers, threshold))


@_style.styled
def _masked(graph: Graph, op: str, data: Split, answers: tuple[Answer, Answer, Answer], threshold: float) -> Picture:
    from tinyredux.int8.evaluator import Evaluator

    share, saved, repaired_bias = answers
    layer, images = graph.by_name[op], interpret.quantize_input(graph, data.images)
    assert isinstance(layer, Conv)
    seen = interpret.run_all(graph, images[:4])[layer.inputs[0]].astype(np.int16) - requantization(graph, layer).input_zero_point
    windows = interpret.windows(seen, layer.kernel, layer.stride, layer.padding, 0)
    flat = graph.constants[layer.weights].reshape(len(graph.constants[layer.weights]), -1)
    rows = windows.reshape(-1, flat.shape[1])[::ROWS_APART].astype(int).tolist()
    low = np.array([[value < threshold for value in share(row, rows)] for row in flat.tolist()])
    fewer = sum(saved(row) for row in low.tolist())
    pairs = np.arange(flat.shape[1]) // 4 * 2 + np.arange(flat.shape[1]) % 2
    kept = ~np.stack([low[:, pairs == pair].all(axis=1) for pair in range(pairs.max() + 1)], axis=1)[:, pairs]
    means, bias = np.mean(rows, axis=0).tolist(), graph.constants[layer.bias]
    repaired = [repaired_bias(*each, means, b) for *each, b in zip(flat.tolist(), kept.tolist(), bias.tolist(), strict=True)]
    weights = {layer.weights: np.where(kept, flat, 0).astype(np.int8).reshape(graph.constants[layer.weights].shape)}
    constants: tuple[dict[str, Any], ...] = ({}, weights, weights | {layer.bias: np.array(repaired, np.int32)})
    right = []
    for changed in constants:
        outputs = Evaluator(replace(graph, constants=graph.constants | changed)).run(images).reshape(len(images), -1)
        right.append(int((outputs.argmax(axis=1) == data.labels).sum()))
    figure, axes = _style.figure_with_axes(8.6, 3.2, 2)
    axes[0].imshow(np.where(kept, 1 + np.abs(flat.astype(int)) // 16, 0), aspect="auto", cmap="Blues", interpolation="nearest")
    axes[0].set(xlabel="operand", ylabel="output channel", title=f"{op}: {kept.mean():.0%} of the weights kept")
    axes[0].grid(visible=False)
    for i, (name, count) in enumerate(zip(("exact", "without them", "and your bias"), right, strict=True)):
        axes[1].bar(i, count, 0.7, color=PALETTE[i])
        axes[1].text(i, count, f"{count}", ha="center", va="bottom", fontsize=9)
        axes[1].text(i, 0.03 * len(images), name, ha="center", fontsize=9, color="white")
    axes[1].set(xticks=[], ylim=(0, 1.1 * len(images)), title=f"right, of {len(images)} images")
    said = f"{kept.mean():.0%} of the weights of {op} kept, {fewer:,} of {2 * len(flat) * -(-flat.shape[1] // 4):,} SMLADs saved"
    return Picture(figure, f"{said}; {right[0]}, {right[1]} and {right[2]} of {len(images)} images right.")
