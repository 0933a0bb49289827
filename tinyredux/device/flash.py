"""Put a program on a board: by PlatformIO and the ST-Link, or by the control socket of one that `simulate --serve` serves."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tinyredux.boards import Board, board_names, find_board
from tinyredux.codegen import HASH_PLACEHOLDER, hash_of
from tinyredux.device.board import BoardTarget
from tinyredux.device.build import BuildError, MissingTool, build_firmware, default_build_folder, platformio_run
from tinyredux.device.link import LinkError, Patience
from tinyredux.device.serial_port import SerialTransport, find_port, find_probe
from tinyredux.device.served import control, served_facts
from tinyredux.files import ROOT, SETUP, home, read_json

UPLOAD_TIMEOUT_S = 300.0
GET_OPENOCD = "OpenOCD is not installed; run: sudo apt-get install --no-install-recommends openocd"
_SHOWN = 3000  # characters of PlatformIO's output in an error
_NO_PROBE = "open failed|no device found|libusb_error_no_device|unable to find a matching"
_MEANINGS: tuple[tuple[str, type[RuntimeError], str], ...] = (  # of the output of a failed upload, by a pattern in it
    ("openocd is not installed", MissingTool, GET_OPENOCD),
    ("libusb_error_access", LinkError, "no permission to use the ST-Link; install PlatformIO's 99-platformio-udev.rules."),
    (_NO_PROBE, LinkError, "found no {name} to upload to: plug it in by its ST-Link connector."),
    ("can't find target/", LinkError, "OpenOCD knows no target/{family}x.cfg: is 'mcu' in the board file of {name} right?"),
    ("", BuildError, "could not build or upload for {name}:"),
)
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

    `port`: None for the one ST-Link; the program goes to the ST-Link that owns the port. `model_hash`: what the board must answer
    with (None: the manifest's). Folder, port and uploader are looked at before anything is compiled. Takes at most five minutes
    for build and upload and 20 s for the answer. Raises ValueError, BuildError (with the tool's words), MissingTool, LinkError,
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
        tool = "platformio" if is_built_in(board) else "openocd"
        log = (upload if is_built_in(board) else upload_own)(sources, board, find_probe(port))
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
        if named and (sources / "fast.S").is_file() and named[1] in board_names():
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


def is_built_in(board: Board) -> bool:
    """Returns whether platformio.ini knows the board; a copy of ours with another memory map is a user's own."""
    return board.name in board_names() and board == find_board(board.name)


def upload(sources: Path, board: Board, probe: str | None = None) -> str:
    """Returns PlatformIO's output of building and uploading the Artifact in `sources`. Raises as `flash` does.

    `probe` is the serial number of the ST-Link to use; None for the only one.
    """
    if importlib.util.find_spec("platformio") is None:
        raise MissingTool(f"PlatformIO, which builds and uploads, is not installed here; run: {SETUP}")
    workspace = (default_build_folder() / board.name / f"upload{probe or ''}").resolve()
    command, environment = platformio_run(sources, board, workspace)
    if environment.get("PLATFORMIO_CORE_DIR") == str(ROOT / ".pio-core"):  # offline: nobody else brings an OpenOCD
        find_openocd()
    if probe:  # OpenOCD's words; PlatformIO puts them in front of its own
        environment["PLATFORMIO_UPLOAD_FLAGS"] = f"-c\nadapter serial {probe}"
    return _run_upload([*command, "-t", "upload"], board, environment)


def upload_own(sources: Path, board: Board, probe: str | None = None) -> str:
    """Returns OpenOCD's output of writing the Artifact, built by the plain compiler, to a board that is not in platformio.ini."""
    openocd = find_openocd()
    elf = build_firmware(sources, board).elf.resolve()
    choice = ["-c", f"adapter serial {probe}"] if probe else []
    files = ["-f", "interface/stlink.cfg", "-f", f"target/{board.family}x.cfg"]
    command = [*openocd, *choice, *files, "-c", f"program {{{elf}}} verify reset exit"]
    return _run_upload(command, board, dict(os.environ))


def find_openocd() -> list[str]:
    """Returns how OpenOCD is called: from PATH, or where PlatformIO keeps it. Raises MissingTool."""
    installed = shutil.which("openocd")
    if installed:
        return [installed]
    package = Path(os.environ.get("PLATFORMIO_CORE_DIR") or home() / ".platformio") / "packages" / "tool-openocd"
    program = shutil.which("openocd", path=str(package / "bin"))
    if program is None:
        raise MissingTool(GET_OPENOCD)
    return [program, "-s", str(package / "openocd" / "scripts")]


def _run_upload(command: list[str], board: Board, environment: dict[str, str]) -> str:
    """Returns the output of a command that uploads. Raises the error that the output of a failed one means."""
    status, output = run_bounded(command, environment, UPLOAD_TIMEOUT_S)
    if status == 0:
        return output
    if status is None:
        stuck = "Is the ST-Link stuck? Plug the board out and in."
        raise LinkError(f"uploading to {board.name} was stopped after {UPLOAD_TIMEOUT_S:g} s. {stuck}\n{output[-_SHOWN:]}")
    kind, said = next((kind, said) for signs, kind, said in _MEANINGS if re.search(signs, output.lower()))
    more = "" if kind is MissingTool else f"\n{output[-_SHOWN:]}"  # there the command to copy is the last line
    raise kind(said.format(name=board.name, family=board.family) + more)


def run_bounded(command: list[str], environment: dict[str, str], timeout_s: float) -> tuple[int | None, str]:
    """Returns exit status and output of a command; status None when it was stopped, with its children, after `timeout_s`."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except BaseException as stopped:  # also where it is interrupted: leave no OpenOCD behind
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        if not isinstance(stopped, subprocess.TimeoutExpired):
            raise
        return None, output
    return process.returncode, output
