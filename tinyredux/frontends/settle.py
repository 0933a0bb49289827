"""What is done to a graph of tokens once all of it is there: factors of normalisations go into the layers behind them, and what
takes a part of layers side by side reads that layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinyredux.graph import Attention, Concat, Conv, DepthwiseConv, Graph, LayerNorm, Op, Rearrange, TrecConv


def settled(graph: Graph) -> Graph:
    """Returns the graph with a normalisation's factors within the layers that alone read it, and with a layer of queries, keys
    and values together as three."""
    graph = _before_concats(graph)
    for name in [op.name for op in graph.ops]:
        op = graph.by_name[name]
        readers = graph.consumers(op.output)
        if op.output in graph.outputs or not readers:
            continue
        if isinstance(op, DepthwiseConv) and isinstance(graph.producer(op.inputs[0]), LayerNorm):
            if all(map(_takes_factors, readers)):
                graph = _within(graph, op, readers)
        elif isinstance(op, Conv) and op.groups == 1 and all(_is_part(graph, reader) for reader in readers):
            graph = _apart(graph, op, readers)
    return graph


def _takes_factors(op: Op) -> bool:
    """True for a layer over tokens whose weights can hold a factor and a constant of each feature; of TREC, one whose thresholds
    are means, for its hash sees no constants."""
    if isinstance(op, TrecConv):
        return op.kernel == (1, 1) and op.threshold == "mean"
    return isinstance(op, Conv) and op.kernel == (1, 1) and op.groups == 1


def _within(graph: Graph, scale: DepthwiseConv, readers: list[Op]) -> Graph:
    factor, constant = graph.constants[scale.weights].reshape(-1), graph.constants[scale.bias]
    constants = {name: values for name, values in graph.constants.items() if name not in (scale.weights, scale.bias)}
    for reader in readers:
        assert isinstance(reader, Conv | TrecConv)
        weights = graph.constants[reader.weights]
        if isinstance(reader, TrecConv) and reader.vectors:
            padded = np.pad(factor, (0, -len(factor) % reader.sub_length))
            by_block = padded.reshape(-1, reader.sub_length, 1)
            constants[reader.vectors] = graph.constants[reader.vectors] * by_block
        constants[reader.bias] = graph.constants[reader.bias] + weights.reshape(len(weights), -1) @ constant
        constants[reader.weights] = weights * factor
    ops = [replace(op, inputs=scale.inputs) if op in readers else op for op in graph.ops if op is not scale]
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name != scale.output}
    return graph.with_ops(ops, tensors=tensors, constants=constants)


def _is_part(graph: Graph, op: Op) -> bool:
    """True for neighbouring channels of a whole map that attentions alone read."""
    if not isinstance(op, Rearrange) or op.output in graph.outputs:
        return False
    size = graph.tensors[op.inputs[0]].shape[:2]
    plain = op == Rearrange(op.name, op.inputs, op.output, size, op.channels, first_channel=op.first_channel)
    return plain and all(isinstance(user, Attention) for user in graph.consumers(op.output))


def _before_concats(graph: Graph) -> Graph:
    """Returns the graph where what takes a part of a concatenation that lies within one of its inputs takes it from that input,
    or is not there where it is the whole input; and without concatenations that nothing reads then."""
    ops, same = list(graph.ops), dict[str, str]()  # same: outputs that are other tensors
    for i, part in enumerate(ops):
        concat = graph.producer(part.inputs[0])
        if isinstance(part, Rearrange) and isinstance(concat, Concat) and _is_part(graph, part):
            first = part.first_channel
            for name in concat.inputs:
                if 0 <= first <= graph.tensors[name].shape[2] - part.channels:
                    ops[i] = replace(part, inputs=(name,), first_channel=first)
                    same |= {part.output: name} if part.channels == graph.tensors[name].shape[2] else {}
                first -= graph.tensors[name].shape[2]
    ops = [replace(op, inputs=tuple(same.get(name, name) for name in op.inputs)) for op in ops if op.output not in same]
    read = {name for op in ops for name in op.inputs} | set(graph.outputs)
    ops = [op for op in ops if op.output in read or not isinstance(op, Concat)]
    made = {op.output for op in ops} | set(graph.inputs)
    return graph.with_ops(ops, tensors={name: tensor for name, tensor in graph.tensors.items() if name in made})


def _apart(graph: Graph, conv: Conv, readers: list[Op]) -> Graph:
    """Returns the graph with a convolution of its own for each part of the channels, with its own scale once quantised."""
    constants = {name: values for name, values in graph.constants.items() if name not in (conv.weights, conv.bias)}
    convs = dict[Op, Op]()
    for reader in readers:
        assert isinstance(reader, Rearrange)
        part = slice(reader.first_channel, reader.first_channel + reader.channels)
        names = (f"{reader.name}.weights", f"{reader.name}.bias")
        constants |= {name: graph.constants[old][part] for name, old in zip(names, (conv.weights, conv.bias), strict=True)}
        convs[reader] = replace(conv, name=reader.name, output=reader.output, weights=names[0], bias=names[1])
    ops = [convs.get(op, op) for op in graph.ops if op is not conv]
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name != conv.output}
    origin = {name: place for name, place in graph.origin.items() if name != conv.name}
    origin |= dict.fromkeys((op.name for op in convs), graph.origin[conv.name])
    return graph.with_ops(ops, tensors=tensors, constants=constants, origin=origin)
