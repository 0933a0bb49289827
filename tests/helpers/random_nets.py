"""Small random torch networks: branches, residuals, concats, strides, pools, batch norms; the same for the same seed."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tinyredux.frontends import export
from tinyredux.graph import Graph
from tinyredux.int8 import quantize
from tinyredux.nets import Net

STEPS = (
    "conv", "conv", "conv", "norm", "relu", "relu6", "depthwise", "grouped", "max", "average", "residual", "skip", "add",
    "concat", "double", "pad",
)  # fmt: skip
HEADS = ("mean", "flatten", "adaptive", "map", "softmax")
SIDES = (7, 8, 9, 12, 13, 1, 2, 4, 5, 16, 19, 28)  # one column is a patch of its own; 28 is wider than any strip of rows
KERNELS = (1, 3, 3, 5, 2, 4, 7)
MOST_MACS = 400_000  # of a layer
Step = tuple[Any, ...]  # a function, and the numbers of the values that it takes


def concat(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Returns both along channels."""
    return torch.cat([left, right], 1)


def padded(layer: nn.Module, sides: tuple[int, ...], images: torch.Tensor) -> torch.Tensor:
    """Returns a layer's output for images with more rows and columns."""
    return layer(functional.pad(images, sides))


FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "relu": functional.relu, "relu6": functional.relu6, "add": operator.add, "concat": concat,
    "mean": partial(torch.mean, dim=(2, 3)), "flatten": partial(torch.flatten, start_dim=1),
}  # fmt: skip


class RandomNet(nn.Module):
    """A network that applies seeded random steps to values made before, then a head. With `several` it returns up to three
    values of steps beside the head's."""

    def __init__(
        self, seed: int, steps: int = 7, padded_averages: bool = True, outliers: bool = True, several: bool = False
    ) -> None:
        super().__init__()
        self.rng = np.random.default_rng(seed)
        self.padded_averages, self.outliers = padded_averages, outliers
        self.input_shape = (self._pick(1, 3, 4, 8, 13), self._pick(*SIDES), self._pick(*SIDES))
        self.layers = nn.ModuleList()
        self.program: list[Step] = []
        values = [torch.randn(2, *self.input_shape, generator=torch.Generator().manual_seed(seed))]
        with torch.no_grad():
            for _ in range(steps):
                self._append(self._step(self._pick(*STEPS), values), values)
            self._head(self._pick(*HEADS), values)
        inner = [i for i in range(2, len(values) - 1) if self.program[i - 1][0] is not FUNCTIONS["flatten"]] if several else []
        self.others: list[int] = []
        for i in map(int, self.rng.permutation(inner)):  # no values twice, which export refuses: some steps change nothing
            alike = (torch.equal(values[i].flatten(), values[other].flatten()) for other in (*self.others, -1))
            self.others += [i] if len(self.others) < 3 and not any(alike) else []
        self.others.sort()

    def _pick(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def _append(self, steps: list[Step], values: list[torch.Tensor]) -> None:
        for function, *sources in steps:
            self.program.append((function, *sources))
            values.append(function(*(values[source] for source in sources)))

    def _layer(self, layer: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(int(self.rng.integers(1 << 30)))
        for parameter in layer.parameters():
            spread = 0.3 if parameter.ndim == 1 else (2 / parameter[0].numel()) ** 0.5
            parameter.data = torch.randn(parameter.shape, generator=generator) * spread + 0.2 * (parameter.ndim == 1)
            if (
                self.outliers and parameter.ndim > 1 and self.rng.random() < 0.2
            ):  # a dead filter, or one far larger than the others
                parameter.data[int(self.rng.integers(len(parameter)))] *= self._pick(0, 30)
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = torch.randn(layer.num_features, generator=generator) * 0.3
            layer.running_var = torch.rand(layer.num_features, generator=generator) + 0.3
            layer.weight.data += 0.8
        self.layers.append(layer.eval())
        return layer

    def _step(self, kind: str, values: list[torch.Tensor]) -> list[Step]:
        source = len(values) - 1 if self.rng.random() < 0.8 else int(self.rng.integers(len(values)))
        channels, height, width = values[source].shape[1:]
        kernel = (min(self._pick(*KERNELS), height), min(self._pick(*KERNELS), width))
        padding = tuple(self._pick(0, size // 2) for size in kernel)
        stride = (self._pick(1, 1, 1, 2), self._pick(1, 1, 1, 2, 3))
        outputs = self._pick(3, 4, 5, 8, 1, 13, 16, 24)
        while outputs > 1 and outputs * channels * kernel[0] * kernel[1] * height * width > MOST_MACS:
            outputs //= 2
        match kind:
            case "conv":
                layer: nn.Module = nn.Conv2d(channels, outputs, kernel, stride, padding, bias=self._pick(True, False))
                return [(self._layer(layer), source)]
            case "depthwise":
                layer = nn.Conv2d(channels, channels * self._pick(1, 1, 2, 3), kernel, stride, padding, groups=channels)
                return [(self._layer(layer), source)]
            case "grouped":
                groups = self._pick(*(count for count in range(1, channels + 1) if channels % count == 0))
                layer = nn.Conv2d(channels, groups * self._pick(1, 2, 4, 5), kernel, stride, padding, groups=groups)
                return [(self._layer(layer), source)]
            case "norm":
                return [(self._layer(nn.BatchNorm2d(channels)), source)]
            case "max":
                layer = nn.MaxPool2d(kernel, stride, padding, ceil_mode=self._pick(True, False))
                return [(self._layer(layer), source)]
            case "average":
                padding = padding if self.padded_averages else (0, 0)
                layer = nn.AvgPool2d(kernel, stride, padding, count_include_pad=self._pick(True, False))
                return [(self._layer(layer), source)]
            case "residual":
                first, second = nn.Conv2d(channels, channels, 3, 2, 1), nn.Conv2d(channels, channels, 1, 2)
                parts = [(self._layer(first), source), (self._layer(second), source)]
                return [*parts, (operator.add, len(values), len(values) + 1), (functional.relu, len(values) + 2)]
            case "skip":
                conv = nn.Conv2d(channels, channels, (self._pick(1, 3), self._pick(1, 3)), padding="same")
                order = (source, len(values)) if self._pick(True, False) else (len(values), source)
                return [(self._layer(conv), source), (operator.add, *order), (functional.relu, len(values) + 1)]
            case "double":
                return [(FUNCTIONS[self._pick("add", "concat")], source, source)]
            case "add":
                other = [i for i, value in enumerate(values) if value.shape == values[source].shape]
                return [(operator.add, source, self._pick(*other))]
            case "concat":
                other = [i for i, value in enumerate(values) if value.shape[2:] == values[source].shape[2:]]
                return [(concat, source, self._pick(*other))]
            case "pad":
                layer = nn.Conv2d(channels, 4, min(3, height, width))
                return [(partial(padded, self._layer(layer), (1, 0, 0, 2)), source)]
        return [(FUNCTIONS[kind], source)]

    def _head(self, kind: str, values: list[torch.Tensor]) -> None:
        last = len(values) - 1
        channels, height, width = values[last].shape[1:]
        mean, flatten = FUNCTIONS["mean"], FUNCTIONS["flatten"]
        match kind:
            case "mean":
                steps: list[Step] = [(mean, last), (self._layer(nn.Linear(channels, 10)), last + 1)]
            case "adaptive":
                conv = self._layer(nn.Conv2d(channels, 6, 1))
                steps = [(conv, last), (self._layer(nn.AdaptiveAvgPool2d(1)), last + 1), (flatten, last + 2)]
            case "map":
                steps = [(self._layer(nn.Conv2d(channels, 3, 1)), last)]
            case _:
                linear = self._layer(nn.Linear(channels * height * width, 7))
                steps = [(flatten, last), (linear, last + 1)]
                steps += [(partial(torch.softmax, dim=1), last + 2)] if kind == "softmax" else []
        self._append(steps, values)

    def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Returns the last step's value, with several outputs in front of the others."""
        values = [images]
        for function, *sources in self.program:
            values.append(function(*(values[source] for source in sources)))
        return (values[-1], *(values[other] for other in self.others)) if self.others else values[-1]


def images_for(net: nn.Module, count: int, seed: int) -> np.ndarray:
    """Returns random images (count, C, H, W) float32 for a network."""
    return np.random.default_rng(seed).normal(size=(count, *net.input_shape)).astype(np.float32)


def int8_net(seed: int, padded_averages: bool = True) -> tuple[Graph, np.ndarray]:
    """Returns a random network's int8 graph and three images (3, C, H, W) float32, one of them far out of range."""
    net = RandomNet(seed, padded_averages=padded_averages)
    graph = quantize(export(net, name=f"random{seed}"), images_for(net, 8, seed))
    images = images_for(net, 3, seed + 1000)
    images[1] *= 20
    return graph, images


def int8_sequence(shape: tuple[int, int, int], *layers: nn.Module) -> Graph:
    """Returns the int8 graph of layers in a row, which get their size where they are lazy, for images (C, H, W)."""
    net = Net(nn.Sequential(*layers), shape).eval()
    net(torch.zeros(1, *shape))
    return quantize(export(net, name="net"), images_for(net, 8, 0))
