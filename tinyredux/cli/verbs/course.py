"""Verbs about the book: reproduce, book, lab."""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tinyredux.cli.verbs.base import Answer, option, table, verb
from tinyredux.files import check_output


@verb(
    "reproduce --json",
    option("claims", nargs="*", metavar="CLAIM", help="ids of claims (default: all)"),
    option("--profile", default="quick", choices=("quick", "full"), help="quick reads records; full makes them again"),
)  # fmt: skip
def reproduce(options: argparse.Namespace) -> Answer:
    """Says what the papers claim and what we find: paper, published value, ours, band, verdict."""
    from tinyredux.course.claims import reproduce

    rows = reproduce(options.claims, options.profile)
    shown = table([row | {"verdict": _verdict(row)} for row in rows], "id", "metric", "published", "ours", "verdict", "differs")
    failures = [f"{row['id']}: {row['failed']}" for row in rows if row["failed"]]
    refuted = any(row["verdict"] == "not reproduced" for row in rows)
    return Answer({"schema": 1, "claims": rows}, "\n".join([shown, *failures]), int(refuted or bool(failures)))


def _verdict(row: dict[str, Any]) -> str:
    """Returns the verdict with what it rests on: a record as it lay there, or one that was made again now."""
    verdict = "no figure published" if row["basis"] and row["band"] is None else row["verdict"]
    return f"{verdict} ({row['basis']})" if row["basis"] else str(verdict)


def _value(text: str) -> Any:
    return int(text) if re.fullmatch("-?[0-9]{1,4000}", text) else text


@verb(
    "book",
    option("chapter", nargs="?", help="run one chapter, such as 01, into build/book (default: the whole book)"),
    option("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="for that run"),
    option("--execute", action="store_true", help="run chapters and write their outputs back into book/"),
)  # fmt: skip
def book(options: argparse.Namespace) -> Answer:
    """Builds the book: networks, firmware, measurements, pages; or runs chapters."""
    from tinyredux.course import book

    if options.parameter and (options.execute or not options.chapter):
        raise ValueError("parameters are for one chapter, not written back; name it: python -m tinyredux book 01 -p DATA cifar10")
    if options.execute:
        chapters = [book.find_chapter(options.chapter)] if options.chapter else None
        changed = [str(path) for path in book.execute_chapters(chapters)]
        return Answer({"schema": 1, "changed": changed}, f"changed: {', '.join(changed) or 'nothing'}")
    if options.chapter:
        target = book.run_chapter(options.chapter, {name: _value(value) for name, value in options.parameter})
        return Answer({"schema": 1, "notebook": str(target)}, str(target))
    page, records = book.make_book()
    text = "\n\n".join([*(str(record) for record in records), f"the book: {page}"])
    return Answer({"schema": 1, "page": str(page), "records": [record.to_json() for record in records]}, text)


@verb(
    "lab check book/labs/lab1_integer_arithmetic.ipynb",
    option("what", choices=("list", "check", "grade"), help="list the labs, check a notebook, grade a folder of them"),
    option("path", nargs="?", type=Path, help="the notebook or the folder"),
    option("--csv", type=Path, metavar="FILE", help="grade: also write the marks there"),
)  # fmt: skip
def lab(options: argparse.Namespace) -> Answer:
    """Lists the labs, checks one, or grades a folder of those that were handed in."""
    if options.csv and options.what != "grade":
        raise ValueError(f"--csv is for grade, lab {options.what} writes no table; use --json and keep its output")
    if options.what == "list":
        return _listed(options.path)
    if options.path is None:
        raise ValueError(f"lab {options.what} needs a path: a notebook to check, or a folder to grade")
    from tqdm import tqdm

    from tinyredux.course import judge, labs

    check, trouble = options.what == "check", ""
    if options.csv:
        check_output(options.csv.parent, options.csv.name)
    marks = [(options.path.name, labs.check_lab(options.path))] if check else labs.grade(options.path)
    if options.csv:
        write_marks(options.csv, [labs.CSV_HEAD], "w")
    verdicts, unsealed = [], not judge.seal()
    if unsealed:
        print(f"tinyredux lab: {judge.UNSEALED}", file=sys.stderr)
    for name, found in tqdm(marks, options.what, leave=False, disable=None):
        try:
            if options.csv:
                write_marks(options.csv, labs.csv_rows(name, found))
        except ValueError as failure:  # a full disk: the marks are still shown
            trouble = str(failure)
        fields = [{"file": name, "exercise": v.exercise, "passed": v.passed, "text": v.text, "unsealed": unsealed} for v in found]
        verdicts += fields
    text = "\n".join(f"{entry['file']}: {entry['text']}" for entry in verdicts)
    answer = {"schema": 1, "verdicts": verdicts}
    if trouble:
        print(f"tinyredux lab: {trouble}", file=sys.stderr)
        return Answer(answer | {"error": trouble}, text, 2)
    return Answer(answer, text, int(check and not all(entry["passed"] for entry in verdicts)))


def _listed(path: Path | None) -> Answer:
    from tinyredux.course import handout

    if path:
        raise ValueError(f"lab list takes no path, found {path}; to run a notebook: lab check {path}")
    labs = [{"lab": path.name, "exercises": [*names]} for path, names in handout.list_labs().items()]
    folder = str(handout.LAB_FOLDER)
    return Answer({"schema": 1, "labs": labs, "folder": folder}, f"{table(labs, 'lab', 'exercises')}\n\nin {folder}")


def write_marks(path: Path, rows: Iterable[tuple[Any, ...]], mode: str = "a") -> None:
    """Writes rows of marks into a CSV file, which is closed after each notebook, so that what is graded is kept."""
    if path.suffix == ".ipynb":
        raise ValueError(f"--csv {path} is a notebook's name, expected one such as marks.csv: it would be overwritten")
    try:
        with path.open(mode, encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(rows)
    except OSError as wrong:
        raise ValueError(f"--csv {path} cannot be written: {wrong.strerror}; give another one") from None
