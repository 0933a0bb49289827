"""The process of one submission: it runs the cells, then answers calls. A question and an answer are one line of JSON each.

A submission can change everything here. By that it gives wrong answers and no marks: those are made in the grader's process.
Where this runs there is no tinyredux: its names lead to an `Absent`, so that neither the library's own functions nor the
solutions can be handed in. This file stands alone for that reason.
"""

import ast
import contextlib
import importlib.util
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

MOST_CHARACTERS = 1000
_stopped: dict[str, str] = {}  # cells that did not run to their end, each with its error
_ASKED = "add sub mul truediv floordiv mod pow matmul and or lshift rshift".split()
_ASKED += [f"r{name}" for name in _ASKED] + "call getitem neg abs enter lt le gt ge".split()


def plain(value: Any) -> Any:
    """Returns an answer in Python's own types, tuples as lists. Raises TypeError for others: an object answers as it likes, also
    when it is asked whether it is equal."""
    if type(value).__module__ == "numpy":
        import numpy as np

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
        why = next(
            (f"; its cell stopped with {error}" for cell, error in _stopped.items() if re.search(rf"\b{name}\s*[(=]", cell)), ""
        )
        raise NameError(f"the notebook defines no {name}{why}")

    return not_there


class Absent:
    """Stands for whatever a notebook takes from tinyredux: any use gives itself, and in an answer an error that says why."""

    marking = False
    given: ModuleType

    def use(self, *_: Any, **__: Any) -> "Absent":
        """Returns itself. Raises ImportError while an answer is marked."""
        if Absent.marking:
            raise ImportError("tinyredux is not there when an answer is marked: write it with Python and NumPy alone")
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return vars(Absent.given)[name] if name in vars(Absent.given) else self.use()

    def __iter__(self) -> Any:
        self.use()
        return iter(())

    def __len__(self) -> int:
        return 0

    def __exit__(self, *_: Any) -> None: ...

    def __format__(self, form: str) -> str:
        return ""


for _name in _ASKED:
    setattr(Absent, f"__{_name}__", Absent.use)


class _Library(ModuleType):
    """A module of a tinyredux that is not there."""

    __path__: list[str] = []  # noqa: RUF012 (the base class has it by instance)

    def __getattr__(self, name: str) -> Any:
        return getattr(Absent(), name)


class _Finder:
    """Finds every module of tinyredux, before any that a folder may hold."""

    def find_spec(self, name: str, *_: Any) -> Any:
        return importlib.util.spec_from_loader(name, self) if name.partition(".")[0] == "tinyredux" else None  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> ModuleType:
        return _Library(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


def _hide_library() -> None:
    """Puts Absent in the place of tinyredux; what the labs give is there under any module's name."""
    spec = importlib.util.spec_from_file_location("given", Path(__file__).with_name("given.py"))
    assert spec and spec.loader
    Absent.given = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(Absent.given)
    sys.meta_path.insert(0, _Finder())


def _limit(limits: dict[str, int], user: int) -> None:
    """Takes the limits, for good. No limit of processes holds for root, who becomes another user where it is sealed."""
    import resource

    for name, most in limits.items():
        resource.setrlimit(getattr(resource, name), (most, most))
    if user != os.geteuid():
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)


def _late(*_: Any) -> None:
    raise KeyboardInterrupt


def _answer(shell: Any, question: dict[str, Any]) -> dict[str, Any]:
    """Returns what a cell, a value or a call comes to: done, `value`, `function`, `object` (no plain data) or `raised`."""
    Absent.marking = "cell" not in question
    if "cell" in question:
        done = shell.run_cell(question["cell"], store_history=False)
        if error := done.error_before_exec or done.error_in_exec:
            _stopped[question["cell"]] = f"{type(error).__name__}: {getattr(error, 'msg', error)}"[:MOST_CHARACTERS]
        return {}
    name = question["name"]
    found = shell.user_ns.get(name, missing(name))
    if "arguments" not in question and callable(found):
        return {"function": True}
    value = found(*ast.literal_eval(question["arguments"])) if "arguments" in question else found
    try:
        value = plain(value)
        return {"value": value} if json.dumps(value) else {}
    except Exception:
        return {"object": type(value).__name__}


def _timed(shell: Any, question: dict[str, Any]) -> dict[str, Any]:
    try:
        signal.signal(signal.SIGALRM, _late)
        signal.setitimer(signal.ITIMER_REAL, question["seconds"])
        try:
            return _answer(shell, question)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except BaseException as error:
        text = ""
        with contextlib.suppress(Exception):
            text = str(error)[:MOST_CHARACTERS]
        return {"raised": type(error).__name__, "text": text}


def main() -> None:
    """Answers questions until there are no more. The first one names the limits."""
    questions, answers = os.fdopen(os.dup(0), "rb"), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    from IPython.core.history import HistoryManager
    from IPython.core.interactiveshell import InteractiveShell

    HistoryManager.enabled = False  # type: ignore[assignment]  # it would open a database and a thread
    _hide_library()
    shell = InteractiveShell.instance()
    for line in questions:
        question = json.loads(line)
        if "limits" in question:
            _limit(question["limits"], question["user"])
        answer = {} if "limits" in question else _timed(shell, question)
        left = (json.dumps(answer | {"id": question["id"]}) + "\n").encode()
        while left:
            left = left[os.write(answers, left) :]
    os._exit(0)  # whatever threads a submission has left


if __name__ == "__main__":
    main()
