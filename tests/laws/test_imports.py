"""The law of the house: who may import whom and by which door, and how large each room may grow. Read from the source."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "tinyredux"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"

# The rooms in their order: a room imports only what stands before it. Each with its ceiling in lines of code, which only falls,
# and the packages of others that it may use beside NumPy.
ROOMS: dict[str, tuple[int, str]] = {
    "files": (173, ""), "tables": (39, ""), "boards": (149, ""), "fixedpoint": (161, ""), "graph": (714, ""),
    "datasets": (605, "PIL pooch"), "simulator": (1664, "unicorn capstone"),
    "provenance": (34, ""), "measurement": (117, ""), "comparison": (73, ""),
    "trec": (446, "torch"),
    "int8": (1072, "torch tqdm"), "memory": (1231, ""), "partial": (1014, ""), "streaming": (272, ""),
    "skip": (412, "torch tqdm"),
    "kernels": (4696, ""), "codegen": (1220, ""), "device": (1278, "serial"),
    "frontends": (3788, "ai_edge_litert flatbuffers onnx onnxruntime tflite torch"),
    "nets": (367, "torch safetensors"), "train": (913, "torch safetensors tqdm"), "methods": (387, "torch"),
    "model": (125, ""), "results": (83, ""), "flow": (80, "tqdm"), "settings": (208, ""), "explore": (1050, "optuna tqdm"),
    "notebook": (1323, "ipywidgets matplotlib"),
    "course": (1029, "IPython nbclient nbformat papermill tqdm"), "cli": (1077, "tqdm"),
    "__init__": (56, ""), "__main__": (34, ""),
}  # fmt: skip
C_LINES = 5125
LINES_PER_FILE = 400
FILES_PER_FOLDER = 14


def drawn(text: str) -> str:
    """Returns the text of CONTRIBUTING.md with the picture of the rooms between its marks: the roof first, what each is."""
    lines = []
    for room in reversed(ROOMS):
        path = LIBRARY / room / "__init__.py" if (LIBRARY / room).is_dir() else LIBRARY / f"{room}.py"
        said = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
        sentence = re.split(r"(?<=[.])\s", said)[0]
        lines.append(textwrap.fill(sentence, 100, initial_indent=f"{room:12} ", subsequent_indent=" " * 13))
    picture = "\n".join(["```text", *lines, "```", ""])
    return re.sub("(<!-- rooms.*?-->\n).*(<!-- end of rooms -->)", lambda marks: marks[1] + picture + marks[2], text, flags=re.S)


def test_the_picture_of_the_rooms_is_true() -> None:
    text = CONTRIBUTING.read_text()
    assert "```text" in text and drawn(text) == text, "CONTRIBUTING.md shows other rooms; run: python tests/laws/test_imports.py"


def test_the_files_that_a_contributor_copies_from_are_there() -> None:
    named = {name for name in re.findall(r"`([\w./*-]+)`", CONTRIBUTING.read_text()) if "/" in name}
    missing = sorted(name for name in named if not [*ROOT.glob(name)])
    assert len(named) > 20 and not missing, f"CONTRIBUTING.md names {', '.join(missing)}, which is not there"


def modules() -> list[Path]:
    return sorted(LIBRARY.rglob("*.py"))


def parts_of(path: Path) -> list[str]:
    parts = [*path.relative_to(LIBRARY).with_suffix("").parts]
    return parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts


def room_of(path: Path) -> str:
    return parts_of(path)[0]


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the dotted module and the name that a file imports, anywhere in it; the name is empty for `import module`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def doors(room: str) -> set[str]:
    """Returns the names that a room's `__init__` gives: those of its `__all__`."""
    for node in ast.walk(ast.parse((LIBRARY / room / "__init__.py").read_text())):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


@pytest.mark.parametrize("path", modules(), ids=lambda path: ".".join(parts_of(path)))
def test_a_room_imports_what_stands_before_it_through_its_door(path: Path) -> None:
    room, order = room_of(path), list(ROOMS)
    assert room in ROOMS, f"{room} is in no row of ROOMS; decide its place first"
    if room.startswith("__"):
        return
    for module, name in imports(path):
        package, _, rest = module.partition(".")
        if package != "tinyredux":
            known = package in sys.stdlib_module_names or package == "numpy" or package in ROOMS[room][1].split()
            assert known, f"{room} imports {package}, allowed beside NumPy: {ROOMS[room][1] or 'nothing'}"
            continue
        target = (rest or name).split(".")[0]
        if target in (room, "__version__"):
            continue
        assert order.index(target) < order.index(room), f"{room} imports {target}, which stands behind it"
        door = (rest.split(".")[1:] or [name])[0] if rest else ""
        inside = not door or not (LIBRARY / target).is_dir() or door in doors(target)
        assert inside, f"{'.'.join(parts_of(path))} imports {door} of {target}, whose __init__ does not give it"


def test_torch_is_not_imported_by_what_can_do_without_it() -> None:
    light = "cli.app device.build boards memory codegen datasets cli.doctor device.host device.board course.labs".split()
    imported = ", ".join(f"tinyredux.{name}" for name in light)
    code = (
        f"import sys, tinyredux, {imported}\ntinyredux.datasets.load('random', (1, 4, 4))\n"
        "print([name for name in ('torch', 'matplotlib', 'IPython') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def code_lines(path: Path) -> int:
    """Returns the lines that hold code: blank lines, comments and docstrings do not count, so nobody saves on them."""
    text = path.read_text()
    if path.suffix != ".py":
        bare = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        return sum(1 for line in bare.splitlines() if line.strip())
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def sizes() -> dict[str, int]:
    """Returns each room's lines of code."""
    found = dict.fromkeys(ROOMS, 0)
    for path in modules():
        found[room_of(path)] += code_lines(path)
    return found


def test_rooms_stay_under_their_ceilings(capsys: pytest.CaptureFixture[str]) -> None:
    folders = [ROOT / "firmware" / name for name in ("include", "kernels", "runtime", "ports", "mlperf")]
    c = sum(code_lines(path) for path in (*LIBRARY.rglob("*.c"), *(path for folder in folders for path in folder.glob("*.[ch]"))))
    python = sizes()
    with capsys.disabled():
        print(f"\nlibrary: {sum(python.values())} lines of Python, {c} of {C_LINES} lines of C")
    over = {room: f"{lines} of {ROOMS[room][0]}" for room, lines in python.items() if lines > ROOMS[room][0]}
    assert not over and c <= C_LINES, f"over their ceilings: {over}, C: {c} of {C_LINES}"


def test_no_file_is_too_long_and_no_folder_too_full() -> None:
    counts = {str(path.relative_to(LIBRARY)): len(path.read_text().splitlines()) for path in modules()}
    long = {name: count for name, count in counts.items() if count > LINES_PER_FILE}
    full = {folder.name: len([*folder.glob("*.py")]) for folder in {path.parent for path in modules()}}
    assert not long, f"files over {LINES_PER_FILE} lines: {long}"
    assert max(full.values()) <= FILES_PER_FOLDER, f"folders over {FILES_PER_FOLDER} files: {full}"


if __name__ == "__main__":
    CONTRIBUTING.write_text(drawn(CONTRIBUTING.read_text()))
