"""`%load_ext tinyredux`: %%firmware, %measure, %flash, %serial and %doctor, each a thin face of one public function.

A magic takes what the verb of its name takes. What goes wrong is shown in a sentence and never ends the kernel or the run of a
notebook.
"""

import argparse
import html
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinyredux.cli.app import Parser
from tinyredux.cli.verbs import VERBS
from tinyredux.cli.verbs.base import BOARD, Answer, option, verb
from tinyredux.cli.verbs.network import measured
from tinyredux.device import BuildError, MissingTool
from tinyredux.device.link import LinkError
from tinyredux.measurement import Measurement
from tinyredux.notebook.cell import NARROW, CellResult, run_cell
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


@verb(
    "%%firmware --target host",
    option("--target", default="simulator", help="host, simulator (default) or board[:PORT]"),
    BOARD,
    option("--input", metavar="NAME", help="an int8, int16 or int32 array of the notebook, at cell_input in C"),
    option("--out", metavar="NAME", help="keep the result in this variable of the notebook"),
)  # fmt: skip
def firmware(options: argparse.Namespace, cell: str, namespace: dict[str, Any]) -> CellResult:
    """Compiles this cell of C into the runtime, runs it, and shows what it printed."""
    given = namespace.get(options.input)
    if options.input and not isinstance(given, np.ndarray):
        raise ValueError(f"--input {options.input}: the notebook has no NumPy array of that name")
    result = run_cell(cell, options.target, options.board, given)
    if options.out:
        namespace[options.out] = result
    return result


def measure(options: argparse.Namespace) -> Measurement:
    """Compiles, builds and runs a network on a target, and shows the measurement."""
    record = measured(options)
    if options.out:
        record.save(options.out / record.file_name())
    return record


def flash(options: argparse.Namespace) -> Answer:
    """Puts a network on a board, as the verb does, and shows what does not differ from run to run."""
    done = VERBS["flash"].run(options).data
    rows = [("board", done["board"]), ("written by", done["tool"]), ("answers as model", done["model_hash"])]
    data = {key: done[key] for key in ("schema", "board", "tool", "model_hash")}
    return Answer(data, columns(rows), table=as_html(rows, style=NARROW))


def serial(options: argparse.Namespace) -> Answer:
    """Sends one line to a board and shows the answer."""
    from tinyredux.device.board import ask_board

    words = " ".join(options.line) or "info"
    answer = ask_board(words, options.port)
    return Answer({"schema": 1, "sent": words, "answer": list(answer)}, "\n".join(answer))


MAGICS = {
    "firmware": firmware, "measure": replace(VERBS["measure"], run=measure), "doctor": VERBS["doctor"],
    "flash": replace(VERBS["flash"], run=flash), "serial": replace(VERBS["serial"], run=serial),
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
