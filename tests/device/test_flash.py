"""Flashing: the right ST-Link, boards of a user's, what is looked at before the compiler starts, and wrong uses in words."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tinyredux.boards import Board, find_board
from tinyredux.cli import app as cli
from tinyredux.device import MissingTool, serial_port, upload
from tinyredux.device import board as board_module
from tinyredux.device import flash as flash_module
from tinyredux.device.flash import flash, read_model_hash
from tinyredux.device.link import BoardInfo, LinkError
from tinyredux.device.serial_port import find_probe
from tinyredux.device.served import served_facts

HASH = "0123456789abcdef"
INFO = BoardInfo(HASH, "n", "b", 1, 1, 48, 10, 1, 1)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a manifest, taken for whole."""
    monkeypatch.setattr(flash_module, "check_files", lambda *_: None)
    (tmp_path / "manifest.json").write_text(json.dumps({"model_hash": HASH}))
    return tmp_path


DISCO = find_board("disco_f469ni")
MINE = replace(DISCO, name="mine", mcu="stm32f411ret6", clock_hz=100_000_000)  # a user's own, with the old environment


@pytest.mark.parametrize("board", [DISCO, MINE], ids=["built in", "own"])
def test_the_st_link_that_owns_the_port_is_written(
    board: Board, port: str, sources: Path, plugged: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, built = list[list[str]](), list[str]()
    monkeypatch.setattr(upload, "run_bounded", lambda command, timeout_s: calls.append(command) or (1, "Error: open failed"))
    monkeypatch.setattr(
        flash_module, "build_firmware", lambda sources, board: built.append(board.name) or SimpleNamespace(elf=Path("f.elf"))
    )
    monkeypatch.setattr(upload, "find_openocd", lambda: ["openocd"])
    plugged(("/dev/ttyACM7", "0669FF111"), (port, "0669FF222"))
    with pytest.raises(LinkError, match="found no"):
        flash(sources, board, port)
    (command,) = calls
    assert command[:3] == ["openocd", "-c", "adapter serial 0669FF222"] and "target/stm32f4x.cfg" in command
    assert built == [board.name]


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


def test_nothing_is_compiled_before_port_and_uploader_are_there(
    port: str, sources: Path, plugged: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(flash_module, "build_firmware", lambda sources, board: compiled.append("plainly"))
    monkeypatch.setattr(upload.shutil, "which", lambda name, path=None: None)
    plugged()
    for board in (DISCO, MINE):
        for name, words in ((None, "found no board"), ("/dev/ttyNONE", "there is no port /dev/ttyNONE"), ("", "empty name")):
            with pytest.raises(LinkError, match=words):
                flash(sources, board, name)
        busy = serial_port.SerialTransport(port)
        with pytest.raises(LinkError, match="is busy"):
            flash(sources, board, port)
        busy.close()
        with pytest.raises(MissingTool, match="OpenOCD is not installed; run: sudo apt-get"):
            flash(sources, board, port)
    assert not compiled


MANIFESTS: dict[bytes | None, str] = {  # other JSON that is none: tests/laws/test_wrong_files.py
    b"{": "is no JSON", b"{}": "model_hash is None", b'{"model_hash": 7}': "model_hash is 7",
    b'{"model_hash": "XYZ"}': "model_hash is 'XYZ'", None: "manifest.json does not exist",
}  # fmt: skip


@pytest.mark.parametrize("content", MANIFESTS, ids=lambda content: str(content)[:9])
def test_damaged_artifacts(content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    assert cli.main(["flash", str(tmp_path), "--port", "/dev/ttyNONE"]) == 2
    said = capsys.readouterr().err
    (tmp_path / "file").write_text("")
    for name, words in (("file", "is a file, expected a folder"), ("gone", "does not exist, expected a folder")):
        assert cli.main(["flash", str(tmp_path / name)]) == 2 and words in capsys.readouterr().err
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
    assert read_model_hash(folder, DISCO) == json.loads((folder / "manifest.json").read_text())["model_hash"]
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"holds other files than its manifest says.*tinyredux compile"):
        flash(folder, DISCO, port)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"holds no {name}; write an Artifact there"):
        flash(folder, DISCO, port)


BATCH = np.arange(96, dtype=np.int8).reshape(2, 4, 4, 3)
HEAD = b"{'descr': '|i1', 'fortran_order': False, 'shape': (999999999999999,), }"
NO_ARRAY = "is not a NumPy array file"
# The model takes 48 values: a file's content, which of its inputs is asked for, what is said; "" is fine
INPUTS: dict[str, tuple[object, int, str]] = {
    "float.npy": (np.zeros((4, 4, 3)), 0, "float64 with 48 values, expected int8"), "zip.npy": (b"PK\3\4", 0, NO_ARRAY),
    "uint8.npy": (np.zeros((4, 4, 3), np.uint8), 0, "uint8 with 48 values, expected int8"), "folder.npy": ("", 0, "is a folder"),
    "wide.npy": (np.zeros((8, 4, 3), np.int8), 0, "96 int8 values of shape (8, 4, 3), expected 48"),
    "cut.npy": (b"\x93", 0, NO_ARRAY), "square.npy": (np.zeros((6, 8), np.int8), 0, "shape (6, 8), expected (height"),
    "empty.npy": (b"", 0, NO_ARRAY), "odd.npy": (np.zeros((3, 4, 4, 2), np.int8), 0, "shape (3, 4, 4, 2), expected 48"),
    "noise.npy": (b"no array", 0, NO_ARRAY), "objects.npy": (np.array([{}], object), 0, NO_ARRAY),
    "text.npy": (np.array(["a"]), 0, "<U1 with 1 values, expected int8"),
    "none.npy": (np.zeros(0, np.int8), 0, "0 int8 values of shape (0,)"),
    "scalar.npy": (np.int8(1), 0, "shape (), expected (height"),
    "huge.npy": (b"\x93NUMPY\x01\x00" + len(HEAD).to_bytes(2, "little") + HEAD, 0, NO_ARRAY),
    "empty.bin": (b"", 0, "0 int8 values"), "short.bin": (bytes(47), 0, "47 int8 values"),
    "long.bin": (bytes(49), 0, "49 int8 values"), "gone.bin": (None, 0, "does not exist"),
    "four.bin": (bytes(192), 4, "holds 4: 0 to 3"), "before.bin": (bytes(192), -1, "input -1 was asked for, "),
    "one.npy": (BATCH[0], 1, "holds 1: 0 to 0"), "first.npy": (BATCH[0], 0, ""),
    "flat.npy": (np.arange(48, dtype=np.int8), 0, ""), "batch.npy": (BATCH, 1, ""), "last.bin": (BATCH.tobytes() * 2, 3, ""),
}  # fmt: skip


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name: str, tmp_path: Path) -> None:
    content, index, words = INPUTS[name]
    path = tmp_path / name
    if isinstance(content, str):
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(ValueError, match=re.escape(words)) if words else nullcontext() as wrong:
        chosen = board_module.choose_input(board_module.read_inputs(path), INFO, path, index)
        assert chosen.dtype == np.int8 and np.array_equal(chosen, np.arange(48) + 48 * (index > 0))
    assert not words or str(path) in str(wrong.value)


def test_the_input_is_looked_at_before_the_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", str(tmp_path), "--port", "/dev/ttyNONE"]) == 2
    assert "is a folder; expected a file" in capsys.readouterr().err


@pytest.mark.parametrize("spoil", ["none", "open", "other", "damaged", "list"])
def test_a_served_folder_is_believed_only_when_private(
    spoil: str, tmp_path: Path, port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user could put a folder there whose socket takes programs, or whose port is somebody's real board."""
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
