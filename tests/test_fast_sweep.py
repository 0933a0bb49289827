"""A hundred thousand random cases of the fast kernels, extreme weights and inputs among them, and not one wrong byte.

A case is a layer with its weights, one of its forms, and an input. The usual run takes a tenth of them; all of them:

    pytest -m sweep
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from form_cases import CPU_MODELS, Case, CoreForms, HostForms, cases_of
from strategies import KINDS, Layer, random_layers

from tinyredux.int8 import interpret

FORMED = tuple(kind for kind in KINDS if kind not in ("concat", "softmax", "trec", "trec_vectors"))  # these have no forms
BATCH = 25  # layers compiled together


def inputs_of(layer: Layer, count: int, seed: int) -> list[tuple[np.ndarray, ...]]:
    """Returns the layer's own inputs, both ends in turn, and `count` - 2 random ones: of all values, or of the ends."""
    rng = np.random.default_rng(seed)
    found = [layer.inputs]
    turns = [np.where(np.indices(values.shape).sum(axis=0) % 2, 127, -128) for values in layer.inputs]
    found.append(tuple(values.astype(np.int8) for values in turns))
    for i in range(count - 2):
        draws = [rng.integers(-128, 128, v.shape) if i % 3 else rng.choice([-128, 127], v.shape) for v in layer.inputs]
        found.append(tuple(values.astype(np.int8) for values in draws))
    return found


def sweep(layers: list[Layer], inputs: int, core: str, forms: type[HostForms] | type[CoreForms], folder: Path) -> int:
    """Returns how many cases were right; fails at the first that was not."""
    cases, right = cases_of(layers, core), 0
    folder.mkdir()
    if not cases:
        return 0
    running = HostForms(cases, folder, sanitize=False) if forms is HostForms else CoreForms(cases, folder, core)
    for seed, layer in enumerate(layers):
        drawn = inputs_of(layer, inputs, seed)
        stacks = [np.stack(values) for values in zip(*drawn, strict=True)]
        expected = interpret.run_op(layer.graph, layer.op, stacks)
        for number, case in enumerate(cases):
            if case.layer is not layer:
                continue
            for values, wanted in zip(drawn, expected, strict=True):
                written = running.run(number, Case(replace(layer, inputs=values), case.form))
                assert np.array_equal(written, wanted), f"{case.form.name}: {layer.graph}"
                right += 1
    return right


def sweep_kind(kind: str, layers: int, inputs: int, folder: Path) -> int:
    """Returns how many cases of one kind were right."""
    found = random_layers(kind, layers, seed=21)
    parts = [found[first : first + BATCH] for first in range(0, layers, BATCH)]
    return sum(sweep(part, inputs, "cortex-m4", HostForms, folder / f"{kind}{i}") for i, part in enumerate(parts))


def sweep_all(layers: int, inputs: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """Returns how many cases of all kinds were right, and prints it."""
    counts = {kind: sweep_kind(kind, layers, inputs, folder) for kind in FORMED}
    with capsys.disabled():
        print(f"\nright: {sum(counts.values())} {counts}")
    return sum(counts.values())


@pytest.mark.slow
def test_ten_thousand_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep_all(24, 30, tmp_path, capsys) >= 10_000


@pytest.mark.slow
@pytest.mark.sweep
def test_a_hundred_thousand_cases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep_all(100, 65, tmp_path, capsys) >= 100_000


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing")
@pytest.mark.parametrize("core", CPU_MODELS)
def test_a_sample_as_machine_code(core: str, tmp_path: Path) -> None:
    counts = [sweep(random_layers(kind, 14, seed=22), 10, core, CoreForms, tmp_path / kind) for kind in FORMED]
    assert sum(counts) >= 2000


@pytest.mark.slow
@pytest.mark.sweep
@pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing")
@pytest.mark.parametrize("core", CPU_MODELS)
def test_seventy_thousand_cases_as_machine_code(core: str, tmp_path: Path) -> None:
    """The real instructions of each core, on other layers than the twins'."""
    right = 0
    for kind in FORMED:
        layers = random_layers(kind, 150, seed=23 + list(CPU_MODELS).index(core))
        parts = [layers[first : first + BATCH] for first in range(0, len(layers), BATCH)]
        right += sum(sweep(part, 30, core, CoreForms, tmp_path / f"{kind}{i}") for i, part in enumerate(parts))
    assert right >= 70_000
