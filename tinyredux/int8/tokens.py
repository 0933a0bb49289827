"""Layer normalisation and attention, in float and in integers: places of a map are tokens.

Source: ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyredux import fixedpoint
from tinyredux.files import require
from tinyredux.fixedpoint import quantize_multiplier
from tinyredux.graph import Attention, Extend, Graph, LayerNorm, MatMul
from tinyredux.int8.factors import quant_of

Batch = npt.NDArray[Any]  # (N, H, W, C)
MOST_KEYS = 2048  # a sum of 2^12 * 255 over as many fits 32 bits
MOST_DEPTH = 16384  # channels of a head: differences of its scores fit 32 bits
MOST_NORMALIZED = 65535  # channels: the sum of their squares fits 32 bits
MOST_EPSILON = 1 << 60  # under the root, which takes 62 bits
MOST_SCORE = 1 << 29  # of a score with its bias: differences, and those of masked keys, fit 32 bits
UNSEEN = 32.0  # a bias so far below the largest of its query is a mask: e^-32 of a weight, which only scores 21 apart could tell
COARSEST = 2.0  # scale of a normalised map: its factor is shifted by 31 bits at most


@dataclass(frozen=True)
class LayerNormParams:
    """`epsilon` in steps of 2^-12 of n^2 times the stored values' variance, at least one of them; the factor 1 / output scale."""

    epsilon: int
    multiplier: int
    shift: int
    output_zero_point: int


@dataclass(frozen=True)
class AttentionParams:
    """Factors from differences of scores to powers of 2 in steps of 2^-8, first difference that counts for nothing; from sums
    to outputs. What a stored bias is in units of scores, and the score of a masked key, which always counts for nothing."""

    score_multiplier: int
    score_shift: int
    least: int
    multiplier: int
    shift: int
    query_zero_point: int
    value_zero_point: int
    output_zero_point: int
    bias_step: int = 0
    masked: int = 0


def layer_norm_params(graph: Graph, op: LayerNorm) -> LayerNormParams:
    """Returns the integers of a layer normalisation. Raises ValueError for an output too coarse, or too many channels."""
    channels, result = graph.tensors[op.output].shape[2], quant_of(graph.tensors[op.output])
    scale = quant_of(graph.tensors[op.inputs[0]]).scale[0]
    require(channels <= MOST_NORMALIZED, f"{op.name}: normalises {channels} channels, at most {MOST_NORMALIZED}")
    coarse = f"{op.name}: its output is stored in steps of {result.scale[0]:.3g}, expected at most {COARSEST}"
    require(result.scale[0] <= COARSEST, f"{coarse}; check the calibration images")
    epsilon = max(1, round(min(op.epsilon * ((channels << fixedpoint.ROOT_BITS) / scale) ** 2, float(MOST_EPSILON))))
    return LayerNormParams(epsilon, *quantize_multiplier(1 / result.scale[0]), result.zero_point)


def attention_params(graph: Graph, op: Attention) -> AttentionParams:
    """Returns the integers of an attention. Raises ValueError for more keys or channels, or a larger bias, than its sums hold."""
    queries, keys, values, result = (quant_of(graph.tensors[name]) for name in (*op.inputs, op.output))
    rows, columns, channels = graph.tensors[op.inputs[1]].shape
    require(rows * columns <= MOST_KEYS, f"{op.name}: attends to {rows * columns} places, at most {MOST_KEYS}")
    require(channels // op.heads <= MOST_DEPTH, f"{op.name}: heads of {channels // op.heads} channels, at most {MOST_DEPTH}")
    require(op.scale >= 0, f"{op.name}: scores are scaled by {op.scale}, expected 0 or more")
    unit = queries.scale[0] * keys.scale[0] * op.scale
    score = unit * math.log2(math.e) * (1 << fixedpoint.POWER_BITS)
    multiplier, shift = quantize_multiplier(min(score, float(fixedpoint.INT32_MAX)))
    least = -(-(1 << (31 + 4 + fixedpoint.POWER_BITS - shift)) // max(multiplier, 1))  # a weight of 2^-16 is none
    least = -min(least if multiplier else fixedpoint.INT32_MAX, fixedpoint.INT32_MAX)
    own = quantize_multiplier(values.scale[0] / result.scale[0])
    found = AttentionParams(multiplier, shift, least, *own, queries.zero_point, values.zero_point, result.zero_point)
    if not op.bias:
        return found
    largest = channels // op.heads * 255 * 128 + 127 * op.bias_step
    small = f"{op.name}: its scores are in steps of {unit:.3g}, too small beside a bias in steps of {op.bias_step * unit:.3g}"
    require(largest < MOST_SCORE, f"{small}; check the calibration images, or leave the bias out of scores that hardly differ")
    least = max(least, -2 * largest - 1)  # which no difference of keys that are seen reaches
    return replace(found, least=least, bias_step=op.bias_step, masked=least - largest)


def quantized_bias(bias: Batch, unit: float) -> tuple[npt.NDArray[np.int8], int]:
    """Returns an attention's bias (heads, queries, keys) as its operator stores it, and how many steps of the scores, of `unit`,
    one of its own is: the fewest with which the widest row fits. Raises ValueError where scores are all 0 and the bias is not."""
    below = bias.max(axis=-1, keepdims=True) - bias
    seen = below < UNSEEN
    spread = float(below[seen].max())
    require(unit or not spread, "an attention scales its scores by 0 and adds a bias; take the mean that these weights are")
    step = math.ceil(spread / 254 / unit) if spread else 0
    stored = np.full(bias.shape, -128, np.int8)
    stored[seen] = 127 - np.minimum(np.rint(below[seen] / (step * unit)), 254) if step else 127
    return stored, step


def normalized(op: LayerNorm, images: Batch) -> Batch:
    """Returns the normalised map of reals."""
    centred = images - images.mean(axis=3, keepdims=True)
    return np.asarray(centred / np.sqrt((centred * centred).mean(axis=3, keepdims=True) + op.epsilon))


def normalized_int8(graph: Graph, op: LayerNorm, images: Batch) -> Batch:
    """Returns the normalised map of stored values."""
    p = layer_norm_params(graph, op)
    values = fixedpoint.layer_norm(images.astype(np.int64), p.epsilon, p.multiplier, p.shift)
    return fixedpoint.clamp_int8(values + p.output_zero_point)


def attended(graph: Graph, op: Attention, inputs: list[Batch]) -> Batch:
    """Returns the attention of queries, keys and values in reals."""
    queries, keys, values = (_heads(op, each) for each in inputs)
    scores = queries @ keys.transpose(0, 1, 3, 2) * op.scale + (graph.constants[op.bias] if op.bias else 0)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return _joined(weights @ values / weights.sum(axis=-1, keepdims=True), inputs[0])


def attended_int8(graph: Graph, op: Attention, inputs: list[Batch]) -> Batch:
    """Returns the attention of stored queries, keys and values.

    A key's zero point adds the same to all scores of a query, and only their differences count.
    """
    p = attention_params(graph, op)
    queries, keys, values = (_heads(op, each).astype(np.float64) for each in inputs)  # exact: sums stay below 2^53
    scores = ((queries - p.query_zero_point) @ keys.transpose(0, 1, 3, 2)).astype(np.int64)
    if op.bias:
        bias = graph.constants[op.bias].astype(np.int64)
        scores = np.where(bias == -128, p.masked, scores + bias * p.bias_step)
    weights = fixedpoint.attention_weights(scores, p.score_multiplier, p.score_shift, p.least)
    sums = (weights.astype(np.float64) @ (values - p.value_zero_point)).astype(np.int64)
    factors = fixedpoint.divided(p.multiplier, p.shift, weights.sum(axis=-1, keepdims=True))
    scaled = fixedpoint.multiply_by_quantized_multiplier(sums, *factors)
    return _joined(fixedpoint.clamp_int8(scaled + p.output_zero_point), inputs[0])


def extended(op: Extend, images: Batch, values: Batch) -> Batch:
    """Returns the places of maps one below another, amid constant ones."""
    own = images.reshape(len(images), -1, images.shape[3])
    before, behind = (np.broadcast_to(some, (len(images), *some.shape)) for some in (values[: op.before], values[op.before :]))
    return np.concatenate([before, own, behind], axis=1)[:, :, None]


def multiplied(op: MatMul, left: Batch, right: Batch) -> Batch:
    """Returns the maps of the products of matrices that lie in two maps."""
    sizes = (op.heads, op.rows, op.inner), (op.heads, op.inner, op.columns)
    found = [
        values.reshape(len(values), -1)[:, by[0] + np.tensordot(by[1:], np.indices(size), 1)]
        for values, by, size in zip((left, right), (op.left, op.right), sizes, strict=True)
    ]
    products = found[0] @ found[1]
    return (products.transpose(0, 2, 1, 3) if op.beside else products).reshape(len(left), *op.size, -1)


def _heads(op: Attention, images: Batch) -> Batch:
    """Returns (N, heads, tokens, channels of a head) of a map."""
    count, height, width, channels = images.shape
    return images.reshape(count, height * width, op.heads, channels // op.heads).transpose(0, 2, 1, 3)


def _joined(heads: Batch, queries: Batch) -> Batch:
    count, height, width, _ = queries.shape
    return heads.transpose(0, 2, 1, 3).reshape(count, height, width, -1)
