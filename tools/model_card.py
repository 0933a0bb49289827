"""Writes the model card beside the committed weights: the text of model_card.md, its tables from the records."""

import re
from pathlib import Path
from typing import Any

from tinyredux.files import write_whole
from tinyredux.nets import WEIGHTS_FOLDER
from tinyredux.train.pretrained import Record, records

CARD_DATA = ("cifar10", "synthetic", "keywords")  # sets with a table of plain networks
PLACE = re.compile(r"^\{(\w+)\}$", re.M)  # of a table's rows in model_card.md


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
    keys = ("sub_length", "hash_bits", "hash", "threshold")
    return [
        _line(record.net, record.data, path, *(layer[key] for key in keys), layer.get("outputs", "all"))
        for path, layer in (record.table or {}).items()
    ]


def _skipping_row(record: Record, made: dict[str, Any], found: list[Record]) -> str:
    before = _before(record, record.net, found)
    gone = ", ".join(f"{op} {len(channels)}" for op, channels in made["channels"].items())
    counts = [before.validation_correct, before.correct_int8] if before else ["none", "none"]
    rights = (counts[0], record.validation_correct, counts[1], record.correct_int8)
    return _line(record.net, record.data, gone, f"{made['predicted']:.3f}", *rights, record.recipe["epochs"])


def main() -> None:
    """Writes the card."""
    write_whole(WEIGHTS_FOLDER / "README.md", card(records()))


if __name__ == "__main__":
    main()
