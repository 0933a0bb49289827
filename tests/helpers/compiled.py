"""C of tests, compiled once: what was made of the same text by the same command is kept beside the library's own builds."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tinyredux.device import build

FOLDER = build.default_build_folder() / "tests"  # shared by all processes that test at once
INCLUDE = build.ROOT / "firmware" / "include"
KERNELS = build.ROOT / "firmware" / "kernels"
BOARDS = {"cortex-m4": "disco_f469ni", "cortex-m7": "nucleo_f746zg", "cortex-m33": "nucleo_u575zi_q"}  # one of each core
NEEDS_COMPILER = pytest.mark.skipif(shutil.which(build.CROSS_COMPILER) is None, reason="arm-none-eabi-gcc is missing")


@cache
def headers() -> bytes:
    """Returns the text of all headers of the kernels."""
    return b"".join(path.read_bytes() for path in sorted(INCLUDE.glob("*.h")))


def made(command: Sequence[str], *files: Path, suffix: str = "") -> Path:
    """Returns what a compiler makes of files. Their text is what counts, so they must include none but the kernels' headers."""
    parts = [build.compiler_version(command[0]), *command[1:], *(path.name for path in files)]
    texts = [headers(), *(path.read_bytes() for path in files)]
    digest = hashlib.sha256(b"\0".join([*map(str.encode, parts), *texts])).hexdigest()[:16]
    target = FOLDER / f"{files[0].stem}-{digest}{suffix}"
    if not target.is_file():
        FOLDER.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.{os.getpid()}")
        subprocess.run([*command, f"-I{INCLUDE}", *map(str, files), "-o", str(partial)], check=True)
        partial.replace(target)
    return target


def objects(command: Sequence[str], *files: Path) -> list[Path]:
    """Returns one object file a source, each made by itself."""
    return [made([*command, "-c"], path, suffix=".o") for path in files]


def kernels(command: Sequence[str]) -> list[Path]:
    """Returns the object files of our C kernels."""
    return objects(command, *sorted(KERNELS.glob("*.c")))


def host(*flags: str) -> list[str]:
    """Returns the command that compiles for this computer."""
    return [*build.host_command(), *build.option("flags", "host").split(), *flags]


def cross(core: str, *flags: str) -> list[str]:
    """Returns the command that compiles for a core."""
    return [build.CROSS_COMPILER, *build.option("flags", "common").split(), *build.option(core, "flags").split(), *flags]


class Process:
    """A program of this computer that computes one case after another: it reads numbers and arrays, and writes an output."""

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def output(self, numbers: Sequence[int], arrays: Sequence[np.ndarray], size: int) -> np.ndarray:
        """Returns `size` bytes of output. Raises RuntimeError with the sanitizer's report where the program stopped."""
        assert self.process.stdin and self.process.stdout and self.process.stderr
        try:
            self.process.stdin.write(struct.pack(f"<{len(numbers)}i", *numbers) + b"".join(array.tobytes() for array in arrays))
            self.process.stdin.flush()
            output = self.process.stdout.read(size)
        except BrokenPipeError:
            output = b""
        if len(output) != size:
            raise RuntimeError(f"the program stopped on {numbers}:\n{self.process.stderr.read().decode()[:4000]}")
        return np.frombuffer(output, np.int8)

    def close(self) -> str:
        """Ends the process and returns what it wrote to its error output."""
        return self.process.communicate()[1].decode()
