"""Verbs about data and training: data, train, prune."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tinyredux.cli.verbs.base import LABELLED, NET, Answer, given_to, option, table, verb

if TYPE_CHECKING:
    from tinyredux.train.pretrained import Record

TRAINING = (
    NET,
    option("--data", help=f"{LABELLED}, or your own in FILE.npz (its arrays: `data --help`; default: as `measure`)"),
    option("--epochs", type=int, metavar="N", help="passes over the training images (default: the recipe's; prune: 40)"),
    option("--seed", type=int, help="seed of weights, order and augmentation (default: 0)"),
    option("--out", type=Path, metavar="DIR", help="folder for weights and record (default: the user's cache)"),
)  # fmt: skip


@verb(
    "data",
    option("data", nargs="?", metavar="DATA", 
           help=f"{LABELLED}, random or FILE.npz (default: cifar10 where it is). FILE.npz holds train_images, train_labels, "
           "test_images, test_labels and, if you like, validation_images, validation_labels, else a tenth of the training images "
           "validates; or images and labels, a test part alone. Images: (N, C, H, W) float32 as the network takes them, or uint8 "
           "to be divided by 255; labels: (N,) integers from 0"),
    option("--download", action="store_true", help="fetch CIFAR-10 from its authors' site into the user's cache"),
)  # fmt: skip
def data(options: argparse.Namespace) -> Answer:
    """Says which data is on this machine, and where; with --download it fetches CIFAR-10."""
    from tinyredux import datasets

    found = datasets.load(options.data, download=options.download)
    sizes = {name: getattr(found, name).count for name in ("train", "validation", "test")}
    labels = found.test.labels is not None
    data = {"schema": 1, "data": found.name, "source": found.source, "labels": labels, "images": sizes}
    return Answer(data, f"{found.name} ({found.source})\n{table([sizes], *sizes)}")


@verb(
    "train lenet --data synthetic", *TRAINING,
    option("--method", choices=("exact", "trec", "skip"), default="exact",
           help="trec, skip: from exact weights, with TREC layers or without some input channels (default: exact)"),
    option("--share", type=float, help="of the exact network's predicted cycles: method skip keeps so many at most"),
    option("--trec", type=Path, metavar="FILE", dest="table_file",
           help="layers of TREC: JSON, {module path: {sub_length, hash_bits, hash}}"),
)  # fmt: skip
def train(options: argparse.Namespace) -> Answer:
    """Trains a network, from scratch or for a method: weights and a record. Given again it goes on where it was stopped."""
    from tinyredux import datasets
    from tinyredux.train.pretrained import skip_net, train_net, trec_net

    prepare(options)
    if options.table_file and options.method != "trec":
        raise ValueError("--trec names the layers of TREC; add --method trec")
    if options.share is not None and options.method != "skip":
        raise ValueError("--share says how many cycles skipping keeps; add --method skip")
    by_method: dict[str, Callable[..., Record]] = {"exact": train_net, "trec": trec_net, "skip": skip_net}
    record = given_to(partial(by_method[options.method], options.net), options)
    path = (options.out or datasets.cache_folder() / "weights") / record.file
    text = f"{record.net} trained on {record.data}: {path}\n{_right(record)}"
    if options.method == "exact" and ":" in options.net:
        taken = "every verb takes these weights for this network and data, until the file is removed"
        used = "; other verbs look for weights where training puts them without --out" if options.out else f"; {taken}"
        text += f"\nIn Python: tinyredux.nets.load_weights(net, Path(...)){used}"
    return Answer(asdict(record), text)


def prepare(options: argparse.Namespace) -> None:
    """Lets torch use the cores that the command line was given, which otherwise keeps to one. Raises ValueError for a seed."""
    from tinyredux.train import use_cores

    if options.seed is not None and not 0 <= options.seed < 1 << 63:
        raise ValueError(f"seed is {options.seed}, expected 0 to 2^63 - 1")
    use_cores(options.cores)


def _right(record: Record) -> str:
    """Returns how many images a network gets right, as a table."""
    fields = "validation_correct", "validation_images", "correct_float", "correct_int8", "images"
    return table([vars(record)], *fields)


@verb(
    "prune cifarnet --sram 6000", *TRAINING,
    option("--sram", type=int, required=True, metavar="BYTES", help="what the least plan in parts may need"),
    option("--steps", type=int, metavar="N", help="cuts, each after 60 batches of training (default: 12)"),
    option("--rate", type=float, help="highest learning rate of the tuning (default: 0.1, for many epochs)"),
    option("--aim", choices=("peak", "anywhere"),
           help="what goes first: least saliency per byte freed where the plan peaks (default), or least saliency anywhere"),
    option("--save-as", metavar="NAME", help="its name for all other verbs (default: NET_pruned_BYTES)"),
)  # fmt: skip
def prune(options: argparse.Namespace) -> Answer:
    """Prunes a trained network where its partial plan peaks, to an SRAM budget, and tunes it."""
    from tinyredux.train.pretrained import prune_net

    prepare(options)
    record = given_to(partial(prune_net, options.net, options.sram), options)
    found = record.pruning or {}
    text = (
        f"{record.net}: {found['layerwise_bytes']:,} bytes layer by layer before, {found['peak_bytes']:,} in parts after "
        f"pruning, {found['reduction']} times less\n{_right(record)}"
    )
    return Answer(asdict(record), text)
