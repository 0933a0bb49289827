"""What a board's flash costs beside the core's cycles: lines of code that its cache has lost again, lines of weights.

A core's name may carry the flash of a board (`OnBoard`): wherever a core is named, prices then hold the stalls of that flash.

Code: the cache keeps the lines read last. A loop that fits is read once, one that is larger by a single line misses on every
round, for what comes next has always just gone. `code_stalls` walks through a function's lines, each loop twice: the second round
stands for all that follow. A call is priced as one of many, with AROUND_BYTES of other code since the last. Sets of a cache are
not modelled: all its lines may hold any.

Weights: what is read in order, and is larger than the cache of data, is fetched anew each time.

Source: ours; the rules are the simulator's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tinyredux.boards import Board, FlashTiming
from tinyredux.kernels.asm.cost import code_bytes
from tinyredux.kernels.asm.function import Block, Function, Node

AROUND_BYTES = 192  # of C between two calls of a function
HEAD_BYTES, LOOP_BYTES = 8, 8  # saving of registers; comparison and branch
LINE_CYCLES = 1.05 / 4  # that a core takes for a byte of code


class OnBoard(str):
    """The name of a board's core, with the timing of its flash. It equals the plain name, of which prices know no code stalls."""

    flash: FlashTiming

    def __new__(cls, board: Board) -> OnBoard:
        """Names the core of a board."""
        name = super().__new__(cls, board.cpu)
        name.flash = board.flash_timing
        return name


def miss_cycles(flash: FlashTiming) -> int:
    """Returns the cycles that a line costs which no cache holds."""
    return flash.wait_states if flash.miss_cycles is None else flash.miss_cycles


def byte_cycles(core: OnBoard, array_bytes: int) -> float:
    """Returns what a byte costs of weights that are read from flash in order, again and again: `array_bytes` of them in all.

    Nothing where the cache of data keeps them.
    """
    flash = core.flash
    kept = (flash.data_lines or flash.code_lines) * flash.line_bytes
    return 0 if array_bytes <= kept else miss_cycles(flash) / flash.line_bytes


Priced = tuple[float, Any, tuple[Function, ...]]  # cycles, how they are made, functions


def fastest(core: str, ways: Iterable[Priced]) -> Priced:
    """Returns the cheapest of some ways, whose loops get smaller and smaller, up to the first that has no stalls."""
    found = list[Priced]()
    for way in ways:
        found.append(way)
        if not any(code_stalls(function, core) for function in way[2]):
            break
    return min(found, key=lambda way: way[0])


def code_stalls(function: Function, core: str) -> float:
    """Returns the cycles that one of many calls of a function loses to fetches of its code: 0 for a core of no board."""
    if not isinstance(core, OnBoard) or not miss_cycles(core.flash):
        return 0
    cache, end = Cache(core.flash), code_bytes(function)
    if cache.fits(0, end + AROUND_BYTES):
        return 0
    lost = 0.0
    for _ in range(2):
        cache.read(end, end + AROUND_BYTES)
        lost = cache.read(0, HEAD_BYTES) + cache.walk(function.body, HEAD_BYTES)[0]
    return lost


class Cache:
    """The lines of code that a flash's cache holds, the one read last at the end."""

    def __init__(self, flash: FlashTiming) -> None:
        """Holds nothing."""
        self.flash, self.miss = flash, miss_cycles(flash)
        self.held = dict[int, None]()
        self.before, self.since = -2, 0.0  # the line read last, and the cycles that it took

    def fits(self, start: int, end: int) -> bool:
        """Returns whether the bytes are no more lines than the cache has."""
        return -(-end // self.flash.line_bytes) - start // self.flash.line_bytes <= self.flash.code_lines

    def read(self, start: int, end: int) -> float:
        """Returns the cycles lost to the bytes from `start` to `end`, read in order."""
        lost, size, held = 0.0, self.flash.line_bytes, self.held
        for line in range(start // size, -(-end // size)):
            cost = 0.0
            if line in held:
                del held[line]
            else:
                ahead = self.since if self.flash.prefetch and line == self.before + 1 else 0
                cost = max(0.0, self.miss - ahead)
                if len(held) >= self.flash.code_lines and held:
                    del held[next(iter(held))]
            if self.flash.code_lines:
                held[line] = None
            self.before, self.since = line, cost + LINE_CYCLES * size
            lost += cost
        return lost

    def walk(self, nodes: Sequence[Node], start: int) -> tuple[float, int]:
        """Returns the cycles lost to nodes whose code begins at byte `start`, and where it ends."""
        lost, at, read = 0.0, start, start
        for node in nodes:
            if isinstance(node, Block):
                lost += self.read(read, at)
                first, end = self.walk(node.body, at)
                first += self.read(end, end + LOOP_BYTES)
                again = 0.0
                if node.times > 1 and not self.fits(at, end + LOOP_BYTES):
                    again = self.walk(node.body, at)[0] + self.read(end, end + LOOP_BYTES)
                lost += first + (node.times - 1) * again
                at = read = end + LOOP_BYTES
            else:
                at += 4 * (node.op.asm.count("\n") + 1)
        return lost + self.read(read, at), at
