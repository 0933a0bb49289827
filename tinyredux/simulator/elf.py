"""What the project reads of ELF files: 32-bit little-endian Arm programs and objects.

Own code in the place of pyelftools, for a damaged file must end in a sentence: there a section that names itself as its string
table recurses, a table of four thousand million symbols is walked, and an empty attribute never ends. Here every table is held
against the file's size before it is read.

Source: Tool Interface Standard ELF specification 1.2; "Addenda to, and Errata in, the ABI for the Arm Architecture" (attributes).
"""

import struct
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

EXECUTABLE = 2  # e_type
FUNCTION, GLOBAL = 2, 1  # type and binding of a symbol
LOADED, WITHOUT_BYTES, SYMBOL_TABLE, ARM_ATTRIBUTES = 1, 8, 2, 0x70000003  # p_type; sh_type
ARM_MACHINE, HEADER_BYTES, SEGMENT_BYTES, SECTION_BYTES = 40, 52, 32, 40
CPU_ARCHITECTURE, FLOAT_ARCHITECTURE = 6, 10  # tags of attributes
NAME_BYTES = 4096  # a longer name is cut: a damaged table of names may have no end
TEXT_TAGS, FIRST_OTHER_TAG = (4, 5, 65, 67), 32  # of attributes: those below hold a number each, but for these texts


class Segment(NamedTuple):
    """Bytes to load at `load_address` for use at `address`; `size` counts the zeros after them too."""

    address: int
    load_address: int
    size: int
    data: bytes


class Section(NamedTuple):
    """A section: its name, type, flags, address and size in bytes."""

    name: str
    kind: int
    flags: int
    address: int
    size: int


class Symbol(NamedTuple):
    """A symbol; `section` is the index of the one that holds it, 0 for what is elsewhere."""

    name: str
    value: int
    size: int
    is_function: bool
    is_global: bool
    section: int


class Elf(NamedTuple):
    """An ELF file. `attributes`: numbers by tag, such as the CPU's architecture that it is made for."""

    kind: int
    entry: int
    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    attributes: dict[int, int]


def read_elf(path: Path) -> Elf:
    """Returns an ELF file's contents. Raises ValueError that says what is wrong with it."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    try:
        return _parse(path.read_bytes())
    except (ValueError, struct.error) as wrong:
        raise ValueError(f"{path} {wrong}; give the .elf that the linker wrote") from None


def _parse(data: bytes) -> Elf:
    if data[:4] != b"\x7fELF":
        raise ValueError("is not an ELF file: its first four bytes differ")
    if len(data) < HEADER_BYTES:
        raise ValueError(f"is cut off after {len(data)} bytes, within the ELF header")
    if data[4:6] != b"\1\1":
        raise ValueError(f"has ELF class {data[4]} and byte order {data[5]}, expected 1 and 1 (32 bits, little-endian)")
    kind, machine, _, entry, segments_at, sections_at, _, _, *sizes = struct.unpack_from("<HHIIIIIHHHHHH", data, 16)
    segment_bytes, segment_count, section_bytes, section_count, names_index = sizes
    if machine != ARM_MACHINE:
        raise ValueError(f"is made for ELF machine {machine}, expected {ARM_MACHINE} (Arm)")
    if (segment_count and segment_bytes != SEGMENT_BYTES) or (section_count and section_bytes != SECTION_BYTES):
        raise ValueError(f"is damaged: its tables have entries of {segment_bytes} and {section_bytes} bytes, expected 32 and 40")
    programs = _rows(data, segments_at, segment_count * SEGMENT_BYTES, "<8I", "the table of segments")
    heads = _rows(data, sections_at, section_count * SECTION_BYTES, "<10I", "the table of sections")
    names = _content(data, heads, names_index) if section_count and names_index else b""
    sections = tuple(Section(_text(names, head[0]), head[1], head[2], head[3], head[5]) for head in heads)
    kinds = [section.kind for section in sections]
    symbols = _symbols(data, heads, kinds.index(SYMBOL_TABLE)) if SYMBOL_TABLE in kinds else ()
    marks = _content(data, heads, kinds.index(ARM_ATTRIBUTES)) if ARM_ATTRIBUTES in kinds else b""
    return Elf(kind, entry, _segments(data, programs), sections, symbols, _attributes(marks))


def _span(data: bytes, start: int, size: int, what: str) -> bytes:
    if start + size > len(data):
        raise ValueError(f"is cut off or damaged: {what} ends at byte {start + size}, the file has {len(data)}")
    return data[start : start + size]


def _rows(data: bytes, start: int, size: int, form: str, what: str) -> list[tuple[int, ...]]:
    return list(struct.iter_unpack(form, _span(data, start, size, what)))


def _content(data: bytes, heads: list[tuple[int, ...]], index: int) -> bytes:
    """Returns the bytes of a section."""
    if index >= len(heads):
        raise ValueError(f"is damaged: it refers to section {index} of {len(heads)}")
    _, kind, _, _, start, size, *_ = heads[index]
    return b"" if kind == WITHOUT_BYTES else _span(data, start, size, f"section {index}")


def _text(table: bytes, start: int) -> str:
    end = table.find(b"\0", start, start + NAME_BYTES)
    return table[start : end if end >= 0 else start + NAME_BYTES].decode("utf-8", "replace")


def _segments(data: bytes, programs: list[tuple[int, ...]]) -> tuple[Segment, ...]:
    found = []
    for index, (kind, start, address, load_address, in_file, size, _, _) in enumerate(programs):
        if kind != LOADED:
            continue
        if in_file > size or address + size > 1 << 32 or load_address + in_file > 1 << 32:
            raise ValueError(f"is damaged: segment {index} puts {in_file} bytes of the file into {size} at {address:#x}")
        found.append(Segment(address, load_address, size, _span(data, start, in_file, f"segment {index}")))
    ordered = sorted((segment for segment in found if segment.data), key=lambda segment: segment.load_address)
    for one, other in pairwise(ordered):
        if one.load_address + len(one.data) > other.load_address:
            raise ValueError(f"is damaged: two segments are loaded to {other.load_address:#010x}")
    return tuple(found)


def _symbols(data: bytes, heads: list[tuple[int, ...]], index: int) -> tuple[Symbol, ...]:
    start, size, link = heads[index][4:7]
    names = _content(data, heads, link)
    return tuple(
        Symbol(_text(names, name), value, length, info & 15 == FUNCTION, info >> 4 == GLOBAL, section if section < 0xFF00 else 0)
        for name, value, length, info, _, section in _rows(data, start, size & ~15, "<IIIBBH", "the table of symbols")
    )


def _attributes(content: bytes) -> dict[int, int]:
    """Returns the first numbers among the attributes of the whole file, by tag; none of a section that is damaged.

    They come in the order of their tags, each in one byte up to tag 31; tag 67, a text, may stand before all.
    """
    found: dict[int, int] = {}
    rest = content.partition(b"aeabi\0\1")[2][4:]  # the vendor's name, tag 1 (the whole file), four bytes of length
    while len(rest) > 1 and (rest[0] in TEXT_TAGS or rest[0] < FIRST_OTHER_TAG):
        if rest[0] in TEXT_TAGS:
            rest = rest.partition(b"\0")[2]
        else:
            found[rest[0]], rest = rest[1], rest[2:]
    return found
