"""The pages before and after the chapters: what is made from the library and the records is what stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pages
import pytest

from tinyredux import board_names, nets
from tinyredux.course.claims import all_claims
from tinyredux.datasets import SHAPES


@pytest.mark.parametrize("path", pages.pages(), ids=lambda path: path.stem)
def test_a_page_is_what_the_library_and_the_records_say(path: Path) -> None:
    assert path.read_text() == pages.filled(path.read_text()), "run: python book/pages.py"


def test_what_is_made_is_shown_on_one_page() -> None:
    found = [name for path in pages.pages() for _, name, *_ in pages.BLOCK.findall(path.read_text())]
    assert sorted(found) == sorted(pages.BLOCKS)


def first_words(block: str) -> list[str]:
    """Returns the name in code at the beginning of each row."""
    return re.findall(r"^[|-] `([^`]+)`", block, re.M)


def test_the_cast_is_complete() -> None:
    assert first_words(pages.networks()) == first_words(pages.stories()) == nets.names()
    assert first_words(pages.boards()) == list(board_names())
    assert first_words(pages.data_sets()) == [*SHAPES, "random", "FILE.npz"]


def test_tables_of_pages_have_six_columns_at_most() -> None:
    for make in pages.BLOCKS.values():
        rows = [line for line in make().splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) <= 1 and all(line.count("|") <= 7 for line in rows)


def test_every_claim_that_has_commands_is_in_the_appendix() -> None:
    tried = [claim for claim in all_claims() if claim.evidence]
    assert first_words(pages.claims()) == [claim.id for claim in tried]
    shown = pages.commands()
    for command in {command for claim in tried for command in claim.evidence.commands}:
        assert shown.count(f" {command}\n") == 1
    times = json.loads((pages.DATA / "records" / "claim_times.json").read_text())
    assert {run["command"] for run in times["runs"]} <= {command for claim in tried for command in claim.evidence.commands}


def needs(path: Path) -> set[str]:
    """Returns the chapters that a chapter's first cell says it needs."""
    first = "".join(json.loads(path.read_text())["cells"][0]["source"]).partition("**Needs:**")[2]
    return set(re.findall(r"\]\((\w\w)_\w+\.ipynb\)", first))


def test_a_way_through_the_book_takes_along_what_its_chapters_need() -> None:
    """But that of researchers, who know the methods."""
    for name in pages.PATHS.keys() - {"research"}:
        chapters = pages.PATHS[name][0].split()
        for i, chapter in enumerate(chapters):
            assert needs(next(pages.BOOK.glob(f"{chapter}_*.ipynb"))) <= set(chapters[:i]), f"{name}: chapter {chapter}"


def test_the_index_states_the_minutes_that_chapters_and_labs_state() -> None:
    text = (pages.BOOK / "index.md").read_text()
    cards = re.findall(r"^\*\*\[[^]]+\]\((\w+)\.ipynb\)\*\*\n\n.*; (\d+) minutes$", text, re.M)
    labs = re.findall(r"^- \[Lab \d\. [^]]+\]\((labs/\w+)\.ipynb\).*; (\d+) minutes$", text, re.M)
    assert len(cards) >= 17 and len(labs) >= 6
    for name, stated in (*cards, *labs):
        assert pages.minutes(pages.BOOK / f"{name}.ipynb") == int(stated), name
