"""Fits tinyredux/kernels/reference_cost.json: cycles of the reference kernels, from layers run in the simulator.

    python tools/fit_reference_cost.py

Source: ours; least squares of relative errors, with no cycles below zero.
"""

import json

import numpy as np

from tinyredux.boards import find_board
from tinyredux.explore.bench import bench_layer, layer_graph, parse_spec
from tinyredux.kernels.reference_cost import FILE, counts, kind_of

BOARDS = ("disco_f469ni", "nucleo_f746zg", "nucleo_u575zi_q")  # one for each core
LAYERS = (
    "conv3x3:8-8@8x8", "conv5x5:3-16@12x12", "conv3x3:16-8@9x7", "conv5x5:8-12@6x6", "conv3x3s2:12-16@11x11",
    "conv3x3:2-2@3x3", "conv3x3:4-8@2x2", "conv1x1:4-4@2x2", "depthwise3x3:4@3x3", "depthwise3x3:8@2x2", "depthwise3x3:2@4x4",
    "dense:16-2", "max2x2s2:4@4x4", "max3x3:8@2x2", "average2x2s2:4@4x4", "average3x3:8@2x2", "max2x2:3@2x2", "average2x2:3@2x2",
    "conv3x3:1-6@14x14", "conv7x7s2:3-8@14x14", "conv1x3:16-16@8x8", "conv3x3:5-7@6x5", "conv2x2:32-4@5x5",
    "conv1x1:16-16@8x8", "conv1x1:64-8@5x5", "conv1x1:7-5@9x9", "conv1x1:8-64@6x6", "conv1x1:128-16@3x3", "conv1x1:3-3@4x4",
    "depthwise3x3:16@8x8", "depthwise3x3s2:8@11x11", "depthwise5x5:12@7x7", "depthwise3x3:5@9x9", "depthwise7x7:4@8x8",
    "depthwise3x3:3@12x12", "depthwise1x5:8@8x8", "depthwise3x3:64@4x4", "dense:256-10", "dense:64-64", "dense:30-3",
    "dense:1024-4", "max3x3s2:16@12x12", "max2x2s2:6@14x14", "max2x2s2:32@8x8", "max3x3:3@8x8", "max5x5:8@8x8",
    "max4x4s4:16@16x16", "max7x7:7@9x9", "max2x2:4@12x12", "average3x3s2:16@12x12", "average2x2s2:6@14x14",
    "average2x2s2:32@8x8", "average3x3:3@8x8", "average5x5:8@8x8", "average4x4s4:16@16x16", "average7x7:7@9x9",
    "average2x2:4@12x12", "add:16@8x8", "add:3@5x5", "add:64@6x6", "relu:16@8x8", "relu:3@5x5", "relu:64@6x6",
)  # fmt: skip


def fit(rows: np.ndarray, cycles: np.ndarray) -> np.ndarray:
    """Returns non-negative cycles for each column of `rows`: columns that would get less than none are left out."""
    scaled, found = rows / cycles[:, None], np.zeros(rows.shape[1])
    used = [i for i in range(rows.shape[1]) if rows[:, i].any()]
    while used:
        solution = np.linalg.lstsq(scaled[:, used], np.ones(len(cycles)), rcond=None)[0]
        if solution.min() >= 0:
            found[used] = solution
            return found
        used.remove(used[int(solution.argmin())])
    return found


def main() -> None:
    """Runs the layers on each core and writes the file."""
    table: dict[str, dict[str, list[float]]] = {}
    worst: dict[str, dict[str, float]] = {}
    for name in BOARDS:
        board = find_board(name)
        samples: dict[str, list[tuple[list[int], int]]] = {}
        for layer in LAYERS:
            graph = layer_graph(parse_spec(layer))
            kind = kind_of(graph.ops[0])
            assert kind is not None
            cycles = bench_layer(layer, board, "reference").core_cycles
            samples.setdefault(kind, []).append((counts(graph, graph.ops[0]), cycles))
        table[board.cpu], worst[board.cpu] = {}, {}
        for kind, found in samples.items():
            rows, cycles = np.array([row for row, _ in found], float), np.array([value for _, value in found], float)
            solution = fit(rows, cycles)
            table[board.cpu][kind] = [round(float(value), 3) for value in solution]
            worst[board.cpu][kind] = round(float(np.abs(rows @ solution / cycles - 1).max()), 3)
            print(board.cpu, kind, table[board.cpu][kind], worst[board.cpu][kind])
    FILE.write_text(json.dumps({"layers": len(LAYERS), "largest_relative_error": worst, "cycles": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
