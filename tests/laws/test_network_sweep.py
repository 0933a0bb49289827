"""Random networks by every method, kernel set and core: twin and machine code write the interpreter's bytes, torch agrees.

The usual run takes a few; three thousand of them, in an hour on two cores: pytest -m sweep tests/laws/test_network_sweep.py
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from compiled import BOARDS
from generated import on_core, on_host
from network_sweep import images_of, int8_of, sweep, sweep_graph
from random_graphs import random_graph
from random_nets import RandomNet

from tinyredux import nets
from tinyredux.boards import find_board
from tinyredux.codegen import assemble
from tinyredux.codegen.calls import Call, Weights, calls_of
from tinyredux.codegen.check import check_call
from tinyredux.codegen.parts import emit_partial
from tinyredux.device.build import CROSS_COMPILER
from tinyredux.int8 import interpret
from tinyredux.kernels import FastSteps
from tinyredux.memory import Arena, Step
from tinyredux.partial import plan_hybrid, plan_partial


@pytest.mark.slow
@pytest.mark.parametrize("seed", (14, 17, 18, 19))
def test_random_networks(seed: int) -> None:
    """Each in about a quarter of the ways; together these four seeds meet every way and core, two with several outputs."""
    right, wrong = sweep(lambda: RandomNet(seed, steps=4, several=seed % 2 == 0), f"r{seed}", seed, share=0.25)
    assert not wrong and right >= 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", (0, 2, 3))
def test_random_graphs_of_all_operators(seed: int) -> None:
    """Int8 graphs: fast or by reference kernels, in parts, and rounded once where there is a rule; on every core."""
    right, wrong = sweep_graph(seed)
    assert not wrong and right >= 2


@pytest.mark.sweep
@pytest.mark.parametrize("first", range(0, 2000, 100))
def test_two_thousand_random_graphs(first: int) -> None:
    assert not [wrong for seed in range(first, first + 100) for wrong in sweep_graph(seed)[1]]


@pytest.mark.sweep
@pytest.mark.parametrize("first", range(1000, 4000, 100))
def test_three_thousand_random_networks(first: int) -> None:
    for seed in range(first, first + 100):
        _, wrong = sweep(lambda seed=seed: RandomNet(seed, steps=3 + seed % 8, several=seed % 3 == 0), f"r{seed}", seed)
        assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize(("name", "core"), list(zip(["lenet", "cifarnet_quick", "squeezenet"], BOARDS, strict=True)))
def test_built_in_networks(name: str, core: str) -> None:
    """Twin and machine code of the fast kernels, with the order of instructions that the core gets."""
    net = nets.resolve(name).eval()
    _, int8, _ = int8_of(net, name, 1)
    images = images_of(int8, net.input_shape, 1)[1:3]
    _, artifact = assemble(int8, "test", "fast", find_board(BOARDS[core]))
    expected = interpret.run(int8, images)
    np.testing.assert_array_equal(on_host(artifact, images, expected.shape[1:]), expected)
    if shutil.which(CROSS_COMPILER):
        np.testing.assert_array_equal(on_core(artifact, images[:1], expected.shape[1:], core), expected[:1])


@pytest.mark.parametrize("seeds", [range(40), pytest.param(range(40, 240), marks=pytest.mark.sweep)], ids=["few", "many"])
def test_calls_of_plans_in_parts(seeds: range) -> None:
    """Plans of random graphs become calls that walk what their steps say."""
    for seed in seeds:
        graph = random_graph(seed)
        plan = plan_partial(graph) if seed % 2 else plan_hybrid(graph, 2.0, "int32", seed % 4 == 0)
        emit_partial(plan.program, plan.arena, "test")


@cache
def calls_in_parts(seed: int) -> list[tuple[Call, Step, Arena]]:
    """Returns the calls of a random graph's plan, each with its step and its arena."""
    plan = plan_partial(random_graph(seed, 4))
    fast = FastSteps(plan.program, plan.arena)
    weights = Weights(fast)
    return [(call, step, plan.arena) for step in plan.program.steps() for call in calls_of(fast, weights, step)]


@pytest.mark.parametrize(("kernel", "field"), [
    ("tr_add_s8", "n"), ("tr_relu_s8", "n"), ("tr_concat_s8", "in_c"), ("tr_conv_s8", "out_w"), ("tr_dense_s8", "in_n"),
    ("tr_conv_direct_s8", "in_row"), ("tr_depthwise_conv_s8", "in_w"), ("tr_max_pool_s8", "out_pixel"),
    ("tr_conv_add_s32", "in_pixel"), ("tr_lookup_s8", "n"), ("tr_mul_s8", "c"),
    ("tr_rearrange_s8", "out_w"), ("tr_sub_s8", "n"), ("tr_sums_start_s32", "out_c"), ("tr_sums_finish_s32", "out_row"),
])  # fmt: skip
def test_a_wrong_field_is_found(kernel: str, field: str) -> None:
    """One planted fault in each kernel's parameters, and one in an address."""
    every = (one for seed in range(400) for one in calls_in_parts(seed))
    on_a_map = (one for one in every if kernel == "tr_dense_s8" or min(one[1].output.box.shape[:2]) > 1)
    call, step, arena = next(one for one in on_a_map if one[0].kernel == kernel)
    check_call(call, step, arena)
    fields = dict(call.fields) | {field: dict(call.fields).get(field, 0) + 101}
    with pytest.raises(ValueError, match="walks"):
        check_call(replace(call, fields=tuple(fields.items())), step, arena)
    moved = replace(call.arguments[0], base=call.arguments[0].base + 1)
    with pytest.raises(ValueError, match="looks for"):
        check_call(replace(call, arguments=(moved, *call.arguments[1:])), step, arena)
