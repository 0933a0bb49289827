"""The table of a function of one stored value: what a Lookup gives for each of the 256 that there are.

Where TensorFlow Lite Micro has a fixed-point kernel for the function, the table holds that kernel's results to the bit:
LOGISTIC and TANH for outputs of their prescribed scale, HARD_SWISH, LEAKY_RELU, QUANTIZE (the identity, also before a clamp).
Everything else follows the rule of LiteRT's own tables (`LUTPopulate`): the function of the real value in float32, times the
inverse of the output's scale, rounded halves away from zero. With single rounding QUANTIZE,
LEAKY_RELU, LOGISTIC and TANH follow XNNPACK. An operator that is `even` follows none of them: it divides by the scale and
rounds halves to even, as ONNX's QuantizeLinear.

Source: tflite-micro, tensorflow/lite/kernels/internal/reference/integer_ops/logistic.h and tanh.h, reference/hard_swish.h,
leaky_relu.h and requantize.h; LiteRT, tflite/kernels/internal/common.h.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tinyredux import fixedpoint
from tinyredux.fixedpoint import Integers, quantize_multiplier
from tinyredux.graph import Graph, Lookup, Quant, apply
from tinyredux.int8.factors import quant_of

FIXED_OUTPUT = {"sigmoid": Quant((1 / 256,), -128), "tanh": Quant((1 / 128,), 0)}  # that LiteRT prescribes
INTEGER_BITS = 4  # of the fixed point in which LOGISTIC and TANH compute


def table_of(graph: Graph, op: Lookup) -> npt.NDArray[np.int8]:
    """Returns the 256 results of an operator, (256,) int8: number i is that of the stored value whose byte is i."""
    source, result = quant_of(graph.tensors[op.inputs[0]]), quant_of(graph.tensors[op.output])
    centred = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int64) - source.zero_point
    if op.even:
        with np.errstate(over="ignore"):
            real = apply(op.function, op.parameters, np.float32(source.scale[0]) * centred.astype(np.float32)).astype(np.float32)
            units = np.clip(np.rint(real / np.float32(result.scale[0])), -1024, 1024)
        return fixedpoint.clamp_int8(units.astype(np.int64) + result.zero_point)
    once = _rounded_once(op, centred, source.scale[0], result) if graph.rounding == "single" else None
    exact = _by_integers(op, centred, source.scale[0], result) if once is None else once
    return _by_floats(op, centred, source.scale[0], result) if exact is None else fixedpoint.clamp_int8(exact)


def _rounded_once(op: Lookup, centred: Integers, scale: float, result: Quant) -> Integers | None:
    """Returns what XNNPACK gives for a map in another scale, a leaky ReLU, sigmoid and tanh; None where the rules below hold."""
    if op.function in ("sigmoid", "tanh"):
        real = apply(op.function, (), np.float32(scale) * centred.astype(np.float32)).astype(np.float32)
        scaled = real * (np.float32(1) / np.float32(result.scale[0]))
        return np.asarray(np.rint(scaled) + result.zero_point, np.int64)
    ratio = np.float32(scale) / np.float32(result.scale[0])
    ratios = {"identity": (ratio, ratio), "leaky_relu": (ratio, ratio * np.float32((*op.parameters, 1)[0]))}.get(op.function)
    if ratios is None:
        return None
    rescaled = fixedpoint.single_rescale(centred, np.where(centred >= 0, *ratios))
    return None if rescaled is None else rescaled + result.zero_point


def _by_floats(op: Lookup, centred: Integers, scale: float, result: Quant) -> npt.NDArray[np.int8]:
    source = np.float32(scale) * centred.astype(np.float32)
    with np.errstate(over="ignore"):
        real = apply(op.function, op.parameters, source).astype(np.float32)
        if op.function == "elu" and set(op.parameters) == {1.0}:  # LiteRT's own, which takes 1 off in float32
            real = np.where(source < 0, apply("exp", (), np.minimum(source, 0)).astype(np.float32) - np.float32(1), source)
        scaled = np.clip(real * (np.float32(1) / np.float32(result.scale[0])), -1024, 1024)
    return fixedpoint.clamp_int8((np.trunc(scaled + np.copysign(0.5, scaled)) + result.zero_point).astype(np.int64))


def _by_integers(op: Lookup, centred: Integers, scale: float, result: Quant) -> Integers | None:
    """Returns what TensorFlow Lite Micro's fixed-point kernel gives for stored values less their zero point, before saturation;
    None where there is no such kernel for the function and these scales."""
    match op.function:
        case "sigmoid" | "tanh" if result == FIXED_OUTPUT[op.function]:
            return _saturating(op.function, centred, scale)
        case "hardswish":
            return _hard_swish(centred, scale, result)
        case "leaky_relu" if op.parameters[0] >= 0:
            slope = float(np.float32(scale) * np.float32(op.parameters[0]) / np.float32(result.scale[0]))
            factors = (quantize_multiplier(slope), quantize_multiplier(float(np.float32(scale) / np.float32(result.scale[0]))))
            below, above = (fixedpoint.multiply_by_quantized_multiplier(centred, *factor) for factor in factors)
            return np.where(centred >= 0, above, below) + result.zero_point
        case "identity" | "clamp":
            factor = quantize_multiplier(scale / result.scale[0])
            values = fixedpoint.multiply_by_quantized_multiplier(centred, *factor) + result.zero_point
            low, high = (_stored(limit, result) for limit in op.parameters or (-np.inf, np.inf))
            return np.clip(values, low, high)
    return None


def _stored(limit: float, result: Quant) -> int:
    """Returns a limit in stored units, as `clamp_of` rounds it; infinite ones beyond all that are stored."""
    units = float(np.float32(limit) / np.float32(result.scale[0]))
    return result.zero_point + fixedpoint.round_half_away(max(-1024.0, min(1024.0, units)))


def _saturating(function: str, centred: Integers, scale: float) -> Integers | None:
    """LOGISTIC and TANH: fixed point between the inputs from which on the output is at its end."""
    fraction, shift = math.frexp(scale * (1 << (31 - INTEGER_BITS)))
    if not 0 <= shift <= 62:
        return None
    multiplier = fixedpoint.round_half_away(fraction * 2**31)
    radius = ((1 << INTEGER_BITS) - 1) * (1 << (31 - INTEGER_BITS)) >> shift
    inside = np.clip(centred, 1 - radius, radius - 1) if radius else np.zeros_like(centred)
    fixed = fixedpoint.multiply_by_quantized_multiplier(inside, multiplier, shift)
    if function == "sigmoid":
        values = fixedpoint.rounding_divide_by_power_of_two(fixedpoint.logistic(fixed, INTEGER_BITS), 31 - 8) - 128
    else:
        values = fixedpoint.rounding_divide_by_power_of_two(fixedpoint.tanh(fixed, INTEGER_BITS), 31 - 7)
    return np.where(centred <= -radius, -128, np.where(centred >= radius, 127, values))


def _hard_swish(centred: Integers, scale: float, result: Quant) -> Integers | None:
    """HARD_SWISH: 16-bit fixed point, 128 times finer than the input; the inner clamp is in units of 3 / 32768."""
    fine = np.float32(1 / 128) * np.float32(scale)
    out_multiplier, out_shift = _int16_multiplier(float(fine / np.float32(result.scale[0])))
    multiplier, shift = _int16_multiplier(float(fine / np.float32(3 / 32768)))
    if out_shift > 0:
        return None
    values = centred * 128
    scaled = _high_mul_int16(values, out_multiplier)
    inner = _high_mul_int16(_saturated(values << (shift - 1)) if shift > 0 else values, multiplier)
    if shift > 0:
        inner = _saturated(inner << 1)
    inner = (fixedpoint.rounding_divide_by_power_of_two(inner, max(-shift, 0)) + (1 << 15)) >> 1
    product = inner * scaled
    truncated = np.sign(product) * (np.abs(product) >> 15)
    return fixedpoint.rounding_divide_by_power_of_two(truncated, -out_shift) + result.zero_point


def _int16_multiplier(real: float) -> tuple[int, int]:
    """Returns a factor's 31-bit multiplier rounded to 15 bits, and its shift."""
    multiplier, shift = quantize_multiplier(real)
    return min((multiplier + (1 << 15)) >> 16, 32767), shift


def _high_mul_int16(a: Integers, b: int) -> Integers:
    return _saturated((a * b + (1 << 14)) >> 15)


def _saturated(value: Integers) -> Integers:
    return np.clip(value, -(1 << 15), (1 << 15) - 1)
