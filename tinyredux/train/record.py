"""The record beside each file of trained weights: how they were made, and how well they do."""

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyredux import nets
from tinyredux.files import checked, read_json, write_whole


@dataclass(frozen=True)
class Record:
    """One weights file: how it was trained, and how many test images it gets right in float and in int8."""

    net: str
    data: str
    file: str
    sha256: str
    parameters: int
    recipe: dict[str, Any]
    training_images: int
    validation_images: int
    validation_correct: int
    images: int
    correct_float: int
    correct_int8: int
    calibration_images: int
    torch: str
    numpy: str
    command: str
    schema: int = 1
    origin: dict[str, Any] | None = None  # commit, day, machine and versions, as `provenance` has them; None in older records
    data_sha256: str = ""  # of a user's own data, from which the name of the data has its digits
    pruning: dict[str, Any] | None = None  # of a pruned network: base, peaks, cuts, and the shapes that changed
    table: dict[str, dict[str, Any]] | None = None  # of a network with TREC: settings by module path
    skipping: dict[str, Any] | None = None  # of a network tuned for skipping: the channels left out, by operator

    @property
    def plain(self) -> bool:
        """Whether the weights are a network's own, without TREC or skipping."""
        return not self.table and not self.skipping

    def save(self, path: Path) -> None:
        """Writes the record as JSON, one field a line."""
        write_whole(path, json.dumps(asdict(self), indent=1) + "\n")


def load_record(path: Path) -> Record:
    """Returns the record that `path` holds. Raises ValueError naming the field that is wrong."""
    return checked(Record, read_json(path, "record of weights"), f"record of weights {path}")


def records(folder: Path = nets.WEIGHTS_FOLDER) -> list[Record]:
    """Returns the records of a folder of weights, CIFAR-10 first, networks and files in alphabetical order.

    What else lies there is somebody else's: JSON files without weights beside them, or that are no such records.
    """
    found = []
    for path in folder.glob("*.json"):
        with contextlib.suppress(ValueError):
            found += [load_record(path)] if path.with_suffix(".safetensors").is_file() else []
    return sorted(found, key=lambda record: (record.data, record.net, record.file))
