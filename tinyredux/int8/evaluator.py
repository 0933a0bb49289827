"""Runs an int8 Graph in torch, many images at a time: the interpreter's bytes at the speed that a search needs.

Integers are kept in floating point where a sum of products stays below 2^24 (float32) or 2^53 (float64), so nothing is ever
rounded but by the rules of `fixedpoint`, which are applied to int64. A max pool behind an operator with weights is taken
before the requantisation: that is monotone, so the bytes are the same, and three of four are never made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from tqdm import tqdm  # tqdm.auto would warn in a notebook that lacks ipywidgets, and chapters keep their outputs

from tinyredux.datasets import Images, Split, check_labels
from tinyredux.fixedpoint import INT32_MAX
from tinyredux.graph import Concat, Conv, Dense, DepthwiseConv, Graph, Op, Padding, Pool, Relu, TrecConv, Weighted, weights_of
from tinyredux.int8 import interpret
from tinyredux.int8.factors import Requantization, clamp_of, int16_shifts, quant_of, requantization
from tinyredux.trec import block_vectors, blocks

BATCH = 125
CACHED = 1 << 20  # values of one map, of all images of a batch: more do not stay in a processor's cache
PLAIN = (Conv, DepthwiseConv, Dense)  # the operators whose sums are torch's
HERE = (*PLAIN, TrecConv)  # those with a layer below; the interpreter runs the others
Bytes = npt.NDArray[np.int8]
Slices = tuple[tuple[int, int], ...]  # of input channels: first, and one past the last
See = Callable[[Weighted, torch.Tensor], None]


class Evaluator:
    """An int8 network ready to run on batches; `run` gives the interpreter's bytes."""

    def __init__(self, graph: Graph, slices: Mapping[str, Slices] | None = None) -> None:
        """Prepares weights and factors. Raises ValueError for a graph that is not int8.

        Operators in `slices` add up those slices of their input channels in 16 bits, as a plan with int16 sums does.
        """
        if graph.input.dtype != "int8":
            raise ValueError(f"{graph.name} takes {graph.input.dtype}; the evaluator runs int8 graphs: run passes.quantize first")
        self.graph = graph
        cut = slices or {}
        self.weighted: dict[str, Layer] = {}
        for op in graph.ops:
            if isinstance(op, TrecConv):
                self.weighted[op.name] = TrecLayer(graph, op)
            elif isinstance(op, PLAIN):
                self.weighted[op.name] = SlicedLayer(graph, op, cut[op.name]) if op.name in cut else Layer(graph, op)
        self.fused = {op.output: _pool_behind(graph, op) for op in graph.ops if isinstance(op, HERE)}

    def run(self, images: Bytes) -> Bytes:
        """Returns the network's outputs (N, H, W, C) int8 for images (N, H, W, C) int8."""
        largest = max(self.graph.tensors[name].elements for name in (self.graph.inputs[0], *self.fused))
        step = min(BATCH, max(1, CACHED // largest))
        return np.concatenate([self.batch(images[i : i + step]) for i in range(0, len(images), step)])

    def batch(self, images: Bytes, see: See | None = None) -> Bytes:
        """Returns the outputs of one batch; `see(op, centred)` is shown what each operator with weights reads, (N, C, H, W)."""
        with torch.inference_mode():
            values = {self.graph.inputs[0]: _channels_first(images)}
            done: set[str] = set()
            for op in self.graph.ops:
                if op.name in done:
                    continue
                if isinstance(op, HERE):
                    pool, layer = self.fused[op.output], self.weighted[op.name]
                    centred = values[op.inputs[0]] - layer.params.input_zero_point
                    values[pool.output if pool else op.output] = layer.outputs(centred, pool)
                    if see:
                        see(op, centred)
                    done |= {pool.name} if pool else set()
                else:
                    values[op.output] = self._other(op, [values[name] for name in op.inputs])
            return np.asarray(values[self.graph.outputs[0]].permute(0, 2, 3, 1).numpy(), np.int8)

    def clusters(self) -> dict[str, int]:
        """Returns the clusters of every TREC layer in all images run so far, blocks added up."""
        return {name: layer.clusters for name, layer in self.weighted.items() if isinstance(layer, TrecLayer)}

    def _other(self, op: Op, inputs: list[torch.Tensor]) -> torch.Tensor:
        match op:
            case Concat():
                return torch.cat(inputs, 1)
            case Pool(kind="max") | Relu():
                clamp = clamp_of(op.activation, quant_of(self.graph.tensors[op.output]))
                pooled = _max_pool(inputs[0], op) if isinstance(op, Pool) else inputs[0]
                return pooled.clamp(clamp.low, clamp.high)
            case _:  # small maps, or few of them: the oracle itself
                arrays = [np.asarray(value.permute(0, 2, 3, 1).numpy(), np.int8) for value in inputs]
                return _channels_first(interpret.run_op(self.graph, op, arrays))


class Layer:
    """A convolution, depthwise convolution or dense layer with its weights as torch wants them."""

    def __init__(self, graph: Graph, op: Weighted) -> None:
        """Chooses the floating-point type in which every sum of the layer is exact."""
        self.op, self.params = op, requantization(graph, op)
        weights = graph.constants[op.weights].astype(np.int64)
        axes = (0, 1) if isinstance(op, DepthwiseConv) else tuple(range(1, weights.ndim))
        self.kind = torch.float32 if int(np.abs(weights).sum(axis=axes).max()) * 255 < 1 << 24 else torch.float64
        self.weights = torch.from_numpy(torch_weights(op, weights)).to(self.kind)
        self.bias = torch.from_numpy(graph.constants[op.bias].astype(np.int64)).reshape(1, -1, 1, 1)
        self.multiplier = torch.tensor(self.params.multiplier, dtype=torch.int64).reshape(1, -1, 1, 1)
        self.shift = torch.tensor(self.params.shift, dtype=torch.int64).reshape(1, -1, 1, 1)

    def outputs(self, centred: torch.Tensor, pool: Pool | None = None) -> torch.Tensor:
        """Returns stored int8 values (N, C, H, W) as float32, after the max pool `pool` where there is one.

        `centred` (N, C, H, W) are the stored inputs less their zero point.
        """
        sums = self.sums(centred.to(self.kind))
        sums = _max_pool(sums, pool) if pool else sums
        return requantized(sums.to(torch.int64).add_(self.bias), self.multiplier, self.shift, self.params)

    def sums(self, centred: torch.Tensor) -> torch.Tensor:
        """Returns the sums before bias (N, C, H, W) for centred inputs."""
        return weighted_sums(self.op, centred, self.weights)


class TrecLayer(Layer):
    """A convolution on the means of clusters, those of every image its own: `sums.clustered_sums` for a whole batch."""

    def __init__(self, graph: Graph, op: TrecConv) -> None:
        """Takes the hash vectors (L, H) and the weights (L, outputs) of each block."""
        super().__init__(graph, op)
        self.trec, self.clusters = op, 0
        flat = graph.constants[op.weights].reshape(len(self.bias[0]), -1)
        parts = blocks(flat.shape[1], op.sub_length)
        vectors = [block_vectors(graph, op, flat, index, part).astype(np.int64) for index, part in enumerate(parts)]
        if max(int(np.abs(each).sum(axis=0).max()) for each in vectors) * 255 >= 1 << 24:
            self.kind = torch.float64
        self.blocks = [
            (part, torch.from_numpy(hashes).to(self.kind), torch.from_numpy(flat[:, part].T.copy()).to(self.kind))
            for part, hashes in zip(parts, vectors, strict=True)
        ]

    def sums(self, centred: torch.Tensor) -> torch.Tensor:
        """Returns the sums before bias (N, C, H, W) for centred inputs, and adds the batch to `clusters`."""
        seen = _padded(centred, self.trec.padding, 0).permute(0, 2, 3, 1)
        for axis in range(2):
            seen = seen.unfold(1 + axis, self.trec.kernel[axis], self.trec.stride[axis])
        images, high, wide = seen.shape[:3]
        columns = seen.permute(0, 1, 2, 4, 5, 3).reshape(images, high * wide, -1)
        total, exact, slots, products = 0, self.trec.hash_bits * (not self.trec.vectors), [], []
        first = torch.zeros((images, high * wide, exact), dtype=self.kind)
        for part, hashes, weights in self.blocks:
            rows = columns[:, :, part].contiguous()
            projections = rows @ hashes
            slot, means = _means(rows, projections, self.trec.threshold)
            first += projections[:, :, :exact]
            slots.append(slot + total)
            products.append(means @ weights)
            total += len(means)
        self.clusters += total
        sums = functional.embedding_bag(torch.stack(slots, 1), torch.cat(products), mode="sum")
        sums[:, :exact] = first.flatten(0, 1)
        return sums.reshape(images, high, wide, -1).permute(0, 3, 1, 2)


def _means(rows: torch.Tensor, projections: torch.Tensor, threshold: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the cluster of each row (images * N,) and the clusters' rounded means (clusters, L); rows (images, N, L).

    A projection above the mean of its image: N times it above their sum, which is exact in float64.
    """
    images, count, length = rows.shape
    exact = projections.double()
    bits = exact * count > exact.sum(1, keepdim=True) if threshold == "mean" else exact > 0
    codes = 1 << bits.shape[2]
    ids = (bits.long() << torch.arange(bits.shape[2])).sum(2) + codes * torch.arange(images)[:, None]
    order = ids.flatten().argsort()
    members = torch.bincount(ids.flatten(), minlength=images * codes)
    used = members > 0
    slot, members = (used.cumsum(0) - 1)[ids.flatten()], members[used]
    sums = functional.embedding_bag(order, rows.reshape(-1, length), members.cumsum(0) - members, mode="sum").double()
    sizes = members[:, None]
    return slot, ((2 * sums + sizes) / (2 * sizes)).floor().to(rows.dtype)


class SlicedLayer(Layer):
    """A convolution or dense layer whose partial sums are kept in 16 bits: each slice rounds, and what leaves is clipped."""

    def __init__(self, graph: Graph, op: Weighted, slices: Slices) -> None:
        """Takes the weights of each slice, and the channels' shifts."""
        super().__init__(graph, op)
        outputs = len(graph.constants[op.weights])
        parts = {part: weights_of(graph, op, (0, outputs), part).astype(np.int64) for part in slices}
        self.parts = {part: torch.from_numpy(torch_weights(op, weights)).to(self.kind) for part, weights in parts.items()}
        self.right = torch.from_numpy(int16_shifts(graph, op)).reshape(1, -1, 1, 1)

    def outputs(self, centred: torch.Tensor, pool: Pool | None = None) -> torch.Tensor:
        """Returns stored int8 values (N, C, H, W) as float32, after the max pool `pool` where there is one."""
        sums = self._rounded(self.bias)
        for (begin, end), weights in self.parts.items():
            added = weighted_sums(self.op, centred[:, begin:end].to(self.kind), weights)
            sums = (sums + self._rounded(added.to(torch.int64))).clamp(-32768, 32767)
        values = requantized(sums << self.right, self.multiplier, self.shift, self.params)
        return _max_pool(values, pool) if pool else values

    def _rounded(self, sums: torch.Tensor) -> torch.Tensor:
        """Returns sums / 2^shift, halves away from zero."""
        half = (torch.ones_like(self.right) << self.right) >> 1
        return (sums + half + (sums >> 63) * (self.right > 0)) >> self.right


def requantized(sums: torch.Tensor, multiplier: torch.Tensor, shift: torch.Tensor, params: Requantization) -> torch.Tensor:
    """Returns stored int8 values as float32 for int64 accumulators: `fixedpoint`'s double rounding."""
    if int(shift.max()) > 0:
        shifted = sums << shift.clamp(min=0)
        sums = ((shifted + 2**31) & 0xFFFFFFFF) - 2**31
    high = (sums * multiplier).add_(2**30).bitwise_right_shift_(31).clamp_(max=INT32_MAX).to(torch.int32)
    right = (-shift).clamp(min=0).to(torch.int32)
    half = (torch.ones_like(right) << right) >> 1
    below_half = (high >> 31).mul_(right > 0)
    rounded = high.add_(below_half).add_(half).bitwise_right_shift_(right)
    return rounded.add_(params.output_zero_point).clamp_(params.clamp.low, params.clamp.high).to(torch.float32)


def torch_weights(op: Weighted, weights: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Returns an operator's weights in torch's order: (out_c, in_c / groups, kernel_h, kernel_w), or (out, in) in HWC order."""
    match op:
        case Conv():
            return np.ascontiguousarray(weights.transpose(0, 3, 1, 2))
        case DepthwiseConv():
            return np.ascontiguousarray(weights.transpose(2, 0, 1)[:, None])
    return weights


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
        if padded.shape[2 + axis] < op.kernel[axis] + op.stride[axis]:
            padded, steps[axis] = padded.narrow(2 + axis, 0, op.kernel[axis]), 1
    return functional.conv2d(padded, weights, stride=steps, groups=groups)


def _padded(values: torch.Tensor, padding: Padding, fill: float) -> torch.Tensor:
    top, bottom, left, right = padding
    return functional.pad(values, (left, right, top, bottom), value=fill) if any(padding) else values


def _max_pool(values: torch.Tensor, op: Pool) -> torch.Tensor:
    return functional.max_pool2d(_padded(values, op.padding, float("-inf")), op.kernel, op.stride)


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


def correct(graph: Graph, split: Split, slices: Mapping[str, Slices] | None = None) -> int:
    """Returns how many images of `split` an int8 graph gets right; of equal outputs the first one counts.

    `slices` as for `Evaluator`.
    """
    return right_answers(Evaluator(graph, slices), split)


def right_answers(evaluator: Evaluator, split: Split) -> int:
    """Returns how many images of `split` are right, as `correct` does, by an evaluator that is ready."""
    if split.labels is None:
        raise ValueError("cannot count correct answers: the data has no labels")
    graph, right = evaluator.graph, 0
    check_labels(split, graph.output.elements)
    for i in tqdm(range(0, len(split.images), 4 * BATCH), "int8", leave=False, disable=None):
        part = split.images[i : i + 4 * BATCH]
        answers = evaluator.run(interpret.quantize_input(graph, part)).reshape(len(part), -1).argmax(axis=1)
        right += int(np.count_nonzero(answers == split.labels[i : i + 4 * BATCH]))
    return right
