"""The pictures of ideas: their files are what the script draws, chapters show them, and they can be read."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import draw
import pytest
from kit import Drawing

BOOK = Path(__file__).resolve().parents[2] / "book"
PICTURES = draw.pictures()
TEXT = re.compile(r'<text x="([-\d.]+)" y="([-\d.]+)" font-size="([\d.]+)" text-anchor="(\w+)"([^>]*)>([^<]*)</text>')


@cache
def drawn(name: str) -> Drawing:
    """Returns a picture, drawn when it is first asked for: some take seconds."""
    return PICTURES[name]()


def prose(path: Path) -> str:
    """Returns the text of a page: of a chapter, what its markdown cells say."""
    if path.suffix == ".md":
        return path.read_text()
    return "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "markdown")


def shown() -> list[tuple[str, str, str]]:
    """Returns chapter, picture and words of every picture in the chapters."""
    found = []
    for path in sorted([*BOOK.rglob("*.ipynb"), *BOOK.glob("*.md")]):
        found += [(path.stem, match[2], match[1]) for match in draw.SHOWN.finditer(prose(path))]
    return found


@pytest.mark.parametrize("name", PICTURES)
def test_the_file_is_what_the_script_draws(name: str) -> None:
    assert (BOOK / "figures" / f"{name}.svg").read_text() == drawn(name).svg(), "run: python book/figures/draw.py"


def test_every_picture_is_shown_with_its_words() -> None:
    assert {name for _, name, _ in shown()} == set(PICTURES) == {path.stem for path in (BOOK / "figures").glob("*.svg")}
    assert [(chapter, name) for chapter, name, words in shown() if words != drawn(name).alt] == [], (
        "run: python book/figures/draw.py"
    )


@pytest.mark.parametrize("name", PICTURES)
def test_words_lie_within_the_picture_and_are_large_enough(name: str) -> None:
    drawing = drawn(name)
    for x, y, size, anchor, rest, words in TEXT.findall(drawing.svg()):
        assert float(size) >= 12, f"{words!r} is smaller than 9 pt"
        long = len(words) * float(size) * (0.62 if "Mono" in rest else 0.55)
        left = float(x) - {"start": 0, "middle": long / 2, "end": long}[anchor]
        inside = "rotate" in rest or (left >= -2 and left + long <= drawing.width + 2 and 10 <= float(y) <= drawing.height)
        assert inside, f"{words!r} leaves the picture"


def test_captions_count_the_figures_of_a_chapter() -> None:
    for path in sorted(BOOK.glob("*.ipynb")):
        text = "\n".join(
            "".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "markdown"
        )
        numbers = re.findall(r"^\*Figure (\w+)[.](\d+)[.]", text, flags=re.M)
        label = path.stem.partition("_")[0].lstrip("0").upper() or "0"
        assert numbers == [(label, str(i + 1)) for i in range(len(numbers))], path.stem
        pictures = Counter(chapter for chapter, *_ in shown())
        assert len(numbers) >= pictures[path.stem], f"{path.stem} shows a picture without a caption"
