"""Prices of steps against the simulator, on random layers that they were not fitted to: the table of tools/fit_cycles.py."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tinyredux.boards import find_board
from tinyredux.kernels import STALLED, operator_cycles
from tinyredux.kernels.cycles import called, table

SPEC = importlib.util.spec_from_file_location("fit_cycles", Path(__file__).resolve().parents[2] / "tools" / "fit_cycles.py")
assert SPEC is not None and SPEC.loader is not None
fit = sys.modules["fit_cycles"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fit)

NEEDS_COMPILER = pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing")
MEAN = {"cortex-m4": 0.06, "cortex-m33": 0.06, "cortex-m7": 0.12}  # of the errors of all layers, at most
FEW, ONE = 1.5, 0.5  # the mean of a few layers may be larger by this factor, the error of a single one so large


@NEEDS_COMPILER
@pytest.mark.parametrize("board", fit.BOARDS)
def test_a_few_layers_cost_what_is_predicted(board: str) -> None:
    found = np.abs(errors(board, 5))
    assert len(found) > 30 and found.mean() <= FEW * MEAN[find_board(board).cpu] and found.max() <= ONE


@NEEDS_COMPILER
@pytest.mark.sweep
@pytest.mark.parametrize("board", fit.BOARDS)
def test_hundreds_of_layers_cost_what_is_predicted(board: str) -> None:
    found = np.abs(errors(board, 1))
    assert len(found) >= 200 and found.mean() <= MEAN[find_board(board).cpu]


def errors(board: str, every: int) -> list[float]:
    place = find_board(board)
    return fit.errors(fit.run_all(fit.checked_programs(place, every), place), place.cpu)["all"]  # type: ignore[no-any-return]


def test_every_core_has_a_price_for_every_kernel() -> None:
    kernels = {core: set(costs) for core, costs in table().items()}
    assert set(kernels) == {*MEAN, STALLED} and len({frozenset(found) for found in kernels.values()}) == 1
    assert all(cost >= 0 for costs in table().values() for found in costs.values() for cost in found)


def test_a_program_costs_what_its_operators_do() -> None:
    fast = fit.layers(fit.random_net(3), fit.Kernels("fast"), find_board("nucleo_f746zg"))
    graph, forms = fast.program.graph, fast.form_of_operator
    assert forms and len(forms) < len(graph.ops)
    in_c = sum(operator_cycles(graph, op, "cortex-m7") for op in graph.ops if op.name not in forms)
    assert fast.cycles == pytest.approx(in_c + sum(called("cortex-m7", form.cost) for form in forms.values()))
