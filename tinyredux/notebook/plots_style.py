"""How the book's figures look, and what a figure is: a Picture with words for it.

The colours are Okabe and Ito's, which people with any colour vision can tell apart; what a colour says is also said by
a label or a hatch.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tinyredux.notebook.plots_digest import digest

BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8A8A8A"
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, RED)
INK = "#222222"
STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.labelsize": 10, "axes.labelcolor": INK, "axes.edgecolor": "#BBBBBB",
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.grid": True, "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8, "xtick.color": INK, "ytick.color": INK, "xtick.major.size": 0, "ytick.major.size": 0,
    "legend.frameon": False, "legend.fontsize": 9, "figure.facecolor": "white", "hatch.linewidth": 0.6,
}  # fmt: skip
DPI = 110
styled = mpl.rc_context(STYLE)  # a function under it draws in the book's style, whatever style the notebook has set


@dataclass(frozen=True)
class Picture:
    """A figure, and in words what it shows: for those who cannot see it, and for the tests."""

    figure: Figure
    text: str

    def __repr__(self) -> str:
        """Returns the words."""
        return self.text

    @property
    def told(self) -> str:
        """What a notebook stores as text: the words, and a digest that a stale picture fails to have."""
        return f"{self.text} [drawing {digest(self.figure)}]"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": self.told}

    @styled
    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
        return stream.getvalue()

    @styled
    def svg(self) -> str:
        """Returns the figure as SVG on one line, on no paper: letters stay letters, places have two decimals, what draws nothing
        is gone."""
        stream = io.StringIO()
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tinyredux"}):
            self.figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        text = re.sub(r"(?s)^.*?(?=<svg)|<metadata>.*?</metadata>", "", stream.getvalue())
        text = re.sub(r'(?<=<g) id="[^"]*"| transform="rotate\(-0 [^"]*"|font-family: [^;]*; ', "", " ".join(text.split()))
        text = text.replace("<g/> ", "").replace("*{", "*{font-family: DejaVu Sans, Verdana, sans-serif;")
        short = {'"': "'", ": ": ":", "; ": ";"}
        return re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+|[:;] |\"", lambda m: m[1] or short[m[0]], tag[0]), text)


def figure_with_axes(width: float, height: float, columns: int = 1, rows: int = 1, **grid: Any) -> tuple[Figure, list[Axes]]:
    """Returns a figure of so many inches and its axes, row by row."""
    figure = Figure((width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **grid).flat)


def bare_image(axes: Axes, pixels: npt.NDArray[Any], title: str, **text: Any) -> None:
    """Draws pixels (H, W, 3), real numbers cut to 0 .. 255, without ticks, under a title."""
    axes.imshow(np.clip(pixels, 0, 255).astype(np.uint8), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.set_title(title, **text)


def buffer(axes: Axes, span: tuple[int, int], place: tuple[int, int], colour: str, alpha: float, line: float) -> None:
    """Draws a buffer from the first step to the last of `span` at its place (offset, size)."""
    corner, width = (span[0] + 0.03, place[0]), span[1] - span[0] + 1 - 0.06
    axes.add_patch(Rectangle(corner, width, place[1], facecolor=colour, alpha=alpha, lw=0))
    axes.add_patch(Rectangle(corner, width, place[1], fill=False, edgecolor=colour, lw=line))


def name_steps(axes: Axes, names: Sequence[str], **text: Any) -> None:
    """Names the steps below a timeline, aslant."""
    places = [i + 0.5 for i in range(len(names))]
    axes.set_xlim(0, len(names))
    axes.set_xticks(places, names, rotation=40, ha="right", rotation_mode="anchor", **text)
