"""How large a network may be: what no microcontroller could hold is refused before anything is computed."""

from __future__ import annotations

import math
import reprlib

from tinyredux.files import require

Shape = tuple[int, int, int]  # channels, height, width
MOST = {"parts": 600, "values": 1 << 21, "rows, columns or channels": (1 << 16) - 1, "weights": 1 << 25}  # of a network
STACK = "stack several inputs along the channels of one (torch.cat) and cut them apart inside, as images[:, :3] does"
LARGEST_INPUT = 1 << 20  # values; more than any microcontroller holds, and few enough to calibrate with on a laptop


def check_input_shape(shape: object, name: str) -> Shape:
    """Returns `input_shape` of a network, (channels, height, width). Raises ValueError for anything else."""
    sizes = shape if isinstance(shape, tuple) and len(shape) == 3 else ()
    if not sizes or not all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes):
        raise ValueError(
            f"{name}: input_shape is {reprlib.repr(shape)}; give (channels, height, width), "
            f"or the module an attribute input_shape that says so{_as_image(shape)}"
        )
    small = math.prod(sizes) <= LARGEST_INPUT
    require(small, f"{name}: input_shape is {reprlib.repr(shape)}, expected at most {LARGEST_INPUT:,} values")
    return sizes[0], sizes[1], sizes[2]


def _as_image(shape: object) -> str:
    """Returns how an input of another form goes as an image; empty where the shape says nothing."""
    sizes = shape if isinstance(shape, tuple) else ()
    if any(isinstance(size, tuple | list) for size in sizes):
        return f": {STACK}"
    forms = {
        1: "n values are (n, 1, 1)",
        2: "a signal (channels, length) is (channels, 1, length)",
        4: "leave the images' number out",
    }
    return f": {forms[len(sizes)]}" if len(sizes) in forms else ""


def check_most(name: str, size: int, what: str, where: str = "") -> None:
    """Raises ValueError for a size of a network that no microcontroller could hold, nor a minute plan."""
    place = where and f" in {where}"
    require(size <= MOST[what], f"{name}: {size:,} {what}{place}, expected at most {MOST[what]:,}; take a smaller network")
