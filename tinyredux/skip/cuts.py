"""Leaves operands out: which units of a convolution's weights go, and what the others and the bias do about it.

Int8 Graph -> int8 Graph whose left-out weights are zero. Nothing else needs to know: the interpreter runs it as any graph, and
the kernels of `kernels.unpacked` hold no instruction for a unit of zeros. With nothing left out the graph comes back unchanged.

A unit is what a kernel can really leave out. One MAC instruction takes two operands, so the smallest is a pair: of each four
operands the first and third, or the second and fourth, as SXTB16 delivers them. The largest is an input channel for all output
channels: every kernel is faster on fewer channels, and whoever writes that channel is so as well (`graph.dead_channels`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tinyredux.graph import Array, Conv, Dense, Graph

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
DAMPING = 0.01  # of the mean square of an operand, so that operands which never differ can be told apart


@dataclass(frozen=True)
class Unit:
    """`together` output channels (0: all) share what is left out; `index(ky, x, c, k)` numbers a channel's units."""

    together: int
    index: Callable[[Array, Array, Array, Array], Array]
    meaning: str


UNITS = {
    "pair": Unit(1, lambda y, x, c, k: k // 4 * 2 + k % 2, "operands 0, 2 or 1, 3 of four, of an output channel: one SMLAD"),
    "block": Unit(2, lambda y, x, c, k: k // 4 * 2 + k % 2, "the same operands of two output channels"),
    "row": Unit(2, lambda y, x, c, k: y * 65536 + c, "a kernel row of an input channel, for two output channels"),
    "tap": Unit(2, lambda y, x, c, k: y * 65536 + x, "one position of the kernel across all input channels, for two outputs"),
    "channels": Unit(2, lambda y, x, c, k: c // 2, "two input channels at all positions, for two output channels"),
    "line": Unit(2, lambda y, x, c, k: y, "a kernel row across all input channels, for two output channels"),
    "input": Unit(0, lambda y, x, c, k: c, "an input channel at all positions, for all output channels"),
}


@dataclass(frozen=True)
class Statistics:
    """What a convolution reads in calibration. K = kernel_h * kernel_w * in_c operands in the order of the weights.

    `gram` (K + 1, K + 1): mean product of two operands, less the zero point; the last is the constant 1 that the bias multiplies.
    `absolute` (K,): mean magnitude of an operand. `running` (O, K): mean |sum up to k / whole sum|. `importance` (O,): expected
    growth of the network's loss for a squared error of 1 in the accumulator, at every position.
    """

    gram: Floats
    absolute: Floats
    running: Floats
    importance: Floats


@dataclass(frozen=True, eq=False)
class Cut:
    """What is left out of a convolution: `kept` (groups of output channels, units), and the largest significance left out."""

    unit: str
    kept: Mask
    threshold: float

    @property
    def share(self) -> float:
        """Share of the units that is left out."""
        return 1 - float(self.kept.mean())


def unit_numbers(weights: Array, unit: str) -> npt.NDArray[np.int64]:
    """Returns for each of K operands the number of its unit, counted from 0. Raises ValueError for an unknown unit."""
    if unit not in UNITS:
        raise ValueError(f"unit is {unit!r}, expected one of {', '.join(UNITS)}")
    _, height, width, channels = weights.shape
    y, x, c = np.unravel_index(np.arange(height * width * channels), (height, width, channels))
    numbers = UNITS[unit].index(y, x, c, np.arange(y.size))
    return np.asarray(np.unique(numbers, return_inverse=True)[1], np.int64)


def together(weights: Array, unit: str) -> int:
    """Returns how many output channels share what is left out."""
    return UNITS[unit].together or len(weights)


def weight_mask(weights: Array, cut: Cut) -> Mask:
    """Returns which weights (O, K) are kept."""
    numbers = unit_numbers(weights, cut.unit)
    return np.repeat(cut.kept, together(weights, cut.unit), axis=0)[: len(weights)][:, numbers]


def nonzero_units(weights: Array, unit: str) -> Mask:
    """Returns the units (groups, units) that hold a weight other than zero: what a kernel must not leave out."""
    return _summed(np.asarray(weights != 0, np.float64).reshape(len(weights), -1), weights, unit, np.add) > 0


def _summed(values: Floats, weights: Array, unit: str, join: np.ufunc) -> Floats:
    """Returns per-weight values (O, K) joined over each unit, (groups, units)."""
    numbers = unit_numbers(weights, unit)
    order = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[order], np.arange(numbers.max() + 1))
    per_channel = join.reduceat(values[:, order], starts, axis=1)
    return np.asarray(join.reduceat(per_channel, np.arange(0, len(weights), together(weights, unit)), axis=0))


# Significance -----------------------------------------------------------------------------------------------------


def running_significance(weights: Array, statistics: Statistics, unit: str) -> Floats:
    """Returns the largest |running sum / whole sum| in each unit. Source: the released code of arXiv 2409.16815, as it is."""
    return _summed(statistics.running, weights, unit, np.maximum)


def share_significance(weights: Array, statistics: Statistics, unit: str) -> Floats:
    """Returns the share that each unit's products have in the output, sum of E|w a| / |E sum|. Source: arXiv 2409.16815."""
    flat = weights.reshape(len(weights), -1).astype(np.float64)
    output = np.abs(flat @ statistics.gram[-1, :-1])
    return _summed(np.abs(flat) * statistics.absolute / np.maximum(output, 1)[:, None], weights, unit, np.add)


def magnitude_significance(weights: Array, statistics: Statistics, unit: str) -> Floats:
    """Returns the sum of squared weights of each unit: magnitude pruning, blind to the data."""
    return _summed(weights.reshape(len(weights), -1).astype(np.float64) ** 2, weights, unit, np.add)


SIGNIFICANCES = {"running": running_significance, "share": share_significance, "magnitude": magnitude_significance}
READINGS = (*SIGNIFICANCES, "expected loss")
LOSS_STEPS = 8  # in which units leave by expected loss, so that later choices know of earlier ones


def cut_by_score(weights: Array, scores: Floats, unit: str, share: float) -> Cut:
    """Returns the cut that leaves out the `share` of units with the lowest scores; equal ones in order of place."""
    order = np.argsort(scores, axis=None, kind="stable")[: round(share * scores.size)]
    kept = np.ones(scores.size, bool)
    kept[order] = False
    threshold = float(scores.flat[order[-1]]) if len(order) else 0.0
    return Cut(unit, kept.reshape(scores.shape), threshold)


def cuts_by_expected_loss(weights: Array, statistics: Statistics, unit: str, shares: Sequence[float]) -> list[Cut]:
    """Returns a cut for each of the growing `shares`: units leave in the order of the loss they are expected to cost.

    What a unit costs is what is left of its error once the other operands and the bias have done their best to replace it:
    w_u^T (H^-1_uu)^-1 w_u for the operands' second moments H, times the importance of the output channel. After each share the
    weights have moved and H^-1 has shrunk, so that the next choice knows what is gone.
    Source: ours, from Hassibi and Stork, "Optimal brain surgeon" (1993), by units and with a network's importance.
    """
    numbers, step = unit_numbers(weights, unit), together(weights, unit)
    members = [np.flatnonzero(numbers == number) for number in range(numbers.max() + 1)]
    inverse, importance = np.linalg.inv(damped(statistics.gram)).astype(np.float64), statistics.importance
    parts = [slice(i, i + step) for i in range(0, len(weights), step)]
    groups = [_Group(weights[part], importance[part], inverse.copy(), members) for part in parts]
    cuts, threshold, total = [], 0.0, len(groups) * len(members)
    for share in shares:
        scores = np.stack([group.scores() for group in groups])
        gone = int(np.isinf(scores).sum())
        order = np.argsort(scores, axis=None, kind="stable")[: max(0, round(share * total) - gone)]
        if len(order):
            threshold = max(threshold, float(scores.flat[order[-1]]))
            for index, group in enumerate(groups):
                group.leave_out(order[order // len(members) == index] % len(members))
        cuts.append(Cut(unit, np.stack([group.kept for group in groups]), threshold))
    return cuts


def cuts_by_reading(graph: Graph, statistics: Mapping[str, Statistics], reading: str, unit: str, share: float) -> dict[str, Cut]:
    """Returns cuts that leave the same share out of every operator, the least significant units first by one of READINGS."""
    if reading not in READINGS:
        raise ValueError(f"reading is {reading!r}, expected one of {', '.join(READINGS)}")
    cuts = {}
    for name, found in statistics.items():
        weights = windows(graph, name)
        if reading == "expected loss":
            steps = [share * i / LOSS_STEPS for i in range(LOSS_STEPS + 1)]
            cuts[name] = cuts_by_expected_loss(weights, found, unit, steps)[-1]
        else:
            cuts[name] = cut_by_score(weights, SIGNIFICANCES[reading](weights, found, unit), unit, share)
    return cuts


class _Group:
    """Output channels that share what is left out: their weights, and the inverse of the moments of what is kept."""

    def __init__(self, weights: Array, importance: Floats, inverse: Floats, members: list[npt.NDArray[np.int64]]) -> None:
        self.weights = weights.reshape(len(weights), -1).astype(np.float64)
        self.importance, self.inverse = importance, inverse
        self.members, self.kept = members, np.ones(len(members), bool)

    def scores(self) -> Floats:
        """Returns the expected loss of leaving out each unit; infinite for those that are out."""
        found = np.full(len(self.members), np.inf)
        sizes = {len(unit) for unit in self.members}
        for size in sizes:  # units of one size at a time
            which = [i for i, unit in enumerate(self.members) if len(unit) == size and self.kept[i]]
            if which:
                units = np.stack([self.members[i] for i in which])
                inner = np.linalg.inv(self.inverse[units[:, :, None], units[:, None, :]])
                found[which] = np.einsum(
                    "ouk,ukl,oul,o->u", self.weights[:, units], inner, self.weights[:, units], self.importance
                )
        return found

    def leave_out(self, units: npt.NDArray[np.int64]) -> None:
        """Moves the kept weights to replace those of `units`, and takes these out of the inverse."""
        if not len(units):
            return
        gone = np.concatenate([self.members[i] for i in units])
        columns = self.inverse[:, gone]
        solved = np.linalg.solve(columns[gone], columns.T)
        self.weights -= self.weights[:, gone] @ solved[:, :-1]
        self.weights[:, gone] = 0
        self.inverse -= columns @ solved
        self.inverse[gone] = self.inverse[:, gone] = 0
        self.kept[units] = False


def damped(gram: Floats) -> Floats:
    """Returns the second moments with a little added to the diagonal, the constant's place aside."""
    added = np.full(len(gram), DAMPING * float(np.diag(gram)[:-1].mean()) + 1e-9)
    added[-1] = 0
    return gram + np.diag(added)


# What replaces the units left out -----------------------------------------------------------------------------------


REPAIRS = ("fit", "bias", "none")


def fitted(weights: Array, cut: Cut, statistics: Statistics) -> Array:
    """Returns int8 weights of which the kept ones stand in for those left out, by least squares over what the layer reads.

    Source: ours, the best-fit form of the paper's zeros; without kept operands only the bias can stand in.
    """
    flat, mask = weights.reshape(len(weights), -1).astype(np.float64), weight_mask(weights, cut)
    moments, step = damped(statistics.gram), together(weights, cut.unit)
    for first in range(0, len(flat), step):
        rows, kept = slice(first, first + step), np.append(mask[first], True)
        if mask[first].all():
            continue
        gone = np.flatnonzero(~mask[first])
        moved = np.linalg.solve(moments[np.ix_(kept, kept)], moments[np.ix_(kept, gone)] @ flat[rows, gone].T)
        flat[rows, kept[:-1]] += moved[:-1].T
        flat[rows, gone] = 0
    return np.clip(np.round(flat), -127, 127).astype(np.int8).reshape(weights.shape)


def corrected_bias(weights: Array, changed: Array, bias: Array, statistics: Statistics) -> Array:
    """Returns the bias plus the mean of what the change of the weights takes from the sum."""
    lost = (weights.astype(np.float64) - changed).reshape(len(weights), -1) @ statistics.gram[-1, :-1]
    return np.asarray(bias + np.round(lost).astype(np.int64), np.int32)


def skip(graph: Graph, cuts: Mapping[str, Cut], statistics: Mapping[str, Statistics], repair: str = "fit") -> Graph:
    """Returns the int8 graph with `cuts` made, by operator name, and repaired by one of REPAIRS.

    "fit": kept weights stand in for what is left out, and the bias takes the mean of whatever error is left; "bias": the bias
    alone; "none": neither, which is the paper's form. Raises ValueError for an operator that cannot be cut by that unit, or an
    unknown repair.
    """
    if repair not in REPAIRS:
        raise ValueError(f"repair is {repair!r}, expected one of {', '.join(REPAIRS)}")
    constants, ops = dict(graph.constants), {op.name: op for op in graph.ops}
    for name, cut in cuts.items():
        op = ops.get(name)
        if not isinstance(op, Conv | Dense) or name not in skippable(graph, cut.unit):
            known = ", ".join(skippable(graph, cut.unit))
            raise ValueError(f"{name} is not a convolution with one group; skipping by {cut.unit} knows {known}")
        weights = windows(graph, name)
        changed = np.where(weight_mask(weights, cut).reshape(weights.shape), weights, 0).astype(np.int8)
        if repair == "fit":
            changed = fitted(weights, cut, statistics[name])
        if repair != "none":
            constants[op.bias] = corrected_bias(weights, changed, constants[op.bias], statistics[name])
        constants[op.weights] = changed.reshape(constants[op.weights].shape)
    return replace(graph, constants=constants)


def without(graph: Graph, cuts: Mapping[str, Cut]) -> Graph:
    """Returns the graph with `cuts` made and nothing repaired: what it costs follows from the zeros alone."""
    return skip(graph, cuts, {}, "none")


def skippable(graph: Graph, unit: str = "block") -> list[str]:
    """Returns the names of the operators that can be cut: convolutions with one group; by input channels dense layers too."""
    kinds = Conv | Dense if unit == "input" else Conv
    return [op.name for op in graph.ops if isinstance(op, kinds) and getattr(op, "groups", 1) == 1]


def windows(graph: Graph, name: str) -> Array:
    """Returns an operator's weights (O, kernel_h, kernel_w, in_c); a dense layer is a kernel as large as the map."""
    op = next(op for op in graph.ops if op.name == name)
    assert isinstance(op, Conv | Dense)
    shape = graph.tensors[op.inputs[0]].shape if isinstance(op, Dense) else graph.constants[op.weights].shape[1:]
    return graph.constants[op.weights].reshape(-1, *shape)


def kept_share(graph: Graph, name: str, unit: str) -> float:
    """Returns the share of an operator's units that hold a weight other than zero."""
    return float(nonzero_units(windows(graph, name), unit).mean())
