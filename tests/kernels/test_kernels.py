"""Every C kernel against the interpreter, bit for bit: plain C under sanitizers, and with the DSP instructions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_calls import CoreKernels, HostKernels
from strategies import KINDS, Layer, assert_same, layers, random_layers

from tinyredux.graph import Conv, Graph, Softmax, Tensor
from tinyredux.int8.factors import SOFTMAX_OUTPUT
from tinyredux.int8.quantization import quant_from_range


@pytest.fixture(scope="module")
def sanitized() -> Iterator[HostKernels]:
    """The kernels of this computer, under AddressSanitizer and UndefinedBehaviorSanitizer."""
    kernels = HostKernels()
    yield kernels
    assert kernels.close() == ""


@pytest.fixture(scope="module", params=["cortex-m4", "cortex-m7"])
def core(request: pytest.FixtureRequest) -> CoreKernels:
    """The kernels with DSP instructions in the emulator."""
    return CoreKernels(request.param)


def check(kernels: HostKernels | CoreKernels, layer: Layer) -> None:
    """Fails unless kernel and interpreter write the same bytes; of a convolution also the kernels of partial execution."""
    for operator in ("", "direct", "add_s32") if type(layer.op) is Conv and layer.op.groups == 1 else ("",):
        assert_same(kernels.run(layer, operator), layer.expected(), layer, operator)


@settings(max_examples=100, deadline=None)
@given(layer=st.one_of([layers(kind) for kind in KINDS]))
def test_kernel_equals_interpreter(sanitized: HostKernels, layer: Layer) -> None:
    """Hypothesis looks for a layer on which the two differ, and shrinks it."""
    check(sanitized, layer)


@pytest.mark.parametrize("seeds", [(1, 100), pytest.param((3, 2000), marks=pytest.mark.sweep)], ids=["few", "many"])
@pytest.mark.parametrize("kind", KINDS)
def test_kernel_under_sanitizers(sanitized: HostKernels, kind: str, seeds: tuple[int, int]) -> None:
    """No access outside an array, no undefined arithmetic, and the same bytes."""
    for layer in random_layers(kind, seeds[1], seeds[0]):
        check(sanitized, layer)


def test_softmax_over_a_thousand_equal_values(sanitized: HostKernels) -> None:
    """The sum passes 512, where LiteRT's reference stops."""
    tensors = {"in": Tensor("in", (2, 1, 1000), "int8", quant_from_range(-1.0, 1.0))}
    tensors["out"] = Tensor("out", (2, 1, 1000), "int8", SOFTMAX_OUTPUT)
    graph = Graph("wide", (Softmax("softmax1", ("in",), "out"),), tensors, {}, ("in",), ("out",))
    check(sanitized, Layer(graph, (np.full((2, 1, 1000), 17, np.int8),)))


@pytest.mark.parametrize("kind", KINDS)
def test_dsp_instructions(core: CoreKernels, kind: str) -> None:
    """SMLAD, SXTB16 and their kin compute what their plain C twins compute."""
    for layer in random_layers(kind, 40, seed=2):
        check(core, layer)
