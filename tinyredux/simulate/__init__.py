"""Simulated boards: any bare-metal ELF, its exact instruction count and its modelled cycles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinyredux.boards import Board
from tinyredux.simulate.machine import End, Fault, Machine

__all__ = ["End", "Fault", "Machine", "simulate"]


def simulate(
    elf: Path,
    board: Board,
    *,
    input_bytes: bytes = b"",
    max_instructions: int | None = None,
    cycles: bool = True,
    symbols: bool = True,
) -> dict[str, Any]:
    """Returns what `simulate --json` prints for one run of a program, started at its reset vector.

    `input_bytes` wait at the console (UART and semihosting). `exit` is the program's own code, 1 after a fault (`end` says
    which), 3 at `max_instructions` or when it waits for more input. Raises ValueError for a file that is no Arm program.
    """
    machine = Machine(board, elf, cycles=cycles)
    machine.console.received += input_bytes
    machine.run(max_instructions)
    result = machine.result()
    if not symbols:
        del result["functions"]
    return result
