"""What notebooks show and check: the library's own source, and a student's function against drawn cases."""

from __future__ import annotations

import contextlib
import copy
import html
import inspect
import json
import random
import re
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tinyredux.build import ROOT, BuildError, firmware_folder
from tinyredux.fast.printers import print_longest_loop
from tinyredux.fast.program import Program
from tinyredux.files import expect
from tinyredux.link import LinkError

if TYPE_CHECKING:
    from tinyredux.flow import Compiled

CASES = 200
_LONGEST_FAULT = 2000  # characters: an answer may be as long as memory, a verdict is read
VERDICT_MIME = "application/vnd.tinyredux.verdict+json"


@dataclass(frozen=True)
class Source:
    """Source text of the library, shown with colours where a notebook can."""

    text: str
    language: str

    def __repr__(self) -> str:
        """Returns the text."""
        return self.text

    def _repr_markdown_(self) -> str:
        return f"```{self.language}\n{self.text}\n```"


def show(what: Callable[..., Any] | type | str | Program) -> Source:
    """Returns the library's own source of a Python function or class, of a C function by name, or a Program's longest loop."""
    if isinstance(what, Program):
        return Source(print_longest_loop(what), "asm")
    if isinstance(what, str):
        return Source(c_function(what), "c")
    try:
        return Source(textwrap.dedent(inspect.getsource(what)).rstrip(), "python")
    except Exception as wrong:  # an object may answer as it likes
        advice = "give a Python function or class of a file, a module, or the name of a C function"
        raise ValueError(f"an object of type {type(what).__name__} without Python source; {advice}") from wrong


def c_function(name: str) -> str:
    """Returns a C function of the firmware with the comment above it. Raises ValueError where there is none."""
    comment, body = r"(?:^/\*(?:(?!\*/).)*\*/\n)?", r"(?:\{[^\n]*\}$|\{.*?^\})"
    pattern = re.compile(rf"{comment}^[a-z][\w \*]*\b{re.escape(name)}\([^;{{]*\)\s*{body}", re.M | re.S)
    for folder in ("include", "kernels", "runtime"):
        for path in sorted((firmware_folder() / folder).glob("*.[ch]")):
            found = pattern.search(path.read_text())
            if found and name:
                return found[0]
    raise ValueError(f"the firmware has no C function {name!r}; look in firmware/include and firmware/kernels")


@dataclass(frozen=True)
class Grid:
    """A table with a head, shown as HTML or as text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __repr__(self) -> str:
        """Returns the table as text, in columns."""
        lines = [self.head, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.head))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    def _repr_html_(self) -> str:
        style = "text-align:left;padding:1px 14px 1px 0"
        head = "".join(f"<th style='{style}'>{html.escape(cell)}</th>" for cell in self.head)
        rows = ("".join(f"<td style='{style}'>{html.escape(cell)}</td>" for cell in row) for row in self.rows)
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def recorded(name: str) -> Any:
    """Returns a record of data/records as JSON holds it. Raises ValueError with the records there are."""
    folder = ROOT / "data" / "records"
    names = sorted(path.stem for path in folder.glob("*.json"))
    if name not in names:
        raise ValueError(f"no record {name!r} in {folder.name}; there are {', '.join(names)}")
    return json.loads((folder / f"{name}.json").read_text())


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Prints with which words the statements under it are refused, so that a notebook goes on behind them.

    Raises AssertionError where they are not refused, for then the text around them is wrong.
    """
    try:
        yield
    except (BuildError, LinkError, ValueError) as error:
        print(f"{type(error).__name__}: {error}")
    else:
        raise AssertionError("nothing was refused, and something should have been")


def table(items: Iterable[Any], *fields: str) -> Grid:
    """Returns a table with a row per item: each field is an attribute, or the key of a dictionary (none named: all)."""
    try:
        items = list(items)
        fields = fields or tuple(items[0] if items else ())
        rows = ([item[field] if isinstance(item, dict) else getattr(item, field) for field in fields] for item in items)
        return Grid(tuple(field.replace("_", " ") for field in fields), tuple(tuple(map(_cell, row)) for row in rows))
    except (AttributeError, KeyError, TypeError) as wrong:
        said = f"{type(wrong).__name__}: {wrong}"
        raise ValueError(f"{said}; expected items that have the fields named, or dictionaries with the same keys") from None


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else "" if value is None else str(value)


@dataclass(frozen=True)
class Exercise:
    """A task with its cases. `fault` returns what is wrong with an answer, or None; by default it must equal `expected`.

    `draw` returns the arguments of one case; `edges` are cases tried first. `hints` go from a nudge to nearly all.
    """

    name: str
    task: str
    draw: Callable[[random.Random], tuple[Any, ...]]
    expected: Callable[..., Any]
    hints: tuple[str, ...]
    edges: tuple[tuple[Any, ...], ...] = ()
    judge: Callable[[tuple[Any, ...], Any], str | None] | None = None

    def fault(self, arguments: tuple[Any, ...], found: Any) -> str | None:
        """Returns what is wrong with an answer in words, None where it is right."""
        if self.judge is not None:
            return self.judge(arguments, found)
        expected = self.expected(*copy.deepcopy(arguments))
        return None if _same(found, expected) else f"expected {expected!r}, found {found!r}"


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
    exercise = find(name)
    chance = random.Random(f"{name} {seed}")
    cases = [*exercise.edges, *(exercise.draw(chance) for _ in range(CASES))]
    for done, arguments in enumerate(cases):
        fault = _try(exercise, answer, arguments)
        if fault is not None:
            where = f"{name.rpartition('.')[2]}{_listed(arguments)}" if callable(answer) else name
            tried = f" ({done} cases before it were right)" if done else ""
            more = f'\nFor a hint: hint("{name}")' if exercise.hints else ""
            return Verdict(name, False, f"{name}: not yet{tried}\n{where}: {_shortened(fault)}{more}")
        if not callable(answer):
            return Verdict(name, True, f"{name}: right")
    return Verdict(name, True, f"{name}: right in all {len(cases)} cases")


def _try(exercise: Exercise, answer: Any, arguments: tuple[Any, ...]) -> str | None:
    if not callable(answer):
        return _fault(exercise, arguments, answer)
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
        return exercise.fault(arguments, found)
    except Exception as error:  # an object of the student's answers as it likes, also to the question what it is
        return f"found an object of type {type(found).__name__} that cannot be compared: it raised {type(error).__name__}"


def missing(name: str) -> Callable[..., Any]:
    """Returns what stands for an answer that a notebook does not define: a function that says so when called."""

    def not_there(*_: Any) -> Any:
        raise NameError(f"the notebook defines no {name}")

    return not_there


@dataclass(frozen=True)
class SimulatedBoard:
    """A simulated board behind a pseudo-terminal: `port` is what to open, as for a board on a USB cable."""

    port: str
    unplug: Callable[[], None]

    def __repr__(self) -> str:
        """Returns what it is; the port's name differs from run to run."""
        return "a simulated board on a serial port"


def simulated_board(compiled: Compiled, board: str = "disco_f469ni") -> SimulatedBoard:
    """Returns a simulated board, booted, with a compiled network; it answers until it is unplugged or the kernel ends."""
    from tinyredux.boards import find_board
    from tinyredux.flow import Compiled, build
    from tinyredux.targets.board import ask_board
    from tinyredux.targets.served import serve_simulator

    expect(Compiled, compiled, "the network", "such as compile_net(Settings('lenet'))")
    chip = find_board(board)
    served = serve_simulator(build(compiled, chip).elf, chip)
    thread = threading.Thread(target=served.serve, daemon=True)
    thread.start()
    ask_board("info", str(served.port))  # so that what it says later, of its stack too, does not hang on when it had booted

    def unplug() -> None:
        served.stop()
        thread.join(5.0)

    return SimulatedBoard(str(served.port), unplug)


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
    from tinyredux.exercises import EXERCISES

    expect(str, name, "the exercise", "such as 'lab1.round_shift'")
    if name not in EXERCISES:
        raise ValueError(f"no exercise {name!r}; there are {', '.join(EXERCISES)}")
    return EXERCISES[name]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_FAULT else f"{text[:_LONGEST_FAULT]}... ({len(text)} characters)"


def _listed(arguments: tuple[Any, ...]) -> str:
    return f"({', '.join(map(repr, arguments))})"


def _same(found: Any, expected: Any) -> bool:
    try:
        return bool(found == expected)
    except Exception:  # a comparison that fails, or that has no single answer, is a wrong answer
        return False
