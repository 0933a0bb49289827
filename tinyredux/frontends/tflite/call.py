"""What a .tflite file has become so far, and how it reads an operator's tensors, options and weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyredux.graph import Array, Graph, Op, Padding, Quant, Shape, Tensor, dilated, output_shape

if TYPE_CHECKING:
    from tinyredux.frontends.tflite.file import File, FileOperator, FileTensor

FUSED = {0: "none", 1: "relu", 2: "relu_n1_to_1", 3: "relu6"}  # the schema's numbers
NOT_FUSED = {4: "TANH", 5: "SIGN_BIT"}
SAME = 0


class RefusedError(ValueError):
    """What one operator has that no kernel computes."""


@dataclass
class Loader:
    """The graph as far as it is built; `value` maps the file's tensors to the graph's, `padded` holds zeros that wait, `folded`
    what the file computes of constants."""

    file: File
    graph: Graph
    value: dict[int, str] = field(default_factory=dict)
    padded: dict[int, Padding] = field(default_factory=dict)
    folded: dict[int, Array] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Call:
    """One operator of the file, with what it reads."""

    loader: Loader
    op: FileOperator

    def file_tensor(self, i: int) -> FileTensor:
        """Returns the file's tensor behind the input of that place."""
        return self.loader.file.tensors[self.op.inputs[i]]

    @property
    def result(self) -> FileTensor:
        """Returns the file's tensor that it writes."""
        return self.loader.file.tensors[self.op.outputs[0]]

    def has(self, i: int) -> bool:
        """Returns whether there is an input at that place."""
        return len(self.op.inputs) > i and self.op.inputs[i] != -1

    def constant(self, i: int, what: str) -> Array:
        """Returns the values of a constant. Raises for one that is computed."""
        values = self.loader.folded.get(self.op.inputs[i], self.file_tensor(i).values)
        if values is None:
            raise RefusedError(f"its {what} are not held in the file, expected a constant")
        return values

    def source(self, i: int = 0, flat: bool = False) -> Tensor:
        """Returns the graph's tensor at the input of that place, in the shape that the file gives it.

        A reshape is a remark: only a dense layer (`flat`) may read the places of a map in another shape, a row may be read as a
        column (`turned`), and the network's input takes the shape in which it is read first.
        """
        number, graph = self.op.inputs[i], self.loader.graph
        if number not in self.loader.value:
            kind = "constant" if self.file_tensor(i).values is not None else self.file_tensor(i).dtype
            raise RefusedError(f"its input {i} is a {kind}, expected an int8 map that is computed")
        found, shape = graph.tensors[self.loader.value[number]], self.shape(i)
        if found.shape != shape and not flat and not self.turned(i):
            if found.name not in graph.inputs or graph.consumers(found.name):
                raise RefusedError(f"it reads {found.shape} reshaped to {shape}; expected a flattened map, before a dense layer")
            found = graph.tensors[found.name] = replace(found, shape=shape)
        return found

    def shape(self, i: int = 0) -> Shape:
        """Returns the shape in which the file has an input, without the zeros around it that wait."""
        height, width, channels = map_shape(self.file_tensor(i))
        top, bottom, left, right = self.loader.padded.get(self.op.inputs[i], (0, 0, 0, 0))
        return height - top - bottom, width - left - right, channels

    def turned(self, i: int = 0) -> bool:
        """Returns whether the graph holds the column that an input is as a row, or its row as a column: Keras reads what a
        network in one dimension computes now so, now so."""
        name, (height, width, channels) = self.loader.value[self.op.inputs[i]], self.shape(i)
        return height != width and 1 in (height, width) and self.loader.graph.tensors[name].shape == (width, height, channels)

    def alias(self) -> None:
        """Makes what it writes another name of what it reads."""
        source, result = self.op.inputs[0], self.op.outputs[0]
        self.loader.value[result] = self.loader.value[source]
        if source in self.loader.padded:
            self.loader.padded[result] = self.loader.padded[source]

    def fused(self) -> str:
        """Returns the activation that it applies to what it writes."""
        number = self.op.options.get("FusedActivationFunction", 0)
        if number not in FUSED:
            raise RefusedError(f"its activation is {NOT_FUSED.get(number, number)}, expected none, RELU, RELU6 or RELU_N1_TO_1")
        return FUSED[number]

    def emit(
        self, kind: str, operator: Callable[..., Op], /, reads: tuple[str, ...] = (), constants: dict[str, Array] | None = None,
        **fields: Any,
    ) -> None:  # fmt: skip
        """Appends an operator to the graph, which reads `reads`, usually the first input; `constants` by their fields."""
        quant, inputs = activation_quant(self.result), reads or (self.source().name,)
        self.loader.value[self.op.outputs[0]] = self.append(kind, operator, inputs, quant, constants, **fields)

    def append(
        self, kind: str, operator: Callable[..., Op], reads: tuple[str, ...], quant: Quant | None, /,
        constants: dict[str, Array] | None = None, **fields: Any,
    ) -> str:  # fmt: skip
        """Appends an operator to the graph and returns the tensor that it writes, which the file need not have."""
        graph = self.loader.graph
        name = f"{kind}{1 + sum(op.name.rstrip('0123456789') == kind for op in graph.ops)}"
        for key, values in (constants or {}).items():
            fields[key] = f"{name}.{key}"
            graph.constants[fields[key]] = values
        op = operator(name, reads, name, **fields)
        graph.tensors[name] = Tensor(name, output_shape(graph, op), "int8", quant)
        graph.origin[name] = f"operator {self.op.number} ({self.op.code})"
        self.loader.graph = graph.with_ops([*graph.ops, op])
        return name

    def window(self, kernel: tuple[int, int]) -> dict[str, Any]:
        """Returns kernel, stride, dilation and padding of an operator with windows; `kernel` as it lies over the map."""
        options = self.op.options
        stride = (options["StrideH"], options["StrideW"])
        reach, dilation = dilated(kernel, (options.get("DilationHFactor", 1), options.get("DilationWFactor", 1)))
        top, bottom, left, right = padded = self.loader.padded.get(self.op.inputs[0], (0, 0, 0, 0))
        if self.op.options["Padding"] == SAME:
            height, width, _ = self.shape()
            sizes = zip((height + top + bottom, width + left + right), reach, stride, strict=True)
            (over, under), (before, after) = (same_padding(*size) for size in sizes)
            padded = (top + over, bottom + under, left + before, right + after)
        if self.turned():
            kernel, stride, dilation, padded = kernel[::-1], stride[::-1], dilation[::-1], (*padded[2:], *padded[:2])
        return {"kernel": kernel, "stride": stride, "padding": padded, "dilation": dilation}

    def weights(self, channel_axis: int) -> tuple[Array, tuple[float, ...]]:
        """Returns int8 weights and one scale per output channel, once for all channels in the file or once for each."""
        tensor, values = self.file_tensor(1), self.constant(1, "weights")
        count = values.shape[channel_axis]
        if tensor.dtype != "int8" or not tensor.scale or any(tensor.zero_point) or min(tensor.scale) <= 0:
            raise RefusedError(f"its weights are {tensor.dtype}, expected int8 with positive scales and zero points 0")
        if len(tensor.scale) not in (1, count) or (len(tensor.scale) > 1 and tensor.axis != channel_axis):
            there = f"{len(tensor.scale)} scales along axis {tensor.axis}"
            raise RefusedError(f"its weights have {there}, expected 1, or {count} along axis {channel_axis}")
        return values, tensor.scale * count if len(tensor.scale) == 1 else tensor.scale

    def emit_weighted(
        self, kind: str, operator: Callable[..., Op], /, weights: Array, scale: tuple[float, ...], **fields: Any
    ) -> None:
        """Appends an operator with its weights and its bias, zeros where the file has none."""
        bias = np.zeros(len(scale), np.int32)
        if self.has(2):
            bias = self.constant(2, "biases")
            if bias.dtype != np.int32:
                raise RefusedError(f"its biases are {bias.dtype}, expected int32")
        constants = {"weights": np.ascontiguousarray(weights), "bias": bias.reshape(-1)}
        self.emit(kind, operator, constants=constants, weight_scale=scale, activation=self.fused(), **fields)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Returns the SAME padding (before, after) of one axis: outputs are as many as strides fit."""
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


def map_shape(tensor: FileTensor) -> Shape:
    """Returns a tensor's shape as (height, width, channels). Raises for more than one image, or more than four axes."""
    if tensor.odd:
        raise RefusedError(f"tensor {tensor.name} is {tensor.odd}, expected sizes that the file states")
    batch, *sizes = tensor.shape if len(tensor.shape) > 1 else (1, *tensor.shape)
    if batch != 1 or not 1 <= len(sizes) <= 3 or min(sizes) < 1:
        raise RefusedError(f"tensor {tensor.name} has shape {tensor.shape}, expected (1, height, width, channels) or (1, n)")
    height, width, channels = [1] * (3 - len(sizes)) + sizes
    return height, width, channels


def activation_quant(tensor: FileTensor) -> Quant:
    """Returns the quantisation of an int8 map. Raises for another type."""
    if tensor.dtype != "int8":
        raise RefusedError(f"it writes {tensor.dtype}, expected int8: convert with full integer quantisation")
    if len(tensor.scale) != 1 or not 1e-30 < tensor.scale[0] < 1e30 or len(tensor.zero_point) > 1:
        raise RefusedError(f"tensor {tensor.name} has {len(tensor.scale)} scales, expected one positive one")
    return Quant(tensor.scale, tensor.zero_point[0] if tensor.zero_point else 0)
