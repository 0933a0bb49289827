"""Labs that come back: whether a notebook's answers are right, and a table of marks for a folder of them.

A notebook's cells run in a sealed process, which is then asked for each exercise's function by name. So a deleted or retyped
check changes nothing, an endless loop costs one cell's time, and one crash does not stop the others.
"""

import hashlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyredux.course import judge
from tinyredux.course.exercises import EXERCISES
from tinyredux.course.handout import named_in, text_of
from tinyredux.course.teaching import Verdict, failed
from tinyredux.device import MissingTool
from tinyredux.files import write_whole

CELL_SECONDS = 20  # the labs of the book take 5 s altogether where they are marked
FILE_SECONDS = 45
MOST_CELLS = 500  # that may hold an answer in words
_SHOWN = 1000  # characters of what a notebook says
_SALT = secrets.token_bytes(32)  # of this run: who hands in a file cannot know its cases
_STUDENT = re.compile(r"""^\s*STUDENT_ID\s*=\s*(["'])([\w.@ -]{1,64})\1\s*$""", re.M)


def _cells_of(text: str, path: Path) -> list[tuple[str, list[str], str]]:
    """Returns kind, tags and source of each cell that has one. Raises ValueError for what is no notebook.

    This is all that is needed of a file, and JSON is read in a time that does not hang on what is in it.
    """
    try:
        content = json.loads(text)
        if content["nbformat"] != 4 or not isinstance(content["metadata"], dict):
            raise ValueError("it is not in format 4")
        found = []
        for cell in content["cells"]:
            source = cell.get("source", "")
            tags = cell["metadata"].get("tags", [])
            found.append((str(cell["cell_type"]), tags, source if isinstance(source, str) else "".join(source)))
    except Exception as wrong:  # also a RecursionError
        said = str(wrong)[:_SHOWN] or type(wrong).__name__
        raise ValueError(f"{path} is no notebook ({said}); save it in Jupyter") from None
    return [cell for cell in found if cell[2]]


def check_lab(
    path: Path, cell_seconds: float = CELL_SECONDS, file_seconds: float = FILE_SECONDS, *, lab: str = ""
) -> list[Verdict]:  # fmt: skip
    """Returns a verdict for each exercise of a notebook, run from top to bottom in a sealed process, on cases of its own.

    A cell may take `cell_seconds`, the file `file_seconds`. Whatever the notebook does, each exercise gets its verdict; those of
    `lab`, else of the lab that the notebook names first. Raises ValueError, MissingTool.
    """
    text = text_of(path)
    names = named_in(text, path, lab)
    sources = [source for kind, _, source in _cells_of(text, path) if kind == "code"]
    if not sources:
        raise ValueError(f"{path} has no cell of code; expected the lab with its answers")
    seed = int.from_bytes(hashlib.sha256(_SALT + text.encode()).digest())
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        marks = judge.verdicts(sources, names, seed, folder, cell_seconds, file_seconds)
    return [Verdict(**vars(mark) | {"text": _clean(mark.text)}) for mark in marks]


def _clean(text: str) -> str:
    """Returns text that can be written anywhere: of bounded length, half characters and what steers a terminal, or turns the
    direction of writing, escaped."""
    text = text[:_SHOWN].encode("utf-8", "backslashreplace").decode()
    return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in text)


def grade(
    folder: Path, cell_seconds: float = CELL_SECONDS, file_seconds: float = FILE_SECONDS, *, lab: str = ""
) -> Iterator[tuple[str, list[Verdict]]]:  # fmt: skip
    """Returns (file, verdicts) of each notebook in a folder, one after the other, as soon as it has been run.

    A notebook that cannot be marked has one verdict: its exercise is empty, and its text says why; where `lab` says what was to
    be handed in, it fails each of that lab's exercises. Raises ValueError where there is no notebook; the iterator raises
    MissingTool.
    """
    named_in("", Path(f"{lab or 'lab1'}.ipynb"), lab)
    return (_marked(folder, path, lab, cell_seconds, file_seconds) for path in handed_in(folder))


def handed_in(folder: Path) -> list[Path]:
    """Returns the notebooks below a folder. Raises ValueError where there is none."""
    if not folder.is_dir():
        raise ValueError(f"{folder} {'is no folder' if folder.exists() else 'does not exist'}; expected a folder of notebooks")
    paths = sorted(path for path in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    if not paths:
        raise ValueError(f"{folder} holds no notebook; expected the labs that were handed in")
    return paths


def _marked(folder: Path, path: Path, lab: str, *seconds: float) -> tuple[str, list[Verdict]]:
    name = os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "backslashreplace")
    try:
        if path.is_symlink() and path.is_file():
            raise ValueError(f"{path} is a link, perhaps to another's work; expected the notebook itself")
        return name, check_lab(path, *seconds, lab=lab)
    except MissingTool:
        raise
    except Exception as wrong:  # one submission never ends the others' marks
        said = _clean(str(wrong) or type(wrong).__name__)
        names = [exercise for exercise in EXERCISES if lab and exercise.startswith(f"{lab}.")]
        return name, [failed(exercise, said) for exercise in names] or [Verdict("", False, said)]


@dataclass(frozen=True)
class Student:
    """Who handed in what: the best verdict on each exercise, and the own words of each file."""

    name: str
    best: dict[str, Verdict]
    files: dict[str, str]

    def points(self, lab: str = "") -> int:
        """Returns the points, of one lab or of all."""
        return sum(verdict.points for name, verdict in self.best.items() if name.startswith(f"{lab}." if lab else ""))


def student_of(folder: Path, name: str) -> str:
    """Returns whose a file is: what it gives as STUDENT_ID, else the folder that it lies in, else its name without the lab's."""
    for kind, _, source in _own_cells(folder / name):
        if kind == "code" and (found := _STUDENT.search(source)):
            return found[2].strip()
    first, _, rest = name.partition("/")
    return first if rest else re.sub(r"[-_ ]*lab\d+.*$", "", Path(first).stem) or Path(first).stem


def _own_cells(path: Path) -> list[tuple[str, list[str], str]]:
    """Returns the cells of what was handed in; none of a link, which may lead to another's work, and of what is no notebook."""
    try:
        return [] if path.is_symlink() else _cells_of(text_of(path), path)
    except ValueError:
        return []


def own_words(path: Path) -> str:
    """Returns what a notebook answers in words, which a person marks: its cells with the tag `answer`."""
    words = [source for kind, tags, source in _own_cells(path)[:MOST_CELLS] if kind == "markdown" and "answer" in tags]
    return "\n\n".join(_clean(each) for each in words if not re.fullmatch(r"\*Your answer to \d+:\*\s*", each))


def by_student(folder: Path, marks: Mapping[str, list[Verdict]]) -> list[Student]:
    """Returns the students by name. Of several files only the best verdict on each exercise counts."""
    found: dict[str, Student] = {}
    for file, verdicts in marks.items():
        name = student_of(folder, file)
        student = found.setdefault(name, Student(name, {}, {}))
        student.files[file] = own_words(folder / file)
        for verdict in verdicts:
            if verdict.exercise and verdict.points >= student.best.get(verdict.exercise, verdict).points:
                student.best[verdict.exercise] = verdict
    return [found[name] for name in sorted(found)]


def totals(students: Iterable[Student]) -> list[dict[str, Any]]:
    """Returns a row per student: points of each lab that anybody handed in, their sum, and the most that there are."""
    students = list(students)
    labs = sorted({name.partition(".")[0] for student in students for name in student.best})
    most = sum(exercise.points for name, exercise in EXERCISES.items() if name.partition(".")[0] in labs)
    return [
        {"student": student.name} | {lab: student.points(lab) for lab in labs} | {"total": student.points(), "most": most}
        for student in students
    ]


def class_table(students: Iterable[Student]) -> list[dict[str, Any]]:
    """Returns the students whose answers are compared with each other, as in the project: the least score first."""
    scored = [(v.score, student.name) for student in students for v in student.best.values() if v.score]
    return [
        {"rank": i, "student": name, "cycles": score[0], "what": score[1]} for i, (score, name) in enumerate(sorted(scored), 1)
    ]


def write_feedback(folder: Path, students: Iterable[Student]) -> list[Path]:
    """Writes a text file for each student: points, what was said of each exercise, and the own words with room for a mark."""
    written: dict[str, Path] = {}
    for student in students:
        name = re.sub(r"[^\w@-]+", "_", student.name).strip("_")[:60] or "student"
        while name.casefold() in written:
            name += "_"
        lines = [f"{student.name}: {student.points()} of {sum(verdict.most for verdict in student.best.values())} points", ""]
        for verdict in student.best.values():
            lines += [f"[{verdict.points} of {verdict.most}] {verdict.text}", ""]
        for file, words in student.files.items():
            lines += [f"In your own words ({file}), marked by a person: ____", "", words, ""] if words else []
        written[name.casefold()] = write_whole(folder / f"{name}.txt", "\n".join(lines).encode("utf-8", "backslashreplace"))
    return [*written.values()]


CSV_HEAD = ("file", "exercise", "passed", "verdict", "unsealed", "student", "points", "most")


def csv_rows(name: str, verdicts: Iterable[Verdict], student: str = "") -> list[tuple[str, str, int, str, int, str, int, int]]:
    """Returns a file's rows of the CSV: file, exercise (empty for what is no lab), passed (1 or 0), what was said, whether it ran
    unsealed (1 or 0), student, points of the most. No text is a formula to a spreadsheet: an apostrophe stands before it."""
    unsealed, file, who = int(not judge.seal()), _defused(name), _defused(student)
    return [
        (file, v.exercise, int(v.passed), _defused((v.text.splitlines() or [""])[0]), unsealed, who, v.points, v.most)
        for v in verdicts
    ]


def defused(rows: Iterable[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Returns the values of rows, of which no text is a formula to a spreadsheet."""
    return [tuple(_defused(value) if isinstance(value, str) else value for value in row.values()) for row in rows]


def _defused(text: str) -> str:
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")) else text
