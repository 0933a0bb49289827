"""Partial execution: the same bits, never more bytes, the best plan on small graphs; C and simulator agree with the plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from brute_force import least_live_bytes, least_placed_bytes
from generated import assert_c_equals_interpreter, on_host
from random_graphs import PLAIN, random_graph
from random_nets import int8_sequence
from torch import nn

from tinyredux.codegen.calls import Address, Call
from tinyredux.codegen.parts import Block, emit_partial, lines_of
from tinyredux.explore.plans import PRICE, timeline
from tinyredux.explore.plans import plan as plan_net
from tinyredux.graph import Add, Attention, Graph, Pool, Quant, Tensor
from tinyredux.int8 import interpret
from tinyredux.memory import Arena, Item, Schedule, lower, place
from tinyredux.memory import verify as verify_program
from tinyredux.memory.run_schedule import run
from tinyredux.nets.mobile import InvertedBottleneck
from tinyredux.partial import MARGIN, SLOWDOWN, Net, PartialPlan, candidates, plan_partial
from tinyredux.partial.plan import EVERY_COVER, Known
from tinyredux.partial.regions import at_once, phases
from tinyredux.partial.widths import variants

FEW, MANY = 45, 2000  # random networks in the usual run, and with -m sweep


def image_for(graph: Graph, seed: int) -> np.ndarray:
    """Returns a random int8 input (H, W, C)."""
    return np.random.default_rng(seed).integers(-128, 128, graph.input.shape).astype(np.int8)


def check(graph: Graph, seed: int) -> PartialPlan:
    """Fails unless the plan is safe, keeps every bit and takes no more than layer by layer. Returns it."""
    plan = plan_partial(graph)
    assert verify_program(plan.program, plan.arena)["bytes"] <= plan.peak_bytes
    image = image_for(graph, seed)
    np.testing.assert_array_equal(run(plan.program, plan.arena, image), interpret.run_joined(graph, image[None])[0])
    assert plan.peaks["partial"] <= plan.peaks["reordered"] <= plan.peaks["inplace"] <= plan.peaks["layerwise"]
    assert plan.lower_bound_bytes <= plan.peak_bytes
    return plan


SEEDS = [pytest.param(range(FEW), id="few"), pytest.param(range(FEW, MANY), id="many", marks=pytest.mark.sweep)]


@pytest.mark.parametrize("seeds", SEEDS)
def test_many_random_graphs(seeds: range) -> None:
    """The same ones every time."""
    for seed in seeds:
        check(random_graph(seed), seed)


@pytest.mark.parametrize("seeds", SEEDS)
def test_small_graphs_equal_brute_force(seeds: range) -> None:
    """On graphs of up to 7 operators the bound is the least peak of live bytes of all plans of the kind searched.

    The plan is as small, or no plan's buffers can be placed in fewer bytes.
    """
    for seed in seeds:
        graph = random_graph(seed, most=6)
        if len(graph.ops) <= EVERY_COVER:
            plan, net = plan_partial(graph), Net(graph)
            least, known = least_live_bytes(net), Known(net)
            for i in range(len(graph.ops)):  # what an item is said to need at least, it needs in every plan
                assert least >= min(known.bounds[item] for item in known.every if known.masks[item] >> i & 1)
            assert plan.lower_bound_bytes == plan.channel_bound_bytes == least
            assert plan.peak_bytes == plan.lower_bound_bytes or plan.peak_bytes == least_placed_bytes(net, plan.peak_bytes)
            assert plan.optimal == (plan.peak_bytes == plan.lower_bound_bytes)


@pytest.mark.parametrize("seed", [135, 751])
def test_placement_where_live_bytes_are_not_reached(seed: int) -> None:
    """Alignment of sums costs bytes in every plan (135), or in that of the first order found alone (751)."""
    graph = random_graph(seed, 4, PLAIN)
    plan = plan_partial(graph)
    assert (plan.lower_bound_bytes, plan.peak_bytes) == {135: (105, 107), 751: (32, 32)}[seed]
    assert least_placed_bytes(Net(graph), plan.peak_bytes + 1) == plan.peak_bytes


@pytest.mark.parametrize(
    "seeds", [range(60, 85), pytest.param([*range(60), *range(85, 120)], marks=pytest.mark.sweep)], ids=["few", "many"]
)
def test_no_wider_part_needs_less(seeds: Sequence[int]) -> None:
    """The bound knows the narrowest parts alone: each of their phases is covered by one of any other width, height and patch.

    Left out: a region's operators at once, which need no less than these one by one.
    """
    for seed in seeds:
        net = Net(random_graph(seed))
        every = [item for item in candidates(net) if item.kind != "whole"]
        for item in every:
            narrow = [phases(net, other) for other in every if other.ops == item.ops]
            for way in (way for ways in variants(net, item) for way in ways if way != at_once(way)):
                wide = phases(net, way)
                assert any(all(any(one.covers(less) for one in wide) for less in some) for some in narrow)


@pytest.mark.parametrize("accumulator", ["int32", "int16"])
@pytest.mark.parametrize("seed", (0, 2, 4))
def test_c_equals_the_plan(seed: int, accumulator: str) -> None:
    """The generated C writes the plan's bytes, 16-bit sums included."""
    graph = random_graph(seed)
    plan = plan_partial(graph, accumulator)
    images = np.stack([image_for(graph, i) for i in range(3)])
    written = on_host(emit_partial(plan.program, plan.arena, "test"), images, graph.joined_shape)
    np.testing.assert_array_equal(written, [run(plan.program, plan.arena, image) for image in images])


def test_slices_of_a_map_whose_edge_nobody_reads() -> None:
    """An addition of slices for a pool that leaves out the last row and column: gaps between pixels and rows, row by row in C."""
    quant = Quant((0.05,), -3)
    shapes = {"input": (5, 5, 8), "sum": (5, 5, 8), "pooled": (2, 2, 8)}
    ops = (Add("add", ("input", "input"), "sum"), Pool("pool", ("sum",), "pooled", kernel=(2, 2), stride=(2, 2)))
    tensors = {name: Tensor(name, shape, "int8", quant) for name, shape in shapes.items()}
    graph = Graph("edge", ops, tensors, {}, ("input",), ("pooled",))
    program = lower(graph, Schedule((Item(("add", "pool"), "materialise", 3),)))
    assert_c_equals_interpreter(graph, emit_partial(program, place(program), "test"))


@pytest.mark.parametrize("patch", [(1, 0), (2, 0), (2, 3), (3, 4), (4, 6)])
@pytest.mark.parametrize("own", [1, 2])
def test_patches_of_an_attention_take_their_rows_of_its_bias(patch: tuple[int, int], own: int) -> None:
    """Rows and columns of queries, which see masks and biases of their own, for all heads or for each."""
    quant, rng = Quant((0.05,), -3), np.random.default_rng(0)
    ops = (
        Pool("queries", ("input",), "asked", kernel=(1, 1), stride=(1, 1)),
        Attention("attention", ("asked", "input", "input"), "attended", 2, 0.3, "bias", 9),
        Pool("pool", ("attended",), "pooled", kernel=(1, 1), stride=(1, 1)),
    )
    tensors = {name: Tensor(name, (4, 6, 8), "int8", quant) for name in ("input", "asked", "attended", "pooled")}
    bias = np.where(rng.random((own, 24, 24)) < 0.5, -128, rng.integers(-127, 128, (own, 24, 24))).astype(np.int8)
    bias[:, np.arange(24), np.arange(24)] = 127
    graph = Graph("patches", ops, tensors, {"bias": bias}, ("input",), ("pooled",))
    names = tuple(op.name for op in ops)
    program = lower(graph, Schedule((Item(names, "spatial", 0, patch, tuple(Item((name,)) for name in names)),)))
    assert sum(step.op == "attention" for step in program.steps()) == -(-4 // patch[0]) * -(-6 // (patch[1] or 6))
    image = image_for(graph, 0)
    np.testing.assert_array_equal(run(program, place(program), image), interpret.run_joined(graph, image[None])[0])
    assert_c_equals_interpreter(graph, emit_partial(program, place(program), "test"))


def test_one_loop_moves_one_struct_twice() -> None:
    """Two calls in a loop that share parameters and move their factors: declared once, called twice."""
    factors = Address("I32", 0, (("i", 16),)), Address("I32", 64, (("i", 16),))
    call = Call("op", "tr_depthwise_conv_s8", "tr_depthwise", (("in_h", 1),), (Address("AT", 0, (("i", 4),)),), factors)
    text = lines_of(Block("i", 2, (call, call)), {}, "")
    assert sum("struct tr_depthwise op_part" in line for line in text) == 1
    assert sum("tr_depthwise_conv_s8(" in line for line in text) == sum(".shift =" in line for line in text) == 2


@cache
def block() -> Graph:
    """An inverted bottleneck with a residual, a pool and a dense layer: every class of operator."""
    torch.manual_seed(0)
    return int8_sequence((4, 8, 8), InvertedBottleneck(4, (6, 4, 3, 1)), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 5))


def test_inverted_bottleneck() -> None:
    """expand -> depthwise -> project runs in slices: input, 32-bit sums of the narrow map, two slices of one channel."""
    plan = check(block(), 0)
    regions = [item for item in plan.program.schedule.items if "conv2" in item.ops]
    assert [item.kind for item in regions] == ["accumulate"]
    assert plan.peak_bytes <= 8 * 8 * 4 + 4 * 8 * 8 * 4 + 2 * 8 * 8
    assert plan.peak_bytes == plan.channel_bound_bytes


def test_int16_sums_halve_the_bytes_and_stay_close() -> None:
    """16-bit sums lower the peak; their outputs differ by a few units at most."""
    graph, image = block(), image_for(block(), 1)
    exact, lossy = plan_partial(graph), plan_partial(graph, "int16")
    assert lossy.peak_bytes < exact.peak_bytes
    outputs = [run(plan.program, plan.arena, image).astype(int) for plan in (exact, lossy)]
    assert np.abs(outputs[0] - outputs[1]).max() <= 4


def test_more_bytes_for_fewer_cycles() -> None:
    """A plan within 2 % of the layer-by-layer cycles by estimate, where bytes allow; never above them, never below the least."""
    torch.manual_seed(0)
    graph = int8_sequence((3, 14, 14), nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2))
    whole = PRICE(graph, lower(graph, Schedule(tuple(Item((op.name,)) for op in graph.ops))).steps())
    least, fast = plan_partial(graph), plan_partial(graph, slowdown=SLOWDOWN, price=PRICE)
    assert least.peak_bytes == fast.least_bytes < fast.peak_bytes <= fast.peaks["layerwise"]
    estimates = [PRICE(graph, plan.program.steps()) for plan in (fast, least)]
    assert estimates[0] <= (1 + SLOWDOWN - MARGIN) * whole < estimates[1]
    assert plan_partial(graph, limit=least.peak_bytes, slowdown=SLOWDOWN, price=PRICE).peak_bytes == least.peak_bytes
    image = image_for(graph, 3)
    assert verify_program(fast.program, fast.arena)["bytes"] <= fast.peak_bytes
    np.testing.assert_array_equal(run(fast.program, fast.arena, image), interpret.run_joined(graph, image[None])[0])


def test_the_plan_as_text_and_as_steps() -> None:
    """Both maps name every buffer with its bytes; each step's buffers lie in the arena and live bytes are at most its size."""
    answer = plan_net(block(), "block", budget_bytes=plan_partial(block()).peak_bytes)
    text = timeline(answer)
    assert answer["fits"] and f"the least is {answer['least_bytes']:,}" in timeline(plan_net(block(), "block"))
    assert answer["least_is_proven"] and answer["least_bytes"] == answer["channel_bound_bytes"]
    assert "layer by layer:" in text and "in parts:" in text and "conv1 1,536" in text and "conv2:sums" in text
    for kind, most in (("layerwise", answer["peak_bytes"]["layerwise"]), ("steps", answer["placement_bytes"])):
        for step in answer[kind]:
            assert all(0 <= offset and offset + size <= most for offset, size in step["buffers"].values())
            assert step["live_bytes"] <= most
    assert max(len(line) for line in text.splitlines()) < 130


class Branches(nn.Module):
    """32 branches, 1 x 1, depthwise and 1 x 1, from one map, joined pair by pair by additions."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(InvertedBottleneck(3, (2 + i % 3, 5, 3, 1)) for i in range(32))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        values = [branch(maps) for branch in self.branches]
        while len(values) > 1:
            values.append(values.pop(0) + values.pop(0))
        return values[0]


@pytest.mark.sweep
@pytest.mark.parametrize("make", [lambda: random_graph(4, most=130), lambda: int8_sequence((3, 10, 10), Branches())])
def test_large_graphs_are_planned(make: Callable[[], Graph]) -> None:
    """127 and 170 operators with branches and joins: planned in seconds, safe and to the bit."""
    graph = make()
    assert len(graph.ops) > 120
    plan = check(graph, 4)
    assert plan.peaks["partial"] <= plan.peaks["reordered"] <= plan.peaks["inplace"]


@pytest.mark.parametrize("fault", ["overlap", "order"])
def test_checker_finds_planted_faults(fault: str) -> None:
    """A buffer moved onto a live one, and two loops swapped, are found."""
    plan = check(block(), 0)
    program, arena = plan.program, plan.arena
    if fault == "overlap":
        moved = {name: 0 for name in arena.offsets}
        arena = Arena(moved, arena.size_bytes, arena.live_bytes)
    else:
        program = replace(program, nodes=tuple(reversed(program.nodes)))
    with pytest.raises(ValueError, match=r"no longer holds|over its own input|overlaps"):
        verify_program(program, arena)
