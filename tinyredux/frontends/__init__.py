"""Doors for networks: a torch module becomes a float Graph that is checked against the module itself, a .tflite file an int8 one.

`torch_export.export` is the door for modules; `operators` translates each operator or refuses it in words, `builder` collects
the graph. `tflite_graph.load_tflite` is the door for files, which `tflite_file` reads; `tflite_moves` has their operators that
move values or join neighbours, and `litert` holds the graph beside LiteRT.
"""

from __future__ import annotations

from tinyredux.frontends.builder import Builder, arguments
from tinyredux.frontends.litert import LayerDifference, compare_with_litert
from tinyredux.frontends.tflite_graph import load_tflite, load_with_tensors
from tinyredux.frontends.torch_export import export, export_with_names

__all__ = [
    "Builder",
    "LayerDifference",
    "arguments",
    "compare_with_litert",
    "export",
    "export_with_names",
    "load_tflite",
    "load_with_tensors",
]
