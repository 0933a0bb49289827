"""Runs an int8 Graph in torch, many images at a time: the interpreter's bytes at the speed that a search needs.

Integers are kept in floating point where a sum of products stays below 2^24 (float32) or 2^53 (float64), so nothing is ever
rounded but by the rules of `fixedpoint`, which are applied to int64. A max pool behind an operator with weights is taken
before the requantisation: that is monotone, so the bytes are the same, and three of four are never made.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from tqdm import tqdm  # tqdm.auto would warn in a notebook that lacks ipywidgets, and chapters keep their outputs

from tinyredux.datasets import Images, Split, check_labels
from tinyredux.fixedpoint import INT32_MAX
from tinyredux.graph import Concat, Conv, Dense, DepthwiseConv, Graph, Lookup, Op, Padding, Pool, Relu, Weighted, extent, joined
from tinyredux.int8 import interpret
from tinyredux.int8.factors import clamp_for, requantization
from tinyredux.int8.lookup import table_of

BATCH = 125
CACHED = 1 << 20  # values of one map, of all images of a batch: more do not stay in a processor's cache
PLAIN = (Conv, DepthwiseConv, Dense)  # the operators whose sums are torch's; the interpreter runs TREC
Bytes = npt.NDArray[np.int8]
See = Callable[[Weighted, torch.Tensor], None]


class Evaluator:
    """An int8 network ready to run on batches; `run` gives the interpreter's bytes."""

    def __init__(self, graph: Graph) -> None:
        """Prepares weights and factors. Raises ValueError for a graph that is not int8."""
        if graph.input.dtype != "int8":
            raise ValueError(f"{graph.name} takes {graph.input.dtype}; the evaluator runs int8 graphs: run quantize first")
        self.graph = graph
        self.layers = {op.name: (Layer(graph, op), _pool_behind(graph, op)) for op in graph.ops if isinstance(op, PLAIN)}

    def run(self, images: Bytes) -> Bytes:
        """Returns the network's outputs int8 for images (N, H, W, C) int8, as `interpret.run_joined` does."""
        step = min(BATCH, max(1, CACHED // max(tensor.elements for tensor in self.graph.tensors.values())))
        return np.concatenate([self.batch(images[i : i + step]) for i in range(0, len(images), step)])

    def batch(self, images: Bytes, see: See | None = None) -> Bytes:
        """Returns the outputs of one batch; `see(op, centred)` is shown what each operator of PLAIN reads, (N, C, H, W)."""
        with torch.inference_mode():
            values = {self.graph.inputs[0]: _channels_first(images)}
            for op in self.graph.ops:
                if isinstance(op, PLAIN):
                    layer, pool = self.layers[op.name]
                    centred = values[op.inputs[0]] - layer.params.input_zero_point
                    values[pool.output if pool else op.output] = layer.outputs(centred, pool)
                    if see:
                        see(op, centred)
                elif op.output not in values:  # a pool may have been taken with the layer before it
                    values[op.output] = self._other(op, [values[name] for name in op.inputs])
            results = {name: np.asarray(values[name].permute(0, 2, 3, 1).numpy(), np.int8) for name in self.graph.outputs}
            return joined(results, self.graph.outputs)

    def _other(self, op: Op, inputs: list[torch.Tensor]) -> torch.Tensor:
        match op:
            case Concat():
                return torch.cat(inputs, 1)
            case Pool(kind="max") | Relu():
                clamp = clamp_for(self.graph, op)
                pooled = max_pool(inputs[0], op) if isinstance(op, Pool) else inputs[0]
                return pooled.clamp(clamp.low, clamp.high)
            case Lookup():
                table = torch.from_numpy(table_of(self.graph, op)).to(torch.float32)
                return table[inputs[0].to(torch.int64) & 255]
            case _:  # TREC, and small maps: the oracle itself
                arrays = [np.asarray(value.permute(0, 2, 3, 1).numpy(), np.int8) for value in inputs]
                return _channels_first(interpret.run_op(self.graph, op, arrays))


class Layer:
    """A convolution, depthwise convolution or dense layer with its weights as torch wants them."""

    def __init__(self, graph: Graph, op: Weighted) -> None:
        """Chooses the floating-point type in which every sum of the layer is exact.

        Weights are in torch's order: (out_c, in_c / groups, kernel_h, kernel_w), or (out, in) in HWC order.
        """
        self.op, self.params = op, requantization(graph, op)
        order = {Conv: (0, 3, 1, 2), DepthwiseConv: (2, 0, 1), Dense: (0, 1)}[type(op)]
        weights = np.ascontiguousarray(graph.constants[op.weights].astype(np.int64).transpose(order))
        largest = int(np.abs(weights).reshape(len(weights), -1).sum(axis=1).max()) * 255
        self.kind = torch.float32 if largest < 1 << 24 else torch.float64
        self.weights = torch.from_numpy(weights[:, None] if isinstance(op, DepthwiseConv) else weights).to(self.kind)
        factors = (graph.constants[op.bias].astype(np.int64), self.params.multiplier, self.params.shift)
        self.bias, self.multiplier, self.shift = (torch.tensor(each).reshape(1, -1, 1, 1) for each in factors)

    def outputs(self, centred: torch.Tensor, pool: Pool | None = None) -> torch.Tensor:
        """Returns stored int8 values (N, C, H, W) as float32, after the max pool `pool` where there is one.

        `centred` (N, C, H, W) are the stored inputs less their zero point.
        """
        sums = weighted_sums(self.op, centred.to(self.kind), self.weights)
        return self.requantized((max_pool(sums, pool) if pool else sums).to(torch.int64).add_(self.bias))

    def requantized(self, sums: torch.Tensor) -> torch.Tensor:
        """Returns stored int8 values as float32 for int64 accumulators, by the rounding of `fixedpoint` that the graph has."""
        zero_point, clamp = self.params.output_zero_point, self.params.clamp
        if self.params.single:
            wrapped = ((sums + 2**31) & 0xFFFFFFFF) - 2**31
            once = wrapped.to(torch.float32).mul_(self.multiplier.to(torch.int32).view(torch.float32)).round_()
            return once.clamp_(clamp.low - zero_point, clamp.high - zero_point).add_(zero_point)
        if int(self.shift.max()) > 0:
            shifted = sums << self.shift.clamp(min=0)
            sums = ((shifted + 2**31) & 0xFFFFFFFF) - 2**31
        high = (sums * self.multiplier).add_(2**30).bitwise_right_shift_(31).clamp_(max=INT32_MAX).to(torch.int32)
        right = (-self.shift).clamp(min=0).to(torch.int32)
        half = (torch.ones_like(right) << right) >> 1
        below_half = (high >> 31).mul_(right > 0)
        rounded = high.add_(below_half).add_(half).bitwise_right_shift_(right).add_(zero_point)
        return rounded.clamp_(clamp.low, clamp.high).to(torch.float32)


def weighted_sums(op: Weighted, images: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Returns sums of products (N, C, H, W) for centred inputs (N, C, H, W).

    Where one window fits, no step is needed, and none is asked for: oneDNN reads behind the end of a map that is narrower than
    a step.
    """
    if isinstance(op, Dense):
        return functional.linear(images.permute(0, 2, 3, 1).reshape(len(images), -1), weights)[:, :, None, None]
    assert isinstance(op, Conv | DepthwiseConv)
    groups = op.groups if isinstance(op, Conv) else images.shape[1]
    padded, steps = _padded(images, op.padding, 0), list(op.stride)
    for axis in range(2):
        if padded.shape[2 + axis] < extent(op, axis) + op.stride[axis]:
            padded, steps[axis] = padded.narrow(2 + axis, 0, extent(op, axis)), 1
    return functional.conv2d(padded, weights, stride=steps, dilation=op.dilation, groups=groups)


def _padded(values: torch.Tensor, padding: Padding, fill: float) -> torch.Tensor:
    top, bottom, left, right = padding
    return functional.pad(values, (left, right, top, bottom), value=fill) if any(padding) else values


def max_pool(values: torch.Tensor, op: Pool) -> torch.Tensor:
    """Returns the largest value (N, C, H, W) of each window."""
    return functional.max_pool2d(_padded(values, op.padding, float("-inf")), op.kernel, op.stride, dilation=op.dilation)


def _pool_behind(graph: Graph, op: Weighted) -> Pool | None:
    """Returns the max pool that alone reads an operator's output, unless it clamps or has windows of padding only."""
    readers = graph.consumers(op.output)
    pool = readers[0] if len(readers) == 1 and op.output not in graph.outputs else None
    if not isinstance(pool, Pool) or pool.kind != "max" or pool.activation != "none":
        return None
    top, bottom, left, right = pool.padding
    return pool if max(top, bottom) < pool.kernel[0] and max(left, right) < pool.kernel[1] else None


def _channels_first(images: npt.NDArray[np.int8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(torch.float32)


def quantized(graph: Graph, images: Images) -> Bytes:
    """Returns int8 images (N, H, W, C) for float images (N, C, H, W), a part at a time."""
    parts = [interpret.quantize_input(graph, images[i : i + 500]) for i in range(0, len(images), 500)]
    return np.concatenate(parts) if parts else np.empty((0, *graph.input.shape), np.int8)


def correct(graph: Graph, split: Split) -> int:
    """Returns how many images of `split` an int8 graph gets right by its first output; of equal values the first one counts."""
    if split.labels is None:
        raise ValueError("cannot count correct answers: the data has no labels")
    check_labels(split, graph.output.elements)
    evaluator, right = Evaluator(graph), 0
    for i in tqdm(range(0, len(split.images), 4 * BATCH), "int8", leave=False, disable=None):
        part = split.images[i : i + 4 * BATCH]
        outputs = evaluator.run(interpret.quantize_input(graph, part)).reshape(len(part), -1)
        answers = outputs[:, : graph.output.elements].argmax(axis=1)
        right += int(np.count_nonzero(answers == split.labels[i : i + 4 * BATCH]))
    return right
