"""Skipped networks: how much of each layer can go, found on validation images, kept as a record, and made again from it.

A record holds the shares; the weights follow from them, the network and the first training images. Test images are not touched.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyredux import evaluator, significance
from tinyredux.boards import find_board
from tinyredux.datasets import Dataset
from tinyredux.fast.choose import choose
from tinyredux.fast.reference_cost import reference_cycles
from tinyredux.files import checked, read_json, write_whole
from tinyredux.graph import Graph
from tinyredux.nets import WEIGHTS_FOLDER, own_name, short_name
from tinyredux.passes.dead_channels import MULTIPLE, without_dead_channels
from tinyredux.passes.skipping import UNITS, Cut, Statistics, cuts_by_expected_loss, skip, skippable, windows, without

RECORDS = WEIGHTS_FOLDER / "skip"
STEP, LARGEST = 0.05, 0.8  # shares that are tried
UNITS_FOR = {"reference": ("block", "pair"), "fast": ("input",)}  # what the kernels of each set can leave out
CLEARLY = 0.01  # of the validation images: a loss that is no accident
STATISTICS_IMAGES = 1000
BOARD = "disco_f469ni"  # whose predicted cycles say what a channel is worth
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Record:
    """Shares of units left out by operator, the largest significance left out, and validation images right before and after.

    `units` names the unit of an operator where that is not `unit`. Test images right (0 of 0: not counted) were counted once all
    was chosen, by `tested`.
    """

    net: str
    data: str
    unit: str
    shares: dict[str, float]
    thresholds: dict[str, float]
    validation_images: int
    validation_exact: int
    validation_skipped: int
    statistics_images: int = STATISTICS_IMAGES
    schema: int = 1
    units: dict[str, str] = field(default_factory=dict)
    test_images: int = 0
    test_exact: int = 0
    test_skipped: int = 0

    def __post_init__(self) -> None:
        """Rejects units and shares that no layer can have."""
        for unit in (self.unit, *self.units.values()):
            if unit not in UNITS:
                raise ValueError(f"unit is {unit!r}, expected one of {', '.join(UNITS)}")
        if min(self.validation_images, self.validation_exact, self.validation_skipped) < 0:
            raise ValueError("counts of validation images are 0 or more")
        for op, share in self.shares.items():
            if not 0 <= share < 1:
                raise ValueError(f"field shares.{op} is {share}, expected 0 or more and less than 1")

    def unit_of(self, op: str) -> str:
        """Returns the unit that is left out of an operator."""
        return self.units.get(op, self.unit)

    def save(self, path: Path) -> Path:
        """Writes the record as JSON and returns the path."""
        return write_whole(path, json.dumps(asdict(self), indent=1) + "\n")


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


def load(source: str) -> Record:
    """Returns a record from FILE.json, or design N of a front from FILE.json#N. Raises ValueError where there is none."""
    name, _, number = source.partition("#")
    content: Any = read_json(Path(name), "record of skipping")
    if "front" in content:
        designs = content["front"] if isinstance(content["front"], list) else []
        if not (number.isascii() and number.isdigit() and int(number[:9]) < len(designs)):
            there = f"designs 0 to {len(designs) - 1}" if designs else "no designs"
            raise ValueError(f"{name} holds {there}; name one as {Path(name).name}#0, found {source!r}")
        design = designs[int(number)]
        content = design.get("skip") if isinstance(design, dict) else design
    elif number:
        raise ValueError(f"{name} holds no front of designs, so it has none numbered {number!r}; give it without #{number}")
    return checked(Record, content, f"{source} is neither a record of skipping nor a skipping design of a front")


def statistics_of(
    graph: Graph, data: Dataset, progress: Progress | None = None, names: Sequence[str] | None = None
) -> dict[str, Statistics]:  # fmt: skip
    """Returns the statistics of the operators `names`, usually all convolutions, on the first training images.

    Raises ValueError where there are no training images.
    """
    if not len(data.train.images):
        raise ValueError(f"{data.name} has no training images to find out from what can be left out; use cifar10 or synthetic")
    return significance.collect(graph, evaluator.quantized(graph, data.train.images[:STATISTICS_IMAGES]), progress, names)


def path_of(graph: Graph, op: str, statistics: Statistics, unit: str, largest: float = LARGEST) -> list[Cut]:
    """Returns an operator's cuts, from none to the share `largest`: in steps of STEP, of input channels in steps of four."""
    step = step_of(graph, op, unit)
    steps = min(round(largest / step), math.ceil(1 / step) - 1)
    return cuts_by_expected_loss(windows(graph, op), statistics, unit, [step * i for i in range(steps + 1)])


def step_of(graph: Graph, op: str, unit: str) -> float:
    """Returns the share by which an operator's cuts grow."""
    return MULTIPLE / windows(graph, op).shape[3] if unit == "input" else STEP


def apply(graph: Graph, data: Dataset, record: Record, progress: Progress | None = None) -> Graph:
    """Returns the int8 graph with a record's cuts made and repaired."""
    for op in record.shares:
        if op not in (known := skippable(graph, record.unit_of(op))):
            raise ValueError(f"the record cuts {op} by {record.unit_of(op)}, {graph.name} has {known}; make the record again")
    found = statistics_of(graph, data, progress, list(record.shares))
    cuts = {op: path_of(graph, op, found[op], record.unit_of(op), share)[-1] for op, share in record.shares.items() if share}
    return skip(graph, cuts, found)


def tested(record: Record, graph: Graph, data: Dataset, progress: Progress | None = None) -> Record:
    """Returns a record with the test images that the exact graph and the skipped one get right."""
    exact, left = (evaluator.correct(one, data.test, progress) for one in (graph, apply(graph, data, record, progress)))
    return replace(record, test_images=len(data.test.images), test_exact=exact, test_skipped=left)


def find(
    net: str, graph: Graph, data: Dataset, unit: str = "block", loss: int = 0, progress: Progress | None = None
) -> Record:  # fmt: skip
    """Returns the largest cuts that lose at most `loss` of the validation images.

    One threshold serves all layers: expected loss for what leaving a unit out is worth. So the search has one dimension:
    halving finds where clearly too much is lost, and from there thresholds go down until little enough is, for within some
    images of the exact count more skipping may well be better.
    """
    found = statistics_of(graph, data, progress, skippable(graph, unit))
    paths, worth = {op: path_of(graph, op, statistics, unit) for op, statistics in found.items()}, worths(graph, unit)
    prices = prices_of(paths, worth)

    def right_at(price: float) -> int:
        right = evaluator.correct(skip(graph, below(paths, worth, price), found), data.validation)
        if progress:
            progress(f"price {price:.3g}: {right} right, {exact} exact")
        return right

    exact = evaluator.correct(graph, data.validation)
    low, high = 0, len(prices)
    while high - low > 1:
        middle = (low + high) // 2
        if right_at(prices[middle]) >= exact - loss - CLEARLY * len(data.validation.images):
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
    return Record(short_name(net), data.name, unit, shares, thresholds, len(data.validation.images), exact, right)


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
        return {name: float(_positions(graph, name)) for name in skippable(graph, unit)}
    whole, found = predicted_cycles(graph, board), {}
    for name in skippable(graph, unit):
        weights = windows(graph, name)
        kept = np.ones((1, weights.shape[3]), bool)
        kept[:, :MULTIPLE] = False
        less = predicted_cycles(without(graph, {name: Cut(unit, kept, 0.0)}), board)
        found[name] = max(1.0, (whole - less) / MULTIPLE)
    return found


def predicted_cycles(graph: Graph, board: str = BOARD) -> float:
    """Returns the predicted cycles of a graph's fast kernels on a board, without what nobody reads; as far as they are known."""
    core, small = find_board(board).cpu, without_dead_channels(graph)
    forms = choose(small, core).forms
    plain = [reference_cycles(small, op, core) for op in small.ops if op.name not in forms]
    return sum(form.cost for form in forms.values()) + sum(cycles for cycles in plain if math.isfinite(cycles))


def _positions(graph: Graph, name: str) -> int:
    op = next(op for op in graph.ops if op.name == name)
    height, width, _ = graph.tensors[op.output].shape
    return height * width
