"""The constants that operators name, and parts of them."""

from __future__ import annotations

from tinyredux.graph.operators import (
    AddConstant,
    Array,
    Attention,
    Dense,
    DepthwiseConv,
    Extend,
    Graph,
    Op,
    TrecConv,
    Weighted,
)


def constant_names(op: Op) -> tuple[str, ...]:
    """Returns the names of an operator's constants."""
    if not isinstance(op, Weighted):
        held = op.values if isinstance(op, AddConstant | Extend) else op.bias if isinstance(op, Attention) else ""
        return (held,) if held else ()
    return (op.weights, op.bias, op.vectors) if isinstance(op, TrecConv) and op.vectors else (op.weights, op.bias)


def weights_of(graph: Graph, op: Weighted, out_c: tuple[int, int], in_c: tuple[int, int] | None = None) -> Array:
    """Returns the weights of some output channels and, for Conv and Dense, of a slice of the input channels."""
    weights = graph.constants[op.weights]
    if isinstance(op, DepthwiseConv):
        return weights[..., out_c[0] : out_c[1]]
    weights, channels = weights[out_c[0] : out_c[1]], slice(*in_c) if in_c else slice(None)
    if isinstance(op, Dense):
        maps = weights.reshape(len(weights), -1, graph.tensors[op.inputs[0]].shape[2])
        return maps[..., channels].reshape(len(weights), -1)
    return weights[..., channels]
