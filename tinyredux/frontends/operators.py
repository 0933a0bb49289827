"""One function per torch operator: what it becomes in a Graph, or why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import fx

from tinyredux.frontends.builder import Builder, alias, arguments, constant, pair, refuse, weighted
from tinyredux.graph import (
    Add,
    Array,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Op,
    Padding,
    Pool,
    Relu,
    Shape,
    Softmax,
    Tensor,
    TrecConv,
    Weighted,
)


def flatten(builder: Builder, node: fx.Node, source: fx.Node) -> None:
    """Takes a reshape as a remark on the tensor: the next Linear orders its weights by it.

    Torch may see a map as (1, C, H, W), as (1, C, H * W) or flat as (1, C * H * W); here it stays a map.
    """
    shape, tensor = tuple(node.meta["val"].shape), builder.tensors[builder.value[source.name]]
    height, width, channels = tensor.shape
    if shape == (1, tensor.elements):
        builder.flat.add(node.name)
    elif shape not in ((1, channels, height, width), (1, channels, height * width)):
        raise refuse(node, f"reshape of {tuple(source.meta['val'].shape)} to {shape}", "flatten to (1, features)")
    builder.value[node.name] = tensor.name


def _conv2d(builder: Builder, node: fx.Node) -> None:
    weight_node, bias_node, stride, padding, dilation, groups = arguments(
        node, weight=None, bias=None, stride=1, padding=0, dilation=1, groups=1
    )
    source = node.args[0]
    assert isinstance(source, fx.Node)
    weights, bias = constant(builder, weight_node), constant(builder, bias_node)
    assert weights is not None
    weights = _dilated(weights, pair(dilation))
    tensor = builder.tensors[builder.value[source.name]]
    extra = builder.padded.get(source.name, (0, 0, 0, 0))
    if padding == "same":
        around = tuple(side for size in weights.shape[2:] for side in ((size - 1) // 2, size // 2))
    else:
        vertical, horizontal = (0, 0) if padding == "valid" else pair(padding)
        around = (vertical, vertical, horizontal, horizontal)
    sides = (around[0] + extra[0], around[1] + extra[1], around[2] + extra[2], around[3] + extra[3])
    outputs, _, height, width = weights.shape
    if groups == tensor.shape[2] and groups > 1:
        name = builder.name("depthwise")
        weights_name, bias_name = weighted(builder, name, weights[:, 0].transpose(1, 2, 0), bias, outputs)
        op: Op = DepthwiseConv(
            name,
            (tensor.name,),
            name,
            weights=weights_name,
            bias=bias_name,
            kernel=(height, width),
            stride=pair(stride),
            padding=sides,
            multiplier=outputs // groups,
        )
    else:
        name = builder.name("conv")
        weights_name, bias_name = weighted(builder, name, weights.transpose(0, 2, 3, 1), bias, outputs)
        op = Conv(
            name,
            (tensor.name,),
            name,
            weights=weights_name,
            bias=bias_name,
            kernel=(height, width),
            stride=pair(stride),
            padding=sides,
            groups=groups,
        )
    builder.add(node, op)


def _trec_conv(builder: Builder, node: fx.Node) -> None:
    names = ("weight", "bias", "vectors", "stride", "padding", "sub_length", "hash_bits", "threshold")
    weight_node, bias_node, vectors_node, stride, padding, length, bits, threshold = arguments(node, **dict.fromkeys(names))
    source = node.args[0]
    assert isinstance(source, fx.Node)
    weights = constant(builder, weight_node)
    assert weights is not None
    tensor = builder.tensors[builder.value[source.name]]
    name, (vertical, horizontal) = builder.name("trec"), pair(padding)
    weights_name, bias_name = weighted(builder, name, weights.transpose(0, 2, 3, 1), constant(builder, bias_node), len(weights))
    vectors = constant(builder, vectors_node)
    if vectors is not None:
        builder.constants[f"{name}.vectors"] = vectors.reshape(-1, *vectors.shape[-2:])  # one set may come without its axis
    extra = builder.padded.get(source.name, (0, 0, 0, 0))
    builder.add(
        node,
        TrecConv(
            name, (tensor.name,), name, weights=weights_name, bias=bias_name, kernel=pair(weights.shape[2:]), stride=pair(stride),
            padding=(vertical + extra[0], vertical + extra[1], horizontal + extra[2], horizontal + extra[3]),
            sub_length=length, hash_bits=bits, threshold=threshold, vectors="" if vectors is None else f"{name}.vectors",
        ),
    )  # fmt: skip


def _dilated(weights: Array, dilation: tuple[int, int]) -> Array:
    """Returns the kernel (O, I, H, W) with its holes written out as zeros: no kernel here skips them."""
    if dilation == (1, 1):
        return weights
    height, width = ((size - 1) * step + 1 for size, step in zip(weights.shape[2:], dilation, strict=True))
    wide = np.zeros((*weights.shape[:2], height, width))
    wide[:, :, :: dilation[0], :: dilation[1]] = weights
    return wide


def _linear(builder: Builder, node: fx.Node) -> None:
    weight_node, bias_node = arguments(node, weight=None, bias=None)
    source = node.args[0]
    assert isinstance(source, fx.Node)
    tensor = builder.tensors[builder.value[source.name]]
    if len(source.meta["val"].shape) != 2:
        raise refuse(
            node, f"Linear on a tensor of shape {tuple(source.meta['val'].shape)}", "flatten before Linear, or a 1x1 Conv2d"
        )
    weights = constant(builder, weight_node)
    assert weights is not None
    height, width, channels = tensor.shape
    weights = weights.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(len(weights), -1)
    name = builder.name("dense")
    weights_name, bias_name = weighted(builder, name, weights, constant(builder, bias_node), len(weights))
    builder.add(node, Dense(name, (tensor.name,), name, weights=weights_name, bias=bias_name))


def _batch_norm(builder: Builder, node: fx.Node) -> None:
    gamma_node, beta_node, mean_node, variance_node, training, epsilon = arguments(
        node, weight=None, bias=None, running_mean=None, running_var=None, training=False, eps=1e-5
    )
    source = node.args[0]
    assert isinstance(source, fx.Node)
    if mean_node is None:
        raise refuse(node, "batch norm without running statistics", "track_running_stats=True")
    if training:
        raise refuse(node, "batch norm with the statistics of the images (training=True)", "training=self.training")
    if source.name in builder.flat and _shape(builder, source)[:2] != (1, 1):
        raise refuse(node, "batch norm of a flattened map", "nn.BatchNorm2d before flatten")
    mean, variance = constant(builder, mean_node), constant(builder, variance_node)
    gamma, beta = constant(builder, gamma_node), constant(builder, beta_node)
    assert mean is not None and variance is not None
    factor = (1.0 if gamma is None else gamma) / np.sqrt(variance + epsilon)
    shift = (0.0 if beta is None else beta) - mean * factor
    producer = builder.sole_producer(source)
    if isinstance(producer, Weighted) and producer.activation == "none":
        weights = builder.constants[producer.weights]
        along = factor if isinstance(producer, DepthwiseConv) else factor.reshape(-1, *[1] * (weights.ndim - 1))
        builder.constants[producer.weights] = weights * along
        builder.constants[producer.bias] = builder.constants[producer.bias] * factor + shift
        builder.value[node.name] = producer.output
        return
    name, tensor = builder.name("depthwise"), builder.value[source.name]
    weights_name, bias_name = weighted(builder, name, factor.reshape(1, 1, -1), shift, factor.size)
    builder.add(node, DepthwiseConv(name, (tensor,), name, weights=weights_name, bias=bias_name))


def _relu(builder: Builder, node: fx.Node) -> None:
    kind = str(node.target)
    low, high = (0.0, float("inf")) if "relu" in kind and "relu6" not in kind else _limits(node)
    activation = {(0.0, float("inf")): "relu", (0.0, 6.0): "relu6"}.get((low, high))
    if activation is None:
        raise refuse(node, f"a clamp to [{low}, {high}]", "nn.ReLU or nn.ReLU6")
    source = node.args[0]
    assert isinstance(source, fx.Node)
    makers = _makers(builder, builder.value[source.name])
    if makers:
        builder.ops = [replace(op, activation=activation) if op.name in makers else op for op in builder.ops]  # type: ignore[call-arg]
        builder.value[node.name] = builder.value[source.name]
    else:
        name = builder.name("relu")
        builder.add(node, Relu(name, (builder.value[source.name],), name, activation=activation))
    if source.name in builder.flat:
        builder.flat.add(node.name)


def _limits(node: fx.Node) -> tuple[float, float]:
    if "relu6" in str(node.target):
        return 0.0, 6.0
    hard = "hardtanh" in str(node.target)
    low, high = arguments(node, min_val=-1.0, max_val=1.0) if hard else arguments(node, min=None, max=None)
    if isinstance(low, fx.Node) or isinstance(high, fx.Node):
        raise refuse(node, "a clamp to a tensor", "nn.ReLU or nn.ReLU6")
    return (-float("inf") if low is None else float(low)), (float("inf") if high is None else float(high))


def _makers(builder: Builder, tensor: str) -> set[str]:
    """Returns the operators into which a ReLU behind a tensor can move, through max pools and concats; none if it cannot.

    Nothing else may read what they write. A ReLU before a max pool gives the same values and a tighter range to quantise.
    """
    op = next((op for op in builder.ops if op.output == tensor), None)
    if op is None or builder.readers(tensor) != 1:
        return set()
    if isinstance(op, Concat):
        parts = [_makers(builder, name) for name in op.inputs]
        return set[str]().union(*parts) if all(parts) else set()
    if getattr(op, "activation", "") != "none":
        return set()
    before = _makers(builder, op.inputs[0]) if isinstance(op, Pool) and op.kind == "max" else set()
    return before or {op.name}


def _pool(kind: str) -> Callable[[Builder, fx.Node], None]:
    def convert(builder: Builder, node: fx.Node) -> None:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        kernel, stride, padding, dilation, counts, divisor = arguments(
            node, kernel_size=None, stride=None, padding=0, dilation=1, count_include_pad=kind == "average", divisor_override=None
        )
        if pair(dilation) != (1, 1):
            raise refuse(node, f"max pooling with dilation {dilation}", "dilation=1")
        if divisor is not None:
            raise refuse(node, "average pooling with divisor_override", "the window's own size as divisor")
        kernel = pair(kernel)
        stride = pair(stride) if stride else kernel
        top, left = pair(padding)
        tensor = builder.tensors[builder.value[source.name]]
        value = node.meta["val"]
        rows, columns = (value[0] if isinstance(value, tuple) else value).shape[2:]
        bottom, right = (
            max(0, (count - 1) * step + size - extent - before)
            if before == 0
            else max(before, (count - 1) * step + size - extent - before)
            for count, step, size, extent, before in zip((rows, columns), stride, kernel, tensor.shape, (top, left), strict=False)
        )
        if counts and (top or left):
            if (bottom, right) != (top, left):
                raise refuse(node, "average pooling that counts padding, with ceil_mode", "count_include_pad=False")
            _average_as_depthwise(builder, node, tensor, kernel, stride, (top, top, left, left))
            return
        name = builder.name(f"{kind}pool")
        builder.add(node, Pool(name, (tensor.name,), name, kind, kernel, stride, (top, bottom, left, right)))

    return convert


def _average_as_depthwise(builder: Builder, node: fx.Node, tensor: Tensor, kernel: Any, stride: Any, padding: Padding) -> None:
    """An average that counts its padding is a depthwise convolution with equal weights."""
    channels = tensor.shape[2]
    name = builder.name("depthwise")
    weights_name, bias_name = weighted(builder, name, np.full((*kernel, channels), 1 / (kernel[0] * kernel[1])), None, channels)
    builder.add(
        node,
        DepthwiseConv(
            name, (tensor.name,), name, weights=weights_name, bias=bias_name, kernel=kernel, stride=stride, padding=padding
        ),
    )


def _adaptive(kind: str) -> Callable[[Builder, fx.Node], None]:
    def convert(builder: Builder, node: fx.Node) -> None:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        tensor = builder.tensors[builder.value[source.name]]
        value = node.meta["val"]
        rows, columns = (value[0] if isinstance(value, tuple) else value).shape[2:]
        if tensor.shape[0] % rows or tensor.shape[1] % columns:
            raise refuse(
                node, f"adaptive pooling of {tensor.shape[:2]} to {(rows, columns)}", "an output size that divides the input's"
            )
        kernel = (tensor.shape[0] // rows, tensor.shape[1] // columns)
        name = builder.name(f"{kind}pool")
        builder.add(node, Pool(name, (tensor.name,), name, kind, kernel, kernel))

    return convert


def _reduce(kind: str) -> Callable[[Builder, fx.Node], None]:
    """A mean or maximum over height, width or both is a pool as large as the map."""

    def convert(builder: Builder, node: fx.Node) -> None:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        (axes,) = arguments(node, dim=None)
        rank = len(source.meta["val"].shape)
        axes = [axis % rank for axis in ([axes] if isinstance(axes, int) else axes or range(rank))]
        if rank < 3 or not set(axes) <= set(range(2, rank)):
            raise refuse(node, f"a {kind} over dimensions {axes}", "mean((2, 3)) or nn.AdaptiveAvgPool2d(1)")
        tensor = builder.tensors[builder.value[source.name]]
        whole = rank == 3
        kernel = (tensor.shape[0] if whole or 2 in axes else 1, tensor.shape[1] if whole or 3 in axes else 1)
        pool = "average" if kind == "mean" else "max"
        name = builder.name(f"{pool}pool")
        builder.add(node, Pool(name, (tensor.name,), name, pool, kernel, kernel))

    return convert


def _add(builder: Builder, node: fx.Node) -> None:
    operands = [arg for arg in node.args[:2] if isinstance(arg, fx.Node) and arg.name in builder.value]
    if len(operands) == 1 and 0 in node.args[:2]:  # where Python's sum() starts
        alias(builder, node, operands[0])
        return
    if len(operands) != 2 or node.kwargs.get("alpha", 1) != 1:
        raise refuse(
            node, "adding a constant or a scaled tensor", "an addition of two activations, or the bias of the layer before"
        )
    left, right = (tuple(arg.meta["val"].shape) for arg in operands)
    if left != right:
        raise refuse(
            node, f"adding tensors of shapes {left} and {right}", "an addition of equal shapes; there is no broadcasting"
        )
    name = builder.name("add")
    builder.add(node, Add(name, tuple(builder.value[arg.name] for arg in operands), name))
    if operands[0].name in builder.flat:
        builder.flat.add(node.name)


def _shape(builder: Builder, node: fx.Node) -> Shape:
    return builder.tensors[builder.value[node.name]].shape


def _cat(builder: Builder, node: fx.Node) -> None:
    parts = [part for part in node.args[0] if isinstance(part, fx.Node)]  # type: ignore[union-attr]
    (axis,) = arguments(node, dim=0)
    rank = len(node.meta["val"].shape)
    if axis % rank != 1 or any(part.name not in builder.value for part in parts):
        raise refuse(node, f"cat along dimension {axis}", "torch.cat(tensors, dim=1) of activations")
    if any(part.name in builder.flat and _shape(builder, part)[:2] != (1, 1) for part in parts):
        raise refuse(node, "cat of flattened maps", "cat of the maps before flatten")
    name = builder.name("concat")
    builder.add(node, Concat(name, tuple(builder.value[part.name] for part in parts), name))


def _softmax(builder: Builder, node: fx.Node) -> None:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    (axis,) = arguments(node, dim=-1)
    rank = len(source.meta["val"].shape)
    if axis % rank != 1 or (source.name in builder.flat and _shape(builder, source)[:2] != (1, 1)):
        raise refuse(
            node, f"softmax over dimension {axis} of a {tuple(source.meta['val'].shape)} tensor", "softmax over channels, dim=1"
        )
    name = builder.name("softmax")
    builder.add(node, Softmax(name, (builder.value[source.name],), name))


def _pad(builder: Builder, node: fx.Node) -> None:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    sides, mode, value = arguments(node, pad=None, mode="constant", value=0.0)
    rank = len(source.meta["val"].shape)
    if mode != "constant" or value not in (0, None) or len(sides) not in (2, 4) or min(sides) < 0 or rank != 4:
        raise refuse(
            node,
            f"padding {list(sides)} with mode {mode!r}, value {value}",
            "zero padding of height and width before a convolution",
        )
    left, right, top, bottom = (*sides, 0, 0)[:4]
    before = builder.padded.get(source.name, (0, 0, 0, 0))
    alias(builder, node, source)
    if any((*before, *sides)):
        builder.padded[node.name] = (before[0] + top, before[1] + bottom, before[2] + left, before[3] + right)


HANDLERS: dict[str, Callable[[Builder, fx.Node], None]] = {
    "conv2d": _conv2d,
    "trec_conv": _trec_conv,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "relu": _relu,
    "relu6": _relu,
    "hardtanh": _relu,
    "clamp": _relu,
    "clip": _relu,
    "clamp_min": _relu,
    "max_pool2d": _pool("max"),
    "avg_pool2d": _pool("average"),
    "adaptive_avg_pool2d": _adaptive("average"),
    "adaptive_max_pool2d": _adaptive("max"),
    "mean": _reduce("mean"),
    "amax": _reduce("maximum"),
    "add": _add,
    "cat": _cat,
    "concat": _cat,
    "softmax": _softmax,
    "pad": _pad,
    "constant_pad_nd": _pad,
}
