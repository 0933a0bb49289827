"""Put a program on a board: through its probe or bootloader, or by the control socket of one that `simulate --serve` serves."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from tinyredux.boards import Board, board_names, find_board
from tinyredux.codegen import HASH_PLACEHOLDER, hash_of
from tinyredux.device.board import BoardTarget
from tinyredux.device.build import build_firmware
from tinyredux.device.link import Patience
from tinyredux.device.serial_port import SerialTransport, find_port
from tinyredux.device.served import control, served_facts
from tinyredux.device.upload import run_upload, uploader
from tinyredux.files import read_json

_BOOT = Patience(reply_s=1.0, attempts=8, total_s=20.0)


@dataclass(frozen=True)
class FlashReport:
    """A program that was put on a board and answered: by which tool, in how many seconds, with what output."""

    board: str
    tool: str
    model_hash: str
    port: str
    seconds: float
    log: str


def flash(sources: Path, board: Board, port: str | None = None, model_hash: str | None = None) -> FlashReport:
    """Returns what happened when the Artifact in the folder `sources` was built, put on a board, and answered on its port.

    `port`: None for the one probe; the program goes to the probe that owns the port. `model_hash`: what the board must answer
    with (None: the manifest's). Folder, port and uploader are looked at before anything is compiled. Takes at most five minutes
    for the upload and 20 s for the answer. Raises ValueError, BuildError (with the tool's words), MissingTool, LinkError,
    WrongModelError.
    """
    start = time.monotonic()
    model_hash = model_hash or read_model_hash(sources, board)
    port = find_port(port)
    facts = served_facts(port)
    if facts is not None:
        if facts.board != board.name:
            raise ValueError(f"the board served on {port} is {facts.board}, expected {board.name}; choose --board {facts.board}")
        elf, tool = build_firmware(sources, board).elf, "served"
        log = f"served board runs {control(facts, {'elf': str(elf.resolve())})['elf']}"
    else:
        SerialTransport(port).close()  # there, free and permitted
        command = uploader(board, port)(build_firmware(sources, board).elf.resolve())
        tool, log = Path(command[0]).name, run_upload(command, board)
    expected = None if facts else board  # a program on the wrong board is noticed
    with BoardTarget(port, model_hash, patience=_BOOT, board=expected) as target:
        return FlashReport(board.name, tool, target.info.model_hash, target.port, time.monotonic() - start, log)


def read_model_hash(sources: Path, board: Board) -> str:
    """Returns the hash in the manifest of an Artifact. Raises ValueError: no Artifact, a damaged one, one for another core."""
    try:
        if not sources.is_dir():
            raise ValueError(f"{sources} {'is a file' if sources.exists() else 'does not exist'}, expected a folder")
        manifest = sources / "manifest.json"
        fields = read_json(manifest, "manifest")
        model_hash = fields.get("model_hash")
        if not isinstance(model_hash, str) or not re.fullmatch(r"[0-9a-f]+", model_hash):
            raise ValueError(f"manifest {manifest}: model_hash is {model_hash!r}, expected hexadecimal digits")
        named = re.search(r"--board (\w+)", str(fields.get("call")))
        if named and (sources / "fast.S").is_file() and named[1] in board_names(every=True):
            other = find_board(named[1])
            if other.cpu != board.cpu:
                found = f"{sources} was compiled for {other.name} ({other.cpu})"
                raise ValueError(f"{found}, the board is {board.name} ({board.cpu})")
        check_files(sources, model_hash)
    except ValueError as wrong:
        again = f"write an Artifact there: tinyredux compile NET --board {board.name} --out {sources}"
        raise ValueError(f"{wrong}; {again}") from None
    return model_hash


def check_files(sources: Path, model_hash: str) -> None:
    """Raises ValueError where the files of an Artifact are not its manifest's: a board would answer for another."""
    for name in ("model.c", "model.h", "weights.S", "weights.bin"):
        if not (sources / name).is_file():
            raise ValueError(f"{sources} holds no {name}")
    found = [path for path in sources.iterdir() if path.suffix in (".c", ".h", ".S")]
    files = {path.name: path.read_bytes().decode(errors="replace").replace(model_hash, HASH_PLACEHOLDER) for path in found}
    real = hash_of((sources / "weights.bin").read_bytes(), files)
    if real != model_hash:
        raise ValueError(f"{sources} holds other files than its manifest says (hash {real}, expected {model_hash})")
