"""Layers over tokens, by the kinds that torch.export gives them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import fx

from tinyredux.frontends.builder import Call, arguments, refuse
from tinyredux.frontends.moves import add_map
from tinyredux.frontends.operators import scale, trec_conv
from tinyredux.frontends.tokens.attention import ALIASES, PATTERN, Scores, attention, matmul, scored
from tinyredux.frontends.tokens.places import NEAREST, VIEWS, all_places, note, places, rows, take_channels, view
from tinyredux.graph import Array, Concat, Conv, Dense, DepthwiseConv, Extend, LayerNorm, Pool, Softmax

Handlers = Mapping[str, Callable[[Call], None]]
ELEMENTWISE = (
    "relu", "relu6", "hardtanh", "clamp", "clip", "clamp_min", "gelu", "celu", "selu", "prelu", "sigmoid", "tanh", "hardsigmoid",
    "hardswish", "silu", "mish", "abs", "exp", "square", "leaky_relu", "softplus", "elu",
)  # fmt: skip


def convert(call: Call, others: Handlers) -> bool:
    """Converts a call that reads tokens, by `others` where it looks at each value by itself; False where that cannot be."""
    builder, operands = call.builder, call.activations(call.node.all_input_nodes)
    if any(node.name in builder.scores and scored(call, node) for node in operands):
        return True
    if call.kind in ALIASES or (call.kind == "expand" and call.shape == call.source_shape):
        call.alias(operands[0])
        if operands[0].name in builder.turned:
            builder.turned[call.node.name] = builder.turned[operands[0].name]
    elif call.kind in OWN:
        OWN[call.kind](call)
    elif not any(node.name in builder.turned for node in operands):
        return False
    elif call.kind in VIEWS:
        view(call)
    elif call.kind in ("add", "sub", "mul", "div"):
        _sum_or_product(call, others)
    elif call.kind in HANDLERS:
        HANDLERS[call.kind](call)
    elif call.kind in ELEMENTWISE and call.kind in others:
        take_channels(call, call.source)  # of other parts, what else the map holds is computed along
        lie = places(builder, call.source)
        others[call.kind](call)
        builder.turned[call.node.name] = lie
    else:
        return False
    return True


def _linear(call: Call) -> None:
    weight, bias = arguments(call.node, weight=None, bias=None)
    _features(call, call.constant(weight), call.constant(bias))


def _features(call: Call, weights: Array, bias: Array) -> None:
    """Emits weights (outputs, features) times the features of each token."""
    source, lie = rows(call, call.source)
    if call.builder.graph.tensors[source].shape[:2] == (1, 1):
        call.emit_weighted("dense", Dense, weights, bias, reads=[source])
    else:
        call.emit_weighted("conv", Conv, weights[:, None, None], bias, reads=[source])
    note(call, torch.arange(lie.numel() // lie.shape[-1] * len(weights)))


def _product(call: Call) -> None:
    """A product with a constant matrix is a linear layer, one of two activations what `attention` makes of it."""
    right = call.node.args[1]
    if isinstance(right, fx.Node) and not call.activations([right]) and right.meta["val"].ndim == 2:
        _features(call, call.constant(right).T, np.zeros(()))
    else:
        matmul(call)


def _trec_conv(call: Call) -> None:
    """TREC over tokens, which the layer turns into maps (1, features, tokens, 1) and back."""
    source, lie = rows(call, call.source, 1)
    trec_conv(call, [source])
    outputs = call.builder.graph.tensors[call.builder.value[call.node.name]].shape[2]
    places_of = torch.arange(lie.numel() // lie.shape[-1] * outputs).reshape(*lie.shape[:-1], outputs)
    call.builder.turned[call.node.name] = places_of.movedim(-1, 1)


def _layer_norm(call: Call) -> None:
    shape, weight, bias, epsilon = arguments(call.node, normalized_shape=None, weight=None, bias=None, eps=1e-5)
    if len(shape) != 1:
        raise refuse(call.node, f"operator layer_norm over {list(shape)}", f"nn.BatchNorm2d, or nn.LayerNorm of {NEAREST}")
    source, lie = rows(call, call.source)
    call.emit("norm", LayerNorm, reads=[source], epsilon=float(epsilon))
    factor, constant = (np.broadcast_to(call.constant(node, default), shape) for node, default in ((weight, 1.0), (bias, 0.0)))
    if (factor != 1).any() or constant.any():
        normal = call.builder.value[call.node.name]
        call.emit_weighted("depthwise", DepthwiseConv, factor.reshape(1, 1, -1), constant, reads=[normal])
    note(call, lie)


def _cat(call: Call) -> None:
    """Features of the same tokens side by side, or constant tokens before and behind those of a map."""
    (nodes, axis), rank = arguments(call.node, tensors=None, dim=0), len(call.shape)
    activations = call.activations(nodes)
    if axis % rank == rank - 1 and len(activations) == len(nodes):
        call.emit("concat", Concat, reads=[rows(call, node)[0] for node in nodes])
    elif axis % rank == rank - 2 and len(activations) == 1 and math.prod(call.shape[:-2]) == 1:
        parts = [call.constant(node).reshape(-1, call.shape[-1]) for node in nodes if node is not activations[0]]
        before = sum(map(len, parts[: nodes.index(activations[0])]))
        name = call.builder.name("extend")
        call.builder.graph.constants[f"{name}.values"] = np.concatenate(parts)
        call.emit("extend", Extend, f"{name}.values", before, reads=[rows(call, activations[0])[0]])
    else:
        instead = "cat of features, or of constant tokens with those of one map, such as a class token"
        raise refuse(call.node, f"cat along dimension {axis} of {call.shape}", instead)
    note(call, torch.arange(math.prod(call.shape)))


def _softmax(call: Call) -> None:
    (axis,) = arguments(call.node, dim=-1)
    if axis % len(call.shape) != len(call.shape) - 1:
        raise refuse(call.node, f"softmax over dimension {axis} of {call.source_shape}", PATTERN)
    source, lie = rows(call, call.source)
    call.emit("softmax", Softmax, reads=[source])
    note(call, lie)


def _mean(call: Call) -> None:
    """A mean over all tokens."""
    (axes,) = arguments(call.node, dim=None)
    source, lie = call.tensor.name, places(call.builder, call.source)
    if lie.numel() < call.tensor.elements:
        source, lie = rows(call, call.source)
    height, width, channels = shape = call.builder.graph.tensors[source].shape
    axes = [axis % lie.ndim for axis in ([axes] if isinstance(axes, int) else axes or range(lie.ndim))]
    if all(lie.shape[axis] == 1 for axis in axes):
        call.builder.value[call.node.name] = source
        call.builder.turned[call.node.name] = lie.reshape(call.shape)
        return
    moved = lie.permute(*axes, *(axis for axis in range(lie.ndim) if axis not in axes)).reshape(height * width, -1)
    whole = (lie.numel(), math.prod(lie.shape[axis] for axis in axes)) == (math.prod(shape), height * width)
    if not whole or not torch.equal(moved.flatten(), torch.arange(lie.numel())):
        raise refuse(call.node, f"a mean over dimensions {axes} of {call.source_shape}", f"the mean of all tokens of {NEAREST}")
    call.emit("averagepool", Pool, "average", (height, width), (height, width), reads=[source])
    note(call, torch.arange(channels))


def _sum_or_product(call: Call, others: Handlers) -> None:
    """Tokens plus tokens, plus numbers for each place, times numbers for each feature, times one number."""
    left, right = (call.node.args[i] for i in (0, 1))
    operands = call.activations((left, right))
    constant = right if operands[0] is left else left
    if len(operands) == 2:
        lie = all_places(call, operands)
        if call.kind not in ("add", "sub", "mul") or call.node.kwargs:
            raise refuse(call.node, f"{call.kind} of two tensors of tokens", "their sum or product")
        others[call.kind](call)
        call.builder.turned[call.node.name] = lie
        return
    value = call.constant(constant) if isinstance(constant, fx.Node) else np.asarray(float(constant))  # type: ignore[arg-type]
    lie = places(call.builder, operands[0])
    if call.kind in ("mul", "div") and value.size == 1 and (call.kind == "mul" or constant is right):
        factor = float(value.reshape(-1)[0]) if call.kind == "mul" else 1 / float(value.reshape(-1)[0])
        if lie.numel() < call.builder.graph.tensors[call.builder.value[operands[0].name]].elements:
            call.alias(operands[0])
            call.builder.turned[call.node.name] = lie
            call.builder.scores[call.node.name] = Scores(((operands[0], lie),), factor)
            return
        others[call.kind](call)
    elif call.kind in ("add", "mul") and not call.node.kwargs and value.size == value.shape[-1] == lie.shape[-1]:
        rows(call, operands[0])  # whose last axis are the channels
        lie = all_places(call, operands)
        by_feature, times = value.reshape(-1), call.kind == "mul"
        scale(call, by_feature if times else np.ones(()), np.zeros(()) if times else by_feature, operands[0])
    elif call.kind == "add" and not call.node.kwargs:
        _add_constant(call, operands[0], value)
    else:
        what = f"{call.kind} of tokens with a constant of shape {value.shape}"
        raise refuse(call.node, what, "an addition, or a factor for each feature")
    call.builder.turned[call.node.name] = lie


def _add_constant(call: Call, node: fx.Node, value: Array) -> None:
    lie = all_places(call, [node])
    values = np.empty(lie.numel())
    values[lie.flatten().numpy()] = np.broadcast_to(value, tuple(lie.shape)).reshape(-1)
    add_map(call, node, values.reshape(call.builder.graph.tensors[call.builder.value[node.name]].shape))


OWN: Handlers = {
    "scaled_dot_product_attention": attention, "matmul": _product, "bmm": _product, "baddbmm": matmul, "layer_norm": _layer_norm,
}  # fmt: skip
HANDLERS: Handlers = {"linear": _linear, "trec_conv": _trec_conv, "softmax": _softmax, "mean": _mean, "cat": _cat}
