"""A second opinion on instruction counts: the same ELF in QEMU, counted by a plugin of ours."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tinyredux.boards import Board
from tinyredux.simulator.hooks import compiled_library

PLUGIN = Path(__file__).with_name("qemu_count.c")
MACHINES = {"netduinoplus2": (0x20000000, 128 * 1024)}  # the RAM that a program may use


@dataclass(frozen=True)
class SecondOpinion:
    """What QEMU says of a run: instructions up to the program's end, what it printed, its exit code."""

    instructions: int
    console: str
    exit: int


def count_in_qemu(elf: Path, board: Board, timeout_s: float = 60.0) -> SecondOpinion:
    """Returns QEMU's count for a program that ends by semihosting exit, linked for RAM that QEMU's machine has.

    Raises ValueError when the board has no QEMU machine or the program does not end, RuntimeError when a tool is missing.
    """
    machine = board.qemu_machine
    if machine is None:
        raise ValueError(f"QEMU has no machine for {board.name}; disco_f469ni has one ({', '.join(MACHINES)})")
    emulator, plugin = shutil.which("qemu-system-arm"), compiled_library(PLUGIN)
    if emulator is None:
        raise RuntimeError("qemu-system-arm is missing: apt-get install --no-install-recommends qemu-system-arm")
    with tempfile.TemporaryDirectory() as folder:
        counted = Path(folder) / "count"
        command = [emulator, "-M", machine, "-kernel", str(elf), "-nographic", "-monitor", "none", "-serial", "null"]
        command += ["-semihosting-config", "enable=on,target=native", "-plugin", f"{plugin},to={counted}"]
        try:
            run = subprocess.run(command, capture_output=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise ValueError(f"{elf.name} did not end in QEMU in {timeout_s:g} s; it must leave by semihosting exit") from None
        if not counted.is_file():
            raise ValueError(f"QEMU did not run {elf.name}: {run.stderr.decode(errors='replace').strip()[:200]}")
        return SecondOpinion(int(counted.read_text()), (run.stdout + run.stderr).decode(errors="replace"), run.returncode)
