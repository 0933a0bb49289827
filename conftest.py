"""How pytest treats the book, and what may be skipped.

Cells that need a board are skipped without --board, and so is the rest of a chapter after an exception. Other tests are skipped
for want of a compiler, a library or data. TR_REQUIRE says which of these this machine has, "all" or some of the names in NEEDS
with commas between: a test that is skipped for want of one of them fails.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator
from typing import Any

import pytest

# What can be missing, by words of the reasons for which tests are skipped
NEEDS = {
    "compiler": ("arm-none-eabi", "qemu-system-arm"),
    "library": ("could not import", "is not installed"),
    "data": ("CIFAR-10", "TINYREDUX_DATA", "no synthetic weights", "the benchmark's file", "the file of"),
    "sandbox": ("bubblewrap",),
    "browser": ("Chromium",),
    "offline": ("PlatformIO",),  # the pieces of tools/pio_offline.py
}
ALLOWED = (  # nothing is missing
    "raised an exception",  # an earlier cell, which fails
    "a shared library may leave a symbol open",
    "sizes are of",  # of another version of the compiler
)


def must_not_skip(reason: str, required: str) -> bool:
    """Returns whether a test that is skipped for `reason` fails where TR_REQUIRE is `required`; an unknown reason always does."""
    need = next((need for need, words in NEEDS.items() if any(word in reason for word in words)), None)
    if need is None:
        return bool(required) and not any(words in reason for words in ALLOWED)
    return required == "all" or need in required.split(",")


def _fail_if_required(report: pytest.TestReport | pytest.CollectReport) -> None:
    required, reason = os.environ.get("TR_REQUIRE", ""), report.longrepr
    words = reason[2] if isinstance(reason, tuple) else str(reason)
    if report.skipped and must_not_skip(words, required):
        report.outcome, report.longrepr = "failed", f"{words}, but TR_REQUIRE is {required!r} (conftest.py)"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --board."""
    parser.addoption("--board", action="store_true", help="also run the cells tagged `board`: one is plugged in")


def pytest_configure(config: pytest.Config) -> None:
    """Names the marker that every cell of a chapter gets: choose by -m chapter, or leave out by -m 'not chapter'."""
    config.addinivalue_line("markers", "chapter: a cell of the book")
    unknown = {*os.environ.get("TR_REQUIRE", "").split(",")} - {"", "all", *NEEDS}
    if unknown:
        raise pytest.UsageError(f"TR_REQUIRE names {', '.join(sorted(unknown))}, expected all, or some of {', '.join(NEEDS)}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Returns one process more than there are cores for `-n auto`: tests that wait for a kernel or a wire compute nothing."""
    return 1 + (os.cpu_count() or 1)


def pytest_unconfigure() -> None:
    """Keeps the kernels' pipes, closed by the interpreter's end, from writing below pytest's closing line."""
    warnings.filterwarnings("ignore", category=ResourceWarning)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks the cells of the book; skips those that need a board where none was promised.

    What takes longest comes first, so that no process works alone at the end: chapters, then files with a slow test.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not hasattr(item, "cell"), item.path not in slow))
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
    for_board = hasattr(item, "cell") and item.options["skip"]
    if not for_board and not hasattr(report, "wasxfail"):
        _fail_if_required(report)
    if hasattr(item, "cell") and call.excinfo is not None and "caused an exception" in str(call.excinfo.value):
        item.parent.raised_in = item.name  # type: ignore[union-attr]
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Does for whole modules, which `importorskip` skips, what is done for tests."""
    report = yield
    _fail_if_required(report)
    return report
