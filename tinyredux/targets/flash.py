"""Put a program on a board: by PlatformIO and the ST-Link, or by the control socket of one that `simulate --serve` serves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tinyredux.boards import Board
from tinyredux.build import ROOT, BuildError, MissingTool, build_firmware, default_build_folder, platformio_environment
from tinyredux.files import read_json
from tinyredux.link import LinkError, Patience
from tinyredux.targets.board import BoardTarget
from tinyredux.targets.served import control, served_facts

UPLOAD_TIMEOUT_S = 300.0
_SHOWN = 3000  # characters of PlatformIO's output in an error
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


def flash(
    sources: Path, board: Board, port: str | None = None, model_hash: str | None = None, timeout_s: float = UPLOAD_TIMEOUT_S
) -> FlashReport:
    """Returns what happened when the Artifact in the folder `sources` was built, put on a board, and answered on its port.

    `port`: None for the one ST-Link. `model_hash`: what the board must answer with (None: the manifest's). Takes at most
    `timeout_s` for build and upload and 20 s for the answer. Raises BuildError (with the tool's words), MissingTool, LinkError,
    WrongModelError.
    """
    start = time.monotonic()
    manifest = sources / "manifest.json"
    if model_hash is None:
        if not manifest.exists():
            raise ValueError(
                f"{sources} holds no manifest.json; write an Artifact there first: tinyredux compile NET --out {sources}"
            )
        model_hash = read_json(manifest, "manifest").get("model_hash")
        if not isinstance(model_hash, str) or not re.fullmatch("[0-9a-f]{16}", model_hash):
            raise ValueError(
                f"manifest {manifest}: model_hash is {model_hash!r}, expected 16 hexadecimal digits; write the Artifact again"
            )
    facts = served_facts(port) if port else None
    if facts is not None:
        if facts.board != board.name:
            raise ValueError(f"the board served on {port} is {facts.board}, expected {board.name}; choose --board {facts.board}")
        elf = build_firmware(sources, board).elf
        log = f"served board runs {control(facts, {'do': 'flash', 'elf': str(elf.resolve())})['elf']}"
    else:
        log = upload(sources, board, timeout_s)
    with BoardTarget(port, model_hash, patience=_BOOT) as target:
        tool = "platformio" if facts is None else "served"
        return FlashReport(board.name, tool, target.info.model_hash, target.port, time.monotonic() - start, log)


def upload(sources: Path, board: Board, timeout_s: float = UPLOAD_TIMEOUT_S) -> str:
    """Returns PlatformIO's output of building and uploading the Artifact in `sources`. Raises as `flash` does."""
    environment = {
        **platformio_environment(),
        "TINYREDUX_MODEL": str(sources.resolve()),
        "PLATFORMIO_WORKSPACE_DIR": str((default_build_folder() / board.name / "upload").resolve()),
    }
    command = [sys.executable, "-m", "platformio", "run", "-d", str(ROOT), "-e", board.pio_env, "-t", "upload"]
    status, output = run_bounded(command, environment, timeout_s)
    if status is None:
        raise LinkError(
            f"uploading to {board.name} was stopped after {timeout_s:g} s. Is the ST-Link stuck? Plug the board out and in.\n"
            f"{output[-_SHOWN:]}"
        )
    if status != 0:
        raise _explain(board, output)
    return output


def _explain(board: Board, output: str) -> RuntimeError:
    """Returns the error that the output of a failed upload means."""
    words, shown = output.lower(), output[-_SHOWN:]
    if "openocd is not installed" in words:
        return MissingTool("OpenOCD is not installed; run: sudo apt-get install --no-install-recommends openocd")
    if "libusb_error_access" in words:
        return LinkError(
            f"no permission to use the ST-Link; install PlatformIO's udev rules (99-platformio-udev.rules).\n{shown}"
        )
    if any(sign in words for sign in ("open failed", "no device found", "libusb_error_no_device", "unable to find a matching")):
        return LinkError(f"found no {board.name} to upload to: plug it in by its ST-Link connector.\n{shown}")
    return BuildError(f"PlatformIO could not build or upload {board.pio_env}:\n{shown}")


def run_bounded(command: list[str], environment: dict[str, str], timeout_s: float) -> tuple[int | None, str]:
    """Returns exit status and output of a command; status None when it was stopped, with its children, after `timeout_s`."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=timeout_s)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return None, output
    except BaseException:  # interrupted: leave no OpenOCD behind
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
