"""The choice of forms: faster than the reference kernels, within SRAM and flash, and costs that were predicted well."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from unittest import mock

import pytest
from compiled import BOARDS, NEEDS_COMPILER
from random_graphs import random_graph

from tinyredux import memory
from tinyredux.boards import find_board
from tinyredux.codegen import assemble, board_budget, limits
from tinyredux.codegen.assemble import SCRATCH_BYTES
from tinyredux.explore.bench import LAYERS, LayerTime, bench_layer, layer_graph, parse_spec
from tinyredux.flow import compile
from tinyredux.graph import Graph
from tinyredux.kernels import TEMPLATES, OnBoard, candidates, choice, choose, fitted, operator_cycles, placed, ways
from tinyredux.methods.layerwise import Layerwise
from tinyredux.simulator import RULES

CYCLES = Path(__file__).resolve().parents[1] / "golden" / "fast_cycles.json"
GROWTH = 1.02
PREDICTED = {"disco_f469ni": 0.10, "nucleo_f746zg": 0.15, "nucleo_u575zi_q": 0.11}  # error of the prediction, at most

# On an STM32F469 without flash stalls: cycles per MAC, for pools and add per output.
BARS = {
    "conv3x3:32-32@16x16": 0.70, "conv5x5:3-32@32x32": 1.15, "conv5x5:32-32@16x16": 0.80, "conv5x5:32-64@8x8": 0.86,
    "conv1x1:64-64@16x16": 1.25, "depthwise3x3:64@16x16": 2.7, "dense:1024-10": 1.6, "max3x3s2:32@32x32": 14.0,
    "average3x3s2:32@16x16": 14.0, "add:32@16x16": 16.0,
}  # fmt: skip


# On a Cortex-M4 all, on the other cores every second; the others with -m sweep.
TIMED = [
    pytest.param(layer, board, marks=[pytest.mark.sweep] if j and (i + j) % 2 else [])
    for (i, layer), (j, board) in product(enumerate(LAYERS), enumerate(BOARDS.values()))
]


def fast_cycles(layer: str, board: str) -> LayerTime:
    return bench_layer(layer, find_board(board), "fast")


def graph_of(layer: str) -> Graph:
    return layer_graph(parse_spec(layer))


@NEEDS_COMPILER
@pytest.mark.parametrize(("layer", "board"), TIMED)
def test_no_layer_grows(layer: str, board: str) -> None:
    """Modelled cycles stay within 2 % of the committed ones, and the prediction near them."""
    committed = json.loads(CYCLES.read_text())[board][layer]
    time, place, graph = fast_cycles(layer, board), find_board(board), graph_of(layer)
    assert time.core_cycles <= GROWTH * committed, "if that is meant: python tests/kernels/test_choose.py"
    predicted = compile(graph, place, schedule=Layerwise(limits(place, graph=graph)[0], "board")).steps.cycles
    assert abs(predicted / (time.core_cycles + time.memory_cycles) - 1) <= PREDICTED[board]
    assert board != "disco_f469ni" or ((time.per_mac if time.macs else time.per_output) or 0) <= BARS[layer]


def test_forms_come_fastest_first_and_beat_the_reference_kernel() -> None:
    for layer in LAYERS:
        graph = graph_of(layer)
        costs = [form.cost for form in candidates(graph, graph.ops[0], "cortex-m4")]
        assert costs and costs == sorted(costs) and costs[-1] < operator_cycles(graph, graph.ops[0], "cortex-m4")


def test_less_memory_gives_smaller_forms_down_to_the_reference_kernel() -> None:
    graph = graph_of("depthwise3x3:64@16x16")
    roomy = choose(graph, "cortex-m4")
    arena = memory.plan_of(roomy.program, roomy.arena).arena_bytes
    small, none = (choose(graph, "cortex-m4", sram_bytes=arena + more) for more in (1500, 0))
    assert roomy.form_of_operator["layer"].name == "depthwise_planes" and "strips" in small.form_of_operator["layer"].name
    assert small.total_bytes <= arena + 1500 and small.cycles > roomy.cycles
    assert none.total_bytes == arena and not none.forms
    choices = [choose(graph_of("conv3x3:32-32@16x16"), "cortex-m4", flash_bytes=limit) for limit in (1 << 20, 14_000, 9_800)]
    flash = [sum(form.flash_bytes for form in choice.forms.values()) for choice in choices]
    assert flash[0] > 14_000 >= flash[1] and flash[2] <= 9_800


@pytest.mark.parametrize("seed", [0, 2, 23, 58])
def test_no_operator_could_be_faster_within_a_tight_limit(seed: int) -> None:
    """In the bytes of the reference kernels: whatever way is faster, alone beside the others' choice it does not fit."""
    graph = random_graph(seed, 14)
    limit = memory.place_operators(memory.layer_by_layer(graph)).size_bytes
    ways_of = {op.name: ways(graph, op, "cortex-m4", TEMPLATES) for op in graph.ops}
    fast = fitted(graph, "cortex-m4", ways_of, limit, None)
    assert fast.total_bytes <= limit and fast.forms
    memory.verify(fast.program, fast.arena)
    for op, some in ways_of.items():
        for way in some:
            taken = fast.form_of_operator.get(op)
            if way.form is not None and (taken is None or way.form.cost < taken.cost):
                assert placed(graph, "cortex-m4", fast.form_of_operator | {op: way.form}).total_bytes > limit


def test_scratch_is_limited_unless_somebody_sets_the_limit() -> None:
    """Kernels add at most SCRATCH_BYTES to what the reference kernels need; a limit that was given takes its place."""
    graph, board = graph_of("conv5x5:32-32@16x16"), find_board("disco_f469ni")
    needed = memory.place_operators(memory.layer_by_layer(graph)).size_bytes
    for sram, form in ((None, "rows_8"), (board_budget(board), "rows_16"), (needed + 7_000, "rows_4")):
        plan, artifact = assemble(graph, "test_choose", "fast", board, sram)
        found = artifact.manifest["ops"][0]
        assert found["form"] == form and plan.total_bytes <= (sram or needed + SCRATCH_BYTES)
        assert found["scratch_bytes"] == plan.scratch["layer"][1]


def test_forms_that_are_kept_are_those_of_the_board_and_its_rules() -> None:
    """Whoever asks second gets what a first one would: boards of one core are equal as names, and rules may be others."""
    graph, boards = graph_of("conv3x3:64-64@8x8"), ("disco_f469ni", "nucleo_l4r5zi", "nrf52840_dk")
    cores = [*(OnBoard(find_board(name)) for name in boards), "cortex-m4"]
    dearer = {"cortex-m4": replace(RULES["cortex-m4"], load=RULES["cortex-m4"].load + 1)}

    def costs(again: bool) -> list[list[float]]:
        found = []
        for rules, core in product(({}, dearer), cores):
            if not again:
                choice._kept.clear()
            with mock.patch.dict(RULES, rules):
                found.append([form.cost for form in candidates(graph, graph.ops[0], core)])
        return found

    assert costs(again=True) == costs(again=False) and len(set(map(tuple, costs(again=True)))) >= 6


if __name__ == "__main__":  # writes the committed cycles again
    found = {board: {layer: fast_cycles(layer, board).core_cycles for layer in LAYERS} for board in BOARDS.values()}
    CYCLES.write_text(json.dumps(found, indent=1) + "\n")
