"""What the templates share beside instructions: a layer's sums and their bounds, words of small numbers, the call in C.

Byte pairs: the weights of channels A and B for one input as one 16-bit number, 256 * B + A. SMLAD with a word of two such
numbers adds to S_A + 256 * S_B, with SXTB16 of it to S_A alone; their difference is 256 * S_B, exact while |S_B| < PAIR_LIMIT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinyredux.graph import Array, Conv, Graph, TrecConv, Weighted
from tinyredux.int8 import Requantization, requantization
from tinyredux.kernels.asm import requantize
from tinyredux.kernels.asm.forms import Places

PAIR_LIMIT = 2**23  # of a sum of channel B in byte pairs
Fields = Mapping[str, int | str]  # of a struct in C


@dataclass(frozen=True)
class Sums:
    """A layer's sums over raw inputs: `rows` (channels, k) int64 of weights, and what each sum starts from, its `start`."""

    rows: Array
    start: Array
    factors: Requantization

    @property
    def largest(self) -> int:
        """The largest |sum| that any int8 input can reach."""
        return int((np.abs(self.start) + 128 * np.abs(self.rows).sum(axis=1)).max(initial=0))

    def stay_below(self, limit: int) -> bool:
        """Returns whether no sum reaches the limit, all are requantised as `requantize` can, and no weight is -128."""
        return requantize.symmetric(self.rows) and requantize.applies(self.factors) and self.largest < limit


def sums_of(graph: Graph, op: Weighted, channels_last: bool = False) -> Sums:
    """Returns the sums of a layer whose weights lie channel by channel, or with the channels last.

    A sum of raw inputs starts from bias - zero_point * (sum of the channel's weights).
    """
    weights, factors = graph.constants[op.weights].astype(np.int64), requantization(graph, op)
    rows = weights.reshape(-1, weights.shape[-1]).T if channels_last else weights.reshape(len(weights), -1)
    return Sums(rows, graph.constants[op.bias].astype(np.int64) - factors.input_zero_point * rows.sum(axis=1), factors)


def words(values: Array) -> Array:
    """Returns numbers of 32 bits, signed or not, as int32."""
    return (np.asarray(values, np.int64) & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def halves(values: Array) -> Array:
    """Returns (...,) int64 words of two 16-bit numbers each; values: (..., 2), the lower half first."""
    return np.asarray((values[..., 0] & 0xFFFF) | (values[..., 1] & 0xFFFF) << 16)


def paired(values: Array) -> Array:
    """Returns (..., k / 2, 2): of each four of the (..., k) values 0 and 2, then 1 and 3, as SXTB16 delivers inputs."""
    return values.reshape(*values.shape[:-1], -1, 2, 2).swapaxes(-1, -2).reshape(*values.shape[:-1], -1, 2)


def map_fields(graph: Graph, op: Conv | TrecConv) -> dict[str, int | str]:
    """Returns the sizes of a convolution's maps, as fields of a struct in C."""
    (in_h, in_w, in_c), (out_h, out_w, out_c) = graph.tensors[op.inputs[0]].shape, graph.tensors[op.output].shape
    return {"in_h": in_h, "in_w": in_w, "in_c": in_c, "out_h": out_h, "out_w": out_w, "out_c": out_c}


def window_fields(graph: Graph, op: Conv | TrecConv) -> dict[str, int | str]:
    """Returns the sizes of a convolution's maps and its window, as fields of a struct in C."""
    return map_fields(graph, op) | {
        "kernel_h": op.kernel[0], "kernel_w": op.kernel[1], "stride_h": op.stride[0], "stride_w": op.stride[1],
        "pad_top": op.padding[0], "pad_left": op.padding[2],
    }  # fmt: skip


def c_call(kernel: str, struct: str, fields: Fields, arguments: Sequence[str], before: Sequence[str] = ()) -> str:
    """Returns the call of a C kernel, behind the statements `before` and the struct `parameters` with its fields."""
    body = ", ".join(f".{name} = {value}" for name, value in fields.items())
    lines = [*before, f"{struct} parameters = {{{body}}};", f"{kernel}({', '.join(arguments)});"]
    return "{\n" + "".join(f"    {line}\n" for line in lines) + "}"


def kernel_call(kind: str, fields: Fields, before: Sequence[str] = ()) -> Callable[[Places], str]:
    """Returns what writes the call of tr_`kind`_conv_s8 with all arrays of its form, and with words of scratch."""

    def call(places: Places) -> str:
        scratch = f"(int32_t *)(void *)({places.scratch})"
        arguments = [places.out, places.inputs[0], *places.arrays.values(), "&parameters", scratch]
        return c_call(f"tr_{kind}_conv_s8", f"static const struct tr_{kind}", fields, arguments, before)

    return call
