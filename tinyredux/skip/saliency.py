"""What skipping needs to know of a network: the statistics of what each layer reads, from calibration images.

The images are taken a part at a time, so memory does not grow with their number. They come from the training set.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from tqdm import tqdm

from tinyredux.graph import Add, Bilinear, Concat, Conv, Dense, Graph, Lookup, Mul, Op, Pool, Rearrange, Relu, Softmax, Weighted
from tinyredux.int8 import bilinear, clamp_of, interpret, quant_of, table_of
from tinyredux.int8.evaluator import BATCH, PLAIN, Bytes, Evaluator, Layer, weighted_sums
from tinyredux.skip.cuts import Floats, Statistics, skippable

RUNNING_POSITIONS = 4  # positions of an image that the running sums look at; the released code looks at all, of 990 images


def collect(graph: Graph, images: Bytes, names: Sequence[str] | None = None) -> dict[str, Statistics]:
    """Returns the statistics of convolutions and dense layers by name, usually of all convolutions that can be cut.

    images: int8 (N, H, W, C).
    """
    wanted = skippable(graph) if names is None else names
    evaluator, sums = Evaluator(graph), {name: _Sums(graph, name) for name in wanted}

    def see(op: Weighted, centred: torch.Tensor) -> None:
        if op.name in sums:
            sums[op.name].add(centred.permute(0, 2, 3, 1).numpy())

    for i in tqdm(range(0, len(images), BATCH), "statistics", leave=False, disable=None):
        evaluator.batch(images[i : i + BATCH], see)
    weights = importances(graph, images)
    return {name: one.statistics(weights[name]) for name, one in sums.items()}


class _Sums:
    """Running totals of one convolution or dense layer."""

    def __init__(self, graph: Graph, name: str) -> None:
        op = next(op for op in graph.ops if op.name == name)
        assert isinstance(op, Conv | Dense)
        self.op, weights = op, graph.constants[op.weights]
        self.weights = weights.reshape(len(weights), -1).astype(np.float32)
        self.bias = graph.constants[op.bias].astype(np.float32)
        operands = self.weights.shape[1]
        self.gram, self.absolute = np.zeros((operands + 1, operands + 1)), np.zeros(operands)
        self.running, self.count, self.running_count = np.zeros(self.weights.shape), 0, 0

    def add(self, images: npt.NDArray[np.float32]) -> None:
        """Takes in what the operator reads, (N, H, W, C) less the zero point."""
        if isinstance(self.op, Conv):
            images = interpret.windows(images, self.op.kernel, self.op.stride, self.op.padding, 0, self.op.dilation)
        rows = images.reshape(-1, self.weights.shape[1])
        ones = np.append(rows, np.ones((len(rows), 1), np.float32), axis=1).astype(np.float64)
        self.gram += ones.T @ ones  # integers below 2^53: exact, so alike on every machine
        self.absolute += np.abs(rows).sum(axis=0, dtype=np.float64)
        self.count += len(rows)
        step = max(1, len(rows) // (RUNNING_POSITIONS * len(images)))
        for part in np.array_split(rows[::step], max(1, len(rows[::step]) * self.weights.size >> 24)):
            running = part[:, None] * self.weights  # tens of MB: what follows is done in its place
            np.cumsum(running, axis=2, out=running)
            running += self.bias[:, None]
            whole = running.sum(axis=2, keepdims=True)
            running /= np.where(whole == 0, 1, whole)
            self.running += np.abs(running, out=running).sum(axis=0)
            self.running_count += len(part)

    def statistics(self, importance: Floats) -> Statistics:
        """Returns the means."""
        return Statistics(self.gram / self.count, self.absolute / self.count, self.running / self.running_count, importance)


def importances(graph: Graph, images: Bytes) -> dict[str, Floats]:
    """Returns for each operator with weights half the mean squared gradient of the loss by its accumulators, (O,).

    The loss is the cross entropy against labels drawn from the network's own answers, so its squared gradients are the Fisher
    information (the losses of several outputs are added); squares are summed over positions, for an error there is one at each.
    Source: ours; the diagonal Fisher information as in Theis et al., arXiv 1801.05787, section 2.1, by channel.
    """
    layers = {op.name: Layer(graph, op) for op in graph.ops if isinstance(op, PLAIN)}
    totals = {name: np.zeros(len(layer.params.shift)) for name, layer in layers.items()}
    generator = torch.Generator().manual_seed(0)
    for i in tqdm(range(0, len(images), BATCH), "importance", leave=False, disable=None):
        outputs, accumulators = _soft_run(graph, layers, images[i : i + BATCH])
        loss = torch.zeros(())
        for logits in outputs:
            labels = torch.multinomial(functional.softmax(logits.detach(), 1), 1, generator=generator)[:, 0]
            loss = loss + functional.cross_entropy(logits, labels, reduction="sum")
        for (name, _), gradient in zip(
            accumulators.items(), torch.autograd.grad(loss, list(accumulators.values()), allow_unused=True), strict=True
        ):
            if gradient is not None:
                totals[name] += gradient.double().square().sum((0, 2, 3)).numpy() / 2
    return {name: total / len(images) for name, total in totals.items()}


def _soft_run(graph: Graph, layers: dict[str, Layer], images: Bytes) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Returns logits (N, classes) in real units of each output, and each layer's accumulators, nothing rounded: what can be
    derived."""
    stored = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float().requires_grad_()
    values, accumulators = {graph.inputs[0]: stored}, {}
    for op in graph.ops:
        inputs = [values[name] for name in op.inputs]
        if isinstance(op, PLAIN):
            layer = layers[op.name]
            sums = weighted_sums(op, inputs[0] - layer.params.input_zero_point, layer.weights.float()) + layer.bias
            accumulators[op.name] = sums
            factor = layer.multiplier.double() * 2.0 ** (layer.shift.double() - 31)
            output = sums * factor.float() + layer.params.output_zero_point
            values[op.output] = output.clamp(layer.params.clamp.low, layer.params.clamp.high)
        else:
            values[op.output] = _soft_op(graph, op, inputs)
    outputs = []
    for name in graph.outputs:
        quant, logits = quant_of(graph.tensors[name]), values[name].flatten(1)
        is_real = isinstance(graph.producer(name), Softmax)
        outputs.append(logits if is_real else (logits - quant.zero_point) * quant.scale[0])
    return outputs, accumulators


def _soft_op(graph: Graph, op: Op, inputs: list[torch.Tensor]) -> torch.Tensor:
    """Returns an operator's stored values without rounding; of a softmax its inputs in real units, which are the logits."""
    result = quant_of(graph.tensors[op.output])
    match op:
        case Concat():
            return torch.cat(inputs, 1)
        case Pool(kind="mean"):
            source, mean = quant_of(graph.tensors[op.inputs[0]]), functional.avg_pool2d(inputs[0], op.kernel)
            return (mean - source.zero_point) * source.scale[0] / result.scale[0] + result.zero_point
        case Pool(padding=(top, bottom, left, right)):
            fill = float("-inf") if op.kind == "max" else 0.0
            padded = functional.pad(inputs[0], (left, right, top, bottom), value=fill)
            if op.kind == "max":
                return functional.max_pool2d(padded, op.kernel, op.stride, dilation=op.dilation)
            ones = functional.pad(torch.ones_like(inputs[0]), (left, right, top, bottom))
            return functional.avg_pool2d(padded, op.kernel, op.stride) / functional.avg_pool2d(ones, op.kernel, op.stride)
        case Add() | Mul():
            quants = [quant_of(graph.tensors[name]) for name in op.inputs]
            a, b = ((value - q.zero_point) * q.scale[0] for value, q in zip(inputs, quants, strict=True))
            both = a * b if isinstance(op, Mul) else a - b if op.subtract else a + b
            return torch.as_tensor(both / result.scale[0] + result.zero_point)
        case Softmax():
            source = quant_of(graph.tensors[op.inputs[0]])
            return (inputs[0] - source.zero_point) * source.scale[0]
        case Relu():
            limits = clamp_of(op.activation, result)
            return inputs[0].clamp(limits.low, limits.high)
        case Bilinear():
            values = inputs[0]
            for axis in (0, 1):
                lower, weights = bilinear.places(op, axis, "")
                at = torch.from_numpy(lower)
                first, second = (values.index_select(2 + axis, one) for one in (at, (at + 1).clamp(max=op.extent[axis] - 1)))
                values = first + (second - first) * torch.from_numpy(weights).to(values).reshape(-1, *[1] * (1 - axis))
            return values
        case Rearrange():
            _, height, width, channels = inputs[0].permute(0, 2, 3, 1).shape
            numbers = np.arange(1, 1 + height * width * channels).reshape(1, height, width, channels)
            at = torch.from_numpy(interpret.rearranged(op, numbers, 0)[0].transpose(2, 0, 1).copy())
            flat = inputs[0].permute(0, 2, 3, 1).flatten(1)
            return torch.where(at > 0, flat[:, (at - 1).clamp(min=0).flatten()].reshape(-1, *at.shape), float(result.zero_point))
        case Lookup():  # the table with straight lines between its values
            table = torch.from_numpy(np.roll(table_of(graph, op), 128)).float()
            below = inputs[0].detach().floor().clamp(-128, 126)
            first, second = (table[(below + step).long()] for step in (128, 129))
            return first + (second - first) * (inputs[0] - below)
    raise ValueError(f"{op.name}: no gradient for {type(op).__name__}")
