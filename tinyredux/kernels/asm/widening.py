"""Two windows of int8 as int16 pairs, from where they lie: the columns that `gemm` multiplies.

A word of four values becomes two, as SXTB16 delivers them: values 0 and 2, then 1 and 3. What is left of rows that are no whole
words is put together to words; one or two values at the end make one word of two.

Source: ours.
"""

from __future__ import annotations

from itertools import product
from typing import Protocol

from tinyredux.kernels.asm.function import Function


class Lengths(Protocol):
    """Values from a pixel to the next; words that hold a window, and those in which it is multiplied."""

    in_pixel: int
    words: int
    row_words: int


def lanes(rows: int, row_bytes: int) -> list[int]:
    """Returns in which order `widen_function` takes the values of a window of so many rows: whole words of each row, and what is
    left of rows where it fills a word; -1 stands for no value."""
    found, left = list[int](), list[int]()
    for row in range(rows):
        values = range(row * row_bytes, (row + 1) * row_bytes)
        found, left = [*found, *values[: row_bytes // 4 * 4]], [*left, *values[row_bytes // 4 * 4 :]]
        whole = len(left) // 4 * 4
        found, left = [*found, *left[:whole]], left[whole:]
    return found + (left if len(left) != 2 else [left[0], -1, left[1]])


def widen_function(window: tuple[int, int], shape: Lengths, pairs: int = 0) -> Function:
    """Returns the function that widens the windows at `a` and `b`, of (rows, bytes of a row), whose rows lie `in_row` apart; with
    `pairs`, their usual number, pairs of pixels one behind the other. They begin at any byte."""
    rows, row_bytes = window
    kind, last = (f"strip_{shape.in_pixel}", "pairs") if pairs else ("windows", "in_row")
    about = f"Two windows of {rows} x {row_bytes} int8 as int16 pairs: of four 0 and 2, then 1 and 3; words of both in turn."
    name = f"tr_widen_{kind}_{rows}x{row_bytes}_{shape.row_words}"
    p = Function(name, ("int32_t *to", "const int8_t *a", "const int8_t *b", f"int32_t {last}"), about)
    fours, left = divmod(row_bytes, 4)
    once = next(n for n in (8, 7, 6, 5, 4, 3, 2, 1) if fours % n == 0) if fours else 0  # groups of four values in a round
    together = 2 if once > 1 and not (left and fours > once) else 1
    words = [f"{part}_{window}{four}" for four in range(together) for part in ("even", "odd") for window in "ab"]
    p.new(*words, *(["rest_a", "rest_b"] if left else []))
    if pairs:
        with p.loop("pairs", pairs):
            _widen_fours(p, words, fours, once)
            _widen_rest(p, words, left, 0, left)
            p.advance("a", 2 * shape.in_pixel - 4 * fours)
            p.advance("b", 2 * shape.in_pixel - 4 * fours)
            p.advance("to", 8 * (shape.row_words - shape.words))
        return p
    p.move("in_row", "in_row", -4 * fours)
    taken, alike = 0, 1 if left else rows
    with p.repeated("rows", alike):
        for row in range(rows // alike):
            _widen_fours(p, words, fours, once)
            taken = _widen_rest(p, words, left, taken, rows * left)
            if row < rows - 1:
                p.add("a", "a", "in_row")
                p.add("b", "b", "in_row")
    return p


def _widen_fours(p: Function, words: list[str], fours: int, once: int) -> None:
    """Widens groups of four values of both windows, `once` in a round."""
    if fours:
        with p.repeated("rounds", fours // once):
            for first in range(0, once, len(words) // 4):
                some = range(min(len(words) // 4, once - first))
                for i, window in product(some, "ab"):
                    p.ldr(f"odd_{window}{i}", window, 4 * (first + i))
                _widen_words(p, words[: 4 * len(some)], {f"{window}{i}": f"odd_{window}{i}" for i in some for window in "ab"})
            p.add("a", "a", 4 * once)
            p.add("b", "b", 4 * once)


def _widen_words(p: Function, words: list[str], sources: dict[str, str]) -> None:
    """Widens words of four values, or of those at even bytes where there are `words` for no more, and stores them."""
    for name, source in sources.items():
        p.sxtb16(f"even_{name}", source)
        if f"odd_{name}" in words:
            p.sxtb16_ror8(f"odd_{name}", source)
    p.stm("to", *words)


def _widen_rest(p: Function, words: list[str], left: int, taken: int, total: int) -> int:
    """Puts the values that are `left` of a row into `rest_a` and `rest_b`, behind `taken` of `total` of earlier rows, and widens
    these when they are full or hold the last ones: one or two of them lie at even bytes. Returns how many are taken then."""
    offset = 0
    while offset < left:
        place, sparse = taken % 4, total - taken // 4 * 4 < 3
        size = 2 if not sparse and place % 2 == 0 and left - offset > 1 else 1
        for window in "ab":
            (p.ldrh if size == 2 else p.ldrb)(f"even_{window}0" if place else f"rest_{window}", window, offset)
        for window in "ab" if place else "":
            p.orr(f"rest_{window}", f"rest_{window}", f"even_{window}0", f"lsl {8 * place * (1 + sparse)}")
        offset, taken = offset + size, taken + size
        if taken % 4 == 0 or taken == total:
            _widen_words(p, words[: 2 if sparse else 4], {"a0": "rest_a", "b0": "rest_b"})
    return taken
