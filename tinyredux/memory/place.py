"""Byte offsets for the buffers of a Program, so that what lives together never shares a byte.

Buffers that are tied (an output in place, an int8 result at the start of its 32-bit sums) form a block with one offset.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tinyredux.memory.program import Buffer, Program

TRIES = 400


@dataclass(frozen=True)
class Block:
    """Buffers that begin at the same byte."""

    names: tuple[str, ...]
    members: tuple[Buffer, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes from the first to the end of the largest member."""
        return max(member.size_bytes for member in self.members)

    @property
    def align(self) -> int:
        """Alignment in bytes that suits every member."""
        return max(member.align for member in self.members)

    @property
    def span(self) -> int:
        """Moments from the first of a member to the last of one."""
        return max(member.last for member in self.members) - min(member.first for member in self.members) + 1


@dataclass(frozen=True)
class Arena:
    """An offset for each buffer, the bytes in all, and the largest sum of bytes alive at one moment."""

    offsets: dict[str, int]
    size_bytes: int
    live_bytes: int


def blocks_of(buffers: dict[str, Buffer], ties: dict[str, str]) -> list[Block]:
    """Returns buffers grouped by ties."""
    groups: dict[str, list[str]] = {}
    for name in buffers:
        root = name
        while root in ties:
            root = ties[root]
        groups.setdefault(root, []).append(name)
    return [Block(tuple(names), tuple(buffers[name] for name in names)) for names in groups.values()]


def live_bytes(blocks: Sequence[Block]) -> list[int]:
    """Returns the bytes alive at each moment: of a block, the largest member alive."""
    end = max(member.last for block in blocks for member in block.members)
    totals = [0] * (end + 1)
    for block in blocks:
        sizes = dict[int, int]()
        for member in sorted(block.members, key=lambda member: member.size_bytes):
            sizes |= dict.fromkeys(range(member.first, member.last + 1), member.size_bytes)
        for moment, size in sizes.items():
            totals[moment] += size
    return totals


def place(program: Program, target: int = 0) -> Arena:
    """Returns the best placement found; stops at `target` or at the sum of live bytes, which no placement beats.

    First fit over several orders; then whatever block reaches the top is placed earlier, again and again.
    Source: ours, after the greedy planners of TFLite Micro.
    """
    blocks = blocks_of(program.buffers, program.ties)
    bound = max(live_bytes(blocks))
    rivals = _rivals(blocks)
    count = range(len(blocks))
    orders = [
        sorted(count, key=lambda i: (-blocks[i].size_bytes, blocks[i].members[0].first)),
        sorted(count, key=lambda i: (-blocks[i].size_bytes * blocks[i].span, blocks[i].members[0].first)),
        sorted(count, key=lambda i: (blocks[i].members[0].first, -blocks[i].size_bytes)),
        sorted(count, key=lambda i: (-blocks[i].span, -blocks[i].size_bytes)),
    ]
    chance, tries = random.Random(0), max(40, min(TRIES, 60_000 // max(1, sum(map(len, rivals)))))
    order, offsets, best = orders[0], list[int](), Arena({}, 1 << 62, bound)
    for i in range(len(orders) + tries):
        order = orders[i] if i < len(orders) else _nudged(order, blocks, offsets, chance)
        offsets = _first_fit(order, blocks, rivals)
        size = max(offsets[k] + blocks[k].size_bytes for k in count)
        if size < best.size_bytes:
            best = Arena({name: offsets[k] for k in count for name in blocks[k].names}, size, bound)
        if best.size_bytes <= max(bound, target):
            break
    return best


def place_apart(program: Program, tensor: str) -> Arena:
    """Returns a placement in which one buffer, with what takes its place, lies behind all others and shares no byte with them."""
    apart = next(block for block in blocks_of(program.buffers, program.ties) if tensor in block.names)
    others = {name: buffer for name, buffer in program.buffers.items() if name not in apart.names}
    ties = {name: other for name, other in program.ties.items() if name in others}
    arena = place(replace(program, buffers=others, ties=ties)) if others else Arena({}, 0, 0)
    start = -(-arena.size_bytes // apart.align) * apart.align
    end = start + apart.size_bytes
    return Arena(arena.offsets | dict.fromkeys(apart.names, start), end, arena.live_bytes + apart.size_bytes)


def gap(program: Program, arena: Arena, limit_bytes: int, scratch: str, moment: int) -> tuple[int, int]:
    """Returns (offset, bytes) of the largest range below the limit that holds nothing at a moment, but the scratch given up."""
    busy = sorted(
        (arena.offsets[name], buffer.size_bytes)
        for name, buffer in program.buffers.items()
        if buffer.first <= moment <= buffer.last and name != scratch
    )
    best, at = (0, 0), 0
    for start, size in [*busy, (limit_bytes, 0)]:
        aligned = -(-at // 4) * 4
        best = max(best, (aligned, start - aligned), key=lambda found: found[1])
        at = max(at, start + size)
    return best


def _rivals(blocks: list[Block]) -> list[list[tuple[int, int, int]]]:
    """Returns for each block (other block, own bytes, other's bytes) of every pair of members that live together."""
    found: list[list[tuple[int, int, int]]] = [[] for _ in blocks]
    for (i, a), (j, b) in itertools.permutations(enumerate(blocks), 2):
        together = ((m, n) for m in a.members for n in b.members if m.first <= n.last and n.first <= m.last)
        found[i] += {(j, m.size_bytes, n.size_bytes) for m, n in together}
    return found


def _first_fit(order: Sequence[int], blocks: list[Block], rivals: list[list[tuple[int, int, int]]]) -> list[int]:
    offsets = [-1] * len(blocks)
    for i in order:
        align, at, before = blocks[i].align, 0, -1
        busy = sorted((offsets[j], own, other) for j, own, other in rivals[i] if offsets[j] >= 0)
        while at != before:
            before = at
            for start, own, other in busy:
                if at < start + other and start < at + own:
                    at = -(-(start + other) // align) * align
        offsets[i] = at
    return offsets


def _nudged(order: list[int], blocks: list[Block], offsets: list[int], chance: random.Random) -> list[int]:
    """Returns the order with the topmost block moved somewhere earlier."""
    top = max(order, key=lambda k: offsets[k] + blocks[k].size_bytes)
    at = order.index(top)
    to = chance.randrange(at) if at else chance.randrange(len(order))
    changed = [k for k in order if k != top]
    changed.insert(to, top)
    if chance.random() < 0.3:
        i, j = chance.randrange(len(order)), chance.randrange(len(order))
        changed[i], changed[j] = changed[j], changed[i]
    return changed
