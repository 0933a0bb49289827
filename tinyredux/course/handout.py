"""The notebooks of the labs as they are handed out: which there are, and which exercises each holds. Needs no Jupyter."""

from __future__ import annotations

import re
from pathlib import Path

from tinyredux.course.exercises import EXERCISES
from tinyredux.files import ROOT, check_is_file

LAB_FOLDER = ROOT / "book" / "labs"
LARGEST_BYTES = 20_000_000


def list_labs() -> dict[Path, tuple[str, ...]]:
    """Returns the exercises in each lab's notebook, in the order of their names."""
    return {path: named_in(text_of(path), path) for path in sorted(LAB_FOLDER.glob("lab*.ipynb"))}


def text_of(path: Path) -> str:
    """Returns the text of a notebook's file. Raises ValueError for what is no readable file of a sensible size."""
    try:
        check_is_file(path, "notebook", f"such as {LAB_FOLDER.name}/lab1_*.ipynb", LARGEST_BYTES)
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as failure:
        raise ValueError(f"{path} cannot be read: {failure.strerror}") from None


def named_in(text: str, path: Path) -> tuple[str, ...]:
    """Returns the exercises that the text of a notebook is about. Raises ValueError where it is no lab's."""
    labs = re.findall(r"\b(lab\d+)\.\w+", text) + re.findall(r"(lab\d+)", path.name)
    names = tuple(name for name in EXERCISES if labs and name.startswith(f"{labs[0]}."))
    if not names:
        raise ValueError(f"{path} is no lab: no exercise of {', '.join(EXERCISES)} is named in it")
    return names
