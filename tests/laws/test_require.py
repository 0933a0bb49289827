"""TR_REQUIRE: where a machine is said to have everything, a skipped test is a failure."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = """import pytest

def test_compiler():
    pytest.skip("arm-none-eabi-gcc is missing")

@pytest.mark.skipif(True, reason="needs CIFAR-10")
def test_data():
    pass

def test_allowed():
    pytest.skip("sizes are of another compiler")

@pytest.mark.xfail
def test_expected_to_fail():
    assert False
"""


@pytest.mark.parametrize(
    ("required", "outcome"),
    [
        ("", "4 skipped, 1 xfailed"),
        ("compiler", "1 failed, 3 skipped, 1 xfailed"),
        ("all", "1 failed, 1 skipped, 1 xfailed, 2 errors"),
        ("compilers", "TR_REQUIRE names compilers, expected all, or some of compiler, library, data, sandbox, browser, offline"),
    ],
)
def test_what_is_required_is_not_skipped(tmp_path: Path, required: str, outcome: str) -> None:
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "test_skipped.py").write_text(SKIPPED)
    (tmp_path / "test_whole.py").write_text("import pytest\npytest.importorskip('no_such_library_of_ours')\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider --continue-on-collection-errors\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:nbval", "-p", "no:xdist", "-p", "no:hypothesispytest"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "TR_REQUIRE": required}, capture_output=True, text=True)
    assert outcome in done.stdout + done.stderr, done.stdout + done.stderr


def test_every_reason_says_what_is_missing_or_is_allowed() -> None:
    """A reason of our own tests that is in neither table of conftest.py would fail on every machine that sets TR_REQUIRE."""
    text = "".join(path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")) if path.name != Path(__file__).name)
    reasons = re.findall(
        r"""pytest\.skip\(\s*f?"(.+?)"|skipif\([^#]+?reason="(.+?)"|reason="([^"]+is not installed[^"]*)\"""", text
    )
    listed = (ROOT / "conftest.py").read_text().partition("NEEDS = {")[2].partition("def ")[0]
    words = re.findall(r'"([^"]+)"', listed)
    unknown = {found for groups in reasons for found in groups if found and not any(word in found for word in words)}
    assert len(reasons) > 15 and unknown == set()
