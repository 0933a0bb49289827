"""Skipping as a pass: generated kernels leave out what a record names, or the zeros that a network was trained to."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from tinyredux import nets
from tinyredux.boards import Board
from tinyredux.datasets import Dataset
from tinyredux.files import checked
from tinyredux.graph import Array, Conv, Graph, TrecConv, Weighted
from tinyredux.methods.space import Chosen, Space
from tinyredux.skip import Cut, records, skip, skippable
from tinyredux.skip.records import Record, apply, load
from tinyredux.train import finetune_skip, skip_search
from tinyredux.trec import exactly

ON_ONE_PRICE = 12  # designs that a search begins with, for each unit: one threshold for all layers


@dataclass(frozen=True)
class Skip:
    """Leaves operands out of convolutions: weights become immediates in code, those that are zero are not there.

    `record` says which shares of which layers go, by their saliency on the training images of `data`; without a record the graph
    loses nothing, but its zeros are left out. Source: arXiv 2409.16815. Chapter 11.
    """

    record: Record | None = None
    data: Dataset | None = field(default=None, repr=False)
    label: ClassVar[str] = "skip"
    immediates: ClassVar[bool] = True  # what its kernels may do beside those of the set

    def __post_init__(self) -> None:
        """Rejects a record without the images that it ranks operands by."""
        if self.record is not None and self.data is None:
            raise ValueError("a record of skipping needs the data whose training images it was made from; give data=")

    def __call__(self, graph: Graph, board: Board) -> Graph:
        """Returns the graph without what the record leaves out.

        A record names operators as the exact network has them; TREC layers lose nothing more. The statistics are those of the
        network with its TREC layers exact, as they were when the record was made.
        """
        if self.record is None or self.data is None:
            return graph
        record, convolutions = self.record, [op for op in graph.ops if isinstance(op, (Conv, TrecConv))]
        trec = [op.name for op in convolutions if isinstance(op, TrecConv)]
        if trec:
            names = {f"conv{i + 1}": op.name for i, op in enumerate(convolutions)}
            shares = {names.get(op, op): share for op, share in record.shares.items()}
            units = {names.get(op, op): unit for op, unit in record.units.items()}
            record = replace(record, shares={op: share for op, share in shares.items() if op not in trec}, units=units)
        cut = apply(exactly(graph, trec), self.data, record)
        return replace(graph, constants=graph.constants | cut.constants)


@dataclass(frozen=True)
class Part:
    """The share of an operator's units that a design leaves out; none: its weights may be immediates all the same."""

    unit: str
    share: float


class SkipSpace(Space):
    """What a search may do by skipping: the cuts on each operator's path, by the units that the kernels can leave out.

    In an untuned design the other weights stand in for what is left out, by least squares; tuning trains them with what is left
    out at zero.
    """

    label, kind, immediates = "skip", Part, True

    def __init__(self, graph: Graph, data: Dataset, board: Board, kernels: str) -> None:
        """Collects statistics from training images. Raises ValueError for data without any."""
        self.graph, self.data, self._layers = graph, data, dict[tuple[str, Part], tuple[Array, Array]]()
        known = {unit: skippable(graph, unit) for unit in records.UNITS_FOR[kernels]}
        names = [op.name for op in graph.ops if any(op.name in ops for ops in known.values())]
        self._statistics = records.statistics_of(graph, data, names)
        self.paths = {op: {unit: self._path(op, unit) for unit in known if op in known[unit]} for op in names}
        self.choices = {
            op: sorted((self._part(op, unit, i) for unit in units for i in range(len(units[unit]))), key=lambda part: part.share)
            for op, units in self.paths.items()
        }
        self.starts = [start for unit in known for start in self._on_prices(unit, board)]

    def _path(self, op: str, unit: str) -> list[Cut]:
        return records.path_of(self.graph, op, self._statistics[op], unit)

    def _part(self, op: str, unit: str, step: int) -> Part:
        return Part(unit, round(records.step_of(self.graph, op, unit) * step, 4))

    def _cut(self, op: str, part: Part) -> Cut:
        return self.paths[op][part.unit][round(part.share / records.step_of(self.graph, op, part.unit))]

    def _on_prices(self, unit: str, board: Board) -> list[dict[str, Part]]:
        """Returns choices of which each makes all cuts below one price, few at first: one threshold for all layers."""
        paths = {op: units[unit] for op, units in self.paths.items() if unit in units}
        worth = skip_search.worths(self.graph, unit, board.name)
        prices = skip_search.prices_of(paths, worth)
        places = (len(prices) - 1) * np.linspace(0, 1, ON_ONE_PRICE + 2)[:-1] ** 2 if prices else ()
        cuts = [skip_search.below(paths, worth, prices[round(float(place))]) for place in places]
        return [{op: self._part(op, unit, paths[op].index(cut)) for op, cut in some.items()} for some in cuts]

    def apply(self, graph: Graph, chosen: Chosen) -> Graph:
        """Returns the graph without what is left out, repaired by what the exact network's layers read."""
        constants = dict(graph.constants)
        for op, part in chosen.items():
            weighted = self.graph.by_name[op]
            assert isinstance(weighted, Weighted)
            if (op, part) not in self._layers:
                made = skip(self.graph, {op: self._cut(op, part)} if part.share else {}, self._statistics)
                self._layers[op, part] = made.constants[weighted.weights], made.constants[weighted.bias]
            constants[weighted.weights], constants[weighted.bias] = self._layers[op, part]
        return replace(graph, constants=constants)

    def prepare(self, net: nn.Module, chosen: Chosen) -> dict[str, torch.Tensor]:
        """Returns for the parameters of a module, by name, 1 where a weight is kept and 0 where it is to stay out.

        Layers that another method has changed are left to it.
        """
        some = {op: self._cut(op, part) for op, part in chosen.items() if part.share}
        masks, own = finetune_skip.masks_of(net, self.graph, some), (nn.Conv2d, nn.Linear)
        return {name: mask for name, mask in masks.items() if type(net.get_submodule(name.rpartition(".")[0])) in own}

    def record(self, chosen: Chosen, counts: Mapping[str, int]) -> dict[str, Any]:
        """Returns the cuts as JSON, as `measure --skip` reads them."""
        shares, first = {op: part.share for op, part in chosen.items()}, next(iter(chosen.values())).unit
        units = {op: part.unit for op, part in chosen.items() if part.unit != first}
        thresholds = {op: self._cut(op, part).threshold for op, part in chosen.items()}
        images, exact, right = (counts[name] for name in ("images", "exact", "right"))
        return asdict(Record(self.graph.name, self.data.name, first, shares, thresholds, images, exact, right, units=units))

    def chosen(self, record: object) -> dict[str, Part]:
        """Returns the cuts that JSON holds. Raises ValueError for what is no record."""
        found = checked(Record, record, "cuts of a design")
        return {op: Part(found.unit_of(op), share) for op, share in found.shares.items()}


def is_tuned(name: str, data: str, skip: str | None, kernels: str) -> bool:
    """Returns whether weights that were tuned without input channels are taken: where no record is asked for, and other kernels
    than the fast ones have no record of finer units that they can leave out."""
    if skip or nets.weights_file(name, data, "skip") is None:
        return False
    return kernels == "fast" or not skip_search.record_path(name, data).is_file()


def record_of(name: str, data: str, skip: str | None) -> Record:
    """Returns the record that is asked for, FILE.json or FRONT.json#N, else the network's committed one."""
    return load(skip) if skip else skip_search.record_for(name, data)
