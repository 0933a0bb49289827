"""The notebooks of the labs: which there are, what is handed out, their solutions, and a class's pack. Needs Jupyter to prove."""

import ast
import copy
import inspect
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tinyredux.course.exercises import EXERCISES
from tinyredux.course.teaching import VERDICT_MIME, Exercise
from tinyredux.device import BuildError, MissingTool
from tinyredux.files import IS_CHECKOUT, ROOT, check_is_file, write_whole

CELL_SECONDS = 600
QUIET = ["--log-level=ERROR"]  # a kernel warns that it listens on this computer
NEEDS_BOARD = "board"  # cells with this tag are left out when nobody has attached a board
LAB_FOLDER = ROOT / "book" / "labs"
LARGEST_BYTES = 20_000_000
Notebook = dict[str, Any]
PACK_README = Path(__file__).with_name("pack_readme.txt")


def list_labs() -> dict[Path, tuple[str, ...]]:
    """Returns the exercises in each lab's notebook, in the order of their names."""
    return {path: named_in(text_of(path), path) for path in sorted(LAB_FOLDER.glob("lab*.ipynb"))}


def find_labs(name: str = "") -> list[Path]:
    """Returns the labs whose file begins with a name such as lab1, or all. Raises ValueError where there is none."""
    found = [path for path in list_labs() if path.stem.startswith(name)]
    if not found:
        raise ValueError(f"no lab begins with {name!r}; there are {', '.join(path.stem for path in list_labs())}")
    return found


def text_of(path: Path) -> str:
    """Returns the text of a notebook's file. Raises ValueError for what is no readable file of a sensible size."""
    try:
        check_is_file(path, "notebook", f"such as {LAB_FOLDER.name}/lab1_*.ipynb", LARGEST_BYTES)
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as failure:
        raise ValueError(f"{path} cannot be read: {failure.strerror}") from None


def named_in(text: str, path: Path, lab: str = "") -> tuple[str, ...]:
    """Returns the exercises of a lab, else of the one that the text of a notebook names first. Raises ValueError for no lab."""
    found = re.search(r"\b(lab\d+)\.\w", text) or re.search(r"(lab\d+)", path.name)
    lab = lab or (found[1] if found else "")
    names = tuple(name for name in EXERCISES if name.startswith(f"{lab}."))
    if not names:
        raise ValueError(f"{path} is no lab: no exercise of {', '.join(EXERCISES)} is named in it")
    return names


def minutes(path: Path) -> str:
    """Returns how long a lab takes, as its first cell says."""
    found = re.search(r"\*\*Time:\*\* ([^.]*)", text_of(path))
    return found[1] if found else ""


def release(
    out: Path, name: str = "", *, seed: str = "0", due: str = "", students: Sequence[str] = (), prove: bool = True
) -> list[dict[str, Any]]:  # fmt: skip
    """Writes labs as they are handed out, a folder for each student where they are named, and returns what was proven of each.

    Outputs are gone, STUDENT_ID stands in the cell of parameters, and the cases that a check draws follow from it and from the
    class's seed. Each lab is run once in a new kernel: every stub has to fail its check and every other cell has to run, else
    BuildError. Raises ValueError where a file is there already, as it may be somebody's work.
    """
    targets = {lab: [out / student / lab.name for student in students] or [out / lab.name] for lab in find_labs(name)}
    for there in (path for paths in targets.values() for path in paths if path.exists()):
        raise ValueError(f"{there} is there already; give a folder without labs")
    rows = []
    for lab, paths in tqdm(targets.items(), "labs", leave=False, disable=None):
        stubs = _handed_out(json.loads(text_of(lab)), seed, due)
        row = {"lab": lab.stem, "files": len(paths)}
        if prove:
            row |= _prove(stubs, lab, named_in(text_of(lab), lab))
        for path, student in zip(paths, students or ("",), strict=True):
            text = json.dumps(stubs, indent=1, ensure_ascii=False)
            write_whole(path, text.replace(json.dumps('STUDENT_ID = ""\n'), json.dumps(f"STUDENT_ID = {student!r}\n")) + "\n")
        rows.append(row)
    return rows


def _handed_out(notebook: Notebook, seed: str, due: str) -> Notebook:
    found = copy.deepcopy(notebook)
    for cell in found["cells"]:
        if cell["cell_type"] != "code":  # a link to a chapter leads nowhere from where a student has the lab
            cell["source"] = [re.sub(r"\[([^\]]*)\]\(\.\./[^)]*\)", r"\1", "".join(cell["source"]))]
            continue
        cell |= {"outputs": [], "execution_count": None}
        if "parameters" in cell["metadata"].get("tags", []):
            kept = [line for line in "".join(cell["source"]).splitlines() if not line.startswith("SEED")]
            lines = ['STUDENT_ID = ""', f"SEED = {seed + ' '!r} + STUDENT_ID", *kept]
            cell |= {"source": [line + "\n" for line in lines[:-1]] + lines[-1:], "metadata": {"tags": ["parameters"]}}
    told = "\n\nWrite your name or number between the quotes of `STUDENT_ID` in the first cell of code."
    found["cells"][0]["source"] = ["".join(found["cells"][0]["source"]) + told + (f" **Due: {due}.**" if due else "")]
    return found


def run_notebook(notebook: Any, name: str, folder: Path) -> None:
    """Runs the cells of a notebook in a new kernel that works in `folder`; their outputs are in it afterwards.

    Raises BuildError with the first cell that does not run.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    client = NotebookClient(
        notebook, timeout=CELL_SECONDS, kernel_name="python3", record_timing=False, skip_cells_with_tag=NEEDS_BOARD,
        resources={"metadata": {"path": str(folder)}}, extra_arguments=QUIET,
    )  # fmt: skip
    try:
        client.execute()
    except CellExecutionError as error:
        raise BuildError(f"{name} stopped:\n{error}") from None


def _run(notebook: Notebook, name: str) -> list[Any]:
    """Returns the cells of code of a notebook that ran. Raises BuildError with the first that does not run."""
    import nbformat

    made = nbformat.reads(json.dumps(notebook), as_version=4)  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as folder:
        run_notebook(made, name, Path(folder))
    return [cell for cell in made.cells if cell.cell_type == "code"]


def _prove(notebook: Notebook, lab: Path, names: Sequence[str]) -> dict[str, Any]:
    start, cells = time.monotonic(), _run(notebook, lab.stem)
    told = [out.data[VERDICT_MIME] for cell in cells for out in cell.outputs if VERDICT_MIME in out.get("data", {})]
    if sorted(verdict["exercise"] for verdict in told) != sorted(names):
        raise BuildError(f"{lab.stem} checks {', '.join(verdict['exercise'] for verdict in told)}; expected {', '.join(names)}")
    if right := [verdict["exercise"] for verdict in told if verdict["passed"]]:
        raise BuildError(f"{lab.stem} is not fit to be handed out: {', '.join(right)} is right as it stands")
    return {"stubs_failed": len(told), "cells_run": len(cells), "seconds": round(time.monotonic() - start)}


def solution_of(exercise: Exercise) -> str:
    """Returns a solution as Python that a lab's cell can hold: a value, or the function without annotations and decorator."""
    short = exercise.name.partition(".")[2]
    if exercise.expected.__name__ == "<lambda>":
        return f"{short} = {exercise.expected()!r}"
    tree = ast.parse(textwrap.dedent(inspect.getsource(exercise.expected)))
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
            node.decorator_list.clear()
    return ast.unparse(tree)


def solved(notebook: Notebook) -> Notebook:
    """Returns a lab with a solution in the place of each stub."""
    found = copy.deepcopy(notebook)
    for cell in found["cells"]:
        checked = re.search(r'check\("(lab\d+\.\w+)".*', source := "".join(cell["source"]))
        if checked and "exercise" in cell["metadata"].get("tags", []):
            source = f"{solution_of(EXERCISES[checked[1]])}\n\n\n{checked[0]}"
            cell["source"] = source.splitlines(keepends=True)
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    return found


def solutions(out: Path, name: str = "") -> list[dict[str, Any]]:
    """Writes labs with solutions, for instructors, and returns the points that each earns where submissions are marked."""
    from tinyredux.course.labs import check_lab

    rows = []
    for lab in find_labs(name):
        text = json.dumps(solved(json.loads(text_of(lab))), indent=1, ensure_ascii=False) + "\n"
        verdicts = check_lab(write_whole(out / f"{lab.stem}_solution.ipynb", text))
        rows.append({"lab": lab.stem, "points": sum(v.points for v in verdicts), "most": sum(v.most for v in verdicts)})
    return rows


def pack(out: Path, seed: str = "0") -> list[dict[str, Any]]:
    """Writes what a class without a network needs into a folder, and returns what is there: for each part how many files, and
    what is missing, with the command that gets it. Nothing that fails stops the rest. It takes minutes, and says what it does."""
    from tinyredux.course import book

    wheels, rows, doing = out / "wheels", [], tqdm(bar_format="{desc} ({elapsed})", leave=False, disable=None)
    wheels.mkdir(parents=True, exist_ok=True)
    doing.set_description("wheel of tinyredux")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    local = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(ROOT)]
    trouble = _ran(local) if IS_CHECKOUT else "this is no checkout, and has no source to make a wheel of"
    rows.append(_part("wheel of tinyredux", [*wheels.glob("tinyredux-*.whl")], trouble))
    ours = next(iter(wheels.glob("tinyredux-*.whl")), None)
    doing.set_description("wheels of what it needs, 300 MB and more")
    pinned = ["-c", str(ROOT / "constraints.txt")] if (ROOT / "constraints.txt").is_file() else []
    others = [*pip, "download", "-d", str(wheels), *pinned, f"{ours}[lab]" if ours else "tinyredux[lab]"]
    trouble = _ran(others)
    rows.append(_part("wheels of what it needs", [path for path in wheels.iterdir() if path != ours], trouble))
    doing.set_description("pages of the book")
    try:
        book.render(out / "book")
        trouble = ""
    except (MissingTool, BuildError) as wrong:
        trouble = str(wrong)
    for left in ("doctrees", "jupyter_execute"):
        shutil.rmtree(out / left, ignore_errors=True)
    rows.append(_part("pages of the book", [*(out / "book").glob("**/*.html")], trouble))
    doing.set_description("records and labs")
    shutil.copytree(ROOT / "data" / "records", out / "records", dirs_exist_ok=True)
    rows.append(_part("records", [*(out / "records").rglob("*.json")]))
    try:
        release(out / "labs", seed=seed, prove=False)
        trouble = ""
    except ValueError as wrong:
        trouble = str(wrong)
    rows.append(_part("labs", [*(out / "labs").glob("*.ipynb")], trouble))
    kind = {"python": platform.python_version().rpartition(".")[0], "system": f"{platform.system()} {platform.machine()}"}
    write_whole(out / "README.txt", PACK_README.read_text(encoding="utf-8").format(**kind))
    doing.close()
    return rows


def _ran(command: list[str]) -> str:
    """Returns why a command failed, by its first error, and the command; empty where it did not."""
    done = subprocess.run(command, capture_output=True, text=True)
    lines = (done.stderr or done.stdout).strip().splitlines() or ["no words"]
    why = next((line for line in lines if line.startswith("ERROR")), lines[-1])
    return f"{why}; where there is a network, run: {' '.join(command)}" if done.returncode else ""


def _part(what: str, files: list[Path], missing: str = "") -> dict[str, Any]:
    return {"what": what, "files": len(files), "bytes": sum(path.stat().st_size for path in files), "missing": missing}
