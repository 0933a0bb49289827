"""Trained weights: made by one command, kept as safetensors, each with a record of how it was made and how well it does."""

from __future__ import annotations

import copy
import hashlib
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from tinyredux import datasets, nets, train
from tinyredux.files import check_output, write_whole
from tinyredux.frontends import export
from tinyredux.int8 import quantize
from tinyredux.train import accuracy, finetune_skip, finetune_trec, prune
from tinyredux.train.model_card import Record as Record
from tinyredux.train.model_card import card as card
from tinyredux.train.model_card import load_record as load_record
from tinyredux.train.model_card import records as records
from tinyredux.train.model_card import write_card as write_card
from tinyredux.trec.layer import convert

LABELLED = ", ".join(datasets.SHAPES)  # data to train on


def train_net(
    name: str,
    data: str | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    checkpoint: Path | None = None,
    out: Path | None = None,
) -> Record:
    """Trains a network from scratch, leaves weights, record and card in `out` (default: the user's cache), returns the record.

    `name` is built-in or path/to/file.py:factory; `data` None is CIFAR-10 where it is, else the synthetic set. After every
    epoch the state goes to `checkpoint`, and a training that was interrupted goes on from it; without one, it is kept in
    the cache until the weights are written. Raises ValueError for data that cannot be trained on, MissingDataError where
    the data is absent.
    """
    check_places(out, checkpoint)
    cache = datasets.cache_folder()
    images = datasets.load(data, nets.resolve(name).input_shape)  # type: ignore[arg-type]
    data = images.name
    recipe = train.recipe_for(nets.own_name(name), data, epochs, seed)
    torch.manual_seed(recipe.seed)
    net = nets.resolve(name)
    check_trainable(net, images)
    kept = checkpoint or cache / "checkpoints" / f"{nets.own_name(name)}.{data}.{recipe.epochs}.{recipe.seed}.pt"
    train.train(net, images, recipe, kept)
    short, out = _place(name, out)
    record = save_weights(net, short, images, recipe, f"tinyredux train {name} --data {data}{_options(epochs, seed)}", out)
    write_card(out)
    if checkpoint is None:
        kept.unlink()
    return record


def check_places(out: Path | None, checkpoint: Path | None) -> None:
    """Raises ValueError before any work where weights or checkpoint cannot be written."""
    check_output(out or datasets.cache_folder() / "weights")
    if checkpoint is not None:
        check_output(checkpoint.parent, checkpoint.name)
    check_output(datasets.cache_folder() / "checkpoints")


def check_trainable(net: nn.Module, data: datasets.Dataset) -> None:
    """Raises ValueError for data without labelled training images, and a network that does not give each of them classes.

    So it does for a network that could be trained, but not compiled afterwards.
    """
    if data.train.labels is None or not len(data.train.images):
        raise ValueError(f"cannot train on {data.name}: it has no training images with labels; use {LABELLED}")
    with torch.no_grad():
        shape = tuple(net.eval()(torch.from_numpy(data.train.images[:1])).shape)
    if len(shape) != 2:
        raise ValueError(f"cannot train a network that returns {shape}; expected (images, classes): flatten at its end")
    datasets.check_labels(data.train, shape[1])
    quantize(export(net), data.train.images[:2])


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
) -> Record:
    """Prunes a trained network until its partial plan fits `budget_bytes`, tunes it, and leaves the same files as `train_net`.

    The result is called `save_as`, or NET_pruned_BYTES, and is a network for every verb. `epochs` and `seed` are those of the
    tuning, `rate` its highest learning rate; `aim` and `steps` as in `prune.Pruning`. A pruned network can be pruned further:
    its teacher is then the network that was never pruned. Goes on where it was interrupted, as `train_net` does. Raises
    ValueError for a budget out of reach.
    """
    check_places(out, checkpoint)
    if save_as is not None and not re.fullmatch(r"\w[\w.+-]{,99}", save_as, re.ASCII):
        raise ValueError(f"the pruned network's name is {save_as!r}; use letters, digits and _ . + - only")
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
    found = prune.prune(net, images, pruning, kept, nets.load_net(root, data))
    others = (" --aim anywhere" if aim != "peak" else "") + (f" --steps {steps}" if steps != 12 else "")
    others += f" --rate {rate}" if rate is not None else ""
    command = f"tinyredux prune {name} --sram {budget_bytes} --data {data}{_options(epochs, seed)}{others} --save-as {save_as}"
    out = out or cache / "weights"
    record = save_weights(net, save_as, images, tune, command, out, {"base": name, **found})
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
) -> Record:
    """Fine-tunes a trained network with TREC layers, and leaves the same files as `train_net`, as NAME.trec.DATA.

    `table_file` holds the table of layers and may hold the recipe, see `finetune_trec.table_for`. Goes on where it was
    interrupted, as `train_net` does. Raises ValueError for a table that does not fit.
    """
    check_places(out, checkpoint)
    images, net = nets.with_data(name, data)
    data, own = images.name, nets.own_name(name)
    recipe = finetune_trec.recipe_for(own, data, epochs, seed, table_file)
    table = finetune_trec.table_for(own, net, table_file)
    converted = copy.deepcopy(net)
    convert(converted, table)
    check_trainable(converted, images)
    kept = checkpoint or datasets.cache_folder() / "checkpoints" / f"{own}.{data}.trec.{recipe.epochs}.{recipe.seed}.pt"
    finetune_trec.fine_tune(net, table, images, recipe, kept)
    chosen = f" --trec {table_file}" if table_file else ""
    command = f"tinyredux train {name} --method trec --data {data}{chosen}{_options(epochs, seed)}"
    short, out = _place(name, out)
    record = save_weights(net, short, images, recipe, command, out, table=table)
    write_card(out)
    if checkpoint is None:
        kept.unlink()
    return record


def skip_net(
    name: str,
    data: str | None = None,
    share: float = finetune_skip.SHARE,
    epochs: int | None = None,
    seed: int | None = None,
    checkpoint: Path | None = None,
    out: Path | None = None,
) -> Record:
    """Fine-tunes a trained network without some input channels, and leaves the same files as `train_net`, as NAME.skip.DATA.

    `share` of the exact network's predicted cycles is kept at most. Goes on where it was interrupted, as `train_net` does.
    Raises ValueError for a share out of reach.
    """
    finetune_skip.check_share(share)
    check_places(out, checkpoint)
    images, net = nets.with_data(name, data)
    data, own = images.name, nets.own_name(name)
    check_trainable(net, images)
    recipe = train.given(finetune_skip.TUNE, epochs, seed)
    key = f"{own}.{data}.skip.{share}.{recipe.epochs}.{recipe.seed}"
    kept = checkpoint or datasets.cache_folder() / "checkpoints" / f"{key}.pt"
    found = finetune_skip.fine_tune(net, images, share, recipe, kept)
    command = f"tinyredux train {name} --method skip --share {share} --data {data}{_options(epochs, seed)}"
    short, out = _place(name, out)
    record = save_weights(net, short, images, recipe, command, out, skipping=found)
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
    pruning: dict[str, Any] | None = None, table: finetune_trec.Table | None = None,
    skipping: dict[str, Any] | None = None,
) -> Record:  # fmt: skip
    """Writes NAME.DATA.safetensors and its record, and returns the record; accuracies are those of the file as written.

    With a `table` of TREC layers the name is NAME.trec.DATA, with what `skipping` left out NAME.skip.DATA.
    """
    path = out / f"{name}{'.trec' if table else '.skip' if skipping else ''}.{data.name}.safetensors"
    content = safetensors.torch.save({key: _stored(value) for key, value in net.state_dict().items()})
    net.load_state_dict(safetensors.torch.load(content))
    calibration = datasets.calibration(data)
    found = accuracy.evaluate(net, data.test, calibration)
    record = Record(
        name, data.name, path.name, hashlib.sha256(content).hexdigest(),
        sum(values.numel() for values in net.parameters()), asdict(recipe), len(data.train.images),
        len(data.validation.images), train.correct(net, data.validation),
        found.images, found.correct_float, found.correct_int8, len(calibration),
        torch.__version__, np.__version__, command, pruning=pruning,
        table=finetune_trec.to_json(table) if table else None, skipping=skipping,
    )  # fmt: skip
    write_whole(path, content)
    record.save(path.with_suffix(".json"))
    return record


def _stored(values: torch.Tensor) -> torch.Tensor:
    """Returns matrices in float16, which int8 cannot tell from float32 (see the card), and everything else as it is."""
    return (values.half() if values.dtype == torch.float32 and values.dim() > 1 else values).contiguous()
