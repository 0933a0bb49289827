"""Draws the pictures of ideas that the chapters show: `python book/figures/draw.py` writes them beside this file.

It also puts each picture's words, for those who cannot see it, where a chapter shows the picture. What a picture says in numbers
is computed, from the example that the chapter computes too. tests/course/test_figures.py compares files and chapters with this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import part0_front
import part1_chip
import part2_memory
import part3_work
import part4_everything
from kit import Drawing

FOLDER = Path(__file__).parent
SHOWN = re.compile(r"!\[([^\]]*)\]\((?:\.\./)?figures/(\w+)\.svg\)")


def pictures() -> dict[str, Callable[[], Drawing]]:
    """Returns the functions that draw, by the name of their picture."""
    parts = (part0_front, part1_chip, part2_memory, part3_work, part4_everything)
    return {
        name: value
        for part in parts
        for name, value in vars(part).items()
        if getattr(value, "__module__", "") == part.__name__ and not name.startswith("_")
    }


def with_words(text: str, drawn: dict[str, Drawing]) -> str:
    """Returns a page's text, with each picture's words between the brackets where the page shows it."""
    return SHOWN.sub(lambda shown: f"![{drawn[shown[2]].alt}]({shown[0].rpartition('](')[2]}", text)


def main() -> None:
    """Writes all pictures, and their words into the chapters."""
    drawn = {name: draw() for name, draw in pictures().items()}
    for name, drawing in drawn.items():
        (FOLDER / f"{name}.svg").write_text(drawing.svg(), encoding="utf-8")
    for path in FOLDER.parent.glob("*.md"):
        path.write_text(with_words(path.read_text(encoding="utf-8"), drawn), encoding="utf-8")
    for path in FOLDER.parent.rglob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = with_words("".join(cell["source"]), drawn).splitlines(keepends=True)
        written = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        if written != path.read_text(encoding="utf-8"):
            path.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
