"""The record beside each file of trained weights, and the model card, which is written from the records and from nothing else."""

from __future__ import annotations

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
    pruning: dict[str, Any] | None = None  # of a pruned network: base, peaks, cuts, and the shapes that changed
    table: dict[str, dict[str, Any]] | None = None  # of a network with TREC: settings by module path
    skipping: dict[str, Any] | None = None  # of a network tuned for skipping: the channels left out, by operator

    @property
    def plain(self) -> bool:
        """Whether the weights are a network's own, without TREC or skipping."""
        return not self.table and not self.skipping

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return int(self.recipe["seed"])

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
    """Returns the model card as Markdown, from the records alone."""
    lines = [CARD_HEAD]
    for data, title in CARD_TITLES.items():
        rows = [record for record in found if record.data == data and record.plain]
        if rows:
            lines += [f"\n## {title}\n", CARD_COLUMNS, *(_row(record) for record in rows)]
    pruned = [(record, record.pruning) for record in found if record.pruning]
    if pruned:
        lines += ["\n## Pruned\n", CARD_PRUNED, *(_pruned_row(record, pruning, found) for record, pruning in pruned)]
    lines += _trec_lines([record for record in found if record.table])
    lines += _skipping_lines([record for record in found if record.skipping], found)
    lines += ["\n## Files\n", "| file | sha256 | made by |", "| --- | --- | --- |"]
    lines += [f"| {record.file} | `{record.sha256}` | `{record.command}` |" for record in found]
    return "\n".join(lines) + "\n"


def write_card(folder: Path = nets.WEIGHTS_FOLDER) -> Path:
    """Writes README.md beside the records of a folder of weights, and returns its path.

    Where somebody else's README.md lies there, which stays as it is, the card is MODEL_CARD.md.
    """
    path = folder / "README.md"
    if path.exists() and not path.read_bytes().startswith(CARD_HEAD[:60].encode()):
        path = folder / "MODEL_CARD.md"
    return write_whole(path, card(records(folder)))


def _row(record: Record) -> str:
    def share(correct: int, images: int) -> str:
        return f"{100 * correct / images:.2f} % ({correct} of {images})" if images else "none"

    loss = 100 * (record.correct_float - record.correct_int8) / record.images
    return (
        f"| {record.net} | {record.parameters:,} | {share(record.correct_int8, record.images)} | "
        f"{share(record.correct_float, record.images)} | {loss:.2f} | "
        f"{share(record.validation_correct, record.validation_images)} | {record.training_images:,} | "
        f"{record.recipe['epochs']} | {record.seed} | {record.torch} |"
    )


def _pruned_row(record: Record, pruning: dict[str, Any], found: list[Record]) -> str:
    before = next((one for one in found if (one.net, one.data) == (pruning["base"], record.data) and one.plain), None)
    shares = [f"{100 * one.correct_int8 / one.images:.2f} %" if one and one.images else "none" for one in (before, record)]
    return (
        f"| {record.net} | {record.data} | {pruning['base']} | {pruning['layerwise_bytes']:,} | {pruning['partial_bytes']:,} | "
        f"{pruning['peak_bytes']:,} | {pruning['reduction']:.2f} | {shares[0]} | {shares[1]} |"
    )


def _trec_lines(found: list[Record]) -> list[str]:
    rows = [
        f"| {record.net} | {record.data} | {path} | " + " | ".join(str(value) for value in one.values()) + " |"
        for record in found
        for path, one in (record.table or {}).items()
    ]
    return [CARD_TREC, CARD_COLUMNS, *map(_row, found), CARD_TREC_LAYERS, *rows] if found else []


def _skipping_lines(found: list[Record], every: list[Record]) -> list[str]:
    rows = []
    for record in found:
        made = record.skipping or {}
        before = next((one for one in every if (one.net, one.data) == (record.net, record.data) and one.plain), None)
        gone = ", ".join(f"{op} {len(channels)}" for op, channels in made["channels"].items())
        counts = [before.validation_correct, before.correct_int8] if before else ["none", "none"]
        rows.append(
            f"| {record.net} | {record.data} | {gone} | {made['predicted']:.3f} | {counts[0]} | {record.validation_correct} | "
            f"{counts[1]} | {record.correct_int8} | {record.recipe['epochs']} |"
        )
    return [CARD_SKIPPING, *rows] if found else []


CARD_TITLES = {"cifar10": "CIFAR-10", "synthetic": "Synthetic", "keywords": "Keywords"}
CARD_SKIPPING = """
## Skipping

Fine-tuned from the exact weights above without some input channels of their layers (`tinyredux/train/finetune_skip.py`), with
the exact network as a teacher beside the labels: more epochs than that one had. Cycles: predicted, fast kernels, as a share of
the exact network's; the share was chosen on validation images.

| network | data | input channels left out | cycles | validation, float | tuned | int8, test | tuned | epochs |
| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"""
CARD_TREC = """
## TREC

Fine-tuned from the exact weights above with the layers of the second table replaced (`tinyredux/train/finetune_trec.py`), for
as many epochs as the first table says beyond the exact network's; clusters are those of one image. Each record says whether the
result is the running mean of the weights (`average`), and whether what runs before the first TREC layer stayed as it was
(`freeze`). Part of the accuracy is that of the longer training. Tables and recipes were chosen on validation images.
"""
CARD_TREC_LAYERS = "\n| network | data | layer | L | H | hash | threshold |\n| --- | --- | --- | ---: | ---: | --- | --- |"
CARD_PRUNED = (
    "Bytes of activations, network input included: layer by layer and in parts before, in parts after pruning. A pruned network "
    "starts from the weights of its base and learns from its base's outputs beside the labels: more epochs than the base.\n\n"
    "| network | data | base | layer by layer | base in parts | in parts | times less | int8 of the base | int8 |\n"
    "| --- | --- | --- | ---: | ---: | ---: | ---: | --- | --- |"
)
CARD_COLUMNS = (
    "| network | parameters | int8, test | float, test | int8 loses, points | float, validation | images trained on | epochs | "
    "seed | torch |\n| --- | ---: | --- | --- | ---: | --- | ---: | ---: | ---: | --- |"
)
CARD_HEAD = """# Weights: model card

Written by `tinyredux.train.pretrained.card` from the JSON record beside each file. What the networks are: `tinyredux/nets/`.

- Task: one of ten classes for a 32x32 colour image, or one of twelve for a second of sound; outputs are logits. Data:
  `data/README.md`.
- Training: from scratch, on one CPU thread, by `tinyredux/train/loop.py`: SGD with Nesterov momentum 0.9, weight decay 5e-4,
  label smoothing 0.1, learning rate up over a fifth of the steps and down by a cosine, random flips and shifts by up to 4 pixels
  (sounds: shifts by up to 100 ms, and noise), bfloat16 products. Each record holds its whole recipe.
- Nothing was chosen on test images: recipes were fixed beforehand, the last epoch is kept, and the int8 ranges come from training
  images. Validation is 5,000 images cut from the training set (1,000 generated ones for the synthetic set, 360 clips of other
  speakers for keywords).
- Files: state dictionaries, weights in float16, biases and batch norm in float32. Accuracies are those of the files. With float32
  weights lenet gets 4,209 instead of 4,210 of 5,000 validation images right in int8, and 4,212 instead of 4,213 in float.
- int8 is what a board computes, to the bit: per-channel weights, per-tensor activations, LiteRT's rules.
- Made again by the command in the last table: the same bits under the same torch and processor type; elsewhere bfloat16 sums are
  rounded differently, and accuracies differ by some tenths of a point.
- Limits: CIFAR-10's ten classes and its photographs only. The synthetic weights recognise drawn figures, nothing else;
  they let everything run where CIFAR-10 is not, and their accuracies are not comparable with the others. The keyword networks
  heard 1,530 clips of five of their twelve words and four unknown ones; the test clips are those five words and unknown words
  most of which they never heard. They never answer no, off, on, stop, yes or silence, and are not comparable with published ones.
- Licence: Apache-2.0 for the files. CIFAR-10's authors state no licence for the images behind the first group: research use.
  Speech Commands (Pete Warden, arXiv 1804.03209), behind the keyword networks, is under CC BY 4.0."""
