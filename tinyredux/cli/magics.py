"""`%load_ext tinyredux`: %%firmware, %measure, %flash, %serial and %doctor, each a thin face of one public function.

| magic       | function               |
| ----------- | ---------------------- |
| %%firmware  | cell.run_cell          |
| %measure    | verbs.network.measured |
| %flash      | magics.flash_net       |
| %serial     | targets.board.ask_board|
| %doctor     | doctor.examine         |

What goes wrong is shown in a sentence and never ends the kernel or the run of a notebook.
"""

from __future__ import annotations

import argparse
import functools
import html
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tinyredux.device import BuildError, MissingTool, default_build_folder
from tinyredux.device.link import LinkError
from tinyredux.measurement import Measurement
from tinyredux.notebook.cell import MIME, NARROW, CellResult, namespace_array, run_cell
from tinyredux.tables import as_html, columns

EXPECTED = (BuildError, MissingTool, LinkError, ValueError, OSError, ImportError)


@dataclass(frozen=True)
class Trouble:
    """What went wrong in a magic, in words."""

    text: str

    def __repr__(self) -> str:
        """Returns the words."""
        return self.text

    def _repr_html_(self) -> str:
        return f"<pre style='border-left:3px solid #D55E00;padding-left:8px;white-space:pre-wrap'>{html.escape(self.text)}</pre>"


@dataclass(frozen=True)
class Table:
    """Rows (what, how much), shown as a table, as text and as JSON; `data` is what a program reads."""

    rows: list[tuple[str, str]]
    data: dict[str, Any]

    def __repr__(self) -> str:
        """Returns the table as text."""
        return columns(self.rows)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/plain": repr(self), "text/html": as_html(self.rows, style=NARROW), MIME: self.data}


@dataclass(frozen=True)
class Lines:
    """Lines of text, shown as they are; `data` is what a program reads."""

    lines: tuple[str, ...]
    data: dict[str, Any]

    def __repr__(self) -> str:
        """Returns the lines."""
        return "\n".join(self.lines)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/plain": repr(self), "text/html": f"<pre>{html.escape(repr(self))}</pre>", MIME: self.data}


class _Arguments(argparse.ArgumentParser):
    """An argument parser that raises instead of leaving the program."""

    def error(self, message: str) -> NoReturn:
        """Raises ValueError with the message and the usage."""
        raise ValueError(f"{self.prog}: {message}\n{self.format_usage().strip()}")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Raises ValueError; argparse comes here after printing the help."""
        raise ValueError(message or f"{self.prog}: nothing done")


def register(shell: Any) -> None:
    """Adds the magics to an IPython shell."""

    def firmware_cell(line: str, cell: str) -> Any:
        return firmware(line, cell, shell.user_ns)

    magics: list[tuple[str, str, Callable[..., Any], argparse.ArgumentParser]] = [
        ("firmware", "cell", firmware_cell, _firmware_arguments()),
        ("measure", "line", measure, _measure_arguments()),
        ("flash", "line", flash, _flash_arguments()),
        ("serial", "line", serial, _serial_arguments()),
        ("doctor", "line", doctor, _doctor_arguments()),
    ]
    for name, kind, function, arguments in magics:
        shell.register_magic_function(_told(function, arguments.format_help()), kind, name)


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as wrong:
        raise ValueError(f"{line}: {wrong}; close each quote, and write \\\\ for a backslash") from None


def _told(function: Callable[..., Any], text: str) -> Callable[..., Any]:
    """Returns the function with its help as docstring, and expected errors as Trouble."""

    @functools.wraps(function)
    def told(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except EXPECTED as error:
            return Trouble(str(error))

    told.__doc__ = text
    return told


def firmware(line: str, cell: str, namespace: dict[str, Any]) -> CellResult:
    """`%%firmware [--target T] [--board B] [--input NAME] [--out NAME]`: returns the result of run_cell on the cell's C."""
    options = _firmware_arguments().parse_args(_words(line))
    given = namespace_array(options.input, namespace) if options.input else None
    result = run_cell(cell, options.target, options.board, given)
    if options.out:
        namespace[options.out] = result
    return result


def measure(line: str) -> Measurement:
    """`%measure NET ...`: returns the measurement, with the arguments of the verb `measure`."""
    from tinyredux.cli.verbs.network import measured

    options = _measure_arguments().parse_args(_words(line))
    record = measured(options)
    if options.out:
        record.save(options.out / record.file_name())
    return record


def flash(line: str) -> Table:
    """`%flash NET [--board B] [--port P] [--data D]`, or a folder in place of NET: returns what flash_net reports."""
    options = _flash_arguments().parse_args(_words(line))
    return flash_net(options.net, options.board, options.port, options.data)


def flash_net(net: str, board: str, port: str | None = None, data: str | None = None) -> Table:
    """Compiles a network, puts it on the board at a port (None: the one ST-Link), and returns what answered there.

    A folder that `compile --out` wrote goes there as it is.
    """
    from tinyredux.boards import find_board
    from tinyredux.device.flash import flash as flash_files
    from tinyredux.settings import Settings, compile_net

    if (Path(net) / "manifest.json").is_file():
        report = flash_files(Path(net), find_board(board), port)
    else:
        artifact = compile_net(Settings(net, board=board, data=data)).artifact
        folder = artifact.write(default_build_folder() / "models" / artifact.model_hash)
        report = flash_files(folder, find_board(board), port, artifact.model_hash)
    rows = [("board", report.board), ("written by", report.tool), ("answers as model", report.model_hash)]
    return Table(rows, {"schema": 1, "board": report.board, "tool": report.tool, "model_hash": report.model_hash})


def serial(line: str) -> Lines:
    """`%serial [--port P] LINE`: returns the lines with which the board answers one line (info, help, measure 5)."""
    from tinyredux.device.board import ask_board

    options = _serial_arguments().parse_args(_words(line))
    words = " ".join(options.words) or "info"
    answer = ask_board(words, options.port)
    return Lines(tuple(answer), {"schema": 1, "sent": words, "answer": list(answer)})


def doctor(line: str) -> Lines:
    """`%doctor`: returns each tool, its version and the fix where it is missing."""
    from tinyredux.cli.doctor import examine, to_text

    _doctor_arguments().parse_args(_words(line))
    report = examine()
    return Lines(tuple(to_text(report).splitlines()), report)


def _firmware_arguments() -> argparse.ArgumentParser:
    parser = _Arguments(prog="%%firmware", description="Compile this cell of C into the runtime, run it, show what it printed.")
    parser.add_argument("--target", default="simulator", help="host, simulator (default) or board[:PORT]")
    parser.add_argument("--board", default="disco_f469ni", help="which board (default: disco_f469ni)")
    parser.add_argument("--input", metavar="NAME", help="an int8, int16 or int32 array of the notebook, at cell_input in C")
    parser.add_argument("--out", metavar="NAME", help="keep the result in this variable of the notebook")
    return parser


def _measure_arguments() -> argparse.ArgumentParser:
    from tinyredux.cli.verbs import VERBS

    parser = _Arguments(prog="%measure", description="Compile, build and run a network on a target, and report.")
    VERBS["measure"].options(parser)
    return parser


def _flash_arguments() -> argparse.ArgumentParser:
    parser = _Arguments(prog="%flash", description="Compile a network and put it on a board.")
    parser.add_argument("net", metavar="NET", help="a built-in name, path/to/file.py:factory, or what `compile --out DIR` wrote")
    parser.add_argument("--board", default="disco_f469ni", help="which board (default: disco_f469ni)")
    parser.add_argument("--port", help="serial port of the board (default: the one ST-Link)")
    parser.add_argument("--data", help="cifar10, synthetic, random or FILE.npz")
    return parser


def _serial_arguments() -> argparse.ArgumentParser:
    parser = _Arguments(prog="%serial", description="Send one line to a board and show the answer.")
    parser.add_argument("--port", help="serial port of the board (default: the one ST-Link)")
    parser.add_argument("words", nargs="*", metavar="LINE", help="info (default), help, measure 5, ...")
    return parser


def _doctor_arguments() -> argparse.ArgumentParser:
    return _Arguments(prog="%doctor", description="Each tool, its version, and the fix where it is missing.")
