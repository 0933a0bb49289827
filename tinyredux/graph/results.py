"""The outputs of a network as one array, as they follow each other on the way from a board; and each by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyredux.graph.operators import Array


def joined(values: Mapping[str, Array], outputs: Sequence[str]) -> Array:
    """Returns the outputs of some images, each (N, H, W, C), as one array: an only one as it is, several as (N, 1, 1, values)."""
    if len(outputs) == 1:
        return values[outputs[0]]
    return np.concatenate([values[name].reshape(len(values[name]), 1, 1, -1) for name in outputs], axis=3)


def apart(values: Array, shapes: Sequence[tuple[int, ...]]) -> Any:
    """Returns what was joined, (..., H, W, C) or (..., 1, 1, values): as it is for one shape, for several a tuple of arrays."""
    if len(shapes) == 1:
        return values
    parts = np.split(values, np.cumsum([math.prod(shape) for shape in shapes])[:-1], axis=-1)
    return tuple(part.reshape(*values.shape[:-3], *shape) for part, shape in zip(parts, shapes, strict=True))
