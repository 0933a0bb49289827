"""The search for what a network can leave out: the largest cuts that validation images allow; and the records of them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tinyredux.boards import find_board
from tinyredux.datasets import Dataset
from tinyredux.files import checked, read_json
from tinyredux.graph import MULTIPLE, Graph, without_dead_channels
from tinyredux.int8 import evaluator
from tinyredux.kernels import OnBoard, choose
from tinyredux.nets import WEIGHTS_FOLDER, own_name, short_name
from tinyredux.skip import Cut, skip, skippable, windows, without
from tinyredux.skip.records import Record, path_of, statistics_of, step_of

RECORDS = WEIGHTS_FOLDER / "skip"
CLEARLY = 0.01  # of the validation images: a loss that is no accident
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


def find(net: str, graph: Graph, data: Dataset, unit: str = "block", loss: int = 0) -> Record:
    """Returns the largest cuts that lose at most `loss` of the validation images.

    One threshold serves all layers: expected loss for what leaving a unit out is worth. So the search has one dimension:
    halving finds where clearly too much is lost, and from there thresholds go down until little enough is, for within some
    images of the exact count more skipping may well be better.
    """
    found = statistics_of(graph, data, skippable(graph, unit))
    paths, worth = {op: path_of(graph, op, statistics, unit) for op, statistics in found.items()}, worths(graph, unit)
    prices = prices_of(paths, worth)

    def right_at(price: float) -> int:
        return evaluator.correct(skip(graph, below(paths, worth, price), found), data.validation)

    exact = evaluator.correct(graph, data.validation)
    low, high = 0, len(prices)
    while high - low > 1:
        middle = (low + high) // 2
        if right_at(prices[middle]) >= exact - loss - CLEARLY * data.validation.count:
            low = middle
        else:
            high = middle
    right = right_at(prices[low])
    while right < exact - loss:
        low -= 1
        right = right_at(prices[low])
    cuts = below(paths, worth, prices[low])
    shares = {op: round(step_of(graph, op, unit) * paths[op].index(cut), 4) for op, cut in cuts.items()}
    thresholds = {op: cut.threshold for op, cut in cuts.items()}
    return Record(short_name(net), data.name, unit, shares, thresholds, data.validation.count, exact, right)


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
