"""An int8 Graph as a .tflite file, so that LiteRT can be the oracle of our arithmetic.

A dense layer is written as the convolution over its whole input that it is (same sums, the specification's double rounding)
unless `fully_connected` asks for LiteRT's own operator, whose reference kernel rounds in floating point since version 1.3.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from tflite import ActivationFunctionType, BuiltinOperator, BuiltinOptions, Padding, TensorType

from tinyredux.graph import Add, Concat, Conv, Dense, DepthwiseConv, Graph, Op, Pool, Quant, Relu, Softmax, Weighted
from tinyredux.int8 import quant_of

TYPES = {"int8": TensorType.INT8, "int32": TensorType.INT32}
FUSED = {"none": "NONE", "relu": "RELU", "relu6": "RELU6"}
VERSIONS = {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "FULLY_CONNECTED": 5, "MAX_POOL_2D": 2, "AVERAGE_POOL_2D": 2, "ADD": 2,
            "CONCATENATION": 2, "RELU": 2, "RELU6": 2, "SOFTMAX": 2, "PAD": 2, "PADV2": 2}  # fmt: skip


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Returns LiteRT's SAME padding (before, after) of one axis."""
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


class Writer:
    """A flatbuffer in the making: tensors and operators in order, then `finish`."""

    def __init__(self, graph: Graph, fully_connected: bool = False) -> None:
        self.graph = graph
        self.fully_connected = fully_connected
        self.builder = flatbuffers.Builder(1 << 16)
        self.buffers = [self._table("Buffer")]
        self.tensors: list[int] = []
        self.operators: list[int] = []
        self.codes: list[str] = []
        self.index: dict[str, int] = {}

    def _table(self, kind: str, **fields: Any) -> int:
        module = importlib.import_module(f"tflite.{kind}")
        getattr(module, f"{kind}Start")(self.builder)
        for name, value in fields.items():
            getattr(module, f"{kind}Add{name}")(self.builder, value)
        return int(getattr(module, f"{kind}End")(self.builder))

    def _offsets(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def _numbers(self, values: Any, kind: type) -> int:
        return int(self.builder.CreateNumpyVector(np.asarray(values, kind)))

    def tensor(self, name: str, shape: Sequence[int], dtype: str, quant: Quant | None, values: Any = None, axis: int = 0) -> int:
        """Adds a tensor, with content if it is a constant, and returns its number."""
        buffer = 0
        if values is not None:
            content = self.builder.CreateNumpyVector(np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8))
            self.buffers.append(self._table("Buffer", Data=content))
            buffer = len(self.buffers) - 1
        fields: dict[str, Any] = {"Shape": self._numbers(shape, np.int32), "Type": TYPES[dtype], "Buffer": buffer}
        fields["Name"] = self.builder.CreateString(name)
        if quant is not None:
            scale = self._numbers(quant.scale, np.float32)
            zero_point = self._numbers([quant.zero_point] * len(quant.scale), np.int64)
            parts = {"Scale": scale, "ZeroPoint": zero_point, "QuantizedDimension": axis}
            fields["Quantization"] = self._table("QuantizationParameters", **parts)
        self.tensors.append(self._table("Tensor", **fields))
        self.index[name] = len(self.tensors) - 1
        return self.index[name]

    def activation(self, name: str) -> int:
        """Returns the number of an activation tensor of the graph, (1, H, W, C), added on first use."""
        tensor = self.graph.tensors[name]
        flat = self.fully_connected and isinstance(self.graph.producer(name), Dense)
        shape = (1, tensor.shape[2]) if flat else (1, *tensor.shape)
        return self.index[name] if name in self.index else self.tensor(name, shape, "int8", tensor.quant)

    def operator(self, code: str, inputs: list[int], output: int, options: str = "", **fields: Any) -> None:
        """Adds an operator of the schema by name."""
        if code not in self.codes:
            self.codes.append(code)
        parts: dict[str, Any] = {"Inputs": self._numbers(inputs, np.int32), "Outputs": self._numbers([output], np.int32)}
        if options:
            parts["BuiltinOptions"] = self._table(options, **fields)
            parts["BuiltinOptionsType"] = getattr(BuiltinOptions, options)
        self.operators.append(self._table("Operator", OpcodeIndex=self.codes.index(code), **parts))

    def window(self, op: Conv | DepthwiseConv | Pool) -> tuple[int, dict[str, int]]:
        """Returns the tensor that a window operator reads (behind a PAD where SAME and VALID do not say it) and its fields."""
        source = self.graph.tensors[op.inputs[0]]
        same = [same_padding(*sizes) for sizes in zip(source.shape[:2], op.kernel, op.stride, strict=True)]
        number, how = self.activation(op.inputs[0]), Padding.VALID
        if op.padding == (*same[0], *same[1]):
            how = Padding.SAME
        elif any(op.padding):
            number = self._padded(op)
        return number, {"Padding": how, "StrideH": op.stride[0], "StrideW": op.stride[1]}

    def _padded(self, op: Conv | DepthwiseConv | Pool) -> int:
        source = self.graph.tensors[op.inputs[0]]
        if isinstance(op, Pool) and op.kind == "average":
            raise ValueError(f"{op.name}: LiteRT has no average pool with padding {op.padding}")
        top, bottom, left, right = op.padding
        sides = [[0, 0], [top, bottom], [left, right], [0, 0]]
        shape = (1, source.shape[0] + top + bottom, source.shape[1] + left + right, source.shape[2])
        inputs = [self.activation(op.inputs[0]), self.tensor(f"{op.name}.pad", (4, 2), "int32", None, np.array(sides, np.int32))]
        result = self.tensor(f"{op.name}.padded", shape, "int8", source.quant)
        if isinstance(op, Pool):
            least = self.tensor(f"{op.name}.least", (1,), "int8", source.quant, np.array([-128], np.int8))
            self.operator("PADV2", [*inputs, least], result, "PadV2Options")
        else:
            self.operator("PAD", inputs, result, "PadOptions")
        return result

    def add(self, op: Op) -> None:
        """Adds one operator of the graph."""
        output = self.activation(op.output)
        fused = getattr(ActivationFunctionType, FUSED[getattr(op, "activation", "none")])
        match op:
            case Weighted():
                self._add_weighted(op, output, fused)
            case Pool():
                source, fields = self.window(op)
                fields |= {"FilterHeight": op.kernel[0], "FilterWidth": op.kernel[1], "FusedActivationFunction": fused}
                self.operator(f"{op.kind.upper()}_POOL_2D", [source], output, "Pool2DOptions", **fields)
            case Add():
                inputs = [self.activation(name) for name in op.inputs]
                self.operator("ADD", inputs, output, "AddOptions", FusedActivationFunction=fused)
            case Concat():
                inputs = [self.activation(name) for name in op.inputs]
                self.operator("CONCATENATION", inputs, output, "ConcatenationOptions", Axis=-1)
            case Relu():
                self.operator(op.activation.upper(), [self.activation(op.inputs[0])], output)
            case Softmax():
                self.operator("SOFTMAX", [self.activation(op.inputs[0])], output, "SoftmaxOptions", Beta=1.0)

    def _add_weighted(self, op: Weighted, output: int, fused: int) -> None:
        values = self.graph.constants[op.weights]
        if isinstance(op, Dense) and not self.fully_connected:
            height, width, channels = self.graph.tensors[op.inputs[0]].shape
            values = values.reshape(len(values), height, width, channels)
            kept = (op.name, op.inputs, op.output, op.weights, op.bias, op.activation, op.weight_scale)
            op = Conv(*kept, kernel=(height, width))
        shape, axis = (values.shape, 0) if not isinstance(op, DepthwiseConv) else ((1, *values.shape), 3)
        scale = quant_of(self.graph.tensors[op.inputs[0]]).scale[0]
        products = tuple(float(np.float32(scale) * np.float32(one)) for one in op.weight_scale)
        source, fields = self.window(op) if isinstance(op, (Conv, DepthwiseConv)) else (self.activation(op.inputs[0]), {})
        weights = self.tensor(op.weights, shape, "int8", Quant(op.weight_scale, 0), values, axis)
        bias = self.graph.constants[op.bias]
        inputs = [source, weights, self.tensor(op.bias, bias.shape, "int32", Quant(products, 0), bias)]
        fields |= {"FusedActivationFunction": fused}
        match op:
            case Conv():
                self.operator("CONV_2D", inputs, output, "Conv2DOptions", **fields, DilationHFactor=1, DilationWFactor=1)
            case DepthwiseConv():
                fields |= {"DepthMultiplier": op.multiplier, "DilationHFactor": 1, "DilationWFactor": 1}
                self.operator("DEPTHWISE_CONV_2D", inputs, output, "DepthwiseConv2DOptions", **fields)
            case _:
                self.operator("FULLY_CONNECTED", inputs, output, "FullyConnectedOptions", **fields)

    def finish(self) -> bytes:
        """Returns the file's bytes."""
        inputs, outputs = ([self.activation(name) for name in names] for names in (self.graph.inputs, self.graph.outputs))
        codes = [
            self._table(
                "OperatorCode",
                DeprecatedBuiltinCode=min(127, getattr(BuiltinOperator, code)),
                BuiltinCode=getattr(BuiltinOperator, code),
                Version=VERSIONS[code],
            )
            for code in self.codes
        ]
        parts = {"Tensors": self._offsets(self.tensors), "Inputs": self._numbers(inputs, np.int32)}
        parts |= {"Outputs": self._numbers(outputs, np.int32), "Operators": self._offsets(self.operators)}
        subgraphs = self._offsets([self._table("SubGraph", **parts)])
        vectors = {"OperatorCodes": self._offsets(codes), "Subgraphs": subgraphs, "Buffers": self._offsets(self.buffers)}
        self.builder.Finish(self._table("Model", Version=3, **vectors), b"TFL3")
        return bytes(self.builder.Output())


def tflite_bytes(graph: Graph, fully_connected: bool = False) -> bytes:
    """Returns an int8 graph as the bytes of a .tflite file."""
    writer = Writer(graph, fully_connected)
    for name in graph.inputs:
        writer.activation(name)
    for op in graph.ops:
        writer.add(op)
    return writer.finish()
