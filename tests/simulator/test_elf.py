"""ELF files: damaged ones end in a sentence, and so do programs of other cores."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compiled import BOARDS, NEEDS_COMPILER
from elftools.elf.elffile import ELFFile
from sim_tools import build

from tinyredux.boards import find_board
from tinyredux.cli.app import main
from tinyredux.simulator import read_elf
from tinyredux.simulator.run import simulate

pytestmark = NEEDS_COMPILER
F469 = find_board("disco_f469ni")
SOURCE = """volatile int data = 7; int zeros[9]; int main(void) { float f = data; zeros[data] = (int)(f * f); number(zeros[data]);
    leave(0); return 0; }"""
FILES = 100  # of each seed


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("elf"), SOURCE)


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Returns a copy that is cut off, or has bits or words changed: anywhere, in the headers, in the tables or in the program."""
    changed, sections_at = bytearray(data), int.from_bytes(data[32:36], "little")
    places = (range(len(data)), range(52), range(52, 116), range(sections_at, len(data)), range(0x1000, 0x1200))
    kind = draw.randrange(3)
    for _ in range(draw.choice((1, 1, 3, 20))):
        place = draw.choice(draw.choice(places))
        if kind == 1:
            changed[place] ^= 1 << draw.randrange(8)
        elif kind == 2:
            word = draw.choice((0, 1, 3, 8, 0x10000000, 0x7FFFFFFF, 0xFFFFFFFF, draw.getrandbits(32)))
            changed[place & ~3 : (place & ~3) + 4] = word.to_bytes(4, "little")
    return bytes(changed) if kind else data[: draw.randrange(len(data))]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(1, 20))])
def test_damaged_files_end_in_a_sentence_or_in_a_result(seed: int, elf: Path, tmp_path: Path) -> None:
    draw, file, data = random.Random(seed), tmp_path / "damaged.elf", elf.read_bytes()
    refused = 0
    for _ in range(FILES):
        file.write_bytes(damaged(data, draw))
        for read in (lambda: simulate(file, F469, max_instructions=20_000), lambda: read_elf(file)):
            try:
                read()
            except ValueError as sentence:
                refused += 1
                assert str(sentence).count(" ") > 4 and "Traceback" not in str(sentence)
    assert refused > FILES / 2  # of twice as many


def patched(data: bytes, place: int, form: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, place, value)
    return bytes(changed)


def at(place: int, form: str, value: int) -> Callable[[bytes], bytes]:
    return lambda data: patched(data, place, form, value)


def section_field(data: bytes, kind: int, field: int, value: int) -> bytes:
    """Returns a copy in which the header of the first section of a kind has another value."""
    start, count = struct.unpack_from("<I", data, 32)[0], struct.unpack_from("<H", data, 48)[0]
    heads = [start + 40 * i for i in range(count)]
    head = next(head for head in heads if struct.unpack_from("<I", data, head + 4)[0] == kind)
    return patched(data, head + 4 * field, "<I", value)


CASES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "not an ELF file"), "text": (lambda data: b"no program", "not an ELF file"),
    "cut in the header": (lambda data: data[:40], "cut off after 40 bytes"),
    "cut in the code": (lambda data: data[:0x1010], "cut off"), "64 bits": (at(4, "<B", 2), "ELF class 2"),
    "big-endian": (at(5, "<B", 2), "byte order 2"), "x86": (at(18, "<H", 62), "machine 62"),
    "an object file": (at(16, "<H", 1), "expected a linked program"),
    "section table beyond the file": (at(32, "<I", 1 << 30), "table of sections ends at byte"),
    "65,535 sections": (at(48, "<H", 0xFFFF), "table of sections ends at byte"),
    "segment beyond the file": (at(52 + 4, "<I", 1 << 30), "segment 0 ends at byte"),
    "more in the file than in memory": (at(52 + 20, "<I", 4), "segment 0 puts"),
    "huge memory": (at(52 + 32 + 20, "<I", 1 << 28), "outside flash and RAM"),
    "memory past the end of addresses": (at(52 + 32 + 20, "<I", 0xFFFFFFFF), "segment 1 puts"),
    "segment where no memory is": (at(52 + 12, "<I", 0x70000000), "linked for another board"),
    "overlapping segments": (lambda data: data[:96] + data[64:68] + data[100:], "two segments are loaded to"),
    "no segments": (at(44, "<H", 0), "nothing to load"), "names of no section": (at(50, "<H", 500), "section 500 of"),
    "symbols without names": (lambda data: section_field(data, 2, 6, 77), "section 77 of"),
    "symbols beyond the file": (lambda data: section_field(data, 2, 5, 0xFFFFFFF0), "table of symbols ends"),
    "an M7's": (lambda data: data.replace(b"\x0a\x06", b"\x0a\x08"), "built for Armv7E-M with FPv5-D16, which a cortex-m4"),
    "an A-profile's": (lambda data: data.replace(b"\x06\x0d", b"\x06\x0e"), "built for Armv8-A"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_damage_has_its_sentence(name: str, elf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, words = CASES[name]
    file = tmp_path / "damaged.elf"
    file.write_bytes(change(elf.read_bytes()))
    assert main(["simulate", str(file), "--board", "disco_f469ni"]) == 2
    said = capsys.readouterr().err
    assert (words in said and str(file) in said) or words in ("outside flash and RAM", "linked for another board")


def junk(data: bytes, byte: int) -> bytes:
    """Returns a copy whose section of attributes is filled with a byte."""
    place = data.index(b"aeabi") + 6
    return data[:place] + bytes([byte]) * 24 + data[place + 24 :]


LENIENT: dict[str, Callable[[bytes], bytes]] = {
    "no sections": lambda data: patched(patched(data, 48, "<H", 0), 50, "<H", 0),
    "symbols that name themselves as their names": lambda data: section_field(data, 2, 6, 6),
    "entries of no size": lambda data: section_field(data, 2, 9, 0),
    "names without an end": lambda data: data.replace(b"\0main\0", b"\0main_"),
    **{f"attributes {byte:#x}": lambda data, byte=byte: junk(data, byte) for byte in (0, 0x80, 0xFF)},  # type: ignore[misc]
}  # fmt: skip


@pytest.mark.parametrize("name", LENIENT)
def test_a_program_runs_without_its_names_and_attributes(name: str, elf: Path, tmp_path: Path) -> None:
    file = tmp_path / "damaged.elf"
    file.write_bytes(LENIENT[name](elf.read_bytes()))
    assert simulate(file, F469, max_instructions=20_000)["console"].split() == ["0000000049"]
    assert "attributes" not in name or read_elf(file).symbols == read_elf(elf).symbols


ANY = "-mcpu=cortex-m3 -mfloat-abi=soft -mfpu=auto"
CORES = {board: core for core, board in BOARDS.items()}
RUNS = {  # what a program is built for: the boards that run it
    ("cortex-m4", ""): {*CORES}, ("cortex-m7", ""): {*CORES} - {"disco_f469ni"}, ("cortex-m33", ""): {"nucleo_u575zi_q"},
    ("cortex-m4", ANY): {*CORES},
}  # fmt: skip


@pytest.mark.parametrize(("cpu", "flags"), RUNS)
def test_a_program_of_another_core_is_told(cpu: str, flags: str, tmp_path: Path) -> None:
    program = build(tmp_path, "int main(void) { return 4; }" if flags else SOURCE, *flags.split(), cpu=cpu)
    for board, own in CORES.items():
        if board in RUNS[cpu, flags]:
            assert simulate(program, find_board(board))["exit"] == (4 if flags else 0)
        else:
            with pytest.raises(ValueError, match=f"is built for .*, which a {own} does not run"):
                simulate(program, find_board(board))


def test_what_is_read_equals_what_pyelftools_reads(elf: Path) -> None:
    found = read_elf(elf)
    with elf.open("rb") as stream:
        theirs = ELFFile(stream)
        table: Any = theirs.get_section_by_name(".symtab")
        assert [section.name for section in found.sections] == [section.name for section in theirs.iter_sections()]
        symbols = [(symbol.name, symbol["st_value"], symbol["st_size"]) for symbol in table.iter_symbols()]
        assert [(symbol.name, symbol.value, symbol.size) for symbol in found.symbols] == symbols
        segments = [(segment["p_paddr"], segment.data()) for segment in theirs.iter_segments("PT_LOAD")]
        assert [(segment.load_address, segment.data) for segment in found.segments] == segments
