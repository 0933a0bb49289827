"""Whether a network fits a board, and what would make it fit: bytes and cycles of every schedule, as the linker counts them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tinyredux import flow
from tinyredux.boards import STACK_RESERVE_BYTES, Board
from tinyredux.codegen import board_budget, code_sizes
from tinyredux.device import MissingTool, build_firmware, default_build_folder
from tinyredux.files import expect
from tinyredux.graph import Graph
from tinyredux.methods.layerwise import Layerwise
from tinyredux.methods.partial import WIDER, Partial

ROOM_BYTES = 1 << 26  # of flash and of SRAM: the linker places what is larger than the board, too
CURVE_STEPS = 12  # limits of SRAM between the least plan and layer by layer


@dataclass(frozen=True)
class Way:
    """One way to run a network on a board with the same bits. `options` are those of `tinyredux measure`.

    `arena_bytes` are those of activations with scratch. `sram_bytes` have the runtime and the stack beside them, `flash_bytes`
    are those of code and weights: both as the linker placed them, or predicted where no cross compiler is installed (`linked`
    False). `cycles` are predicted by the cost model. Chapter 7.
    """

    options: str
    arena_bytes: int
    sram_bytes: int
    flash_bytes: int
    cycles: int
    linked: bool

    def missing(self, board: Board) -> dict[str, int]:
        """Returns the bytes of SRAM and of flash that the board has not."""
        needed = {"SRAM": self.arena_bytes - board_budget(board), "flash": self.flash_bytes - board.flash_bytes}
        return {kind: size for kind, size in needed.items() if size > 0}


def roomy(board: Board) -> Board:
    """Returns the board with more memory than any network needs."""
    first = replace(board.sram[0], size_bytes=ROOM_BYTES)
    return replace(board, flash=replace(board.flash, size_bytes=ROOM_BYTES), sram=(first,))


def way(graph: Graph, board: Board, options: str, schedule: flow.Schedule, kernels: str) -> Way:
    """Returns what an int8 graph needs of a board with a schedule and one of the kernel sets "fast" and "reference"."""
    model = flow.compile(graph, board, schedule=schedule, kernels=kernels)
    arena, cost = model.plan.total_bytes, round(model.steps.cycles)
    try:
        built = build_firmware(model.write(default_build_folder() / "models" / model.artifact.model_hash), roomy(board))
    except MissingTool:
        sram = code_sizes.sram_bytes(model.steps, board) + STACK_RESERVE_BYTES
        return Way(options, arena, sram, code_sizes.flash_bytes(model.steps, board, model.copies), cost, linked=False)
    sram = built.bss_bytes + built.data_bytes + STACK_RESERVE_BYTES
    return Way(options, arena, sram, built.flash_bytes, cost, linked=True)


def ways(graph: Graph, board: Board) -> list[Way]:
    """Returns the ways to run an int8 graph on a board, until one fits: fast layer by layer, by reference kernels, in parts,
    in the fewest bytes, in patches that compute shared rows again. All give the same bits."""
    expect(Graph, graph, "what to fit", "such as quantize(export(module, shape), images)")
    limit = max(1, board_budget(board))
    tried: list[tuple[str, flow.Schedule, str]] = [
        ("", Layerwise(), "fast"),
        ("--kernels reference", Layerwise(), "reference"),
        (f"--method partial --kernels fast --sram {limit}", Partial(limit), "fast"),
        (f"--method partial --sram {limit}", Partial(limit), "reference"),
        ("--method partial --sram 1", Partial(1), "reference"),
    ]
    tried += [(f"--method partial --mac-limit {factor}", Partial(None, mac_limit=factor), "reference") for factor in WIDER]
    found: list[Way] = []
    for options, schedule, kernels in tried:
        found.append(way(graph, board, options, schedule, kernels))
        if not found[-1].missing(board):
            break
    return found


def curve(graph: Graph, board: Board) -> list[Way]:
    """Returns the ways between the least plan in parts and layer by layer that no other way beats in SRAM and cycles both, those
    with the least SRAM first."""
    whole = way(graph, board, "", Layerwise(), "fast")
    least = way(graph, board, "--method partial --sram 1", Partial(1), "reference")
    low, high = least.arena_bytes, whole.arena_bytes
    limits = sorted({round(low * (high / low) ** (step / CURVE_STEPS)) for step in range(CURVE_STEPS + 1)}) if low < high else []
    inner = [way(graph, board, f"--method partial --kernels fast --sram {limit}", Partial(limit), "fast") for limit in limits]
    return undominated([whole, least, *inner])


def undominated(ways: Iterable[Way]) -> list[Way]:
    """Returns the ways that no other beats in SRAM and cycles both, those with the least SRAM first."""
    front: list[Way] = []
    for one in sorted(ways, key=lambda one: (one.sram_bytes, one.cycles)):
        if not front or one.cycles < front[-1].cycles:
            front.append(one)
    return front


def sentence(graph: Graph, board: Board, found: list[Way]) -> str:
    """Returns in words whether a network fits a board, and the way that makes it fit; `found` is what `ways` returned."""
    name = graph.name
    first, last = found[0], found[-1]
    there = f"{board.sram_bytes:,} bytes of SRAM and {board.flash_bytes:,} of flash"
    needs = f"{last.sram_bytes:,} of {board.sram_bytes:,} bytes of SRAM, {last.flash_bytes:,} of {board.flash_bytes:,} of flash"
    price = f"{last.cycles / 1e6:.3g} million cycles (predicted)"
    if not first.missing(board):
        return f"{name} fits {board.name}: {needs}, {price}"
    short = " and ".join(f"{size:,} bytes of {kind}" for kind, size in first.missing(board).items())
    if last.missing(board):
        least, flash = min(one.sram_bytes for one in found), min(one.flash_bytes for one in found)
        return (
            f"{name} does not fit {board.name}, which has {there}: {short} are missing, and no method makes it fit "
            f"(the least SRAM is {least:,}, the least flash {flash:,} bytes); prune it, take a smaller network or a larger board"
        )
    fastest = flow.compile(graph, roomy(board)).steps.cycles
    return (
        f"{name} does not fit {board.name} as it is: {short} are missing. With {last.options} it fits: {needs}, {price}, "
        f"{last.cycles / max(1, fastest):.2f} times those of fast kernels with room for them, the same bits"
    )
