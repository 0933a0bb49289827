"""ELF files: damaged ones end in a sentence, and so do programs of other cores."""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from sim_tools import build

from tinyredux.boards import find_board
from tinyredux.cli.app import main
from tinyredux.simulator import read_elf
from tinyredux.simulator.run import simulate

pytestmark = pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing")
F469 = find_board("disco_f469ni")
SOURCE = """volatile int data = 7; int zeros[9]; int main(void) { float f = data; zeros[data] = (int)(f * f); number(zeros[data]);
    leave(0); return 0; }"""
FILES = 200  # of each seed


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("elf"), SOURCE)


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Returns a copy that is cut off, or has bits or words changed: anywhere, in the headers, in the tables or in the program."""
    changed = bytearray(data)
    sections_at = int.from_bytes(data[32:36], "little")
    places = (range(len(data)), range(52), range(52, 116), range(sections_at, len(data)), range(0x1000, 0x1200))
    kind = draw.randrange(3)
    if kind == 0:
        return data[: draw.randrange(len(data))]
    for _ in range(draw.choice((1, 1, 3, 20))):
        place = draw.choice(draw.choice(places))
        if kind == 1:
            changed[place] ^= 1 << draw.randrange(8)
        else:
            place = min(place & ~3, len(data) - 4)
            word = draw.choice((0, 1, 3, 8, 0x10000000, 0x7FFFFFFF, 0xFFFFFFFF, draw.getrandbits(32)))
            changed[place : place + 4] = word.to_bytes(4, "little")
    return bytes(changed)


@pytest.mark.parametrize("seed", range(3))
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


def section_field(data: bytes, kind: int, field: int) -> int:
    """Returns where the header of the first section of a kind holds a field."""
    start, count = struct.unpack_from("<I", data, 32)[0], struct.unpack_from("<H", data, 48)[0]
    heads = [start + 40 * i for i in range(count)]
    return next(head for head in heads if struct.unpack_from("<I", data, head + 4)[0] == kind) + 4 * field


def with_overlap(data: bytes) -> bytes:
    start = struct.unpack_from("<I", data, 28)[0]
    return patched(data, start + 32 + 12, "<I", struct.unpack_from("<I", data, start + 12)[0])


CASES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "not an ELF file"),
    "text": (lambda data: b"no program", "not an ELF file"),
    "cut in the header": (lambda data: data[:40], "cut off after 40 bytes"),
    "cut in the code": (lambda data: data[:0x1010], "cut off"),
    "64 bits": (lambda data: patched(data, 4, "<B", 2), "ELF class 2"),
    "big-endian": (lambda data: patched(data, 5, "<B", 2), "byte order 2"),
    "x86": (lambda data: patched(data, 18, "<H", 62), "machine 62"),
    "an object file": (lambda data: patched(data, 16, "<H", 1), "expected a linked program"),
    "section table beyond the file": (lambda data: patched(data, 32, "<I", 1 << 30), "table of sections ends at byte"),
    "65,535 sections": (lambda data: patched(data, 48, "<H", 0xFFFF), "table of sections ends at byte"),
    "segment beyond the file": (lambda data: patched(data, 52 + 4, "<I", 1 << 30), "segment 0 ends at byte"),
    "more in the file than in memory": (lambda data: patched(data, 52 + 20, "<I", 4), "segment 0 puts"),
    "huge memory": (lambda data: patched(data, 52 + 32 + 20, "<I", 1 << 28), "outside flash and RAM"),
    "memory past the end of addresses": (lambda data: patched(data, 52 + 32 + 20, "<I", 0xFFFFFFFF), "segment 1 puts"),
    "segment where no memory is": (lambda data: patched(data, 52 + 12, "<I", 0x70000000), "linked for another board"),
    "overlapping segments": (with_overlap, "two segments are loaded to"),
    "no segments": (lambda data: patched(data, 44, "<H", 0), "nothing to load"),
    "names of no section": (lambda data: patched(data, 50, "<H", 500), "section 500 of"),
    "symbols without names": (lambda data: patched(data, section_field(data, 2, 6), "<I", 77), "section 77 of"),
    "symbols beyond the file": (lambda data: patched(data, section_field(data, 2, 5), "<I", 0xFFFFFFF0), "table of symbols ends"),
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


LENIENT: dict[str, Callable[[bytes], bytes]] = {
    "no sections": lambda data: patched(patched(data, 48, "<H", 0), 50, "<H", 0),
    "symbols that name themselves as their names": lambda data: patched(data, section_field(data, 2, 6), "<I", 6),
    "entries of no size": lambda data: patched(data, section_field(data, 2, 9), "<I", 0),
    "names without an end": lambda data: data.replace(b"\0main\0", b"\0main_"),
}


@pytest.mark.parametrize("name", LENIENT)
def test_a_program_runs_without_its_names(name: str, elf: Path, tmp_path: Path) -> None:
    file = tmp_path / "damaged.elf"
    file.write_bytes(LENIENT[name](elf.read_bytes()))
    assert simulate(file, F469, max_instructions=20_000)["console"].split() == ["0000000049"]


def test_an_attribute_section_may_hold_anything(elf: Path, tmp_path: Path) -> None:
    data, file = bytearray(elf.read_bytes()), tmp_path / "damaged.elf"
    place = bytes(data).index(b"aeabi")
    for junk in (0, 0x80, 0xFF):
        data[place + 6 : place + 30] = bytes([junk]) * 24
        file.write_bytes(data)
        assert read_elf(file).symbols == read_elf(elf).symbols


CORES = {  # what a program is built for, a board, whether it runs
    ("cortex-m4", "nucleo_f746zg"): True, ("cortex-m4", "nucleo_u575zi_q"): True, ("cortex-m7", "disco_f469ni"): False,
    ("cortex-m33", "disco_f469ni"): False, ("cortex-m33", "nucleo_f746zg"): False, ("cortex-m7", "nucleo_u575zi_q"): True,
}  # fmt: skip


@pytest.mark.parametrize(("cpu", "board"), CORES)
def test_a_program_of_another_core_is_told(cpu: str, board: str, tmp_path: Path) -> None:
    program = build(tmp_path, SOURCE, cpu=cpu)
    if CORES[cpu, board]:
        assert simulate(program, find_board(board))["reason"] == "exit"
    else:
        with pytest.raises(ValueError, match=f"is built for .*, which a {find_board(board).cpu} does not run"):
            simulate(program, find_board(board))


def test_plain_v7m_code_runs_everywhere(tmp_path: Path) -> None:
    program = build(tmp_path, "int main(void) { return 4; }", "-mcpu=cortex-m3", "-mfloat-abi=soft", "-mfpu=auto")
    for board in ("disco_f469ni", "nucleo_f746zg", "nucleo_u575zi_q"):
        assert simulate(program, find_board(board))["exit"] == 4


def test_what_is_read_equals_what_pyelftools_reads(elf: Path) -> None:
    found = read_elf(elf)
    with elf.open("rb") as stream:
        theirs = ELFFile(stream)
        table = theirs.get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        assert [section.name for section in found.sections] == [section.name for section in theirs.iter_sections()]
        assert [(s.name, s.value, s.size) for s in found.symbols] == [
            (s.name, s["st_value"], s["st_size"]) for s in table.iter_symbols()
        ]
        assert [(s.load_address, s.data) for s in found.segments] == [
            (s["p_paddr"], s.data()) for s in theirs.iter_segments("PT_LOAD")
        ]
