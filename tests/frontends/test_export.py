"""Networks as strangers write them: the exported graph computes what torch computes, or the refusal says what to change."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from random_nets import RandomNet, images_for
from torch import nn
from torch.nn import functional

from tinyredux.frontends import export
from tinyredux.frontends.builder import UnsupportedOperatorError
from tinyredux.graph import Add, Conv, Dense, DepthwiseConv, Graph, Pool, Relu, verify
from tinyredux.int8 import interpret

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


def assert_equals_torch(net: nn.Module, tolerance: float = 1e-4) -> Graph:
    """Fails unless the exported graph computes what torch computes. Returns the graph."""
    graph = export(net, name="net")
    verify(graph)
    found, expected = outputs(net, graph)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    return graph


def bottleneck(m: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.relu(m.norm(m.a(x)) + m.short_norm(m.short(x)))


def dense_block(m: Any, x: torch.Tensor) -> torch.Tensor:
    for layer in m.layers:
        x = torch.cat([x, torch.relu(layer(x))], 1)
    return x


def shape_dependent(m: Any, x: torch.Tensor) -> torch.Tensor:
    x = m.a(x)
    while x.shape[2] > 3:
        x = functional.max_pool2d(x, 2)
    return x.flatten(1) if x.shape[-1] == 2 else x


class Separable(nn.Module):
    """A depthwise-separable block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False), nn.BatchNorm2d(inputs), nn.ReLU6()]
        self.body = nn.Sequential(*layers, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU6())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the block's output."""
        return self.body(x)


def sequence(*layers: nn.Module) -> tuple[Forward, dict[str, Any]]:
    """Returns a case: the layers one after the other."""
    return lambda m, x: m.body(x), {"body": nn.Sequential(*layers)}


# layers of many cases: of the map (4, 9, 11), of (6, 7, 9) behind one of them, flat or as means
ONE, TWO, CHAIN = {"a": conv()}, {"a": conv(), "b": conv()}, {"a": conv(), "b": conv(6, 2)}
FLAT, POOLED = {"a": conv(), "b": nn.Linear(378, 5)}, {"a": conv(), "b": nn.Linear(6, 5)}
LINEAR = {"b": nn.Linear(396, 5)}

# name: (forward, layers) with layers and an optional shape by keyword
ACCEPTED: dict[str, tuple[Forward, dict[str, Any]]] = {
    # convolutions
    "conv without bias": (lambda m, x: m.a(x), {"a": conv(bias=False)}),
    "functional conv": (
        lambda m, x: functional.conv2d(x, m.a.weight, m.a.bias, stride=2, padding=(1, 0), groups=2),
        {"a": conv(groups=2)},
    ),
    "grayscale": (lambda m, x: m.a(x), {"a": conv(1, 3), "shape": (1, 12, 7)}),
    "one channel, one group": (lambda m, x: m.a(x), {"a": conv(1, 1, groups=1), "shape": (1, 5, 5)}),
    "one pixel": (lambda m, x: m.a(x), {"a": conv(3, 2, 1), "shape": (3, 1, 1)}),
    "conv as wide as the map": (lambda m, x: m.a(x).flatten(1), {"a": conv(kernel=(9, 11))}),
    # padding by itself
    "F.pad": (lambda m, x: m.a(functional.pad(x, (1, 2, 0, 3))), {"a": conv(padding=1)}),
    "F.pad of the width alone": (lambda m, x: m.a(functional.pad(x, (1, 2))), ONE),
    "F.pad twice": (lambda m, x: m.a(functional.pad(functional.pad(x, (1, 0)), (0, 0, 2, 1))), ONE),
    "ZeroPad2d": sequence(nn.ZeroPad2d((1, 0, 2, 1)), conv()),
    "ConstantPad2d": sequence(nn.ConstantPad2d(1, 0.0), conv()),
    "F.pad by nothing": (lambda m, x: functional.relu(functional.pad(m.a(x), (0, 0, 0, 0))), ONE),
    # batch norm
    "norm after conv": sequence(conv(), nn.BatchNorm2d(6), nn.ReLU()),
    "norm after depthwise": sequence(conv(4, 8, groups=4), nn.BatchNorm2d(8)),
    "norm after grouped conv": sequence(conv(4, 6, groups=2), nn.BatchNorm2d(6)),
    "norm before conv": sequence(nn.BatchNorm2d(4), conv(padding=1)),
    "norm before relu and conv": sequence(conv(), nn.BatchNorm2d(6), nn.ReLU(), nn.BatchNorm2d(6), conv(6, 3)),
    "norm after pool": sequence(conv(), nn.MaxPool2d(2), nn.BatchNorm2d(6), nn.ReLU()),
    "two norms": sequence(conv(), nn.BatchNorm2d(6), nn.BatchNorm2d(6)),
    "norm at the start": sequence(nn.BatchNorm2d(4)),
    "norm1d after linear": (
        lambda m, x: m.c(torch.relu(m.b(m.a(x.flatten(1))))),
        {"a": nn.Linear(396, 8), "b": nn.BatchNorm1d(8), "c": nn.Linear(8, 3)},
    ),
    "norm of a concat": (lambda m, x: m.n(torch.cat([m.a(x), m.b(x)], 1)), {"a": conv(), "b": conv(), "n": nn.BatchNorm2d(12)}),
    "conv output used before and after its norm": (lambda m, x: m.a(x) + m.n(m.a(x)), {"a": conv(), "n": nn.BatchNorm2d(6)}),
    # activations in every spelling
    "nn.ReLU in place": sequence(conv(), nn.ReLU(inplace=True), conv(6, 3)),
    "F.relu": (lambda m, x: functional.relu(m.a(x)), ONE),
    "x.relu()": (lambda m, x: m.a(x).relu(), ONE),
    "x.relu_()": (lambda m, x: m.a(x).relu_(), ONE),
    "relu twice": (lambda m, x: torch.relu(torch.relu(m.a(x))), ONE),
    "relu then relu6": (lambda m, x: functional.relu6(torch.relu(m.a(x))), ONE),
    "nn.ReLU6": sequence(conv(), nn.ReLU6()),
    "clamp to 0 and 6": (lambda m, x: m.a(x).clamp(0, 6), ONE),
    "clamp(min=0)": (lambda m, x: m.a(x).clamp(min=0), ONE),
    "clamp_(min=0.0, max=6.0)": (lambda m, x: m.a(x).clamp_(min=0.0, max=6.0), ONE),
    "clamp_min": (lambda m, x: m.a(x).clamp_min(0.0), ONE),
    "Hardtanh(0, 6)": sequence(conv(), nn.Hardtanh(0.0, 6.0)),
    "relu of a sum": (lambda m, x: torch.relu(m.a(x) + m.b(x)), TWO),
    "relu of a concat": (lambda m, x: torch.relu(torch.cat([m.a(x), m.b(x)], 1)), TWO),
    "relu of a concat whose part is used again": (
        lambda m, x: torch.relu(torch.cat([(a := m.a(x)), m.b(x)], 1)) + torch.cat([a, a], 1),
        TWO,
    ),
    "relu of a concat with a part twice": (lambda m, x: torch.relu(torch.cat([(a := m.a(x)), a], 1)), ONE),
    "relu after max pool": sequence(conv(), nn.MaxPool2d(2), nn.ReLU()),
    "max pool of a map that is read again, then relu": (
        lambda m, x: torch.cat([torch.relu(functional.max_pool2d(a := m.a(x), 2)), functional.avg_pool2d(a, 2)], 1),
        ONE,
    ),
    "relu after pools of a concat": (
        lambda m, x: torch.relu(functional.max_pool2d(torch.cat([functional.max_pool2d(m.a(x), 3, 1), m.b(x)], 1), 2)),
        {"a": conv(), "b": conv(kernel=5)},
    ),
    "relu after average pool": sequence(conv(), nn.AvgPool2d(2), nn.ReLU6()),
    "conv output used before and after relu": (lambda m, x: (a := m.a(x)) + torch.relu(a), ONE),
    "use before relu, through dropout": (
        lambda m, x: torch.cat([torch.relu(m.d(a := m.a(x))), a], 1),
        {"a": conv(), "d": nn.Dropout()},
    ),
    "use after relu in place": (lambda m, x: torch.cat([(a := m.a(x)).relu_(), a], 1), ONE),
    "relu in place, read by its old name": (lambda m, x: torch.add(functional.relu(a := m.a(x), inplace=True), a), ONE),
    "identity layers": sequence(nn.Identity(), conv(), nn.Dropout2d(), nn.Identity(), nn.ReLU(), nn.AlphaDropout()),
    "relu in place as a statement": (lambda m, x: (a := m.a(x), a.relu_(), m.b(x) + a)[2], TWO),
    "relu in place of a flattened map": (lambda m, x: m.b(m.a(x).flatten(1).relu_()), FLAT),
    # pools
    "max pool, ceil mode, stride over the end": sequence(nn.MaxPool2d((2, 3), (4, 5), ceil_mode=True)),
    "max pool of negatives with padding": (lambda m, x: functional.max_pool2d(m.a(x), 3, 2, 1), ONE),
    "average pool, ceil mode, padding counted, no difference": sequence(nn.AvgPool2d(3, 2, 1, ceil_mode=True)),
    "average pool, ceil mode of an even size": (
        lambda m, x: m.p(x),
        {"p": nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), "shape": (4, 8, 10)},
    ),
    "F.avg_pool2d": (lambda m, x: functional.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False), {}),
    "AdaptiveAvgPool2d(1)": sequence(conv(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
    "AdaptiveAvgPool2d((1, 1)) kept as a map": sequence(conv(), nn.AdaptiveAvgPool2d((1, 1)), nn.Conv2d(6, 5, 1)),
    "AdaptiveAvgPool2d that divides": (lambda m, x: m.p(x), {"p": nn.AdaptiveAvgPool2d((4, 2)), "shape": (3, 8, 6)}),
    "AdaptiveMaxPool2d(1)": sequence(conv(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
    "mean((2, 3))": (lambda m, x: m.b(m.a(x).mean((2, 3))), POOLED),
    "mean([-1, -2], keepdim)": (lambda m, x: m.b(m.a(x).mean([-1, -2], keepdim=True)), {"a": conv(), "b": conv(6, 5, 1)}),
    "mean(3).mean(2)": (lambda m, x: m.b(m.a(x).mean(3).mean(2)), POOLED),
    "flatten(2).mean(2)": (lambda m, x: m.b(m.a(x).flatten(2).mean(2)), POOLED),
    "global max": (lambda m, x: m.b(m.a(x).amax((2, 3))), POOLED),
    # flatten in every spelling
    "nn.Flatten": sequence(conv(), nn.Flatten(), nn.Linear(378, 5)),
    "torch.flatten": (lambda m, x: m.b(torch.flatten(m.a(x), 1)), FLAT),
    "view(x.size(0), -1)": (lambda m, x: m.b((a := m.a(x)).view(a.size(0), -1)), FLAT),
    "reshape(-1, n)": (lambda m, x: m.b(m.a(x).reshape(-1, 378)), FLAT),
    "view by arithmetic on shapes": (lambda m, x: m.b((a := m.a(x)).view(-1, a.shape[1] * a.shape[2] * a.shape[3])), FLAT),
    "contiguous().view": (lambda m, x: m.b(m.a(x).contiguous().view(1, -1)) if x.shape[0] == 1 else m.b(m.a(x).flatten(1)), FLAT),
    "relu after flatten": (lambda m, x: m.b(torch.relu(m.a(x).flatten(1))), FLAT),
    "flatten of the input": (lambda m, x: m.b(m.a(x.flatten(1))), {"a": nn.Linear(396, 7), "b": nn.Linear(7, 2)}),
    "squeeze(-1).squeeze(-1)": (lambda m, x: m.b(m.a(x).mean((2, 3), keepdim=True).squeeze(-1).squeeze(-1)), POOLED),
    "unsqueeze after mean": (
        lambda m, x: m.b(m.a(x).mean((2, 3)).unsqueeze(-1).unsqueeze(-1)).flatten(1),
        {"a": conv(), "b": conv(6, 5, 1)},
    ),
    "x[:, :, 0, 0] after global pool": (lambda m, x: m.b(functional.adaptive_avg_pool2d(m.a(x), 1)[:, :, 0, 0]), POOLED),
    "flatten, dropout, three linears": sequence(
        conv(),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(378, 12),
        nn.ReLU(),
        nn.Linear(12, 7, bias=False),
        nn.ReLU6(),
        nn.Linear(7, 3),
    ),
    "F.linear": (lambda m, x: functional.linear(x.flatten(1), m.a.weight), {"a": nn.Linear(396, 5)}),
    # branches
    "x + y": (lambda m, x: m.a(x) + m.b(x), TWO),
    "torch.add": (lambda m, x: torch.add(m.a(x), m.b(x)), TWO),
    "x += y": (lambda m, x: m.a(x).add_(m.b(x)), TWO),
    "x + x": (lambda m, x: (a := m.a(x)) + a, ONE),
    "sum of a list": (lambda m, x: sum([m.a(x), m.b(x), m.a(x)]), TWO),
    "residual with stride": (
        bottleneck,
        {
            "a": conv(4, 8, stride=2, padding=1, bias=False),
            "norm": nn.BatchNorm2d(8),
            "short": conv(4, 8, 1, stride=2, bias=False),
            "short_norm": nn.BatchNorm2d(8),
        },
    ),
    "identity residual": (lambda m, x: torch.relu(m.n(m.a(x)) + x), {"a": conv(4, 4, padding=1), "n": nn.BatchNorm2d(4)}),
    "concat of odd sizes": (
        lambda m, x: torch.cat([m.a(x), m.b(x), functional.max_pool2d(x, 3, 2)], 1),
        {"a": conv(4, 3, stride=2), "b": conv(4, 5, 5, stride=2, padding=1), "shape": (4, 13, 7)},
    ),
    "concat of three, one twice": (lambda m, x: torch.concat((a := m.a(x), m.b(x), a), dim=1), TWO),
    "torch.cat along -3": (lambda m, x: torch.cat((m.a(x), m.b(x)), dim=-3), TWO),
    "concat of vectors": (
        lambda m, x: m.c(torch.cat([m.a(x).mean((2, 3)), m.b(x.flatten(1))], 1)),
        {"a": conv(), "b": nn.Linear(396, 3), "c": nn.Linear(9, 2)},
    ),
    "cat of one": (lambda m, x: torch.cat([m.a(x)], 1), ONE),
    "dense block": (
        dense_block,
        {"layers": nn.ModuleList([conv(4, 3, padding=1), conv(7, 2, padding=1), conv(9, 5, padding=1)])},
    ),
    "separable": (lambda m, x: m.b(m.a(x)), {"a": Separable(4, 8, 2), "b": Separable(8, 6, 1)}),
    "shared layer": (lambda m, x: m.a(torch.relu(m.a(x))), {"a": conv(4, 4, padding=1)}),
    "shared layer with two norms": (
        lambda m, x: m.n(m.a(x)) + m.o(m.a(x)),
        {"a": conv(), "n": nn.BatchNorm2d(6), "o": nn.BatchNorm2d(6)},
    ),
    "nested sequences in lists": (
        lambda m, x: m.blocks[1](m.blocks[0](x)),
        {"blocks": nn.ModuleList([nn.Sequential(nn.Sequential(conv(), nn.ReLU()), conv(6, 6)), nn.Sequential(conv(6, 2))])},
    ),
    "layers in a dict": (lambda m, x: m.d["b"](m.d["a"](x)), {"d": nn.ModuleDict(CHAIN)}),
    "control flow on shapes": (shape_dependent, ONE),
    "weight norm": sequence(nn.utils.parametrizations.weight_norm(conv())),
    "dead branch": (lambda m, x: (m.a(x), m.b(x))[1], TWO),
    "float64": (lambda m, x: m.n(m.a(x)), {"a": conv().double(), "n": nn.BatchNorm2d(6).double()}),
    # softmax
    "softmax at the end": (lambda m, x: m.b(x.flatten(1)).softmax(1), LINEAR),
    "nn.Softmax after a map": sequence(conv(), nn.Softmax(dim=1)),
    "F.softmax of a global pool": (lambda m, x: functional.softmax(m.a(x).mean((2, 3)), dim=1), ONE),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_equals_torch(case: str) -> None:
    forward, layers = ACCEPTED[case]
    assert_equals_torch(Net(forward, **layers))


@pytest.mark.parametrize("seed", range(6))
def test_random_network_equals_torch(seed: int) -> None:
    net = RandomNet(100 + seed)
    graph = export(net, name="net")
    found, expected = outputs(net, graph)
    assert np.abs(found - expected).max() <= 1e-4 * max(1.0, float(np.abs(expected).max()))


REFUSED: dict[str, tuple[Forward, dict[str, Any], str]] = {
    "sigmoid": (*sequence(conv(), nn.Sigmoid()), r"body.1 \(Sigmoid\): operator sigmoid .* nearest supported form: nn.ReLU6"),
    "hardswish": (*sequence(conv(), nn.Hardswish()), r"body.1 \(Hardswish\): operator hardswish .* nn.ReLU6"),
    "silu": (*sequence(conv(), nn.SiLU()), r"body.1 \(SiLU\).*nn.ReLU6"),
    "gelu": (*sequence(conv(), nn.GELU()), r"body.1 \(GELU\).*nn.ReLU$"),
    "leaky relu": (*sequence(conv(), nn.LeakyReLU()), r"body.1 \(LeakyReLU\).*nn.ReLU$"),
    "prelu": (*sequence(conv(), nn.PReLU()), r"body.1 \(PReLU\).*nn.ReLU$"),
    "elu": (*sequence(conv(), nn.ELU()), r"body.1 \(ELU\).*nn.ReLU$"),
    "tanh": (lambda m, x: torch.tanh(m.a(x)), ONE, "operator tanh .* nn.ReLU6"),
    "Hardtanh": (*sequence(conv(), nn.Hardtanh()), r"body.1 \(Hardtanh\): a clamp to \[-1.0, 1.0\] .* nn.ReLU or nn.ReLU6"),
    "clamp to another range": (lambda m, x: m.a(x).clamp(-1, 4), ONE, r"a clamp to \[-1.0, 4.0\]"),
    "clamp by tensors": (lambda m, x: m.a(x).clamp(torch.zeros(1)), ONE, "a clamp to a tensor"),
    "relu in place through a view": (
        lambda m, x: (a := m.a(x), a.view(1, -1).relu_(), m.b(a))[2],
        CHAIN,
        "relu in place .* not in place",
    ),
    "writing into a slice": (lambda m, x: (a := m.a(x), a[:, :1].zero_(), m.b(a))[2], CHAIN, "operator slice"),
    "max pool that returns its indices": (
        lambda m, x: sum(functional.max_pool2d(m.a(x), 2, return_indices=True)),
        ONE,
        "max_pool2d",
    ),
    "multiplication": (lambda m, x: m.a(x) * m.b(x), TWO, "operator mul .* addition"),
    "scaling": (lambda m, x: m.a(x) * 0.5, ONE, "operator mul .* depthwise 1x1"),
    "division": (lambda m, x: x / 255, {}, "operator div .*"),
    "subtraction": (lambda m, x: m.a(x) - m.b(x), TWO, "operator sub"),
    "adding a number": (lambda m, x: m.a(x) + 1.5, ONE, "adding a constant .* bias"),
    "adding a parameter": (lambda m, x: m.a(x) + m.p, {"a": conv(), "p": nn.Parameter(torch.ones(6, 1, 1))}, "adding a constant"),
    "adding with alpha": (lambda m, x: torch.add(m.a(x), m.b(x), alpha=2), TWO, "scaled"),
    "broadcasting": (lambda m, x: m.a(x) + m.b(x), {"a": conv(), "b": conv(4, 1)}, "no broadcasting"),
    "concat of widths": (lambda m, x: torch.cat([m.a(x), m.b(x)], 3), TWO, r"cat along dimension 3 .*dim=1"),
    "concat with a constant": (
        lambda m, x: torch.cat([m.a(x), torch.zeros(1, 2, 7, 9)], 1),
        ONE,
        r"dimension 1 .*of activations",
    ),
    "reflect padding": (*sequence(conv(padding=1, padding_mode="reflect")), "padding .* mode 'reflect'.*zero padding"),
    "circular padding": (*sequence(conv(padding=1, padding_mode="circular")), "zero padding"),
    "padding by a value": (lambda m, x: m.a(functional.pad(x, (1, 1), value=2.0)), ONE, "value 2.0 .*zero padding"),
    "cropping": (lambda m, x: m.a(functional.pad(x, (-1, 0))), ONE, "zero padding"),
    "padding before a pool": (
        lambda m, x: functional.max_pool2d(functional.pad(x, (1, 1)), 2),
        {},
        "zero padding before max_pool2d",
    ),
    "padding at the end": (lambda m, x: functional.pad(m.a(x), (1, 1)), ONE, "zero padding .*before a convolution"),
    "padded map in two places": (
        lambda m, x: m.a(p := functional.pad(x, (1, 1))) + m.b(torch.relu(p)),
        TWO,
        "zero padding before relu",
    ),
    "pool with dilation": (
        *sequence(nn.MaxPool2d(2, dilation=2)),
        r"body.0 \(MaxPool2d\): max pooling with dilation .*dilation=1",
    ),
    "pool that counts padding, with ceil mode": (
        lambda m, x: m.p(x),
        {"p": nn.AvgPool2d(3, 2, 1, ceil_mode=True), "shape": (4, 8, 10)},
        "ceil_mode .*count_include_pad=False",
    ),
    "pool with divisor": (*sequence(nn.AvgPool2d(2, divisor_override=3)), "divisor_override"),
    "padded pool with divisor": (*sequence(nn.AvgPool2d(2, padding=1, divisor_override=3)), "divisor_override"),
    "adaptive pool that does not divide": (
        *sequence(nn.AdaptiveAvgPool2d(4)),
        r"adaptive pooling of \(9, 11\) to \(4, 4\) .*divides",
    ),
    "mean over channels": (lambda m, x: m.a(x).mean(1), ONE, r"mean over dimensions \[1\] .*mean\(\(2, 3\)\)"),
    "mean over all": (lambda m, x: m.a(x).mean(), ONE, "mean over dimensions"),
    "transposed conv": (*sequence(nn.ConvTranspose2d(4, 3, 2)), r"body.0 \(ConvTranspose2d\): operator conv_transpose2d"),
    "group norm": (*sequence(conv(), nn.GroupNorm(2, 6)), r"body.1 \(GroupNorm\): .*nn.BatchNorm2d"),
    "layer norm": (*sequence(conv(), nn.LayerNorm([6, 7, 9])), r"body.1 \(LayerNorm\): .*nn.BatchNorm2d"),
    "instance norm": (*sequence(conv(), nn.InstanceNorm2d(6)), r"body.1 \(InstanceNorm2d\): .*nn.BatchNorm2d"),
    "norm without statistics": (*sequence(conv(), nn.BatchNorm2d(6, track_running_stats=False)), "track_running_stats=True"),
    "norm1d of a flattened map": (
        lambda m, x: m.b(x.flatten(1)),
        {"b": nn.BatchNorm1d(396)},
        r"b \(BatchNorm1d\): batch norm of a flattened map .*before flatten",
    ),
    "upsampling": (*sequence(conv(), nn.Upsample(scale_factor=2)), r"body.1 \(Upsample\): operator upsample_nearest2d"),
    "log softmax": (lambda m, x: functional.log_softmax(m.b(x.flatten(1)), 1), LINEAR, "log_softmax .*nn.Softmax"),
    "softmax over rows": (lambda m, x: m.a(x).softmax(2), ONE, "softmax over dimension 2 .*dim=1"),
    "softmax of a flattened map": (lambda m, x: m.a(x).flatten(1).softmax(1), ONE, "softmax over dimension 1"),
    "permute": (lambda m, x: m.a(x).permute(0, 2, 3, 1), ONE, "operator permute .*keeping the channels in place"),
    "transpose": (lambda m, x: m.a(x).transpose(2, 3), ONE, "operator transpose"),
    "channel shuffle": (lambda m, x: m.a(x).view(1, 2, 3, 7, 9), ONE, r"reshape of .* to \(1, 2, 3, 7, 9\) .*flatten"),
    "slices": (lambda m, x: m.a(x)[:, :, ::2, ::2], ONE, "operator slice .*stride"),
    "chunk": (lambda m, x: torch.cat(m.a(x).chunk(2, 1)[::-1], 1), ONE, "operator chunk"),
    "linear on the width": (lambda m, x: m.b(x), {"b": nn.Linear(11, 5)}, r"Linear on a tensor of shape .*flatten before Linear"),
    "linear after squeeze of the batch": (
        lambda m, x: m.b(m.a(x).mean((2, 3), keepdim=True).squeeze()),
        POOLED,
        r"reshape of \(1, 6, 1, 1\) to \(6,\) .*\(1, features\)",
    ),
    "flatten at the end": (lambda m, x: m.a(x).flatten(1), ONE, "flattens a .*return the map itself, or add a Linear"),
    "conv1d": (lambda m, x: m.a(x.flatten(2)), {"a": nn.Conv1d(4, 3, 3)}, "nearest supported form"),
    "argmax": (lambda m, x: m.b(x.flatten(1)).argmax(1), LINEAR, "operator argmax .*logits"),
    "recurrent": (
        lambda m, x: m.r(x.flatten(2))[0],
        {"r": nn.GRU(99, 3, batch_first=True)},
        "nearest supported form|cannot trace",
    ),
    "weights computed from the image": (
        lambda m, x: functional.conv2d(x, x[:, :, :3, :3]),
        {},
        "operator slice|a weight that is computed while running",
    ),
    "attention": (lambda m, x: m.a(x) @ m.b(x).mT, TWO, "nearest supported form"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusal_names_place_and_nearest_form(case: str) -> None:
    forward, layers, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        export(Net(forward, **layers), name="net")


def test_refusal_has_its_own_type() -> None:
    with pytest.raises(UnsupportedOperatorError):
        export(Net(*sequence(nn.Sigmoid())[:1], **sequence(nn.Sigmoid())[1]), name="net")


def test_not_a_compilable_module() -> None:
    identity, data_dependent = (lambda m, x: x), (lambda m, x: m.a(x) if x.sum() > 0 else x)
    for net, message in [
        (nn.Conv2d(3, 3, 1), r"input_shape is None; give \(channels, height, width\), or the module an attribute input_shape"),
        (Net(identity, (3, 0, 4)), "input_shape is"),
        (Net(identity), "no operator between input and output"),
        (Net(lambda m, x: (m.a(x), m.a(x)), a=conv()), "returns 2 tensors, expected one"),
        (Net(lambda m, x: m.a(x), a=conv(5, 6)), r"torch.export cannot trace it for an input of \(1, 4, 9, 11\)"),
        (Net(data_dependent, a=conv()), "cannot trace"),
    ]:
        with pytest.raises(ValueError, match=message):
            export(net, name="net")


def test_nan_weights_are_named() -> None:
    net = Net(*sequence(conv(), conv(6, 3))[:1], **sequence(conv(), conv(6, 3))[1])
    net.body[1].weight.data[0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match=r"body.1 \(Conv2d\).*weights holds 1 of 162 values that are NaN or infinite"):
        export(net, name="net")


def test_input_shape_may_be_a_list_or_a_torch_size() -> None:
    net = Net(lambda m, x: m.a(x), a=conv())
    for shape in ([4, 9, 11], torch.Size((4, 9, 11))):
        net.input_shape = shape
        assert export(net, name="net").input.shape == (9, 11, 4)


def test_training_mode_is_kept() -> None:
    """Export looks at the network in eval mode and leaves every part in the mode it had, also where it fails."""
    net = Net(lambda m, x: m.n(m.d(m.a(x))), a=conv(), n=nn.BatchNorm2d(6), d=nn.Dropout()).train()
    net.n.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    export(net, name="net")
    assert net.training and net.a.training and net.d.training and not net.n.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    net.function = lambda m, x: torch.sigmoid(m.a(x))
    with pytest.raises(UnsupportedOperatorError):
        export(net, name="net")
    assert net.training


def test_fusion() -> None:
    """Batch norm and ReLU leave no operator of their own behind a convolution; dropout and flatten none at all."""
    forward, layers = sequence(
        conv(padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(120, 3)
    )
    graph = export(Net(forward, **layers), name="net")
    assert [type(op) for op in graph.ops] == [Conv, Pool, Dense]
    assert [getattr(op, "activation", None) for op in graph.ops] == ["relu", "none", "none"]
    assert graph.origin == {"conv1": "body.0 (Conv2d)", "maxpool1": "body.4 (MaxPool2d)", "dense1": "body.6 (Linear)"}


def test_relu_moves_into_the_parts_of_a_concat() -> None:
    forward, layers = ACCEPTED["relu of a concat"]
    assert not any(isinstance(op, Relu) for op in export(Net(forward, **layers), name="net").ops)
    forward, layers = ACCEPTED["residual with stride"]
    graph = export(Net(forward, **layers), name="net")
    assert [(type(op), getattr(op, "activation", "")) for op in graph.ops][-1] == (Add, "relu")


def test_relu_moves_before_max_pools_that_nothing_else_reads() -> None:
    forward, layers = sequence(conv(), nn.MaxPool2d(2), nn.ReLU())
    graph = export(Net(forward, **layers), name="net")
    assert [(type(op), getattr(op, "activation", "")) for op in graph.ops] == [(Conv, "relu"), (Pool, "none")]
    forward, layers = ACCEPTED["max pool of a map that is read again, then relu"]
    graph = export(Net(forward, **layers), name="net")
    assert [getattr(op, "activation", "") for op in graph.ops[:2]] == ["none", "relu"]


def test_depthwise_weights_are_stored_by_row_column_channel() -> None:
    net = Net(lambda m, x: m.a(x), a=conv(4, 8, groups=4))
    (op,) = (graph := export(net, name="net")).ops
    assert isinstance(op, DepthwiseConv) and op.multiplier == 2
    np.testing.assert_array_equal(graph.constants[op.weights], net.a.weight.detach().numpy()[:, 0].transpose(1, 2, 0))
