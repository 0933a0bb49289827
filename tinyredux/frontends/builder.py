"""What the export has built so far, and how it reads the nodes of a `torch.export` program."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx

from tinyredux.graph import Array, DepthwiseConv, Graph, Op, Padding, Tensor, output_shape


class UnsupportedOperatorError(ValueError):
    """A network uses something that no kernel here computes."""


Reads = fx.Node | str  # what an operator reads: a node, or a tensor by its name


@dataclass
class Builder:
    """The graph as far as it is built, whose dictionaries grow; `value` maps torch's nodes to tensor names."""

    program: torch.export.ExportedProgram
    graph: Graph
    value: dict[str, str]
    padded: dict[str, Padding] = field(default_factory=dict)  # zero padding waiting for its convolution
    dealt: set[str] = field(default_factory=set)  # nodes that are part of a shuffle of channels, which stands at its first
    turned: dict[str, torch.Tensor] = field(default_factory=dict)  # of nodes with turned axes: where each value lies in its map
    scores: dict[str, Any] = field(default_factory=dict)  # of nodes whose numbers wait for an attention: `tokens.Scores`
    in_place_order: set[str] = field(default_factory=set)  # outputs whose values torch has in the order in which they lie

    def name(self, kind: str) -> str:
        """Returns the next free operator name of a kind: conv1, conv2, ..."""
        return f"{kind}{1 + sum(op.name.rstrip('0123456789') == kind for op in self.graph.ops)}"

    def readers(self, tensor: str) -> int:
        """Returns how many torch nodes read a tensor under any of its names, now or later."""
        return len({user for users in self._users(tensor) for user in users})

    def names_read(self, node: fx.Node) -> int:
        """Returns under how many names the tensor behind a node is read."""
        return sum(bool(users) for users in self._users(self.value[node.name]))

    def _users(self, tensor: str) -> list[list[fx.Node]]:
        names = [node for node in self.program.graph.nodes if self.value.get(node.name) == tensor]
        return [[user for user in node.users if self.value.get(user.name) != tensor] for node in names]

    def holds_flat_map(self, node: fx.Node) -> bool:
        """Returns whether a node is a map of more than one place in flattened form."""
        return node.meta["val"].ndim == 2 and self.graph.tensors[self.value[node.name]].shape[:2] != (1, 1)

    def sole_producer(self, node: fx.Node) -> Op | None:
        """The operator behind a node, where nothing else reads its output."""
        return self.graph.producer(self.value[node.name]) if self.readers(self.value[node.name]) == 1 else None


def place(node: fx.Node) -> str:
    """Returns where in the module a node comes from, such as 'body.3 (Hardswish)'."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    if not stack:
        return node.name
    path, kind = stack[-1]
    kind = kind if isinstance(kind, str) else kind.__name__
    return f"{path or 'top level'} ({kind.rsplit('.', 1)[-1]})"


def refuse(node: fx.Node, what: str, instead: str) -> UnsupportedOperatorError:
    """Returns the error that names the place, what was found there and the nearest form that works."""
    return UnsupportedOperatorError(f"{place(node)}: {what} is not supported; nearest supported form: {instead}")


def arguments(node: fx.Node, **defaults: Any) -> list[Any]:
    """Returns the named arguments of a node, which torch's own schema of the operator places, with defaults for None."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    return [default if given.get(name) is None else given[name] for name, default in defaults.items()]


def pair(value: Any) -> tuple[int, int]:
    """Returns (vertical, horizontal) of an int or a sequence of one or two ints."""
    values = [value] if isinstance(value, int) else list(value)
    return (int(values[0]), int(values[-1]))


def _tensor(builder: Builder, node: fx.Node) -> torch.Tensor:
    program, signature = builder.program, builder.program.graph_signature
    held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    if node.name in held:
        value: torch.Tensor = {**program.constants, **program.state_dict}[held[node.name]]
        return value
    if node.op != "call_function" or not callable(node.target):
        raise refuse(node, "a weight that is computed while running", "weights held as parameters")
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        raise refuse(node, "a weight that is drawn anew each time", "weights held as parameters")
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda arg: _tensor(builder, arg))
    result: torch.Tensor = node.target(*args, **kwargs)
    return result


@dataclass(frozen=True)
class Call:
    """A call in torch's program: what it is called (its kind, such as conv2d), what it reads, what it becomes in the graph."""

    builder: Builder
    node: fx.Node
    kind: str

    @property
    def source(self) -> fx.Node:
        """Returns the node of the activation that it reads, the first argument."""
        assert isinstance(self.node.args[0], fx.Node)
        return self.node.args[0]

    @property
    def tensor(self) -> Tensor:
        """Returns the graph's tensor that it reads."""
        return self.builder.graph.tensors[self.builder.value[self.source.name]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns torch's shape of what it gives, or of the first of several."""
        value = self.node.meta["val"]
        return tuple((value[0] if isinstance(value, tuple) else value).shape)

    @property
    def source_shape(self) -> tuple[int, ...]:
        """Returns torch's shape of what it reads."""
        return tuple(self.source.meta["val"].shape)

    def activations(self, nodes: Iterable[object]) -> list[fx.Node]:
        """Returns those of the nodes that depend on the network's input."""
        return [node for node in nodes if isinstance(node, fx.Node) and node.name in self.builder.value]

    def constant(self, node: fx.Node | None, default: float = 0.0) -> Array:
        """Returns the float64 value of a parameter, buffer, constant or what is computed of them alone; None has a default."""
        if node is None:
            return np.asarray(default)
        return np.asarray(_tensor(self.builder, node).detach().cpu().to(torch.float64).numpy())

    def padded(self, before: tuple[int, int], after: tuple[int, int]) -> Padding:
        """Returns (top, bottom, left, right) of padding by rows and columns, and of the zeros that wait at what it reads."""
        top, bottom, left, right = self.builder.padded.get(self.source.name, (0, 0, 0, 0))
        return before[0] + top, after[0] + bottom, before[1] + left, after[1] + right

    def note_rows(self) -> None:
        """Notes where values of one channel lie whose rows stand where torch has channels: (1, height, width)."""
        if len(self.shape) == 3:
            self.builder.turned[self.node.name] = torch.arange(math.prod(self.shape)).reshape(self.shape)

    def alias(self, source: fx.Node) -> None:
        """Makes it another name of the tensor behind `source`."""
        self.builder.value[self.node.name] = self.builder.value[source.name]

    def emit(self, kind: str, operator: Callable[..., Op], *values: Any, reads: Sequence[Reads] = (), **fields: Any) -> None:
        """Appends an operator to the graph, which reads `reads`, nodes or names of tensors, usually the first argument.

        Raises ValueError with the place where shapes disagree.
        """
        reads = reads or [self.source]
        graph, name = self.builder.graph, self.builder.name(kind)
        inputs = tuple(node if isinstance(node, str) else self.builder.value[node.name] for node in reads)
        op = operator(name, inputs, name, *values, **fields)
        try:
            graph.tensors[name] = Tensor(name, output_shape(graph, op))
        except ValueError as wrong:
            raise ValueError(f"{place(self.node)}: {wrong}") from None
        graph.origin[name] = place(self.node)
        self.builder.graph, self.builder.value[self.node.name] = graph.with_ops([*graph.ops, op]), name

    def emit_weighted(
        self, kind: str, operator: Callable[..., Op], weights: Array, bias: Array, vectors: Array | None = None, **fields: Any
    ) -> None:
        """Appends an operator with its weights, its bias (one value or one for each output channel), and its hash vectors."""
        name, axis = self.builder.name(kind), -1 if operator is DepthwiseConv else 0
        self.builder.graph.constants[f"{name}.weights"] = weights
        self.builder.graph.constants[f"{name}.bias"] = np.full(weights.shape[axis], bias)
        if vectors is not None:
            self.builder.graph.constants[f"{name}.vectors"], fields["vectors"] = vectors, f"{name}.vectors"
        self.emit(kind, operator, weights=f"{name}.weights", bias=f"{name}.bias", **fields)
