"""Executes a placed Program in NumPy inside an arena of bytes, as the board will; and checks it byte by byte.

`run` computes. `verify` computes nothing: it carries in place of every byte the name of the element that lies there, so
it sees any value that is overwritten too early, computed twice or read before it exists. Neither uses the planner.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from tinyredux import fixedpoint
from tinyredux.graph import Array, Concat, Graph, Op, Weighted
from tinyredux.int8 import int16_shifts, interpret, requantization
from tinyredux.memory.place import Arena
from tinyredux.memory.program import Program
from tinyredux.memory.tiles import Box, Step, View, dense_view, is_elementwise, restricted, whole

Ints = npt.NDArray[np.int64]
KINDS = {1: np.int8, 2: np.int16, 4: np.int32}


def addresses(view: View, offsets: dict[str, int]) -> Ints:
    """Returns the first byte of each element of a view, (H, W, C)."""
    height, width, channels = view.box.shape
    rows, columns, depth = np.ogrid[0:height, 0:width, 0:channels]
    elements = rows * view.row_stride + columns * view.pixel_stride + depth
    return np.asarray(offsets[view.buffer] + view.offset + elements * view.element_bytes, np.int64)


def run(program: Program, arena: Arena, image: Array) -> Array:
    """Returns the network's output (H, W, C) int8 for one input (H, W, C) int8."""
    memory, graph = np.full(arena.size_bytes, 0x55, np.int8), program.graph

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
    return values(_stored(graph, graph.outputs[0])).copy()


def _stored(graph: Graph, tensor: str) -> View:
    """Returns the view of the network's input or output, which are never part of another tensor."""
    return dense_view(tensor, whole(graph.tensors[tensor].shape), tensor)


def _computed(program: Program, op: Op, step: Step, values: Callable[[View], Array]) -> Array:
    graph = program.graph
    if step.kind == "copy":
        return values(step.inputs[0]).copy()
    if step.kind == "run":
        small_graph, small = restricted(graph, op, step.output.box)
        return np.asarray(interpret.run_op(small_graph, small, [values(view)[None].copy() for view in step.inputs])[0])
    assert isinstance(op, Weighted)
    return _sums(program, op, step, values)


def _sums(program: Program, op: Weighted, step: Step, values: Callable[[View], Array]) -> Array:
    graph, lossy = program.graph, program.schedule.accumulator == "int16"
    params, right = requantization(graph, op), int16_shifts(graph, op) if lossy else 0
    if step.kind == "finish":
        sums = values(step.inputs[0]).astype(np.int64) << right
        return interpret.requantize(sums, np.zeros(sums.shape[2], np.int32), params)
    if step.kind == "start":
        added = np.broadcast_to(graph.constants[op.bias].astype(np.int64), step.output.box.shape)
        old = np.zeros(added.shape, np.int64)
    else:
        source = step.inputs[0].box
        small_graph, small = restricted(graph, op, step.output.box, (source.c0, source.c1))
        assert isinstance(small, Weighted)
        centred = values(step.inputs[0])[None].astype(np.int16) - params.input_zero_point
        added = interpret.accumulate(small_graph, small, centred)[0].astype(np.int64)
        old = values(step.output).astype(np.int64)
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
    for step in steps:
        follower.step(step)
    follower.expect("the end", _stored(graph, graph.outputs[0]), follower.ids[graph.outputs[0]])
    for op in graph.ops:
        most = 0 if isinstance(op, Concat) else int(follower.computed[follower.ids[op.output]].max())
        if most > 1 and not program.schedule.recomputes:
            raise ValueError(f"{op.output}: an element is computed {most} times, expected once")
    return {"steps": len(steps), "bytes": follower.top}


class _Follower:
    """What each byte of the arena holds, step by step."""

    def __init__(self, program: Program, arena: Arena) -> None:
        self.program, self.arena, self.graph = program, arena, program.graph
        self.held = np.full(arena.size_bytes, -1, np.int64)  # the element whose byte this is, -1: nothing
        self.ids: dict[str, Ints] = {}  # the number of each element; concatenations have their inputs'
        count, copies = 0, {op.output: op.inputs for op in self.graph.ops if isinstance(op, Concat)}
        for name in (*self.graph.inputs, *(op.output for op in self.graph.ops)):
            if name in copies:
                self.ids[name] = np.concatenate([self.ids[part] for part in copies[name]], axis=2)
            else:
                tensor = self.graph.tensors[name]
                self.ids[name] = count + np.arange(tensor.elements).reshape(tensor.shape)
                count += tensor.elements
        self.sums = {op.name: self.ids[op.output] + count for op in self.graph.ops if isinstance(op, Weighted)}
        self.computed = np.zeros(count, np.int64)
        self.added: dict[str, tuple[Box, Ints]] = {}  # the box whose sums are open, how often each input channel was added
        self.top = 0

    def step(self, step: Step) -> None:
        """Checks what a step reads and takes over what it writes."""
        op = self.graph.by_name[step.op]
        read = [self._read(step, op, view) for view in step.inputs]
        size = self.program.buffers[step.scratch].size_bytes if step.scratch else 0
        scratch = np.arange(size) + (self.arena.offsets[step.scratch] if step.scratch else 0)
        target = addresses(step.output, self.arena.offsets)
        ids = (self.sums[op.name] if step.kind in ("start", "add_up") else self.ids[op.output])[_slices(step.output)]
        if step.kind == "add_up":
            self.expect(op.name, step.output, ids)
            box, added = self.added[op.name]
            if box != step.output.box:
                raise ValueError(f"{op.name}: adds to sums of {step.output.box}, those of {box} are open")
            added[step.inputs[0].box.c0 : step.inputs[0].box.c1] += 1
        elif step.kind == "start":
            if op.name in self.added:
                raise ValueError(f"{op.name}: starts sums before the last ones are finished")
            self.added[op.name] = step.output.box, np.zeros(self.graph.tensors[op.inputs[0]].shape[2], np.int64)
        elif step.kind == "copy":
            source = self.ids[step.inputs[0].tensor][_slices(step.inputs[0])]
            if not np.array_equal(source, ids):
                raise ValueError(f"{op.name}: copies {step.inputs[0].tensor} to the place of other elements")
        else:
            self.computed[ids] += 1
        self._no_clash(step, op, read, scratch, target)
        self.held[scratch] = -1
        self.write(step.output, ids)

    def _read(self, step: Step, op: Op, view: View) -> Ints:
        if step.kind == "finish":
            box, added = self.added.pop(op.name)
            if box != step.output.box or added.min() != 1 or added.max() != 1:
                raise ValueError(f"{op.name}: finishes sums of {box} whose input channels were added {added} times")
            ids = self.sums[op.name]
        else:
            ids = self.ids[view.tensor]
        self.expect(op.name, view, ids[_slices(view)])
        return addresses(view, self.arena.offsets)

    def expect(self, where: str, view: View, ids: Ints) -> None:
        """Raises ValueError where a view does not hold these elements."""
        at = addresses(view, self.arena.offsets)
        for byte in range(view.element_bytes):
            wrong = self.held[at + byte] != ids
            if wrong.any():
                y, x, c = (int(i[0]) + low for i, low in zip(np.nonzero(wrong), view.box[::2], strict=True))
                raise ValueError(f"{where}: byte {at.flat[wrong.argmax()] + byte} no longer holds {view.tensor}[{y},{x},{c}]")

    def _no_clash(self, step: Step, op: Op, read: list[Ints], scratch: Ints, target: Ints) -> None:
        size = step.output.element_bytes
        written = (target[..., None] + np.arange(size)).ravel()
        if np.isin(scratch, written).any():
            raise ValueError(f"{op.name}: scratch overlaps the output {step.output.tensor}")
        for view, at in zip(step.inputs, read, strict=True):
            taken = (at[..., None] + np.arange(view.element_bytes)).ravel()
            if np.isin(scratch, taken).any():
                raise ValueError(f"{op.name}: scratch overlaps the input {view.tensor}")
            if not np.isin(taken, written).any():
                continue
            same = step.kind == "run" and is_elementwise(op) and np.array_equal(at, target)
            shrinking = step.kind == "finish" and bool((target.ravel() <= at.ravel()).all()) and _rising(target) and _rising(at)
            if not (same or shrinking):
                raise ValueError(f"{op.name}: writes {step.output.tensor} over its own input {view.tensor}")

    def write(self, view: View, ids: Ints) -> None:
        """Notes that a view holds these elements."""
        at = addresses(view, self.arena.offsets)
        if at.min() < 0 or at.max() + view.element_bytes > self.arena.size_bytes:
            raise ValueError(f"{view.tensor}: bytes {at.min()} to {at.max() + 1} of an arena of {self.arena.size_bytes}")
        for byte in range(view.element_bytes):
            self.held[at + byte] = ids
        self.top = max(self.top, int(at.max()) + view.element_bytes)


def _rising(at: Ints) -> bool:
    return bool((np.diff(at.ravel()) > 0).all())


def _slices(view: View) -> tuple[slice, slice, slice]:
    box = view.box
    return slice(box.y0, box.y1), slice(box.x0, box.x1), slice(box.c0, box.c1)
