"""Every form against the interpreter, bit for bit: under sanitizers on this computer, and as machine code in the emulator.

A case is a layer with its weights, one of its forms, and an input. A hundred thousand of them and more: pytest -m sweep
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
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
from tinyredux.kernels import gemm, quads, winograd
from tinyredux.kernels.winograd.tile import Tile, largest_output, split_places, transformed

NEEDS_COMPILER = pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing")
FORMED = [kind for kind in KINDS if kind not in ("concat", "softmax")]  # these have no forms
BATCH = 25  # layers compiled together
PADDED = ("conv1x1s2:16-5@5x5", "conv3x3:8-5@7x5", "conv5x2s3:3-4@6x8", "depthwise1x3s2:6@9x7", "depthwise2x1s3:5@8x6")
NAMED = (
    "conv1x1:64-64@4x4",
    "conv1x1:7-5@3x3",  # neither channels nor pixels fit the blocks
    "conv1x1s2:16-6@5x5",
    "conv3x3:5-9@7x5",
    "conv5x5s2:3-4@9x9",
    "conv3x3:13-21@2x3",  # columns of an odd number of words
    "conv3x3:32-8@8x8",
    "conv3x3:8-5@7x5",  # tiles over both edges
    "conv2x2:4-3@5x5",
    "conv4x4:4-2@5x5",
    "conv7x5s3:13-2@20x17",
    "conv1x1:300-4@2x1",
    "conv1x1:20-6@7x5",  # quads: strips and groups that overlap, padded rounds
    "conv1x1:140-9@3x2",
)
EXTREME = (
    "dense:3000-6", "dense:1043-5", "depthwise7x7:5@9x8", "depthwise3x3s2:6@11x10", "conv5x5:12-6@9x8", "conv3x3:12-6@5x8",
    "conv5x5:24-3@5x5", "conv1x1:24-7@3x3", "conv1x1:64-8@3x4",
)  # fmt: skip
WEIGHTS: dict[str, Callable[[tuple[int, ...]], np.ndarray]] = {
    "highest": lambda shape: np.full(shape, 127),
    "lowest": lambda shape: np.full(shape, -127),
    "either": lambda shape: np.random.default_rng(5).choice([-127, 127], shape),
}
BEYOND = ((1, 1), (2, 5))  # rows or columns that the padding is wider than the window, before and after


def check_under_sanitizers(layers: Sequence[Layer], folder: Path, inputs: int = 1) -> list[Case]:
    """Fails unless every form writes the interpreter's bytes, without an access outside an array or undefined arithmetic."""
    cases = cases_of(layers, "cortex-m4")
    forms = HostForms(cases, folder)
    for i, case in enumerate(cases):
        for values in inputs_of(case.layer, inputs, 1):
            layer = replace(case.layer, inputs=values)
            written = forms.run(i, replace(case, layer=layer))
            np.testing.assert_array_equal(written, layer.expected(), err_msg=f"{case.form.name}: {layer.graph}")
    assert cases and forms.close() == ""
    return cases


def inputs_of(layer: Layer, count: int, seed: int) -> list[tuple[np.ndarray, ...]]:
    """Returns the layer's own inputs; both ends in turn, each alone, and as the signs of its weights are; then random ones."""
    rng = np.random.default_rng(seed)
    signs = layer.graph.constants.get(getattr(layer.op, "weights", ""), np.ones(1)) > 0
    highest = (lambda shape: np.indices(shape).sum(axis=0) % 2, np.zeros, np.ones, lambda shape: np.resize(signs, shape))
    found = [layer.inputs, *(tuple(np.where(at(v.shape), 127, -128) for v in layer.inputs) for at in highest)]
    for i in range(count - len(found)):
        draws = [rng.integers(-128, 128, v.shape) if i % 3 else rng.choice([-128, 127], v.shape) for v in layer.inputs]
        found.append(tuple(draws))
    return [tuple(values.astype(np.int8) for values in each) for each in found[:count]]


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


def layer_of(spec: str, weights: Callable[[tuple[int, ...]], np.ndarray] | None = None, seed: int = 0) -> Layer:
    """Returns a layer with an image of any values and, where asked for, with other weights."""
    graph = layer_graph(parse_spec(spec), seed)
    if weights:
        changed = weights(graph.constants["weights"].shape).astype(np.int8)
        graph = replace(graph, constants=graph.constants | {"weights": changed})
    return Layer(graph, (np.random.default_rng(seed).integers(-128, 128, graph.input.shape).astype(np.int8),))


def test_every_form_of_named_layers(tmp_path: Path) -> None:
    cases = check_under_sanitizers([layer_of(spec) for spec in NAMED], tmp_path, inputs=3)
    names = {case.form.name.rsplit("_", 1)[0] for case in cases}
    assert {"gemm_pointwise", "gemm_columns", "quads", "winograd", "rows"} <= names


def test_the_largest_sums_stay_exact(tmp_path: Path) -> None:
    """Weights and inputs at their ends overflow nothing."""
    check_under_sanitizers([layer_of(spec, weights) for spec in EXTREME for weights in WEIGHTS.values()], tmp_path, inputs=6)


def padded(spec: str, seed: int, padding: tuple[int, int, int, int]) -> Graph:
    """Returns the layer with other padding."""
    graph = layer_graph(parse_spec(spec), seed)
    op = replace(graph.ops[0], padding=padding)  # type: ignore[call-arg]
    output = replace(graph.output, shape=output_shape(graph, op))
    return replace(graph, ops=(op,), tensors=graph.tensors | {"output": output})


def wide_layers() -> list[Layer]:
    """Returns each layer with padding wider than its window: above and below, and all around."""
    found = []
    for seed, spec in enumerate(PADDED):
        rows, columns = parse_spec(spec).kernel
        for before, after in BEYOND:
            for y, x in ((1, 0), (1, 1)):
                sides = (y * (rows + before), y * (rows + after), x * (columns + after), x * (columns + before))
                found.append(replace(layer_of(spec, seed=seed), graph=padded(spec, seed, sides)))
    return found


def test_every_form_where_windows_see_no_pixel(tmp_path: Path) -> None:
    """Windows that lie wholly in the padding, which torch allows for convolutions."""
    cases = check_under_sanitizers(wide_layers(), tmp_path)
    assert {case.form.name.split("_")[0] for case in cases} >= {"gemm", "depthwise"}


def forms_of(spec: str, weights: str = "") -> list:
    graph = layer_of(spec, WEIGHTS.get(weights)).graph
    return [form for template in (gemm, winograd) for form in template.forms(graph, graph.ops[0], "cortex-m4")]


def test_where_forms_do_not_apply() -> None:
    assert not any(forms_of(spec) for spec in ("conv1x1:4-3@4x4", "conv1x1:8-8@1x1", "depthwise3x3:8@4x4"))
    assert not forms_of("conv1x1:700-4@2x2", "highest")  # 127 * 128 * 700 > 2^23


def test_quads_need_room_in_their_fields() -> None:
    for spec, count in (("conv1x1:64-8@4x4", 2), ("conv1x1:68-8@4x4", 0)):
        graph = layer_of(spec, WEIGHTS["highest"]).graph
        assert len(quads.forms(graph, graph.ops[0], "cortex-m7")) == count  # 64 * 127 < 8192 <= 68 * 127


def test_bounds_of_transformed_weights_and_outputs() -> None:
    values = transformed(Tile(6, 5), WEIGHTS["either"]((3, 5, 5, 4)))
    assert abs(values).max() <= 31 * 31 * 127 and set(split_places(values)) <= {21, 22, 27, 28}
    assert largest_output(WEIGHTS["highest"]((1, 3, 3, 2))) == 255 * 127 * 18
