"""Search with several aims that can be killed at any moment: trials in a database, each a function of the seed and its index.

Trials are drawn in generations: trial i knows the trials of the generations before its own, and nothing of those beside it. So
as many processes as a generation has trials work at once, on several machines where the database is a remote one, and whoever
comes, goes or is killed, the trials are the same ones, and so is the front.

A trial whose process is no more is found by optuna's heartbeat, and its index is free again. What it is to try was drawn before
it began, so whoever takes it up tries the same.
"""

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import TPESampler
from optuna.storages import fail_stale_trials
from optuna.storages._heartbeat import BaseHeartbeat, get_heartbeat_thread
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from tinyredux.device import MissingTool

HEARTBEAT_SECONDS, GRACE_SECONDS = 5, 30  # a trial without a beat for so long is lost with its process
GENERATION = 8  # trials that are drawn without knowing of one another, so that as many processes can work
WAIT_SECONDS = 0.5
OPEN_SECONDS = 1.5
DRIVERS = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}  # the packages of modules
CONNECT_SECONDS = 20
TIMEOUT_SECONDS = 30  # for others that write the same SQLite file, or that make the tables or the study at the same moment
MADE_BESIDE = ("already exists", "UNIQUE constraint", "duplicate key", "Duplicate entry", "database is locked")  # what they say
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
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # the heartbeat
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
            made_beside = any(word in str(wrong) for word in MADE_BESIDE)
            if time.monotonic() - since < (TIMEOUT_SECONDS if made_beside else OPEN_SECONDS):
                time.sleep(WAIT_SECONDS)
                continue
            raise ValueError(
                f"cannot open the storage {safe(url)}: {said_by(wrong, url)}; expected a URL of a database that can be written, "
                "such as sqlite:///explore.db or postgresql://user:password@host/name"
            ) from None


def _storage(url: str) -> optuna.storages.RDBStorage:
    waits = {"timeout": TIMEOUT_SECONDS} if url.startswith("sqlite") else {"connect_timeout": CONNECT_SECONDS}
    arguments = {"connect_args": {} if "pg8000" in safe(url) else waits, "pool_pre_ping": True}
    return optuna.storages.RDBStorage(url, arguments, heartbeat_interval=HEARTBEAT_SECONDS, grace_period=GRACE_SECONDS)


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
    bar = tqdm(desc=study.study_name.partition(".")[0], total=trials, leave=False, disable=None)
    while True:
        fail_stale_trials(study)
        known = by_index(study)
        done = {index: trial for index, trial in known.items() if trial.state.is_finished()}
        bar.update(len(done) - bar.n)
        if len(done) >= trials:
            return
        finished = next((i for i in range(trials) if i not in done), trials)
        index = next((i for i in range(trials) if _is_free(known.get(i)) and _before(i, given) <= finished), None)
        if index is None:
            time.sleep(WAIT_SECONDS)  # for the last ones of other processes
        elif index in known:
            _make(study, known[index], judge)
        else:
            parameters = given[index] if index < len(given) else _drawn(study, space, seed, index, _before(index, given))
            waiting = optuna.create_trial(
                state=TrialState.WAITING, params=dict(parameters), distributions=_spans(space), user_attrs={"index": index}
            )
            study._storage.create_new_trial(study._study_id, waiting)  # of two at once the first one counts


def by_index(study: optuna.Study) -> dict[int, FrozenTrial]:
    """Returns the trials that count, by index: done, refused, waiting or under way."""
    alive = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.FAIL]
    first = {trial.user_attrs["index"]: trial for trial in reversed(alive)}
    return dict(sorted(first.items()))


def _is_free(trial: FrozenTrial | None) -> bool:
    return trial is None or trial.state == TrialState.WAITING


def _before(index: int, given: Sequence[Parameters]) -> int:
    """Returns how many trials, the first ones, the trial of an index is drawn from: given ones are from none."""
    drawn = index - len(given)
    return 0 if drawn < 0 else len(given) + drawn // GENERATION * GENERATION


def _drawn(study: optuna.Study, space: Space, seed: int, index: int, before: int) -> Parameters:
    """Returns what a trial is to try. The sampler sees the `before` first trials, in their order whoever made them."""
    drawn = int(np.random.SeedSequence((seed, index)).generate_state(1)[0])
    seen = optuna.create_study(directions=list(AIMS.values()), sampler=TPESampler(seed=drawn))
    seen.add_trials([trial for i, trial in by_index(study).items() if i < before])
    return dict(seen.ask(_spans(space)).params)


def _spans(space: Space) -> dict[str, BaseDistribution]:
    return {name: IntDistribution(0, most) for name, most in space.items()}


def _make(study: optuna.Study, waiting: FrozenTrial, judge: Judge) -> None:
    """Judges a waiting trial, unless another process was faster, and writes down what it came to."""
    storage, identifier = study._storage, waiting._trial_id
    if isinstance(storage, BaseHeartbeat):
        storage.record_heartbeat(identifier)  # the thread's own first beat can come too late: nobody finds a trial without one
    with contextlib.suppress(UpdateFinishedTrialError), get_heartbeat_thread(identifier, storage):  # finished: by another one
        if not storage.set_trial_state_values(identifier, TrialState.RUNNING):
            return
        trial = optuna.Trial(study, identifier)
        try:
            found = judge(waiting.params)
        except RefusedError as wrong:
            trial.set_user_attr("refused", str(wrong))
            trial.set_constraint("short", 1.0)  # or the sampler would take it for better than a design of too low an accuracy
            storage.set_trial_state_values(identifier, TrialState.PRUNED)
            return
        except BaseException:
            storage.set_trial_state_values(identifier, TrialState.FAIL)
            raise
        trial.set_user_attr("facts", dict(found.facts))
        trial.set_constraint("short", found.short)
        storage.set_trial_state_values(identifier, TrialState.COMPLETE, [float(value) for value in found.values])


def front(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that miss nothing that was asked for and that no other beats in all aims, fewest cycles first.

    Of those with equal values the one of the first index.
    """
    numbers = {trial.number for trial in study.best_trials}
    best = {tuple(trial.values): trial for trial in reversed(by_index(study).values()) if trial.number in numbers}
    return sorted(best.values(), key=lambda trial: (trial.values[1], -trial.values[0], trial.user_attrs["index"]))
