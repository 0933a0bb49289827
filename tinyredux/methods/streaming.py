"""Streaming as a pass: the network computes what each new frame brings, and keeps what later ones read again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tinyredux.boards import Board
from tinyredux.graph import Graph
from tinyredux.streaming import plan


@dataclass(frozen=True)
class Streaming:
    """Runs a network whose input is a window that slides by `frames` rows in each push, exactly: `tr_push` in C. It goes last
    among the passes. Chapter 15."""

    frames: int = 1
    label: ClassVar[str] = "stream"

    def __post_init__(self) -> None:
        """Rejects what is no number of rows."""
        if self.frames < 1:
            raise ValueError(f"frames is {self.frames}, expected at least 1: the rows of the input that are new in each push")

    def __call__(self, graph: Graph, board: Board) -> Graph:
        """Returns the graph of one push."""
        return plan(graph, self.frames).graph

    def notes(self, graph: Graph) -> tuple[str, ...]:
        """Returns what a reader must know of a stream."""
        state = sum(graph.tensors[name].size_bytes for name in graph.states)
        rows = f"{self.frames} row{'s' * (self.frames > 1)} of {graph.window} a push"
        return (f"stream: {rows}, {state:,} bytes kept between pushes, the first output at push {graph.pushes}",)
