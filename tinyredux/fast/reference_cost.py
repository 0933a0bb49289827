"""What the reference kernels cost, predicted from an operator's shape."""

from __future__ import annotations

from tinyredux.graph import Graph, Op


def reference_cycles(graph: Graph, op: Op, core: str) -> float:
    """Returns the predicted cycles of an operator's reference kernel on a core, without flash stalls."""
    return float("inf")
