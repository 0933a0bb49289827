"""Every form against the interpreter, bit for bit: under sanitizers on this computer, and as machine code in the emulator.

A case is a layer with its weights, one of its forms, and an input. A hundred thousand of them and more: pytest -m sweep
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from form_cases import Case, CoreForms, HostForms, cases_of
from generated import CPU_MODELS
from strategies import KINDS, Layer, random_layers

from tinyredux.explore.bench import layer_graph, parse_spec
from tinyredux.graph import Graph, output_shape
from tinyredux.int8 import interpret

NEEDS_COMPILER = pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing")
FORMED = [kind for kind in KINDS if kind not in ("concat", "softmax")]  # these have no forms
BATCH = 25  # layers compiled together
PADDED = ("conv1x1s2:16-5@5x5", "conv3x3:8-5@7x5", "conv5x2s3:3-4@6x8", "depthwise1x3s2:6@9x7", "depthwise2x1s3:5@8x6")
BEYOND = ((1, 1), (2, 5))  # rows or columns that the padding is wider than the window, before and after


def check_under_sanitizers(layers: Sequence[Layer], folder: Path) -> list[Case]:
    """Fails unless every form writes the interpreter's bytes, without an access outside an array or undefined arithmetic."""
    cases = cases_of(layers, "cortex-m4")
    forms = HostForms(cases, folder)
    for i, case in enumerate(cases):
        np.testing.assert_array_equal(forms.run(i, case), case.layer.expected(), err_msg=f"{case.form.name}: {case.layer.graph}")
    assert cases and forms.close() == ""
    return cases


def inputs_of(layer: Layer, count: int, seed: int) -> list[tuple[np.ndarray, ...]]:
    """Returns the layer's own inputs, both ends in turn, and `count` - 2 random ones: of all values, or of the ends."""
    rng = np.random.default_rng(seed)
    found = [layer.inputs, tuple(np.where(np.indices(v.shape).sum(axis=0) % 2, 127, -128).astype(np.int8) for v in layer.inputs)]
    for i in range(count - 2):
        draws = [rng.integers(-128, 128, v.shape) if i % 3 else rng.choice([-128, 127], v.shape) for v in layer.inputs]
        found.append(tuple(values.astype(np.int8) for values in draws))
    return found


def sweep(layers: list[Layer], inputs: int, core: str, kinds: Sequence[str], folder: Path) -> int:
    """Returns how many cases were right as twins ("host") or as machine code ("core"); fails at the first that was not."""
    cases, right = cases_of(layers, core), 0
    folder.mkdir()
    running = [HostForms(cases, folder, sanitize=False) if kind == "host" else CoreForms(cases, folder, core) for kind in kinds]
    for seed, layer in enumerate(layers):
        drawn = inputs_of(layer, inputs, seed)
        expected = interpret.run_op(layer.graph, layer.op, [np.stack(values) for values in zip(*drawn, strict=True)])
        for number, case in enumerate(cases):
            for values, wanted in zip(drawn, expected, strict=True) if case.layer is layer else ():
                for forms in running:
                    written = forms.run(number, Case(replace(layer, inputs=values), case.form))
                    assert np.array_equal(written, wanted), f"{case.form.name}: {layer.graph}"
                    right += 1
    return right


@pytest.mark.parametrize("kind", FORMED)
def test_forms_under_sanitizers(tmp_path: Path, kind: str) -> None:
    check_under_sanitizers(random_layers(kind, 16, seed=11), tmp_path)


@pytest.mark.slow
@NEEDS_COMPILER
@pytest.mark.parametrize("core", CPU_MODELS)
def test_twin_and_machine_code(core: str, tmp_path: Path) -> None:
    """The instructions for a core and their C twin, in the order that the core gets."""
    layers = [layer for kind in FORMED for layer in random_layers(kind, 4, seed=22)]
    assert sweep(layers, 8, core, ("host", "core"), tmp_path / core) >= 600


@pytest.mark.sweep
def test_a_hundred_thousand_twins(tmp_path: Path) -> None:
    layers = [layer for kind in FORMED for layer in random_layers(kind, 100, seed=21)]
    parts = [layers[first : first + BATCH] for first in range(0, len(layers), BATCH)]
    assert sum(sweep(part, 65, "cortex-m4", ("host",), tmp_path / str(i)) for i, part in enumerate(parts)) >= 100_000


@pytest.mark.sweep
@NEEDS_COMPILER
@pytest.mark.parametrize("core", CPU_MODELS)
def test_seventy_thousand_cases_as_machine_code(core: str, tmp_path: Path) -> None:
    """On other layers than the twins'."""
    layers = [layer for kind in FORMED for layer in random_layers(kind, 150, seed=23 + list(CPU_MODELS).index(core))]
    parts = [layers[first : first + BATCH] for first in range(0, len(layers), BATCH)]
    assert sum(sweep(part, 30, core, ("core",), tmp_path / str(i)) for i, part in enumerate(parts)) >= 70_000


def adversarial(spec: str) -> list[Layer]:
    """Returns a layer with weights of +-127 and inputs of -128 or 127, all alike, in turn and at random."""
    graph = layer_graph(parse_spec(spec))
    shape, rng = graph.constants["weights"].shape, np.random.default_rng(3)
    found = []
    for signs in (np.ones(shape), -np.ones(shape), rng.choice([-1, 1], shape)):
        for values in (-128, 127, None):
            ends = np.array([-128, 127])
            image = rng.choice(ends, graph.input.shape) if values is None else np.full(graph.input.shape, values)
            extreme = replace(graph, constants={**graph.constants, "weights": (127 * signs).astype(np.int8)})
            found.append(Layer(extreme, (image.astype(np.int8),)))
    return found


def test_the_largest_sums_stay_exact(tmp_path: Path) -> None:
    """Weights and inputs at their ends overflow nothing."""
    specs = ("dense:3000-6", "dense:1043-5", "depthwise7x7:5@9x8", "depthwise3x3s2:6@11x10")
    check_under_sanitizers([layer for spec in specs for layer in adversarial(spec)], tmp_path)


def padded(spec: str, seed: int, padding: tuple[int, int, int, int]) -> Graph:
    """Returns the layer with other padding."""
    graph = layer_graph(parse_spec(spec), seed)
    op = replace(graph.ops[0], padding=padding)  # type: ignore[call-arg]
    output = replace(graph.output, shape=output_shape(graph, op))
    return replace(graph, ops=(op,), tensors=graph.tensors | {"output": output})


def wide_layers() -> list[Layer]:
    """Returns each layer with padding wider than its window: above and below, and all around."""
    found, rng = [], np.random.default_rng(0)
    for seed, spec in enumerate(PADDED):
        rows, columns = parse_spec(spec).kernel
        for before, after in BEYOND:
            for y, x in ((1, 0), (1, 1)):
                sides = (y * (rows + before), y * (rows + after), x * (columns + after), x * (columns + before))
                graph = padded(spec, seed, sides)
                found.append(Layer(graph, (rng.integers(-128, 128, graph.input.shape).astype(np.int8),)))
    return found


def test_every_form_where_windows_see_no_pixel(tmp_path: Path) -> None:
    """Windows that lie wholly in the padding, which torch allows for convolutions."""
    cases = check_under_sanitizers(wide_layers(), tmp_path)
    assert {case.form.name.split("_")[0] for case in cases} >= {"gemm", "depthwise"}
