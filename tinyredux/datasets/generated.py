"""A generated ten-class set of 32x32 colour images: what the book runs on where CIFAR-10 is not.

Each image shows one figure of random place, size and colours on a sloping background, with small blots and noise.
The class is the figure's shape alone. Whether a pixel is light or dark says nothing about it, so a linear model does
badly, while a convolutional network sees edges and corners wherever they are.

The arithmetic is on integers and starts from the raw words of PCG64, a stream that NumPy promises to keep (it makes no
such promise for `Generator.normal` and its like). So every machine makes the same pixels.
"""

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int16]

SIZE = 32
CLASS_NAMES = (
    "disc", "ring", "square", "frame", "diamond", "triangle", "plus", "cross", "horizontal stripes", "vertical stripes",
)  # fmt: skip
BLOTS = 3
NOISE = 32  # greatest change of a pixel by noise, in 1/255


class Draws:
    """Random integers, the same on every machine."""

    def __init__(self, seed: int) -> None:
        self._words = np.random.PCG64(seed)

    def integers(self, low: int, high: int, *shape: int) -> Integers:
        """Returns integers from `low` to `high`, both included."""
        words = self._words.random_raw(int(np.prod(shape))) >> np.uint64(40)
        return np.asarray(words % np.uint64(high - low + 1), np.int16).reshape(shape) + np.int16(low)

    def small(self, count: int) -> npt.NDArray[np.uint16]:
        """Returns `count` integers from 0 to 65535, four to a word."""
        words = self._words.random_raw(-(-count // 4)).astype("<u8")
        return words.view("<u2")[:count].astype(np.uint16)


def pixels_and_labels(count: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Returns pixels (count, 32, 32, 3) uint8 and labels (count,): every class equally often, in random order."""
    draws = Draws(seed)
    labels = (np.arange(count) % len(CLASS_NAMES))[np.argsort(draws.small(count), kind="stable")]
    background = draws.integers(56, 199, count, 1, 1, 3)
    slope = draws.integers(-24, 24, count, 2, 1, 1)
    y, x = np.arange(SIZE, dtype=np.int16)[:, None], np.arange(SIZE, dtype=np.int16)
    plane = (slope[:, 0] * (y - SIZE // 2) + slope[:, 1] * (x - SIZE // 2)) // 16
    pixels = np.asarray(background + plane[..., None], np.int16)
    for _ in range(BLOTS):
        spot = _around(draws, count, 0, SIZE - 1)
        blot = np.maximum(np.abs(spot[0]), np.abs(spot[1])) <= draws.integers(1, 2, count, 1, 1)
        pixels += blot[..., None] * _contrast(draws, count)
    pixels += _figures(draws, labels)[..., None] * _contrast(draws, count)
    noise = (draws.small(pixels.size) % np.uint16(2 * NOISE + 1)).astype(np.int16) - np.int16(NOISE)
    return np.clip(pixels + noise.reshape(pixels.shape), 0, 255).astype(np.uint8), labels.astype(np.int64)


def _contrast(draws: Draws, count: int) -> Integers:
    """Returns what a figure adds to the background, (count, 1, 1, 3): lighter or darker in each colour by itself."""
    sign = np.int16(2) * draws.integers(0, 1, count, 1, 1, 3) - np.int16(1)
    return np.asarray(sign * draws.integers(24, 88, count, 1, 1, 3), np.int16)


def _around(draws: Draws, count: int, low: int, high: int) -> tuple[Integers, Integers]:
    """Returns the rows' and the columns' distances, (count, 32, 1) and (count, 1, 32), from a random centre."""
    centre_y, centre_x = draws.integers(low, high, count, 1, 1), draws.integers(low, high, count, 1, 1)
    grid = np.arange(SIZE, dtype=np.int16)
    return grid[:, None] - centre_y, grid - centre_x


def _figures(draws: Draws, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Returns (N, 32, 32): True where the figure of each image covers the pixel."""
    count = len(labels)
    radius, width = draws.integers(5, 11, count, 1, 1), draws.integers(2, 3, count, 1, 1)
    y, x = _around(draws, count, 9, SIZE - 10)
    far, sum_of_squares = np.maximum(np.abs(y), np.abs(x)), y * y + x * x
    inside = far <= radius
    phase = draws.integers(0, 5, count, 1, 1)
    shapes = (
        sum_of_squares <= radius * radius,
        (sum_of_squares <= radius * radius) & (sum_of_squares > (radius - width) ** 2),
        inside,
        inside & (far > radius - width),
        np.abs(y) + np.abs(x) <= radius + 1,
        inside & (2 * np.abs(x) <= y + radius),
        inside & (2 * np.minimum(np.abs(y), np.abs(x)) <= width + 1),
        inside & (np.abs(np.abs(y) - np.abs(x)) <= width - 1),
        inside & ((y + phase + SIZE) % (2 * width) < width),
        inside & ((x + phase + SIZE) % (2 * width) < width),
    )
    return np.choose(np.broadcast_to(labels[:, None, None], inside.shape), shapes)
