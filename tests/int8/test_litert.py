"""LiteRT's own reference kernels are the oracle of our integer arithmetic: equal to the bit, operator by operator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from random_nets import images_for, int8_net
from strategies import KINDS, Layer, random_layers

from tinyredux.frontends import export
from tinyredux.graph import Add, Graph, Lookup, Op, Pool, Quant, Relu, Shape, Softmax, Tensor, Weighted, output_shape, verify
from tinyredux.int8 import interpret, quantize
from tinyredux.int8.factors import SOFTMAX_OUTPUT
from tinyredux.int8.lookup import FIXED_OUTPUT
from tinyredux.nets import NETS

litert = pytest.importorskip(
    "ai_edge_litert.interpreter", reason="ai-edge-litert is not installed; pip install 'tinyredux[tflite]'"
)
from tflite_writer import same_padding, tflite_bytes  # noqa: E402  (flatbuffers comes with it)

CASES = 40
# LiteRT knows no clustering; functions have a test of their own; its product with a value a channel is not tflite-micro's
OTHERS = ("trec", "lookup", "mul_vector", "rearrange", "bilinear", "layer_norm", "attention", "add_constant", "matmul", "extend")
SCALES = (1e-6, 1e-3, 0.0123, 0.1, 1.0, 77.7)


def run_litert(graph: Graph, inputs: list[np.ndarray]) -> np.ndarray:
    """Returns LiteRT's output (H, W, C) of an int8 graph, computed by its reference kernels."""
    resolver = litert.OpResolverType.BUILTIN_REF
    interpreter = litert.Interpreter(model_content=tflite_bytes(graph), experimental_op_resolver_type=resolver, num_threads=1)
    interpreter.allocate_tensors()
    for detail, values in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], values[None])
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).reshape(graph.output.shape)


def as_float32(graph: Graph) -> Graph:
    """Returns the graph with scales that a .tflite file can hold; the quantize pass makes no others."""
    tensors = {
        name: replace(tensor, quant=Quant((float(np.float32(tensor.quant.scale[0])),), tensor.quant.zero_point))
        for name, tensor in graph.tensors.items()
        if tensor.quant is not None
    }
    ops = [
        replace(op, weight_scale=tuple(float(np.float32(scale)) for scale in op.weight_scale)) if isinstance(op, Weighted) else op
        for op in graph.ops
    ]
    return graph.with_ops(ops, tensors=tensors)


def with_litert_padding(layer: Layer, same: bool) -> Layer | None:
    """Returns an average pool with SAME or VALID padding, which is all that LiteRT has; None where no window fits."""
    op = layer.op
    assert isinstance(op, Pool)
    sides = [same_padding(*sizes) for sizes in zip(layer.inputs[0].shape[:2], op.kernel, op.stride, strict=True)]
    graph = layer.graph.with_ops([replace(op, padding=(*sides[0], *sides[1]) if same else (0, 0, 0, 0))])
    try:
        out = replace(graph.output, shape=output_shape(graph, graph.ops[0]))
    except ValueError:
        return None
    graph = replace(graph, tensors={**graph.tensors, "out": out})
    verify(graph)
    return replace(layer, graph=graph)


def assert_equal(graph: Graph, inputs: list[np.ndarray], expected: np.ndarray) -> None:
    """Fails with the first different element, in stored units."""
    found = run_litert(graph, inputs)
    assert found.shape == expected.shape
    wrong = np.argwhere(found != expected)
    if len(wrong):
        place = tuple(int(i) for i in wrong[0])
        pytest.fail(
            f"{len(wrong)} differ; at {place} LiteRT {found[place]}, ours {expected[place]}\n{graph.ops}\n{graph.tensors}"
        )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith(OTHERS)])
def test_operator_equals_litert(kind: str) -> None:
    compared = 0
    for i, layer in enumerate(random_layers(kind, CASES, seed=2)):
        layer = replace(layer, graph=as_float32(layer.graph))
        if isinstance(layer.op, Pool) and layer.op.dilation != (1, 1):
            continue  # the format has no such pools
        if kind == "average":
            layer = with_litert_padding(layer, same=i % 2 == 0)
            if layer is None:
                continue
        assert_equal(layer.graph, list(layer.inputs), layer.expected())
        compared += 1
    assert compared > CASES // 3


def elementwise(op: Op, shape: Shape, *quants: Quant) -> Graph:
    """Returns a graph of one operator on maps of one shape: its inputs' quantisations, then its output's."""
    tensors = {name: Tensor(name, shape, "int8", quant) for name, quant in zip((*op.inputs, "out"), quants, strict=True)}
    return as_float32(Graph("one", (op,), tensors, {}, op.inputs, ("out",)))


def check(graph: Graph, *inputs: np.ndarray) -> None:
    assert_equal(graph, list(inputs), interpret.run_op(graph, graph.ops[0], [values[None] for values in inputs])[0])


@pytest.mark.parametrize("scale", SCALES)
def test_add_equals_litert_at_extreme_scales(scale: float) -> None:
    rng = np.random.default_rng(7)
    for other in SCALES:
        finest = 2.1 * max(scale, other) / (1 << 20)  # LiteRT aborts below; add_params refuses
        for result in (one for one in (scale, other, 2 * max(scale, other), finest) if one >= finest):
            for activation in ("none", "relu", "relu6")[: 3 if 6 / result < 2**31 else 2]:  # where it can store a 6
                quants = [Quant((s,), int(rng.choice([-128, -1, 0, 3, 127]))) for s in (scale, other, result)]
                graph = elementwise(Add("op", ("left", "right"), "out", activation), (4, 8, 8), *quants)
                check(graph, *rng.integers(-128, 128, (2, 4, 8, 8)).astype(np.int8))


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_clamp_equals_litert_at_every_scale(activation: str) -> None:
    """6 / scale is rounded in float32: a clamp computed in float64 differs where the quotient is close to a half."""
    values = np.arange(-128, 128).astype(np.int8).reshape(1, 1, 256)
    halves = [6 / (k + 0.5) for k in range(1, 120)]
    nearby = [float(np.nextafter(np.float32(scale), np.float32(way))) for scale in halves for way in (0, 1)]
    for i, scale in enumerate(halves + nearby):
        quant = Quant((scale,), (-128, 0, 5)[i % 3])
        check(elementwise(Relu("op", ("in",), "out", activation), (1, 1, 256), quant, quant), values)


@pytest.mark.parametrize(("function", "parameters"), [
    ("sigmoid", ()), ("tanh", ()), ("hardswish", ()), ("identity", ()), ("leaky_relu", (0.01,)), ("leaky_relu", (0.3,)),
    ("leaky_relu", (1.7,)), ("gelu", ()), ("gelu_tanh", ()), ("clamp", (0.0, float("inf"))),
])  # fmt: skip
def test_lookup_equals_litert(function: str, parameters: tuple[float, ...]) -> None:
    """All 256 values at many scales: the fixed-point kernels, and LiteRT's own tables where it has no other.

    From a scale of 8 on LiteRT's LOGISTIC and TANH differ from tflite-micro's, which we follow, in one value: that of zero.
    """
    values, rng = np.arange(-128, 128).astype(np.int8).reshape(1, 1, 256), np.random.default_rng(len(function))
    for scale in (*(scale for scale in SCALES if scale < 8), *10.0 ** rng.uniform(-4, 0.9, 10)):
        source, result = (Quant((float(s),), int(rng.integers(-128, 128))) for s in (scale, scale * 2.0 ** rng.uniform(-4, 1)))
        if function == "hardswish":  # it has no output that is much finer
            result = replace(result, scale=(max(result.scale[0], scale / 60),))
        result = FIXED_OUTPUT.get(function, result)
        check(elementwise(Lookup("op", ("in",), "out", function, parameters), (1, 1, 256), source, result), values)


@pytest.mark.parametrize("channels", [1, 2, 10, 100, 511])
def test_softmax_equals_litert(channels: int) -> None:
    """Up to 511 equal values: with more, LiteRT's reference shifts by 32 bits and aborts."""
    values = np.random.default_rng(channels).integers(-128, 128, (3, 2, channels)).astype(np.int8)
    values[0, 0] = 127
    for scale in (1e-6, 1e-3, 1 / 256, 0.05, 0.11, 0.5, 1.0, 4.0, 20.0, 1000.0):
        check(elementwise(Softmax("op", ("in",), "out"), values.shape, Quant((scale,), 9), SOFTMAX_OUTPUT), values)


def test_a_planted_fault_is_seen() -> None:
    layer = random_layers("conv", 1, seed=3)[0]
    expected = layer.expected().copy()
    expected[0, 0, 0] ^= 1
    with pytest.raises(pytest.fail.Exception, match="1 differ"):
        assert_equal(as_float32(layer.graph), list(layer.inputs), expected)


def book(name: str) -> tuple[Graph, np.ndarray]:
    """Returns a network of the book, in shape, not in training: random weights."""
    net = NETS[name]()
    return quantize(export(net, name=name), images_for(net, 4, seed=0)), images_for(net, 2, seed=1)


THEIRS = NETS.keys() - {"cct", "keyword_transformer"}  # LiteRT has no norm and no attention in our integers


@pytest.mark.parametrize(
    "which",
    [*range(8), *(pytest.param(n, marks=[] if n in ("lenet", "ds_cnn") else pytest.mark.sweep) for n in sorted(THEIRS))],
)
def test_network_equals_litert(which: int | str) -> None:
    """Whole networks: torch, export, quantize; then every byte that LiteRT computes."""
    graph, images = book(which) if isinstance(which, str) else int8_net(which, padded_averages=False)
    stored = interpret.quantize_input(graph, images)
    for image, result in zip(stored, interpret.run(graph, stored), strict=True):
        assert_equal(graph, [image], result)
