"""A function's instructions in another order for a core where a result comes late: the Cortex-M7, which issues two at once, and
the Cortex-M33, where what uses a loaded word or a product in the next cycle waits.

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
from tinyredux.kernels.asm.function import READ, WRITTEN, Block, Function, Instruction, Node, straight_lines
from tinyredux.kernels.asm.stalls import code_stalls
from tinyredux.simulator import LATENCY, dual_issue_port, ports_pair

DUAL_ISSUE = ("cortex-m7",)
ISSUED = {"cortex-m7": 2, "cortex-m33": 1}  # instructions a cycle; a Cortex-M4 has the order that templates are written in


def scheduled(function: Function, core: str) -> Function:
    """Returns the function in the order for a core: itself for a Cortex-M4, for which templates are written."""
    return function.with_body(_nodes(function.body, ISSUED[core])) if core in ISSUED else function


def cycles_of(function: Function, core: str) -> float:
    """Returns the predicted cycles of one call, in the order for the core, with code stalls where it is `OnBoard`."""
    return function_cycles(scheduled(function, core), core) + code_stalls(function, core)


def _nodes(nodes: Sequence[Node], width: int) -> list[Node]:
    found: list[Node] = []
    for part in straight_lines(nodes):
        found += [replace(part, body=_nodes(part.body, width))] if isinstance(part, Block) else _ordered(part, width)
    return found


@lru_cache(maxsize=1024)
def _ordered(line: tuple[Instruction, ...], width: int) -> tuple[Instruction, ...]:
    """Returns a straight line of instructions in the order in which they can issue."""
    before = _dependences(line)
    path, after = [1] * len(line), [list[int]() for _ in line]
    for i in reversed(range(len(line))):
        for j, wait in before[i].items():
            path[j] = max(path[j], wait + path[i] + 1)
            after[j].append(i)
    ports = [dual_issue_port(timed(node)[0]) for node in line]
    free, issued = {i for i, needed in enumerate(before) if not needed}, dict[int, int]()  # those issued with their cycles
    cycle, used = 0, ""
    while free:
        fitting = [i for i in free if len(used) < width and ports_pair(used, ports[i])]
        ready = [i for i in fitting if all(issued[j] + wait <= cycle for j, wait in before[i].items())]
        if not ready:
            cycle, used = cycle + 1, ""
            continue
        chosen = max(ready, key=lambda i: (path[i], -i))
        free.remove(chosen)
        used += ports[chosen]
        issued[chosen] = cycle
        free |= {i for i in after[chosen] if before[i].keys() <= issued.keys()}
    return tuple(line[i] for i in issued)


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
        needed |= {writer[place]: LATENCY.get(line[writer[place]].op.kind, 1) for place in reads & writer.keys()}
        for place in reads:
            readers.setdefault(place, []).append(i)
        writer |= dict.fromkeys(writes, i)
        readers |= {place: [] for place in writes}
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
