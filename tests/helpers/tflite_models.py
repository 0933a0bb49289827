"""Small int8 networks as .tflite files, drawn from a seed: each the same bytes for ever, so that digests can be kept."""

from __future__ import annotations

import numpy as np
from tflite_writer import same_padding, tflite_bytes

from tinyredux.graph import (
    ACTIVATIONS,
    Add,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Graph,
    Lookup,
    Op,
    Pool,
    Quant,
    Relu,
    Softmax,
    Tensor,
    apply,
    dilated,
    output_shape,
)
from tinyredux.int8 import interpret
from tinyredux.int8.factors import SOFTMAX_OUTPUT

FUNCTIONS = ("sigmoid", "tanh", "hardswish", "leaky_relu", "identity", "clamp")
STEPS = ("conv", "pointwise", "depthwise", "grouped", "max", "average", "add", "concat", "relu")


class Drawn:
    """A network in the making: every step reads the map before it, additions and concatenations an earlier one too."""

    def __init__(self, seed: int, functions: bool = False, holes: bool = False) -> None:
        self.dilations = (1, 2, 3) if holes else (1,)
        self.rng = np.random.default_rng(seed)
        shape = (self.pick(5, 8, 11, 16), self.pick(4, 7, 9, 16), self.pick(1, 3, 4, 8))
        first = Tensor("in", shape, "int8", Quant((0.046875,), self.pick(-128, -3, 10)))
        self.graph = Graph(f"drawn{seed}", (), {"in": first}, {}, ("in",), ("in",))
        self.values = {"in": self.rng.integers(-128, 128, (8, *shape)).astype(np.int8)}
        for _ in range(7):
            self.step(self.pick(*STEPS, *(2 * FUNCTIONS if functions else ())))
        outputs = self.pick(3, 10, 12)
        self.weighted("dense", Dense, (outputs, self.last.elements), 0)
        if self.pick(True, True, False):
            self.emit(Softmax(self.name("softmax"), (self.last.name,), ""), SOFTMAX_OUTPUT)

    def pick(self, *options):  # type: ignore[no-untyped-def]
        return options[int(self.rng.integers(len(options)))]

    def quant(self, real: np.ndarray, activation: str) -> Quant:
        """Returns a quantisation of most of the values, in steps of an eighth of an octave: sums may differ in their last bit."""
        low, high = np.clip([real.min(), real.max()], *ACTIVATIONS[activation])
        scale = 2 ** (np.round(8 * np.log2(max(high - low, 1e-3) / self.pick(255, 255, 300, 400))) / 8)
        zero_point = -128 if activation != "none" else int(np.clip(-128 - np.round(low / scale / 4) * 4, -128, 127))
        return Quant((float(np.float32(scale)),), zero_point)

    def real(self, name: str) -> np.ndarray:
        quant = self.graph.tensors[name].quant
        return (self.values[name].astype(float) - quant.zero_point) * quant.scale[0]  # type: ignore[union-attr]

    @property
    def last(self) -> Tensor:
        return self.graph.output

    def name(self, kind: str) -> str:
        return f"{kind}{len(self.graph.ops)}"

    def emit(self, op: Op, quant: Quant) -> None:
        op = type(op)(**vars(op) | {"output": op.name})
        self.graph.tensors[op.name] = Tensor(op.name, output_shape(self.graph, op), "int8", quant)
        self.graph = self.graph.with_ops([*self.graph.ops, op], outputs=(op.name,))
        self.values[op.name] = interpret.run_op(self.graph, op, [self.values[name] for name in op.inputs])

    def weighted(self, kind: str, operator, shape: tuple[int, ...], axis: int, **fields) -> None:  # type: ignore[no-untyped-def]
        name, count = self.name(kind), shape[axis]
        self.graph.constants[f"{name}.weights"] = self.rng.integers(-127, 128, shape).astype(np.int8)
        self.graph.constants[f"{name}.bias"] = self.rng.integers(-4000, 4000, count).astype(np.int32)
        scales = (self.rng.uniform(0.5, 2, count) * 0.02 / np.sqrt(np.prod(shape) / count)).astype(np.float32)
        scales = scales if self.pick(True, True, False) else np.full(count, scales[0])
        activation, source = self.pick("none", "relu", "relu6"), self.last.quant
        names = (self.last.name,), "", f"{name}.weights", f"{name}.bias"
        op = operator(name, *names, activation, tuple(map(float, scales)), **fields)
        centred = self.values[self.last.name].astype(np.int16) - source.zero_point  # type: ignore[union-attr]
        sums = interpret.accumulate(self.graph, op, centred) + self.graph.constants[op.bias]
        self.emit(op, self.quant(sums * scales * source.scale[0], activation))  # type: ignore[union-attr]

    def window(self, *sizes: int) -> dict[str, tuple[int, ...]]:
        height, width, _ = self.last.shape
        kernel = (min(height, self.pick(*sizes)), min(width, self.pick(*sizes)))
        stride, same = (self.pick(1, 1, 2), self.pick(1, 1, 2)), self.pick(True, False)
        reach, dilation = kernel, (1, 1)
        if len(self.dilations) > 1 and 2 not in stride:  # what converters write
            reach, dilation = dilated(kernel, (self.pick(*self.dilations), self.pick(*self.dilations)))
        same |= reach[0] > height or reach[1] > width
        sides = [same_padding(*each) if same else (0, 0) for each in zip((height, width), reach, stride, strict=True)]
        return {"kernel": kernel, "stride": stride, "padding": (*sides[0], *sides[1]), "dilation": dilation}

    def plain_window(self, *sizes: int) -> dict[str, tuple[int, ...]]:
        """Returns a window without holes, which the format's pools do not know."""
        self.dilations, kept = (1,), self.dilations
        window, self.dilations = self.window(*sizes), kept
        return window

    def step(self, kind: str) -> None:
        channels = self.last.shape[2]
        match kind:
            case "conv" | "pointwise" | "grouped":
                groups = 2 if kind == "grouped" and channels % 2 == 0 else 1
                window, outputs = self.window(1) if kind == "pointwise" else self.window(1, 2, 3, 5), self.pick(4, 6, 8, 12)
                shape = (outputs, *window["kernel"], channels // groups)
                self.weighted("conv", Conv, shape, 0, groups=groups, **window)
            case "depthwise":
                window, multiplier = self.window(1, 2, 3, 5), self.pick(1, 1, 2)
                shape = (*window["kernel"], channels * multiplier)
                self.weighted(kind, DepthwiseConv, shape, 2, multiplier=multiplier, **window)
            case "max" | "average":
                op = Pool(
                    self.name(kind), (self.last.name,), "", kind, activation=self.pick("none", "relu"), **self.plain_window(2, 3)
                )
                self.emit(op, self.last.quant)  # type: ignore[arg-type]
            case "add":
                alike = [one for one in self.graph.tensors.values() if one.shape == self.last.shape]
                other = alike[int(self.rng.integers(len(alike)))]
                activation = self.pick("none", "relu", "relu6")
                quant = self.quant(self.real(self.last.name) + self.real(other.name), activation)
                self.emit(Add(self.name(kind), (self.last.name, other.name), "", activation), quant)
            case "concat":
                alike = [one for one in self.graph.tensors.values() if one.quant == self.last.quant]
                alike = [one for one in alike if one.shape[:2] == self.last.shape[:2] and one.shape[2] + channels <= 24]
                if alike:
                    self.emit(Concat(self.name(kind), (alike[-1].name, self.last.name), ""), self.last.quant)  # type: ignore[arg-type]
            case _ if kind in FUNCTIONS:
                given = {"leaky_relu": (0.125,), "clamp": (0.0, np.inf)}.get(kind, ())
                real = apply(kind, given, self.real(self.last.name))
                plain = Quant(self.last.quant.scale, -100)  # type: ignore[union-attr]  # TFLM takes no much finer hard swish
                prescribed = {"sigmoid": Quant((1 / 256,), -128), "tanh": Quant((1 / 128,), 0), "hardswish": plain}.get(kind)
                op = Lookup(self.name(kind), (self.last.name,), "", kind, given)
                self.emit(op, prescribed or self.quant(real, "relu" if kind == "clamp" else "none"))
            case "relu":
                op = Relu(self.name(kind), (self.last.name,), "", self.pick("relu", "relu6"))
                self.emit(op, self.last.quant)  # type: ignore[arg-type]


def drawn_model(seed: int, functions: bool = False, holes: bool = False) -> bytes:
    """Returns the .tflite file of a seed; its dense layer is a FULLY_CONNECTED. `functions`: some of one value, too; `holes`:
    windows with holes."""
    return tflite_bytes(Drawn(seed, functions, holes).graph, fully_connected=True)
