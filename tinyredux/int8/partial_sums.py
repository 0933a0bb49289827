"""16-bit partial sums: half the bytes of 32-bit ones, for a rounding error at each slice.

A sum is kept as round(sum / 2^shift); the shift of each output channel is the least with which no sum can leave 16 bits,
whatever the input. Source: ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tinyredux.graph import Graph, Weighted
from tinyredux.int8.factors import requantization


def int16_shifts(graph: Graph, op: Weighted) -> npt.NDArray[np.int64]:
    """Returns one right shift per output channel of a convolution or dense layer."""
    zero_point = requantization(graph, op).input_zero_point
    farthest = max(127 - zero_point, zero_point + 128)
    weights = np.abs(graph.constants[op.weights].astype(np.int64))
    largest = np.abs(graph.constants[op.bias].astype(np.int64)) + farthest * weights.reshape(len(weights), -1).sum(axis=1)
    margin = 1024  # every slice rounds by up to one half
    return np.asarray(np.maximum(0, np.ceil(np.log2(largest / (32767 - margin)))), np.int64)
