"""A board on a serial port as a target, and the functions behind the verbs `serial` and `run`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from types import TracebackType

import numpy as np

from tinyredux.boards import Board
from tinyredux.datasets import read_array
from tinyredux.device.link import BANNER, BoardInfo, Link, LinkClosedError, LinkError, Patience, unseal
from tinyredux.device.serial_port import SerialTransport, find_port
from tinyredux.device.served import served_facts
from tinyredux.device.target import Int8Array, RawMeasurement, repeated
from tinyredux.files import check_is_file

_MOST_INPUT_BYTES = 1 << 24  # of an input file: above the memory of any microcontroller here
_LONGEST_SHOWN = 4096


class BoardTarget(AbstractContextManager["BoardTarget"]):
    """A board that carries the model with `model_hash`, behind the Target protocol.

    Each inference ends within `patience.total_s` (60 s by default), in a checked result or a LinkError; the port is released when
    the line breaks.
    """

    def __init__(
        self,
        port: str | None = None,
        model_hash: str | None = None,
        output_shape: tuple[int, ...] | None = None,
        patience: Patience | None = None,
        board: Board | None = None,
    ) -> None:
        """Opens the port (None: the one ST-Link) and asks the board who it is. `board`: which it must be, at full speed.

        Raises LinkError, WrongModelError.
        """
        self.port = find_port(port)
        self.output_shape = output_shape
        facts = served_facts(self.port)
        self.cycles_kind = facts.cycles_kind if facts else "board"
        self.timing_model = facts.timing_model if facts else None
        self.link = Link(SerialTransport(self.port), model_hash, patience)
        try:
            self.info: BoardInfo = self.link.info()
            self._check_board(board)
            self.link.model_hash = self.info.model_hash  # from here on a change of model is refused, whoever flashes
        except BaseException:
            self.close()
            raise

    def run(self, image: Int8Array) -> Int8Array:
        """Returns the output (height, width, channels) for one image, as checked bytes. Raises ValueError, LinkError."""
        return self.measure_once(image).output

    def measure(self, image: Int8Array, repeats: int = 1) -> RawMeasurement:
        """Returns the median of `repeats` runs after one to warm up. Raises LinkError, also when two outputs differ."""
        doubt = f"the board on {self.port} or this build is not to be trusted: check its supply, then rebuild and flash"
        return repeated(lambda: self.measure_once(image), repeats, doubt, LinkError, warm_up=1)

    def close(self) -> None:
        """Releases the port."""
        self.link.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _check_board(self, board: Board | None) -> None:
        if board is not None and self.info.board != board.name:
            raise LinkError(
                f"the board on {self.port} is {self.info.board}, expected {board.name}; name it by --board, or take its port"
            )
        if board is not None and self.info.clock_hz != board.clock_hz:
            raise LinkError(
                f"the board on {self.port} runs at {self.info.clock_hz} Hz, expected {board.clock_hz}: its external oscillator "
                "did not start, and its times would mislead; check the solder bridges of the clock, then reset"
            )

    def measure_once(self, image: Int8Array) -> RawMeasurement:
        """Returns one run. Raises ValueError, LinkError."""
        if image.dtype != np.int8 or image.size != self.info.input_bytes:
            raise ValueError(
                f"the input is {image.dtype} with {image.size} values, expected int8 with {self.info.input_bytes}: "
                f"the quantised input of {self.info.name}, (height, width, channels)"
            )
        run = self.link.run(image.tobytes())
        return RawMeasurement(
            output=np.frombuffer(run.output, dtype=np.int8).reshape(self.output_shape or (1, 1, -1)),
            cycles_per_op=run.cycles_per_op,
            stack_bytes=run.stack_bytes,
            cycles_kind=self.cycles_kind if run.cycles_per_op else None,
            timing_model=self.timing_model if run.cycles_per_op else None,
        )


def run_file(path: Path, port: str | None = None, index: int = 0) -> RawMeasurement:
    """Returns the result of one inference on an input in a file: .npy (int8), or any other name as raw bytes.

    A file with several inputs, such as an Artifact's inputs.bin, gives the one at `index`. Raises ValueError for a file or an
    index that does not fit the model, LinkError.
    """
    if index < 0:
        raise ValueError(f"input {index} was asked for, expected 0 or more")
    values = read_inputs(path)
    with BoardTarget(port) as board:
        return board.measure_once(choose_input(values, board.info, path, index))


def read_inputs(path: Path) -> Int8Array:
    """Returns the values of an input file, as they lie in it. Raises ValueError for what is no file of int8 values."""
    check_is_file(path, "input", "such as the inputs.bin that `tinyredux compile NET --out DIR` writes")
    if not 0 < path.stat().st_size <= _MOST_INPUT_BYTES:
        raise ValueError(
            f"{path} has {path.stat().st_size} bytes, expected the int8 values of an input, at most {_MOST_INPUT_BYTES}"
        )
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
    transport = SerialTransport(find_port(port))
    over = threading.Event()
    lost: list[LinkError] = []

    def listen() -> None:
        waiting = b""
        try:
            while not over.is_set():
                data = transport.read(0.2)
                *lines, waiting = (waiting + data).split(b"\n")
                for line in lines:
                    write(readable(line))
                if waiting and (not data or len(waiting) > _LONGEST_SHOWN):  # a prompt, or a firmware without line ends
                    write(readable(waiting))
                    waiting = b""
        except LinkError as failure:
            lost.append(failure)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        while not lost and (line := read_line()) is not None:
            transport.write(line.encode("utf-8", "replace") + b"\n")
        listener.join(0.5)  # let the last answer arrive
    except LinkClosedError as failure:
        lost.append(failure)
    finally:
        over.set()
        listener.join(2.0)
        transport.close()
    if lost:
        raise lost[0]


def readable(line: bytes) -> str:
    """Returns a received line as text for a person: a right CRC left out, a wrong one said."""
    text = unseal(line)
    if text is not None:
        return text
    shown = line.rstrip(b"\r\n").decode("utf-8", "backslashreplace")
    looks_sealed = shown[-9:-8] == "*" or BANNER in shown
    return f"{shown}   <- damaged on the line" if looks_sealed else shown
