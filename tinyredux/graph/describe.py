"""A graph as text, and how much it multiplies."""

from __future__ import annotations

from tinyredux.files import expect
from tinyredux.graph.operators import Graph, Op, Weighted

DETAILS = (
    "kind", "kernel", "stride", "padding", "dilation", "groups", "multiplier", "activation", "sub_length", "hash_bits",
    "threshold", "function", "parameters", "subtract",
)  # fmt: skip
UNDILATED = ("dilation", (1, 1))  # goes without saying


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


def to_text(graph: Graph) -> str:
    """Returns the graph as text, one line an operator. Chapter 1."""
    expect(Graph, graph, "what to print", "such as compile_net(settings).int8")
    lines = [f"graph {graph.name}: {graph.input.name} {graph.input.shape} {graph.input.dtype}"]
    for op in graph.ops:
        detail = [f"{key}={getattr(op, key)}" for key in DETAILS if hasattr(op, key) and (key, getattr(op, key)) != UNDILATED]
        lines.append(f"  {op.output} {graph.tensors[op.output].shape} = {type(op).__name__}({', '.join((*op.inputs, *detail))})")
    lines += [f"  outputs {', '.join(graph.outputs)}"] if len(graph.outputs) > 1 else []
    return "\n".join(lines)
