"""What method trec adds to the flow: the network's TREC layers before export, their clusters in the measurement."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from tinyredux import nets
from tinyredux.graph import Array, Graph, TrecConv
from tinyredux.measurement import Measurement
from tinyredux.train import finetune_trec
from tinyredux.trec import pigeonhole_floor, redundancy, trec_sizes
from tinyredux.trec.layer import convert


def is_tuned(name: str, data: str, table: Path | None) -> bool:
    """Returns whether there are weights that were fine-tuned with TREC layers, and no other layers are asked for."""
    return table is None and nets.weights_file(name, data, "trec") is not None


def with_trec_layers(name: str, net: nn.Module, data: str, table: Path | None) -> nn.Module:
    """Returns the network with TREC layers: those of the table, else those it was fine-tuned with or brings, else none.

    Raises ValueError for a table that does not fit.
    """
    if is_tuned(name, data, table):
        return finetune_trec.load_trec(name, data)
    if table is not None:
        convert(net, finetune_trec.table_for(nets.own_name(name), net, table))
    return net.eval()


def with_clusters(record: Measurement, graph: Graph, clusters: dict[str, Array]) -> Measurement:
    """Returns the record with the TREC layers' clusters (per image, on average), vectors, redundancy and MACs done."""
    by_name = {op.name: op for op in graph.ops if isinstance(op, TrecConv)}
    per_op = []
    for entry in record.per_op:
        op = by_name.get(entry.name)
        if op is not None:
            found = clusters[op.name].mean(axis=0)
            executed = round(executed_macs(graph, op, found))
            kept, rows = round(float(found.sum()), 2), trec_sizes(graph, op).rows
            entry = replace(
                entry, macs_executed=executed, clusters=kept, vectors=rows * len(found),
                redundancy=round(redundancy(kept, rows * len(found)), 4),
                redundancy_floor=round(pigeonhole_floor(op.hash_bits, rows), 4),
            )  # fmt: skip
        per_op.append(entry)
    return replace(record, per_op=per_op, macs_executed=sum(entry.macs_executed for entry in per_op))


def executed_macs(graph: Graph, op: TrecConv, clusters: Array) -> float:
    """Returns the multiply-accumulates of a TREC layer with so many clusters in each block (blocks,)."""
    sizes = trec_sizes(graph, op)
    lengths = np.diff([*range(0, sizes.columns, sizes.length), sizes.columns])
    return sizes.rows * sizes.columns * sizes.bits + float(clusters @ lengths) * (sizes.out_c - sizes.exact_c)
