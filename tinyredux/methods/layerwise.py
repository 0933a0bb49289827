"""The schedule of everybody: one operator after the other, each by its fastest kernel that fits."""

from dataclasses import dataclass

from tinyredux.boards import Board
from tinyredux.codegen import KERNELS, Kernels, layers, trec_bytes
from tinyredux.graph import Graph
from tinyredux.kernels import FastSteps
from tinyredux.methods.trec import has_trec


@dataclass(frozen=True)
class Layerwise:
    """Computes a network layer by layer, within `sram` bytes of arena and scratch and `flash` bytes of code and constants.

    Without `sram` the network has what the board has; fast kernels then add at most 13 KiB of scratch to what plain C needs, and
    a network with TREC takes at most 1.1 times what it takes without. Without `flash` fast kernels take at most 1.5 times what
    plain C needs, twice where weights are under 64 KiB; "board" leaves them what the board has. Chapter 13.
    """

    sram: int | None = None
    flash: int | str | None = None

    def __post_init__(self) -> None:
        """Rejects sizes that no memory has."""
        check_sram(self.sram)
        check_flash(self.flash)

    def __call__(self, graph: Graph, board: Board, kernels: Kernels) -> FastSteps:
        """Returns the placed program of an int8 graph, with a kernel for each operator."""
        sram = self.sram
        if sram is None and kernels.name in KERNELS and has_trec(graph):
            sram = trec_bytes(graph, board)
        return layers(graph, kernels, board, sram, self.flash)


def check_sram(sram: int | None) -> None:
    """Raises ValueError for a limit of bytes that no 32-bit machine could have."""
    if sram is not None and not 1 <= sram < 1 << 32:
        raise ValueError(f"sram is {sram} bytes, expected 1 to {(1 << 32) - 1:,}")


def check_flash(flash: int | str | None) -> None:
    """Raises ValueError for a limit of flash that is neither bytes of a 32-bit machine nor "board"."""
    if flash not in (None, "board") and (not isinstance(flash, int) or not 1 <= flash < 1 << 32):
        raise ValueError(f"flash is {flash!r}, expected 1 to {(1 << 32) - 1:,} bytes, or board for all that the board has")
