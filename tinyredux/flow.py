"""The whole flow, from a torch network to a measurement, read top to bottom."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tinyredux import __version__, datasets, nets
from tinyredux.boards import Board, find_board
from tinyredux.codegen import (
    KERNELS,
    Artifact,
    assemble,
    board_budget,
    check_kernels,
    compacted,
    emit_fast_partial,
    limits,
    templates_of,
    trec_bytes,
)
from tinyredux.datasets import Dataset
from tinyredux.device import (
    DoesNotFit,
    Firmware,
    MissingTool,
    RawMeasurement,
    Target,
    build_firmware,
    build_host,
    default_build_folder,
)
from tinyredux.files import check_types, expect, write_whole
from tinyredux.frontends import export
from tinyredux.graph import Graph, TrecConv, macs, total_macs
from tinyredux.int8 import interpret, quantize
from tinyredux.kernels import FastSteps, losing, picks
from tinyredux.measurement import MOST_TIMES, Measurement, OpRecord
from tinyredux.memory import ACCUMULATOR_BYTES, MemoryPlan, run_schedule
from tinyredux.methods import skip
from tinyredux.methods.partial import in_parts, what_fits
from tinyredux.methods.trec import is_tuned, with_clusters, with_trec_layers
from tinyredux.partial import arena_plan
from tinyredux.simulator import error_band
from tinyredux.skip import kept_share
from tinyredux.trec import Choice, exactly, with_trec

CALIBRATION_IMAGES = 512
NO_TREC = "without TREC: no layer is predicted to pay, so all are exact"
METHODS = {  # and their kernel sets, the usual one first
    "exact": ("fast", "reference"),
    "partial": ("reference", "fast"),
    "trec": ("fast", "reference", "naive"),
    "skip": ("fast", "reference"),
}


@dataclass(frozen=True)
class Settings:
    """What to measure and how. `data` None: CIFAR-10 where it is, else the synthetic set; random for other shapes."""

    net: str
    method: str = "exact"  # or several of METHODS joined by +, such as trec+partial
    board: str = "disco_f469ni"
    target: str = "simulator"
    kernels: str | None = None  # None: the usual ones of the method
    sram: int | None = None  # largest arena with scratch in bytes; None: what the board leaves, for TREC `kernels.trec_bytes`
    images: int = 20
    data: str | None = None
    calibration: Path | None = None
    seed: int = 0
    trec: Path | None = None  # method trec: a table of layers; None: the fine-tuned network's, else where the cost model says so
    accumulator: str = "int32"  # method partial: width of partial sums; int16 is lossy
    mac_limit: float = 1.0  # method partial: above 1 early layers run in patches that compute shared rows again
    input_outside: bool = False  # method partial: the network's input lies behind the arena's other bytes
    skip: str | None = None  # method skip: FILE.json, or FRONT.json#N; None: the committed record of the network
    platformio: bool = False  # build with PlatformIO instead of the compiler alone: the same bytes

    def __post_init__(self) -> None:
        """Rejects what cannot be measured, naming what can."""
        check_types(self)
        if unknown := [name for name in self.methods if name not in METHODS]:
            part = f" in {self.method!r}" if len(self.methods) > 1 else ""
            raise ValueError(f"method is {unknown[0]!r}{part}, expected one of {', '.join(METHODS)}, or some of them joined by +")
        if len(self.methods) > 1 and (len(set(self.methods)) < len(self.methods) or "exact" in self.methods):
            raise ValueError(f"method is {self.method!r}; join by + different methods, each once, and exact with none")
        if check_kernels(self.kernel_set) not in self._kernel_sets:
            raise ValueError(f"method {self.method} has kernels {', '.join(self._kernel_sets)}, not {self.kernels}")
        if self.sram is not None and not 1 <= self.sram < 1 << 32:
            raise ValueError(f"sram is {self.sram} bytes, expected 1 to {(1 << 32) - 1:,}")
        if self.trec is not None and "trec" not in self.methods:
            raise ValueError(f"a TREC table goes with method trec, not {self.method}")
        if self.skip is not None and "skip" not in self.methods:
            raise ValueError(f"a record of skipping goes with method skip, not {self.method}")
        if "partial" not in self.methods and (self.accumulator, self.mac_limit, self.input_outside) != ("int32", 1.0, False):
            raise ValueError(f"accumulator, limit of MACs and an input apart go with method partial, not {self.method}")
        if not 1 <= self.mac_limit <= MOST_TIMES:
            raise ValueError(f"limit of MACs is {self.mac_limit}, expected 1.0 (no recomputation) to {MOST_TIMES}")
        if self.accumulator not in ACCUMULATOR_BYTES:
            raise ValueError(f"accumulator is {self.accumulator!r}, expected one of {', '.join(ACCUMULATOR_BYTES)}")
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"seed is {self.seed}, expected 0 to {(1 << 32) - 1}")
        if self.images < 1:
            raise ValueError(f"images is {self.images}, expected at least 1")
        if self.target not in ("host", "simulator") and self.target.partition(":")[0] != "board":
            raise ValueError(f"target is {self.target!r}, expected host, simulator or board[:PORT]")

    @property
    def kernel_set(self) -> str:
        """The kernels that compute the network, one of KERNELS."""
        return self._kernel_sets[0] if self.kernels is None else self.kernels

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, each by itself."""
        return tuple(self.method.split("+"))

    @property
    def _kernel_sets(self) -> tuple[str, ...]:
        return METHODS[self.method] if len(self.methods) == 1 else KERNELS


@dataclass(frozen=True)
class Compiled:
    """A network on its way to a board: the float graph, the int8 graph, its memory plan and the C text."""

    graph: Graph
    int8: Graph
    plan: MemoryPlan
    artifact: Artifact
    data: Dataset
    sram_bytes: int | None = None  # the limit that was asked for
    parts: FastSteps | None = None  # method partial: the placed program
    notes: tuple[str, ...] = ()  # what a reader must know of the method


def compile_net(settings: Settings) -> Compiled:
    """Returns a network compiled for int8 inference. Raises ValueError for input that is wrong, saying what."""
    expect(Settings, settings, "what to compile", "such as Settings('lenet')")
    board = find_board(settings.board)
    data, net = nets.with_data(settings.net, settings.data, settings.seed)
    if settings.images > max(there := len(data.test.images), Settings.images):  # the usual number is what there is at most
        raise ValueError(f"images is {settings.images:,}, the test part of {data.name} has {there:,}; give at most so many")
    methods = settings.methods
    if "trec" in methods:
        net = with_trec_layers(settings.net, net, data.name, settings.trec)
    alone = "skip" in methods and "trec" not in methods
    tuned = alone and skip.is_tuned(settings.net, data.name, settings.skip, settings.kernel_set)
    if tuned:
        from tinyredux.train import finetune_skip

        net = finetune_skip.load_skip(settings.net, data.name)
    graph = export(net, nets.short_name(settings.net))
    datasets.check_labels(data.test, graph.output.elements)
    calibration = datasets.calibration(data, settings.calibration, CALIBRATION_IMAGES)
    int8 = quantize(graph, calibration)
    call, skips, sram, notes = _call(settings, data.name), "skip" in methods, settings.sram, tuple[str, ...]()
    if "trec" in methods:
        together = is_tuned(settings.net, data.name, settings.trec)
        int8, sram, lost = _where_it_pays(settings, int8, board, together)
        if lost and together and ":" not in settings.net:  # weights used to means are for means; a user's are those there are
            others = [name for name in methods if name != "trec"]
            exact = replace(settings, method="+".join(others) or "exact", trec=None, kernels=settings.kernel_set)
            return replace(compiled := compile_net(exact), notes=(*compiled.notes, NO_TREC))
        notes += () if any(isinstance(op, TrecConv) for op in int8.ops) else (NO_TREC,)
    if skips and not tuned:
        int8 = skip.with_skips(settings.net, int8, data, settings.skip)
    if "partial" in methods:
        options = (settings.accumulator, settings.mac_limit, settings.input_outside)
        fast, factor = in_parts(compacted(int8, skips), board, settings.kernel_set, skips, settings.sram, options)
        plan = arena_plan(fast.program, fast.arena)
        if math.isfinite(factor):
            said = f"in parts: {factor:.2f} times the cycles of layer by layer with these kernels, as predicted"
            asked = settings.sram is not None or options[1:] != (1.0, False)  # patches know no limit in bytes
            notes += (said if asked else f"{said}; --sram BYTES asks for fewer bytes or fewer cycles",)
        return Compiled(graph, int8, plan, emit_fast_partial(fast, call), data, settings.sram, fast, notes)
    plan, artifact = assemble(int8, call, settings.kernel_set, board, sram, unpack=skips)
    return Compiled(graph, int8, plan, artifact, data, settings.sram, notes=notes)


def _call(settings: Settings, data: str) -> str:
    """Returns what the generated files say of their origin; files by name without folders, so that bytes are equal anywhere."""
    call = f"compile {Path(settings.net).name} --method {settings.method} --data {data}"
    if settings.trec is not None:
        call += f" --trec {settings.trec.name}"
    if settings.skip is not None:
        call += f" --skip {Path(settings.skip).name}"
    if settings.sram is not None:
        call += f" --sram {settings.sram}"
    call += f" --kernels {settings.kernel_set}"
    if settings.kernel_set == "fast" or "skip" in settings.methods:
        call += f" --board {settings.board}"
    options = (settings.accumulator, settings.mac_limit, settings.input_outside)
    if options != ("int32", 1.0, False):
        call += f" --accumulator {options[0]} --mac-limit {options[1]}{' --input-outside' * options[2]}"
    return call


def _where_it_pays(settings: Settings, int8: Graph, board: Board, together: bool) -> tuple[Graph, int | None, list[str]]:
    """Returns the graph with TREC where it is predicted to pay, the limit of its SRAM, and the layers that it had and lost.

    `together`: all or none. A graph without TREC layers gets those that the cost model picks. The naive form keeps all.
    """
    if not any(isinstance(op, TrecConv) for op in int8.ops):
        found = picks(int8, board.cpu, settings.kernel_set)
        int8 = with_trec(int8, {name: Choice(length, bits) for name, (length, bits) in found.items()})
    if settings.kernel_set not in KERNELS:
        return int8, settings.sram, []
    later = "partial" in settings.methods  # the plan that keeps to the user's limit
    sram = trec_bytes(int8, board) if later or settings.sram is None else settings.sram
    lost = losing(int8, board.cpu, templates_of(settings.kernel_set, unpack=False), partial(limits, board, sram), together)
    return exactly(int8, lost), sram if len(lost) < sum(isinstance(op, TrecConv) for op in int8.ops) else settings.sram, lost


def check_fit(compiled: Compiled, board: Board) -> None:
    """Raises DoesNotFit before anything is built where the board's SRAM or flash cannot hold the network."""
    step = max(compiled.plan.steps, key=lambda step: step.live_bytes)
    needed, there = compiled.plan.total_bytes, board_budget(board)
    if compiled.sram_bytes is not None and compiled.sram_bytes < there:
        there, where = compiled.sram_bytes, f"--sram {compiled.sram_bytes}"
    else:
        needed, there, where = needed + board.sram_bytes - there, board.sram_bytes, board.name
    if needed > there:
        op = next(op for op in compiled.int8.ops if op.name == step.op.split("+")[-1])
        largest = max((*op.inputs, op.output), key=lambda name: compiled.int8.tensors[name].size_bytes)
        size = compiled.int8.tensors[largest].size_bytes
        budget = there if where.startswith("--sram") else max(0, board_budget(board))
        about = f"tensor {largest} {size} bytes at {op.name}"
        method = "trec+partial" if any(isinstance(op, TrecConv) for op in compiled.int8.ops) else "partial"
        raise DoesNotFit(".bss (activations)", "SRAM", needed, there, where, about, what_fits(compiled.int8, budget, method))
    weights = len(compiled.artifact.blob)
    if weights > board.flash_bytes:
        name, size = max(((key, value.nbytes) for key, value in compiled.int8.constants.items()), key=lambda pair: pair[1])
        raise DoesNotFit(".rodata (weights)", "FLASH", weights, board.flash_bytes, board.name, f"{name} {size} bytes")


def build(compiled: Compiled, board: Board, folder: Path | None = None, platformio: bool = False) -> Firmware:
    """Returns the firmware of a compiled network for a board, built in a folder named after the model's hash."""
    check_fit(compiled, board)
    folder = folder or default_build_folder()
    sources = compiled.artifact.write(folder / "models" / compiled.artifact.model_hash)
    return build_firmware(sources, board, folder, platformio)


def open_target(settings: Settings, compiled: Compiled, board: Board, firmware: Firmware | None) -> Target:
    """Returns the target that `settings` name, with the network on it."""
    expect(Settings, settings, "what to run", "such as Settings('lenet')")
    kind, _, port = settings.target.partition(":")
    if kind == "host":
        from tinyredux.device.host import HostTarget

        folder = default_build_folder()
        library = build_host(compiled.artifact.write(folder / "models" / compiled.artifact.model_hash), folder)
        return HostTarget(library, compiled.int8.input.shape, compiled.int8.output.shape)
    if kind == "simulator":
        from tinyredux.device.simulated import SimulatorTarget

        assert firmware is not None
        return SimulatorTarget(firmware.elf, board, compiled.artifact.model_hash, compiled.int8.output.shape)
    from tinyredux.device.board import BoardTarget

    return BoardTarget(port or None, compiled.artifact.model_hash, compiled.int8.output.shape, board=board)


def measure(settings: Settings) -> Measurement:
    """Returns the measurement of a network: compiled, built, run on `settings.images` test images, compared."""
    return measure_compiled(settings, compile_net(settings))


def measure_compiled(settings: Settings, compiled: Compiled) -> Measurement:
    """Returns the measurement of a compiled network, which `settings` describe."""
    board = find_board(settings.board)
    fits, firmware = True, None
    try:
        firmware = build(compiled, board, platformio=settings.platformio)
    except DoesNotFit:
        if settings.target != "host":
            raise
        fits = False
    except MissingTool:  # the host needs its own compiler alone; how much flash the board's program takes stays unknown
        if settings.target != "host":
            raise
    test = compiled.data.test.first(settings.images)
    images = interpret.quantize_input(compiled.int8, test.images)
    expected, clusters = interpret.run_counted(compiled.int8, images)
    if compiled.parts is not None and settings.accumulator == "int16":  # rounded as this very plan rounds
        program, arena = compiled.parts.program, compiled.parts.arena
        expected = np.stack([run_schedule.run(program, arena, image) for image in images])
    in_float = interpret.run(compiled.graph, test.images.transpose(0, 2, 3, 1))
    target = open_target(settings, compiled, board, firmware)
    try:
        shown = f"{compiled.data.name} on {settings.target}"
        runs = [target.measure(image) for image in tqdm(images, shown, leave=False, disable=None)]
    finally:
        target.close()
    record = _record(settings, compiled, board, firmware, runs, expected, in_float, fits)
    return with_clusters(record, compiled.int8, clusters)


def _record(
    settings: Settings, compiled: Compiled, board: Board, firmware: Firmware | None,
    runs: list[RawMeasurement], expected: interpret.Batch, in_float: interpret.Batch, fits: bool,
) -> Measurement:  # fmt: skip
    outputs = np.stack([run.output.reshape(expected.shape[1:]) for run in runs])
    labels = compiled.data.test.first(len(runs)).labels
    correct, correct_float = _correct(outputs, labels), _correct(in_float, labels)
    instructions = [run.instructions for run in runs if run.instructions is not None]
    cycles = [run.cycles for run in runs if run.cycles is not None]
    median = int(statistics.median_low(cycles)) if cycles else None
    per_op = _per_op(compiled, runs, median)
    method = settings.method if settings.accumulator == "int32" else f"{settings.method}-{settings.accumulator}"
    return Measurement(
        net=settings.net, method=method, board=board.name, target=settings.target, kernels=settings.kernel_set,
        data=compiled.data.name, model_hash=compiled.artifact.model_hash,
        compiler=firmware.compiler if firmware else "", flags=firmware.flags if firmware else "", tinyredux=__version__,
        images=len(runs), correct=correct, accuracy=None if correct is None else correct / len(runs),
        correct_float=correct_float, accuracy_float=None if correct_float is None else correct_float / len(runs),
        bit_exact=bool(np.array_equal(outputs, expected)),
        instructions=int(statistics.median_low(instructions)) if instructions else None,
        cycles=median, cycles_kind=runs[0].cycles_kind, timing_model=runs[0].timing_model,
        ms=None if median is None else round(1000 * median / board.clock_hz, 3),
        macs_dense=total_macs(compiled.graph), macs_executed=sum(op.macs_executed for op in per_op),
        sram_bytes=sram_bytes(compiled, firmware, runs) | _written(settings, compiled, runs),
        flash_bytes=flash_bytes(compiled, firmware),
        per_op=per_op, fits=fits, notes=list(compiled.notes),
        error_band=list(error_band(board.cpu)) if (runs[0].cycles_kind or "").startswith("modelled") else None,
    )  # fmt: skip


def _correct(outputs: interpret.Batch, labels: datasets.Labels | None) -> int | None:
    if labels is None:
        return None
    return int((outputs.reshape(len(outputs), -1).argmax(axis=1) == labels).sum())


def sram_bytes(compiled: Compiled, firmware: Firmware | None, runs: list[RawMeasurement]) -> dict[str, int | None]:
    """Returns SRAM by use: planned arena and scratch, measured stack, and the rest of .data and .bss from the ELF."""
    plan = compiled.plan
    stacks = [run.stack_bytes for run in runs if run.stack_bytes is not None]
    stack = max(stacks) if stacks else None
    static = firmware.data_bytes + firmware.bss_bytes - plan.total_bytes if firmware else None
    total = None if static is None or stack is None else plan.total_bytes + stack + static
    return {"arena": plan.arena_bytes, "scratch": plan.scratch_bytes, "stack": stack, "static": static, "total": total}


def _written(settings: Settings, compiled: Compiled, runs: list[RawMeasurement]) -> dict[str, int | None]:
    """Returns for a plan in parts the high-water mark of arena and scratch that the simulator saw ("written"), which is to equal
    the plan, and the bytes of the network's input where it lies apart."""
    seen = [run.arena_bytes for run in runs if run.arena_bytes is not None]
    if "partial" not in settings.methods:
        return {}
    apart = {"input": compiled.int8.input.size_bytes} if settings.input_outside else {}
    return {"written": max(seen, default=None), **apart}


def flash_bytes(compiled: Compiled, firmware: Firmware | None) -> dict[str, int | None]:
    """Returns flash by use: weights.bin, and everything else that the ELF loads."""
    weights = len(compiled.artifact.blob)
    if firmware is None:
        return {"code": None, "weights": weights, "total": None}
    total = firmware.text_bytes + firmware.rodata_bytes + firmware.data_bytes
    return {"code": total - weights, "weights": weights, "total": total}


def _per_op(compiled: Compiled, runs: list[RawMeasurement], median: int | None) -> list[OpRecord]:
    run = next((run for run in runs if run.cycles == median), runs[0])
    live = {step.op: step.live_bytes for step in compiled.plan.steps}
    dense = {op.name: macs(compiled.graph, op) for op in compiled.graph.ops}
    records = []
    for i, op in enumerate(compiled.artifact.manifest["ops"]):
        cycles = None if run.cycles_per_op is None else run.cycles_per_op[i]
        unpacked = str(op.get("form")).startswith("unpacked")
        done = kept_share(compiled.int8, op["name"], "block") if unpacked else 1.0
        executed = round(done * op.get("macs_executed", op["macs"]))
        whole = sum(dense.get(name, 0) for name in op["name"].split("+"))
        skipped = round(1 - executed / whole, 4) if unpacked or op["macs"] < whole else None
        records.append(OpRecord(op["name"], op["kind"], whole, executed, cycles, live.get(op["name"], 0), skipped=skipped))
    return records


def write_artifact(settings: Settings, folder: Path | str) -> tuple[Artifact, list[str]]:
    """Writes the C, the weights, the manifest and `settings.images` test vectors; returns the Artifact and the file names.

    Test vectors: inputs.bin and outputs.bin, one image after the other, int8, as the model takes and gives them.
    """
    expect(Path | str, folder, "the folder", "such as 'lenet_c'")
    folder, compiled = Path(folder), compile_net(settings)
    check_fit(compiled, find_board(settings.board))
    images = interpret.quantize_input(compiled.int8, compiled.data.test.first(settings.images).images)
    vectors = {"inputs.bin": images.tobytes(), "outputs.bin": interpret.run(compiled.int8, images).tobytes()}
    compiled.artifact.write(folder)
    for name, content in vectors.items():
        write_whole(folder / name, content)
    return compiled.artifact, sorted([*compiled.artifact.files, "weights.bin", "manifest.json", *vectors])
