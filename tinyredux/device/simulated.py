"""The simulator as a target: the board's own firmware and serial protocol, in this process, with modelled cycles."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from tinyredux.boards import Board
from tinyredux.device.link import Link, LinkClosedError, Patience
from tinyredux.device.target import Int8Array, LinkTarget, RawMeasurement
from tinyredux.simulator import cycles_kind, model_name
from tinyredux.simulator.machine import Machine

PATIENCE = Patience(reply_s=60.0, run_s=1800.0, quiet_s=0.4, attempts=2, total_s=3600.0)
SLICE_INSTRUCTIONS = 20_000_000
MODEL_FUNCTION = "tr_model_run"
PATTERNS = (0x5A, 0xA5)  # what the arena holds before a run, in turn: a written byte differs from one of them


class SimulatorTransport:
    """The console UART of a machine as the line of a Link. A silence costs no time: the board's clock is moved instead."""

    def __init__(self, machine: Machine) -> None:
        """`machine` runs as far as each read needs."""
        self.machine = machine
        self.name = f"the simulated {machine.board.name}"

    def read(self, timeout_s: float) -> bytes:
        """Returns what the program sent, or nothing when it waits for input or `timeout_s` passed.

        It passes on our clock, and up to a second of it on the board's too: a computer under load is not a silent board.
        """
        machine, until = self.machine, time.monotonic() + timeout_s
        silent_at = machine.now() + int(min(timeout_s, 1.0) * machine.board.clock_hz)
        while not machine.console.sent:
            if machine.end is not None:
                raise LinkClosedError(f"the program on {self.name} ended: {machine.end.text}")
            machine.run(SLICE_INSTRUCTIONS, until_idle=True)
            if machine.idles and not machine.console.sent:
                machine.slept_cycles += int(timeout_s * machine.board.clock_hz)
            if machine.idles or (time.monotonic() > until and machine.now() > silent_at):
                break
        return machine.console.take_sent()

    def write(self, data: bytes) -> None:
        """Gives bytes to the program's receiver."""
        self.machine.console.received += data

    def close(self) -> None:
        """Nothing to release."""


class SimulatorTarget(LinkTarget):
    """A simulated board that carries the model with `model_hash`."""

    def __init__(self, elf: Path, board: Board, model_hash: str | None, output_shape: tuple[int, ...]) -> None:
        """Boots the firmware. Raises ValueError when it does not fit the board, LinkError when it does not answer as expected."""
        self.machine = Machine(board, elf)
        self.machine.watch(MODEL_FUNCTION)
        self.cycles_kind, self.timing_model = cycles_kind(board.cpu), model_name(board.cpu)
        self.pattern, self.written = PATTERNS[0], 0  # `written`: high-water mark of the arena over all runs so far
        super().__init__(Link(SimulatorTransport(self.machine), model_hash, PATIENCE), output_shape, board)

    def measure(self, image: Int8Array) -> RawMeasurement:
        """Returns one run; the arena holds a pattern before, so that what was written can be seen after.

        A cell of a notebook has no arena.
        """
        machine, symbols = self.machine, self.machine.program.symbols
        start = symbols.get("tr_arena", self.machine.board.flash.base)
        size = self.info.arena_bytes + self.info.scratch_bytes if "tr_arena" in symbols else 0
        self.pattern = PATTERNS[self.pattern == PATTERNS[0]]
        machine.cpu.write(start, bytes([self.pattern]) * size)
        machine.watched.clear()
        run = super().measure(image)
        changed = np.flatnonzero(np.frombuffer(machine.read(start, size), np.uint8) != self.pattern)
        self.written = max(self.written, int(changed[-1]) + 1 if len(changed) else 0)
        return replace(self._counted(run), arena_bytes=self.written)

    def push(self, frame: Int8Array, sequence: int) -> RawMeasurement:
        """Returns one run of a stream; its arena stays as the last one left it."""
        self.machine.watched.clear()
        return self._counted(super().push(frame, sequence))

    def _counted(self, run: RawMeasurement) -> RawMeasurement:
        run = replace(run, stack_bytes=self.machine.stack_bytes)
        if not self.machine.watched:
            return run
        spent = self.machine.watched[-1]
        stalls = {"code": spent.memory_cycles - spent.data_cycles, "data": spent.data_cycles}
        return replace(run, instructions=spent.instructions, stalls=stalls)
