"""What a board's flash costs: the walk through a function's lines against a cache that sees each line, and whole layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from compiled import NEEDS_COMPILER

from tinyredux.boards import Board, find_board
from tinyredux.codegen import limits
from tinyredux.explore.bench import bench_layer, layer_graph, parse_spec
from tinyredux.kernels import Function, OnBoard, byte_cycles, choose, code_bytes, code_stalls
from tinyredux.kernels.asm.function import Block, Node
from tinyredux.kernels.asm.stalls import AROUND_BYTES, HEAD_BYTES, LOOP_BYTES

L4R5, F746 = find_board("nucleo_l4r5zi"), find_board("nucleo_f746zg")


def drawn(rng: np.random.Generator) -> Function:
    """Returns a function of loops in loops."""
    p = Function("tr_drawn", ("int32_t outer", "int32_t inner"))
    p.new("x")

    def line() -> None:
        for _ in range(int(rng.integers(1, 130))):
            p.add("x", "x", 1)

    line()
    with p.loop("outer", int(rng.integers(1, 6))):
        line()
        if rng.random() < 0.8:
            with p.loop("inner", int(rng.integers(1, 6))):
                line()
        line()
    return p


def lines(nodes: list[Node], at: int, size: int) -> Iterator[int]:
    """Yields every line that is fetched, loops in full; returns where the nodes end."""
    for node in nodes:
        if isinstance(node, Block):
            for _ in range(int(node.times)):
                end = yield from lines(node.body, at, size)
                yield from range(end // size, (end + LOOP_BYTES - 1) // size + 1)
            at = end + LOOP_BYTES
        else:
            yield at // size
            at += 4
    return at


def missed(function: Function, board: Board) -> int:
    """Returns the misses of the third of three calls, by a cache that holds the lines read last."""
    flash, end, held, count = board.flash_timing, code_bytes(function), list[int](), 0
    for _ in range(3):
        count = 0
        trace = [*range(end // flash.line_bytes, -(-(end + AROUND_BYTES) // flash.line_bytes))]
        start = len(trace)
        trace += [*range(-(-HEAD_BYTES // flash.line_bytes)), *lines(function.body, HEAD_BYTES, flash.line_bytes)]
        for i, line in enumerate(trace):
            count += i >= start and line not in held
            held = [*(other for other in held if other != line), line][-flash.code_lines :]
    return count


@pytest.mark.parametrize("seed", range(30))
def test_a_call_misses_what_a_cache_of_lines_misses(seed: int) -> None:
    board = replace(L4R5, flash_timing=replace(L4R5.flash_timing, prefetch=False))
    function = drawn(np.random.default_rng(seed))
    assert code_stalls(function, OnBoard(board)) == 6 * missed(function, board)


def test_nothing_is_lost_without_a_board_without_waits_or_within_the_cache() -> None:
    function = drawn(np.random.default_rng(9))
    silent = replace(L4R5, flash_timing=replace(L4R5.flash_timing, wait_states=0, miss_cycles=0))
    large = replace(L4R5, flash_timing=replace(L4R5.flash_timing, code_lines=1024))
    assert code_stalls(function, OnBoard(L4R5)) > 0 and OnBoard(L4R5) == "cortex-m4"
    assert [code_stalls(function, core) for core in ("cortex-m4", OnBoard(silent), OnBoard(large))] == [0, 0, 0]
    assert [byte_cycles(OnBoard(L4R5), size) for size in (256, 257)] == [0, 6 / 8]
    assert byte_cycles(OnBoard(silent), 1000) == 0 and byte_cycles(OnBoard(F746), 5000) == 12 / 32


def test_loops_are_as_large_as_a_board_s_cache_allows() -> None:
    graph = layer_graph(parse_spec("conv1x1:64-64@5x25"))
    of_board = {board.name: choose(graph, OnBoard(board)).form_of_operator["layer"] for board in (L4R5, F746)}
    small, large = (max(map(code_bytes, form.functions)) for form in of_board.values())
    assert small + AROUND_BYTES <= 1024 < large


@NEEDS_COMPILER
@pytest.mark.parametrize("layer", ["conv1x1:64-64@5x25", "conv3x3s2:16-32@32x32", "conv1x1:16-32@24x24", "conv5x1:5-9@37x23"])
def test_layers_cost_what_is_predicted_with_stalls(layer: str) -> None:
    board = replace(L4R5, sram=tuple(replace(memory, copies=()) for memory in L4R5.sram))  # or there would be none
    time, graph = bench_layer(layer, board), layer_graph(parse_spec(layer))
    predicted = choose(graph, OnBoard(board), *limits(board, None, graph, "board")).cycles
    assert abs(predicted / (time.core_cycles + time.memory_cycles) - 1) <= 0.07
