"""torch.nn.Module -> Graph through `torch.export`: batch norm folded, ReLU fused, HWC layout.

An operator that has no counterpart is refused by name, with its place in the module and the nearest form that works.
"""

from __future__ import annotations

import torch
from torch import fx, nn

from tinyredux.export_builder import Builder, UnsupportedOperatorError, alias, refuse
from tinyredux.export_ops import HANDLERS, flatten
from tinyredux.graph import Graph, Tensor, constant_names, verify

NEAREST = {
    "sigmoid": "nn.ReLU6",
    "hardsigmoid": "nn.ReLU6",
    "silu": "nn.ReLU6",
    "hardswish": "nn.ReLU6",
    "gelu": "nn.ReLU",
    "leaky_relu": "nn.ReLU",
    "prelu": "nn.ReLU",
    "elu": "nn.ReLU",
    "tanh": "nn.ReLU6",
    "mul": "an addition of equal shapes, or a depthwise 1x1 convolution for a constant factor per channel",
    "sub": "an addition of equal shapes",
    "conv1d": "nn.Conv2d with a height of 1",
    "conv_transpose2d": "nn.Conv2d after a smaller stride",
    "log_softmax": "nn.Softmax, or logits without it",
    "group_norm": "nn.BatchNorm2d",
    "layer_norm": "nn.BatchNorm2d",
    "instance_norm": "nn.BatchNorm2d",
    "upsample_nearest2d": "a convolution with a smaller stride before",
    "slice": "a convolution or pool with a stride",
    "select": "a convolution or pool with a stride",
    "argmax": "the logits themselves; the index of the largest is the class",
    "permute": "keeping the channels in place; the layout is HWC throughout",
    "transpose": "keeping the channels in place; the layout is HWC throughout",
}
SUPPORTED = "Conv2d, BatchNorm2d, ReLU, ReLU6, Linear, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, add, cat(dim=1), flatten, Softmax"
DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
ALIASES = (*DROPOUTS, "clone", "contiguous", "detach", "alias", "to", "_to_copy", "lift_fresh_copy")
FLATTENS = ("flatten", "unflatten", "view", "reshape", "squeeze", "unsqueeze", "_unsafe_view")


def export(module: nn.Module, name: str = "net") -> Graph:
    """Returns the float Graph of a module that carries `input_shape = (C, H, W)`.

    Raises UnsupportedOperatorError for what no kernel computes, ValueError for shapes or weights that are wrong.
    """
    return export_with_names(module, name)[0]


def export_with_names(module: nn.Module, name: str = "net") -> tuple[Graph, Builder]:
    """Returns the Graph and how it was built: torch's own program, and which tensor each of its nodes became."""
    shape = getattr(module, "input_shape", None)
    shape = tuple(shape) if isinstance(shape, (list, torch.Size)) else shape
    if not isinstance(shape, tuple) or len(shape) != 3 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(
            f"{name}: input_shape is {shape!r}; give the module an attribute input_shape = (channels, height, width)"
        )
    channels, height, width = shape
    program = _trace(module, (1, *shape), name)
    builder = Builder(program, tensors={"input": Tensor("input", (height, width, channels))})
    inputs = [
        node for node in program.graph.nodes if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
    ]
    for node in inputs:
        builder.value[node.name] = "input"
    for node in program.graph.nodes:
        if node.op == "call_function":
            _convert(builder, node)
    return _finish(builder, name), builder


def _trace(module: nn.Module, shape: tuple[int, ...], name: str) -> torch.export.ExportedProgram:
    """Returns torch's own program of a module in eval mode; every part then has its former mode again."""
    floats = (value for value in (*module.parameters(), *module.buffers()) if value.is_floating_point())
    like = next(floats, torch.zeros(1))
    modes = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            return torch.export.export(module.eval(), (torch.zeros(shape, dtype=like.dtype, device=like.device),))
    except Exception as failure:
        reason = str(failure).strip().splitlines()[0] if str(failure).strip() else type(failure).__name__
        raise ValueError(f"{name}: torch.export cannot trace it for an input of {shape}: {reason}") from failure
    finally:
        for part, training in modes.items():
            part.training = training


def _finish(builder: Builder, name: str) -> Graph:
    (result,) = (node for node in builder.program.graph.nodes if node.op == "output")
    returned = [value for value in result.args[0] if isinstance(value, fx.Node)]
    if len(returned) != 1:
        raise ValueError(f"{name}: returns {len(returned)} tensors, expected one")
    node = returned[0]
    output = builder.value[node.name]
    tensor = builder.tensors[output]
    if node.name in builder.padded:
        raise refuse(node, "zero padding at the end", "padding before a convolution")
    if node.name in builder.flat and tensor.shape[:2] != (1, 1):
        raise UnsupportedOperatorError(
            f"{name}: flattens a {tensor.shape} map at its end; return the map itself, or add a Linear layer"
        )
    needed, ops = {output}, []
    for op in reversed(builder.ops):
        if op.output in needed:
            needed.update(op.inputs)
            ops.append(op)
    if not ops:
        raise ValueError(f"{name}: no operator between input and output; nothing to compile")
    ops.reverse()
    kept = {"input"} | {op.output for op in ops}
    constants = {key for op in ops for key in constant_names(op)}
    graph = Graph(
        name, tuple(ops), {key: tensor for key, tensor in builder.tensors.items() if key in kept},
        {key: builder.constants[key] for key in builder.constants if key in constants},
        ("input",), (output,), {op.name: builder.origin[op.name] for op in ops},
    )  # fmt: skip
    verify(graph)
    return graph


def _convert(builder: Builder, node: fx.Node) -> None:
    name = getattr(node.target, "__name__", str(node.target)).split(".")[0]
    kind = name.rstrip("_")
    operands = [arg for arg in node.all_input_nodes if arg.name in builder.value]
    if not operands or (kind == "getitem" and not node.users):
        return  # works on constants alone (batch norm's counters, shapes), or a pool's indices that nobody reads
    if name.endswith("_") and any(names > 1 for names in map(builder.names_read, operands)):
        raise refuse(node, f"{kind} in place on a tensor that is read again under another name", f"{kind} not in place")
    if kind not in ("conv2d", "trec_conv", "pad", "constant_pad_nd") and any(arg.name in builder.padded for arg in operands):
        raise refuse(node, f"zero padding before {kind}", "padding before a convolution, or the pool's own padding")
    if kind in ALIASES or (kind == "getitem" and node.args[1] == 0):
        alias(builder, node, operands[0])
    elif kind in FLATTENS or (kind == "select" and _is_single(operands[0], node.args[1])):
        flatten(builder, node, operands[0])
    elif kind in HANDLERS:
        HANDLERS[kind](builder, node)
    else:
        raise refuse(node, f"operator {kind}", NEAREST.get(kind, f"one of {SUPPORTED}"))


def _is_single(source: fx.Node, axis: object) -> bool:
    """True where an axis of a torch value has one element, so that selecting from it is a reshape."""
    return isinstance(axis, int) and source.meta["val"].shape[axis] == 1
