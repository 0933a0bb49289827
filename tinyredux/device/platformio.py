"""PlatformIO: a board's environment and its manifest, made from the board's data; the command that builds with them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from tinyredux.boards import Board
from tinyredux.files import ROOT, write_whole

OWN = "own"  # the environment and the manifest of a generated project


def environment(board: Board, files: str, name: str) -> str:
    """Returns a board's environment for platformio.ini. `files`: the folder with its memory.ld and board.h; `name`: its manifest.

    Raises ValueError for a board whose PlatformIO platform has not been tried.
    """
    if not board.family.startswith("stm32"):
        raise ValueError(f"{board.name} has no PlatformIO environment, for only ststm32 was tried; build without PlatformIO")
    return f"""[env:{name}]
extends = stm32
board = {name}
board_build.ldscript = {files}/memory.ld
build_src_filter = ${{sources.{board.family}}}
build_flags = ${{flags.common}} ${{{board.cpu}.flags}} "-I{files}"
"""


def manifest(board: Board) -> dict[str, Any]:
    """Returns a board in the form of PlatformIO's board files."""
    sizes = {"maximum_ram_size": board.sram_bytes, "maximum_size": board.flash_bytes}
    return {
        "name": board.title, "vendor": "ST", "url": "https://www.st.com", "frameworks": [],
        "build": {"cpu": board.cpu, "mcu": board.mcu, "f_cpu": f"{board.clock_hz}L"},
        "debug": {"openocd_target": f"{board.family}x"},
        "upload": sizes | {"protocol": "stlink", "protocols": ["stlink", "custom"]},
    }  # fmt: skip


def write_project(board: Board, workspace: Path) -> None:
    """Writes a project for any board beside the one of platformio.ini. `workspace` holds the board's memory.ld and board.h."""
    project = f"[platformio]\nextra_configs = {ROOT / 'platformio.ini'}\nboards_dir = {workspace}\n\n"
    write_whole(workspace / "project.ini", project + environment(board, str(workspace), OWN))
    write_whole(workspace / f"{OWN}.json", json.dumps(manifest(board), indent=2))


def run(workspace: Path, sources: Path) -> tuple[list[str], dict[str, str]]:
    """Returns the command by which PlatformIO builds the Artifact in `sources` by a workspace's project, and its environment.

    That is this process's, and the checkout's offline pieces where `make` prepared them.
    """
    variables = {**os.environ, "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "No", "PLATFORMIO_DISABLE_UPGRADE_CHECK": "true"}
    if (ROOT / ".pio-core" / "packages" / "tool-scons").is_dir():
        variables.setdefault("PLATFORMIO_CORE_DIR", str(ROOT / ".pio-core"))
    variables |= {"TINYREDUX_MODEL": str(sources.resolve()), "PLATFORMIO_WORKSPACE_DIR": str(workspace)}
    command = [sys.executable, "-m", "platformio", "run", "-d", str(ROOT), "-c", str(workspace / "project.ini"), "-e", OWN]
    return command, variables
