"""What a verb is, how it is declared, and how its answer reads.

A verb is its function under one table: a line of help, an example, and its options in the words of argparse's `add_argument`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from tinyredux.boards import board_names
from tinyredux.files import write_whole
from tinyredux.tables import columns

T = TypeVar("T")
Option = tuple[tuple[str, ...], dict[str, Any]]


@dataclass(frozen=True)
class Answer:
    """What a verb found: the JSON object, the same for people, and the exit code."""

    data: dict[str, Any]
    text: str
    exit_code: int = 0


@dataclass(frozen=True)
class Verb:
    """A verb: its help line and example, what it takes, and the function that does it: options to an Answer."""

    help: str
    example: str
    takes: tuple[Option, ...]
    run: Callable[..., Any]

    def options(self, parser: argparse.ArgumentParser) -> None:
        """Adds what the verb takes."""
        for names, meaning in self.takes:
            parser.add_argument(*names, **meaning)


def verb(help: str, example: str, *takes: Option) -> Callable[[Callable[..., Any]], Verb]:
    """Makes a verb of the function below; its name on the command line is the function's."""
    return lambda run: Verb(help, example, takes, run)


def option(*names: str, **meaning: Any) -> Option:
    """Returns an option, or what stands without a name, as `add_argument` takes it."""
    return names, meaning


LABELLED = "cifar10, synthetic, person, vww, keywords, speech_commands"  # the sets of `datasets.SHAPES`, for help texts
BOARDS = f"{', '.join(board_names())} or a board file.json"
NET = option("net", metavar="NET", help="a built-in name (see `nets`) or path/to/file.py:factory")
BOARD = option("--board", default="disco_f469ni", help=f"{BOARDS} (default: disco_f469ni)")
PORT = option("--port", help="serial port (default: the one ST-Link that is plugged in)")


def as_fields(kind: type[T], options: argparse.Namespace) -> T:
    """Returns a dataclass whose fields have the values of the options with their names."""
    given = vars(options)
    return kind(**{field.name: given[field.name] for field in fields(kind) if field.name in given})  # type: ignore[arg-type]


def saved(answer: Answer, folder: Path | None, name: str) -> Answer:
    """Returns an answer once its JSON lies in a folder, if any. Where that fails it is shown all the same, and exits with 3."""
    try:
        if folder is not None:
            write_whole(folder / name, json.dumps(answer.data, indent=1) + "\n")
    except OSError as wrong:
        said = f"{wrong.filename}: {wrong.strerror}; the result is here alone" if wrong.filename else str(wrong)
        print(said, file=sys.stderr)
        return replace(answer, data=answer.data | {"unsaved": said}, text=f"{answer.text}\n{said}", exit_code=3)
    return answer


def table(rows: list[tuple[Any, ...]], head: tuple[str, ...]) -> str:
    """Returns rows as text in columns: text to the left, numbers to the right."""
    cells = ([f"{v:,}" if isinstance(v, int) else "" if v is None else str(v) for v in row] for row in rows)
    right = [i for i in range(len(head)) if all(isinstance(row[i], int | None) for row in rows)]
    return columns([head, *cells], right)
