"""What lies in memory: a program from its ELF file (bytes, functions, where to start), and where a board's memories appear."""

import bisect
import struct
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from tinyredux.boards import Board
from tinyredux.simulator.chips import chip_of
from tinyredux.simulator.elf import CPU_ARCHITECTURE, EXECUTABLE, FLOAT_ARCHITECTURE, Elf, Segment, read_elf
from tinyredux.simulator.timing import CORES

VECTOR_NAMES = "__isr_vector g_pfnVectors vector_table _vectors __Vectors __vectors _vector_table tr_vectors".split()
FLASH_KIND, STACK_KIND = 1, 2
PAGE = 4096

# The names of values of the attributes Tag_CPU_arch and Tag_FP_arch. Source: Arm ABI addenda, 2.5.1.
ARCHITECTURES = {
    1: "Armv4", 2: "Armv4T", 3: "Armv5T", 4: "Armv5TE", 5: "Armv5TEJ", 6: "Armv6", 7: "Armv6KZ", 8: "Armv6T2", 9: "Armv6K",
    10: "Armv7", 11: "Armv6-M", 12: "Armv6S-M", 13: "Armv7E-M", 14: "Armv8-A", 15: "Armv8-R", 16: "Armv8-M Baseline",
    17: "Armv8-M Mainline", 21: "Armv8.1-M Mainline", 22: "Armv9-A",
}  # fmt: skip
FLOATS = {1: "VFPv1", 2: "VFPv2", 3: "VFPv3", 4: "VFPv3-D16", 5: "VFPv4", 6: "VFPv4-D16", 7: "FPv5", 8: "FPv5-D16"}


class Function(NamedTuple):
    """A function of the program: [start, end) in bytes."""

    name: str
    start: int
    end: int


class Image(NamedTuple):
    """A program to load. `vectors`: address of the vector table, if one is to be seen."""

    segments: tuple[Segment, ...]
    entry: int
    vectors: int | None
    functions: tuple[Function, ...]
    symbols: dict[str, int]
    data_end: int

    def function_index(self, address: int) -> int:
        """Returns the index in `functions` of the one that holds an address, or -1."""
        index = bisect.bisect_right(self.functions, address, key=lambda function: function.start) - 1
        return index if index >= 0 and address < self.functions[index].end else -1

    def place(self, address: int) -> str:
        """Returns an address as people read it: function+offset, or hexadecimal."""
        index = self.function_index(address)
        if index < 0:
            return f"{address:#010x}"
        function = self.functions[index]
        return f"{function.name}+{address - function.start:#x}" if address > function.start else function.name


def load_image(path: Path, cpu: str) -> Image:
    """Returns the program of an Arm ELF executable. Raises ValueError for anything else, and for a program of another core."""
    elf = read_elf(path)
    if elf.kind != EXECUTABLE:
        raise ValueError(f"{path} is ELF type {elf.kind}, expected a linked program (type {EXECUTABLE}, ET_EXEC)")
    if not any(segment.data for segment in elf.segments):
        raise ValueError(f"{path} holds nothing to load; give the .elf that the linker wrote")
    architecture, float_unit = (elf.attributes.get(tag, 0) for tag in (CPU_ARCHITECTURE, FLOAT_ARCHITECTURE))
    if architecture not in CORES[cpu].architectures or float_unit not in CORES[cpu].float_units:
        made = ARCHITECTURES.get(architecture, f"architecture {architecture}")
        unit = f" with {FLOATS.get(float_unit, f'floating-point unit {float_unit}')}" if float_unit else ""
        raise ValueError(f"{path} is built for {made}{unit}, which a {cpu} does not run; build it with -mcpu={cpu}")
    symbols = {symbol.name: symbol.value for symbol in elf.symbols if symbol.name and not symbol.name.startswith("$")}
    vectors = next((symbols[name] for name in VECTOR_NAMES if name in symbols), None)
    data_end = max((part.address + part.size for part in elf.segments if part.address >> 28 == 2), default=0)
    return Image(elf.segments, elf.entry, vectors, _functions(elf), symbols, data_end)


def _functions(elf: Elf) -> tuple[Function, ...]:
    found: dict[int, tuple[bool, str, int]] = {}
    for symbol in elf.symbols:
        if symbol.is_function and symbol.section:
            start = symbol.value & ~1
            found[start] = max(found.get(start, (False, "", 0)), (symbol.is_global, symbol.name, symbol.size))
    ends = [(section.address, section.address + section.size) for section in elf.sections if section.flags & 4]
    functions = []
    for start, following in pairwise([*sorted(found), 1 << 32]):
        _, name, size = found[start]
        limit = next((end for begin, end in ends if begin <= start < end), following)
        functions.append(Function(name, start, start + size if size else min(following, limit)))
    return tuple(functions)


class Span(NamedTuple):
    """`size` bytes at `base` that show a memory from `offset` on. `kind`: its number, 1 flash, 2 first SRAM, others."""

    base: int
    size: int
    kind: int
    offset: int = 0

    def holds(self, address: int, size: int = 1) -> bool:
        """Whether `size` bytes at an address lie in it."""
        return self.base <= address and address + size <= self.base + self.size


class MemoryMap:
    """All memories of a board; peripherals are not among them. Those whose kind is in `read_only` cannot be written."""

    def __init__(self, board: Board) -> None:
        """Raises ValueError when two memories of the board overlap, or one is no whole number of pages."""
        self.board, chip, first = board, chip_of(board.family), board.sram[0]
        bases = (board.flash.base, *(() if chip.flash_alias is None else (chip.flash_alias,)))
        spans = [Span(base, board.flash.size_bytes, FLASH_KIND) for base in bases]
        for kind, block in enumerate(board.sram, STACK_KIND):
            shown = (kind, 0) if block.same_as is None else (STACK_KIND, block.same_as - first.base)
            spans.append(Span(block.base, block.size_bytes, *shown))
        if board.family == "stm32u5":
            spans.append(Span(0x30000000, first.size_bytes, STACK_KIND))
        others = STACK_KIND + len(board.sram)
        ram = [each for each in chip.ram if all(each != (block.base, block.size_bytes) for block in board.sram)]
        spans += [Span(base, size, kind) for kind, (base, size) in enumerate((*ram, *chip.rom), others)]
        self.spans = tuple(spans)
        self.read_only = {FLASH_KIND, *range(others + len(ram), others + len(ram) + len(chip.rom))}
        ordered = sorted(spans)
        for span, after in pairwise([*ordered, Span(1 << 32, 0, 0)]):
            where = f"board {board.name}: memory at {span.base:#x} ({span.size} bytes)"
            if span.base + span.size > after.base:
                raise ValueError(f"{where} overlaps the memory at {after.base:#x}")
            if span.base % PAGE or span.size % PAGE:
                raise ValueError(f"{where} is not in units of {PAGE}")

    def vector_table(self, image: Image) -> int | None:
        """Returns where the vector table lies: named by a symbol, or the first bytes loaded into flash; None if neither.

        A table whose reset vector is even, which no core can start at, is taken for one where a symbol or its place says so.
        """
        starts = sorted(part.load_address for part in image.segments)
        for address in starts if image.vectors is None else [image.vectors, *starts]:
            for part in image.segments:
                offset = address - part.load_address
                if 0 <= offset <= len(part.data) - 8:
                    stack, reset = struct.unpack_from("<II", part.data, offset)
                    start = reset & 1 or address in (image.vectors, self.board.flash.base)
                    if start and stack % 4 == 0 and self.holds(stack - 4) and self.holds(reset & ~1):
                        return address
        return None

    def check(self, image: Image) -> None:
        """Raises ValueError for bytes to load where no memory is, and for a segment that ends beyond the memory it starts in."""
        loaded = [(part.load_address, len(part.data)) for part in image.segments if part.data]
        used = [(part.address, part.size) for part in image.segments if self.holds(part.address)]
        for base, size in loaded + used:
            if not (self.holds(base) and self.holds(base + max(0, size - 1))):
                raise ValueError(
                    f"{size} bytes at {base:#010x} are outside flash and RAM of {self.board.name}; "
                    "was the program linked for another board?"
                )

    def holds(self, address: int) -> bool:
        """Whether there is memory at an address."""
        return any(span.holds(address) for span in self.spans)
