"""The door for torch programs that PT2E has quantised: their quantize and dequantize pairs are those of ONNX's QDQ form.

Each call of torch is said in ONNX's words; `qdq` then makes the graph, by the same table as for ONNX files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.export.graph_signature import OutputKind

from tinyredux.files import first_line, require
from tinyredux.frontends.builder import arguments, pair, place
from tinyredux.frontends.qdq import Network, Node, graph_of
from tinyredux.frontends.qdq.values import Loader
from tinyredux.graph import STACK, Array, Graph, Shape

PAIRS = "quantized_decomposed"
QUANTISE = "quantise it with prepare_pt2e and convert_pt2e, or give the module itself: tr.export, then tr.quantize"
SAME = ("dropout", "alias", "contiguous", "clone", "detach", "to", "_to_copy", "lift_fresh_copy")
SHAPES = ("flatten", "unflatten", "view", "reshape", "squeeze", "unsqueeze", "_unsafe_view")


def kind_of(node: fx.Node) -> str:
    """Returns the name of what a node calls, without overload."""
    return getattr(node.target, "__name__", str(node.target)).split(".")[0]


def quantised_program(module: object, shape: Shape | None, name: str) -> torch.export.ExportedProgram | None:
    """Returns torch's program of what PT2E has quantised: a program, or a converted module; None for any other module.

    Raises ValueError for a program in floating point, and for a converted module that cannot be traced.
    """
    if isinstance(module, torch.export.ExportedProgram):
        require(_has_pairs(module.graph), f"{name} is a program in floating point; {QUANTISE}")
        return module
    if not isinstance(module, fx.GraphModule) or not _has_pairs(module.graph):
        return None
    sizes = getattr(module, "input_shape", None) if shape is None else shape
    require(sizes, f"{name} has no input_shape; give it beside the module: (channels, height, width)")
    try:
        return torch.export.export(module, (torch.zeros(1, *sizes),))  # type: ignore[misc]
    except Exception as failure:
        said = f"{name}: torch.export cannot trace it for an input of {(1, *sizes)}: {first_line(failure)}"  # type: ignore[misc]
        raise ValueError(said) from failure


def _has_pairs(graph: fx.Graph) -> bool:
    return any(getattr(node.target, "namespace", "") == PAIRS for node in graph.nodes)


def from_program(program: torch.export.ExportedProgram, name: str = "net") -> Graph:
    """Returns the int8 Graph of a program that PT2E has quantised, rounded once, as it is in torch's floating point.

    Raises ValueError for several inputs, and for calls that no kernel computes: all of them, each with its place.
    """
    return replace(with_names(program, name)[0], rounding="single")


def with_names(program: torch.export.ExportedProgram, name: str) -> tuple[Graph, Loader]:
    """Returns the graph of `from_program`, and how it was built."""
    inputs, signature = program.graph_signature.user_inputs, program.graph_signature
    outputs = [spec for spec in signature.output_specs if spec.kind is OutputKind.USER_OUTPUT]
    require(len(inputs) == 1, f"{name} has {len(inputs)} inputs ({', '.join(map(str, inputs))}), expected one; {STACK}")
    held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    values = {**program.constants, **program.state_dict}
    constants = {key: values[target].detach().cpu().numpy() for key, target in held.items()}
    sizes, nodes = tuple[int, ...](), list[Node]()
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name == inputs[0]:
            sizes = tuple(size if isinstance(size, int) else 1 for size in node.meta["val"].shape)
        elif node.op == "call_function":
            nodes += _Writer(node, constants).nodes()
    network = Network(
        tuple(nodes), constants, str(inputs[0]), sizes, "float32", tuple(str(spec.arg.name) for spec in outputs), _refuse
    )
    return graph_of(network, name, name, QUANTISE)


def _refuse(node: Node, values: list[Array | None]) -> list[Array]:
    raise ValueError("it computes a weight while running, expected weights held as parameters or constants")


class _Writer:
    """One call of torch on its way to ONNX's words; numbers that it holds become constants."""

    def __init__(self, node: fx.Node, constants: dict[str, Array]) -> None:
        self.node, self.constants = node, constants

    def nodes(self) -> Iterator[Node]:
        """Yields what stands for the call, usually one node."""
        name = kind_of(self.node)
        kind = name.rstrip("_") if not name.startswith("_") else name
        source = next(iter(self.node.all_input_nodes), None)
        if name != kind and source is not None and len(source.users) > 1:
            yield self.write(f"{name} on a tensor that is read again")
        elif kind == "getitem":
            yield self.write("Identity", f"{source}.{self.node.args[1]}")
        elif kind in SAME or (kind in SHAPES and self.shape(self.node) == self.shape(source)):
            yield self.write("Identity", self.node.args[0])
        elif kind in SHAPES:
            yield self.write("Reshape", self.node.args[0], np.array(self.shape(self.node), np.int64))
        elif kind in CALLS:
            yield CALLS[kind](self)
        elif kind != "_assert_tensor_metadata":
            yield self.write(kind, *self.node.all_input_nodes)

    def shape(self, node: Any) -> tuple[int, ...]:
        """Returns torch's shape of a value, or of the first of several."""
        value = node.meta["val"]
        return tuple((value[0] if isinstance(value, tuple | list) else value).shape)

    def given(self, /, **defaults: Any) -> list[Any]:
        """Returns arguments by their names in torch, with defaults for None."""
        return arguments(self.node, **defaults)

    def name_of(self, value: Any) -> str:
        """Returns the name of a value: a node's, that of numbers which are held from now on, or none for None."""
        if value is None or isinstance(value, str):
            return value or ""
        if isinstance(value, fx.Node):
            return value.name
        name = f"{self.node.name}.held{len(self.constants)}"
        self.constants[name] = np.asarray(value) if isinstance(value, np.ndarray) else np.asarray(value, np.float32)
        return name

    def write(self, kind: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Node:
        """Returns a node of ONNX's kind."""
        names = (self.node.name,) if outputs == 1 else tuple(f"{self.node.name}.{i}" for i in range(outputs))
        return Node(place(self.node), kind, tuple(map(self.name_of, inputs)), names, attributes)


def _pair_of(call: _Writer) -> Node:
    """Quantize and dequantize, by tensor or by channel."""
    channels = "channel" in kind_of(call.node)
    dtype = np.dtype(str(call.given(dtype=torch.int8)[0]).split(".")[-1])
    value, low, high = call.given(input=None, quant_min=None, quant_max=None)
    scale, point = call.given(scales=None, zero_points=None) if channels else call.given(scale=None, zero_point=None)
    ends = np.iinfo(dtype)
    kind = "QuantizeLinear" if kind_of(call.node).startswith("quantize") else "DequantizeLinear"
    if (low, high) != (ends.min, ends.max) and kind == "QuantizeLinear" and not channels:
        return call.write(f"quantize_per_tensor to {low} .. {high} of {dtype}")
    if isinstance(point, fx.Node):
        call.constants[point.name] = call.constants[point.name].astype(dtype)
    else:
        point = np.array(point, dtype)
    return call.write(kind, value, scale, point, axis=int(call.given(axis=0)[0] if channels else 0))


def _conv(call: _Writer) -> Node:
    value, weight, bias, stride, padding, dilation, groups = call.given(
        input=None, weight=None, bias=None, stride=1, padding=0, dilation=1, groups=1
    )
    rank = len(call.shape(call.node)) - 2
    steps, holes = (list(pair(one))[-rank:] for one in (stride, dilation))
    more: dict[str, Any] = {"auto_pad": "SAME_UPPER" if padding == "same" else "NOTSET"}
    if not isinstance(padding, str):
        more["pads"] = list(pair(padding))[-rank:] * 2
    return call.write("Conv", value, weight, bias, strides=steps, dilations=holes, group=groups, **more)


def _pool(call: _Writer) -> Node:
    value, kernel, stride, padding, dilation, ceil, counts, divisor = call.given(
        **{"self": None}, kernel_size=None, stride=None, padding=0, dilation=1, ceil_mode=False, count_include_pad=True,
        divisor_override=None,
    )  # fmt: skip
    if divisor is not None:
        return call.write("avg_pool2d with divisor_override")
    kind = "MaxPool" if "max" in kind_of(call.node) else "AveragePool"
    return call.write(
        kind, value, kernel_shape=list(pair(kernel)), strides=list(pair(stride or kernel)), pads=list(pair(padding)) * 2,
        dilations=list(pair(dilation)), ceil_mode=int(ceil), count_include_pad=int(counts),
    )  # fmt: skip


def _adaptive(call: _Writer) -> Node:
    before, after = call.shape(call.node.args[0])[2:], call.shape(call.node)[2:]
    if any(size % part for size, part in zip(before, after, strict=True)):
        return call.write(f"adaptive_avg_pool2d of {before} to {after}")
    kernel = [size // part for size, part in zip(before, after, strict=True)]
    return call.write("AveragePool", call.node.args[0], kernel_shape=kernel, strides=kernel, pads=[0, 0, 0, 0])


def _clip(low: str, high: str) -> Callable[[_Writer], Node]:
    def made(call: _Writer) -> Node:
        ends = call.given(**{low: -1.0, high: 1.0} if low == "min_val" else {low: -np.inf, high: np.inf})
        return call.write("Clip", call.node.args[0], min=float(ends[0]), max=float(ends[1]))

    return made


def _binary(kind: str) -> Callable[[_Writer], Node]:
    def made(call: _Writer) -> Node:
        left, right, alpha = call.given(**{"self": None, "other": None, "alpha": 1})
        return call.write(kind if alpha == 1 else f"{kind} scaled by {alpha}", left, right)

    return made


def _unary(kind: str, **names: str) -> Callable[[_Writer], Node]:
    """Returns what says a function of one value: ONNX's names of its parameters, and torch's."""

    def made(call: _Writer) -> Node:
        found = {key: call.given(**{name: None})[0] for key, name in names.items()}
        return call.write(kind, call.node.args[0], **{key: value for key, value in found.items() if value is not None})

    return made


def _softmax(call: _Writer) -> Node:
    return call.write("Softmax", call.node.args[0], axis=call.given(dim=-1)[0])


def _mean(call: _Writer) -> Node:
    axes, keep = call.given(dim=None, keepdim=False)
    axes = [axes] if isinstance(axes, int) else list(axes or range(len(call.shape(call.node.args[0]))))
    return call.write("ReduceMean", call.node.args[0], axes=axes, keepdims=int(keep))


def _permute(call: _Writer) -> Node:
    order = list(range(len(call.shape(call.node))))
    if kind_of(call.node) == "permute":
        order = [int(axis) % len(order) for axis in call.given(dims=None)[0]]
    else:
        one, other = call.given(dim0=0, dim1=0)
        order[one], order[other] = order[other], order[one]
    return call.write("Transpose", call.node.args[0], perm=order)


def _pad(call: _Writer) -> Node:
    sides, mode, value = call.given(pad=None, mode="constant", value=0.0)
    rank = len(call.shape(call.node))
    axes = [rank - 1 - i for i in range(len(sides) // 2)]
    both = np.array([*sides[::2], *sides[1::2]], np.int64)
    return call.write("Pad", call.node.args[0], both, np.array(value, np.float32), np.array(axes), mode=mode)


def _slice(call: _Writer) -> Node:
    axis, start, end, step = call.given(dim=0, start=0, end=np.iinfo(np.int64).max, step=1)
    return call.write("Slice", call.node.args[0], *(np.array([one], np.int64) for one in (start, end, axis, step)))


def _split(call: _Writer) -> Node:
    axis = call.given(dim=0)[0]
    counts = [value.shape[axis] for value in call.node.meta["val"]]
    return call.write("Split", call.node.args[0], np.array(counts, np.int64), outputs=len(counts), axis=axis)


def _upsample(call: _Writer) -> Node:
    sizes = np.array(call.shape(call.node), np.int64)
    modes: dict[str, Any] = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return call.write("Resize", call.node.args[0], None, None, sizes, mode="nearest", **modes)


def _bilinear(call: _Writer) -> Node:
    align, factors = call.given(align_corners=False, scale_factors=None)
    scales, sizes = (np.array([1, 1, *factors]), None) if factors else (None, np.array(call.shape(call.node), np.int64))
    mode = "align_corners" if align else "half_pixel"
    return call.write("Resize", call.node.args[0], None, scales, sizes, mode="linear", coordinate_transformation_mode=mode)


def _batch_norm(call: _Writer) -> Node:
    value, *numbers, epsilon = call.given(input=None, weight=1.0, bias=0.0, running_mean=None, running_var=None, eps=1e-5)
    return call.write("BatchNormalization", value, *numbers, epsilon=epsilon)


CALLS: dict[str, Callable[[_Writer], Node]] = {
    **dict.fromkeys(("quantize_per_tensor", "quantize_per_channel", "dequantize_per_tensor", "dequantize_per_channel"), _pair_of),
    **dict.fromkeys(("conv1d", "conv2d"), _conv), "relu": _unary("Relu"),
    "relu6": lambda call: call.write("Clip", call.node.args[0], min=0.0, max=6.0),
    "linear": lambda call: call.write("Gemm", *call.given(input=None, weight=None, bias=None), transB=1),
    "hardtanh": _clip("min_val", "max_val"), "clamp": _clip("min", "max"), "add": _binary("Add"), "sub": _binary("Sub"),
    "mul": _binary("Mul"), "div": _binary("Div"), "sigmoid": _unary("Sigmoid"), "tanh": _unary("Tanh"), "abs": _unary("Abs"),
    "hardsigmoid": lambda call: call.write("HardSigmoid", call.node.args[0], alpha=1 / 6), "hardswish": _unary("HardSwish"),
    "leaky_relu": _unary("LeakyRelu", alpha="negative_slope"), "elu": _unary("Elu", alpha="alpha"), "silu": _unary("Swish"),
    "gelu": _unary("Gelu", approximate="approximate"), "mish": _unary("Mish"), "softmax": _softmax, "max_pool2d": _pool,
    "avg_pool2d": _pool, "adaptive_avg_pool2d": _adaptive, "mean": _mean, **dict.fromkeys(("permute", "transpose"), _permute),
    "cat": lambda call: call.write("Concat", *call.given(tensors=None)[0], axis=call.given(dim=0)[0]),
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad), "slice": _slice,
    **dict.fromkeys(("chunk", "split", "split_with_sizes"), _split), "upsample_nearest2d": _upsample,
    "upsample_bilinear2d": _bilinear,
    "pixel_shuffle": lambda call: call.write(
        "DepthToSpace", call.node.args[0], blocksize=call.given(upscale_factor=1)[0], mode="CRD"
    ),
    **dict.fromkeys(("batch_norm", "_native_batch_norm_legit_no_training"), _batch_norm),
}  # fmt: skip
