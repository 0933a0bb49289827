"""Depthwise convolution: `planes` for maps of many windows, `window` for a map that is one window."""

from __future__ import annotations

from tinyredux.graph import Graph, Op
from tinyredux.kernels.asm.forms import Form
from tinyredux.kernels.depthwise import planes, window

__all__ = ["forms", "planes", "window"]


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns the forms of a depthwise convolution, none for another operator."""
    return [*window.forms(graph, op, core), *planes.forms(graph, op, core)]
