"""The tools that write programs to boards: each is called as its users know it, and looked for before anything is compiled."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tinyredux.boards import board_names, find_board
from tinyredux.device import MissingTool, build_firmware, serial_port, upload
from tinyredux.device.link import LinkError
from tinyredux.device.serial_port import find_port
from tinyredux.files import ROOT
from tinyredux.simulator import read_elf

DISCO = find_board("disco_f469ni")
JLINK, PICO, BOOTLOADER = (0x1366, 0x1015), (0x2E8A, 0x000C), (0x2341, 0x005A)
PLUGGED = {  # ports, with the number and the USB ids of what owns them
    "/dev/ttyACM0": ("0669FF", 0x0483, 0x374B), "/dev/ttyACM1": ("000683112233", *JLINK), "/dev/ttyACM2": ("E6", *PICO),
    "/dev/ttyACM3": ("77", *BOOTLOADER), "/dev/ttyACM4": ("000683445566", *JLINK),
}  # fmt: skip


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("upload")
    program = build_firmware(ROOT / "tests" / "golden" / "three_layers", DISCO, folder / "build").elf
    return Path(shutil.copy(program, folder / "firmware.elf"))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Returns what plugs in everything, and installs the programs that are named, at a home without any others."""
    ports = [SimpleNamespace(device=at, serial_number=no, vid=vid, pid=pid) for at, (no, vid, pid) in PLUGGED.items()]
    monkeypatch.setattr(serial_port.list_ports, "comports", lambda: ports)
    monkeypatch.setattr(upload, "home", lambda: tmp_path)
    monkeypatch.setattr(upload, "DRIVES", (f"{tmp_path.relative_to('/')}/*",))

    def install(*names: str) -> None:
        monkeypatch.setattr(upload.shutil, "which", lambda name, path=None: f"/bin/{name}" if name in names else None)

    return install


def test_each_kind_of_upload_calls_its_tool(bench: Callable[..., None], elf: Path, tmp_path: Path) -> None:
    def words(kind: str, port: str, *installed: str) -> str:
        bench(*installed)
        return " ".join(upload.uploader(replace(DISCO, upload=kind, mcu="nrf52840"), port)(elf))

    assert words("jlink", "/dev/ttyACM4", "nrfjprog").startswith("/bin/nrfjprog --snr 683445566 --program ")
    by_openocd = words("jlink", "/dev/ttyACM1", "openocd")
    assert "adapter serial 000683112233 -f interface/jlink.cfg -c transport select swd -f target/nrf52.cfg" in by_openocd
    assert words("bossa", "/dev/ttyUSB0", "bossac").startswith("/bin/bossac --port=/dev/ttyACM3 -U -i -e -w ")
    assert words("uf2", "/dev/ttyACM2", "picotool") == f"/bin/picotool load -v -x {elf} -t elf"
    drive = tmp_path / "RP2350"
    drive.mkdir()
    (drive / "INFO_UF2.TXT").write_text("Model: Raspberry Pi RP2350")
    assert words("uf2", "/dev/ttyACM2") == f"cp {elf.with_suffix('.uf2')} {drive}"
    shutil.copytree(drive, tmp_path / "RP2350-1")
    with pytest.raises(LinkError, match=r"expected one disco_f469ni that waits.*found .*RP2350.*, .*RP2350"):
        words("uf2", "/dev/ttyACM2")
    assert elf.with_suffix(".hex").read_text().startswith(":02") and elf.with_suffix(".bin").stat().st_size > 1000


def test_what_is_missing_is_said_before_anything_is_compiled(
    bench: Callable[..., None], monkeypatch: pytest.MonkeyPatch, elf: Path
) -> None:
    bench()
    for kind, error, said in (
        ("stlink", MissingTool, "OpenOCD is not installed; run: sudo apt-get"), ("jlink", MissingTool, "OpenOCD is not"),
        ("bossa", MissingTool, "bossac .* is not installed; run: arduino-cli"),
        ("uf2", LinkError, "hold its BOOTSEL button.*found none; install picotool"),
    ):  # fmt: skip
        with pytest.raises(error, match=said):
            upload.uploader(replace(DISCO, upload=kind), "/dev/ttyACM0")
    bench("nrfjprog", "bossac")
    with pytest.raises(LinkError, match=r"2 J-Links are plugged in, and /dev/ttyACM0 is none of theirs"):
        upload.uploader(replace(DISCO, upload="jlink"), "/dev/ttyACM0")
    with pytest.raises(LinkError, match=r"found 4 boards, expected one"):
        find_port()  # a bootloader is none
    monkeypatch.setattr(serial_port.list_ports, "comports", lambda: [])
    with pytest.raises(LinkError, match=r"0 boards wait in their bootloader.*disco_f469ni, press its reset button twice"):
        upload.uploader(replace(DISCO, upload="bossa"), "/dev/ttyUSB0")


def test_uf2_holds_every_byte_of_the_program_once(elf: Path) -> None:
    data, there = upload.uf2(elf), dict[int, int]()
    assert len(data) % 512 == 0
    for i in range(len(data) // 512):
        *head, content, end = struct.unpack("<8I476sI", data[512 * i : 512 * (i + 1)])
        assert [*head[:3], end] == [0x0A324655, 0x9E5D5157, 0x2000, 0x0AB16F30] and head[4:] == [
            256,
            i,
            len(data) // 512,
            0xE48BFF59,
        ]
        there |= {head[3] + k: byte for k, byte in enumerate(content[:256])}
    for segment in read_elf(elf).segments:
        assert bytes(there[segment.load_address + k] for k in range(len(segment.data))) == segment.data


def test_boards_in_the_folder_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYREDUX_BOARDS", str(tmp_path))
    fields = json.loads((ROOT / "tinyredux" / "board_files" / "disco_f469ni.json").read_text())
    for name in ("mine", "disco_f469ni"):
        (tmp_path / f"{name}.json").write_text(json.dumps(fields | {"name": "mine", "clock_hz": 168_000_000}))
    assert "mine" in board_names(every=True) and "mine" not in board_names()
    assert find_board("mine").clock_hz == 168_000_000 and find_board("disco_f469ni") == DISCO, "what is built in wins"
    (tmp_path / "other.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"other\.json: name is 'disco_f469ni', expected 'other', as the file is called"):
        find_board("other")
    with pytest.raises(ValueError, match=r"unknown board 'nope'; known: .*mine.*or a path to a .json file"):
        find_board("nope")
