"""Trained weights: made by one command, kept as safetensors, each with a record of how it was made and how well it does.

`tinyredux/weights/README.md`, the model card, is written from the records and from nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from tinyredux import accuracy, datasets, nets, prune, skip_tuning, train, train_trec

Progress = Callable[[str], None]
LABELLED = ", ".join(datasets.SHAPES)  # data to train on


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
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def load_record(path: Path) -> Record:
    """Returns the record that `path` holds."""
    return Record(**json.loads(path.read_text()))


def records(folder: Path = nets.WEIGHTS_FOLDER) -> list[Record]:
    """Returns the records of a folder of weights, CIFAR-10 first, networks and files in alphabetical order."""
    return sorted(
        (load_record(path) for path in folder.glob("*.json")), key=lambda record: (record.data, record.net, record.file)
    )


def train_net(
    name: str,
    data: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    checkpoint: Path | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Record:
    """Trains a network from scratch, leaves weights, record and card in `out` (default: the user's cache), returns the record.

    `name` is built-in or path/to/file.py:factory; `data` None is CIFAR-10 where it is, else the synthetic set. After every
    epoch the state goes to `checkpoint`, and a training that was interrupted goes on from it; without one, it is kept in
    the cache until the weights are written. Raises ValueError for data that cannot be trained on, MissingDataError where
    the data is absent.
    """
    cache = datasets.cache_folder()
    images = datasets.load(data, nets.resolve(name).input_shape)  # type: ignore[arg-type]
    data = images.name
    recipe = train.recipe_for(nets.own_name(name), data, epochs, seed)
    torch.manual_seed(recipe.seed)
    net = nets.resolve(name)
    check_trainable(net, images)
    kept = checkpoint or cache / "checkpoints" / f"{nets.own_name(name)}.{data}.{recipe.epochs}.{recipe.seed}.pt"
    train.train(net, images, recipe, kept, progress)
    short, out = _place(name, out)
    record = save_weights(
        net, short, images, recipe, f"tinyredux train {name} --data {data}{_options(epochs, seed)}", out, progress
    )
    write_card(out)
    if checkpoint is None:
        kept.unlink()
    return record


def check_trainable(net: nn.Module, data: datasets.Dataset) -> None:
    """Raises ValueError for data without labelled training images, and a network that does not give each of them classes."""
    if data.train.labels is None or not len(data.train.images):
        raise ValueError(f"cannot train on {data.name}: it has no training images with labels; use {LABELLED}")
    with torch.no_grad():
        shape = tuple(net.eval()(torch.from_numpy(data.train.images[:1])).shape)
    if len(shape) != 2:
        raise ValueError(f"cannot train a network that returns {shape}; expected (images, classes): flatten at its end")
    datasets.check_labels(data.train, shape[1])


def prune_net(
    name: str,
    budget_bytes: int,
    data: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    save_as: str | None = None,
    aim: str = "peak",
    steps: int = 12,
    rate: float | None = None,
    checkpoint: Path | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Record:
    """Prunes a trained network until its partial plan fits `budget_bytes`, tunes it, and leaves the same files as `train_net`.

    The result is called `save_as`, or NET_pruned_BYTES, and is a network for every verb. `epochs` and `seed` are those of the
    tuning, `rate` its highest learning rate; `aim` and `steps` as in `prune.Pruning`. A pruned network can be pruned further:
    its teacher is then the network that was never pruned. Goes on where it was interrupted, as `train_net` does. Raises
    ValueError for a budget out of reach.
    """
    images, net = nets.with_data(name, data)
    data, save_as = images.name, save_as or f"{nets.short_name(name)}_pruned_{budget_bytes}"
    check_trainable(net, images)
    if save_as in nets.NETS:
        raise ValueError(f"{save_as} is a built-in network; choose another name for the pruned one")
    if out is None and (nets.WEIGHTS_FOLDER / f"{save_as}.{data}.json").is_file():
        raise ValueError(f"{save_as} comes with tinyredux and would be found in place of the new one; choose another --save-as")
    tune = train.given(prune.TUNE if rate is None else replace(prune.TUNE, peak_rate=rate), epochs, seed)
    pruning = prune.Pruning(budget_bytes, steps, tune=tune, aim=aim)
    root = name
    while earlier := nets.pruning_of(root, (data,)):
        root = earlier["base"]
    cache = datasets.cache_folder()
    kept = checkpoint or cache / "checkpoints" / f"{nets.own_name(name)}.{data}.pruned.{aim}.{budget_bytes}.{tune.seed}.pt"
    found = prune.prune(net, images, pruning, kept, progress, nets.load_net(root, data))
    others = (" --aim anywhere" if aim != "peak" else "") + (f" --steps {steps}" if steps != 12 else "")
    others += f" --rate {rate}" if rate is not None else ""
    command = f"tinyredux prune {name} --sram {budget_bytes} --data {data}{_options(epochs, seed)}{others} --save-as {save_as}"
    out = out or cache / "weights"
    record = save_weights(net, save_as, images, tune, command, out, progress, {"base": name, **found})
    write_card(out)
    if checkpoint is None:
        kept.unlink()
        prune.tuning_checkpoint(kept).unlink()
    return record


def trec_net(
    name: str,
    data: str | None = None,
    table_file: Path | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    checkpoint: Path | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Record:
    """Fine-tunes a trained network with TREC layers, and leaves the same files as `train_net`, as NAME.trec.DATA.

    `table_file` holds the table of layers and may hold the recipe, see `train_trec.table_for`. Goes on where it was
    interrupted, as `train_net` does. Raises ValueError for a table that does not fit.
    """
    images, net = nets.with_data(name, data)
    data, own = images.name, nets.own_name(name)
    check_trainable(net, images)
    recipe = train_trec.recipe_for(own, data, epochs, seed, table_file)
    table = train_trec.table_for(own, net, table_file)
    kept = checkpoint or datasets.cache_folder() / "checkpoints" / f"{own}.{data}.trec.{recipe.epochs}.{recipe.seed}.pt"
    train_trec.fine_tune(net, table, images, recipe, kept, progress)
    chosen = f" --trec {table_file}" if table_file else ""
    command = f"tinyredux train {name} --method trec --data {data}{chosen}{_options(epochs, seed)}"
    short, out = _place(name, out)
    record = save_weights(net, short, images, recipe, command, out, progress, table=table)
    write_card(out)
    if checkpoint is None:
        kept.unlink()
    return record


def skip_net(
    name: str,
    data: str | None = None,
    share: float = skip_tuning.SHARE,
    epochs: int | None = None,
    seed: int | None = None,
    checkpoint: Path | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Record:
    """Fine-tunes a trained network without some input channels, and leaves the same files as `train_net`, as NAME.skip.DATA.

    `share` of the exact network's predicted cycles is kept at most. Goes on where it was interrupted, as `train_net` does.
    Raises ValueError for a share out of reach.
    """
    images, net = nets.with_data(name, data)
    data, own = images.name, nets.own_name(name)
    check_trainable(net, images)
    recipe = train.given(skip_tuning.TUNE, epochs, seed)
    key = f"{own}.{data}.skip.{share}.{recipe.epochs}.{recipe.seed}"
    kept = checkpoint or datasets.cache_folder() / "checkpoints" / f"{key}.pt"
    found = skip_tuning.fine_tune(net, images, share, recipe, kept, progress)
    command = f"tinyredux train {name} --method skip --share {share} --data {data}{_options(epochs, seed)}"
    short, out = _place(name, out)
    record = save_weights(net, short, images, recipe, command, out, progress, skipping=found)
    write_card(out)
    if checkpoint is None:
        kept.unlink()
    return record


def _options(epochs: int | None, seed: int | None) -> str:
    """Returns the options of a command for what was given."""
    return "".join(f" --{key} {value}" for key, value in (("epochs", epochs), ("seed", seed)) if value is not None)


def _place(name: str, out: Path | None) -> tuple[str, Path]:
    """Returns name and folder of a network's files: in the cache, where all share a folder, a user's by its own name."""
    return (nets.short_name(name), out) if out else (nets.own_name(name), datasets.cache_folder() / "weights")


def save_weights(
    net: nn.Module, name: str, data: datasets.Dataset, recipe: train.Recipe, command: str, out: Path,
    progress: Progress | None = None, pruning: dict[str, Any] | None = None, table: train_trec.Table | None = None,
    skipping: dict[str, Any] | None = None,
) -> Record:  # fmt: skip
    """Writes NAME.DATA.safetensors and its record, and returns the record; accuracies are those of the file as written.

    With a `table` of TREC layers the name is NAME.trec.DATA, with what `skipping` left out NAME.skip.DATA.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}{'.trec' if table else '.skip' if skipping else ''}.{data.name}.safetensors"
    path.write_bytes(safetensors.torch.save({key: _stored(value) for key, value in net.state_dict().items()}))
    nets.load_weights(net, path)
    calibration = datasets.calibration(data)
    found = accuracy.evaluate(net, data.test, calibration, progress)
    record = Record(
        name, data.name, path.name, hashlib.sha256(path.read_bytes()).hexdigest(),
        sum(values.numel() for values in net.parameters()), asdict(recipe), len(data.train.images),
        len(data.validation.images), train.correct(net, data.validation),
        found.images, found.correct_float, found.correct_int8, len(calibration),
        torch.__version__, np.__version__, command, pruning=pruning,
        table=train_trec.to_json(table) if table else None, skipping=skipping,
    )  # fmt: skip
    record.save(path.with_suffix(".json"))
    return record


def _stored(values: torch.Tensor) -> torch.Tensor:
    """Returns matrices in float16, which int8 cannot tell from float32 (see the card), and everything else as it is."""
    return (values.half() if values.dtype == torch.float32 and values.dim() > 1 else values).contiguous()


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
    """Writes README.md beside the records of a folder of weights, and returns its path."""
    path = folder / "README.md"
    path.write_text(card(records(folder)))
    return path


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

Fine-tuned from the exact weights above without some input channels of their layers (`tinyredux/skip_tuning.py`), with the exact
network as a teacher beside the labels: more epochs than that one had. Cycles: predicted, fast kernels, as a share of the exact
network's; the share was chosen on validation images.

| network | data | input channels left out | cycles | validation, float | tuned | int8, test | tuned | epochs |
| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"""
CARD_TREC = """
## TREC

Fine-tuned from the exact weights above with the layers of the second table replaced (`tinyredux/train_trec.py`), for as many
epochs as the first table says beyond the exact network's; clusters are those of one image. Each record says whether the result is
the running mean of the weights (`average`), and whether what runs before the first TREC layer stayed as it was (`freeze`). Part
of the accuracy is that of the longer training. Tables and recipes were chosen on validation images.
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

Written by `tinyredux.pretrained.card` from the JSON record beside each file. What the networks are: `tinyredux/nets.py`.

- Task: one of ten classes for a 32x32 colour image, or one of twelve for a second of sound; outputs are logits. Data:
  `data/README.md`.
- Training: from scratch, on one CPU thread, by `tinyredux/train.py`: SGD with Nesterov momentum 0.9, weight decay 5e-4, label
  smoothing 0.1, learning rate up over a fifth of the steps and down by a cosine, random flips and shifts by up to 4 pixels
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
