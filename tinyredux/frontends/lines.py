"""Networks of one dimension: their maps (1, channels, length) are read as maps (1, channels, 1, length)."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

KINDS = {  # torch's name: that of the same operator of two dimensions
    "conv1d": "conv2d", "conv_transpose1d": "conv_transpose2d", "max_pool1d": "max_pool2d", "avg_pool1d": "avg_pool2d",
    "adaptive_avg_pool1d": "adaptive_avg_pool2d", "adaptive_max_pool1d": "adaptive_max_pool2d",
    "upsample_nearest1d": "upsample_nearest2d", "_upsample_nearest_exact1d": "_upsample_nearest_exact2d",
    "upsample_linear1d": "upsample_bilinear2d",
}  # fmt: skip
FIRST = {  # of an argument for the length alone: what it is for a height of 1
    "kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1, "output_padding": 0, "output_size": 1, "scale_factors": 1.0,
}  # fmt: skip


def as_maps(program: torch.export.ExportedProgram) -> None:
    """Rewrites a program: activations of three axes have four, arguments are those of two dimensions."""
    lifted = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if node.op == "call_function" and any(arg.name in lifted for arg in node.all_input_nodes):
            lifted.add(node.name)
            names = [argument.name for argument in getattr(getattr(node.target, "_schema", None), "arguments", ())]
            kind = getattr(node.target, "__name__", "").split(".")[0]
            three = any(_axes(arg) == 4 for arg in node.all_input_nodes if arg.name in lifted)
            node.args = tuple(
                _argument(kind, name, value, three)
                for name, value in zip([*names, *[""] * len(node.args)], node.args, strict=False)
            )
            node.kwargs = {name: _argument(kind, name, value, three) for name, value in node.kwargs.items()}
        if node.name in lifted:
            node.meta["val"] = _value(node.meta["val"])


def _axes(node: fx.Node) -> int:
    return node.meta["val"].ndim if isinstance(node.meta.get("val"), torch.Tensor) else 4


def _value(value: Any) -> Any:
    """Returns a node's value, or its values, with a height of 1 where there are channels and a length."""
    if isinstance(value, (tuple, list)):
        return tuple(map(_value, value))
    return value.unsqueeze(2) if isinstance(value, torch.Tensor) and value.ndim == 3 else value


def _argument(kind: str, name: str, value: Any, three: bool) -> Any:
    """Returns an argument for maps with a height."""
    if kind in KINDS and name in FIRST and isinstance(value, (list, tuple)) and len(value) == 1:
        return [FIRST[name], *value]
    if name == "dim" and three:
        axes = [axis % 3 for axis in ([value] if isinstance(value, int) else value or ())]
        moved = [axis + (axis == 2) for axis in axes]
        return moved[0] if isinstance(value, int) else moved
    return value
