"""einsum of two tensors as what it is made of: exchanges of axes around one matmul."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

LABELS = "0123456789"  # of the axes that an ellipsis stands for


def as_products(program: torch.export.ExportedProgram) -> None:
    """Replaces each einsum of two tensors that one axis of each is summed over by permute and matmul; others stay."""
    for node in [*program.graph.nodes]:
        if node.target is torch.ops.aten.einsum.default and len(node.args[1]) == 2:
            _replace(node, *node.args[1])


def _replace(node: fx.Node, left: fx.Node, right: fx.Node) -> None:
    terms, arrow, out = str(node.args[0]).replace(" ", "").partition("->")
    first, second = (_labels(term, one) for term, one in zip(terms.split(","), (left, right), strict=True))
    if not arrow:  # then the labels that are there once, in the order of the alphabet
        out = "".join(sorted(label for label in first + second if (first + second).count(label) == 1))
    out = _labels(out, node)
    batch, summed = ([label for label in first if label in second and (label in out) == kept] for kept in (True, False))
    rows, columns = ([label for label in out if label in one and label not in batch] for one in (first, second))
    apart = sorted(first) == sorted([*batch, *rows, *summed]) and sorted(second) == sorted([*batch, *summed, *columns])
    apart = apart and len(set(first)) == len(first) and len(set(second)) == len(second) and (bool(arrow) or "..." not in terms)
    if not apart or len(summed) != 1 or len(columns) != 1 or (batch and len(rows) != 1):
        return
    with node.graph.inserting_before(node):
        left = _permuted(node, left, first, [*batch, *rows, *summed])
        right = _permuted(node, right, second, [*batch, *summed, *columns])
        product = _called(node, torch.ops.aten.matmul.default, left, right)
        node.replace_all_uses_with(_permuted(node, product, [*batch, *rows, *columns], [*out]))
    node.graph.erase_node(node)


def _labels(term: str, node: fx.Node) -> str:
    """Returns the labels of a tensor's axes, an ellipsis spelled out."""
    return term.replace("...", LABELS[: node.meta["val"].ndim - len(term.replace("...", ""))])


def _permuted(node: fx.Node, source: fx.Node, before: str | list[str], after: list[str]) -> fx.Node:
    order = [before.index(label) for label in after]
    return source if order == sorted(order) else _called(node, torch.ops.aten.permute.default, source, order)


def _called(node: fx.Node, target: Callable[..., torch.Tensor], *args: Any) -> fx.Node:
    """Returns a new node in the place of another, with the value that its operands have."""
    made = node.graph.call_function(target, args)
    made.meta = node.meta | {"val": target(*(arg.meta["val"] if isinstance(arg, fx.Node) else arg for arg in args))}
    return made
