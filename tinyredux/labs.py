"""Labs: which there are, whether a notebook's answers are right, and a table of marks for a folder of them.

A notebook is run as it is, cell by cell, and then asked for each exercise's function by name. So a deleted or retyped
check changes nothing, an endless loop costs one cell's time, and one crash does not stop the others.
"""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from tinyredux.build import ROOT
from tinyredux.exercises import EXERCISES
from tinyredux.teaching import VERDICT_MIME, Verdict

LAB_FOLDER = ROOT / "book" / "labs"
CELL_SECONDS = 60


@dataclass(frozen=True)
class Lab:
    """A lab's notebook and the exercises in it."""

    path: Path
    exercises: tuple[str, ...]


def list_labs() -> list[Lab]:
    """Returns the labs in the order of their names."""
    return [Lab(path, exercises_of(path)) for path in sorted(LAB_FOLDER.glob("lab*.ipynb"))]


def exercises_of(path: Path) -> tuple[str, ...]:
    """Returns the exercises of the lab that a notebook is a copy of. Raises ValueError where it is no lab's."""
    text = path.read_text(encoding="utf-8", errors="replace")
    labs = re.findall(r"\b(lab\d+)\.\w+", text) + re.findall(r"(lab\d+)", path.name)
    names = tuple(name for name in EXERCISES if labs and name.startswith(f"{labs[0]}."))
    if not names:
        raise ValueError(f"{path} is no lab: no exercise of {', '.join(EXERCISES)} is named in it")
    return names


def check_lab(path: Path, cell_seconds: int = CELL_SECONDS) -> list[Verdict]:
    """Returns a verdict for each exercise of a notebook, run from top to bottom in a fresh kernel. Raises ValueError."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist; expected a lab's notebook, such as {LAB_FOLDER.name}/lab1_*.ipynb")
    names = exercises_of(path)
    try:
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    except Exception as wrong:
        raise ValueError(f"{path} is no notebook: {wrong}") from None
    asked = [nbformat.v4.new_code_cell(_question(name)) for name in names]  # type: ignore[no-untyped-call]
    notebook.cells += asked
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=cell_seconds, kernel_name="python3", allow_errors=True, interrupt_on_timeout=True,
            error_on_timeout={"ename": "Timeout", "evalue": f"more than {cell_seconds} s", "traceback": []},
            resources={"metadata": {"path": folder}},
        )  # fmt: skip
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError, RuntimeError):
            pass  # what could still be asked has been; the rest has no verdict
    return [_verdict(name, cell) for name, cell in zip(names, asked, strict=True)]


def _question(name: str) -> str:
    short = name.rpartition(".")[2]
    answer = f"globals().get({short!r}, _teaching.missing({short!r}))"
    return f"import tinyredux.teaching as _teaching\n_teaching.check({name!r}, {answer})"


def _verdict(name: str, cell: Any) -> Verdict:
    for output in cell.get("outputs", []):
        found = output.get("data", {}).get(VERDICT_MIME)
        if found is not None:
            return Verdict(name, bool(found["passed"]), str(output["data"].get("text/plain", "")))
        if output.get("output_type") == "error":
            return Verdict(name, False, f"{name}: {output['ename']}: {output['evalue']}")
    return Verdict(name, False, f"{name}: no verdict; the notebook did not run to its end within {CELL_SECONDS} s a cell")


def grade(folder: Path, cell_seconds: int = CELL_SECONDS) -> list[tuple[str, list[Verdict]]]:
    """Returns (file, verdicts) of every notebook in a folder; a file that is no lab has no verdicts. Raises ValueError."""
    paths = sorted(path for path in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    if not paths:
        raise ValueError(f"{folder} holds no notebook; expected the labs that were handed in")
    marks = []
    for path in paths:
        try:
            verdicts = check_lab(path, cell_seconds)
        except ValueError:
            verdicts = []
        marks.append((path.relative_to(folder).as_posix(), verdicts))
    return marks


def to_csv(marks: Sequence[tuple[str, list[Verdict]]]) -> str:
    """Returns marks as CSV: file, exercise (empty for a file that is no lab), passed (1 or 0), what was said."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("file", "exercise", "passed", "verdict"))
    for name, verdicts in marks:
        rows = [(name, v.exercise, int(v.passed), v.text.splitlines()[0]) for v in verdicts]
        writer.writerows(rows or [(name, "", 0, "no lab notebook")])
    return stream.getvalue()
