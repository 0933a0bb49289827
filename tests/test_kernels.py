"""Every C kernel against the interpreter, bit for bit: with plain C, under sanitizers, and with the DSP instructions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import CoreKernels, HostKernels
from strategies import KINDS, Layer, layers, random_layers

SWEEP = 1000  # layers of each kind: 11,000 in all


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostKernels]:
    """The kernels of this computer."""
    kernels = HostKernels(tmp_path_factory.mktemp("host"))
    yield kernels
    kernels.close()


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostKernels]:
    """The same under AddressSanitizer and UndefinedBehaviorSanitizer."""
    kernels = HostKernels(tmp_path_factory.mktemp("sanitized"), sanitize=True)
    yield kernels
    assert kernels.close() == ""


@pytest.fixture(scope="module", params=["cortex-m4", "cortex-m7"])
def core(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CoreKernels:
    """The kernels with DSP instructions in the emulator."""
    return CoreKernels(tmp_path_factory.mktemp(request.param), request.param)


def check(kernels: HostKernels | CoreKernels, layer: Layer) -> None:
    """Fails unless kernel and interpreter write the same bytes."""
    np.testing.assert_array_equal(kernels.run(layer), layer.expected(), err_msg=str(layer.graph))


@settings(max_examples=200, deadline=None)
@given(layer=st.one_of([layers(kind) for kind in KINDS]))
def test_kernel_equals_interpreter(host: HostKernels, layer: Layer) -> None:
    """Hypothesis looks for a layer on which the two differ, and shrinks it."""
    check(host, layer)


@pytest.mark.parametrize("kind", KINDS)
def test_kernel_under_sanitizers(sanitized: HostKernels, kind: str) -> None:
    """No access outside an array, no undefined arithmetic, and the same bytes."""
    for layer in random_layers(kind, 100, seed=1):
        check(sanitized, layer)


@pytest.mark.parametrize("kind", KINDS)
def test_dsp_instructions(core: CoreKernels, kind: str) -> None:
    """SMLAD, SXTB16 and their kin compute what their plain C twins compute."""
    for layer in random_layers(kind, 40, seed=2):
        check(core, layer)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_sweep(host: HostKernels, kind: str) -> None:
    """A thousand layers of each kind."""
    for layer in random_layers(kind, SWEEP, seed=3):
        check(host, layer)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_sweep_under_sanitizers(sanitized: HostKernels, kind: str) -> None:
    """A thousand others under sanitizers."""
    for layer in random_layers(kind, SWEEP, seed=4):
        check(sanitized, layer)
