"""Which channels of a network must go together, and the network without some of them.

Every channel of every activation gets a label while torch's own program is read from input to output. A convolution or
dense layer makes new labels; an addition ties two; depthwise convolutions, batch norms and pools pass them on; concatenation
lines them up; flattening repeats each. What carries one label can only go together. Source: ours.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from tinyredux import nets
from tinyredux.frontends import Builder, arguments, export_with_names
from tinyredux.graph import Attention, Extend, Graph, LayerNorm, MatMul

Labels = npt.NDArray[np.int64]
NORMS = ("batch_norm", "_native_batch_norm_legit_no_training")


@dataclass(frozen=True)
class Channels:
    """The labels of a network's channels, from 0 on, and everything that each of them touches."""

    graph: Graph  # float weights, sizes of int8
    count: int
    tensors: dict[str, Labels]  # tensor of the graph -> label of each channel
    weights: dict[str, dict[int, Labels]]  # parameter or buffer of the module -> axis -> label of each index
    fixed: frozenset[int]  # labels that must stay: the network's input and output, and what cannot be cut

    def footprint(self, label: int) -> tuple[tuple[str, int], ...]:
        """Returns (tensor, channels) for each tensor in which a label occurs."""
        counts = ((name, int(np.count_nonzero(labels == label))) for name, labels in self.tensors.items())
        return tuple((name, number) for name, number in counts if number)


@dataclass
class _Reading:
    """The labels given so far; `parent` joins those that are tied."""

    builder: Builder
    shared: frozenset[str]  # parameters that the module holds under several names
    parent: list[int] = field(default_factory=list)
    of_node: dict[str, Labels] = field(default_factory=dict)
    weights: dict[str, dict[int, Labels]] = field(default_factory=dict)
    fixed: list[int] = field(default_factory=list)

    def fresh(self, number: int) -> Labels:
        """Returns new labels."""
        start = len(self.parent)
        self.parent += range(start, start + number)
        return np.arange(start, start + number)

    def root(self, label: int) -> int:
        """Returns the label that stands for all tied to this one."""
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]
            label = self.parent[label]
        return label

    def tie(self, a: Labels, b: Labels) -> None:
        """Makes labels one, pair by pair."""
        for x, y in zip(a.ravel(), b.ravel(), strict=True):
            self.parent[self.root(int(x))] = self.root(int(y))

    def note(self, node: fx.Node | None, axis: int, labels: Labels) -> None:
        """Notes that the indices of a weight's axis belong to these labels; a weight that is computed fixes them."""
        if node is None:
            return
        signature = self.builder.program.graph_signature
        name = signature.inputs_to_parameters.get(node.name) or signature.inputs_to_buffers.get(node.name)
        if name is None or name in self.shared:
            self.fixed += labels.tolist()
            return
        known = self.weights.setdefault(name, {}).setdefault(axis, labels)
        self.tie(known, labels)


def channels_of(module: nn.Module, input_shape: tuple[int, int, int] | None = None) -> Channels:
    """Returns the channels of any module that export takes, for images of `input_shape` as there. Raises what export raises, and
    ValueError for a network that computes on tokens."""
    graph, builder = export_with_names(module, input_shape)
    if tokens := next((op for op in graph.ops if isinstance(op, Attention | Extend | LayerNorm | MatMul)), None):
        kind = type(tokens).__name__
        raise ValueError(f"{tokens.name} is {kind}: pruning follows channels of convolutions and dense layers, not of tokens")
    names: dict[int, list[str]] = {}
    for name, value in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(value), []).append(name)
    reading = _Reading(builder, frozenset(name for some in names.values() if len(some) > 1 for name in some))
    tensors: dict[str, Labels] = {}
    for node in builder.program.graph.nodes:
        tensor = builder.value.get(node.name)
        if tensor is None:
            continue
        labels = reading.fresh(graph.input.shape[2]) if node.op == "placeholder" else _read(reading, node)
        reading.of_node[node.name] = labels
        if node.op == "placeholder" or tensor in graph.outputs:
            reading.fixed += labels.tolist()
        if tensor in graph.tensors and len(labels) == graph.tensors[tensor].shape[2]:
            tensors.setdefault(tensor, labels)
    return _numbered(reading, graph, tensors)


def _numbered(reading: _Reading, graph: Graph, tensors: dict[str, Labels]) -> Channels:
    """Returns the labels numbered from 0, tied ones alike."""
    roots, number = np.unique([reading.root(label) for label in range(len(reading.parent))], return_inverse=True)
    weights = {name: {axis: number[labels] for axis, labels in axes.items()} for name, axes in reading.weights.items()}
    int8 = {name: replace(tensor, dtype="int8") for name, tensor in graph.tensors.items()}
    return Channels(
        replace(graph, tensors=int8), len(roots), {name: number[labels] for name, labels in tensors.items()}, weights,
        frozenset(number[reading.fixed].tolist()),
    )  # fmt: skip


def _read(reading: _Reading, node: fx.Node) -> Labels:
    """Returns the labels of what a node of torch's program computes, and notes those of its weights."""
    kind = getattr(node.target, "__name__", str(node.target)).split(".")[0].rstrip("_")
    sources = [reading.of_node[arg.name] for arg in node.all_input_nodes if arg.name in reading.of_node]
    first = sources[0]
    if kind == "conv2d":
        return _read_conv(reading, node, first)
    if kind == "linear":
        weight, bias = arguments(node, weight=None, bias=None)
        return _made(reading, weight, bias, first, reading.fresh(weight.meta["val"].shape[0]))
    if kind in NORMS:
        for part in arguments(node, weight=None, bias=None, running_mean=None, running_var=None)[:4]:
            reading.note(part, 0, first)
    if kind in ("cat", "concat"):
        return np.concatenate([reading.of_node[part.name] for part in node.args[0]])  # type: ignore[union-attr, index]
    if kind == "softmax":
        reading.fixed += first.tolist()
    for other in sources[1:]:
        reading.tie(first, other)
    value = node.meta["val"]
    shape = (value[0] if isinstance(value, tuple) else value).shape
    if len(first) > shape[1]:
        return first[:: len(first) // shape[1]]
    return first.repeat(shape[1] // len(first))


def _read_conv(reading: _Reading, node: fx.Node, source: Labels) -> Labels:
    """Returns the labels that a convolution writes.

    Depthwise it passes them on. Groups must stay alike, so the channels at one place of every group are tied.
    """
    weight, bias, *_, groups = arguments(node, weight=None, bias=None, stride=1, padding=0, dilation=1, groups=1)
    outputs = weight.meta["val"].shape[0]
    if groups > 1 and groups == len(source):
        labels = source.repeat(outputs // groups)
        reading.note(weight, 0, labels)
        reading.note(bias, 0, labels)
        return labels
    made = reading.fresh(outputs)
    for grouped in (source.reshape(groups, -1), made.reshape(groups, -1)):
        reading.tie(grouped[1:], np.broadcast_to(grouped[0], grouped[1:].shape))
    return _made(reading, weight, bias, source[: len(source) // groups], made)


def _made(reading: _Reading, weight: fx.Node, bias: fx.Node | None, source: Labels, made: Labels) -> Labels:
    reading.note(weight, 1, source)
    reading.note(weight, 0, made)
    reading.note(bias, 0, made)
    return made


def without(found: Channels, gone: frozenset[int]) -> Graph:
    """Returns the graph with the shapes that remain, for planning alone: its weights are the whole network's."""
    drop = np.array(sorted(gone), np.int64)
    tensors = dict(found.graph.tensors)
    for name, labels in found.tensors.items():
        height, width, _ = tensors[name].shape
        tensors[name] = replace(tensors[name], shape=(height, width, int((~np.isin(labels, drop)).sum())))
    return replace(found.graph, tensors=tensors)


def cut(module: nn.Module, found: Channels, gone: frozenset[int]) -> None:
    """Takes the channels of the labels `gone` out of a module, in place: its weights are smaller afterwards."""
    drop = np.array(sorted(gone), np.int64)
    values = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    smaller = {}
    for name, axes in found.weights.items():
        value = values[name].detach()
        for axis, labels in axes.items():
            value = value.index_select(axis, torch.from_numpy(np.flatnonzero(~np.isin(labels, drop))))
        if value.shape != values[name].shape:
            smaller[name] = value.contiguous()
    nets.resize(module, smaller)
