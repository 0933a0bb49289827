"""Simulated boards: any bare-metal ELF, its exact instruction count and its modelled cycles."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinyredux.boards import Board
from tinyredux.simulator.machine import Machine

__all__ = ["Machine", "simulate"]


def simulate(
    elf: Path, board: Board, *, input_bytes: bytes = b"", max_instructions: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Returns what `simulate --json` prints for one run of a program, started at its reset vector.

    `input_bytes` wait at the console (UART and semihosting). `reason`: exit, return, limit, fault or interrupted. `exit` is the
    program's own code, 1 after a fault (`fault` says which), 3 at `max_instructions` or when it waits for more input, 130 after
    Ctrl+C. `progress(instructions)` is called several times a second. Raises ValueError for no program of the board's core.
    """
    machine = Machine(board, elf)
    machine.console.received += input_bytes
    between = None if progress is None else lambda: progress(int(machine.state.instructions))
    try:
        machine.run(max_instructions, between=between)
    except KeyboardInterrupt:
        machine.interrupt()
    return machine.result()
