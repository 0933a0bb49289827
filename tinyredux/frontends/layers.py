"""Layer by layer beside another runtime: how many stored values it computes otherwise, and why.

The runtime gives every map that it stores, so what one layer reads and writes is known. Each layer is then computed here twice:
as part of the whole network, and by itself on what the runtime's layer read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tinyredux.files import require
from tinyredux.graph import Array, Graph, Op
from tinyredux.int8 import interpret

INPUTS = "its inputs differ"
OWN_RULE = "another rule of this operator"
Maps = dict[str, Array]  # of the graph by name, each (N, H, W, C)


@dataclass(frozen=True)
class LayerDifference:
    """What differs in one layer's output over all images: values, how many in the network and by how much at most, in stored
    units; the same of the layer alone, on the inputs that it has there; and why, empty where nothing differs."""

    name: str
    kind: str
    place: str
    values: int
    differ: int
    largest: int
    differ_alone: int
    largest_alone: int
    why: str


def differences(graph: Graph, images: Array, run: Callable[[Array], Maps], runtime: str) -> list[LayerDifference]:
    """Returns for each layer of an int8 graph how its output differs from that of another runtime, whose name is `runtime`.

    `images` (N, H, W, C) are int8, as the network stores them; `run` gives what the runtime stores of them. A layer whose map it
    does not store is counted with the next one that reads it.
    """
    fits = images.dtype == np.int8 and images.shape[1:] == graph.input.shape and len(images)
    require(
        fits, f"images are {images.dtype} {images.shape}, {graph.name} takes int8 (N, {', '.join(map(str, graph.input.shape))})"
    )
    found = dict[str, _Counted]()
    for i in range(0, len(images), interpret.CHUNK):
        theirs, ours = run(images[i : i + interpret.CHUNK]), interpret.run_all(graph, images[i : i + interpret.CHUNK])
        for op in graph.ops:
            own = interpret.run_op(graph, op, inputs := [theirs[name] for name in op.inputs])
            if op.output in theirs:
                found.setdefault(op.name, _Counted()).add(graph, op, ours[op.output], own, inputs, theirs[op.output])
            theirs.setdefault(op.output, own)
    return [found[op.name].difference(graph, op, runtime) for op in graph.ops if op.name in found]


@dataclass
class _Counted:
    """What differs in one layer so far; `by_rounding`: not in a layer that rounds once, on the same inputs."""

    values: int = 0
    network: tuple[int, int] = (0, 0)  # how many, and by how much at most
    alone: tuple[int, int] = (0, 0)
    by_rounding: bool = True

    def add(self, graph: Graph, op: Op, ours: Array, own: Array, inputs: list[Array], result: Array) -> None:
        """Counts a part of the images: `own` is the layer by itself, `result` what the runtime has."""
        self.values += result.size
        self.network, self.alone = _more(self.network, ours, result), _more(self.alone, own, result)
        if not np.array_equal(own, result):
            self.by_rounding &= graph.rounding == "double" and _rounds_once(graph, op, inputs, result)

    def difference(self, graph: Graph, op: Op, runtime: str) -> LayerDifference:
        """Returns what was counted."""
        why = INPUTS if self.network[0] else ""
        if self.alone[0]:
            why = f"{runtime} rounds once here" if self.by_rounding else OWN_RULE
        place = graph.origin.get(op.name, "")
        return LayerDifference(op.name, type(op).__name__, place, self.values, *self.network, *self.alone, why)


def _rounds_once(graph: Graph, op: Op, inputs: list[Array], result: Array) -> bool:
    """Returns whether single rounding gives the result; False where it has no rule for the operator."""
    try:
        once = interpret.run_op(replace(graph, rounding="single"), op, inputs)
    except ValueError:
        return False
    return bool(np.array_equal(once, result))


def _more(counted: tuple[int, int], found: Array, result: Array) -> tuple[int, int]:
    distance = np.abs(found.astype(np.int16) - result)
    return counted[0] + int(np.count_nonzero(distance)), max(counted[1], int(distance.max(initial=0)))
