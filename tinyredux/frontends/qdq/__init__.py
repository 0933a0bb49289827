"""Doors for networks that are quantised already: ONNX files, and torch programs of PT2E, both by quantize and dequantize pairs.

`network` is what both are read as; `operators` is the one table of what a float operator between such pairs becomes, with
`sums`, `moves` and the `views` of maps with channels first; `load` makes the graph of it.
"""

from __future__ import annotations

from tinyredux.frontends.qdq.load import graph_of
from tinyredux.frontends.qdq.network import Network, Node

__all__ = ["Network", "Node", "graph_of"]
