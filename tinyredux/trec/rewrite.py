"""int8 convolutions -> TrecConv, layer by layer after a table. An error that is measured, fewer MACs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinyredux.files import expect
from tinyredux.graph import Array, Conv, Graph, Op, TrecConv, verify
from tinyredux.trec.hashing import blocks
from tinyredux.trec.sums import convolution_fields

HASHES = ("kernel", "random")


@dataclass(frozen=True)
class Choice:
    """TREC for one layer: columns in a block (0: all of them), bits of the hash, where its vectors come from, its threshold.

    Chapter 9.
    """

    sub_length: int
    hash_bits: int
    hash: str = "kernel"
    threshold: str = "mean"
    seed: int = 0  # of random vectors

    def __post_init__(self) -> None:
        """Rejects a hash that needs training: those come with a TRECConv2d."""
        if self.hash not in HASHES:
            raise ValueError(f"hash is {self.hash!r}, expected one of {', '.join(HASHES)}; others are trained into a TRECConv2d")


def with_trec(graph: Graph, table: Mapping[str, Choice]) -> Graph:
    """Returns the int8 graph with the named convolutions replaced. A layer is named by its operator or its torch module's path.

    Raises ValueError for a name that no convolution of one group has, and for lengths and bits that do not fit it. Chapter 9.
    """
    expect(Graph, graph, "the network", "such as compile_net(settings).int8")
    expect(Mapping, table, "the table", "such as {'conv1': Choice(25, 4)}")
    convolutions = [op for op in graph.ops if isinstance(op, Conv) and op.groups == 1]
    names = {module_path(graph, op): op for op in convolutions} | {op.name: op for op in convolutions}
    for name in table:
        if name not in names:
            raise ValueError(f"{graph.name} has no convolution {name!r} for TREC; it has {', '.join(sorted(names))}")
    chosen, constants = {names[name].name: choice for name, choice in table.items()}, dict(graph.constants)
    ops = [_clustered(op, chosen[op.name], constants) if op.name in chosen else op for op in graph.ops]
    changed = graph.with_ops(ops, constants=constants)
    verify(changed)
    return changed


def module_path(graph: Graph, op: Op) -> str:
    """Returns the path in the torch module that an operator comes from, without the module's kind."""
    return graph.origin.get(op.name, op.name).partition(" ")[0]


def _clustered(op: Op, choice: Choice, constants: dict[str, Array]) -> TrecConv:
    fields = convolution_fields(op)
    columns = constants[fields["weights"]][0].size
    length, vectors = choice.sub_length or columns, ""
    if choice.hash == "random":
        vectors = f"{op.name}.vectors"
        shape = (len(blocks(columns, length)), length, choice.hash_bits)
        normal = np.random.default_rng(choice.seed).normal(0, 36, shape)
        constants[vectors] = np.clip(np.rint(normal), -127, 127).astype(np.int8)
    return TrecConv(**fields, sub_length=length, hash_bits=choice.hash_bits, threshold=choice.threshold, vectors=vectors)
