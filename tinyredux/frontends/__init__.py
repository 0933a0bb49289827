"""Doors for networks: a torch module becomes a float Graph that is checked against the module itself, a .tflite or ONNX file an
int8 one.

`torch_export.export` is the door for modules; `operators` translates each operator or refuses it in words, `builder` collects
the graph. `tflite` is the door for .tflite files. `qdq` is how networks with quantize and dequantize pairs are read,
`onnx_graph.load_onnx` their door for ONNX files, `onnx_runtime` what holds it beside ONNX Runtime, `pt2e` their door for torch;
`doors` is the table of files.
"""

from __future__ import annotations

from tinyredux.frontends.builder import Builder, arguments
from tinyredux.frontends.doors import DOORS, Door, door_of
from tinyredux.frontends.layers import LayerDifference
from tinyredux.frontends.onnx_graph import load_onnx
from tinyredux.frontends.onnx_runtime import compare_with_onnxruntime
from tinyredux.frontends.tflite import compare_with_litert, load_tflite, load_with_tensors
from tinyredux.frontends.torch_export import export, export_with_names

__all__ = [
    "DOORS", "Builder", "Door", "LayerDifference", "arguments", "compare_with_litert", "compare_with_onnxruntime", "door_of",
    "export", "export_with_names", "load_onnx", "load_tflite", "load_with_tensors",
]  # fmt: skip
