"""The search: killed and resumed it ends as if never stopped; processes share it; what breaks a limit is never judged."""

from __future__ import annotations

import contextlib
import operator
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna")

import optuna

from tinyredux.device import MissingTool
from tinyredux.explore import search
from tinyredux.explore.search import Judgement, Parameters, RefusedError

SPACE = {"a": 16, "b": 16, "unit": 1}
GIVEN = ({"a": 0, "b": 0, "unit": 0}, {"a": 8, "b": 8, "unit": 1})
TRIALS, LEAST = 14, 0.7
PROGRAM = """
import sys, time
sys.path.insert(0, {tests!r})
from test_search import *
search.HEARTBEAT_SECONDS, search.GRACE_SECONDS = 1, 2
def slow(parameters):
    time.sleep(0.05)
    return judge(parameters)
search.run(search.open_study(sys.argv[1], "made"), SPACE, slow, TRIALS, 3, GIVEN)
"""


def judge(parameters: Parameters) -> Judgement:
    """Fewer cycles cost accuracy, `a` more than `b`; a sum above 24 breaks a limit."""
    a, b = parameters["a"], parameters["b"]
    if a + b > 24:
        raise RefusedError(f"{a + b} is above 24")
    accuracy = 0.9 - 0.001 * a * a - 0.0004 * b * b
    values = (accuracy, 1000 - 20 * a - 25 * b, 500 - a + 9 * parameters["unit"], 64.0)
    return Judgement(values, {"right": a + b}, max(0.0, LEAST - accuracy))


def seen(study: Any) -> list[tuple[object, ...]]:
    """The trials in the order of their indices, which is not that in which processes ended them."""
    return [(trial.params, trial.values, trial.state) for trial in search.by_index(study).values()]


def undisturbed(folder: Path) -> Any:
    whole = search.open_study(f"sqlite:///{folder / 'whole.db'}", "made")
    search.run(whole, SPACE, judge, TRIALS, 3, GIVEN)
    return whole


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a new database."""
    return f"sqlite:///{tmp_path / 'a.db'}"


def started(url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM.format(tests=str(Path(__file__).parent)), url])


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_whoever_is_killed_the_trials_and_the_front_are_those_of_an_undisturbed_run(tmp_path: Path, url: str, count: int) -> None:
    """One process killed and begun again, and one of two killed while the other goes on."""
    whole, cut = undisturbed(tmp_path), search.open_study(url, "made")
    processes = [started(url) for _ in range(count)]
    while len(search.by_index(cut)) < 11:
        time.sleep(0.01)
    processes[0].send_signal(signal.SIGKILL)
    assert processes[0].wait() == -signal.SIGKILL
    if count == 1:
        assert 11 <= len(search.by_index(cut)) < TRIALS
        processes = [processes[0], started(url)]
    assert processes[1].wait(120) == 0
    assert seen(cut) == seen(whole) and len(seen(whole)) == TRIALS
    points = [[(t.params, t.values) for t in search.front(study)] for study in (cut, whole)]
    assert points[0] == points[1] and len(points[0]) > 3


@pytest.mark.slow
def test_processes_that_share_a_study_end_as_one_does(tmp_path: Path, url: str) -> None:
    processes = [started(url) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    study = search.open_study(url, "made")
    assert seen(study) == seen(undisturbed(tmp_path))
    assert sum(trial.state.is_finished() for trial in study.trials) == TRIALS  # nothing was judged twice


def test_whoever_opens_waits_for_one_that_makes_the_tables_and_not_for_other_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "OPEN_SECONDS", 0)
    monkeypatch.setattr(search, "WAIT_SECONDS", 0.001)
    faults = iter([OSError("table alembic_version already exists"), OSError("UNIQUE constraint failed: a.b"), OSError("no disk")])

    def opened() -> None:
        raise next(faults)

    with pytest.raises(ValueError, match="no disk"):
        search._tried("sqlite:///a.db", opened)
    assert next(faults, None) is None


def test_trials_of_processes_that_are_no_more_are_made_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One killed under way, one before it began, and one whose judge failed."""

    def broken(parameters: Parameters) -> Judgement:
        raise OSError("disk full")

    monkeypatch.setattr(search, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(search, "GRACE_SECONDS", 1)
    study = search.open_study(url, "made")
    with pytest.raises(OSError, match="disk full"):
        search.run(study, SPACE, broken, 3, 3, GIVEN)
    assert search.by_index(study) == {}
    storage: Any = study._storage
    for index in (0, 1):
        waiting = optuna.create_trial(
            state=optuna.trial.TrialState.WAITING,
            params=GIVEN[index],
            distributions=search._spans(SPACE),
            user_attrs={"index": index},
        )
        made = storage.create_new_trial(study._study_id, waiting)
        if index == 0:
            storage.record_heartbeat(made)
            storage.set_trial_state_values(made, optuna.trial.TrialState.RUNNING)
    search.run(study, SPACE, judge, 3, 3, GIVEN)
    assert [params for params, *_ in seen(study)][:2] == list(GIVEN) and len(seen(study)) == 3
    assert [trial.state.name for trial in study.trials].count("FAIL") == 2


def test_a_trial_under_way_has_a_heartbeat_before_its_thread_beats(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One killed in its first instant would otherwise be waited for without end."""
    monkeypatch.setattr(search, "get_heartbeat_thread", lambda *_: contextlib.nullcontext())
    study, beats = search.open_study(url, "made"), []

    def judge_of(parameters: Parameters) -> Judgement:
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
            beats.append(database.execute("select count(*) from trial_heartbeats").fetchone()[0])
        return judge(parameters)

    search.run(study, SPACE, judge_of, 2, 3, GIVEN)
    assert beats == [1, 2]


def test_the_front_holds_what_breaks_no_limit_and_nothing_beats(url: str) -> None:
    study = search.open_study(url, "made")
    search.run(study, SPACE, judge, TRIALS, 3, ({"a": 16, "b": 16, "unit": 0}, GIVEN[0], GIVEN[0]))
    assert seen(study)[0][2].name == "PRUNED" and len(seen(study)) == TRIALS  # type: ignore[attr-defined]
    costs = {(-t.values[0], *t.values[1:]): t.params for t in reversed(study.trials) if t.values and t.values[0] >= LEAST}
    best = [costs[one] for one in costs if not any(all(map(operator.le, x, one)) for x in costs if x != one)]
    front = search.front(study)
    assert sorted(map(str, best)) == sorted(str(t.params) for t in front)
    assert [t.values[1] for t in front] == sorted(t.values[1] for t in front)


@pytest.mark.parametrize(("url", "message"), [
    ("explore.db", "Could not parse"), ("sqlite:////proc/nowhere/a.db", "unable to open database file"), ("nosuch://x", "nosuch"),
])  # fmt: skip
def test_a_storage_that_cannot_be_opened_says_what_is_expected(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s){message}.*expected a URL of a database"):
        search.open_study(url, "made")


def test_a_missing_driver_and_no_password_in_messages() -> None:
    with pytest.raises(
        MissingTool, match=r"of postgresql\+pg8000://host/name needs the driver pg8000; run: pip install"
    ) as missing:
        search.open_study("postgresql+pg8000://me:secret@host/name?password=hidden", "made")
    assert "secret" not in str(missing.value) and "hidden" not in str(missing.value)
    said = search.said_by(ValueError("no entry for me:sec%72et at host"), "postgresql://me:sec%72et@host/name")
    assert said == "no entry for me:... at host"


def test_a_storage_is_tried_before_any_work_and_a_lock_is_not_waited_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinyredux.explore import study as explore  # and torch with it, which the other processes do without

    (tmp_path / "text.db").write_text("no database\n")
    with pytest.raises(ValueError, match="file is not a database; expected a URL"):
        explore.explore(explore.Exploration("no_such_network", storage=f"sqlite:///{tmp_path / 'text.db'}"))
    monkeypatch.setattr(search, "TIMEOUT_SECONDS", 1)
    search.check_storage(url := f"sqlite:///{tmp_path / 'a.db'}")
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ValueError, match="database is locked"):
            search.open_study(url, "made")
