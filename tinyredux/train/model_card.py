"""The record beside each file of trained weights, and the model card: the text of model_card.md, its tables from the records."""

import contextlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyredux import nets
from tinyredux.files import checked, read_json, write_whole

CARD_DATA = ("cifar10", "synthetic", "keywords")  # sets with a table of plain networks
PLACE = re.compile(r"^\{(\w+)\}$", re.M)  # of a table's rows in model_card.md


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


def card(found: list[Record]) -> str:
    """Returns the model card as Markdown: the text of model_card.md with a row for each record, and no section without rows."""
    tables = {data: [_row(record) for record in found if record.data == data and record.plain] for data in CARD_DATA}
    tables |= {
        "pruned": [_pruned_row(record, record.pruning, found) for record in found if record.pruning],
        "trec": [_row(record) for record in found if record.table],
        "trec_layers": [row for record in found for row in _layer_rows(record)],
        "skipping": [_skipping_row(record, record.skipping, found) for record in found if record.skipping],
        "files": [_line(record.file, f"`{record.sha256}`", f"`{record.command}`") for record in found],
    }
    sections = []
    for section in Path(__file__).with_suffix(".md").read_text(encoding="utf-8").split("\n\n## "):
        if all(tables[name] for name in PLACE.findall(section)):
            sections.append(PLACE.sub(lambda place: "\n".join(tables[place[1]]), section))
    return "\n\n## ".join(sections)


def write_card(folder: Path = nets.WEIGHTS_FOLDER) -> Path:
    """Writes README.md beside the records of a folder of weights, and returns its path.

    Where somebody else's README.md lies there, which stays as it is, the card is MODEL_CARD.md.
    """
    path = folder / "README.md"
    if path.exists() and not path.read_bytes().startswith(b"# Weights: model card\n\nWritten by `tinyredux."):
        path = folder / "MODEL_CARD.md"
    return write_whole(path, card(records(folder)))


def _line(*cells: object) -> str:
    """Returns a row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def _row(record: Record) -> str:
    def share(correct: int, images: int) -> str:
        return f"{100 * correct / images:.2f} % ({correct} of {images})" if images else "none"

    in_int8, in_float = (share(correct, record.images) for correct in (record.correct_int8, record.correct_float))
    loss = 100 * (record.correct_float - record.correct_int8) / record.images
    validation = share(record.validation_correct, record.validation_images)
    recipe = (f"{record.training_images:,}", record.recipe["epochs"], record.recipe["seed"], record.torch)
    return _line(record.net, f"{record.parameters:,}", in_int8, in_float, f"{loss:.2f}", validation, *recipe)


def _share(record: Record | None) -> str:
    return f"{100 * record.correct_int8 / record.images:.2f} %" if record and record.images else "none"


def _before(record: Record, name: str, found: list[Record]) -> Record | None:
    """Returns the record of the plain network `name` on the same data."""
    return next((one for one in found if (one.net, one.data) == (name, record.data) and one.plain), None)


def _pruned_row(record: Record, pruning: dict[str, Any], found: list[Record]) -> str:
    sizes = (f"{pruning[key]:,}" for key in ("layerwise_bytes", "partial_bytes", "peak_bytes"))
    shares = (_share(_before(record, pruning["base"], found)), _share(record))
    return _line(record.net, record.data, pruning["base"], *sizes, f"{pruning['reduction']:.2f}", *shares)


def _layer_rows(record: Record) -> list[str]:
    return [_line(record.net, record.data, path, *layer.values()) for path, layer in (record.table or {}).items()]


def _skipping_row(record: Record, made: dict[str, Any], found: list[Record]) -> str:
    before = _before(record, record.net, found)
    gone = ", ".join(f"{op} {len(channels)}" for op, channels in made["channels"].items())
    counts = [before.validation_correct, before.correct_int8] if before else ["none", "none"]
    rights = (counts[0], record.validation_correct, counts[1], record.correct_int8)
    return _line(record.net, record.data, gone, f"{made['predicted']:.3f}", *rights, record.recipe["epochs"])
