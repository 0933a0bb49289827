"""Verbs about data and training: data, train, prune."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tinyredux.cli.verbs.base import LABELLED, NET, Answer, option, table, verb

if TYPE_CHECKING:
    from tinyredux.train.pretrained import Record

DATA = option("--data", help=f"{LABELLED} (default: cifar10 where it is, else synthetic; keywords for their nets)")
OUT = option("--out", type=Path, metavar="DIR", help="folder for weights, record and card (default: the user's cache)")


@verb(
    "which data is on this machine, and where; --download fetches CIFAR-10", "data",
    option("data", nargs="?", metavar="DATA", help=f"{LABELLED}, random or FILE.npz (default: cifar10 where it is)"),
    option("--download", action="store_true", help="fetch CIFAR-10 from its authors' site into the user's cache"),
)  # fmt: skip
def data(options: argparse.Namespace) -> Answer:
    """Says which data there is."""
    from tinyredux import datasets

    found = datasets.load(options.data, download=options.download)
    sizes = {name: len(getattr(found, name).images) for name in ("train", "validation", "test")}
    text = f"{found.name} ({found.source})\n{table(list(sizes.items()), ('part', 'images'))}"
    labels = found.test.labels is not None
    return Answer({"schema": 1, "data": found.name, "source": found.source, "labels": labels, "images": sizes}, text)


@verb(
    "train a network from scratch, or fine-tune it with TREC: weights, record, model card", "train lenet --data synthetic",
    NET,
    DATA,
    option("--method", choices=("exact", "trec", "skip"), default="exact",
           help="trec, skip: from exact weights, with TREC layers or without some input channels (default: exact)"),
    option("--share", type=float, help="of the exact network's predicted cycles: method skip keeps so many at most"),
    option("--trec", type=Path, metavar="FILE", help="layers of TREC: JSON, {module path: {sub_length, hash_bits, hash}}"),
    option("--epochs", type=int, metavar="N", help="passes over the training images (default: the recipe's)"),
    option("--seed", type=int, help="seed of weights, order and augmentation (default: 0)"),
    option("--checkpoint", type=Path, metavar="FILE", help="state after every epoch (default: in the user's cache)"),
    OUT,
)  # fmt: skip
def train(options: argparse.Namespace) -> Answer:
    """Trains a network."""
    from tinyredux import datasets
    from tinyredux.train.finetune_skip import SHARE
    from tinyredux.train.pretrained import skip_net, train_net, trec_net

    prepare(options)
    rest = options.epochs, options.seed, options.checkpoint, options.out
    if options.trec and options.method != "trec":
        raise ValueError("--trec names the layers of TREC; add --method trec")
    if options.share is not None and options.method != "skip":
        raise ValueError("--share says how many cycles skipping keeps; add --method skip")
    if options.method == "trec":
        record = trec_net(options.net, options.data, options.trec, *rest)
    elif options.method == "skip":
        record = skip_net(options.net, options.data, SHARE if options.share is None else options.share, *rest)
    else:
        record = train_net(options.net, options.data, *rest)
    path = (options.out or datasets.cache_folder() / "weights") / record.file
    text = f"{record.net} trained on {record.data}: {path}\n{_shares(record)}"
    if options.method == "exact" and ":" in options.net:
        text += "\nA factory's network has the weights that it holds; for these ones: tinyredux.nets.load_weights(net, Path(...))"
    return Answer(asdict(record), text)


def prepare(options: argparse.Namespace) -> None:
    """Lets torch use the cores that the command line was given, which otherwise keeps to one. Raises ValueError for a seed."""
    from tinyredux.train import use_cores

    if options.seed is not None and not 0 <= options.seed < 1 << 63:
        raise ValueError(f"seed is {options.seed}, expected 0 to 2^63 - 1")
    use_cores(options.cores)


def _shares(record: Record) -> str:
    """Returns how many images a network gets right, as a table."""
    rows = [
        (part, right, images, f"{100 * right / max(1, images):.2f} %")
        for part, right, images in (
            ("validation, float", record.validation_correct, record.validation_images),
            ("test, float", record.correct_float, record.images),
            ("test, int8", record.correct_int8, record.images),
        )
    ]
    return table(rows, ("part", "right", "of", "share"))


@verb(
    "prune a trained network where its partial plan peaks, to an SRAM budget, and tune it", "prune cifarnet --sram 6000",
    option("net", metavar="NET", help="a trained network: a built-in name (see `nets`) or path/to/file.py:factory"),
    option("--sram", type=int, required=True, metavar="BYTES", help="what the least plan in parts may need"),
    DATA,
    option("--epochs", type=int, metavar="N", help="epochs of tuning after the last cut (default: 40)"),
    option("--seed", type=int, help="seed of order and augmentation (default: 0)"),
    option("--steps", type=int, default=12, metavar="N", help="cuts, each after 60 batches of training (default: 12)"),
    option("--rate", type=float, help="highest learning rate of the tuning (default: 0.1, for many epochs)"),
    option("--aim", choices=("peak", "anywhere"), default="peak",
           help="what goes first: least saliency per byte freed where the plan peaks (default), or least saliency anywhere"),
    option("--save-as", metavar="NAME", help="its name for all other verbs (default: NET_pruned_BYTES)"),
    option("--checkpoint", type=Path, metavar="FILE",
           help="state after every cut, beside it that of the tuning; the same command goes on from there "
           "(default: in the cache)"),
    OUT,
)  # fmt: skip
def prune(options: argparse.Namespace) -> Answer:
    """Prunes a network."""
    from tinyredux.train.pretrained import prune_net

    prepare(options)
    record = prune_net(
        options.net, options.sram, options.data, options.epochs, options.seed, options.save_as, options.aim, options.steps,
        options.rate, options.checkpoint, options.out,
    )  # fmt: skip
    found = record.pruning or {}
    text = (
        f"{record.net}: {found['layerwise_bytes']:,} bytes layer by layer before, {found['peak_bytes']:,} in parts after "
        f"pruning, {found['reduction']} times less\n{_shares(record)}"
    )
    return Answer(asdict(record), text)
