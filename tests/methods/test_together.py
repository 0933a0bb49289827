"""TREC, partial execution and skipping in one network: one plan, one set of kernels, the interpreter's bytes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from generated import assert_c_equals_interpreter
from network_sweep import with_random_trec
from random_graphs import random_graph
from random_nets import int8_sequence
from torch import nn

import tinyredux as tr
from tinyredux import datasets, memory
from tinyredux.codegen import emit_steps
from tinyredux.device import DoesNotFit
from tinyredux.graph import Graph, TrecConv
from tinyredux.kernels import TEMPLATES, FastSteps, StepWays, ways, with_forms, with_rows
from tinyredux.memory import verify
from tinyredux.methods.partial import what_fits
from tinyredux.partial import PartialPlan, plan_hybrid, plan_partial, within_bytes
from tinyredux.settings import Settings, compile_net, measure_net


def clustered(seed: int) -> Graph:
    """Returns a random network in which about every second convolution of one group is a TREC layer."""
    return with_random_trec(random_graph(seed), np.random.default_rng(seed))


def fast_of(plan: PartialPlan, limit: int, flash: int = 1 << 20) -> FastSteps:
    """Returns the plan with the fastest kernels within bytes of SRAM and of flash."""
    graph = plan.program.graph
    every = StepWays(graph, "cortex-m4", lambda some, op: ways(some, op, "cortex-m4", TEMPLATES))
    return with_forms(plan.program, plan.arena, every, limit, flash)


def check(graph: Graph, fast: FastSteps) -> None:
    """Fails unless the plan is safe and the generated C writes the interpreter's bytes."""
    assert verify(fast.program, fast.arena)["bytes"] <= fast.arena.size_bytes
    assert_c_equals_interpreter(graph, emit_steps(fast, "test"))


def test_trec_layers_in_a_plan_in_parts() -> None:
    """With reference kernels, and with fast ones in bytes that are idle or allowed beyond the peak; without flash, none."""
    layers = forms = 0
    for seed in range(20):
        graph = clustered(seed)
        plan = plan_partial(graph) if seed % 3 else plan_hybrid(graph, 1.5)
        layers += sum(isinstance(op, TrecConv) for op in plan.program.graph.ops)
        assert plan.peak_bytes <= memory.plan(graph).total_bytes and not fast_of(plan, plan.peak_bytes + 8192, 0).forms
        for limit in (plan.peak_bytes, plan.peak_bytes + 8192):
            fast = fast_of(plan, limit)
            assert plan.peak_bytes <= fast.arena.size_bytes <= limit
        forms += len(fast.forms)
        if seed % 2:
            check(graph, FastSteps(plan.program, plan.arena))
        else:
            check(graph, with_rows(fast.program, fast.arena, "cortex-m4", limit, fast.forms))
    assert layers >= 8 and forms > 8  # what is tested is there


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


@pytest.mark.sweep
def test_a_limit_on_a_large_graph() -> None:
    """170 operators, as `plan_partial` is tested with: covers are made of items that lie close together, so it takes seconds."""
    graph = random_graph(4, most=130)
    limit = memory.plan(graph).total_bytes
    assert all(arena.size_bytes <= limit for _, arena in within_bytes(graph, limit))


def test_fast_kernels_in_parts() -> None:
    """By default about as fast as layer by layer in fewer bytes, which is said; within a limit, faster than the least plan."""
    torch.manual_seed(0)
    convolutions = [(nn.Conv2d(a, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)) for a in (3, 16)]
    graph = int8_sequence((3, 12, 12), *sum(convolutions, ()), nn.Flatten(), nn.Linear(144, 10))
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
    least = "the least plan (--method partial --mac-limit 1.2) needs 10240 bytes of 9000"
    assert what_fits(compiled.int8, 9_000).startswith(least)


@pytest.mark.slow
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


@pytest.mark.slow
def test_all_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TREC in one layer, fewer weights in another, a plan in parts around them."""
    monkeypatch.setattr("tinyredux.skip.records.STATISTICS_IMAGES", 50)
    record = {"net": "lenet", "data": "synthetic", "unit": "block", "shares": {"conv2": 0.5, "conv3": 0.6}, "thresholds": {},
              "validation_images": 1, "validation_exact": 1, "validation_skipped": 1}  # fmt: skip
    trec, skip = tmp_path / "trec.json", tmp_path / "skip.json"
    trec.write_text('{"body.2.0": {"sub_length": 288, "hash_bits": 2}}')
    skip.write_text(json.dumps(record))
    settings = Settings("lenet", "trec+skip+partial", kernels="reference", images=1, data="synthetic", trec=trec, skip=str(skip))
    found = measure_net(settings)
    assert found.bit_exact
    parts = {op.name: op for op in found.per_op}  # conv2 is the third convolution here: the second is trec1
    assert parts["trec1"].clusters and not parts["trec1"].skipped
    assert parts["conv2"].skipped > 0.4


def test_methods_and_kernels_that_cannot_be_joined() -> None:
    """Kernels are fast unless others are asked for; the naive form of TREC has no place in a plan in parts."""
    assert Settings("lenet", "trec+partial").kernel_set == "fast"
    refused = {"trec+trec": "each once", "exact+partial": "exact with none", "trec+pex": "'pex'", "": "expected one of"}
    for method, words in refused.items():
        with pytest.raises(ValueError, match=words):
            Settings("lenet", method)
    with pytest.raises(ValueError, match="fast, reference"):
        Settings("lenet", "trec+partial", kernels="naive")
