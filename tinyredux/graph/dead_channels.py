"""Takes out the channels that nobody reads: int8 Graph -> smaller int8 Graph whose outputs keep every bit.

Where every weight that an input channel meets is zero, no product of it counts, so whoever writes the channel need not compute
it. The kernels then see smaller maps and fewer weights, which makes every one of them faster, whatever it does inside.

Source: ours; removing dead code, by channels.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import compress

import numpy as np
import numpy.typing as npt

from tinyredux.graph.constants import constant_names
from tinyredux.graph.operators import (
    Add,
    Bilinear,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Graph,
    Lookup,
    Mul,
    Op,
    Pool,
    Relu,
    Weighted,
)

Live = npt.NDArray[np.bool_]
MULTIPLE = 4  # of channels: a word; fewer would not make the kernels faster


def without_dead_channels(graph: Graph) -> Graph:
    """Returns the graph without the channels that no output depends on; the same graph where there is none."""
    live = live_channels(graph)
    if all(channels.all() for channels in live.values()):
        return graph
    tensors = {name: replace(kept, shape=(*kept.shape[:2], int(live[name].sum()))) for name, kept in graph.tensors.items()}
    constants, ops = dict(graph.constants), []
    for op in graph.ops:
        if isinstance(op, Conv | Dense | DepthwiseConv) and not _kept_whole(graph, op):
            outputs = live[op.output]
            constants[op.weights] = _weights(graph, op, live[op.inputs[0]], outputs)
            constants[op.bias] = graph.constants[op.bias][outputs]
            op = replace(op, weight_scale=tuple(compress(op.weight_scale, outputs)))
        ops.append(op)
    return graph.with_ops(ops, tensors=tensors, constants=constants)


def live_channels(graph: Graph) -> dict[str, Live]:
    """Returns for each tensor which of its channels are kept: those that an output depends on, up to a multiple of 4.

    What an operator passes on channel by channel lives before and behind it alike, so the answer is a fixed point.
    """
    live = {name: np.zeros(tensor.shape[2], bool) for name, tensor in graph.tensors.items()}
    for name in (*graph.inputs, *graph.outputs):
        live[name][:] = True
    _spread(graph, live)
    for op in graph.ops:
        if isinstance(op, Weighted):
            dead = np.flatnonzero(~live[op.output])
            wanted = max(1, -(-int(live[op.output].sum()) // MULTIPLE)) * MULTIPLE
            live[op.output][dead[: wanted - (live[op.output].size - len(dead))]] = True
    _spread(graph, live)
    return live


def _spread(graph: Graph, live: dict[str, Live]) -> None:
    """Marks what lives because of what lives already, until nothing more does."""
    before = -1
    while (now := sum(int(channels.sum()) for channels in live.values())) != before:
        before = now
        for op in reversed(graph.ops):
            _mark(graph, op, live)


def _mark(graph: Graph, op: Op, live: dict[str, Live]) -> None:
    out = live[op.output]
    match op:
        case _ if _kept_whole(graph, op):
            for name in (*op.inputs, op.output):
                live[name][:] = True
        case Conv():
            live[op.inputs[0]] |= (graph.constants[op.weights][out] != 0).any(axis=(0, 1, 2))
        case Dense():
            weights = graph.constants[op.weights][out].reshape(-1, live[op.inputs[0]].size)
            live[op.inputs[0]] |= (weights != 0).any(axis=0)
        case DepthwiseConv():
            live[op.inputs[0]] |= out.reshape(-1, op.multiplier).any(axis=1)
            live[op.output] |= live[op.inputs[0]].repeat(op.multiplier)
        case Concat():
            parts = np.split(out, np.cumsum([live[name].size for name in op.inputs])[:-1])
            for name, part in zip(op.inputs, parts, strict=True):
                live[name] |= part
            live[op.output] = np.concatenate([live[name] for name in op.inputs])
        case _:
            both = np.logical_or.reduce([out, *(live[name] for name in op.inputs)])
            for name in (*op.inputs, op.output):
                live[name] = both.copy()


def _kept_whole(graph: Graph, op: Op) -> bool:
    """Whether an operator keeps all channels: grouped, of another kind, or with constants that another one reads too."""
    if isinstance(op, Conv | Dense | DepthwiseConv):
        uses = Counter(name for other in graph.ops for name in constant_names(other))
        return (isinstance(op, Conv) and op.groups > 1) or any(uses[name] > 1 for name in constant_names(op))
    sizes = {graph.tensors[name].shape[2] for name in (*op.inputs, op.output)}
    return not isinstance(op, Bilinear | Pool | Relu | Add | Concat | Lookup | Mul) or (isinstance(op, Mul) and len(sizes) > 1)


def _weights(graph: Graph, op: Conv | Dense | DepthwiseConv, inputs: Live, outputs: Live) -> npt.NDArray[np.int8]:
    weights = graph.constants[op.weights]
    if isinstance(op, DepthwiseConv):
        return np.ascontiguousarray(weights[..., outputs])
    rows = weights[outputs].reshape(int(outputs.sum()), -1, inputs.size)[..., inputs]
    return np.ascontiguousarray(rows.reshape(len(rows), *weights.shape[1:-1], -1))
