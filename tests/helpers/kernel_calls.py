"""A layer as a call of one of our C kernels: on this computer (plain or under sanitizers), and on a simulated core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from compiled import Process, cross, host, kernels, made, objects
from generated import Core
from strategies import Layer

from tinyredux.codegen.fields import extend_fields, matmul_fields
from tinyredux.device import build
from tinyredux.fixedpoint import single_exps
from tinyredux.graph import (
    Add,
    AddConstant,
    Attention,
    Bilinear,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Extend,
    Graph,
    LayerNorm,
    Lookup,
    MatMul,
    Mul,
    Pool,
    Rearrange,
    Relu,
    Softmax,
    TrecConv,
    Weighted,
    Windowed,
)
from tinyredux.int8 import (
    add_params,
    attention_params,
    bilinear,
    clamp_of,
    layer_norm_params,
    mean_params,
    mul_params,
    quant_of,
    requantization,
    softmax_params,
    table_of,
)
from tinyredux.kernels import trec_fields
from tinyredux.memory import clustering

OPERATORS = (  # enum operator
    "conv", "depthwise", "dense", "max", "average", "add", "concat", "relu", "softmax", "trec", "direct", "add_s32", "add_s16",
    "lookup", "sub", "mul", "rearrange", "softmax_once", "mean", "keep", "bilinear", "layer_norm",
    "attention", "matmul", "extend",
)  # fmt: skip
DRIVER = build.ROOT / "firmware" / "test" / "test_kernels" / "kernel_driver.c"
Call = tuple[list[int], list[np.ndarray]]  # fields; input, second, bias, multiplier, shift, vectors
EMPTY = np.zeros(0, np.int8)


def calls(layer: Layer, operator: str = "") -> list[Call]:
    """Returns the kernel calls that compute a layer, a convolution by another `operator`; only a concat takes more than one."""
    if operator:
        return [([OPERATORS.index(operator), *fields[1:]], arrays) for fields, arrays in calls(layer)]
    graph, op, inputs = layer.graph, layer.op, layer.inputs
    height, width, channels = inputs[0].shape
    out = graph.tensors[op.output]
    match op:
        case Weighted():
            return [_weighted_call(graph, op, inputs[0])]
        case Pool(kind="mean"):
            own, sizes = mean_params(graph, op), [height, width, channels, *out.shape[:2], *op.kernel, *op.stride, 0, 0, 0, 0]
            return [_call("mean", [*sizes, own.multiplier, own.shift, own.correction, own.zero_point], inputs[0])]
        case Pool():
            clamp = clamp_of(op.activation, quant_of(out))
            sizes = [height, width, channels, *out.shape[:2], *op.kernel, *_steps(op), op.padding[0], op.padding[2]]
            return [_call(op.kind, [*sizes, clamp.low, clamp.high], inputs[0])]
        case Add() | AddConstant():
            p = add_params(graph, op)
            factors = [value for pair in zip(p.multipliers, p.shifts, strict=True) for value in pair]
            numbers = [*p.zero_points, p.output_zero_point, *factors, p.output_multiplier, p.output_shift, 20, *_clamp(p.clamp)]
            both = [*inputs, graph.constants[op.values]] if isinstance(op, AddConstant) else inputs
            return [_call("sub" if getattr(op, "subtract", False) else "add", [out.elements, *numbers], *both)]
        case LayerNorm():
            n = layer_norm_params(graph, op)
            epsilon = [(n.epsilon & 0xFFFFFFFF) - (n.epsilon >> 31 & 1) * (1 << 32), n.epsilon >> 32]
            numbers = [height * width, channels, *epsilon, n.multiplier, n.shift, n.output_zero_point]
            return [_call("layer_norm", numbers, inputs[0])]
        case Attention():
            keys, values = (each.shape for each in inputs[1:])
            sizes = [op.heads, height * width, keys[0] * keys[1], keys[2] // op.heads, values[2] // op.heads]
            bias = graph.constants[op.bias] if op.bias else EMPTY
            own = [bias[0].size if len(bias) > 1 else 0, int(bool(op.bias))]
            return [_call("attention", [*sizes, *astuple(attention_params(graph, op)), *own], *inputs, bias)]
        case Extend():
            return [_call("extend", list(extend_fields(graph, op).values()), inputs[0], graph.constants[op.values])]
        case MatMul():
            return [_call("matmul", list(matmul_fields(graph, op).values()), *inputs)]
        case Mul():
            r, own = mul_params(graph, op), (width * channels, channels)
            points = [r.input_zero_point, quant_of(graph.tensors[op.inputs[1]]).zero_point, r.output_zero_point]
            other = inputs[1].shape
            second = own if other == inputs[0].shape else (width, 1) if other[:2] == inputs[0].shape[:2] else (0, 0)
            numbers = [*own, *second, *own, *points, *r.multiplier, *r.shift, *_clamp(r.clamp)]
            return [_call("mul", [*inputs[0].shape, *numbers, int(other[2] == channels)], *inputs)]
        case Concat():
            first = inputs[0].shape[2]
            parts = zip(inputs, (0, first), strict=True)
            return [_call("concat", [height * width, part.shape[2], out.shape[2], offset], part) for part, offset in parts]
        case Relu():
            return [_call("relu", [out.elements, *_clamp(clamp_of(op.activation, quant_of(out)))], inputs[0])]
        case Bilinear():
            even = bilinear.is_even(graph, op)
            rule = [2 * bilinear.BITS[graph.rounding], int(graph.rounding == "double"), int(even)]
            tables = [bilinear.table(op, axis, graph.rounding) for axis in (0, 1)]
            read = np.ascontiguousarray(inputs[0][tables[0][0] >> bilinear.COLUMN :, tables[1][0] >> bilinear.COLUMN :])
            gaps = [read.shape[1] * channels, channels, out.shape[1] * channels, channels]
            fields = [*read.shape, *out.shape, *rule, quant_of(out).zero_point if even else 0, *gaps]
            return [_call("bilinear", fields, read, *tables)]
        case Rearrange():
            both, zero = op.repeat[0] * op.repeat[1], quant_of(out).zero_point
            pairs = [*op.start, *op.step, *op.repeat, *op.phase, op.first_channel, both if op.blocks else 1, op.groups]
            gaps = [width * channels, channels, out.shape[1] * out.shape[2], out.shape[2]]
            fields = [height, width, channels, *out.shape, *pairs, int(op.blocks), int(op.zeros), zero, *gaps]
            return [_call("rearrange", fields, inputs[0])]
        case Lookup():
            return [_call("lookup", [out.elements], inputs[0], table_of(graph, op))]
        case Softmax() if graph.rounding == "single":
            exps = single_exps(quant_of(graph.tensors[op.inputs[0]]).scale[0])
            return [_call("softmax_once", [height * width, channels], inputs[0], exps.view(np.int32))]
        case Softmax():
            s = softmax_params(graph, op)
            return [_call("softmax", [height * width, channels, s.multiplier, s.shift, s.diff_min], inputs[0])]
    raise ValueError(f"no kernel for {type(op).__name__}")


def _steps(op: Windowed) -> list[int]:
    return [*op.stride, op.dilation[0] - 1, op.dilation[1] - 1]


def _clamp(clamp: Any) -> tuple[int, int]:
    return clamp.low, clamp.high


def _call(operator: str, fields: Sequence[int], *arrays: np.ndarray) -> Call:
    return [OPERATORS.index(operator), *fields], [*arrays, *[EMPTY] * (6 - len(arrays))]


def _weighted_call(graph: Graph, op: Weighted, values: np.ndarray) -> Call:
    r = requantization(graph, op)
    out = graph.tensors[op.output].shape
    numbers = [r.input_zero_point, r.output_zero_point, *_clamp(r.clamp)]
    factors = [np.array(r.multiplier, np.int32), np.array(r.shift, np.int32)]
    arrays = [values, graph.constants[op.weights], graph.constants[op.bias], *factors]
    match op:
        case Conv():
            window = [*op.kernel, *_steps(op), op.padding[0], op.padding[2], op.groups]
            return _call("conv", [*values.shape, *out, *window, *numbers], *arrays)
        case TrecConv():
            sizes = clustering(graph, op)
            vectors = graph.constants[op.vectors].transpose(0, 2, 1) if op.vectors else EMPTY
            own = list(trec_fields(op, sizes, vectors.shape[0]).values())
            window = [*op.kernel, *op.stride, op.padding[0], op.padding[2], *own]
            return _call("trec", [*values.shape, *out, *window, *numbers], *arrays, vectors)
        case DepthwiseConv():
            window = [*op.kernel, *_steps(op), op.padding[0], op.padding[2]]
            return _call("depthwise", [*values.shape, *out[:2], op.multiplier, *window, *numbers], *arrays)
        case Dense():
            return _call("dense", [values.size, out[2], *numbers], *arrays)
    raise ValueError(f"no kernel for {type(op).__name__}")


class HostKernels(Process):
    """The kernels with the plain C twins under sanitizers, as a process of this computer that computes one call after another."""

    def __init__(self) -> None:
        command = host(*build.option("flags", "sanitize").split())
        super().__init__(made(command, *objects([*command, "-DTR_DRIVER_MAIN"], DRIVER), *kernels(command)))

    def run(self, layer: Layer, operator: str = "") -> np.ndarray:
        """Returns the layer's output (H, W, C)."""
        shape = layer.graph.output.shape
        result = np.full(shape, 0x55, np.int8)
        for fields, arrays in calls(layer, operator):
            numbers = [len(fields), *fields, result.size, *(array.nbytes for array in arrays)]
            written = self.output(numbers, arrays, result.size).reshape(shape)
            result = written if not isinstance(layer.op, Concat) else np.where(written == 0x55, result, written)
        return result


class CoreKernels:
    """The kernels with the DSP instructions, compiled for a Cortex-M core and called in the emulator."""

    def __init__(self, core: str = "cortex-m4") -> None:
        command, link = cross(core), ["-nostartfiles", "--specs=nano.specs", "--specs=nosys.specs", "-Wl,-Ttext=0x08000000"]
        keep = ["-Wl,-e,run_case", "-Wl,--undefined=run_case", "-Wl,--undefined=scratch_bytes"]
        program = made([*command, *link, *keep], *objects(command, DRIVER), *kernels(command), suffix=".elf")
        self.core = Core(program, core)

    def run(self, layer: Layer, operator: str = "") -> np.ndarray:
        """Returns the layer's output (H, W, C)."""
        shape = layer.graph.output.shape
        written = b"\x55" * int(np.prod(shape))
        for fields, arrays in calls(layer, operator):
            *pointers, table = self.core.place([written, *(array.tobytes() for array in arrays)])
            numbers = self.core.place_words(table, pointers)
            self.core.call("run_case", numbers, table, self.core.place_words(numbers, fields))
            written = self.core.read(pointers[0], len(written))
        return np.frombuffer(written, np.int8).reshape(shape)
