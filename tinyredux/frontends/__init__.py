"""Doors for networks: a torch module becomes a float Graph that is checked against the module itself.

`torch_export.export` is the door; `operators` translates each operator or refuses it in words, `builder` collects the graph.
"""

from __future__ import annotations

from tinyredux.frontends.builder import Builder, arguments
from tinyredux.frontends.torch_export import export, export_with_names

__all__ = ["Builder", "arguments", "export", "export_with_names"]
