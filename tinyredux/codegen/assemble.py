"""The kernel sets: which kernels compute a network, within which memory, and the C that calls them."""

from __future__ import annotations

from dataclasses import dataclass

from tinyredux.boards import STACK_RESERVE_BYTES, Board
from tinyredux.codegen.artifact import Artifact
from tinyredux.codegen.parts import emit_steps
from tinyredux.graph import Graph, without_dead_channels
from tinyredux.kernels import TEMPLATES, FastSteps, OnBoard, Template, choose, naive_forms, unpacked, ways, with_forms
from tinyredux.memory import MemoryPlan, Program, layer_by_layer, place, place_operators, place_reference, plan, plan_of
from tinyredux.trec import exactly

KERNELS = ("fast", "reference")
NAIVE = "naive"  # TREC by tables of 2^H places, everything else by reference kernels: to compare with
RUNTIME_BYTES = 1024  # .data and .bss of the runtime beside the arena, rounded up
SCRATCH_BYTES = 13 * 1024  # that fast kernels may add to a network's memory unless somebody sets the limit
TREC_SHARE = 1.1  # of the exact network's memory that the network with TREC may take unless somebody sets the limit
CODE_BYTES = 32 * 1024  # .text of the runtime and the reference kernels, rounded up


def board_budget(board: Board) -> int:
    """Returns the bytes of a board's SRAM that the runtime and the stack leave to a network. Chapter 7."""
    return board.sram_bytes - RUNTIME_BYTES - STACK_RESERVE_BYTES


def check_kernels(kernels: str) -> str:
    """Returns the name of a kernel set. Raises ValueError for one that does not exist."""
    if kernels not in (*KERNELS, NAIVE):
        raise ValueError(f"kernels is {kernels!r}, expected one of {', '.join(KERNELS)}, or for TREC {NAIVE}")
    return kernels


def templates_of(kernels: str, unpack: bool) -> tuple[Template, ...]:
    """Returns the templates of a kernel set, none for plain reference kernels.

    `unpack`: convolutions may have their weights as immediates, which leaves out units of zeros; beside reference kernels they
    do wherever flash allows.
    """
    extra: tuple[Template, ...] = (unpacked.forms,) if unpack else ()
    return {"fast": (*TEMPLATES, *extra), NAIVE: (naive_forms,)}.get(check_kernels(kernels), extra)


def limits(board: Board, sram_bytes: int | None = None, graph: Graph | None = None) -> tuple[int, int]:
    """Returns the bytes for arena with scratch, and those for weights with kernels.

    The first are `sram_bytes` or what the board leaves; where nobody set a limit, kernels of `graph` also add no more than
    SCRATCH_BYTES to what its reference kernels need.
    """
    sram = min(board_budget(board), sram_bytes or board.sram_bytes)
    if graph is not None and sram_bytes is None:
        needed = place_operators(layer_by_layer(graph)).size_bytes
        sram = min(sram, needed + SCRATCH_BYTES)
    return sram, board.flash_bytes - CODE_BYTES


def trec_bytes(graph: Graph, board: Board) -> int:
    """Returns the bytes for arena with scratch of a network with TREC layers where nobody set a limit.

    They are TREC_SHARE of what the exact network takes, by those of the KERNELS that take less.
    """
    exact = exactly(graph, [op.name for op in graph.ops])
    sram, flash = limits(board, None, exact)
    least = min(plan(exact).total_bytes, choose(exact, OnBoard(board), sram, flash).total_bytes)
    return min(sram, int(TREC_SHARE * least))


def compacted(graph: Graph, unpack: bool) -> Graph:
    """Returns the graph that kernels compute: where something is left out, without the channels that nobody reads."""
    return without_dead_channels(graph) if unpack else graph


@dataclass(frozen=True)
class Kernels:
    """A kernel set of KERNELS (or `naive`), and whether convolutions may have their weights as immediates in code."""

    name: str = "fast"
    immediates: bool = False

    def __post_init__(self) -> None:
        """Rejects a set that does not exist."""
        check_kernels(self.name)


def layers(graph: Graph, kernels: Kernels, board: Board, sram_bytes: int | None = None) -> FastSteps:
    """Returns the placed program of an int8 graph computed layer by layer with a kernel set.

    The fast kernels are made for the board's core. They are chosen so that arena and scratch fit into the `limits`; where
    nothing fits, the smallest are taken.
    """
    graph, templates = compacted(graph, kernels.immediates), templates_of(kernels.name, kernels.immediates)
    if not templates:
        return FastSteps(*place_reference(graph), OnBoard(board))
    sram, flash = limits(board, sram_bytes, graph)
    return choose(graph, OnBoard(board), None if kernels.name == NAIVE else sram, flash, templates)


def kernels_for(program: Program, board: Board, kernels: Kernels) -> FastSteps:
    """Returns a program of steps placed in one arena, with the fastest kernels of a set that its bytes allow."""
    templates = templates_of(kernels.name, kernels.immediates)
    known = {op.name: ways(program.graph, op, OnBoard(board), templates) for op in program.graph.ops}
    return with_forms(program, place(program), OnBoard(board), known, *limits(board))


def assemble(
    graph: Graph, call: str, kernels: str, board: Board, sram_bytes: int | None = None, unpack: bool = False
) -> tuple[MemoryPlan, Artifact]:  # fmt: skip
    """Returns memory plan and C of an int8 graph computed layer by layer, as `layers`; `call` is how to make the C again."""
    fast = layers(graph, Kernels(kernels, unpack), board, sram_bytes)
    return plan_of(fast.program, fast.arena), emit_steps(fast, call)
