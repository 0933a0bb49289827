"""Grading whatever is handed in: each file gets marks and a sentence, and no file ends or delays the others' for long."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tinyredux.cli import app as cli
from tinyredux.course import judge, labs
from tinyredux.course.teaching import Verdict, check
from tinyredux.device import MissingTool

ANSWERS = "# lab2.place\nplace = by_hand = None"


def notebook(*sources: str) -> dict[str, Any]:
    """Returns a notebook whose first cell is of lab 2 and answers nothing."""
    cells = [nbformat.v4.new_code_cell(source) for source in (ANSWERS, *sources)]
    return json.loads(nbformat.writes(nbformat.v4.new_notebook(cells=cells)))  # type: ignore[no-any-return]


def changed(path: str, value: Any) -> str:
    """Returns a notebook's text with one field of its JSON replaced, such as "cells.0.source"."""
    whole = notebook() | {"note": "lab2.place"}
    place: Any = whole
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in way:
        place = place[step]
    place[last] = value
    return json.dumps(whole)


BAD_FILES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "no notebook"),
    "noise": (bytes(range(256)) * 9, "no notebook"),
    "utf16": (json.dumps(notebook()).encode("utf-16"), "no notebook"),
    "deep": ("[" * 300_000, "no notebook"),
    "large_number": ('{"nbformat":' + "9" * 9999 + "}", "no notebook"),
    "null": ("null", "no notebook"),
    "no_source": (changed("cells.0", {"cell_type": "code", "metadata": {}, "outputs": []}), "no cell of code"),
    "source_numbers": (changed("cells.0.source", [1]), "no notebook"),
    "cells_object": (changed("cells", {}), "no cell of code"),
    "cell_number": (changed("cells", [7]), "no notebook"),
    "metadata_number": (changed("metadata", 3), "no notebook"),
    "version": (changed("nbformat", 99), "no notebook"),
}


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets no process start: what comes so far answers nothing."""
    monkeypatch.setattr(judge, "verdicts", lambda *_: [])


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_damaged_file_gets_zero_and_a_sentence(name: str, tmp_path: Path, no_process: None) -> None:
    content, words = BAD_FILES[name]
    path = tmp_path / f"{name}_lab2.ipynb"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    ((file, (verdict,)),) = labs.grade(tmp_path)
    assert file == path.name and (verdict.exercise, verdict.passed) == ("", False)
    assert words in verdict.text and len(verdict.text) < 1200
    with pytest.raises(ValueError, match=words):
        labs.check_lab(path)


def make_odd_files(folder: Path) -> dict[str, str]:
    """Makes what is no readable file. Returns a word of each verdict by name."""
    (folder / "folder.ipynb").mkdir()
    (folder / "loop.ipynb").symlink_to("loop.ipynb")
    (folder / "gone.ipynb").symlink_to("nowhere")
    (folder / "zero.ipynb").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.ipynb")
    with (folder / "huge.ipynb").open("wb") as stream:
        stream.truncate(10**10)
    (folder / "secret.ipynb").write_text("{}")
    (folder / "round").mkdir()
    (folder / "round" / "again").symlink_to("..")
    return {
        "folder.ipynb": "is a folder", "loop.ipynb": "does not exist", "gone.ipynb": "does not exist",
        "zero.ipynb": "is a pipe", "pipe.ipynb": "is a pipe", "huge.ipynb": "has 10,000,000,000 bytes",
        "secret.ipynb": "is no lab",
    }  # fmt: skip


def test_what_is_no_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = make_odd_files(tmp_path)
    marks = dict(labs.grade(tmp_path))
    assert set(marks) == set(words)
    for name, (verdict,) in marks.items():
        assert words[name] in verdict.text and not verdict.passed

    def forbidden(path: Path, **_: Any) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", forbidden)
    assert "cannot be read: Permission denied" in dict(labs.grade(tmp_path))["secret.ipynb"][0].text


def test_the_table_is_written_file_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name that is not UTF-8, an error that nobody foresaw, a verdict without words: rows, all of them, at once."""
    folder, table = tmp_path / "in", tmp_path / "marks.csv"
    folder.mkdir()
    for name in (b"a.ipynb", b"b\xfc\xff.ipynb", b"c\n.ipynb", b'=1,"d".ipynb', b"e.ipynb"):
        (folder / os.fsdecode(name)).write_text("{}")
    seen: list[int] = []

    def mark(path: Path, *_: Any, **__: Any) -> list[Verdict]:
        seen.append(len(table.read_text().splitlines()))
        if path.name == "a.ipynb":
            raise AttributeError("nobody foresaw this \ud800")
        return [Verdict("lab1.x", path.name == "e.ipynb", "" if path.name == "e.ipynb" else "no\nreason")]

    monkeypatch.setattr(labs, "check_lab", mark)
    assert cli.main(["lab", "grade", str(folder), "--csv", str(table), "--json"]) == 0
    rows = list(csv.reader(table.open(encoding="utf-8", newline="")))
    assert (
        rows[0] == ["file", "exercise", "passed", "verdict", "unsealed", "student", "points", "most"]
        and seen == sorted(seen)
        and seen[-1] >= 5
    )
    assert {row[0] for row in rows[1:]} == {"a.ipynb", "b\\xfc\\xff.ipynb", "c\n.ipynb", '\'=1,"d".ipynb', "e.ipynb"}
    marks = [row[:4] for row in rows]
    assert ["a.ipynb", "", "0", "nobody foresaw this \\ud800"] in marks and ["e.ipynb", "lab1.x", "1", ""] in marks
    assert len(json.loads(capsys.readouterr().out)["verdicts"]) == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("grade", "in", "--csv", "nowhere/marks.csv"), "--csv nowhere/marks.csv cannot be written: No such file"),
        (("grade", "in", "--csv", "in"), "--csv in cannot be written: Is a directory"),
        (("grade", "in", "--csv", "in/a.ipynb"), "is a notebook's name"),
        (("grade", "in/a.ipynb"), "is no folder"),
        (("grade", "gone"), "does not exist"),
        (("grade", "void"), "holds no notebook"),
        (("grade",), "needs a path"),
        (("check", "in"), "is a folder"),
        (("check", "in/a.ipynb", "--csv", "m.csv"), "--csv is for grade"),
        (("list", "in"), "takes no path"),
    ],
)
def test_wrong_uses(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "void").mkdir()
    (tmp_path / "in" / "a.ipynb").write_text("{}")
    monkeypatch.setattr(
        labs, "check_lab", labs.check_lab if arguments[0] == "check" else lambda *_: pytest.fail("was graded first")
    )
    assert cli.main(["lab", *arguments]) == 2
    assert words in capsys.readouterr().err and (tmp_path / "in" / "a.ipynb").read_text() == "{}"


def test_a_wrong_folder_leaves_the_table_of_before(tmp_path: Path) -> None:
    (tmp_path / "marks.csv").write_text("kept")
    assert cli.main(["lab", "grade", str(tmp_path / "gone"), "--csv", str(tmp_path / "marks.csv")]) == 2
    assert (tmp_path / "marks.csv").read_text() == "kept"


def test_a_full_disk_does_not_take_the_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tinyredux.cli.verbs import course

    write = course.write_marks  # the head still has room
    monkeypatch.setattr(course, "write_marks", lambda path, rows, mode=None: write(path if mode else Path("/dev/full"), rows))
    (tmp_path / "a.ipynb").write_text("{}")
    monkeypatch.setattr(labs, "check_lab", lambda *_, **__: [Verdict("lab1.x", True, "right")])
    assert cli.main(["lab", "grade", str(tmp_path), "--csv", str(tmp_path / "marks.csv")]) == 2
    said = capsys.readouterr()
    assert "cannot be written: No space left on device" in said.err and "a.ipynb: right" in said.out


def test_what_notebooks_say_can_always_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "verdicts", lambda *_: [Verdict("lab1.x", False, "\ud800" + "x" * 10**6)])
    (tmp_path / "a.ipynb").write_text(json.dumps(notebook()))
    (verdict,) = labs.check_lab(tmp_path / "a.ipynb")
    verdict.text.encode()
    assert len(verdict.text) < 1200 and "\\ud800" in verdict.text
    assert len(check("lab2.place", lambda *_: "x" * 10**6).text) < 3000


def test_where_no_process_starts_nobody_gets_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (tmp_path / "a.ipynb").write_text(json.dumps(notebook()))
    with pytest.raises(MissingTool, match=r"does not start.*make setup"):
        list(labs.grade(tmp_path))


@pytest.mark.slow
def test_a_file_has_a_time_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "handed_in.ipynb").write_text(json.dumps(notebook(*["while True: pass"] * 9)))
    verdicts = labs.check_lab(tmp_path / "handed_in.ipynb", cell_seconds=2, file_seconds=3)
    assert all("it took more than 3 s" in verdict.text for verdict in verdicts)
