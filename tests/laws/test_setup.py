"""Set-up where it may not install: one sentence with the command, exit code 3, nothing tried."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "tools" / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_needs_permission(setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing compiler is the last line, with the command of each system; without it there is no virtual environment."""
    said: list[str] = []
    packages = "gcc libc6-dev gcc-arm-none-eabi libnewlib-arm-none-eabi"
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(setup, "print", lambda line, **_: said.append(line), raising=False)
    monkeypatch.setattr(setup.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(setup, "PYTHON", tmp_path / "none")
    monkeypatch.setattr(setup, "run", lambda *command, quiet=False: False)
    for name, value, words in (
        ("which", lambda name: None, f"run: your package manager, for what Debian calls {packages}"),
        ("which", lambda name: "/usr/bin/apt-get" if name == "apt-get" else None,
         f"run: sudo apt-get install --no-install-recommends {packages}"),
        ("platform", "darwin", "run: xcode-select --install && brew install --cask gcc-arm-embedded"),
    ):  # fmt: skip
        monkeypatch.setattr(setup.sys if name == "platform" else setup.shutil, name, value)
        with pytest.raises(SystemExit) as left:
            setup.install_compilers()
        assert left.value.code == 3 and said[-1].endswith(words)
    with pytest.raises(SystemExit) as left:
        setup.make_environment()
    assert left.value.code == 3


@pytest.fixture
def checkout(setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty checkout in a folder with a space, whose commands are only remembered."""
    home = tmp_path / "a b"
    home.mkdir()
    for name in ("pyproject.toml", "constraints.txt"):
        (home / name).write_text("")
    monkeypatch.setattr(setup, "ROOT", home)
    for name, place in (("VENV", ""), ("PYTHON", "bin/python"), ("STAMP", "tinyredux.stamp"), ("BUSY", "tinyredux.busy")):
        monkeypatch.setattr(setup, name, home / ".venv" / place)
    return home


HOPELESS: dict[str, tuple[str, object]] = {  # what the one sentence says; what is so
    "wsl --install": ("sys.platform", "win32"),
    "move the checkout": ("ROOT", Path("/x:y")),
    "cannot be written to": ("os.access", lambda *_: False),
    "GB free": ("shutil.disk_usage", lambda _: SimpleNamespace(free=10**8)),
    "3.11": ("sys.version_info", (3, 9, 1)),
    "No space left on device": ("make_environment", lambda: (_ for _ in ()).throw(OSError(28, "No space left on device"))),
}


@pytest.mark.parametrize("words", HOPELESS)
def test_where_nothing_could_work(
    words: str, setup: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, value = HOPELESS[words]
    *module, last = name.split(".")
    monkeypatch.setattr(setup, "run", lambda *command, quiet=False: pytest.fail(f"{command} was tried"))
    monkeypatch.setattr(getattr(setup, module[0]) if module else setup, last, value)
    with pytest.raises(SystemExit) as left:
        setup.main()
    said = capsys.readouterr().err
    assert left.value.code == 3 and words in said and len(said.strip().splitlines()) == 1


def test_an_interrupted_set_up_begins_its_environment_anew(
    setup: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was half written looks installed to pip; a failure of pip's own leaves the environment as it was."""
    commands: list[tuple[str, ...]] = []
    pip = [True]

    def run(*command: str, quiet: bool = False) -> bool:
        commands.append(command)
        if "--clear" in command:
            (checkout / ".venv").mkdir(exist_ok=True)
            (checkout / ".venv" / "tinyredux.busy").unlink(missing_ok=True)
        if "install" in command and pip[0] is None:
            raise KeyboardInterrupt
        return "install" not in command or bool(pip[0])

    monkeypatch.setattr(setup, "run", run)
    monkeypatch.setattr(setup, "install_compilers", lambda: None)
    (checkout / ".venv").mkdir()

    def cleared() -> bool:
        return any("--clear" in command for command in commands)

    pip[0] = None  # type: ignore[call-overload]
    assert setup.main() == 130 and "make setup goes on from here" in capsys.readouterr().err and not cleared()
    pip[0] = False
    with pytest.raises(SystemExit) as left:
        setup.main()
    assert left.value.code == 3 and cleared() and "check the network" in capsys.readouterr().err
    commands.clear()
    pip[0] = True
    assert setup.main() == 0 and not cleared()
    commands.clear()
    assert setup.main() == 0 and not any("install" in command for command in commands), "the stamp is right"


def test_two_set_ups_follow_each_other(setup: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    first = setup.wait_for_others()
    threading.Timer(0.3, first.close).start()
    start = time.monotonic()
    setup.wait_for_others().close()
    assert time.monotonic() - start > 0.2 and "another set-up is at work" in capsys.readouterr().err


def test_the_makefile_says_which_python_is_wanted() -> None:
    """It is written for any make: nothing of GNU's own, which BSD's would not read."""
    done = subprocess.run(["make", "PYTHON=/bin/false", "setup"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "needs Python 3.11 or newer, and /bin/false is none" in done.stderr
    text = (ROOT / "Makefile").read_text()
    assert not any(sign in text for sign in ("$(shell", ":=", "?=", "CURDIR", "\nexport", "ifeq"))
    planned = subprocess.run(["make", "-n", "book", "test", "lab", "chapters"], cwd=ROOT, capture_output=True, text=True)
    assert planned.returncode == 0 and "tools/setup.py" in planned.stdout, planned.stderr


def test_constraints_pin_every_package_that_is_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    names = {wanted.split(">")[0].split("=")[0].split("[")[0].lower() for wanted in asked} - {"tinyredux"}
    assert names <= pinned, f"not in constraints.txt: {sorted(names - pinned)}"


def test_no_registry_is_named_in_the_set_up() -> None:
    for path in [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "constraints.txt", *(ROOT / "tools").glob("*.py")]:
        named = path.read_text().replace("https://www.st.com", "").replace("https://api.{__registry", "")
        assert "://" not in named, path.name


def test_the_package_is_found_in_the_folder_above_a_clone(tmp_path: Path) -> None:
    """A clone named like the package, installed as `pip install -e .` does it: its folder does not hide the package."""
    clone, site = tmp_path / "tinyredux", tmp_path / "site"
    shutil.copytree(ROOT / "tinyredux", clone / "tinyredux", ignore=shutil.ignore_patterns("weights", "__pycache__"))
    for name in ("pyproject.toml", "setup.py", "platformio.ini", "README.md", "LICENSE", "LICENSE-book"):
        shutil.copy(ROOT / name, clone)
    build = f"from setuptools.build_meta import build_editable; build_editable({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=clone, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    look = f"import site; site.addsitedir({str(site)!r}); import tinyredux; print(tinyredux.load_ipython_extension.__module__)"
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-S", "-c", look], cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("tinyredux\n", "")
    assert not (clone / "tinyredux" / "_data").exists() and not [*site.rglob("platformio.ini")]  # they are used where they lie


def test_continuous_integration_does_what_make_does(setup: ModuleType) -> None:
    """The workflow installs the compilers that set-up would and runs `make test`; the hooks before a commit are parts of that."""
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert "run: make test\n" in workflow and " ".join((*setup.ARM_COMPILER, *setup.EMULATOR)) in workflow
    hooks = re.findall(r"entry: \.venv/bin/(.*)", (ROOT / ".pre-commit-config.yaml").read_text())
    done = [line.partition("$(BIN)/")[2].partition(" &")[0] for line in (ROOT / "Makefile").read_text().splitlines()]
    assert hooks == ["ruff check", "ruff format --check", "mypy"] and set(hooks) < set(done)
