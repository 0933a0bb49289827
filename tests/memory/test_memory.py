"""Memory plans: no two live tensors share a byte, the checker sees planted faults, small graphs reach the optimum."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, permutations
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from random_nets import int8_net

from tinyredux import memory
from tinyredux.graph import Conv, Graph, Op, Relu, Tensor
from tinyredux.memory import first_fit, layerwise_peak, lifetimes, plan, verify_plan

SIZES = st.one_of(st.integers(1, 40), st.sampled_from([1, 2, 3, 100, 101, 1024, 4097]))


def graph_of(sizes: list[int], reads: list[list[int]], scratch: list[bool], outputs: tuple[int, ...] = (-1,)) -> Graph:
    """Returns a graph in which operator i reads `reads[i]` and writes tensor i + 1; only sizes and order matter here."""
    names = [f"t{i}" for i in range(len(sizes))]
    tensors = {name: Tensor(name, (1, 1, size), "int8") for name, size in zip(names, sizes, strict=True)}
    ops: list[Op] = []
    for i, (inputs, wide) in enumerate(zip(reads, scratch, strict=True)):
        sources = tuple(names[k] for k in inputs)
        op: Op = Conv(f"op{i}", sources, names[i + 1], kernel=(3, 3)) if wide else Relu(f"op{i}", sources, names[i + 1])
        ops.append(op)
    return Graph("random", tuple(ops), tensors, {}, ("t0",), tuple(names[i] for i in outputs))


@st.composite
def graphs(draw: st.DrawFn, most: int = 12) -> Graph:
    """Draws graphs with branches, tensors that live long, dead ends, several outputs and scratch."""
    count = draw(st.integers(1, most))
    sizes = draw(st.lists(SIZES, min_size=count + 1, max_size=count + 1))
    reads = [draw(st.lists(st.integers(max(0, i - 4), i), min_size=1, max_size=3, unique=True)) for i in range(count)]
    scratch = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    outputs = tuple(draw(st.lists(st.integers(1, count), min_size=1, max_size=2, unique=True)))
    return graph_of(sizes, reads, scratch, outputs)


def chain(sizes: list[int]) -> Graph:
    """Returns a chain of operators: each reads what the one before wrote."""
    return graph_of(sizes, [[i] for i in range(len(sizes) - 1)], [False] * (len(sizes) - 1))


def brute_force_arena(graph: Graph) -> int:
    """Returns the smallest arena of all placements: some order of first fits makes it, since tensors only ever sink."""
    spans = lifetimes(graph)
    sizes = {name: graph.tensors[name].size_bytes for name in spans}
    return min(
        max(offset + sizes[name] for name, offset in first_fit(order, sizes, spans, 1).items()) for order in permutations(spans)
    )


@settings(max_examples=50, deadline=None)
@given(graphs())
def test_plan_holds(graph: Graph) -> None:
    found = plan(graph)
    verify_plan(graph, found)
    sizes = [graph.tensors[name].size_bytes for name in found.offsets]
    most = sum(sizes) + 3 * len(sizes) + max((size for _, size in found.scratch.values()), default=0)
    assert layerwise_peak(graph) == found.lower_bound_bytes <= found.arena_bytes <= most
    assert found.optimal == (found.arena_bytes == found.lower_bound_bytes)
    assert all(offset % 4 == 0 for offset, _ in found.scratch.values())
    assert set(found.offsets) == {"t0", *(op.output for op in graph.ops)}
    assert plan(graph) == found


@settings(max_examples=40, deadline=None)
@given(graphs(), st.data())
def test_planted_overlap_is_caught(graph: Graph, data: st.DataObject) -> None:
    """Any tensor moved onto any other that is alive with it."""
    found, spans = plan(graph), lifetimes(graph)
    pairs = [(a, b) for a in spans for b in spans if a != b and spans[a][0] <= spans[b][1] and spans[b][0] <= spans[a][1]]
    moved, onto = data.draw(st.sampled_from(pairs))
    low = max(0, found.offsets[onto] - graph.tensors[moved].size_bytes + 1)
    high = found.offsets[onto] + graph.tensors[onto].size_bytes - 1
    offset = data.draw(st.integers(low, high))
    wrong = replace(found, offsets={**found.offsets, moved: offset}, arena_bytes=1 << 20)
    with pytest.raises(ValueError, match=r"overlaps .* both are alive there"):
        verify_plan(graph, wrong)


def test_other_faults_are_caught() -> None:
    graph = graph_of([100, 60, 80, 40], [[0], [1], [1, 2]], [True, True, False])
    found = plan(graph)
    scratch, offsets, bytes_ = found.scratch, found.offsets, found.arena_bytes
    faults: list[tuple[str, dict[str, Any]]] = [
        (r"scratch of op0 .*overlaps", {"scratch": scratch | {"op0": (offsets["t0"], scratch["op0"][1])}}),
        (r"scratch of op1 .*overlaps", {"scratch": scratch | {"op1": (offsets["t1"], scratch["op1"][1])}}),
        ("of an arena of", {"arena_bytes": bytes_ - 1}), ("of an arena of", {"offsets": offsets | {"t3": -4}}),
        ("op0: t1 has no place", {"offsets": {name: at for name, at in offsets.items() if name != "t1"}}),
        ("op1: its kernel needs", {"scratch": {"op0": scratch["op0"]}}),
        ("op0: its kernel needs", {"scratch": scratch | {"op0": (scratch["op0"][0], 4)}}),
        ("scratch at a multiple of 4, found 3600 at 1001", {"arena_bytes": 8192, "scratch": scratch | {"op0": (1001, 3600)}}),
    ]  # fmt: skip
    for words, changes in faults:
        with pytest.raises(ValueError, match=words):
            verify_plan(graph, replace(found, **changes))


@settings(max_examples=40, deadline=None)
@given(graphs(most=5))
def test_small_graphs_reach_the_optimum(graph: Graph) -> None:
    """Six tensors or fewer: all 720 orders."""
    bare = graph.with_ops([Relu(op.name, op.inputs, op.output) for op in graph.ops])
    assert plan(bare).arena_bytes == brute_force_arena(bare)


@settings(max_examples=50, deadline=None)
@given(st.lists(SIZES, min_size=2, max_size=40))
@example([10, 9, 9, 10] * 10)  # first fit by size puts the two largest to the bottom, and the others do not fit between
def test_chains_reach_the_layerwise_peak(sizes: list[int]) -> None:
    found = plan(chain(sizes))
    assert found.arena_bytes == max(a + b for a, b in pairwise(sizes)) and found.optimal


def test_lifetimes() -> None:
    graph = graph_of([1, 1, 1, 1, 1], [[0], [1], [0, 2], [3]], [False] * 4, (1, -1))
    assert lifetimes(graph) == {"t0": (0, 2), "t1": (0, 3), "t2": (1, 2), "t3": (2, 3), "t4": (3, 3)}
    assert [step.live_bytes for step in memory.live_steps(graph)] == [2, 3, 4, 3]
    unread = graph_of([8, 8, 8], [[0], [0]], [False, False])  # needs its bytes
    assert layerwise_peak(unread) == 16 and plan(unread).arena_bytes == 16


@pytest.mark.parametrize("seed", range(600, 604))
def test_networks(seed: int) -> None:
    """Plans of exported networks hold and come close to the bound."""
    graph, _ = int8_net(seed)
    found = plan(graph)
    verify_plan(graph, found)
    _, arena = memory.place_reference(graph)
    assert found.total_bytes == arena.size_bytes <= 1.15 * arena.live_bytes + 16
