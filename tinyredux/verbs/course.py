"""Verbs about the book: reproduce, book, lab."""

from __future__ import annotations

import argparse

from tinyredux.verbs.base import Answer, Verb, table


def _reproduce_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="ids of claims (default: all)")
    parser.add_argument(
        "--profile", default="quick", choices=("quick", "full"), help="quick reads records; full makes them again"
    )


def _reproduce(options: argparse.Namespace) -> Answer:
    from tinyredux.claims import reproduce

    rows = reproduce(options.claims, options.profile)
    shown = [(row["id"], row["metric"], row["published"], str(row["ours"]), row["verdict"], row["differs"]) for row in rows]
    text = table(shown, ("claim", "metric", "published", "ours", "verdict", "differs"))
    failed = any(row["verdict"] == "not reproduced" for row in rows)
    return Answer({"schema": 1, "claims": rows}, text, int(failed))


VERBS = {
    "reproduce": Verb(
        "the claims map: paper, published value, ours, band, verdict", "reproduce --json", _reproduce_options, _reproduce
    ),
}
