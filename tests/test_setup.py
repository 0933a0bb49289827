"""Set-up where it may not install: one sentence with the command, exit code 3, nothing tried."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "tools" / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_missing_compiler_without_permission(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(setup, "print", lambda line, **_: said.append(line), raising=False)
    with pytest.raises(SystemExit) as left:
        setup.install_compilers()
    packages = "gcc libc6-dev gcc-arm-none-eabi libnewlib-arm-none-eabi"
    assert left.value.code == 3 and said[-1].endswith(f"run: sudo apt-get install --no-install-recommends {packages}")


def test_no_virtual_environment_without_permission(setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(setup, "PYTHON", tmp_path / "none")
    monkeypatch.setattr(setup, "may_install", lambda: None)
    monkeypatch.setattr(setup, "run", lambda *command: False)
    with pytest.raises(SystemExit) as left:
        setup.make_environment()
    assert left.value.code == 3


def test_constraints_pin_every_package_that_is_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    names = {wanted.split(">")[0].split("=")[0].split("[")[0].lower() for wanted in asked} - {"tinyredux"}
    assert names <= pinned, f"not in constraints.txt: {sorted(names - pinned)}"


def test_every_goal_of_the_makefile_is_there() -> None:
    for goal in ("book", "test", "lab", "chapters", "setup"):
        done = subprocess.run(["make", "-n", goal], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and "tools/setup.py" in done.stdout, goal


def test_no_registry_is_named_in_the_set_up() -> None:
    for path in [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "constraints.txt", *(ROOT / "tools").glob("*.py")]:
        named = path.read_text().replace("https://www.st.com", "").replace("https://api.{__registry", "")
        assert "://" not in named, path.name


def test_the_package_is_found_in_the_folder_above_a_clone(tmp_path: Path) -> None:
    """A clone named like the package, installed as `pip install -e .` does it: its folder does not hide the package."""
    clone, site = tmp_path / "tinyredux", tmp_path / "site"
    shutil.copytree(ROOT / "tinyredux", clone / "tinyredux", ignore=shutil.ignore_patterns("weights", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-book"):
        shutil.copy(ROOT / name, clone)
    build = f"from setuptools.build_meta import build_editable; build_editable({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=clone, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    look = f"import site; site.addsitedir({str(site)!r}); import tinyredux; print(tinyredux.load_ipython_extension.__module__)"
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-S", "-c", look], cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("tinyredux\n", "")
