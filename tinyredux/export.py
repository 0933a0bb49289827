"""torch.nn.Module -> Graph through `torch.export`: batch norm folded, ReLU fused, HWC layout.

An operator that has no counterpart is refused by name, with its place in the module and the nearest form that works.
"""

from __future__ import annotations

import torch
from torch import fx, nn

from tinyredux.export_builder import Builder, UnsupportedOperatorError, alias, refuse
from tinyredux.export_ops import HANDLERS, flatten
from tinyredux.graph import Graph, Tensor, Weighted, verify

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
    "permute": "keeping the channels in place; the layout is HWC throughout",
    "transpose": "keeping the channels in place; the layout is HWC throughout",
}
SUPPORTED = "Conv2d, BatchNorm2d, ReLU, ReLU6, Linear, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, add, cat(dim=1), flatten, Softmax"
ALIASES = ("dropout", "clone", "contiguous", "detach", "alias", "to", "feature_dropout", "_to_copy", "lift_fresh_copy")
FLATTENS = ("flatten", "view", "reshape", "squeeze", "unsqueeze", "_unsafe_view")


def export(module: nn.Module, name: str = "net") -> Graph:
    """Returns the float Graph of a module that carries `input_shape = (C, H, W)`.

    Raises UnsupportedOperatorError for what no kernel computes, ValueError for shapes or weights that are wrong.
    """
    shape = getattr(module, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 3 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(
            f"{name}: input_shape is {shape!r}; give the module an attribute input_shape = (channels, height, width)"
        )
    channels, height, width = shape
    try:
        with torch.no_grad():
            program = torch.export.export(module.eval(), (torch.zeros(1, *shape),))
    except Exception as failure:
        reason = str(failure).strip().splitlines()[0] if str(failure).strip() else type(failure).__name__
        raise ValueError(f"{name}: torch.export cannot trace it for an input of {(1, *shape)}: {reason}") from failure
    builder = Builder(program, tensors={"input": Tensor("input", (height, width, channels))})
    inputs = [
        node for node in program.graph.nodes if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
    ]
    for node in inputs:
        builder.value[node.name] = "input"
    for node in program.graph.nodes:
        if node.op == "call_function":
            _convert(builder, node)
    return _finish(builder, name)


def _finish(builder: Builder, name: str) -> Graph:
    (result,) = (node for node in builder.program.graph.nodes if node.op == "output")
    returned = [value for value in result.args[0] if isinstance(value, fx.Node)]
    if len(returned) != 1:
        raise ValueError(f"{name}: returns {len(returned)} tensors, expected one")
    node = returned[0]
    output = builder.value[node.name]
    tensor = builder.tensors[output]
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
    constants = {key for op in ops if isinstance(op, Weighted) for key in (op.weights, op.bias)}
    graph = Graph(
        name, tuple(ops), {key: tensor for key, tensor in builder.tensors.items() if key in kept},
        {key: builder.constants[key] for key in builder.constants if key in constants},
        ("input",), (output,), {op.name: builder.origin[op.name] for op in ops},
    )  # fmt: skip
    verify(graph)
    return graph


def _convert(builder: Builder, node: fx.Node) -> None:
    kind = getattr(node.target, "__name__", str(node.target)).split(".")[0].rstrip("_")
    operands = [arg for arg in node.all_input_nodes if arg.name in builder.value]
    if not operands:
        return  # works on constants alone (batch norm's counters, shapes)
    if kind not in ("conv2d", "pad") and any(arg.name in builder.padded for arg in operands):
        raise refuse(node, f"zero padding before {kind}", "padding before a convolution, or the pool's own padding")
    if kind in ALIASES or (kind == "getitem" and node.args[1] == 0):
        alias(builder, node, operands[0])
    elif kind in FLATTENS:
        flatten(builder, node, operands[0])
    elif kind in HANDLERS:
        HANDLERS[kind](builder, node)
    else:
        raise refuse(node, f"operator {kind}", NEAREST.get(kind, f"one of {SUPPORTED}"))
