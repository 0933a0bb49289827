"""A digest of what a figure draws, so that a test can tell a stored picture from a new one without its pixels.

It covers the artists of a figure: kind, data, labels and colours, with numbers rounded to four digits, so that the last bits
of another machine do not change it. It leaves out what a layout computes: places of titles and legends, sizes on paper, and
ticks that axes choose themselves.
"""

import hashlib
import json
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import Collection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.spines import Spine
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FixedLocator


def digest(figure: Figure) -> str:
    """Returns eight hexadecimal digits that change when the figure draws something else."""
    told = [_told(artist) for artist in figure.get_children() if artist is not figure.patch]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:8]


def _told(artist: Artist) -> list[Any]:
    """Returns kind, label, visibility and content of an artist and of those inside it."""
    label: Any = artist.get_label()  # an axis returns a Text
    name = label if isinstance(label, str) and not label.startswith("_") else ""  # matplotlib counts artists without a label
    return [type(artist).__name__, name, artist.get_visible(), _content(artist)]


def _content(artist: Artist) -> list[Any]:
    match artist:
        case Axes():
            titles = [artist.get_title(place) for place in ("left", "center", "right")]
            held = [child for child in artist.get_children() if child is not artist.patch and not isinstance(child, Spine)]
            told = [_told(child) for child in held if not (isinstance(child, Text) and child.get_text() in titles)]
            limits = _numbers([artist.get_xlim(), artist.get_ylim()])
            return [artist.axison, artist.get_xscale(), artist.get_yscale(), limits, titles, told]
        case Axis():
            fixed = isinstance(artist.get_major_locator(), FixedLocator)
            places: list[float] = list(artist.get_majorticklocs()) if fixed else []
            return [artist.get_label_text(), _numbers(places), artist.get_major_formatter().format_ticks(list(places))]
        case Legend():
            keys = [handle for handle in artist.legend_handles if handle is not None]
            names = [text.get_text() for text in [artist.get_title(), *artist.get_texts()]]
            return [names, [_told(key) for key in keys]]
        case Line2D():
            look = [artist.get_linestyle(), str(artist.get_marker()), to_hex(artist.get_color(), keep_alpha=True)]
            return [_numbers(artist.get_xydata()), *look, _numbers(artist.get_linewidth())]
        case Patch():
            corners = artist.get_patch_transform().transform(artist.get_path().vertices)
            return [_numbers(corners), *map(_numbers, (artist.get_facecolor(), artist.get_edgecolor())), artist.get_hatch()]
        case Collection():
            paths = [_numbers(path.vertices) for path in artist.get_paths()]
            colours = [_numbers(artist.get_facecolor()), _numbers(artist.get_edgecolor())]
            return [paths, _numbers(artist.get_offsets()), *colours]
        case AxesImage():
            pixels = np.asarray(artist.get_array(), float)
            return [list(pixels.shape), _numbers(pixels.mean()), _numbers(pixels.std()), artist.get_cmap().name]
        case Text():
            pointed = _numbers(artist.xy) if isinstance(artist, Annotation) else []
            colour = to_hex(artist.get_color(), keep_alpha=True)
            return [artist.get_text(), _numbers(artist.get_unitless_position()), colour, pointed]
        case _:
            return [_told(child) for child in artist.get_children()]


def _numbers(values: Any) -> list[str]:
    """Returns numbers with four digits; what is next to nothing is nothing."""
    flat: list[float] = np.ma.filled(np.ma.asarray(values, float), np.nan).ravel().tolist()
    return ["0" if abs(value) < 1e-9 else f"{value:.4g}" for value in flat]
