"""Laws of every board file: its facts stand somewhere, its program fits, boots at full speed, and is exact to the bit."""

from __future__ import annotations

import json
import shutil
import threading
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from link_tools import DeviceProcess

from tinyredux.boards import BOARD_FOLDER, find_board
from tinyredux.device import build_firmware, build_host, simulated
from tinyredux.device.build import default_build_folder
from tinyredux.device.flash import flash
from tinyredux.device.host import HostTarget
from tinyredux.device.link import Link
from tinyredux.device.served import serve_simulator
from tinyredux.device.simulated import SimulatorTarget
from tinyredux.device.target import LinkTarget
from tinyredux.files import ROOT
from tinyredux.simulator import read_elf
from tinyredux.simulator.machine import Machine
from tinyredux.simulator.peripherals import UARTS

FILES = {path.stem: path for path in sorted(BOARD_FOLDER.rglob("*.json"))}
NEW = {name for name, path in FILES.items() if path.parent != BOARD_FOLDER}
GOLDEN = ROOT / "tests" / "golden" / "three_layers"
HASH = json.loads((GOLDEN / "manifest.json").read_text())["model_hash"]
MOST_LINES = 20
pytestmark = pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing")


@pytest.fixture(scope="module")
def folder() -> Path:
    """Where all tests build: what another has compiled of the same text by the same command is there."""
    return default_build_folder()


@pytest.mark.parametrize("name", FILES)
def test_a_board_is_a_short_file_that_says_where_its_facts_stand(name: str) -> None:
    board = find_board(name)
    assert board.name == name and len(FILES[name].read_text().splitlines()) <= MOST_LINES
    assert len(board.source) >= 2 * (name in NEW) and board.source[-1:] == tuple(
        text for text in board.source if text.endswith("Never tried on hardware")
    )


@pytest.mark.parametrize("name", FILES)
def test_the_program_lies_in_its_memories(name: str, folder: Path) -> None:
    board = find_board(name)
    firmware = build_firmware(GOLDEN, board, folder)
    elf = read_elf(firmware.elf)
    assert firmware.compiler.startswith("arm-none-eabi-gcc") and f"-mcpu={board.cpu}" in firmware.flags
    assert firmware.text_bytes > 1000 and firmware.rodata_bytes >= 4 and firmware.data_bytes == 0 and firmware.bss_bytes >= 8
    flash_end, sram = board.flash.base + board.flash_bytes, board.sram[0]
    for segment in elf.segments:
        if segment.data:
            assert board.flash.base <= segment.load_address and segment.load_address + len(segment.data) <= flash_end
    places = {section.name: (section.address, section.size) for section in elf.sections}
    for section in (".bss", ".stack"):
        start, size = places[section]
        assert sram.base <= start and start + size <= sram.base + sram.size_bytes, section
    table = next(part for part in elf.segments if part.load_address == board.flash.base).data
    stack, reset = (int.from_bytes(table[4 * i : 4 * i + 4], "little") for i in range(2))
    start, size = places[".text"]
    assert stack == sram.base + sram.size_bytes and reset & 1 and start <= reset < start + size


@pytest.mark.parametrize("name", FILES)
def test_the_program_boots_and_is_exact_to_the_bit(name: str, folder: Path) -> None:
    board = find_board(name)
    elf = build_firmware(GOLDEN, board, folder).elf
    machine = Machine(board, elf)
    machine.run(until_idle=True)
    assert f"tinyredux READY {HASH}".encode() in machine.console.sent
    assert machine.peripherals.registers[board.uart.base + UARTS[board.uart.kind].send] == ord("\n")
    random, host = np.random.default_rng(3), HostTarget(build_host(GOLDEN, folder), (8, 8, 3), (1, 1, 5))
    with SimulatorTarget(elf, board, HASH, (1, 1, 5)) as target:  # which refuses a board that is not at its full speed
        for _ in range(2):
            image = random.integers(-128, 128, (8, 8, 3)).astype(np.int8)
            run = target.measure(image)
            assert np.array_equal(run.output, host.run(image)) and run.cycles and run.instructions


def test_a_computer_under_load_is_not_a_silent_board(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred seconds pass while the simulator runs a thousand instructions; the board answers in its own time."""
    monkeypatch.setattr(simulated, "time", SimpleNamespace(monotonic=count(step=100).__next__))
    monkeypatch.setattr(simulated, "SLICE_INSTRUCTIONS", 1000)
    board = find_board("nucleo_l4r5zi")
    with SimulatorTarget(build_firmware(GOLDEN, board, folder).elf, board, HASH, (1, 1, 5)) as target:
        assert target.measure(np.zeros((8, 8, 3), np.int8)).cycles


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="qemu-system-arm is missing")
@pytest.mark.parametrize("name", [name for name in FILES if find_board(name).qemu_machine and name in NEW])
def test_a_board_that_qemu_has_a_machine_for_gives_the_same_bytes(name: str, folder: Path, tmp_path: Path) -> None:
    """Its USARTs are QEMU's serial ports in order of their addresses, as netduinoplus2 has USART1 first."""
    board = find_board(name)
    elf, random = build_firmware(GOLDEN, board, folder).elf, np.random.default_rng(4)
    serials = "-serial null -serial stdio"
    script = tmp_path / "qemu"
    script.write_text(
        f"#!/bin/sh\nexec qemu-system-arm -M {board.qemu_machine} -nographic -monitor none {serials} -kernel {elf}\n"
    )
    script.chmod(0o755)
    image, line = random.integers(-128, 128, (8, 8, 3)).astype(np.int8), DeviceProcess(script)
    host = HostTarget(build_host(GOLDEN, folder), (8, 8, 3), (1, 1, 5))
    with LinkTarget(Link(line, HASH), (1, 1, 5), None) as target:
        assert target.info.board == name and np.array_equal(target.run(image), host.run(image))


@pytest.mark.parametrize("name", ["disco_f469ni", "rpi_pico2"])
def test_a_board_of_a_users_own_is_flashed(name: str, tmp_path: Path) -> None:
    """From a file alone: compiled, served by the simulator, written, and asked who it is. Chips differ in the law above."""
    fields = json.loads(FILES[name].read_text()) | {"name": "of_my_own", "title": "mine"}
    own = tmp_path / "of_my_own.json"
    own.write_text(json.dumps(fields))
    board = find_board(str(own))
    served = serve_simulator(build_firmware(GOLDEN, board).elf, board)
    thread = threading.Thread(target=served.serve)
    thread.start()
    try:
        report = flash(GOLDEN, board, str(served.port))
    finally:
        served.stop()
        thread.join(10.0)
    assert (report.board, report.tool, report.model_hash) == ("of_my_own", "served", HASH)
