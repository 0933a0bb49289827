"""A Program's instructions in another order for a core that issues two at once: the Cortex-M7.

Templates are written in the order that suits a Cortex-M4, with loads in rows. Here each straight line of instructions is ordered
anew by list scheduling: cycle by cycle, of the instructions whose operands are there, those with the longest way to the end go
first. What they read and write, flags and memory included, keeps its order, so the result computes the same.

Source: list scheduling after Gibbons and Muchnick 1986; ports and latencies are those of `timing`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tinyredux.fast.cost import timed
from tinyredux.fast.program import Block, Instruction, Node, Program, Register
from tinyredux.timing import LATENCY, dual_issue_port, ports_pair

DUAL_ISSUE = ("cortex-m7",)


def scheduled(program: Program, core: str) -> Program:
    """Returns the Program in the order for a core: itself where the core issues one instruction at a time."""
    return program.with_body(_nodes(program.body)) if core in DUAL_ISSUE else program


def _nodes(nodes: Sequence[Node]) -> list[Node]:
    found: list[Node] = []
    line: list[Instruction] = []
    for node in nodes:
        if isinstance(node, Instruction):
            line.append(node)
            continue
        found += [*_ordered(line), replace(node, body=_nodes(node.body)) if isinstance(node, Block) else node]
        line = []
    return found + list(_ordered(line))


def _ordered(line: list[Instruction]) -> Iterator[Instruction]:
    """Yields a straight line of instructions in the order in which they can issue."""
    before = _dependences(line)
    after: list[dict[int, int]] = [{} for _ in line]
    for i, needed in enumerate(before):
        for j, wait in needed.items():
            after[j][i] = wait
    path = [0] * len(line)
    for i in reversed(range(len(line))):
        path[i] = max((wait + path[j] for j, wait in after[i].items()), default=0) + 1
    ports = [dual_issue_port(timed(node)[0]) for node in line]
    issued: dict[int, int] = {}
    cycle, used = 0, ""
    while len(issued) < len(line):
        ready = [i for i in range(len(line)) if i not in issued and all(j in issued for j in before[i])]
        ready = [i for i in ready if all(issued[j] + wait <= cycle for j, wait in before[i].items())]
        ready = [i for i in ready if len(used) < 2 and ports_pair(used, ports[i])]
        if not ready:
            cycle, used = cycle + 1, ""
            continue
        chosen = max(ready, key=lambda i: (path[i], -i))
        issued[chosen] = cycle
        used += ports[chosen]
        yield line[chosen]


def _dependences(line: list[Instruction]) -> list[dict[int, int]]:
    """Returns for each instruction those that must come before it, with the cycles that must lie between."""
    found: list[dict[int, int]] = []
    places = [_places(node) for node in line]
    for i, (reads, writes) in enumerate(places):
        needed: dict[int, int] = {}
        for j, (other_reads, other_writes) in enumerate(places[:i]):
            if reads & other_writes:
                needed[j] = LATENCY.get(line[j].op.kind, 1)
            elif writes & (other_reads | other_writes):
                needed[j] = 0
        found.append(needed)
    return found


def _places(node: Instruction) -> tuple[set[str], set[str]]:
    """Returns what an instruction reads and writes: registers, flags, and memory."""
    reads, writes = set(node.op.uses), set(node.op.sets)
    for role, value in zip(node.op.roles, node.operands, strict=True):
        if isinstance(value, Register):
            reads |= {value.place} if role in "rsmab" else set()
            writes |= {value.place} if role in "wmb" else set()
    if node.op.kind.startswith("store"):
        writes.add("memory")
    if node.op.kind.startswith("load"):
        reads.add("memory")
    return reads, writes
