"""Random int8 networks whose input is a window that slides by rows: valid, causal or padded, with branches, strides and heads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinyredux import graph as ir
from tinyredux.graph import (
    Add,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Graph,
    Lookup,
    Mul,
    Op,
    Pool,
    Quant,
    Rearrange,
    Relu,
    Softmax,
    Tensor,
)

STEPS = ("conv", "depthwise", "pointwise", "conv", "pool", "relu", "lookup", "residual", "concat", "gate", "depthwise")
HEADS = ("flatten", "mean", "last", "map", "softmax")
PADS = ("valid", "causal", "same")


class RandomStream:
    """Builds a network; `frames` is a number of rows a push that its strides divide, most of the time."""

    def __init__(self, seed: int, pads: tuple[str, ...] = PADS) -> None:
        self.rng = np.random.default_rng(seed)
        self.pad, self.quant = self._pick(pads), Quant((0.05,), int(self.rng.integers(-20, 21)))
        shape = (int(self.rng.integers(6, 33)), self._pick((1, 1, 3, 5)), self._pick((1, 2, 4, 5, 8)))
        self.tensors = {"input": Tensor("input", shape, "int8", self.quant)}
        self.constants: dict[str, np.ndarray] = {}
        self.ops: list[Op] = []
        value, self.stride = "input", 1
        for _ in range(int(self.rng.integers(1, 7))):
            value = self._step(self._pick(STEPS), value)
        self.outputs = (self._head(self._pick(HEADS), value),)
        if self.rng.random() < 0.2:
            self.outputs += (value,) if value not in ("input", *self.outputs) else ()
        most = shape[0] - 1
        self.frames = min(most, self._pick((1, self.stride, self.stride, 2 * self.stride)))

    def graph(self) -> Graph:
        graph = Graph("random", tuple(self.ops), self.tensors, self.constants, ("input",), self.outputs)
        ir.verify(graph)
        return graph

    def _pick(self, options):  # type: ignore[no-untyped-def]
        return options[int(self.rng.integers(len(options)))]

    def _add(self, op: Op, weights: tuple[int, ...] = (), channels: int = 0) -> str:
        if weights:
            self.constants[f"{op.name}_w"] = self.rng.integers(-127, 128, weights).astype(np.int8)
            self.constants[f"{op.name}_b"] = self.rng.integers(-2000, 2001, channels).astype(np.int32)
            scales = tuple(float(s) for s in self.rng.uniform(0.0005, 0.01, channels))
            op = replace(op, weights=f"{op.name}_w", bias=f"{op.name}_b", weight_scale=scales)  # type: ignore[call-arg]
        self.ops.append(op)
        graph = Graph("random", tuple(self.ops), self.tensors, self.constants, ("input",), ("input",))
        own = Quant((1 / 256,), -128) if isinstance(op, Softmax) else self.quant
        self.tensors[op.output] = Tensor(op.output, ir.output_shape(graph, op), "int8", own)
        return op.output

    def _names(self, source: str) -> tuple[str, tuple[str, ...], str]:
        return f"op{len(self.ops)}", (source,), f"t{len(self.ops)}"

    def _window(self, shape, strides=(1, 1, 1, 2)):  # type: ignore[no-untyped-def]
        kernel = (int(self.rng.integers(1, min(5, shape[0]) + 1)), int(self.rng.integers(1, min(3, shape[1]) + 1)))
        stride = (self._pick(strides), int(self.rng.integers(1, 3)))
        above = {"valid": (0, 0), "causal": (kernel[0] - 1, 0), "same": ((kernel[0] - 1) // 2, kernel[0] // 2)}[self.pad]
        if (shape[0] + sum(above) - kernel[0]) // stride[0] < 1:
            stride = (1, stride[1])
        return {"kernel": kernel, "stride": stride, "padding": (*above, int(self.rng.integers(kernel[1])), 0)}

    def _step(self, kind: str, source: str) -> str:
        shape, channels = self.tensors[source].shape, self._pick((1, 3, 4, 8))
        activation = self._pick(("none", "relu", "relu6"))
        match kind:
            case "conv":
                window = self._window(shape)
                self.stride *= window["stride"][0]
                op = Conv(*self._names(source), activation=activation, **window)
                return self._add(op, (channels, *window["kernel"], shape[2]), channels)
            case "pointwise":
                return self._add(Conv(*self._names(source), activation=activation), (channels, 1, 1, shape[2]), channels)
            case "depthwise":
                window = self._window(shape)
                self.stride *= window["stride"][0]
                op = DepthwiseConv(*self._names(source), activation=activation, **window)
                return self._add(op, (*window["kernel"], shape[2]), shape[2])
            case "pool":
                window = self._window(shape)
                self.stride *= window["stride"][0]
                return self._add(Pool(*self._names(source), kind=self._pick(("max", "average")), **window))
            case "relu":
                return self._add(Relu(*self._names(source)))
            case "lookup":
                return self._add(Lookup(*self._names(source), self._pick(("sigmoid", "hardswish", "abs"))))
            case "residual" if shape[0] > 2:  # a valid window on one side, a crop of the same rows on the other
                kernel = int(self.rng.integers(2, min(4, shape[0]) + 1))
                one = self._add(Conv(*self._names(source), kernel=(kernel, 1)), (shape[2], kernel, 1, shape[2]), shape[2])
                start = int(self.rng.integers(kernel))
                size = self.tensors[one].shape[:2]
                other = self._add(Rearrange(*self._names(source), size=size, channels=shape[2], start=(start, 0)))
                name, _, output = self._names(one)
                return self._add(Add(name, (one, other), output, subtract=self.rng.random() < 0.3))
            case "concat":
                one = self._step("pointwise", source)
                name, _, output = self._names(one)
                return self._add(Concat(name, (source, one), output))
            case "gate":
                gate = self._add(Conv(*self._names(source)), (1, 1, 1, shape[2]), 1)
                name, _, output = self._names(gate)
                return self._add(Mul(name, (source, gate), output))
        return self._add(Relu(*self._names(source)))

    def _head(self, kind: str, source: str) -> str:
        height, width, channels = self.tensors[source].shape
        match kind:
            case "flatten":
                return self._add(Dense(*self._names(source)), (3, height * width * channels), 3)
            case "mean":
                return self._add(Pool(*self._names(source), kind="average", kernel=(height, width)))
            case "last":  # as causal networks end: the newest row alone
                last = Rearrange(*self._names(source), size=(1, width), channels=channels, start=(height - 1, 0))
                source = self._add(last)
                return self._add(Dense(*self._names(source)), (3, width * channels), 3)
            case "softmax":
                return self._add(Softmax(*self._names(source)))
        return self._add(Conv(*self._names(source)), (2, 1, 1, channels), 2)
