"""Random int8 networks: branches, residuals, concatenations, strides, pools, depthwise and dense layers, some with several
outputs, of which some are read inside as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from strategies import bilinear, rearrange, values_seen

from tinyredux import graph as ir
from tinyredux.graph import Add, Concat, Conv, Dense, DepthwiseConv, Graph, Lookup, Mul, Op, Pool, Quant, Relu, Softmax, Tensor

PLAIN = ("conv", "pointwise", "depthwise", "pool", "relu", "add", "concat", "grouped", "conv", "depthwise")
KINDS = (*PLAIN, "lookup", "mul", "squeeze", "rearrange", "sub", "gate", "dilated", "bilinear")


def random_graph(seed: int, most: int = 10, kinds: Sequence[str] = KINDS, most_outputs: int = 4) -> Graph:
    """Returns a random network of up to about `most` operators of some kinds with one output, or about every third time with two
    to `most_outputs`."""
    rng, more = np.random.default_rng(seed), np.random.default_rng((seed, 1))
    outputs_wanted = int(more.integers(2, most_outputs + 1)) if more.random() < 0.35 and most_outputs > 1 else 1
    quant = Quant((0.05,), int(rng.integers(-20, 21)))
    shape = (int(rng.integers(2, 9)), int(rng.integers(2, 9)), int(rng.integers(1, 7)))
    tensors = {"input": Tensor("input", shape, "int8", quant)}
    constants: dict[str, np.ndarray] = {}
    ops: list[Op] = []

    def add(op: Op, weights: tuple[int, ...] = (), channels: int = 0) -> str:
        if weights:
            constants[f"{op.name}_w"] = rng.integers(-127, 128, weights).astype(np.int8)
            constants[f"{op.name}_b"] = rng.integers(-2000, 2001, channels).astype(np.int32)
            scales = tuple(float(s) for s in rng.uniform(0.0005, 0.01, channels))
            op = replace(op, weights=f"{op.name}_w", bias=f"{op.name}_b", weight_scale=scales)  # type: ignore[call-arg]
        ops.append(op)
        graph = Graph("random", tuple(ops), tensors, constants, ("input",), ("input",))
        own = Quant((1 / 256,), -128) if isinstance(op, Softmax) else quant
        tensors[op.output] = Tensor(op.output, ir.output_shape(graph, op), "int8", own)
        return op.output

    def unread() -> list[str]:
        read = {name for op in ops for name in op.inputs}
        return [name for name in tensors if name not in read]

    for _ in range(int(rng.integers(1, most + 1))):
        recent = list(tensors)[-4:]
        source = str(rng.choice([name for name in recent if not isinstance(_producer(ops, name), Softmax)] or ["input"]))
        _random_op(rng, add, tensors, source, str(rng.choice(kinds)), f"op{len(ops)}")
    while len(loose := [name for name in unread() if name != "input"]) > outputs_wanted:
        _join(rng, add, tensors, loose[0], loose[1], len(ops))
    last = unread()[-1] if ops else "input"
    if rng.random() < 0.3:
        height, width, channels = tensors[last].shape
        outputs = int(rng.integers(1, 8))
        last = add(Dense(f"op{len(ops)}", (last,), f"t{len(ops)}"), (outputs, height * width * channels), outputs)
    if rng.random() < 0.2:
        last = add(Softmax(f"op{len(ops)}", (last,), f"t{len(ops)}"))
    ends = [name for name in dict.fromkeys([*unread(), last]) if name != "input"]
    inner = [name for name in tensors if name not in (*ends, "input")]
    ends += map(str, more.permutation(inner)[: max(0, outputs_wanted - len(ends))])
    graph = Graph("random", tuple(ops), tensors, constants, ("input",), tuple(map(str, more.permutation(ends))))
    ir.verify(graph)
    return graph


def _producer(ops: list[Op], name: str) -> Op | None:
    return next((op for op in ops if op.output == name), None)


def _window(rng, shape):  # type: ignore[no-untyped-def]
    kernel = (int(rng.integers(1, min(3, shape[0]) + 1)), int(rng.integers(1, min(3, shape[1]) + 1)))
    stride = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
    padding = tuple(int(rng.integers(0, k)) for k in (kernel[0], kernel[0], kernel[1], kernel[1]))
    return {"kernel": kernel, "stride": stride, "padding": padding}


def _random_op(rng, add, tensors, source, kind, name):  # type: ignore[no-untyped-def]
    output, shape = "t" + name[2:], tensors[source].shape
    channels = int(rng.integers(1, 9))
    activation = str(rng.choice(["none", "relu", "relu6"]))
    match kind:
        case "conv":
            window = _window(rng, shape)
            add(Conv(name, (source,), output, activation=activation, **window), (channels, *window["kernel"], shape[2]), channels)
        case "pointwise":
            add(Conv(name, (source,), output, activation=activation), (channels, 1, 1, shape[2]), channels)
        case "grouped":
            groups = int(rng.choice([g for g in (1, 2, 3) if shape[2] % g == 0]))
            outputs, window = groups * int(rng.integers(1, 4)), _window(rng, shape)
            add(Conv(name, (source,), output, groups=groups, **window), (outputs, *window["kernel"], shape[2] // groups), outputs)
        case "depthwise":
            many, window = int(rng.choice([1, 1, 1, 2])), _window(rng, shape)
            total = shape[2] * many
            op = DepthwiseConv(name, (source,), output, multiplier=many, activation=activation, **window)
            add(op, (*window["kernel"], total), total)
        case "dilated":
            _dilated(rng, add, source, shape, name)
        case "pool":
            add(Pool(name, (source,), output, kind=str(rng.choice(["max", "average"])), **_window(rng, shape)))
        case "relu":
            add(Relu(name, (source,), output))
        case "lookup":
            add(Lookup(name, (source,), output, str(rng.choice(["sigmoid", "hardswish", "silu", "gelu", "abs"]))))
        case "add" | "sub":
            same = [other for other, tensor in tensors.items() if tensor.shape == shape]
            add(Add(name, (source, str(rng.choice(same))), output, subtract=kind == "sub"))
        case "rearrange":
            op = rearrange(lambda options: options[int(rng.integers(len(options)))], shape, name, source, output)
            add(op if op.size[0] * op.size[1] < 300 else Relu(name, (source,), output))
        case "bilinear":
            resized = bilinear(lambda options: options[int(rng.integers(len(options)))], shape, name, source, output)
            add(resized if resized.size[0] * resized.size[1] < 300 else Relu(name, (source,), output))
        case "mul":
            others = (shape, (1, 1, shape[2]), (*shape[:2], 1))
            same = [other for other, tensor in tensors.items() if tensor.shape in others]
            add(Mul(name, (source, str(rng.choice(same))), output, activation))
        case "squeeze":  # squeeze and excite: each channel times a function of its mean
            gate = add(Pool(f"{name}a", (source,), f"{output}a", kind="average", kernel=shape[:2]))
            if rng.random() < 0.5:
                gate = add(Conv(f"{name}b", (gate,), f"{output}b"), (shape[2], 1, 1, shape[2]), shape[2])
            gate = add(Lookup(f"{name}c", (gate,), f"{output}c", str(rng.choice(["sigmoid", "hardsigmoid"]))))
            add(Mul(name, (source, gate), output))
        case "gate":  # spatial attention: each place times a function of its channels
            gate = add(Conv(f"{name}a", (source,), f"{output}a"), (1, 1, 1, shape[2]), 1)
            gate = add(Lookup(f"{name}b", (gate,), f"{output}b", "sigmoid"))
            add(Mul(name, (source, gate), output, activation))
        case "concat":
            same = [other for other, tensor in tensors.items() if tensor.shape[:2] == shape[:2]]
            add(Concat(name, (source, *map(str, rng.choice(same, int(rng.integers(1, 3))))), output))


def _dilated(rng, add, source, shape, name):  # type: ignore[no-untyped-def]
    """A window with holes, padded at least as far as it does not fit."""
    kernel, dilation, more = (tuple(map(int, rng.integers(low, high, 2))) for low, high in ((1, 4), (1, 5), (0, 3)))
    reach, dilation = ir.dilated(kernel, dilation)
    sides = [max(0, size - there + wide) for size, there, wide in zip(reach, shape[:2], more, strict=True)]
    padding = tuple(part for side in sides for part in (side // 2, side - side // 2))
    window, channels, output = (
        {"kernel": kernel, "dilation": dilation, "padding": padding},
        int(rng.integers(1, 9)),
        "t" + name[2:],
    )
    groups = int(rng.choice([g for g in (1, 2, 3) if shape[2] % g == 0]))
    match str(rng.choice(["conv", "grouped", "depthwise", "max"])):
        case "conv":
            add(Conv(name, (source,), output, activation="relu", **window), (channels, *kernel, shape[2]), channels)
        case "grouped":
            op = Conv(name, (source,), output, groups=groups, **window)
            add(op, (groups * channels, *kernel, shape[2] // groups), groups * channels)
        case "depthwise":
            add(DepthwiseConv(name, (source,), output, **window), (*kernel, shape[2]), shape[2])
        case _:
            op = Pool(name, (source,), output, **window)
            add(op if all(values_seen(op, shape)) else Relu(name, (source,), output))


def _join(rng, add, tensors, a, b, count):  # type: ignore[no-untyped-def]
    """Joins two tensors by an addition or a concatenation, after pooling both to one pixel where sizes differ."""
    if tensors[a].shape[:2] != tensors[b].shape[:2]:
        pooled = []
        for name in (a, b):
            height, width, _ = tensors[name].shape
            pooled.append(add(Pool(f"op{count}", (name,), f"t{count}", kind="average", kernel=(height, width))))
            count += 1
        a, b = pooled
    kind = Add if tensors[a].shape == tensors[b].shape and rng.random() < 0.6 else Concat
    add(kind(f"op{count}", (a, b), f"t{count}"))
