"""Designs of a network with operands left out: the graph of each, how many images it gets right, and what it will cost.

Costs are predicted before anything is built: the kernel of each operator is chosen as `codegen.layers` does, at the cycles of
`kernels.cycles`; simulated designs show what the board's flash adds to them (`calibrate`).
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from tinyredux.boards import Board
from tinyredux.codegen import code_sizes, compacted, flash_limit, limits, sure_flash, templates_of
from tinyredux.datasets import Dataset, Split, check_part
from tinyredux.graph import Array, Graph, Op, Weighted, constant_names
from tinyredux.int8 import evaluator
from tinyredux.kernels import OnBoard, Way, fitted, ways, within_flash
from tinyredux.measurement import Measurement
from tinyredux.skip import Cut, records, skip, skippable
from tinyredux.train import skip_search

FIRST_IMAGES = 1000  # after which a design that clearly loses too much is given up
CLEARLY = 0.02  # of the images, beyond what may be lost
FLASH_MARGIN = 0.01  # of the predicted bytes: more than whole networks were off, so that what is proposed does fit


Design = Mapping[str, tuple[str, int]]  # operator -> unit, and the number of a cut on its path (0: nothing is left out)


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
        flash: int | str | None = None,
    ) -> None:  # fmt: skip
        """Collects statistics from training images: `paths` holds the cuts of each operator, by unit.

        Raises ValueError for data without training or validation images.
        """
        check_part(data, "validation")
        self.graph, self.data, self.board, self.kernels = graph, data, board, kernels
        self.asked_bytes, self.sram_bytes = sram_bytes, limits(board, sram_bytes)[0]
        self.flash, self.flash_bytes = flash, flash_limit(graph, board, flash or "board")
        self.units, self.calibration = records.UNITS_FOR[kernels], Calibration()
        known = {unit: skippable(graph, unit) for unit in self.units}
        names = [op.name for op in graph.ops if any(op.name in ops for ops in known.values())]
        self._statistics = records.statistics_of(graph, data, names)
        self.paths = {  # operator -> unit -> its cuts, from none to the largest that is tried
            op: {unit: records.path_of(graph, op, self._statistics[op], unit) for unit in self.units if op in known[unit]}
            for op in names
        }
        self._layers: dict[tuple[str, str, int], tuple[Array, Array]] = {}
        self._ways: dict[str, list[Way]] = {}

    def cut_by(self, unit: str) -> dict[str, list[Cut]]:
        """Returns the paths of the operators that can be cut by a unit."""
        return {op: paths[unit] for op, paths in self.paths.items() if unit in paths}

    def on_prices(self, unit: str, count: int) -> list[dict[str, int]]:
        """Returns `count` sets of steps by operator: each makes all cuts below one price, few at first."""
        paths, worth = self.cut_by(unit), skip_search.worths(self.graph, unit, self.board.name)
        prices = skip_search.prices_of(paths, worth)
        places = (len(prices) - 1) * np.linspace(0, 1, count + 2)[1:-1] ** 2
        cuts = [skip_search.below(paths, worth, prices[round(float(place))]) for place in places]
        return [{op: paths[op].index(cut) for op, cut in one.items()} for one in cuts]

    def graph_of(self, design: Design) -> Graph:
        """Returns the int8 graph of a design, its weights and biases repaired."""
        constants = dict(self.graph.constants)
        for name, (unit, step) in design.items():
            if step:
                op = self.graph.by_name[name]
                assert isinstance(op, Weighted)
                if (name, unit, step) not in self._layers:
                    made = skip(self.graph, {name: self.paths[name][unit][step]}, {name: self._statistics[name]})
                    self._layers[name, unit, step] = made.constants[op.weights], made.constants[op.bias]
                constants[op.weights], constants[op.bias] = self._layers[name, unit, step]
        return replace(self.graph, constants=constants)

    def record(self, design: Design, net: str, right: int, exact: int, images: int) -> records.Record:
        """Returns a design as `measure --skip` reads it."""
        shares = {op: round(records.step_of(self.graph, op, unit) * step, 4) for op, (unit, step) in design.items()}
        thresholds = {op: self.paths[op][unit][step].threshold for op, (unit, step) in design.items()}
        first = next((unit for unit, _ in design.values()), self.units[0])
        units = {op: unit for op, (unit, _) in design.items() if unit != first}
        return records.Record(net, self.data.name, first, shares, thresholds, images, exact, right, units=units)

    # What a design costs ----------------------------------------------------------------------------------------------

    def cost(self, graph: Graph) -> Cost:
        """Returns what the graph of a design is predicted to cost."""
        graph = compacted(graph, unpack=True)
        known = {op.name: self._ways_of(graph, op) for op in graph.ops}
        sram = limits(self.board, self.asked_bytes, graph, "board")[0]
        if self.flash is None:
            fast = fitted(graph, OnBoard(self.board), known, sram, limits(self.board)[1])
        else:
            fast = within_flash(graph, OnBoard(self.board), known, sram, self.flash_bytes, partial(sure_flash, board=self.board))
        cycles = self.calibration.cycles_factor * fast.cycles
        flash = self.calibration.overhead_bytes + code_sizes.flash_bytes(fast, self.board)
        forms = fast.form_of_operator
        names = {op.name: forms[op.name].name if op.name in forms else "reference" for op in graph.ops}
        return Cost(round(cycles), flash, fast.total_bytes, names)

    def excess(self, cost: Cost) -> str | None:
        """Returns which limit a cost breaks, None where it keeps to all."""
        flash = math.ceil(cost.flash_bytes * (1 + FLASH_MARGIN))
        for kind, needed, limit in (("SRAM", cost.sram_bytes, self.sram_bytes), ("flash", flash, self.flash_bytes)):
            if needed > limit:
                return f"{needed} bytes of {kind} with what predictions may be off, {limit} are allowed"
        return None

    def _ways_of(self, graph: Graph, op: Op) -> list[Way]:
        """Returns the ways to compute an operator, kept by all that they depend on: quantisation, shapes and weights."""
        about = repr((op, [graph.tensors[name] for name in (*op.inputs, op.output)])).encode()
        key = hashlib.sha256(about + b"".join(graph.constants[name].tobytes() for name in constant_names(op))).hexdigest()
        if key not in self._ways:
            self._ways[key] = ways(graph, op, OnBoard(self.board), templates_of(self.kernels, unpack=True))
        return self._ways[key]

    def calibrate(self, simulated: Sequence[tuple[Graph, Measurement]]) -> Calibration:
        """Takes the calibration from simulated designs, and returns it: the factor by least squares, the bytes by the mean."""
        self.calibration = Calibration()
        pairs = [(self.cost(graph), measured) for graph, measured in simulated]
        squares = sum(cost.cycles**2 for cost, _ in pairs)
        factor = sum(cost.cycles * (measured.cycles or 0) for cost, measured in pairs) / max(1, squares)
        beside = np.mean([(measured.flash_bytes["total"] or 0) - cost.flash_bytes for cost, measured in pairs])
        self.calibration = Calibration(factor, round(float(beside)), designs=len(simulated))
        errors = errors_percent([(self.cost(graph), measured) for graph, measured in simulated])
        self.calibration = replace(self.calibration, error_percent=errors)
        return self.calibration


def errors_percent(pairs: Sequence[tuple[Cost, Measurement]]) -> dict[str, float]:
    """Returns the largest errors of predictions against simulated designs, in per cent: of cycles, flash and arena."""
    compared = {
        "cycles": [(cost.cycles, measured.cycles or 0) for cost, measured in pairs],
        "flash_bytes": [(cost.flash_bytes, measured.flash_bytes["total"] or 0) for cost, measured in pairs],
        "sram_bytes": [(cost.sram_bytes, measured.planned_bytes) for cost, measured in pairs],
    }
    errors = {name: [100 * abs(said - there) / max(1, there) for said, there in each] for name, each in compared.items()}
    return {name: round(max(each), 2) for name, each in errors.items() if each}


class Images:
    """Labelled images, to count on which of them a design is right."""

    def __init__(self, designs: Designs, count: int | None, loss: float) -> None:
        """Takes the first `count` validation images (None: all); `loss` is the share of them that a design may lose."""
        split = designs.data.validation.first(count or designs.data.validation.count)
        self.loss, self.count, self.first = loss, split.count, split.first(FIRST_IMAGES)
        rest = slice(FIRST_IMAGES, None)
        self.rest = Split(split.images[rest], None if split.labels is None else split.labels[rest])
        self.exact_first = evaluator.correct(designs.graph, self.first)
        self.exact = self.exact_first + evaluator.correct(designs.graph, self.rest)

    @property
    def least(self) -> float:
        """Smallest share of right answers that a design may have."""
        return self.exact / self.count - self.loss

    def right(self, graph: Graph) -> tuple[int, int]:
        """Returns how many images a design gets right and of how many: fewer where the first ones show that it loses too much."""
        right, images = evaluator.correct(graph, self.first), self.first.count
        if right < self.exact_first - (self.loss + CLEARLY) * images:
            return right, images
        return right + evaluator.correct(graph, self.rest), self.count
