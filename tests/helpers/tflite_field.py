"""Int8 .tflite files as converters write them, drawn from a seed: operators that our graph has no twin of, shapes that the file
computes, networks in one dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
from tflite_writer import Writer

from tinyredux.graph import Graph, Quant

PLAIN = ("conv", "depthwise", "transposed", "max", "average")
MOVED = (
    "mean_axis",
    "pad_alone",
    "pad_channels",
    "pad_window",
    "resize",
    "bilinear",
    "slice",
    "strided",
    "split",
    "split_v",
    "limits",
    "elu",
)


class Field:
    """A file in the making: `last` is the number of the tensor that the next operator reads, `shape` and `quant` are its."""

    def __init__(self, seed: int, shape: tuple[int, ...] = ()) -> None:
        self.rng, self.writer = np.random.default_rng(seed), Writer(Graph("field", (), {}, {}, (), ()))
        self.shape = shape or (1, self.pick(5, 8, 9), self.pick(4, 7, 10), self.pick(1, 3, 4, 6))
        self.quant = Quant((float(np.float32(self.rng.uniform(0.01, 0.1))),), self.pick(-128, -3, 10))
        self.first = self.last = self.writer.tensor("input", self.shape, "int8", self.quant)

    def pick(self, *options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def constant(self, values: Any, dtype: type = np.int32) -> int:
        array = np.array(values, dtype)
        return self.writer.tensor(f"c{len(self.writer.tensors)}", array.shape, array.dtype.name, None, array)

    def new(self, shape: tuple[int, ...], quant: Quant | None = None, dtype: str = "int8") -> int:
        kept = (quant or self.quant) if dtype == "int8" else None
        return self.writer.tensor(f"t{len(self.writer.tensors)}", shape, dtype, kept)

    def add(
        self, code: str, inputs: list[int], shape: tuple[int, ...], options: str = "", quant: Quant | None = None, **fields: Any
    ) -> None:
        """Appends an operator with one int8 result, which the next one reads."""
        result = self.new(shape, quant)
        self.writer.operator(code, inputs, result, options, **fields)
        self.last, self.shape, self.quant = result, shape, quant or self.quant

    def coarser(self, most: float = 3.0) -> Quant:
        scale = float(np.float32(self.quant.scale[0] * self.rng.uniform(0.4, most)))
        return Quant((scale,), self.pick(-128, -20, 0, 13))

    def weighted(self, kind: str, shape: tuple[int, ...], axis: int, biased: bool = True) -> tuple[list[int], Quant]:
        """Returns constants of an operator with weights, and a quantisation of what it writes."""
        count, taps = shape[axis], np.prod(shape) / shape[axis]
        values = self.rng.integers(-127, 128, shape).astype(np.int8)
        one = self.pick(True, False)
        scales = (self.rng.uniform(0.5, 2, 1 if one else count) * 0.02 / np.sqrt(taps)).astype(np.float32).tolist()
        weights = self.writer.tensor(f"w{len(self.writer.tensors)}", shape, "int8", Quant(tuple(scales), 0), values, axis)
        result = Quant((float(np.float32(self.quant.scale[0] * self.rng.uniform(0.6, 1.6))),), self.pick(-128, -20, 0))
        if not biased:
            return [weights], result
        products = tuple(float(np.float32(self.quant.scale[0]) * np.float32(scale)) for scale in scales)
        bias = self.rng.integers(-4000, 4000, count).astype(np.int32)
        return [weights, self.writer.tensor(f"b{len(self.writer.tensors)}", (count,), "int32", Quant(products, 0), bias)], result

    def conv(self, outputs: int = 0, kernel: tuple[int, int] = (0, 0), stride: tuple[int, int] = (1, 1)) -> None:
        _, height, width, channels = self.shape
        kernel = kernel if kernel[0] else (min(height, self.pick(1, 2, 3)), min(width, self.pick(1, 3)))
        outputs, same = outputs or self.pick(4, 5, 8), self.pick(0, 1)
        constants, quant = self.weighted("conv", (outputs, *kernel, channels), 0)
        size = [-(-n // s) if same else (n - k) // s + 1 for n, k, s in zip((height, width), kernel, stride, strict=True)]
        fields = {"padding": 0 if same else 1, "strideH": stride[0], "strideW": stride[1]}
        self.add("CONV_2D", [self.last, *constants], (1, *size, outputs), "Conv2DOptions", quant, **fields)

    def depthwise(self) -> None:
        _, height, width, channels = self.shape
        kernel = (min(height, 3), min(width, self.pick(1, 3)))
        constants, quant = self.weighted("depthwise", (1, *kernel, channels), 3)
        fields = {"padding": 0, "strideH": 1, "strideW": 1, "depthMultiplier": 1}
        self.add("DEPTHWISE_CONV_2D", [self.last, *constants], self.shape, "DepthwiseConv2DOptions", quant, **fields)

    def transposed(self) -> None:
        _, height, width, channels = self.shape
        stride = (self.pick(1, 2), self.pick(1, 2, 3))
        kernel, outputs, same = (self.pick(2, 3, 4), self.pick(3, 4)), self.pick(3, 4), self.pick(True, False)
        constants, quant = self.weighted("transposed", (outputs, *kernel, channels), 0, self.pick(True, True, False))
        size = [n * s if same else (n - 1) * s + k for n, s, k in zip((height, width), stride, kernel, strict=True)]
        shape, fields = (1, *size, outputs), {"padding": 0 if same else 1, "strideH": stride[0], "strideW": stride[1]}
        inputs = [self.constant(shape), constants[0], self.last, *constants[1:]]
        self.add("TRANSPOSE_CONV", inputs, shape, "TransposeConvOptions", quant, **fields)

    def pool(self, kind: str) -> None:
        _, height, width, channels = self.shape
        kernel = (min(height, 2), min(width, self.pick(1, 2)))
        shape = (1, height - kernel[0] + 1, width - kernel[1] + 1, channels)
        fields = {"padding": 1, "strideH": 1, "strideW": 1, "filterHeight": kernel[0], "filterWidth": kernel[1]}
        self.add(f"{kind.upper()}_POOL_2D", [self.last], shape, "Pool2DOptions", **fields)

    def mean(self, axes: tuple[int, ...], keep: bool) -> None:
        shape = tuple(1 if axis in axes else n for axis, n in enumerate(self.shape) if keep or axis not in axes)
        named = [axis - len(self.shape) * self.pick(0, 1) for axis in axes]
        quant = self.pick(self.quant, self.coarser(1.2))
        self.add("MEAN", [self.last, self.constant(named)], shape, "ReducerOptions", quant, keepDims=keep)

    def pad(self, sides: list[tuple[int, int]]) -> None:
        shape = tuple(n + sum(each) for n, each in zip(self.shape, sides, strict=True))
        self.add("PAD", [self.last, self.constant(sides)], shape, "PadOptions")

    def flatten(self) -> None:
        """As Keras does: the shape is computed, the batch taken from it, and packed with -1."""
        shape, first, target = (
            self.new((len(self.shape),), None, "int32"),
            self.new((), None, "int32"),
            self.new((2,), None, "int32"),
        )
        self.writer.operator("SHAPE", [self.last], shape, "ShapeOptions", outType=2)
        places = [shape, self.constant([0]), self.constant([1]), self.constant([1])]
        self.writer.operator("STRIDED_SLICE", places, first, "StridedSliceOptions", shrinkAxisMask=1)
        self.writer.operator("PACK", [first, self.constant(-1)], target, "PackOptions", valuesCount=2, axis=0)
        self.add("RESHAPE", [self.last, target], (1, int(np.prod(self.shape))), "ReshapeOptions")

    def reshape(self, shape: tuple[int, ...]) -> None:
        self.add("RESHAPE", [self.last, self.constant(shape)], shape, "ReshapeOptions")

    def dense(self, outputs: int, keep: bool = False) -> None:
        count = self.shape[-1] if keep else int(np.prod(self.shape))
        constants, quant = self.weighted("dense", (outputs, count), 0, self.pick(True, False))
        shape = (*self.shape[:-1], outputs) if keep else (1, outputs)
        self.add("FULLY_CONNECTED", [self.last, *constants], shape, "FullyConnectedOptions", quant, keepNumDims=keep)

    def taken(self, kind: str) -> None:
        """A part of the map, by places and sizes or by places with steps and masks."""
        _, height, width, channels = self.shape
        begin = [0, self.pick(0, min(1, height - 1)), self.pick(0, min(2, width - 1)), self.pick(0, channels // 2)]
        if kind == "slice":
            size = [1, height - begin[1], self.pick(1, width - begin[2]), self.pick(-1, channels - begin[3])]
            shape = (1, *size[1:3], channels - begin[3])
            self.add("SLICE", [self.last, self.constant(begin), self.constant(size)], shape, "SliceOptions")
            return
        end, step = (
            [1, height, self.pick(width, -1) if width - begin[2] > 1 else width, channels],
            [1, self.pick(1, 2), self.pick(1, 2), 1],
        )
        shape = tuple(len(range(n)[slice(*each)]) for n, each in zip(self.shape, zip(begin, end, step, strict=True), strict=True))
        fields = {"beginMask": 1, "endMask": self.pick(1, 9)}
        self.add("STRIDED_SLICE", [self.last, *map(self.constant, (begin, end, step))], shape, "StridedSliceOptions", **fields)

    def split(self, kind: str) -> None:
        """Pieces along channels that are joined again in another order, or the last piece of the rows or columns."""
        axis = self.pick(1, 2, 3)
        count = self.shape[axis]
        even = kind == "split" and count % 2 == 0
        sizes = [count // 2] * 2 if even else [count - count // 2, count // 2]
        if 0 in sizes or (kind == "split" and not even):
            return
        pieces = [self.new((*self.shape[:axis], size, *self.shape[axis + 1 :])) for size in sizes]
        inputs = [self.constant(axis), self.last] if even else [self.last, self.constant(sizes), self.constant(axis - 4)]
        self.writer.operator(
            "SPLIT" if even else "SPLIT_V", inputs, pieces[0], "SplitOptions" if even else "SplitVOptions", numSplits=2
        )
        self.writer.operators[-1].outputs = pieces
        if axis == 3:
            self.add("CONCATENATION", pieces[::-1], self.shape, "ConcatenationOptions", axis=3)
        else:
            self.last, self.shape = pieces[1], (*self.shape[:axis], sizes[1], *self.shape[axis + 1 :])

    def resize(self) -> None:
        _, height, width, channels = self.shape
        size, align = (height * self.pick(1, 2, 3), width * self.pick(1, 2)), False
        inputs, half = [self.last, self.constant(size)], self.pick(True, False)
        self.add(
            "RESIZE_NEAREST_NEIGHBOR",
            inputs,
            (1, *size, channels),
            "ResizeNearestNeighborOptions",
            alignCorners=align,
            halfPixelCenters=half,
        )

    def bilinear(self, rule: str = "") -> None:
        """Means of neighbours, larger, smaller or as large, by one of the format's three rules."""
        _, height, width, channels = self.shape
        size = tuple(self.pick(2 * n, 3 * n, *range(1, 2 * n + 2)) for n in (height, width))
        rule = rule or self.pick("alignCorners", "halfPixelCenters", "plain")
        fields = {key: key == rule for key in ("alignCorners", "halfPixelCenters")}
        inputs = [self.last, self.constant(size)]
        self.add("RESIZE_BILINEAR", inputs, (1, *size, channels), "ResizeBilinearOptions", **fields)

    def step(self, kind: str) -> None:
        _, _height, _width, _channels = self.shape
        match kind:
            case "conv" | "depthwise" | "transposed" | "resize" | "bilinear":
                getattr(self, kind)()
            case "max" | "average":
                self.pool(kind)
            case "mean_axis":
                self.mean((self.pick(1, 2),), True)
            case "pad_alone":
                self.pad([(0, 0), (self.pick(0, 1), 2), (1, 0), (0, 0)])
                self.pool("average")
            case "pad_channels":
                self.pad([(0, 0), (0, 0), (self.pick(0, 1), 0), (1, 2)])
                self.add("RELU", [self.last], self.shape)
            case "pad_window":
                self.pad([(0, 0), (0, 1), (0, 1), (0, 0)])
                self.conv(kernel=(2, 2), stride=(2, 2))
            case "slice" | "strided":
                self.taken(kind)
            case "split" | "split_v":
                self.split(kind)
            case "limits":
                limit = self.writer.tensor(
                    f"l{len(self.writer.tensors)}", (), "int8", self.quant, np.array(self.pick(-100, -5, 60), np.int8)
                )
                self.add(self.pick("MAXIMUM", "MINIMUM"), [self.last, limit], self.shape, "MaximumMinimumOptions")
            case "elu":
                self.add("ELU", [self.last], self.shape, quant=self.coarser(1.1))

    def bytes(self) -> bytes:
        return self.writer.bytes([self.first], [self.last])


def field_model(seed: int) -> bytes:
    """Returns a file with convolutions and what moves values, a mean at its end, and a dense layer behind a computed shape."""
    field = Field(seed)
    field.conv()
    for _ in range(5):
        kind = field.pick(*PLAIN, *MOVED, *MOVED)
        if kind in ("transposed", "resize", "bilinear") and np.prod(field.shape) > 3000:
            continue
        field.step(kind)
    ending = field.pick("mean", "mean", "flatten", "flat mean")
    if ending == "flatten":
        field.flatten()
    else:
        field.mean((1, 2), ending == "mean")
    field.dense(field.pick(3, 10))
    return field.bytes()


def line_model(seed: int) -> bytes:
    """Returns a network in one dimension as Keras writes it: convolutions of height 1, pools of width 1, dense layers place by
    place, a mean over time or a computed flattening."""
    field = Field(seed, (1, 24, 3))
    for i in range(field.pick(2, 3)):
        _, steps, channels = field.shape
        field.add("EXPAND_DIMS", [field.last, field.constant(1)], (1, 1, steps, channels), "ExpandDimsOptions")
        if i and field.pick(True, False):
            field.depthwise()
        field.conv(field.pick(4, 6, 8), (1, 3), (1, field.pick(1, 1, 2)))
        field.add("SQUEEZE", [field.last], (1, *field.shape[2:]), "SqueezeOptions", squeezeDims=[1])
        _, steps, channels = field.shape
        if field.pick(True, True, False):
            field.reshape((1, steps, 1, channels))
            field.pool(field.pick("max", "average"))
            field.reshape((1, field.shape[1], channels))
    if field.pick(True, False):
        field.dense(field.pick(5, 8), keep=True)
    if field.pick(True, False):
        field.mean((1,), False)
    else:
        field.flatten()
    field.dense(4)
    return field.bytes()


def gated_model(seed: int) -> bytes:
    """Returns a network of products and differences: of two maps, and of a map with a value for each of its channels."""
    field = Field(seed)
    field.conv()
    for code in (field.pick("MUL", "SUB"), field.pick("MUL", "SUB"), "vector"):
        first, shape, quant = field.last, field.shape, field.quant
        if code == "vector":
            field.mean((1, 2), True)
            field.conv(shape[3], (1, 1))
            field.add("LOGISTIC", [field.last], field.shape, quant=Quant((1 / 256,), -128))
        else:
            field.depthwise()
        inputs = field.pick([first, field.last], [field.last, first])
        scales = (quant.scale[0], field.quant.scale[0])
        whole = max(scales) if code == "SUB" else scales[0] * scales[1] * field.pick(1, 30, 100)
        result = Quant((float(np.float32(whole * field.rng.uniform(0.5, 2))),), field.pick(-128, -3, 40))
        options = "SubOptions" if code == "SUB" else "MulOptions"
        field.add(
            "SUB" if code == "SUB" else "MUL", inputs, shape, options, result, fusedActivationFunction=field.pick(0, 0, 1, 3)
        )
    field.mean((1, 2), False)
    field.dense(4)
    return field.bytes()


def scaled_model(seed: int) -> bytes:
    """Returns a network between constants: a rescaled input, and Keras' hard sigmoid, of which each step is an operator."""
    field = Field(seed)
    for i in range(4):
        if i == 1:
            field.conv()
        code = field.pick("ADD", "SUB", "MUL")
        own = Quant((float(np.float32(field.rng.uniform(0.0005, 0.05))),), field.pick(-128, 0, 127))
        value = np.array(field.pick(127, -128, 60, 3), np.int8).reshape(field.pick((), (1,), (1, 1, 1, 1)))
        constant = field.writer.tensor(f"k{len(field.writer.tensors)}", value.shape, "int8", own, value)
        most = field.quant.scale[0] * 127 * own.scale[0] if code == "MUL" else max(field.quant.scale[0], own.scale[0])
        result = Quant((float(np.float32(most * field.rng.uniform(0.3, 1.5))),), field.pick(-128, -3, 40))
        inputs = [field.last, constant] if code == "SUB" else field.pick([field.last, constant], [constant, field.last])
        options = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions"}[code]
        field.add(code, inputs, field.shape, options, result, fusedActivationFunction=field.pick(0, 1, 3))
    field.mean((1, 2), False)
    field.dense(4)
    return field.bytes()


def channelled(seed: int) -> Field:
    """Returns a network between constants of several values: for each channel, and for sums and differences for each value."""
    field = Field(seed)
    field.conv()
    for i in range(4):
        if i == 2:
            field.mean((1, 2), field.pick(True, False))
        code = field.pick("ADD", "SUB", "MUL")
        own = Quant((float(np.float32(field.rng.uniform(0.0005, 0.05))),), field.pick(-128, 0, 127))
        channels, whole = field.shape[-1:], (field.shape, field.shape[1:])
        shape = field.pick(channels, (1,) * (len(field.shape) - 1) + channels, *(() if code == "MUL" else whole))
        value = field.rng.integers(-128, 128, shape).astype(np.int8)
        constant = field.writer.tensor(f"k{len(field.writer.tensors)}", shape, "int8", own, value)
        most = field.quant.scale[0] * 127 * own.scale[0] if code == "MUL" else max(field.quant.scale[0], own.scale[0])
        result = Quant((float(np.float32(most * field.rng.uniform(0.3, 1.5))),), field.pick(-128, -3, 40))
        inputs = [field.last, constant] if code == "SUB" else field.pick([field.last, constant], [constant, field.last])
        options = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions"}[code]
        field.add(code, inputs, field.shape, options, result, fusedActivationFunction=field.pick(0, 1, 3))
    return field


def channelled_model(seed: int) -> bytes:
    """Returns such a network with a dense layer at its end, which LiteRT's reference computes in floating point."""
    field = channelled(seed)
    field.dense(4)
    return field.bytes()
