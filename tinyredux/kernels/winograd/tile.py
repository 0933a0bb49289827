"""The arithmetic of exact integer Winograd convolution: transforms of kernels, bounds, and the layout of the data.

A tile of n x n inputs gives m x m outputs of an r x r kernel, m = n - r + 1, from n^2 products instead of m^2 r^2: with n = 6
3x3 kernels take 2.25 products an output instead of 9, 5x5 kernels 9 instead of 25. Points 0, 1, -1, infinity (n = 4) and also
2, -2 (n = 6). Everything is whole numbers: the kernel's transform G is scaled so that an output arrives times 2 (n = 4) or 24
(n = 6) along either axis. int32 arithmetic is exact modulo 2^32, so the sums between may wrap; the factor 9 of 24 * 24 is
taken off by its inverse modulo 2^32 and the power of two by a shift, exact while |output| * 2^k < 2^32 / 2 - checked from the
weights for every input. No rounding happens before requantisation.

Inputs are x + 128, two channels in a word, low + 65536 * high: sums, differences and multiples of such words are plain 32-bit
instructions. At the end the halves are told apart by adding 2^15 to the low one (planted in a few inputs of the tile, where it
reaches each value once) and inverting bit 15. Their range is [-12750, 17340], that of int16 halves for SMLAD.

Transformed weights are int16; where one needs more (5x5 at 2 x 2 of the 36 places), it is split as 256 * high + low and
the place computed twice.

Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308, section 4; the integer form: ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinyredux.graph import Array
from tinyredux.kernels.asm import requantize
from tinyredux.kernels.asm.layers import Sums, halves, paired, words

TILES = 4  # worked on together: an inner step is 2 channels x 4 tiles
STEPS_MAX = 8  # in one round of the inner loop
SPLIT_BITS = 8


@dataclass(frozen=True)
class Tile:
    """Sizes of the transform: n x n inputs, r x r kernel, m x m outputs."""

    n: int
    r: int

    @property
    def m(self) -> int:
        """Outputs along an axis."""
        return self.n - self.r + 1

    @property
    def places(self) -> int:
        """Values in a transformed tile."""
        return self.n * self.n

    @property
    def kernel_transform(self) -> Array:
        """G, (n, r): the kernel's values at the points, scaled to whole numbers."""
        scale, points = (1, (1, -1)) if self.n == 4 else (3, (1, -1, 2, -2))
        ends, powers = scale * np.eye(self.r, dtype=np.int64), np.vander(points, self.r, increasing=True)
        powers[:2] *= 2 - scale
        return np.vstack([ends[:1], powers, ends[-1:]])

    def scale_bits(self, i: int) -> int:
        """Returns k: output i along an axis arrives times 2^k (times 3 where n is 6)."""
        return 1 if self.n == 4 else 3 - min(i, 2)

    @property
    def output_limit(self) -> int:
        """Sums of |output| up to this, exclusive, survive the scaling."""
        return int(2 ** (31 - 2 * self.scale_bits(0)))


@dataclass(frozen=True)
class Layer:
    """A convolution's tile, channels, and the places whose weights are split."""

    tile: Tile
    in_c: int
    out_c: int
    split: tuple[int, ...] = ()

    @property
    def products(self) -> int:
        """Places that are multiplied: split ones count twice."""
        return self.tile.places + len(self.split)

    @property
    def pairs(self) -> int:
        """Words that hold one pixel's channels."""
        return self.in_c // 2

    @property
    def steps(self) -> int:
        """Steps in a round of the inner loop."""
        return max(step for step in range(1, STEPS_MAX + 1) if self.pairs % step == 0)

    @property
    def group_words(self) -> int:
        """Words of two channels' data: weights, then start value, multiplier and shift of each."""
        return 2 * self.products * self.pairs + 6

    @property
    def groups(self) -> int:
        """Pairs of output channels; the last overlaps its neighbour where their number is odd."""
        return -(-self.out_c // 2)

    @property
    def step_bytes(self) -> int:
        """Bytes of one word of `TILES` transformed tiles."""
        return 4 * TILES * self.products


def transformed(tile: Tile, weights: Array) -> Array:
    """Returns (n, n, out_c, in_c) int64, G w G^T of weights (out_c, r, r, in_c)."""
    g = tile.kernel_transform
    return np.asarray(np.einsum("ai,oijc,bj->aboc", g, weights.astype(np.int64), g, optimize=True), np.int64)


def split_places(values: Array) -> tuple[int, ...]:
    """Returns the places, row by row, at which a transformed weight exceeds int16."""
    n = len(values)
    largest = np.abs(values).reshape(n * n, -1).max(axis=1)
    return tuple(int(place) for place in np.flatnonzero(largest > 32767))


def largest_output(weights: Array) -> int:
    """Returns the largest |sum| of weights times inputs of 0 to 255 over the channels."""
    flat = weights.astype(np.int64).reshape(len(weights), -1)
    return int(255 * np.maximum(flat.clip(0).sum(axis=1), -flat.clip(None, 0).sum(axis=1)).max())


def data(layer: Layer, values: Array, sums: Sums) -> Array:
    """Returns (groups, group_words) int32 of a layer; values: `transformed`. Sums start from twice what inputs x + 128 want."""
    n, _, out_c, in_c = values.shape
    flat = values.reshape(n * n, out_c, in_c)
    low = flat.copy()
    for place in layer.split:
        low[place] = (flat[place] + 128) % 256 - 128
    places = np.concatenate([low, (flat - low)[list(layer.split)] >> SPLIT_BITS])
    pairs = halves(paired(places))  # (places, out_c, in_c / 2): UXTB16 delivers channels as SXTB16 does
    weights = pairs[:, channels_of(layer)].transpose(1, 0, 3, 2).reshape(layer.groups, -1)
    return np.hstack([words(weights), _ends(layer, sums)])


def bytes_of(layer: Layer, weights: Array, sums: Sums) -> Array:
    """Returns (groups, words) int32 of a layer as `unpack_function` reads it, a byte a weight; weights: (out_c, 3, 3, in_c).

    Of a channel: for each two inputs four words, of two weights of both each; then the last weights of all. The end as `data`.
    """
    flat = weights.astype(np.int8).reshape(layer.out_c, 9, layer.in_c)
    taps = paired(flat).swapaxes(1, 2)  # (out_c, in_c / 2, 9, 2)
    twos = taps[:, :, :8].reshape(layer.out_c, layer.pairs, 4, 2, 2).swapaxes(-1, -2)  # in a byte each, as SXTB16 takes them
    rows = np.hstack([part.reshape(layer.out_c, -1) for part in (twos, taps[:, :, 8])])
    return np.hstack([rows[channels_of(layer)].reshape(layer.groups, -1).view(np.int32), _ends(layer, sums)])


def channels_of(layer: Layer) -> Array:
    """Returns (groups, 2): the output channels of each group."""
    return np.minimum(2 * np.arange(layer.groups), layer.out_c - 2)[:, None] + np.arange(2)


def _ends(layer: Layer, sums: Sums) -> Array:
    """Returns (groups, 6) int32: start value, multiplier and shift of both channels."""
    ends = np.column_stack([2 * (sums.start - 128 * sums.rows.sum(axis=1)), requantize.constants(sums.factors)])
    return words(ends[channels_of(layer)].reshape(layer.groups, -1))
