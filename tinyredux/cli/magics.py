"""`%load_ext tinyredux`: %%firmware, %measure, %flash, %serial and %doctor, each a thin face of one public function.

A magic takes what the verb of its name takes. What goes wrong is shown in a sentence and never ends the kernel or the run of a
notebook.
"""

from __future__ import annotations

import argparse
import html
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinyredux.cli.app import Parser
from tinyredux.cli.verbs import VERBS
from tinyredux.cli.verbs.base import BOARD, PORT, Answer, option, verb
from tinyredux.cli.verbs.network import measured
from tinyredux.device import BuildError, MissingTool, default_build_folder
from tinyredux.device.link import LinkError
from tinyredux.measurement import Measurement
from tinyredux.notebook.cell import MIME, NARROW, CellResult, namespace_array, run_cell
from tinyredux.tables import as_html, columns

EXPECTED = (argparse.ArgumentError, BuildError, MissingTool, LinkError, ValueError, OSError, ImportError)


@dataclass(frozen=True)
class Trouble:
    """What went wrong in a magic, in words."""

    text: str

    def __repr__(self) -> str:
        """Returns the words."""
        return self.text

    def _repr_html_(self) -> str:
        return f"<pre style='border-left:3px solid #D55E00;padding-left:8px;white-space:pre-wrap'>{html.escape(self.text)}</pre>"


@dataclass(frozen=True, repr=False)
class Shown(Answer):
    """An answer that a notebook shows as text, as HTML and as JSON."""

    table: str = ""

    def __repr__(self) -> str:
        """Returns the text."""
        return self.text

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/plain": self.text, "text/html": self.table or f"<pre>{html.escape(self.text)}</pre>", MIME: self.data}


@verb(
    "compile this cell of C into the runtime, run it, show what it printed", "%%firmware --target host",
    option("--target", default="simulator", help="host, simulator (default) or board[:PORT]"),
    BOARD,
    option("--input", metavar="NAME", help="an int8, int16 or int32 array of the notebook, at cell_input in C"),
    option("--out", metavar="NAME", help="keep the result in this variable of the notebook"),
)  # fmt: skip
def firmware(options: argparse.Namespace, cell: str, namespace: dict[str, Any]) -> CellResult:
    """Returns the result of run_cell on the cell's C."""
    given = namespace_array(options.input, namespace) if options.input else None
    result = run_cell(cell, options.target, options.board, given)
    if options.out:
        namespace[options.out] = result
    return result


def _measure(options: argparse.Namespace) -> Measurement:
    """Returns the measurement, saved as the verb does."""
    record = measured(options)
    if options.out:
        record.save(options.out / record.file_name())
    return record


@verb(
    "compile a network and put it on a board", "%flash lenet --data synthetic",
    option("net", metavar="NET", help="a built-in name, path/to/file.py:factory, or what `compile --out DIR` wrote"),
    BOARD,
    PORT,
    option("--data", help="cifar10, synthetic, random or FILE.npz"),
)  # fmt: skip
def flash(options: argparse.Namespace) -> Shown:
    """Returns what answered on the board: a network compiled now, or the folder that `compile --out` wrote, as it is."""
    from tinyredux.boards import find_board
    from tinyredux.device.flash import flash as flash_files
    from tinyredux.settings import Settings, compile_net

    folder, model_hash = Path(options.net), None
    if not (folder / "manifest.json").is_file():
        artifact = compile_net(Settings(options.net, board=options.board, data=options.data)).artifact
        model_hash = artifact.model_hash
        folder = artifact.write(default_build_folder() / "models" / model_hash)
    report = flash_files(folder, find_board(options.board), options.port, model_hash)
    rows = [("board", report.board), ("written by", report.tool), ("answers as model", report.model_hash)]
    data = {"schema": 1, "board": report.board, "tool": report.tool, "model_hash": report.model_hash}
    return Shown(data, columns(rows), table=as_html(rows, style=NARROW))


@verb(
    "send one line to a board and show the answer", "%serial info",
    PORT,
    option("line", nargs="*", metavar="LINE", help="info (default), help, measure 5, ..."),
)  # fmt: skip
def serial(options: argparse.Namespace) -> Shown:
    """Returns the lines with which the board answers."""
    from tinyredux.device.board import ask_board

    words = " ".join(options.line) or "info"
    answer = ask_board(words, options.port)
    return Shown({"schema": 1, "sent": words, "answer": list(answer)}, "\n".join(answer))


def _doctor(options: argparse.Namespace) -> Shown:
    """Returns each tool, its version and the fix where it is missing."""
    report = VERBS["doctor"].run(options)
    return Shown(report.data, report.text)


MAGICS = {
    "firmware": firmware, "measure": replace(VERBS["measure"], run=_measure), "flash": flash, "serial": serial,
    "doctor": replace(VERBS["doctor"], run=_doctor),
}  # fmt: skip


def arguments(name: str) -> argparse.ArgumentParser:
    """Returns what reads the options of a magic."""
    parser = Parser(prog=f"{'%%' if name == 'firmware' else '%'}{name}", description=MAGICS[name].help)
    MAGICS[name].options(parser)
    return parser


def read(name: str, line: str) -> argparse.Namespace:
    """Returns the options of a magic's line. Raises ValueError, ArgumentError for wrong ones, SystemExit after --help."""
    try:
        words = shlex.split(line)
    except ValueError as wrong:
        raise ValueError(f"{line}: {wrong}; close each quote, and write \\\\ for a backslash") from None
    return arguments(name).parse_args(words)


def register(shell: Any) -> None:
    """Adds the magics to an IPython shell."""
    for name in MAGICS:
        shell.register_magic_function(_magic(name, shell), "cell" if name == "firmware" else "line", name)


def _magic(name: str, shell: Any) -> Callable[..., Any]:
    """Returns the function that a shell calls, with the help as its docstring, and expected errors as Trouble."""

    def magic(line: str, *cell: str) -> Any:
        try:
            return MAGICS[name].run(read(name, line), *((*cell, shell.user_ns) if cell else ()))
        except EXPECTED as error:
            return Trouble(str(error))
        except SystemExit:  # the help is shown
            return None

    magic.__doc__ = arguments(name).format_help()
    return magic
