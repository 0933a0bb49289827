"""Kernel reuse on more and more layers of squeezenet, one layer bit by bit, clusters of many images, exact networks trained on.

    python tools/trec_sweep.py layers
    python tools/trec_sweep.py exact --net zfnet
    python tools/trec_sweep.py exact --net lenet --method skip
    python tools/trec_sweep.py bits --net squeezenet_bypass --layer body.bypasses.6
    python tools/trec_sweep.py scope --net cifarnet

`layers`: G expansions, from the last Fire to the first, a block the whole window. Eight passes over all images with all but the
first of the 16, from the committed TREC weights; with what they give, every smaller G is the same network with its other
expansions exact and batch norm's statistics taken anew (without that, fewer layers do worse than all 15). `exact`: the exact
network trained on by the recipe of its TREC weights, or of its weights for skipping, so that a method's cost can be told from
what more training gives. These two
also count test images in int8, which choose nothing; `layers` simulates one image, too. `bits`: one layer, the whole window a
block, 1 to 6 bits, each from the exact weights, one short pass over the first `--images` training images. `scope`: the committed
TREC weights, each image's clusters its own (what a board computes) and those of 100 images together (what the released code
evaluates); nothing is trained.
A run whose line is in the record is not made again, so an interrupted sweep goes on.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from tinyredux import datasets, flow, nets, train
from tinyredux.boards import find_board
from tinyredux.codegen import limits
from tinyredux.frontends import export
from tinyredux.int8 import evaluator, quantize
from tinyredux.methods.layerwise import Layerwise
from tinyredux.settings import Compiled, measure_compiled
from tinyredux.settings import Settings as Run
from tinyredux.train import finetune_skip, finetune_trec
from tinyredux.trec.layer import Settings, TRECConv2d, convert

BITS = range(1, 7)
BITS_BY_SIDE = {16: (6, 7), 8: (5, 5), 4: (3, 3)}  # of 1x1 and 3x3 expansions, by the side of their maps
TOGETHER = 100  # images
SHORT = train.Recipe(epochs=1, peak_rate=0.02, warmup_share=0.1, freeze=True)
LONG = train.Recipe(epochs=8, peak_rate=0.04, warmup_share=0.1, average=0.997)
RECIPES = {"bits": SHORT, "layers": LONG}
MOST = 15  # expansions
BOARD = "disco_f469ni"
ANEW = 3200  # training images for batch norm's statistics
Line = dict[str, object]


def expansions() -> dict[str, Settings]:
    """Returns the settings of squeezenet's last 15 expansions, last first."""
    table = {}
    for fire in reversed(range(len(nets.FIRES))):
        inputs, (few, many) = nets.FIRES[fire][1], BITS_BY_SIDE[16 >> sum(fire > last for last in nets.POOL_AFTER)]
        table[f"body.fires.{fire}.expand1.0"] = Settings(inputs, few)
        table[f"body.fires.{fire}.expand3.0"] = Settings(9 * inputs, many)
    return dict(list(table.items())[:MOST])


def line(net: nn.Module, data: datasets.Dataset) -> Line:
    """Returns what a tuned network gets right of the validation images, and the redundancy of its TREC layers there."""
    found = train.predictions(net.eval(), data.validation.images, TOGETHER)
    parts = {path: part for path, part in net.named_modules() if isinstance(part, TRECConv2d)}
    return {
        "correct": int((found == data.validation.labels).sum()),
        "redundancy": {path: round(1 - float(part.kept_share), 4) for path, part in parts.items()},
    }


def tested(net: nn.Module, data: datasets.Dataset) -> Line:
    """Returns the line of a network, and how many test images it gets right in int8."""
    graph = quantize(export(net), datasets.calibration(data))
    return {**line(net, data), "correct_int8": evaluator.correct(graph, data.test)}


def cycles(net: nn.Module, data: datasets.Dataset) -> int | None:
    """Returns the modelled cycles of one test image on BOARD with fast kernels, in the simulator; no TREC layer is left out."""
    board, graph = find_board(BOARD), export(net, name="squeezenet")
    int8 = quantize(graph, datasets.calibration(data))
    schedule = Layerwise(limits(board, None, int8)[0])
    model = flow.compile(int8, board, schedule=schedule, source=graph, call="tools/trec_sweep.py layers")
    compiled = Compiled(graph, model, data)
    found = measure_compiled(Run("squeezenet", "trec", BOARD, images=1, data=data.name), compiled)
    assert found.bit_exact
    return found.cycles


def layers(counts: list[int], data: datasets.Dataset, done: list[Line]) -> Iterator[Line]:
    """Yields a line for every number of TREC layers that is not done; the trained network is kept in the user's cache."""
    table, kept = expansions(), datasets.cache_folder() / "checkpoints" / "trec_layers.pt"
    if not kept.is_file():
        net = nets.load_net("squeezenet")
        net.load_state_dict(finetune_trec.load_trec("squeezenet").state_dict())
        finetune_trec.fine_tune(net, table, data, LONG, kept.with_suffix(".part"))
        torch.save(net.state_dict(), kept)
    known = {one["layers"]: one for one in done}
    for count in sorted(count for count in set(counts) if "cycles" not in known.get(count, {})):
        net = nets.load_net("squeezenet")
        convert(net, dict(list(table.items())[:count]))
        net.load_state_dict(torch.load(kept, weights_only=True))
        if count < MOST:
            update_bn(torch.from_numpy(data.train.images[:ANEW]).split(LONG.batch), net)  # type: ignore[no-untyped-call]
        yield {"layers": count, **(known.get(count) or tested(net, data)), "cycles": cycles(net, data)}


def exact(name: str, method: str, data: datasets.Dataset, done: list[Line]) -> Iterator[Line]:
    """Yields a line of a network that was trained on by the recipe of its weights for a method, without the method."""
    recipe = finetune_trec.recipe_for(name, data.name) if method == "trec" else finetune_skip.TUNE
    if not any(one["net"] == name for one in done):
        checkpoint = datasets.cache_folder() / "checkpoints" / f"{method}_exact.{name}.pt"
        net = finetune_trec.fine_tune(nets.load_net(name), {}, data, recipe, checkpoint)
        yield {"net": name, "recipe": asdict(recipe), **tested(net, data)}


def bit_by_bit(name: str, path: str, data: datasets.Dataset, done: list[Line]) -> Iterator[Line]:
    """Yields a line for every number of bits of one layer that is not done."""
    for bits in BITS:
        if any((one["net"], one["layer"], one["hash_bits"]) == (name, path, bits) for one in done):
            continue
        net = nets.load_net(name)
        columns = net.state_dict()[f"{path}.weight"][0].numel()
        finetune_trec.fine_tune(net, {path: Settings(columns, bits)}, data, SHORT)
        yield {"net": name, "layer": path, "hash_bits": bits, **line(net, data)}


def by_scope(name: str, data: datasets.Dataset, done: list[Line]) -> Iterator[Line]:
    """Yields a line for clusters of one image and of TOGETHER images, of the committed TREC weights."""
    for together in (1, TOGETHER):
        if any((one["net"], one["together"]) == (name, together) for one in done):
            continue
        net = finetune_trec.load_trec(name)
        for part in net.modules():
            if isinstance(part, TRECConv2d) and together > 1:
                part.scope = "batch"
        yield {"net": name, "together": together, **line(net, data)}


def main() -> None:
    """Makes the runs that are missing and writes the record after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", choices=("layers", "exact", "bits", "scope"))
    parser.add_argument("--counts", type=int, nargs="+", default=range(1, MOST + 1), help="numbers of layers (default: 1 to 15)")
    parser.add_argument("--again", action="store_true", help="`layers`: make these lines anew, though the record has them")
    parser.add_argument("--net", default="squeezenet_bypass", help="network of `exact`, `bits` and `scope`")
    parser.add_argument("--method", choices=("trec", "skip"), default="trec", help="whose recipe `exact` trains by")
    parser.add_argument("--layer", default="body.bypasses.6", help="layer of `bits`, by its module path")
    parser.add_argument("--images", type=int, default=6400, help="training images of `bits`, one pass")
    parser.add_argument("--validation", type=int, default=2000, help="validation images of `bits` and `scope`")
    parser.add_argument("--out", type=Path, help="default: data/records/METHOD_SWEEP.json")
    options = parser.parse_args()
    out = options.out or Path(f"data/records/{options.method}_{options.sweep}.json")
    data = datasets.load("cifar10")
    if options.sweep in ("bits", "scope"):
        data = replace(data, train=data.train.first(options.images), validation=data.validation.first(options.validation))
    name = "squeezenet" if options.sweep == "layers" else options.net
    record: dict[str, Any] = json.loads(out.read_text()) if out.is_file() else {
        "schema": 1, "kind": f"{options.method}_{options.sweep}", "training_images": len(data.train.images),
        "validation_images": len(data.validation.images), "images": len(data.test.images), "torch": torch.__version__,
        "commands": [], "correct_exact": {}, "runs": [],
    }  # fmt: skip
    if options.sweep in RECIPES:
        record |= {"recipe": asdict(RECIPES[options.sweep])}
    record["commands"] = sorted({*record["commands"], shlex.join(["python", *sys.argv])})
    record["correct_exact"].setdefault(name, train.correct(nets.load_net(name), data.validation))
    for one in runs_of(options, name, data, record["runs"]):
        others = [run for run in record["runs"] if "layers" not in one or run["layers"] != one["layers"]]
        record["runs"] = sorted([*others, one], key=lambda run: run.get("layers", 0))
        out.write_text(json.dumps(record, indent=1) + "\n")


def runs_of(options: argparse.Namespace, name: str, data: datasets.Dataset, done: list[Line]) -> Iterator[Line]:
    """Returns the missing lines of the sweep that was asked for."""
    match options.sweep:
        case "layers":
            return layers(options.counts, data, [] if options.again else done)
        case "exact":
            return exact(name, options.method, data, done)
        case "bits":
            return bit_by_bit(name, options.layer, data, done)
        case _:
            return by_scope(name, data, done)


if __name__ == "__main__":
    main()
