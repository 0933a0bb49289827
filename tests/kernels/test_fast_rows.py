"""Packed-product row convolution: its plan, the proof that no field overflows, and where it does not apply."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tinyredux.explore.bench import layer_graph, parse_spec
from tinyredux.graph import Conv
from tinyredux.int8 import requantization
from tinyredux.kernels.rows import template as rows
from tinyredux.kernels.rows.layer import OFFSET, rows_of, steps_of


@pytest.mark.parametrize("zero_point", [-128, -3, 127])
def test_a_chunk_is_as_long_as_the_worst_input_allows(zero_point: int) -> None:
    """Straight from the definition: over all chunks and channels, the largest and smallest middle field."""
    graph = layer_graph(parse_spec("conv5x5:24-3@9x9"))
    weights, bias = graph.constants["weights"], graph.constants["bias"]
    factors = replace(requantization(graph, graph.ops[0]), input_zero_point=zero_point)
    kernel = rows_of(rows.geometry_of(graph, graph.ops[0]), weights, bias, factors)
    assert kernel is not None and 0 < kernel.chunk < kernel.steps // kernel.unroll
    low, high = -128 - zero_point, 127 - zero_point
    steps = steps_of(weights, kernel).astype(np.int64)

    def extremes(length: int) -> tuple[int, int]:
        starts = range(0, kernel.steps - length * kernel.unroll + 1, kernel.unroll)
        chunks = np.stack([steps[:, start : start + length * kernel.unroll].reshape(len(steps), -1) for start in starts])
        ends = np.sort([chunks * low, chunks * high], axis=0).sum(axis=-1)
        return int(ends[1].max()), int(ends[0].min())

    largest, smallest = extremes(kernel.chunk)
    assert largest < OFFSET and smallest >= -OFFSET and kernel.most == max(largest, -smallest)
    largest, smallest = extremes(kernel.chunk + 1)
    assert largest >= OFFSET or smallest < -OFFSET


def test_layers_without_a_form() -> None:
    """One kernel column, rows in the padding alone, a requantisation with a left shift, a sum that could overflow."""
    graph = layer_graph(parse_spec("conv3x3:8-4@8x8"))
    op = graph.ops[0]
    assert isinstance(op, Conv) and rows.forms(graph, op, "cortex-m4")
    geometry = rows.geometry_of(graph, op)
    weights, bias, factors = graph.constants["weights"], graph.constants["bias"], requantization(graph, op)
    assert rows_of(replace(geometry, pad_top=3), weights, bias, factors) is None
    assert rows_of(geometry, weights, bias, replace(factors, shift=(2,) * 4)) is None
    assert rows_of(geometry, weights, bias + 2**30, factors) is None
    assert rows.forms(graph, replace(op, kernel=(3, 1)), "cortex-m4") == []
