"""The kernel sets: which kernels compute a network, within which memory, and the C that calls them."""

from __future__ import annotations

from tinyredux import memory
from tinyredux.boards import Board
from tinyredux.build import STACK_RESERVE_BYTES
from tinyredux.emit_c import Artifact, emit
from tinyredux.fast.choose import choose
from tinyredux.graph import Graph
from tinyredux.memory import MemoryPlan

KERNELS = ("fast", "reference")
RUNTIME_BYTES = 1024  # .data and .bss of the runtime beside the arena, rounded up
CODE_BYTES = 32 * 1024  # .text of the runtime and the reference kernels, rounded up


def board_budget(board: Board) -> int:
    """Returns the bytes of a board's SRAM that the runtime and the stack leave to a network."""
    return board.sram_bytes - RUNTIME_BYTES - STACK_RESERVE_BYTES


def check_kernels(kernels: str) -> str:
    """Returns the name of a kernel set. Raises ValueError for one that does not exist."""
    if kernels not in KERNELS:
        raise ValueError(f"kernels is {kernels!r}, expected one of {', '.join(KERNELS)}")
    return kernels


def assemble(
    graph: Graph, call: str, kernels: str, board: Board, sram_bytes: int | None = None
) -> tuple[MemoryPlan, Artifact]:  # fmt: skip
    """Returns memory plan and C of an int8 graph computed layer by layer with a kernel set.

    The fast kernels are made for the board's core. They are chosen so that arena and scratch fit into `sram_bytes`, or into what
    the board leaves; where nothing fits, the smallest are taken. `call` is how to make the C again.
    """
    if check_kernels(kernels) == "reference":
        plan = memory.plan(graph)
        return plan, emit(graph, plan, call)
    choice = choose(graph, board.cpu, min(board_budget(board), sram_bytes or board.sram_bytes), board.flash_bytes - CODE_BYTES)
    return choice.plan, emit(graph, choice.plan, call, choice.forms)
