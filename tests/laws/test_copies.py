"""Laws of copies in idle RAM: no bit changes, no cycle is lost, no byte above the limit, nothing on boards without such RAM."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from compiled import NEEDS_COMPILER
from random_nets import int8_net

from tinyredux import flow
from tinyredux.boards import Board, board_names, find_board
from tinyredux.codegen import NOTHING, board_budget, code_sizes, copies_for, emit_steps
from tinyredux.device import build_firmware
from tinyredux.device.build import board_header, default_build_folder, linker_script
from tinyredux.device.simulated import SimulatorTarget
from tinyredux.graph import Graph
from tinyredux.int8 import interpret
from tinyredux.methods.layerwise import Layerwise
from tinyredux.methods.partial import Partial
from tinyredux.model import Model
from tinyredux.simulator import read_elf

BOARDS = [find_board(name) for name in board_names(every=True)]
WITH = [board for board in BOARDS if board.code_ram or board.sram[0].copies]
WITHOUT = [board for board in BOARDS if board not in WITH]
L4 = find_board("nucleo_l4r5zi")


def drawn(seed: int) -> tuple[Graph, np.ndarray]:
    """Returns a random network and int8 images for it."""
    graph, images = int8_net(seed)
    return graph, interpret.quantize_input(graph, images[:1])


def plain(model: Model) -> Model:
    """Returns the model with everything left in flash."""
    return replace(model, copies=NOTHING, artifact=emit_steps(model.steps, "test"))


CHOICE = 1.01  # other forms may be chosen for a board without stalls: by predicted cycles, of which this is a part


def bare(board: Board) -> Board:
    """Returns the board as if nothing could be copied to its RAM."""
    return replace(board, sram=tuple(replace(block, copies=()) for block in board.sram))


def run(model: Model, images: np.ndarray) -> tuple[np.ndarray, int, dict[str, int]]:
    """Returns the outputs of a model in the simulator, the cycles of the last image and the stalls in them."""
    with model.open("simulator") as target:
        runs = [target.measure(image) for image in images]
    return np.stack([one.output for one in runs]), runs[-1].cycles, runs[-1].stalls


@NEEDS_COMPILER
@pytest.mark.parametrize("board", WITH, ids=lambda board: board.name)
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.sweep) for seed in range(2, 30))])
def test_copies_change_no_bit_and_cost_no_cycle(board: Board, seed: int) -> None:
    """By the board's own instructions, start-up included; the linker places what was predicted, to the byte."""
    graph, images = drawn(seed)
    for kernels in ("fast", "reference"):
        model = flow.compile(graph, board, kernels=kernels)
        outputs, cycles, stalls = run(model, images)
        left, more, lost = run(plain(model), images)
        _, before, _ = run(flow.compile(graph, bare(board), kernels=kernels), images)
        assert np.array_equal(outputs, left) and np.array_equal(outputs.reshape(-1), model.expected(images).reshape(-1))
        assert cycles <= min(more, CHOICE * before) and sum(stalls.values()) <= sum(lost.values())
        firmware, copies = model.build(), model.copies
        assert firmware.copied_bytes == copies.size_bytes == copies.code_bytes + copies.weights_bytes
        assert code_sizes.sram_bytes(model.steps, board) == firmware.bss_bytes + firmware.data_bytes
        assert bool(copies.functions) == bool(board.code_ram and kernels == "fast")
        assert bool(copies.arrays) == bool(board.sram[0].copies)


@NEEDS_COMPILER
@pytest.mark.parametrize("seed", range(3))
def test_a_limit_of_sram_includes_the_copies(seed: int) -> None:
    """What the limit leaves beside the arena is theirs, and all that are there are in sections of the linker's."""
    graph, images = drawn(seed)
    least = flow.compile(graph, L4, schedule=Layerwise(1), call="test")  # nothing fits: the smallest kernels
    needed, whole = least.steps.arena.size_bytes, flow.compile(graph, L4)
    assert not least.copies.size_bytes and least.artifact.files == plain(least).artifact.files
    assert "tr_code" not in least.artifact.files.get("fast.S", "") and "HOT" not in least.artifact.files["model.c"]
    for limit in (needed, needed + 700, needed + 5000, whole.steps.arena.size_bytes + whole.copies.size_bytes):
        model = flow.compile(graph, L4, schedule=Layerwise(limit))
        taken = model.steps.arena.size_bytes + model.copies.size_bytes
        assert taken <= limit and model.build().copied_bytes == model.copies.size_bytes
        assert np.array_equal(run(model, images)[0].reshape(-1), model.expected(images).reshape(-1))
    assert model.copies == whole.copies
    assert not flow.compile(graph, L4, schedule=Partial()).copies.size_bytes  # which is to take the fewest bytes


@pytest.mark.parametrize("board", WITHOUT, ids=lambda board: board.name)
def test_a_board_without_such_ram_has_the_c_that_it_had(board: Board) -> None:
    graph, _ = drawn(3)
    model = flow.compile(graph, board, call="test")
    assert model.copies == NOTHING and model.artifact == emit_steps(model.steps, "test")
    assert "tr_code" not in linker_script(board) and "COPIES" not in board_header(board)


@NEEDS_COMPILER
def test_another_linker_script_leaves_the_copies_in_flash() -> None:
    """And the program does the same: sections that a script does not name go beside those that are alike."""
    graph, images = drawn(1)
    model = flow.compile(graph, L4)
    assert model.copies.functions and model.copies.arrays
    unaware = bare(L4)
    elf = build_firmware(model.write(default_build_folder() / "models" / model.artifact.model_hash), unaware).elf
    assert {section.address >> 24 for section in read_elf(elf).sections if section.name.startswith(".tr_")} == {0x08}
    with SimulatorTarget(elf, unaware, model.artifact.model_hash, graph.joined_shape) as target:
        output = target.measure(images[0]).output
    assert np.array_equal(output.reshape(-1), model.expected(images).reshape(-1))
    with model.open("host") as host:
        assert np.array_equal(host.measure(images[0]).output.reshape(-1), output.reshape(-1))


@NEEDS_COMPILER
def test_code_never_shares_bytes_with_the_arena() -> None:
    """The L4+ shows SRAM2 twice: a network that reaches it leaves its code in flash, and weights begin behind code."""
    graph, _ = drawn(1)
    model = flow.compile(graph, L4)
    small, ram = model.steps.arena, L4.code_ram
    assert ram is not None and ram.same_as is not None
    room = ram.same_as - L4.sram[0].base
    places = {section.name: section.address for section in read_elf(model.build().elf).sections}
    assert places[".tr_code"] == ram.base and places[".tr_weights"] >= ram.same_as + ram.size_bytes
    large = replace(model.steps, arena=replace(small, size_bytes=room))
    assert not copies_for(large, L4).functions and copies_for(large, L4).arrays
    assert copies_for(replace(large, arena=replace(small, size_bytes=room - 1024)), L4).functions
    full = replace(large, arena=replace(small, size_bytes=board_budget(L4)))
    assert copies_for(full, L4) == NOTHING
