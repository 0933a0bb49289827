"""Exercises: a student's function is checked against drawn cases."""

from __future__ import annotations

import contextlib
import copy
import html
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyredux.files import expect

CASES = 200
_LONGEST_FAULT = 2000  # characters: an answer may be as long as memory, a verdict is read
VERDICT_MIME = "application/vnd.tinyredux.verdict+json"


@dataclass(frozen=True)
class Exercise:
    """A function to write, with its cases, which its lab describes.

    `judge` returns what is wrong with an answer to a case, or None; without one an answer must equal that of `expected`.
    `draw` returns the arguments of one case; `edges` are cases tried first. `hints` go from a nudge to nearly all.
    """

    name: str
    draw: Callable[[random.Random], tuple[Any, ...]]
    expected: Callable[..., Any]
    hints: tuple[str, ...]
    edges: tuple[tuple[Any, ...], ...] = ()
    judge: Callable[[tuple[Any, ...], Any], str | None] | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and if not, the first case that shows it."""

    exercise: str
    passed: bool
    text: str

    def __repr__(self) -> str:
        """Returns the verdict as text."""
        return self.text

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        colour = "#009E73" if self.passed else "#D55E00"
        box = f"<pre style='border-left:3px solid {colour};padding-left:8px'>{html.escape(self.text)}</pre>"
        return {"text/plain": self.text, "text/html": box, VERDICT_MIME: {"exercise": self.exercise, "passed": self.passed}}


def check(name: str, answer: Any, seed: int = 0) -> Verdict:
    """Returns the verdict on a student's function (or value), tried on the exercise's edge cases and on drawn ones.

    Raises ValueError for an exercise that does not exist.
    """
    from tinyredux.course.exercises import EXERCISES

    if not EXERCISES:
        return Verdict(name, False, f"{name}: the grader checks this after the last cell")
    exercise = find(name)
    chance = random.Random(f"{name} {seed}")
    cases = [*exercise.edges, *(exercise.draw(chance) for _ in range(CASES))]
    for done, arguments in enumerate(cases):
        fault = _try(exercise, answer, arguments)
        if fault is not None:
            where = f"{name.rpartition('.')[2]}({', '.join(map(repr, arguments))})" if callable(answer) else name
            tried = f" ({done} cases before it were right)" if done else ""
            more = f'\nFor a hint: hint("{name}")' if exercise.hints else ""
            if len(fault) > _LONGEST_FAULT:
                fault = f"{fault[:_LONGEST_FAULT]}... ({len(fault)} characters)"
            return Verdict(name, False, f"{name}: not yet{tried}\n{where}: {fault}{more}")
        if not callable(answer):
            return Verdict(name, True, f"{name}: right")
    return Verdict(name, True, f"{name}: right in all {len(cases)} cases")


def _try(exercise: Exercise, answer: Any, arguments: tuple[Any, ...]) -> str | None:
    if not callable(answer):
        return "expected a function, found a value" if arguments else _fault(exercise, arguments, answer)
    try:
        found = answer(*copy.deepcopy(arguments))
    except NotImplementedError:
        return "not written yet"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a student's code raises is shown, not passed on
        with contextlib.suppress(Exception):
            return f"raised {type(error).__name__}: {error}"
        return f"raised {type(error).__name__}"
    return "returned None; is a return missing?" if found is None else _fault(exercise, arguments, found)


def _fault(exercise: Exercise, arguments: tuple[Any, ...], found: Any) -> str | None:
    try:
        answer = plain(found)
        if exercise.judge is not None:
            return exercise.judge(arguments, answer)
        expected = exercise.expected(*copy.deepcopy(arguments))
        return None if answer == plain(expected) else f"expected {expected!r}, found {answer!r}"
    except Exception:  # an object may raise whatever it is asked, and a list may hold itself
        return f"expected numbers, strings, lists or dictionaries of them, found an object of type {type(found).__name__}"


def plain(value: Any) -> Any:
    """Returns an answer in Python's own types, tuples as lists. Raises TypeError for others: an object answers as it likes, also
    when it is asked whether it is equal."""
    if type(value).__module__ == "numpy":
        value = np.asarray(value).tolist()
    if type(value) in (list, tuple):
        return [plain(each) for each in value]
    if type(value) is dict:
        return {plain(key): plain(each) for key, each in value.items()}
    if type(value) in (bool, int, float, str, type(None)):
        return value
    raise TypeError(type(value).__name__)


def missing(name: str) -> Callable[..., Any]:
    """Returns what stands for an answer that a notebook does not define: a function that says so when called."""

    def not_there(*_: Any) -> Any:
        raise NameError(f"the notebook defines no {name}")

    return not_there


def hint(name: str, step: int = 1) -> str:
    """Returns the hint of that step, from 1. Raises ValueError past the last one."""
    hints = find(name).hints
    expect(int, step, "the step", "from 1")
    if not 1 <= step <= len(hints):
        raise ValueError(f"{name} has hints 1 to {len(hints)}, found step {step}")
    more = f'  (more: hint("{name}", {step + 1}))' if step < len(hints) else ""
    return hints[step - 1] + more


def find(name: str) -> Exercise:
    """Returns an exercise by its name. Raises ValueError with the names there are."""
    from tinyredux.course.exercises import EXERCISES

    expect(str, name, "the exercise", "such as 'lab1.round_shift'")
    if name not in EXERCISES:
        raise ValueError(f"no exercise {name!r}; there are {', '.join(EXERCISES)}")
    return EXERCISES[name]
