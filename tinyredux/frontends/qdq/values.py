"""What names of a quantised network stand for while its Graph is built, and how an operator is appended to that.

A float operator between DequantizeLinear and QuantizeLinear becomes one int8 operator. What it reads is `Stored` in the graph;
what it gives is `Pending` until the scale is known by which QuantizeLinear, or an operator with integers in its name, stores it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinyredux.frontends.qdq.network import Network, Node
from tinyredux.frontends.qdq.views import View, sizes
from tinyredux.graph import ACTIVATIONS, Array, Graph, Lookup, Op, Padding, Quant, Relu, Shape, Tensor, output_shape

NO_PADDING = (0, 0, 0, 0)
FREE = (-np.inf, np.inf)
Limits = tuple[float, float]


class RefusedError(ValueError):
    """What one operator has that no kernel computes."""


@dataclass(frozen=True)
class Constant:
    """Numbers of the network: real ones, or stored ones with a scale and zero point for all or for each place along an axis."""

    stored: Array
    scale: Array | None = None
    zero_point: Array | None = None
    axis: int = 0

    @property
    def centred(self) -> Array:
        """Returns the stored numbers less their zero points, int64."""
        values = self.stored.astype(np.int64)
        return values if self.zero_point is None else values - self._along(self.zero_point.astype(np.int64))

    @property
    def real(self) -> Array:
        """Returns the numbers that are meant, float64."""
        if self.scale is None:
            return self.stored.astype(np.float64)
        return np.asarray(self.centred * self._along(self.scale.astype(np.float64)))

    def _along(self, numbers: Array) -> Array:
        if numbers.size == 1:
            return numbers.reshape(())
        return numbers.reshape([-1 if i == self.axis % self.stored.ndim else 1 for i in range(self.stored.ndim)])


@dataclass(frozen=True)
class Stored:
    """A tensor of the graph as the network sees it, and the zeros around it that wait for a convolution.

    `unsigned`: the network stores each value 128 higher, in uint8.
    """

    tensor: str
    view: View
    padding: Padding = NO_PADDING
    unsigned: bool = False


@dataclass(frozen=True)
class Sums:
    """Sums of products that wait for a scale: int8 weights of one operator, real scales (O,) and biases (O,).

    `stored_bias` holds the network's own int32 biases, where it has some.
    """

    kind: str
    operator: Callable[..., Op]
    source: str
    weights: Array
    channel_axis: int
    scale: Array
    bias: Array
    stored_bias: Array | None
    fields: dict[str, Any]


@dataclass(frozen=True)
class Pending:
    """What an operator gives, of a shape, before it is stored: `finish(quant, limits)` appends it and returns its tensor.

    Limits are real numbers: what a clamp between here and there lets through. `sums` and `function` say what may still be
    folded into it: products, or a function of one value (the tensor that it reads, its name and parameters). `is_input`: it is
    the network's input. `settles`: the scale in which it can be stored without loss, a clamp's own.
    """

    shape: Shape
    view: View
    finish: Callable[[Quant, Limits], str]
    limits: Limits = FREE
    padding: Padding = NO_PADDING
    sums: Sums | None = None
    function: tuple[str, str, tuple[float, ...]] | None = None
    is_input: bool = False
    settles: Quant | None = None


Value = Constant | Stored | Pending


@dataclass(frozen=True)
class Theirs:
    """Where the network stores the values of a tensor: the name, how it sees the map, and whether in uint8."""

    name: str
    view: View
    unsigned: bool


@dataclass
class Loader:
    """The graph as far as it is built; `values` maps the network's names, `theirs` tensors of the graph to what stores them."""

    network: Network
    graph: Graph
    values: dict[str, Value | None]  # None: what a refused operator writes
    theirs: dict[str, Theirs] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    input_quants: list[Quant] = field(default_factory=list)  # by which it is read; the first is the graph's
    input_view: View = ()
    to_input: list[Callable[[Array], Array]] = field(default_factory=list)  # from (N, C, H, W) to what the network takes
    place: str = ""

    def append(
        self, kind: str, operator: Callable[..., Op], reads: tuple[str, ...], quant: Quant, /,
        constants: dict[str, Array] | None = None, **fields: Any,
    ) -> str:  # fmt: skip
        """Appends an operator to the graph and returns the tensor that it writes; `constants` by their fields."""
        graph = self.graph
        name = f"{kind}{1 + sum(op.name.rstrip('0123456789') == kind for op in graph.ops)}"
        for key, values in (constants or {}).items():
            fields[key] = f"{name}.{key}"
            graph.constants[fields[key]] = values
        op = operator(name, reads, name, **fields)
        graph.tensors[name] = Tensor(name, output_shape(graph, op), "int8", quant)
        graph.origin[name] = self.place
        self.graph = graph.with_ops([*graph.ops, op])
        return name

    def entry(self, shape: Shape, view: View) -> Pending:
        """Returns the network's input, which becomes a tensor of the graph when its scale is known."""

        def finish(quant: Quant, limits: Limits) -> str:
            name, tensors, self.input_view = self.graph.inputs[0], self.graph.tensors, view
            self.input_quants.append(quant)
            if tensors.setdefault(name, Tensor(name, shape, "int8", self.input_quants[0])).shape != shape:
                raise RefusedError(f"the network's input is read as {shape} and as {tensors[name].shape}")
            return rescaled(self, name, quant, limits)

        return Pending(shape, view, finish, is_input=True)

    def quant(self, tensor: str) -> Quant:
        """Returns the scale and zero point of a tensor of the graph."""
        quant = self.graph.tensors[tensor].quant
        assert quant is not None
        return quant

    def shape(self, value: Stored | Pending) -> Shape:
        """Returns (height, width, channels) of a value."""
        return value.shape if isinstance(value, Pending) else self.graph.tensors[value.tensor].shape


@dataclass(frozen=True)
class Call:
    """A node with what it reads; `result` is the scale and zero point of what it writes, where it has integers in its name."""

    loader: Loader
    node: Node
    kind: str
    operands: tuple[Value | None, ...]
    result: Quant | None = None
    unsigned: bool = False

    def has(self, i: int) -> bool:
        """Returns whether there is an operand at that place."""
        return i < len(self.operands) and self.operands[i] is not None

    def activation(self, i: int = 0, padded: bool = False) -> Stored | Pending:
        """Returns the map at a place. Raises for a constant, and for zeros around it unless the caller takes them (`padded`)."""
        value = self.operands[i] if self.has(i) else None
        if not isinstance(value, Stored | Pending):
            raise RefusedError(f"its input {i} is {'a constant' if value else 'missing'}, expected a map that is computed")
        if value.padding != NO_PADDING and not padded:
            raise RefusedError("it reads a padded map; zeros may be put around a map before a convolution or an average pool")
        return value

    def stored(self, i: int = 0, padded: bool = False) -> Stored:
        """Returns the map at a place, stored in int8. Raises for one without scale."""
        value = self.activation(i, padded)
        if isinstance(value, Pending) and value.settles:
            value = Stored(value.finish(value.settles, value.limits), value.view)
        if isinstance(value, Pending):
            what = "the network's input" if value.is_input else "what it reads"
            raise RefusedError(f"{what} has no scale here; expected QuantizeLinear and DequantizeLinear before it")
        return value

    def numbers(self, i: int, what: str) -> Constant:
        """Returns the constant at a place. Raises for one that is computed."""
        value = self.operands[i] if self.has(i) else None
        if not isinstance(value, Constant):
            raise RefusedError(f"its {what} are computed while running, expected a constant")
        return value

    def integers(self, i: int, what: str) -> list[int]:
        """Returns the whole numbers of the constant at a place."""
        return [int(one) for one in self.numbers(i, what).stored.reshape(-1)]

    def sizes(self, i: int = 0) -> tuple[int, ...]:
        """Returns the sizes of the map at a place as the network sees it."""
        return sizes(self.activation(i, padded=True).view)

    def write(self, *values: Value) -> None:
        """Makes `values` what the node writes; the first is stored at once where its scale is known."""
        for name, value in zip(self.node.outputs, values, strict=False):
            if self.result is not None and not isinstance(value, Constant):
                value = store(self.loader, value, self.result, name, self.unsigned)
            self.loader.values[name] = value


def store(loader: Loader, value: Stored | Pending, quant: Quant, name: str, unsigned: bool) -> Stored:
    """Returns a value stored by a scale and zero point, under a name of the network; one that is stored otherwise is rescaled."""
    if isinstance(value, Pending):
        tensor = value.finish(quant, value.limits)
    else:
        tensor = rescaled(loader, value.tensor, quant)
    if tensor not in loader.theirs and value.padding == NO_PADDING:
        loader.theirs[tensor] = Theirs(name, value.view, unsigned)
    return Stored(tensor, value.view, value.padding, unsigned)


def rescaled(loader: Loader, tensor: str, quant: Quant, limits: Limits = FREE) -> str:
    """Returns a tensor of the graph with the same values in another scale, between limits."""
    if loader.quant(tensor) != quant:
        return loader.append("rescale", Lookup, (tensor,), quant, function="clamp", parameters=limits, even=True)
    name = clamped(loader, limits, quant)
    return tensor if name == "none" else loader.append("relu", Relu, (tensor,), quant, activation=name)


def clamped(loader: Loader, limits: Limits, quant: Quant) -> str:
    """Returns the name of the activation that limits what is stored in `quant`: "none" where all that is stored lies inside."""
    (scale,), zero_point = quant.scale, quant.zero_point
    low, high = limits[0] / scale + zero_point, limits[1] / scale + zero_point
    if np.rint(low) <= -128 and np.rint(high) >= 127:
        return "none"
    for name, ends in ACTIVATIONS.items():
        wanted = (ends[0] / scale + zero_point, ends[1] / scale + zero_point)
        alike = (max(-128, low), min(127, high)), (max(-128, wanted[0]), min(127, wanted[1]))
        if np.allclose(*alike, rtol=0, atol=1e-3):
            return name
    raise RefusedError(f"what it gives is limited to {limits[0]:g} .. {limits[1]:g}; expected ReLU, ReLU6, or -1 .. 1")
