"""The record of MLPerf Tiny, data/records/mlperf.json: cycles and sizes, right answers of whole sets, bytes beside the oracles.

    python tools/mlperf.py                                         what is not in the record yet; hours on one core
    python tools/mlperf.py --again rows                            one part anew: rows, counted or compared
    TFLM_PYTHON=venv/bin/python python tools/mlperf.py             where the package tflite-micro is in another environment

`rows` are those of `tinyredux mlperf` on the book's boards that others published results of. `counted`: the right answers on
every input at hand, by the C of the fast kernels on this computer, and of how many inputs LiteRT's default interpreter gives
another byte. `compared`: 100 random inputs, and 20 at hand where there are, in the interpreter, as C of both kernel sets, and as
fast kernels in the simulated NUCLEO-L4R5ZI: values that differ from TFLM's (rounding double) or LiteRT's (single). Needs the
benchmark's files and the packages ai-edge-litert and tflite-micro. The record is written after each entry.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import interpreter as litert  # type: ignore[import-untyped, import-not-found, unused-ignore]
from tqdm import tqdm

from tinyredux import compile, load_tflite
from tinyredux.explore import mlperf
from tinyredux.files import locked, write_whole
from tinyredux.int8 import interpret
from tinyredux.provenance import provenance

Bytes = npt.NDArray[np.int8]
BOARDS = ("nucleo_l4r5zi", "nucleo_u575zi_q", "nucleo_f746zg")
ROUNDINGS = ("double", "single")
PARTS = ("rows", "counted", "compared")
RANDOM, REAL = 100, 20
TFLM = """
import sys, numpy, tflite_micro
file, source, target = sys.argv[1:]
net, found = tflite_micro.runtime.Interpreter.from_file(file, arena_size=1 << 22), []
for values in numpy.load(source):
    net.set_input(values, 0)
    net.invoke()
    found.append(net.get_output(0).copy())
numpy.save(target, numpy.stack(found))
"""


def by_litert(path: Path, inputs: Bytes) -> Bytes:
    """Returns the outputs (N, values) of LiteRT's default interpreter."""
    net = litert.Interpreter(model_path=str(path), num_threads=1)
    net.allocate_tensors()
    (source,), (target,), found = net.get_input_details(), net.get_output_details(), []
    for values in inputs:
        net.set_tensor(source["index"], values.reshape(source["shape"]))
        net.invoke()
        found.append(net.get_tensor(target["index"]).ravel().copy())
    return np.stack(found)


def by_tflm(path: Path, inputs: Bytes) -> Bytes:
    """Returns the outputs (N, values) of TFLM's reference kernels, run by the Python that $TFLM_PYTHON names."""
    shape = litert.Interpreter(model_path=str(path)).get_input_details()[0]["shape"]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.npy", Path(folder) / "out.npy"
        np.save(source, inputs.reshape(len(inputs), *shape))
        python = os.environ.get("TFLM_PYTHON", sys.executable)
        subprocess.run([python, "-c", TFLM, str(path), str(source), str(target)], check=True, env={})
        return np.asarray(np.load(target).reshape(len(inputs), -1), np.int8)


def by_target(model: Any, target: str, inputs: Bytes) -> Bytes:
    """Returns the outputs (N, values) of a compiled model on the host or in the simulator."""
    opened = model.open(target)
    try:
        return np.stack([opened.run(values).ravel() for values in tqdm(inputs, target, leave=False, disable=None)])
    finally:
        opened.close()


def counted(test: mlperf.Test, path: Path, rounding: str) -> dict[str, Any]:
    """Returns the right answers on all inputs at hand."""
    graph = load_tflite(path, rounding=rounding)
    inputs, labels, data = mlperf.inputs(test, graph)
    outputs, theirs = by_target(compile(graph, mlperf.BOARD), "host", inputs), by_litert(path, inputs)
    right = {name: int((found.argmax(axis=1) == labels).sum()) for name, found in (("ours", outputs), ("litert", theirs))}
    differ = int((outputs != theirs).any(axis=1).sum())
    return {
        "test": test.name, "rounding": rounding, "data": data, "images": len(inputs), "correct": right["ours"],
        "correct_litert": right["litert"], "images_that_differ_from_litert": differ,
    }  # fmt: skip


def compared(test: mlperf.Test, path: Path, rounding: str) -> dict[str, Any]:
    """Returns how many values of each of our ways differ from the oracle's."""
    graph = load_tflite(path, rounding=rounding)
    found, _, data = mlperf.inputs(test, graph)
    chance = np.random.default_rng(mlperf.SEED)
    inputs = chance.integers(-128, 128, (RANDOM, *graph.input.shape), np.int8)
    inputs = inputs if data == "random" else np.concatenate([inputs, found[:REAL]])
    oracle = {"double": by_tflm, "single": by_litert}[rounding](path, inputs)
    models = {kernels: compile(graph, mlperf.BOARD, kernels=kernels) for kernels in ("fast", "reference")}
    ways: dict[str, Callable[[], Bytes]] = {
        "interpreter": lambda: interpret.run(graph, inputs).reshape(len(inputs), -1),
        "host_fast": lambda: by_target(models["fast"], "host", inputs),
        "host_reference": lambda: by_target(models["reference"], "host", inputs),
        "simulator_fast": lambda: by_target(models["fast"], "simulator", inputs),
    }
    return {
        "test": test.name, "rounding": rounding, "oracle": {"double": "TFLM", "single": "LiteRT"}[rounding],
        "random_inputs": RANDOM, "inputs_at_hand": len(inputs) - RANDOM, "values": oracle.size,
        "differ": {name: int((run() != oracle).sum()) for name, run in ways.items()},
    }  # fmt: skip


def versions() -> dict[str, str | None]:
    """Returns the versions that numbers depend on, those of the oracles too."""
    asked = "import importlib.metadata as m; print(m.version('tflite-micro'))"
    tflm = subprocess.run([os.environ.get("TFLM_PYTHON", sys.executable), "-c", asked], capture_output=True, text=True)
    oracles = {"ai-edge-litert": importlib.metadata.version("ai-edge-litert"), "tflite-micro": tflm.stdout.strip() or None}
    return {**provenance()["versions"], **oracles}


def note(out: Path, part: str, key: dict[str, str], entry: dict[str, Any]) -> None:
    """Puts an entry into the record, in the place of the one with the same test, board and rounding."""
    order = {name: i for i, name in enumerate([test.name for test in mlperf.tests()])}
    with locked(out.with_suffix(".lock")):
        whole, origin = json.loads(out.read_text()) if out.is_file() else {}, provenance()
        kept = [row for row in whole.get(part, []) if not key.items() <= row.items()]
        rows = [*kept, entry | {"commit": origin["commit"], "date": origin["date"]}]
        rows.sort(key=lambda row: (*BOARDS, None).index(row.get("board")) * 100 + order[row["test"]])
        head = {"schema": 1, "kind": "mlperf", "command": "python tools/mlperf.py", "seed": mlperf.SEED}
        head |= {"machine": origin["machine"], "versions": versions()}
        lists = {name: whole.get(name, []) for name in PARTS} | {part: rows, "published": mlperf.facts()["published"]}
        write_whole(out, json.dumps(head | lists, indent=1) + "\n")
    out.with_suffix(".lock").unlink(missing_ok=True)


def main() -> None:
    """Makes what is not in the record, and what is asked for again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="append", choices=PARTS, default=[])
    parser.add_argument("--only", action="append", choices=PARTS, help="these parts alone")
    parser.add_argument("--test", action="append", help="these tests alone")
    parser.add_argument("--out", type=Path, default=mlperf.RECORD)
    options = parser.parse_args()
    before = json.loads(options.out.read_text()) if options.out.is_file() else {}
    files = mlperf.find_files()
    jobs: list[tuple[str, dict[str, str], Callable[[], dict[str, Any]]]] = []
    for test, rounding in product((one for one in mlperf.tests() if one.name in (options.test or files)), ROUNDINGS):
        path, key = files[test.name], {"test": test.name, "rounding": rounding}
        jobs += [("rows", key | {"board": b}, partial(mlperf.measure, test, path, b, rounding)) for b in BOARDS]
        jobs += [("counted", key, partial(counted, test, path, rounding))] if test.data else []
        jobs += [("compared", key, partial(compared, test, path, rounding))]
    for part, key, make in tqdm(jobs, "entries", disable=None):
        there = any(key.items() <= row.items() for row in before.get(part, []))
        if part in (options.only or PARTS) and (part in options.again or not there):
            note(options.out, part, key, make())


if __name__ == "__main__":
    main()
