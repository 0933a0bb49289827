"""Trained weights: made by one command, kept as safetensors, each with a record of how it was made and how well it does."""

import copy
import hashlib
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from tinyredux import datasets, nets, train
from tinyredux.files import check_output, write_whole
from tinyredux.frontends import export
from tinyredux.int8 import evaluator, quantize
from tinyredux.provenance import provenance
from tinyredux.train import finetune_skip, finetune_trec, loop, prune
from tinyredux.train.record import Record, load_record, records
from tinyredux.trec.layer import convert

LEAST_BATCH, LEAST_STEPS = 16, 32  # images of a batch, and batches of an epoch, of a user's own data
__all__ = ["Record", "load_record", "prune_net", "records", "save_weights", "skip_net", "train_net", "trec_net"]


def train_net(
    name: str, data: str | None = None, epochs: int | None = None, seed: int | None = None, out: Path | None = None
) -> Record:
    """Trains a network from scratch, leaves weights and record in `out` (default: the user's cache), returns the record.

    `name` is built-in or path/to/file.py:factory; `data` a name that `datasets.load` takes, such as mine.npz, or None: CIFAR-10
    where it is, else the synthetic set. After every epoch the state is kept in the cache, until the weights are written, and a
    training that was interrupted goes on from it. Raises ValueError for data that cannot be trained on, MissingDataError where
    the data is absent.
    """
    images, own = datasets.load(data, nets.resolve(name).input_shape), nets.own_name(name)  # type: ignore[arg-type]
    recipe = _on(images, train.recipe_for(own, images.name, epochs, seed))
    torch.manual_seed(recipe.seed)
    net = nets.resolve(name)
    check_trainable(net, images)
    command = _command(f"train {name}", images, data, epochs=epochs, seed=seed)
    return _made(net, name, images, recipe, own, command, out, partial(train.train, net, images, recipe))


def check_trainable(net: nn.Module, data: datasets.Dataset) -> None:
    """Raises ValueError for data and networks that cannot be trained, and for a network that could not be compiled afterwards."""
    loop.check_data(net, data)
    quantize(export(net, data.shape), data.train.first(2).images)


def prune_net(
    name: str, budget_bytes: int, data: str | None = None, epochs: int | None = None, seed: int | None = None,
    save_as: str | None = None, aim: str = "peak", steps: int = 12, rate: float | None = None, out: Path | None = None,
) -> Record:  # fmt: skip
    """Prunes a trained network until its partial plan fits `budget_bytes`, tunes it, and leaves the same files as `train_net`.

    The result is called `save_as`, or NET_pruned_BYTES, and is a network for every verb. `epochs` and `seed` are those of the
    tuning, `rate` its highest learning rate; `aim` and `steps` as in `prune.Pruning`. A pruned network can be pruned further:
    its teacher is then the network that was never pruned. Goes on where it was interrupted, as `train_net` does. Raises
    ValueError for a budget out of reach.
    """
    if save_as is not None and not re.fullmatch(r"\w[\w.+-]{,99}", save_as, re.ASCII):
        raise ValueError(f"the pruned network's name is {save_as!r}; use letters, digits and _ . + - only")
    images, net = nets.with_data(name, data)
    asked, data, save_as = data, images.name, save_as or f"{nets.short_name(name)}_pruned_{budget_bytes}"
    check_trainable(net, images)
    if save_as in nets.NETS:
        raise ValueError(f"{save_as} is a built-in network; choose another name for the pruned one")
    if out is None and (nets.WEIGHTS_FOLDER / f"{save_as}.{data}.json").is_file():
        raise ValueError(f"{save_as} comes with tinyredux and would be found in place of the new one; choose another --save-as")
    tune = _on(images, train.given(prune.TUNE if rate is None else replace(prune.TUNE, peak_rate=rate), epochs, seed))
    root = name
    while earlier := nets.pruning_of(root, (data,)):
        root = earlier["base"]
    others = {"aim": None if aim == "peak" else aim, "steps": None if steps == 12 else steps, "rate": rate, "save-as": save_as}
    command = _command(f"prune {name} --sram {budget_bytes}", images, asked, epochs=epochs, seed=seed, **others)
    pruning, key = prune.Pruning(budget_bytes, steps, tune=tune, aim=aim), f"{nets.own_name(name)}.pruned.{aim}.{budget_bytes}"
    work = partial(prune.prune, net, images, pruning, teacher=nets.load_net(root, data))
    return _made(net, save_as, images, tune, key, command, out, work, pruning={"base": name})


def trec_net(
    name: str, data: str | None = None, table_file: Path | None = None, epochs: int | None = None, seed: int | None = None,
    out: Path | None = None,
) -> Record:  # fmt: skip
    """Fine-tunes a trained network with TREC layers, and leaves the same files as `train_net`, as NAME.trec.DATA.

    `table_file` holds the table of layers and may hold the recipe, see `finetune_trec.table_for`. Goes on where it was
    interrupted, as `train_net` does. Raises ValueError for a table that does not fit.
    """
    images, net = nets.with_data(name, data)
    own = nets.own_name(name)
    recipe = finetune_trec.recipe_for(own, images.name, epochs, seed, table_file)
    recipe = recipe if table_file and finetune_trec.has_recipe(table_file) else _on(images, recipe)
    table = finetune_trec.table_for(own, net, table_file)
    converted = copy.deepcopy(net)
    convert(converted, table)
    check_trainable(converted, images)
    command = _command(f"train {name} --method trec", images, data, trec=table_file, epochs=epochs, seed=seed)
    work = partial(finetune_trec.fine_tune, net, table, images, recipe)
    return _made(net, name, images, recipe, f"{own}.trec", command, out, work, table=finetune_trec.to_json(table))


def skip_net(
    name: str, data: str | None = None, share: float = finetune_skip.SHARE, epochs: int | None = None, seed: int | None = None,
    out: Path | None = None,
) -> Record:  # fmt: skip
    """Fine-tunes a trained network without some input channels, and leaves the same files as `train_net`, as NAME.skip.DATA.

    `share` of the exact network's predicted cycles is kept at most. Goes on where it was interrupted, as `train_net` does.
    Raises ValueError for a share out of reach.
    """
    finetune_skip.check_share(share)
    images, net = nets.with_data(name, data)
    check_trainable(net, images)
    recipe = _on(images, train.given(finetune_skip.TUNE, epochs, seed))
    command = _command(f"train {name} --method skip --share {share}", images, data, epochs=epochs, seed=seed)
    key, work = f"{nets.own_name(name)}.skip.{share}", partial(finetune_skip.fine_tune, net, images, share, recipe)
    return _made(net, name, images, recipe, key, command, out, work, skipping={})


def _on(data: datasets.Dataset, recipe: train.Recipe) -> train.Recipe:
    """Returns a recipe as it is on this data: a user's own images are seen as they are, neither mirrored nor shifted.

    Where they are few, so are those of a batch, and the rate goes with the square root of these. Source: Krizhevsky, arXiv
    1404.5997, section 5.
    """
    if not data.sha256:
        return recipe
    batch = min(recipe.batch, max(LEAST_BATCH, data.train.count // LEAST_STEPS))
    return replace(recipe, augment=False, batch=batch, peak_rate=recipe.peak_rate * (batch / recipe.batch) ** 0.5)


def _command(begin: str, images: datasets.Dataset, asked: str | None, **given: object) -> str:
    """Returns the command that makes weights again: how it begins, its data by name or file, and the options that were given."""
    options = {"data": asked if images.sha256 else images.name, **given}
    return begin + "".join(f" --{key} {value}" for key, value in options.items() if value is not None)


def _made(
    net: nn.Module, name: str, data: datasets.Dataset, recipe: train.Recipe, key: str, command: str, out: Path | None,
    work: Callable[..., Any], **account: dict[str, Any],
) -> Record:  # fmt: skip
    """Has the work done with a checkpoint, a file in the cache that is called after `key`; writes weights and record, and returns
    the record. What the work says of itself is added to the account. In the cache all weights share a folder, so a user's network
    has its own name there. Raises ValueError before the work where any of them cannot be written."""
    cache = datasets.cache_folder()
    path = cache / "checkpoints" / f"{key}.{data.name}.{recipe.epochs}.{recipe.seed}.pt"
    for folder in (out or cache / "weights", path.parent):
        check_output(folder)
    found = work(checkpoint=path)
    account = {field: entry | found if isinstance(found, dict) else entry for field, entry in account.items()}
    name, out = (nets.short_name(name), out) if out else (nets.own_name(name), cache / "weights")
    record = save_weights(net, name, data, recipe, f"tinyredux {command}", out, **account)
    path.unlink()
    prune.tuning_checkpoint(path).unlink(missing_ok=True)
    return record


def save_weights(
    net: nn.Module, name: str, data: datasets.Dataset, recipe: train.Recipe, command: str, out: Path, **account: Any
) -> Record:
    """Writes NAME.DATA.safetensors and its record, and returns the record; accuracies are those of the file as written.

    The account is what the record says beside it: `pruning`; the `table` of TREC layers, and the name is NAME.trec.DATA; what
    `skipping` left out, and the name is NAME.skip.DATA.
    """
    path = out / f"{name}{'.trec' if 'table' in account else '.skip' if 'skipping' in account else ''}.{data.name}.safetensors"
    halved = {  # matrices in float16, which int8 cannot tell from float32 (see the card), and everything else as it is
        key: (value.half() if value.dtype == torch.float32 and value.dim() > 1 else value).contiguous()
        for key, value in net.state_dict().items()
    }
    content = safetensors.torch.save(halved)
    net.load_state_dict(safetensors.torch.load(content))
    calibration = datasets.calibration(data)
    graph = quantize(export(net, data.shape), calibration)
    record = Record(
        name, data.name, path.name, hashlib.sha256(content).hexdigest(),
        sum(values.numel() for values in net.parameters()), asdict(recipe), data.train.count,
        data.validation.count, train.correct(net, data.validation), data.test.count,
        train.correct(net, data.test), evaluator.correct(graph, data.test), len(calibration),
        torch.__version__, np.__version__, command, origin=provenance(), data_sha256=data.sha256, **account,
    )  # fmt: skip
    write_whole(path, content)
    record.save(path.with_suffix(".json"))
    return record
