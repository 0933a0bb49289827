"""The serial protocol: 1,000 exchanges with the real C over a wire that damages them, each failure that has a name, its limits.

What a board announces is believed only up to its model, and how long is waited follows the bytes and the rate.
"""

from __future__ import annotations

import random
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import link_tools as tools
import pytest
from link_tools import INPUT_BYTES, MODEL_HASH, DeviceProcess, Fault, FaultyWire, expected_cycles, expected_output

from tinyredux.device import link as link_module
from tinyredux.device import serial_port
from tinyredux.device.link import BAUD, Link, LinkClosedError, LinkError, Patience, WrongModelError, seal, unseal

SEED = 20260
PATIENCE = Patience(reply_s=0.1, run_s=0.2, quiet_s=0.04, attempts=5, total_s=3.0)
STUBBORN = Patience(reply_s=0.1, run_s=0.3, quiet_s=0.05, attempts=12, total_s=20.0)  # where the right result must come
HANG_S = PATIENCE.total_s + 8.0  # a loaded machine is no hang
STRANDS = 20
PATTERN = {"repeats": "2", "min": "1699", "median": "1699", "max": "1699", "stack": "1234", "output": "bbd8c5ad"}


@pytest.fixture(scope="session")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the device program."""
    return tools.build_device(tmp_path_factory.mktemp("device"))


@pytest.fixture
def board(device: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceProcess]:
    """Returns a running device whose inferences take 0.3 s."""
    running = DeviceProcess(device, {"LINK_DEVICE_RUN_MS": "300"})
    yield running
    running.close()


def right(link: Link, data: bytes) -> bool:
    """Runs the model. Returns whether every number of the result is right."""
    result = link.run(data)
    return (*result,) == (expected_output(data), expected_cycles(data), 1234)


def plan_faults(chance: random.Random) -> tuple[list[Fault], list[Fault]]:
    """Returns faults for one exchange: mostly one, sometimes up to twenty, spread over all attempts."""
    ways: tuple[list[Fault], list[Fault]] = ([], [])
    for _ in range(chance.choice((1, 1, 1, 1, 2, 3, 6, 20))):
        chance.choice(ways).append(Fault(chance.choice(tools.KINDS), chance.randrange(chance.choice((60, 200, 600)))))
    return ways


def exchange(link: Link, chance: random.Random) -> bool:
    """Makes one exchange. Returns whether its result is right in every number."""
    data = bytearray(chance.randbytes(INPUT_BYTES))
    if chance.random() < 0.3:  # an input that looks like the protocol
        data[:0] = chance.choice((b"\ninfo\n", b"\nmeasure 1\n", b"*00000000\n", seal("#7 done 1")))
    kind = chance.random()
    if kind < 0.1:
        info = link.info()
        return (info.model_hash, info.input_bytes, info.output_bytes, info.ops) == (MODEL_HASH, INPUT_BYTES, 10, 2)
    if kind < 0.2:
        lines = link.ask("measure 2")
        last = dict(word.split("=") for word in lines[-1].split()[1:])
        return lines[0] == "op 0 first" and len(lines) == 5 and last == PATTERN
    return right(link, bytes(data[:INPUT_BYTES]))


def strand(program: Path, seed: int, exchanges: int) -> Counter[str]:
    """Makes many exchanges with one device over one bad wire. Returns how many ended how, and how many faults struck."""
    tally, chance = Counter[str](), random.Random(seed)
    wire = FaultyWire(DeviceProcess(program), chance)
    link = Link(wire, MODEL_HASH, PATIENCE)
    for _ in range(exchanges):
        wire.arm(*plan_faults(chance))
        start = time.monotonic()
        try:
            tally["right" if exchange(link, chance) else "wrong"] += 1
        except LinkClosedError:
            raise
        except LinkError:
            tally["refused"] += 1
        tally["hung"] += time.monotonic() - start > HANG_S
    tally["struck"] = wire.struck
    wire.arm([], [])
    assert Link(wire, MODEL_HASH).info().input_bytes == INPUT_BYTES, "the board did not come back after the faults"
    wire.close()
    return tally


def test_a_thousand_damaged_exchanges(device: Path) -> None:
    """No damaged exchange hangs, none gives a wrong result, and most give the right one by asking again."""
    with ThreadPoolExecutor(STRANDS) as pool:
        total = sum(pool.map(lambda i: strand(device, SEED + i, 1000 // STRANDS), range(STRANDS)), Counter[str]())
    print(f"seed {SEED}: {total}")
    assert total["right"] + total["refused"] == 1000 and not total["hung"]
    assert total["struck"] > 1000 and total["right"] > 500  # about 940 on an idle machine; time-outs strike on a busy one


@pytest.mark.parametrize("kind", tools.KINDS)
def test_one_fault_is_cured_by_asking_again(device: Path, kind: str) -> None:
    """A single fault of each kind, either way, anywhere in the exchange: the right result all the same."""
    chance = random.Random(SEED)
    wire = FaultyWire(DeviceProcess(device), chance)
    link = Link(wire, MODEL_HASH, STUBBORN)
    for position in range(0, 130, 26):
        for way in (0, 1):
            wire.arm(*[[Fault(kind, position + 13 * way)] if way == i else [] for i in (0, 1)])
            assert right(link, chance.randbytes(INPUT_BYTES)), (way, position)
    wire.close()


def test_noise_during_an_inference_is_waited_out(board: DeviceProcess) -> None:
    """Noise while the board computes does not shorten the wait for its result: one attempt is enough."""
    link = Link(board, MODEL_HASH, Patience(reply_s=5.0, run_s=5.0, quiet_s=0.03, attempts=1, total_s=10.0))
    link.info()
    heard, read = iter([b"", b"\xff\n", b"static\r\n"]), board.read
    board.read = lambda timeout_s: next(heard, b"") or read(timeout_s)  # type: ignore[method-assign]
    assert right(link, bytes(range(INPUT_BYTES)))


class Script:
    """A Transport whose board answers each write by the next of some canned answers; {tag} is the request's tag."""

    def __init__(self, *answers: bytes) -> None:
        self.answers, self.name, self.waiting = list(answers), "script", b""

    def read(self, timeout_s: float) -> bytes:
        """Returns what was scripted, or waits."""
        data, self.waiting = self.waiting, b""
        if not data:
            time.sleep(timeout_s)
        return data

    def write(self, data: bytes) -> None:
        """Takes the next answer, and seals what stands behind {tag}."""
        answer, (tag, *_) = self.answers.pop(0) if self.answers else b"", data.split()
        before, found, text = answer.partition(b"{tag}")
        self.waiting += before + (seal((tag + text).decode()) if found else b"")

    def close(self) -> None:
        """Does nothing."""


INFO = b"{tag} info version=1 model=0123456789abcdef name=n board=b clock=1 ops=2 input=48 output=10 arena=1 scratch=1"


@pytest.mark.parametrize(("answer", "message"), [
    (b"", r"'info' on script failed 5 times in \d+\.\d s: no answer within 0.1 s\. .*tinyredux flash"),
    (b"Hello from another firmware\r\n", r"Not understood: b'Hello from another firmware"),
    (b"\xff\x00\xfe" * 99, r"the answer was damaged\. Not understood"), (b"\xff\n" * 20000, r"Not understood"),
    (b"\ntinyredux FAULT exception=00000003 pc=08000124 lr=0\n", r"firmware on script stopped.*pc=08000124.*addr2line"),
    (b"#1 info version=1 model=x*00000000\n", r"the answer was damaged\. Not understood: b'#1 info"),
    (b"\xff\0garbage\n" + seal(f"tinyredux READY {MODEL_HASH}"), r"failed 5 times .*: the board was reset"),
    (b"\xff\0garbage\n" + seal("tinyredux READY other"), "carries model other, expected 0123456789abcdef; flash the model"),
    (b"{tag} info version=2 model=x", r"speaks protocol 2, expected 1; flash it again"),
    (INFO.replace(b"ops=2", b"ops=two"), r"is not tinyredux's: .*'two' where a number is expected"),
    (INFO.replace(b" input=48", b""), r"is not tinyredux's: KeyError\('input'\)"),
])  # fmt: skip
def test_what_is_not_an_answer(answer: bytes, message: str) -> None:
    """Silence, another firmware, a wrong baud rate, a crash, a wrong CRC: a clear error in bounded time. Noise before a banner or
    before an answer does no harm."""
    start = time.monotonic()
    with pytest.raises(LinkError, match=message):
        Link(Script(*[answer] * 9), MODEL_HASH, PATIENCE).info()
    assert time.monotonic() - start < HANG_S
    garbage = b"\xff\x00noise\n" + seal(f"tinyredux READY {MODEL_HASH}")
    assert Link(Script(b"\0\xff\n" + INFO), MODEL_HASH, PATIENCE).info() == Link(Script(garbage, INFO), None, PATIENCE).info()


@pytest.mark.parametrize("act", [lambda link: link.info(), lambda link: link.run(bytes(INPUT_BYTES))], ids=["info", "run"])
def test_another_model_is_refused(board: DeviceProcess, act: Callable[[Link], object]) -> None:
    """The hash of the info line and of each run is compared."""
    link = Link(board, "feedface", PATIENCE)
    with pytest.raises(WrongModelError, match=r"carries model 0123456789abcdef, expected feedface.*flash"):
        act(link)


def test_a_refusal_is_not_repeated(board: DeviceProcess) -> None:
    """What the board understood and refuses is an error at once, in its words."""
    link = Link(board, MODEL_HASH, PATIENCE)
    with pytest.raises(LinkError, match=r"refused: the input of this model has 48 bytes, not 3"):
        link.run(b"abc")
    for line, words in (("frobnicate", r"refused: unknown request; type help"), ("run 48 00000000", r"send it with `run`")):
        with pytest.raises(LinkError, match=words):
            link.ask(line)
    with pytest.raises(ValueError, match="printable ASCII"):
        link.ask("two\nlines")
    assert len(link.ask("help")) == 5 and link.ask("halt") == ("halted",)
    with pytest.raises(LinkClosedError):
        link.info()


def heard_of(board: DeviceProcess, typed: bytes, lines: int = 1) -> list[str]:
    """Returns the first lines of the answer to what is typed."""
    board.write(typed)
    heard = b""
    while heard.count(b"\n") < lines:
        heard += board.read(5.0)
    return [unseal(line) or "" for line in heard.split(b"\n")[:lines]]


@pytest.mark.parametrize(("typed", "answer"), [
    (b"info\n", "info version=1 model=0123456789abcdef name=xor board=test"), (b"info\r\n", "info version=1"),
    (b"inx\x7ffo\r", "info version=1"), (b"  info  \n", "info version=1"), (b"help\n", "help info"), (b"measure 1\n", "op 0 "),
    (b"measure\n", "error measure needs a number of repeats from 1 to 32"), (b"measure 33\n", "error measure needs a number"),
    (b"measure 99999999999\n", "error measure needs a number"), (b"measure 3x\n", "error measure needs a number"),
    (b"run\n", "error run needs the number of input bytes and their CRC-32"), (b"run 48 0000000\n", "error run needs"),
    (b"information\n", "error unknown request; type help"), (b"#12 info\n", "damaged line: its CRC is missing or wrong"),
    (b"#12 info*00000000\n", "damaged line: its CRC is missing or wrong"), (b"info*0\n", "damaged line"),
    (b"x" * 96 + b"\n", "damaged line: too long"), (b"x" * 9999 + b"\b\n", "damaged line: too long"),
])  # fmt: skip
def test_a_person_at_a_terminal(board: DeviceProcess, typed: bytes, answer: str) -> None:
    """Typed lines need no tag and no CRC and get readable answers."""
    assert heard_of(board, b"\n\r\n" + typed)[0].startswith(answer)


def test_a_frame_that_stops_is_dropped(board: DeviceProcess) -> None:
    """The device reads lines again after the time that link.h names, without anybody's help."""
    assert heard_of(board, b"run 48 00000000\nabc", 2)[1] == "damaged frame: bytes received: 3"
    assert Link(board, MODEL_HASH, PATIENCE).info().ops == 2


class SlowBoard:
    """A Transport to a board in Python, on a line of `BAUD` in the time of a fake clock. `spoil` changes what it sends."""

    def __init__(self, clock: SimpleNamespace, input_bytes: int, output_bytes: int, run_s: float = 0.1) -> None:
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
                self._say(f"ran model={MODEL_HASH} stack=99 cycles=12 ops={self.ops}")
                self._say(f"output {self.announced} {zlib.crc32(self.output):08x}")
                self.waiting += self.spoil(self.output)
                continue
            line, _, self.heard = self.heard.partition(b"\n")
            self._obey(unseal(line + b"\n") or "")

    def _say(self, text: str) -> None:
        self.waiting += self.spoil(seal(f"{self.tag} {text}"))

    def _obey(self, request: str) -> None:
        self.tag, _, words = request.partition(" ")
        if words == "info":
            sizes = b"input=%d output=%d" % (self.input_bytes, len(self.output))
            self._say(INFO[6:].replace(b"input=48 output=10", sizes).decode())
        elif words.startswith("run "):
            self.frame = int(words.split()[1])
            self._say(f"send {self.frame}")
        elif words == "help":
            self.waiting += seal(f"{self.tag} x") * 5000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Puts in the place of the link's clock one that moves only when somebody waits or sends."""
    fake = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(link_module.time, "monotonic", lambda: fake.now)
    return fake


SIZES = [(48, 10), (76_800, 10), (48, 24_576), (200_000, 300_000), (700_000, 700_000)]


@pytest.mark.parametrize(("input_bytes", "output_bytes"), SIZES)
def test_bytes_that_flow_are_waited_for(clock: SimpleNamespace, input_bytes: int, output_bytes: int) -> None:
    """At 115,200 baud 76,800 bytes take 6.7 s and 24,576 take 2.1 s: more than a short answer may take."""
    slow, start = SlowBoard(clock, input_bytes, output_bytes, run_s=15.0), clock.now
    assert Link(slow, MODEL_HASH).run(bytes(input_bytes)).output == slow.output
    assert clock.now - start >= 15.0 + (input_bytes if input_bytes > 999 else 0) * 10 / BAUD


def test_a_stall_ends_in_words_within_the_promised_time(clock: SimpleNamespace) -> None:
    slow = SlowBoard(clock, 76_800, 24_576)
    link = Link(slow, MODEL_HASH)
    link.info()
    slow.spoil = lambda data: data[: len(data) // 2]  # half of each frame and line never comes
    start, patience = clock.now, Patience()
    with pytest.raises(LinkError, match=r"'run' on slow failed 5 times"):
        link.run(bytes(76_800))
    assert clock.now - start <= patience.total_s + patience.attempts * (76_800 + 24_576) / patience.bytes_per_s + 1


ACCIDENTS: dict[str, Callable[[bytes], bytes]] = {
    "garbage": lambda data: b"\xff\0*#1 ran\n" + data, "crc": lambda data: data[:-1] + b"?", "half": lambda data: data[:9000],
    "reset": lambda data: data[:99] + seal(f"tinyredux READY {MODEL_HASH}"), "pause": lambda data: data,
}  # fmt: skip


@pytest.mark.parametrize("kind", ACCIDENTS)
def test_one_accident_in_a_long_frame_is_cured(clock: SimpleNamespace, kind: str) -> None:
    slow = SlowBoard(clock, 76_800, 24_576)
    link = Link(slow, MODEL_HASH)
    link.info()
    accidents = iter([ACCIDENTS[kind]])

    def spoil(data: bytes) -> bytes:
        if len(data) < 1000 or (accident := next(accidents, None)) is None:
            return data
        slow.free_at += 1.5 * (kind == "pause")
        return accident(data)

    slow.spoil = spoil
    assert link.run(bytes(76_800)).output == slow.output
    assert next(accidents, None) is None, "the accident has happened"


@pytest.mark.parametrize(("size", "ops", "words"), [  # bytes of output, cycles of its two operators, words of the refusal
    ("11", "5,7", r"reports 11 output bytes, its model has 10; flash it again"), ("9", "5,7", r"reports 9 output bytes"),
    ("9999999999", "5,7", r"reports 9999999999 output bytes"), ("-5", "5,7", r"tinyredux's: .*'-5' where a number is expected"),
    ("1_0", "5,7", r"is not tinyredux's"), ("9" * 5000, "5,7", r"is not tinyredux's"), ("", "5,7", r"is not tinyredux's"),
    ("10", "1,2,3", r"reports 3 operators, its model has 2"),
], ids=range(8))  # fmt: skip
def test_what_is_announced_is_held_against_the_model(clock: SimpleNamespace, size: str, ops: str, words: str) -> None:
    slow = SlowBoard(clock, 48, 10)
    slow.announced, slow.ops = size, ops
    with pytest.raises(LinkError, match=words):
        Link(slow, MODEL_HASH).run(bytes(48))


def test_an_answer_without_an_end_is_cut(clock: SimpleNamespace) -> None:
    with pytest.raises(LinkError, match=r"has no end: over 4096 lines"):
        Link(SlowBoard(clock, 48, 10), MODEL_HASH, Patience(run_s=600.0, total_s=6000.0)).ask("help")


def test_a_port_is_written_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit on a port that takes no data is pyserial's, on a whole call, and 76,800 bytes take longer than that."""
    pieces: list[bytes] = []
    transport, data = serial_port.SerialTransport("loop://"), bytes(range(1, 201)) * 384
    monkeypatch.setattr(transport._serial, "write", pieces.append)
    transport.write(data)
    assert b"".join(pieces) == data and max(map(len, pieces)) * 10 / BAUD < serial_port.WRITE_TIMEOUT_S / 10
