"""Exploring a small network: costs as the simulator counts them, one front whoever interrupts, nothing beyond the flash."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import user_nets

pytest.importorskip("optuna")

from tinyredux import datasets
from tinyredux.boards import BOARD_FOLDER, find_board
from tinyredux.cli import app as cli
from tinyredux.datasets import sets
from tinyredux.device import DoesNotFit
from tinyredux.explore import search
from tinyredux.explore import study as explore
from tinyredux.explore.designs import Designs, Images
from tinyredux.explore.study import Exploration
from tinyredux.settings import Settings, compile_net, measure_net
from tinyredux.simulator.program import PAGE
from tinyredux.skip import records


@pytest.fixture(scope="module")
def net() -> Iterator[str]:
    few = datasets.synthetic(counts=(600, 200, 60))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "synthetic", lambda: few)
        yield f"{user_nets.__file__}:two"


@cache
def designs(net: str) -> Designs:
    exact = compile_net(Settings(net, data="synthetic"))
    return Designs(exact.int8, exact.data, find_board("disco_f469ni"), "reference")


def options(net: str, folder: Path, **changes: object) -> Exploration:
    asked = Exploration(net, data="synthetic", trials=6, storage=f"sqlite:///{folder / 'a.db'}", images=200, finalists=1)
    return replace(asked, kernels="reference", loss_points=60.0, **changes)


@pytest.mark.slow
def test_an_exploration_continued_has_the_front_of_one_in_one_go(
    net: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut").mkdir()
    explore.explore(options(net, tmp_path, trials=1, finalists=0))  # the calibration, which both continue from
    shutil.copy(tmp_path / "a.db", tmp_path / "cut")
    front = explore.explore(options(net, tmp_path, finalists=0))["front"]
    explore.explore(options(net, tmp_path / "cut", trials=3, finalists=0))
    whole = explore.explore(options(net, tmp_path / "cut"))
    assert [one | {"measured": None, "test_correct": None} for one in whole["front"]] == front
    assert whole["trials"] == {"done": 6, "refused": 0} and whole["test"]["uses"] == 1
    tried, *_ = [i for i, one in enumerate(whole["front"]) if one["measured"]]
    finalist, errors = whole["front"][tried], whole["cost_model"]["finalists_error_percent"]
    assert finalist["measured"]["bit_exact"] and errors["cycles"] < 5 and errors["flash_bytes"] < 5 and errors["sram_bytes"] == 0
    path = tmp_path / explore.file_name(whole)
    path.write_text(json.dumps(whole))
    again = measure_net(Settings(net, "skip", kernels="reference", images=1, data="synthetic", skip=f"{path}#{tried}"))
    assert (again.cycles, again.flash_bytes["total"]) == (finalist["measured"]["cycles"], finalist["measured"]["flash_bytes"])
    capsys.readouterr()


@pytest.mark.slow
def test_nothing_above_flash_or_sram_is_proposed(net: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A board that holds the exact network only with smaller kernels: what is judged and proposed fits, built and simulated."""
    found = designs(net)
    needed = [found.cost(found.graph_of({op: ("block", step) for op in found.paths})) for step in (0, 10)]
    flash = (needed[0].flash_bytes - 1) // PAGE * PAGE
    assert flash > needed[1].flash_bytes
    board = json.loads((BOARD_FOLDER / "disco_f469ni.json").read_text()) | {"name": "small"}
    board["flash"]["size_bytes"] = flash
    (tmp_path / "small.json").write_text(json.dumps(board))
    sram = needed[0].sram_bytes - 4
    asked = options(net, tmp_path, board=str(tmp_path / "small.json"), trials=4, sram=sram, methods=("skip", "partial"))
    result = explore.explore(asked)
    study = search.open_study(asked.url, result["study"])
    judged = [trial.values for trial in study.trials if trial.values]
    assert judged and all(v[2] <= flash and v[3] <= sram for v in judged)
    sizes = [one["measured"] for one in result["front"] if one["measured"]]
    assert sizes and all(size["flash_bytes"] <= flash for size in sizes)
    assert all(one["predicted"]["sram_bytes"] <= sram for one in result["front"] if one["predicted"])
    with pytest.raises(DoesNotFit, match="FLASH"):
        board["flash"]["size_bytes"] = 2 * PAGE
        (tmp_path / "small.json").write_text(json.dumps(board))
        explore.explore(asked)


def test_layers_are_cut_alone_and_together_alike(net: str) -> None:
    found = designs(net)
    design = {op: ("block", 4) for op in found.paths}
    both, again = found.graph_of(design), records.apply(found.graph, found.data, found.record(design, "two", 1, 1, 1))
    assert all((both.constants[name] == again.constants[name]).all() for name in both.constants)


def test_images_are_given_up_early_only_where_too_much_is_lost(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = designs(net)
    monkeypatch.setattr("tinyredux.explore.designs.FIRST_IMAGES", 100)
    images = Images(found, 200, 0.05)
    assert images.right(found.graph) == (images.exact, 200)
    nothing = replace(found.graph, constants={name: values * 0 for name, values in found.graph.constants.items()})
    assert images.right(nothing)[1] in (100, 200) and images.least == images.exact / 200 - 0.05


def test_finalists_are_the_best_in_two_aims_spread_evenly() -> None:
    points = [(0.9, 100.0), (0.8, 90.0), (0.85, 95.0), (0.7, 99.0), (0.6, 50.0), (0.9, 120.0)]
    assert explore.finalists(points, 10) == [4, 1, 2, 0] and explore.finalists(points, 2) == [4, 0]
    assert explore.finalists(points, 0) == [] and explore.finalists([], 3) == []


def test_the_design_without_loss_is_the_fastest_that_is_right_as_often() -> None:
    front = [
        {"measured": cycles and {"cycles": cycles}, "validation_correct": right, "validation_images": 100, "test_correct": 88}
        for cycles, right in ((30, 89), (None, 95), (50, 90), (60, 91))
    ]
    result = {"validation": {"images": 100, "exact": 90}, "test": {"images": 100, "exact": 90}, "front": front, "baselines": [
        {"kernels": "fast", "measured": {"cycles": 80}}, {"kernels": "reference", "measured": {"cycles": 200}},
    ]}  # fmt: skip
    fewer = {"fast": 37.5, "reference": 75.0}
    assert explore.no_loss(result) == {"design": 2, "cycles": 50, "fewer_percent": fewer, "test_points_lost": 2.0}
    assert explore.no_loss(result | {"front": front[:1]}) is None


def test_wrong_options_say_what_there_is(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    for changes, message in (
        ({"methods": ("skip", "magic")}, "expected some of partial,trec,skip"),
        ({"methods": ("skip", "skip")}, "expected some of partial,trec,skip, each once"),
        ({"trials": 0}, "trials is 0, expected at least 1"), ({"loss_points": -1.0}, "expected 0 to 100"),
        ({"kernels": "slow"}, "kernels is 'slow'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Exploration(net, **changes)  # type: ignore[arg-type]
    assert cli.main(["explore", "lenet", "--data", "random", "--trials", "1"]) == 2
    assert "random has no validation images with labels; use cifar10" in capsys.readouterr().err
