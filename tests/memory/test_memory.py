"""Memory plans: no two live tensors share a byte, the checker sees planted faults, small graphs reach the optimum."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_nets import int8_net

from tinyredux import memory
from tinyredux.graph import Conv, Graph, Op, Relu, Tensor
from tinyredux.memory import MemoryPlan, first_fit, layerwise_peak, lifetimes, plan, verify_plan

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


def planted(graph: Graph, found: MemoryPlan, **changes: object) -> str:
    """Returns what the checker says of a changed plan."""
    with pytest.raises(ValueError) as caught:
        verify_plan(graph, replace(found, **changes))  # type: ignore[arg-type]
    return str(caught.value)


def test_other_faults_are_caught() -> None:
    graph = graph_of([100, 60, 80, 40], [[0], [1], [1, 2]], [True, True, False])
    found = plan(graph)
    for name in found.scratch:
        reader = next(op for op in graph.ops if op.name == name)
        message = planted(
            graph, found, scratch={**found.scratch, name: (found.offsets[reader.inputs[0]], found.scratch[name][1])}
        )
        assert f"scratch of {name}" in message and "overlaps" in message
    assert "of an arena of" in planted(graph, found, arena_bytes=found.arena_bytes - 1)
    assert "of an arena of" in planted(graph, found, offsets={**found.offsets, "t3": -4})
    assert "op0: t1 has no place" in planted(graph, found, offsets={k: v for k, v in found.offsets.items() if k != "t1"})
    assert "op1: its kernel needs" in planted(graph, found, scratch={"op0": found.scratch["op0"]})
    assert "op0: its kernel needs" in planted(graph, found, scratch={**found.scratch, "op0": (found.scratch["op0"][0], 4)})
    assert "scratch at a multiple of 4, found 3600 at 1001" in planted(
        graph, found, arena_bytes=4096, scratch={**found.scratch, "op0": (1001, 3600)}
    )


@settings(max_examples=40, deadline=None)
@given(graphs(most=5))
def test_small_graphs_reach_the_optimum(graph: Graph) -> None:
    """Six tensors or fewer: all 720 orders."""
    bare = graph.with_ops([Relu(op.name, op.inputs, op.output) for op in graph.ops])
    assert plan(bare).arena_bytes == brute_force_arena(bare)


@settings(max_examples=50, deadline=None)
@given(st.lists(SIZES, min_size=2, max_size=40))
def test_chains_reach_the_layerwise_peak(sizes: list[int]) -> None:
    found = plan(chain(sizes))
    assert found.arena_bytes == max(a + b for a, b in pairwise(sizes)) and found.optimal


def test_a_chain_that_first_fit_by_size_gets_wrong() -> None:
    """The two largest go to the bottom; what lies between them then does not fit below the bound."""
    assert plan(chain([10, 9, 9, 10] * 10)).arena_bytes == 20


def test_lifetimes() -> None:
    graph = graph_of([1, 1, 1, 1, 1], [[0], [1], [0, 2], [3]], [False] * 4, (1, -1))
    assert lifetimes(graph) == {"t0": (0, 2), "t1": (0, 3), "t2": (1, 2), "t3": (2, 3), "t4": (3, 3)}
    assert [step.live_bytes for step in memory.live_steps(graph)] == [2, 3, 4, 3]


def test_tensor_that_nobody_reads_still_needs_its_bytes() -> None:
    graph = graph_of([8, 8, 8], [[0], [0]], [False, False])
    assert layerwise_peak(graph) == 16 and plan(graph).arena_bytes == 16


@pytest.mark.parametrize("seed", range(600, 612))
def test_networks(seed: int) -> None:
    """Plans of exported networks hold and come close to the bound."""
    graph, _ = int8_net(seed)
    found = plan(graph)
    verify_plan(graph, found)
    _, arena = memory.place_reference(graph)
    assert found.total_bytes == arena.size_bytes <= 1.15 * arena.live_bytes + 16
