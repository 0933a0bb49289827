"""Exercises: a student's function is checked against drawn cases, and the first that it gets wrong is shown and drawn."""

import contextlib
import copy
import functools
import html
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from tinyredux.course.child import plain
from tinyredux.files import ROOT, expect
from tinyredux.tables import Words

CASES = 200
_LONGEST_FAULT = 2000  # characters: an answer may be as long as memory, a verdict is read
_ODD = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)  # of answers; not a missing tool
VERDICT_MIME = "application/vnd.tinyredux.verdict+json"
EXERCISE_FOLDER = ROOT / "book" / "exercises"  # a module for a lab or two, and hints.json
Arguments = tuple[Any, ...]
Solution = TypeVar("Solution", bound=Callable[..., Any])
_failures: Counter[str] = Counter()  # of this notebook: the hint that is offered goes up with them


def _nothing(chance: random.Random) -> Arguments:
    """Draws no arguments: the exercise asks for a value."""
    return ()


@dataclass(frozen=True)
class Exercise:
    """A function to write, with its cases, which its lab describes.

    `expected` is a solution in Python alone, whose source `lab solutions` writes; for a value it takes no arguments and returns
    it. `judge` returns what is wrong with an answer to a case, or None; without one an answer must equal that of `expected`,
    or, where it is made of real numbers, be `near` it: so much of a number, at most, is rounding. `draw` returns the arguments of
    one case; `edges` are cases tried first. `award` says how many of the `points` a value earns that is not the best; `picture`
    draws the answers expected and found to a case.
    """

    name: str
    expected: Callable[..., Any]
    draw: Callable[[random.Random], Arguments] = _nothing
    edges: tuple[Arguments, ...] = ()
    judge: Callable[[Arguments, Any], str | None] | None = None
    near: float = 0.0
    points: int = 1
    award: Callable[[Any], int] | None = None
    picture: Callable[[Arguments, Any, Any], Any] | None = None
    score: Callable[[Any], tuple[int, str]] | None = None

    @property
    def hints(self) -> list[str]:
        """What hints.json has for it, from a nudge to nearly all."""
        hints: list[str] = json.loads((EXERCISE_FOLDER / "hints.json").read_text(encoding="utf-8"))[self.name]
        return hints


REGISTERED: list[Exercise] = []


def exercise(name: str, draw: Callable[[random.Random], Arguments] = _nothing, **more: Any) -> Callable[[Solution], Solution]:
    """Makes the function below the solution of an exercise, whose other fields are given; the function stays as it is."""

    def registered(solution: Solution) -> Solution:
        REGISTERED.append(Exercise(name, solution, draw, **more))
        return solution

    return registered


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and if not, the first case that shows it; `points` of `most`, and what a class compares:
    `score`, the less the better, and in words. `draw` returns a picture of the case."""

    exercise: str
    passed: bool
    text: str
    points: int = 0
    most: int = 0
    score: tuple[int, str] | None = None
    draw: Callable[[], Any] | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        """Returns the verdict as text."""
        return self.text

    def _ipython_display_(self) -> None:
        """Shows the text in a box, and below it the picture of the case."""
        from IPython.display import display

        colour = "#009E73" if self.passed else "#D55E00"
        box = f"<pre style='border-left:3px solid {colour};padding-left:8px'>{html.escape(self.text)}</pre>"
        mark = {"exercise": self.exercise, "passed": self.passed}
        display({"text/plain": self.text, "text/html": box, VERDICT_MIME: mark}, raw=True)  # type: ignore[no-untyped-call]
        with contextlib.suppress(Exception):  # an answer may be such that nothing can be drawn of it
            if self.draw and (picture := self.draw()):
                display(picture)  # type: ignore[no-untyped-call]


def check(name: str, answer: Any, seed: int | str = 0) -> Verdict:
    """Returns the verdict on a student's function (or value), tried on the exercise's edge cases and on drawn ones.

    Raises ValueError for an exercise that does not exist.
    """
    verdict, hints = judged(name, answer, seed), find(name).hints
    if verdict.passed or not hints:
        return verdict
    _failures[name] += 1
    step = min(_failures[name], len(hints))
    which = f", {step}" if step > 1 else ""
    return Verdict(**vars(verdict) | {"text": f'{verdict.text}\nFor a hint: hint("{name}"{which})'})


def judged(name: str, answer: Any, seed: int | str = 0) -> Verdict:
    """Returns the verdict as a grader makes it: without hints, on cases drawn from the seed."""
    exercise = find(name)
    chance = random.Random(f"{name} {seed}")
    cases = [*exercise.edges, *(exercise.draw(chance) for _ in range(CASES))]
    for done, arguments in enumerate(cases):
        fault, found = _try(exercise, answer, arguments)
        if fault is not None:
            where = f"{name.rpartition('.')[2]}({', '.join(map(repr, arguments))})" if callable(answer) else name
            tried = f" ({done} cases before it were right)" if done else ""
            if len(fault) > _LONGEST_FAULT:
                fault = f"{fault[:_LONGEST_FAULT]}... ({len(fault)} characters)"
            points = exercise.award(found) if exercise.award and not callable(answer) else 0
            draw = functools.partial(_drawn, exercise, arguments, found) if exercise.picture and found is not None else None
            return failed(name, f"not yet{tried}\n{where}: {fault}", points=points, draw=draw)
        if not callable(answer):
            score = exercise.score(found) if exercise.score else None
            said = f": {score[1]}" if score else ""
            points = exercise.award(found) if exercise.award else exercise.points
            return Verdict(name, True, f"{name}: right{said}", points, exercise.points, score)
    return Verdict(name, True, f"{name}: right in all {len(cases)} cases", exercise.points, exercise.points)


def failed(name: str, why: str, **more: Any) -> Verdict:
    """Returns the verdict on an answer that is not right."""
    return Verdict(name, False, f"{name}: {why}", most=find(name).points, **more)


def _try(exercise: Exercise, answer: Any, arguments: Arguments) -> tuple[str | None, Any]:
    """Returns what is wrong, if anything, and the answer as plain data, in which tuples are lists."""
    if not callable(answer):
        return ("expected a function, found a value", None) if arguments else _fault(exercise, arguments, answer)
    try:
        found = answer(*copy.deepcopy(arguments))
    except NotImplementedError:
        return "not written yet", None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a student's code raises is shown, not passed on
        with contextlib.suppress(Exception):
            return f"raised {type(error).__name__}: {error}", None
        return f"raised {type(error).__name__}", None
    return ("returned None; is a return missing?", None) if found is None else _fault(exercise, arguments, found)


def _fault(exercise: Exercise, arguments: Arguments, found: Any) -> tuple[str | None, Any]:
    said = f"expected numbers, strings, lists or dictionaries of them, found an object of type {type(found).__name__}"
    try:
        answer = plain(found)
    except KeyboardInterrupt:
        raise
    except BaseException:  # an object may do whatever it likes when it is read
        return said, None
    try:
        if exercise.judge is not None:
            return exercise.judge(arguments, answer), answer
        expected = exercise.expected(*copy.deepcopy(arguments))
        if exercise.near:
            return None if _near(expected, answer, exercise.near) else f"expected {expected}, found {found!r}", answer
        if answer != plain(expected):
            return f"expected {expected!r}, found {found!r}", answer
        if other := _other_type(plain(expected), answer):
            return f"only the type differs: {other}", answer
        return None, answer
    except _ODD:  # a list may hold itself
        return said, None


def _near(expected: Any, found: Any, relative: float) -> bool:
    """Returns whether an answer is made of numbers as what is expected, which differ by rounding alone."""
    numbers = np.array(found)  # raises ValueError for lists of unequal length
    return numbers.dtype.kind in "if" and numbers.shape == np.shape(expected) and np.allclose(numbers, expected, rtol=relative)


def _drawn(exercise: Exercise, arguments: Arguments, found: Any) -> Any:
    assert exercise.picture
    return exercise.picture(arguments, exercise.expected(*copy.deepcopy(arguments)), found)


def _other_type(expected: Any, found: Any) -> str:
    """Returns how the first part of an answer differs in type from an equal one, empty where none does."""
    if type(expected) is not type(found):
        return f"expected {type(expected).__name__} {expected!r}, found {type(found).__name__} {found!r}"
    parts = zip(expected, found, strict=True) if isinstance(expected, list | tuple) else ()
    return next((said for one, other in parts if (said := _other_type(one, other))), "")


def hint(name: str, step: int = 1) -> Words:
    """Returns the hint of that step, from 1. Raises ValueError past the last one."""
    hints = find(name).hints
    expect(int, step, "the step", "from 1")
    if not 1 <= step <= len(hints):
        raise ValueError(f"{name} has hints 1 to {len(hints)}, found step {step}")
    more = f'  (more: hint("{name}", {step + 1}))' if step < len(hints) else ""
    return Words(hints[step - 1] + more)


def find(name: str) -> Exercise:
    """Returns an exercise by its name. Raises ValueError with the names there are."""
    from tinyredux.course.exercises import EXERCISES

    expect(str, name, "the exercise", "such as 'lab1.round_shift'")
    if name not in EXERCISES:
        raise ValueError(f"no exercise {name!r}; there are {', '.join(EXERCISES)}")
    return EXERCISES[name]
