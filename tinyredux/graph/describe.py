"""How much a graph multiplies."""

from __future__ import annotations

from tinyredux.files import expect
from tinyredux.graph.operators import Attention, Graph, MatMul, Op, Weighted


def macs(graph: Graph, op: Op) -> int:
    """Returns the multiply-accumulates of one operator's dense form."""
    height, width, channels = graph.tensors[op.output].shape
    if isinstance(op, Attention):
        rows, columns, depth = graph.tensors[op.inputs[1]].shape
        return height * width * rows * columns * (depth + channels)
    if isinstance(op, MatMul):
        return op.heads * op.rows * op.inner * op.columns
    if not isinstance(op, Weighted):
        return 0
    return height * width * int(graph.constants[op.weights].size)


def total_macs(graph: Graph) -> int:
    """Returns the multiply-accumulates of one inference. Chapter 1."""
    expect(Graph, graph, "the network", "such as compile_net(settings).int8")
    return sum(macs(graph, op) for op in graph.ops)
