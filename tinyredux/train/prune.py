"""Pruning aimed at the peak of the partial plan: network and schedule are designed together, down to an SRAM budget.

Each step trains for some batches, plans, and takes out the channels that lose least for each byte that they hold at the
moment at which the plan needs most. Then the small network learns from what it was. Tensors shrink; nothing is masked.
Source: Liberis and Lane, arXiv 2211.17246 (the aim); the algorithm is ours.
"""

import bisect
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from tqdm import tqdm

from tinyredux import memory, nets, train
from tinyredux.datasets import Dataset, Split
from tinyredux.files import require
from tinyredux.memory import Schedule, lower
from tinyredux.partial import PartialPlan, item_bytes, plan_partial
from tinyredux.train import loop
from tinyredux.train.channels import Channels, channels_of, cut, without

Saliency = npt.NDArray[np.float64]  # of each label
Footprint = tuple[tuple[str, int], ...]  # (tensor, channels) that a label occupies

AIMS = ("peak", "anywhere")
TUNE = train.Recipe(epochs=40, peak_rate=0.1, warmup_share=0.1, distil=0.5, dropout_factor=0.2)


@dataclass(frozen=True)
class Pruning:
    """How a network is pruned: `steps` cuts, each after `batches` of training at up to `rate`, then `tune`.

    `aim` says what goes: least saliency per byte freed at the planned peak, or, to compare with, least saliency "anywhere".
    """

    budget_bytes: int
    steps: int = 12
    batches: int = 60
    rate: float = 0.02
    tune: train.Recipe = TUNE
    aim: str = "peak"

    def __post_init__(self) -> None:
        require(self.aim in AIMS, f"pruning: aim is {self.aim!r}, expected one of {', '.join(AIMS)}")
        for key in ("budget_bytes", "steps", "batches", "rate"):
            value = getattr(self, key)
            require(0 < value < 1 << 32, f"pruning: {key} is {value}, expected more than 0 and less than {1 << 32:,}")

    def target_bytes(self, start: int, step: int) -> int:
        """Returns the peak after cut number `step`: from `start` to the budget by equal factors."""
        factor: float = (start / self.budget_bytes) ** (1 - step / self.steps)
        return max(self.budget_bytes, round(self.budget_bytes * factor))


def prune(
    net: nn.Module, data: Dataset, pruning: Pruning, checkpoint: Path | None = None, teacher: nn.Module | None = None
) -> dict[str, Any]:
    """Prunes `net` in place until its partial plan fits the budget, tunes it, and returns how: peaks, cuts, shapes.

    It learns from `teacher` beside the labels, or from what it was itself.
    With `checkpoint`, the state is saved there after every cut, and after every epoch of tuning beside it; a pruning that
    was interrupted goes on from there to the same result. Raises ValueError for a budget that no cut can reach.
    """
    before = net.state_dict()
    teacher = loop.teacher_of(teacher or net, pruning.tune, torch.bfloat16)
    found = channels_of(net, data.shape)
    check_budget(found, pruning.budget_bytes)
    layerwise, start = memory.plan(found.graph).total_bytes, plan_partial(found.graph).peak_bytes
    said = f"the plan needs {start:,} bytes, no more than the budget of {pruning.budget_bytes:,}; give a smaller one"
    require(start > pruning.budget_bytes, said)
    cuts = _resume(checkpoint, net, pruning) if checkpoint else []
    steps = range(len(cuts) + 1, pruning.steps + 1)
    for step in tqdm(steps, "cuts", pruning.steps, initial=len(cuts), leave=False, disable=None):
        found = channels_of(net, data.shape)
        saliency = _train_and_weigh(net, data, pruning, step, found, train.Guide(teacher))
        choice = choose if pruning.aim == "peak" else choose_anywhere
        gone, plan = choice(found, saliency, pruning.target_bytes(start, step))
        cut(net, found, gone)
        cuts.append({"peak_bytes": plan.peak_bytes, "channels": len(gone)})
        if checkpoint:
            _save(checkpoint, net, pruning, cuts)
    train.train(net, data, pruning.tune, tuning_checkpoint(checkpoint) if checkpoint else None, train.Guide(teacher))
    own = net.state_dict()
    shapes = {name: list(value.shape) for name, value in own.items() if value.shape != before[name].shape}
    peak = plan_partial(channels_of(net, data.shape).graph).peak_bytes
    return {
        "budget_bytes": pruning.budget_bytes, "layerwise_bytes": layerwise, "partial_bytes": start, "peak_bytes": peak,
        "reduction": round(layerwise / peak, 2), "cuts": cuts, "shapes": shapes,
    }  # fmt: skip


def tuning_checkpoint(checkpoint: Path) -> Path:
    """Returns where the state of the tuning lies, beside that of the cuts."""
    return checkpoint.with_suffix(".tune.pt")


def check_budget(found: Channels, budget_bytes: int) -> None:
    """Raises ValueError where even one channel in every tensor that can be cut leaves a plan above the budget."""
    least = plan_partial(without(found, frozenset(_removable(found, range(found.count))))).peak_bytes
    said = f"a budget of {budget_bytes:,} bytes is out of reach: with one channel in every tensor that can be cut the plan needs"
    require(least <= budget_bytes, f"{said} {least:,}; give a larger one, or a network with a smaller input")


def _removable(found: Channels, order: Iterable[int]) -> list[int]:
    """Returns those labels of an order that can go one after the other, for every tensor keeps a channel."""
    gone, left = [], {name: len(labels) for name, labels in found.tensors.items()}
    for label in order:
        feet = found.footprint(label) if label not in found.fixed else ()
        if feet and all(left[name] > number for name, number in feet):
            gone.append(label)
            left.update({name: left[name] - number for name, number in feet})
    return gone


def choose(found: Channels, saliency: Saliency, target_bytes: int) -> tuple[frozenset[int], PartialPlan]:
    """Returns the labels to take out so that the plan needs at most `target_bytes`, and that plan.

    Under one schedule the label with the least saliency per byte freed at the schedule's peak goes, again and again; then
    all is planned anew, until the placed plan fits. Raises ValueError where nothing at the peak can go.
    """
    gone: frozenset[int] = frozenset()
    plan = plan_partial(without(found, gone))
    while plan.peak_bytes > target_bytes:
        unplaced = plan.peak_bytes - plan.arena.live_bytes
        gone = _cut_under(found, saliency, gone, plan.narrowest, target_bytes - unplaced)
        plan = plan_partial(without(found, gone))
    return gone, plan


def choose_anywhere(found: Channels, saliency: Saliency, target_bytes: int) -> tuple[frozenset[int], PartialPlan]:
    """Returns as `choose` does, but in the order of saliency alone, blind to where the bytes are: as few labels as will do."""
    order = _removable(found, sorted(range(found.count), key=lambda label: (saliency[label], label)))

    def planned(count: int) -> PartialPlan:
        return plan_partial(without(found, frozenset(order[:count])))

    fits = bisect.bisect_left(range(len(order)), True, key=lambda count: planned(count).peak_bytes <= target_bytes)
    return frozenset(order[:fits]), planned(fits)


def _cut_under(
    found: Channels, saliency: Saliency, gone: frozenset[int], schedule: Schedule, target_bytes: int
) -> frozenset[int]:
    """Returns `gone` and what else must go, at least one label, so that one schedule's live bytes reach the target."""
    kinds: dict[Footprint, list[int]] = {}
    for label in sorted(set(range(found.count)) - found.fixed - gone, key=lambda label: (saliency[label], label)):
        kinds.setdefault(found.footprint(label), []).append(label)
    kinds.pop((), None)
    freed: dict[tuple[int, Footprint], int] = {}
    live = live_of(found, gone, schedule)
    while True:
        peak, prices = int(np.argmax(live)), dict[Footprint, float]()
        for feet, labels in kinds.items():
            if labels and all(_left(found, gone, name) > number for name, number in feet):
                if (peak, feet) not in freed:
                    freed[peak, feet] = live[peak] - live_of(found, gone | {labels[0]}, schedule)[peak]
                if freed[peak, feet] > 0:
                    prices[feet] = float(saliency[labels[0]]) / freed[peak, feet]
        if not prices:
            raise ValueError(
                f"the plan needs {live[peak]:,} bytes in one item and nothing alive there can be cut further; give a "
                f"larger budget than {target_bytes:,} bytes"
            )
        gone |= {kinds[min(prices, key=lambda feet: (prices[feet], feet))].pop(0)}
        live = live_of(found, gone, schedule)
        if max(live) <= target_bytes:
            return gone


def _left(found: Channels, gone: frozenset[int], tensor: str) -> int:
    return int((~np.isin(found.tensors[tensor], list(gone))).sum())


def live_of(found: Channels, gone: frozenset[int], schedule: Schedule) -> list[int]:
    """Returns the most bytes alive in each item of a schedule when the labels `gone` are out."""
    return [live for _, live in item_bytes(lower(without(found, gone), schedule, full=False))]


def _train_and_weigh(net: nn.Module, data: Dataset, pruning: Pruning, step: int, found: Channels, guide: train.Guide) -> Saliency:
    """Trains on a seeded sample and returns the saliency of each label: the mean of (loss by gate)^2 over the batches.

    A gate multiplies all channels of one label; its derivative at 1 is the sum of weight times gradient over the weights
    that read them. Source: Molchanov et al., arXiv 1906.10771, section 3.
    """
    total, count = torch.zeros(found.count, dtype=torch.float64), 0

    def watch() -> None:
        nonlocal total, count
        total, count = total + gate_derivatives(net, found) ** 2, count + 1

    tune = replace(pruning.tune, epochs=1, peak_rate=pruning.rate, seed=1000 * pruning.tune.seed + step)
    order = np.random.default_rng((pruning.tune.seed, step)).permutation(data.train.count)
    chosen = np.resize(order, pruning.batches * tune.batch)  # a small set more than once
    labels = data.train.labels
    sample = Split(data.train.images[chosen], None if labels is None else labels[chosen])
    train.train(net, replace(data, train=sample), tune, None, replace(guide, watch=watch))
    return np.asarray((total / count).numpy())


def gate_derivatives(net: nn.Module, found: Channels) -> torch.Tensor:
    """Returns (labels,) float64: the loss's derivative by each label's gate, from the gradients that the weights hold."""
    total = torch.zeros(found.count, dtype=torch.float64)
    parameters = dict(net.named_parameters())
    for name, axes in found.weights.items():
        weights = parameters.get(name)
        if 1 in axes and weights is not None and weights.grad is not None:
            products = (weights.detach() * weights.grad).transpose(0, 1).flatten(1).sum(1)
            total.index_add_(0, torch.from_numpy(axes[1]), products.double())
    return total


def _save(path: Path, net: nn.Module, pruning: Pruning, cuts: list[dict[str, int]]) -> None:
    loop.save_checkpoint(path, {"net": net.state_dict(), "cuts": cuts, "pruning": json.dumps(asdict(pruning))})


def _resume(path: Path, net: nn.Module, pruning: Pruning) -> list[dict[str, int]]:
    """Puts the weights of a checkpoint, in their shapes, into `net`; returns the cuts made so far."""
    if not (state := loop.read_checkpoint(path, {"pruning": json.dumps(asdict(pruning))}, "net", "cuts")):
        return []
    own = net.state_dict()
    require(own.keys() == state["net"].keys(), f"checkpoint {path} is of another network; remove it to begin anew")
    nets.resize(net, {name: value for name, value in state["net"].items() if value.shape != own[name].shape})
    net.load_state_dict(state["net"])
    cuts: list[dict[str, int]] = state["cuts"]
    return cuts
