"""An int8 Graph as a .tflite file, so that LiteRT can be the oracle of our arithmetic.

A dense layer is written as the convolution over its whole input that it is: same sums, the specification's double rounding.
LiteRT's own operator, which `fully_connected` asks for, rounds in floating point since version 1.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np

from tinyredux.graph import (
    Add,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Graph,
    Lookup,
    Mul,
    Op,
    Pool,
    Quant,
    Relu,
    Softmax,
    Weighted,
    extent,
)
from tinyredux.int8 import quant_of

TYPES = {name: getattr(schema.TensorType, name.upper()) for name in ("int8", "uint8", "int32", "float32")}
FUSED = {"none": "NONE", "relu": "RELU", "relu6": "RELU6"}
LOOKUPS: dict[str, tuple[str, Callable[..., dict[str, Any]]]] = {  # what LiteRT has, and the fields of its options
    "sigmoid": ("LOGISTIC", dict), "tanh": ("TANH", dict), "identity": ("QUANTIZE", lambda: {"options": "QuantizeOptions"}),
    "hardswish": ("HARD_SWISH", lambda: {"options": "HardSwishOptions"}), "elu": ("ELU", lambda *unused: {}),
    "leaky_relu": ("LEAKY_RELU", lambda slope: {"options": "LeakyReluOptions", "alpha": slope}),
    "clamp": ("RELU", lambda low, high: {}), "gelu": ("GELU", lambda: {"options": "GeluOptions", "approximate": False}),
    "gelu_tanh": ("GELU", lambda: {"options": "GeluOptions", "approximate": True}),
}  # fmt: skip
VERSIONS = {
    code: 1 for code in ("SHAPE", "EXPAND_DIMS", "SQUEEZE", "PACK", "SLICE", "RESIZE_NEAREST_NEIGHBOR", "RELU_0_TO_1")
} | {
    "CONV_2D": 5,
    "DEPTHWISE_CONV_2D": 6,
    "ELU": 1,
    "HARD_SWISH": 1,
    "FULLY_CONNECTED": 4,
    "RESHAPE": 1,
}  # 2 of the others


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Returns LiteRT's SAME padding (before, after) of one axis."""
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


class Writer:
    """A model in the making: tensors and operators in order."""

    def __init__(self, graph: Graph, fully_connected: bool = False) -> None:
        self.graph, self.fully_connected = graph, fully_connected
        self.buffers, self.tensors, self.operators = [schema.BufferT()], list[Any](), list[Any]()
        self.codes: list[str] = []
        self.index: dict[str, int] = {}
        self.ends: tuple[list[int], list[int]] = ([], [])  # what it takes and gives

    def tensor(self, name: str, shape: Sequence[int], dtype: str, quant: Quant | None, values: Any = None, axis: int = 0) -> int:
        """Adds a tensor, with content if it is a constant, and returns its number."""
        if values is not None:
            self.buffers.append(schema.BufferT(np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)))
        quantization = quant and schema.QuantizationParametersT(
            scale=list(quant.scale), zeroPoint=[quant.zero_point] * len(quant.scale), quantizedDimension=axis
        )
        buffer = 0 if values is None else len(self.buffers) - 1
        self.tensors.append(schema.TensorT(list(shape), TYPES[dtype], buffer, name, quantization))
        self.index[name] = len(self.tensors) - 1
        return self.index[name]

    def activation(self, name: str) -> int:
        """Returns the number of an activation tensor of the graph, (1, H, W, C), added on first use."""
        tensor = self.graph.tensors[name]
        return self.index[name] if name in self.index else self.tensor(name, (1, *tensor.shape), "int8", tensor.quant)

    def operator(self, code: str, inputs: list[int], output: int, options: str = "", **fields: Any) -> None:
        """Adds an operator of the schema by name."""
        if code not in self.codes:
            self.codes.append(code)
        operator = schema.OperatorT(self.codes.index(code), inputs, [output])
        if options:
            operator.builtinOptions = getattr(schema, f"{options}T")(**fields)
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        self.operators.append(operator)

    def window(self, op: Conv | DepthwiseConv | Pool) -> tuple[int, dict[str, int]]:
        """Returns the tensor that a window operator reads (behind a PAD where SAME and VALID do not say it) and its fields."""
        source = self.graph.tensors[op.inputs[0]]
        same = [same_padding(*sizes) for sizes in zip(source.shape[:2], (extent(op, 0), extent(op, 1)), op.stride, strict=True)]
        number, how = self.activation(op.inputs[0]), schema.Padding.VALID
        if op.padding == (*same[0], *same[1]):
            how = schema.Padding.SAME
        elif any(op.padding):
            number = self._padded(op)
        fields = {"padding": how, "strideH": op.stride[0], "strideW": op.stride[1]}
        if not isinstance(op, Pool):
            fields |= {"dilationHFactor": op.dilation[0], "dilationWFactor": op.dilation[1]}
        return number, fields

    def _padded(self, op: Conv | DepthwiseConv | Pool) -> int:
        source = self.graph.tensors[op.inputs[0]]
        if isinstance(op, Pool) and op.kind == "average":
            raise ValueError(f"{op.name}: LiteRT has no average pool with padding {op.padding}")
        sides = np.array([[0, 0], op.padding[:2], op.padding[2:], [0, 0]], np.int32)
        shape = np.array((1, *source.shape)) + sides.sum(axis=1)
        inputs = [self.activation(op.inputs[0]), self.tensor(f"{op.name}.pad", (4, 2), "int32", None, sides)]
        result = self.tensor(f"{op.name}.padded", shape.tolist(), "int8", source.quant)
        if isinstance(op, Pool):
            least = self.tensor(f"{op.name}.least", (1,), "int8", source.quant, np.array([-128], np.int8))
            self.operator("PADV2", [*inputs, least], result, "PadV2Options")
        else:
            self.operator("PAD", inputs, result, "PadOptions")
        return result

    def add(self, op: Op) -> None:
        """Adds one operator of the graph."""
        output, inputs = self.activation(op.output), [self.activation(name) for name in op.inputs]
        fused = {"fusedActivationFunction": getattr(schema.ActivationFunctionType, FUSED[getattr(op, "activation", "none")])}
        match op:
            case Weighted():
                self._add_weighted(op, output, fused)
            case Pool(kind="mean"):
                sizes = self.graph.tensors[op.inputs[0]].shape
                axes = np.array([axis + 1 for axis in (0, 1) if op.kernel[axis] == sizes[axis]], np.int32)
                inputs.append(self.tensor(f"{op.name}.axes", axes.shape, "int32", None, axes))
                self.operator("MEAN", inputs, output, "ReducerOptions", keepDims=True)
            case Pool():
                source, fields = self.window(op)
                fields |= {"filterHeight": op.kernel[0], "filterWidth": op.kernel[1]} | fused
                self.operator(f"{op.kind.upper()}_POOL_2D", [source], output, "Pool2DOptions", **fields)
            case Add():
                kind = "Sub" if op.subtract else "Add"
                self.operator(kind.upper(), inputs, output, f"{kind}Options", **fused)
            case Mul():
                self.operator("MUL", inputs, output, "MulOptions", **fused)
            case Concat():
                self.operator("CONCATENATION", inputs, output, "ConcatenationOptions", axis=-1)
            case Relu():
                self.operator(op.activation.upper(), inputs, output)
            case Lookup():
                code, fields = LOOKUPS[op.function]
                self.operator(code, inputs, output, **fields(*op.parameters))
            case Softmax():
                self.operator("SOFTMAX", inputs, output, "SoftmaxOptions", beta=1.0)

    def _add_weighted(self, op: Weighted, output: int, fused: dict[str, int]) -> None:
        values, bias = self.graph.constants[op.weights], self.graph.constants[op.bias]
        if isinstance(op, Dense) and self.fully_connected:
            self._add_dense(op, output, fused)
            return
        if isinstance(op, Dense):
            shape = self.graph.tensors[op.inputs[0]].shape
            values = values.reshape(len(values), *shape)
            kept = (op.name, op.inputs, op.output, op.weights, op.bias, op.activation, op.weight_scale)
            op = Conv(*kept, kernel=shape[:2])
        axis = 3 if isinstance(op, DepthwiseConv) else 0
        scale = quant_of(self.graph.tensors[op.inputs[0]]).scale[0]
        products = tuple(float(np.float32(scale) * np.float32(one)) for one in op.weight_scale)
        assert isinstance(op, Conv | DepthwiseConv)
        source, fields = self.window(op)
        weights = self.tensor(
            op.weights, (1, *values.shape) if axis else values.shape, "int8", Quant(op.weight_scale, 0), values, axis
        )
        inputs = [source, weights, self.tensor(op.bias, bias.shape, "int32", Quant(products, 0), bias)]
        if isinstance(op, DepthwiseConv):
            fields["depthMultiplier"] = op.multiplier
        kind = "DepthwiseConv2DOptions" if axis else "Conv2DOptions"
        self.operator("DEPTHWISE_CONV_2D" if axis else "CONV_2D", inputs, output, kind, **fields, **fused)

    def _add_dense(self, op: Dense, output: int, fused: dict[str, int]) -> None:
        values, bias, scales = self.graph.constants[op.weights], self.graph.constants[op.bias], op.weight_scale
        scales = scales[:1] if len({*scales}) == 1 else scales  # one for all is written once
        source, quant = self.activation(op.inputs[0]), quant_of(self.graph.tensors[op.inputs[0]])
        products = tuple(float(np.float32(quant.scale[0]) * np.float32(one)) for one in scales)
        weights = self.tensor(op.weights, values.shape, "int8", Quant(scales, 0), values)
        if (count := values.shape[1]) > self.graph.tensors[op.inputs[0]].shape[2]:
            flat, shape = self.tensor(f"{op.name}.flat", (1, count), "int8", quant), np.array([1, count], np.int32)
            self.operator("RESHAPE", [source, self.tensor(f"{op.name}.shape", (2,), "int32", None, shape)], flat)
            source = flat
        bias_number = self.tensor(op.bias, bias.shape, "int32", Quant(products, 0), bias)
        self.operator("FULLY_CONNECTED", [source, weights, bias_number], output, "FullyConnectedOptions", **fused)

    def bytes(self, inputs: list[int], outputs: list[int]) -> bytes:
        """Returns the model as the bytes of a .tflite file, with tensors that it takes and gives."""
        numbers = [getattr(schema.BuiltinOperator, code) for code in self.codes]
        codes = [
            schema.OperatorCodeT(min(127, number), builtinCode=number, version=VERSIONS.get(code, 2))
            for code, number in zip(self.codes, numbers, strict=True)
        ]
        subgraph = schema.SubGraphT(self.tensors, inputs, outputs, self.operators)
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(schema.ModelT(3, codes, [subgraph], buffers=self.buffers).Pack(builder), b"TFL3")
        return bytes(builder.Output())


def tflite_bytes(graph: Graph, fully_connected: bool = False) -> bytes:
    """Returns an int8 graph as the bytes of a .tflite file."""
    writer = Writer(graph, fully_connected)
    inputs = [writer.activation(name) for name in graph.inputs]
    for op in graph.ops:
        writer.add(op)
    return writer.bytes(inputs, [writer.activation(name) for name in graph.outputs])
