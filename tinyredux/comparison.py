"""Two measurements side by side: which settings differ, how the figures changed, and which are worse by more than a limit.

For two networks, kernel sets or boards the records are two files; for two commits they are two folders of files, paired by name.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyredux.files import read_json, require
from tinyredux.measurement import Measurement, load
from tinyredux.tables import shown

Number = float | None
FIGURES: dict[str, Callable[[Measurement], Number]] = {
    "cycles": lambda record: record.cycles,
    "instructions": lambda record: record.instructions,
    "sram": lambda record: record.sram_bytes["total"],
    "planned": lambda record: record.planned_bytes,
    "flash": lambda record: record.flash_bytes["total"],
    "macs": lambda record: record.macs_executed,
    "accuracy": lambda record: None if record.accuracy is None else 100 * record.accuracy,
}
SETTINGS = "net method board target kernels data images seed timing_model compiler flags commit".split()


@dataclass(frozen=True)
class Change:
    """One figure of two records, None where a record lacks it.

    `change` is b - a in percent of a; accuracies are in percent, and their change in points.
    """

    figure: str
    a: Number
    b: Number
    change: Number


@dataclass(frozen=True)
class Comparison:
    """Two records: `settings` holds (a, b) of each setting that differs, `operators` the cycles of those with one name."""

    name: str
    settings: dict[str, tuple[Any, Any]]
    figures: list[Change]
    operators: list[Change]
    bit_exact: bool
    fits: bool

    def worse(self, limits: Mapping[str, float]) -> list[str]:
        """Returns what is worse in b than its limit allows, in words; outputs that are wrong and what does not fit always are.

        `limits`: percent by figure, of accuracy points. A figure that one of the records lacks breaks its limit.
        """
        said = ["the outputs are not bit-exact"] * (not self.bit_exact) + ["it does not fit its board"] * (not self.fits)
        for one in self.figures:
            if (limit := limits.get(one.figure)) is None:
                continue
            unit = "points" if one.figure == "accuracy" else "%"
            loss = one.change if one.change is None or one.figure != "accuracy" else -one.change
            if loss is None:
                said.append(f"{one.figure}: {shown(one.a) or 'unknown'} and {shown(one.b) or 'unknown'} cannot be compared")
            elif loss > limit:
                said.append(f"{one.figure} {shown(one.a)} -> {shown(one.b)} is worse by {loss:.2f} {unit}, allowed {limit:g}")
        return [f"{self.name}: {words}" for words in said]


def compare(a: Measurement, b: Measurement, name: str = "") -> Comparison:
    """Returns what differs between two records; `name` is what the pair is called, else the network of `b`. Chapter 13."""
    before = {op.name: op.cycles for op in a.per_op}
    return Comparison(
        name or b.net,
        {field: (x, y) for field in SETTINGS if (x := getattr(a, field)) != (y := getattr(b, field))},
        [_change(figure, value(a), value(b)) for figure, value in FIGURES.items()],
        [_change(op.name, before[op.name], op.cycles) for op in b.per_op if op.name in before],
        b.bit_exact,
        b.fits,
    )


def _change(figure: str, a: Number, b: Number) -> Change:
    if a is None or b is None:
        return Change(figure, a, b, None)
    points = b - a
    return Change(figure, a, b, points if figure == "accuracy" else 100 * points / a if a else 0.0 if a == b else None)


def pairs(a: Path, b: Path) -> Iterator[tuple[str, Measurement, Measurement]]:
    """Yields name, record of `a`, record of `b`: two files, or the files of one name in two folders; others are no records.

    Raises ValueError where one is a file and the other a folder, and where no name is in both.
    """
    if not a.is_dir() and not b.is_dir():
        yield "" if a.name != b.name else a.stem, load(a), load(b)
        return
    require(a.is_dir() and b.is_dir(), f"{a} and {b} are a file and a folder; give two records, or two folders of records")
    both = sorted(_records(a) & _records(b))
    require(bool(both), f"no record of {b} has a file of its name in {a}; records are written by: measure NET --out DIR")
    for name in both:
        yield name.removesuffix(".json"), load(a / name), load(b / name)


def unpaired(a: Path, b: Path) -> list[str]:
    """Returns, in words, which records of two folders have none of their name in the other; two files are a pair."""
    there = {folder: _records(folder) if folder.is_dir() else set[str]() for folder in (a, b)}
    return [f"{name} is in {folder} alone" for folder in (a, b) for name in sorted(there[folder] - (there[a] & there[b]))]


def _records(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.json") if "per_op" in read_json(path, "record")}
