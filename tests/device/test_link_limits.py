"""Limits of the serial line: they follow the bytes and the rate, and what a board announces is believed only up to its model."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pytest

from tinyredux.device import link as link_module
from tinyredux.device import serial_port
from tinyredux.device.link import BAUD, Link, LinkError, Patience, seal, unseal
from tinyredux.device.serial_port import SerialTransport

HASH = "0123456789abcdef"


class Clock:
    """A clock that moves only when somebody waits or sends."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Returns the time in seconds."""
        return self.now


class SlowBoard:
    """A Transport to a board in Python, on a line of `BAUD` in the time of a fake clock. `spoil` changes what it sends."""

    def __init__(self, clock: Clock, input_bytes: int, output_bytes: int, run_s: float = 0.1) -> None:
        self.name, self.clock, self.run_s = "slow", clock, run_s
        self.input_bytes, self.output = input_bytes, bytes(i * 7 & 255 for i in range(output_bytes))
        self.heard, self.waiting, self.frame, self.tag = b"", bytearray(), 0, ""
        self.free_at, self.announced, self.ops = clock.now, str(output_bytes), "5,7"
        self.spoil: Callable[[bytes], bytes] = lambda data: data

    def read(self, timeout_s: float) -> bytes:
        """Returns one polling interval's bytes."""
        if not self.waiting or self.free_at > self.clock.now + timeout_s:
            self.clock.now += timeout_s
            return b""
        self.clock.now = max(self.clock.now, self.free_at) + 0.02
        data, self.waiting = bytes(self.waiting[:230]), self.waiting[230:]
        return data

    def write(self, data: bytes) -> None:
        """Takes bytes at once, as a driver with a large buffer does; the board has them when the line has carried them."""
        self.free_at = max(self.free_at, self.clock.now) + len(data) * 10 / BAUD
        self.heard += data
        while (self.frame and len(self.heard) >= self.frame) or (not self.frame and b"\n" in self.heard):
            if self.frame:
                self.heard, self.frame = self.heard[self.frame :], 0
                self.free_at += self.run_s
                self._say(f"ran model={HASH} stack=99 cycles=12 ops={self.ops}")
                self._say(f"output {self.announced} {zlib.crc32(self.output):08x}")
                self.waiting += self.spoil(self.output)
                continue
            line, _, self.heard = self.heard.partition(b"\n")
            self._obey(unseal(line + b"\n") or "")

    def close(self) -> None:
        """Does nothing."""

    def _say(self, text: str) -> None:
        self.waiting += self.spoil(seal(f"{self.tag} {text}"))

    def _obey(self, request: str) -> None:
        self.tag, _, words = request.partition(" ")
        if words == "info":
            numbers = f"clock=1 counter=1 ops=2 input={self.input_bytes} output={len(self.output)} arena=1 scratch=1 stack=1"
            self._say(f"info version=1 model={HASH} name=n board=b {numbers}")
        elif words.startswith("run "):
            self.frame = int(words.split()[1])
            self._say(f"send {self.frame}")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Puts a fake clock in the place of the link's."""
    fake = Clock()
    monkeypatch.setattr(link_module.time, "monotonic", fake.monotonic)
    return fake


@pytest.mark.parametrize(
    ("input_bytes", "output_bytes"), [(48, 10), (76_800, 10), (48, 24_576), (200_000, 300_000), (700_000, 700_000)]
)
def test_bytes_that_flow_are_waited_for(clock: Clock, input_bytes: int, output_bytes: int) -> None:
    """At 115,200 baud 76,800 bytes take 6.7 s and 24,576 take 2.1 s: more than a short answer may take."""
    board = SlowBoard(clock, input_bytes, output_bytes, run_s=15.0)
    link = Link(board, HASH)
    start = clock.now
    assert link.run(bytes(input_bytes)).output == board.output
    assert clock.now - start >= 15.0 + (input_bytes if input_bytes > 999 else 0) * 10 / BAUD


def test_a_stall_ends_in_words_within_the_promised_time(clock: Clock) -> None:
    board = SlowBoard(clock, 76_800, 24_576)
    link = Link(board, HASH)
    link.info()
    board.spoil = lambda data: data[: len(data) // 2]  # half of each frame and line never comes
    start = clock.now
    with pytest.raises(LinkError, match=r"'run' on slow failed 5 times"):
        link.run(bytes(76_800))
    patience = Patience()
    assert clock.now - start <= patience.total_s + patience.attempts * (76_800 + 24_576) / patience.bytes_per_s + 1


@pytest.mark.parametrize("kind", ["garbage", "crc", "half frame", "reset", "pause"])
def test_one_accident_in_a_long_frame_is_cured(clock: Clock, kind: str) -> None:
    board = SlowBoard(clock, 76_800, 24_576)
    link = Link(board, HASH)
    link.info()
    accidents = iter([True])

    def spoil(data: bytes) -> bytes:
        if len(data) < 1000 or not next(accidents, False):
            return data
        if kind == "pause":
            board.free_at += 1.5
        banner = seal(f"tinyredux READY {HASH}")
        changed = {
            "garbage": b"\xff\0*#1 ran\n" + data,
            "crc": data[:-1] + b"?",
            "half frame": data[:9000],
            "reset": data[:99] + banner,
        }
        return changed.get(kind, data)

    board.spoil = spoil
    assert link.run(bytes(76_800)).output == board.output
    assert next(accidents, None) is None, "the accident has happened"


ANNOUNCED = {  # bytes of output, cycles of its two operators, words of the refusal
    ("11", "5,7"): r"reports 11 output bytes, its model has 10; flash it again",
    ("9", "5,7"): r"reports 9 output bytes, its model has 10",
    ("9999999999", "5,7"): r"reports 9999999999 output bytes, its model has 10",
    ("-5", "5,7"): r"is not tinyredux's: .*'-5' where a number is expected",
    ("1_0", "5,7"): r"is not tinyredux's",
    ("9" * 5000, "5,7"): r"is not tinyredux's",
    ("", "5,7"): r"is not tinyredux's",
    ("10", "1,2,3"): r"reports 3 operators, its model has 2",
}


@pytest.mark.parametrize("announced", ANNOUNCED, ids=lambda announced: announced[0][:9])
def test_what_is_announced_is_held_against_the_model(clock: Clock, announced: tuple[str, str]) -> None:
    board = SlowBoard(clock, 48, 10)
    board.announced, board.ops = announced
    with pytest.raises(LinkError, match=ANNOUNCED[announced]):
        Link(board, HASH).run(bytes(48))


def test_an_answer_without_an_end_is_cut(clock: Clock) -> None:
    board = SlowBoard(clock, 48, 10)
    board._obey = lambda request: board.waiting.extend(seal(f"{request.partition(' ')[0]} x") * 5000)  # type: ignore[method-assign]
    board.write = lambda data: board._obey(unseal(data.strip()) or "")  # type: ignore[method-assign]
    with pytest.raises(LinkError, match=r"has no end: over 4096 lines"):
        Link(board, HASH, Patience(run_s=600.0, total_s=6000.0)).ask("help")


def test_a_port_is_written_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit on a port that takes no data is pyserial's, on a whole call, and 76,800 bytes take longer than that."""
    pieces: list[bytes] = []
    transport, data = SerialTransport("loop://"), bytes(range(1, 201)) * 384
    monkeypatch.setattr(transport._serial, "write", pieces.append)
    transport.write(data)
    assert b"".join(pieces) == data and max(map(len, pieces)) * 10 / BAUD < serial_port.WRITE_TIMEOUT_S / 10
