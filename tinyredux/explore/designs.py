"""Designs of a network under any of the methods: what each layer and the network chose, what that costs, how often it is right.

Methods are known by what they offer (`methods.space`), not by name: here is the one list of them. A design is compiled as
everything is, by `flow.compile` with passes and a schedule, and costs what the cost model says of the result. Which kernels
compute it is not searched: `compile` takes for each operator the fastest that fits into the memory there is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinyredux import datasets, flow
from tinyredux.boards import Board
from tinyredux.codegen import code_sizes, flash_limit, limits
from tinyredux.datasets import Dataset
from tinyredux.frontends import export
from tinyredux.graph import Graph
from tinyredux.int8 import evaluator, quantize
from tinyredux.measurement import Measurement
from tinyredux.methods.layerwise import Layerwise
from tinyredux.methods.partial import PartialSpace
from tinyredux.methods.skip import SkipSpace
from tinyredux.methods.space import NETWORK, Chosen, Space
from tinyredux.methods.trec import TrecSpace
from tinyredux.model import Model
from tinyredux.nets import load_net
from tinyredux.settings import CALIBRATION_IMAGES
from tinyredux.train import Guide, Recipe, finetune_skip, teacher_of

SPACES: dict[str, type[Space]] = {space.label: space for space in (PartialSpace, TrecSpace, SkipSpace)}  # in the order of passes
LOOKS = (200, 1000)  # validation images after which a design that clearly loses too much is given up
FLASH_MARGIN = 0.01  # of the predicted bytes: more than whole networks were off, so that what is proposed does fit

Design = Mapping[str, Chosen]  # method -> layer or NETWORK -> its choice; what is as in the exact network is not there
Parameters = Mapping[str, int]


@dataclass(frozen=True)
class Cost:
    """What a design is predicted to cost. `sram_bytes` are arena with scratch; `ways` says how each operator is computed."""

    cycles: int
    flash_bytes: int
    sram_bytes: int
    ways: Mapping[str, str]


@dataclass(frozen=True)
class Limits:
    """What no design may exceed: bytes of flash and SRAM, and cycles, where somebody set a limit."""

    flash_bytes: int
    sram_bytes: int
    cycles: int | None = None

    def excess(self, flash_bytes: int, sram_bytes: int, cycles: int) -> str | None:
        """Returns which limit is broken, None where all are kept."""
        for kind, needed, limit in (
            ("bytes of SRAM", sram_bytes, self.sram_bytes), ("bytes of flash", flash_bytes, self.flash_bytes),
            ("cycles", cycles, self.cycles),
        ):  # fmt: skip
            if limit is not None and needed > limit:
                return f"{needed} {kind}, {limit} are allowed"
        return None


@dataclass(frozen=True)
class Applied:
    """A method as a pass: what a design chose of it."""

    space: Space
    chosen: Chosen

    @property
    def label(self) -> str:
        """What a measurement calls it."""
        return self.space.label

    @property
    def immediates(self) -> bool:
        """Whether convolutions may have their weights as immediates."""
        return self.space.immediates

    def __call__(self, graph: Graph, board: Board) -> Graph:
        """Returns the graph with what was chosen."""
        return self.space.apply(graph, self.chosen)


class Designs:
    """The designs of one int8 network on one board under some methods, as numbers for a search and as models."""

    def __init__(
        self, graph: Graph, board: Board, kernels: str, spaces: Mapping[str, Space], sram: int | None = None,
        flash: int | str | None = None, cycles: int | None = None, source: Graph | None = None,
    ) -> None:  # fmt: skip
        """Takes the methods' choices for this graph, and the limits; `source` is the float graph, where there is one."""
        self.graph, self.board, self.kernels, self.spaces, self.source = graph, board, kernels, spaces, source
        self.layerwise = Layerwise(sram, flash or "board")
        self.limits = Limits(flash_limit(graph, board, flash or "board"), limits(board, sram)[0], cycles)
        names = dict.fromkeys(name for space in spaces.values() for name in space.choices)
        self.methods = {name: [label for label, space in spaces.items() if space.choices.get(name)] for name in names}
        self.spans = {f"{name}.{label}": len(spaces[label].choices[name]) for name in names for label in self.methods[name]}
        self.spans |= {name: len(own) - 1 for name, own in self.methods.items() if len(own) > 1}  # whose choice counts

    def design_of(self, parameters: Parameters) -> Design:
        """Returns the design that parameters stand for."""
        design: dict[str, dict[str, object]] = {}
        for name, methods in self.methods.items():
            label = methods[parameters.get(name, 0)] if methods else ""
            if label and (place := parameters[f"{name}.{label}"]):
                design.setdefault(label, {})[name] = self.spaces[label].choices[name][place - 1]
        return design

    def parameters_of(self, design: Design) -> Parameters:
        """Returns parameters that stand for a design."""
        found = dict.fromkeys(self.spans, 0)
        for label, chosen in design.items():
            for name, choice in chosen.items():
                found[f"{name}.{label}"] = 1 + list(self.spaces[label].choices[name]).index(choice)
                found |= {name: self.methods[name].index(label)} if name in found else {}
        return found

    def model(self, design: Design, tuned: Graph | None = None) -> Model:
        """Returns a design compiled; `tuned` is the int8 graph of its weights once they were trained for it."""
        schedule = next((chosen[NETWORK] for chosen in design.values() if NETWORK in chosen), self.layerwise)
        chosen = {label: {n: c for n, c in design[label].items() if n != NETWORK} for label in self.spaces if label in design}
        passes = [Applied(self.spaces[label], {} if tuned else own) for label, own in chosen.items() if own]
        call = f"explore {self.graph.name} --board {self.board.name} --kernels {self.kernels}"
        return flow.compile(
            tuned or self.graph, self.board, passes=passes, schedule=schedule, kernels=self.kernels, source=self.source, call=call
        )

    def cost(self, model: Model) -> Cost:
        """Returns what a compiled design is predicted to cost."""
        flash = code_sizes.flash_bytes(model.steps, self.board, model.copies)
        forms = {entry["name"]: str(entry.get("form", "reference")) for entry in model.artifact.manifest["ops"]}
        return Cost(round(model.steps.cycles), flash, model.plan.total_bytes, forms)

    def excess(self, cost: Cost) -> str | None:
        """Returns which limit a predicted cost breaks, with what predictions of flash may be off; None where it keeps to all."""
        return self.limits.excess(math.ceil(cost.flash_bytes * (1 + FLASH_MARGIN)), cost.sram_bytes, cost.cycles)

    def tuned(self, design: Design, net: str, data: Dataset, recipe: Recipe) -> Graph:
        """Returns the int8 graph of a named network trained on for a design, the exact one being the teacher."""
        module, masks = load_net(net, data.name), finetune_skip.Masks()
        teacher = teacher_of(module, recipe)
        for label in self.spaces:
            masks |= self.spaces[label].prepare(module, design.get(label, {}))
        finetune_skip.train_masked(module, data, masks, recipe, None, Guide(teacher))
        images = datasets.calibration(data, None, CALIBRATION_IMAGES)
        return quantize(export(module.eval(), data.shape, name=self.graph.name), images)


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

    def __init__(self, graph: Graph, data: Dataset, count: int | None, loss: float) -> None:
        """Takes the first `count` validation images (None: all); `loss` is the share of them that a design may lose.

        Raises ValueError for data without any.
        """
        datasets.check_part(data, "validation")
        split = data.validation.first(count or data.validation.count)
        self.loss, self.count = loss, split.count
        ends = [end for end in LOOKS if end < self.count] + [self.count]
        self.parts = [split.first(end).after(begin) for begin, end in zip([0, *ends], ends, strict=False)]
        self._exact = [evaluator.correct(graph, part) for part in self.parts]
        self.exact = sum(self._exact)

    @property
    def least(self) -> float:
        """Smallest share of right answers that a design may have."""
        return self.exact / self.count - self.loss

    def right(self, graph: Graph) -> tuple[int, int]:
        """Returns how many images a design gets right and of how many: fewer where the first ones show that it loses too much.

        Clearly: by two standard deviations of a count, 1 / sqrt(images) at the most, beyond what may be lost.
        """
        right = images = exact = 0
        for part, own in zip(self.parts, self._exact, strict=True):
            right, images, exact = right + evaluator.correct(graph, part), images + part.count, exact + own
            if right < exact - self.loss * images - math.sqrt(images):
                break
        return right, images


def merged(first: Design, second: Design) -> Design:
    """Returns a design with the choices of both; where both have one of the same name, that of the second."""
    taken = {name for chosen in second.values() for name in chosen}
    left = {label: {name: one for name, one in chosen.items() if name not in taken} for label, chosen in first.items()}
    return {label: chosen for label, chosen in left.items() if chosen} | {
        label: {**left.get(label, {}), **chosen} for label, chosen in second.items()
    }
