"""How pytest treats the book: cells that need a board are skipped without --board, and so is the rest after an exception."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --board."""
    parser.addoption("--board", action="store_true", help="also run the cells tagged `board`: one is plugged in")


def pytest_configure(config: pytest.Config) -> None:
    """Names the marker that every cell of a chapter gets: choose by -m chapter, or leave out by -m 'not chapter'."""
    config.addinivalue_line("markers", "chapter: a cell of the book")


def pytest_unconfigure() -> None:
    """Keeps the kernels' pipes, closed by the interpreter's end, from writing below pytest's closing line."""
    warnings.filterwarnings("ignore", category=ResourceWarning)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks the cells of the book; skips those that need a board where none was promised."""
    for item in items:
        cell = getattr(item, "cell", None)
        if cell is not None:
            item.add_marker("chapter")
            if "board" in cell.metadata.get("tags", []) and not config.getoption("--board"):
                item.options["skip"] = True  # type: ignore[attr-defined]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a cell when an earlier one of its chapter raised: it could only fail for that reason."""
    culprit = getattr(item.parent, "raised_in", None)
    if culprit is not None:
        pytest.skip(f"{culprit} raised an exception")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Remembers the first cell of a chapter that raised; a cell whose output merely differs does not count."""
    report = yield
    if hasattr(item, "cell") and call.excinfo is not None and "caused an exception" in str(call.excinfo.value):
        item.parent.raised_in = item.name  # type: ignore[union-attr]
    return report
