"""A depthwise convolution of one window: its generated kernel has the interpreter's bytes, on this computer and on each core."""

from __future__ import annotations

import numpy as np
import pytest

from tinyredux.flow import compile
from tinyredux.graph import DepthwiseConv, Graph, Quant, Tensor
from tinyredux.int8 import interpret
from tinyredux.kernels.depthwise import window

BOARDS = ("nucleo_l4r5zi", "nucleo_f746zg", "nucleo_u575zi_q")


def layer(kernel: tuple[int, int], channels: int, seed: int, extreme: bool = False) -> Graph:
    rng, shape = np.random.default_rng(seed), (*kernel, channels)
    weights = np.full(shape, -127) if extreme else rng.integers(-127, 128, shape)
    constants = {"w": weights.astype(np.int8), "b": rng.integers(-9999, 9999, channels).astype(np.int32)}
    tensors = {"input": Tensor("input", shape, "int8", Quant((0.05,), int(rng.integers(-128, 128))))}
    tensors |= {"out": Tensor("out", (1, 1, channels), "int8", Quant((0.07,), int(rng.integers(-128, 128))))}
    scales = tuple(float(scale) for scale in rng.uniform(0.0005, 0.01, channels))
    op = DepthwiseConv("op", ("input",), "out", "w", "b", "relu6" if seed % 2 else "none", scales, kernel=kernel)
    return Graph("window", (op,), tensors, constants, ("input",), ("out",))


def inputs(graph: Graph, count: int, seed: int) -> np.ndarray:
    images = np.random.default_rng(seed).integers(-128, 128, (count, *graph.input.shape)).astype(np.int8)
    images[0], images[1] = -128, 127
    return images


def check(graph: Graph, target: str, board: str, count: int) -> None:
    model = compile(graph, board)
    assert [form.name for form in model.steps.forms.values()] == ["depthwise_window"]
    images = inputs(graph, count, 3)
    with model.open(target) as opened:
        outputs = np.stack([opened.measure(image).output for image in images])
    np.testing.assert_array_equal(outputs, interpret.run(graph, images))


@pytest.mark.parametrize(
    ("kernel", "channels"), [((3, 1), 40), ((10, 1), 128), ((15, 1), 4), ((1, 2), 8), ((3, 3), 12), ((1, 1), 16)]
)
def test_one_window_on_this_computer(kernel: tuple[int, int], channels: int) -> None:
    check(layer(kernel, channels, channels), "host", "nucleo_l4r5zi", 40)


@pytest.mark.slow
@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize(("kernel", "extreme"), [((5, 1), False), ((4, 4), True), ((15, 1), False)])
def test_one_window_on_each_core(board: str, kernel: tuple[int, int], extreme: bool) -> None:
    check(layer(kernel, 20, 7, extreme), "simulator", board, 6)


@pytest.mark.parametrize(("kernel", "channels"), [((3, 1), 6), ((17, 1), 4), ((16, 1), 512)])
def test_others_have_no_such_form(kernel: tuple[int, int], channels: int) -> None:
    graph = layer(kernel, channels, 1)
    assert window.forms(graph, graph.ops[0], "cortex-m4") == []
