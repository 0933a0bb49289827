"""Pictures for part I of the book: one network on one chip."""

from __future__ import annotations

from kit import BLUE, GREEN, LARGE, ORANGE, SMALL, Drawing


def smlad_lanes() -> Drawing:
    """How SXTB16 spreads bytes and SMLAD multiplies two pairs of them at once."""
    d = Drawing(
        318,
        "Two words of four bytes, inputs and weights. SXTB16 takes bytes 0 and 2 of each and widens them to 16 bits; SMLAD "
        "multiplies both pairs and adds both products to a sum of 32 bits. Bytes 1 and 3 follow with a rotation by 8 bits.",
    )
    for row, (name, colour, letter) in enumerate((("inputs", BLUE, "x"), ("weights", ORANGE, "w"))):
        y = 36 + row * 108
        d.text(14, y + 20, f"a word of\n{name}", SMALL)
        for k in range(4):
            d.box(96 + k * 60, y, 60, 32, f"{letter}{3 - k}", colour, alpha=0.5 if k % 2 else 0.15, round_by=0)
        d.text(96, y - 8, "bit 31", SMALL)
        d.text(336, y - 8, "0", SMALL, "end")
        d.text(352, y + 22, "sxtb16", mono=True)
        d.arrow((410, y + 17), (436, y + 17))
        for k, byte in enumerate((2, 0)):
            d.box(444 + k * 112, y, 112, 32, f"{letter}{byte} in 16 bits", colour, alpha=0.5, size=SMALL, round_by=0)
    y = 222
    for k in range(2):
        x = 500 + k * 112
        d.line([(x, 68), (x, 96)], BLUE)
        d.text(x, 112, "×", LARGE, "middle", bold=True)
        d.line([(x, 120), (x, 144)], ORANGE)
        d.arrow((x, 176), (x, y + 8))
    d.box(444, y + 12, 224, 36, "sum + x2·w2 + x0·w0", GREEN, bold=True, round_by=0)
    d.text(352, y + 34, "smlad", mono=True)
    d.arrow((400, y + 30), (438, y + 30))
    d.text(14, y + 24, "Then x3, x1 with w3, w1: the same after a", SMALL)
    d.text(14, y + 41, "rotation by 8 bits. Four products take two", SMALL)
    d.text(14, y + 58, "loads, four SXTB16 and two SMLAD.", SMALL)
    d.text(14, y + 82, "A weight that is widened once serves every pixel that shares it.", SMALL)
    return d
