"""The door for ONNX files: an int8 network of ONNX Runtime's quantiser, in QDQ or in QOperator form, becomes an int8 Graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tinyredux.files import expect
from tinyredux.frontends.qdq import graph_of
from tinyredux.frontends.qdq.values import Loader
from tinyredux.graph import Graph

QUANTISE = (
    "quantise it with onnxruntime.quantization.quantize_static (weight_type QInt8), or bring the torch module itself: "
    "path/to/file.py:factory, tr.export"
)


def load_onnx(path: Path | str, rounding: str = "single") -> Graph:
    """Returns the int8 Graph of an ONNX file of a network in int8, in QDQ or in QOperator form.

    ONNX Runtime multiplies int32 sums by a float32 scale and rounds halves to even: `rounding` "single" does the same for
    convolutions and dense layers; `compare_with_onnxruntime` counts what differs elsewhere. Activations in uint8 are shifted to
    int8. A network that takes floats is read from behind its first QuantizeLinear on.
    Raises ImportError without the package `onnx`, ValueError for a file that is none or is damaged, for a float network, for
    several inputs or outputs, and for operators that no kernel computes: all of them, each with its place, name and attributes.
    Chapter 13.
    """
    expect(Path | str, path, "the network", "such as 'model.onnx'")
    return replace(load_with_names(Path(path))[0], rounding=rounding)


def load_with_names(path: Path) -> tuple[Graph, Loader]:
    """Returns the graph of `load_onnx`, and how it was built."""
    from tinyredux.frontends.qdq.onnx_file import network_of, read_model

    return graph_of(network_of(read_model(path), str(path)), str(path), path.stem, QUANTISE)
