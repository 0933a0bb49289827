"""A second opinion on instruction counts: the same ELF in QEMU, counted by a plugin of ours."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from tinyredux.boards import Board
from tinyredux.simulator.hooks import compiled_library

PLUGIN = Path(__file__).with_name("qemu_count.c")


def count_in_qemu(elf: Path, board: Board) -> tuple[int, str]:
    """Returns QEMU's count and console of a program that ends by semihosting exit, linked for 128 KiB of RAM."""
    assert board.qemu_machine
    with tempfile.TemporaryDirectory() as folder:
        counted = Path(folder) / "count"
        command = [
            "qemu-system-arm",
            "-M",
            board.qemu_machine,
            "-kernel",
            str(elf),
            *"-nographic -monitor none -serial null".split(),
        ]
        command += ["-semihosting-config", "enable=on,target=native", "-plugin", f"{compiled_library(PLUGIN)},to={counted}"]
        run = subprocess.run(command, capture_output=True, timeout=60, stdin=subprocess.DEVNULL, text=True)
        return int(counted.read_text()), run.stdout + run.stderr
