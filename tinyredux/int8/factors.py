"""The integers that an int8 operator computes with, derived once for the interpreter and for C alike.

Source: LiteRT's 8-bit quantisation specification and the `Prepare` functions of its reference kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tinyredux.files import require
from tinyredux.fixedpoint import (
    INT32_MAX,
    float_bits,
    quantize_multiplier,
    quantize_once,
    quantized_mean,
    round_half_away,
    single_add,
    single_mean,
    single_scale,
)
from tinyredux.graph import ACTIVATIONS, Add, AddConstant, Graph, MatMul, Mul, Op, Pool, Quant, Relu, Softmax, Tensor, Weighted

ADD_LEFT_SHIFT = 20
SOFTMAX_DIFF_BITS = 5
SOFTMAX_CHANNELS = 4095  # their sum has 12 integer bits
LARGEST_ONCE = 256.0  # the factor of a product from which on XNNPACK leaves it to a kernel that rounds otherwise
MOST_INNER = 16384  # products in a sum of MatMul: 2^14 of 255 * 255, and its parts, fit 32 bits
SOFTMAX_OUTPUT = Quant((1 / 256,), -128)


@dataclass(frozen=True)
class Clamp:
    """Limits of an activation in stored int8 units, both ends included; `single`: what comes to them is rounded once."""

    low: int
    high: int
    single: bool = field(default=False, repr=False)  # names of kernels, which have their layer's digest, are those without it


@dataclass(frozen=True)
class Requantization:
    """Factors from int32 accumulator to int8 output, one per output channel, and the zero points around them.

    With single rounding a multiplier holds the bits of a float32, and no shift counts.
    """

    multiplier: tuple[int, ...]
    shift: tuple[int, ...]
    input_zero_point: int
    output_zero_point: int
    clamp: Clamp

    @property
    def single(self) -> bool:
        """Whether sums are rounded once."""
        return self.clamp.single


@dataclass(frozen=True)
class AddParams:
    """Factors of an int8 addition: both inputs are brought to one scale, 2^20 finer than the larger one.

    With single rounding the two multipliers and the output's shift are those of `fixedpoint.single_add`, and the others are 0.
    """

    zero_points: tuple[int, int]
    multipliers: tuple[int, int]
    shifts: tuple[int, int]
    output_zero_point: int
    output_multiplier: int
    output_shift: int
    clamp: Clamp

    @property
    def single(self) -> bool:
        """Whether sums are rounded once."""
        return self.clamp.single


@dataclass(frozen=True)
class MeanParams:
    """Factor from the sum of a window's stored values to their mean; `correction` is taken off the sum.

    With single rounding multiplier and correction are the bits of the floats of `fixedpoint.single_mean`, and the others are 0.
    """

    multiplier: int
    shift: int
    correction: int
    zero_point: int


@dataclass(frozen=True)
class SoftmaxParams:
    """Factor from int8 differences to Q5 fixed point; differences below `diff_min` count as zero."""

    multiplier: int
    shift: int
    diff_min: int


def quant_of(tensor: Tensor) -> Quant:
    """Returns a tensor's quantisation. Raises ValueError where it has none."""
    if tensor.quant is None:
        raise ValueError(f"tensor {tensor.name} is {tensor.dtype} without quantisation; run quantize first")
    return tensor.quant


def clamp_for(graph: Graph, op: Op) -> Clamp:
    """Returns the limits of what an operator writes, in stored units."""
    activation, quant = getattr(op, "activation", "none"), quant_of(graph.tensors[op.output])
    by_litert = isinstance(op, Relu) or (isinstance(op, Pool) and op.kind == "average")  # kernels of its own, not XNNPACK's
    if graph.rounding == "double" or by_litert:
        return clamp_of(activation, quant)
    low, high = (
        quantize_once(end, quant.scale[0], quant.zero_point) if np.isfinite(end) else None for end in ACTIVATIONS[activation]
    )
    return Clamp(-128 if low is None else max(-128, low), 127 if high is None else min(127, high), True)


def clamp_of(activation: str, quant: Quant) -> Clamp:
    """Returns an activation's limits in the stored units of `quant`, as LiteRT's own kernels round them."""
    low, high = ACTIVATIONS[activation]
    scale = np.float32(quant.scale[0])  # LiteRT divides in float32: a quotient close to a half rounds by that
    return Clamp(
        max(-128, -128 if low == -np.inf else quant.zero_point + round_half_away(float(np.float32(low) / scale))),
        min(127, 127 if high == np.inf else quant.zero_point + round_half_away(float(np.float32(high) / scale))),
    )


def requantization(graph: Graph, op: Weighted) -> Requantization:
    """Returns the factors of a convolution, depthwise convolution or dense layer."""
    source, result, single = quant_of(graph.tensors[op.inputs[0]]), quant_of(graph.tensors[op.output]), graph.rounding == "single"
    if single:
        pairs = [(float_bits(single_scale(source.scale[0], scale, result.scale[0])), 0) for scale in op.weight_scale]
    else:
        pairs = [quantize_multiplier(source.scale[0] * scale / result.scale[0]) for scale in op.weight_scale]
    return Requantization(
        tuple(multiplier for multiplier, _ in pairs), tuple(shift for _, shift in pairs),
        source.zero_point, result.zero_point, clamp_for(graph, op),
    )  # fmt: skip


def add_params(graph: Graph, op: Add | AddConstant) -> AddParams:
    """Returns the factors of an int8 addition. Raises ValueError where the output is 2^19 times finer than an input.

    With single rounding a difference has a negative multiplier; scales far apart have no rule, and raise it, too.
    """
    left, right = addend_quants(graph, op)
    result, zero_points = quant_of(graph.tensors[op.output]), (left.zero_point, right.zero_point)
    if graph.rounding == "single":
        try:
            one, other, down = single_add(left.scale[0], right.scale[0], result.scale[0])
        except ValueError as wrong:
            raise ValueError(f"{op.name}: {wrong}; take double rounding") from None
        signed = (one, -other if op.subtract else other)
        return AddParams(zero_points, signed, (0, 0), result.zero_point, 0, -down, clamp_for(graph, op))
    twice_max = 2 * max(left.scale[0], right.scale[0])
    factors = [quantize_multiplier(q.scale[0] / twice_max) for q in (left, right)]
    multiplier, shift = quantize_multiplier(twice_max / ((1 << ADD_LEFT_SHIFT) * result.scale[0]))
    if shift > 0:
        raise ValueError(
            f"{op.name}: adds tensors of scale {left.scale[0]:.3g} and {right.scale[0]:.3g} into one of {result.scale[0]:.3g}; "
            f"the output may be at most 2^{ADD_LEFT_SHIFT - 1} times finer: check weights and calibration images"
        )
    return AddParams(
        zero_points, (factors[0][0], factors[1][0]), (factors[0][1], factors[1][1]),
        result.zero_point, multiplier, shift, clamp_for(graph, op),
    )  # fmt: skip


def addend_quants(graph: Graph, op: Add | AddConstant) -> tuple[Quant, Quant]:
    """Returns the quantisations of both addends."""
    first = quant_of(graph.tensors[op.inputs[0]])
    if isinstance(op, AddConstant):
        require(op.values_quant, f"{op.name}: {op.values} has no quantisation; run quantize first")
        return first, op.values_quant or first
    return first, quant_of(graph.tensors[op.inputs[1]])


def mul_params(graph: Graph, op: Mul | MatMul) -> Requantization:
    """Returns the factor of int8 products; the zero point of the second input stands beside, in its tensor.

    Raises ValueError for a factor of LARGEST_ONCE or more with single rounding, which has no rule for it, and for matrices whose
    sums could leave 32 bits.
    Source: LiteRT, `MulOperation` in tflite/kernels/mul.cc; XNNPACK.
    """
    times = 1.0
    if isinstance(op, MatMul):
        require(op.inner <= MOST_INNER, f"{op.name}: sums of {op.inner} products, at most {MOST_INNER}")
        require(op.scale >= 0, f"{op.name}: products are scaled by {op.scale}, expected 0 or more")
        times = op.scale
    left, right = (quant_of(graph.tensors[name]) for name in op.inputs)
    result = quant_of(graph.tensors[op.output])
    if graph.rounding == "single":
        scale = single_scale(left.scale[0] * times, right.scale[0], result.scale[0])
        require(scale < LARGEST_ONCE, f"{op.name}: its factor is {scale:.4g}, expected less than 256; take double rounding")
        multiplier, shift = float_bits(scale), 0
    else:
        multiplier, shift = quantize_multiplier(left.scale[0] * times * right.scale[0] / result.scale[0])
    return Requantization((multiplier,), (shift,), left.zero_point, result.zero_point, clamp_for(graph, op))


def mean_params(graph: Graph, op: Pool) -> MeanParams:
    """Returns the factors of a mean, which has a scale of its own."""
    source, result = (quant_of(graph.tensors[name]) for name in (op.inputs[0], op.output))
    count = op.kernel[0] * op.kernel[1]
    if graph.rounding == "single":
        found = single_mean(count, source.scale[0], source.zero_point, result.scale[0], result.zero_point)
        return MeanParams(float_bits(found[0]), 0, float_bits(found[1]), 0)
    return MeanParams(*quantized_mean(count, source.scale[0], result.scale[0]), count * source.zero_point, result.zero_point)


def softmax_params(graph: Graph, op: Softmax) -> SoftmaxParams:
    """Returns the factor of an int8 softmax with beta = 1; its output is always scale 1/256, zero point -128.

    Raises ValueError for more channels than the fixed-point sum holds.
    """
    channels = graph.tensors[op.output].shape[2]
    if channels > SOFTMAX_CHANNELS:
        raise ValueError(f"{op.name}: softmax over {channels} channels, at most {SOFTMAX_CHANNELS}; return logits instead")
    scale = quant_of(graph.tensors[op.inputs[0]]).scale[0]
    multiplier, shift = quantize_multiplier(min(scale * (1 << (31 - SOFTMAX_DIFF_BITS)), float(INT32_MAX)))
    radius = ((1 << SOFTMAX_DIFF_BITS) - 1) * (1 << (31 - SOFTMAX_DIFF_BITS)) / (1 << shift)
    return SoftmaxParams(multiplier, shift, -int(radius))


def int16_shifts(graph: Graph, op: Weighted) -> npt.NDArray[np.int64]:
    """Returns for each output channel how far 16-bit partial sums of a convolution or dense layer are shifted right.

    They take half the bytes of 32-bit ones, for a rounding error at each slice: a sum is kept as round(sum / 2^shift), with the
    least shift with which no sum can leave 16 bits, whatever the input. Source: ours.
    """
    zero_point = quant_of(graph.tensors[op.inputs[0]]).zero_point
    farthest = max(127 - zero_point, zero_point + 128)
    weights = np.abs(graph.constants[op.weights].astype(np.int64))
    largest = np.abs(graph.constants[op.bias].astype(np.int64)) + farthest * weights.reshape(len(weights), -1).sum(axis=1)
    margin = 1024  # every slice rounds by up to one half
    return np.asarray(np.maximum(0, np.ceil(np.log2(np.maximum(largest, 1) / (32767 - margin)))), np.int64)
