"""TREC as a pass: which layers hash and share, and whether it pays there; their clusters in a measurement."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from tinyredux import nets
from tinyredux.boards import Board
from tinyredux.codegen import KERNELS, limits, templates_of, trec_bytes
from tinyredux.datasets import Dataset
from tinyredux.graph import Array, Conv, Graph, TrecConv
from tinyredux.kernels import OnBoard, losing, picks, ways
from tinyredux.measurement import Measurement
from tinyredux.methods.space import Chosen, Space
from tinyredux.train import finetune_trec
from tinyredux.trec import Choice, exactly, layer, module_path, pigeonhole_floor, redundancy, trec_sizes, with_trec
from tinyredux.trec.layer import convert

BITS = range(6, 0, -1)  # that a search tries, and where hash and threshold come from: what an int8 graph has without training
KINDS = (("kernel", "mean"), ("kernel", "zero"), ("random", "mean"))
NO_TREC = "without TREC: no layer is predicted to pay, so all are exact"


@dataclass(frozen=True)
class Trec:
    """Puts TREC into convolutions of an int8 graph. Source: see `tinyredux.trec`.

    `layers` names convolutions with the length of their blocks and the bits of their hash; None takes those that the graph has
    already, and where it has none, those where TREC is predicted to pay. With `only_if_faster`, a layer that is predicted to
    lose cycles by the kernels of the set `kernels` within `sram` bytes becomes exact again (`together`: all or none of them).
    Chapter 9.
    """

    layers: Mapping[str, Choice] | None = None
    only_if_faster: bool = True
    kernels: str = "fast"
    sram: int | None = None
    together: bool = False
    label: ClassVar[str] = "trec"

    def __call__(self, graph: Graph, board: Board) -> Graph:
        """Returns the graph with TREC layers. Raises ValueError for a layer that it does not have or that cannot hash."""
        if self.layers is not None:
            graph = with_trec(graph, self.layers)
        elif not has_trec(graph):
            chosen = picks(graph, OnBoard(board), self.kernels)
            graph = with_trec(graph, {name: Choice(length, bits) for name, (length, bits) in chosen.items()})
        if self.kernels not in KERNELS or not self.only_if_faster:
            return graph
        sram = trec_bytes(graph, board) if self.sram is None else self.sram
        templates = templates_of(self.kernels, unpack=False)
        return exactly(graph, losing(graph, OnBoard(board), templates, partial(limits, board, sram), self.together))

    def notes(self, graph: Graph) -> tuple[str, ...]:
        """Returns what a reader must know of the graph that came out: where no layer has TREC, this."""
        return () if has_trec(graph) else (NO_TREC,)


class TrecSpace(Space):
    """What a search may do by TREC: blocks of a tap, a row or all of a window, 1 to 6 bits, the KINDS of hash, where the layer is
    then predicted to be faster than exact.

    An untuned design hashes with the layer's own filters or with random vectors, and the other weights do not know that they
    meet means. Tuning trains them, and with them the filters that hash.
    """

    label, kind = "trec", Choice

    def __init__(self, graph: Graph, data: Dataset, board: Board, kernels: str) -> None:
        """Prices every choice of every layer."""
        self.graph, core = graph, OnBoard(board)
        templates = templates_of(kernels, unpack=False)
        self.choices: dict[str, list[Choice]] = {}
        for op in graph.ops:
            if not isinstance(op, Conv) or op.groups != 1 or op.dilation != (1, 1):
                continue
            _, _, width, channels = graph.constants[op.weights].shape
            lengths = sorted({channels, width * channels, graph.constants[op.weights][0].size})
            exact, priced = ways(graph, op, core, templates)[0].cycles, list[tuple[float, int]]()
            tried = [
                Choice(length, bits, *kind)
                for bits, length, kind in itertools.product(BITS, lengths, KINDS)
                if bits < graph.tensors[op.output].shape[2]
            ]
            for i, choice in enumerate(tried):
                changed = with_trec(graph, {op.name: choice})
                priced.append((ways(changed, changed.by_name[op.name], core, templates)[0].cycles, i))
            if faster := [tried[i] for cycles, i in sorted(priced, reverse=True) if cycles < exact]:
                self.choices[op.name] = faster
        best = {name: Choice(length, bits) for name, (length, bits) in picks(graph, core, kernels).items()}
        alone = [{name: faster[place]} for name, faster in self.choices.items() for place in (0, len(faster) // 2, -1)]
        self.starts = [{name: choice for name, choice in best.items() if choice in self.choices.get(name, ())}, *alone]

    def apply(self, graph: Graph, chosen: Chosen) -> Graph:
        """Returns the graph with TREC in the chosen layers."""
        return with_trec(graph, chosen)

    def prepare(self, net: nn.Module, chosen: Chosen) -> dict[str, torch.Tensor]:
        """Puts TREC into the chosen layers of a module, for tuning, random vectors always the same; nothing is to stay zero."""
        torch.manual_seed(0)
        settings = {op: layer.Settings(one.sub_length, one.hash_bits, one.hash, one.threshold) for op, one in chosen.items()}
        convert(net, {module_path(self.graph, self.graph.by_name[op]): one for op, one in settings.items()})
        return {}


def has_trec(graph: Graph) -> bool:
    """Returns whether a layer of the graph is a TREC layer."""
    return any(isinstance(op, TrecConv) for op in graph.ops)


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
    per_op = list(record.per_op)
    for i, entry in enumerate(per_op):
        if entry.name in clusters:
            op, found = graph.by_name[entry.name], clusters[entry.name].mean(axis=0)
            assert isinstance(op, TrecConv)
            kept, rows = round(float(found.sum()), 2), trec_sizes(graph, op).rows
            per_op[i] = replace(
                entry, macs_executed=round(executed_macs(graph, op, found)), clusters=kept, vectors=rows * len(found),
                redundancy=round(redundancy(kept, rows * len(found)), 4),
                redundancy_floor=round(pigeonhole_floor(op.hash_bits, rows), 4),
            )  # fmt: skip
    return replace(record, per_op=per_op, macs_executed=sum(entry.macs_executed for entry in per_op))


def executed_macs(graph: Graph, op: TrecConv, clusters: Array) -> float:
    """Returns the multiply-accumulates of a TREC layer with so many clusters in each block (blocks,)."""
    sizes = trec_sizes(graph, op)
    lengths = np.diff([*range(0, sizes.columns, sizes.length), sizes.columns])
    return sizes.rows * sizes.columns * sizes.bits + float(clusters @ lengths) * (sizes.out_c - sizes.exact_c)
