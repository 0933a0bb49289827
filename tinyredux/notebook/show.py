"""What notebooks show: the library's own source, tables, records, a simulated board."""

import contextlib
import inspect
import json
import re
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tinyredux.device import BuildError, firmware_folder
from tinyredux.device.link import LinkError
from tinyredux.files import ROOT, expect
from tinyredux.kernels import Function, print_longest_loop
from tinyredux.model import Model
from tinyredux.tables import as_html, columns, shown


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


def show(what: Callable[..., Any] | type | str | Function) -> Source:
    """Returns the library's own source of a Python function or class, of a C function by name, or a kernel's longest loop.

    Chapter 0.
    """
    if isinstance(what, Function):
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
    paths = (path for folder in ("include", "kernels", "runtime") for path in sorted((firmware_folder() / folder).glob("*.[ch]")))
    if name and (found := next(filter(None, (pattern.search(path.read_text()) for path in paths)), None)):
        return found[0]
    raise ValueError(f"the firmware has no C function {name!r}; look in firmware/include and firmware/kernels")


@dataclass(frozen=True)
class Grid:
    """A table with a head, shown as HTML or as text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __repr__(self) -> str:
        """Returns the table as text, in columns."""
        return columns([self.head, *self.rows])

    def _repr_html_(self) -> str:
        return as_html(self.rows, self.head)


def recorded(name: str) -> Any:
    """Returns a record of data/records as JSON holds it. Raises ValueError with the records there are. Chapter 6."""
    folder = ROOT / "data" / "records"
    names = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.json"))
    if name not in names:
        raise ValueError(f"no record {name!r} in {folder.name}; there are {', '.join(names)}")
    return json.loads((folder / f"{name}.json").read_text())


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Prints with which words the statements under it are refused, so that a notebook goes on behind them.

    Raises AssertionError where they are not refused, for then the text around them is wrong. Chapter 3.
    """
    try:
        yield
    except (BuildError, LinkError, ValueError) as error:
        print(f"{type(error).__name__}: {error}")
    else:
        raise AssertionError("nothing was refused, and something should have been")


def table(items: Iterable[Any], *fields: str) -> Grid:
    """Returns a table with a row per item: each field is an attribute, or the key of a dictionary (none named: all).

    Chapter 0.
    """
    try:
        items = list(items)
        fields = fields or tuple(items[0] if items else ())
        rows = ([item[field] if isinstance(item, dict) else getattr(item, field) for field in fields] for item in items)
        return Grid(tuple(field.replace("_", " ") for field in fields), tuple(tuple(map(shown, row)) for row in rows))
    except (AttributeError, KeyError, TypeError) as wrong:
        said = f"{type(wrong).__name__}: {wrong}"
        raise ValueError(f"{said}; expected items that have the fields named, or dictionaries with the same keys") from None


@dataclass(frozen=True)
class SimulatedBoard:
    """A simulated board behind a pseudo-terminal: `port` is what to open, as for a board on a USB cable."""

    port: str
    unplug: Callable[[], None]

    def __repr__(self) -> str:
        """Returns what it is; the port's name differs from run to run."""
        return "a simulated board on a serial port"


def simulated_board(model: Model) -> SimulatedBoard:
    """Returns a simulated board with a model, booted; it answers until it is unplugged or the kernel ends. Chapter 5."""
    from tinyredux.device.board import ask_board
    from tinyredux.device.served import serve_simulator

    expect(Model, model, "the network", "such as compile(graph, board)")
    served = serve_simulator(model.build().elf, model.board)
    thread = threading.Thread(target=served.serve, daemon=True)
    thread.start()
    ask_board("info", str(served.port))  # so that what it says later, of its stack too, does not hang on when it had booted

    def unplug() -> None:
        served.stop()
        thread.join(5.0)

    return SimulatedBoard(str(served.port), unplug)
