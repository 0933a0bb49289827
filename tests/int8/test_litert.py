"""LiteRT's own reference kernels are the oracle of our integer arithmetic: equal to the bit, operator by operator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from random_nets import images_for, int8_net
from strategies import KINDS, Layer, random_layers

from tinyredux.frontends import export
from tinyredux.graph import Add, Graph, Pool, Quant, Relu, Softmax, Tensor, Weighted, output_shape, verify
from tinyredux.int8 import interpret, quant_of, quantize, requantization
from tinyredux.nets import NETS

litert = pytest.importorskip(
    "ai_edge_litert.interpreter", reason="ai-edge-litert is not installed; pip install 'tinyredux[tflite]'"
)
from tflite_writer import same_padding, tflite_bytes  # noqa: E402  (flatbuffers and tflite come with it)

CASES = 40
SCALES = (1e-6, 1e-3, 0.0123, 0.1, 1.0, 77.7)


def run_litert(graph: Graph, inputs: list[np.ndarray], fully_connected: bool = False) -> np.ndarray:
    """Returns LiteRT's output (H, W, C) of an int8 graph, computed by its reference kernels."""
    resolver = litert.OpResolverType.BUILTIN_REF
    content = tflite_bytes(graph, fully_connected)
    interpreter = litert.Interpreter(model_content=content, experimental_op_resolver_type=resolver, num_threads=1)
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


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("trec")])  # LiteRT knows no clustering
def test_operator_equals_litert(kind: str) -> None:
    compared = 0
    for i, layer in enumerate(random_layers(kind, CASES, seed=2)):
        layer = replace(layer, graph=as_float32(layer.graph))
        if kind == "average":
            layer = with_litert_padding(layer, same=i % 2 == 0)
            if layer is None:
                continue
        assert_equal(layer.graph, list(layer.inputs), layer.expected())
        compared += 1
    assert compared > CASES // 2


def test_fully_connected_rounds_by_one_of_two_rules() -> None:
    """Up to LiteRT 1.2 its reference rounds twice, as the specification and we do; later ones round acc * scale in float64."""
    ours_everywhere = float_everywhere = True
    for layer in random_layers("dense", 480, seed=4):
        graph, op = as_float32(layer.graph), layer.op
        assert isinstance(op, Weighted)
        found = run_litert(graph, list(layer.inputs), fully_connected=True).reshape(-1).astype(int)
        ours = interpret.run_op(graph, graph.ops[0], [layer.inputs[0][None]]).reshape(-1).astype(int)
        factors = requantization(graph, graph.ops[0])
        centred = layer.inputs[0].reshape(-1).astype(np.int64) - factors.input_zero_point
        sums = graph.constants[op.weights].astype(np.int64) @ centred + graph.constants[op.bias]
        scale, result = (float(quant_of(graph.tensors[name]).scale[0]) for name in ("in", "out"))
        real = sums * (scale * np.array(graph.ops[0].weight_scale) / result)
        rounded = np.sign(real) * np.floor(np.abs(real) + 0.5) + factors.output_zero_point
        exact = np.clip(rounded, factors.clamp.low, factors.clamp.high)
        ours_everywhere &= bool((found == ours).all())
        float_everywhere &= bool((found == exact).all())
        assert np.abs(found - ours).max() <= 1
    assert ours_everywhere != float_everywhere  # 480 layers tell the rules apart


@pytest.mark.parametrize("other", SCALES)
@pytest.mark.parametrize("scale", SCALES)
def test_add_equals_litert_at_extreme_scales(scale: float, other: float) -> None:
    rng = np.random.default_rng(7)
    finest = 2.1 * max(scale, other) / (1 << 20)  # LiteRT aborts below; add_params refuses
    for result in (scale, other, 2 * max(scale, other), finest):
        if result < finest:
            continue
        for activation in ("none", "relu", "relu6")[: 3 if 6 / result < 2**31 else 2]:  # where it can store a 6
            zero_points = [int(rng.choice([-128, -1, 0, 3, 127])) for _ in range(3)]
            quants = [Quant((s,), z) for s, z in zip((scale, other, result), zero_points, strict=True)]
            names = ("left", "right", "out")
            tensors = {n: Tensor(n, (4, 8, 8), "int8", q) for n, q in zip(names, quants, strict=True)}
            op = Add("op", ("left", "right"), "out", activation)
            graph = as_float32(Graph("add", (op,), tensors, {}, ("left", "right"), ("out",)))
            inputs = [rng.integers(-128, 128, (4, 8, 8)).astype(np.int8) for _ in range(2)]
            assert_equal(graph, inputs, interpret.run_op(graph, op, [values[None] for values in inputs])[0])


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_clamp_equals_litert_at_every_scale(activation: str) -> None:
    """6 / scale is rounded in float32: a clamp computed in float64 differs where the quotient is close to a half."""
    values = np.arange(-128, 128).astype(np.int8).reshape(1, 1, 256)
    halves = [6 / (k + 0.5) for k in range(1, 120)]
    nearby = [float(np.nextafter(np.float32(scale), np.float32(way))) for scale in halves for way in (0, 1)]
    for i, scale in enumerate(halves + nearby):
        quant = Quant((scale,), (-128, 0, 5)[i % 3])
        tensors = {name: Tensor(name, (1, 1, 256), "int8", quant) for name in ("in", "out")}
        graph = as_float32(Graph("clamp", (Relu("op", ("in",), "out", activation),), tensors, {}, ("in",), ("out",)))
        assert_equal(graph, [values], interpret.run(graph, values[None])[0])


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1 / 256, 0.05, 0.11, 0.5, 1.0, 4.0, 20.0, 1000.0])
@pytest.mark.parametrize("channels", [1, 2, 10, 100, 511])
def test_softmax_equals_litert(scale: float, channels: int) -> None:
    """Up to 511 equal values: with more, LiteRT's reference shifts by 32 bits and aborts."""
    rng = np.random.default_rng(channels)
    tensors = {"in": Tensor("in", (3, 2, channels), "int8", Quant((scale,), 9))}
    tensors["out"] = Tensor("out", (3, 2, channels), "int8", Quant((1 / 256,), -128))
    graph = as_float32(Graph("softmax", (Softmax("op", ("in",), "out"),), tensors, {}, ("in",), ("out",)))
    values = rng.integers(-128, 128, (3, 2, channels)).astype(np.int8)
    values[0, 0] = 127
    assert_equal(graph, [values], interpret.run(graph, values[None])[0])


@pytest.mark.parametrize("seed", range(8))
def test_network_equals_litert(seed: int) -> None:
    """Whole networks: torch, export, quantize; then every byte that LiteRT computes."""
    graph, images = int8_net(seed, padded_averages=False)
    stored = interpret.quantize_input(graph, images)
    expected = interpret.run(graph, stored)
    for image, result in zip(stored, expected, strict=True):
        assert_equal(graph, [image], result)


def test_a_planted_fault_is_seen() -> None:
    layer = random_layers("conv", 1, seed=3)[0]
    expected = layer.expected().copy()
    expected[0, 0, 0] ^= 1
    with pytest.raises(pytest.fail.Exception, match="1 differ"):
        assert_equal(as_float32(layer.graph), list(layer.inputs), expected)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in ("lenet", "ds_cnn") else pytest.mark.sweep) for n in NETS])
def test_network_of_the_book_equals_litert(name: str) -> None:
    """In shape, not in training: random weights."""
    net = NETS[name]()
    graph = quantize(export(net, name=name), images_for(net, 4, seed=0))
    stored = interpret.quantize_input(graph, images_for(net, 2, seed=1))
    for image, result in zip(stored, interpret.run(graph, stored), strict=True):
        assert_equal(graph, [image], result)
