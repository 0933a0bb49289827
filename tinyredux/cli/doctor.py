"""What is installed: each tool, its version, what works without it, and the fix."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from tinyredux import datasets
from tinyredux.device import build
from tinyredux.device.serial_port import find_boards
from tinyredux.files import IS_CHECKOUT, how_to_install
from tinyredux.tables import columns

PATHS = ("host", "simulator", "board", "networks", "book")
_PATIENCE_S = 20.0  # a tool that says nothing for longer is as good as missing
FREE_BYTES_WANTED = 2 * 1024**3


def examine() -> dict[str, Any]:
    """Returns the report as one JSON object; `ok` says whether the host and the simulator path both work.

    A row of `tools` says which of the PATHS need it; its `version` is None where it is missing.
    """
    tools = _tools()
    paths = {path: all(tool["ok"] for tool in tools if path in tool["needed_by"]) for path in PATHS}
    return {"schema": 1, "ok": paths["host"] and paths["simulator"], "paths": paths, "tools": tools}


def to_text(report: dict[str, Any]) -> str:
    """Returns the report as a table for people; a missing tool is followed by what works without it and the fix."""
    rows = []
    for tool in report["tools"]:
        if tool["ok"]:
            rows.append(("ok", tool["name"], tool["version"]))
        else:
            rows += [("missing", tool["name"], f"without it: {tool['without']}"), ("", "", f"fix: {tool['fix']}")]
    works = ", ".join(path for path, works in report["paths"].items() if works) or "nothing"
    broken = ", ".join(path for path, works in report["paths"].items() if not works)
    return f"{columns(rows)}\n\nworks: {works}" + (f"; does not: {broken}" if broken else "")


def _tools() -> list[dict[str, Any]]:
    """Returns what was looked for, row by row: Python and its packages, programs, boards, data, room on the disk."""
    named, cache = os.environ.get("CC"), datasets.cache_folder()
    unset = f"CC names {named!r}, which compiles nothing: unset it, or " if named else ""
    data = datasets.cifar10_folder()
    return [
        _tool("python", f"{sys.version.split()[0]} ({sys.executable})", PATHS, "nothing", "make PYTHON=python3.11"),
        _package("torch", ("networks", "book"), "plan, build and run networks that were converted before", "torch"),
        _package("matplotlib", ("book",), "everything but figures", "lab"),
        _package("sphinx", ("book",), "the chapters as notebooks: make lab", "book"),
        _package("jupyterlab", ("book",), "everything but `make lab`", "lab"),
        *(_package(name, ("simulator",), "host and board", "") for name in ("unicorn", "capstone")),
        _package("pyserial", ("board",), "host and simulator", ""),
        _package("platformio", ("board",), "host and simulator: the plain compiler builds the same bytes", "lab"),
        _package("tflite", (), "everything but networks in .tflite files", "tflite"),
        _package("ai-edge-litert", (), "everything; only the comparison with LiteRT is left out", "tflite"),
        _package("onnx", (), "everything but networks in .onnx files", "onnx"),
        _package("onnxruntime", (), "everything; only the comparison with ONNX Runtime is left out", "onnx"),
        _tool("host compiler", _tried(lambda: _compiler(build.host_compiler(), "int x;")), ("host", "simulator"),
              "board", unset + _apt("gcc libc6-dev")),
        # Debian packs the C library of the Arm compiler apart
        _tool("Arm compiler", _tried(_compiler, build.CROSS_COMPILER, "#include <string.h>"),
              ("simulator", "board"), "host; `simulate` of ELF files built elsewhere",
              _apt("gcc-arm-none-eabi libnewlib-arm-none-eabi")),
        _program("qemu-system-arm", "everything; only the second opinion on instruction counts"),
        _program("openocd", "everything but writing to boards with an ST-Link"),
        _tool("board", ", ".join(found.port for found in find_boards()) or None, ("board",),
              "host and simulator", "plug a board in by the socket of its probe, with a cable that carries data"),
        _tool("CIFAR-10", str(data) if data else None, (), "everything, on the set `synthetic`", datasets.GET_CIFAR10),
        _tool("cache", _room(cache), (), "what needs no download",
              f"free 2 GiB for {cache}, or name another folder in TINYREDUX_CACHE"),
    ]  # fmt: skip


def _tool(name: str, version: str | None, needed_by: tuple[str, ...], without: str, fix: str) -> dict[str, Any]:
    needed = list(needed_by)
    return {"name": name, "version": version, "needed_by": needed, "without": without, "fix": fix, "ok": version is not None}


def _package(name: str, needed_by: tuple[str, ...], without: str, extra: str) -> dict[str, Any]:
    fix = how_to_install(extra) if extra else f"pip install {name}"
    return _tool(name, _tried(metadata.version, name), needed_by, without, f"make setup, or: {fix}" if IS_CHECKOUT else fix)


def _program(name: str, without: str) -> dict[str, Any]:
    return _tool(name, _tried(_first_words, [name, "--version"]), (), without, _apt(name))


def _first_words(command: list[str], given: str = "") -> str:
    """Returns the first line that a command says. Raises OSError, SubprocessError: not there, failed, no end."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, errors="replace", timeout=_PATIENCE_S, check=True)
    return ((done.stdout + done.stderr).strip().splitlines() or ["a version that it does not tell"])[0]


def _compiler(name: str, program: str) -> str:
    """Returns a compiler's version after it has compiled a program. Raises what building raises, SubprocessError."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.o"
        _first_words([name, "-x", "c", "-c", "-", "-o", str(made)], program + "\n")
        if not made.is_file():
            raise OSError(f"{name} compiles nothing")
    return build.compiler_version(name)


def _apt(packages: str) -> str:
    return f"sudo apt-get install --no-install-recommends {packages}"


def _tried(version: Callable[..., str], *given: Any) -> str | None:
    """Returns what says the version of a tool, None where it cannot."""
    try:
        return version(*given)
    except (build.MissingTool, ImportError, OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


def _room(folder: Path) -> str | None:
    """Returns a folder with what is free on its disk, None where nothing can be written or too little is free."""
    there = next(place for place in (folder, *folder.parents) if place.exists())  # it may still have to be made
    free = shutil.disk_usage(there).free
    usable = there.is_dir() and os.access(there, os.W_OK) and free >= FREE_BYTES_WANTED
    return f"{folder} ({free / 1024**3:.0f} GiB free)" if usable else None
