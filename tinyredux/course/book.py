"""The book: run its chapters again where they lie, run one with other parameters, render them all to HTML."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tinyredux.course.handout import NEEDS_BOARD, QUIET, run_notebook
from tinyredux.device import BuildError, MissingTool, check_is_checkout
from tinyredux.files import ROOT, how_to_install
from tinyredux.measurement import Measurement
from tinyredux.settings import Settings, measure_net

BOOK = ROOT / "book"
OUT = ROOT / "build" / "book"
SPHINX = ("sphinx", "myst_nb", "sphinx_book_theme")
BOOK_NET, BOOK_BOARDS, BOOK_IMAGES = "cifarnet", ("disco_f469ni", "nucleo_f746zg"), 5
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
SERVED_PORT = r"/\S*/tinyredux-board-\w+/port"


def notebooks() -> list[Path]:
    """Returns the chapters, appendices and labs in reading order."""
    return [path for kind in ("[0-9][0-9]_*", "[a-z]_*", "labs/lab*") for path in sorted(BOOK.glob(f"{kind}.ipynb"))]


def find_chapter(name: str) -> Path:
    """Returns the chapter whose file name begins with `name`: "03", "A" or "lab1". Raises ValueError where there is none."""
    check_is_checkout("the book")
    found = [path for path in notebooks() if path.stem.startswith(name.lower())]
    if len(found) != 1:
        raise ValueError(f"{len(found)} chapters begin with {name!r}; there are {', '.join(path.stem for path in notebooks())}")
    return found[0]


def execute_chapters(paths: list[Path] | None = None) -> list[Path]:
    """Runs chapters (None: all) from a fresh kernel and writes them back with their outputs. Returns those that changed.

    Raises BuildError with the chapter and the cell's error; that chapter is left as it was.
    """
    _need("nbformat", "nbclient", "ipykernel")
    import nbformat

    changed = []
    for path in tqdm(paths or notebooks(), "chapters", leave=False, disable=None):
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        run_notebook(notebook, f"chapter {path.stem}", path.parent)
        text = nbformat.writes(_tidy(notebook)) + "\n"  # type: ignore[no-untyped-call]
        if text != path.read_text(encoding="utf-8"):
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def _tidy(notebook: Any) -> Any:
    """Returns the notebook without what differs between runs: times, versions, paths in tracebacks, names of ports."""
    notebook.metadata = KERNEL
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                output.evalue = re.sub(SERVED_PORT, "PORT", output.evalue)
                output.traceback = [f"{output.ename}: {output.evalue}"]
            elif output.output_type == "stream":
                output.text = re.sub(SERVED_PORT, "PORT", output.text)
        if cell.cell_type == "code" and not cell.outputs and NEEDS_BOARD in cell.metadata.get("tags", []):
            cell.execution_count = None
    return notebook


def run_chapter(name: str, parameters: Mapping[str, Any], out: Path = OUT) -> Path:
    """Runs one chapter with other parameters and returns the notebook with its outputs, in `out`; book/ stays as it is.

    Raises ValueError for a parameter that the chapter does not have, BuildError where a cell fails.
    """
    _need("papermill")
    import papermill  # type: ignore[import-untyped]

    path = find_chapter(name)
    known = papermill.inspect_notebook(str(path))
    wrong = [key for key in parameters if key not in known]
    if wrong:
        raise ValueError(f"chapter {path.stem} has no parameter {', '.join(wrong)}; it has {', '.join(known)}")
    out.mkdir(parents=True, exist_ok=True)
    target = out / path.name
    try:
        papermill.execute_notebook(
            str(path), str(target), dict(parameters), cwd=str(path.parent), progress_bar=False, kernel_name="python3",
            extra_arguments=QUIET,
        )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        said = f"{error.ename}: {error.evalue}".strip().partition("\n")[0]
        raise BuildError(
            f"chapter {path.stem} stopped in cell {error.exec_count}: {said}; what it did so far, and where it stopped, "
            f"is in {target}"
        ) from None
    return target


def render(out: Path = OUT / "html") -> Path:
    """Renders the committed outputs of all chapters to HTML that needs no network, and returns its first page.

    Raises MissingTool where Sphinx and its parts are not installed, BuildError with Sphinx's words.
    """
    _need(*SPHINX)
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-d", str(out.parent / "doctrees"), str(BOOK), str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildError(f"Sphinx could not render the book:\n{(done.stdout + done.stderr)[-4000:]}")
    return out / "index.html"


def make_book() -> tuple[Path, list[Measurement]]:
    """Compiles a trained network, builds it with PlatformIO for two boards, runs it in the simulator, renders the book.

    Returns the first page and the measurements, which are also saved beside it. Real images where CIFAR-10 is on this
    machine, else synthetic ones. Raises what `measure` and `render` raise.
    """
    _need(*SPHINX)
    records = []
    for board in tqdm(BOOK_BOARDS, f"{BOOK_NET}, built by PlatformIO", leave=False, disable=None):
        record = measure_net(Settings(BOOK_NET, board=board, images=BOOK_IMAGES, platformio=True))
        record.save(OUT / "records" / record.file_name())
        records.append(record)
    return render(), records


def _need(*modules: str) -> None:
    check_is_checkout("the book")
    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        raise MissingTool(f"the book needs {', '.join(missing)}; run: make setup, or: {how_to_install('lab,book')}")
