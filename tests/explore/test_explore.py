"""Exploring a small network by every method: costs as the simulator counts them, one front whoever interrupts or is killed,
nothing beyond a limit, and no method alone finds what all together do not."""

from __future__ import annotations

import contextlib
import json
import operator
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import user_nets

pytest.importorskip("optuna")

import optuna

from tinyredux import datasets
from tinyredux.boards import find_board
from tinyredux.cli import app as cli
from tinyredux.datasets import sets
from tinyredux.explore import search, study
from tinyredux.explore.designs import SPACES, Designs, Images, merged
from tinyredux.explore.study import Exploration
from tinyredux.graph import Graph
from tinyredux.settings import Compiled, Settings, compile_net, measure_net
from tinyredux.skip import records


@pytest.fixture(scope="module")
def net() -> Iterator[str]:
    few = datasets.synthetic(counts=(600, 200, 60))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sets, "synthetic", lambda: few)
        yield f"{user_nets.__file__}:wide"


ALL = ("trec", "partial", "skip")


@cache
def exact(net: str) -> Compiled:
    return compile_net(Settings(net, data="synthetic"))


@cache
def designs(net: str, kernels: str = "fast") -> Designs:
    compiled, board = exact(net), find_board("disco_f469ni")
    spaces = {label: space(compiled.int8, compiled.data, board, kernels) for label, space in SPACES.items()}
    return Designs(compiled.int8, board, kernels, spaces)


def options(net: str, folder: Path, **changes: Any) -> Exploration:
    asked = Exploration(net, data="synthetic", trials=6, storage=f"sqlite:///{folder / 'a.db'}", images=200, finalists=1)
    return replace(asked, loss_points=60.0, **changes)


def values(entry: dict[str, Any]) -> tuple[float, ...]:
    """What a design of a front comes to, as it is predicted; less is better."""
    costs = entry["predicted"]
    return (-entry["validation_correct"], costs["cycles"], costs["flash_bytes"], costs["sram_bytes"])


def started(asked: Exploration) -> subprocess.Popen[bytes]:
    """The same exploration in a process of its own, whose trials take their time."""
    program = f"""
import sys, time
sys.path[:0] = {[str(Path(__file__).parent), str(Path(user_nets.__file__).parent)]!r}
from test_explore import *
few = datasets.synthetic(counts=(600, 200, 60))
sets.synthetic = lambda: few
search.HEARTBEAT_SECONDS, search.GRACE_SECONDS = 1, 2
judged = study._Explorer.judged
study._Explorer.judged = lambda *given: (time.sleep(0.2), judged(*given))[1]
study.explore({asked!r})
"""
    return subprocess.Popen([sys.executable, "-c", program])


@pytest.mark.slow
def test_whoever_is_killed_the_front_is_that_of_an_undisturbed_run(net: str, tmp_path: Path) -> None:
    """Two processes on one storage; one is killed, the other finishes; then everything is there already."""
    asked = options(net, tmp_path, methods=ALL, trials=10, finalists=0)
    whole = study.explore(replace(asked, storage=f"sqlite:///{tmp_path / 'whole.db'}"))
    processes = [started(asked), started(asked)]
    database, since = asked.url, time.monotonic()
    while time.monotonic() - since < 120 and sum(len(each.trials) for each in optuna_studies(database)) < 15:
        time.sleep(0.1)
    processes[0].kill()
    assert (processes[0].wait(), processes[1].wait(300)) == (-signal.SIGKILL, 0)
    again = study.explore(asked)
    assert again == whole and any("+" in one["method"] for one in whole["front"])


def optuna_studies(url: str) -> list[Any]:
    """The studies that a database holds by now."""
    with contextlib.suppress(Exception):  # its tables are being made
        return [optuna.load_study(study_name=name, storage=url) for name in optuna.get_all_study_names(url)]
    return []


@pytest.mark.sweep  # a process that is killed, above, is continued by another
def test_an_exploration_continued_has_the_front_of_one_in_one_go(net: str, tmp_path: Path) -> None:
    asked, judged, calls = options(net, tmp_path, methods=ALL, trials=8, finalists=0), study._Explorer.judged, list[int]()

    def stopping(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return judged(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study._Explorer, "judged", stopping)
        stop = 0
        front = study.explore(replace(asked, storage=f"sqlite:///{tmp_path / 'whole.db'}"))["front"]
        stop = len(calls) + len(calls) // 2
        with pytest.raises(KeyboardInterrupt):
            study.explore(asked)
    assert study.explore(asked)["front"] == front and len(front) > 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.sweep)])
def test_no_method_alone_beats_all_together(net: str, tmp_path: Path, seed: int) -> None:
    """Whatever a method finds in so many trials is in the joint front, or something as good in every aim is."""
    asked = options(net, tmp_path, methods=ALL, trials=12, finalists=0, seed=seed)
    joint = study.explore(asked)
    assert {label: len(found) > 1 for label, found in joint["alone"].items()} == dict.fromkeys(SPACES, True)
    for label in ALL:
        alone = study.explore(replace(asked, methods=(label,)))  # the same study, which is finished already
        assert alone["front"] and [values(one) for one in alone["front"]] == [values(one) for one in joint["alone"][label]]
        for one in alone["front"]:
            assert any(all(map(operator.le, values(other), values(one))) for other in joint["front"]), one


@pytest.mark.slow
@pytest.mark.parametrize("tune", [pytest.param(0, marks=pytest.mark.sweep), 1])
def test_a_design_is_remade_by_its_command(net: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], tune: int) -> None:
    """The same model, bit for bit, and the same cycles, tuned or not; of skipping alone `measure` makes it as well."""
    words = f"explore {net} --data synthetic --trials 8 --images 200 --loss 60 --finalists 3 --tune {tune} --seed 1"
    folder = ["--methods", "trec,partial,skip", "--storage", f"sqlite:///{tmp_path / 'a.db'}", "--out", str(tmp_path), "--json"]
    assert cli.main([*words.split(), *folder]) == 0
    result = json.loads(capsys.readouterr().out)
    measured = [(i, one) for i, one in enumerate(result["front"]) if one["measured"]]
    assert any(one["method"] != "exact" for _, one in measured) and result["test"]["uses"] == 1
    errors = result["cost_model"]["finalists_error_percent"]
    assert errors["cycles"] < 10 and errors["flash_bytes"] < 5 and errors["sram_bytes"] == 0  # clusters are foreseen roughly
    for number, one in measured:
        command = shlex.split(one["command"].replace(study.file_name(result), str(tmp_path / study.file_name(result))))
        assert command[:3] == ["python", "-m", "tinyredux"] and one["tuned"] == (
            tune if tune and one["method"] != "exact" else None
        )
        assert cli.main([*command[3:], "--json"]) == 0
        again = json.loads(capsys.readouterr().out)
        found = one["measured"]
        assert (again["model_hash"], again["cycles"], again["bit_exact"]) == (found["model_hash"], found["cycles"], True), number
        if one["method"] == "skip" and not tune:
            path = f"{tmp_path / study.file_name(result)}#{number}"
            cut = measure_net(Settings(net, "skip", images=1, data="synthetic", skip=path, flash="board"))
            assert cut.cycles == found["cycles"]


@pytest.mark.slow
def test_nothing_above_flash_sram_or_cycles_is_judged_or_proposed(net: str, tmp_path: Path) -> None:
    """Limits that the exact network breaks: what is judged and proposed keeps them, built and simulated."""
    found = designs(net)
    whole = found.cost(found.model({}))
    looked, judged_once = list[Graph](), list[str]()
    for limit in ({"sram": whole.sram_bytes - 4}, {"flash": whole.flash_bytes - 200}, {"cycles": int(0.97 * whole.cycles)}):
        asked = options(net, tmp_path, methods=ALL, trials=14, **limit)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Images, "right", noted(Images.right, looked))
            patch.setattr(study._Explorer, "judged", within(study._Explorer.judged, judged_once))
            result = study.explore(asked)
        made = search.open_study(asked.url, result["study"])
        judged = [trial.values for trial in made.trials if trial.values]
        assert judged and result["front"] and all(one["method"] != "exact" for one in result["front"]), limit
        most = result["limits"]
        for cycles, flash, sram in [
            *(v[1:] for v in judged),
            *((m["cycles"], m["flash_bytes"], 0) for one in result["front"] if (m := one["measured"])),
        ]:
            assert flash <= most["flash_bytes"] and sram <= most["sram_bytes"] and cycles <= (most["cycles"] or cycles), limit
    assert len(looked) == len(judged_once), "what breaks a limit is not looked at"
    nothing = study.explore(options(net, tmp_path, methods=ALL, trials=2, flash=2000))
    assert nothing["front"] == [] and nothing["trials"]["done"] == 0 and nothing["no_loss"] is None


def within(judged: Any, kept: list[str]) -> Any:
    def counted(*given: Any) -> Any:
        found = judged(*given)
        kept.extend([] if isinstance(found, search.RefusedError) else ["kept"])
        return found

    return counted


def noted(right: Any, looked: list[Any]) -> Any:
    def counted(self: Images, graph: Graph) -> Any:
        looked.append(graph)
        return right(self, graph)

    return counted


def test_parameters_and_designs_stand_for_one_another(net: str) -> None:
    """Drawn parameters: a layer has one method's choice at most, and JSON brings every choice back."""
    found, rng = designs(net), np.random.default_rng(0)
    for _ in range(50):
        design = found.design_of({name: int(rng.integers(0, most + 1)) for name, most in found.spans.items()})
        assert found.design_of(found.parameters_of(design)) == design
        names = [name for chosen in design.values() for name in chosen]
        assert len(names) == len(set(names))
        counts = {"images": 10, "exact": 5, "right": 4}
        for label, chosen in design.items():
            record = json.loads(json.dumps(found.spaces[label].record(chosen, counts)))
            assert found.spaces[label].chosen(record) == chosen
    assert found.design_of(dict.fromkeys(found.spans, 0)) == {} and set(found.spaces) == set(ALL)


def test_the_second_of_two_designs_has_its_way() -> None:
    first, second = {"trec": {"a": 1, "b": 2}, "skip": {"c": 3}}, {"skip": {"a": 4}, "partial": {"network": 5}}
    assert merged(first, second) == {"trec": {"b": 2}, "skip": {"c": 3, "a": 4}, "partial": {"network": 5}}
    assert merged(first, {}) == first and merged({}, second) == second


@pytest.mark.parametrize("kernels", ["reference", "fast"])
def test_layers_are_cut_alone_and_together_alike(net: str, kernels: str) -> None:
    """A design's cuts are those that its record makes."""
    found, compiled = designs(net, kernels), exact(net)
    space = found.spaces["skip"]
    for part in (0.5, 1):
        chosen = {name: parts[int(part * (len(parts) - 1))] for name, parts in space.choices.items()}
        both, record = space.apply(found.graph, chosen), space.record(chosen, {"images": 1, "exact": 1, "right": 1})
        again = records.apply(replace(found.graph, name=record["net"]), compiled.data, records.Record(**record))
        assert all((both.constants[name] == again.constants[name]).all() for name in both.constants)


def test_images_are_given_up_early_only_where_too_much_is_lost(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, data = designs(net), exact(net).data
    monkeypatch.setattr("tinyredux.explore.designs.LOOKS", (50, 100))
    images = Images(found.graph, data, 200, 0.05)
    assert images.right(found.graph) == (images.exact, 200)
    nothing = replace(found.graph, constants={name: array * 0 for name, array in found.graph.constants.items()})
    assert images.right(nothing)[1] in (50, 100, 200) and images.least == images.exact / 200 - 0.05
    images._exact = [part.count for part in images.parts]  # an exact network that is always right
    assert images.right(nothing)[1] == 50


def test_finalists_are_the_best_in_two_aims_spread_evenly() -> None:
    points = [(0.9, 100.0), (0.8, 90.0), (0.85, 95.0), (0.7, 99.0), (0.6, 50.0), (0.9, 120.0)]
    assert study.finalists(points, 10) == [4, 1, 2, 0] and study.finalists(points, 2) == [4, 0]
    assert study.finalists(points, 0) == [] and study.finalists([], 3) == []


def test_the_design_without_loss_is_the_fastest_that_is_right_as_often() -> None:
    front = [
        {"measured": cycles and {"cycles": cycles}, "validation_correct": right, "validation_images": 100, "test_correct": 88}
        for cycles, right in ((30, 89), (None, 95), (50, 90), (60, 91))
    ]
    result = {"validation": {"images": 100, "exact": 90}, "test": {"images": 100, "exact": 90}, "front": front, "baselines": [
        {"kernels": "fast", "measured": {"cycles": 80}}, {"kernels": "reference", "measured": {"cycles": 200}},
    ]}  # fmt: skip
    fewer = {"fast": 37.5, "reference": 75.0}
    assert study.no_loss(result) == {"design": 2, "cycles": 50, "fewer_percent": fewer, "test_points_lost": 2.0}
    assert study.no_loss(result | {"front": front[:1]}) is None


def test_wrong_options_say_what_there_is(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    for changes, message in (
        ({"methods": ("skip", "magic")}, "expected some of partial,trec,skip"),
        ({"methods": ("skip", "skip")}, "expected some of partial,trec,skip, each once"),
        ({"trials": 0}, "trials is 0, expected at least 1"), ({"loss_points": -1.0}, "expected 0 to 100"),
        ({"kernels": "slow"}, "kernels is 'slow'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Exploration(net, **changes)
    assert cli.main(["explore", "lenet", "--data", "random", "--trials", "1"]) == 2
    assert "random has no validation images with labels; use cifar10" in capsys.readouterr().err
