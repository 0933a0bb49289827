"""The host target: generated C of one-operator networks, compiled into a shared library, against the interpreter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from strategies import KINDS, random_layers

from tinyredux import memory
from tinyredux.codegen.parts import emit_partial
from tinyredux.device import build_host
from tinyredux.device.host import HostTarget


def load(kind: str, folder: Path) -> tuple[HostTarget, np.ndarray, np.ndarray]:
    """Returns a target with a random layer of one input, the input, and the output expected."""
    layer = next(layer for layer in random_layers(kind, 9, seed=6) if len(np.unique(layer.expected())) > 1)
    artifact = emit_partial(*memory.place_reference(layer.graph), "test")
    library = build_host(artifact.write(folder / "model"))
    target = HostTarget(library, layer.graph.input.shape, layer.graph.output.shape)
    return target, layer.inputs[0], layer.expected()


@pytest.mark.parametrize(
    "kind",
    [kind for kind in KINDS if kind not in ("add", "sub", "mul", "mul_vector", "mul_gate", "concat", "attention", "matmul")],
)
def test_generated_layer(kind: str, tmp_path: Path) -> None:
    """Parameters reach the kernel through the generated structs."""
    target, image, expected = load(kind, tmp_path)
    np.testing.assert_array_equal(target.run(image), expected)
    np.testing.assert_array_equal(target.run(image), expected)  # what it leaves in memory does no harm


def test_what_is_no_image_and_no_model(tmp_path: Path) -> None:
    """An image of another size would be written past the arena's end; a file that is no library, or has no model, is named."""
    target, image, _ = load("relu", tmp_path)
    for wrong in (image[..., :0], image.astype(np.int16)):
        with pytest.raises(ValueError, match="the network takes int8"):
            target.run(wrong)
    (tmp_path / "text.so").write_text("no library")
    for library in (tmp_path / "text.so", build_host(None)):
        with pytest.raises(ValueError, match="is no shared library of a generated model"):
            HostTarget(library, (1, 1, 1), (1, 1, 1))
