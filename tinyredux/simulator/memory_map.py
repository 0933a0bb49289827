"""Where a board's memories appear in the address space, aliases included."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise

from tinyredux.boards import Board
from tinyredux.simulator.program import Program

FLASH_KIND, STACK_KIND = 1, 2
PAGE = 4096
_SDRAM = (0xC0000000, 0x1000000)
_READ_ONLY = (0x1FFF0000, 0x8000)  # boot code, unique identifier, flash size: reads as zero
FLASH_ALIASES = {"stm32f7": (0x00200000,), "stm32u5": (0x0C000000,)}
EXTRA_SRAM = {
    "stm32f4": (_SDRAM,),
    "stm32f7": (_SDRAM, (0x00000000, 0x4000)),
    "stm32u5": ((0x28000000, 0x4000),),
}
EXTRA_ROM = {"stm32f7": ((0x1FF00000, 0x10000),), "stm32u5": ((0x0BF80000, 0x40000),)}


@dataclass(frozen=True)
class Span:
    """`size` bytes at `base`, showing memory number `backing` from `offset` on. kind: 1 flash, 2 first SRAM, 3 and up others."""

    base: int
    size: int
    backing: int
    offset: int
    backing_bytes: int
    read_only: bool
    kind: int


class MemoryMap:
    """All memories of a board; peripherals are not among them."""

    def __init__(self, board: Board) -> None:
        """Raises ValueError when two memories of the board overlap."""
        family = board.family
        self.board = board
        spans = [Span(board.flash.base, board.flash.size_bytes, 0, 0, board.flash.size_bytes, True, FLASH_KIND)]
        for alias in FLASH_ALIASES.get(family, (0,)):
            spans.append(Span(alias, board.flash.size_bytes, 0, 0, board.flash.size_bytes, True, FLASH_KIND))
        for i, block in enumerate(board.sram):
            spans.append(Span(block.base, block.size_bytes, 1 + i, 0, block.size_bytes, False, STACK_KIND + i))
        first = board.sram[0]
        if family == "stm32l4" and first.size_bytes == 0xA0000:
            spans.append(Span(0x10000000, 0x10000, 1, 0x30000, first.size_bytes, False, STACK_KIND))
        if family == "stm32u5":
            spans.append(Span(0x30000000, first.size_bytes, 1, 0, first.size_bytes, False, STACK_KIND))
        extra = [(*place, False) for place in EXTRA_SRAM.get(family, ())]
        extra += [(*place, True) for place in EXTRA_ROM.get(family, (_READ_ONLY,))]
        for i, (base, size, read_only) in enumerate(extra):
            spans.append(Span(base, size, 100 + i, 0, size, read_only, STACK_KIND + len(board.sram) + i))
        self.spans = tuple(spans)
        self._verify()

    def _verify(self) -> None:
        ordered = sorted(self.spans, key=lambda span: span.base)
        for before, after in pairwise(ordered):
            if before.base + before.size > after.base:
                raise ValueError(
                    f"board {self.board.name}: {before.size} bytes at {before.base:#x} overlap the memory at {after.base:#x}"
                )
        for span in ordered:
            if span.base % PAGE or span.size % PAGE:
                raise ValueError(
                    f"board {self.board.name}: memory at {span.base:#x} ({span.size} bytes) is not in units of {PAGE}"
                )

    def vector_table(self, program: Program) -> int | None:
        """Returns where the vector table lies: named by a symbol, or the first bytes loaded into flash; None if neither.

        A table whose reset vector is even, which no core can start at, is taken for one where a symbol or its place says so.
        """
        starts = sorted(part.load_address for part in program.segments if len(part.data) >= 8)
        sure = {program.vectors, self.board.flash.base}
        for address in [*([] if program.vectors is None else [program.vectors]), *starts]:
            for part in program.segments:
                offset = address - part.load_address
                if 0 <= offset <= len(part.data) - 8:
                    stack, reset = struct.unpack_from("<II", part.data, offset)
                    start = reset & 1 or address in sure
                    if start and stack % 4 == 0 and self.holds(stack - 4) and self.holds(reset & ~1):
                        return address
        return None

    def check(self, program: Program) -> None:
        """Raises ValueError for bytes to load where no memory is, and for a segment that ends beyond the memory it starts in."""
        for part in program.segments:
            loaded = part.load_address, len(part.data)
            for base, size in (loaded, (part.address, part.size)):
                must_start = size and (base, size) == loaded
                if (must_start or self.holds(base)) and not (self.holds(base) and self.holds(base + max(0, size - 1))):
                    raise ValueError(
                        f"{size} bytes at {base:#010x} are outside flash and RAM of {self.board.name}; "
                        "was the program linked for another board?"
                    )

    def holds(self, address: int) -> bool:
        """Whether there is memory at an address."""
        return any(span.base <= address < span.base + span.size for span in self.spans)
