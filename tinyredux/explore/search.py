"""Search with several aims that can be killed at any moment: trials in a database, each a function of what was before it.

Trial i is drawn from the seed, i, and the trials before i that are done; so a search that was cut off and begun again goes the
way it would have gone. Several processes may share a database, on several machines where it is a remote one: then trials are
drawn while others are under way, and the order in which those end has its part.

A trial whose process is no more is told by its owner, written at its side, and not by optuna's heartbeat. For the heartbeat, a
trial that ended before its first beat is under way for ever, and any other one until its time of grace is over: a search begun
again within it would draw its next trial without the one that was lost. And optuna's retry hands on the parameters that the
lost trial had: TPE draws the others from what are then other random numbers. In both cases the search would end otherwise.
"""

import contextlib
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import optuna
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from tinyredux.device import MissingTool

STALE_SECONDS = 3600  # after which a trial of another machine counts as lost
WAIT_SECONDS = 0.5
OPEN_SECONDS = 1.5
DRIVERS = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}  # the packages of modules
CONNECT_SECONDS = 20
TIMEOUT_SECONDS = 30  # for a lock of an SQLite file that others write as well
AIMS: dict[str, Literal["maximize", "minimize"]] = {
    "accuracy": "maximize", "cycles": "minimize", "flash_bytes": "minimize", "sram_bytes": "minimize",
}  # fmt: skip

T = TypeVar("T")
Space = Mapping[str, int]  # parameters, whole numbers from 0 up to this
Parameters = Mapping[str, int]


@dataclass(frozen=True)
class Judgement:
    """What a trial came to, in the order of AIMS, and facts to keep with it. `short`: by how much it misses what is asked for."""

    values: Sequence[float]
    facts: Mapping[str, Any]
    short: float = 0.0


class RefusedError(optuna.TrialPruned):
    """Raised by a judge for parameters that break a limit, before it spends time on them."""


Judge = Callable[[Parameters], Judgement]


def open_study(url: str, name: str) -> optuna.Study:
    """Returns the study `name` in the database at `url`, made where it is not there.

    Raises ValueError for a database that cannot be opened and MissingTool where its driver is not installed.
    """
    aims = list(AIMS.values())
    return _tried(url, lambda: optuna.create_study(storage=_storage(url), study_name=name, directions=aims, load_if_exists=True))


def check_storage(url: str) -> None:
    """Raises what `open_study` raises, before any work, where the database cannot be opened."""
    _tried(url, lambda: _storage(url))


def _tried(url: str, opened: Callable[[], T]) -> T:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    since = time.monotonic()
    while True:
        try:
            return opened()
        except ImportError as missing:
            first = missing.__cause__ or missing.__context__ or missing  # optuna says no more than that something is missing
            module = str(getattr(first, "name", None) or missing.name)
            raise MissingTool(
                f"the database of {safe(url)} needs the driver {module}; run: pip install {DRIVERS.get(module, module)}"
            ) from None
        except Exception as wrong:  # whatever a database says, with the password left out
            if time.monotonic() - since < OPEN_SECONDS:  # another process may be making the tables, or the study, at this moment
                time.sleep(WAIT_SECONDS)
                continue
            raise ValueError(
                f"cannot open the storage {safe(url)}: {said_by(wrong, url)}; expected a URL of a database that can be written, "
                "such as sqlite:///explore.db or postgresql://user:password@host/name"
            ) from None


def _storage(url: str) -> optuna.storages.RDBStorage:
    waits = {"timeout": TIMEOUT_SECONDS} if url.startswith("sqlite") else {"connect_timeout": CONNECT_SECONDS}
    arguments = {"connect_args": {} if "pg8000" in safe(url) else waits, "pool_pre_ping": True}
    return optuna.storages.RDBStorage(url, engine_kwargs=arguments)


def safe(url: str) -> str:
    """Returns a database's URL without what could be a password."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"


def said_by(wrong: Exception, url: str) -> str:
    """Returns the first line of what a database said, without the parts of the URL that could be a password."""
    said = (str(wrong).splitlines() or [type(wrong).__name__])[0].replace(url, safe(url))
    secret = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    return said.replace(secret, "...") if secret else said


def run(study: optuna.Study, space: Space, judge: Judge, trials: int, seed: int, given: Sequence[Parameters] = ()) -> None:
    """Makes trials until the study has `trials` of them; the first ones are `given`.

    Trials of processes that are no more are made again. Raises what `judge` raises, but for RefusedError.
    """
    bar = tqdm(desc="trials", total=trials, leave=False, disable=None)
    while True:
        _drop_lost(study)
        counted = _counted(study)
        bar.update(len(counted) - bar.n)
        if len(counted) >= trials:
            if all(trial.state.is_finished() for trial in counted):
                return
            time.sleep(WAIT_SECONDS)  # for the last ones of other processes
            continue
        study.sampler = RandomSampler()  # making a trial draws nothing
        owner = {"host": platform.node(), "process": os.getpid(), "time": time.time()}
        signed = optuna.create_trial(state=TrialState.RUNNING, user_attrs={"owner": owner})
        made = study._storage.create_new_trial(study._study_id, signed)  # one that `ask` makes has no owner at first
        trial = optuna.Trial(study, made)
        before = [other for other in _counted(study) if other.number < trial.number]
        if len(before) >= trials:
            study.tell(trial, state=TrialState.FAIL)
            continue
        study.sampler = _sampler(seed, len(before))
        spans = {name: (0, most) for name, most in space.items()}
        if len(before) < len(given):
            spans = {name: (value, value) for name, value in given[len(before)].items()}
        parameters = {name: trial.suggest_int(name, *span) for name, span in spans.items()}
        _finish(study, trial, parameters, judge, [other for other in before if other.state == TrialState.COMPLETE])


def _finish(study: optuna.Study, trial: optuna.Trial, parameters: Parameters, judge: Judge, done: list[FrozenTrial]) -> None:
    """Judges a trial, or takes what the same parameters came to before, and writes it down."""
    same = next((other for other in done if other.params == parameters), None)
    try:
        found = judge(parameters) if same is None else Judgement(same.values, same.user_attrs["facts"], same.constraints["short"])
    except RefusedError as wrong:
        trial.set_user_attr("refused", str(wrong))
        trial.set_constraint("short", 1.0)  # or the sampler would take it for better than a design of too low an accuracy
        study.tell(trial, state=TrialState.PRUNED)
        return
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        raise
    trial.set_user_attr("facts", dict(found.facts))
    trial.set_constraint("short", found.short)
    study.tell(trial, list(found.values))


def _sampler(seed: int, index: int) -> TPESampler:
    """Returns the sampler of one trial: no state but its seed, so that the database holds all there is to know."""
    drawn = int(np.random.SeedSequence((seed, index)).generate_state(1)[0])
    return TPESampler(seed=drawn, constant_liar=False)


def _counted(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that count, by number: done, refused or under way."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.FAIL]


def _drop_lost(study: optuna.Study) -> None:
    """Marks trials of processes that are no more as failed."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _lost(trial.user_attrs["owner"]):
            with contextlib.suppress(ValueError):  # another process was faster
                study.tell(trial.number, state=TrialState.FAIL)


def _lost(owner: Mapping[str, Any]) -> bool:
    if owner["host"] != platform.node():
        return bool(time.time() - owner["time"] > STALE_SECONDS)
    if owner["process"] == os.getpid():
        return True  # asked before a trial of ours begins, so it is of one before us that had the same number
    try:
        os.kill(owner["process"], 0)
    except OSError as wrong:  # PermissionError: it is there, another user's
        return isinstance(wrong, ProcessLookupError)
    return False


def front(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that miss nothing that was asked for and that no other beats in all aims, fewest cycles first.

    Of those with equal values the first.
    """
    best = {tuple(trial.values): trial for trial in reversed(study.best_trials)}
    return sorted(best.values(), key=lambda trial: (trial.values[1], -trial.values[0], trial.number))
