"""The rules that a graph keeps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tinyredux.files import expect, require
from tinyredux.graph.constants import constant_names
from tinyredux.graph.operators import Array, Attention, Graph, Op, Weighted
from tinyredux.graph.shapes import output_shape


def verify(graph: Graph) -> None:
    """Checks names, order, shapes and constants. Raises ValueError naming what is wrong and where. Chapter 3."""
    expect(Graph, graph, "what to verify", "such as compile_net(settings).int8")
    ready = set(graph.inputs)
    for name, tensor in graph.tensors.items():
        if name != tensor.name or len(tensor.shape) != 3 or min(tensor.shape) < 1:
            raise ValueError(f"tensor {name}: shape {tensor.shape}, expected three positive sizes (height, width, channels)")
    for op in graph.ops:
        for name in op.inputs:
            require(name in ready, f"{op.name}: reads {name} before any operator writes it")
        require(op.output not in ready, f"{op.name}: writes {op.output} a second time")
        missing = [name for name in (op.output, *getattr(op, "state", "").split()) if name not in graph.tensors]
        require(not missing, f"{op.name}: tensor {', '.join(missing)} is missing")
        for name in constant_names(op):
            require(name in graph.constants, f"{op.name}: constant {name} is missing")
        shape, expected = graph.tensors[op.output].shape, output_shape(graph, op)
        require(shape == expected, f"{op.name}: output {op.output} has shape {shape}, expected {expected}")
        _verify_constants(graph, op)
        ready.add(op.output)
    for name in graph.states:
        require(name in ready and name not in graph.inputs, f"state {name} is never written, so that the next run has none")
    for i, name in enumerate(graph.outputs):
        require(name in ready, f"output {name} is never written")
        require(name not in graph.inputs, f"output {name} is the network's input; leave it out, whoever asks has it")
        require(name not in graph.outputs[:i], f"output {name} is there twice; return each tensor once")


def _masked(bias: Array) -> npt.NDArray[np.bool_]:
    """Returns where an attention's bias keeps a query from a key."""
    return np.asarray(bias == (-128 if bias.dtype == np.int8 else -np.inf))


def _verify_constants(graph: Graph, op: Op) -> None:
    for name in constant_names(op):
        values = graph.constants[name]
        if isinstance(op, Attention):
            values = np.where(_masked(values), 0, values)
            blind = int(_masked(graph.constants[name]).all(axis=-1).sum())
            require(not blind, f"{op.name}: {blind} rows of {name} mask every key; each query has to see one")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            bad = values.size - np.isfinite(values).sum()
            place = f" ({graph.origin[op.name]})" if op.name in graph.origin else ""
            raise ValueError(
                f"{op.name}{place}: {name} holds {bad} of {values.size} values that are NaN or infinite; train or load again"
            )
    if isinstance(op, Weighted):
        there, channels = graph.constants[op.bias].shape, graph.tensors[op.output].shape[2]
        require(there == (channels,), f"{op.name}: bias has shape {there}, expected ({channels},)")
