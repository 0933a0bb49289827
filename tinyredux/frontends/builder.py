"""What the export has built so far, and how it reads the nodes of a `torch.export` program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx

from tinyredux.graph import Array, Graph, Op, Padding, Tensor, output_shape


class UnsupportedOperatorError(ValueError):
    """A network uses something that no kernel here computes."""


@dataclass
class Builder:
    """The graph as far as it is built; `value` maps torch's nodes to tensor names."""

    program: torch.export.ExportedProgram
    ops: list[Op] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)
    value: dict[str, str] = field(default_factory=dict)
    flat: set[str] = field(default_factory=set)  # torch nodes that hold a map in flattened form
    padded: dict[str, Padding] = field(default_factory=dict)  # zero padding waiting for its convolution

    def graph(self, name: str = "net", outputs: tuple[str, ...] = ()) -> Graph:
        """Returns what is built so far as a Graph."""
        return Graph(name, tuple(self.ops), self.tensors, self.constants, ("input",), outputs, self.origin)

    def name(self, kind: str) -> str:
        """Returns the next free operator name of a kind: conv1, conv2, ..."""
        return f"{kind}{1 + sum(op.name.rstrip('0123456789') == kind for op in self.ops)}"

    def add(self, node: fx.Node, op: Op) -> None:
        """Appends an operator for a torch node. Raises ValueError with the place where shapes disagree."""
        self.ops.append(op)
        self.origin[op.name] = place(node)
        self.tensors[op.output] = Tensor(op.output, (1, 1, 1))
        try:
            self.tensors[op.output] = Tensor(op.output, output_shape(self.graph(), op))
        except ValueError as wrong:
            raise ValueError(f"{place(node)}: {wrong}") from None
        self.value[node.name] = op.output

    def readers(self, tensor: str) -> int:
        """Returns how many torch nodes read a tensor under any of its names, now or later."""
        return len({user for users in self._users(tensor) for user in users})

    def names_read(self, node: fx.Node) -> int:
        """Returns under how many names the tensor behind a node is read."""
        return sum(bool(users) for users in self._users(self.value[node.name]))

    def _users(self, tensor: str) -> list[list[fx.Node]]:
        names = [node for node in self.program.graph.nodes if self.value.get(node.name) == tensor]
        return [[user for user in node.users if self.value.get(user.name) != tensor] for node in names]

    def sole_producer(self, node: fx.Node) -> Op | None:
        """The operator behind a node, where nothing else reads its output."""
        tensor = self.value[node.name]
        return next((op for op in self.ops if op.output == tensor), None) if self.readers(tensor) == 1 else None


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
    given = named(node)
    return [default if given.get(name) is None else given[name] for name, default in defaults.items()]


def named(node: fx.Node) -> dict[str, Any]:
    """Returns what a node is called with, by the names of torch's schema."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    return dict(zip(names, node.args, strict=False)) | dict(node.kwargs)


def pair(value: Any) -> tuple[int, int]:
    """Returns (vertical, horizontal) of an int or a sequence of one or two ints."""
    values = [value] if isinstance(value, int) else list(value)
    return (int(values[0]), int(values[-1]))


def constant(builder: Builder, node: fx.Node | None) -> Array | None:
    """Returns the float64 value of a parameter, buffer, constant or what is computed of them alone; None for None."""
    return None if node is None else np.asarray(_tensor(builder, node).detach().cpu().to(torch.float64).numpy())


def _tensor(builder: Builder, node: fx.Node) -> torch.Tensor:
    program, signature = builder.program, builder.program.graph_signature
    for table in (signature.inputs_to_parameters, signature.inputs_to_buffers, signature.inputs_to_lifted_tensor_constants):
        if node.name in table:
            key = table[node.name]
            value: torch.Tensor = program.state_dict[key] if key in program.state_dict else program.constants[key]
            return value
    if node.op != "call_function" or not callable(node.target):
        raise refuse(node, "a weight that is computed while running", "weights held as parameters")
    if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        raise refuse(node, "a weight that is drawn anew each time", "weights held as parameters")
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda arg: _tensor(builder, arg))
    result: torch.Tensor = node.target(*args, **kwargs)
    return result


def weighted(builder: Builder, name: str, weights: Array, bias: Array | None, channels: int) -> tuple[str, str]:
    """Stores weights and bias (zeros where there is none) and returns the names of both."""
    builder.constants[f"{name}.weights"] = weights
    builder.constants[f"{name}.bias"] = np.zeros(channels) if bias is None else bias
    return f"{name}.weights", f"{name}.bias"


def alias(builder: Builder, node: fx.Node, source: fx.Node) -> None:
    """Makes a node another name of the tensor behind `source`."""
    builder.value[node.name] = builder.value[source.name]
    if source.name in builder.flat:
        builder.flat.add(node.name)
