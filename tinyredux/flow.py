"""The whole flow on one page: `compile` takes an int8 graph to a model, `measure` takes a model to numbers.

A method is a pass (graph -> graph: TREC, skipping) or a schedule (graph -> placed steps: layer by layer, in parts). This page
knows none of them by name: a pass is whatever can be called with a graph and a board, a schedule whatever can be called with a
graph, a board and the kernels. Read next: `methods/partial.py` for a schedule, `methods/trec.py` for a pass, `codegen` for the C.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from tinyredux.boards import Board, find_board
from tinyredux.codegen import NOTHING, Kernels, copies_for, emit_steps, kernels_for, with_copies
from tinyredux.device import DoesNotFit, MissingTool
from tinyredux.files import expect
from tinyredux.graph import Graph, verify
from tinyredux.int8 import interpret
from tinyredux.kernels import FastSteps
from tinyredux.measurement import Measurement
from tinyredux.memory import Program
from tinyredux.methods.layerwise import Layerwise
from tinyredux.model import Model
from tinyredux.results import record_of

SINGLE = "sums are rounded once, as LiteRT's default interpreter does"
Pass = Callable[[Graph, Board], Graph]
Schedule = Callable[[Graph, Board, Kernels], Any]
Images = npt.NDArray[np.float32]


def compile(
    graph: Graph, board: Board | str = "disco_f469ni", *, passes: Sequence[Pass] = (), schedule: Schedule | None = None,
    kernels: str = "fast", source: Graph | None = None, call: str = "",
) -> Model:  # fmt: skip
    """Returns a model: an int8 graph with memory plan, kernels and C for a board.

    `graph` comes from `quantize`; `board` is a name of `board_names()`, a board file or a Board. Each of `passes` is called with
    (graph, board) and returns a graph, in their order: `Trec()`, `Skip()`, or a function of yours. `schedule` is called with
    (graph, board, kernels) and returns a program (then kernels are chosen for its steps) or one that has its kernels already:
    `Layerwise()` (the default), `Partial()`, or yours. `kernels` is "fast" (generated for the core) or "reference" (plain C).
    `source` is the float graph, to compare accuracies with; `call` is written into the C files, to say how they were made.
    Raises ValueError for a graph that breaks its own rules. Nothing is built: `measure` does, and says what does not fit.
    Chapter 13.
    """
    expect(Graph, graph, "what to compile", "such as quantize(export(module, shape), images)")
    chip, schedule = find_board(board) if isinstance(board, str) else board, schedule or Layerwise()
    labels, notes = list[str](), (SINGLE,) * (graph.rounding == "single")
    whole: Graph | None = None
    for apply in passes:
        given, graph = graph, apply(graph, chip)
        whole = given if graph.window and not given.window else whole
        labels.append(_label(apply))
        notes += apply.notes(graph) if hasattr(apply, "notes") else ()
    verify(graph)
    chosen = Kernels(kernels, any(getattr(apply, "immediates", False) for apply in passes))
    in_parts, limit = not isinstance(schedule, Layerwise), getattr(schedule, "sram", None)

    def made(place: Board) -> FastSteps:
        steps = schedule(graph, place, chosen)
        return kernels_for(steps, place, chosen) if isinstance(steps, Program) else steps

    if in_parts:  # the plan is made for what the board is; without a limit, it is to take as little SRAM as it can
        steps = made(chip)
        copies = NOTHING if limit is None else copies_for(steps, chip, limit)
    else:
        steps, copies = with_copies(made, chip, limit)
    labels += [_label(schedule)] if in_parts else []
    notes += schedule.notes(steps) if hasattr(schedule, "notes") else ()
    method = "+".join(labels) or "exact"
    call = call or f"compile {graph.name} --method {method} --kernels {kernels} --board {chip.name}"
    flash, outside = getattr(schedule, "flash", None), getattr(schedule, "input_outside", False)
    artifact = emit_steps(steps, call, copies)
    return Model(graph, chip, kernels, method, steps, artifact, limit, in_parts, outside, notes, source, flash, copies, whole)


def measure(
    model: Model, images: Images, labels: npt.NDArray[np.integer[Any]] | None = None, *, target: str = "simulator",
    data: str = "arrays", platformio: bool = False,
) -> Measurement:  # fmt: skip
    """Returns the measurement of a model: built, run on float images (N, C, H, W) or, of a height of 1, (N, C, L), and compared
    with `int8.interpret`. The images of a stream, one below another, are the rows that are pushed; what is counted and compared
    is each push that fills a window.

    `target` is "simulator" (exact instructions, modelled cycles), "host" (bits alone) or "board[:PORT]". `labels` (N,) count
    what is right by the first output; of several, all are compared. `data` is what the record calls the images; `platformio`
    builds with PlatformIO, which calls the compiler.
    Raises DoesNotFit for a board that is too small (on the host the record says so), MissingTool without the cross compiler,
    ValueError for images of another shape. Chapter 13.
    """
    expect(Model, model, "what to measure", "such as compile(graph, board)")
    images = interpret.as_maps(model.whole or model.graph, images)
    frames, inputs = model.fed(images)
    fits, firmware, on_host = True, None, target == "host"
    try:
        firmware = model.build(platformio=platformio)
    except DoesNotFit:
        fits = False
        if not on_host:
            raise
    except MissingTool:  # the host needs its own compiler alone; how much flash the board's program takes stays unknown
        if not on_host:
            raise
    runs, opened = [], model.open(target, firmware)
    try:
        for number, image in enumerate(tqdm(frames, "images", leave=False, disable=None)):
            runs.append(opened.push(image, number) if model.whole else opened.measure(image))
    finally:
        opened.close()
    runs, labels = (runs[model.graph.pushes - 1 :], None) if model.whole else (runs, labels)
    return record_of(model, images, inputs, labels, runs, firmware, target=target, data=data, fits=fits)


def _label(method: object) -> str:
    """Returns what a measurement calls a pass or a schedule."""
    return str(getattr(method, "label", None) or getattr(method, "__name__", type(method).__name__)).lower()
