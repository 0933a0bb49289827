"""Attention: scores of queries and keys wait for the values that they weigh; for anything else they are products of matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import fx

from tinyredux.frontends.builder import Call, arguments, refuse
from tinyredux.frontends.moves import add_map
from tinyredux.frontends.tokens.places import VIEWS, Operand, note, part, places, view
from tinyredux.graph import Attention, MatMul, Pair, Softmax

PATTERN = "softmax(q @ k.transpose(-2, -1) * scale, -1) @ v, or scaled_dot_product_attention"
HIDDEN = -100.0  # what a mask leaves of a score: less is as little
ALIASES = ("dropout", "feature_dropout", "clone", "contiguous", "detach", "alias", "to", "_to_copy")


@dataclass(frozen=True)
class Scores:
    """What waits for the values that it weighs: queries (node and the places of their values) times keys times a number, plus
    constants of torch's shape; once `shares`, its softmax; once `turned`, that with its last two axes exchanged. Or queries or
    keys alone, times a number."""

    parts: tuple[Operand, ...]
    scale: float
    shares: bool = False
    turned: bool = False
    bias: torch.Tensor | None = None


def matmul(call: Call) -> None:
    """A product of two activations, which may be scores and waits for the values that they weigh; plus a constant."""
    first = int(call.kind == "baddbmm")
    left, right = call.node.args[first : first + 2]
    if first and (call.node.kwargs or call.activations(call.node.args[:1])):
        raise refuse(call.node, "baddbmm of three activations, or with factors", PATTERN)
    if len(call.activations((left, right))) < 2:
        raise refuse(call.node, f"{call.kind} with a constant", "nn.Linear")
    assert isinstance(left, fx.Node) and isinstance(right, fx.Node)
    scores, known = 1.0, call.builder.scores
    parts = list[tuple[fx.Node, torch.Tensor]]()
    for node in (left, right):
        if node.name in known and len(known[node.name].parts) > 1:
            multiply(replace(call, node=node))
        scores *= known[node.name].scale if node.name in known else 1.0
        parts.append((node, places(call.builder, node)))
    (query, at), (key, turned) = parts
    call.alias(left)
    bias = _constant(call, call.node.args[0]).expand(call.shape) if first else None
    call.builder.scores[call.node.name] = Scores(((query, at), (key, turned.transpose(-1, -2))), scores, bias=bias)


def scored(call: Call, node: fx.Node) -> bool:
    """What may happen to scores on their way to the values; False where anything else does, and they wait no longer."""
    builder, scores = call.builder, call.builder.scores[node.name]
    if _is_dead(call.node):
        call.alias(node)  # weights that a module can return, and this one does not
        builder.scores[call.node.name] = scores
        return True
    numbers = [arg for arg in call.node.args[:2] if not isinstance(arg, fx.Node)]
    whole = len(scores.parts) == 2
    axis = arguments(call.node, dim=-1)[0] if call.kind in ("softmax", "_softmax") else 0
    if call.kind in ("matmul", "bmm", "baddbmm"):
        other = call.node.args[0 if scores.turned else 1]
        weighs = scores.shares and call.kind != "baddbmm" and other is not node
        if not (weighs and isinstance(other, fx.Node) and other.name in builder.value):
            matmul(call)
        elif not _attend(call, scores, (other, places(builder, other))):
            matmul(call)
    elif call.kind in ("mul", "div") and numbers and not scores.shares and call.node.args[0] is node:
        factor = float(numbers[0]) if call.kind == "mul" else 1 / float(numbers[0])  # type: ignore[arg-type]
        bias = None if scores.bias is None else scores.bias * factor
        _pass_on(call, node, replace(scores, scale=scores.scale * factor, bias=bias))
    elif whole and not scores.shares and (biased := _biased(call, node, scores.bias)) is not None:
        _pass_on(call, node, replace(scores, bias=biased))
    elif whole and not scores.shares and axis in (-1, len(call.shape) - 1) and call.kind in ("softmax", "_softmax"):
        _pass_on(call, node, replace(scores, shares=True))
    elif call.kind in ALIASES:
        _pass_on(call, node, scores)
    elif whole and call.kind in VIEWS and (turned := _turns(call)) is not None:
        own = scores.parts if scores.shares or not turned else scores.parts[::-1]
        bias = scores.bias
        if bias is not None:
            bias = call.node.target(bias.contiguous(), *call.node.args[1:], **call.node.kwargs)  # type: ignore[operator]
        _pass_on(call, node, replace(scores, parts=own, turned=scores.turned != (turned and scores.shares), bias=bias))
    elif not whole and call.kind in VIEWS:
        view(call)
        ((of, _),) = scores.parts
        builder.scores[call.node.name] = replace(scores, parts=((of, builder.turned[call.node.name]),))
    else:
        multiply(replace(call, node=node))
        return False
    return True


def _constant(call: Call, value: object) -> torch.Tensor:
    """Returns a number, or the value of a constant node, of which true is 1."""
    return torch.as_tensor(call.constant(value) if isinstance(value, fx.Node) else value, dtype=torch.float64)


def _biased(call: Call, node: fx.Node, bias: torch.Tensor | None) -> torch.Tensor | None:
    """Returns what is added to the scores of a node, minus infinity where they are masked, behind a call that adds constants or
    masks some; None for any other call."""
    first, second, *rest = (*call.node.args, None)
    if call.shape != tuple(node.meta["val"].shape) or len(call.activations(call.node.all_input_nodes)) > 1:
        return None
    before = torch.zeros(call.shape, dtype=torch.float64) if bias is None else bias
    if call.kind == "add" or (call.kind == "sub" and first is node):
        (factor,) = arguments(call.node, alpha=1)
        other = _constant(call, second if first is node else first)
        return before + other * (factor if call.kind == "add" else -factor) if first is node or factor == 1 else None
    if call.kind == "masked_fill" and first is node:
        masked, value = _constant(call, second) != 0, rest[0]
    elif call.kind == "where" and node in (second, rest[0]):
        masked, value = (_constant(call, first) != 0) != (second is node), rest[0] if second is node else second
    else:
        return None
    return before.masked_fill(masked, -torch.inf) if (_constant(call, value) <= HIDDEN).all() else None


def multiply(call: Call) -> None:
    """Emits the product that a node of scores waits with, and its softmax, in the order in which it is read."""
    scores = call.builder.scores.pop(call.node.name)
    if len(scores.parts) < 2:
        raise refuse(call.node, "a number times a part of a map, for anything but a product of two activations", PATTERN)
    if scores.scale < 0:
        raise refuse(call.node, "a product of activations times a negative number", "the number's magnitude, and a difference")
    (left, at), (right, other) = scores.parts
    many = np.broadcast_shapes(at.shape[:-2], other.shape[:-2])
    at, other = at.expand(*many, *at.shape[-2:]), other.expand(*many, *other.shape[-2:])
    sizes = (math.prod(many), at.shape[-2], other.shape[-2])
    maps = [call.builder.graph.tensors[call.builder.value[node.name]].shape[:2] for node in (left, right)]
    turned, beside, lie, size = _order(call, sizes, maps[: 0 if scores.shares else 2])
    if turned:
        (left, at), (right, other) = (right, other), (left, at)
    count, rows, columns = math.prod(many), at.shape[-2], other.shape[-2]
    steps = _steps(call, at), _steps(call, other.mT)
    call.emit("matmul", MatMul, count, rows, at.shape[-1], columns, *steps, size, beside, scores.scale, reads=[left, right])
    if scores.bias is not None:
        if torch.isinf(scores.bias).any():
            raise refuse(call.node, "a mask of scores that no attention weighs values by", PATTERN)
        values = torch.empty(lie.numel(), dtype=torch.float64)
        values[lie.flatten()] = (scores.bias.mT if scores.turned else scores.bias).flatten()
        add_map(call, call.node, values.numpy().reshape(call.builder.graph.tensors[call.builder.value[call.node.name]].shape))
    if scores.shares:
        call.emit("softmax", Softmax, reads=[call.builder.value[call.node.name]])
    note(call, lie.mT if scores.turned else lie)


def _order(call: Call, sizes: tuple[int, int, int], maps: list[Pair]) -> tuple[bool, bool, torch.Tensor, Pair]:
    """Returns whether matrices (heads, rows, columns) are turned, whether they stand side by side, where their values lie then,
    and the size of their map, one of `maps` where it can be: so that they lie as they are read behind the views that follow, or
    as they are if there are no maps."""
    (heads, rows, columns), each = sizes, torch.arange(math.prod(sizes))
    for turned, beside, lie in _orders(sizes) if maps else ():
        viewed, count = _viewed(call, lie), columns if turned else rows
        count *= 1 if beside else heads
        if viewed.ndim == 4 and viewed.shape[-2:] != call.shape[-2:]:
            is_map = math.prod(viewed.shape[2:]) == count and viewed.shape[0] == 1
            if is_map and torch.equal(viewed, each.reshape(*viewed.shape[2:], -1).permute(2, 0, 1)[None]):
                return turned, beside, lie, (viewed.shape[2], viewed.shape[3])
        elif torch.equal(viewed.flatten(), each):
            own = next((size for size in maps if math.prod(size) == count), (count, 1))
            return turned, beside, lie, own if beside or heads == 1 else (heads, count // heads)
    return False, False, _orders(sizes)[0][2], (heads, rows)


def _orders(sizes: tuple[int, int, int]) -> tuple[tuple[bool, bool, torch.Tensor], ...]:
    """Returns the orders in which matrices can be written."""
    heads, rows, columns = sizes
    each = torch.arange(heads * rows * columns)
    return (
        (False, False, each.reshape(sizes)), (False, True, each.reshape(rows, heads, columns).transpose(0, 1)),
        (True, False, each.reshape(heads, columns, rows).mT), (True, True, each.reshape(columns, heads, rows).permute(1, 2, 0)),
    )  # fmt: skip


def _viewed(call: Call, lie: torch.Tensor) -> torch.Tensor:
    """Returns places behind the views that alone read a node."""
    node, lie = call.node, lie.reshape(call.shape)
    while len(node.users) == 1:
        (node,) = node.users
        kind = getattr(node.target, "__name__", "").split(".")[0]
        if kind in VIEWS and isinstance(node.meta["val"], torch.Tensor):
            lie = node.target(lie.contiguous(), *node.args[1:], **node.kwargs)  # type: ignore[operator]
        elif kind not in ALIASES:
            break
    return lie


def _steps(call: Call, lie: torch.Tensor) -> tuple[int, int, int, int]:
    """Returns where the first value of matrices lies, and how far apart those of heads, rows and columns are, by their places."""
    lie = lie.reshape(-1, *lie.shape[-2:])
    first = int(lie[0, 0, 0])
    head, row, column = (int(lie.narrow(axis, min(1, lie.shape[axis] - 1), 1).flatten()[0]) - first for axis in range(3))
    heads, rows, columns = (torch.arange(count) for count in lie.shape)
    if not torch.equal(lie, first + heads[:, None, None] * head + rows[:, None] * row + columns * column):
        raise refuse(call.node, f"{call.kind} of matrices {tuple(lie.shape)} whose values lie unevenly", PATTERN)
    return first, head, row, column


def _turns(call: Call) -> bool | None:
    """Returns whether a view exchanges the last two axes, False where it leaves all values in their order, else None."""
    before = torch.arange(math.prod(call.source_shape)).reshape(call.source_shape)
    after = call.node.target(before, *call.node.args[1:], **call.node.kwargs)  # type: ignore[operator]
    if (
        isinstance(after, torch.Tensor)
        and after.shape[-2:] == before.shape[-2:]
        and torch.equal(after.flatten(), before.flatten())
    ):
        return False
    return True if isinstance(after, torch.Tensor) and torch.equal(after, before.mT) else None


def _pass_on(call: Call, node: fx.Node, scores: Scores) -> None:
    call.alias(node)
    call.builder.scores[call.node.name] = scores
    if node.name in call.builder.turned:
        call.builder.turned[call.node.name] = call.builder.turned[node.name]


def _is_dead(node: fx.Node) -> bool:
    todo, seen = [node], {node}
    while todo:
        following = todo.pop().users.keys() - seen
        seen |= following
        todo += following
    return all(one.op != "output" for one in seen)


def attention(call: Call) -> None:
    """Attention that torch computes by one function."""
    query, key, value, mask, dropout, causal, scale, grouped = arguments(
        call.node, query=None, key=None, value=None, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    )
    if dropout or grouped or call.activations((mask,)) or len(call.activations((query, key, value))) < 3:
        what = "attention with dropout, a mask that is computed, grouped or constant operands"
        raise refuse(call.node, what, "attention of tokens that are computed, with a mask that the module holds")
    scale = call.source_shape[-1] ** -0.5 if scale is None else float(scale)
    bias = torch.zeros(*call.source_shape[:-1], key.meta["val"].shape[-2], dtype=torch.float64)
    if mask is not None:
        values = _constant(call, mask)
        bias = bias.masked_fill(values == 0, -torch.inf) if mask.meta["val"].dtype == torch.bool else bias + values
    if causal:
        bias = bias.masked_fill(torch.ones(bias.shape[-2:]).triu(1) > 0, -torch.inf)
    query, key, value = ((node, places(call.builder, node)) for node in (query, key, value))
    if not _attend(call, Scores((query, key), scale, bias=bias), value):
        what = f"attention of operands {call.source_shape} whose features do not lie head by head"
        raise refuse(call.node, what, PATTERN)


def _attend(call: Call, scores: Scores, values: Operand) -> bool:
    """Emits the attention of queries and keys to values, a node and where they lie in its map (heads, tokens, features), or
    (heads, features, tokens) if the scores are turned; False where an operand's features do not lie head by head."""
    parts, heads, turned = [], 0, scores.turned
    for node, lie in (*scores.parts, (values[0], values[1].mT if turned else values[1])):
        height, width, channels = call.builder.graph.tensors[call.builder.value[node.name]].shape
        depth = lie.shape[-1]
        at = lie.reshape(-1, lie.shape[-2], depth)
        heads, first = len(at), int(at[0, 0, 0])
        each = torch.arange(height * width)[:, None] * channels + torch.arange(depth)
        expected = first + torch.arange(heads)[:, None, None] * depth + each
        if first + heads * depth > channels or at.shape != expected.shape or not torch.equal(at, expected):
            return False
        parts.append((node, (height, width), (0, 0), first, heads * depth))
    fields = _named_bias(call, scores, heads)
    call.emit("attention", Attention, heads, scores.scale, reads=[part(call, *each) for each in parts], **fields)
    count, depth = call.shape[-2:] if not turned else (call.shape[-1], call.shape[-2])
    each = torch.arange(count)[:, None] * heads * depth + torch.arange(depth)
    lie = torch.arange(heads)[:, None, None] * depth + each
    note(call, lie.mT if turned else lie)
    return True


def _named_bias(call: Call, scores: Scores, heads: int) -> dict[str, str]:
    """Returns the field of an attention that names its bias, in the graph's constants then; none where it changes no weight."""
    bias = scores.bias if scores.bias is None or not scores.turned else scores.bias.mT
    if bias is None or (torch.equal(bias, bias[..., :1].expand(bias.shape)) and torch.isfinite(bias).all()):
        return {}
    values = bias.reshape(heads, *bias.shape[-2:])
    if blind := int((values == -torch.inf).all(dim=-1).sum()):
        raise refuse(call.node, f"a mask with which {blind} queries see no key", "one that leaves each a key, such as its own")
    name = f"{call.builder.name('attention')}.bias"
    call.builder.graph.constants[name] = (values[:1] if torch.equal(values, values[:1].expand(values.shape)) else values).numpy()
    return {"bias": name}
