"""What the simulator takes from an ELF file: bytes to load, function symbols, where to start."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tinyredux.simulator.elf import CPU_ARCHITECTURE, EXECUTABLE, FLOAT_ARCHITECTURE, Elf, Segment, read_elf

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

# Values of the attribute Tag_CPU_arch, and of Tag_FP_arch, that a core runs. Source: Arm ABI addenda, 2.5.1.
ARCHITECTURES = {
    1: "Armv4", 2: "Armv4T", 3: "Armv5T", 4: "Armv5TE", 5: "Armv5TEJ", 6: "Armv6", 7: "Armv6KZ", 8: "Armv6T2", 9: "Armv6K",
    10: "Armv7", 11: "Armv6-M", 12: "Armv6S-M", 13: "Armv7E-M", 14: "Armv8-A", 15: "Armv8-R", 16: "Armv8-M Baseline",
    17: "Armv8-M Mainline", 21: "Armv8.1-M Mainline", 22: "Armv9-A",
}  # fmt: skip
FLOATS = {1: "VFPv1", 2: "VFPv2", 3: "VFPv3", 4: "VFPv3-D16", 5: "VFPv4", 6: "VFPv4-D16", 7: "FPv5", 8: "FPv5-D16"}
_V7 = (0, 10, 11, 12, 13)
RUNS = {
    "cortex-m4": (_V7, (0, 6)),
    "cortex-m7": (_V7, (0, 6, 8)),
    "cortex-m33": ((*_V7, 16, 17), (0, 6, 8)),
}


@dataclass(frozen=True)
class Function:
    """A function of the program: [start, end) in bytes."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Program:
    """A loadable program. `vectors`: address of the vector table, if one is to be seen."""

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


def load_program(path: Path, cpu: str) -> Program:
    """Returns the program of an Arm ELF executable. Raises ValueError for anything else, and for a program of another core."""
    elf = read_elf(path)
    if elf.kind != EXECUTABLE:
        raise ValueError(f"{path} is ELF type {elf.kind}, expected a linked program (type {EXECUTABLE}, ET_EXEC)")
    if not any(segment.data for segment in elf.segments):
        raise ValueError(f"{path} holds nothing to load; give the .elf that the linker wrote")
    architectures, floats = RUNS[cpu]
    architecture, float_unit = (elf.attributes.get(tag, 0) for tag in (CPU_ARCHITECTURE, FLOAT_ARCHITECTURE))
    if architecture not in architectures or float_unit not in floats:
        made = ARCHITECTURES.get(architecture, f"architecture {architecture}")
        unit = f" with {FLOATS.get(float_unit, f'floating-point unit {float_unit}')}" if float_unit else ""
        raise ValueError(f"{path} is built for {made}{unit}, which a {cpu} does not run; build it with -mcpu={cpu}")
    symbols = {symbol.name: symbol.value for symbol in elf.symbols if symbol.name and not symbol.name.startswith("$")}
    vectors = next((symbols[name] for name in VECTOR_NAMES if name in symbols), None)
    data_end = max((part.address + part.size for part in elf.segments if part.address >> 28 == 2), default=0)
    return Program(elf.segments, elf.entry, vectors, _functions(elf), symbols, data_end)


def _functions(elf: Elf) -> tuple[Function, ...]:
    found: dict[int, tuple[bool, str, int]] = {}
    for symbol in elf.symbols:
        if symbol.is_function and symbol.section:
            start = symbol.value & ~1
            found[start] = max(found.get(start, (False, "", 0)), (symbol.is_global, symbol.name, symbol.size))
    ends = [(section.address, section.address + section.size) for section in elf.sections if section.flags & 4]
    functions = []
    for start, following in pairwise([*sorted(found), 1 << 32]):
        size = found[start][2]
        limit = next((end for begin, end in ends if begin <= start < end), following)
        functions.append(Function(found[start][1], start, start + size if size else min(following, limit)))
    return tuple(functions)
