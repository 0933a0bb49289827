"""What a search for cuts stands on: what a unit is worth, the largest cuts at a price, the committed records of cuts."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tinyredux.boards import find_board
from tinyredux.files import checked, read_json
from tinyredux.graph import MULTIPLE, Graph, without_dead_channels
from tinyredux.kernels import OnBoard, choose
from tinyredux.nets import WEIGHTS_FOLDER, own_name
from tinyredux.skip import Cut, skippable, windows, without
from tinyredux.skip.records import Record

RECORDS = WEIGHTS_FOLDER / "skip"
BOARD = "disco_f469ni"  # whose predicted cycles say what a channel is worth


def record_path(net: str, data: str) -> Path:
    """Returns where the committed record of a network's cuts is, if there is one."""
    return RECORDS / f"{own_name(net)}.{data}.json"


def record_for(net: str, data: str) -> Record:
    """Returns the record of a network's cuts. Raises ValueError where there is none."""
    path = record_path(net, data)
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in RECORDS.glob("*.json"))) or "none"
        raise ValueError(
            f"no record of what {net} can leave out on {data}; there are {known}; make weights that do without by "
            f"`tinyredux train {net} --method skip`, or a record by `tinyredux explore`, and give it with --skip"
        )
    return checked(Record, read_json(path, "record of skipping"), f"record of skipping {path}")


def prices_of(paths: Mapping[str, list[Cut]], worth: Mapping[str, float]) -> list[float]:
    """Returns the prices, expected loss for what a unit is worth, at which one more cut is made."""
    return sorted({cut.threshold / worth[op] for op, path in paths.items() for cut in path})


def below(paths: Mapping[str, list[Cut]], worth: Mapping[str, float], price: float) -> dict[str, Cut]:
    """Returns each operator's largest cut whose units cost at most `price`."""
    return {op: [cut for cut in path if cut.threshold / worth[op] <= price][-1] for op, path in paths.items()}


def worths(graph: Graph, unit: str, board: str = BOARD) -> dict[str, float]:
    """Returns what leaving one unit out is worth, by operator: positions at which it is not computed.

    For input channels: predicted cycles of the fast kernels, those of whoever writes the channel among them.
    """
    if unit != "input":
        outputs = {name: graph.tensors[graph.by_name[name].output] for name in skippable(graph, unit)}
        return {name: float(output.shape[0] * output.shape[1]) for name, output in outputs.items()}
    whole, found = predicted_cycles(graph, board), {}
    for name in skippable(graph, unit):
        weights = windows(graph, name)
        kept = np.ones((1, weights.shape[3]), bool)
        kept[:, :MULTIPLE] = False
        less = predicted_cycles(without(graph, {name: Cut(unit, kept, 0.0)}), board)
        found[name] = max(1.0, (whole - less) / MULTIPLE)
    return found


def predicted_cycles(graph: Graph, board: str = BOARD) -> float:
    """Returns the predicted cycles of a graph's fast kernels on a board, without what nobody reads."""
    return choose(without_dead_channels(graph), OnBoard(find_board(board))).cycles
