"""The firmware's own tests without PlatformIO: every kernel's vectors on this computer under sanitizers, and in QEMU."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from kernel_vectors import write_vectors

from tinyredux.device import build
from tinyredux.files import ROOT

TEST = ROOT / "firmware" / "test" / "test_kernels"
QEMU = "qemu-system-arm -machine netduinoplus2 -nographic -monitor none -serial null -serial null -serial stdio".split()


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Returns the folder with the vectors and their names."""
    folder = tmp_path_factory.mktemp("vectors")
    return folder, write_vectors(folder, "cortex-m4")


def check(vectors: tuple[Path, list[str]], target: Path, compiler: list[str], kind: str, board: str, *run: str) -> None:
    """Compiles the test program of the vectors. Fails unless every vector passes, on this computer or in what `run` begins."""
    folder, names = vectors
    runtime = [path for path in build.source_files(kind) if path.stem not in ("main", "link")]
    sources = [*runtime, *TEST.glob("*.c"), *folder.glob("*.c"), *folder.glob("*.S")]
    includes = [f"-I{ROOT / 'firmware' / 'include'}", f"-I{ROOT / 'firmware' / 'boards' / board}", f"-I{folder}"]
    program = target / "program"
    subprocess.run([*compiler, *includes, *map(str, sources), "-o", str(program)], check=True, cwd=ROOT)
    done = subprocess.run([*run, str(program)], capture_output=True, text=True, timeout=120)
    assert done.stdout.split("\n")[:-1] == [*(f"PASS {name}" for name in names), "END"], done.stdout + done.stderr
    assert done.returncode == 0


def test_every_kernel_has_a_vector(vectors: tuple[Path, list[str]]) -> None:
    """Each entry of tinyredux.h is called by the vectors or by the driver that they call."""
    calls = (vectors[0] / "vectors.c").read_text() + (TEST / "kernel_driver.c").read_text()
    entries = set(re.findall(r"^void (tr_\w+)\(", (ROOT / "firmware" / "include" / "tinyredux.h").read_text(), re.MULTILINE))
    assert len(entries) > 20 and {name for name in entries if not re.search(rf"\b{name}\b", calls)} == set()


def test_vectors_under_sanitizers(vectors: tuple[Path, list[str]], tmp_path: Path) -> None:
    flags = [*build.option("flags", "host").split(), *build.option("flags", "sanitize").split(), "-O0", "-Wa,--noexecstack"]
    check(vectors, tmp_path, [*build.host_command(), *flags], "host", "host")


@pytest.mark.skipif(
    not shutil.which("qemu-system-arm") or not shutil.which(build.CROSS_COMPILER), reason="qemu-system-arm is missing"
)
def test_vectors_in_qemu(vectors: tuple[Path, list[str]], tmp_path: Path) -> None:
    flags = [*build.option("flags", "common").split(), *build.option("cortex-m4", "flags").split()]
    link = [*build.option("flags", "link").split(), "-T", str(ROOT / "firmware" / "boards" / "emulator" / "memory.ld")]
    qemu = [*QEMU, "-semihosting-config", "enable=on,target=native", "-kernel"]
    check(vectors, tmp_path, [build.CROSS_COMPILER, *flags, *link], "stm32f4", "emulator", *qemu)
