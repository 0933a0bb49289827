"""The host's end of the serial protocol in firmware/include/link.h: every exchange ends, in a right answer or a LinkError.

Lines carry a CRC-32 and the request's tag, frames a length and a CRC-32. What arrives damaged, late, twice or not at all is asked
for again after a silence in which the board drops whatever half it holds; attempts and time are bounded by `Patience`.
"""

from __future__ import annotations

import random
import re
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

PROTOCOL_VERSION = 1
BAUD = 115200
BANNER = "tinyredux READY "
FAULT = b"tinyredux FAULT"
_LONGEST_LINE = 16384
_MOST_LINES = 4096  # of one answer: above all that the firmware sends, below what fills the host's memory
_NOISE_SHOWN = 40
_T = TypeVar("_T")


class LinkError(RuntimeError):
    """An exchange with a board that failed for good; the message says what was found and what to do."""


class LinkClosedError(LinkError):
    """The line itself is gone: unplugged, or the other end was closed."""


class WrongModelError(LinkError):
    """The board carries another model than the caller's."""


class _AttemptError(Exception):
    """One attempt failed in a way that another attempt may cure."""


class Transport(Protocol):
    """Bytes to and from a board. `name` is for messages; read and write raise LinkClosedError when the line is gone."""

    name: str

    def read(self, timeout_s: float) -> bytes:
        """Returns what has arrived, at least one byte, or nothing after `timeout_s`."""

    def write(self, data: bytes) -> None:
        """Sends all of `data`, in bounded time."""

    def close(self) -> None:
        """Releases the line. May be called twice."""


@dataclass(frozen=True)
class Patience:
    """How long the host waits, in seconds. No exchange takes longer than `total_s` plus the time of its bytes on the line.

    A transfer of N bytes may take N / `bytes_per_s` longer than a short one: ten bits a byte at the line's rate, and twice that
    time because a line that is shared or emulated has pauses. `run_s`, for one inference, is below 2^32 cycles at 216 MHz, so a
    cycle count that comes back has not wrapped. `quiet_s` is longer than the silence after which the board drops a frame
    (TR_FRAME_TIMEOUT_MS, 0.25 s).
    """

    reply_s: float = 2.0
    run_s: float = 19.0
    quiet_s: float = 0.4
    attempts: int = 5
    total_s: float = 60.0
    bytes_per_s: float = BAUD / 10 / 2


class BoardInfo(NamedTuple):
    """What a board says about itself and its model. Sizes in bytes, clock in Hz; of several outputs name and bytes of each."""

    model_hash: str
    name: str
    board: str
    clock_hz: int
    ops: int
    input_bytes: int
    output_bytes: int
    arena_bytes: int
    scratch_bytes: int
    outputs: tuple[tuple[str, int], ...] = ()


class BoardRun(NamedTuple):
    """One inference on a board: output bytes, cycles of each operator (None: no counter), stack high-water mark in bytes."""

    output: bytes
    cycles_per_op: tuple[int, ...] | None
    stack_bytes: int


def seal(text: str) -> bytes:
    """Returns a protocol line: the text, a star, its CRC-32, the end of the line."""
    body = text.encode("ascii")
    return body + b"*%08x\n" % zlib.crc32(body)


def unseal(line: bytes) -> str | None:
    """Returns the text of a received line without its CRC, or None when the CRC is missing or wrong."""
    body, star, crc = line.rstrip(b"\r\n").rpartition(b"*")
    if not star or crc != b"%08x" % zlib.crc32(body):
        return None
    return body.decode("ascii", "replace")


def _fields(text: str) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in text.split())}


def _count(text: str) -> int:
    """Returns a number of the protocol. Raises ValueError for all but decimal digits: no sign, no space, no underscore."""
    if not re.fullmatch(r"[0-9]{1,10}", text):
        raise ValueError(f"{text[:_NOISE_SHOWN]!r} where a number is expected")
    return int(text)


class Link:
    """The protocol over one transport. `model_hash`: refuse a board that carries another model; None: any model."""

    def __init__(self, transport: Transport, model_hash: str | None = None, patience: Patience | None = None) -> None:
        """Keeps the transport; sends nothing yet."""
        self.transport = transport
        self.model_hash = model_hash
        self.patience = patience or Patience()
        self.about: BoardInfo | None = None  # what the board has said about itself, once it was asked
        self._waiting = bytearray()
        self._tag = random.SystemRandom().randrange(1 << 31)  # so that answers to an earlier program are not ours
        self._sent = ""
        self._noise = b""
        self._fault = ""

    def close(self) -> None:
        """Releases the line."""
        self.transport.close()

    # ---- requests ----

    def info(self) -> BoardInfo:
        """Returns what the board says about itself. Raises WrongModelError, LinkClosedError, LinkError."""

        def attempt(deadline: float) -> BoardInfo:
            self._request("info")
            field = _fields(self._answer("info", self.patience.reply_s, deadline, first=True))
            if field.get("version") != str(PROTOCOL_VERSION):
                raise LinkError(
                    f"the board on {self.transport.name} speaks protocol {field.get('version')}, expected {PROTOCOL_VERSION}; "
                    "flash it again with this tinyredux"
                )
            self._check_model(field["model"])
            numbers: list[Any] = [_count(field[key]) for key in "clock ops input output arena scratch".split()]
            several = (entry.rpartition(":") for entry in field["outputs"].split(",")) if "outputs" in field else ()
            outputs = tuple((name, _count(size)) for name, _, size in several)
            return BoardInfo(field["model"], field["name"], field["board"], *numbers)._replace(outputs=outputs)

        self.about = self._retry("info", attempt)
        return self.about

    def run(self, data: bytes, sequence: int | None = None) -> BoardRun:
        """Returns the result of one inference on `data`, the input tensor's bytes; of a stream of frame `sequence`.

        Raises LinkError and its kinds: also for a frame of a stream that is not the next one. A frame that arrives damaged is
        sent again; where the answer is lost the board has the frame already and refuses it: the stream must begin again.
        """
        about, patience = self.about or self.info(), self.patience

        def attempt(deadline: float) -> BoardRun:
            words = "run" if sequence is None else f"push {sequence}"
            self._request(f"{words} {len(data)} {zlib.crc32(data):08x}")
            self._answer("send", patience.reply_s, deadline, first=True)
            self.transport.write(data)  # into buffers: the last bytes may leave them long after it has returned
            if sequence is not None:
                self._answer("pushed", patience.run_s + self._line_s(len(data)), deadline)
            ran = _fields(self._answer("ran", patience.run_s + self._line_s(len(data)), deadline))
            self._check_model(ran["model"])
            size, crc = self._answer("output", patience.reply_s, deadline).split()
            ops = tuple(map(_count, ran["ops"].split(","))) if "ops" in ran else None
            for what, found, there in (
                ("output bytes", _count(size), about.output_bytes),
                ("operators", len(ops) if ops else about.ops, about.ops),
            ):
                if found != there:
                    raise LinkError(
                        f"{self.transport.name} reports {found} {what}, its model has {there}; flash it again with this tinyredux"
                    )
            output = self._bytes(about.output_bytes, deadline)
            if zlib.crc32(output) != int(crc, 16):
                raise _AttemptError("the output arrived with a wrong CRC")
            return BoardRun(output, ops, _count(ran["stack"]))

        return self._retry("run", attempt, self._line_s(len(data) + about.output_bytes))

    def ask(self, line: str) -> tuple[str, ...]:
        """Returns the lines with which the board answers one line of a person's. Raises LinkError, also when it refuses."""
        if not re.fullmatch(r"[ -)+-~]{1,70}", line) or line.lstrip().startswith("#"):
            raise ValueError(f"cannot send {line!r}: a request is 1 to 70 printable ASCII characters, no star, no # at the start")

        def attempt(deadline: float) -> tuple[str, ...]:
            self._request(line)
            lines: list[str] = []
            text = self._answer("", self.patience.reply_s, deadline, first=True)
            while not text.startswith("done "):
                lines.append(text)
                if len(lines) > _MOST_LINES:
                    raise LinkError(f"the answer of {self.transport.name} has no end: over {_MOST_LINES} lines; reset the board")
                if text == "halted":
                    return tuple(lines)
                if text.startswith("send "):
                    raise LinkError("this request wants a frame of bytes: send it with `run`")
                text = self._answer("", self.patience.run_s, deadline)
            if int(text.split()[1]) != len(lines):
                raise _AttemptError(f"{len(lines)} of {text.split()[1]} lines of the answer arrived")
            return tuple(lines)

        return self._retry(line, attempt)

    # ---- one attempt ----

    def _request(self, text: str) -> None:
        """Sends a request with a new tag, behind a line end that finishes any half line the board may hold."""
        self._tag = (self._tag + 1) % (1 << 32)
        self._sent = f"#{self._tag} {text}"
        self.transport.write(b"\n" + seal(self._sent))

    def _answer(self, word: str, wait_s: float, deadline: float, first: bool = False) -> str:
        """Returns what follows `word` in the next line that carries our tag. `first`: the board may not have got the request."""
        until = min(deadline, time.monotonic() + wait_s)
        while (line := self._line(until)) is not None:
            text = unseal(line)
            head, _, rest = (text or "").partition(" ")
            soon = first and head in ("damaged", "error")  # our request, or noise before it: no need to wait for long
            if text is None:
                self._take_noise(line)
                soon = first or bool(self._fault)
            elif text.startswith(BANNER):
                self._check_model(text[len(BANNER) :])
                raise _AttemptError("the board was reset")
            elif head == f"#{self._tag}" and text != self._sent:  # our own words come back where something echoes
                return self._judge(rest, word)
            if soon:
                until = min(until, time.monotonic() + self.patience.quiet_s)
        if self._fault:
            raise LinkError(
                f"the firmware on {self.transport.name} stopped: {self._fault}; "
                "look up its pc in the ELF (addr2line), mend, flash or reset the board"
            )
        raise _AttemptError("the answer was damaged" if self._noise else f"no answer within {wait_s:g} s")

    def _take_noise(self, line: bytes) -> None:
        if FAULT in line:
            self._fault = line.decode("ascii", "replace").strip()
        elif line.strip() and len(self._noise) < _NOISE_SHOWN:
            self._noise += line

    def _judge(self, text: str, word: str) -> str:
        head, _, rest = text.partition(" ")
        if head == "error":
            raise LinkError(f"the board on {self.transport.name} refused: {rest}")
        if head == "damaged":
            raise _AttemptError(f"the board received a {text}")
        if word and head != word:
            raise _AttemptError(f"a line of the answer is missing: expected {word!r}, found {head!r}")
        return rest if word else text

    def _check_model(self, found: str) -> None:
        if self.model_hash is not None and found != self.model_hash:
            raise WrongModelError(
                f"the board on {self.transport.name} carries model {found}, expected {self.model_hash}; "
                "flash the model you mean (`tinyredux flash`)"
            )

    # ---- repeating ----

    def _line_s(self, count: int) -> float:
        return count / self.patience.bytes_per_s

    def _retry(self, what: str, attempt: Callable[[float], _T], line_s: float = 0.0) -> _T:
        """Returns the first attempt that succeeds; the bytes of one need `line_s`. Raises LinkError after `attempts` or time."""
        start = time.monotonic()
        deadline = start + self.patience.total_s + self.patience.attempts * line_s
        faults: list[str] = []
        self._noise, self._fault = b"", ""
        while len(faults) < self.patience.attempts and time.monotonic() < deadline:
            try:
                if faults:
                    self._wait_for_silence(deadline)
                return attempt(deadline)
            except _AttemptError as fault:
                faults.append(str(fault))
            except (KeyError, ValueError) as fault:
                raise LinkError(f"the answer of {self.transport.name} to {what!r} is not tinyredux's: {fault!r}") from None
        reasons = "; ".join(dict.fromkeys(faults))
        raise LinkError(
            f"{what!r} on {self.transport.name} failed {len(faults)} times in {time.monotonic() - start:.1f} s: {reasons}."
            + (f" Not understood: {self._noise[:_NOISE_SHOWN]!r}." if self._noise else "")
            + " Is it the board's port, does the board carry a tinyredux firmware (`tinyredux flash`), is the cable sound?"
            " Press its reset button and try again."
        )

    def _wait_for_silence(self, deadline: float) -> None:
        """Waits until nothing has arrived for `quiet_s`, or the deadline."""
        self._waiting.clear()
        quiet_from = time.monotonic()
        while time.monotonic() < min(deadline, quiet_from + self.patience.quiet_s):
            if self._fill(quiet_from + self.patience.quiet_s):
                quiet_from = time.monotonic()
                self._waiting.clear()

    # ---- bytes ----

    def _fill(self, until: float) -> bool:
        """Adds what arrives to the waiting bytes. False when it is too late."""
        left_s = until - time.monotonic()
        data = self.transport.read(left_s) if left_s > 0 else b""
        self._waiting += data
        return bool(data)

    def _take(self, count: int) -> bytes:
        data = bytes(self._waiting[:count])
        del self._waiting[:count]
        return data

    def _line(self, until: float) -> bytes | None:
        while (end := self._waiting.find(b"\n")) < 0:
            if len(self._waiting) > _LONGEST_LINE:
                self._waiting.clear()
            if not self._fill(until):
                self._take_noise(bytes(self._waiting))
                return None
        return self._take(end + 1)

    def _bytes(self, count: int, deadline: float) -> bytes:
        until = min(deadline, time.monotonic() + self.patience.reply_s + self._line_s(count))
        while len(self._waiting) < count:
            if not self._fill(until):
                raise _AttemptError(f"{len(self._waiting)} of {count} output bytes arrived")
        return self._take(count)
