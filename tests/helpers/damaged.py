"""Damaged copies of a file: cut off at a place, or with four bytes that are others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def damaged(whole: bytes, count: int) -> Iterator[bytes]:
    """Yields `count` damaged copies, bytes changed and cut off in turn, always the same."""
    rng = np.random.default_rng(0)
    for i in range(count):
        data = bytearray(whole)
        if i % 2:
            data = data[: int(rng.integers(len(data)))]
        else:
            for _ in range(4):
                data[int(rng.integers(len(data)))] = int(rng.integers(256))
        yield bytes(data)
