"""What saved memory buys in image size: lenet on CIFAR-10 at several sizes, planned layer by layer and in parts; writes a record.

    python tools/resolution.py --sizes 18 32

Every network is trained from scratch alike, on the same augmented 32x32 images; a smaller one sees them reduced by
antialiased bilinear interpolation. At 32x32 it is the library's lenet, trained by the same recipe. Accuracies are those of
the int8 network on all test images, counted once, at the end.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tinyredux import datasets, memory, nets, train
from tinyredux.frontends import export
from tinyredux.graph import total_macs
from tinyredux.int8 import evaluator, quantize
from tinyredux.partial import plan_partial

WHOLE = 32  # rows and columns of CIFAR-10's images


class Reduced(nn.Module):
    """A network that sees its images reduced to its own size."""

    def __init__(self, net: nets.Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits (N, 10) for images (N, 3, 32, 32)."""
        logits: torch.Tensor = self.net(reduced(images, self.net.input_shape[1]))
        return logits


def reduced(images: torch.Tensor, size: int) -> torch.Tensor:
    """Returns images (N, 3, size, size)."""
    if images.shape[2] == size:
        return images
    return functional.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)


def run(size: int, data: datasets.Dataset, recipe: train.Recipe, checkpoint: Path) -> dict[str, object]:
    """Returns one line of the record: both planned peaks, MACs, and right answers in int8."""
    net = nets.load_net("lenet") if size == WHOLE else trained(size, data, recipe, checkpoint)
    graph = quantize(export(net, name="lenet"), _reduced(datasets.calibration(data), size))
    validation, test = (
        evaluator.correct(graph, datasets.Split(_reduced(part.images, size), part.labels))
        for part in (data.validation, data.test)
    )
    return {
        "size": size, "layerwise_bytes": memory.plan(graph).total_bytes, "partial_bytes": plan_partial(graph).peak_bytes,
        "macs": total_macs(graph), "validation_images": len(data.validation.images), "validation_correct": validation,
        "images": len(data.test.images), "correct_int8": test,
    }  # fmt: skip


def trained(size: int, data: datasets.Dataset, recipe: train.Recipe, checkpoint: Path) -> nets.Net:
    """Returns lenet for images of `size`, trained on reduced ones."""
    torch.manual_seed(recipe.seed)
    net = nets.lenet(size)
    train.train(Reduced(net), data, recipe, checkpoint)
    return net.eval()


def _reduced(images: datasets.Images, size: int) -> datasets.Images:
    return np.ascontiguousarray(reduced(torch.from_numpy(images), size).numpy())


def main() -> None:
    """Trains one network for each size and writes the record after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[18, 32])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--out", type=Path, default=Path("data/records/resolution.json"))
    options = parser.parse_args()
    data, recipe = datasets.load("cifar10"), train.recipe_for("lenet", "cifar10", options.epochs)
    record = {
        "schema": 1, "kind": "resolution", "net": "lenet", "data": "cifar10", "recipe": asdict(recipe),
        "torch": torch.__version__, "command": shlex.join(["python", *sys.argv]), "runs": [],
    }  # fmt: skip
    folder = datasets.cache_folder() / "checkpoints"
    for size in options.sizes:
        record["runs"].append(run(size, data, recipe, folder / f"resolution.{size}.{recipe.epochs}.pt"))
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
