"""Verbs about boards on a serial port: flash, serial, run."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinyredux.boards import find_board
from tinyredux.verbs.base import Answer, Verb
from tinyredux.verbs.network import _net_options, _settings

if TYPE_CHECKING:
    from tinyredux.flow import Settings
    from tinyredux.targets.flash import FlashReport


def _port_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", help="/dev/ttyACM0, COM3, socket://host:port, a served board's port (default: the one ST-Link)")


def _flash_options(parser: argparse.ArgumentParser) -> None:
    _net_options(parser)
    _port_option(parser)


def flash_net(settings: Settings, port: str | None = None) -> FlashReport:
    """Returns what happened when a network was compiled, built, put on the board on a port, and answered. Raises as `flash`."""
    from tinyredux.build import default_build_folder
    from tinyredux.flow import check_fit, compile_net
    from tinyredux.targets.flash import flash

    board = find_board(settings.board)
    compiled = compile_net(settings)
    check_fit(compiled, board)
    sources = compiled.artifact.write(default_build_folder() / "models" / compiled.artifact.model_hash)
    return flash(sources, board, port, compiled.artifact.model_hash)


def _flash(options: argparse.Namespace) -> Answer:
    report = flash_net(_settings(options), options.port)
    text = f"{report.board} on {report.port} answers with model {report.model_hash} ({report.tool}, {report.seconds:.1f} s)"
    return Answer({"schema": 1, "net": options.net} | asdict(report), text)


def _serial_options(parser: argparse.ArgumentParser) -> None:
    _port_option(parser)
    parser.add_argument("line", nargs="*", help="a request such as info, help or measure 5; without one, a terminal until Ctrl-D")


def _typed_line() -> str | None:
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def _serial(options: argparse.Namespace) -> Answer:
    from tinyredux.targets.board import ask_board, terminal

    if options.line:
        lines = ask_board(" ".join(options.line), options.port)
        return Answer({"schema": 1, "lines": list(lines)}, "\n".join(lines))
    heard: list[str] = []
    show = heard.append if options.json else lambda line: print(line, flush=True)
    terminal(options.port, _typed_line, show)
    return Answer({"schema": 1, "lines": heard}, "")


def _run_options(parser: argparse.ArgumentParser) -> None:
    _port_option(parser)
    parser.add_argument("file", type=Path, metavar="FILE", help="the int8 input: .npy, or raw bytes")
    parser.add_argument("--model-hash", metavar="HASH", help="refuse a board that carries another model")


def _run(options: argparse.Namespace) -> Answer:
    from tinyredux.targets.board import run_file

    result = run_file(options.file, options.port, options.model_hash)
    output = [int(value) for value in result.output.ravel()]
    data: dict[str, Any] = {"schema": 1, "output": output, "cycles": result.cycles, "cycles_kind": result.cycles_kind}
    data |= {"cycles_per_op": result.cycles_per_op, "stack_bytes": result.stack_bytes}
    cycles = "no cycle counter" if result.cycles is None else f"{result.cycles:,} cycles ({result.cycles_kind})"
    return Answer(data, f"output: {' '.join(map(str, output))}\n{cycles}, stack {result.stack_bytes} bytes")


VERBS = {
    "flash": Verb("build a network and put it on a board", "flash lenet --board nucleo_f746zg", _flash_options, _flash),
    "serial": Verb("talk to a board: one request, or a terminal", "serial measure 5", _serial_options, _serial),
    "run": Verb("send an input to a board and read the answer", "run image.npy", _run_options, _run),
}
