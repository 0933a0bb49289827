"""A network of whole windows -> one of pushes: which rows each operator computes, which are kept, as one graph with states."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tinyredux.files import expect
from tinyredux.graph import Conv, Dense, Graph, Op, Rearrange, Recall, Tensor, constant_names, total_macs, verify
from tinyredux.memory import Box, input_box, restricted, whole
from tinyredux.streaming.slides import Slide, slides

Needed = npt.NDArray[np.bool_]  # which rows of a tensor somebody reads


class Rows(NamedTuple):
    """Rows first..end-1 of a tensor of the whole window."""

    first: int
    end: int

    @property
    def height(self) -> int:
        """Number of rows."""
        return max(0, self.end - self.first)

    def holds(self, other: Rows) -> bool:
        """True where the others are among these."""
        return self.first <= other.first and other.end <= self.end


NONE = Rows(0, 0)


@dataclass(frozen=True)
class Layer:
    """What a push does to one tensor: rows computed at the top of the window and at its end, rows kept from earlier pushes."""

    op: str
    tensor: str
    rows: int
    top: Rows
    kept: Rows
    end: Rows
    by: int = 0
    note: str = ""

    @property
    def computed(self) -> int:
        """Rows that each push computes."""
        return self.top.height + self.end.height


@dataclass(frozen=True)
class Plan:
    """A network as a stream: `graph` computes one push, `whole` a window; `layers` say which rows, in order of execution."""

    whole: Graph = field(repr=False)
    graph: Graph = field(repr=False)
    layers: tuple[Layer, ...]

    @property
    def state_bytes(self) -> int:
        """Bytes that last from push to push."""
        return sum(self.graph.tensors[name].size_bytes for name in self.graph.states)

    @property
    def macs(self) -> tuple[int, int]:
        """Multiply-accumulates of one push, and of a whole window."""
        return total_macs(self.graph), total_macs(self.whole)

    @property
    def notes(self) -> tuple[str, ...]:
        """What keeps operators from streaming, each operator named."""
        return tuple(f"{layer.op} {layer.note}" for layer in self.layers if layer.note)

    def rows(self) -> list[tuple[str, int, int, int, str]]:
        """Returns a row of a table for each operator: its name, rows of its map, rows computed a push, rows kept, and why."""
        return [(layer.op, layer.rows, layer.computed, layer.kept.height, layer.note) for layer in self.layers]


def streamed(graph: Graph, frames: int = 1) -> Graph:
    """Returns the network that gets `frames` new rows of a sliding window in each run; see `plan`. Chapter 15."""
    return plan(graph, frames).graph


def plan(graph: Graph, frames: int = 1) -> Plan:
    """Returns how an int8 network computes a window that slides by `frames` rows, each push only what no earlier one has.

    Rows are the first axis of its input, time runs downwards. Raises ValueError as `slides` does. Chapter 15.
    """
    expect(Graph, graph, "what to stream", "such as quantize(export(module, shape), images)")
    moving, needed = slides(graph, frames), {name: np.zeros(each.shape[0], bool) for name, each in graph.tensors.items()}
    for name in graph.outputs:
        needed[name][:] = True
    layers = list[Layer]()
    for op in reversed(graph.ops):
        if needed[op.output].any():
            layers.append(_layer(op.name, op.output, moving[op.output], needed[op.output]))
            for part in _parts(layers[-1]):
                for i, name in enumerate(op.inputs):
                    needed[name][slice(*_read(graph, op, i, part))] = True
    source = graph.inputs[0]
    needed[source][-frames:] = True
    layers.append(_layer("", source, moving[source], needed[source]))
    writer = _Writer(graph)
    for layer in reversed(layers):
        writer.layer(layer)
    return Plan(graph, writer.finished(), tuple(layer for layer in reversed(layers) if layer.op))


def _layer(op: str, tensor: str, slide: Slide, needed: Needed) -> Layer:
    """Returns what a push does to a tensor of which these rows are needed."""
    height, wanted = len(needed), needed.copy()
    if not slide.moves:
        return Layer(op, tensor, height, NONE, NONE, _hull(wanted, 0, height), note=slide.note)
    fresh = slide.end - slide.by
    for row in range(slide.first, fresh):
        wanted[row + slide.by] |= wanted[row]
    kept = _hull(wanted, slide.first, fresh)
    kept = Rows(kept.first, fresh) if kept.height else NONE
    end = _hull(wanted, fresh, height)
    end = Rows(fresh, max(end.end, slide.end)) if kept.height else end
    top = _hull(wanted, 0, slide.first)
    note = slide.note if top.height or end.end > slide.end else ""
    return Layer(op, tensor, height, top, kept, end, slide.by, note)


def _hull(needed: Needed, first: int, end: int) -> Rows:
    """Returns from the first to the last of the rows between two that are needed."""
    found = np.flatnonzero(needed[first:end])
    return Rows(first + int(found[0]), first + int(found[-1]) + 1) if len(found) else NONE


def _parts(layer: Layer) -> list[Rows]:
    return [rows for rows in (layer.top, layer.end) if rows.height]


def _read(graph: Graph, op: Op, index: int, rows: Rows) -> Rows:
    """Returns the rows of an operator's input number `index` that some rows of its output take."""
    box = input_box(graph, op, index, _box(graph, op.output, rows))
    return Rows(box.y0, box.y1)


def _box(graph: Graph, tensor: str, rows: Rows) -> Box:
    return whole(graph.tensors[tensor].shape)._replace(y0=rows.first, y1=rows.end)


class _Writer:
    """Writes the graph of one push, layer by layer."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.ops = graph, list[Op]()
        self.tensors, self.constants = dict[str, Tensor](), dict(graph.constants)
        self.origin = dict(graph.origin)
        self.pieces: dict[str, list[tuple[Rows, str]]] = {}  # tensor of the window -> which rows are where
        self.last: list[tuple[str, Rearrange]] = []  # map of a Recall, and what keeps its rows for the next push

    def layer(self, layer: Layer) -> None:
        """Writes what computes a layer's rows, joins them with those kept, and keeps what the next push reads."""
        tensor, pieces = layer.tensor, list[tuple[Rows, str]]()
        joined = layer.kept.height > 0
        for rows in _parts(layer):
            top = rows is layer.top
            name = f"{tensor}_top" if top else f"{tensor}_new" if joined and layer.op else tensor
            self._tensor(name, tensor, rows.height)
            if layer.op:
                self._compute(self.graph.by_name[layer.op], rows, name, "_top" * top)
            pieces.append((rows, name))
        self.pieces[tensor] = self._joined(layer, pieces) if joined else pieces
        full = Rows(0, layer.rows)
        if tensor in self.graph.outputs and (full, tensor) not in self.pieces[tensor]:
            self._crop(f"{layer.op}_out", self._piece(tensor, full), full, tensor)

    def finished(self) -> Graph:
        """Returns the graph, in which rows move up as soon as nobody reads their map any more."""
        ops, parts = self.ops, {op.output: {op.output, *op.inputs} for op in self.ops if isinstance(op, Recall)}
        for op in ops:
            if isinstance(op, Rearrange) and op.inputs[0] in parts:
                parts[op.inputs[0]].add(op.output)
        for source, keep in self.last:
            at = max(i for i, op in enumerate(ops) if op.output in parts[source] or parts[source] & {*op.inputs})
            ops.insert(at + 1, keep)
        window, used = self.graph.input.shape[0], {name for op in ops for name in constant_names(op)}
        constants = {name: values for name, values in self.constants.items() if name in used}
        graph = replace(self.graph.with_ops(ops), tensors=self.tensors, constants=constants, origin=self.origin, window=window)
        verify(graph)
        return graph

    def _joined(self, layer: Layer, parts: list[tuple[Rows, str]]) -> list[tuple[Rows, str]]:
        """Writes the map of kept and new rows; of those at the top only where they lie right above."""
        tensor, near = layer.tensor, [part for part in parts if part[0].end == layer.kept.first or part[0] == layer.end]
        rows = Rows(near[0][0].first if len(near) > 1 else layer.kept.first, layer.end.end)
        name, state, slide = f"{tensor}_rows", f"{tensor}_kept", layer.kept.height
        self._tensor(name, tensor, rows.height)
        self._tensor(state, tensor, slide)
        self.ops.append(Recall(name, tuple(part for _, part in near), name, state))
        start = layer.kept.first + layer.by - rows.first
        self.last.append((name, self._rows(state, name, start, slide, state)))
        return [(rows, name), *(part for part in parts if part not in near)]

    def _compute(self, op: Op, rows: Rows, output: str, suffix: str) -> None:
        """Writes an operator that computes some rows of its output."""
        _, small = restricted(self.graph, op, _box(self.graph, op.output, rows))
        inputs = list[str]()
        for i, name in enumerate(op.inputs):
            wanted = _read(self.graph, op, i, rows)
            there, piece = self._piece(name, wanted)
            cut = f"{op.name}{suffix}_in{i}"
            inputs.append(piece if there == wanted else self._crop(cut, (there, piece), wanted, cut))
        small = replace(small, name=f"{op.name}{suffix}", inputs=tuple(inputs), output=output)
        self.origin[small.name] = self.graph.origin.get(op.name, "")
        self.ops.append(self._dense(small) if isinstance(small, Conv) else small)

    def _dense(self, op: Conv) -> Op:
        """Returns a convolution of one window as the dense layer that it is; any other as it is."""
        same = op.kernel == self.tensors[op.inputs[0]].shape[:2] and not any(op.padding) and op.groups == 1
        if not same:
            return op
        name, weights = f"{op.weights}_dense", self.graph.constants[op.weights]
        self.constants[name] = weights.reshape(len(weights), -1)
        return Dense(op.name, op.inputs, op.output, name, op.bias, op.activation, op.weight_scale)

    def _piece(self, tensor: str, rows: Rows) -> tuple[Rows, str]:
        return next(piece for piece in self.pieces[tensor] if piece[0].holds(rows))

    def _crop(self, op: str, piece: tuple[Rows, str], rows: Rows, output: str) -> str:
        there, source = piece
        self._tensor(output, source, rows.height)
        self.ops.append(self._rows(op, source, rows.first - there.first, rows.height, output))
        return output

    def _rows(self, op: str, source: str, start: int, count: int, output: str) -> Rearrange:
        _, width, channels = self.tensors[source].shape
        return Rearrange(op, (source,), output, (count, width), channels, start=(start, 0))

    def _tensor(self, name: str, like: str, rows: int) -> None:
        known = self.tensors.get(like) or self.graph.tensors[like]
        self.tensors[name] = replace(known, name=name, shape=(rows, *known.shape[1:]))
