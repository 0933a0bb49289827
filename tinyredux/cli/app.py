"""`python -m tinyredux VERB`: one function per verb, each a thin face of a public Python function.

Exit codes: 0 done; 1 done, and the answer is no; 2 wrong usage or input; 3 something needed is missing.

The words are read by argparse. In typer each verb lists its options in its signature: those that measure and compile share stand
there twice, and --json and --debug in every verb; its errors are boxes of 80 characters without the value that was wrong.
"""

import argparse
import contextlib
import difflib
import json
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tinyredux.cli.verbs import VERBS
from tinyredux.cli.verbs.base import Answer
from tinyredux.files import how_to_install

EXTRAS = {  # and the packages that each of them brings; all others come with lab
    "torch": ("torch", "safetensors"), "tflite": ("tflite", "ai_edge_litert", "flatbuffers"), "onnx": ("onnx", "onnxruntime"),
    "search": ("optuna", "sqlalchemy"),
}  # fmt: skip
POSIX = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")
LIBRARY = Path(__file__).parent.parent


def main(arguments: Sequence[str] | None = None, cores: int | None = None) -> int:
    """Runs one verb and returns the exit code; a user's mistake ends in one sentence, never in a traceback.

    Training may use so many `cores`; None leaves their number to torch.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal may know fewer letters
    parser = _parser()
    options = argparse.Namespace(verb=None, debug="--debug" in given, json="--json" in given, cores=cores, command_line=given)
    word = next((word for word in given if not word.startswith("-")), None)
    try:
        if any("\0" in word for word in given):
            parser.error("an argument holds a NUL character, which no name has")
        if any(re.fullmatch("(--[a-z-]+=)?", word) for word in given):  # a shell's variable that is not set
            parser.error("an argument is empty, expected a value; leave the option out to get its default")
        if word is not None and word not in VERBS:
            near = difflib.get_close_matches(word, VERBS, 1) or VERBS
            parser.error(f"unknown verb {word!r}, expected {' or '.join(near)}")
        options.verb = word
        parser.parse_args(given, options)
        os.getcwd()
    except argparse.ArgumentError as wrong:
        return _failed(options, wrong)
    except FileNotFoundError:  # where there is no working folder, MKL ends the process
        return _failed(options, ValueError("the working folder was removed; change into another one"))
    if options.verb is None:
        return _written(parser.format_help(), 2)
    try:
        with _lent_output(options.json):
            answer: Answer = VERBS[options.verb].run(options)
    except BaseException as failure:  # a user's network may raise anything, GeneratorExit too
        return _failed(options, failure)
    if sys.stderr.isatty():
        _tell("\r\033[K", end="")
    return _written(json.dumps(answer.data) if options.json else answer.text, answer.exit_code)


class _Lent:
    """A stream that a user's network may write to, but not close."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        """Leaves the stream open."""


@contextlib.contextmanager
def _lent_output(only_json: bool) -> Iterator[None]:
    """Lends the verb standard output; with --json it is standard error, for child processes too, so that one object stays one."""
    kept = os.dup(1)
    if only_json:
        os.dup2(2, 1)
    try:
        errors = _Lent(sys.stderr)
        with (
            contextlib.redirect_stderr(errors),
            contextlib.redirect_stdout(errors if only_json else _Lent(sys.stdout or sys.stderr)),
        ):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _tell(text: str, end: str = "\n") -> None:
    with contextlib.suppress(OSError, ValueError):  # standard error may be full or closed as well
        print(text, end=end, file=sys.stderr, flush=True)


def _written(text: str, code: int) -> int:
    """Prints the answer and returns `code`, or 2 where it cannot be written."""
    try:
        if text:
            print(text)
        if sys.stdout is not None:
            sys.stdout.flush()
        elif text:
            raise OSError("it is closed")
        return code
    except BrokenPipeError:  # whoever reads has enough, such as `head`
        pass
    except (OSError, ValueError) as failure:
        _tell(f"tinyredux: cannot write the answer to standard output: {failure}")
        code = 2
    if sys.stdout is not None and not sys.stdout.closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what the buffer still holds
    return code


def _failed(options: argparse.Namespace, failure: BaseException) -> int:
    """Tells what went wrong and returns the exit code."""
    stopped = isinstance(failure, KeyboardInterrupt)
    if options.debug and not stopped:
        _tell("".join(traceback.format_exception(failure)))
    kept = "; what was done is kept, the same command goes on from there" * (options.verb in ("explore", "train", "prune"))
    code, said = (130, f"interrupted{kept}") if stopped else _judged(failure)
    _tell(said if stopped else f"tinyredux{f' {options.verb}' if options.verb else ''}: {said}")
    fits = {"fits": False} if code == 1 else {}
    answer = {"schema": 1, "verb": options.verb, "error": said, "exit": code} | fits
    return _written(json.dumps(answer) if options.json else "", code)


def _judged(failure: BaseException) -> tuple[int, str]:
    """Returns the exit code and the sentence for what ended a verb."""
    theirs, kind, said = _place(failure, users=True), type(failure).__name__, str(failure)
    where = f" ({theirs})" if theirs and theirs not in said else ""
    elsewhere = "" if sys.platform == "linux" else (
        "; tinyredux builds, simulates and serves on Linux: on Windows use WSL 2, on macOS a Linux container or virtual machine"
    )  # fmt: skip
    if isinstance(failure, ModuleNotFoundError) and not theirs:
        package = str(failure.name).partition(".")[0]
        if package in POSIX:
            return 3, f"this needs {package}, which {sys.platform} does not have{elsewhere}"
        extra = next((extra for extra, packages in EXTRAS.items() if package in packages), "lab")
        return 3, f"{package} is missing; run: {how_to_install(extra)}"
    from tinyredux.datasets import MissingDataError
    from tinyredux.device import BuildError, DoesNotFit, MissingTool
    from tinyredux.device.link import LinkError

    if isinstance(failure, MissingDataError) and not os.path.isdir(data := os.environ.get("TINYREDUX_DATA") or "."):
        said += f"; TINYREDUX_DATA is {data!r} now, which is no folder"
    if isinstance(failure, ImportError) and not theirs:  # of what is there: damaged, or more than memory holds
        return 3, f"a package cannot be loaded: {said}; free memory, or run: pip install -c constraints.txt -e '.[torch]'"
    if isinstance(failure, (MissingTool, MissingDataError, LinkError)):
        return 3, f"{said}{elsewhere if isinstance(failure, MissingTool) else ''}"
    if isinstance(failure, DoesNotFit):
        return 1, said
    if isinstance(failure, MemoryError) or "allocate memory" in said:
        return 3, f"this needs more memory than the machine has; take a smaller network or fewer images{where}"
    if isinstance(failure, OSError) and failure.filename and failure.strerror and not theirs:
        cache = os.environ.get("TINYREDUX_CACHE")
        ours = cache and str(failure.filename).startswith(cache)
        advice = "TINYREDUX_CACHE names it; name another folder there" if ours else "check the path and its permissions"
        return 2, f"{failure.filename}: {failure.strerror}; {advice}"
    if isinstance(failure, (ValueError, OSError, BuildError, argparse.ArgumentError)):
        return 2, f"{said}{where}{elsewhere if isinstance(failure, BuildError) else ''}"
    if theirs:
        return 2, f"the network raised {kind}: {said.strip().partition(chr(10))[0]}{where}"
    return 2, (
        f"{kind}: {said.strip().partition(chr(10))[0]} (in {_place(failure, users=False)}): a defect of tinyredux, or an input "
        f"that it does not foresee; --debug shows the traceback, please report it{elsewhere}"
    )


def _place(failure: BaseException, users: bool) -> str | None:
    """Returns file:line of the innermost call in a user's files, else in this library's; None where there is none."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("tinyredux_user_")]
    folders = {Path(str(module.__file__)).resolve().parent for module in modules} if users else {LIBRARY}
    found, error = None, failure if folders else None
    while error is not None:
        for frame in traceback.extract_tb(error.__traceback__):
            above = Path(frame.filename).parents
            if not folders.isdisjoint(above) and (not users or (LIBRARY not in above and "site-packages" not in frame.filename)):
                found = f"{frame.filename}:{frame.lineno}"
        error = error.__cause__ or error.__context__
    return found


class Parser(argparse.ArgumentParser):
    """A parser whose errors end like every other mistake: a sentence, and with --json an object."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.register("type", int, _whole_number)

    def print_help(self, file: object = None) -> NoReturn:
        """Shows the help and ends; argparse itself would keep silent about a full disk."""
        raise SystemExit(_written(self.format_help(), 0))

    def error(self, message: str) -> NoReturn:
        """Raises ArgumentError after the usage."""
        with contextlib.suppress(OSError):
            self.print_usage(sys.stderr)
        raise argparse.ArgumentError(None, message)


def _whole_number(text: str) -> int:
    """Returns the number of a text of digits. Raises ArgumentTypeError for another one, such as 20K, 1e3 or 0x10."""
    if not re.fullmatch("[+-]?[0-9]{1,4000}", text):
        raise argparse.ArgumentTypeError(f"invalid int value: {text!r}, expected a whole number in decimal digits, such as 20480")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="tinyredux", description="CNNs on STM32 microcontrollers without redundant work.")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, verb in VERBS.items():
        one = verbs.add_parser(name, help=verb.help, description=verb.help, epilog=f"example: python -m tinyredux {verb.example}")
        one.add_argument("--json", action="store_true", help="print one JSON object on standard output")
        one.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
        verb.options(one)
    return parser
