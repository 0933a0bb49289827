"""What a method offers a search: choices, for layers and for the network, and what each does to a graph and to a module.

A new method is a subclass beside its pass or schedule, and one line in `explore.designs.SPACES`. The search knows none by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import nn

from tinyredux.boards import Board
from tinyredux.datasets import Dataset
from tinyredux.files import checked
from tinyredux.graph import Graph

NETWORK = "network"  # what a choice is of that is no layer's: a schedule, as `flow.compile` takes it

Chosen = Mapping[str, Any]  # layer, or NETWORK -> one of its choices


class Space:
    """The choices of a method for one int8 network on one board, made by (graph, data, board, kernels).

    `choices` holds those of each layer, and of NETWORK, in an order in which neighbours are alike; to choose nothing is always
    one more. They are frozen dataclasses of one `kind`. `starts` are what is worth trying first. `immediates`: convolutions may
    have their weights as immediates.
    """

    label: ClassVar[str]
    kind: ClassVar[Any]
    immediates: ClassVar[bool] = False
    choices: Mapping[str, Sequence[Any]]
    starts: Sequence[Chosen]

    def __init__(self, graph: Graph, data: Dataset, board: Board, kernels: str) -> None:
        """Finds the choices. Statistics are of training images. Raises ValueError for data that lacks what is needed."""

    def apply(self, graph: Graph, chosen: Chosen) -> Graph:
        """Returns the graph with what was chosen, untuned. `graph` may have choices of other methods in other layers."""
        return graph

    def prepare(self, net: nn.Module, chosen: Chosen) -> dict[str, torch.Tensor]:
        """Changes a trained module so that it can be tuned to what was chosen, in place; returns masks of its parameters by
        name, 0 where a weight is to stay zero."""
        return {}

    def record(self, chosen: Chosen, counts: Mapping[str, int]) -> dict[str, Any]:
        """Returns what was chosen as JSON. `counts`: validation images, those right by the exact network and by the design."""
        return {name: asdict(choice) for name, choice in chosen.items()}

    def chosen(self, record: object) -> Chosen:
        """Returns what JSON says was chosen. Raises ValueError that names what is wrong with it."""
        found: Chosen = checked(dict[str, self.kind], record, f"{self.label} of a design")  # type: ignore[name-defined]
        return found
