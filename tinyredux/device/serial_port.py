"""Serial ports: find the one that a board is on, open it for this program alone, and say in plain words what went wrong."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import serial  # type: ignore[import-untyped]
from serial.tools import list_ports  # type: ignore[import-untyped]

from tinyredux.device.link import BAUD, LinkClosedError, LinkError

WRITE_TIMEOUT_S = 5.0
_POLL_S = 0.02
_CHUNK_BYTES = BAUD // 100  # a tenth of a second on the line
_ARDUINO_VENDOR, _NANO_33_BLE_BOOTLOADER = 0x2341, 0x005A
PROBES = {  # kind: its name, USB vendor, products; those with a serial port are among them
    "stlink": ("ST-Link", 0x0483, range(0x3740, 0x3760)),  # V2, V2-1, V3 with their variants
    "jlink": ("J-Link", 0x1366, range(0x0101, 0x1100)),
    "uf2": ("Debug Probe", 0x2E8A, range(0x000C, 0x000D)),
}

_GONE: tuple[type[Exception], ...] = (OSError, TypeError)  # TypeError: another thread has closed the port
with suppress(ImportError):  # on Windows
    import termios

    _GONE += (termios.error,)


class FoundPort(NamedTuple):
    """A serial port of a board: `port` is what to open, `kind` the probe that owns it, one of PROBES."""

    port: str
    serial_number: str | None
    kind: str = "stlink"


class SerialTransport:
    """A serial port through pyserial: a device name, a pseudo-terminal, or a URL (socket://host:port, loop://)."""

    def __init__(self, port: str) -> None:
        """Opens the port for this program alone. Raises LinkError: no such port, busy, no permission, not a serial port."""
        self.name = port
        try:
            self._serial = serial.serial_for_url(port, BAUD, timeout=_POLL_S, write_timeout=WRITE_TIMEOUT_S, exclusive=True)
        except Exception as failure:  # pyserial's handlers of URLs pass on whatever parsing and sockets raise
            raise LinkError(explain_open(port, failure)) from failure

    def read(self, timeout_s: float) -> bytes:
        """Returns what has arrived, at least one byte, or nothing after `timeout_s`. Raises LinkClosedError."""
        until = time.monotonic() + timeout_s
        with self._noticed():
            while not (data := bytes(self._serial.read(1))) and time.monotonic() < until:
                pass
            return data + bytes(self._serial.read(self._serial.in_waiting)) if data else b""

    def write(self, data: bytes) -> None:
        """Sends all of `data`. Raises LinkError when the port takes nothing for 5 s, LinkClosedError when it is gone.

        In pieces, because pyserial's limit is on a whole call, however many bytes it has.
        """
        with self._noticed():
            for start in range(0, len(data), _CHUNK_BYTES):
                self._serial.write(data[start : start + _CHUNK_BYTES])

    def close(self) -> None:
        """Releases the port."""
        with suppress(*_GONE):
            self._serial.reset_output_buffer()  # else closing waits for bytes that nobody takes
        with suppress(*_GONE):
            self._serial.close()

    @contextmanager
    def _noticed(self) -> Iterator[None]:
        """Says what it means that the port fails, and releases it."""
        try:
            yield
        except serial.SerialTimeoutException as failure:
            self.close()
            raise LinkError(f"{self.name} has taken no data for {WRITE_TIMEOUT_S:g} s; plug the board out and in") from failure
        except _GONE as failure:
            self.close()
            raise LinkClosedError(
                f"{self.name} is gone ({failure}): unplugged, or the board lost power. The port is released; "
                "plug the board in and run again"
            ) from failure


def explain_open(port: str, failure: Exception) -> str:
    """Returns what a failure to open a port means and what to do about it."""
    number = getattr(failure, "errno", None)
    text = str(failure)
    if number in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in text or "Access is denied" in text:
        return f"{port} is busy: another program holds it. Close the other monitor, notebook or measurement, then run again"
    if number in (errno.EACCES, errno.EPERM):
        return (
            f"no permission to open {port}. On Linux: sudo usermod -aG dialout $USER, then log out and in; "
            "or install PlatformIO's udev rules (99-platformio-udev.rules)"
        )
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV) or "FileNotFoundError" in text:
        there = ", ".join(info.device for info in list_ports.comports()) or "none"
        return f"there is no port {port} (ports here: {there}). Is the board plugged in, by a cable that carries data?"
    return f"cannot open {port}: {text}. Expected a serial port such as /dev/ttyACM0 or COM3, or a URL such as socket://host:port"


def find_boards() -> list[FoundPort]:
    """Returns the serial ports of all probes that are plugged in, in the order of their names."""
    ports, kinds = list_ports.comports(), PROBES.items()
    return sorted(
        FoundPort(info.device, info.serial_number, kind)
        for info in ports for kind, (_, vendor, products) in kinds if info.vid == vendor and info.pid in products
    )  # fmt: skip


def find_bootloader(board: str, how: str) -> str:
    """Returns the port on which an Arduino waits for a program. Raises LinkError that says `how` one is made to wait."""
    ports = [at.device for at in list_ports.comports() if (at.vid, at.pid) == (_ARDUINO_VENDOR, _NANO_33_BLE_BOOTLOADER)]
    if len(ports) != 1:
        raise LinkError(f"{len(ports)} boards wait in their bootloader, expected one; for {board}, {how}")
    return str(ports[0])


def find_port(named: str | None = None) -> str:
    """Returns the port that was named, else that of the one probe that is plugged in. Raises LinkError: none, or several."""
    if named:
        return named
    if named is not None:
        raise LinkError("the port is an empty name, expected one such as /dev/ttyACM0 or COM3; `tinyredux doctor` lists them")
    found = find_boards()
    if not found:
        raise LinkError(
            "found no board (no ST-Link, J-Link or Debug Probe with a serial port); plug one in, or name its port: --port or "
            "board:/dev/ttyACM0"
        )
    if len(found) > 1:
        names = ", ".join(board.port for board in found)
        raise LinkError(f"found {len(found)} boards, expected one; choose by --port, or board:PORT, from {names}")
    return found[0].port


def find_probe(port: str, kind: str = "stlink") -> str | None:
    """Returns the serial number of the probe that owns a port; None when only one of its kind is plugged in: no choice is needed.

    Raises LinkError when several are plugged in and the port is none of theirs, or its probe has no number to be chosen by.
    """
    boards = [board for board in find_boards() if board.kind == kind]
    mine = [board.serial_number for board in boards if os.path.realpath(board.port) == os.path.realpath(port)]
    number = mine[0] if mine else None
    if number and re.fullmatch(r"[0-9A-Za-z]+", number):
        return number
    if len(boards) > 1:
        names = ", ".join(board.port for board in boards)
        why = "has no readable serial number" if mine else f"is none of theirs ({names})"
        raise LinkError(
            f"{len(boards)} {PROBES[kind][0]}s are plugged in, and {port} {why}: the program could land on the wrong board; "
            "unplug the others, or name the port of the one you mean"
        )
    return None
