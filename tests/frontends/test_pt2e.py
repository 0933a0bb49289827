"""The door for what PT2E has quantised: the same graph by the same table as ONNX's QDQ form, beside torch layer by layer."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers the pairs
from torch import fx, nn

import tinyredux as tr
from tinyredux.frontends.layers import LayerDifference, Maps, differences
from tinyredux.frontends.pt2e import with_names
from tinyredux.frontends.qdq.views import places
from tinyredux.graph import Conv, Dense, Graph, Lookup, Pool, Quant, Rearrange
from tinyredux.int8 import evaluator, interpret

NO_TORCHAO = "torchao is not installed; pip install 'tinyredux[quantisers]'"
DRAWN = range(42)
Pairs = torch.ops.quantized_decomposed


def paired(values: torch.Tensor, scale: float, zero_point: int, low: int = -128) -> torch.Tensor:
    """Returns values through a pair."""
    how = (scale, zero_point, low, 127, torch.int8)
    return Pairs.dequantize_per_tensor(Pairs.quantize_per_tensor(values, *how), *how)


class Hand(nn.Module):
    """A convolution with ReLU and a dense layer between pairs that are written by hand."""

    def __init__(self, low: int = -128) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.low = low
        self.register_buffer("weights", torch.tensor(rng.integers(-128, 128, (6, 3, 3, 3)), dtype=torch.int8))
        self.register_buffer("scales", torch.linspace(0.001, 0.01, 6))
        self.register_buffer("points", torch.zeros(6, dtype=torch.int64))
        self.register_buffer("dense", torch.tensor(rng.integers(-127, 128, (4, 54)), dtype=torch.int8))
        self.bias = nn.Parameter(torch.randn(6, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = paired(images, 0.031, 5, self.low)
        weights = Pairs.dequantize_per_channel(self.weights, self.scales, self.points, 0, -128, 127, torch.int8)
        x = paired(torch.relu(nn.functional.conv2d(x, weights, self.bias, stride=2, padding=1)), 0.02, -128)
        flat = nn.functional.max_pool2d(x, 2, 1, 1, 1, True)[:, :, 1:, 1:].flatten(1)
        dense = Pairs.dequantize_per_tensor(self.dense, 0.004, 0, -127, 127, torch.int8)
        return paired(nn.functional.linear(flat, dense), 0.05, 7)


class Names(fx.Interpreter):
    """Runs a module and keeps every value by its name."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Returns a node's value."""
        self.values[n.name] = super().run_node(n)
        return self.values[n.name]


def compare(program: torch.export.ExportedProgram, images: np.ndarray) -> list[LayerDifference]:
    """Returns what differs from torch, layer by layer, for real images (N, C, H, W)."""
    graph, loader = with_names(program, "net")
    graph, names = tr.export(program), Names(program.module())

    def run(stored: np.ndarray) -> Maps:
        quant = graph.input.quant
        assert quant is not None
        found: dict[str, list[np.ndarray]] = {}
        for image in stored.transpose(0, 3, 1, 2):
            names.run(torch.tensor((image[None].astype(np.float32) - quant.zero_point) * np.float32(quant.scale[0])))
            for tensor in {*loader.theirs} & {*graph.tensors} - {"input"}:
                held, shape = loader.theirs[tensor], graph.tensors[tensor].shape
                values = np.empty(int(np.prod(shape)), np.int8)
                values[places(held.view, shape)] = names.values[held.name].numpy().reshape(-1)
                found.setdefault(tensor, []).append(values.reshape(shape))
        return {"input": stored} | {tensor: np.stack(values) for tensor, values in found.items()}

    return differences(graph, interpret.quantize_input(graph, images), run, "torch")


def hand_images(count: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, 3, 5, 5)).astype(np.float32)


def test_pairs_become_int8_operators() -> None:
    program = torch.export.export(Hand().eval(), (torch.zeros(1, 3, 5, 5),))
    graph = tr.export(program, name="hand")
    assert [type(op) for op in graph.ops] == [Conv, Pool, Rearrange, Rearrange, Dense] and graph.rounding == "single"
    assert graph.input.quant == Quant((float(np.float32(0.031)),), 5) and graph.name == "hand"
    layers = compare(program, hand_images(16))
    assert layers[0].values == 16 * 54 and max(layer.differ_alone for layer in layers) <= 1, layers
    assert tr.measure(tr.compile(graph), hand_images(2), target="host").bit_exact


class Holes(Hand):
    """The same with windows that leave places out."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = paired(images, 0.031, 5, self.low)
        weights = Pairs.dequantize_per_channel(self.weights, self.scales, self.points, 0, -128, 127, torch.int8)
        x = paired(torch.relu(nn.functional.conv2d(x, weights, self.bias, padding=(2, 3), dilation=(2, 3))), 0.02, -128)
        return nn.functional.max_pool2d(x, 2, 1, 1, (3, 2))


def test_windows_with_holes_keep_their_weights() -> None:
    program = torch.export.export(Holes().eval(), (torch.zeros(1, 3, 5, 5),))
    graph = tr.export(program, name="holes")
    assert [op.dilation for op in graph.ops if isinstance(op, Conv | Pool)] == [(2, 3), (3, 2)]
    layers = compare(program, hand_images(16))
    assert max(layer.differ_alone for layer in layers) <= 1, layers


def test_a_converted_module_is_taken_by_its_shape() -> None:
    program = torch.export.export(Hand().eval(), (torch.zeros(1, 3, 5, 5),))
    module = program.module()
    assert isinstance(module, fx.GraphModule)
    graphs = [tr.export(program), tr.export(module, (3, 5, 5))]
    stored = interpret.quantize_input(graphs[0], hand_images(4))
    np.testing.assert_array_equal(*(interpret.run(graph, stored) for graph in graphs))
    with pytest.raises(ValueError, match="give it beside the module"):
        tr.export(module)


class Odd(nn.Module):
    """What no kernel computes, in two places."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = paired(images, 0.1, 0)
        return paired(torch.cos(paired(torch.cumsum(x, 3), 0.1, 0)), 0.1, 0)


def test_refusals_say_what_to_do() -> None:
    example = (torch.zeros(1, 3, 5, 5),)
    with pytest.raises(ValueError, match="2 of 8 operators are not supported") as refused:
        tr.export(torch.export.export(Odd(), example))
    assert "cumsum" in str(refused.value) and "cos" in str(refused.value)
    with pytest.raises(ValueError, match="is a program in floating point; quantise it with prepare_pt2e"):
        tr.export(torch.export.export(nn.Conv2d(3, 4, 3), example))
    with pytest.raises(ValueError, match=r"quantize_per_tensor to -100 \.\. 127 of int8"):
        tr.export(torch.export.export(Hand(-100).eval(), example))


def drawn(seed: int) -> tuple[torch.export.ExportedProgram, Graph]:
    """Returns a drawn program and its graph."""
    pytest.importorskip("torchao", reason=NO_TORCHAO)
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; pip install 'tinyredux[onnx]'")
    from pt2e_models import Chain, converted, images_of

    torch.manual_seed(seed)
    net = Chain(seed)
    module = converted(net, images_of(net, 6, seed), per_channel=seed % 2 == 0)
    program = torch.export.export(module, (images_of(net, 1, 0),))
    return program, tr.export(program)


def images_for(graph: Graph, count: int) -> np.ndarray:
    height, width, channels = graph.input.shape
    return np.random.default_rng(5).normal(size=(count, channels, height, width)).astype(np.float32)


def check(seeds: range) -> tuple[Counter[str], Counter[str], int]:
    """Returns values and differences by kind of layer, and the largest."""
    values, differ, largest = Counter[str](), Counter[str](), 0
    for seed in seeds:
        program, graph = drawn(seed)
        images = images_for(graph, 4)
        for layer in compare(program, images):
            values[layer.kind] += layer.values
            differ[layer.kind] += layer.differ_alone
            largest = max(largest, layer.largest_alone)
            assert not (layer.differ_alone and isinstance(graph.by_name[layer.name], Lookup)), layer
        stored = interpret.quantize_input(graph, images)
        np.testing.assert_array_equal(evaluator.Evaluator(graph).run(stored), interpret.run(graph, stored))
    return values, differ, largest


@pytest.mark.slow
def test_drawn_programs_equal_torch_but_for_counted_values() -> None:
    """Torch adds biases as real numbers and here they are rounded to units of products: now and then a sum falls otherwise."""
    values, differ, largest = check(range(3))
    assert largest <= 1 and differ["Conv"] < 0.005 * values["Conv"] > 0, (values, differ)


@pytest.mark.sweep
def test_all_drawn_programs_equal_torch_but_for_counted_values() -> None:
    values, differ, largest = check(DRAWN)
    print(dict(values), dict(differ), largest)
    assert largest <= 2 and differ["Conv"] < 0.005 * values["Conv"]


@pytest.mark.sweep
@pytest.mark.parametrize("board", [None, "nucleo_l4r5zi"])
def test_the_c_of_all_drawn_programs(board: str | None) -> None:
    for seed in DRAWN:
        _, graph = drawn(seed)
        kernels = ("fast", "reference")[seed % 2]
        model = tr.compile(graph, board, kernels=kernels) if board else tr.compile(graph, kernels=kernels)
        assert tr.measure(model, images_for(graph, 1), target="simulator" if board else "host").bit_exact, f"{seed} {kernels}"
