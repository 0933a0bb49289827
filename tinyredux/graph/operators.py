"""A network as data: operators in execution order, tensors in HWC layout, constants by name; batch of one.

Everything between a torch module and C text is a `Graph`. Passes return a new one and never edit their input.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tinyredux.files import require
from tinyredux.tables import as_html

Array = npt.NDArray[Any]
Shape = tuple[int, int, int]  # height, width, channels
Pair = tuple[int, int]  # vertical, horizontal
Place = TypeVar("Place", int, npt.NDArray[np.int64])  # of a row or column, or of many
Padding = tuple[int, int, int, int]  # top, bottom, left, right

THRESHOLDS = ("mean", "zero")  # of a hash bit: the mean projection of an image's rows (ours), or zero (the paper's)
MOST_BITS = 12  # of a hash: the table of codes has 2^H entries
ACTIVATIONS = {"none": (-np.inf, np.inf), "relu": (0.0, np.inf), "relu6": (0.0, 6.0), "relu_n1_to_1": (-1.0, 1.0)}
ROUNDINGS = ("double", "single")  # of a sum on its way to int8: as TFLM and CMSIS-NN do, or as LiteRT's default interpreter does
DETAILS = (
    "kind", "kernel", "stride", "padding", "dilation", "groups", "multiplier", "activation", "sub_length", "hash_bits",
    "threshold", "function", "parameters", "subtract", "heads", "scale", "epsilon", "rows", "inner", "columns",
)  # fmt: skip
UNDILATED = ("dilation", (1, 1))  # goes without saying
ELEMENT_BYTES = {"int8": 1, "float32": 4, "int32": 4}


@dataclass(frozen=True)
class Quant:
    """real = scale * (stored - zero_point); one scale, or one per output channel. Chapter 2."""

    scale: tuple[float, ...]
    zero_point: int


@dataclass(frozen=True)
class Tensor:
    """An activation: (height, width, channels); a vector is (1, 1, channels). Chapter 1."""

    name: str
    shape: Shape
    dtype: str = "float32"
    quant: Quant | None = None

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Size in memory in bytes."""
        return self.elements * ELEMENT_BYTES[self.dtype]


@dataclass(frozen=True)
class Op:
    """One operator: names of its input tensors and of the tensor it writes."""

    name: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Weighted(Op):
    """An operator with weights and bias. `weight_scale` holds one scale per output channel once quantised."""

    weights: str = ""
    bias: str = ""
    activation: str = "none"
    weight_scale: tuple[float, ...] = ()


@dataclass(frozen=True)
class Convolution(Weighted):
    """An operator with weights whose outputs each see a window of the input, every `dilation`-th row and column of it."""

    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    dilation: Pair = field(default=(1, 1), kw_only=True)


@dataclass(frozen=True)
class Conv(Convolution):
    """Convolution; weights (out_c, kernel_h, kernel_w, in_c / groups)."""

    groups: int = 1


@dataclass(frozen=True)
class TrecConv(Convolution):
    """Convolution on cluster means: blocks of `sub_length` columns (ky, kx, channel), clustered by `hash_bits` signs.

    `vectors` names the hash vectors, (1 or one per block, sub_length, hash_bits). Without them each block hashes with its
    own slice of the first `hash_bits` filters (kernel reuse), and those output channels are computed exactly.
    """

    sub_length: int = 1
    hash_bits: int = 1
    threshold: str = "mean"
    vectors: str = ""


@dataclass(frozen=True)
class DepthwiseConv(Convolution):
    """One filter per channel and multiple; weights (kernel_h, kernel_w, in_c * multiplier), output c * multiplier + m."""

    multiplier: int = 1


@dataclass(frozen=True)
class Dense(Weighted):
    """Fully connected; weights (outputs, inputs), the input flattened in HWC order."""


@dataclass(frozen=True)
class Pool(Op):
    """Maximum or average over a window; padding never counts. A "mean" has a scale of its own, and no padding."""

    kind: str = "max"
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Padding = (0, 0, 0, 0)
    activation: str = "none"
    dilation: Pair = field(default=(1, 1), kw_only=True)


@dataclass(frozen=True)
class Add(Op):
    """Sum of two tensors of one shape; with `subtract`, their difference."""

    activation: str = "none"
    subtract: bool = False


@dataclass(frozen=True)
class Mul(Op):
    """Product of two tensors, value by value. The second has the first one's shape, or a value for each channel or each place."""

    activation: str = "none"


@dataclass(frozen=True)
class Concat(Op):
    """Tensors side by side along channels."""


@dataclass(frozen=True)
class Rearrange(Op):
    """Values at other places: crops, splits, strides, nearest upsampling, pixel shuffle, channel shuffle, maps between zeros.

    Output row i is input row start + (i + phase) // repeat * step, columns alike; with `zeros` only the first of `repeat` rows
    and columns, the others are 0. Output channel c is number (c % groups) * (channels / groups) + c // groups of `channels` from
    `first_channel` on; with `blocks` number c * repeat * repeat + (place within the repeated pixel), as torch's pixel_shuffle.
    """

    size: Pair = (1, 1)
    channels: int = 1  # of the output
    start: Pair = (0, 0)
    step: Pair = (1, 1)
    repeat: Pair = (1, 1)
    phase: Pair = (0, 0)
    first_channel: int = 0
    groups: int = 1
    blocks: bool = False
    zeros: bool = False


@dataclass(frozen=True)
class Bilinear(Op):
    """A map at other sizes, each value the mean of its four nearest, weighted by how near they are; `int8.bilinear` rounds it.

    Output row i, of `size` from number `first` on, lies at input row i * `step`, with `half_pixel` at (i + 1/2) * step - 1/2,
    within 0 .. `extent` - 1 (the whole input's rows); columns alike. `even`: halves go to even, as ONNX Runtime stores them.
    """

    size: Pair = (1, 1)
    extent: Pair = (1, 1)
    step: tuple[float, float] = (1.0, 1.0)
    half_pixel: bool = False
    even: bool = False
    first: Pair = (0, 0)


@dataclass(frozen=True)
class Recall(Op):
    """A map that slides by rows: its inputs one below another, and above the last of them the rows that `state` held when the
    last run ended. `state` is a tensor that a later operator of the same graph writes. Chapter 15."""

    state: str = ""


@dataclass(frozen=True)
class Relu(Op):
    """A clamp that could not be fused into its producer."""

    activation: str = "relu"


@dataclass(frozen=True)
class Lookup(Op):
    """A function of each value, one of FUNCTIONS with its parameters; of stored values, a table of 256. May rescale.

    `even`: its results are stored as ONNX Runtime and torch store them, divided by the scale, halves to even.
    """

    function: str = "identity"
    parameters: tuple[float, ...] = ()
    even: bool = False


@dataclass(frozen=True)
class Softmax(Op):
    """Softmax over channels, at each position."""


@dataclass(frozen=True)
class LayerNorm(Op):
    """(x - mean) / sqrt(variance + epsilon) over the channels of each place; the factors and constants that torch's has for each
    channel are a layer with weights behind it. Source: Ba et al., arXiv 1607.06450."""

    epsilon: float = 1e-5


@dataclass(frozen=True)
class Attention(Op):
    """Scaled dot-product attention of maps of queries, keys and values, whose places are tokens: head h has the h-th of `heads`
    equal parts of each one's channels. The output lies as the queries do, with the values' channels.

    `bias` names a constant (heads or 1, queries, keys) that is added to the scores once scaled, minus infinity where a query does
    not see a key; none without a name. Quantised it is int8, -128 where a key is not seen, each step `bias_step` of the scores'
    (scale * the queries' scale * the keys'); what is the same for all keys of a query changes nothing, so a row's largest is 127.

    Source: Vaswani et al., arXiv 1706.03762, section 3.2.
    """

    heads: int = 1
    scale: float = 1.0  # of the scores, which softmax then takes over the keys
    bias: str = ""
    bias_step: int = 0


@dataclass(frozen=True)
class MatMul(Op):
    """Products of matrices, one of each of `heads`, whose values lie anywhere in two maps: `scale` times left times right.

    The value of head h, row i and number k of the left one is number left[0] + h left[1] + i left[2] + k left[3] of its map, in
    its order of rows, columns and channels; that of head h, k and column j of the right one alike. The output holds matrix after
    matrix in the same order; if `beside`, the rows of all heads side by side.
    """

    heads: int = 1
    rows: int = 1
    inner: int = 1
    columns: int = 1
    left: tuple[int, int, int, int] = (0, 0, 0, 0)
    right: tuple[int, int, int, int] = (0, 0, 0, 0)
    size: Pair = (1, 1)  # rows and columns of the output
    beside: bool = False
    scale: float = 1.0


@dataclass(frozen=True)
class Extend(Op):
    """The places of a map one below another, (height * width, 1, channels), with some before and behind that are the same in
    every run, such as class tokens: constant `values` (places, channels), the first `before` of which come first."""

    values: str = ""
    before: int = 0


@dataclass(frozen=True)
class AddConstant(Op):
    """A map plus one that is the same in every run, such as a position embedding: constant `values` (height, width, channels).
    With `subtract`, less this one."""

    values: str = ""
    values_quant: Quant | None = None  # of the constant, once quantised
    activation: str = "none"
    subtract: bool = False


@dataclass(frozen=True, repr=False)
class Graph:
    """Operators in execution order, with every tensor and constant that they name. Chapter 1.

    Of several outputs the first is the answer: labels, skipping and training look at it alone.
    """

    name: str
    ops: tuple[Op, ...]
    tensors: dict[str, Tensor]
    constants: dict[str, Array]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    origin: dict[str, str] = field(default_factory=dict)  # operator name -> path in the torch module
    rounding: str = "double"  # of an int8 graph, one of ROUNDINGS
    window: int = 0  # of a stream: the rows of the window, of which `input` are the newest; 0: a run knows nothing of others

    def __post_init__(self) -> None:
        """Rejects a rounding that does not exist."""
        require(self.rounding in ROUNDINGS, f"rounding is {self.rounding!r}, expected one of {', '.join(ROUNDINGS)}")

    def rows(self) -> list[tuple[str, ...]]:
        """Returns a row of text for each operator: what it writes, the shape of that, what it is, and what it reads."""
        lines: list[tuple[str, ...]] = []
        for op in self.ops:
            known = ((key, getattr(op, key)) for key in DETAILS if hasattr(op, key))
            detail = ", ".join(f"{key}={value}" for key, value in known if (key, value) != UNDILATED)
            lines.append((op.output, str(self.tensors[op.output].shape), type(op).__name__, ", ".join(op.inputs), detail))
        return lines

    def __repr__(self) -> str:
        """Returns the graph as text, one line an operator."""
        lines = [f"graph {self.name}: {self.input.name} {self.input.shape} {self.input.dtype}"]
        for output, shape, kind, inputs, detail in self.rows():
            lines.append(f"  {output} {shape} = {kind}({inputs}{', ' if detail else ''}{detail})")
        return "\n".join(lines + ([f"  outputs {', '.join(self.outputs)}"] if len(self.outputs) > 1 else []))

    def _repr_html_(self) -> str:
        return as_html(self.rows(), ("output", "height, width, channels", "operator", "inputs", "parameters"))

    @cached_property
    def by_name(self) -> dict[str, Op]:
        """The operators by their names."""
        return {op.name: op for op in self.ops}

    @property
    def states(self) -> tuple[str, ...]:
        """The tensors that a run leaves to the next one; none for a network whose runs know nothing of each other."""
        return tuple(op.state for op in self.ops if isinstance(op, Recall))

    @property
    def pushes(self) -> int:
        """How many runs it takes until the first output counts: those of a stream that fill its window."""
        return max(1, -(-self.window // self.input.shape[0]))

    @property
    def input(self) -> Tensor:
        """The network's only input."""
        return self.tensors[self.inputs[0]]

    @property
    def output(self) -> Tensor:
        """The network's only output, or the first."""
        return self.tensors[self.outputs[0]]

    @property
    def results(self) -> tuple[Tensor, ...]:
        """The network's outputs."""
        return tuple(self.tensors[name] for name in self.outputs)

    @property
    def joined_shape(self) -> Shape:
        """The shape of an only output; of several, that of all their values one after the other."""
        return self.output.shape if len(self.outputs) == 1 else (1, 1, sum(tensor.elements for tensor in self.results))

    def producer(self, tensor: str) -> Op | None:
        """Returns the operator that writes a tensor, None for the network's input."""
        return next((op for op in self.ops if op.output == tensor), None)

    def consumers(self, tensor: str) -> list[Op]:
        """Returns the operators that read a tensor."""
        return [op for op in self.ops if tensor in op.inputs]

    def with_ops(self, ops: Iterable[Op], **changes: Any) -> Graph:
        """Returns this graph with other operators (and other fields, by name)."""
        return replace(self, ops=tuple(ops), **changes)


Windowed = Convolution | Pool  # the operators whose outputs see windows
