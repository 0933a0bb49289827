"""Ways to choose what is skipped, in the same kernels at equal shares: writes a record that the book's tables read.

    python tools/skip_rivals.py lenet alexnet

Units of the unpacked kernels ("block") leave every layer but the first at one share; what counts are the validation images right.
Rivals that change no answer stand beside: the share of units whose weights are zero anyway, and of groups of eight sums (two
channels by four pixels) that are certain to saturate when half of their units are done, whatever comes.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import numpy as np

from tinyredux.graph import Conv, Graph
from tinyredux.int8 import evaluator, interpret, requantization
from tinyredux.settings import Settings, compile_net
from tinyredux.skip import records
from tinyredux.skip.cuts import (
    SIGNIFICANCES,
    UNITS,
    Cut,
    Statistics,
    cut_by_score,
    cuts_by_expected_loss,
    nonzero_units,
    skip,
    skippable,
    windows,
)  # fmt: skip

UNIT, SHARES = "block", (0.1, 0.2, 0.3, 0.4)
PIXELS = 4


def cut_of(graph: Graph, op: str, found: Statistics, way: str, share: float) -> Cut:
    """Returns a layer's cut at a share of its units, chosen in one way."""
    weights = windows(graph, op)
    if way == "expected loss":
        return cuts_by_expected_loss(weights, found, UNIT, (0.0, share / 2, share))[-1]
    return cut_by_score(weights, SIGNIFICANCES[way](weights, found, UNIT), UNIT, share)


def certain(graph: Graph, op: Conv, inputs: np.ndarray) -> float:
    """Returns the share of groups, two channels by four pixels in a row, whose outputs are all decided at half their operands.

    inputs: (N, H, W, C) less the zero point. An output is decided where even the most that the other half can add or take leaves
    it at the same limit of its clamp.
    """
    factors, weights = requantization(graph, op), windows(graph, op.name).reshape(len(graph.constants[op.bias]), -1)
    rows = interpret.windows(inputs, op.kernel, op.stride, op.padding, 0).reshape(-1, weights.shape[1]).astype(np.int64)
    half = weights.shape[1] // 2
    first = rows[:, :half] @ weights[:, :half].T.astype(np.int64) + graph.constants[op.bias]
    low, high = -128 - factors.input_zero_point, 127 - factors.input_zero_point
    rest = weights[:, half:].astype(np.int64)
    least = (np.minimum(rest * low, rest * high)).sum(axis=1)
    most = (np.maximum(rest * low, rest * high)).sum(axis=1)
    real = np.array(factors.multiplier) * 2.0 ** (np.array(factors.shift) - 31.0)
    top = (first + most) * real + factors.output_zero_point < factors.clamp.low
    bottom = (first + least) * real + factors.output_zero_point > factors.clamp.high
    decided = top | bottom
    pixels, channels = len(decided) // PIXELS * PIXELS, decided.shape[1] // 2 * 2
    return float(decided[:pixels, :channels].reshape(-1, PIXELS, channels // 2, 2).all(axis=(1, 3)).mean())


def compare(name: str, validation: int) -> dict[str, object]:
    """Returns the record's entry of one network."""
    compiled = compile_net(Settings(name, data="cifar10"))
    graph, data = compiled.int8, compiled.data
    started = time.monotonic()
    found = records.statistics_of(graph, data)
    seconds, split = time.monotonic() - started, data.validation.first(validation)
    layers = [op for op in skippable(graph) if next(one for one in graph.ops if one.name == op).inputs != graph.inputs]
    runs: list[dict[str, object]] = []
    for share in SHARES:
        for way, repair in (("expected loss", "fit"), ("expected loss", "bias"), ("share", "fit"), ("share", "bias"),
                            ("share", "none"), ("running", "none"), ("magnitude", "fit"), ("magnitude", "none")):  # fmt: skip
            cuts = {op: cut_of(graph, op, found[op], way, share) for op in layers}
            right = evaluator.correct(skip(graph, cuts, found, repair), split)
            runs.append({"share": share, "significance": way, "repair": repair, "correct": right})
    images = evaluator.quantized(graph, data.validation.images[:10])
    values = {op.name: interpret.run(until(graph, op), images).astype(np.int64) for op in graph.ops if op.name in layers}
    exact = {}
    for op in graph.ops:
        if op.name in layers:
            assert isinstance(op, Conv)
            centred = values[op.name] - requantization(graph, op).input_zero_point
            zero = 1 - float(nonzero_units(windows(graph, op.name), UNIT).mean())
            exact[op.name] = {"zero_units": round(zero, 5), "certain_at_half": round(certain(graph, op, centred), 5)}
    return {
        "net": name, "unit": UNIT, "meaning": UNITS[UNIT].meaning, "validation_images": len(split.images),
        "correct_exact": evaluator.correct(graph, split), "statistics_images": records.STATISTICS_IMAGES,
        "statistics_seconds": round(seconds, 1), "layers": layers, "runs": runs, "exact_rivals": exact,
    }  # fmt: skip


def until(graph: Graph, op: Conv) -> Graph:
    """Returns the part of a graph that makes what an operator reads."""
    ops = graph.ops[: graph.ops.index(op)]
    return graph.with_ops(ops, outputs=op.inputs)


def main() -> None:
    """Compares on every network named and writes the record after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="+")
    parser.add_argument("--validation", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("data/records/skip_rivals.json"))
    options = parser.parse_args()
    record: dict[str, object] = {"schema": 1, "kind": "skip_rivals", "command": shlex.join(["python", *sys.argv]), "nets": []}
    for name in options.nets:
        record["nets"] = [*record["nets"], compare(name, options.validation)]  # type: ignore[misc]
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
