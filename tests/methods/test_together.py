"""TREC, partial execution and skipping in one network: one plan, one set of kernels, the interpreter's bytes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from generated import assert_c_equals_interpreter
from random_graphs import random_graph
from torch import nn

import tinyredux as tr
from tinyredux import datasets, memory
from tinyredux.codegen import emit_steps
from tinyredux.device import DoesNotFit
from tinyredux.graph import Conv, Graph, TrecConv
from tinyredux.kernels import TEMPLATES, FastSteps, Way, ways, with_forms, with_rows
from tinyredux.memory import verify
from tinyredux.methods.partial import what_fits
from tinyredux.partial import plan_hybrid, plan_partial, within_bytes
from tinyredux.settings import Settings, compile_net, measure_net
from tinyredux.trec import Choice, with_trec


def clustered(seed: int) -> Graph:
    """Returns a random network in which about every second convolution of one group is a TREC layer."""
    graph, random = random_graph(seed), np.random.default_rng(seed)
    table = {}
    for op in graph.ops:
        if isinstance(op, Conv) and op.groups == 1 and random.random() < 0.6:
            columns, outputs = graph.constants[op.weights][0].size, graph.tensors[op.output].shape[2]
            bits, source = int(random.integers(1, 5)), str(random.choice(["kernel", "random"]))
            if source == "random" or bits < outputs:
                table[op.name] = Choice(int(random.integers(1, columns + 1)), bits, source)
    return with_trec(graph, table)


def ways_of(graph: Graph) -> dict[str, list[Way]]:
    """Returns every way to compute each operator."""
    return {op.name: ways(graph, op, "cortex-m4", TEMPLATES) for op in graph.ops}


def check(graph: Graph, fast: FastSteps) -> None:
    """Fails unless the plan is safe and the generated C writes the interpreter's bytes."""
    assert verify(fast.program, fast.arena)["bytes"] <= fast.arena.size_bytes
    assert_c_equals_interpreter(graph, emit_steps(fast, "test"))


@pytest.mark.parametrize("seed", range(12))
def test_trec_layers_in_a_plan_in_parts(seed: int) -> None:
    """With reference kernels, and with fast ones in bytes that are idle or allowed beyond the peak."""
    graph = clustered(seed)
    plan = plan_partial(graph) if seed % 3 else plan_hybrid(graph, 1.5)
    assert plan.peak_bytes <= memory.plan(graph).total_bytes
    check(graph, FastSteps(plan.program, plan.arena))
    for more in (0, 8192):
        limit = plan.peak_bytes + more
        fast = with_forms(plan.program, plan.arena, "cortex-m4", ways_of(plan.program.graph), limit, 1 << 20)
        assert plan.peak_bytes <= fast.arena.size_bytes <= limit
        check(graph, with_rows(fast.program, fast.arena, "cortex-m4", limit, fast.forms))


@pytest.mark.parametrize("seed", range(3))
def test_plans_within_a_limit(seed: int) -> None:
    """All of them are safe and right; the first has the fewest operators in parts, and none takes more bytes than allowed."""
    graph = random_graph(seed)
    limit = (plan_partial(graph).peak_bytes + memory.plan(graph).total_bytes) // 2
    found = within_bytes(graph, limit)
    assert found and all(arena.size_bytes <= limit for _, arena in found)
    in_parts = [sum(len(item.ops) for item in program.schedule.items if item.kind != "whole") for program, _ in found]
    assert in_parts[0] == min(in_parts)
    for program, arena in found[:2]:
        check(graph, FastSteps(program, arena))
    assert within_bytes(graph, 1) == []


@pytest.mark.sweep  # it measures time, which takes a computer with nothing else to do
def test_a_limit_on_a_large_graph_takes_seconds() -> None:
    """170 operators, as `plan_partial` is tested with: covers are made of items that lie close together."""
    graph, start = random_graph(4, most=130), time.process_time()
    limit = memory.plan(graph).total_bytes
    assert all(arena.size_bytes <= limit for _, arena in within_bytes(graph, limit))
    assert time.process_time() - start < 10


def test_fast_kernels_in_parts() -> None:
    """By default about as fast as layer by layer in fewer bytes, which is said; within a limit, faster than the least plan."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
    parts = first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(144, 10)
    net = nn.Sequential(*parts).eval()
    images = np.random.default_rng(0).normal(size=(8, 3, 12, 12)).astype("float32")
    graph = tr.quantize(tr.export(net, (3, 12, 12)), images)
    exact, usual = tr.compile(graph), tr.compile(graph, schedule=tr.Partial())
    (note,) = usual.notes
    assert usual.plan.total_bytes < exact.plan.total_bytes and not exact.notes and 0.5 < float(note.split()[2]) <= 1.02
    least, within = (tr.compile(graph, schedule=tr.Partial(sram=sram)).steps for sram in (1, 2400))
    assert within.arena.size_bytes <= 2400 and within.cycles < least.cycles


def test_a_network_that_does_not_fit_is_told_what_fits() -> None:
    """Parts where they fit, else what the least plan needs; `plan` says the same."""
    compiled = compile_net(Settings("lenet", data="synthetic", images=1, sram=15_000))
    with pytest.raises(DoesNotFit, match="--method partial --sram 15000 fits: the plan needs 10276 bytes"):
        compiled.model.check_fit()
    assert what_fits(compiled.int8, 9_000).startswith("the least plan (--method partial) needs 10276 bytes of 9000")


def test_the_random_networks_have_what_is_tested() -> None:
    """TREC layers, and operators with a form."""
    plans = [plan_partial(clustered(seed)) for seed in range(12)]
    fast = [
        with_forms(plan.program, plan.arena, "cortex-m4", ways_of(plan.program.graph), plan.peak_bytes + 8192) for plan in plans
    ]
    assert sum(isinstance(op, TrecConv) for plan in plans for op in plan.program.graph.ops) > 8
    assert sum(len(one.forms) for one in fast) > 8  # of layers so small; the networks below have one for TREC


def test_forms_stay_within_the_flash() -> None:
    """Of no bytes of flash no form is taken."""
    plan = plan_partial(clustered(1))
    assert not with_forms(plan.program, plan.arena, "cortex-m4", ways_of(plan.program.graph), plan.peak_bytes + 8192, 0).forms


@pytest.mark.parametrize(
    ("net", "method", "data"),
    [
        pytest.param("zfnet", "trec+partial", "cifar10", marks=pytest.mark.sweep),
        ("lenet", "partial+skip", "synthetic"),
    ],
)
def test_methods_joined(net: str, method: str, data: str) -> None:
    """The simulator writes the interpreter's bytes, in less SRAM than layer by layer, and does fewer multiplications."""
    try:
        found = measure_net(Settings(net, method, images=1, data=data))
    except datasets.MissingDataError:
        pytest.skip("needs CIFAR-10")
    alone = compile_net(Settings(net, method.replace("partial", "").strip("+"), images=1, data=data))
    assert found.bit_exact and found.method == method and found.fits
    assert found.sram_bytes["written"] <= found.sram_bytes["arena"] < alone.plan.total_bytes
    assert found.macs_executed < found.macs_dense
    assert any(op.clusters or op.skipped for op in found.per_op)


def test_all_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TREC in one layer, fewer weights in another, a plan in parts around them."""
    monkeypatch.setattr("tinyredux.skip.records.STATISTICS_IMAGES", 50)
    record = (
        '{"net": "lenet", "data": "synthetic", "unit": "block", "shares": {"conv2": 0.5, "conv3": 0.6}, "thresholds": {}, '
        '"validation_images": 1, "validation_exact": 1, "validation_skipped": 1}'
    )
    (tmp_path / "skip.json").write_text(record)
    (tmp_path / "trec.json").write_text('{"body.2.0": {"sub_length": 288, "hash_bits": 2}}')
    settings = Settings(
        "lenet", "trec+skip+partial", kernels="reference", images=1, data="synthetic", trec=tmp_path / "trec.json",
        skip=str(tmp_path / "skip.json"),
    )  # fmt: skip
    found = measure_net(settings)
    assert found.bit_exact
    parts = {op.name: op for op in found.per_op}  # conv2 is the third convolution here: the second is trec1
    assert parts["trec1"].clusters and not parts["trec1"].skipped
    assert parts["conv2"].skipped > 0.4


@pytest.mark.parametrize(
    ("method", "words"),
    [("trec+trec", "each once"), ("exact+partial", "exact with none"), ("trec+pex", "'pex'"), ("", "expected one of")],
)
def test_methods_that_cannot_be_joined(method: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Settings("lenet", method)


def test_kernels_of_joined_methods() -> None:
    """Fast ones unless others are asked for; the naive form of TREC has no place in a plan in parts."""
    assert Settings("lenet", "trec+partial").kernel_set == "fast"
    with pytest.raises(ValueError, match="fast, reference"):
        Settings("lenet", "trec+partial", kernels="naive")
