"""Where a record comes from: commit, day, kind of machine and versions, which every record that the library writes has."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tinyredux.files import IS_CHECKOUT, ROOT

PACKAGES = ("numpy", "torch", "unicorn")


def provenance() -> dict[str, Any]:
    """Returns what a record says of its origin; nothing in it names a user, a machine or a folder.

    `commit`: of the checkout, with "+" where its files were changed since; None for an installed package, which the record's
    `tinyredux` names. `date`: the day in UTC. `machine`: processor family, number of cores, system. `versions`: of Python and of
    the packages that numbers depend on, None for one that is missing.
    """
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"
    return {"commit": _commit(), "date": datetime.now(UTC).date().isoformat(), "machine": machine, "versions": _versions()}


@cache
def _commit() -> str | None:
    if not IS_CHECKOUT:
        return None
    try:
        head, changed = (
            subprocess.check_output(["git", "-C", str(ROOT), *words], stderr=subprocess.DEVNULL, text=True, timeout=20).strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):  # an archive without .git, or a machine without git
        return None
    return head + "+" * bool(changed)


@cache
def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
