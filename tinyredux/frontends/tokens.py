"""Tokens: torch's tensors (1, tokens, features), and what attention makes of them.

A map whose channels torch has brought to the end is a row of tokens. `Builder.turned` says of each node behind such a turn where
each of its values lies in the map, as an array of torch's shape; whatever torch does with axes (permute, reshape, split, select)
is done with that array, and nothing moves. A layer then reads which places and which channels of the map its operand is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import fx

from tinyredux.frontends.builder import Builder, Call, arguments, refuse
from tinyredux.frontends.moves import add_map
from tinyredux.frontends.operators import scale, trec_conv
from tinyredux.graph import (
    Array,
    Attention,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    LayerNorm,
    Pool,
    Rearrange,
    Softmax,
)

VIEWS = (
    "permute", "transpose", "movedim", "swapaxes", "t", "mT", "flatten", "unflatten", "view", "reshape", "_unsafe_view",
    "squeeze", "unsqueeze", "select", "slice", "unbind", "split", "split_with_sizes", "chunk", "tensor_split", "getitem",
)  # fmt: skip
NEAREST = "tokens (1, tokens, features), such as x.flatten(2).transpose(1, 2), with the features last"
PATTERN = "softmax(q @ k.transpose(-2, -1) * scale, -1) @ v, or scaled_dot_product_attention"
Operand = tuple[fx.Node, torch.Tensor]
Handlers = Mapping[str, Callable[[Call], None]]


@dataclass(frozen=True)
class Scores:
    """What waits for the values that it weighs: queries (node and the places of their values) times keys times a number; once
    `shares`, its softmax. Or queries or keys alone, times a number."""

    parts: tuple[Operand, ...]
    scale: float
    shares: bool = False


def places(builder: Builder, node: fx.Node) -> torch.Tensor:
    """Returns where each value of a node lies in its map, an array of the node's shape."""
    if node.name in builder.turned:
        return builder.turned[node.name]
    shape = builder.graph.tensors[builder.value[node.name]].shape
    lie = torch.arange(math.prod(shape)).reshape(1, *shape).permute(0, 3, 1, 2)
    return lie.reshape(tuple(node.meta["val"].shape))


def convert(call: Call, others: Handlers) -> bool:
    """Converts a call that reads tokens, by `others` where it looks at each value by itself; False where that cannot be."""
    builder, operands = call.builder, call.activations(call.node.all_input_nodes)
    if waiting := [node for node in operands if node.name in builder.scores]:
        _scored(call, waiting[0])
    elif call.kind in ALIASES or (call.kind == "expand" and call.shape == call.source_shape):
        call.alias(operands[0])
        if operands[0].name in builder.turned:
            builder.turned[call.node.name] = builder.turned[operands[0].name]
    elif call.kind in OWN:
        OWN[call.kind](call)
    elif not any(node.name in builder.turned for node in operands):
        return False
    elif call.kind in VIEWS:
        _view(call)
    elif call.kind in ("add", "sub", "mul", "div"):
        _sum_or_product(call, others)
    elif call.kind in HANDLERS:
        HANDLERS[call.kind](call)
    elif call.kind in ELEMENTWISE and call.kind in others:
        lie = _all_places(call, operands)
        others[call.kind](call)
        builder.turned[call.node.name] = lie
    else:
        return False
    return True


def _view(call: Call) -> None:
    """Does with the places what torch does with the values; behind a turn back it is an ordinary map again."""
    builder, node = call.builder, call.node
    before = places(builder, call.source)
    before = before.contiguous() if isinstance(before, torch.Tensor) else before  # of a split there are several
    lie = node.target(before, *node.args[1:], **node.kwargs)  # type: ignore[operator]
    call.alias(call.source)
    builder.turned[node.name] = lie
    height, width, channels = call.tensor.shape
    if isinstance(lie, torch.Tensor) and tuple(lie.shape) in ((1, channels, height, width), (1, height * width * channels)):
        ordinary = torch.arange(lie.numel()).reshape(height, width, channels).permute(2, 0, 1)
        if torch.equal(lie.flatten(), ordinary.flatten()):
            del builder.turned[node.name]


def _all_places(call: Call, operands: list[fx.Node]) -> torch.Tensor:
    """Returns the places that operands have in common: each value of a whole map once, in one order."""
    first, *others = (places(call.builder, node) for node in operands)
    whole = call.builder.graph.tensors[call.builder.value[operands[0].name]].elements
    if first.numel() != whole or tuple(first.shape) != call.shape:
        raise refuse(call.node, f"{call.kind} of a part of {tuple(first.shape)} of a map", f"whole {NEAREST}")
    if any(other.shape != first.shape or not torch.equal(other, first) for other in others):
        raise refuse(call.node, f"{call.kind} of tensors that lie differently", f"two {NEAREST}")
    return first


def _rows(call: Call, node: fx.Node, last: int = -1) -> tuple[str, torch.Tensor]:
    """Returns the tensor whose channels are the last axis of a node, and its places there; takes the part that the node is.

    With `last`, another axis, it is brought to the end first.
    """
    lie = places(call.builder, node).movedim(last, -1)
    tensor = call.builder.graph.tensors[call.builder.value[node.name]]
    height, width, channels = tensor.shape
    features = lie.shape[-1]
    at = lie.reshape(-1, features)
    first, place = int(at[0, 0]) % channels, int(at[0, 0]) // channels
    expected = (place + torch.arange(len(at)))[:, None] * channels + first + torch.arange(features)
    whole = len(at) == height * width
    if first + features > channels or not (whole or len(at) == 1) or not torch.equal(at, expected):
        raise refuse(call.node, f"{call.kind} over the last dimension of {tuple(lie.shape)}", NEAREST)
    size, start = ((height, width), (0, 0)) if whole else ((1, 1), divmod(place, width))
    return _part(call, node, size, start, first, features), torch.arange(at.numel()).reshape(lie.shape)


def _part(call: Call, node: fx.Node, size: tuple[int, int], start: tuple[int, int], first: int, count: int) -> str:
    tensor = call.builder.graph.tensors[call.builder.value[node.name]]
    if (*size, count) == tensor.shape:
        return tensor.name
    before = call.builder.value.get(call.node.name)
    call.emit("part", Rearrange, reads=[node], size=size, channels=count, start=start, first_channel=first)
    name = call.builder.value.pop(call.node.name)
    if before is not None:
        call.builder.value[call.node.name] = before
    return name


def _linear(call: Call) -> None:
    weight, bias = arguments(call.node, weight=None, bias=None)
    source, lie = _rows(call, call.source)
    weights, shape = call.constant(weight), call.builder.graph.tensors[source].shape
    if shape[:2] == (1, 1):
        call.emit_weighted("dense", Dense, weights, call.constant(bias), reads=[source])
    else:
        call.emit_weighted("conv", Conv, weights[:, None, None], call.constant(bias), reads=[source])
    _note(call, torch.arange(lie.numel() // lie.shape[-1] * len(weights)))


def _trec_conv(call: Call) -> None:
    """TREC over tokens, which the layer turns into maps (1, features, tokens, 1) and back."""
    source, lie = _rows(call, call.source, 1)
    trec_conv(call, [source])
    outputs = call.builder.graph.tensors[call.builder.value[call.node.name]].shape[2]
    places_of = torch.arange(lie.numel() // lie.shape[-1] * outputs).reshape(*lie.shape[:-1], outputs)
    call.builder.turned[call.node.name] = places_of.movedim(-1, 1)


def _note(call: Call, lie: torch.Tensor) -> None:
    """Notes where the values of a call lie; those of a vector lie as torch has them."""
    if len(call.shape) != 2 or call.shape[0] != 1:
        call.builder.turned[call.node.name] = lie.reshape(call.shape)


def _layer_norm(call: Call) -> None:
    shape, weight, bias, epsilon = arguments(call.node, normalized_shape=None, weight=None, bias=None, eps=1e-5)
    if len(shape) != 1:
        raise refuse(call.node, f"operator layer_norm over {list(shape)}", f"nn.BatchNorm2d, or nn.LayerNorm of {NEAREST}")
    source, lie = _rows(call, call.source)
    call.emit("norm", LayerNorm, reads=[source], epsilon=float(epsilon))
    factor, constant = (np.broadcast_to(call.constant(node, default), shape) for node, default in ((weight, 1.0), (bias, 0.0)))
    if (factor != 1).any() or constant.any():
        normal = call.builder.value[call.node.name]
        call.emit_weighted("depthwise", DepthwiseConv, factor.reshape(1, 1, -1), constant, reads=[normal])
    _note(call, lie)


def _cat(call: Call) -> None:
    """Features of the same tokens side by side."""
    (nodes, axis), rank = arguments(call.node, tensors=None, dim=0), len(call.shape)
    if axis % rank != rank - 1 or len(call.activations(nodes)) < len(nodes):
        raise refuse(
            call.node, "cat of tokens, such as a class token before them", "their mean, x.mean(1), or cat of their features"
        )
    call.emit("concat", Concat, reads=[_rows(call, node)[0] for node in nodes])
    _note(call, torch.arange(math.prod(call.shape)))


def _softmax(call: Call) -> None:
    (axis,) = arguments(call.node, dim=-1)
    if axis % len(call.shape) != len(call.shape) - 1:
        raise refuse(call.node, f"softmax over dimension {axis} of {call.source_shape}", PATTERN)
    source, lie = _rows(call, call.source)
    call.emit("softmax", Softmax, reads=[source])
    _note(call, lie)


def _mean(call: Call) -> None:
    """A mean over all tokens."""
    (axes,) = arguments(call.node, dim=None)
    lie, (height, width, channels) = places(call.builder, call.source), call.tensor.shape
    axes = [axis % lie.ndim for axis in ([axes] if isinstance(axes, int) else axes or range(lie.ndim))]
    moved = lie.permute(*axes, *(axis for axis in range(lie.ndim) if axis not in axes)).reshape(height * width, -1)
    if lie.numel() != call.tensor.elements or not torch.equal(moved.flatten(), torch.arange(lie.numel())):
        raise refuse(call.node, f"a mean over dimensions {axes} of {call.source_shape}", f"the mean of all tokens of {NEAREST}")
    call.emit("averagepool", Pool, "average", (height, width), (height, width))
    _note(call, torch.arange(channels))


def _sum_or_product(call: Call, others: Handlers) -> None:
    """Tokens plus tokens, plus numbers for each place, times numbers for each feature, times one number."""
    left, right = (call.node.args[i] for i in (0, 1))
    operands = call.activations((left, right))
    constant = right if operands[0] is left else left
    if len(operands) == 2:
        lie = _all_places(call, operands)
        if call.kind not in ("add", "sub") or call.node.kwargs:
            raise refuse(call.node, f"{call.kind} of two tensors of tokens", "their sum")
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
        _rows(call, operands[0])  # whose last axis are the channels
        lie = _all_places(call, operands)
        by_feature, times = value.reshape(-1), call.kind == "mul"
        scale(call, by_feature if times else np.ones(()), np.zeros(()) if times else by_feature, operands[0])
    elif call.kind == "add" and not call.node.kwargs:
        _add_constant(call, operands[0], value)
    else:
        what = f"{call.kind} of tokens with a constant of shape {value.shape}"
        raise refuse(call.node, what, "an addition, or a factor for each feature")
    call.builder.turned[call.node.name] = lie


def _add_constant(call: Call, node: fx.Node, value: Array) -> None:
    lie = _all_places(call, [node])
    values = np.empty(lie.numel())
    values[lie.flatten().numpy()] = np.broadcast_to(value, tuple(lie.shape)).reshape(-1)
    add_map(call, node, values.reshape(call.builder.graph.tensors[call.builder.value[node.name]].shape))


def _matmul(call: Call) -> None:
    """Queries times keys, which wait for the values; or the shares of a softmax times these."""
    left, right = call.node.args[:2]
    if len(call.activations((left, right))) < 2:
        raise refuse(call.node, f"{call.kind} with a constant", "nn.Linear")
    assert isinstance(left, fx.Node) and isinstance(right, fx.Node)
    scores, known = 1.0, call.builder.scores
    parts = list[tuple[fx.Node, torch.Tensor]]()
    for node in (left, right):
        if node.name in known and len(known[node.name].parts) > 1:
            raise refuse(call.node, f"{call.kind} of scores", PATTERN)
        scores *= known[node.name].scale if node.name in known else 1.0
        parts.append((node, places(call.builder, node)))
    (query, at), (key, turned) = parts
    call.alias(left)
    call.builder.scores[call.node.name] = Scores(((query, at), (key, turned.transpose(-1, -2))), scores)


def _scored(call: Call, node: fx.Node) -> None:
    """What may happen to scores on their way to the values."""
    builder, scores = call.builder, call.builder.scores[node.name]
    if _is_dead(call.node):
        call.alias(node)  # weights that a module can return, and this one does not
        builder.scores[call.node.name] = scores
        return
    numbers = [arg for arg in call.node.args[:2] if not isinstance(arg, fx.Node)]
    whole = len(scores.parts) == 2
    axis = arguments(call.node, dim=-1)[0] if call.kind in ("softmax", "_softmax") else 0
    if call.kind in ("matmul", "bmm"):
        left, right = call.node.args[:2]
        if whole and left is node and scores.shares and isinstance(right, fx.Node) and right.name in builder.value:
            _attend(call, [*scores.parts, (right, places(builder, right))], scores.scale)
        else:
            _matmul(call)
    elif call.kind in ("mul", "div") and numbers and not scores.shares and call.node.args[0] is node:
        factor = float(numbers[0])  # type: ignore[arg-type]
        _pass_on(call, node, replace(scores, scale=scores.scale * (factor if call.kind == "mul" else 1 / factor)))
    elif whole and not scores.shares and axis in (-1, len(call.shape) - 1) and call.kind in ("softmax", "_softmax"):
        _pass_on(call, node, replace(scores, shares=True))
    elif call.kind in ALIASES or (whole and call.kind in VIEWS and call.shape[-2:] == call.source_shape[-2:]):
        _pass_on(call, node, scores)
    elif not whole and call.kind in VIEWS:
        _view(call)
        ((of, _),) = scores.parts
        builder.scores[call.node.name] = replace(scores, parts=((of, builder.turned[call.node.name]),))
    else:
        raise refuse(call.node, f"{call.kind} between queries, keys and values", PATTERN)


def _pass_on(call: Call, node: fx.Node, scores: Scores) -> None:
    call.alias(node)
    call.builder.scores[call.node.name] = scores
    if node.name in call.builder.turned:
        call.builder.turned[call.node.name] = call.builder.turned[node.name]


def _is_dead(node: fx.Node) -> bool:
    return node.op != "output" and all(map(_is_dead, node.users))


def _attention(call: Call) -> None:
    query, key, value, mask, dropout, causal, scale, grouped = arguments(
        call.node, query=None, key=None, value=None, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    )
    if mask is not None or dropout or causal or grouped or len(call.activations((query, key, value))) < 3:
        raise refuse(call.node, "attention with a mask, dropout, grouped or constant operands", "attention of all tokens to all")
    scale = call.source_shape[-1] ** -0.5 if scale is None else float(scale)
    _attend(call, [(node, places(call.builder, node)) for node in (query, key, value)], scale)


def _attend(call: Call, operands: Sequence[Operand], scale: float) -> None:
    """Emits the attention of three operands, each a node and where its values (heads, tokens, features) lie in that one's map."""
    names, heads = list[str](), 0
    for node, lie in operands:
        height, width, channels = call.builder.graph.tensors[call.builder.value[node.name]].shape
        depth = lie.shape[-1]
        at = lie.reshape(-1, lie.shape[-2], depth)
        heads, first = len(at), int(at[0, 0, 0])
        each = torch.arange(height * width)[:, None] * channels + torch.arange(depth)
        expected = first + torch.arange(heads)[:, None, None] * depth + each
        if first + heads * depth > channels or at.shape != expected.shape or not torch.equal(at, expected):
            raise refuse(call.node, f"attention of an operand {tuple(lie.shape)} whose features do not lie head by head", PATTERN)
        names.append(_part(call, node, (height, width), (0, 0), first, heads * depth))
    call.emit("attention", Attention, heads, scale, reads=names)
    count, depth = call.shape[-2:]
    each = torch.arange(count)[:, None] * heads * depth + torch.arange(depth)
    _note(call, torch.arange(heads)[:, None, None] * depth + each)


ALIASES = ("dropout", "feature_dropout", "clone", "contiguous", "detach", "alias", "to", "_to_copy")
ELEMENTWISE = (
    "relu", "relu6", "hardtanh", "clamp", "clip", "clamp_min", "gelu", "celu", "selu", "prelu", "sigmoid", "tanh", "hardsigmoid",
    "hardswish", "silu", "mish", "abs", "exp", "square", "leaky_relu", "softplus", "elu",
)  # fmt: skip
OWN: Handlers = {
    "scaled_dot_product_attention": _attention, "matmul": _matmul, "bmm": _matmul, "layer_norm": _layer_norm,
}  # fmt: skip
HANDLERS: Handlers = {"linear": _linear, "trec_conv": _trec_conv, "softmax": _softmax, "mean": _mean, "cat": _cat}
