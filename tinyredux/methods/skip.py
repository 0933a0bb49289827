"""Skipping as a pass: generated kernels leave out what a record names, or the zeros that a network was trained to."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from tinyredux import nets
from tinyredux.boards import Board
from tinyredux.datasets import Dataset
from tinyredux.graph import Conv, Graph, TrecConv
from tinyredux.skip.records import Record, apply, load
from tinyredux.trec import exactly


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


def is_tuned(name: str, data: str, skip: str | None, kernels: str) -> bool:
    """Returns whether weights that were tuned without input channels are taken: where no record is asked for, and other kernels
    than the fast ones have no record of finer units that they can leave out."""
    if skip or nets.weights_file(name, data, "skip") is None:
        return False
    from tinyredux.train import skip_search

    return kernels == "fast" or not skip_search.record_path(name, data).is_file()


def record_of(name: str, data: str, skip: str | None) -> Record:
    """Returns the record that is asked for, FILE.json or FRONT.json#N, else the network's committed one."""
    from tinyredux.train import skip_search

    return load(skip) if skip else skip_search.record_for(name, data)
