"""How far off the cost model of TREC is on layers that it was not set on: writes a record that chapter 9 reads.

    python tools/trec_cost_model.py

Layers are drawn at random; each is predicted, then run in the simulator with TREC (both kernel sets) and exactly (fast kernels).
Compared are core cycles, without flash stalls. A right choice: the form predicted to be faster is the faster one.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tinyredux.boards import Board, find_board
from tinyredux.codegen import KERNELS
from tinyredux.explore import bench
from tinyredux.kernels.choice import fastest_cycles

BOARDS = ("disco_f469ni", "nucleo_f746zg")
MOST_MACS = 4_000_000


def draw(chance: random.Random) -> tuple[str, int, int]:
    """Returns a random layer as (exact spec, L, H): 1x1 to 5x5 windows, blocks of a tap, of several or of the whole window."""
    while True:
        kernel, in_c = chance.choice((1, 3, 3, 5)), chance.choice((16, 24, 32, 48, 64, 96, 128))
        out_c, size = chance.choice((32, 64, 96, 128, 192, 256)), chance.choice((4, 6, 8, 10, 12, 16))
        if size >= kernel and kernel**2 * in_c * out_c * size**2 <= MOST_MACS:
            taps = chance.choice([each for each in range(1, kernel**2 + 1) if kernel**2 % each == 0])
            return f"conv{kernel}x{kernel}:{in_c}-{out_c}@{size}x{size}", taps * in_c, chance.randint(2, 6)


def measured(spec: str, length: int, bits: int, board: Board) -> dict[str, Any]:
    """Returns a layer's predicted and simulated core cycles: TREC in both kernel sets, and the fast exact kernel."""
    found: dict[str, Any] = {"board": board.name, "layer": spec, "sub_length": length, "hash_bits": bits}
    for name, text, kernels in (
        ("trec_fast", f"{spec}/L{length}H{bits}", "fast"), ("trec_reference", f"{spec}/L{length}H{bits}", "reference"),
        ("exact_fast", spec, "fast"),
    ):  # fmt: skip
        graph = bench.layer_graph(bench.parse_spec(text))
        predicted = fastest_cycles(graph, graph.ops[0], kernels, board.cpu)
        found[name] = {"predicted": round(predicted), "simulated": bench.bench_layer(text, board, kernels).core_cycles}
    return found


def summary(layers: list[dict[str, Any]], board: str, kernels: str) -> dict[str, Any]:
    """Returns the errors of a kernel set's predictions on a board, and how often the faster of TREC and exact was named."""
    own = [layer for layer in layers if layer["board"] == board]
    errors = [abs(layer[f"trec_{kernels}"]["predicted"] / layer[f"trec_{kernels}"]["simulated"] - 1) for layer in own]
    right = [
        (layer["trec_fast"]["predicted"] < layer["exact_fast"]["predicted"])
        == (layer["trec_fast"]["simulated"] < layer["exact_fast"]["simulated"])
        for layer in own
    ]
    return {
        "board": board, "kernels": kernels, "layers": len(own), "mean_error": round(float(np.mean(errors)), 4),
        "worst_error": round(max(errors), 4), "right_choices": sum(right) if kernels == "fast" else None,
    }  # fmt: skip


def main() -> None:
    """Measures the layers on every board and writes the record after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("data/records/trec_cost_model.json"))
    options = parser.parse_args()
    chance = random.Random(options.seed)
    drawn = [draw(chance) for _ in range(options.layers)]
    layers: list[dict[str, Any]] = []
    for layer in drawn:
        layers += [measured(*layer, find_board(board)) for board in BOARDS]
        record = {
            "schema": 1, "kind": "trec_cost_model", "seed": options.seed, "command": shlex.join(["python", *sys.argv]),
            "summary": [summary(layers, board, kernels) for board in BOARDS for kernels in KERNELS], "layers": layers,
        }  # fmt: skip
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
