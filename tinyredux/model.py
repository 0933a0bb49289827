"""A compiled network: its graph, where its bytes lie, its C; whether it fits a board, and what runs it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinyredux.boards import Board
from tinyredux.codegen import NOTHING, Artifact, Copies, board_budget, plain_flash, sure_flash
from tinyredux.device import DoesNotFit, Firmware, Target, build_firmware, build_host, default_build_folder
from tinyredux.graph import Graph, Shape
from tinyredux.int8 import interpret
from tinyredux.kernels import FastSteps
from tinyredux.memory import MemoryPlan, plan_of, run_schedule
from tinyredux.methods.partial import what_fits
from tinyredux.methods.trec import has_trec
from tinyredux.partial import arena_plan
from tinyredux.streaming import sliding
from tinyredux.tables import as_html, columns


@dataclass(frozen=True)
class Model:
    """A network compiled for a board; `tinyredux.compile` makes it, `tinyredux.measure` runs it.

    `graph` is int8, `source` the float graph that it was quantised from, where that is known. `method` names the passes and the
    schedule that made it, `limit_bytes` and `limit_flash` are the SRAM and the flash that were asked for; `in_parts` says that
    the schedule was another than layer by layer. `copies` of code and weights lie in RAM that is idle. `notes` say what a reader
    must know of it. `whole` is the network whose stream `graph` is. Chapter 13.
    """

    graph: Graph
    board: Board
    kernels: str
    method: str
    steps: FastSteps
    artifact: Artifact
    limit_bytes: int | None = None
    in_parts: bool = False
    input_outside: bool = False
    notes: tuple[str, ...] = ()
    source: Graph | None = None
    limit_flash: int | str | None = None
    copies: Copies = NOTHING
    whole: Graph | None = None

    @property
    def plan(self) -> MemoryPlan:
        """Where each tensor lies in the arena, and the bytes alive while each operator runs."""
        program, arena = self.steps.program, self.steps.arena
        return arena_plan(program, arena) if self.in_parts else plan_of(program, arena)

    def code(self, op: str) -> str:
        """Returns the C of one operator, as model.c has it. Raises ValueError for an operator that the model does not have."""
        body = self.artifact.files["model.c"]
        parts = re.split(r"(?m)(?=^    /\* .*\n(?:     \* .*\n)*    tr_mark\()", body)[1:]
        found = [part for name, part in zip(self.op_names, parts, strict=False) if op in (name, *name.split("+"))]
        if not found:
            raise ValueError(f"{self.graph.name} has no operator {op!r}; it has {', '.join(self.op_names)}")
        return re.split(r"(?m)^\}", found[0])[0].rstrip()

    @property
    def op_names(self) -> list[str]:
        """The operators (those in parts joined by +), in order of execution."""
        return [entry["name"] for entry in self.artifact.manifest["ops"]]

    def rows(self) -> list[tuple[str, str]]:
        """Returns the model for people: (what, how much)."""
        plan, there, copies = self.plan, board_budget(self.board), self.copies
        copied = f"{copies.code_bytes:,} bytes of code and {copies.weights_bytes:,} of weights, copied from flash at start-up"
        return [
            ("network", f"{self.graph.name}, {self.method}, kernels {self.kernels}, for {self.board.name}"),
            *(("note", note) for note in self.notes),
            ("SRAM", f"{plan.arena_bytes:,} bytes of arena, {plan.scratch_bytes:,} of scratch; {there:,} there"),
            *([("idle SRAM", copied)] if copies.size_bytes else []),
            ("flash", f"{len(self.artifact.blob):,} bytes of weights; {self.board.flash_bytes:,} there"),
            *((entry["name"], str(entry.get("form", "reference"))) for entry in self.artifact.manifest["ops"]),
        ]

    def __repr__(self) -> str:
        """Returns the model as a table: memory, and the kernel of each operator."""
        return columns(self.rows())

    def _repr_html_(self) -> str:
        return as_html(self.rows())

    def expected(self, images: interpret.Batch, computed: interpret.Batch | None = None) -> interpret.Batch:
        """Returns the bytes that the model must write for int8 images (N, H, W, C): those of `interpret.run_joined`.

        A plan whose partial sums are 16 bits wide rounds where it adds up, so there its own steps are interpreted. `computed` is
        what the interpreter said already.
        """
        steps = self.steps
        if steps.program.schedule.accumulator == "int16":
            return np.stack([run_schedule.run(steps.program, steps.arena, image) for image in images])
        return interpret.run_joined(self.whole or self.graph, images) if computed is None else computed

    def fed(self, images: npt.NDArray[np.float32]) -> tuple[list[npt.NDArray[np.int8]], interpret.Batch]:
        """Returns what the runs get, int8, for float images (N, C, H, W), and the images (N, H, W, C) whose outputs they give.

        For a stream these are frames, and the windows of all images one below another, from push `graph.pushes` on.
        """
        inputs = interpret.quantize_input(self.whole or self.graph, images)
        return sliding(self.graph, np.concatenate([*inputs])) if self.whole else (list(inputs), inputs)

    def check_fit(self) -> None:
        """Raises DoesNotFit before anything is built where the board's SRAM or flash cannot hold the network."""
        plan, board, graph = self.plan, self.board, self.graph
        budget = board_budget(board)
        needed, there, where = plan.total_bytes + board.sram_bytes - budget, board.sram_bytes, board.name
        if self.limit_bytes is not None and self.limit_bytes < budget:
            budget = there = self.limit_bytes
            needed, where = plan.total_bytes, f"--sram {budget}"
        if needed > there:
            op = graph.by_name[max(plan.steps, key=lambda step: step.live_bytes).op.split("+")[-1]]
            largest = max((*op.inputs, op.output), key=lambda name: graph.tensors[name].size_bytes)
            about = f"tensor {largest} {graph.tensors[largest].size_bytes} bytes at {op.name}"
            advice = "" if graph.window else what_fits(graph, max(0, budget), "trec+partial" if has_trec(graph) else "partial")
            raise DoesNotFit(".bss (activations)", "SRAM", needed, there, where, about, advice)
        weights = len(self.artifact.blob)
        if weights > board.flash_bytes:
            name = max(graph.constants, key=lambda name: graph.constants[name].nbytes)
            largest = f"{name} {graph.constants[name].nbytes} bytes"
            raise DoesNotFit(".rodata (weights)", "FLASH", weights, board.flash_bytes, board.name, largest)
        self._check_flash(sure_flash(self.steps, board))

    def _check_flash(self, needed: int) -> None:
        """Raises DoesNotFit for a program of more bytes of flash than somebody asked for."""
        limit, board, graph = self.limit_flash, self.board, self.graph
        if not isinstance(limit, int) or needed <= min(limit, board.flash_bytes):
            return
        name = max(graph.constants, key=lambda name: graph.constants[name].nbytes)
        plain = plain_flash(graph, board)[0]
        advice = f"by reference kernels it takes about {plain} bytes; prune it, or take a smaller network"
        largest = f"{name} {graph.constants[name].nbytes} bytes"
        raise DoesNotFit(".text and .rodata (the least)", "FLASH", needed, limit, f"--flash {limit}", largest, advice)

    def build(self, folder: Path | None = None, platformio: bool = False) -> Firmware:
        """Returns the firmware of the model for its board, built in a folder named after the model's hash."""
        self.check_fit()
        folder = folder or default_build_folder()
        built = build_firmware(self.write(folder / "models" / self.artifact.model_hash), self.board, folder, platformio)
        self._check_flash(built.flash_bytes)
        return built

    def write(self, folder: Path) -> Path:
        """Writes the C files, weights and manifest into a folder, and returns it."""
        return self.artifact.write(folder)

    def open(self, target: str, firmware: Firmware | None = None) -> Target:
        """Returns what runs the model: "host", "simulator" (with its firmware) or "board[:PORT]" (that holds it)."""
        opened = self._opened(target, firmware, self.graph.joined_shape)
        opened.shapes = tuple(tensor.shape for tensor in self.graph.results)
        return opened

    def _opened(self, target: str, firmware: Firmware | None, shape: Shape) -> Target:
        kind, _, port = target.partition(":")
        if kind == "host":
            from tinyredux.device.host import HostTarget

            folder = default_build_folder()
            sources = self.write(folder / "models" / self.artifact.model_hash)
            return HostTarget(build_host(sources, folder), self.graph.input.shape, shape)
        if kind == "simulator":
            from tinyredux.device.simulated import SimulatorTarget

            return SimulatorTarget((firmware or self.build()).elf, self.board, self.artifact.model_hash, shape)
        if kind == "board":
            from tinyredux.device.board import BoardTarget

            return BoardTarget(port or None, self.artifact.model_hash, shape, board=self.board)
        raise ValueError(f"target is {target!r}, expected host, simulator or board[:PORT]")
