"""What a network is: tensors, operators, constants, and the rules that a graph keeps.

`operators` holds the dataclasses of the operators, `constants` says which they name, `shapes` what they give and see, `rules` the
check `verify`; `functions` what a Lookup may compute of each value; `results` joins several outputs to one array and takes them
apart; `dead_channels` removes the channels that nobody reads. Every other package works on a Graph and returns a new one.
Chapter 1 prints one.
"""

from __future__ import annotations

from tinyredux.graph.constants import constant_names, weights_of
from tinyredux.graph.dead_channels import MULTIPLE, live_channels, without_dead_channels
from tinyredux.graph.describe import macs, total_macs
from tinyredux.graph.functions import FUNCTIONS, apply
from tinyredux.graph.limits import STACK, check_input_shape, check_most
from tinyredux.graph.operators import (
    ACTIVATIONS,
    MOST_BITS,
    ROUNDINGS,
    Add,
    AddConstant,
    Array,
    Attention,
    Bilinear,
    Concat,
    Conv,
    Convolution,
    Dense,
    DepthwiseConv,
    Extend,
    Graph,
    LayerNorm,
    Lookup,
    MatMul,
    Mul,
    Op,
    Padding,
    Pair,
    Pool,
    Quant,
    Rearrange,
    Recall,
    Relu,
    Shape,
    Softmax,
    Tensor,
    TrecConv,
    Weighted,
    Windowed,
)
from tinyredux.graph.results import apart, joined
from tinyredux.graph.rules import verify
from tinyredux.graph.shapes import dilated, extent, output_shape, resized, seen, taken, taps_inside, window_outputs

__all__ = [
    "ACTIVATIONS", "FUNCTIONS", "MOST_BITS", "MULTIPLE", "ROUNDINGS", "STACK", "Add", "AddConstant", "Array", "Attention",
    "Bilinear", "Concat", "Conv", "Convolution", "Dense", "DepthwiseConv", "Extend", "Graph", "LayerNorm", "Lookup", "MatMul",
    "Mul", "Op", "Padding", "Pair", "Pool", "Quant", "Rearrange", "Recall", "Relu", "Shape", "Softmax", "Tensor", "TrecConv",
    "Weighted", "Windowed", "apart", "apply", "check_input_shape", "check_most", "constant_names", "dilated", "extent", "joined",
    "live_channels", "macs", "output_shape", "resized", "seen", "taken", "taps_inside", "total_macs", "verify", "weights_of",
    "window_outputs", "without_dead_channels",
]  # fmt: skip
