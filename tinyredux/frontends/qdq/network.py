"""A quantised network before it is a Graph: nodes in their order and constants, in ONNX's words, whoever wrote them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tinyredux.graph import Array


@dataclass(frozen=True)
class Node:
    """A call: its place for errors, ONNX's name of the operator, names of what it reads (empty: left out) and writes."""

    place: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Returns the node's place, operator and attributes, for errors."""
        shown = ", ".join(
            f"{key} {value}" for key, value in self.attributes.items() if not math.prod(getattr(value, "shape", ())) > 1
        )
        return f"{self.place}, {self.kind}" + (f" ({shown})" if shown else "")


@dataclass(frozen=True)
class Network:
    """Nodes, constants by name, the input's name, sizes and type, the output's name, and what computes nodes of constants."""

    nodes: tuple[Node, ...]
    constants: dict[str, Array]
    input: str
    sizes: tuple[int, ...]
    dtype: str
    output: str
    fold: Callable[[Node, list[Array | None]], list[Array]]
