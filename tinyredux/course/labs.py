"""Labs that come back: whether a notebook's answers are right, and a table of marks for a folder of them.

A notebook is run as it is, cell by cell, and then asked for each exercise's function by name. So a deleted or retyped
check changes nothing, an endless loop costs one cell's time, and one crash does not stop the others.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from tinyredux.course.handout import named_in, text_of
from tinyredux.course.teaching import VERDICT_MIME, Verdict
from tinyredux.device import MissingTool
from tinyredux.files import SETUP

CELL_SECONDS = 20  # the labs of the book take 5 s altogether
FILE_SECONDS = 45
_INTERRUPT_SECONDS = 5
_SHOWN = 1000  # characters of what a notebook says
_OUTPUTS = ("stream", "display_data", "execute_result", "error", "update_display_data")


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
    """Returns a verdict for each exercise of a notebook, run from top to bottom in a fresh kernel.

    A cell may take `cell_seconds`, the file `file_seconds`. Whatever the notebook does, each exercise gets its verdict. Raises
    ValueError, MissingTool.
    """
    text = text_of(path)
    names = named_in(text, path)
    answers = [nbformat.v4.new_code_cell(source) for source in _code_of(text, path)]  # type: ignore[no-untyped-call]
    asked = [nbformat.v4.new_code_cell(_question(name)) for name in names]  # type: ignore[no-untyped-call]
    try:
        KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        raise MissingTool(f"labs run in a Jupyter kernel named python3, and there is none here; run: {SETUP}") from None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        why = _run_cells(answers, asked, folder, cell_seconds, file_seconds)
    return [_verdict(name, cell, why) for name, cell in zip(names, asked, strict=True)]


class _Client(NotebookClient):
    """A client that keeps no output of cells but what `kept` names: endless output would fill the memory."""

    kept: frozenset[int] = frozenset()

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        """Returns the output in a message, which the base class puts into the cell."""
        if msg["msg_type"] in _OUTPUTS and (cell_index not in self.kept or msg["msg_type"] == "stream"):
            return None
        return super().process_message(msg, cell, cell_index)


def _run_cells(answers: list[Any], asked: list[Any], folder: str, cell_seconds: float, file_seconds: float) -> str:
    """Runs the cells, then the questions. Returns why it ended before the last of them, or an empty text."""
    cells = answers + asked
    client = _Client(
        nbformat.v4.new_notebook(cells=cells),  # type: ignore[no-untyped-call]
        kernel_name="python3", allow_errors=True, interrupt_on_timeout=True, shutdown_kernel="immediate",
        error_on_timeout={"ename": "Timeout", "evalue": "", "traceback": []}, resources={"metadata": {"path": folder}},
    )  # fmt: skip
    client.kept = frozenset(range(len(answers), len(cells)))
    until = time.monotonic() + file_seconds
    try:
        with client.setup_kernel(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            for index, cell in enumerate(cells):
                client.timeout = max(1, round(min(cell_seconds, until - time.monotonic())))
                start = time.monotonic()
                client.execute_cell(cell, index)
                if time.monotonic() >= until:
                    return f"it took more than {file_seconds:g} s"
                if time.monotonic() - start < client.timeout:
                    continue
                client.timeout, start = _INTERRUPT_SECONDS, time.monotonic()
                client.execute_cell(nbformat.v4.new_code_cell("pass"), index)  # type: ignore[no-untyped-call]
                if time.monotonic() - start >= _INTERRUPT_SECONDS:
                    return f"a cell took more than {cell_seconds:g} s and could not be interrupted"
    except DeadKernelError:
        return "its kernel died: did a cell end the process, or take all memory?"
    except Exception as failure:  # whatever a notebook does to its kernel is this notebook's affair
        return f"it could not be run ({type(failure).__name__}: {str(failure)[:_SHOWN]})"
    return ""


def _question(name: str) -> str:
    short = name.rpartition(".")[2]
    answer = f"globals().get({short!r}, _teaching.missing({short!r}))"
    return f"import tinyredux.course.teaching as _teaching\n_teaching.check({name!r}, {answer})"


def _verdict(name: str, cell: Any, why: str) -> Verdict:
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        found = data.get(VERDICT_MIME)
        if isinstance(found, dict) and isinstance(found.get("passed"), bool):
            return Verdict(name, found["passed"], _clean(data.get("text/plain")) or f"{name}: a verdict without words")
        if found is not None:
            return Verdict(name, False, f"{name}: the verdict is damaged; does the notebook change tinyredux.course.teaching?")
        if output.get("output_type") == "error":
            said = f"{_clean(output['ename'])}: {_clean(output['evalue'])}"
            stopped = "interrupted, because it took too long: is there an endless loop in it?"
            return Verdict(name, False, f"{name}: {stopped if output['ename'] == 'KeyboardInterrupt' else said}")
    return Verdict(name, False, f"{name}: no verdict: {why or 'it took too long, or the notebook changes how answers are shown'}")


def _clean(text: Any) -> str:
    """Returns text that can be written anywhere: of bounded length, half characters and names that are not UTF-8 escaped."""
    return str(text or "")[:_SHOWN].encode("utf-8", "backslashreplace").decode()


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
        return name, check_lab(path, *seconds)
    except MissingTool:
        raise
    except Exception as wrong:  # one submission never ends the others' marks
        return name, [Verdict("", False, _clean(str(wrong) or type(wrong).__name__))]


CSV_HEAD = ("file", "exercise", "passed", "verdict")


def csv_rows(name: str, verdicts: Iterable[Verdict]) -> list[tuple[str, str, int, str]]:
    """Returns a file's rows of the CSV: file, exercise (empty for what is no lab), passed (1 or 0), what was said."""
    return [(name, v.exercise, int(v.passed), (v.text.splitlines() or [""])[0]) for v in verdicts]
