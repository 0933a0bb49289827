"""What a verb is, how it is declared, and how its answer reads.

A verb is its function under an example and a table of options, in the words of argparse's `add_argument`. The docstring of the
function is the help.
"""

import argparse
import html
import json
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from typing import Any, TypeVar

from tinyredux.boards import board_names
from tinyredux.files import write_whole
from tinyredux.provenance import provenance
from tinyredux.tables import columns, shown

T = TypeVar("T")
Option = tuple[tuple[str, ...], dict[str, Any]]


@dataclass(frozen=True, repr=False)
class Answer:
    """What a verb found: the JSON object, the same for people, the exit code, and a table for notebooks, if any, as HTML."""

    data: dict[str, Any]
    text: str
    exit_code: int = 0
    table: str = ""

    def __repr__(self) -> str:
        """Returns the text."""
        return self.text

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        from tinyredux.notebook.cell import MIME

        return {"text/plain": self.text, "text/html": self.table or f"<pre>{html.escape(self.text)}</pre>", MIME: self.data}


@dataclass(frozen=True)
class Verb:
    """A verb: its example, what it takes, and the function that does it: options to an Answer."""

    example: str
    takes: tuple[Option, ...]
    run: Callable[..., Any]

    @property
    def help(self) -> str:
        """What the verb does."""
        return self.run.__doc__ or ""

    def options(self, parser: argparse.ArgumentParser) -> None:
        """Adds what the verb takes."""
        for names, meaning in self.takes:
            parser.add_argument(*names, **meaning)


def verb(example: str, *takes: Option) -> Callable[[Callable[..., Any]], Verb]:
    """Makes a verb of the function below; its name on the command line is the function's."""
    return partial(Verb, example, takes)


def option(*names: str, **meaning: Any) -> Option:
    """Returns an option, or what stands without a name, as `add_argument` takes it."""
    return names, meaning


LABELLED = "cifar10, synthetic, person, vww, keywords, speech_commands"  # the sets of `datasets.SHAPES`, for help texts
BOARDS = f"{', '.join(board_names(every=True))} or a board file.json"
NET = option("net", metavar="NET", help="a built-in name (see `nets`), path/to/file.py:factory, int8 model.tflite or model.onnx")
BOARD = option("--board", default="disco_f469ni", help=f"{BOARDS} (default: disco_f469ni)")
PORT = option("--port", help="serial port (default: that of the one probe that is plugged in); its probe is written")


def given_to(called: Callable[..., T], options: argparse.Namespace) -> T:
    """Returns what a function or a dataclass makes of the options with its parameters' names; the others have their defaults."""
    known = signature(called).parameters
    return called(**{name: value for name, value in vars(options).items() if name in known and value is not None})


def saved(answer: Answer, options: argparse.Namespace, name: str) -> Answer:
    """Returns an answer once its JSON lies in the folder of --out, if any, with the command and its provenance.

    Where that fails it is shown all the same, and exits with 3.
    """
    try:
        if options.out is not None:
            origin = {"command": shlex.join(["python", "-m", "tinyredux", *options.given])} | provenance()
            write_whole(options.out / name, json.dumps(answer.data | origin | answer.data, indent=1) + "\n")
    except OSError as wrong:
        said = f"{wrong.filename}: {wrong.strerror}; the result is here alone" if wrong.filename else str(wrong)
        print(said, file=sys.stderr)
        return replace(answer, data=answer.data | {"unsaved": said}, text=f"{answer.text}\n{said}", exit_code=3)
    return answer


def table(rows: Iterable[Mapping[str, Any]], *fields: str) -> str:
    """Returns fields of rows as text in columns under their names: numbers to the right, empty where a row has none."""
    rows = list(rows)
    right = [i for i, field in enumerate(fields) if all(isinstance(row.get(field), int | float | None) for row in rows)]
    head = [field.replace("_", " ") for field in fields]
    return columns([head, *([shown(row.get(field)) for field in fields] for row in rows)], right)
