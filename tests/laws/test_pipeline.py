"""The whole line on blocks of published networks: torch, export, quantize, plan, C, compiler; every byte is the interpreter's.

Random networks go the same way, and by every method, in test_network_sweep.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from generated import assert_c_equals_interpreter
from random_nets import images_for
from torch import nn

from tinyredux import memory
from tinyredux.codegen.parts import emit_partial
from tinyredux.frontends import export
from tinyredux.graph import Graph
from tinyredux.int8 import interpret, quantize
from tinyredux.int8.evaluator import Evaluator
from tinyredux.memory import run_schedule
from tinyredux.nets.mobile import bottlenecks, convolution
from tinyredux.partial import plan_partial


def check(graph: Graph, stored: np.ndarray) -> None:
    """Fails unless the C of a network, layer by layer, writes the interpreter's bytes for int8 images (N, H, W, C)."""
    assert_c_equals_interpreter(graph, emit_partial(*memory.place_reference(graph), "test_pipeline"), stored)


def test_inverted_bottlenecks() -> None:
    """Expansions, depthwise convolutions, projections, sums where shapes agree, and a softmax."""
    torch.manual_seed(0)
    net = nn.Sequential(bottlenecks(convolution(3, 8, 3), 8, [(3, 8, 3, 1), (3, 12, 3, 2), (3, 12, 5, 1)], 16, 10), nn.Softmax(1))
    net.input_shape = (3, 27, 21)
    graph = quantize(export(net.eval(), name="inverted"), images_for(net, 8, 1))
    check(graph, interpret.quantize_input(graph, images_for(net, 4, 2)))


class Strangers(nn.Module):
    """The blocks of networks that others publish: squeeze and excite, a shuffle unit, upsampling in three ways."""

    def __init__(self, activation: type[nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), activation())
        self.expand = nn.Sequential(nn.Conv2d(8, 16, 1), activation(), nn.Conv2d(16, 16, 5, 1, 2, groups=16), activation())
        self.gate = nn.Sequential(nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 1), nn.Hardsigmoid())
        self.project, self.unit = (
            nn.Conv2d(16, 8, 1),
            nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1, groups=4)),
        )
        self.up, self.head, self.input_shape = nn.ConvTranspose2d(8, 4, 3, 2, 1, 1), nn.Linear(4, 5), (3, 13, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.stem(images)
        y = self.expand(x)
        x = x + self.project(y * self.gate(y.mean((2, 3), keepdim=True)))
        left, right = x.chunk(2, dim=1)
        both = torch.cat([left, self.unit(right)], 1)
        count, channels, height, width = both.shape
        both = both.view(count, 2, channels // 2, height, width).transpose(1, 2).reshape(count, channels, height, width)
        both = both - nn.functional.interpolate(nn.functional.avg_pool2d(both, (height, width)), (height, width))
        return self.head(torch.sigmoid(nn.functional.pixel_shuffle(torch.cat([self.up(both)] * 4, 1), 2)).mean((2, 3)))


@pytest.mark.parametrize("activation", [nn.Hardswish, nn.SiLU, nn.GELU, nn.LeakyReLU])
def test_blocks_of_published_networks(activation: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net = Strangers(activation)
    graph = quantize(export(net.eval(), name="strangers"), images_for(net, 8, 1))
    stored = interpret.quantize_input(graph, images_for(net, 3, 2))
    check(graph, stored)
    parts, expected = plan_partial(graph), interpret.run(graph, stored)
    memory.verify(parts.program, parts.arena)
    assert np.array_equal(run_schedule.run(parts.program, parts.arena, stored[0]), expected[0])
    assert np.array_equal(Evaluator(graph).run(stored), expected)
