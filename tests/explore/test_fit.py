"""Whether a network fits: the bytes are the linker's, the sentence names a way that a build accepts, the curve has no loser."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from random_nets import int8_net

from tinyredux import flow
from tinyredux.boards import STACK_RESERVE_BYTES, Board, find_board
from tinyredux.codegen import board_budget
from tinyredux.device import MissingTool
from tinyredux.explore import fit
from tinyredux.methods.layerwise import Layerwise
from tinyredux.methods.partial import Partial

BOARD = find_board("nucleo_l4r5zi")
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing")


def with_memory(sram_bytes: int, flash_bytes: int = BOARD.flash_bytes) -> Board:
    """A board like BOARD whose first SRAM leaves so many bytes to the arena."""
    size = sram_bytes + BOARD.sram_bytes - board_budget(BOARD)
    return replace(BOARD, sram=(replace(BOARD.sram[0], size_bytes=size),), flash=replace(BOARD.flash, size_bytes=flash_bytes))


def schedule_of(options: str) -> tuple[flow.Schedule, str]:
    """The schedule and the kernels that the options of `measure` ask for."""
    words = options.split()
    value = {name: words[i + 1] for i, name in enumerate(words) if name.startswith("--")}
    kernels = value.get("--kernels", "reference" if "--method" in value else "fast")
    if "--method" not in value:
        return Layerwise(), kernels
    return Partial(int(value["--sram"]) if "--sram" in value else None, mac_limit=float(value.get("--mac-limit", 1))), kernels


@NEEDS_COMPILER
@pytest.mark.parametrize("seed", range(4))
def test_the_way_that_fits_is_built_and_has_the_bytes_that_were_told(seed: int) -> None:
    graph = int8_net(seed)[0]
    whole = flow.compile(graph, BOARD).plan.total_bytes
    board = with_memory(int(np.random.default_rng(seed).uniform(0.4, 1.1) * whole))
    found = fit.ways(graph, board)
    assert [bool(way.missing(board)) for way in found] == [True] * (len(found) - 1) + [False], "what fits is tried last"
    told = fit.sentence(graph, board, found)
    schedule, kernels = schedule_of(found[-1].options)
    built = flow.compile(graph, board, schedule=schedule, kernels=kernels).build()
    assert found[-1].flash_bytes == built.flash_bytes
    assert found[-1].sram_bytes == built.bss_bytes + built.data_bytes + STACK_RESERVE_BYTES
    assert (found[-1].options or "fits") in told


@NEEDS_COMPILER
def test_a_board_without_the_flash_is_told_how_much_is_missing() -> None:
    graph = int8_net(1)[0]
    small = with_memory(100_000, 6_000)
    found = fit.ways(graph, small)
    missing = found[0].missing(small)
    assert missing == {"flash": found[0].flash_bytes - 6_000}
    assert f"{missing['flash']:,} bytes of flash are missing, and no method" in fit.sentence(graph, small, found)


def test_without_a_compiler_the_bytes_are_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = int8_net(2)[0]
    linked = fit.ways(graph, BOARD)[0] if shutil.which("arm-none-eabi-gcc") else None

    def nowhere(*_: object) -> None:
        raise MissingTool("no compiler")

    monkeypatch.setattr(fit, "build_firmware", nowhere)
    predicted = fit.ways(graph, BOARD)[0]
    assert not predicted.linked and "predicted" in fit.sentence(graph, BOARD, [predicted])
    if linked:
        assert predicted.flash_bytes == pytest.approx(linked.flash_bytes, rel=0.01)
        assert predicted.sram_bytes == linked.sram_bytes


@NEEDS_COMPILER
def test_more_bytes_on_the_curve_are_fewer_cycles() -> None:
    graph = int8_net(3)[0]
    front = fit.curve(graph, BOARD)
    assert len(front) > 1
    assert all(a.sram_bytes < b.sram_bytes and a.cycles > b.cycles for a, b in pairwise(front))
