"""Unpacked convolutions: the interpreter's bytes with and without zeros, no code for what is left out, bytes foreseen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compiled import NEEDS_COMPILER
from form_cases import Case, right_cases
from strategies import Layer, named_layer

from tinyredux.kernels import Form, code_bytes, unpacked
from tinyredux.kernels.asm.cost import function_cycles
from tinyredux.skip import cuts


def with_zeros(layer: Layer, unit: str, share: float, seed: int) -> Layer:
    """Returns the layer with random units of its weights zero."""
    op = layer.op
    weights = layer.graph.constants[op.weights]  # type: ignore[attr-defined]
    scores = np.random.default_rng(seed).random(cuts.nonzero_units(weights, unit).shape)
    mask = cuts.weight_mask(weights, cuts.cut_by_score(weights, scores, unit, share))
    left = np.where(mask.reshape(weights.shape), weights, 0).astype(np.int8)
    constants = {**layer.graph.constants, op.weights: left}  # type: ignore[attr-defined]
    return replace(layer, graph=replace(layer.graph, constants=constants))


@pytest.mark.parametrize("kind", ["sanitized", pytest.param("core", marks=NEEDS_COMPILER)])
def test_every_form(kind: str, tmp_path: Path) -> None:
    """Odd channels, pixels that do not divide by four, strides, padding, two inputs of four and three of a window."""
    cut = [
        with_zeros(named_layer(spec, seed=i), unit, share, i)
        for i, spec in enumerate(("conv3x3:5-5@5x5", "conv3x2s2:3-4@7x6", "conv1x1:7-3@3x3"))
        for unit, share in (("pair", 0.0), ("pair", 0.5), ("block", 0.5), ("block", 1.0))
    ]
    cases = [Case(one, form.complete()) for one in cut for form in unpacked.forms(one.graph, one.op, "cortex-m4")]
    assert right_cases(cases, 1, tmp_path, kinds=kind) >= 12


def test_units_left_out_take_neither_cycles_nor_bytes() -> None:
    def largest(unit: str, share: float) -> Form:
        one = with_zeros(named_layer("conv3x3:8-6@6x6"), unit, share, 0)
        return unpacked.forms(one.graph, one.op, "cortex-m4")[-1]

    for unit in ("pair", "block"):
        dense, third, most = (largest(unit, share) for share in (0.0, 0.3, 0.6))
        assert dense.cycles > third.cycles > most.cycles and dense.flash_bytes > third.flash_bytes > most.flash_bytes
    assert largest("block", 0.6).cycles < largest("pair", 0.6).cycles  # its loads go too


def test_a_price_is_that_of_the_program() -> None:
    found = 0
    for spec, unit, share in (
        ("conv3x3:8-6@6x6", "block", 0.0), ("conv3x3:8-6@6x6", "pair", 0.7), ("conv5x5:96-2@4x4", "block", 0.97),
        ("conv1x1:7-3@3x3", "pair", 0.9), ("conv3x3:8-6@6x6", "block", 1.0), ("conv3x3:40-4@6x6", "input", 0.5),
    ):  # fmt: skip
        one = with_zeros(named_layer(spec, seed=1), unit, share, 1)
        pairs = unpacked.pairs_of(one.graph, one.op)  # type: ignore[arg-type]
        for pair in pairs:
            program = unpacked.product_function("layer", pair)
            for core, near in (("cortex-m4", 1e-9), ("cortex-m33", 1e-9), ("cortex-m7", 0.08)):
                cycles, bytes_ = unpacked.product_price(pair, core)
                assert bytes_ == code_bytes(program) and cycles == pytest.approx(function_cycles(program, core), rel=near)
            found += 1
        for form in unpacked.forms(one.graph, one.op, "cortex-m4"):
            assert form.flash_bytes == form.complete().flash_bytes
    assert found >= 12
