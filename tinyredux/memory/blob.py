"""Weights as bytes: where each array of the int8 graph lies in weights.bin, and back again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyredux.fixedpoint import single_exps
from tinyredux.graph import (
    AddConstant,
    Array,
    Attention,
    Bilinear,
    Extend,
    Graph,
    Lookup,
    Softmax,
    TrecConv,
    Weighted,
    constant_names,
)
from tinyredux.int8 import bilinear, quant_of, requantization, table_of

ALIGNMENT = 16  # one flash line of the STM32F4: an array never straddles a line more than it must


@dataclass(frozen=True)
class Entry:
    """One array in weights.bin."""

    name: str
    offset: int
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


@dataclass(frozen=True)
class Blob:
    """The bytes of weights.bin and what lies where."""

    data: bytes
    entries: dict[str, Entry]


def arrays(graph: Graph) -> dict[str, Array]:
    """Returns every array that reference kernels read: weights, bias, and the requantisation factors per channel;
    tables of 256 and of places."""
    found: dict[str, Array] = {}
    for op in graph.ops:
        if isinstance(op, Lookup):
            found[f"{op.name}.table"] = table_of(graph, op)
        if isinstance(op, Bilinear):
            found |= {
                f"{op.name}.{key}": bilinear.table(op, axis, graph.rounding) for axis, key in enumerate(("rows", "columns"))
            }
        if isinstance(op, Softmax) and graph.rounding == "single":
            found[f"{op.name}.exps"] = single_exps(quant_of(graph.tensors[op.inputs[0]]).scale[0]).view(np.int32)
        if isinstance(op, AddConstant | Attention | Extend):
            found |= {name: graph.constants[name] for name in constant_names(op)}
        if isinstance(op, Weighted):
            factors = requantization(graph, op)
            found[op.weights] = graph.constants[op.weights]
            found[op.bias] = graph.constants[op.bias]
            if isinstance(op, TrecConv) and op.vectors:  # as the filters lie: blocks, H, L
                found[op.vectors] = graph.constants[op.vectors].transpose(0, 2, 1)
            found[f"{op.name}.multiplier"] = np.array(factors.multiplier, np.int32)
            found[f"{op.name}.shift"] = np.array(factors.shift, np.int32)
    return found


def pack_arrays(content_by_name: dict[str, Array]) -> Blob:
    """Returns the little-endian bytes of arrays, each aligned, with their offsets."""
    data, entries = bytearray(), {}
    for name, values in content_by_name.items():
        data += bytes(-len(data) % ALIGNMENT)
        content = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
        entries[name] = Entry(name, len(data), values.dtype.name, values.shape, len(content))
        data += content
    return Blob(bytes(data), entries)
