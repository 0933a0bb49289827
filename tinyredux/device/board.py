"""A board on a serial port as a target, and the functions behind the verbs `serial` and `run`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from tinyredux.boards import Board
from tinyredux.datasets import read_array
from tinyredux.device.link import BANNER, BoardInfo, Link, LinkError, Patience, unseal
from tinyredux.device.serial_port import SerialTransport, find_port
from tinyredux.device.served import served_facts
from tinyredux.device.target import Int8Array, LinkTarget, RawMeasurement
from tinyredux.files import check_is_file

_MOST_INPUT_BYTES = 1 << 24  # of an input file: above the memory of any microcontroller here
_LONGEST_SHOWN = 4096


class BoardTarget(LinkTarget):
    """A board on a serial port that carries the model with `model_hash`.

    Each inference ends within `patience.total_s` (60 s by default), in a checked result or a LinkError (`run` is one, `measure`
    two); the port is released when the line breaks.
    """

    def __init__(
        self,
        port: str | None = None,
        model_hash: str | None = None,
        output_shape: tuple[int, ...] | None = None,
        patience: Patience | None = None,
        board: Board | None = None,
    ) -> None:
        """Opens the port (None: the one ST-Link). `board`: which it must be. Raises LinkError, WrongModelError."""
        self.port = find_port(port)
        if facts := served_facts(self.port):
            self.cycles_kind, self.timing_model = facts.cycles_kind, facts.timing_model
        super().__init__(Link(SerialTransport(self.port), model_hash, patience), output_shape, board)

    def once(self, image: Int8Array) -> RawMeasurement:
        """Returns one run. Raises ValueError, LinkError."""
        return super().measure(image)

    def run(self, image: Int8Array) -> Any:
        """Returns the output (height, width, channels) int8 of one run; a tuple of several."""
        return self.apart(self.once(image).output)

    def measure(self, image: Int8Array) -> RawMeasurement:
        """Returns the second of two runs. Raises ValueError, LinkError, also when their outputs differ."""
        first, second = self.once(image), self.once(image)
        if not np.array_equal(first.output, second.output):
            raise LinkError(
                f"two runs on the same input gave different outputs; the board on {self.port} or this build is not to be "
                "trusted: check its supply, then rebuild and flash"
            )
        return second


def run_file(path: Path, port: str | None = None, index: int = 0) -> tuple[RawMeasurement, BoardInfo]:
    """Returns the result of one inference on an input in a file, .npy (int8) or any other name as raw bytes, and who ran it.

    A file with several inputs, such as an Artifact's inputs.bin, gives the one at `index`. Raises ValueError for a file or an
    index that does not fit the model, LinkError.
    """
    if index < 0:
        raise ValueError(f"input {index} was asked for, expected 0 or more")
    values = read_inputs(path)
    with BoardTarget(port) as board:
        return board.once(choose_input(values, board.info, path, index)), board.info


def read_inputs(path: Path) -> Int8Array:
    """Returns the values of an input file, as they lie in it. Raises ValueError for what is no file of int8 values."""
    check_is_file(path, "input", "such as the inputs.bin that `tinyredux compile NET --out DIR` writes", _MOST_INPUT_BYTES)
    if path.suffix != ".npy":
        return np.frombuffer(path.read_bytes(), dtype=np.int8)
    values = read_array(path)
    if values.dtype != np.int8:
        raise ValueError(f"{path} holds {values.dtype} with {values.size} values, expected int8: the model's quantised input")
    if values.ndim not in (1, 3, 4):
        raise ValueError(f"{path} has shape {values.shape}, expected (height, width, channels), or several of them")
    return values


def choose_input(values: Int8Array, info: BoardInfo, path: Path, index: int) -> Int8Array:
    """Returns the input at `index` of those in a file. Raises ValueError when they are not the size of the model's."""
    count, rest = divmod(values.size, max(1, info.input_bytes))
    if rest or not count or (values.ndim == 3 and count > 1) or (values.ndim == 4 and len(values) != count):
        raise ValueError(
            f"{path} has {values.size} int8 values of shape {values.shape}, expected {info.input_bytes}, or a multiple of them: "
            f"the quantised input of {info.name}, (height, width, channels)"
        )
    if not 0 <= index < count:
        raise ValueError(f"input {index} was asked for, {path} holds {count}: 0 to {count - 1}")
    chosen: Int8Array = values.reshape(count, -1)[index]
    return chosen


def ask_board(line: str, port: str | None = None) -> tuple[str, ...]:
    """Returns the lines with which the board answers one line (info, help, measure 5). Raises LinkError, ValueError."""
    with closing(Link(SerialTransport(find_port(port)))) as link:
        return link.ask(line)


def terminal(port: str | None, read_line: Callable[[], str | None], write: Callable[[str], None]) -> None:
    """Talks to a board until `read_line` returns None: sends its lines, writes what arrives, whatever firmware it is.

    The CRC at the end of a protocol line is checked and left out; a line that fails the check is marked. Raises LinkError.
    """
    over = threading.Event()
    with closing(SerialTransport(find_port(port))) as transport, ThreadPoolExecutor(1) as pool:
        listener = pool.submit(_listen, transport, over, write)
        try:
            while not listener.done() and (line := read_line()) is not None:
                transport.write(line.encode("utf-8", "replace") + b"\n")
            wait([listener], 0.5)  # let the last answer arrive
        finally:
            over.set()
    listener.result()


def _listen(transport: SerialTransport, over: threading.Event, write: Callable[[str], None]) -> None:
    waiting = b""
    while not over.is_set():
        data = transport.read(0.2)
        *lines, waiting = (waiting + data).split(b"\n")
        if waiting and (not data or len(waiting) > _LONGEST_SHOWN):  # a prompt, or a firmware without line ends
            lines, waiting = [*lines, waiting], b""
        for line in lines:
            write(readable(line))


def readable(line: bytes) -> str:
    """Returns a received line as text for a person: a right CRC left out, a wrong one said."""
    text = unseal(line)
    if text is not None:
        return text
    shown = line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
    looks_sealed = shown[-9:-8] == "*" or BANNER in shown
    return f"{shown}   <- damaged on the line" if looks_sealed else shown
