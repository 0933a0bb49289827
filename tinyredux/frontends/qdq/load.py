"""A quantised network becomes an int8 Graph, whichever door it came by."""

from __future__ import annotations

import re
from dataclasses import replace

from tinyredux.files import require
from tinyredux.frontends.qdq.network import Network, Node
from tinyredux.frontends.qdq.operators import DYNAMIC, FORMS, HANDLERS, as_float_operator
from tinyredux.frontends.qdq.values import Call, Constant, Loader, Pending, RefusedError, Stored, Value
from tinyredux.frontends.qdq.views import plain, shape_of
from tinyredux.graph import Graph, Quant, check_most, constant_names, verify
from tinyredux.int8 import SOFTMAX_OUTPUT


def graph_of(network: Network, where: str, name: str, quantise: str) -> tuple[Graph, Loader]:
    """Returns the int8 graph of a quantised network, and how it was built.

    `where` begins errors, `quantise` says what to do with a float network. Raises ValueError for one, and for operators that no
    kernel computes: all of them, each with its place and attributes.
    """
    kinds = {node.kind for node in network.nodes}
    require(
        not kinds & {*DYNAMIC}, f"{where} chooses its scales while running ({', '.join(sorted(kinds & {*DYNAMIC}))}); {quantise}"
    )
    require(kinds & {"QuantizeLinear", "DequantizeLinear", *FORMS}, f"{where} is a float network; {quantise}")
    name = re.sub(r"[^\w.+-]+", "_", name, flags=re.ASCII) or "net"
    try:
        output, loader = _built(network, name)
        widest = max(loader.input_quants, key=lambda quant: quant.scale[0])
        if widest != loader.input_quants[0]:  # what is stored first limits what others read
            output, loader = _built(network, name, widest)
    except RefusedError as wrong:
        raise ValueError(f"{where}: {wrong}") from None
    graph = _needed(replace(loader.graph, outputs=(output,)))
    for tensor in graph.tensors.values():
        check_most(name, max(tensor.shape), "rows, columns or channels", tensor.name)
        check_most(name, tensor.elements, "values", tensor.name)
    require(graph.ops, f"{where} has no operator that computes anything")
    verify(graph)
    return graph, loader


def _built(network: Network, name: str, *quants: Quant) -> tuple[str, Loader]:
    """Returns the tensor that the network gives, and the loader with the graph; `quants`: the input's, where it is known."""
    constants: dict[str, Value | None] = {name: Constant(one) for name, one in network.constants.items()}
    loader = Loader(network, Graph(name, (), {}, {}, ("input",), ()), constants, input_quants=[*quants])
    loader.values[network.input] = _input(loader)
    for node in network.nodes:
        _take(loader, node)
    if loader.refused:
        count = f"{len(loader.refused)} of {len(network.nodes)} operators"
        raise RefusedError(f"{count} are not supported:\n  " + "\n  ".join(loader.refused))
    return _output(loader), loader


def _input(loader: Loader) -> Pending:
    sizes = loader.network.sizes
    if not 1 <= len(sizes) <= 4 or (len(sizes) > 1 and sizes[0] != 1) or min(sizes) < 1:
        raise RefusedError(f"its input has shape {sizes}, expected (1, channels, height, width), (1, channels, n) or (1, n)")
    shape = shape_of(sizes)
    return loader.entry(shape, plain(shape, len(sizes)))


def _output(loader: Loader) -> str:
    """Returns the tensor that the network gives."""
    value = loader.values.get(loader.network.output)
    if isinstance(value, Pending) and value.function and value.function[1] == "softmax":
        return value.finish(SOFTMAX_OUTPUT, value.limits)
    if not isinstance(value, Stored):
        raise RefusedError(f"its output {loader.network.output} has no scale; quantise what computes it, too")
    shape = loader.shape(value)
    if value.view != plain(shape, len(value.view)) or any(value.padding):
        raise RefusedError(f"its output is a map of {shape}, flattened or transposed at the end; give the map itself")
    return value.tensor


def _needed(graph: Graph) -> Graph:
    """Returns the graph without operators that nobody reads."""
    needed, ops = {*graph.outputs}, []
    for op in reversed(graph.ops):
        if op.output in needed:
            needed.update(op.inputs)
            ops.append(op)
    ops.reverse()
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name in needed or name in graph.inputs}
    constants = {name: graph.constants[name] for op in ops for name in constant_names(op)}
    return graph.with_ops(ops, tensors=tensors, constants=constants, origin={op.name: graph.origin[op.name] for op in ops})


def _take(loader: Loader, node: Node) -> None:
    """Translates one node, or notes why it cannot be; what reads what that writes is then left out without a word."""
    values = tuple(loader.values.get(name) for name in node.inputs)
    unknown = any(name and loader.values.get(name) is None for name in node.inputs)
    loader.place = f"{node.place} ({node.kind})"
    try:
        if values and all(isinstance(value, Constant | None) for value in values) and not unknown and node.kind not in _OWN:
            given = [value.stored if isinstance(value, Constant) else None for value in values]
            results = loader.network.fold(node, given)
            loader.values.update((name, Constant(result)) for name, result in zip(node.outputs, results, strict=False))
            return
        call = Call(loader, node, node.kind, values)
        if node.kind not in FORMS and node.kind not in HANDLERS:
            raise RefusedError("no kernel computes it")
        if unknown:
            return
        call = as_float_operator(call)
        HANDLERS[call.kind](call)
    except (ValueError, KeyError, IndexError, TypeError) as wrong:
        said = f"its attributes or inputs lack {wrong}" if isinstance(wrong, KeyError | IndexError | TypeError) else str(wrong)
        loader.refused.append(f"{node}: {said}")


_OWN = ("QuantizeLinear", "DequantizeLinear")
