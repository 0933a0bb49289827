"""Verbs about tools, simulator and boards: doctor, simulate, bench, flash, serial, run."""

from __future__ import annotations

import argparse

from tinyredux.verbs.base import Answer, Verb, no_options


def _doctor(options: argparse.Namespace) -> Answer:
    from tinyredux.doctor import examine, to_text

    report = examine()
    return Answer(report, to_text(report), 0 if report["ok"] else 3)


VERBS = {
    "doctor": Verb("each tool, its version, what works without it, and the fix", "doctor", no_options, _doctor),
}
