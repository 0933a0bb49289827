"""Prices of steps against the simulator, on random layers that they were not fitted to: the table of tools/fit_cycles.py."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from compiled import NEEDS_COMPILER

from tinyredux.boards import find_board
from tinyredux.kernels import STALLED, operator_cycles
from tinyredux.kernels.cycles import called, table

fit = SimpleNamespace(**runpy.run_path(str(Path(__file__).resolve().parents[2] / "tools" / "fit_cycles.py")))
MEAN = {"cortex-m4": 0.06, "cortex-m33": 0.06, "cortex-m7": 0.12}  # of the errors of all layers, at most
FEW, ONE = 1.5, 0.5  # the mean of a few layers may be larger by this factor, the error of a single one so large


@pytest.mark.slow
@NEEDS_COMPILER
@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.sweep)])
@pytest.mark.parametrize("board", fit.BOARDS)
def test_layers_cost_what_is_predicted(board: str, every: int) -> None:
    place = find_board(board)
    found = np.abs(fit.errors(fit.run_all(fit.checked_programs(place, every), place), place.cpu)["all"])
    assert len(found) > 180 / every and found.mean() <= (FEW if every > 1 else 1) * MEAN[place.cpu]
    assert every == 1 or found.max() <= ONE


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
