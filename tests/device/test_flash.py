"""Flashing: the right ST-Link, boards of a user's, what is looked at before the compiler starts, and wrong uses in words."""

from __future__ import annotations

import json
import os
import pty
import shutil
import tty
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tinyredux.boards import Board, find_board
from tinyredux.cli import app as cli
from tinyredux.device import MissingTool, serial_port
from tinyredux.device import board as board_module
from tinyredux.device import flash as flash_module
from tinyredux.device.flash import flash, is_built_in, read_model_hash
from tinyredux.device.link import BoardInfo, LinkError
from tinyredux.device.serial_port import find_probe
from tinyredux.device.served import served_facts

HASH = "0123456789abcdef"
INFO = BoardInfo(HASH, "n", "b", 1, 1, 48, 10, 1, 1)


@pytest.fixture
def port() -> Iterator[str]:
    """A port that opens, with nobody behind it."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    yield os.ttyname(slave)
    os.close(master)
    os.close(slave)


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Returns what plugs ST-Links in: (port, serial number)."""

    def plug(*boards: tuple[str, str | None]) -> None:
        infos = [SimpleNamespace(device=at, vid=0x0483, pid=0x374B, description="", serial_number=no) for at, no in boards]
        monkeypatch.setattr(serial_port.list_ports, "comports", lambda: infos)

    return plug


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a manifest, taken for whole."""
    monkeypatch.setattr(flash_module, "check_files", lambda *_: None)
    (tmp_path / "manifest.json").write_text(json.dumps({"model_hash": HASH}))
    return tmp_path


@pytest.fixture
def own_board(tmp_path: Path) -> Board:
    """A copy of the F469's file under another name, with another memory map and the old environment."""
    return replace(find_board("disco_f469ni"), name="mine", mcu="stm32f411ret6", clock_hz=100_000_000)


class Uploads:
    """Takes the place of run_bounded and of the board: remembers commands and environments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[list[str], dict[str, str]]] = []
        self.built: list[str] = []
        monkeypatch.setattr(flash_module, "run_bounded", self.run)
        monkeypatch.setattr(flash_module, "build_firmware", self.build)
        monkeypatch.setattr(flash_module, "find_openocd", lambda: ["openocd"])

    def run(self, command: list[str], environment: dict[str, str], timeout_s: float) -> tuple[int, str]:
        """Remembers."""
        self.calls.append((command, environment))
        return 1, "Error: open failed"

    def build(self, sources: Path, board: Board) -> SimpleNamespace:
        """Remembers."""
        self.built.append(board.name)
        return SimpleNamespace(elf=Path("firmware.elf"))


@pytest.mark.parametrize("own", [False, True])
def test_the_st_link_that_owns_the_port_is_written(
    own: bool, port: str, sources: Path, own_board: Board, plugged: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = Uploads(monkeypatch)
    plugged(("/dev/ttyACM7", "0669FF111"), (port, "0669FF222"))
    with pytest.raises(LinkError, match="found no"):
        flash(sources, own_board if own else find_board("disco_f469ni"), port)
    ((command, environment),) = uploads.calls
    if own:
        assert command[:3] == ["openocd", "-c", "adapter serial 0669FF222"] and "target/stm32f4x.cfg" in command
        assert uploads.built == ["mine"] and "platformio" not in command
    else:
        assert environment["PLATFORMIO_UPLOAD_FLAGS"] == "-c\nadapter serial 0669FF222" and "disco_f469ni" in command


def test_the_choice_of_an_st_link(plugged: Callable[..., None], tmp_path: Path) -> None:
    plugged(("/dev/ttyACM0", "A1"), ("/dev/ttyACM1", "B2"))
    (tmp_path / "by-id").symlink_to("/dev/ttyACM1")
    assert [find_probe(name) for name in ("/dev/ttyACM0", "/dev/ttyACM1", str(tmp_path / "by-id"))] == ["A1", "B2", "B2"]
    with pytest.raises(LinkError, match=r"2 ST-Links are plugged in, and /dev/ttyUSB0 is none of theirs \(/dev/ttyACM0, /dev"):
        find_probe("/dev/ttyUSB0")
    plugged(("/dev/ttyACM0", None), ("/dev/ttyACM1", "B2"))
    with pytest.raises(LinkError, match=r"/dev/ttyACM0 has no readable serial number.*unplug the others"):
        find_probe("/dev/ttyACM0")
    plugged(("/dev/ttyACM0", 'x"; rm'))
    assert find_probe("/dev/ttyACM0") is None and find_probe("/dev/ttyUSB0") is None


def test_a_copy_of_our_board_file_is_the_users_own(own_board: Board) -> None:
    disco = find_board("disco_f469ni")
    assert is_built_in(disco) and not is_built_in(own_board) and not is_built_in(replace(disco, sram=disco.sram[:1]))


def test_nothing_is_compiled_before_port_and_uploader_are_there(
    port: str, sources: Path, own_board: Board, plugged: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(flash_module, "build_firmware", lambda sources, board: compiled.append("plainly"))
    monkeypatch.setattr(flash_module, "run_bounded", lambda *arguments: compiled.append("platformio"))
    monkeypatch.setattr(flash_module.shutil, "which", lambda name, path=None: None)
    disco = find_board("disco_f469ni")
    plugged()
    for board in (disco, own_board):
        with pytest.raises(LinkError, match="found no board"):
            flash(sources, board)
        with pytest.raises(LinkError, match="there is no port /dev/ttyNONE"):
            flash(sources, board, "/dev/ttyNONE")
        with pytest.raises(LinkError, match="empty name"):
            flash(sources, board, "")
        busy = serial_port.SerialTransport(port)
        with pytest.raises(LinkError, match="is busy"):
            flash(sources, board, port)
        busy.close()
    with pytest.raises(MissingTool, match="OpenOCD is not installed; run: sudo apt-get"):
        flash(sources, own_board, port)
    monkeypatch.setattr(flash_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingTool, match=r"PlatformIO.* is not installed here; run: make setup"):
        flash(sources, disco, port)
    assert not compiled


MANIFESTS: dict[bytes | None, str] = {
    b"": "the file is empty", b"{": "is no JSON", b"\xff\xfe": "is no text in UTF-8", b"[" * 100_000: "nested too deeply",
    b"[1]": "expected an object", b"{}": "model_hash is None", b'{"model_hash": 7}': "model_hash is 7",
    b'{"model_hash": "XYZ"}': "model_hash is 'XYZ'", None: "manifest.json does not exist",
}  # fmt: skip


@pytest.mark.parametrize("content", MANIFESTS, ids=lambda content: str(content)[:9])
def test_damaged_artifacts(content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    assert cli.main(["flash", str(tmp_path), "--port", "/dev/ttyNONE"]) == 2
    said = capsys.readouterr().err
    assert MANIFESTS[content] in said and "tinyredux compile NET --board disco_f469ni --out" in said


def test_an_artifact_for_another_core(tmp_path: Path, port: str) -> None:
    call = "compile lenet --method exact --data random --kernels fast --board disco_f469ni"
    (tmp_path / "manifest.json").write_text(json.dumps({"model_hash": HASH, "call": call}))
    (tmp_path / "fast.S").write_text("")
    with pytest.raises(ValueError, match=r"compiled for disco_f469ni \(cortex-m4\), the board is nucleo_f746zg \(cortex-m7\)"):
        flash(tmp_path, find_board("nucleo_f746zg"), port)


@pytest.mark.parametrize("name", ["weights.bin", "model.c", "model.h", "weights.S"])
def test_files_that_are_not_the_manifests(name: str, tmp_path: Path, port: str) -> None:
    """Weights that were cut would be flashed, and the board would answer with the hash of the whole."""
    golden = Path(__file__).parents[1] / "golden" / "three_layers"
    folder = Path(shutil.copytree(golden, tmp_path / "copy"))
    board = find_board("disco_f469ni")
    assert read_model_hash(folder, board) == json.loads((folder / "manifest.json").read_text())["model_hash"]
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"holds other files than its manifest says.*tinyredux compile"):
        flash(folder, board, port)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"holds no {name}; write an Artifact there"):
        flash(folder, board, port)


def test_wrong_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for name, words in (("file", "is a file, expected a folder"), ("gone", "does not exist, expected a folder")):
        assert cli.main(["flash", str(tmp_path / name)]) == 2
        assert words in capsys.readouterr().err


def write_inputs(folder: Path) -> dict[str, Path]:
    """Writes input files of all kinds; the model takes 48 values."""
    arrays = {
        "one": np.zeros((4, 4, 3), np.int8), "flat": np.zeros(48, np.int8),
        "batch": np.arange(96, dtype=np.int8).reshape(2, 4, 4, 3),
        "float": np.zeros((4, 4, 3)), "wide": np.zeros((8, 4, 3), np.int8), "square": np.zeros((6, 8), np.int8),
        "odd": np.zeros((3, 4, 4, 2), np.int8), "uint8": np.zeros((4, 4, 3), np.uint8), "objects": np.array([{}], object),
        "text": np.array(["a"]), "none": np.zeros(0, np.int8), "scalar": np.int8(1),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    head = b"{'descr': '|i1', 'fortran_order': False, 'shape': (999999999999999,), }"
    raw = {
        "huge.npy": b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head, "cut.npy": b"\x93NUMPY", "empty.npy": b"",
        "noise.npy": b"no array", "empty.bin": b"", "short.bin": bytes(47), "four.bin": bytes(192), "odd.bin": bytes(49),
    }  # fmt: skip
    for file, content in raw.items():
        (folder / file).write_bytes(content)
    np.savez(folder / "pair.npz", a=arrays["one"])
    (folder / "pair.npz").rename(folder / "zip.npy")
    (folder / "folder.npy").mkdir()
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "index", "words"),
    [
        ("float.npy", 0, "float64 with 48 values, expected int8"), ("uint8.npy", 0, "uint8 with 48 values, expected int8"),
        ("wide.npy", 0, "96 int8 values of shape (8, 4, 3), expected 48"), ("square.npy", 0, "shape (6, 8), expected (height"),
        ("odd.npy", 0, "shape (3, 4, 4, 2), expected 48"), ("objects.npy", 0, "is not a NumPy array file"),
        ("text.npy", 0, "<U1 with 1 values, expected int8"), ("none.npy", 0, "0 int8 values of shape (0,)"),
        ("scalar.npy", 0, "shape (), expected (height"), ("huge.npy", 0, "is not a NumPy array file"),
        ("cut.npy", 0, "is not a NumPy array file"), ("empty.npy", 0, "is not a NumPy array file"),
        ("noise.npy", 0, "is not a NumPy array file"),
        ("zip.npy", 0, "is not a NumPy array file"), ("folder.npy", 0, "is a folder"), ("empty.bin", 0, "0 int8 values"),
        ("short.bin", 0, "47 int8 values"), ("odd.bin", 0, "49 int8 values"), ("four.bin", 4, "holds 4: 0 to 3"),
        ("four.bin", -1, "input -1 was asked for"), ("one.npy", 1, "holds 1: 0 to 0"), ("gone.bin", 0, "does not exist"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit(name: str, index: int, words: str, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    with pytest.raises(ValueError) as wrong:
        board_module.choose_input(board_module.read_inputs(tmp_path / name), INFO, tmp_path / name, index)
    assert (words in str(wrong.value) and str(tmp_path / name) in str(wrong.value)) or index == -1


def test_inputs_that_fit(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    for name, index, first in (("one.npy", 0, 0), ("flat.npy", 0, 0), ("batch.npy", 1, 48), ("four.bin", 3, 0)):
        chosen = board_module.choose_input(board_module.read_inputs(tmp_path / name), INFO, tmp_path / name, index)
        assert chosen.shape == (48,) and chosen.dtype == np.int8 and chosen[0] == first


def test_the_input_is_looked_at_before_the_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", str(tmp_path), "--port", "/dev/ttyNONE"]) == 2
    assert "is a folder; expected a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    ["/dev/null", "/", "nowhere://", "socket://", "socket://localhost:99999", "hwgrep://(", "rfc2217://localhost:1", "ä"],
)
def test_ports_without_meaning(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serial", "info", "--port", name]) == 3
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("spoil", ["none", "open", "other", "damaged", "list"])
def test_a_served_folder_is_believed_only_when_private(
    spoil: str, tmp_path: Path, port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user could put a folder there whose socket takes programs, or whose port is somebody's real board."""
    import socket

    home = tmp_path / "tinyredux-board-x"
    home.mkdir(0o700)
    (home / "port").symlink_to(port)
    about = {"board": "disco_f469ni", "cycles_kind": "modelled", "timing_model": "t"}
    (home / "about.json").write_text({"damaged": "{", "list": "[]"}.get(spoil, json.dumps(about)))
    monkeypatch.setattr(flash_module, "control", lambda *_: pytest.fail("a program was sent"))
    monkeypatch.chdir(home)  # the name of a socket may have 107 characters
    with socket.socket(socket.AF_UNIX) as line:
        line.bind("control")
        line.listen()
        real = os.lstat(home).st_uid
        if spoil == "open":
            home.chmod(0o777)
        if spoil == "other":
            monkeypatch.setattr("tinyredux.device.served.os.getuid", lambda: real + 1)
        monkeypatch.setattr("tinyredux.device.served.tempfile.gettempdir", lambda: str(tmp_path))
        if spoil in ("open", "other"):
            with pytest.raises(LinkError, match="is not private to this user"):
                served_facts("port")
            assert served_facts(port) is None  # found, but not believed
        else:
            assert (served_facts(port) is not None) == (spoil == "none")
