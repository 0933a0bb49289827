"""What the simulator takes from an ELF file: bytes to load, function symbols, where to start."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

VECTOR_NAMES = (
    "__isr_vector",
    "g_pfnVectors",
    "vector_table",
    "_vectors",
    "__Vectors",
    "__vectors",
    "_vector_table",
    "tr_vectors",
)


@dataclass(frozen=True)
class Function:
    """A function of the program: [start, end) in bytes."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Program:
    """A loadable program. `segments`: (address, bytes); `vectors`: address of the vector table, if one is to be seen."""

    segments: tuple[tuple[int, bytes], ...]
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


def load_program(path: Path) -> Program:
    """Returns the program of a 32-bit little-endian Arm ELF executable. Raises ValueError for anything else."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    with path.open("rb") as stream:
        try:
            elf = ELFFile(stream)
        except ELFError as wrong:
            raise ValueError(f"{path} is not an ELF file ({wrong}); give the .elf that the linker wrote") from None
        if elf["e_machine"] != "EM_ARM" or elf["e_type"] != "ET_EXEC":
            raise ValueError(f"{path} is {elf['e_machine']} {elf['e_type']}; expected a linked EM_ARM ET_EXEC program")
        segments = tuple((segment["p_paddr"], segment.data()) for segment in elf.iter_segments("PT_LOAD") if segment["p_filesz"])
        spans = [(segment["p_vaddr"], segment["p_memsz"]) for segment in elf.iter_segments("PT_LOAD")]
        symbols, functions = _symbols(elf)
    if not segments:
        raise ValueError(f"{path} holds nothing to load")
    vectors = next((symbols[name] for name in VECTOR_NAMES if name in symbols), None)
    data_end = max((base + size for base, size in spans if base >> 28 == 2), default=0)
    return Program(segments, elf["e_entry"], vectors, functions, symbols, data_end)


def _symbols(elf: ELFFile) -> tuple[dict[str, int], tuple[Function, ...]]:
    table = elf.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        return {}, ()
    symbols = {
        symbol.name: symbol["st_value"] for symbol in table.iter_symbols() if symbol.name and not symbol.name.startswith("$")
    }
    found: dict[int, tuple[int, str, int]] = {}
    for symbol in table.iter_symbols():
        if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_shndx"] != "SHN_UNDEF":
            start = symbol["st_value"] & ~1
            rank = (symbol["st_info"]["bind"] == "STB_GLOBAL", symbol.name, symbol["st_size"])
            found[start] = max(found.get(start, (False, "", 0)), rank)
    ends = _section_ends(elf)
    starts = sorted(found)
    functions = []
    for start, following in zip(starts, [*starts[1:], 1 << 32], strict=True):
        size = found[start][2]
        limit = next((end for begin, end in ends if begin <= start < end), following)
        functions.append(Function(found[start][1], start, start + size if size else min(following, limit)))
    return symbols, tuple(functions)


def _section_ends(elf: ELFFile) -> list[tuple[int, int]]:
    return [
        (section["sh_addr"], section["sh_addr"] + section["sh_size"])
        for section in elf.iter_sections()
        if section["sh_flags"] & 4
    ]
