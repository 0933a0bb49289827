"""Labs that come back: whether a notebook's answers are right, and a table of marks for a folder of them.

A notebook's cells run in a sealed process, which is then asked for each exercise's function by name. So a deleted or retyped
check changes nothing, an endless loop costs one cell's time, and one crash does not stop the others.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import nbformat

from tinyredux.course import judge
from tinyredux.course.handout import named_in, text_of
from tinyredux.course.teaching import Verdict
from tinyredux.device import MissingTool

CELL_SECONDS = 20  # the labs of the book take 5 s altogether
FILE_SECONDS = 45
_SHOWN = 1000  # characters of what a notebook says
_SALT = secrets.token_bytes(32)  # of this run: who hands in a file cannot know its cases


def _code_of(text: str, path: Path) -> list[str]:
    """Returns the source of each cell of code: all that is needed of what was handed in. Raises ValueError."""
    try:
        cells = nbformat.reads(text, as_version=4).cells  # type: ignore[no-untyped-call]
        sources = [cell["source"] for cell in cells if cell["cell_type"] == "code" and "source" in cell]
        found = [source if isinstance(source, str) else "".join(source) for source in sources]
    except Exception as wrong:  # nbformat passes on whatever its steps meet, also a RecursionError
        raise ValueError(f"{path} is no notebook ({str(wrong)[:_SHOWN] or type(wrong).__name__}); save it in Jupyter") from None
    if not found:
        raise ValueError(f"{path} has no cell of code; expected the lab with its answers")
    return found


def check_lab(path: Path, cell_seconds: float = CELL_SECONDS, file_seconds: float = FILE_SECONDS) -> list[Verdict]:
    """Returns a verdict for each exercise of a notebook, run from top to bottom in a sealed process, on cases of its own.

    A cell may take `cell_seconds`, the file `file_seconds`. Whatever the notebook does, each exercise gets its verdict. Raises
    ValueError, MissingTool.
    """
    text = text_of(path)
    names, sources = named_in(text, path), _code_of(text, path)
    seed = int.from_bytes(hashlib.sha256(_SALT + text.encode()).digest())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        marks = judge.verdicts(sources, names, seed, folder, cell_seconds, file_seconds)
    return [Verdict(mark.exercise, mark.passed, _clean(mark.text)) for mark in marks]


def _clean(text: str) -> str:
    """Returns text that can be written anywhere: of bounded length, half characters and what steers a terminal escaped."""
    text = text[:_SHOWN].encode("utf-8", "backslashreplace").decode()
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], text)


def grade(
    folder: Path, cell_seconds: float = CELL_SECONDS, file_seconds: float = FILE_SECONDS
) -> Iterator[tuple[str, list[Verdict]]]:
    """Returns (file, verdicts) of each notebook in a folder, one after the other, as soon as it has been run.

    A notebook that cannot be marked has one verdict: its exercise is empty, and its text says why. Raises ValueError where there
    is no notebook; the iterator raises MissingTool.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} {'is no folder' if folder.exists() else 'does not exist'}; expected a folder of notebooks")
    paths = sorted(path for path in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    if not paths:
        raise ValueError(f"{folder} holds no notebook; expected the labs that were handed in")
    return (_marked(folder, path, cell_seconds, file_seconds) for path in paths)


def _marked(folder: Path, path: Path, *seconds: float) -> tuple[str, list[Verdict]]:
    name = os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "backslashreplace")
    try:
        if path.is_symlink() and path.is_file():
            raise ValueError(f"{path} is a link, perhaps to another's work; expected the notebook itself")
        return name, check_lab(path, *seconds)
    except MissingTool:
        raise
    except Exception as wrong:  # one submission never ends the others' marks
        return name, [Verdict("", False, _clean(str(wrong) or type(wrong).__name__))]


CSV_HEAD = ("file", "exercise", "passed", "verdict", "unsealed")


def csv_rows(name: str, verdicts: Iterable[Verdict]) -> list[tuple[str, str, int, str, int]]:
    """Returns a file's rows of the CSV: file, exercise (empty for what is no lab), passed (1 or 0), what was said, and whether
    it ran unsealed (1 or 0). No text is a formula to a spreadsheet: an apostrophe stands before it."""
    rows = [(name, v.exercise, int(v.passed), (v.text.splitlines() or [""])[0]) for v in verdicts]
    return [(_defused(file), exercise, passed, _defused(said), int(not judge.seal())) for file, exercise, passed, said in rows]


def _defused(text: str) -> str:
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text
