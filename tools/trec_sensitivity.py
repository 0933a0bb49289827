"""Which layers TREC is worth tuning for: one layer at a time, without tuning, int8 answers lost beside cycles saved.

    python tools/trec_sensitivity.py zfnet --images 500

Every convolution is tried by kernel reuse with the exact weights: blocks of a tap, of a row of taps, of the whole window; 2 to 6
bits. Where the network is predicted to take fewer cycles with fast kernels on a board, its right answers on the first validation
images are counted. Appends to data/records/trec_sensitivity.json; what is in the record is not made again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tinyredux import datasets, nets
from tinyredux.boards import find_board
from tinyredux.codegen import limits
from tinyredux.frontends import export
from tinyredux.graph import Conv, Graph
from tinyredux.int8 import evaluator, interpret, quantize
from tinyredux.kernels import TEMPLATES, ways
from tinyredux.kernels.choice import network_costs
from tinyredux.trec import Choice, pigeonhole_floor, redundancy, with_trec
from tinyredux.trec.rewrite import module_path

BOARDS = ("disco_f469ni", "nucleo_f746zg")
BITS = range(2, 7)
LEAST_CHANNELS = 8  # images stay exact


def choices(graph: Graph) -> Iterator[tuple[Conv, int, int]]:
    """Yields (convolution, L, H) of everything that is tried."""
    for op in graph.ops:
        channels = graph.tensors[op.inputs[0]].shape[2]
        if isinstance(op, Conv) and op.groups == 1 and channels >= LEAST_CHANNELS:
            lengths = {channels, channels * op.kernel[1], channels * op.kernel[1] * op.kernel[0]}
            for length in sorted(lengths):
                yield from ((op, length, bits) for bits in BITS if bits < graph.tensors[op.output].shape[2])


def lines(graph: Graph, split: datasets.Split, done: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields a line for each choice that is predicted to save cycles on a board and is not done."""
    boards = [find_board(name) for name in BOARDS]
    plain = {board.name: {op.name: ways(graph, op, board.cpu, TEMPLATES) for op in graph.ops} for board in boards}
    exact = {board.name: network_costs(graph, board.cpu, plain[board.name], partial(limits, board, None))[1] for board in boards}
    for op, length, bits in choices(graph):
        key = {"net": graph.name, "layer": module_path(graph, op), "sub_length": length, "hash_bits": bits}
        if any(all(line[name] == value for name, value in key.items()) for line in done):
            continue
        changed = with_trec(graph, {op.name: Choice(length, bits)})
        trec, saved = next(one for one in changed.ops if one.name == op.name), {}
        for board in boards:
            ways_of = plain[board.name] | {op.name: ways(changed, trec, board.cpu, TEMPLATES)}
            costs = network_costs(changed, board.cpu, ways_of, partial(limits, board, None))
            saved[board.name] = round(exact[board.name] - costs[1])
        if max(saved.values()) <= 0:
            continue
        outputs, clusters = interpret.run_counted(changed, evaluator.quantized(changed, split.images))
        right = int((outputs.reshape(len(outputs), -1).argmax(axis=1) == split.labels).sum())
        height, width, _ = graph.tensors[op.output].shape
        rows, columns = height * width, graph.constants[op.weights][0].size
        removed = redundancy(int(clusters[op.name].sum()), len(split.images) * rows * -(-columns // length))
        floor = pigeonhole_floor(bits, rows)
        yield key | {"predicted_saved": saved, "correct": right, "redundancy": round(removed, 4), "floor": round(floor, 4)}


def main() -> None:
    """Makes the lines that are missing and writes the record after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", choices=nets.NETS)
    parser.add_argument("--images", type=int, default=500, help="of the validation split")
    parser.add_argument("--out", type=Path, default=Path("data/records/trec_sensitivity.json"))
    options = parser.parse_args()
    data = datasets.load("cifar10")
    graph = quantize(export(nets.load_net(options.net), name=options.net), datasets.calibration(data))
    split = data.validation.first(options.images)
    record = json.loads(options.out.read_text()) if options.out.is_file() else {
        "schema": 1, "kind": "trec_sensitivity", "commands": [], "exact": {}, "lines": [],
    }  # fmt: skip
    record["commands"] = sorted({*record["commands"], shlex.join(["python", *sys.argv])})
    exact = {"images": options.images, "correct": evaluator.correct(graph, split)}
    if record["exact"].setdefault(options.net, exact) != exact:
        raise SystemExit(f"{options.out} holds {options.net} with other images or weights; delete its lines to make them again")
    for line in lines(graph, split, record["lines"]):
        record["lines"].append(line)
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
