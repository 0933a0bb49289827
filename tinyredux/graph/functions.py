"""The functions that an operator applies to each value by itself: their names, their numbers and what they are over the reals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyredux.files import require

Reals = npt.NDArray[np.floating[Any]]
_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True)
class Function:
    """A function of one real number: the names of its parameters, and what it is."""

    parameters: tuple[str, ...]
    of: Callable[..., Reals]


def _sigmoid(x: Reals) -> Reals:
    small = np.exp(-np.abs(x))  # never overflows
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


# A sum, difference or product of which one side is a constant, as it is stored, and the activation's limits.
CONSTANT = ("scale", "zero_point", "stored", "low", "high")
FUNCTIONS: dict[str, Function] = {
    "identity": Function((), lambda x: x),
    "clamp": Function(("low", "high"), np.clip),
    "affine": Function(("factor", "constant"), lambda x, factor, constant: factor * x + constant),
    "plus": Function(CONSTANT, lambda x, scale, zero, stored, low, high: np.clip(x + scale * (stored - zero), low, high)),
    "less": Function(CONSTANT, lambda x, scale, zero, stored, low, high: np.clip(x - scale * (stored - zero), low, high)),
    "times": Function(CONSTANT, lambda x, scale, zero, stored, low, high: np.clip(x * scale * (stored - zero), low, high)),
    "abs": Function((), np.abs),
    "square": Function((), np.square),
    "exp": Function((), np.exp),
    "sigmoid": Function((), _sigmoid),
    "tanh": Function((), np.tanh),
    "hardsigmoid": Function((), lambda x: np.clip(x + 3, 0, 6) / 6),
    "hardswish": Function((), lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "silu": Function((), lambda x: x * _sigmoid(x)),
    "mish": Function((), lambda x: x * np.tanh(np.logaddexp(0, x))),
    "softplus": Function(("beta",), lambda x, beta: np.logaddexp(0, beta * x) / beta),
    "gelu": Function((), lambda x: x * (0.5 + 0.5 * _erf(x / math.sqrt(2)))),
    "gelu_tanh": Function((), lambda x: x * (0.5 + 0.5 * np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
    "leaky_relu": Function(("slope",), lambda x, slope: np.where(x >= 0, x, slope * x)),
    "elu": Function(
        ("alpha", "scale", "input_scale"),
        lambda x, alpha, scale, input_scale: scale * np.where(x > 0, x, alpha * np.expm1(input_scale * np.minimum(x, 0))),
    ),
}


def apply(function: str, parameters: tuple[float, ...], values: Reals) -> Reals:
    """Returns a function of FUNCTIONS of each value, in float64."""
    return np.asarray(FUNCTIONS[function].of(np.asarray(values, np.float64), *parameters))


def check_function(where: str, function: str, parameters: tuple[float, ...]) -> None:
    """Raises ValueError for a function that does not exist, or that takes other parameters."""
    require(function in FUNCTIONS, f"{where}: function {function!r}, expected one of {', '.join(FUNCTIONS)}")
    names = FUNCTIONS[function].parameters
    fits = len(parameters) == len(names) and not any(math.isnan(value) for value in parameters)
    require(fits, f"{where}: {function} of the parameters {parameters}, expected {len(names)} numbers {names}")
