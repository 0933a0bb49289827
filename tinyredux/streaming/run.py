"""Runs a stream in NumPy, push by push: what C must give, and what whole windows of the same rows are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tinyredux.files import require
from tinyredux.graph import Graph, joined
from tinyredux.int8 import interpret

Int8 = npt.NDArray[np.int8]


class Stream:
    """A stream and the states that its pushes leave to each other. `pushed` counts them."""

    def __init__(self, graph: Graph) -> None:
        """Takes a graph that `streamed` returns. Raises ValueError for another."""
        require(graph.window > 0, f"{graph.name} is no stream; make one with streaming.streamed(graph, frames)")
        self.graph, self.pushed = graph, 0
        self.states = {name: np.zeros((1, *graph.tensors[name].shape), np.int8) for name in graph.states}

    def push(self, frame: Int8) -> Int8 | None:
        """Returns the output (H, W, C) for the window that ends with `frame` (frames, W, C) int8; several as
        `interpret.run_joined`. None while the window is not full."""
        values = interpret.run_all(self.graph, frame[None], states=self.states)
        self.states = {name: values[name] for name in self.graph.states}
        self.pushed += 1
        return None if self.pushed < self.graph.pushes else np.asarray(joined(values, self.graph.outputs)[0])


def sliding(graph: Graph, rows: Int8) -> tuple[list[Int8], Int8]:
    """Returns the frames (frames, W, C) that a sequence of rows (T, W, C) is pushed in, and the windows (N, H, W, C) at those
    pushes that give an output: from number `graph.pushes` on."""
    frames, height = graph.input.shape[0], graph.window
    pushed = [rows[at : at + frames] for at in range(0, len(rows) - frames + 1, frames)]
    ends = [frames * (i + 1) for i in range(graph.pushes - 1, len(pushed))]
    return pushed, np.stack([rows[end - height : end] for end in ends])
