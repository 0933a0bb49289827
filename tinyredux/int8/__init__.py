"""Integer inference: how a float graph is quantised, and what its int8 operators compute.

`quantization` chooses scales and zero points from calibration images, `factors` the integer multipliers that follow from them,
`lookup` the tables of functions of one value, `bilinear` how maps are resized, `constant_channels` which channels hold one value.
`interpret` is the definition of every operator in NumPy, the oracle that all generated C is compared with. `evaluator` computes
the same bytes fast on torch tensors, for thousands of images. Chapter 2 teaches it.
"""

from __future__ import annotations

from tinyredux.int8 import bilinear, interpret
from tinyredux.int8.constant_channels import fold_constant_channels
from tinyredux.int8.factors import (
    ADD_LEFT_SHIFT,
    SOFTMAX_OUTPUT,
    AddParams,
    Clamp,
    Requantization,
    add_params,
    clamp_for,
    clamp_of,
    int16_shifts,
    mean_params,
    mul_params,
    quant_of,
    requantization,
    softmax_params,
)
from tinyredux.int8.interpret import run
from tinyredux.int8.lookup import table_of
from tinyredux.int8.quantization import quantize
from tinyredux.int8.tokens import AttentionParams, attention_params, layer_norm_params

__all__ = [
    "ADD_LEFT_SHIFT", "SOFTMAX_OUTPUT", "AddParams", "AttentionParams", "Clamp", "Requantization", "add_params",
    "attention_params", "bilinear",
    "clamp_for", "clamp_of", "evaluator", "fold_constant_channels", "int16_shifts", "interpret", "layer_norm_params",
    "mean_params", "mul_params", "quant_of", "quantize", "requantization", "run", "softmax_params", "table_of",
]  # fmt: skip
