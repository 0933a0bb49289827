"""Pictures for part II of the book: partial execution and what a plan costs."""

from __future__ import annotations

from kit import BLUE, GREEN, ORANGE, PALE, SMALL, Drawing


def three_ways_to_cut() -> Drawing:
    """A map as a block, cut into slices of channels, strips of rows, patches; and what each needs of the layer before."""
    d = Drawing(
        344,
        "A feature map as a block, cut in three ways. A slice of channels needs all channels of a convolution's input. A strip "
        "of rows needs as many rows and the window's edge, a patch the window's edge on all sides; both need all channels.",
    )
    ways = (
        ("slices of channels", "needs every channel of the\ninput of a convolution,\none channel of that of a pool"),
        ("strips of rows", "needs its rows and those that\nwindows reach beside them:\ntwo more of a 3x3 kernel"),
        ("patches", "needs a border on all sides:\ncomputed again in the next\npatch where windows overlap"),
    )
    for i, (title, need) in enumerate(ways):
        x = 20 + i * 230
        d.text(x, 26, title, bold=True)
        for k, (y, fill) in enumerate(((74, GREEN), (190, BLUE))):
            width, height, depth = 84, 70, 60
            d.block(x + 8, y, width, height, depth, "none", 0, PALE)
            if i == 0:
                if k == 0:
                    d.block(x + 8 + 26, y - 15.6, width, height, 9, fill, 0.45)
                else:
                    d.block(x + 8, y, width, height, depth, fill, 0.3)
            elif i == 1:
                part = (24, 18) if k == 0 else (16, 34)
                d.block(x + 8, y + part[0], width, part[1], depth, fill, 0.4)
            else:
                part = (26, 24, 30, 18) if k == 0 else (16, 16, 50, 34)
                d.block(x + 8 + part[0], y + part[1], part[2], part[3], depth, fill, 0.4)
        d.arrow((x + 168, 218), (x + 186, 190), (x + 186, 120), (x + 168, 96), colour=ORANGE)
        d.text(x, 300, need, SMALL)
    d.text(20, 160, "output", SMALL, colour=GREEN)
    d.text(20, 276, "input", SMALL, colour=BLUE)
    return d
