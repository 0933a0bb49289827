"""The chapters as files: executed, in order, small, honest about what is compared; their parameters work."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest

import tinyredux
from tinyredux.course import book
from tinyredux.device import BuildError

NOTEBOOKS = book.notebooks()
CHAPTERS = [path for path in NOTEBOOKS if path.parent == book.BOOK]
LIMIT_BYTES = 500_000
FLIP_BOOK_BYTES = 110_000
IGNORED_SHARE = 0.15
LINES_OF_A_CELL = 14
PARAMETERS = ("TARGET", "SEED", "PROFILE", "DATA")
PATHS = re.compile(r"(?:^|[\s\"'(=])(?:/(?:home|work|root|tmp|usr|opt|Users|private)/|[A-Z]:\\)")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", []))


@each_notebook
def test_executed_in_order(path: Path) -> None:
    counts = [cell.execution_count for cell in code_cells(path) if book.NEEDS_BOARD not in tags(cell)]
    assert counts == list(range(1, len(counts) + 1)), "run: make chapters"


@each_notebook
def test_at_most_one_cell_of_parameters(path: Path) -> None:
    """It comes first, and each name that it sets is used in another cell."""
    found = [cell for cell in code_cells(path) if "parameters" in tags(cell)]
    assert len(found) <= 1 and all(cell.source == code_cells(path)[0].source for cell in found)
    names = [line.split(" =")[0] for cell in found for line in cell.source.splitlines()]
    rest = "\n".join(cell.source for cell in code_cells(path) if "parameters" not in tags(cell))
    assert names == [name for name in PARAMETERS if re.search(rf"\b{name}\b", rest)] or not found


@each_notebook
def test_a_stored_picture_is_compared_by_what_it_draws(path: Path) -> None:
    """nbval passes over pixels; the words beside them end in a digest of the drawing, which it compares."""
    outputs = [output.get("data", {}) for cell in code_cells(path) for output in cell.outputs]
    for data in outputs:
        pages = data["text/plain"].splitlines()[1:] if "data:image/svg+xml" in data.get("text/html", "") else []
        for words in [data["text/plain"]] if "image/png" in data else pages:
            assert re.search(r"\. \[drawing [0-9a-f]{8}\]$", words)
        assert not pages or len(data["text/html"]) < FLIP_BOOK_BYTES


@each_notebook
def test_small_enough(path: Path) -> None:
    assert path.stat().st_size < LIMIT_BYTES


def test_few_outputs_are_not_compared() -> None:
    cells = [cell for path in NOTEBOOKS for cell in code_cells(path)]
    ignored = [cell.source for cell in cells if "nbval-ignore-output" in tags(cell) or "nbval-skip" in tags(cell)]
    assert len(ignored) <= IGNORED_SHARE * len(cells), ignored
    assert not any("NBVAL" in cell.source for cell in cells)


@each_notebook
def test_no_paths_of_a_machine(path: Path) -> None:
    for cell in read(path).cells:
        texts = [cell.source]
        for output in cell.get("outputs", []):
            texts += [output.get("text", ""), output.get("evalue", ""), *output.get("traceback", [])]
            texts += [str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/")]
        for text in texts:
            assert not PATHS.search(text), f"{path.stem}: {PATHS.search(text)}"


@each_notebook
def test_cells_are_short_and_hold_no_logic(path: Path) -> None:
    for cell in code_cells(path):
        assert len(cell.source.splitlines()) <= LINES_OF_A_CELL, cell.source
        if cell.source.startswith("%%"):
            continue
        source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
        defined = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)]
        assert not defined or {"exercise", "yours"} & set(tags(cell)), "a function in a chapter belongs into the library"


@each_notebook
def test_only_public_names(path: Path) -> None:
    """What a chapter imports is public: a name of tinyredux, or what a room's `__init__` gives."""
    public = set(dir(tinyredux)) | set(tinyredux.__dir__())
    for cell in code_cells(path):
        if cell.source.startswith("%%"):
            continue
        source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tinyredux"):
                _, *inside = node.module.split(".")
                names = {name.name for name in node.names}
                room = importlib.import_module(f"tinyredux.{inside[0]}") if inside else None
                given = getattr(room, "__all__", dir(room)) if room else public
                assert set(inside[:1]) <= public and (set(inside[1:2]) or names) <= set(given), node.module
            if isinstance(node, ast.Import):
                assert not any(name.name.startswith("tinyredux.") for name in node.names)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tr":
                assert node.attr in public, f"tr.{node.attr}"


def test_every_notebook_is_in_the_table_of_contents() -> None:
    index = (book.BOOK / "index.md").read_text()
    listed = re.findall(r"^((?:labs/)?(?:\d\d|[a-z]|lab\d)_\w+)$", index, re.M)
    assert listed == [path.relative_to(book.BOOK).with_suffix("").as_posix() for path in NOTEBOOKS]
    cards = re.findall(r"^\[!\[.*\]\((\S+)\)\]\((\w+)\.ipynb\)$", index, re.M)
    assert [name for _, name in cards] == [path.stem for path in CHAPTERS]
    assert len({picture for picture, _ in cards}) == len(cards), "no picture twice"


def label(path: Path) -> str:
    """Returns the number of a chapter, or the letter of an appendix."""
    first = path.stem.partition("_")[0]
    return str(int(first)) if first.isdigit() else first.upper()


def words(path: Path) -> str:
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_says_what_it_is_and_what_is_before_and_after(path: Path) -> None:
    first = read(path).cells[0].source
    assert first.startswith(f"# {label(path)}. ") and "**Goal:**" in first and "**Needs:**" in first
    assert re.search(r"\*\*Time:\*\* (?:\d+ minutes to read|as long as you look), about \d+ seconds to run\. ", first)
    i, last = CHAPTERS.index(path), read(path).cells[-1].source
    near = [*(each.name for each in CHAPTERS[max(0, i - 1) : i]), *(each.name for each in CHAPTERS[i + 1 : i + 2])]
    assert last.startswith("Back: ") and [name for name in re.findall(r"\]\((\S+)\)", last) if name.endswith("b")] == near


def test_links_between_pages_lead_somewhere() -> None:
    for path in (*NOTEBOOKS, *book.BOOK.glob("*.md")):
        text = words(path) if path.suffix == ".ipynb" else path.read_text()
        for target in re.findall(r"\]\(([^)\s:]+)\)", text):
            assert (path.parent / target).is_file(), f"{path.stem}: {target}"


def test_a_number_in_a_link_is_the_chapters_own() -> None:
    for path in (*NOTEBOOKS, *book.BOOK.glob("*.md")):
        text = words(path) if path.suffix == ".ipynb" else path.read_text()
        for number, target in re.findall(r"\[(?:[Cc]hapter |[Aa]ppendix )?(\d+|[A-Z])\]\(\S*?(\w+)\.ipynb\)", text):
            assert number == label(Path(target)), f"{path.stem}: {number} leads to {target}"
        bare = re.findall(r"\b[Cc]hapters? \d+", re.sub(r"`[^`]*`|\[[^\]]*\]\([^)]*\)", "", text))
        assert not bare, f"{path.stem}: make {bare} a link"


def test_tables_are_few_and_small() -> None:
    """At most three in a chapter, of six columns and ten rows; appendices hold the others."""
    total = 0
    for path in (path for path in CHAPTERS if path.stem[0].isdigit()):
        cells = [cell for cell in code_cells(path) if re.search(r"(?<!_)\btable\(", cell.source)]
        sizes = [output.data["text/html"] for cell in cells for output in cell.outputs if "text/html" in output.get("data", {})]
        total += len(sizes)
        assert len(sizes) <= 3, path.stem
        for table in sizes:
            assert table.count("<th") <= 6 and table.count("<tr") <= 11, f"{path.stem}: {table[:300]}"
    assert 20 < total <= 36


def test_every_exercise_has_an_answer() -> None:
    """A section of the appendix per chapter, an answer for each number in its exercises, and a link to them."""
    _, *sections = re.split(r"^## ", (book.BOOK / "answers.md").read_text(), flags=re.M)
    chapters = [path for path in CHAPTERS if path.stem[0].isdigit() or "## Exercises" in words(path)]
    titles = [read(path).cells[0].source.partition("\n")[0].removeprefix("# ") for path in chapters]
    assert [section.partition("\n")[0] for section in sections] == titles
    for path, section in zip(chapters, sections, strict=True):
        asked = words(path).partition("## Exercises\n")[2]
        assert "Answers are in the [appendix](answers.md)." in asked
        given = section.partition("\n")[2]
        assert re.findall(r"^\d\.", given, re.M) == re.findall(r"^\d\.", asked, re.M), path.stem


def is_bare(text: str) -> bool:
    """Returns whether an output is a value as Python writes it, without a name or a unit: True, a number, a tuple, an array."""
    try:
        ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return bool(re.match(r"(?:array|tensor|dict_\w+|\w+\.\w+64)\(", text.strip()))
    return True


@each_notebook
def test_no_output_is_a_bare_value(path: Path) -> None:
    """A cell ends in a figure, a table, or a sentence that names its number."""
    for cell in code_cells(path):
        for output in cell.outputs:
            data = output.get("data", {})
            text = output.get("text") or (data["text/plain"] if set(data) == {"text/plain"} else "-")
            assert not is_bare(text), f"{cell.source}\n-> {text}"


def test_a_bare_value_would_be_found() -> None:
    for text in ("True", "(4, 1)\n", "[1.0, 0.9]", "{'arena': 36000}", "27", "'lenet'", "array([-128, 127], dtype=int8)"):
        assert is_bare(text), text
    for text in ("11 of 200 are wrong", "arena 36,000, scratch 0 bytes", "Quant(scale=(0.5,), zero_point=-64)", "-> [0, 1]"):
        assert not is_bare(text), text


def test_sanitising_hides_no_number() -> None:
    rules = (Path(__file__).parents[1] / "sanitize.cfg").read_text()
    assert not re.search(r"^regex:\s*\\d", rules, re.M)


def test_other_parameters_are_live(tmp_path: Path) -> None:
    """Chapter 2 with another seed on the host: other random numbers, the same agreement of C and Python."""
    path, made = book.find_chapter("02"), tmp_path / "02.ipynb"
    papermill.execute_notebook(str(path), str(made), {"SEED": 1, "TARGET": "host"}, progress_bar=False, kernel_name="python3")
    before, after = (results(code_cells(each)) for each in (path, made))
    assert [result["target"] for result in before] == ["simulator"] * len(before)
    assert [result["target"] for result in after] == ["host"] * len(before)
    assert before[0]["values"] == after[0]["values"]  # two constants
    assert before[1]["values"] != after[1]["values"]  # drawn with SEED
    told = "".join(output.get("text", "") for cell in code_cells(made) for output in cell.outputs)
    assert "400 of 400 bytes are equal in C and in Python" in told
    (sums,) = re.findall(r"256 products add up to (-?\d+) one by one, (-?\d+) in pairs, (-?\d+) in Python", told)
    assert len(set(sums)) == 1


def results(cells: list[Any]) -> list[Any]:
    kind = "application/vnd.tinyredux+json"
    return [out.data[kind] for cell in cells for out in cell.outputs if "data" in out and kind in out.data]


@each_notebook
def test_no_cell_raises(path: Path) -> None:
    """Papermill and others that run notebooks know no tag for an error that is meant; `with refused():` shows it and goes on."""
    for cell in code_cells(path):
        assert "raises-exception" not in tags(cell) and all(out.output_type != "error" for out in cell.outputs), cell.source


def test_refused_shows_the_words_and_wants_them(capsys: pytest.CaptureFixture[str]) -> None:
    with tinyredux.refused():
        tinyredux.find_board("nothing")
    assert capsys.readouterr().out.startswith("ValueError: unknown board 'nothing'")
    with pytest.raises(AssertionError, match="nothing was refused"), tinyredux.refused():
        tinyredux.find_board("disco_f469ni")
    with pytest.raises(ZeroDivisionError), tinyredux.refused():
        1 / 0  # noqa: B018 (a mistake of the chapter's own is no refusal)


# nbval runs every cell of every notebook in `make test`, and a test above one chapter by papermill with other parameters.
@pytest.mark.sweep
@each_notebook
def test_plain_papermill_runs_every_notebook(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "papermill", "-k", "python3", "--no-progress-bar", path.name, str(tmp_path / path.name)]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_failing_chapter_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), path)
    before = path.read_bytes()
    with pytest.raises(BuildError, match="broken stopped"):
        book.execute_chapters([path])
    assert path.read_bytes() == before


def test_unknown_parameters_and_chapters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no parameter SEEDS; it has TARGET, SEED"):
        book.run_chapter("02", {"SEEDS": 1}, tmp_path)
    with pytest.raises(ValueError, match=r"0 chapters begin with '99'"):
        book.run_chapter("99", {}, tmp_path)
    assert book.find_chapter("A").stem == "a_kernels_in_detail"


def test_a_chapter_with_wrong_values_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise papermill.PapermillExecutionError(3, 3, "source", "ValueError", "target is 'moon'", ["Traceback", "..."])

    monkeypatch.setattr(papermill, "execute_notebook", fails)
    with pytest.raises(
        BuildError, match=r"^chapter 01\S+ stopped in cell 3: ValueError: target is 'moon'; what it did .*$"
    ) as told:
        book.run_chapter("01", {"TARGET": "moon"}, tmp_path)
    assert "\n" not in str(told.value)
