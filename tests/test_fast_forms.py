"""Every form against the interpreter, bit for bit: under sanitizers on this computer, and as machine code in the emulator."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from form_cases import Case, CoreForms, HostForms, cases_of
from strategies import KINDS, random_layers

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
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7"])
def test_forms_as_machine_code(tmp_path: Path, kind: str, core: str) -> None:
    """The instructions compute what their C twins compute."""
    cases = cases_of(random_layers(kind, 25, seed=12), core)
    if not cases:
        pytest.skip(f"no form computes {kind}")
    check(CoreForms(cases, tmp_path, core), cases)
