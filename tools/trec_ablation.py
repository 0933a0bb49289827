"""Hash variants of TREC at equal (L, H) and equal training, several seeds: writes a record that the book's plots read.

    python tools/trec_ablation.py cifarnet body.2.0 --sub-length 64 --hash-bits 4 --seeds 3 --images 6400

Each run starts from the exact weights, replaces one layer and fine-tunes for one pass over the first `--images` training
images; what counts is the share of validation images right and the share of vectors that clustering removes there.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch

from tinyredux import datasets, nets, train
from tinyredux.train import finetune_trec
from tinyredux.trec.layer import Settings, TRECConv2d, convert

VARIANTS = (
    ("kernel", "mean"),
    ("kernel", "zero"),
    ("kernel_learned", "mean"),
    ("learned", "mean"),
    ("pca", "mean"),
    ("random", "mean"),
    ("random", "zero"),
    ("paper", "zero"),
)


def run(name: str, path: str, settings: Settings, seed: int, data: datasets.Dataset, recipe: train.Recipe) -> dict[str, object]:
    """Returns one line of the record: right answers before and after fine-tuning, clusters per vector after it."""
    torch.manual_seed(seed)
    before = nets.load_net(name, data.name)
    convert(before, {path: settings})
    finetune_trec.prepare(before, data.train.images[: finetune_trec.PCA_IMAGES])
    at_once = train.correct(before.eval(), data.validation)
    recipe = replace(recipe, seed=seed)
    net = finetune_trec.fine_tune(nets.load_net(name, data.name), {path: settings}, data, recipe)
    right = train.correct(net, data.validation)
    (layer,) = (part for part in net.modules() if isinstance(part, TRECConv2d))
    return {
        "hash": settings.hash, "threshold": settings.threshold, "seed": seed, "correct_before": at_once,
        "correct": right, "redundancy": round(1 - float(layer.kept_share), 4),
    }  # fmt: skip


def main() -> None:
    """Runs every variant with every seed and writes the record after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net")
    parser.add_argument("layer", help="module path of the convolution")
    parser.add_argument("--sub-length", type=int, default=64)
    parser.add_argument("--hash-bits", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=6400, help="training images, one pass")
    parser.add_argument("--validation", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("data/records/trec_ablation.json"))
    options = parser.parse_args()
    data = datasets.load("cifar10")
    data = replace(data, train=data.train.first(options.images), validation=data.validation.first(options.validation))
    recipe = train.Recipe(epochs=1, peak_rate=0.02, warmup_share=0.1, freeze=True)
    record = {
        "schema": 1, "kind": "trec_ablation", "net": options.net, "layer": options.layer, "sub_length": options.sub_length,
        "hash_bits": options.hash_bits, "training_images": options.images, "validation_images": options.validation,
        "recipe": asdict(recipe), "torch": torch.__version__, "command": shlex.join(["python", *sys.argv]),
        "correct_exact": train.correct(nets.load_net(options.net), data.validation), "runs": [],
    }  # fmt: skip
    for seed in range(options.seeds):
        for hash, threshold in VARIANTS:
            settings = Settings(options.sub_length, options.hash_bits, hash, threshold)
            record["runs"].append(run(options.net, options.layer, settings, seed, data, recipe))
            options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
