"""Draws the book's pictures of ideas as SVG: boxes, arrows, matrices and words, in one style.

Ink is dark on nothing, so that a page may lie light or dark behind it (book.css turns the colours round where it is dark).
The colours are those of `tinyredux.notebook.plots_style`; what a colour says is also said by a word. Sizes are pixels at the
page's width, 688; no letter is smaller than 12 (9 pt).
"""

from __future__ import annotations

import base64
import struct
import textwrap
import zlib
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from tinyredux.notebook.plots_style import BLUE, GREEN, GREY, INK, ORANGE, PINK, RED, SKY

__all__ = ["BLUE", "GREEN", "GREY", "INK", "LARGE", "ORANGE", "PALE", "PINK", "RECORDS", "RED", "SKY", "SMALL", "Drawing"]

PALE = "#BBBBBB"
WIDTH = 688
RECORDS = Path(__file__).resolve().parents[2] / "data" / "records"
SMALL, NORMAL, LARGE = 12, 13, 15


class Drawing:
    """One picture: `alt` says in words what it shows, without brackets, for it stands between them in a chapter."""

    def __init__(self, height: float, alt: str, width: float = WIDTH) -> None:
        """Begins an empty picture of so many pixels."""
        self.width, self.height, self.alt = width, height, " ".join(alt.translate({ord(c): None for c in "[]"}).split())
        self.parts: list[str] = []

    def _add(self, name: str, content: str | None = None, **attributes: Any) -> None:
        written = "".join(
            f' {key.replace("_", "-")}="{_number(value)}"' for key, value in attributes.items() if value is not None
        )
        self.parts.append(f"<{name}{written}/>" if content is None else f"<{name}{written}>{content}</{name}>")

    def text(
        self, x: float, y: float, words: str, size: int = NORMAL, anchor: str = "start", bold: bool = False,
        colour: str = INK, mono: bool = False, turn: float = 0,
    ) -> None:  # fmt: skip
        """Writes lines of words; `y` is the base of the first one."""
        for i, line in enumerate(words.split("\n")):
            self._add(
                "text", escape(line, quote=False), x=x, y=y + i * size * 1.3, font_size=size, text_anchor=anchor, fill=colour,
                font_weight="bold" if bold else None, font_family="DejaVu Sans Mono, monospace" if mono else None,
                transform=f"rotate({_number(turn)} {_number(x)} {_number(y)})" if turn else None,
            )  # fmt: skip

    def note(self, x: float, y: float, words: str, width: float = 0, colour: str = INK) -> None:
        """Writes small words in lines of at most so many pixels (0: up to the right edge)."""
        letters = int((width or self.width - x - 8) / (0.55 * SMALL))
        self.text(x, y, "\n".join(textwrap.wrap(words, letters)), SMALL, colour=colour)

    def box(
        self, x: float, y: float, width: float, height: float, words: str = "", fill: str = "none", line: str = INK,
        alpha: float = 0.3, size: int = NORMAL, dashed: bool = False, bold: bool = False, round_by: float = 3,
    ) -> None:  # fmt: skip
        """Draws a box with words in its middle."""
        self._add(
            "rect", x=x, y=y, width=width, height=height, rx=round_by, fill=fill, fill_opacity=alpha if fill != "none" else None,
            stroke=line, stroke_width=1.2, stroke_dasharray="5 4" if dashed else None,
        )  # fmt: skip
        if words:
            lines = words.count("\n")
            self.text(x + width / 2, y + height / 2 + size * (0.36 - 0.65 * lines), words, size, "middle", bold)

    def line(self, points: Sequence[tuple[float, float]], colour: str = INK, width: float = 1.4, dashed: bool = False) -> None:
        """Draws a line through points."""
        path = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
        dashes = "5 4" if dashed else None
        self._add("polyline", points=path, fill="none", stroke=colour, stroke_width=width, stroke_dasharray=dashes)

    def arrow(self, *points: tuple[float, float], colour: str = INK, width: float = 1.6, dashed: bool = False) -> None:
        """Draws a line through points that ends in a head."""
        (x0, y0), (x1, y1) = points[-2:]
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        back = x1 - 8 * ux, y1 - 8 * uy
        self.line([*points[:-1], back], colour, width, dashed)
        wings = [(x1, y1), (back[0] - 4 * uy, back[1] + 4 * ux), (back[0] + 4 * uy, back[1] - 4 * ux)]
        self.shape(wings, colour, alpha=1, line="none")

    def shape(self, points: Sequence[tuple[float, float]], fill: str, alpha: float = 0.3, line: str = INK) -> None:
        """Draws a filled polygon."""
        path = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
        self._add("polygon", points=path, fill=fill, fill_opacity=alpha, stroke=line, stroke_width=1.2)

    def dot(self, x: float, y: float, radius: float = 4, fill: str = INK, line: str = "none") -> None:
        """Draws a disc."""
        self._add("circle", cx=x, cy=y, r=radius, fill=fill, stroke=line)

    def image(self, x: float, y: float, width: float, pixels: Any) -> None:
        """Shows a picture of pixels (H, W, 3) uint8, as PNG without compression, so that the file is the same everywhere."""
        height, columns, _ = pixels.shape
        rows = b"".join(b"\0" + row.tobytes() for row in pixels)
        stored = struct.pack("<BHH", 1, len(rows), len(rows) ^ 0xFFFF) + rows  # one block, of at most 65,535 bytes
        parts = {
            b"IHDR": struct.pack(">IIBBBBB", columns, height, 8, 2, 0, 0, 0),
            b"IDAT": b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(rows)), b"IEND": b"",
        }  # fmt: skip
        png = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in parts.items()
        )
        self._add(
            "image", x=x, y=y, width=width, height=width * height / columns, style="image-rendering:pixelated",
            href=f"data:image/png;base64,{base64.b64encode(png).decode()}",
        )  # fmt: skip

    def matrix(
        self, x: float, y: float, values: Sequence[Sequence[Any]], cell: tuple[float, float] = (30, 22),
        fills: Sequence[Sequence[str]] | None = None, size: int = SMALL, alpha: float = 0.3,
    ) -> tuple[float, float]:  # fmt: skip
        """Draws a table of small boxes with their values, each in its colour, and returns the lower right corner."""
        for i, row in enumerate(values):
            for k, value in enumerate(row):
                fill = fills[i][k] if fills else "none"
                self.box(x + k * cell[0], y + i * cell[1], *cell, str(value), fill, size=size, alpha=alpha, round_by=0)
        return x + len(values[0]) * cell[0], y + len(values) * cell[1]

    def block(
        self, x: float, y: float, width: float, height: float, depth: float, fill: str, alpha: float = 0.25, line: str = INK
    ) -> None:
        """Draws a block: the front lies at (x, y), the depth goes to the upper right."""
        up = depth * 0.6
        self.shape([(x, y), (x + depth, y - up), (x + width + depth, y - up), (x + width, y)], fill, alpha * 0.6, line)
        right = [(x + width, y), (x + width + depth, y - up), (x + width + depth, y + height - up), (x + width, y + height)]
        self.shape(right, fill, min(1, alpha * 1.5), line)
        self.shape([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], fill, alpha, line)

    def svg(self) -> str:
        """Returns the file's text."""
        size = f'viewBox="0 0 {_number(self.width)} {_number(self.height)}" width="{_number(self.width)}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="DejaVu Sans, Verdana, sans-serif" role="img">'
        return "\n".join([head, f"<title>{escape(self.alt, quote=False)}</title>", *self.parts, "</svg>", ""])


def _number(value: Any) -> Any:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value
