"""Every form against the interpreter, bit for bit: under sanitizers on this computer, and as machine code in the emulator."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from form_cases import CPU_MODELS, Case, CoreForms, HostForms, cases_of
from strategies import KINDS, Layer, random_layers

from tinyredux.explore.bench import layer_graph, parse_spec

NEEDS_COMPILER = pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing")
FORMED = [kind for kind in KINDS if kind not in ("concat", "softmax")]


def check(forms: HostForms | CoreForms, cases: list[Case]) -> None:
    """Fails unless every form writes the interpreter's bytes."""
    for i, case in enumerate(cases):
        np.testing.assert_array_equal(forms.run(i, case), case.layer.expected(), err_msg=f"{case.form.name}: {case.layer.graph}")


@pytest.mark.parametrize("kind", FORMED)
def test_forms_under_sanitizers(tmp_path: Path, kind: str) -> None:
    """No access outside an array, no undefined arithmetic, and the interpreter's bytes."""
    cases = cases_of(random_layers(kind, 40, seed=11), "cortex-m4")
    if not cases:
        pytest.skip(f"no form computes {kind}")
    forms = HostForms(cases, tmp_path)
    check(forms, cases)
    assert forms.close() == ""


@NEEDS_COMPILER
@pytest.mark.parametrize("kind", FORMED)
@pytest.mark.parametrize("core", CPU_MODELS)
def test_twin_and_machine_code(tmp_path: Path, kind: str, core: str) -> None:
    """The instructions for a core and their C twin, in the order that the core gets, both write the interpreter's bytes."""
    cases = cases_of(random_layers(kind, 12, seed=12), core)
    if not cases:
        pytest.skip(f"no form computes {kind}")
    check(CoreForms(cases, tmp_path, core), cases)
    check(HostForms(cases, tmp_path, sanitize=False), cases)


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


@pytest.mark.parametrize("spec", ["dense:3000-6", "dense:1043-5", "depthwise7x7:5@9x8", "depthwise3x3s2:6@11x10"])
def test_the_largest_sums_stay_exact(tmp_path: Path, spec: str) -> None:
    """Weights and inputs at their ends overflow nothing."""
    cases = cases_of(adversarial(spec), "cortex-m4")
    forms = HostForms(cases, tmp_path)
    check(forms, cases)
    assert cases and forms.close() == ""
