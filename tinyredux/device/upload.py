"""How a program gets onto a board: the tool for each kind of upload, its command, and what it means when it fails."""

from __future__ import annotations

import os
import re
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

from tinyredux.boards import Board
from tinyredux.device.build import BuildError, MissingTool
from tinyredux.device.link import LinkError
from tinyredux.device.serial_port import find_bootloader, find_probe
from tinyredux.files import home, write_whole
from tinyredux.simulator import read_elf

TIMEOUT_S = 300.0
_SHOWN = 3000  # characters of a tool's output in an error
GET_OPENOCD = (
    "OpenOCD is not installed; run: sudo apt-get install --no-install-recommends openocd, "
    "or with PlatformIO: pio pkg install --global --tool platformio/tool-openocd"
)
GET_BOSSAC = "bossac (Arduino's, which knows nRF52840) is not installed; run: arduino-cli core install arduino:mbed_nano"
FIND_IT = {  # how a board is found by the tool
    "stlink": "plug it in by its ST-Link connector",
    "jlink": "plug it in by its J-Link connector",
    "bossa": "press its reset button twice, so that it waits in its bootloader",
    "uf2": "hold its BOOTSEL button while you plug it in",
}
_NOT_FOUND = "open failed|no device found|libusb_error_no_device|unable to find a matching|no debugger|no accessible|no j-link"
_MEANINGS: tuple[tuple[str, type[RuntimeError], str], ...] = (  # of the output of a failed upload, by a pattern in it
    ("libusb_error_access", LinkError, "no permission to use the probe; install PlatformIO's 99-platformio-udev.rules."),
    (_NOT_FOUND, LinkError, "found no {name} to upload to: {how}."),
    ("can't find target/", LinkError, "OpenOCD knows no target/{target}: is 'mcu' in the board file of {name} right?"),
    ("", BuildError, "could not upload to {name}:"),
)
UF2_FAMILY = 0xE48BFF59  # a program for the Arm cores of an RP2350. Source: github.com/microsoft/uf2, utils/uf2families.json
UF2_PAYLOAD = 256
DRIVES = ("media/*", "media/*/*", "run/media/*/*", "mnt/*", "Volumes/*")

Command = Callable[[Path], list[str]]  # of an ELF file


def uploader(board: Board, port: str) -> Command:
    """Returns what makes the command that writes an ELF file to the board on a port. Raises MissingTool, LinkError.

    Tool, probe and bootloader are looked for here, before anything is compiled.
    """
    return {"stlink": _openocd, "jlink": _jlink, "bossa": _bossa, "uf2": _uf2}[board.upload](board, port)


def _openocd(board: Board, port: str, interface: str = "stlink") -> Command:
    openocd, probe = find_openocd(), find_probe(port, interface)
    choice = ["-c", f"adapter serial {probe}"] if probe else []
    swd = ["-c", "transport select swd"] if interface == "jlink" else []
    files = [*choice, "-f", f"interface/{interface}.cfg", *swd, "-f", f"target/{openocd_target(board)}"]
    return lambda elf: [*openocd, *files, "-c", f"program {{{elf}}} verify reset exit"]


def openocd_target(board: Board) -> str:
    """Returns the name of OpenOCD's file for a board's chip."""
    return f"{board.family}{'x' if board.family.startswith('stm32') else ''}.cfg"


def _jlink(board: Board, port: str) -> Command:
    """Nordic's own program where it is installed, which writes what Nordic's users are used to; else OpenOCD."""
    program = shutil.which("nrfjprog")
    if program is None:
        return _openocd(board, port, "jlink")
    probe = find_probe(port, "jlink")
    choice = ["--snr", probe.lstrip("0")] if probe else []
    return lambda elf: [program, *choice, "--program", _converted(elf, "ihex"), "--sectorerase", "--verify", "--reset"]


def _bossa(board: Board, port: str) -> Command:
    """Arduino's way: the bootloader, on a port of its own, writes to the first address that is not its own."""
    packages = [home() / ".arduino15" / "packages" / "arduino" / "tools" / "bossac", home() / ".platformio" / "packages"]
    there = [path for folder in packages for path in sorted(folder.glob("*/bossac"))]
    program = shutil.which("bossac") or next(map(str, reversed(there)), None)
    if program is None:
        raise MissingTool(GET_BOSSAC)
    bootloader = find_bootloader(board.name, FIND_IT["bossa"])
    return lambda elf: [program, f"--port={bootloader}", "-U", "-i", "-e", "-w", _converted(elf, "binary"), "-R"]


def _uf2(board: Board, port: str) -> Command:
    """The Pico's way: picotool, or a file that is copied to the drive that the board shows while it waits."""
    program = shutil.which("picotool")
    if program is not None:
        return lambda elf: [program, "load", "-v", "-x", str(elf), "-t", "elf"]
    found = [path for place in DRIVES for path in Path("/").glob(f"{place}/INFO_UF2.TXT")]
    drives = [path.parent for path in found if "RP2350" in path.read_text(errors="replace")]
    if len(drives) != 1:
        there = ", ".join(map(str, drives)) or "none; install picotool, or mount the drive that the board shows"
        raise LinkError(f"expected one {board.name} that waits for a program ({FIND_IT['uf2']}), found {there}")
    return lambda elf: ["cp", str(write_whole(elf.with_suffix(".uf2"), uf2(elf))), str(drives[0])]


def uf2(elf: Path) -> bytes:
    """Returns a program as UF2 blocks of 256 bytes each. Source: github.com/microsoft/uf2, README.md."""
    places: dict[int, bytearray] = {}
    for segment in read_elf(elf).segments:
        for i, byte in enumerate(segment.data):
            address = segment.load_address + i
            places.setdefault(address // UF2_PAYLOAD, bytearray(UF2_PAYLOAD))[address % UF2_PAYLOAD] = byte
    blocks = []
    for number, (place, data) in enumerate(sorted(places.items())):
        head = (0x0A324655, 0x9E5D5157, 0x2000, place * UF2_PAYLOAD, UF2_PAYLOAD, number, len(places), UF2_FAMILY)
        blocks.append(struct.pack("<8I476sI", *head, bytes(data), 0x0AB16F30))
    return b"".join(blocks)


def _converted(elf: Path, form: str) -> str:
    """Returns the name of a program in another form of objcopy's, which is written beside it."""
    target = elf.with_suffix({"ihex": ".hex", "binary": ".bin"}[form])
    subprocess.run(["arm-none-eabi-objcopy", "-O", form, str(elf), str(target)], check=True)
    return str(target)


def find_openocd() -> list[str]:
    """Returns how OpenOCD is called: from PATH, or where PlatformIO keeps it. Raises MissingTool."""
    installed = shutil.which("openocd")
    if installed:
        return [installed]
    package = Path(os.environ.get("PLATFORMIO_CORE_DIR") or home() / ".platformio") / "packages" / "tool-openocd"
    program = shutil.which("openocd", path=str(package / "bin"))
    if program is None:
        raise MissingTool(GET_OPENOCD)
    return [program, "-s", str(package / "openocd" / "scripts")]


def run_upload(command: list[str], board: Board) -> str:
    """Returns the output of a command that uploads. Raises the error that the output of a failed one means."""
    status, output = run_bounded(command, TIMEOUT_S)
    if status == 0:
        return output
    if status is None:
        stuck = "Is the probe stuck? Plug the board out and in."
        raise LinkError(f"uploading to {board.name} was stopped after {TIMEOUT_S:g} s. {stuck}\n{output[-_SHOWN:]}")
    kind, said = next((kind, said) for signs, kind, said in _MEANINGS if re.search(signs, output.lower()))
    said = said.format(name=board.name, how=FIND_IT[board.upload], target=openocd_target(board))
    raise kind(f"{said}\n{output[-_SHOWN:]}")


def run_bounded(command: list[str], timeout_s: float) -> tuple[int | None, str]:
    """Returns exit status and output of a command; status None when it was stopped, with its children, after `timeout_s`."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except BaseException as stopped:  # also where it is interrupted: leave no OpenOCD behind
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        if not isinstance(stopped, subprocess.TimeoutExpired):
            raise
        return None, output
    return process.returncode, output
