"""Verbs about the book: reproduce, book, lab."""

from __future__ import annotations

import argparse
import contextlib
import csv
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tinyredux.cli.verbs.base import Answer, option, table, verb
from tinyredux.files import check_output


@verb(
    "the claims map: paper, published value, ours, band, verdict", "reproduce --json",
    option("claims", nargs="*", metavar="CLAIM", help="ids of claims (default: all)"),
    option("--profile", default="quick", choices=("quick", "full"), help="quick reads records; full makes them again"),
)  # fmt: skip
def reproduce(options: argparse.Namespace) -> Answer:
    """Says what the papers claim and what we find."""
    from tinyredux.course.claims import reproduce

    rows = reproduce(options.claims, options.profile)
    shown = [(row["id"], row["metric"], row["published"], str(row["ours"]), _verdict(row), row["differs"]) for row in rows]
    failures = [f"{row['id']}: {row['failed']}" for row in rows if row["failed"]]
    text = "\n".join([table(shown, ("claim", "metric", "published", "ours", "verdict", "differs")), *failures])
    refuted = any(row["verdict"] == "not reproduced" for row in rows)
    return Answer({"schema": 1, "claims": rows}, text, int(refuted or bool(failures)))


def _verdict(row: dict[str, Any]) -> str:
    """Returns the verdict with what it rests on: a record as it lay there, or one that was made again now."""
    verdict = "no figure published" if row["basis"] and row["band"] is None else row["verdict"]
    return f"{verdict} ({row['basis']})" if row["basis"] else str(verdict)


def _value(text: str) -> Any:
    return int(text) if re.fullmatch("-?[0-9]{1,4000}", text) else text


@verb(
    "build the book: networks, firmware, measurements, pages", "book",
    option("chapter", nargs="?", help="run one chapter, such as 01, into build/book (default: the whole book)"),
    option("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="for that run"),
    option("--execute", action="store_true", help="run chapters and write their outputs back into book/"),
)  # fmt: skip
def book(options: argparse.Namespace) -> Answer:
    """Runs chapters, or renders the book."""
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
    "the labs: list, check one, grade a folder", "lab check book/labs/lab1_integer_arithmetic.ipynb",
    option("what", choices=("list", "check", "grade"), help="list the labs, check a notebook, grade a folder of them"),
    option("path", nargs="?", type=Path, help="the notebook or the folder"),
    option("--csv", type=Path, metavar="FILE", help="grade: also write the marks there"),
)  # fmt: skip
def lab(options: argparse.Namespace) -> Answer:
    """Lists labs, or marks what was handed in."""
    if options.csv and options.what != "grade":
        raise ValueError(f"--csv is for grade, lab {options.what} writes no table; use --json and keep its output")
    if options.what == "list":
        return _listed(options.path)
    if options.path is None:
        raise ValueError(f"lab {options.what} needs a path: a notebook to check, or a folder to grade")
    from tqdm import tqdm

    from tinyredux.course import labs

    check, trouble = options.what == "check", ""
    if options.csv:
        check_output(options.csv.parent, options.csv.name)
    marks = [(options.path.name, labs.check_lab(options.path))] if check else labs.grade(options.path)
    verdicts = []
    with open_table(options.csv) as write_rows:
        for name, found in tqdm(marks, options.what, leave=False, disable=None):
            try:
                write_rows(labs.csv_rows(name, found))
            except OSError as failure:  # a full disk: the marks are still shown
                trouble = f"{options.csv} is not complete: {failure.strerror}"
            verdicts += [{"file": name, "exercise": v.exercise, "passed": v.passed, "text": v.text} for v in found]
    text = "\n".join(f"{entry['file']}: {entry['text']}" for entry in verdicts)
    answer = {"schema": 1, "verdicts": verdicts}
    if trouble:
        print(f"tinyredux lab: {trouble}; give another --csv", file=sys.stderr)
        return Answer(answer | {"error": trouble}, text, 2)
    return Answer(answer, text, int(check and not all(entry["passed"] for entry in verdicts)))


def _listed(path: Path | None) -> Answer:
    from tinyredux.course import handout

    if path:
        raise ValueError(f"lab list takes no path, found {path}; to run a notebook: lab check {path}")
    labs = [{"lab": lab.path.name, "exercises": list(lab.exercises)} for lab in handout.list_labs()]
    rows = [(each["lab"], ", ".join(each["exercises"])) for each in labs]
    folder = str(handout.LAB_FOLDER)
    return Answer({"schema": 1, "labs": labs, "folder": folder}, f"{table(rows, ('lab', 'exercises'))}\n\nin {folder}")


@contextlib.contextmanager
def open_table(path: Path | None) -> Iterator[Callable[[Iterable[tuple[Any, ...]]], None]]:
    """Yields what writes rows of marks into a CSV file and flushes them, so that what is graded is kept; None: nowhere."""
    from tinyredux.course.labs import CSV_HEAD

    if path is None:
        yield lambda rows: None
        return
    if path.suffix == ".ipynb":
        raise ValueError(f"--csv {path} is a notebook's name, expected one such as marks.csv: it would be overwritten")
    stream = path.open("w", encoding="utf-8", newline="")
    writer = csv.writer(stream, lineterminator="\n")

    def write(rows: Iterable[tuple[Any, ...]]) -> None:
        writer.writerows(rows)
        stream.flush()

    try:
        try:
            write([CSV_HEAD])
        except OSError as wrong:
            raise ValueError(f"--csv {path} cannot be written: {wrong.strerror}; give another one") from None
        yield write
    finally:
        with contextlib.suppress(OSError):  # said when the rows were written
            stream.close()
