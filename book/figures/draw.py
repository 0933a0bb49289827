"""Draws the pictures of ideas that the chapters show: `python book/figures/draw.py` writes them beside this file.

It also puts each picture's words, for those who cannot see it, where a chapter shows the picture. What a picture says in numbers
is computed, from the example that the chapter computes too. tests/course/test_figures.py compares files and chapters with this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import part1_chip
import part2_memory
import part3_work
from kit import Drawing

FOLDER = Path(__file__).parent
SHOWN = re.compile(r"!\[([^\]]*)\]\((?:\.\./)?figures/(\w+)\.svg\)")


def pictures() -> dict[str, Callable[[], Drawing]]:
    """Returns the functions that draw, by the name of their picture."""
    parts = (part1_chip, part2_memory, part3_work)
    return {
        name: value
        for part in parts
        for name, value in vars(part).items()
        if getattr(value, "__module__", "") == part.__name__ and not name.startswith("_")
    }


def main() -> None:
    """Writes all pictures, and their words into the chapters."""
    drawn = {name: draw() for name, draw in pictures().items()}
    for name, drawing in drawn.items():
        (FOLDER / f"{name}.svg").write_text(drawing.svg(), encoding="utf-8")
    for path in FOLDER.parent.rglob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                text = SHOWN.sub(lambda m: m[0].replace(m[1], drawn[m[2]].alt, 1) if m[1] else m[0], "".join(cell["source"]))
                cell["source"] = text.splitlines(keepends=True)
        written = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        if written != path.read_text(encoding="utf-8"):
            path.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
