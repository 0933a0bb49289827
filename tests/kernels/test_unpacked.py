"""Unpacked convolutions: the interpreter's bytes with and without zeros, no code for what is left out, bytes foreseen."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from form_cases import Case, CoreForms, HostForms
from strategies import Layer

from tinyredux.boards import find_board
from tinyredux.codegen import emit_steps
from tinyredux.device import build_firmware
from tinyredux.explore.bench import layer_graph, parse_spec
from tinyredux.graph import Graph
from tinyredux.kernels import choose, code_bytes, unpacked
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


def layer(spec: str, seed: int) -> Layer:
    graph = layer_graph(parse_spec(spec), seed)
    image = np.random.default_rng(seed).integers(-128, 128, graph.input.shape).astype(np.int8)
    return Layer(graph, (image,))


def cases(core: str) -> list[Case]:
    """Odd channels, pixels that do not divide by four, strides, padding, two inputs of four and three of a window."""
    cut = [
        with_zeros(layer(spec, i), unit, share, i)
        for i, spec in enumerate(("conv3x3:5-5@5x5", "conv3x2s2:3-4@7x6", "conv1x1:7-3@3x3"))
        for unit, share in (("pair", 0.0), ("pair", 0.5), ("block", 0.5), ("block", 1.0))
    ]
    return [Case(one, form.complete()) for one in cut for form in unpacked.forms(one.graph, one.op, core)]


def test_under_sanitizers(tmp_path: Path) -> None:
    found = cases("cortex-m4")
    forms = HostForms(found, tmp_path)
    for i, case in enumerate(found):
        np.testing.assert_array_equal(forms.run(i, case), case.layer.expected(), err_msg=str(case.layer.graph))
    assert forms.close() == "" and len(found) >= 12


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing")
def test_as_machine_code(tmp_path: Path) -> None:
    found = cases("cortex-m4")
    forms = CoreForms(found, tmp_path, "cortex-m4")
    for i, case in enumerate(found):
        np.testing.assert_array_equal(forms.run(i, case), case.layer.expected(), err_msg=str(case.layer.graph))


def small_layer(unit: str, share: float) -> Graph:
    graph = layer_graph(parse_spec("conv3x3:8-6@6x6"))
    weights = graph.constants["weights"]
    cut = cuts.cut_by_score(weights, cuts.magnitude_significance(weights, None, unit), unit, share)  # type: ignore[arg-type]
    left = np.where(cuts.weight_mask(weights, cut).reshape(weights.shape), weights, 0).astype(np.int8)
    return replace(graph, constants={**graph.constants, "weights": left})


def test_units_left_out_take_neither_cycles_nor_bytes() -> None:
    costs = {
        (unit, share): unpacked.forms(small_layer(unit, share), small_layer(unit, share).ops[0], "cortex-m4")[-1]
        for unit in ("pair", "block") for share in (0.0, 0.3, 0.6)
    }  # fmt: skip
    for unit in ("pair", "block"):
        dense, third, most = (costs[unit, share] for share in (0.0, 0.3, 0.6))
        assert dense.cycles > third.cycles > most.cycles and dense.flash_bytes > third.flash_bytes > most.flash_bytes
    assert costs["block", 0.6].cycles < costs["pair", 0.6].cycles  # its loads go too


@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing")
def test_flash_is_foreseen(tmp_path: Path) -> None:
    board, built, foreseen = find_board("disco_f469ni"), [], []
    for share in (0.0, 0.4):
        graph = small_layer("block", share)
        choice = choose(graph, board.cpu, templates=(unpacked.forms,))
        artifact = emit_steps(choice, "test")
        firmware = build_firmware(artifact.write(tmp_path / artifact.model_hash), board)
        built.append(firmware.text_bytes + firmware.rodata_bytes)
        foreseen.append(choice.form_of_operator["layer"].flash_bytes)
    assert abs(built[0] - built[1] - (foreseen[0] - foreseen[1])) < 0.05 * (foreseen[0] - foreseen[1])


def test_a_price_is_that_of_the_program() -> None:
    found = 0
    for spec, unit, share in (
        ("conv3x3:8-6@6x6", "block", 0.0), ("conv3x3:8-6@6x6", "pair", 0.7), ("conv5x5:96-2@4x4", "block", 0.97),
        ("conv1x1:7-3@3x3", "pair", 0.9), ("conv3x3:8-6@6x6", "block", 1.0), ("conv3x3:40-4@6x6", "input", 0.5),
    ):  # fmt: skip
        one = with_zeros(layer(spec, 1), unit, share, 1)
        words = unpacked.layer_of(one.graph, one.op)  # type: ignore[arg-type]
        assert words is not None
        for pair in range(len(words.a)):
            program = unpacked.product_function("layer", words, pair)
            for core, near in (("cortex-m4", 1e-9), ("cortex-m33", 1e-9), ("cortex-m7", 0.08)):
                cycles, bytes_ = unpacked.product_price(words, pair, core)
                assert bytes_ == code_bytes(program) and cycles == pytest.approx(function_cycles(program, core), rel=near)
            found += 1
        for form in unpacked.forms(one.graph, one.op, "cortex-m4"):
            assert form.flash_bytes == form.complete().flash_bytes
    assert found >= 12
