"""What a verb is, and how its answer reads."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tinyredux.boards import board_names
from tinyredux.tables import columns

LABELLED = "cifar10, synthetic, person, vww, keywords, speech_commands"  # the sets of `datasets.SHAPES`, for help texts


@dataclass(frozen=True)
class Answer:
    """What a verb found: the JSON object, the same for people, and the exit code."""

    data: dict[str, Any]
    text: str
    exit_code: int = 0


@dataclass(frozen=True)
class Verb:
    """A verb: its help line and example, its options, and the function that does it."""

    help: str
    example: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Answer]


def saved(answer: Answer, save: Callable[[], object]) -> Answer:
    """Returns an answer once `save` has written it. Where that fails it is shown all the same, says why, and exits with 3."""
    try:
        save()
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


def no_options(parser: argparse.ArgumentParser) -> None:
    """Adds nothing: the verb takes only what every verb takes."""


def board_option(parser: argparse.ArgumentParser, default: str | None = "disco_f469ni") -> None:
    """Adds --board."""
    known = f"{', '.join(board_names())} or a board file.json"
    parser.add_argument(
        "--board", default=default, required=default is None, help=known + (f" (default: {default})" if default else "")
    )
