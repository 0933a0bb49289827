"""The kernel sets: which kernels compute a network, within which memory, and the C that calls them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from tinyredux.boards import STACK_RESERVE_BYTES, Board
from tinyredux.codegen import code_sizes
from tinyredux.codegen.artifact import Artifact
from tinyredux.codegen.parts import emit_steps
from tinyredux.graph import Graph, without_dead_channels
from tinyredux.kernels import (
    TEMPLATES,
    FastSteps,
    OnBoard,
    StepWays,
    Template,
    choose,
    naive_forms,
    unpacked,
    ways,
    with_forms,
)
from tinyredux.memory import MemoryPlan, Program, layer_by_layer, place, place_operators, place_reference, plan, plan_of
from tinyredux.trec import exactly

KERNELS = ("fast", "reference")
NAIVE = "naive"  # TREC by tables of 2^H places, everything else by reference kernels: to compare with
RUNTIME_BYTES = 1024  # .data and .bss of the runtime beside the arena, rounded up
SCRATCH_BYTES = 13 * 1024  # that fast kernels may add to a network's memory unless somebody sets the limit
TREC_SHARE = 1.1  # of the exact network's memory that the network with TREC may take unless somebody sets the limit
CODE_BYTES = 32 * 1024  # .text of the runtime and the reference kernels, rounded up
FLASH_SHARE, SMALL_SHARE = 1.5, 2.0  # of the flash by reference kernels that fast ones may take unless somebody sets the limit:
SMALL_BYTES = 64 * 1024  # the second where the weights are fewer bytes than this
FLASH_MARGIN = 0.01  # of the predicted bytes of flash: more than whole networks were off


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


def flash_limit(graph: Graph, board: Board, flash: int | str | None = None) -> int:
    """Returns the bytes that code and constants of a network's program may take.

    They are `flash` ("board": all that there is); None: FLASH_SHARE, for few weights SMALL_SHARE, of what it takes by reference
    kernels, as predicted.
    """
    if flash is not None:
        return board.flash_bytes if isinstance(flash, str) else min(flash, board.flash_bytes)
    whole, weights = plain_flash(graph, board)
    return min(board.flash_bytes, int((SMALL_SHARE if weights < SMALL_BYTES else FLASH_SHARE) * whole))


def plain_flash(graph: Graph, board: Board) -> tuple[int, int]:
    """Returns the predicted bytes of flash of a network's program by reference kernels, and those of its arrays."""
    plain = FastSteps(*place_reference(graph), board.cpu)
    return code_sizes.flash_bytes(plain, board), code_sizes.array_bytes(plain)


def sure_flash(fast: FastSteps, board: Board) -> int:
    """Returns the predicted bytes of flash of a program, and what the prediction may be off."""
    return math.ceil(code_sizes.flash_bytes(fast, board) * (1 + FLASH_MARGIN))


def limits(
    board: Board, sram_bytes: int | None = None, graph: Graph | None = None, flash: int | str | None = None
) -> tuple[int, int]:  # fmt: skip
    """Returns the bytes for arena with scratch, and those for weights with kernels.

    The first are `sram_bytes` or what the board leaves; where nobody set a limit, kernels of `graph` also add no more than
    SCRATCH_BYTES to what its reference kernels need. The second are what the board leaves beside CODE_BYTES; of `graph` about
    what `flash_limit` leaves beside the runtime.
    """
    sram = min(board_budget(board), sram_bytes or board.sram_bytes)
    if graph is not None and sram_bytes is None:
        needed = place_operators(layer_by_layer(graph)).size_bytes
        sram = min(sram, needed + SCRATCH_BYTES)
    if graph is None:
        return sram, board.flash_bytes - CODE_BYTES
    whole, weights = plain_flash(graph, board)
    return sram, flash_limit(graph, board, flash) - (whole - weights)


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


def layers(
    graph: Graph, kernels: Kernels, board: Board, sram_bytes: int | None = None, flash: int | str | None = None
) -> FastSteps:  # fmt: skip
    """Returns the placed program of an int8 graph computed layer by layer with a kernel set.

    The fast kernels are made for the board's core. They are chosen so that arena and scratch fit into the `limits`, and the
    program into `flash_limit`; where nothing fits, the smallest are taken. Weights as immediates are code: they, and naive
    kernels, may take what the board has unless somebody sets a limit.
    """
    graph, templates = compacted(graph, kernels.immediates), templates_of(kernels.name, kernels.immediates)
    if not templates:
        return FastSteps(*place_reference(graph), OnBoard(board))
    sram = None if kernels.name == NAIVE else limits(board, sram_bytes, graph, "board")[0]
    if flash is None and (kernels.immediates or kernels.name == NAIVE):
        return choose(graph, OnBoard(board), sram, board.flash_bytes - CODE_BYTES, templates)
    return choose(graph, OnBoard(board), sram, flash_limit(graph, board, flash), templates, partial(sure_flash, board=board))


def kernels_for(program: Program, board: Board, kernels: Kernels) -> FastSteps:
    """Returns a program of steps placed in one arena, with the fastest kernels of a set that its bytes allow."""
    return with_forms(program, place(program), step_ways(program.graph, board, kernels), *limits(board))


def step_ways(graph: Graph, board: Board, kernels: Kernels) -> StepWays:
    """Returns the ways to compute steps of a graph on a board with a kernel set, each found when it is asked for."""
    core, templates = OnBoard(board), templates_of(kernels.name, kernels.immediates)
    return StepWays(graph, core, partial(ways, core=core, templates=templates))


def assemble(
    graph: Graph, call: str, kernels: str, board: Board, sram_bytes: int | None = None, unpack: bool = False,
    flash: int | str | None = None,
) -> tuple[MemoryPlan, Artifact]:  # fmt: skip
    """Returns memory plan and C of an int8 graph computed layer by layer, as `layers`; `call` is how to make the C again."""
    fast = layers(graph, Kernels(kernels, unpack), board, sram_bytes, flash)
    return plan_of(fast.program, fast.arena), emit_steps(fast, call)
