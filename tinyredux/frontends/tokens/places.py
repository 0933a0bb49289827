"""Where each value of a tensor of tokens lies in its map, and what a layer reads of it."""

from __future__ import annotations

import math

import torch
from torch import fx

from tinyredux.frontends.builder import Builder, Call, refuse
from tinyredux.graph import Rearrange

VIEWS = (
    "permute", "transpose", "movedim", "swapaxes", "t", "mT", "flatten", "unflatten", "view", "reshape", "_unsafe_view",
    "squeeze", "unsqueeze", "select", "slice", "unbind", "split", "split_with_sizes", "chunk", "tensor_split", "getitem",
)  # fmt: skip
NEAREST = "tokens (1, tokens, features), such as x.flatten(2).transpose(1, 2), with the features last"
Operand = tuple[fx.Node, torch.Tensor]


def places(builder: Builder, node: fx.Node) -> torch.Tensor:
    """Returns where each value of a node lies in its map, an array of the node's shape."""
    if node.name in builder.turned:
        return builder.turned[node.name]
    shape = builder.graph.tensors[builder.value[node.name]].shape
    lie = torch.arange(math.prod(shape)).reshape(1, *shape).permute(0, 3, 1, 2)
    return lie.reshape(tuple(node.meta["val"].shape))


def view(call: Call) -> None:
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


def all_places(call: Call, operands: list[fx.Node]) -> torch.Tensor:
    """Returns the places that operands have in common: each value of a map once, in one order. Takes out what is part of one."""
    for node in operands:
        if not take_channels(call, node):
            take_part(call, node)
    first, *others = (places(call.builder, node) for node in operands)
    whole = call.builder.graph.tensors[call.builder.value[operands[0].name]].elements
    if first.numel() != whole or tuple(first.shape) != call.shape:
        raise refuse(call.node, f"{call.kind} of a part of {tuple(first.shape)} of a map", f"whole {NEAREST}")
    if any(other.shape != first.shape or not torch.equal(other, first) for other in others):
        raise refuse(call.node, f"{call.kind} of tensors that lie differently", f"two {NEAREST}")
    return first


def rows(call: Call, node: fx.Node, last: int = -1) -> tuple[str, torch.Tensor]:
    """Returns the tensor whose channels are the last axis of a node, and its places there; takes the part that the node is.

    With `last`, another axis, it is brought to the end first.
    """
    lie = places(call.builder, node).movedim(last, -1)
    tensor = call.builder.graph.tensors[call.builder.value[node.name]]
    _, width, channels = tensor.shape
    features = lie.shape[-1]
    at = lie.reshape(-1, features)
    first, place = int(at[0, 0]) % channels, int(at[0, 0]) // channels
    expected = (place + torch.arange(len(at)))[:, None] * channels + first + torch.arange(features)
    in_rows = place % width == len(at) % width == 0
    if first + features > channels or not (in_rows or len(at) == 1) or not torch.equal(at, expected):
        raise refuse(call.node, f"{call.kind} over the last dimension of {tuple(lie.shape)}", NEAREST)
    size, start = ((len(at) // width, width) if in_rows else (1, 1)), divmod(place, width)
    return part(call, node, size, start, first, features), torch.arange(at.numel()).reshape(lie.shape)


def part(call: Call, node: fx.Node, size: tuple[int, int], start: tuple[int, int], first: int, count: int) -> str:
    """Returns the tensor with these rows, columns and channels of a node's map; takes them where they are not all."""
    tensor = call.builder.graph.tensors[call.builder.value[node.name]]
    if (*size, count) == tensor.shape:
        return tensor.name
    before = call.builder.value.get(call.node.name)
    call.emit("part", Rearrange, reads=[node], size=size, channels=count, start=start, first_channel=first)
    name = call.builder.value.pop(call.node.name)
    if before is not None:
        call.builder.value[call.node.name] = before
    return name


def take_part(call: Call, node: fx.Node) -> None:
    """Makes a node that is some rows, or one place, of a map a tensor of its own."""
    if places(call.builder, node).numel() < call.builder.graph.tensors[call.builder.value[node.name]].elements:
        call.builder.value[node.name], call.builder.turned[node.name] = rows(call, node)


def take_channels(call: Call, node: fx.Node) -> bool:
    """Makes a node that is some channels of a map, side by side, a tensor of its own; False where it is anything else but all."""
    lie, (height, width, channels) = places(call.builder, node), call.builder.graph.tensors[call.builder.value[node.name]].shape
    own = lie % channels
    first, count = int(own.min()), int(own.max() - own.min()) + 1
    if len(set(lie.flatten().tolist())) != height * width * count:
        return False
    if count < channels:
        call.builder.value[node.name] = part(call, node, (height, width), (0, 0), first, count)
        call.builder.turned[node.name] = lie // channels * count + own - first
    return True


def note(call: Call, lie: torch.Tensor) -> None:
    """Notes where the values of a call lie; those of a vector lie as torch has them."""
    if len(call.shape) != 2 or call.shape[0] != 1:
        call.builder.turned[call.node.name] = lie.reshape(call.shape)
