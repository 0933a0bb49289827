"""Cells tagged `compiler` show what one version of the Arm compiler made: instructions, cycles, sizes.

With another version they run, but their numbers are not compared; everything else is, on every machine.
"""

from __future__ import annotations

import pytest

from tinyredux.device.build import CROSS_COMPILER, MissingTool, compiler_version

PINNED = "12.2.1 20221205"  # Debian 12's, with which the chapters were executed


def other_compiler() -> str | None:
    """Returns the version of the Arm compiler here where it is not the chapters' own, else None."""
    try:
        version = compiler_version(CROSS_COMPILER)
    except MissingTool:
        return None
    return None if PINNED in version else version


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves the outputs of `compiler` cells uncompared where another compiler made them."""
    if other_compiler() is None:
        return
    for item in items:
        cell = getattr(item, "cell", None)
        if cell is not None and "compiler" in cell.metadata.get("tags", []):
            item.options["check"] = False  # type: ignore[attr-defined]
