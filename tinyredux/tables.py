"""A table as text and as HTML: the one way in which verbs, magics, records and `tr.table` show rows.

pandas and rich were tried. The text of a DataFrame leaves out the columns beyond 80 characters and what a cell has beyond 50; a
Styler has no text but its address, and other HTML on each run, so a chapter's outputs could not be compared; importing it takes
0.4 s. rich fills lines with blanks, reads [words] in brackets as commands and cuts a table to 80 characters in a pipe: to switch
that off takes as many lines as there are here.
"""

import csv
import html
import io
import re
from collections.abc import Collection, Iterable, Sequence
from itertools import chain, repeat
from typing import Any

LATEX = re.compile(r"[#$%&_{}]")  # what LaTeX reads as a command
STYLE = "text-align:left;padding:1px 14px 1px 0"


def columns(rows: Iterable[Sequence[str]], right: Collection[int] = ()) -> str:
    """Returns rows as lines of text, with the columns two blanks apart; those whose numbers are in `right` end alike."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ([c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))] for row in rows)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def shown(value: Any) -> str:
    """Returns a value as a table's cell has it: numbers in groups of three digits, four digits of real ones, nothing for None."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)


def as_csv(rows: Iterable[Sequence[Any]], head: Sequence[str]) -> str:
    """Returns rows as comma-separated values under a head, numbers with all their digits, empty for None."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue().rstrip("\n")


def as_latex(rows: Iterable[Sequence[Any]], head: Sequence[str]) -> str:
    """Returns rows as a LaTeX tabular with the rules of booktabs: the first column to the left, the others to the right."""
    lines = [" & ".join(LATEX.sub(r"\\\g<0>", shown(cell)) for cell in cells) + r" \\" for cells in [head, *rows]]
    lines[0] = lines[0] + "\n\\midrule"
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines)


class Words(str):
    """A text that a notebook shows without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def as_html(rows: Iterable[Sequence[str]], head: Sequence[str] = (), style: str = STYLE) -> str:
    """Returns rows as an HTML table under a head; without one the first cell of each row says what the row is."""

    def line(cells: Sequence[str], first: str, others: str) -> str:
        kinds = chain([first], repeat(others))
        return "".join(f"<{kind} style='{style}'>{html.escape(cell)}</{kind}>" for kind, cell in zip(kinds, cells, strict=False))

    lines = [line(head, "th", "th")] if head else []
    lines += [line(row, "td" if head else "th", "td") for row in rows]
    return f"<table>{''.join(f'<tr>{cells}</tr>' for cells in lines)}</table>"
