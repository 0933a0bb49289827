"""A simulated board behind a pseudo-terminal, so that whatever talks to a board on a serial port talks to it in the same way.

A served board has a folder with three things: `port`, a link to the pseudo-terminal (the serial port to open); `control`, a
socket that takes one line of JSON and stands for what a debug probe does to a real board (flash and reset);
and `about.json`, which says that this board is simulated, so that nobody takes modelled cycles for measured ones.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tinyredux.boards import Board
from tinyredux.device.link import LinkError, Transport
from tinyredux.device.simulated import SimulatorTransport
from tinyredux.simulator import cycles_kind, model_name
from tinyredux.simulator.machine import Machine

_FOLDER = "tinyredux-board-"
_CONTROL_TIMEOUT_S = 30.0
_SLICE_INSTRUCTIONS = 1_000_000  # ten milliseconds or so
_POLL_S = 0.01  # how long a machine that waits for input keeps its port unwatched
_UNHEARD_BYTES = 1 << 16  # what nobody reads is lost beyond this, as on a real line


class ServedFacts(NamedTuple):
    """What a served board says about itself: its control socket, its board, and what its cycles are worth."""

    control: Path
    board: str
    cycles_kind: str
    timing_model: str


def served_facts(port: str) -> ServedFacts | None:
    """Returns the facts of the served board on a port, given by its link or by its pseudo-terminal; None for any other port.

    Believes a folder only when nobody but this user can have written it. Raises LinkError for a port in another's folder.
    """
    if "://" in port:
        return None
    beside, place = Path(port).parent, os.path.realpath(port)
    for home in (beside, *sorted(Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"))):
        about = home / "about.json"
        try:
            if not (home / "port").is_symlink() or not about.is_file() or os.path.realpath(home / "port") != place:
                continue
            if not _is_private(home):
                if home == beside:
                    raise LinkError(
                        f"{home} is not private to this user (another owner, or others may write there), so what it says about "
                        "its board is not believed; serve a board yourself: tinyredux simulate ELF --board B --serve"
                    )
                continue
            with _connected(home / "control"):  # refused: what a killed server left, its terminal another's by now
                pass
            said = json.loads(about.read_bytes())
            return ServedFacts(home / "control", *(str(said[name]) for name in ("board", "cycles_kind", "timing_model")))
        except (OSError, ValueError, TypeError, KeyError):
            continue  # also: another user's
    return None


def _is_private(folder: Path) -> bool:
    """Returns whether a folder and what is said in it are this user's, and no other user may write there."""
    status = os.lstat(folder)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022


@contextmanager
def _connected(control: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(_CONTROL_TIMEOUT_S)
        line.connect(str(control))
        yield line


def control(facts: ServedFacts, request: dict[str, str]) -> dict[str, Any]:
    """Returns the answer of a served board to a request: {"elf": path of the program to begin}, or {} to reset.

    Raises LinkError when it does not answer within 30 s, or refuses.
    """
    try:
        with _connected(facts.control) as line, line.makefile("rwb") as stream:
            stream.write(json.dumps(request).encode() + b"\n")
            stream.flush()
            answer: dict[str, Any] = json.loads(stream.readline() or b"{}")
    except (OSError, json.JSONDecodeError) as failure:
        raise LinkError(f"the served board at {facts.control.parent} does not answer ({failure}); start it again") from failure
    if "elf" not in answer:
        raise LinkError(f"the served board at {facts.control.parent} refused: {answer.get('error', 'no reason given')}")
    return answer


class WallClockTransport(SimulatorTransport):
    """The simulator as the machine of a served board. While the program waits for input, its time is that of the wall."""

    def read(self, timeout_s: float) -> bytes:
        """Returns what the program sent while it ran a little, and at its end how it ended; sleeps while it waits for input."""
        machine = self.machine
        if machine.end is None:
            end = machine.run(_SLICE_INSTRUCTIONS, until_idle=True)
            if end is not None and end.reason == "fault":
                machine.console.put(f"\r\ntinyredux FAULT in the simulator: {end.text}\r\n".encode())
        if (machine.idles or machine.end is not None) and not machine.console.sent:
            began = time.monotonic()
            time.sleep(timeout_s)
            machine.slept_cycles += int((time.monotonic() - began) * machine.board.clock_hz)
        return machine.console.take_sent()


class ServedBoard:
    """Serves one simulated board. `start` returns the line to a machine that is about to begin the program in an ELF file."""

    def __init__(self, start: Callable[[Path], Transport], elf: Path, board: str, cycles_kind: str, timing_model: str) -> None:
        """Starts the machine and creates the folder; `serve` does the work. Raises what `start` raises, OSError."""
        import tty

        self._start, self._elf = start, elf
        self._machine = start(elf)
        self.folder = Path(tempfile.mkdtemp(prefix=_FOLDER))
        self.port, self.control = self.folder / "port", self.folder / "control"
        self._master, self._slave = os.openpty()  # the slave stays open here, or reading fails while nobody else has it open
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.port.symlink_to(os.ttyname(self._slave))
        about = {"board": board, "cycles_kind": cycles_kind, "timing_model": timing_model}
        (self.folder / "about.json").write_text(json.dumps(about))
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self.control))
        self._socket.listen()
        self._unheard = b""
        self._over = threading.Event()

    def serve(self) -> None:
        """Runs the board until `stop` (another thread's, SIGTERM); then folder and port are gone."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda number, frame: self.stop())
        try:
            while not self._over.is_set():
                control = self._socket.fileno()
                ready, _, _ = select.select([self._master, control], [], [], 0)
                if control in ready:
                    self._answer_control()
                if self._master in ready:
                    self._machine.write(os.read(self._master, 4096))
                self._send(self._machine.read(_POLL_S))
        finally:
            self.close()

    def stop(self) -> None:
        """Ends `serve` soon."""
        self._over.set()

    def close(self) -> None:
        """Pulls the plug: who has the port open finds it gone."""
        for number in (self._master, self._slave):
            if number >= 0:
                os.close(number)
        self._master = self._slave = -1
        self._socket.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _send(self, data: bytes) -> None:
        self._unheard = (self._unheard + data)[-_UNHEARD_BYTES:]
        with suppress(BlockingIOError):
            self._unheard = self._unheard[os.write(self._master, self._unheard) :]

    def _answer_control(self) -> None:
        line, _ = self._socket.accept()
        line.settimeout(2.0)
        with suppress(OSError, ValueError), line, line.makefile("rwb") as stream:  # who asked has left, or speaks no JSON
            stream.write(json.dumps(self._obey(json.loads(stream.readline()))).encode() + b"\n")

    def _obey(self, request: dict[str, str]) -> dict[str, Any]:
        """Returns the answer to a control request, obeyed."""
        if not isinstance(request, dict) or request.keys() - {"elf"}:
            return {"error": f'unknown request {str(request)[:100]}; known: {{"elf": path of a program}}, and {{}} to reset'}
        try:
            elf = Path(request.get("elf", self._elf))
            self._machine, self._elf = self._start(elf), elf
        except Exception as failure:  # a bad ELF leaves the running program as it was
            return {"error": f"{type(failure).__name__}: {failure}"}
        return {"elf": str(elf)}


def serve_simulator(elf: Path, board: Board) -> ServedBoard:
    """Returns a served board that runs `elf` in the simulator; call `serve`. Raises ValueError when the board cannot hold it."""
    kind, model = cycles_kind(board.cpu), model_name(board.cpu)
    return ServedBoard(lambda elf: WallClockTransport(Machine(board, elf)), elf, board.name, kind, model)
