"""Verbs about the book: reproduce, book, lab."""

import argparse
import csv
import re
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tinyredux.cli.verbs.base import Answer, option, table, verb
from tinyredux.files import check_is_file, check_output


@verb(
    "reproduce --json",
    option("claims", nargs="*", metavar="CLAIM", help="ids of claims (default: all)"),
    option("--profile", default="quick", choices=("quick", "full"), help="quick reads records; full makes them again"),
)  # fmt: skip
def reproduce(options: argparse.Namespace) -> Answer:
    """Says what the papers claim and what we find: paper, published value, ours, band, verdict."""
    from tinyredux.course.claims import reproduce

    rows = reproduce(options.claims, options.profile)
    shown = table([row | {"verdict": _verdict(row)} for row in rows], "id", "metric", "published", "ours", "verdict")
    differ = [textwrap.fill(f"{row['id']}: {row['differs']}", 110, subsequent_indent="    ") for row in rows if row["differs"]]
    failures = [f"{row['id']}: {row['failed']}" for row in rows if row["failed"]]
    refuted = any(row["verdict"] == "not reproduced" for row in rows)
    text = "\n".join([shown, *(["", "What differs:", *differ] if differ else []), *failures])
    return Answer({"schema": 1, "claims": rows}, text, int(refuted or bool(failures)))


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
    option("what", choices=("list", "check", "grade", "release", "solutions", "pack"), help="what to do, see above"),
    option("path", nargs="?", type=Path, help="check: the notebook; grade: the folder; release, solutions: a lab (default: all)"),
    option("--csv", type=Path, metavar="FILE", help="grade: also write the marks there; beside it, points and feedback"),
    option("--lab", metavar="LAB", help="grade: what was to be handed in, such as lab1 (default: what each notebook names)"),
    option("--feedback", type=Path, metavar="DIR", help="grade: a file for each student (default: beside --csv)"),
    option("--out", type=Path, metavar="DIR", help="release, solutions, pack: the folder to write"),
    option("--seed", metavar="TEXT", help="release, pack: of the class; checks draw their cases from it and from STUDENT_ID"),
    option("--due", metavar="DATE", help="release: when it is to be handed in, for the first cell"),
    option("--students", type=Path, metavar="FILE", help="release: names or numbers, one a line; a folder is made for each"),
)  # fmt: skip
def lab(options: argparse.Namespace) -> Answer:
    """Lists the labs, checks one, grades a folder of those that came back, or writes what a class needs.

    `release` writes labs without outputs, and proves that every stub fails and every other cell runs; `solutions` writes those
    with answers, `pack` wheels, pages, records and labs for a class without a network.
    """
    uses = {
        "csv": ("grade",), "lab": ("grade",), "feedback": ("grade",), "out": ("release", "solutions", "pack"),
        "seed": ("release", "pack"), "due": ("release",), "students": ("release",),
    }  # fmt: skip
    for name, whats in uses.items():
        if getattr(options, name) is not None and options.what not in whats:
            raise ValueError(
                f"--{name} is for {', '.join(whats)}, lab {options.what} does not take it; use --json for its output"
            )
    return {"list": _listed, "check": _graded, "grade": _graded}.get(options.what, _written)(options)


def _written(options: argparse.Namespace) -> Answer:
    """Writes what is handed out."""
    from tinyredux.course import handout

    what, seed, name = options.what, options.seed or "0", str(options.path or "")
    if options.out is None:
        raise ValueError(f"lab {what} needs --out, a folder to write to")
    if what == "pack" and name:
        raise ValueError(f"lab pack takes no path, found {name}; it packs all labs")
    check_output(options.out)
    if what == "release":
        students = _names(options.students) if options.students else ()
        rows = handout.release(options.out, name, seed=seed, due=options.due or "", students=students)
        bad = 0
    elif what == "solutions":
        rows = handout.solutions(options.out, name)
        bad = int(any(row["points"] < row["most"] for row in rows))
    else:
        rows = handout.pack(options.out, seed)
        bad = int(any(row["missing"] for row in rows))
    return Answer({"schema": 1, what: rows, "folder": str(options.out)}, f"{table(rows, *rows[0])}\n\nin {options.out}", bad)


def _names(path: Path) -> list[str]:
    """Returns the students of a file, each fit to be a folder's name. Raises ValueError."""
    check_is_file(path, "list of students", "one name or number a line", 1 << 20)
    names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    for name in names:
        if not re.fullmatch(r"[\w@-][\w.@ -]{0,63}", name) or names.count(name) > 1:
            raise ValueError(f"{path}: {name!r} is no name for a folder, or there twice; letters, digits and . _ - @ will do")
    if not names:
        raise ValueError(f"{path} names no student; expected one name or number a line")
    return names


def _graded(options: argparse.Namespace) -> Answer:
    """Checks a notebook, or grades a folder."""
    if options.path is None:
        raise ValueError(f"lab {options.what} needs a path: a notebook to check, or a folder to grade")
    from tqdm import tqdm

    from tinyredux.course import judge, labs

    check, path, trouble = options.what == "check", options.csv, ""
    if path:
        check_output(path.parent, path.name)
    folder = options.path.parent if check else options.path
    files = [options.path] if check else labs.handed_in(folder)
    graded = [(options.path.name, labs.check_lab(options.path))] if check else labs.grade(folder, lab=options.lab or "")
    if path:
        write_marks(path, [labs.CSV_HEAD], "w")
    verdicts, marks, unsealed = [], {}, not judge.seal()
    if unsealed:
        print(f"tinyredux lab: {judge.UNSEALED}", file=sys.stderr)
    for name, found in tqdm(graded, options.what, len(files), leave=False, disable=None):
        student, marks[name] = labs.student_of(folder, name), found
        try:
            if path:
                write_marks(path, labs.csv_rows(name, found, student))
        except ValueError as failure:  # a full disk: the marks are still shown
            trouble = str(failure)
        verdicts += [
            {"file": name, "exercise": v.exercise, "passed": v.passed, "text": v.text, "unsealed": unsealed}
            | {"student": student, "points": v.points, "most": v.most}
            for v in found
        ]
    students = labs.by_student(folder, marks)
    sums, ranks = labs.totals(students), labs.class_table(students)
    feedback = options.feedback or (path.with_name(f"{path.stem}_feedback") if path else None)
    try:
        if path and not trouble:
            for kind, rows in (("students", sums), ("class", ranks)):
                if rows:
                    write_marks(path.with_name(f"{path.stem}.{kind}.csv"), [tuple(rows[0]), *labs.defused(rows)], "w")
        if feedback and not trouble:
            labs.write_feedback(feedback, students)
    except (OSError, ValueError) as failure:
        trouble = str(failure)
    texts = ["\n".join(f"{shown(entry['file'])}: {entry['text']}" for entry in verdicts)]
    texts += [] if check else [table(rows, *rows[0]) for rows in (sums, ranks) if rows]
    answer = {"schema": 1, "verdicts": verdicts, "students": sums, "class": ranks}
    if trouble:
        print(f"tinyredux lab: {trouble}", file=sys.stderr)
        return Answer(answer | {"error": trouble}, "\n\n".join(texts), 2)
    return Answer(answer, "\n\n".join(texts), int(check and not all(entry["passed"] for entry in verdicts)))


def shown(name: str) -> str:
    """Returns a file's name in one line."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in name)


def _listed(options: argparse.Namespace) -> Answer:
    from tinyredux.course import handout
    from tinyredux.course.exercises import EXERCISES

    if options.path:
        raise ValueError(f"lab list takes no path, found {options.path}; to run a notebook: lab check {options.path}")
    labs: list[dict[str, Any]] = [
        {"lab": path.name, "time": handout.minutes(path), "points": sum(EXERCISES[name].points for name in names)}
        | {"exercises": [*names]}
        for path, names in handout.list_labs().items()
    ]
    folder = str(handout.LAB_FOLDER)
    rows = [lab | {"exercises": ", ".join(lab["exercises"])} for lab in labs]
    return Answer({"schema": 1, "labs": labs, "folder": folder}, f"{table(rows, *rows[0])}\n\nin {folder}")


def write_marks(path: Path, rows: Iterable[tuple[Any, ...]], mode: str = "a") -> None:
    """Writes rows of marks into a CSV file, which is closed after each notebook, so that what is graded is kept."""
    if path.suffix == ".ipynb":
        raise ValueError(f"--csv {path} is a notebook's name, expected one such as marks.csv: it would be overwritten")
    try:
        with path.open(mode, encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(rows)
    except OSError as wrong:
        raise ValueError(f"--csv {path} cannot be written: {wrong.strerror}; give another one") from None
