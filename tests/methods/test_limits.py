"""What a limit of bytes or of products means: whatever else is asked for, it holds, and a looser one costs nothing."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from generated import assert_c_equals_interpreter
from random_graphs import random_graph
from random_nets import int8_sequence
from torch import nn

from tinyredux import memory
from tinyredux.boards import find_board
from tinyredux.codegen import Kernels, emit_steps
from tinyredux.graph import Graph
from tinyredux.kernels import FastSteps
from tinyredux.memory import verify, whole
from tinyredux.methods.partial import Partial

BOARD = find_board("nucleo_l4r5zi")


def separable() -> Graph:
    """Returns a first layer of stride 2 and two pairs of a depthwise and a 1x1 convolution: large maps first, small ones last."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6()]
    for channels, wide, stride in ((8, 16, 1), (16, 24, 2)):
        layers += [
            nn.Conv2d(channels, channels, 3, stride, 1, groups=channels),
            nn.ReLU6(),
            nn.Conv2d(channels, wide, 1),
            nn.ReLU6(),
        ]
    return int8_sequence((3, 48, 48), *layers, nn.AvgPool2d(12), nn.Flatten(), nn.Linear(24, 4))


def fast(graph: Graph, sram: int | None, mac_limit: float) -> FastSteps:
    """Returns a network in parts with fast kernels."""
    return Partial(sram, mac_limit=mac_limit)(graph, BOARD, Kernels("fast"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_looser_limit_makes_no_plan_slower(seed: int) -> None:
    """More bytes, or more products, allowed: never more predicted cycles; and no more bytes than are allowed, where some plan
    has so few."""
    graph = random_graph(seed)
    limits = [int(memory.plan(graph).total_bytes * share) for share in (0.5, 0.7, 0.9, 1.1)]
    found = {(macs, limit): fast(graph, limit, macs) for macs, limit in product((1.0, 1.3, 2.0), limits)}
    for (macs, limit), tight in found.items():
        if tight.arena.size_bytes <= limit:
            looser = [plan for (more, wider), plan in found.items() if more >= macs and wider >= limit]
            assert all(plan.cycles <= tight.cycles for plan in looser)
            assert all(plan.arena.size_bytes <= wider for (more, wider), plan in found.items() if more >= macs and wider >= limit)


@pytest.mark.parametrize(("limit", "mac_limit", "copies"), [(12_500, 2.0, False), (9_900, 3.0, True)])
def test_patches_have_fast_forms_within_a_limit(limit: int, mac_limit: float, copies: bool) -> None:
    """Patches, strips and late layers have forms, of patches of columns on copies: these maps have gaps between their rows. The
    plan is safe and keeps to its limit, and the C writes the interpreter's bytes."""
    graph = separable()
    steps = fast(graph, limit, mac_limit)
    patches = [step for step in steps.forms if step.output.box != whole(graph.tensors[step.output.tensor].shape)]
    assert patches and len(steps.forms) > len(patches)
    assert copies == any(form.name.endswith("_copied") for form in steps.forms.values())
    assert verify(steps.program, steps.arena)["bytes"] <= steps.arena.size_bytes <= limit < memory.plan(graph).total_bytes
    assert_c_equals_interpreter(graph, emit_steps(steps, "test"))
