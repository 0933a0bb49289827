"""Hybrid plans: patches with recomputation and channel slices; the same bits, within the limit of MACs, in C as well."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from generated import assert_c_equals_interpreter
from random_graphs import random_graph
from torch import nn

from tinyredux import datasets
from tinyredux.codegen import emit_steps
from tinyredux.codegen.parts import emit_partial
from tinyredux.explore.plans import plan
from tinyredux.frontends import export
from tinyredux.graph import Graph, total_macs
from tinyredux.int8 import interpret, quantize
from tinyredux.kernels import with_rows
from tinyredux.memory import executed_macs, whole
from tinyredux.memory import verify as verify_program
from tinyredux.memory.run_schedule import run
from tinyredux.nets import Net
from tinyredux.nets.mobile import bottlenecks, convolution
from tinyredux.partial import Net as Relations
from tinyredux.partial import PartialPlan, internal_bytes, plan_hybrid, plan_partial
from tinyredux.partial.patches import narrow_cuts, op_macs, segment_ways, units_between
from tinyredux.settings import Settings, compile_net, measure_net

NET = """
import torch
from tinyredux.nets.mobile import bottlenecks, convolution

def make():
    torch.manual_seed(0)
    blocks = [(1, 4, 3, 1), (4, 6, 3, 2), (4, 6, 3, 1), (3, 8, 5, 2)]
    net = bottlenecks(convolution(3, 8, 3), 8, blocks, 16, 5).eval()
    net.input_shape = (3, 20, 20)
    return net
"""


BOTTLENECK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    wide = [nn.Conv2d(3, 64, 1), nn.ReLU6(), nn.Conv2d(64, 64, 3, padding=1, groups=64), nn.ReLU6(), nn.Conv2d(64, 4, 1)]
    net = nn.Sequential(*wide, nn.AvgPool2d(12), nn.Flatten(), nn.Linear(4, 5)).eval()
    net.input_shape = (3, 12, 12)
    return net
"""


@pytest.fixture(scope="module")
def graph() -> Graph:
    """Four inverted bottlenecks on 20x20 colour images: strides, residuals, a mean and a dense layer."""
    torch.manual_seed(0)
    blocks = [(1, 4, 3, 1), (4, 6, 3, 2), (4, 6, 3, 1), (3, 8, 5, 2)]
    net = Net(bottlenecks(convolution(3, 8, 3), 8, blocks, 16, 5), (3, 20, 20)).eval()
    return quantize(export(net, name="small"), datasets.load("random", net.input_shape).test.first(16).images)


def check(graph: Graph, mac_limit: float, input_outside: bool) -> PartialPlan:
    """Fails unless the plan is safe, keeps every bit and stays within the limit. Returns it."""
    found = plan_hybrid(graph, mac_limit, input_outside=input_outside)
    assert verify_program(found.program, found.arena)["bytes"] <= found.peak_bytes
    assert executed_macs(graph, found.program.steps()) <= mac_limit * total_macs(graph)
    image = np.random.default_rng(1).integers(-128, 128, graph.input.shape).astype(np.int8)
    np.testing.assert_array_equal(run(found.program, found.arena, image), interpret.run(graph, image[None])[0])
    return found


def check_c(graph: Graph, found: PartialPlan) -> None:
    """Fails unless the generated C writes the interpreter's bytes."""
    assert_c_equals_interpreter(graph, emit_partial(found.program, found.arena, "test"))


@pytest.mark.parametrize("input_outside", [False, True])
def test_more_macs_for_fewer_bytes(graph: Graph, input_outside: bool) -> None:
    """The looser the limit, the lower the peak; without recomputation no more than channel slices take."""
    peaks = [check(graph, limit, input_outside).peak_bytes for limit in (1.0, 1.4, 2.0)]
    assert peaks[0] >= peaks[1] >= peaks[2] and peaks[0] > peaks[2]
    assert input_outside or peaks[0] <= plan_partial(graph).peak_bytes


def test_macs_are_counted_without_running(graph: Graph) -> None:
    """What the planner counts for each item is what its kernel calls execute."""
    found = check(graph, 2.0, True)
    items = found.program.schedule.items
    outputs = {op.name: graph.tensors[op.output].shape for op in graph.ops}
    counted = sum(sum(op_macs(graph, item, whole(outputs[item.sink]), {}).values()) for item in items)
    assert counted == executed_macs(graph, found.program.steps()) > total_macs(graph)


@pytest.mark.parametrize("seed", [None, *range(6)])
def test_segments_cost_what_each_costs_alone(graph: Graph, seed: int | None) -> None:
    """Prices that are read off the longest segment are those of an item on its own."""
    net = Relations(graph if seed is None else random_graph(seed))
    tensors = net.graph.tensors
    cuts = narrow_cuts(net.graph)
    for end in range(1, len(cuts)):
        for first, _, peak, macs, item in segment_ways(net, units_between(net, cuts), cuts, end, False):
            source, output = net.graph.ops[cuts[first]].inputs[0], net.output(item)
            assert net.index[item.ops[0]] == cuts[first]
            assert peak == net.size(source) + net.size(output) + internal_bytes(net, item)
            assert macs == sum(op_macs(net.graph, item, whole(tensors[output].shape), {}).values())


@pytest.mark.sweep  # it measures time, which takes a computer with nothing else to do
def test_150_operators_are_planned_in_seconds() -> None:
    """A cut after nearly every operator makes the most segments there are: less than 10 s of a core."""
    torch.manual_seed(0)
    widths = [3, *(8 + 4 * (i * i % 7) for i in range(75))]
    pairs = [(nn.Conv2d(a, b, 1), nn.Conv2d(b, b, 3, padding=1, groups=b)) for a, b in itertools.pairwise(widths)]
    net = Net(nn.Sequential(*(layer for pair in pairs for layer in pair)), (3, 24, 24)).eval()
    chain = quantize(export(net, name="chain"), datasets.load("random", net.input_shape).test.first(2).images)
    start = time.process_time()
    found = plan_hybrid(chain, 1.5)
    assert time.process_time() - start < 10
    assert len(chain.ops) == 150 and found.peak_bytes < plan_partial(chain).peak_bytes


def test_a_softmax_in_patches() -> None:
    """Patches of columns leave gaps between the rows of the map that it writes, of which its kernel knows nothing."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 4, 3, padding=1), nn.Softmax(dim=1)
    net = Net(nn.Sequential(*layers), (3, 16, 16)).eval()
    graph = quantize(export(net, name="softmax"), datasets.load("random", net.input_shape).test.first(4).images)
    found = check(graph, 3.0, False)
    (item,) = found.program.schedule.items
    assert 0 < item.patch[1] < 16
    check_c(graph, found)


def test_c_of_a_hybrid_plan(graph: Graph) -> None:
    """The generated C writes the interpreter's bytes."""
    check_c(graph, check(graph, 2.0, False))


@pytest.mark.parametrize("core", ["cortex-m7"])
def test_fast_kernels_in_a_hybrid_plan(graph: Graph, core: str) -> None:
    """Patches that are computed by row convolutions: the checker follows them, the C writes the interpreter's bytes, and
    bytes that the plan leaves idle suffice for some; more are taken within a limit, and no more than that."""
    found = check(graph, 2.0, False)
    for limit in (0, found.peak_bytes + 4096):
        fast = with_rows(found.program, found.arena, core, limit)
        assert fast.convs or not limit
        assert verify_program(fast.program, fast.arena)["bytes"] <= fast.arena.size_bytes <= max(limit, found.peak_bytes)
        assert_c_equals_interpreter(graph, emit_steps(fast, "test"))


def test_a_hybrid_plan_with_fast_kernels_is_measured(tmp_path: Path) -> None:
    """`measure --mac-limit 2 --kernels fast`: the interpreter's bytes, in no more cycles than with reference kernels."""
    net = tmp_path / "net.py"
    net.write_text(NET)
    settings = Settings(f"{net}:make", method="partial", data="random", mac_limit=2.0, images=2)
    records = [measure_net(replace(settings, kernels=kernels)) for kernels in ("reference", "fast")]
    assert all(record.bit_exact and record.sram_bytes["written"] == record.sram_bytes["arena"] for record in records)
    assert records[0].cycles is not None and records[1].cycles is not None and records[1].cycles <= records[0].cycles


@pytest.mark.parametrize("seeds", [range(25), pytest.param(range(25, 300), marks=pytest.mark.sweep)], ids=["few", "many"])
def test_random_graphs(seeds: range) -> None:
    """Branches, residuals, concatenations, strides: hybrid plans are safe, keep every bit and stay within the limit."""
    for seed in seeds:
        check(random_graph(seed), (1.0, 1.3, 2.0)[seed % 3], bool(seed % 2))


def test_the_simulator_sees_what_was_planned(tmp_path: Path) -> None:
    """`measure` of a hybrid plan: the interpreter's bytes, and arena plus scratch written up to the plan's last byte."""
    net = tmp_path / "net.py"
    net.write_text(NET)
    settings = Settings(f"{net}:make", method="partial", data="random", mac_limit=2.0, input_outside=True, images=2)
    record = measure_net(settings)
    assert record.bit_exact and record.macs_executed > record.macs_dense
    assert record.sram_bytes["written"] == record.sram_bytes["arena"]
    assert record.sram_bytes["input"] == 3 * 20 * 20 and "partial-x" in record.file_name()
    with pytest.raises(ValueError, match="go with method partial"):
        Settings("lenet", mac_limit=2.0)


@pytest.mark.parametrize("mac_limit", [1.0, 2.0])
@pytest.mark.parametrize(("kernel", "stride"), [((1, 3), 2), (1, 1)])
def test_windows_that_lie_in_the_padding(kernel: int | tuple[int, int], stride: int, mac_limit: float) -> None:
    """Padding as wide as the kernel: the windows at the edge hold nothing, and the operator is not cut into patches."""
    torch.manual_seed(0)
    layers = [convolution(3, 6, 3), nn.Conv2d(6, 6, kernel, stride, 1, groups=6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    net = Net(nn.Sequential(*layers, nn.LazyLinear(4)), (3, 12, 11)).eval()
    net(torch.zeros(1, 3, 12, 11))
    check(quantize(export(net, name="padded"), datasets.load("random", net.input_shape).test.first(4).images), mac_limit, False)


def test_sums_of_16_bits_are_measured_against_their_own_plan(tmp_path: Path) -> None:
    """`measure --accumulator int16`: the device writes what the plan computes in Python, rounding included."""
    net = tmp_path / "net.py"
    net.write_text(BOTTLENECK)
    settings = Settings(f"{net}:make", method="partial", data="random", accumulator="int16", target="host", images=2)
    least = plan_partial(compile_net(settings).int8, "int16").peak_bytes
    compiled = compile_net(replace(settings, sram=least))
    assert any(step.kind == "add_up" for step in compiled.model.steps.program.steps())
    assert measure_net(replace(settings, sram=least)).bit_exact


def test_the_plan_states_both_counts(graph: Graph) -> None:
    """With the input apart the JSON holds the arena's bytes, the input's, and the difference; a limit below 1 is refused."""
    answer = plan(graph, "small", mac_limit=1.5, input_outside=True)
    assert answer["placement_bytes"] == answer["beside_input_bytes"] + answer["input_bytes"]
    assert answer["input_bytes"] == graph.input.size_bytes and 1 < answer["macs_factor"] <= 1.5
    with pytest.raises(ValueError, match=r"expected 1\.0 \(no recomputation\) to 1000"):
        plan_hybrid(graph, 0.9)
