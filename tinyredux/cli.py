"""`python -m tinyredux VERB`: one function per verb, each a thin face of a public Python function.

Exit codes: 0 done; 1 done, and the answer is no; 2 wrong usage or input; 3 something needed is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from tinyredux.build import BuildError, DoesNotFit, MissingTool
from tinyredux.datasets import MissingDataError
from tinyredux.link import LinkError
from tinyredux.verbs import VERBS
from tinyredux.verbs.base import Answer


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code; a user's mistake ends in one sentence, never in a traceback."""
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
    except argparse.ArgumentError as wrong:
        given = sys.argv[1:] if arguments is None else arguments
        verb = next((word for word in given if word in VERBS), None)
        return _failed(argparse.Namespace(verb=verb, debug=False, json="--json" in given), wrong, 2)
    if options.verb is None:
        parser.print_help()
        return 2
    try:
        with contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout):  # a user's network may print
            answer: Answer = VERBS[options.verb].run(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (MissingTool, MissingDataError, LinkError) as missing:
        return _failed(options, missing, 3)
    except DoesNotFit as answer_no:
        return _failed(options, answer_no, 1)
    except (ValueError, OSError, BuildError) as wrong:
        return _failed(options, wrong, 2)
    try:
        _show(options, answer)
    except BrokenPipeError:  # whoever reads has enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return answer.exit_code


def _show(options: argparse.Namespace, answer: Answer) -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    if options.json:
        print(json.dumps(answer.data), flush=True)
    elif answer.text:
        print(answer.text, flush=True)


def _failed(options: argparse.Namespace, error: Exception, code: int) -> int:
    if options.debug:
        raise error
    place, why = getattr(error, "filename", None), getattr(error, "strerror", None)
    said = f"{place}: {why}" if place and why else str(error)
    print(f"tinyredux{f' {options.verb}' if options.verb else ''}: {said}", file=sys.stderr)
    if options.json:
        fits = {"fits": False} if isinstance(error, DoesNotFit) else {}
        print(json.dumps({"schema": 1, "verb": options.verb, "error": said, "exit": code} | fits))
    return code


class _Parser(argparse.ArgumentParser):
    """A parser whose errors end like every other mistake: a sentence, and with --json an object."""

    def error(self, message: str) -> NoReturn:
        """Raises ArgumentError after the usage."""
        self.print_usage(sys.stderr)
        raise argparse.ArgumentError(None, message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="tinyredux", description="CNNs on STM32 microcontrollers without redundant work.")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, verb in VERBS.items():
        one = verbs.add_parser(name, help=verb.help, description=verb.help, epilog=f"example: python -m tinyredux {verb.example}")
        one.add_argument("--json", action="store_true", help="print one JSON object on standard output")
        one.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
        verb.options(one)
    return parser


if __name__ == "__main__":
    sys.exit(main())
