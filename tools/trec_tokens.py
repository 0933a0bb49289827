"""TREC over the tokens of `cct`, beside tokens dropped or merged, all tuned equally: data/records/trec_tokens.json.

    python tools/trec_tokens.py                        what is not in the record yet, all designs with all seeds; hours
    python tools/trec_tokens.py --only queries4_mlp3   one design with all seeds; --seed 1: one seed

A design begins at the committed weights, and all are tuned by one recipe with the exact network as the teacher; `exact` is the
control. `queries4_mlp3`: 4 bits for the queries, whose equal ones the attention computes once, 3 bits for both layers of each
perceptron; `all3`: 3 bits in every layer of the blocks. `dropped32` and `merged32` keep 32 of 64 tokens from the first block on:
those of the largest norms, or each of those most alike to one of the other half joined with it (Bolya et al., arXiv 2210.09461).

An entry holds the right answers on validation images, which choose, and on the test images, which are only counted; cycles are
those that the simulator takes for one image with fast kernels, modelled. What is dropped or merged has no kernel: right answers
are those in float, and cycles those of the same stem with blocks of 32 tokens, without the choice of tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import tinyredux
from tinyredux import datasets, nets, train
from tinyredux.files import locked, write_whole
from tinyredux.int8 import evaluator
from tinyredux.provenance import provenance
from tinyredux.train import finetune_trec
from tinyredux.train.loop import Recipe
from tinyredux.trec.layer import Settings

NET, DATA, SEEDS, BOARDS = "cct", "cifar10", (0, 1, 2), ("disco_f469ni", "nucleo_f746zg")
WIDTH, BLOCKS = 96, 4
BITS = {  # of queries, of the layer behind the attention, of both layers of the perceptron; 0: exact
    "exact": (0, 0, 0), "queries4_mlp3": (4, 0, 3), "queries4_joined4_mlp2": (4, 4, 2), "mlp3": (0, 0, 3),
}  # fmt: skip
KEPT = {"dropped32": (32, False), "merged32": (32, True)}  # tokens, and whether they are merged
DESIGNS = (*BITS, "all3", *KEPT)
RECIPE = Recipe(epochs=6, peak_rate=5e-4, weight_decay=0.05, warmup_share=0.1, distil=0.5, optimizer="adamw")


class Fewer(nn.Module):
    """Of tokens (N, tokens, width) so many: the rest is dropped, or merged into the other half."""

    def __init__(self, keep: int, merge: bool) -> None:
        super().__init__()
        self.keep, self.merge = keep, merge

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Returns (N, keep, width)."""
        if not self.merge:
            return _taken(tokens, tokens.norm(dim=2).topk(self.keep, dim=1).indices.sort(1).values)
        some, others = tokens[:, ::2], tokens[:, 1::2]
        alike, to = (nn.functional.normalize(some, dim=2) @ nn.functional.normalize(others, dim=2).mT).max(2)
        order = alike.argsort(1, descending=True)
        gone, kept = order[:, : tokens.shape[1] - self.keep], order[:, tokens.shape[1] - self.keep :].sort(1).values
        target = to.gather(1, gone)
        total = others.scatter_add(1, target[..., None].expand(-1, -1, tokens.shape[2]), _taken(some, gone))
        count = torch.ones_like(others[..., 0]).scatter_add(1, target, torch.ones_like(others[:, : target.shape[1], 0]))
        return torch.cat([_taken(some, kept), total / count[..., None]], 1)


def _taken(tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[2]))


def table_of(design: str) -> dict[str, Settings]:
    """Returns the TREC layers of a design."""
    queries, joined, mlp = BITS.get(design, (0, 0, 0))
    layers = {
        "attended": Settings(WIDTH, queries, "learned", outputs=WIDTH) if queries else None,
        "joined": Settings(WIDTH, joined, "learned") if joined else None,
        "mlp.0": Settings(WIDTH, mlp, "learned") if mlp else None,
        "mlp.2": Settings(2 * WIDTH, mlp, "learned") if mlp else None,
    }
    if design == "all3":
        layers = {path: Settings(2 * WIDTH if path == "mlp.2" else WIDTH, 3, "learned") for path in layers}
    return {f"body.blocks.{i}.{path}": one for i in range(BLOCKS) for path, one in layers.items() if one}


def entry(design: str, seed: int, checkpoint: Path) -> dict[str, Any]:
    """Tunes a design and returns its entry."""
    data, net = datasets.load(DATA), nets.load_net(NET, DATA)
    recipe, table = train.given(RECIPE, None, seed), table_of(design)
    if design in KEPT:
        net.body.blocks = nn.Sequential(Fewer(*KEPT[design]), *net.body.blocks)  # type: ignore[union-attr, misc]
    net = finetune_trec.fine_tune(net, table, data, recipe, checkpoint).eval()
    found: dict[str, Any] = {
        "design": design, "seed": seed, "table": finetune_trec.to_json(table), "recipe": asdict(recipe),
        "validation_correct": train.correct(net, data.validation), "validation_images": data.validation.count,
        "correct_float": train.correct(net, data.test), "images": data.test.count,
    }  # fmt: skip
    if design in KEPT:
        return found | {"cycles": {board: fewer_cycles(net, board) for board in BOARDS}, "origin": provenance()}
    graph = tinyredux.quantize(tinyredux.export(net, data.shape), datasets.calibration(data))
    measured = {board: tinyredux.measure(tinyredux.compile(graph, board), data.test.images[:1]) for board in BOARDS}
    assert all(one.bit_exact for one in measured.values())
    cycles = {board: one.cycles for board, one in measured.items()}
    sram = {board: one.sram_bytes for board, one in measured.items()}
    return found | {
        "correct_int8": evaluator.correct(graph, data.test), "cycles": cycles, "sram_bytes": sram, "origin": provenance(),
    }  # fmt: skip


def fewer_cycles(net: nn.Module, board: str) -> int:
    """Returns the cycles of the exact network's stem and of blocks and classes with half of the tokens."""
    data = datasets.load(DATA)
    exact = nets.load_net(NET, DATA)
    whole = tinyredux.quantize(tinyredux.export(exact, data.shape), datasets.calibration(data))
    measured = tinyredux.measure(tinyredux.compile(whole, board), data.test.images[:1])
    names = [op.name for op in measured.per_op]
    stem = sum(op.cycles for op in measured.per_op[: names.index("norm1")])
    body: Any = exact.body

    class Rest(nn.Module):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            tokens = body.blocks(maps.flatten(2).transpose(1, 2))
            logits: torch.Tensor = body.classes(body.norm(tokens).mean(1))
            return logits

    maps = np.random.default_rng(0).normal(size=(16, WIDTH, 4, 8)).astype(np.float32)
    rest = tinyredux.quantize(tinyredux.export(Rest().eval(), maps.shape[1:]), maps)
    return int(stem + tinyredux.measure(tinyredux.compile(rest, board), maps[:1]).cycles)


def main() -> None:
    """Adds what is asked for and not there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=DESIGNS, help="one design")
    parser.add_argument("--seed", type=int, help="one seed")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "data" / "records" / "trec_tokens.json")
    options = parser.parse_args()
    designs, seeds = ([options.only] if options.only else DESIGNS), (SEEDS if options.seed is None else [options.seed])
    cache = datasets.cache_folder() / "checkpoints"
    cache.mkdir(parents=True, exist_ok=True)
    for seed, design in product(seeds, designs):
        if any((one["design"], one["seed"]) == (design, seed) for one in entries(options.out)):
            continue
        found = entry(design, seed, cache / f"trec_tokens.{design}.{seed}.pt")
        with locked(cache / "trec_tokens.lock"):
            kept = [one for one in entries(options.out) if (one["design"], one["seed"]) != (design, seed)]
            ordered = sorted([*kept, found], key=lambda one: (DESIGNS.index(one["design"]), one["seed"]))
            record = {"schema": 1, "kind": "trec_tokens", "net": NET, "data": DATA, "entries": ordered}
            write_whole(options.out, json.dumps(record, indent=1) + "\n")
        print(
            design,
            seed,
            found["validation_correct"],
            found.get("correct_int8", found["correct_float"]),
            found["cycles"],
            file=sys.stderr,
        )


def entries(path: Path) -> list[dict[str, Any]]:
    """Returns what a record holds."""
    return json.loads(path.read_text())["entries"] if path.is_file() else []


if __name__ == "__main__":
    main()
