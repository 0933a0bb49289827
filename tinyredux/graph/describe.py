"""How much a graph multiplies."""

from __future__ import annotations

from tinyredux.files import expect
from tinyredux.graph.operators import Graph, Op, Weighted


def macs(graph: Graph, op: Op) -> int:
    """Returns the multiply-accumulates of one operator's dense form."""
    if not isinstance(op, Weighted):
        return 0
    height, width, _ = graph.tensors[op.output].shape
    return height * width * int(graph.constants[op.weights].size)


def total_macs(graph: Graph) -> int:
    """Returns the multiply-accumulates of one inference. Chapter 1."""
    expect(Graph, graph, "the network", "such as compile_net(settings).int8")
    return sum(macs(graph, op) for op in graph.ops)
