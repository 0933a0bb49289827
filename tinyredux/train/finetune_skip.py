"""Fine-tuning under a mask: input channels go until the fast kernels are so much faster, and the other weights make up for it.

The mask is in the weights: what is left out is zero before, during and after the training, so the tuned network is a network like
any other, and the zeros lead `graph.dead_channels` to what nobody reads.
"""

import bisect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tinyredux import datasets, nets, train
from tinyredux.datasets import Dataset, MissingDataError
from tinyredux.files import require
from tinyredux.frontends import export
from tinyredux.graph import Conv, Dense, Graph, live_channels
from tinyredux.int8 import quantize
from tinyredux.skip import Cut, Statistics, records, skippable, weight_mask, windows, without
from tinyredux.train import loop, skip_search

Masks = dict[str, torch.Tensor]
SHARE = 0.85  # of the exact network's predicted cycles
TUNE = train.Recipe(epochs=8, peak_rate=0.03, warmup_share=0.1, distil=0.5, dropout_factor=0.5)


def fine_tune(
    net: nn.Module, data: Dataset, share: float, recipe: train.Recipe, checkpoint: Path | None = None
) -> dict[str, Any]:
    """Leaves input channels out of a trained network, in place, trains it on without them, and returns what was left out.

    The exact network is the teacher. Resumable as `train.train`. Raises ValueError for a share of the cycles out of reach.
    """
    graph = quantize(export(net, data.shape), datasets.calibration(data))
    statistics = records.statistics_of(graph, data, skippable(graph, "input"))
    cuts, reached = cuts_for(graph, statistics, share)
    train_masked(net, data, masks_of(net, graph, cuts), recipe, checkpoint, train.Guide(loop.teacher_of(net, recipe)))
    channels = {op: [int(c) for c in np.flatnonzero(~cut.kept[0])] for op, cut in cuts.items() if cut.share}
    return {"unit": "input", "board": skip_search.BOARD, "share": share, "predicted": round(reached, 4), "channels": channels}


def train_masked(
    net: nn.Module, data: Dataset, masks: Masks, recipe: train.Recipe, checkpoint: Path | None, guide: train.Guide
) -> nn.Module:
    """Trains a network in place, as `train.train` does, with its parameters zero wherever their masks are."""
    parameters = dict(net.named_parameters())

    def keep_zero() -> None:
        for name, mask in masks.items():
            gradient = parameters[name].grad
            if gradient is not None:
                gradient.mul_(mask)

    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name].mul_(mask)
    return train.train(net, data, recipe, checkpoint, replace(guide, watch=keep_zero))


def check_share(share: float) -> None:
    """Raises ValueError for a share of cycles that nothing could keep."""
    require(0 < share <= 1, f"the share of cycles to keep is {share}, expected more than 0 and at most 1")


def cuts_for(graph: Graph, statistics: dict[str, Statistics], share: float) -> tuple[dict[str, Cut], float]:
    """Returns the cheapest cuts with at most `share` of the exact network's predicted cycles, and the share that they reach."""
    check_share(share)
    worth, whole = skip_search.worths(graph, "input"), skip_search.predicted_cycles(graph)
    paths = {op: records.path_of(graph, op, one, "input") for op, one in statistics.items()}
    prices = skip_search.prices_of(paths, worth)

    def reached(price: float) -> float:
        return skip_search.predicted_cycles(without(graph, skip_search.below(paths, worth, price))) / whole

    if (least := reached(prices[-1])) > share:
        raise ValueError(f"leaving out input channels leads to {least:.2f} of the cycles, not to {share}; give a larger share")
    price = prices[bisect.bisect_left(prices, True, hi=len(prices) - 1, key=lambda price: reached(price) <= share)]
    return skip_search.below(paths, worth, price), reached(price)


def masks_of(net: nn.Module, graph: Graph, cuts: dict[str, Cut]) -> Masks:
    """Returns for the weights of the module, by parameter name, 1 where they are kept: inputs left out and outputs nobody reads.

    Raises ValueError for an operator whose weights are not simply those of a layer.
    """
    live = live_channels(without(graph, cuts))
    masks = {}
    for op in graph.ops:
        if not isinstance(op, Conv | Dense) or (op.name not in cuts and live[op.output].all()):
            continue
        weights = windows(graph, op.name)
        kept = weight_mask(weights, cuts[op.name]).reshape(weights.shape) if op.name in cuts else np.ones(weights.shape, bool)
        kept = (kept & live[op.output][:, None, None, None]).transpose(0, 3, 1, 2)
        name = f"{graph.origin.get(op.name, '').split(' ')[0]}.weight"
        own = dict(net.named_parameters()).get(name)
        if own is None or own.numel() != kept.size:
            raise ValueError(f"{op.name}: no parameter {name} of {kept.size} weights in the module to leave some out of")
        masks[name] = torch.from_numpy(np.ascontiguousarray(kept).reshape(own.shape)).float()
    return masks


def load_skip(name: str, data: str = "cifar10") -> nn.Module:
    """Returns a network with the weights tuned on `data` under a mask. Raises MissingDataError where there are none."""
    path = nets.weights_file(name, data, "skip")
    if path is None:
        raise MissingDataError(f"{name} has no weights tuned for skipping on {data}; `tinyredux train {name} --method skip`")
    net = nets.resolve(name)
    nets.load_weights(net, path)
    return net.eval()
