"""The golden model: three layers whose generated C is committed and reviewed like code, and the sizes of its firmware.

Changed on purpose? `python tests/test_golden.py` writes tests/golden/ again; the diff belongs in a commit of its own.
PlatformIO builds this model where firmware/generated holds none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyredux.boards import find_board
from tinyredux.codegen import Artifact
from tinyredux.codegen.parts import emit_partial
from tinyredux.device import build
from tinyredux.device.host import HostTarget
from tinyredux.graph import Conv, Dense, Graph, Pool, Quant, Tensor
from tinyredux.int8 import interpret
from tinyredux.memory import place_reference

FOLDER = Path(__file__).resolve().parent / "golden" / "three_layers"
SIZES = FOLDER.parent / "sizes.json"
BOARDS = ("disco_f469ni", "nucleo_f746zg")


def graph() -> Graph:
    """Returns the network with weights from a generator, so that no training and no float arithmetic stands behind it."""
    random = np.random.default_rng(0)
    shapes = {
        "image": ((8, 8, 3), 64, 3), "map": ((8, 8, 4), 32, -128), "pooled": ((4, 4, 4), 32, -128), "scores": ((1, 1, 5), 16, -9)
    }  # fmt: skip
    tensors = {name: Tensor(name, shape, "int8", Quant((1 / steps,), zero)) for name, (shape, steps, zero) in shapes.items()}
    conv_scale, dense_scale = (1 / 256, 1 / 300, 1 / 350, 1 / 400), (1 / 300, 1 / 310, 1 / 320, 1 / 330, 1 / 340)
    ops = (
        Conv("conv1", ("image",), "map", "w1", "b1", "relu", conv_scale, (3, 3), (1, 1), (1, 1, 1, 1), 1),
        Pool("pool1", ("map",), "pooled", "max", (2, 2), (2, 2), (0, 0, 0, 0), "none"),
        Dense("dense1", ("pooled",), "scores", "w2", "b2", "none", dense_scale),
    )
    constants = {}
    for i, shape in ((1, (4, 3, 3, 3)), (2, (5, 64))):
        constants[f"w{i}"] = random.integers(-127, 128, shape).astype(np.int8)
        constants[f"b{i}"] = random.integers(-4000, 4001, shape[0]).astype(np.int32)
    return Graph("three_layers", ops, tensors, constants, ("image",), ("scores",))


def artifact() -> Artifact:
    return emit_partial(*place_reference(graph()), "python tests/test_golden.py")


def sizes() -> dict[str, Any]:
    found: dict[str, Any] = {"compiler": build.compiler_version(build.CROSS_COMPILER)}
    for name in BOARDS:
        firmware = build.build_firmware(FOLDER, find_board(name))
        found[name] = {key: getattr(firmware, f"{key}_bytes") for key in ("text", "rodata", "data", "bss")}
    return found


def test_generated_files_are_those_committed(tmp_path: Path) -> None:
    artifact().write(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(path.name for path in FOLDER.iterdir()), "python tests/test_golden.py"
    for name in names:
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), f"{name} changed; python tests/test_golden.py"


def test_its_c_gives_the_interpreters_bytes() -> None:
    images = np.random.default_rng(1).integers(-128, 128, (20, 8, 8, 3)).astype(np.int8)
    target, expected = HostTarget(build.build_host(FOLDER), (8, 8, 3), (1, 1, 5)), interpret.run(graph(), images)
    assert int(expected.max()) - int(expected.min()) > 50, "the golden model must not saturate"
    np.testing.assert_array_equal([target.run(image) for image in images], expected)


def test_sections_have_the_committed_sizes() -> None:
    committed = json.loads(SIZES.read_text())
    found = sizes()
    if found["compiler"] != committed["compiler"]:
        pytest.skip(f"sizes are of {committed['compiler']}, this is {found['compiler']}")
    assert found == committed, "the firmware grew or shrank; if that is meant: python tests/test_golden.py"


if __name__ == "__main__":
    artifact().write(FOLDER)
    SIZES.write_text(json.dumps(sizes(), indent=1) + "\n")
