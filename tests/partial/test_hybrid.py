"""Hybrid plans: patches with recomputation and channel slices; the same bits, within the limit of MACs, in C as well."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generated import assert_c_equals_interpreter
from random_graphs import random_graph
from random_nets import images_for, int8_sequence
from torch import nn

from tinyredux import nets
from tinyredux.codegen import emit_steps
from tinyredux.codegen.parts import emit_partial
from tinyredux.explore.plans import plan
from tinyredux.frontends import export
from tinyredux.graph import Graph, total_macs
from tinyredux.int8 import interpret, quantize
from tinyredux.kernels import with_rows
from tinyredux.memory import Arena, Item, Loop, Lowering, Program, Schedule, Step, executed_macs, lower, place, whole
from tinyredux.memory import verify as verify_program
from tinyredux.memory.run_schedule import run
from tinyredux.nets.mobile import convolution
from tinyredux.partial import Net as Relations
from tinyredux.partial import PartialPlan, internal_bytes, patches, plan_hybrid, plan_partial
from tinyredux.partial.patches import UnitCosts, alone_after, narrow_cuts, op_macs, segment_ways, strip_ways, units_between
from tinyredux.settings import Settings, compile_net, measure_net

FILE = """
import torch
from torch import nn
from tinyredux.nets import Net
from tinyredux.nets.mobile import bottlenecks, convolution

def small():
    torch.manual_seed(0)
    blocks = [(1, 4, 3, 1), (4, 6, 3, 2), (4, 6, 3, 1), (3, 8, 5, 2)]
    return Net(bottlenecks(convolution(3, 8, 3), 8, blocks, 16, 5), (3, 20, 20)).eval()

def wide():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 64, 1), nn.ReLU6(), nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.ReLU6(), nn.Conv2d(64, 4, 1)]
    return Net(nn.Sequential(*layers, nn.AvgPool2d(12), nn.Flatten(), nn.Linear(4, 5)), (3, 12, 12)).eval()
"""


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a user: four inverted bottlenecks with strides, residuals, a mean and a dense layer; one wide bottleneck."""
    path = tmp_path_factory.mktemp("hybrid") / "net.py"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def graph(networks: Path) -> Graph:
    """The four bottlenecks."""
    net = nets.resolve(f"{networks}:small")
    return quantize(export(net, name="small"), images_for(net, 16, 0))


def check(graph: Graph, mac_limit: float, input_outside: bool) -> PartialPlan:
    """Fails unless the plan is safe, keeps every bit and stays within the limit. Returns it."""
    found = plan_hybrid(graph, mac_limit, input_outside=input_outside)
    assert verify_program(found.program, found.arena)["bytes"] <= found.peak_bytes
    assert executed_macs(graph, found.program.steps()) <= mac_limit * total_macs(graph)
    image = np.random.default_rng(1).integers(-128, 128, graph.input.shape).astype(np.int8)
    np.testing.assert_array_equal(run(found.program, found.arena, image), interpret.run_joined(graph, image[None])[0])
    return found


def check_c(graph: Graph, found: PartialPlan) -> None:
    """Fails unless the generated C writes the interpreter's bytes."""
    assert_c_equals_interpreter(graph, emit_partial(found.program, found.arena, "test"))


@pytest.fixture(scope="module")
def plans(graph: Graph) -> dict[tuple[float, bool], PartialPlan]:
    """Plans of the four bottlenecks by their limit, the input beside or in the arena."""
    return {(limit, outside): check(graph, limit, outside) for limit in (1.0, 1.4, 2.0) for outside in (False, True)}


def test_more_macs_for_fewer_bytes(graph: Graph, plans: dict[tuple[float, bool], PartialPlan]) -> None:
    """The looser the limit, the lower the peak; without recomputation no more than channel slices take."""
    for outside in (False, True):
        peaks = [plans[limit, outside].peak_bytes for limit in (1.0, 1.4, 2.0)]
        assert peaks[0] >= peaks[1] >= peaks[2] and peaks[0] > peaks[2]
        assert outside or peaks[0] <= plan_partial(graph).peak_bytes


def test_macs_are_counted_without_running(graph: Graph, plans: dict[tuple[float, bool], PartialPlan]) -> None:
    """What the planner counts for each item is what its kernel calls execute."""
    program = plans[2.0, True].program
    outputs = {op.name: graph.tensors[op.output].shape for op in graph.ops}
    counted = sum(sum(op_macs(graph, item, whole(outputs[item.sink]), {}).values()) for item in program.schedule.items)
    assert counted == executed_macs(graph, program.steps()) > total_macs(graph)


@pytest.mark.parametrize("seed", [None, *range(6)])
def test_segments_cost_what_each_costs_alone(graph: Graph, seed: int | None) -> None:
    """Prices that are read off the longest segment are those of an item on its own."""
    net = Relations(graph if seed is None else random_graph(seed))
    tensors = net.graph.tensors

    def macs_of(item: Item) -> float:
        return sum(op_macs(net.graph, item, whole(tensors[net.output(item)].shape), {}).values())

    cuts = narrow_cuts(net.graph)
    for end in range(1, len(cuts)):
        for first, _, peak, macs, _, (item,) in segment_ways(
            net, units_between(net, cuts), cuts, end, False, UnitCosts(net.graph, macs_of)
        ):
            source, output = net.graph.ops[cuts[first]].inputs[0], net.output(item)
            assert net.index[item.ops[0]] == cuts[first]
            assert peak == net.size(source) + net.size(output) + internal_bytes(net, item)
            assert macs == sum(op_macs(net.graph, item, whole(tensors[output].shape), {}).values())


@pytest.mark.sweep
def test_150_operators_are_planned() -> None:
    """A cut after nearly every operator makes the most segments there are; seconds, where segments are priced once."""
    torch.manual_seed(0)
    widths = [3, *(8 + 4 * (i * i % 7) for i in range(75))]
    pairs = [(nn.Conv2d(a, b, 1), nn.Conv2d(b, b, 3, padding=1, groups=b)) for a, b in itertools.pairwise(widths)]
    chain = int8_sequence((3, 24, 24), *(layer for pair in pairs for layer in pair))
    assert len(chain.ops) == 150 and plan_hybrid(chain, 1.5).peak_bytes < plan_partial(chain).peak_bytes


def test_a_softmax_in_patches() -> None:
    """Patches of columns leave gaps between the rows of the map that it writes, of which its kernel knows nothing."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 4, 3, padding=1), nn.Softmax(dim=1)
    graph = int8_sequence((3, 16, 16), *layers)
    found = check(graph, 3.0, False)
    (item,) = found.program.schedule.items
    assert 0 < item.patch[1] < 16
    check_c(graph, found)


def test_c_of_a_hybrid_plan(graph: Graph, plans: dict[tuple[float, bool], PartialPlan]) -> None:
    """With reference kernels, and with patches that are computed by row convolutions: the checker follows them, the C writes the
    interpreter's bytes, and bytes that the plan leaves idle suffice for some; more are taken within a limit, and no more."""
    found = plans[2.0, False]
    check_c(graph, found)
    for limit in (0, found.peak_bytes + 4096):
        fast = with_rows(found.program, found.arena, "cortex-m7", limit)
        assert fast.convs or not limit
        assert verify_program(fast.program, fast.arena)["bytes"] <= fast.arena.size_bytes <= max(limit, found.peak_bytes)
    assert_c_equals_interpreter(graph, emit_steps(fast, "test"))


@pytest.mark.parametrize("seeds", [range(15), pytest.param(range(15, 300), marks=pytest.mark.sweep)], ids=["few", "many"])
def test_random_graphs(seeds: range) -> None:
    """Branches, residuals, concatenations, strides: hybrid plans are safe, keep every bit and stay within the limit."""
    for seed in seeds:
        check(random_graph(seed), (1.0, 1.3, 2.0)[seed % 3], bool(seed % 2))


@pytest.mark.slow
def test_a_hybrid_plan_is_measured(networks: Path) -> None:
    """The simulator sees what was planned, up to the last byte; fast kernels take no more cycles than reference kernels."""
    settings = Settings(f"{networks}:small", method="partial", data="random", mac_limit=2.0, input_outside=True, images=1)
    slow, fast = (measure_net(replace(settings, kernels=kernels)) for kernels in ("reference", "fast"))
    for record in (slow, fast):
        assert record.bit_exact and record.macs_executed > record.macs_dense and "partial-x" in record.file_name()
        assert record.sram_bytes["written"] == record.sram_bytes["arena"] and record.sram_bytes["input"] == 3 * 20 * 20
    assert slow.cycles is not None and fast.cycles is not None and fast.cycles <= slow.cycles
    with pytest.raises(ValueError, match="go with method partial"):
        Settings("lenet", mac_limit=2.0)


@pytest.mark.parametrize("mac_limit", [1.0, 2.0])
@pytest.mark.parametrize(("kernel", "stride"), [((1, 3), 2), (1, 1)])
def test_windows_that_lie_in_the_padding(kernel: int | tuple[int, int], stride: int, mac_limit: float) -> None:
    """Padding as wide as the kernel: the windows at the edge hold nothing, and the operator is not cut into patches."""
    torch.manual_seed(0)
    layers = convolution(3, 6, 3), nn.Conv2d(6, 6, kernel, stride, 1, groups=6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    check(int8_sequence((3, 12, 11), *layers, nn.LazyLinear(4)), mac_limit, False)


def test_sums_of_16_bits_are_measured_against_their_own_plan(networks: Path) -> None:
    """`measure --accumulator int16`: the device writes what the plan computes in Python, rounding included."""
    settings = Settings(f"{networks}:wide", method="partial", data="random", accumulator="int16", target="host", images=1)
    least = plan_partial(compile_net(settings).int8, "int16").peak_bytes
    settings = replace(settings, sram=least)
    assert any(step.kind == "add_up" for step in compile_net(settings).model.steps.program.steps())
    assert measure_net(settings).bit_exact


def test_the_plan_states_both_counts(graph: Graph) -> None:
    """With the input apart the JSON holds the arena's bytes, the input's, and the difference; a limit below 1 is refused."""
    answer = plan(graph, "small", mac_limit=1.5, input_outside=True)
    assert answer["placement_bytes"] == answer["beside_input_bytes"] + answer["input_bytes"]
    assert answer["input_bytes"] == graph.input.size_bytes and 1 < answer["macs_factor"] <= 1.5
    with pytest.raises(ValueError, match=r"expected 1\.0 \(no recomputation\) to 1000"):
        plan_hybrid(graph, 0.9)


@pytest.mark.parametrize("seed", [None, *range(12)])
def test_rolling_strips_compute_every_value_once(graph: Graph, seed: int | None) -> None:
    check_strips(graph if seed is None else random_graph(seed))


@pytest.mark.parametrize("factor", [0.5, 0.75, 2])
def test_rolling_strips_of_resized_maps(factor: float) -> None:
    """An output row of a map that shrinks stands further up than the rows that it is made of."""
    torch.manual_seed(0)
    sizes = [2 * round(12 * factor) // 4 - 1, 2 * round(10 * factor) // 4 - 1]
    layers = convolution(3, 6, 3), nn.MaxPool2d(2), nn.Upsample(scale_factor=factor, mode="bilinear"), convolution(6, 4, 3)
    graph = int8_sequence((3, 24, 20), *layers, nn.MaxPool2d(2), nn.AvgPool2d(sizes), nn.Flatten(), nn.LazyLinear(3))
    assert check_strips(graph) > 5


@pytest.mark.parametrize("seed", [None, *range(4)])
def test_no_faster_choice_is_hidden(graph: Graph, seed: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each peak that some way has, a choice within a step of it is about as fast as the fastest of that peak."""
    asked, fastest = list[tuple[Any, ...]](), patches.fastest
    monkeypatch.setattr(patches, "fastest", lambda *them: asked.append(them) or fastest(*them))
    net = Relations(graph if seed is None else random_graph(seed))
    choices = patches.hybrid_items(net, 1.5, False, lambda item: executed_macs(net.graph, macs_of(net.graph, item)), True)
    ways, edges, _, most = asked[0]
    for peak in sorted({way.peak for way in ways}):
        if path := fastest(ways, edges, peak, most):
            near = [fastest(ways, edges, bytes_, most) for bytes_, _ in choices if bytes_ <= patches.LEVEL_STEP * peak]
            assert min(one.cycles for one in near if one) * patches.GAIN <= path.cycles


def macs_of(graph: Graph, item: Item) -> Iterator[Step]:
    schedule = Schedule((item,), {}, frozenset(), frozenset(item.ops))
    return Loop((tuple(Lowering(graph, schedule).item(item)),)).steps()


def check_strips(graph: Graph) -> int:
    """Strips of rows that keep what later ones read: safe, the same bits, no product twice, and as many bytes as was said.
    Returns how many there are."""
    net = Relations(graph)
    graph, edges = net.graph, [*alone_after(net.graph)]
    names = [op.name for op in graph.ops]
    image = np.random.default_rng(1).integers(-128, 128, graph.input.shape).astype(np.int8)
    expected, last = interpret.run_joined(graph, image[None])[0], list[tuple[Program, Arena]]()
    for end in range(1, len(edges)):
        for first, _, peak, macs, _, (item,) in strip_ways(net, edges, end, False, UnitCosts(graph, lambda _: 1.0)):
            before, after = names[: edges[first]], names[edges[end] :]
            items = (*(Item((name,)) for name in before), item, *(Item((name,)) for name in after))
            program = lower(graph, Schedule(items, {}, frozenset(), frozenset(names)))
            arena = place(program)
            assert verify_program(program, arena)["bytes"] <= arena.size_bytes
            own = Schedule((item,), {}, frozenset(), frozenset(names))
            assert macs == executed_macs(graph, Loop((tuple(Lowering(graph, own).item(item)),)).steps())
            assert peak == net.size(graph.ops[edges[first]].inputs[0]) + net.size(net.output(item)) + internal_bytes(net, item)
            np.testing.assert_array_equal(run(program, arena, image), expected)
            last.append((program, arena))
    if last:
        assert_c_equals_interpreter(graph, emit_partial(*last[-1], "test"))
    return len(last)
