"""The whole line on random networks: torch, export, quantize, plan, C, compiler; every output byte equals the interpreter's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from generated import assert_c_equals_interpreter
from random_nets import RandomNet, images_for, int8_net
from torch import nn

from tinyredux import memory
from tinyredux.codegen.parts import emit_partial
from tinyredux.frontends import export
from tinyredux.graph import Graph, Softmax, Tensor
from tinyredux.int8 import interpret, quantize
from tinyredux.int8.factors import SOFTMAX_OUTPUT
from tinyredux.int8.quantization import quant_from_range
from tinyredux.nets.mobile import bottlenecks, convolution


def check(graph: Graph, stored: np.ndarray) -> None:
    """Fails unless the C of a network, layer by layer, writes the interpreter's bytes for int8 images (N, H, W, C)."""
    assert_c_equals_interpreter(graph, emit_partial(*memory.place_reference(graph), "test_pipeline"), stored)


@pytest.mark.parametrize("seed", range(400, 406))
def test_random_network(seed: int) -> None:
    graph, images = int8_net(seed)
    check(graph, interpret.quantize_input(graph, images))


def test_longer_random_network() -> None:
    net = RandomNet(500, steps=25)
    graph = quantize(export(net, name="long"), images_for(net, 8, 0))
    check(graph, interpret.quantize_input(graph, images_for(net, 3, 1)))


def test_inverted_bottlenecks() -> None:
    """Expansions, depthwise convolutions, projections, sums where shapes agree, and a softmax."""
    torch.manual_seed(0)
    net = nn.Sequential(bottlenecks(convolution(3, 8, 3), 8, [(3, 8, 3, 1), (3, 12, 3, 2), (3, 12, 5, 1)], 16, 10), nn.Softmax(1))
    net.input_shape = (3, 27, 21)
    graph = quantize(export(net.eval(), name="inverted"), images_for(net, 8, 1))
    check(graph, interpret.quantize_input(graph, images_for(net, 4, 2)))


def test_softmax_over_a_thousand_equal_values() -> None:
    """The sum passes 512, where LiteRT's reference stops."""
    tensors = {"in": Tensor("in", (2, 1, 1000), "int8", quant_from_range(-1.0, 1.0))}
    tensors["out"] = Tensor("out", (2, 1, 1000), "int8", SOFTMAX_OUTPUT)
    graph = Graph("wide", (Softmax("softmax1", ("in",), "out"),), tensors, {}, ("in",), ("out",))
    images = np.random.default_rng(0).integers(-128, 128, (3, 2, 1, 1000)).astype(np.int8)
    images[0] = 17
    images[1, :, :, 5] = 127
    check(graph, images)
