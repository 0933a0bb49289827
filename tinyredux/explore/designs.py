"""Designs of a network with operands left out: the graph of each, how many images it gets right, and what it will cost.

Costs are predicted before anything is built: the kernel of each operator is chosen as `codegen.layers` does, at the cycles of
`kernels.cycles`; simulated designs show what the board's flash adds to them (`calibrate`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tinyredux.boards import Board
from tinyredux.codegen import code_sizes, compacted, limits, templates_of
from tinyredux.datasets import Dataset
from tinyredux.graph import Array, Graph, Op, Weighted
from tinyredux.int8 import evaluator, requantization
from tinyredux.int8.evaluator import Bytes, Evaluator
from tinyredux.kernels import Way, fitted, ways
from tinyredux.measurement import Measurement
from tinyredux.skip import Cut, records, skip, skippable
from tinyredux.train import skip_search

FIRST_IMAGES = 1000  # after which a design that clearly loses too much is given up
CLEARLY = 0.02  # of the images, beyond what may be lost
FLASH_MARGIN = 0.01  # of the predicted bytes: more than whole networks were off, so that what is proposed does fit


@dataclass(frozen=True)
class Design:
    """How much is left out of each layer: the unit, and the number of a cut on the layer's path (0: nothing)."""

    units: Mapping[str, str]
    steps: Mapping[str, int]


@dataclass(frozen=True)
class Cost:
    """What a design is predicted to cost. `sram_bytes` are arena with scratch; `ways` says how each operator is computed."""

    cycles: int
    flash_bytes: int
    sram_bytes: int
    ways: Mapping[str, str]


@dataclass(frozen=True)
class Calibration:
    """What simulated designs showed of the predictions: the factor by which their cycles were more, which is what this board's
    flash adds to its core, the bytes of flash that they were more, and the largest errors that are left, in per cent."""

    cycles_factor: float = 1.0
    overhead_bytes: int = 0
    error_percent: Mapping[str, float] = field(default_factory=dict)
    designs: int = 0


class Designs:
    """The designs of one int8 network on one board. What is found out about a layer is kept."""

    def __init__(
        self, graph: Graph, data: Dataset, board: Board, kernels: str, sram_bytes: int | None = None,
    ) -> None:  # fmt: skip
        """Collects statistics from training images: `units_of` says by which units an operator can be cut.

        Raises ValueError for data without training or validation images.
        """
        if not len(data.validation.images) or data.validation.labels is None:
            raise ValueError(f"{data.name} has no labelled validation images to choose by; use cifar10 or synthetic")
        self.graph, self.data, self.board, self.kernels = graph, data, board, kernels
        self.asked_bytes, self.sram_bytes = sram_bytes, limits(board, sram_bytes)[0]
        self.units, self.calibration = records.UNITS_FOR[kernels], Calibration()
        cuttable = {op: [unit for unit in self.units if op in skippable(graph, unit)] for op in (op.name for op in graph.ops)}
        self.units_of = {op: units for op, units in cuttable.items() if units}
        self._statistics = records.statistics_of(graph, data, list(self.units_of))
        self._paths: dict[tuple[str, str], list[Cut]] = {}
        self._layers: dict[tuple[str, str, int], tuple[Array, Array]] = {}
        self._ways: dict[str, list[Way]] = {}

    def path(self, op: str, unit: str) -> list[Cut]:
        """Returns the cuts of an operator, from none to the largest that is tried."""
        if (op, unit) not in self._paths:
            self._paths[op, unit] = records.path_of(self.graph, op, self._statistics[op], unit)
        return self._paths[op, unit]

    def on_prices(self, unit: str, count: int) -> list[dict[str, int]]:
        """Returns `count` sets of steps by operator: each makes all cuts below one price, few at first."""
        paths = {op: self.path(op, unit) for op, units in self.units_of.items() if unit in units}
        worth = skip_search.worths(self.graph, unit, self.board.name)
        prices = skip_search.prices_of(paths, worth)
        places = (len(prices) - 1) * np.linspace(0, 1, count + 2)[1:-1] ** 2
        cuts = [skip_search.below(paths, worth, prices[round(float(place))]) for place in places]
        return [{op: paths[op].index(cut) for op, cut in one.items()} for one in cuts]

    def graph_of(self, design: Design) -> Graph:
        """Returns the int8 graph of a design, its weights and biases repaired."""
        constants = dict(self.graph.constants)
        for name, step in design.steps.items():
            if step:
                op, unit = self._op(name), design.units[name]
                if (name, unit, step) not in self._layers:
                    made = skip(self.graph, {name: self.path(name, unit)[step]}, {name: self._statistics[name]})
                    self._layers[name, unit, step] = made.constants[op.weights], made.constants[op.bias]
                constants[op.weights], constants[op.bias] = self._layers[name, unit, step]
        return replace(self.graph, constants=constants)

    def record(self, design: Design, net: str, right: int, exact: int, images: int) -> records.Record:
        """Returns a design as `measure --skip` reads it."""
        cuts = {op: self.path(op, design.units[op])[step] for op, step in design.steps.items()}
        shares = {op: round(records.step_of(self.graph, op, design.units[op]) * step, 4) for op, step in design.steps.items()}
        thresholds = {op: cut.threshold for op, cut in cuts.items()}
        first = next(iter(design.units.values()))
        units = {op: unit for op, unit in design.units.items() if unit != first}
        return records.Record(net, self.data.name, first, shares, thresholds, images, exact, right, units=units)

    def _op(self, name: str) -> Weighted:
        op = next(op for op in self.graph.ops if op.name == name)
        assert isinstance(op, Weighted)
        return op

    # What a design costs ----------------------------------------------------------------------------------------------

    def cost(self, graph: Graph) -> Cost:
        """Returns what the graph of a design is predicted to cost."""
        graph = compacted(graph, unpack=True)
        known = {op.name: self._ways_of(graph, op) for op in graph.ops}
        fast = fitted(graph, self.board.cpu, known, *limits(self.board, self.asked_bytes, graph))
        cycles = self.calibration.cycles_factor * fast.cycles
        flash = self.calibration.overhead_bytes + code_sizes.flash_bytes(fast, self.board.cpu)
        forms = fast.form_of_operator
        names = {op.name: forms[op.name].name if op.name in forms else "reference" for op in graph.ops}
        return Cost(round(cycles), flash, fast.total_bytes, names)

    def excess(self, cost: Cost) -> str | None:
        """Returns which limit a cost breaks, None where it keeps to all."""
        for kind, bytes_, limit in (
            ("SRAM", cost.sram_bytes, self.sram_bytes),
            ("flash", math.ceil(cost.flash_bytes * (1 + FLASH_MARGIN)), self.board.flash_bytes),
        ):
            if bytes_ > limit:
                return f"{bytes_} bytes of {kind} with what predictions may be off, {limit} are allowed"
        return None

    def _ways_of(self, graph: Graph, op: Op) -> list[Way]:
        key = _digest(graph, op)
        if key not in self._ways:
            self._ways[key] = ways(graph, op, self.board.cpu, templates_of(self.kernels, unpack=True))
        return self._ways[key]

    def calibrate(self, simulated: Sequence[tuple[Graph, Measurement]]) -> Calibration:
        """Takes the calibration from simulated designs, and returns it: the factor by least squares, the bytes by the mean."""
        self.calibration = Calibration()
        pairs = [(self.cost(graph), measured) for graph, measured in simulated]
        squares = sum(cost.cycles**2 for cost, _ in pairs)
        factor = sum(cost.cycles * (measured.cycles or 0) for cost, measured in pairs) / max(1, squares)
        beside = [(measured.flash_bytes["total"] or 0) - cost.flash_bytes for cost, measured in pairs]
        self.calibration = Calibration(factor, round(float(np.mean(beside))))
        errors = errors_percent([(self.cost(graph), measured) for graph, measured in simulated])
        self.calibration = replace(self.calibration, error_percent=errors, designs=len(simulated))
        return self.calibration


def errors_percent(pairs: Sequence[tuple[Cost, Measurement]]) -> dict[str, float]:
    """Returns the largest errors of predictions against simulated designs, in per cent: of cycles, flash and arena."""
    found: dict[str, list[float]] = {}
    for cost, measured in pairs:
        for name, predicted, there in (
            ("cycles", cost.cycles, measured.cycles or 0),
            ("flash_bytes", cost.flash_bytes, measured.flash_bytes["total"] or 0),
            ("sram_bytes", cost.sram_bytes, measured.planned_bytes),
        ):
            found.setdefault(name, []).append(100 * abs(predicted - there) / max(1, there))
    return {name: round(max(errors), 2) for name, errors in found.items()}


class Images:
    """Labelled images as a network takes them, to count on which of them a design is right."""

    def __init__(self, designs: Designs, count: int | None, loss: float) -> None:
        """Takes the first `count` validation images (None: all); `loss` is the share of them that a design may lose."""
        graph, split = designs.graph, designs.data.validation
        assert split.labels is not None
        self.labels = split.labels[:count]
        self.images = evaluator.quantized(graph, split.images[: len(self.labels)])
        rights = _right(graph, self.images, self.labels)
        self.exact, self.loss = int(rights.sum()), loss
        self.first = min(FIRST_IMAGES, len(self.labels))
        self.exact_first = int(rights[: self.first].sum())

    @property
    def least(self) -> float:
        """Smallest share of right answers that a design may have."""
        return self.exact / len(self.labels) - self.loss

    def right(self, graph: Graph) -> tuple[int, int]:
        """Returns how many images a design gets right and of how many: fewer where the first ones show that it loses too much."""
        right = int(_right(graph, self.images[: self.first], self.labels[: self.first]).sum())
        if right < self.exact_first - (self.loss + CLEARLY) * self.first:
            return right, self.first
        rest = (
            _right(graph, self.images[self.first :], self.labels[self.first :]) if self.first < len(self.labels) else np.zeros(0)
        )
        return right + int(rest.sum()), len(self.labels)


def _right(graph: Graph, images: Bytes, labels: Array) -> Array:
    outputs = Evaluator(graph).run(images)
    return np.asarray(outputs.reshape(len(images), -1).argmax(axis=1) == labels)


def _digest(graph: Graph, op: Op) -> str:
    """Returns what distinguishes operators that are computed differently: shapes, quantisation, weights."""
    tensors = [graph.tensors[name] for name in (*op.inputs, op.output)]
    content = [repr(op), *(repr((tensor.shape, tensor.quant)) for tensor in tensors)]
    if isinstance(op, Weighted):
        content += [hashlib.sha256(graph.constants[name].tobytes()).hexdigest() for name in (op.weights, op.bias)]
        content.append(repr(requantization(graph, op).shift))
    return hashlib.sha256("|".join(content).encode()).hexdigest()
