"""A function's instructions in another order for a core that issues two at once: the Cortex-M7.

Templates are written in the order that suits a Cortex-M4, with loads in rows. Here each straight line of instructions is ordered
anew by list scheduling: cycle by cycle, of the instructions whose operands are there, those with the longest way to the end go
first. What they read and write, flags and memory included, keeps its order, so the result computes the same.

Source: list scheduling after Gibbons and Muchnick 1986; ports and latencies are those of `timing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from tinyredux.kernels.asm.cost import function_cycles, timed
from tinyredux.kernels.asm.function import READ, WRITTEN, Function, Instruction, Node
from tinyredux.simulator import LATENCY, dual_issue_port, ports_pair

DUAL_ISSUE = ("cortex-m7",)


def scheduled(function: Function, core: str) -> Function:
    """Returns the function in the order for a core: itself where the core issues one instruction at a time."""
    return function.with_body(_nodes(function.body)) if core in DUAL_ISSUE else function


def cycles_of(function: Function, core: str) -> float:
    """Returns the predicted cycles of one call, in the order for the core."""
    return function_cycles(scheduled(function, core), core)


def _nodes(nodes: Sequence[Node]) -> list[Node]:
    found: list[Node] = []
    line: list[Instruction] = []
    for node in nodes:
        if isinstance(node, Instruction):
            line.append(node)
            continue
        found += [*_ordered(tuple(line)), replace(node, body=_nodes(node.body))]
        line = []
    return [*found, *_ordered(tuple(line))]


@lru_cache(maxsize=1024)
def _ordered(line: tuple[Instruction, ...]) -> tuple[Instruction, ...]:
    """Returns a straight line of instructions in the order in which they can issue."""
    before = _dependences(line)
    after: list[dict[int, int]] = [{} for _ in line]
    for i, needed in enumerate(before):
        for j, wait in needed.items():
            after[j][i] = wait
    path = [0] * len(line)
    for i in reversed(range(len(line))):
        path[i] = max((wait + path[j] for j, wait in after[i].items()), default=0) + 1
    ports = [dual_issue_port(timed(node)[0]) for node in line]
    missing, earliest = [len(needed) for needed in before], [0] * len(line)
    free = {i for i, count in enumerate(missing) if not count}
    found: list[Instruction] = []
    cycle, used = 0, ""
    while free:
        ready = [i for i in free if earliest[i] <= cycle and len(used) < 2 and ports_pair(used, ports[i])]
        if not ready:
            cycle, used = cycle + 1, ""
            continue
        chosen = max(ready, key=lambda i: (path[i], -i))
        free.remove(chosen)
        used += ports[chosen]
        found.append(line[chosen])
        for i, wait in after[chosen].items():
            missing[i] -= 1
            earliest[i] = max(earliest[i], cycle + wait)
            if not missing[i]:
                free.add(i)
    return tuple(found)


def _dependences(line: Sequence[Instruction]) -> list[dict[int, int]]:
    """Returns for each instruction those that must come before it, with the cycles that must lie between.

    Of each place the last that wrote it, and for who writes it those that have read it since.
    """
    writer: dict[str, int] = {}
    readers: dict[str, list[int]] = {}
    found: list[dict[int, int]] = []
    for i, node in enumerate(line):
        reads, writes = _places(node)
        needed = {j: 0 for place in writes for j in readers.get(place, ())}
        needed |= {writer[place]: 0 for place in writes if place in writer}
        for place in reads & writer.keys():
            needed[writer[place]] = LATENCY.get(line[writer[place]].op.kind, 1)
        for place in reads:
            readers.setdefault(place, []).append(i)
        for place in writes:
            writer[place], readers[place] = i, [i] if place in reads else []
        needed.pop(i, None)
        found.append(needed)
    return found


def _places(node: Instruction) -> tuple[set[str], set[str]]:
    """Returns what an instruction reads and writes: registers, flags, and memory."""
    reads = {*node.op.uses, *(register.place for register in node.registers(READ))}
    writes = {*node.op.sets, *(register.place for register in node.registers(WRITTEN))}
    if node.op.kind.startswith("store"):
        writes.add("memory")
    if node.op.kind.startswith("load"):
        reads.add("memory")
    return reads, writes
