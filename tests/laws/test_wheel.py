"""The wheel: what is installed outside a checkout measures, compiles, simulates and lists the labs, and is never written to."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import user_nets

ROOT = Path(__file__).resolve().parents[2]
PACKED = "tinyredux firmware data book tools platformio.ini pyproject.toml setup.py README.md LICENSE LICENSE-book".split()
WITHOUT = """import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "safetensors", "matplotlib", "IPython", "nbformat", "nbclient", "jupyter_client"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nowhere())
from tinyredux.__main__ import main
main()
"""
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing")
pytestmark = pytest.mark.slow


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with the package in `site`: pip makes the wheel from a source distribution of a copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    checkout = folder / "checkout"
    for name in PACKED:
        source, target = ROOT / name, checkout / name
        ignored = shutil.ignore_patterns("__pycache__", "generated")
        _ = shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy(source, target)
    (checkout / "build" / "lib" / "tinyredux").mkdir(parents=True)
    (checkout / "build" / "lib" / "tinyredux" / "left_by_an_earlier_build.py").touch()
    pack = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    subprocess.run([sys.executable, "-c", pack], cwd=checkout, check=True, capture_output=True)
    (sources,) = folder.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--no-compile", "--target", str(folder / "site"), str(sources)], check=True)
    (folder / "work").mkdir()
    shutil.copy(user_nets.__file__, folder / "work" / "own.py")
    return folder


def call(home: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs Python with the installed package alone on its path, in a folder and with a home that hold nothing of a checkout."""
    left = {name: value for name, value in os.environ.items() if not name.startswith(("TINYREDUX", "XDG", "PYTHON"))}
    environment = {**left, "PYTHONPATH": str(home / "site"), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(home / "user")}
    done = subprocess.run([sys.executable, *arguments], cwd=home / "work", env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def verbs(home: Path, *commands: str) -> list[dict[str, object]]:
    """Returns what verbs answer, all of them in one process."""
    run = "import sys; from tinyredux.cli.app import main; sys.exit(max(main([*c.split(), '--json']) for c in sys.argv[1:]))"
    return [json.loads(line) for line in call(home, "-c", run, *commands).stdout.splitlines()]


def test_the_wheel_holds_what_the_library_reads(home: Path) -> None:
    inside = files_below(home / "site" / "tinyredux")
    package = {name for name in files_below(ROOT / "tinyredux") if "__pycache__" not in name}
    assert package - inside == set() and {name for name in inside - package if not name.startswith("_data/")} == set()
    named = re.findall(r"(?:pre:|post:|ldscript = )(\S+)", (ROOT / "platformio.ini").read_text())
    for name in ["platformio.ini", "firmware/boards/platformio.ini", *named]:
        assert f"_data/{name}" in inside, f"{name} is not in the wheel; setup.py says what goes there"
    firmware = [f"firmware/{name}" for name in ("include", "kernels", "mlperf", "ports", "runtime")]
    for folder in (*firmware, "data/records", "book/labs"):
        assert {f"_data/{folder}/{path.name}" for path in (ROOT / folder).iterdir() if path.is_file()} <= inside, folder


def test_an_installed_package_without_extras_lists_plans_and_says_what_is_missing(home: Path) -> None:
    found = call(home, "-c", "import tinyredux; print(tinyredux.__file__)").stdout
    assert found.strip() == str(home / "site" / "tinyredux" / "__init__.py")
    bare = home / "work" / "bare.py"
    bare.write_text(WITHOUT)
    labs = json.loads(call(home, str(bare), "lab", "list", "--json").stdout)
    assert len(labs["labs"]) == 9 and len([*Path(labs["folder"]).glob("lab*.ipynb")]) == 9
    assert "pip install 'tinyredux[torch]'" in call(home, str(bare), "plan", "lenet", code=3).stderr
    assert "needs a checkout" in call(home, "-m", "tinyredux", "reproduce", "--profile", "full", code=3).stderr


@NEEDS_COMPILER
def test_an_installed_package_measures_compiles_and_simulates(home: Path) -> None:
    before = files_below(home / "site")
    own = "own.py:make --data random"
    measured, written = verbs(home, f"measure {own} --images 1", f"compile {own} --out model")
    assert measured["bit_exact"] is True and written["model_hash"] == measured["model_hash"]
    (elf,) = (home / "user" / ".cache" / "tinyredux" / "build").rglob("firmware.elf")
    simulated = call(home, "-m", "tinyredux", "simulate", str(elf), "--board", "disco_f469ni", code=3).stdout
    assert f"READY {measured['model_hash']}" in simulated and "waits for console input" in simulated
    assert files_below(home / "site") == before
