"""The serial protocol: 1,000 exchanges with the real C over a wire that damages them, and each failure that has a name."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from link_tools import (
    INPUT_BYTES,
    KINDS,
    MODEL_HASH,
    DeviceProcess,
    Fault,
    FaultyWire,
    build_device,
    expected_cycles,
    expected_output,
)

from tinyredux.device.link import Link, LinkClosedError, LinkError, Patience, WrongModelError, seal, unseal

SEED = 20260
PATIENCE = Patience(reply_s=0.1, run_s=0.2, quiet_s=0.04, attempts=5, total_s=3.0)
STUBBORN = Patience(reply_s=0.1, run_s=0.3, quiet_s=0.05, attempts=12, total_s=20.0)  # where the right result must come
HANG_S = PATIENCE.total_s + 8.0  # a loaded machine is no hang
STRANDS = 20


@pytest.fixture(scope="session")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the device program."""
    return build_device(tmp_path_factory.mktemp("device"))


def plan_faults(chance: random.Random) -> tuple[list[Fault], list[Fault]]:
    """Returns faults for one exchange: mostly one, sometimes up to twenty, spread over all attempts."""
    ways: tuple[list[Fault], list[Fault]] = ([], [])
    for _ in range(chance.choice((1, 1, 1, 1, 2, 3, 6, 20))):
        chance.choice(ways).append(Fault(chance.choice(KINDS), chance.randrange(chance.choice((60, 200, 600)))))
    return ways


def exchange(link: Link, chance: random.Random) -> bool:
    """Makes one exchange. Returns whether its result is right in every number."""
    data = bytearray(chance.randbytes(INPUT_BYTES))
    if chance.random() < 0.3:  # an input that looks like the protocol
        text = chance.choice((b"\ninfo\n", b"\nmeasure 1\n", b"*00000000\n", seal("#7 done 1")))
        data[:0] = text
    data = data[:INPUT_BYTES]
    kind = chance.random()
    if kind < 0.1:
        info = link.info()
        return (info.model_hash, info.input_bytes, info.output_bytes, info.ops) == (MODEL_HASH, INPUT_BYTES, 10, 2)
    if kind < 0.2:
        lines = link.ask("measure 2")
        last = dict(word.split("=") for word in lines[-1].split()[1:])
        return lines[0] == "op 0 first" and len(lines) == 5 and last == PATTERN
    result = link.run(bytes(data))
    return (result.output, result.cycles_per_op) == (expected_output(data), expected_cycles(data)) and result.stack_bytes == 1234


PATTERN = {"repeats": "2", "min": "1699", "median": "1699", "max": "1699", "stack": "1234", "output": "bbd8c5ad"}


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


@pytest.mark.parametrize("kind", KINDS)
def test_one_fault_is_cured_by_asking_again(device: Path, kind: str) -> None:
    """A single fault of each kind, either way, anywhere in the exchange: the right result all the same."""
    chance = random.Random(SEED)
    wire = FaultyWire(DeviceProcess(device), chance)
    link = Link(wire, MODEL_HASH, STUBBORN)
    for position in range(0, 130, 13):
        for way in ("out", "in"):
            fault = [Fault(kind, position)]
            wire.arm(fault if way == "out" else [], fault if way == "in" else [])
            data = chance.randbytes(INPUT_BYTES)
            result = link.run(data)
            assert (result.output, result.cycles_per_op) == (expected_output(data), expected_cycles(data)), (way, position)
    wire.close()


def test_noise_during_an_inference_is_waited_out(device: Path) -> None:
    """Noise while the board computes does not shorten the wait for its result: one attempt is enough."""
    board = DeviceProcess(device, {"LINK_DEVICE_RUN_MS": "300"})
    patience = Patience(reply_s=5.0, run_s=5.0, quiet_s=0.03, attempts=1, total_s=10.0)
    link = Link(board, MODEL_HASH, patience)
    link.info()
    heard = iter([b"", b"\xff\n", b"static\r\n"])
    read = board.read
    board.read = lambda timeout_s: next(heard, b"") or read(timeout_s)
    data = bytes(range(INPUT_BYTES))
    assert link.run(data).output == expected_output(data)
    board.close()


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
        """Takes the next answer."""
        tag = data.split()[0].lstrip(b"#")
        self.waiting += self.answers.pop(0).replace(b"{tag}", tag) if self.answers else b""

    def close(self) -> None:
        """Does nothing."""


def test_another_model_is_refused(device: Path) -> None:
    """The hash of the info line, of the banner, and of each run is compared."""
    board = DeviceProcess(device)
    for request in (lambda link: link.info(), lambda link: link.run(bytes(INPUT_BYTES))):
        with pytest.raises(WrongModelError, match=r"carries model 0123456789abcdef, expected feedface.*flash"):
            request(Link(board, "feedface", PATIENCE))
    board.close()
    with pytest.raises(WrongModelError, match=r"carries model other"):
        Link(Script(seal("tinyredux READY other")), MODEL_HASH, PATIENCE).run(b"")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", r"'info' on script failed 5 times in \d+\.\d s: no answer within 0.1 s\. .*tinyredux flash"),
        (b"Hello from another firmware\r\n", r"Not understood: b'Hello from another firmware"),
        (b"\xff\x00\xfe" * 99, r"the answer was damaged\. Not understood"),
        (b"\ntinyredux FAULT exception=00000003 pc=08000124 lr=0\n", r"firmware on script stopped.*pc=08000124.*addr2line"),
        (b"\xff\n" * 20000, r"Not understood"),
    ],
)
def test_what_is_not_an_answer(answer: bytes, message: str) -> None:
    """Silence, another firmware, a wrong baud rate, a crash: a clear error in bounded time."""
    start = time.monotonic()
    with pytest.raises(LinkError, match=message):
        Link(Script(*[answer] * 9), MODEL_HASH, PATIENCE).info()
    assert time.monotonic() - start < HANG_S


def test_another_protocol_version_is_refused() -> None:
    """A newer firmware says so instead of being misread."""
    script = Script()
    script.write = lambda data: setattr(script, "waiting", seal(data.split()[0].decode() + " info version=2 model=x"))
    with pytest.raises(LinkError, match=r"speaks protocol 2, expected 1; flash it again"):
        Link(script, None, PATIENCE).info()


def test_a_refusal_is_not_repeated(device: Path) -> None:
    """What the board understood and refuses is an error at once, in its words."""
    board = DeviceProcess(device)
    link = Link(board, MODEL_HASH, PATIENCE)
    with pytest.raises(LinkError, match=r"refused: the input of this model has 48 bytes, not 3"):
        link.run(b"abc")
    with pytest.raises(LinkError, match=r"refused: unknown request; type help"):
        link.ask("frobnicate")
    with pytest.raises(LinkError, match=r"send it with `run`"):
        link.ask("run 48 00000000")
    with pytest.raises(ValueError, match="printable ASCII"):
        link.ask("two\nlines")
    assert len(link.ask("help")) == 5
    assert link.ask("halt") == ("halted",)
    with pytest.raises(LinkClosedError):
        link.info()
    board.close()


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        (b"info\n", "info version=1 model=0123456789abcdef name=xor board=test"),
        (b"info\r\n", "info version=1"),
        (b"inx\x7ffo\r", "info version=1"),
        (b"  info  \n", "info version=1"),
        (b"help\n", "help info"),
        (b"measure 1\n", "op 0 first"),
        (b"measure\n", "error measure needs a number of repeats from 1 to 32"),
        (b"measure 33\n", "error measure needs a number"),
        (b"measure 99999999999\n", "error measure needs a number"),
        (b"measure 3x\n", "error measure needs a number"),
        (b"run\n", "error run needs the number of input bytes and their CRC-32"),
        (b"run 48 0000000\n", "error run needs"),
        (b"information\n", "error unknown request; type help"),
        (b"#12 info\n", "damaged line: its CRC is missing or wrong"),
        (b"#12 info*00000000\n", "damaged line: its CRC is missing or wrong"),
        (b"info*0\n", "damaged line"),
        (b"x" * 96 + b"\n", "damaged line: too long"),
        (b"x" * 9999 + b"\b\n", "damaged line: too long"),
    ],
)
def test_a_person_at_a_terminal(device: Path, typed: bytes, answer: str) -> None:
    """Typed lines need no tag and no CRC and get readable answers."""
    board = DeviceProcess(device)
    board.write(b"\n\r\n" + typed)
    heard = b""
    while b"\n" not in heard:
        heard += board.read(5.0)
    assert (unseal(heard.split(b"\n")[0]) or "").startswith(answer)
    board.close()


def test_a_frame_that_stops_is_dropped(device: Path) -> None:
    """The device reads lines again after the time that link.h names, without anybody's help."""
    board = DeviceProcess(device)
    board.write(b"run 48 00000000\nabc")
    heard = b""
    while heard.count(b"\n") < 2:
        heard += board.read(5.0)
    assert unseal(heard.split(b"\n")[1]) == "damaged frame: bytes received: 3"
    assert Link(board, MODEL_HASH, PATIENCE).info().ops == 2
    board.close()
