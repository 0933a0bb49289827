"""Skipped networks: how much of each layer can go, found on validation images, kept as a record, and made again from it.

A record holds the shares; the weights follow from them, the network and the first training images. Test images are not touched.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tinyredux.datasets import Dataset, check_part
from tinyredux.files import checked, read_json, write_whole
from tinyredux.graph import MULTIPLE, Graph
from tinyredux.int8 import evaluator
from tinyredux.skip import saliency
from tinyredux.skip.cuts import UNITS, Cut, Statistics, cuts_by_expected_loss, skip, skippable, windows

STEP, LARGEST = 0.05, 0.8  # shares that are tried
UNITS_FOR = {"reference": ("block", "pair"), "fast": ("input",)}  # what the kernels of each set can leave out
STATISTICS_IMAGES = 1000


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
        for part in ("validation", "test"):
            images, exact, skipped = (getattr(self, f"{part}_{name}") for name in ("images", "exact", "skipped"))
            if not 0 <= min(exact, skipped) <= max(exact, skipped) <= images:
                raise ValueError(f"{exact} and {skipped} of {images} {part} images are right, expected 0 to all of them")
        if self.statistics_images < 1:
            raise ValueError(f"field statistics_images is {self.statistics_images}, expected 1 or more")
        for op, share in self.shares.items():
            if not 0 <= share < 1:
                raise ValueError(f"field shares.{op} is {share}, expected 0 or more and less than 1")

    def unit_of(self, op: str) -> str:
        """Returns the unit that is left out of an operator."""
        return self.units.get(op, self.unit)

    def save(self, path: Path) -> Path:
        """Writes the record as JSON and returns the path."""
        return write_whole(path, json.dumps(asdict(self), indent=1) + "\n")


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


def statistics_of(graph: Graph, data: Dataset, names: Sequence[str] | None = None) -> dict[str, Statistics]:
    """Returns the statistics of the operators `names`, usually all convolutions, on the first training images.

    Raises ValueError where there are no training images.
    """
    check_part(data, "training", labelled=False)
    return saliency.collect(graph, evaluator.quantized(graph, data.train.first(STATISTICS_IMAGES).images), names)


def path_of(graph: Graph, op: str, statistics: Statistics, unit: str, largest: float = LARGEST) -> list[Cut]:
    """Returns an operator's cuts, from none to the share `largest`: in steps of STEP, of input channels in steps of four."""
    step = step_of(graph, op, unit)
    steps = min(round(largest / step), math.ceil(1 / step) - 1)
    return cuts_by_expected_loss(windows(graph, op), statistics, unit, [step * i for i in range(steps + 1)])


def step_of(graph: Graph, op: str, unit: str) -> float:
    """Returns the share by which an operator's cuts grow."""
    return MULTIPLE / windows(graph, op).shape[3] if unit == "input" else STEP


def apply(graph: Graph, data: Dataset, record: Record) -> Graph:
    """Returns the int8 graph with a record's cuts made and repaired. Raises ValueError for a record of another network.

    A network is known by its name; `export` calls it "net" where none is given, and then its operators alone must fit.
    """
    if graph.name not in (record.net, "net"):
        raise ValueError(f"the record was made for {record.net}, the network is {graph.name}; take the record of {graph.name}")
    for op in record.shares:
        if op not in (known := skippable(graph, record.unit_of(op))):
            raise ValueError(f"the record cuts {op} by {record.unit_of(op)}, {graph.name} has {known}; make the record again")
    found = statistics_of(graph, data, list(record.shares))
    cuts = {op: path_of(graph, op, found[op], record.unit_of(op), share)[-1] for op, share in record.shares.items() if share}
    return skip(graph, cuts, found)
