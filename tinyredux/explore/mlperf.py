"""The MLPerf Tiny benchmark: its six int8 files measured on the book's boards, beside what others published of theirs.

`mlperf.json` says which files they are and what was published. Source: Banbury et al., MLPerf Tiny Benchmark, NeurIPS 2021
Datasets and Benchmarks, arXiv 2106.07597. SWW is published per frame, features included, by programs that keep what they know of
the frames before; the file computes all of its 30 frames at once, and no features. Chapter 5.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tinyredux import datasets, flow
from tinyredux.boards import find_board
from tinyredux.files import ROOT, require
from tinyredux.frontends import compare_with_litert, load_tflite
from tinyredux.graph import Array, Graph
from tinyredux.int8 import quant_of

RECORD = ROOT / "data" / "records" / "mlperf.json"
BOARD = "nucleo_l4r5zi"  # that of most published results
SEED = 0
RANDOM_INPUTS = 100
SPEECH = "speech_commands_12class_test.npz"  # the benchmark's own 1,000 inputs of KWS, as int8


@dataclass(frozen=True)
class Test:
    """A file of the benchmark: the test's name, its network, where the file lies in the public repository, the data at hand."""

    name: str
    network: str
    file: str
    folder: str
    data: str | None
    sha256: str


@cache
def facts() -> dict[str, Any]:
    """Returns mlperf.json: files, published results in million cycles, and where both are from."""
    found: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text())
    return found


def tests() -> tuple[Test, ...]:
    """Returns the six tests, in the order of the table."""
    return tuple(Test(**row) for row in facts()["tests"])


def best(test: str, board: str) -> dict[str, Any] | None:
    """Returns the fastest published result of a test on such a board: by whom, which version; None where there is none."""
    rows = [row for row in facts()["published"] if row["beside"] == board and test in row["million_cycles"]]
    fastest = min(rows, key=lambda row: row["million_cycles"][test], default=None)
    return fastest and {"by": fastest["by"], "version": fastest["version"], "million_cycles": fastest["million_cycles"][test]}


def find_files(folder: Path | None = None) -> dict[str, Path]:
    """Returns the files of the tests that are in `folder` (default: TINYREDUX_DATA/mlperf_tiny), by the test's name.

    Raises MissingDataError where there is none, and says which files go where; ValueError for a file that is another one.
    """
    data = datasets.data_folder()
    folder = folder or (data / "mlperf_tiny" if data else None)
    found = {test.name: folder / test.file for test in tests() if folder and (folder / test.file).is_file()}
    if not found:
        wanted = "; ".join(f"{test.file} (sha256 {test.sha256}) of {test.folder}" for test in tests())
        place = f"{folder} holds no file of MLPerf Tiny" if folder else "TINYREDUX_DATA is not set"
        raise datasets.MissingDataError(
            f"{place}; get from {facts()['repository']} at commit {facts()['commit']}: {wanted}; put them into "
            "$TINYREDUX_DATA/mlperf_tiny or name their folder by --folder; --record shows the stored table without them"
        )
    for test in tests():
        if test.name in found and (sum_ := hashlib.sha256(found[test.name].read_bytes()).hexdigest()) != test.sha256:
            raise ValueError(f"{found[test.name]} has sha256 {sum_}, expected {test.sha256}; copy the benchmark's file")
    return found


def inputs(test: Test, graph: Graph) -> tuple[Array, Array | None, str]:
    """Returns inputs (N, H, W, C) int8 of a test, their labels (N,) and what they are: those at hand, else 100 random ones."""
    cifar, folder = datasets.cifar10_folder(), datasets.data_folder()
    if test.data == "cifar10" and cifar:
        found = datasets.read_arrays(cifar / "cifar10_test.npz", ["images", "labels"])
        return (found["images"] ^ 128).view(np.int8), found["labels"], "cifar10"  # pixel - 128
    if test.data and test.data in SPEECH and folder and (folder / SPEECH).is_file():
        found = datasets.read_arrays(folder / SPEECH, ["mfcc_int8", "labels"])
        return found["mfcc_int8"].reshape(-1, *graph.input.shape), found["labels"], test.data
    shape = RANDOM_INPUTS, *graph.input.shape
    return np.random.default_rng(SEED).integers(-128, 128, shape, np.int8), None, "random"


def measure(test: Test, path: Path, board: str = BOARD, rounding: str = "double", images: int = 3) -> dict[str, Any]:
    """Returns a row of the table: a file measured on the first `images` inputs in the simulator of a board.

    `cycles` are modelled and `error_band` says what a board takes of them. `bit_exact`: all bytes equal the interpreter's;
    `oracle_differs`: of how many LiteRT's default interpreter has another value, None where `oracle` says "not compared": with
    rounding "double", or without the package ai-edge-litert. Raises what `load_tflite` and `flow.measure` do.
    """
    graph = load_tflite(path, rounding=rounding)
    values, labels, data = inputs(test, graph)
    require(1 <= images <= len(values), f"images is {images}, expected 1 to {len(values):,}, the inputs of {test.name}")
    values, quant = values[:images], quant_of(graph.input)
    real = ((values.astype(np.float32) - quant.zero_point) * np.float32(quant.scale[0])).transpose(0, 3, 1, 2)
    run = flow.measure(flow.compile(graph, board), real, None if labels is None else labels[:images], data=data)
    oracle, differs = "not compared", None
    if rounding == "single":
        try:
            oracle, differs = "LiteRT", compare_with_litert(path, values, rounding)[-1].differ
        except ImportError:
            pass
    return {
        "test": test.name, "network": test.network, "board": run.board, "rounding": rounding, "data": data, "images": images,
        "correct": run.correct, "counted": images, "macs": run.macs_dense, "cycles": run.cycles, "cycles_kind": run.cycles_kind,
        "timing_model": run.timing_model, "error_band": run.error_band, "instructions": run.instructions,
        "sram_bytes": run.sram_bytes["total"], "flash_bytes": run.flash_bytes["total"], "bit_exact": run.bit_exact,
        "oracle": oracle, "oracle_differs": differs, "published": best(test.name, run.board), "model_hash": run.model_hash,
        "compiler": run.compiler, "tinyredux": run.tinyredux,
    }  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows for people: million modelled cycles, what a board takes by the error band, and published ones."""
    shown = []
    for row in rows:
        cycles, other = row["cycles"] / 1e6, row["published"] or {}
        low, high = (f"{cycles * end:.3g}" for end in row["error_band"])
        by = other and f"{other['million_cycles']} ({other['by']} {other['version']})"
        right = "" if row["correct"] is None else f"{row['correct']:,} of {row['counted']:,}"
        differs = row["oracle_differs"]
        oracle = "oracle not compared" if differs is None else f"NOT {row['oracle']} ({differs:,})" if differs else row["oracle"]
        equals = f"{'' if row['bit_exact'] else 'NOT '}interpreter, {oracle}"
        shown.append({
            "test": row["test"], "board": row["board"], "Mcycles": f"{cycles:.3g}", "on_a_board": f"{low} to {high}",
            "published": by or "none", "times": f"{cycles / other['million_cycles']:.2f}" if other else "",
            "SRAM": row["sram_bytes"], "flash": row["flash_bytes"], "correct": right, "equals": equals,
        })  # fmt: skip
    return shown


def recorded(boards: Sequence[str] = (BOARD,), rounding: str = "double") -> dict[str, Any]:
    """Returns the stored table, its rows those of some boards and one rounding. Raises ValueError for a board without rows."""
    found: dict[str, Any] = json.loads(RECORD.read_text())
    there = {row["board"] for row in found["rows"]}
    if unknown := sorted(set(boards) - there):
        raise ValueError(f"the record has no rows of {', '.join(unknown)}; it has those of {', '.join(sorted(there))}")
    return found | {"rows": [row for row in found["rows"] if row["board"] in boards and row["rounding"] == rounding]}


def mlperf(
    boards: Sequence[str] = (BOARD,), rounding: str = "double", images: int = 3, folder: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Yields the rows of the table, `measure` of each file in `folder` on each board. Raises what `find_files` does."""
    files = find_files(folder)
    for board in map(find_board, boards):
        yield from (measure(test, files[test.name], board.name, rounding, images) for test in tests() if test.name in files)
