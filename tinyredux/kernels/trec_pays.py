"""Does TREC pay? Predicted cycles of a network with TREC layers and without them, by either kernel set.

Clusters are counted as if every code were as likely; alike rows leave fewer. How far off the prices are: `kernels.cycles`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from tinyredux.graph import Conv, Graph, Op, TrecConv
from tinyredux.kernels.choice import TEMPLATES, Template, Ways, fitted, ways
from tinyredux.trec import Choice, exactly, with_trec

Limits = Callable[[Graph], tuple[int | None, int | None]]
WORTH, MOST_BITS, LEAST_CHANNELS = 0.67, 6, 8


def network_costs(graph: Graph, core: str, ways_of: Ways, limits: Limits | None = None) -> tuple[int, float]:
    """Returns the bytes above the limit of SRAM and the predicted cycles of a network.

    Its operators take, of their ways, those that fit into the limits together.
    """
    sram_bytes, flash_bytes = limits(graph) if limits else (None, None)
    fast = fitted(graph, core, ways_of, sram_bytes, flash_bytes)
    return 0 if sram_bytes is None else max(0, fast.total_bytes - sram_bytes), fast.cycles


def losing(
    graph: Graph, core: str, templates: Sequence[Template] = (), limits: Limits | None = None, together: bool = False
) -> list[str]:
    """Returns the TREC layers without which the network fits, and is predicted to take fewer cycles.

    `limits` are the bytes for arena with scratch, and for weights with kernels, of a graph with some of the layers. What comes
    nearer to its SRAM is better, and of equals what takes fewer cycles.

    The network, not the layer: what a layer's tables leave of the flash may serve another's. Layers go one by one, those first
    that lose most by themselves; `together`: all of them or none.
    """
    exact_of = {op.name: op for op in exactly(graph, [op.name for op in graph.ops]).ops}
    trec = [op for op in graph.ops if isinstance(op, TrecConv)]
    plain = {op.name: ways(graph, op, core, templates) for op in graph.ops}
    other = {op.name: ways(exactly(graph, [op.name]), exact_of[op.name], core, templates) for op in trec}

    def total(without: set[str]) -> tuple[int, float]:
        return network_costs(exactly(graph, without), core, plain | {name: other[name] for name in without}, limits)

    names, dropped = {op.name for op in trec}, set[str]()
    least, none_left = total(dropped), total(names)
    for name in sorted(set() if together else names, key=lambda name: other[name][0].cycles - plain[name][0].cycles):
        found = total(dropped | {name})
        if found <= least:
            dropped, least = dropped | {name}, found
    return sorted(names if none_left <= least else dropped)


def fastest_cycles(graph: Graph, op: Op, kernels: str, core: str) -> float:
    """Returns the predicted cycles of an operator by the fastest kernel of a set."""
    return ways(graph, op, core, TEMPLATES if kernels == "fast" else ())[0].cycles


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
        columns, limit = graph.constants[op.weights][0].size, WORTH * fastest_cycles(graph, op, kernels, core)
        most = min(MOST_BITS, graph.tensors[op.output].shape[2] - 1)
        for bits, length in itertools.product(range(most, 1, -1), sorted({channels, columns})):
            changed = with_trec(graph, {op.name: Choice(length, bits)})
            if fastest_cycles(changed, changed.by_name[op.name], kernels, core) <= limit:
                found[op.name] = (length, bits)
                break
    return found
