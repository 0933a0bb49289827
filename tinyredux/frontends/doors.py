"""The kinds of files that hold an int8 network: how each is loaded, what rounding it has, and what it is held beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinyredux.frontends.layers import LayerDifference
from tinyredux.frontends.onnx_graph import load_onnx
from tinyredux.frontends.onnx_runtime import compare_with_onnxruntime
from tinyredux.frontends.tflite import compare_with_litert, load_tflite
from tinyredux.graph import Array, Graph


@dataclass(frozen=True)
class Door:
    """One kind of file: its loader, the rounding that its users expect, the runtime beside it and the comparison with that."""

    load: Callable[..., Graph]
    rounding: str
    runtime: str
    compare: Callable[[Path | str, Array, str], list[LayerDifference]]


DOORS = {  # by the file's ending, those of files.NETWORK_FILES
    ".tflite": Door(load_tflite, "double", "LiteRT", compare_with_litert),
    ".onnx": Door(load_onnx, "single", "ONNX Runtime", compare_with_onnxruntime),
}


def door_of(path: Path | str) -> Door:
    """Returns the door of a file that holds an int8 network, by its ending."""
    return DOORS[Path(path).suffix]
