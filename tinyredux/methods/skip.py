"""What method skip adds to the flow: weights that were tuned for it, or a record of what is left out."""

from __future__ import annotations

from dataclasses import replace

from tinyredux import nets
from tinyredux.datasets import Dataset
from tinyredux.graph import Conv, Graph, TrecConv
from tinyredux.trec import exactly


def is_tuned(name: str, data: str, skip: str | None, kernels: str) -> bool:
    """Returns whether weights that were tuned without input channels are taken: where no record is asked for, and other kernels
    than the fast ones have no record of finer units that they can leave out."""
    if skip or nets.weights_file(name, data, "skip") is None:
        return False
    from tinyredux.train import skip_search

    return kernels == "fast" or not skip_search.record_path(name, data).is_file()


def with_skips(name: str, graph: Graph, data: Dataset, skip: str | None) -> Graph:
    """Returns the int8 graph without what a record leaves out: the one that is asked for, else the network's committed one.

    A record names operators as the exact network has them; TREC layers lose nothing more. The statistics are those of the
    network with its TREC layers exact, as they were when the record was made.
    """
    from tinyredux.skip import records
    from tinyredux.train import skip_search

    record = records.load(skip) if skip else skip_search.record_for(name, data.name)
    convolutions = [op for op in graph.ops if isinstance(op, (Conv, TrecConv))]
    trec = [op.name for op in convolutions if isinstance(op, TrecConv)]
    if trec:
        names = {f"conv{i + 1}": op.name for i, op in enumerate(convolutions)}
        shares = {names.get(op, op): share for op, share in record.shares.items()}
        units = {names.get(op, op): unit for op, unit in record.units.items()}
        record = replace(record, shares={op: share for op, share in shares.items() if op not in trec}, units=units)
    cut = records.apply(exactly(graph, trec), data, record)
    return replace(graph, constants=graph.constants | cut.constants)
