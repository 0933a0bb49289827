"""The page of the library's names shows what Python would call, and every name of a chapter that can be shown."""

from __future__ import annotations

import importlib
import inspect
import re

import reference

import tinyredux


def test_the_page_shows_what_is_imported() -> None:
    found = reference.library()
    assert set(tinyredux.__all__) <= set(found) and len(found) > len(tinyredux.__all__) + 50
    for name, one in found.items():
        thing = getattr(importlib.import_module(one.module), name)
        assert one.source in inspect.getsource(inspect.unwrap(thing)), name
        assert inspect.getdoc(thing), f"{one.module}.{name} has no docstring"
        assert not one.pages or all((reference.BOOK / f"{page}.ipynb").is_file() for page in one.pages)


def test_functions_that_a_cell_calls_are_found_by_their_modules() -> None:
    cells = [
        "from tinyredux.notebook import plots\nfrom tinyredux import memory, table",
        "%measure lenet\nplots.timeline(tr.load(1))",
        "%%firmware\nint",
    ]
    assert reference.names_of(cells) == {"table": "tinyredux", "timeline": "tinyredux.notebook.plots", "load": "tinyredux"}


def test_every_public_name_says_its_chapter() -> None:
    for name in sorted({*tinyredux.__all__} - {"check", "hint"}):  # these are the labs'
        said = re.findall(r"Chapter (\d+)[.]", inspect.getdoc(getattr(tinyredux, name)) or "")
        assert said and all([*reference.BOOK.glob(f"{int(number):02}_*.ipynb")] for number in said), name
