"""`flash` is a limit: no program is larger, as the linker counts it, and no larger limit gives a slower one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import BOARDS, NEEDS_COMPILER
from random_graphs import PLAIN, random_graph

import tinyredux as tr
from tinyredux.boards import Board, find_board
from tinyredux.codegen import flash_limit, plain_flash, sure_flash
from tinyredux.codegen.assemble import FLASH_MARGIN
from tinyredux.device import DoesNotFit
from tinyredux.explore.bench import layer_graph, parse_spec
from tinyredux.graph import Graph
from tinyredux.methods.layerwise import Layerwise
from tinyredux.model import Model

LAYERS = ("conv3x3:16-16@16x16", "conv3x3:64-64@8x8")  # whose fastest form has several times the bytes of its weights
SHARES = (0.9, 1.0, 1.1, 1.3, 1.6, 2.5, 9.0)  # of the flash by reference kernels


def compiled(graph: Graph, board: Board, flash: int | str | None) -> Model:
    return tr.compile(graph, board, schedule=Layerwise(None, flash))


def graphs() -> list[Graph]:
    return [*(random_graph(seed, 12, PLAIN) for seed in (3, 8, 21)), *(layer_graph(parse_spec(layer)) for layer in LAYERS)]


@pytest.mark.slow
@pytest.mark.parametrize("board", BOARDS.values())
def test_more_flash_never_gives_a_slower_plan(board: str) -> None:
    chip, moved = find_board(board), 0
    for graph in graphs():
        plain = plain_flash(graph, chip)[0]
        plans = [compiled(graph, chip, int(share * plain)).steps for share in SHARES]
        cycles = [plan.cycles for plan in plans]
        assert cycles == sorted(cycles, reverse=True)
        least = min(sure_flash(plan, chip) for plan in plans)
        for share, plan in zip(SHARES, plans, strict=True):
            assert sure_flash(plan, chip) <= max(int(share * plain), least)
        moved += len(set(cycles)) > 1
    assert moved >= 3


@pytest.mark.slow
@NEEDS_COMPILER
@pytest.mark.parametrize("board", BOARDS.values())
def test_the_linker_counts_no_more_than_was_allowed(board: str, tmp_path: Path) -> None:
    """Of every second graph; and the bytes are right: what flash is left decides which kernel runs, never what it computes."""
    chip = find_board(board)
    for graph in graphs()[::2]:
        plain, _ = plain_flash(graph, chip)
        image = np.random.default_rng(2).normal(size=(1, *np.roll(graph.input.shape, 1))).astype(np.float32)
        for share in (1.05, 1.4):
            model = compiled(graph, chip, int(share * plain))
            if sure_flash(model.steps, chip) <= share * plain:
                assert model.build(tmp_path).flash_bytes <= share * plain
                assert tr.measure(model, image).bit_exact
        default = compiled(graph, chip, None)
        assert default.build(tmp_path).flash_bytes <= flash_limit(graph, chip) <= max(2 * plain, 1.5 * plain * (1 + FLASH_MARGIN))


def test_a_limit_that_cannot_be_met_is_refused_with_the_least() -> None:
    graph, board = layer_graph(parse_spec(LAYERS[1])), find_board("disco_f469ni")
    with pytest.raises(DoesNotFit, match=r"\(the least\).*needs \d+ bytes, --flash 20000 has 20000"):
        compiled(graph, board, 20_000).check_fit()
    compiled(graph, board, 70_000).check_fit()
    large, small = (compiled(graph, board, flash).artifact for flash in ("board", 70_000))
    assert len(large.blob) > 3 * len(small.blob)
    for wrong in (0, -1, 1 << 32, "all", 2.5):
        with pytest.raises((ValueError, TypeError), match="flash"):
            Layerwise(None, wrong)  # type: ignore[arg-type]
