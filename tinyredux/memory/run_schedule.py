"""Executes a placed Program in NumPy inside an arena of bytes, as the board will; and checks it byte by byte.

`run` computes. `verify` computes nothing: it carries in place of every byte the name of the element that lies there, so
it sees any value that is overwritten too early, computed twice or read before it exists. Neither uses the planner.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tinyredux import fixedpoint
from tinyredux.graph import Array, Concat, Graph, Op, Rearrange, Recall, Weighted, joined
from tinyredux.int8 import int16_shifts, interpret, requantization
from tinyredux.memory.place import Arena
from tinyredux.memory.program import Program, storages, view_of
from tinyredux.memory.reach import is_elementwise
from tinyredux.memory.tiles import Box, Step, View, dense_view, whole
from tinyredux.memory.work import restricted

Ints = npt.NDArray[np.int64]
KINDS = {1: np.int8, 2: np.int16, 4: np.int32}


def addresses(view: View, offsets: dict[str, int]) -> Ints:
    """Returns the bytes of each element of a view, (H, W, C, bytes of an element)."""
    height, width, channels = view.box.shape
    rows, columns, depth, byte = np.ogrid[0:height, 0:width, 0:channels, 0 : view.element_bytes]
    elements = rows * view.row_stride + columns * view.pixel_stride + depth
    return np.asarray(offsets[view.buffer] + view.offset + elements * view.element_bytes + byte, np.int64)


def run(program: Program, arena: Arena, image: Array, memory: Array | None = None) -> Array:
    """Returns the network's output (H, W, C) int8 for one input (H, W, C) int8; several as `interpret.run_joined` does.

    `memory` is the arena, int8, as the last run of a network with states left it.
    """
    graph = program.graph
    memory = np.full(arena.size_bytes, 0x55, np.int8) if memory is None else memory

    def values(view: View) -> Array:
        step = view.element_bytes
        strides = (view.row_stride * step, view.pixel_stride * step, step)
        start = arena.offsets[view.buffer] + view.offset
        return np.ndarray(view.box.shape, KINDS[step], memory.data, start, strides)

    values(_stored(graph, graph.inputs[0]))[:] = image
    for step in program.steps():
        if step.scratch:
            start = arena.offsets[step.scratch]
            memory[start : start + program.buffers[step.scratch].size_bytes] = 0x33
        values(step.output)[:] = _computed(program, graph.by_name[step.op], step, values)
    return np.asarray(joined({name: values(_stored(graph, name))[None].copy() for name in graph.outputs}, graph.outputs)[0])


def _stored(graph: Graph, tensor: str) -> View:
    """Returns the view of the network's input or of an output, which are never part of another tensor."""
    return dense_view(tensor, whole(graph.tensors[tensor].shape), tensor)


def _computed(program: Program, op: Op, step: Step, values: Callable[[View], Array]) -> Array:
    graph, read = program.graph, [values(view).copy() for view in step.inputs]
    if step.kind in ("copy", "keep"):
        return read[0]
    if step.kind == "run":
        return np.asarray(interpret.run_op(*restricted(graph, op, step.output.box), [some[None] for some in read])[0])
    assert isinstance(op, Weighted)
    lossy, params = program.schedule.accumulator == "int16", requantization(graph, op)
    right = int16_shifts(graph, op) if lossy else 0
    if step.kind == "finish":
        return interpret.requantize(read[0].astype(np.int64) << right, np.zeros(read[0].shape[2], np.int32), params)
    if step.kind == "start":
        added, old = graph.constants[op.bias].astype(np.int64), np.zeros(step.output.box.shape, np.int64)
    else:
        source = step.inputs[0].box
        small_graph, small = restricted(graph, op, step.output.box, (source.c0, source.c1))
        assert isinstance(small, Weighted)
        centred = read[0][None].astype(np.int16) - params.input_zero_point
        added, old = interpret.accumulate(small_graph, small, centred)[0].astype(np.int64), values(step.output).astype(np.int64)
    if lossy:
        return np.asarray(np.clip(old + fixedpoint.rounding_divide_by_power_of_two(added, right), -32768, 32767), np.int16)
    return np.asarray(fixedpoint.wrap_int32(old + added), np.int32)


def verify(program: Program, arena: Arena) -> dict[str, int]:
    """Follows every byte through the schedule. Returns {"steps", "bytes"}: kernel calls, highest byte used plus one.

    Raises ValueError naming step and tensor where a byte does not hold what is read, where a kernel writes over what it
    reads, where scratch touches data, and where an element is computed twice (but by a schedule
    that says it recomputes; one that no window reaches may be left out).
    """
    follower, graph, steps = _Follower(program, arena), program.graph, list(program.steps())
    for name in graph.inputs:
        follower.write(_stored(graph, name), follower.ids[name])
    for name in graph.states:
        follower.write(view_of(graph, follower.places, name), follower.kept[name])
    for step in steps:
        follower.step(step)
    for name in graph.outputs:
        follower.expect("the end", _stored(graph, name), follower.ids[name])
    for name in graph.states:
        follower.expect("the end", view_of(graph, follower.places, name), follower.ids[name])
    for op in graph.ops:
        most = 0 if op.output in follower.moved else int(follower.computed[follower.ids[op.output]].max())
        if most > 1 and not program.schedule.recomputes:
            raise ValueError(f"{op.output}: an element is computed {most} times, expected once")
    return {"steps": len(steps), "bytes": follower.top}


class _Follower:
    """What each byte of the arena holds, step by step."""

    def __init__(self, program: Program, arena: Arena) -> None:
        self.program, self.arena, self.graph = program, arena, program.graph
        self.held = np.full(arena.size_bytes, -1, np.int64)  # the element whose byte this is, -1: nothing
        self.ids: dict[str, Ints] = {}  # the number of each element; concatenations have their inputs'
        self.places = storages(self.graph, program.schedule.aliased)
        self.kept: dict[str, Ints] = {}  # the same of states, as the last run left them
        self.moved: set[str] = set()  # tensors whose elements others have computed
        self.count = 0
        for name in (*self.graph.inputs, *(op.output for op in self.graph.ops)):
            self.ids[name] = self._ids_of(name)
        self.sums = {op.output: self.ids[op.output] + self.count for op in self.graph.ops if isinstance(op, Weighted)}
        self.computed = np.zeros(self.count, np.int64)
        self.added: dict[str, tuple[Box, Ints]] = {}  # the box whose sums are open, how often each input channel was added
        self.top = 0

    def _ids_of(self, name: str) -> Ints:
        """Returns the number of each element of a tensor: those of its parts, or of the rows that it takes, or new ones."""
        op = self.graph.producer(name)
        if isinstance(op, Concat):
            self.moved.add(name)
            return np.concatenate([self.ids[part] for part in op.inputs], axis=2)
        if isinstance(op, Recall):
            self.moved.add(name)
            self.kept[op.state] = self._new_ids(op.state)
            *above, last = (self.ids[part] for part in op.inputs)
            return np.concatenate([*above, self.kept[op.state], last])
        if isinstance(op, Rearrange) and self.places[name].root in op.inputs:
            self.moved.add(name)
            return self.ids[op.inputs[0]][op.start[0] : op.start[0] + op.size[0]]
        return self._new_ids(name)

    def _new_ids(self, name: str) -> Ints:
        tensor, first = self.graph.tensors[name], self.count
        self.count += tensor.elements
        return first + np.arange(tensor.elements).reshape(tensor.shape)

    def step(self, step: Step) -> None:
        """Checks what a step reads and takes over what it writes."""
        op, box = self.graph.by_name[step.op], step.output.box
        ids = (self.sums if step.kind in ("start", "add_up") else self.ids)[op.output][_slices(step.output)]
        for view in step.inputs:
            self.expect(op.name, view, self.sums[op.output] if step.kind == "finish" else self.ids[view.tensor])
        match step.kind:
            case "start":
                if op.name in self.added:
                    raise ValueError(f"{op.name}: starts sums before the last ones are finished")
                self.added[op.name] = box, np.zeros(self.graph.tensors[op.inputs[0]].shape[2], np.int64)
            case "add_up":
                self.expect(op.name, step.output, self.sums[op.output])
                opened, added = self.added[op.name]
                if opened != box:
                    raise ValueError(f"{op.name}: adds to sums of {box}, those of {opened} are open")
                added[step.inputs[0].box.c0 : step.inputs[0].box.c1] += 1
            case "finish":
                opened, added = self.added.pop(op.name)
                if opened != box or added.min() != 1 or added.max() != 1:
                    raise ValueError(f"{op.name}: finishes sums of {opened} whose input channels were added {added} times")
            case "copy" | "keep":
                (source,) = step.inputs
                if not np.array_equal(self.ids[source.tensor][_slices(source)], ids):
                    raise ValueError(f"{op.name}: copies {source.tensor} to the place of other elements")
        if step.kind in ("run", "finish"):
            self.computed[ids] += 1
        self._no_clash(step, is_elementwise(op))
        self.write(step.output, ids)

    def expect(self, where: str, view: View, ids: Ints) -> None:
        """Raises ValueError where a view does not hold its part of a tensor whose elements are these."""
        at = addresses(view, self.arena.offsets)
        wrong = np.argwhere(self.held[at] != ids[_slices(view)][..., None])
        if len(wrong):
            y, x, c = (int(i) + low for i, low in zip(wrong[0], view.box[::2], strict=False))
            raise ValueError(f"{where}: byte {at[tuple(wrong[0])]} no longer holds {view.tensor}[{y},{x},{c}]")

    def _no_clash(self, step: Step, elementwise: bool) -> None:
        """Gives up the bytes of a step's scratch. Raises ValueError where they touch its data, or its output what it reads."""
        start = self.arena.offsets[step.scratch] if step.scratch else 0
        scratch = np.arange(start, start + (self.program.buffers[step.scratch].size_bytes if step.scratch else 0))
        target, *reads = (addresses(view, self.arena.offsets) for view in (step.output, *step.inputs))
        for view, at in zip((step.output, *step.inputs), (target, *reads), strict=True):
            if np.isin(scratch, at).any():
                raise ValueError(f"{step.op}: scratch overlaps {view.tensor}, which is read or written meanwhile")
        for view, at in zip(step.inputs, reads, strict=True):
            same = step.kind == "run" and elementwise and np.array_equal(at, target)
            rising = all((np.diff(some[..., 0].ravel()) > 0).all() for some in (at, target))
            shrinking = step.kind in ("finish", "keep") and rising and (target[..., 0] <= at[..., 0]).all()
            if not (same or shrinking) and np.isin(at, target).any():
                raise ValueError(f"{step.op}: writes {step.output.tensor} over its own input {view.tensor}")
        self.held[scratch] = -1

    def write(self, view: View, ids: Ints) -> None:
        """Notes that a view holds these elements."""
        at = addresses(view, self.arena.offsets)
        if at.min() < 0 or at.max() >= self.arena.size_bytes:
            raise ValueError(f"{view.tensor}: bytes {at.min()} to {at.max() + 1} of an arena of {self.arena.size_bytes}")
        self.held[at] = ids[..., None]
        self.top = max(self.top, int(at.max()) + 1)


def _slices(view: View) -> tuple[slice, slice, slice]:
    box = view.box
    return slice(box.y0, box.y1), slice(box.x0, box.x1), slice(box.c0, box.c1)
