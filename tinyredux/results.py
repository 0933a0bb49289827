"""From runs to a record: what a target counted, beside what the plan, the linker and the interpreter say."""

import statistics
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyredux import __version__
from tinyredux.device import Firmware, RawMeasurement
from tinyredux.graph import macs, total_macs
from tinyredux.int8 import interpret
from tinyredux.measurement import Measurement, OpRecord
from tinyredux.methods.trec import with_clusters
from tinyredux.model import Model
from tinyredux.provenance import provenance
from tinyredux.simulator import error_band
from tinyredux.skip import kept_share

Labels = npt.NDArray[np.integer[Any]] | None


def record_of(
    model: Model, images: interpret.Batch, inputs: interpret.Batch, labels: Labels, runs: list[RawMeasurement],
    firmware: Firmware | None, *, target: str, data: str, fits: bool,
) -> Measurement:  # fmt: skip
    """Returns the measurement of runs on float `images` (N, C, H, W), `inputs` the same as int8 (N, H, W, C)."""
    computed, clusters = interpret.run_counted(model.whole or model.graph, inputs)
    expected = model.expected(inputs, computed)
    outputs = np.stack([run.output.reshape(expected.shape[1:]) for run in runs])
    in_float, classes = None, model.graph.output.elements
    if model.source is not None and model.whole is None:
        in_float = interpret.run_joined(model.source, images.transpose(0, 2, 3, 1))
    correct, correct_float = (None if one is None else _correct(one, labels, classes) for one in (outputs, in_float))
    instructions = [run.instructions for run in runs if run.instructions is not None]
    cycles = [run.cycles for run in runs if run.cycles is not None]
    median = int(statistics.median_low(cycles)) if cycles else None
    per_op = _per_op(model, runs, median)
    stalls = next((run for run in runs if run.cycles == median), runs[0]).stalls
    record = Measurement(
        net=model.graph.name, method=model.method, board=model.board.name, target=target, kernels=model.kernels,
        data=data, model_hash=model.artifact.model_hash,
        compiler=firmware.compiler if firmware else "", flags=firmware.flags if firmware else "", tinyredux=__version__,
        images=len(runs), correct=correct, accuracy=None if correct is None else correct / len(runs),
        correct_float=correct_float, accuracy_float=None if correct_float is None else correct_float / len(runs),
        bit_exact=bool(np.array_equal(outputs, expected)),
        instructions=int(statistics.median_low(instructions)) if instructions else None,
        cycles=median, cycles_kind=runs[0].cycles_kind, timing_model=runs[0].timing_model,
        ms=None if median is None else round(1000 * median / model.board.clock_hz, 3),
        macs_dense=total_macs(model.whole or model.source or model.graph), macs_executed=sum(op.macs_executed for op in per_op),
        sram_bytes=_sram_bytes(model, firmware, runs), flash_bytes=_flash_bytes(model, firmware),
        per_op=per_op, fits=fits, notes=list(model.notes),
        error_band=list(error_band(model.board.cpu)) if (runs[0].cycles_kind or "").startswith("modelled") else None,
        stalls=stalls, **provenance(),
    )  # fmt: skip
    return with_clusters(record, model.graph, clusters)


def _correct(outputs: interpret.Batch, labels: Labels, classes: int) -> int | None:
    """Returns how many images have the largest of the first `classes` values, those of the first output, at their label."""
    answers = outputs.reshape(len(outputs), -1)[:, :classes].argmax(axis=1)
    return None if labels is None else int((answers == labels[: len(outputs)]).sum())


def _sram_bytes(model: Model, firmware: Firmware | None, runs: list[RawMeasurement]) -> dict[str, int | None]:
    """Returns SRAM by use: planned arena and scratch, measured stack, and the rest of .data and .bss from the ELF. Beside their
    total, the copies of code and weights in what is idle.

    For a plan in parts also the high-water mark of arena and scratch that the simulator saw ("written"), which is to equal the
    plan, and the bytes of the network's input where it lies apart.
    """
    plan = model.plan
    stack = max((run.stack_bytes for run in runs if run.stack_bytes is not None), default=None)
    static = firmware.data_bytes + firmware.bss_bytes - plan.total_bytes if firmware else None
    total = None if static is None or stack is None else plan.total_bytes + stack + static
    sizes = {"arena": plan.arena_bytes, "scratch": plan.scratch_bytes, "stack": stack, "static": static, "total": total}
    if model.copies.size_bytes:
        sizes["copies"] = firmware.copied_bytes if firmware else model.copies.size_bytes
    if model.in_parts:
        sizes["written"] = max((run.arena_bytes for run in runs if run.arena_bytes is not None), default=None)
    if model.input_outside:
        sizes["input"] = model.graph.input.size_bytes
    return sizes


def _flash_bytes(model: Model, firmware: Firmware | None) -> dict[str, int | None]:
    """Returns flash by use: weights.bin, and everything else that the ELF loads."""
    weights = len(model.artifact.blob)
    if firmware is None:
        return {"code": None, "weights": weights, "total": None}
    return {"code": firmware.flash_bytes - weights, "weights": weights, "total": firmware.flash_bytes}


def _per_op(model: Model, runs: list[RawMeasurement], median: int | None) -> list[OpRecord]:
    run = next((run for run in runs if run.cycles == median), runs[0])
    live = {step.op: step.live_bytes for step in model.plan.steps}
    dense = {op.name: macs(model.graph, op) for op in model.graph.ops}
    records = []
    for i, op in enumerate(model.artifact.manifest["ops"]):
        cycles = None if run.cycles_per_op is None else run.cycles_per_op[i]
        unpacked = str(op.get("form")).startswith("unpacked")
        done = kept_share(model.graph, op["name"], "block") if unpacked else 1.0
        executed = round(done * op.get("macs_executed", op["macs"]))
        whole = sum(dense.get(name, 0) for name in op["name"].split("+"))
        skipped = round(1 - executed / whole, 4) if unpacked or op["macs"] < whole else None
        records.append(OpRecord(op["name"], op["kind"], whole, executed, cycles, live.get(op["name"], 0), skipped=skipped))
    return records
