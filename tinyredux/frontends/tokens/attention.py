"""Attention: scores of queries and keys wait for the values that they weigh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import fx

from tinyredux.frontends.builder import Call, arguments, refuse
from tinyredux.frontends.tokens.places import VIEWS, Operand, note, part, places, view
from tinyredux.graph import Attention

PATTERN = "softmax(q @ k.transpose(-2, -1) * scale, -1) @ v, or scaled_dot_product_attention"
ALIASES = ("dropout", "feature_dropout", "clone", "contiguous", "detach", "alias", "to", "_to_copy")


@dataclass(frozen=True)
class Scores:
    """What waits for the values that it weighs: queries (node and the places of their values) times keys times a number; once
    `shares`, its softmax. Or queries or keys alone, times a number."""

    parts: tuple[Operand, ...]
    scale: float
    shares: bool = False


def matmul(call: Call) -> None:
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


def scored(call: Call, node: fx.Node) -> None:
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
            matmul(call)
    elif call.kind in ("mul", "div") and numbers and not scores.shares and call.node.args[0] is node:
        factor = float(numbers[0])  # type: ignore[arg-type]
        _pass_on(call, node, replace(scores, scale=scores.scale * (factor if call.kind == "mul" else 1 / factor)))
    elif whole and not scores.shares and axis in (-1, len(call.shape) - 1) and call.kind in ("softmax", "_softmax"):
        _pass_on(call, node, replace(scores, shares=True))
    elif call.kind in ALIASES or (whole and call.kind in VIEWS and call.shape[-2:] == call.source_shape[-2:]):
        _pass_on(call, node, scores)
    elif not whole and call.kind in VIEWS:
        view(call)
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


def attention(call: Call) -> None:
    """Attention that torch computes by one function."""
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
        names.append(part(call, node, (height, width), (0, 0), first, heads * depth))
    call.emit("attention", Attention, heads, scale, reads=names)
    count, depth = call.shape[-2:]
    each = torch.arange(count)[:, None] * heads * depth + torch.arange(depth)
    note(call, torch.arange(heads)[:, None, None] * depth + each)
