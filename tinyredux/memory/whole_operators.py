"""A network layer by layer: the program whose steps are whole operators, and where its tensors and scratch lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tinyredux.files import expect
from tinyredux.graph import Bilinear, Concat, Graph, Rearrange, Recall
from tinyredux.memory.layerwise import MemoryPlan, layerwise_peak, lifetimes, live_steps, lowest_gap, reference_scratch
from tinyredux.memory.lower import Lowering, buffer_lifetimes
from tinyredux.memory.place import Arena, blocks_of, live_bytes, place
from tinyredux.memory.program import Buffer, Node, Program, kept_buffers, one_by_one
from tinyredux.memory.reach import input_box
from tinyredux.memory.tiles import Step

WORD = 4
ALIGNMENTS = (WORD, 1)  # word alignment is faster; byte alignment is tried where it saves memory


def layer_by_layer(graph: Graph, scratch: Mapping[str, int] | None = None, align: int = WORD) -> Program:
    """Returns the program of a network one operator after the other: each reads and writes whole maps in buffers of their own.

    `scratch` holds the bytes that each operator's kernel needs; without it they are those of the reference kernels.
    """
    sizes = reference_scratch(graph) if scratch is None else scratch
    schedule = one_by_one(graph)
    lowering, nodes, beside = Lowering(graph, schedule), list[tuple[Node, ...]](), dict[str, int]()
    for item, op in zip(schedule.items, graph.ops, strict=True):
        inside = lowering.storage[op.output].root in op.inputs  # of a map of rows
        if isinstance(op, Concat | Recall) or (inside and isinstance(op, Rearrange)):
            nodes.append(tuple(lowering.item(item)))
            continue
        name = f"{op.name}:scratch" if sizes[op.name] else ""
        beside |= {name: sizes[op.name]} if name else {}
        inputs, target = tuple(map(lowering.stored, op.inputs)), lowering.stored(op.output)
        if isinstance(op, Bilinear | Rearrange):  # their kernels begin at the first value that they take
            inputs = (inputs[0].part(input_box(graph, op, 0, target.box)),)
        nodes.append((Step(op.name, "run", inputs, target, name),))
    spans = buffer_lifetimes(graph, tuple(nodes), lowering.storage)
    buffers = {name: Buffer(graph.tensors[name].size_bytes, align, *spans[name]) for name in lifetimes(graph)}
    buffers |= {name: Buffer(size, WORD, *spans[name]) for name, size in beside.items()}
    ties = {root: name for name, root in kept_buffers(graph, lowering.storage).items() if name != root}
    return Program(graph, schedule, tuple(nodes), buffers, ties)


def place_operators(program: Program) -> Arena:
    """Returns the best placement found of a program layer by layer: scratch in the gaps between the tensors of the tightest
    arena, or placed along with them where that takes fewer bytes."""
    scratch = {step.scratch: program.buffers[step.scratch].first for step in program.steps() if step.scratch}
    tensors = {name: buffer for name, buffer in program.buffers.items() if name not in scratch}
    tight = place(replace(program, buffers=tensors))
    offsets, bound = dict(tight.offsets), max(live_bytes(blocks_of(program.buffers, program.ties)))
    for name, moment in scratch.items():
        alive = [other for other, buffer in tensors.items() if buffer.first <= moment <= buffer.last]
        busy = [(tight.offsets[other], tensors[other].size_bytes) for other in alive]
        offsets[name] = lowest_gap(busy, program.buffers[name].size_bytes, WORD)
    size = max(offset + program.buffers[name].size_bytes for name, offset in offsets.items())
    gaps = Arena(offsets, size, bound)
    return gaps if size <= bound else min(gaps, place(program), key=lambda arena: arena.size_bytes)


def place_reference(graph: Graph) -> tuple[Program, Arena]:
    """Returns the program for reference kernels and its placement, at words unless single bytes need fewer."""
    programs = [layer_by_layer(graph, align=align) for align in ALIGNMENTS]
    return min(((program, place_operators(program)) for program in programs), key=lambda placed: placed[1].size_bytes)


def plan(graph: Graph) -> MemoryPlan:
    """Returns the best placement found for the graph's order of operators, with the reference kernels' scratch."""
    expect(Graph, graph, "what to plan", "such as quantize(export(module, shape), images)")
    return plan_of(*place_reference(graph))


def plan_of(program: Program, arena: Arena) -> MemoryPlan:
    """Returns where the tensors of a program layer by layer lie, and each operator's scratch beside them."""
    graph, size = program.graph, tensors_end(program, arena)
    own = {step.op: step.scratch for step in program.steps() if step.scratch}
    scratch = {op: (arena.offsets[name], program.buffers[name].size_bytes) for op, name in own.items()}
    offsets = {name: arena.offsets[name] for name in lifetimes(graph)}
    return MemoryPlan(offsets, scratch, size, arena.size_bytes - size, live_steps(graph), layerwise_peak(graph))


def tensors_end(program: Program, arena: Arena) -> int:
    """Returns the first byte behind all buffers but scratch."""
    scratch = {step.scratch for step in program.steps()}
    return max(arena.offsets[name] + buffer.size_bytes for name, buffer in program.buffers.items() if name not in scratch)
