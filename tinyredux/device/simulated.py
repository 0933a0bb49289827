"""The simulator as a target: the board's own firmware and serial protocol, in this process, with modelled cycles."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from tinyredux.boards import Board
from tinyredux.device.link import Link, LinkClosedError, LinkError, Patience
from tinyredux.device.target import Int8Array, RawMeasurement, repeated
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
        """Returns what the program sent, or nothing when it waits for input or `timeout_s` of our time passed."""
        machine, until = self.machine, time.monotonic() + timeout_s
        while not machine.console.sent:
            if machine.end is not None:
                raise LinkClosedError(f"the program on {self.name} ended: {machine.end.text}")
            machine.run(SLICE_INSTRUCTIONS, until_idle=True)
            if machine.idles and not machine.console.sent:
                machine.slept_cycles += int(timeout_s * machine.board.clock_hz)
                break
            if time.monotonic() > until:
                break
        return machine.console.take_sent()

    def write(self, data: bytes) -> None:
        """Gives bytes to the program's receiver."""
        self.machine.console.received += data

    def close(self) -> None:
        """Nothing to release."""


class SimulatorTarget:
    """A simulated board that carries the model with `model_hash`, behind the Target protocol."""

    def __init__(self, elf: Path, board: Board, model_hash: str | None, output_shape: tuple[int, ...]) -> None:
        """Boots the firmware. Raises ValueError when it does not fit the board, LinkError when it does not answer as expected."""
        self.board, self.output_shape = board, output_shape
        self.machine = Machine(board, elf)
        self.machine.watch(MODEL_FUNCTION)
        self.link = Link(SimulatorTransport(self.machine), model_hash, PATIENCE)
        self.info = self.link.info()
        self.pattern = PATTERNS[0]
        self.written = 0  # high-water mark of the arena over all runs so far
        if self.info.clock_hz != board.clock_hz:
            raise LinkError(f"the firmware runs at {self.info.clock_hz} Hz, expected {board.clock_hz}: its clock set-up failed")

    def run(self, image: Int8Array) -> Int8Array:
        """Returns the output (height, width, channels) for one image."""
        return self.measure(image).output

    def measure(self, image: Int8Array, repeats: int = 1) -> RawMeasurement:
        """Runs one image `repeats` times and returns the median run; raises ValueError if two outputs differ."""
        data = np.ascontiguousarray(image, dtype=np.int8).tobytes()
        median = repeated(lambda: self._measure_once(data), repeats, "the firmware keeps state between runs")
        return replace(median, stack_bytes=self.machine.stack_bytes, arena_bytes=self.written)

    def _measure_once(self, data: bytes) -> RawMeasurement:
        """Returns one run; the arena holds a pattern before, so that what was written can be seen after.

        A cell of a notebook has no arena.
        """
        machine, start = self.machine, self.machine.program.symbols.get("tr_arena", 0)
        size = self.info.arena_bytes + self.info.scratch_bytes if start else 0
        self.pattern = PATTERNS[self.pattern == PATTERNS[0]]
        if size:
            machine.cpu.write(start, bytes([self.pattern]) * size)
        machine.watched.clear()
        ran = self.link.run(data)
        if size:
            changed = np.flatnonzero(np.frombuffer(machine.read(start, size), np.uint8) != self.pattern)
            self.written = max(self.written, int(changed[-1]) + 1 if len(changed) else 0)
        return RawMeasurement(
            output=np.frombuffer(ran.output, dtype=np.int8).reshape(self.output_shape),
            cycles_per_op=ran.cycles_per_op,
            instructions=machine.watched[-1].instructions if machine.watched else None,
            cycles_kind=cycles_kind(self.board.cpu),
            timing_model=model_name(self.board.cpu),
        )

    def close(self) -> None:
        """Nothing to release."""
