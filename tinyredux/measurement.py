"""The record of a measurement: what was run, on what, with which result. Saved, loaded, compared; shown as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tinyredux.files import checked, expect, read_json, require, short_name, write_whole
from tinyredux.simulator import say_band
from tinyredux.tables import as_html, columns

SCHEMA = 1
LATER = {"notes", "error_band", "stalls", "command", "seed", "commit", "date", "machine", "versions"}  # which older records lack
MOST_TIMES = 1000  # the MACs of a plan, against those of the network


@dataclass(frozen=True)
class OpRecord:
    """One operator: MACs of its dense form, MACs done, median cycles, bytes alive while it runs.

    TREC: clusters per image, sub-vectors, the share removed (r_t), and what any data would lose with so few codes.
    """

    name: str
    kind: str
    macs_dense: int
    macs_executed: int
    cycles: int | None
    sram_live_bytes: int
    clusters: float | None = None
    vectors: int | None = None
    skipped: float | None = None
    redundancy: float | None = None
    redundancy_floor: float | None = None


@dataclass(frozen=True)
class Measurement:
    """A measured network, field for field what `measure --json` prints.

    `cycles_kind` says what the cycles are: "modelled" (Cortex-M4), "modelled-estimate" (Cortex-M7, M33) or "board";
    `error_band`: the least and the most that a board takes of modelled cycles; `stalls`: those of them in which the core
    waits for code, and for data, from flash.
    `command` remakes the record; `commit`, `date`, `machine` and `versions` are those of `provenance`; None in older records.
    Sizes in bytes from the ELF; `sram_bytes["stack"]` is the measured high-water mark; "copies" lie in idle SRAM,
    beside "total". None: cannot be known there. Chapter 1.
    """

    net: str
    method: str
    board: str
    target: str
    kernels: str
    data: str
    model_hash: str
    compiler: str
    flags: str
    tinyredux: str
    images: int
    correct: int | None
    accuracy: float | None
    correct_float: int | None
    accuracy_float: float | None
    bit_exact: bool
    instructions: int | None
    cycles: int | None
    cycles_kind: str | None
    timing_model: str | None
    ms: float | None
    macs_dense: int
    macs_executed: int
    sram_bytes: dict[str, int | None]
    flash_bytes: dict[str, int | None]
    per_op: list[OpRecord] = field(default_factory=list)
    fits: bool = True
    notes: list[str] = field(default_factory=list)
    error_band: list[float] | None = None
    stalls: dict[str, int] | None = None
    command: str | None = None
    seed: int | None = None
    commit: str | None = None
    date: str | None = None
    machine: str | None = None
    versions: dict[str, str | None] | None = None
    schema: int = SCHEMA

    @property
    def planned_bytes(self) -> int:
        """Bytes of arena and scratch."""
        return (self.sram_bytes["arena"] or 0) + (self.sram_bytes["scratch"] or 0)

    def to_json(self) -> dict[str, Any]:
        """Returns the record as the contract's JSON object."""
        return {"schema": self.schema} | {key: value for key, value in asdict(self).items() if key != "schema"}

    def file_name(self) -> str:
        """Returns the record's usual file name: network, method (and its MACs over the network's where patches overlap),
        kernels, board, target and data."""
        net, target = short_name(self.net), self.target.partition(":")[0]
        again = "partial" in self.method and self.macs_executed > self.macs_dense
        method = f"{self.method}-x{self.macs_executed / self.macs_dense:.2f}" if again else self.method
        return f"{net}.{method}.{self.kernels}.{self.board}.{target}.{Path(self.data).stem}.json"

    def save(self, path: Path) -> Path:
        """Writes the record as JSON, folders made as needed, and returns the path."""
        return write_whole(path, json.dumps(self.to_json(), indent=1) + "\n")

    def rows(self) -> list[tuple[str, str]]:
        """Returns the record for people: (what, how much) in the order a reader asks."""
        cycles = "none" if self.cycles is None else f"{self.cycles:,} ({self.cycles_kind}, {self.timing_model or self.board})"
        time = "" if self.ms is None else f", {self.ms:.1f} ms"
        in_float = _share(self.correct_float, self.images)
        if self.correct is not None and self.correct_float is None:
            in_float = "unknown (int8 from the start)"
        return [
            ("network", f"{self.net}, {self.method}, kernels {self.kernels}"),
            *(("note", note) for note in self.notes),
            ("runs on", f"{self.target}, {self.board}"),
            ("images", f"{self.images} of {self.data}"),
            ("correct", _share(self.correct, self.images) + f"; in float {in_float}"),
            ("equals the interpreter bit for bit", "yes" if self.bit_exact else "NO"),
            ("instructions per image", "none" if self.instructions is None else f"{self.instructions:,}"),
            ("cycles per image", cycles + time),
            *([] if self.stalls is None else [("of these, waiting for flash", _uses(self.stalls))]),
            *([] if self.error_band is None else [("error of the model", say_band(self.error_band))]),
            ("multiply-accumulates", f"{self.macs_executed:,} of {self.macs_dense:,}"),
            ("SRAM bytes", _uses(self.sram_bytes)),
            ("flash bytes", _uses(self.flash_bytes)),
            ("fits the board", "yes" if self.fits else "NO"),
        ]

    def __repr__(self) -> str:
        """Returns the table as text, which is what `print` and a notebook without HTML show."""
        return columns(self.rows())

    def _repr_html_(self) -> str:
        return as_html(self.rows(), style="text-align:left")


def _uses(counts: Mapping[str, int | None]) -> str:
    """Returns counts by use in one line."""
    return ", ".join(f"{use} {'unknown' if count is None else f'{count:,}'}" for use, count in counts.items())


def _share(correct: int | None, images: int) -> str:
    return "unknown (no labels)" if correct is None else f"{correct} of {images}"


def load(path: Path | str) -> Measurement:
    """Returns a saved record. Raises ValueError naming the file and what is wrong with it. Chapter 10."""
    expect(Path | str, path, "the record", "such as 'records/lenet.json'")
    path = Path(path)
    advice = f"make it with: python -m tinyredux measure NET --out {path.parent}"
    require(path.exists(), f"record {path} does not exist; {advice}")
    content = read_json(path, "record")
    schema, known = content.get("schema"), {entry.name for entry in fields(Measurement)}
    require(schema == SCHEMA, f"record {path} has schema {schema!r}, this version reads {SCHEMA}")
    missing = ", ".join(sorted(known - set(content) - LATER))
    require(not missing, f"record {path} lacks {missing}")
    return checked(Measurement, {key: value for key, value in content.items() if key in known}, f"record {path}")
