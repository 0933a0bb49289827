"""Random int8 layers: one generator of shapes, quantisations and data, fed by Hypothesis or by a seeded sweep.

Every choice goes through `pick(options)`. Hypothesis draws it (and shrinks towards the first option, so lists start with
the simplest); a sweep draws it from a NumPy generator, a hundred times faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tinyredux import graph as ir
from tinyredux.graph import (
    FUNCTIONS,
    Add,
    AddConstant,
    Attention,
    Bilinear,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Extend,
    Graph,
    LayerNorm,
    Lookup,
    MatMul,
    Mul,
    Op,
    Pool,
    Quant,
    Rearrange,
    Relu,
    Softmax,
    Tensor,
    TrecConv,
)
from tinyredux.int8 import interpret
from tinyredux.int8.lookup import FIXED_OUTPUT
from tinyredux.int8.tokens import quantized_bias

Pick = Callable[[Sequence[Any]], Any]

ZERO_POINTS = (0, -128, 127, -3, 5, -128, -100, 20)
SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 16, 21, 28)  # some wider than a strip of rows, or a tile, or two
CHANNELS = (1, 3, 4, 2, 5, 6, 7, 8, 9, 12, 16, 17, 20, 24, 33, 64)
KERNELS = (1, 2, 3, 4, 5, 7, 9)
MOST_MACS = 300_000  # of a layer: larger maps are cut
STRIDES = (1, 2, 3, 4, 6, 9)  # some larger than any kernel
DILATIONS = (1, 1, 1, 2, 3, 4)
ACTIVATIONS = ("none", "none", "relu", "relu6")
SUB_LENGTHS = (1, 3, 4, 2, 7, 12, 16, 25, 32, 1000)  # cut to the columns there are
CONTENTS = ("uniform", "uniform", "uniform", "uniform", "uniform", "ends", "low", "high")
KINDS = (
    *("conv", "pointwise", "grouped", "depthwise", "dense", "max", "average", "add", "concat", "relu", "softmax"),
    *("trec", "trec_vectors", "trec_taps", "square", "lookup", "sub", "mul", "mul_vector", "rearrange", "mean", "mul_gate"),
    *("bilinear", "layer_norm", "attention", "add_constant", "matmul", "extend"),
)


@dataclass(frozen=True)
class Layer:
    """A graph of one operator, its inputs (H, W, C) int8, and what the interpreter says it writes."""

    graph: Graph
    inputs: tuple[np.ndarray, ...]

    @property
    def op(self) -> Op:
        """The only operator."""
        return self.graph.ops[0]

    def expected(self) -> np.ndarray:
        """Returns the operator's output (H, W, C) by the interpreter."""
        return interpret.run_op(self.graph, self.op, [values[None] for values in self.inputs])[0]


def assert_same(written: np.ndarray, expected: np.ndarray, layer: Layer, by: str) -> None:
    """Fails with the layer's graph unless two outputs are equal. Its text is long, so nobody writes it for those that are."""
    if not np.array_equal(written, expected):
        np.testing.assert_array_equal(written, expected, err_msg=f"{by} {layer.graph}")


def _values(pick: Pick, shape: tuple[int, ...], lowest: int) -> np.ndarray:
    rng = np.random.default_rng(pick(range(1 << 16)))
    match pick(CONTENTS):
        case "uniform":
            return rng.integers(lowest, 128, shape).astype(np.int8)
        case "ends":
            return rng.choice(np.array([lowest, 127], np.int8), shape)
        case "low":
            return np.full(shape, lowest, np.int8)
    return np.full(shape, 127, np.int8)


def _weights(pick: Pick, weight_shape: tuple[int, ...], out_c: int) -> tuple[dict[str, np.ndarray], tuple[float, ...]]:
    rng = np.random.default_rng(pick(range(1 << 16)))
    bias_limit = 1 << pick((0, 8, 12, 14, 20))
    bias = rng.integers(-bias_limit, bias_limit, out_c, endpoint=True)
    spread = pick((40, 15, 100, 1000, 100_000))  # of the outputs before saturation, for uniform data
    scales = spread / (74 * 74 * np.sqrt(np.prod(weight_shape) / out_c)) * 2.0 ** rng.uniform(-2, 1, out_c)
    weights = _values(pick, weight_shape, pick((-127, -128)))  # quantisation never gives -128; a pass of somebody's may
    return {"w": weights, "b": bias.astype(np.int32)}, tuple(float(scale) for scale in scales)


def _graph(op: Op, inputs: Sequence[Tensor], out: Quant, constants: dict[str, np.ndarray] | None = None) -> Graph:
    tensors = {tensor.name: tensor for tensor in inputs}
    graph = Graph("layer", (op,), tensors, constants or {}, tuple(tensors), ("out",))
    tensors = {**tensors, "out": Tensor("out", ir.output_shape(graph, op), "int8", out)}
    graph = replace(graph, tensors=tensors)
    ir.verify(graph)
    return graph


def _quant(pick: Pick, scale: float = 0.05) -> Quant:
    return Quant((scale,), pick(ZERO_POINTS))


def _window(pick: Pick, far: bool = False) -> dict[str, Any]:
    """Returns kernel, stride, dilation and padding; with `far` also padding wider than the window, which then sees nothing."""
    kernel, stride = (pick(KERNELS), pick(KERNELS)), (pick(STRIDES), pick(STRIDES))
    reach, dilation = ir.dilated(kernel, (pick(DILATIONS), pick(DILATIONS)))
    more = pick((0, 0, 4)) if far else 0
    padding = tuple(pick(range(size + more)) for size in (reach[0], reach[0], reach[1], reach[1]))
    return {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}


def _map_size(pick: Pick, window: dict[str, Any], macs_per_pixel: int = 0) -> tuple[int, int]:
    kernel, padding = ir.dilated(window["kernel"], window.get("dilation", (1, 1)))[0], window["padding"]
    height, width = pick(SIZES), pick((*SIZES, *[kernel[1]] * 6))  # a map as wide as the kernel is one run of values
    while macs_per_pixel * height * width > MOST_MACS and height * width > 1:
        height, width = -(-height // 2), -(-width // 2)
    return max(height, kernel[0] - padding[0] - padding[1], 1), max(width, kernel[1] - padding[2] - padding[3], 1)


def _weighted_layer(pick: Pick, kind: str) -> Layer:
    in_c, out_c, window = pick(CHANNELS), pick(CHANNELS), _window(pick, far=True)
    if kind == "pointwise":
        window = {"kernel": (1, 1), "stride": (1, 1), "padding": (0, 0, 0, 0)}
    if kind == "square":  # what Winograd convolution takes
        size = pick((3, 2, 4, 5))
        in_c, out_c = pick((4, 8, 12, 16, 20, 36)), max(2, out_c)
        window = {"kernel": (size, size), "stride": (1, 1), "padding": tuple(pick(range(size)) for _ in range(4))}
    if kind.startswith("trec"):
        window["dilation"] = (1, 1)
    taps = 1 if kind == "dense" else window["kernel"][0] * window["kernel"][1]
    height, width = _map_size(pick, window, taps * in_c * (4 if kind == "depthwise" else out_c))
    more: dict[str, np.ndarray] = {}
    common = {"name": "op", "inputs": ("in",), "output": "out", "weights": "w", "bias": "b", "activation": pick(ACTIVATIONS)}
    op: ir.Weighted
    match kind:
        case "dense":
            weight_shape: tuple[int, ...] = (out_c, height * width * in_c)
            op = Dense(**common)
        case "depthwise":
            multiplier = pick((1, 2, 3))
            out_c = in_c * multiplier
            weight_shape = (*window["kernel"], out_c)
            op = DepthwiseConv(**common, **window, multiplier=multiplier)
        case "trec" | "trec_vectors" | "trec_taps":
            if kind == "trec_taps":
                in_c, out_c = pick((4, 8, 16, 20, 96, 384)), pick((16, 24, 27, 40))
            height, width = (17, 17) if pick(range(8)) == 7 else (height, width)  # over 256 rows: int32 sums, wide slots
            weight_shape = (out_c, *window["kernel"], in_c)
            op, more = _trec(pick, kind, weight_shape, common | window)
        case _:
            groups = pick((2, 3, 5)) if kind == "grouped" else 1
            weight_shape = (out_c * groups, *window["kernel"], in_c)
            in_c, out_c = in_c * groups, out_c * groups
            op = Conv(**common, **window, groups=groups)
    constants, scales = _weights(pick, weight_shape, out_c)
    source = Tensor("in", (height, width, in_c), "int8", _quant(pick))
    graph = _graph(replace(op, weight_scale=scales), [source], _quant(pick), constants | more)
    return Layer(graph, (_values(pick, source.shape, -128),))


def _trec(pick: Pick, kind: str, weight_shape: tuple[int, ...], fields: dict[str, Any]) -> tuple[TrecConv, dict[str, np.ndarray]]:
    """Returns the operator, and its hash vectors where it has some."""
    columns = int(np.prod(weight_shape[1:]))
    length = min(pick(SUB_LENGTHS), columns)
    if kind == "trec_taps":  # blocks of whole taps, for which there is generated code
        length = weight_shape[3] * pick(
            [n for n in range(1, columns // weight_shape[3] + 1) if not columns // weight_shape[3] % n]
        )
        kind = pick(("trec", "trec_vectors"))
    bits = pick(range(1, 13 if kind == "trec_vectors" else min(12, weight_shape[0]) + 1))
    op = TrecConv(**fields, sub_length=length, hash_bits=bits, threshold=pick(("mean", "zero")))
    if kind == "trec":
        return op, {}
    own = pick((1, -(-columns // length)))
    return replace(op, vectors="v"), {"v": _values(pick, (own, length, bits), pick((-127, -128)))}


def values_seen(op: Pool, shape: tuple[int, int, int]) -> list[int]:
    """Returns how many rows each window of a pool sees, and how many columns."""
    counts = [ir.window_outputs(shape[i], ir.extent(op, i), op.stride[i], *op.padding[2 * i : 2 * i + 2]) for i in (0, 1)]
    return [many for i in (0, 1) for many in ir.taps_inside(op, i, 0, counts[i], shape[i])]


def layer(pick: Pick, kind: str) -> Layer:
    """Returns a random layer of one of KINDS."""
    if kind in ("conv", "pointwise", "grouped", "depthwise", "dense", "trec", "trec_vectors", "trec_taps", "square"):
        return _weighted_layer(pick, kind)
    if kind in ("attention", "matmul"):
        return _attention(pick) if kind == "attention" else _matmul(pick)
    window = _window(pick)
    height, width = _map_size(pick, window) if kind in ("max", "average") else (pick(SIZES), pick(SIZES))
    shape = (height, width, pick(CHANNELS))
    quant = _quant(pick, pick((0.05, 0.7, 0.09, 0.01, 0.0001, 2.5)))
    source, out = Tensor("in", shape, "int8", quant), quant
    sources = [source]
    op: Op
    match kind:
        case "max" | "average":
            op = Pool("op", ("in",), "out", kind, **window, activation=pick(ACTIVATIONS))
            if not all(values_seen(op, shape)):
                op = replace(op, kernel=(1, 1), dilation=(1, 1), padding=(0, 0, 0, 0))
        case "mean":
            op = Pool("op", ("in",), "out", kind, kernel=pick(((height, width), (height, 1), (1, width))))
            out = _quant(pick, pick((0.05, 0.02, 0.004, 3.0)))
        case "add" | "sub":
            sources.append(Tensor("other", shape, "int8", _quant(pick, pick((0.05, 0.5, 0.004)))))
            op = Add("op", ("in", "other"), "out", pick(ACTIVATIONS), subtract=kind == "sub")
            out = _quant(pick, pick((0.05, 0.5, 0.004, 0.01)))
        case "mul" | "mul_vector" | "mul_gate":
            other = {"mul": shape, "mul_vector": (1, 1, shape[2]), "mul_gate": (height, width, 1)}[kind]
            sources.append(Tensor("other", other, "int8", _quant(pick, pick((0.05, 0.5, 0.004)))))
            op = Mul("op", ("in", "other"), "out", pick(ACTIVATIONS))
            out = _quant(pick, pick((0.05, 0.5, 0.004, 3.0)))
        case "rearrange":
            op = rearrange(pick, shape)
        case "bilinear":
            op = bilinear(pick, shape)
            graph = replace(_graph(op, sources, out), rounding=pick(("double", "single")))
            return Layer(graph, (_values(pick, shape, -128),))
        case "layer_norm":
            op = LayerNorm("op", ("in",), "out", pick((1e-5, 1e-12, 0.0, 1.0, 1e30)))
            out = _quant(pick, pick((0.03, 0.01, 0.004, 1e-9, 2.0)))
        case "add_constant":
            other = _quant(pick, pick((0.05, 0.5, 0.004)))
            op, out = AddConstant("op", ("in",), "out", "op.values", other), _quant(pick, pick((0.05, 0.5, 0.004, 0.01)))
            return Layer(_graph(op, sources, out, {"op.values": _values(pick, shape, -128)}), (_values(pick, shape, -128),))
        case "extend":
            more = pick((1, 2, 3, 8))
            op = Extend("op", ("in",), "out", "op.values", pick(range(more + 1)))
            constants = {"op.values": _values(pick, (more, shape[2]), -128)}
            return Layer(_graph(op, sources, quant, constants), (_values(pick, shape, -128),))
        case "concat":
            sources.append(Tensor("other", (height, width, pick(CHANNELS)), "int8", quant))
            op = Concat("op", ("in", "other"), "out")
        case "relu":
            op = Relu("op", ("in",), "out", pick(("relu", "relu6")))
        case "lookup":
            function = pick(tuple(name for name in FUNCTIONS if "stored" not in FUNCTIONS[name].parameters))
            numbers = tuple(sorted(pick((0.01, 0.3, 1.0, 6.0)) for _ in FUNCTIONS[function].parameters))
            op = Lookup("op", ("in",), "out", function, numbers)
            out = pick((FIXED_OUTPUT.get(function, quant), _quant(pick, pick((0.05, 0.7, 0.004)))))
        case _:
            op, out = Softmax("op", ("in",), "out"), Quant((1 / 256,), -128)
    return Layer(_graph(op, sources, out), tuple(_values(pick, tensor.shape, -128) for tensor in sources))


def _attention(pick: Pick) -> Layer:
    """Returns an attention of 1 to 8 heads and up to 197 keys, with scores that differ little, or saturate the exponential."""
    heads, depth, value_depth = pick((1, 2, 3, 4, 8)), pick(CHANNELS), pick(CHANNELS)
    size, other = (pick(SIZES), pick(SIZES)), pick(((1, 1), (1, 2), (3, 3), (8, 8), (1, 7), (1, 197)))
    shapes = {"in": (*size, heads * depth), "k": (*other, heads * depth), "v": (*other, heads * value_depth)}
    sources = [Tensor(name, shape, "int8", _quant(pick, pick((0.05, 0.004, 1.0)))) for name, shape in shapes.items()]
    op = Attention("op", tuple(shapes), "out", heads, pick((1 / np.sqrt(depth), 1e-3, 0.0, 1e-20, 30.0, 1e20)))
    out, constants = _quant(pick, pick((0.05, 0.01, 1e-6, 300.0))), dict[str, np.ndarray]()
    if pick((False, True)):
        unit = sources[0].quant.scale[0] * sources[1].quant.scale[0] * op.scale  # type: ignore[union-attr]
        bias = _bias(
            pick, (pick((1, heads)), size[0] * size[1], other[0] * other[1]), 0.0 if unit < 1e-7 else pick((1.0, 20.0, 0.0))
        )
        constants["op.bias"], step = quantized_bias(bias, unit)
        op = replace(op, bias="op.bias", bias_step=step)
    graph = _graph(op, sources, out, constants)
    return Layer(graph, tuple(_values(pick, tensor.shape, -128) for tensor in sources))


def _matmul(pick: Pick) -> Layer:
    """Returns products of matrices that lie as those of an attention do, or anywhere: turned, apart, on top of each other."""
    heads, rows, inner, columns = pick((1, 2, 3, 8)), pick(SIZES), pick((*CHANNELS, 197)), pick(SIZES)
    left, right = _operand(pick, heads, rows, inner), _operand(pick, heads, inner, columns)
    maps = {"in": _map_of(pick, left, (heads, rows, inner)), "other": _map_of(pick, right, (heads, inner, columns))}
    sources = [Tensor(name, shape, "int8", _quant(pick, pick((0.05, 0.004, 1.0)))) for name, shape in maps.items()]
    beside, apart = pick((False, True)), pick((False, True))
    size = (rows, 1) if beside or heads == 1 else (heads, rows) if apart else (1, heads * rows)
    op = MatMul("op", tuple(maps), "out", heads, rows, inner, columns, left, right, size, beside, pick((1.0, 0.125, 0.0, 3.0)))
    graph = _graph(op, sources, _quant(pick, pick((0.05, 0.01, 3.0))))
    return Layer(graph, tuple(_values(pick, tensor.shape, -128) for tensor in sources))


def _operand(pick: Pick, heads: int, rows: int, columns: int) -> tuple[int, int, int, int]:
    """Returns where the first of matrices begins, and how far the next one's, row's and column's value is from that before."""
    between = pick((0, 0, 1, 5))
    steps = {
        "plain": (rows * columns + between, columns, 1), "turned": (rows * columns, 1, rows),
        "beside": (columns, heads * columns, 1), "turned beside": (rows, 1, heads * rows),
        "apart": (0, 2 * columns + between, 2), "one for all": (0, columns + between, 1),
        "the same row": (1, 0, 1), "the same value": (1, 0, 0),
    }  # fmt: skip
    return pick((0, 0, 3)), *steps[pick(tuple(steps))]


def _map_of(pick: Pick, by: tuple[int, int, int, int], sizes: tuple[int, int, int]) -> tuple[int, int, int]:
    """Returns the shape of a map just large enough for values that lie so."""
    values = 1 + by[0] + sum(step * (size - 1) for step, size in zip(by[1:], sizes, strict=True)) + pick((0, 1))
    width = pick([count for count in (1, 2, 3, 7) if values % count == 0])
    return (1, width, values // width)


def _bias(pick: Pick, shape: tuple[int, int, int], spread: float) -> np.ndarray:
    """Returns what is added to scores (heads or 1, queries, keys): numbers, and minus infinity for keys that come after a query,
    or for random ones, but never for all."""
    rng = np.random.default_rng(pick(range(1 << 16)))
    bias, at = rng.normal(0.0, 1.0, shape) * spread, np.arange(shape[2])
    hidden = {"none": np.zeros(shape, bool), "after": at > np.arange(shape[1])[:, None], "some": rng.random(shape) < 0.6}
    first = rng.integers(0, shape[2], shape[:2])[..., None]
    return np.where(hidden[pick(("none", "after", "some"))] & (at != first), -np.inf, bias)


def rearrange(pick: Pick, shape: tuple[int, int, int], name: str = "op", source: str = "in", output: str = "out") -> Rearrange:
    """Returns a random operator that moves values of a map of this shape."""
    kind = pick(("crop", "upsample", "split", "shuffle", "blocks", "zeros"))
    repeat = (pick((1, 2, 3)), pick((1, 2, 3))) if kind in ("upsample", "zeros", "blocks") else (1, 1)
    start, step = (
        ((pick(range(shape[0])), pick(range(shape[1]))), (pick((1, 2, 3)), pick((1, 2)))) if kind == "crop" else ((0, 0), (1, 1))
    )
    most = [(-(-(extent - first) // by)) * again for extent, first, by, again in zip(shape[:2], start, step, repeat, strict=True)]
    size = (pick((most[0], max(1, most[0] - 1))), pick((most[1], max(1, most[1] - 1))))
    first, channels, groups = 0, shape[2], 1
    if kind == "split":
        first = pick(range(shape[2]))
        channels = pick(range(1, shape[2] - first + 1))
    if kind == "shuffle":
        groups = pick([count for count in range(1, shape[2] + 1) if shape[2] % count == 0])
    if kind == "blocks":
        repeat = repeat if shape[2] >= repeat[0] * repeat[1] else (1, 1)
        size = tuple(extent * again for extent, again in zip(shape[:2], repeat, strict=True))
        channels = shape[2] // (repeat[0] * repeat[1])
    moved = {"first_channel": first, "groups": groups, "blocks": kind == "blocks", "zeros": kind == "zeros"}
    return Rearrange(name, (source,), output, size, channels, start, step, repeat, (0, 0), **moved)


def bilinear(pick: Pick, shape: tuple[int, int, int], name: str = "op", source: str = "in", output: str = "out") -> Bilinear:
    """Returns a random operator that resizes a map of this shape, by one of the rules of the doors or by any factor."""
    size = tuple(pick((2 * extent, extent, 3 * extent, max(1, extent // 2), *range(1, 2 * extent + 2))) for extent in shape[:2])
    both = list(zip(shape[:2], size, strict=True))
    rule = pick(("half", "plain", "corners", "factor"))
    step = tuple(before / after for before, after in both)
    if rule == "corners":
        step = tuple((before - 1) / max(1, after - 1) for before, after in both)
    if rule == "factor":  # torch's own, which is not that of the sizes
        step = tuple(by * pick((0.93, 1.0)) for by in step)
    half = rule in ("half", "factor")
    return Bilinear(name, (source,), output, size, shape[:2], step, half, pick((False, True)))


def layers(kind: str) -> st.SearchStrategy[Layer]:
    """Returns a Hypothesis strategy of layers of one kind."""
    return st.composite(lambda draw: layer(lambda options: draw(st.sampled_from(options)), kind))()


def random_layers(kind: str, count: int, seed: int) -> list[Layer]:
    """Returns `count` layers of one kind, the same for the same seed."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    return [layer(lambda options: options[int(rng.integers(len(options)))], kind) for _ in range(count)]


def named_layer(spec: str, weights: Callable[[tuple[int, ...]], np.ndarray] | None = None, seed: int = 0) -> Layer:
    """Returns a layer as `bench` names it, with an image of any values and, where asked for, with other weights."""
    from tinyredux.explore.bench import layer_graph, parse_spec  # torch comes with it: the firmware's vectors do without

    graph = layer_graph(parse_spec(spec), seed)
    if weights:
        changed = weights(graph.constants["weights"].shape).astype(np.int8)
        graph = replace(graph, constants={**graph.constants, "weights": changed})
    return Layer(graph, (np.random.default_rng(seed).integers(-128, 128, graph.input.shape).astype(np.int8),))
