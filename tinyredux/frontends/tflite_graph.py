"""A .tflite file becomes an int8 Graph: one function per operator, as `operators` has for torch.

Weights, scales and zero points are those of the file; nothing is trained, calibrated or converted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyredux.files import expect, require
from tinyredux.graph import (
    Add,
    Array,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Graph,
    Op,
    Padding,
    Pool,
    Quant,
    Relu,
    Shape,
    Softmax,
    Tensor,
    check_most,
    output_shape,
    verify,
)

if TYPE_CHECKING:
    from tinyredux.frontends.tflite_file import File, FileOperator, FileTensor

FUSED = {0: "none", 1: "relu", 3: "relu6"}  # the schema's numbers
NOT_FUSED = {2: "RELU_N1_TO_1", 4: "TANH", 5: "SIGN_BIT"}
SAME = 0
SOFTMAX_OUTPUT = Quant((1 / 256,), -128)


class _RefusedError(ValueError):
    """What one operator has that no kernel computes."""


@dataclass
class Loader:
    """The graph as far as it is built; `value` maps the file's tensors to the graph's, `padded` holds zeros that wait."""

    file: File
    graph: Graph
    value: dict[int, str] = field(default_factory=dict)
    padded: dict[int, Padding] = field(default_factory=dict)
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
        values = self.file_tensor(i).values
        if values is None:
            raise _RefusedError(f"its {what} are not held in the file, expected a constant")
        return values

    def source(self, i: int = 0, flat: bool = False) -> Tensor:
        """Returns the graph's tensor at the input of that place, in the shape that the file gives it.

        A reshape is a remark: only a dense layer (`flat`) may read the places of a map in another shape, and the network's
        input takes the shape in which it is read first.
        """
        number, graph = self.op.inputs[i], self.loader.graph
        if number not in self.loader.value:
            kind = "constant" if self.file_tensor(i).values is not None else self.file_tensor(i).dtype
            raise _RefusedError(f"its input {i} is a {kind}, expected an int8 map that is computed")
        found, shape = graph.tensors[self.loader.value[number]], map_shape(self.file_tensor(i))
        if found.shape != shape and not flat:
            if found.name not in graph.inputs or graph.consumers(found.name):
                raise _RefusedError(f"it reads {found.shape} reshaped to {shape}; expected a flattened map, before a dense layer")
            found = graph.tensors[found.name] = replace(found, shape=shape)
        return found

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
            raise _RefusedError(f"its activation is {NOT_FUSED.get(number, number)}, expected none, RELU or RELU6")
        return FUSED[number]

    def emit(
        self, kind: str, operator: Callable[..., Op], /, reads: tuple[str, ...] = (), constants: dict[str, Array] | None = None,
        **fields: Any,
    ) -> None:  # fmt: skip
        """Appends an operator to the graph, which reads `reads`, usually the first input; `constants` by their fields."""
        inputs, graph = reads or (self.source().name,), self.loader.graph
        name = f"{kind}{1 + sum(op.name.rstrip('0123456789') == kind for op in graph.ops)}"
        for key, values in (constants or {}).items():
            fields[key] = f"{name}.{key}"
            graph.constants[fields[key]] = values
        op = operator(name, inputs, name, **fields)
        graph.tensors[name] = Tensor(name, output_shape(graph, op), "int8", activation_quant(self.result))
        graph.origin[name] = f"operator {self.op.number} ({self.op.code})"
        self.loader.graph, self.loader.value[self.op.outputs[0]] = graph.with_ops([*graph.ops, op]), name

    def window(self, kernel: tuple[int, int]) -> dict[str, Any]:
        """Returns kernel, stride and padding of an operator whose outputs see windows; `kernel` as it lies over the map."""
        stride = (self.op.options["StrideH"], self.op.options["StrideW"])
        top, bottom, left, right = padded = self.loader.padded.get(self.op.inputs[0], (0, 0, 0, 0))
        if self.op.options["Padding"] == SAME:
            height, width, _ = self.source().shape
            sizes = zip((height + top + bottom, width + left + right), kernel, stride, strict=True)
            (over, under), (before, after) = (same_padding(*size) for size in sizes)
            padded = (top + over, bottom + under, left + before, right + after)
        return {"kernel": kernel, "stride": stride, "padding": padded}

    def weights(self, channel_axis: int) -> tuple[Array, tuple[float, ...]]:
        """Returns int8 weights and one scale per output channel, once for all channels in the file or once for each."""
        tensor, values = self.file_tensor(1), self.constant(1, "weights")
        count = values.shape[channel_axis]
        if tensor.dtype != "int8" or not tensor.scale or any(tensor.zero_point) or min(tensor.scale) <= 0:
            raise _RefusedError(f"its weights are {tensor.dtype}, expected int8 with positive scales and zero points 0")
        if len(tensor.scale) not in (1, count) or (len(tensor.scale) > 1 and tensor.axis != channel_axis):
            there = f"{len(tensor.scale)} scales along axis {tensor.axis}"
            raise _RefusedError(f"its weights have {there}, expected 1, or {count} along axis {channel_axis}")
        return values, tensor.scale * count if len(tensor.scale) == 1 else tensor.scale

    def emit_weighted(
        self, kind: str, operator: Callable[..., Op], /, weights: Array, scale: tuple[float, ...], **fields: Any
    ) -> None:
        """Appends an operator with its weights and its bias, zeros where the file has none."""
        bias = np.zeros(len(scale), np.int32)
        if self.has(2):
            bias = self.constant(2, "biases")
            if bias.dtype != np.int32:
                raise _RefusedError(f"its biases are {bias.dtype}, expected int32")
        constants = {"weights": np.ascontiguousarray(weights), "bias": bias.reshape(-1)}
        self.emit(kind, operator, constants=constants, weight_scale=scale, activation=self.fused(), **fields)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Returns the SAME padding (before, after) of one axis: outputs are as many as strides fit."""
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


def map_shape(tensor: FileTensor) -> Shape:
    """Returns a tensor's shape as (height, width, channels). Raises for more than one image, or more than four axes."""
    if tensor.odd:
        raise _RefusedError(f"tensor {tensor.name} is {tensor.odd}, expected sizes that the file states")
    batch, *sizes = tensor.shape if len(tensor.shape) > 1 else (1, *tensor.shape)
    if batch != 1 or not 1 <= len(sizes) <= 3 or min(sizes) < 1:
        raise _RefusedError(f"tensor {tensor.name} has shape {tensor.shape}, expected (1, height, width, channels) or (1, n)")
    height, width, channels = [1] * (3 - len(sizes)) + sizes
    return height, width, channels


def activation_quant(tensor: FileTensor) -> Quant:
    """Returns the quantisation of an int8 map. Raises for another type."""
    if tensor.dtype != "int8":
        raise _RefusedError(f"it writes {tensor.dtype}, expected int8: convert with full integer quantisation")
    if len(tensor.scale) != 1 or not 1e-30 < tensor.scale[0] < 1e30 or len(tensor.zero_point) > 1:
        raise _RefusedError(f"tensor {tensor.name} has {len(tensor.scale)} scales, expected one positive one")
    return Quant(tensor.scale, tensor.zero_point[0] if tensor.zero_point else 0)


def _dilated(weights: Array, steps: tuple[int, int]) -> Array:
    """Returns filters (O, H, W, I) with their holes written out as zeros: no kernel here skips them."""
    count, height, width, channels = weights.shape
    wide = np.zeros((count, (height - 1) * steps[0] + 1, (width - 1) * steps[1] + 1, channels), weights.dtype)
    wide[:, :: steps[0], :: steps[1]] = weights
    return wide


def _conv(call: Call) -> None:
    weights, scale = call.weights(0)
    weights, channels = _dilated(weights, _dilation(call)), call.source().shape[2]
    groups = channels // weights.shape[3]
    call.emit_weighted("conv", Conv, weights, scale, groups=groups, **call.window(weights.shape[1:3]))


def _dilation(call: Call) -> tuple[int, int]:
    return call.op.options["DilationHFactor"], call.op.options["DilationWFactor"]


def _depthwise(call: Call) -> None:
    weights, scale = call.weights(3)
    weights, channels = _dilated(weights, _dilation(call))[0], call.source().shape[2]
    window = call.window(weights.shape[:2])
    call.emit_weighted("depthwise", DepthwiseConv, weights, scale, multiplier=weights.shape[2] // channels, **window)


def _dense(call: Call) -> None:
    source, (weights, scale) = call.source(flat=True), call.weights(0)
    if call.op.options["WeightsFormat"] != 0:
        raise _RefusedError("its weights are shuffled, expected rows of one output each")
    call.emit_weighted("dense", Dense, weights, scale, reads=(source.name,))


def _pool(call: Call) -> None:
    kind = {"AVERAGE_POOL_2D": "average", "MAX_POOL_2D": "max"}[call.op.code]
    _same_quant(call)
    window = call.window((call.op.options["FilterHeight"], call.op.options["FilterWidth"]))
    call.emit("pool", Pool, kind=kind, activation=call.fused(), **window)


def _same_quant(call: Call) -> None:
    """Raises for an operator that moves values and would rescale them."""
    there, result = [activation_quant(call.file_tensor(i)) for i in range(len(call.op.inputs))], activation_quant(call.result)
    if any(quant != result for quant in there):
        raise _RefusedError(f"its scales and zero points differ, {there} and {result}; expected one for all")


def _add(call: Call) -> None:
    call.emit("add", Add, tuple(call.source(i).name for i in range(2)), activation=call.fused())


def _concat(call: Call) -> None:
    _same_quant(call)
    axis = call.op.options["Axis"]
    if axis not in (-1, len(call.result.shape) - 1) or call.fused() != "none":
        raise _RefusedError(f"it joins along axis {axis}, expected the last one, the channels, without activation")
    call.emit("concat", Concat, tuple(call.source(i).name for i in range(len(call.op.inputs))))


def _relu(call: Call) -> None:
    _same_quant(call)
    call.emit("relu", Relu, activation=call.op.code.lower())


def _softmax(call: Call) -> None:
    quant, beta = activation_quant(call.result), call.op.options["Beta"]
    if quant != SOFTMAX_OUTPUT or beta != 1:
        raise _RefusedError(f"it writes {quant} with beta {beta}, expected {SOFTMAX_OUTPUT} with beta 1")
    call.emit("softmax", Softmax)


def _pad(call: Call) -> None:
    """Zeros around a map wait for the convolutions that read it; the least value, for the max pools."""
    before, after = call.constant(1, "paddings").T.tolist()
    rows, columns = (len(before) - 3, len(before) - 2) if len(before) > 2 else (0, 0)
    if len(before) != 4 or any((before[0], after[0], before[3], after[3])) or min((*before, *after)) < 0:
        raise _RefusedError("it pads other axes than height and width")
    value = int(call.constant(2, "values").reshape(-1)[0]) if call.has(2) else activation_quant(call.file_tensor(0)).zero_point
    zero = activation_quant(call.file_tensor(0)).zero_point
    wanted = {zero: ("CONV_2D", "DEPTHWISE_CONV_2D")}.get(value, ()) + (("MAX_POOL_2D",) if value == -128 else ())
    readers = [one.code for one in call.loader.file.operators if call.op.outputs[0] in one.inputs]
    if not readers or call.op.outputs[0] in call.loader.file.outputs or not {*readers} <= {*wanted}:
        instead = " or ".join(wanted) or f"a padding of {zero}"
        raise _RefusedError(f"a padding of {value} goes into {', '.join(readers) or 'the output'}, expected {instead}")
    call.source()
    call.alias()
    top, bottom, left, right = call.loader.padded.get(call.op.inputs[0], (0, 0, 0, 0))
    sides = (before[rows] + top, after[rows] + bottom, before[columns] + left, after[columns] + right)
    call.loader.padded[call.op.outputs[0]] = sides


def _reshape(call: Call) -> None:
    if call.source(flat=True).elements != int(np.prod(map_shape(call.result))):
        raise _RefusedError(f"it gives {call.result.shape} the values of {call.file_tensor(0).shape}")
    call.alias()


def _to_output(call: Call) -> None:
    """Takes the step from the network's int8 to the float or the uint8 of its output as another name."""
    at_end = call.op.outputs[0] in call.loader.file.outputs
    if not at_end or not (call.op.code == "DEQUANTIZE" or _is_relabelled(call.result, call.file_tensor(0))):
        raise _RefusedError("it is not the last step to float, or from int8 to the same in uint8; no kernel rescales a map")
    call.source(flat=True)
    call.alias()


HANDLERS: dict[str, Callable[[Call], None]] = {
    "CONV_2D": _conv, "DEPTHWISE_CONV_2D": _depthwise, "FULLY_CONNECTED": _dense, "AVERAGE_POOL_2D": _pool,
    "MAX_POOL_2D": _pool, "ADD": _add, "CONCATENATION": _concat, "RELU": _relu, "RELU6": _relu, "SOFTMAX": _softmax,
    "PAD": _pad, "PADV2": _pad, "RESHAPE": _reshape, "SQUEEZE": _reshape, "EXPAND_DIMS": _reshape, "DEQUANTIZE": _to_output,
    "QUANTIZE": _to_output,
}  # fmt: skip


def load_tflite(path: Path | str, rounding: str = "double") -> Graph:
    """Returns the int8 Graph of a .tflite file, whose weights, scales and zero points it has.

    `rounding` is "double", every byte as TFLM computes it, or "single", every byte as LiteRT's default interpreter does.
    A network that takes float or uint8 and quantises first is read from behind that operator on: `Graph.input.quant` holds the
    scale and zero point by which `interpret.quantize_input` makes its int8. So is one that ends by going back to float.
    Raises ImportError without the package `tflite`, ValueError for a file that is none or is damaged, for
    several inputs or outputs, and for operators that no kernel computes: all of them, each with its place, name and options.
    Chapter 13.
    """
    expect(Path | str, path, "the network", "such as 'model.tflite'")
    return replace(load_with_tensors(Path(path))[0], rounding=rounding)


def load_with_tensors(path: Path) -> tuple[Graph, dict[str, int]]:
    """Returns the graph of `load_tflite`, and which of the file's tensors each of its tensors is."""
    from tinyredux.frontends.tflite_file import read_file

    file = read_file(path)
    for what, ends in (("inputs", file.inputs), ("outputs", file.outputs)):
        require(len(ends) == 1, f"{path} has {len(ends)} {what}, expected one; take the network apart before converting it")
    name = re.sub(r"[^\w.+-]+", "_", path.stem, flags=re.ASCII) or "net"
    loader = Loader(file, Graph(name, (), {}, {}, ("input",), ()))
    try:
        first = _take_input(loader)
    except _RefusedError as wrong:
        raise ValueError(f"{path}: {wrong}") from None
    for op in file.operators:
        if op is not first:
            _take(loader, op)
    if loader.refused:
        count = f"{len(loader.refused)} of {len(file.operators)} operators"
        raise ValueError(f"{path}: {count} are not supported:\n  " + "\n  ".join(loader.refused))
    output = loader.value[file.outputs[0]]
    graph = replace(loader.graph, outputs=(output,))
    for tensor in graph.tensors.values():
        check_most(name, max(tensor.shape), "rows, columns or channels", tensor.name)
        check_most(name, tensor.elements, "values", tensor.name)
    require(graph.ops, f"{path} has no operator that computes anything")
    verify(graph)
    numbers: dict[str, int] = {}
    for number, tensor_name in loader.value.items():
        if file.tensors[number].dtype == "int8":
            numbers.setdefault(tensor_name, number)
    return graph, numbers


def _take_input(loader: Loader) -> FileOperator | None:
    """Makes the graph's input, and returns the operator that makes it of float or of uint8, if any."""
    file, number = loader.file, loader.file.inputs[0]
    there, readers = file.tensors[number], [op for op in file.operators if number in op.inputs]
    first = readers[0] if there.dtype != "int8" and len(readers) == 1 and readers[0].code == "QUANTIZE" else None
    tensor = file.tensors[first.outputs[0]] if first else there
    if tensor.dtype != "int8" or (first and there.dtype != "float32" and not _is_relabelled(there, tensor)):
        found = f"its input {there.name} is {there.dtype}{' of another scale' if tensor.dtype == 'int8' else ''}"
        raise _RefusedError(f"{found}; convert with full integer quantisation, inputs int8")
    loader.graph.tensors["input"] = Tensor("input", map_shape(tensor), "int8", activation_quant(tensor))
    loader.value = {number: "input"} | ({first.outputs[0]: "input"} if first else {})
    return first


def _is_relabelled(unsigned: FileTensor, tensor: FileTensor) -> bool:
    """Returns whether a uint8 tensor holds the values of an int8 one, each 128 higher."""
    zero_points = [one.zero_point[0] if one.zero_point else 0 for one in (unsigned, tensor)]
    return unsigned.dtype == "uint8" and unsigned.scale == tensor.scale and zero_points[0] == zero_points[1] + 128


def _take(loader: Loader, op: FileOperator) -> None:
    """Translates one operator, or notes why it cannot be; what it writes then stands for itself."""
    try:
        if op.code not in HANDLERS:
            raise _RefusedError("no kernel computes it")
        HANDLERS[op.code](Call(loader, op))
    except (ValueError, KeyError, IndexError, TypeError) as wrong:
        said = f"its options or inputs lack {wrong}" if isinstance(wrong, KeyError | IndexError | TypeError) else str(wrong)
        loader.refused.append(f"{op}: {said}")
        for number in op.outputs:
            name = f"what operator {op.number} writes"
            try:
                shape = map_shape(loader.file.tensors[number])
            except _RefusedError:
                shape = (1, 1, 1)
            loader.graph.tensors[name], loader.value[number] = Tensor(name, shape, "int8", Quant((1.0,), 0)), name
