"""Networks as strangers write them: the exported graph computes what torch computes, or the refusal says what to change."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from random_nets import RandomNet, images_for
from torch import nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves

import tinyredux as tr
from tinyredux.frontends import export
from tinyredux.frontends.builder import UnsupportedOperatorError
from tinyredux.graph import Add, Concat, Conv, Dense, DepthwiseConv, Graph, Lookup, Mul, Pool, verify
from tinyredux.int8 import interpret, quantize

Forward = Callable[[Any, torch.Tensor], Any]
SHAPE = (4, 9, 11)  # channels, height, width: not square


class Net(nn.Module):
    """A module from a forward function and named layers, with random parameters and batch norm statistics."""

    def __init__(self, forward: Forward, shape: tuple[int, int, int] = SHAPE, **layers: Any) -> None:
        super().__init__()
        self.input_shape = shape
        self.function = forward
        for name, layer in layers.items():
            setattr(self, name, layer)
        generator = torch.Generator().manual_seed(1)
        for parameter in self.parameters():
            spread = 0.5 if parameter.ndim == 1 else (2 / parameter[0].numel()) ** 0.5
            parameter.data = torch.randn(parameter.shape, generator=generator).to(parameter) * spread
        for layer in self.modules():
            if isinstance(layer, (nn.BatchNorm2d, nn.BatchNorm1d)) and layer.running_mean is not None:
                layer.running_mean = torch.randn(layer.num_features, generator=generator).to(layer.running_mean)
                layer.running_var = torch.rand(layer.num_features, generator=generator).to(layer.running_mean) + 0.1

    def forward(self, images: torch.Tensor) -> Any:
        """Returns whatever the function makes of the images."""
        return self.function(self, images)


def conv(inputs: int = 4, outputs: int = 6, kernel: Any = 3, **options: Any) -> nn.Conv2d:
    """Returns a convolution, 3x3 from 4 to 6 channels unless said otherwise."""
    return nn.Conv2d(inputs, outputs, kernel, **options)


def outputs(net: nn.Module, graph: Graph, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns what the graph and what torch computes for three images, both in torch's layout."""
    images = images_for(net, 3, seed)
    kind = next((value.dtype for value in net.parameters()), torch.float32)
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(images).to(kind)).to(torch.float32).numpy()
    found = interpret.run(graph, images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    return found.reshape(expected.shape), expected


def dense_block(m: Any, x: torch.Tensor) -> torch.Tensor:
    for layer in m.layers:
        x = torch.cat([x, torch.relu(layer(x))], 1)
    return x


def shape_dependent(m: Any, x: torch.Tensor) -> torch.Tensor:
    x = m.a(x)
    while x.shape[2] > 3:
        x = functional.max_pool2d(x, 2)
    return x.flatten(1) if x.shape[-1] == 2 else x


def sequence(*layers: nn.Module) -> tuple[Forward, dict[str, Any]]:
    """Returns a case: the layers one after the other."""
    return lambda m, x: m.body(x), {"body": nn.Sequential(*layers)}


# layers of many cases: of the map (4, 9, 11), of (6, 7, 9) behind one of them, flat or as means
ONE, TWO, CHAIN = {"a": conv()}, {"a": conv(), "b": conv()}, {"a": conv(), "b": conv(6, 2)}
FLAT, POOLED = {"a": conv(), "b": nn.Linear(378, 5)}, {"a": conv(), "b": nn.Linear(6, 5)}
LINEAR, MAPPED = {"b": nn.Linear(396, 5)}, {"a": conv(), "b": conv(6, 5, 1)}
Norm, AvgPool = nn.BatchNorm2d, nn.AvgPool2d

SEQUENCES: tuple[tuple[nn.Module, ...], ...] = (
    (conv(bias=False),), (nn.ZeroPad2d((1, 0, 2, 1)), conv()), (nn.ConstantPad2d(1, 0.0), conv()),
    (conv(), nn.ConvTranspose2d(6, 3, 2)), (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), nn.ReLU()),
    (nn.ConvTranspose2d(4, 3, (3, 2), (1, 3), (2, 0), bias=False), Norm(3)), (conv(), nn.Upsample(scale_factor=2), conv(6, 3)),
    (conv(), nn.PReLU()), (conv(), nn.Sigmoid(), nn.MaxPool2d(2)), (conv(), nn.Hardswish(inplace=True), conv(6, 3)),
    (conv(), Norm(6), nn.ReLU()), (conv(4, 8, groups=4), Norm(8)), (conv(4, 6, groups=2), Norm(6)), (Norm(4), conv(padding=1)),
    (conv(), Norm(6), nn.ReLU(), Norm(6), conv(6, 3)), (conv(), nn.MaxPool2d(2), Norm(6), nn.ReLU()), (conv(), Norm(6), Norm(6)),
    (Norm(4),), (conv(), nn.ReLU(inplace=True), conv(6, 3)), (conv(), nn.ReLU6()), (conv(), nn.Hardtanh(0.0, 6.0)),
    (conv(), nn.MaxPool2d(2), nn.ReLU()), (conv(), AvgPool(2), nn.ReLU6()), (AvgPool(3, 2, 1, ceil_mode=True),),
    (nn.Identity(), conv(), nn.Dropout2d(), nn.Identity(), nn.ReLU(), nn.AlphaDropout()), (conv(), nn.Softmax(dim=1)),
    (nn.MaxPool2d((2, 3), (4, 5), ceil_mode=True),), (conv(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
    (conv(), nn.AdaptiveAvgPool2d((1, 1)), nn.Conv2d(6, 5, 1)), (conv(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
    (conv(), nn.Flatten(), nn.Dropout(), nn.Linear(378, 12), nn.ReLU(), nn.Linear(12, 7, bias=False), nn.ReLU6(),
     nn.Linear(7, 3)), (nn.utils.parametrizations.weight_norm(conv()),),
)  # fmt: skip
OF_ONE: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (  # of the map of a convolution
    lambda y: functional.relu(functional.pad(y, (0, 0, 0, 0))), functional.relu, lambda y: y.relu(), lambda y: y.relu_(),
    lambda y: torch.relu(torch.relu(y)), lambda y: functional.relu6(torch.relu(y)), lambda y: y.clamp(0, 6),
    lambda y: y.clamp(min=0), lambda y: y.clamp_(min=0.0, max=6.0), lambda y: y.clamp_min(0.0), lambda y: y + torch.relu(y),
    lambda y: torch.relu(torch.cat([y, y], 1)), lambda y: torch.cat([y.relu_(), y], 1), lambda y: y + y,
    lambda y: torch.add(functional.relu(y, inplace=True), y), lambda y: functional.max_pool2d(y, 3, 2, 1),
    lambda y: torch.cat([torch.relu(functional.dropout(y, training=False)), y], 1), lambda y: torch.cat([y], 1),
    lambda y: functional.softmax(y.mean((2, 3)), dim=1), torch.tanh, torch.sigmoid, torch.exp, torch.square, torch.abs,
    functional.hardsigmoid, functional.hardswish, functional.silu, functional.mish, functional.gelu, functional.elu,
    functional.selu, functional.leaky_relu, functional.softplus, lambda y: functional.gelu(y, approximate="tanh"),
    lambda y: y.clamp(-1, 4),
    lambda y: functional.celu(y, 1.5), lambda y: functional.elu(y, 0.7), lambda y: functional.leaky_relu_(y, 0.2),
    lambda y: y[:, :, ::2, 1:8:3], lambda y: torch.cat(y.chunk(2, 1)[::-1], 1), lambda y: y[:, 1:4] + y.split((2, 3, 1), 1)[1],
    lambda y: functional.interpolate(y, scale_factor=2), lambda y: functional.channel_shuffle(y, 3),
    lambda y: functional.interpolate(y, scale_factor=(1, 3)), lambda y: functional.pixel_shuffle(y[:, :4], 2),
    lambda y: functional.pixel_unshuffle(y[:, :, :6, :8], 2), lambda y: functional.pixel_unshuffle(y[:, 2:3, 1:, :6], 3),
    lambda y: y.view(1 if y.shape[0] == 1 else -1, 2, 3, 7, 9).transpose(1, 2).contiguous().view(-1, 6, 7, 9),
    lambda y: functional.glu(y, 1), lambda y: functional.glu(y.mean((2, 3)), 1),
    functional.hardtanh, lambda y: functional.hardtanh(functional.avg_pool2d(y, 2)), lambda y: functional.softplus(y, 2.0),
    lambda y: functional.interpolate(y, scale_factor=2, mode="bilinear"),
    lambda y: functional.interpolate(y, scale_factor=(1.4, 3), mode="bilinear"),
    lambda y: functional.interpolate(y, size=(3, 20), mode="bilinear"),
    lambda y: functional.interpolate(y, size=(9, 4), mode="bilinear", align_corners=True),
)  # fmt: skip
TO_DENSE: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (  # before a dense layer of all values
    lambda y: y.flatten(1).relu_(), lambda y: torch.flatten(y, 1), lambda y: y.view(y.size(0), -1), lambda y: y.reshape(-1, 378),
    lambda y: y.view(-1, y.shape[1] * y.shape[2] * y.shape[3]), lambda y: torch.relu(y.flatten(1)),
    lambda y: y.contiguous().view(1, -1) if y.shape[0] == 1 else y.flatten(1),
)  # fmt: skip
TO_POOLED: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (  # before a dense layer of one value a channel
    lambda y: y.mean((2, 3)), lambda y: y.mean(3).mean(2), lambda y: y.flatten(2).mean(2), lambda y: y.amax((2, 3)),
    lambda y: y.mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1), lambda y: functional.adaptive_avg_pool2d(y, 1)[:, :, 0, 0],
)  # fmt: skip

# name: (forward, layers) with layers and an optional shape by keyword
ACCEPTED: dict[str, tuple[Forward, dict[str, Any]]] = {
    **{f"layers {i}": sequence(*layers) for i, layers in enumerate(SEQUENCES)},
    **{f"map {i}": (lambda m, x, f=f: f(m.a(x)), ONE) for i, f in enumerate(OF_ONE)},
    **{f"dense {i}": (lambda m, x, f=f: m.b(f(m.a(x))), FLAT) for i, f in enumerate(TO_DENSE)},
    **{f"pooled {i}": (lambda m, x, f=f: m.b(f(m.a(x))), POOLED) for i, f in enumerate(TO_POOLED)},
    "functional conv": (
        lambda m, x: functional.conv2d(x, m.a.weight, m.a.bias, stride=2, padding=(1, 0), groups=2), {"a": conv(groups=2)}),
    "conv as wide as the map": (lambda m, x: m.a(x).flatten(1), {"a": conv(kernel=(9, 11))}),
    "F.pad twice": (lambda m, x: m.a(functional.pad(functional.pad(x, (1, 0)), (0, 0, 2, 1))), ONE),
    "norm1d after linear": (lambda m, x: m.c(torch.relu(m.b(m.a(x.flatten(1))))),
                            {"a": nn.Linear(396, 8), "b": nn.BatchNorm1d(8), "c": nn.Linear(8, 3)}),
    "squeeze and excite": (lambda m, x: (y := m.a(x)) * torch.sigmoid(m.b(y.mean((2, 3), keepdim=True))),
                           {"a": conv(), "b": conv(6, 6, 1)}),
    "excite, the factor first": (lambda m, x: functional.hardsigmoid((y := m.a(x)).mean((2, 3), keepdim=True)) * y, ONE),
    "products and differences": (lambda m, x: (m.a(x) * m.b(x) - m.a(x)).relu() - 0.5 * m.b(x), TWO),
    "hardswish by hand": (lambda m, x: (y := m.a(x)) * functional.relu6(y + 3) / 6, ONE),
    "constants": (lambda m, x: m.a((2 - x) * 0.5 + torch.arange(4.0).reshape(4, 1, 1)) / 3 - 1, ONE),
    "constants of places": (lambda m, x: torch.relu(m.a(x) + torch.arange(9.0)) - torch.arange(63.0).reshape(7, 9), ONE),
    "constants less values": (lambda m, x: torch.arange(378.0).reshape(1, 6, 7, 9) - torch.relu(m.a(x)), ONE),
    "constants of columns as many as channels": (lambda m, x: m.a(x) + torch.arange(6.0), {"a": conv(kernel=(4, 6))}),
    "constants of a flattened map": (lambda m, x: m.b(torch.relu(m.a(x)).flatten(1) + torch.arange(378.0)), FLAT),
    "spread over a map": (
        lambda m, x: (
            (y := m.a(x)) * torch.sigmoid(y.mean((2, 3), True)).expand_as(y) + y.amax((2, 3), True).expand(-1, -1, 7, 9) * 2),
        ONE),
    "a dense layer that gives a map": (
        lambda m, x: m.c(torch.relu(m.b(m.a(x).mean((2, 3)))).view(-1, 6, 4, 3)),
        {"a": conv(), "b": nn.Linear(6, 72), "c": conv(6)}),
    "one column, one row, one channel": (
        lambda m, x: torch.cat([(y := m.a(x))[..., -1].mean(2), y[:, :, 2].mean(2), m.b(y[:, 1].flatten(1))], 1),
        {"a": conv(), "b": nn.Linear(63, 3)}),
    "constants of channels": (lambda m, x: torch.relu(m.a(x)) * torch.arange(6.0).reshape(1, 6, 1, 1) + 1.5, ONE),
    "norm of a concat": (lambda m, x: m.n(torch.cat([m.a(x), m.b(x)], 1)), {"a": conv(), "b": conv(), "n": Norm(12)}),
    "conv output used before and after its norm": (lambda m, x: m.a(x) + m.n(m.a(x)), {"a": conv(), "n": Norm(6)}),
    "relu of a sum": (lambda m, x: torch.relu(m.a(x) + m.b(x)), TWO),
    "relu of a concat": (lambda m, x: torch.relu(torch.cat([m.a(x), m.b(x)], 1)), TWO),
    "relu of a concat whose part is used again": (
        lambda m, x: torch.relu(torch.cat([(a := m.a(x)), m.b(x)], 1)) + torch.cat([a, a], 1), TWO),
    "max pool of a map that is read again, then relu": (
        lambda m, x: torch.cat([torch.relu(functional.max_pool2d(a := m.a(x), 2)), functional.avg_pool2d(a, 2)], 1), ONE),
    "relu after pools of a concat": (
        lambda m, x: torch.relu(functional.max_pool2d(torch.cat([functional.max_pool2d(m.a(x), 3, 1), m.b(x)], 1), 2)),
        {"a": conv(), "b": conv(kernel=5)}),
    "relu in place as a statement": (lambda m, x: (a := m.a(x), a.relu_(), m.b(x) + a)[2], TWO),
    "average pool, ceil mode of an even size": (
        lambda m, x: m.p(x), {"p": AvgPool(3, 2, 1, ceil_mode=True, count_include_pad=False), "shape": (4, 8, 10)}),
    "AdaptiveAvgPool2d that divides": (lambda m, x: m.p(x), {"p": nn.AdaptiveAvgPool2d((4, 2)), "shape": (3, 8, 6)}),
    "mean([-1, -2], keepdim)": (lambda m, x: m.b(m.a(x).mean([-1, -2], keepdim=True)), MAPPED),
    "flatten of the input": (lambda m, x: m.b(m.a(x.flatten(1))), {"a": nn.Linear(396, 7), "b": nn.Linear(7, 2)}),
    "unsqueeze after mean": (lambda m, x: m.b(m.a(x).mean((2, 3)).unsqueeze(-1).unsqueeze(-1)).flatten(1), MAPPED),
    "F.linear": (lambda m, x: functional.linear(x.flatten(1), m.a.weight), {"a": nn.Linear(396, 5)}),
    "residual with stride": (
        lambda m, x: torch.relu(m.n(m.a(x)) + m.o(m.b(x))),
        {"a": conv(4, 8, stride=2, padding=1, bias=False), "n": Norm(8), "b": conv(4, 8, 1, stride=2, bias=False), "o": Norm(8)}),
    "concat of three, one twice, along -3": (lambda m, x: torch.concat((a := m.a(x), m.b(x), a), dim=-3), TWO),
    "times a map of places": (lambda m, x: m.a(x) * torch.arange(-20.0, 43.0).reshape(1, 1, 7, 9) / 9, ONE),
    "times a row": (lambda m, x: torch.relu(m.a(x)) * torch.arange(9.0), ONE),
    "over a map of values": (lambda m, x: m.a(x) / torch.arange(1.0, 379.0).reshape(6, 7, 9), ONE),
    "flat times a vector": (lambda m, x: m.b(m.a(x).flatten(1) * torch.arange(378.0)), FLAT),
    "concat of rows": (lambda m, x: m.c(torch.cat([m.a(x), m.b(x)[:, :, 2:], m.a(x)[:, :, :3]], 2)), {**TWO, "c": conv(6, 2)}),
    "concat of columns": (lambda m, x: torch.relu(torch.cat([m.a(x)[..., ::2], m.b(x)], -1)), TWO),
    "concat of rows of one": (lambda m, x: torch.cat([m.a(x)], 2).tanh(), ONE),
    "concat of vectors": (lambda m, x: m.c(torch.cat([m.a(x).mean((2, 3)), m.b(x.flatten(1))], 1)),
                          {"a": conv(), "b": nn.Linear(396, 3), "c": nn.Linear(9, 2)}),
    "dense block": (dense_block, {"layers": nn.ModuleList(conv(4 + 3 * i, 3, padding=1) for i in range(3))}),
    "shared layer": (lambda m, x: m.a(torch.relu(m.a(x))), {"a": conv(4, 4, padding=1)}),
    "shared layer with two norms": (lambda m, x: m.n(m.a(x)) + m.o(m.a(x)), {"a": conv(), "n": Norm(6), "o": Norm(6)}),
    "nested sequences in lists": (
        lambda m, x: m.blocks[1](m.blocks[0](x)),
        {"blocks": nn.ModuleList([nn.Sequential(nn.Sequential(conv(), nn.ReLU()), conv(6, 6)), nn.Sequential(conv(6, 2))])}),
    "layers in a dict": (lambda m, x: m.d["b"](m.d["a"](x)), {"d": nn.ModuleDict(CHAIN)}),
    "control flow on shapes": (shape_dependent, ONE),
    "two inputs stacked": (lambda m, x: m.a(x[:, :3]) + m.b(x[:, 3:]), {"a": conv(3), "b": conv(1)}),
    "dead branch": (lambda m, x: (m.a(x), m.b(x))[1], TWO),
    "float64": (lambda m, x: m.n(m.a(x)), {"a": conv().double(), "n": Norm(6).double()}),
    "softmax at the end": (lambda m, x: m.b(x.flatten(1)).softmax(1), LINEAR),
}  # fmt: skip


@pytest.mark.parametrize("case", ACCEPTED)
def test_equals_torch(case: str) -> None:
    forward, layers = ACCEPTED[case]
    net = Net(forward, **layers)
    graph = export(net, name="net")
    verify(graph)
    np.testing.assert_allclose(*outputs(net, graph), rtol=1e-4, atol=1e-4)


class Heads(NamedTuple):
    """What a network with two heads returns."""

    boxes: torch.Tensor
    scores: torch.Tensor


SEVERAL: dict[str, tuple[Callable[[Any, torch.Tensor], Any], tuple[str, ...]]] = {  # of the map of a convolution; names
    "a pair": (lambda m, y: (m.b(y), y.mean((2, 3))), ("conv2", "averagepool1")),
    "a list with an inner map": (lambda m, y: [torch.relu(y), y, m.b(torch.relu(y))], ("relu1", "conv1", "conv2")),
    "a dictionary": (lambda m, y: {"scores": m.b(y).mean((2, 3)), "box map": y}, ("scores", "box_map")),
    "a named tuple": (lambda m, y: Heads(m.b(y), y), ("boxes", "scores")),
    "pairs in a dictionary": (lambda m, y: {"cls": (m.b(y), y), "box": [m.c(y)]}, ("cls.0", "cls.1", "box.0")),
    "keys that are numbers": (lambda m, y: {0: y, 1: m.b(y)}, ("0", "1")),
    "a tuple of one": (lambda m, y: (m.b(y),), ("conv2",)),
    "a dictionary of one": (lambda m, y: {"logits": m.b(y)}, ("logits",)),
}


ENDS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {  # as detection heads end, of a map of 6 channels
    "anchors, then values": lambda y: y.permute(0, 2, 3, 1).contiguous().view(len(y), -1, 3),
    "anchors and values apart": lambda y: y.view(len(y), 2, 3, *y.shape[2:]).permute(0, 3, 4, 1, 2).reshape(len(y), -1, 3),
    "channels last": lambda y: y.permute(0, 2, 3, 1), "one row a place": lambda y: y.flatten(2).transpose(1, 2),
    "all in a row": lambda y: y.movedim(1, -1).flatten(1),
}  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
def test_axes_may_be_exchanged_at_the_end_as_values_lie(end: str) -> None:
    """Nothing is moved: the map's bytes have this order."""
    net = Net(lambda m, x: {"rest": m.b(x), "head": ENDS[end](m.a(x))}, a=conv(), b=conv())
    graph = export(net, name="net")
    assert [type(op) for op in graph.ops] == [Conv, Conv] and graph.outputs == ("rest", "head")
    images = images_for(net, 3, 0)
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(images))["head"].reshape(3, -1).numpy()
    found = interpret.run(graph, images.transpose(0, 2, 3, 1))[1].reshape(3, -1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", SEVERAL)
def test_several_outputs_equal_torch_under_their_names(case: str) -> None:
    heads, names = SEVERAL[case]
    net = Net(lambda m, x: heads(m, m.a(x)), a=conv(), b=conv(6, 3), c=conv(6, 2, 1))
    graph = export(net, name="net")
    verify(graph)
    assert graph.outputs == names and all(graph.tensors[name].name == name for name in names)
    images = images_for(net, 3, 0)
    with torch.no_grad():
        expected = tree_leaves(net.eval()(torch.from_numpy(images)))
    values = interpret.run_all(graph, images.transpose(0, 2, 3, 1))
    for name, wanted in zip(names, expected, strict=True):
        found = values[name].transpose(0, 3, 1, 2).reshape(wanted.shape)
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_random_network_equals_torch(seed: int) -> None:
    net = RandomNet(100 + seed)
    found, expected = outputs(net, export(net, name="net"))
    assert np.abs(found - expected).max() <= 1e-4 * max(1.0, float(np.abs(expected).max()))


MAP_REFUSED: tuple[tuple[Callable[[torch.Tensor], Any], str], ...] = (  # of the map of a convolution
    (lambda y: y.clamp(torch.zeros(1)), "a clamp to a tensor"),
    (lambda y: sum(functional.max_pool2d(y, 2, return_indices=True)), "max_pool2d"), (lambda y: 2 / y, "reciprocal"),
    (lambda y: torch.cat([y, torch.zeros(1, 2, 7, 9)], 1), r"cat with a constant .*of activations"),
    (lambda y: functional.pad(y, (1, 1)), "zero padding .*before a convolution"), (lambda y: y.mean(), "mean over dimensions"),
    (lambda y: functional.max_pool2d(functional.pad(y, (1, 1)), 2), "zero padding before max_pool2d"),
    (lambda y: y.amax(1), r"maximum over dimensions \[1\] .*dim=\(2, 3\)"), (lambda y: y.transpose(2, 3), "operator transpose"),
    (lambda y: y.softmax(2), "softmax over dimension 2 .*dim=1"), (lambda y: y.flatten(1).softmax(1), "softmax over dimension 1"),
    (lambda y: functional.max_pool2d(y.permute(0, 2, 3, 1), 2), "operator permute .*keeping the channels in place"),
    (lambda y: y.permute(0, 3, 2, 1).flatten(1), "operator permute .*the layout is HWC"),
    (lambda y: y.permute(0, 2, 3, 1).flatten(1, 2) + y.permute(0, 3, 2, 1).flatten(1, 2), "add of tensors that lie differently"),
    (lambda y: y.view(1, 2, 3, 7, 9), r"reshape of .* to \(1, 2, 3, 7, 9\) .*flatten"),
    (lambda y: y[:, ::2], "slice along dimension 1 .*neighbouring channels"),
    (lambda y: y.flatten(1), "flattens a .*return the map itself, or add a Linear"),
    (lambda y: y @ y.mT, "operator mT .*nearest supported form"),
    (lambda y: functional.log_softmax(y.mean((2, 3)), 1), "log_softmax .*nn.Softmax"),
    (lambda y: y.mean((2, 3)).argmax(1), "operator argmax .*logits"),
)  # fmt: skip
LAYER_REFUSED: tuple[tuple[nn.Module, str], ...] = (  # behind a convolution
    (nn.PReLU(6), "a slope for each channel .*nn.LeakyReLU"), (nn.LogSigmoid(), "operator log_sigmoid"),
    (conv(6, 6, padding=1, padding_mode="reflect"), "padding .* mode 'reflect'.*zero padding"),
    (conv(6, 6, padding=1, padding_mode="circular"), "zero padding"), (nn.LayerNorm([6, 7, 9]), "nn.BatchNorm2d"),
    (AvgPool(2, divisor_override=3), "divisor_override"), (AvgPool(2, padding=1, divisor_override=3), "divisor_override"),
    (nn.GroupNorm(2, 6), "nn.BatchNorm2d"),
    (nn.AdaptiveAvgPool2d(4), r"adaptive pooling of \(7, 9\) to \(4, 4\) .*divides"), (nn.InstanceNorm2d(6), "nn.BatchNorm2d"),
    (nn.Upsample((9, 14)), "upsampling .* to .*whole number"), (Norm(6, track_running_stats=False), "track_running_stats=True"),
    (nn.Upsample(scale_factor=2, mode="bicubic"), "bilinear upsampling"),
    (nn.Linear(9, 5), r"Linear on a tensor of shape .*flatten before Linear"),
)  # fmt: skip
REFUSED: dict[str, tuple[Forward, dict[str, Any], str]] = {
    **{f"map {i}": (lambda m, x, f=f: f(m.a(x)), ONE, words) for i, (f, words) in enumerate(MAP_REFUSED)},
    **{f"layer {type(part).__name__} {i}": (*sequence(conv(), part), rf"body\.1 \({type(part).__name__}\).*{words}")
       for i, (part, words) in enumerate(LAYER_REFUSED)},
    "relu in place through a view": (
        lambda m, x: (a := m.a(x), a.view(1, -1).relu_(), m.b(a))[2], CHAIN, "relu in place .* not in place"),
    "writing into a slice": (lambda m, x: (a := m.a(x), a[:, :1].zero_(), m.b(a))[2], CHAIN, "operator zero"),
    "multiplication by rows": (
        lambda m, x: (y := m.a(x)) * y.mean(2, keepdim=True), ONE, "multiplying tensors of shapes .*for each channel"),
    "division": (lambda m, x: m.a(x) / m.b(x), TWO, "div of two activations"),
    "adding with alpha": (lambda m, x: torch.add(m.a(x), m.b(x), alpha=2), TWO, "scaled"),
    "broadcasting": (lambda m, x: m.a(x) + m.b(x), {"a": conv(), "b": conv(4, 1)}, "no broadcasting"),
    "concat of lines": (lambda m, x: torch.cat([m.a(x).flatten(2), m.b(x).flatten(2)], 2), TWO, r"cat along dimension 2 .*rows"),
    "concat with numbers": (lambda m, x: torch.cat([m.a(x), torch.ones(1, 6, 7, 2)], 3), ONE, "cat with a constant"),
    "padding by a value": (lambda m, x: m.a(functional.pad(x, (1, 1), value=2.0)), ONE, "value 2.0 .*zero padding"),
    "cropping": (lambda m, x: m.a(functional.pad(x, (-1, 0))), ONE, "zero padding"),
    "padded map in two places": (
        lambda m, x: m.a(p := functional.pad(x, (1, 1))) + m.b(torch.relu(p)), TWO, "zero padding before relu"),
    "norm1d of a flattened map": (lambda m, x: m.b(x.flatten(1)), {"b": nn.BatchNorm1d(396)},
                                  r"b \(BatchNorm1d\): batch norm of a flattened map .*before flatten"),
    "linear after squeeze of the batch": (lambda m, x: m.b(m.a(x).mean((2, 3), keepdim=True).squeeze()), POOLED,
                                          r"reshape of \(1, 6, 1, 1\) to \(6,\) .*\(1, features\)"),
    "conv1d": (lambda m, x: m.a(x.flatten(2)), {"a": nn.Conv1d(4, 3, 3)}, "nearest supported form"),
    "recurrent": (
        lambda m, x: m.r(x.flatten(2))[0], {"r": nn.GRU(99, 3, batch_first=True)}, "nearest supported form|cannot trace"),
    "weights computed from the image": (lambda m, x: functional.conv2d(x, x[:, :, :3, :3]), {},
                                        "operator slice|a weight that is computed while running"),
    "pool that counts padding, with ceil mode": (
        lambda m, x: m.p(x), {"p": AvgPool(3, 2, 1, ceil_mode=True), "shape": (4, 8, 10)}, "ceil_mode .*count_include_pad=False"),
    "no operator": (lambda m, x: x, {}, "no operator between input and output"),
    "the same values twice": (lambda m, x: {"a": (y := m.a(x)), "b": m.b(x), "c": y}, TWO,
                              r"the same values twice, as \['a'\] and \['c'\]; return them once"),
    "the same values, flattened": (lambda m, x: (y := m.a(x).mean((2, 3), keepdim=True), y.flatten(1)), ONE,
                                   r"the same values twice, as \[0\] and \[1\]"),
    "its input beside": (lambda m, x: (m.a(x), x), ONE, r"returns its input as \[1\]; leave it out"),
    "a constant beside": (lambda m, x: {"y": m.a(x), "n": 3}, ONE, r"returns a constant as \['n'\]"),
    "nothing": (lambda m, x: [], ONE, "no operator between input and output"),
    "a key that is an operator's name": (lambda m, x: {"conv2": m.a(x), "y": m.b(m.a(x))}, {"a": conv(), "b": conv(6, 3)},
                                         "calls its outputs conv2, y, where each must have a name of its own"),
    "other channels": (lambda m, x: m.a(x), {"a": conv(5, 6)}, r"torch.export cannot trace it for an input of \(1, 4, 9, 11\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusal_names_place_and_nearest_form(case: str) -> None:
    forward, layers, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        export(Net(forward, **layers), name="net")


def test_input_shape_may_be_a_list_or_a_torch_size() -> None:
    net = Net(lambda m, x: m.a(x), a=conv())
    for shape in ([4, 9, 11], torch.Size((4, 9, 11))):
        net.input_shape = shape
        assert export(net, name="net").input.shape == (9, 11, 4)
    with pytest.raises(ValueError, match=r"input_shape is None; give .* or the module an attribute"):
        export(nn.Conv2d(3, 3, 1), name="net")


def test_nan_weights_are_named() -> None:
    forward, layers = sequence(conv(), conv(6, 3))
    net = Net(forward, **layers)
    net.body[1].weight.data[0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match=r"body.1 \(Conv2d\).*weights holds 1 of 162 values that are NaN or infinite"):
        export(net, name="net")


def test_training_mode_is_kept() -> None:
    """Export looks at the network in eval mode and leaves every part in the mode it had, also where it fails."""
    net = Net(lambda m, x: m.n(m.d(m.a(x))), a=conv(), n=nn.BatchNorm2d(6), d=nn.Dropout()).train()
    net.n.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    export(net, name="net")
    assert net.training and net.a.training and net.d.training and not net.n.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    net.function = lambda m, x: torch.logit(m.a(x))
    with pytest.raises(UnsupportedOperatorError):
        export(net, name="net")
    assert net.training


FUSED: tuple[tuple[tuple[Forward, dict[str, Any]], list[tuple[type, str]]], ...] = (  # a case; its operators and activations
    (sequence(conv(padding=1), Norm(6), nn.ReLU(), nn.Dropout(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(120, 3)),
     [(Conv, "relu"), (Pool, "none"), (Dense, "none")]),
    (ACCEPTED["relu of a concat"], [(Conv, "relu"), (Conv, "relu"), (Concat, "")]),
    (ACCEPTED["residual with stride"], [(Conv, "none"), (Conv, "none"), (Add, "relu")]),
    (sequence(conv(), nn.MaxPool2d(2), nn.ReLU()), [(Conv, "relu"), (Pool, "none")]),
    (ACCEPTED["max pool of a map that is read again, then relu"],
     [(Conv, "none"), (Pool, "relu"), (Pool, "none"), (Concat, "")]),
)  # fmt: skip


@pytest.mark.parametrize("case", range(len(FUSED)))
def test_fusion(case: int) -> None:
    """Batch norm, ReLU, dropout and flatten leave no operator; a ReLU moves into a concat's parts, and before a max pool that
    alone reads its input."""
    (forward, layers), expected = FUSED[case]
    graph = export(Net(forward, **layers), name="net")
    assert [(type(op), getattr(op, "activation", "")) for op in graph.ops] == expected
    assert case or graph.origin == {"conv1": "body.0 (Conv2d)", "maxpool1": "body.4 (MaxPool2d)", "dense1": "body.6 (Linear)"}


def test_depthwise_weights_are_stored_by_row_column_channel() -> None:
    net = Net(lambda m, x: m.a(x), a=conv(4, 8, groups=4))
    (op,) = (graph := export(net, name="net")).ops
    assert isinstance(op, DepthwiseConv) and op.multiplier == 2
    np.testing.assert_array_equal(graph.constants[op.weights], net.a.weight.detach().numpy()[:, 0].transpose(1, 2, 0))


class Line(nn.Module):
    """Every layer of one dimension, slices, a mean, a product and a concatenation."""

    input_shape = (4, 32)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.up = nn.Conv1d(4, 8, 3, padding=1, stride=2), nn.BatchNorm1d(8), nn.Upsample(scale_factor=2)
        self.pools = nn.Sequential(nn.MaxPool1d(2), nn.AvgPool1d(3, stride=1, padding=1, count_include_pad=False))
        self.wide = nn.Conv1d(8, 8, 5, groups=8, padding="same", dilation=2)
        self.back, self.most, self.all = nn.ConvTranspose1d(8, 4, 2, stride=2), nn.AdaptiveMaxPool1d(2), nn.AdaptiveAvgPool1d(1)
        self.last = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns shares of three classes."""
        x = self.up(self.pools(torch.relu(self.norm(self.first(x)))))
        x = torch.cat([x[:, :, 1:], x[:, :, :-1]], 1)
        x = x.chunk(2, 1)[0] * x.mean(-1, keepdim=True)[:, 8:] + self.wide(x[:, :8])
        x = self.back(x)
        return self.last(self.all(x).flatten(1) + self.most(x).mean(2)).softmax(1)


def test_networks_of_one_dimension() -> None:
    torch.manual_seed(3)
    net = Line().eval()
    graph, signals = export(net), np.random.default_rng(0).normal(size=(5, 4, 32)).astype(np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(signals)).numpy()
    found = interpret.run(graph, interpret.as_maps(graph, signals).transpose(0, 2, 3, 1))
    assert graph.input.shape == (1, 32, 4)
    np.testing.assert_allclose(found.reshape(5, 3), expected, atol=1e-5)
    stored = quantize(graph, signals)
    assert interpret.quantize_input(stored, signals).shape == (5, 1, 32, 4)
    with pytest.raises(ValueError, match=r"takes \(N, 4, 1, 32\) or \(N, 4, 32\)"):
        quantize(graph, signals[:, :3])


MEANS: dict[
    str, tuple[Callable[[Any, torch.Tensor], torch.Tensor], list[type]]
] = {  # of the map of a convolution; what it becomes
    "channels": (lambda m, y: y * torch.sigmoid(y.mean(1, keepdim=True)), [Conv, Lookup, Mul]),
    "channels, in place of which rows stand": (lambda m, y: y.mean(1).unsqueeze(1).mean((2, 3)), [Conv, Pool]),
    "channels at the end": (lambda m, y: y.mean(1), [Conv]),
    "rows of one channel": (lambda m, y: y.mean(1).relu().mean((1, 2), keepdim=True), [Conv, Pool]),
    "channels and rows": (lambda m, y: functional.linear(y.mean((1, 2)), torch.eye(9)[:3]), [Pool, Conv, Dense]),
    "channels and columns": (lambda m, y: y.mean((-1, 1), True), [Pool, Conv]),
    "sums": (lambda m, y: y.sum((2, 3)), [Pool, Lookup]),
    "sums of channels": (lambda m, y: y.sum(1, keepdim=True), [Conv]),
    "sums of all values": (lambda m, y: torch.sigmoid(y.sum((1, 2, 3))), [Pool, Conv, Lookup]),
    "all values": (lambda m, y: y.mean((1, 2, 3)), [Pool, Conv]),
    "all values, flattened": (lambda m, y: y.flatten(1).mean(1, keepdim=True), [Pool, Conv]),
    "channels of places in a row": (lambda m, y: functional.linear(y.flatten(2).mean(1), torch.eye(63)[:3]), [Conv, Dense]),
}


@pytest.mark.parametrize("case", MEANS)
def test_means_over_channels(case: str) -> None:
    function, kinds = MEANS[case]
    net = Net(lambda m, x: function(m, m.a(x)), a=conv())
    graph = export(net)
    np.testing.assert_allclose(*outputs(net, graph), atol=1e-5)
    assert [type(op) for op in graph.ops[1:]] == kinds


@pytest.mark.slow
def test_what_is_rewritten_is_the_same_in_c() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(m.a(x.mean((2, 3)))).view(-1, 4, 6, 8)
        y = torch.relu(m.b(y) + torch.arange(8.0))
        z = y * torch.sigmoid(y.mean(1, keepdim=True)) - y.amax((2, 3), True).expand(-1, -1, 6, 8) * 0.1
        rows = functional.pixel_unshuffle(y, 2).mean((1, 3), True)[:, :, 1].flatten(1)
        below = torch.cat([y * torch.arange(-20.0, 28.0).reshape(6, 8), z / torch.arange(1.0, 385.0).reshape(8, 6, 8), y], 2)
        return m.d(torch.cat([functional.glu(z, 1)[..., -1].sum(2), rows, torch.cat([below, below], 3).mean((2, 3))], 1))

    net = Net(forward, a=nn.Linear(4, 192), b=conv(4, 8, padding=1), d=nn.Linear(13, 3))
    images = images_for(net, 6, 0)
    assert tr.measure(tr.compile(quantize(export(net), images)), images[:3]).bit_exact


def test_a_map_times_one_value_for_each_place() -> None:
    gated = Net(lambda m, x: m.a(x) * torch.sigmoid(m.b(x)), a=conv(), b=conv(4, 1))
    turned = Net(lambda m, x: torch.sigmoid(m.b(x)) * m.a(x), a=conv(), b=conv(4, 1))
    for net in (gated, turned):
        graph = export(net)
        np.testing.assert_allclose(*outputs(net, graph), atol=1e-5)
        (product,) = (op for op in graph.ops if isinstance(op, Mul))
        assert [graph.tensors[name].shape[2] for name in product.inputs] == [6, 1]
