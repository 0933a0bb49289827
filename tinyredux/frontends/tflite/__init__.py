"""The door for .tflite files in int8: `load` makes the graph, one function per operator, of what `file` reads.

`call` is one operator of a file on its way into the graph, `moves` has those that move values or join neighbours, and `litert`
holds the graph beside LiteRT.
"""

from __future__ import annotations

from tinyredux.frontends.tflite.litert import compare_with_litert
from tinyredux.frontends.tflite.load import load_tflite, load_with_tensors

__all__ = ["compare_with_litert", "load_tflite", "load_with_tensors"]
