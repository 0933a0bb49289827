"""Kernel reuse on more and more layers of squeezenet, one layer bit by bit, clusters of many images: each writes a record.

    python tools/trec_sweep.py layers --counts 2 4 8 12 15
    python tools/trec_sweep.py bits --net squeezenet_bypass --layer body.bypasses.6
    python tools/trec_sweep.py scope --net cifarnet

`layers`: G expansions, from the last Fire to the first, a block one tap of the window. Each G goes on from the network of the G
before it. `bits`: one layer, the whole window a block, 1 to 6 bits, each from the exact weights. Every run is one short pass
over the first `--images` training images; what counts is the share of validation images right. A run whose line is in the
record is not made again, so an interrupted sweep goes on. `scope`: the committed TREC weights, each image's clusters its own
(what a board computes) and those of 100 images together (what the released code evaluates); nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from tinyredux import datasets, nets, train, train_trec
from tinyredux.trec_layer import Settings, TRECConv2d, convert

BITS = range(1, 7)
BITS_BY_SIDE = {16: 5, 8: 4, 4: 2}  # of the layers, by the side of their maps
TOGETHER = 100  # images
RECIPE = train.Recipe(epochs=1, peak_rate=0.02, warmup_share=0.1, freeze=True)
Line = dict[str, object]


def expansions(more: int) -> dict[str, Settings]:
    """Returns the settings of squeezenet's 16 expansions, last first, with `more` bits than usual."""
    table = {}
    for fire in reversed(range(len(nets.FIRES))):
        side = 16 >> sum(fire > last for last in nets.POOL_AFTER)
        for part in ("expand1", "expand3"):
            table[f"body.fires.{fire}.{part}.0"] = Settings(nets.FIRES[fire][1], BITS_BY_SIDE[side] + more)
    return table


def line(net: nn.Module, data: datasets.Dataset) -> Line:
    """Returns what a tuned network gets right of the validation images, and the redundancy of its TREC layers there."""
    found = train.predictions(net.eval(), data.validation.images, TOGETHER)
    parts = {path: part for path, part in net.named_modules() if isinstance(part, TRECConv2d)}
    return {
        "correct": int((found == data.validation.labels).sum()),
        "redundancy": {path: round(1 - float(part.kept_share), 4) for path, part in parts.items()},
    }


def layers(counts: list[int], more: int, data: datasets.Dataset, done: list[Line]) -> Iterator[Line]:
    """Yields a line for every number of TREC layers that is not done; the networks are kept in the user's cache."""
    order, net = list(expansions(more).items()), nets.load_net("squeezenet")
    for count in sorted(counts):
        kept = datasets.cache_folder() / "checkpoints" / f"trec_layers.{count}.{more}.pt"
        new = {path: one for path, one in order[:count] if not isinstance(net.get_submodule(path), TRECConv2d)}
        if any((one["layers"], one["more_bits"]) == (count, more) for one in done) and kept.is_file():
            convert(net, new)
            net.load_state_dict(torch.load(kept, weights_only=True))
            continue
        train_trec.fine_tune(net.requires_grad_(True), new, data, RECIPE)
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), kept)
        yield {"layers": count, "more_bits": more, **line(net, data)}


def bit_by_bit(name: str, path: str, data: datasets.Dataset, done: list[Line]) -> Iterator[Line]:
    """Yields a line for every number of bits of one layer that is not done."""
    for bits in BITS:
        if any((one["net"], one["layer"], one["hash_bits"]) == (name, path, bits) for one in done):
            continue
        net = nets.load_net(name)
        columns = net.state_dict()[f"{path}.weight"][0].numel()
        train_trec.fine_tune(net, {path: Settings(columns, bits)}, data, RECIPE)
        yield {"net": name, "layer": path, "hash_bits": bits, **line(net, data)}


def by_scope(name: str, data: datasets.Dataset, done: list[Line]) -> Iterator[Line]:
    """Yields a line for clusters of one image and of TOGETHER images, of the committed TREC weights."""
    for together in (1, TOGETHER):
        if any((one["net"], one["together"]) == (name, together) for one in done):
            continue
        net = train_trec.load_trec(name)
        for part in net.modules():
            if isinstance(part, TRECConv2d) and together > 1:
                part.scope = "batch"
        yield {"net": name, "together": together, **line(net, data)}


def main() -> None:
    """Makes the runs that are missing and writes the record after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", choices=("layers", "bits", "scope"))
    parser.add_argument("--counts", type=int, nargs="+", default=[2, 4, 8, 12, 15], help="numbers of layers")
    parser.add_argument(
        "--more-bits", type=int, default=0, metavar="N", help="than 5, 4 and 2 on maps of 16, 8 and 4 pixels a side"
    )
    parser.add_argument("--net", default="squeezenet_bypass", help="network of `bits` and `scope`")
    parser.add_argument("--layer", default="body.bypasses.6", help="layer of `bits`, by its module path")
    parser.add_argument("--images", type=int, default=6400, help="training images, one pass")
    parser.add_argument("--validation", type=int, default=2000)
    parser.add_argument("--out", type=Path, help="default: data/records/trec_SWEEP.json")
    options = parser.parse_args()
    out = options.out or Path(f"data/records/trec_{options.sweep}.json")
    data = datasets.load("cifar10")
    data = replace(data, train=data.train.first(options.images), validation=data.validation.first(options.validation))
    name = "squeezenet" if options.sweep == "layers" else options.net
    record = json.loads(out.read_text()) if out.is_file() else {
        "schema": 1, "kind": f"trec_{options.sweep}", "validation_images": options.validation, "torch": torch.__version__,
        "commands": [], "correct_exact": {}, "runs": [],
    }  # fmt: skip
    if options.sweep != "scope":
        record |= {"training_images": options.images, "recipe": asdict(RECIPE)}
    record["commands"] = sorted({*record["commands"], shlex.join(["python", *sys.argv])})
    record["correct_exact"].setdefault(name, train.correct(nets.load_net(name), data.validation))
    done = record["runs"]
    if options.sweep == "layers":
        runs = layers(options.counts, options.more_bits, data, done)
    elif options.sweep == "bits":
        runs = bit_by_bit(name, options.layer, data, done)
    else:
        runs = by_scope(name, data, done)
    for one in runs:
        done.append(one)
        out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
