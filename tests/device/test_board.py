"""Boards on serial ports, through pyserial: a served board, the verbs, and every way a port can fail."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import user_nets
from link_tools import INPUT_BYTES, MODEL_HASH, DeviceProcess, build_device, expected_cycles, expected_output

from tinyredux.boards import Board, find_board
from tinyredux.cli import app as cli
from tinyredux.device import BuildError, serial_port, upload
from tinyredux.device import flash as flash_module
from tinyredux.device.board import BoardTarget, ask_board, readable, run_file, terminal
from tinyredux.device.flash import flash
from tinyredux.device.link import LinkClosedError, LinkError, Patience, WrongModelError
from tinyredux.device.serial_port import SerialTransport, explain_open, find_port
from tinyredux.device.served import ServedBoard, control, served_facts
from tinyredux.device.upload import run_bounded
from tinyredux.settings import Settings, compile_net, measure_net

PATIENCE = Patience(reply_s=0.5, run_s=1.0, quiet_s=0.05, attempts=4, total_s=5.0)
OTHER_HASH = "fedcba9876543210"
DATA = bytes(range(200, 200 + INPUT_BYTES))
IMAGE = np.frombuffer(DATA, dtype=np.int8).reshape(4, 4, 3)


def start(program: Path) -> DeviceProcess:
    """Returns the device process as the machine of a served board; its "ELF" is the program."""
    if not program.is_file():
        raise ValueError(f"no such program: {program}")
    device = DeviceProcess(program)
    banner, read = [device.banner], device.read
    device.read = lambda timeout_s: banner.pop() if banner else read(timeout_s)  # type: ignore[method-assign]
    return device


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns the device program of two models, and of one that takes its time."""
    return {name: build_device(tmp_path_factory.mktemp(name), name) for name in (MODEL_HASH, OTHER_HASH)}


@pytest.fixture
def board(programs: dict[str, Path]) -> Iterator[ServedBoard]:
    """Serves the device process behind a pseudo-terminal."""
    served_board = ServedBoard(start, programs[MODEL_HASH], "disco_f469ni", "modelled", "test 1")
    thread = threading.Thread(target=served_board.serve)
    thread.start()
    yield served_board
    served_board.stop()
    thread.join(5.0)
    served_board._machine.close()
    assert not served_board.folder.exists()


def test_measure_through_a_serial_port(board: ServedBoard, tmp_path: Path) -> None:
    """Run and measure give the model's bytes and cycles; the cycles of a simulated board are not called a board's."""
    port = str(board.port)
    with BoardTarget(port, MODEL_HASH, (1, 2, 5), PATIENCE) as target:
        assert target.run(IMAGE).tobytes() == expected_output(DATA) and (target.info.name, target.info.board) == ("xor", "test")
        result = target.measure(IMAGE)
        with pytest.raises(ValueError, match=r"input is float32 with 48 values, expected int8 with 48"):
            target.run(IMAGE.astype(np.float32))  # type: ignore[arg-type]
    assert result.output.shape == (1, 2, 5) and result.output.tobytes() == expected_output(DATA)
    assert (result.cycles_per_op, result.cycles, result.stack_bytes) == (expected_cycles(DATA), sum(expected_cycles(DATA)), 1234)
    assert (result.cycles_kind, result.timing_model) == ("modelled", "test 1")
    assert ask_board("measure 2", port)[-1].startswith("measured repeats=2 min=1699 median=1699 max=1699")
    np.save(tmp_path / "image.npy", IMAGE)
    (tmp_path / "image.bin").write_bytes(DATA)
    for name in ("image.npy", "image.bin"):
        found, _ = run_file(tmp_path / name, port)
        assert found.output.tobytes() == expected_output(DATA) and found.cycles_kind == "modelled"


DISCO = find_board("disco_f469ni")
TEST = replace(DISCO, name="test")


@pytest.mark.parametrize(("model_hash", "expected", "words"), [
    (MODEL_HASH, DISCO, r"is test, expected disco_f469ni"), (OTHER_HASH, None, f"model {MODEL_HASH}, expected {OTHER_HASH}"),
    (None, TEST, r"runs at 1000000000 Hz, expected 180000000: its external oscillator did not start"),
    (None, replace(TEST, clock_hz=1000000000), ""),
], ids=range(4))  # fmt: skip
def test_another_board_is_refused(board: ServedBoard, model_hash: str | None, expected: Board | None, words: str) -> None:
    """Cycles of one board are never taken for another's, nor at another clock, nor with another model."""
    with pytest.raises(LinkError, match=words) if words else nullcontext():
        BoardTarget(str(board.port), model_hash, patience=PATIENCE, board=expected).close()


def test_outputs_that_differ_are_refused(board: ServedBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A board that gives two outputs for one input gives no measurement."""
    with BoardTarget(str(board.port), MODEL_HASH, patience=PATIENCE) as target:
        answers = iter([DATA, DATA[::-1]])
        run = target.link.run
        monkeypatch.setattr(target.link, "run", lambda data, sequence: run(next(answers)))
        with pytest.raises(LinkError, match=r"two runs on the same input gave different outputs"):
            target.measure(IMAGE)


def test_the_terminal(board: ServedBoard) -> None:
    """Lines go both ways until the person leaves; right CRCs are left out, wrong ones said."""
    lines, written = iter(["info", "nonsense", None]), []
    terminal(str(board.port), lambda: time.sleep(0.1) or next(lines), written.append)  # type: ignore[func-returns-value]
    assert any(line.startswith("info version=1") and "*" not in line for line in written)
    assert "error unknown request; type help" in written
    assert readable(b"info x=1*00000000\r") == "info x=1*00000000   <- damaged on the line"
    assert readable("grüße\r".encode()) == "grüße"


def test_another_model_while_the_port_is_open(board: ServedBoard, programs: dict[str, Path]) -> None:
    facts = served_facts(str(board.port))
    assert facts is not None
    with BoardTarget(str(board.port), None, patience=PATIENCE) as target:
        control(facts, {"elf": str(programs[OTHER_HASH])})
        with pytest.raises(WrongModelError, match=f"carries model {OTHER_HASH}, expected {MODEL_HASH}"):
            target.run(IMAGE)


def test_reset_in_the_middle(board: ServedBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resets during runs cost attempts, not results."""
    monkeypatch.setenv("LINK_DEVICE_RUN_MS", "20")
    facts = served_facts(os.path.realpath(board.port))  # known by its pseudo-terminal too
    assert facts is not None
    control(facts, {})
    outputs, repeated = set(), []
    with BoardTarget(str(board.port), MODEL_HASH, patience=replace(PATIENCE, attempts=30, total_s=60.0)) as target:
        monkeypatch.setattr(target.link, "_wait_for_silence", lambda deadline: repeated.append(time.sleep(0.05)))

        def press() -> None:
            for _ in range(8):
                time.sleep(0.11)
                control(facts, {})

        button = threading.Thread(target=press)
        button.start()
        while button.is_alive():
            outputs.add(target.run(IMAGE).tobytes())
        button.join()
    assert outputs == {expected_output(DATA)} and len(repeated) > 1


REQUESTS: tuple[tuple[object, str], ...] = (
    ({"elf": "none.elf"}, "refused: ValueError: no such program"), ({"elf": 3}, "refused: TypeError"), ([], "unknown request []"),
    ({"odd": "x"}, "unknown request {'odd': 'x'}; known: {\"elf\": path of a program}"), (None, "unknown request None"),
    (3, "unknown request 3"), ("elf", "unknown request elf"), ({"elf": "x", "board": "y"}, "unknown request"),
)  # fmt: skip


def test_control_refuses_nonsense(board: ServedBoard) -> None:
    """A bad request or a bad ELF is answered, or its line closed, and changes nothing."""
    facts = served_facts(str(board.port))
    assert facts is not None
    for request, words in REQUESTS:
        with pytest.raises(LinkError, match=re.escape(words)):
            control(facts, request)  # type: ignore[arg-type]
    for line in (b"not json\n", b"\xff\n", b"\n", b""):
        with socket.socket(socket.AF_UNIX) as wire:
            wire.connect(str(facts.control))
            wire.sendall(line)
            wire.shutdown(socket.SHUT_WR)
            assert wire.recv(99) == b""
    with BoardTarget(str(board.port)) as target:
        assert target.info.model_hash == MODEL_HASH
    board.stop()
    time.sleep(0.2)
    with pytest.raises(LinkError, match="does not answer"):
        control(facts, {})
    assert served_facts(str(board.port)) is None and served_facts("socket://localhost:1") is None


@pytest.mark.parametrize("moment", ["idle", "reading", "in the terminal"])
def test_unplugged(board: ServedBoard, moment: str) -> None:
    """Closing the other end is noticed in any state, said, and the port is released."""
    if moment == "in the terminal":
        threading.Timer(0.2, board.stop).start()
        with pytest.raises(LinkClosedError, match="is gone"):
            terminal(str(board.port), lambda: time.sleep(0.05) or "", lambda line: None)  # type: ignore[func-returns-value]
        return
    target = BoardTarget(str(board.port), MODEL_HASH, patience=PATIENCE)
    if moment == "reading":
        board._machine.read = lambda timeout_s: time.sleep(timeout_s) or b""  # type: ignore[method-assign,func-returns-value]
    threading.Timer(0.2 * (moment == "reading"), board.stop).start()
    while moment == "idle" and board.folder.exists():
        time.sleep(0.01)
    for words in (r"is gone \(.*unplugged.*The port is released.*run again", "is gone"):
        with pytest.raises(LinkClosedError, match=words):
            target.run(IMAGE)
        assert target.link.transport._serial.is_open is False  # type: ignore[attr-defined]
    target.close()
    target.close()


def test_a_silent_port(port: str) -> None:
    """A port without a tinyredux board behind it, or a wire that returns our own words (loop://), ends in time."""
    start = time.monotonic()
    for name, words in ((port, r"'info' on /dev/\S+ failed 2 times in .* no answer within 0.1 s.*tinyredux flash"), (
        "loop://", "no answer",
    )):  # fmt: skip
        with pytest.raises(LinkError, match=words):
            BoardTarget(name, patience=Patience(reply_s=0.1, quiet_s=0.05, attempts=2, total_s=1.0))
    assert time.monotonic() - start < 30.0  # a loaded machine is no hang


def test_a_port_that_takes_no_data_and_a_busy_one(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing is bounded as well; one program has a port at a time, and afterwards it is free."""
    monkeypatch.setattr(serial_port, "WRITE_TIMEOUT_S", 0.1)
    transport = SerialTransport(port)
    with pytest.raises(LinkError, match=r"is busy: another program holds it\. Close"):
        SerialTransport(port)
    with pytest.raises(LinkError, match=r"has taken no data for 0\.1 s"):
        for _ in range(100):
            transport.write(bytes(4096))
    transport.close()
    SerialTransport(port).close()


@pytest.mark.parametrize(("name", "words"), [
    ("/dev/ttyNONE", r"there is no port /dev/ttyNONE \(ports here: .*cable that carries data"), ("dance://floor", "cannot open "),
    (__file__, r"cannot open .*Expected a serial port such as"), ("socket://localhost:1", r"cannot open socket://localhost:1"),
    ("/dev/null", ""), ("/", ""), ("socket://", ""), ("socket://localhost:99999", ""), ("hwgrep://(", ""), ("ä", ""),
    ("rfc2217://localhost:1", ""),
])  # fmt: skip
def test_ports_that_do_not_open(name: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No such port, no serial port, a URL without meaning: each says what to do, and the verb says it on one line."""
    with pytest.raises(LinkError, match=words or None):
        SerialTransport(name)
    assert cli.main(["serial", "info", "--port", name]) == 3
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_port_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "COM3 is busy" in explain_open("COM3", OSError("could not open port 'COM3': PermissionError(13, 'Access is denied.')"))

    def forbidden(*arguments: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("serial.serialposix.os.open", forbidden)
    with pytest.raises(LinkError, match=r"no permission to open /dev/ttyACM0\..*usermod -aG dialout"):
        SerialTransport("/dev/ttyACM0")


def test_finding_the_board(plugged: Callable[..., None]) -> None:
    """One ST-Link is taken, none or several are named; other serial ports are left alone."""
    other, usb = ("/dev/ttyS0", None, None, None), ("/dev/ttyUSB0", None, 0x0403, 0x6001)
    plugged(other, ("/dev/ttyACM1", None), usb)
    assert find_port() == "/dev/ttyACM1"
    plugged(other)
    with pytest.raises(LinkError, match=r"found no board .*board:/dev/ttyACM0"):
        find_port()
    plugged(("/dev/ttyACM1", None), ("/dev/ttyACM0", None, 0x0483, 0x374E))
    with pytest.raises(LinkError, match=r"found 2 boards, expected one; choose by .* from /dev/ttyACM0, /dev/ttyACM1"):
        find_port()


def test_flash_a_served_board(
    board: ServedBoard, programs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The build goes through the control socket, and the board must answer with the new hash."""
    built = SimpleNamespace(elf=programs[OTHER_HASH])
    monkeypatch.setattr(flash_module, "build_firmware", lambda sources, board: built)
    monkeypatch.setattr(flash_module, "check_files", lambda *_: None)
    (tmp_path / "manifest.json").write_text(f'{{"model_hash": "{OTHER_HASH}"}}')
    report = flash(tmp_path, DISCO, str(board.port))
    assert (report.tool, report.model_hash, report.port) == ("served", OTHER_HASH, str(board.port))
    with pytest.raises(WrongModelError):
        flash(tmp_path, DISCO, str(board.port), MODEL_HASH)
    with pytest.raises(ValueError, match=r"served on .* is disco_f469ni, expected nucleo_f746zg"):
        flash(tmp_path, find_board("nucleo_f746zg"), str(board.port))


@pytest.mark.slow
def test_two_networks_on_a_served_simulator(tmp_path: Path) -> None:
    """The whole way: compile, build, serve, measure through pyserial to the bit, flash another network, measure that."""
    from tinyredux.device.served import serve_simulator

    chip = find_board("nucleo_l4r5zi")
    settings = [
        Settings(f"{user_nets.__file__}:{name}", board=chip.name, data="random", images=1, kernels="reference")
        for name in ("make", "other")
    ]
    compiled = [compile_net(one) for one in settings]
    simulated = serve_simulator(compiled[0].model.build().elf, chip)
    thread = threading.Thread(target=simulated.serve)
    thread.start()
    try:
        over_serial = [replace(one, target=f"board:{simulated.port}") for one in settings]
        record = measure_net(over_serial[0])
        assert record.bit_exact and record.cycles_kind == "modelled" and record.cycles
        with pytest.raises(WrongModelError, match="flash the model you mean"):
            measure_net(over_serial[1])
        assert flash(compiled[1].artifact.write(tmp_path / "second"), chip, str(simulated.port)).tool == "served"
        outside, inside = measure_net(over_serial[1]), measure_net(replace(settings[1], target="simulator"))
        assert outside.bit_exact and abs(inside.cycles - outside.cycles) < inside.cycles / 100  # caches differ a little
    finally:
        simulated.stop()
        thread.join(10.0)


FAILED = "raise SystemExit(1)"
UPLOADS = {  # a program in the place of the uploader, the error, its message
    f"print('Error: open failed'); {FAILED}": (LinkError, r"found no disco_f469ni to upload to.*\n.*open failed"),
    f"print('LIBUSB_ERROR_ACCESS'); {FAILED}": (LinkError, r"no permission to use the probe; install"),
    f"print('** Verify Failed **'); {FAILED}": (BuildError, r"could not upload to disco_f469ni:\n.*Verify Failed"),
    "print('Flashing', flush=True); import time; time.sleep(60)": (LinkError, r"stopped after 0.5 s.*\n.*Flashing"),
}


@pytest.mark.parametrize("script", UPLOADS)
def test_uploads_that_fail(script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, port: str) -> None:
    """No board, a compiler error, a stuck probe: bounded time and the tool's own words."""
    monkeypatch.setattr(upload, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(upload, "run_bounded", lambda command, timeout_s: run_bounded([sys.executable, "-c", script], timeout_s))
    monkeypatch.setattr(flash_module, "check_files", lambda *_: None)
    monkeypatch.setattr(flash_module, "build_firmware", lambda sources, board: SimpleNamespace(elf=Path("f.elf")))
    monkeypatch.setattr(upload, "find_openocd", lambda: ["openocd"])
    with pytest.raises(ValueError, match=r"manifest\.json does not exist; .*; write an Artifact there"):
        flash(tmp_path, DISCO, port)
    (tmp_path / "manifest.json").write_text(f'{{"model_hash": "{OTHER_HASH}"}}')
    error, message = UPLOADS[script]
    with pytest.raises(error, match=message):
        flash(tmp_path, DISCO, port)


def test_a_stopped_command_leaves_no_children(tmp_path: Path) -> None:
    """The time limit ends the tools that PlatformIO has started, too."""
    pid_file = tmp_path / "pid"
    command = ["sh", "-c", f"sleep 60 & echo $! > {pid_file}; wait"]
    status, _ = run_bounded(command, 0.3)
    assert status is None
    child = Path(f"/proc/{pid_file.read_text().strip()}/stat")
    deadline = time.monotonic() + 5  # the kernel ends a killed process when it next gets a turn
    while child.exists() and child.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not child.exists() or child.read_text().split()[2] == "Z"
