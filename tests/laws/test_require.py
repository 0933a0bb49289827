"""TR_REQUIRE: where a machine is said to have everything, a skipped test is a failure."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("root_conftest", ROOT / "conftest.py")
assert SPEC is not None and SPEC.loader is not None
conftest = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(conftest)
SKIPPED = """import pytest

def test_compiler():
    pytest.skip("arm-none-eabi-gcc is missing")

@pytest.mark.skipif(True, reason="needs CIFAR-10")
def test_data():
    pass

def test_of_no_reason_that_is_known():
    pytest.skip("for fun")

def test_allowed():
    pytest.skip("sizes are of another compiler")

@pytest.mark.xfail
def test_expected_to_fail():
    assert False
"""


@pytest.mark.parametrize(("required", "ends"), [
    ("all", "2 failed, 1 skipped, 1 xfailed, 2 errors"), ("compiler,library", "2 failed, 2 skipped, 1 xfailed, 1 error"),
    ("", "5 skipped, 1 xfailed"),
])  # fmt: skip
def test_a_skip_becomes_a_failure_of_tests_and_of_modules(required: str, ends: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "test_skipped.py").write_text(SKIPPED)
    (tmp_path / "test_whole.py").write_text("import pytest\npytest.importorskip('no_such_library_of_ours')\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider --continue-on-collection-errors\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:nbval", "-p", "no:xdist", "-p", "no:hypothesispytest"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "TR_REQUIRE": required}, capture_output=True, text=True)
    assert ends in done.stdout, done.stdout + done.stderr


def test_an_unknown_need_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TR_REQUIRE", "compilers")
    with pytest.raises(pytest.UsageError, match="names compilers, expected all, or some of compiler, library, data, sandbox"):
        conftest.pytest_configure(SimpleNamespace(addinivalue_line=lambda *_: None))  # type: ignore[arg-type]


def test_every_reason_says_what_is_missing_or_is_allowed() -> None:
    """A reason of our own tests that is in neither table of conftest.py would fail on every machine that sets TR_REQUIRE."""
    text = "".join(path.read_text() for path in sorted((ROOT / "tests").rglob("*.py")) if path.name != Path(__file__).name)
    reasons = re.findall(
        r"""pytest\.skip\(\s*f?"(.+?)"|skipif\([^#]+?reason="(.+?)"|reason="([^"]+is not installed[^"]*)\"""", text
    )
    listed = (ROOT / "conftest.py").read_text().partition("NEEDS = {")[2].partition("def ")[0]
    words = re.findall(r'"([^"]+)"', listed)
    unknown = {found for groups in reasons for found in groups if found and not any(word in found for word in words)}
    assert len(reasons) > 12 and unknown == set()
