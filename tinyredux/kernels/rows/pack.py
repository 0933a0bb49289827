"""The function that packs rows of the input for a packed-product row convolution."""

from __future__ import annotations

from itertools import pairwise

from tinyredux.kernels.asm.function import Function
from tinyredux.kernels.rows.layer import FIELD, Rows
from tinyredux.kernels.rows.plan import Pixels, RowPlan


def pack_function(rows: Rows, name: str, input_rows: float) -> Function:
    """Returns the function that packs input rows, usually `input_rows`: for each row and channel the words of `plan.columns`."""
    g, pitch = rows.geometry, rows.pitch
    about = (
        f"Packs rows of {g.in_w} pixels, {g.in_c} channels of {g.in_pixel}: per channel {len(rows.plan.columns)} words, each\n"
        "x0 + x1 * 2^21 of two pixels with the zero point taken off; 0 for pixels outside the map."
    )
    p, zero_point = Function(name, ("int32_t *to", "const int8_t *in", "int32_t rows"), about), rows.factors.input_zero_point
    p.new("both", "one")
    p.constant("both", -zero_point - (zero_point << FIELD))
    p.constant("one", -zero_point)
    p.new("*channel")
    with p.loop("rows", input_rows):
        p.mov("channel", "in")
        if g.in_c >= 4:
            with p.registers("quads"):
                p.constant("quads", g.in_c // 4)
                with p.loop("quads", g.in_c // 4):
                    _pack_columns(p, rows, 4)
        if g.in_c % 4:
            _pack_columns(p, rows, g.in_c % 4)
        if rows.channels > g.in_c:
            with p.registers("zero"):
                p.mov("zero", 0)
                for _ in range((rows.channels - g.in_c) * pitch // 4):
                    p.str_post("zero", "to", 4)
        p.move("in", "in", g.in_row)
    return p


def _pack_columns(p: Function, rows: Rows, n: int) -> None:
    """Packs the words of n channels at `channel`, writes them at `to` and moves both on."""
    with p.registers("*from"):
        for pixels, count in _column_runs(rows.plan):
            p.move("from", "channel", next(x for x in pixels if x is not None) * rows.geometry.in_pixel)
            with p.repeated("runs", count):
                _pack_word(p, rows, n, pixels)
                if count > 1:
                    p.add("from", "from", 2 * rows.geometry.stride[1] * rows.geometry.in_pixel)
    p.move("to", "to", (n - 1) * rows.pitch)
    p.add("channel", "channel", n)


def _column_runs(plan: RowPlan) -> list[tuple[Pixels, int]]:
    """Returns the pixels of the first column of each run, and how many columns follow each other at equal distance with both
    pixels inside the map."""
    runs = list[tuple[Pixels, int]]()
    for before, pixels in pairwise(((None, None), *plan.columns)):
        if None in (*before, *pixels) or pixels[0] - before[0] != 2 * (before[1] - before[0]):  # type: ignore[operator]
            runs.append((pixels, 1))
        else:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
    return runs


def _pack_word(p: Function, rows: Rows, n: int, pixels: Pixels) -> None:
    """Packs one word of each of n channels from `from`, the first pixel that is inside."""
    distance = rows.geometry.stride[1] * rows.geometry.in_pixel
    both = None not in pixels
    sources = [("x", 0), ("y", distance)][: 1 + both]
    with p.registers("x", "y", "word", "high"):
        for register, offset in sources if n == 4 else ():
            p.ldr(register, "from", offset)
        for k in range(n):
            for register, offset in sources if n < 4 else ():
                p.ldrsb(register, "from", offset + k)
            rotation = f"_ror{8 * k}" if n == 4 and k else ""
            getattr(p, f"sxtab{rotation}")("word", "both" if both else "one", "x")
            if both:
                getattr(p, f"sxtb{rotation}")("high", "y")
                p.add("word", "word", "high", f"lsl {FIELD}")
            elif pixels[0] is None:
                p.lsl("word", "word", FIELD)
            p.str("word", "to", k * rows.pitch)
        p.add("to", "to", 4)
