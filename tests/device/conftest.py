"""What tests of boards on serial ports share: a port with nobody behind it, and ST-Links that are plugged in."""

from __future__ import annotations

import os
import pty
import tty
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from tinyredux.device import serial_port


@pytest.fixture
def port() -> Iterator[str]:
    """Returns the name of a pseudo-terminal that opens, with nobody behind it."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    yield os.ttyname(slave)
    os.close(master)
    os.close(slave)


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Returns what plugs boards in: (port, serial number, vendor and product if not an ST-Link's)."""

    def plug(*boards: tuple[str, str | None] | tuple[str, None, int | None, int | None]) -> None:
        infos = [(*board, 0x0483, 0x374B)[:4] for board in boards]
        ports = [SimpleNamespace(device=at, serial_number=no, vid=vid, pid=pid, description="") for at, no, vid, pid in infos]
        monkeypatch.setattr(serial_port.list_ports, "comports", lambda: ports)

    return plug
