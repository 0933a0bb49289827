"""Does TREC pay? Predicted cycles of a layer's TREC and of its exact convolution, in either kernel set.

Generated code prices itself (`kernels.trec`). The plain C of trec_conv.c is a sum of counts; cycles for each were fitted to 14
layers in the simulator (3x3, 5x5, 1x1; maps of 8 to 16; 16 to 256 outputs; 2 to 6 bits; blocks of a tap to the whole window).
Clusters are counted as if every code were as likely. How far off both are on other layers: tools/trec_cost_model.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tinyredux.graph import Conv, Graph, Op, TrecConv
from tinyredux.kernels.choose import TEMPLATES, Template, Way, fitted, ways
from tinyredux.memory import clustering
from tinyredux.trec import TrecSizes, exactly

Limits = Callable[[Graph], tuple[int | None, int | None]]
WORTH, MOST_BITS, LEAST_CHANNELS = 0.67, 6, 8
CYCLES = {  # for each of `counts`
    "cortex-m4": (4.35, 72.1, 2.2, 2.1, 5.95, 5.0, 85.4, 16.5),
    "cortex-m7": (3.17, 43.6, 1.03, 1.35, 3.27, 2.64, 50.7, 8.8),
}


def counts(sizes: TrecSizes) -> list[float]:
    """Returns how often the C kernel multiplies for a hash, assigns, adds to a mean, multiplies a mean and widens it, adds up a
    product, finishes a sum, copies an output."""
    outputs, matrix = sizes.out_c - sizes.exact_c, sizes.likely_clusters * sizes.columns
    passes, slices = sizes.rows * sizes.blocks, -(-outputs // sizes.slice_c)
    added = outputs if sizes.blocks > 1 else 0
    return [
        sizes.rows * sizes.columns * sizes.bits, passes * (1 + sizes.bits), sizes.rows * sizes.columns, matrix * outputs,
        matrix * slices, passes * added, sizes.rows * added, sizes.rows * (outputs - added + sizes.exact_c),
    ]  # fmt: skip


def core_cycles(graph: Graph, op: Op, kernels: str, core: str) -> float:
    """Returns the predicted cycles of a convolution or a TREC layer in a kernel set, without flash stalls."""
    best = layer_ways(graph, op, core, TEMPLATES if kernels == "fast" else ())[0]
    return best.cycles if best.form is None else best.form.cycles


def layer_ways(graph: Graph, op: Op, core: str, templates: Sequence[Template] = TEMPLATES) -> list[Way]:
    """Returns the ways to compute an operator, the fastest first; TREC's plain C at its predicted cycles."""
    found = ways(graph, op, core, templates)
    if isinstance(op, TrecConv):
        each = CYCLES["cortex-m7" if core == "cortex-m7" else "cortex-m4"]
        plain = sum(n * cycles for n, cycles in zip(counts(clustering(graph, op)), each, strict=True))
        found[-1] = replace(found[-1], cycles=plain)
    return sorted(found, key=lambda way: way.cycles)


def unlimited(graph: Graph) -> tuple[int | None, int | None]:
    """Returns no limits."""
    return None, None


def network_costs(graph: Graph, ways_of: Mapping[str, list[Way]], limits: Limits = unlimited) -> tuple[int, float]:
    """Returns the bytes above the limit of SRAM and the predicted cycles of a network.

    Its operators take, of their ways, those that fit into the limits together. What has no prediction, such as a softmax, counts
    for nothing.
    """
    sram_bytes, flash_bytes = limits(graph)
    chosen, plan = fitted(graph, ways_of, sram_bytes, flash_bytes)
    above = 0 if sram_bytes is None else max(0, plan.total_bytes - sram_bytes)
    return above, sum(way.cycles for way in chosen.values() if math.isfinite(way.cycles))


def losing(
    graph: Graph, core: str, templates: Sequence[Template] = (), limits: Limits = unlimited, together: bool = False
) -> list[str]:
    """Returns the TREC layers without which the network fits, and is predicted to take fewer cycles.

    `limits` are the bytes for arena with scratch, and for weights with kernels, of a graph with some of the layers. What comes
    nearer to its SRAM is better, and of equals what takes fewer cycles.

    The network, not the layer: what a layer's tables leave of the flash may serve another's. Layers go one by one, those first
    that lose most by themselves; `together`: all of them or none.
    """
    exact_of = {op.name: op for op in exactly(graph, [op.name for op in graph.ops]).ops}
    trec = [op for op in graph.ops if isinstance(op, TrecConv)]
    plain = {op.name: layer_ways(graph, op, core, templates) for op in graph.ops}
    other = {op.name: layer_ways(exactly(graph, [op.name]), exact_of[op.name], core, templates) for op in trec}

    def total(without: set[str]) -> tuple[int, float]:
        return network_costs(exactly(graph, without), plain | {name: other[name] for name in without}, limits)

    names, dropped = {op.name for op in trec}, set[str]()
    least, none_left = total(dropped), total(names)
    if together:
        return sorted(names) if none_left <= least else []
    for name in sorted(names, key=lambda name: other[name][0].cycles - plain[name][0].cycles):
        found = total(dropped | {name})
        if found <= least:
            dropped, least = dropped | {name}, found
    return sorted(names if none_left <= least else dropped)


def picks(graph: Graph, core: str, kernels: str) -> dict[str, tuple[int, int]]:
    """Returns (sub-vector length, bits) for the convolutions in which TREC is predicted to pay, none for the others.

    Paying: at most WORTH of the exact convolution's cycles. Of what pays the most bits are taken, since more clusters are nearer
    to the rows they stand for, and of equal bits the shorter blocks: one tap of the window, else all of it. At least
    two bits; images stay exact.
    """
    found = {}
    for op in graph.ops:
        channels = graph.tensors[op.inputs[0]].shape[2]
        if not isinstance(op, Conv) or op.groups != 1 or channels < LEAST_CHANNELS:
            continue
        columns, limit = graph.constants[op.weights][0].size, WORTH * core_cycles(graph, op, kernels, core)
        most = min(MOST_BITS, graph.tensors[op.output].shape[2] - 1)
        for bits, length in itertools.product(range(most, 1, -1), sorted({channels, columns})):
            trec = TrecConv(
                op.name, op.inputs, op.output, op.weights, op.bias, op.activation, op.weight_scale, op.kernel, op.stride,
                op.padding, length, bits,
            )  # fmt: skip
            changed = graph.with_ops([trec if other is op else other for other in graph.ops])
            if core_cycles(changed, trec, kernels, core) <= limit:
                found[op.name] = (length, bits)
                break
    return found
