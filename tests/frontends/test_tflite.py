"""The door for .tflite files: every byte equals TFLM's, and what cannot be computed is refused at once, with its place.

`tests/golden/tflm.json` keeps digests of TFLM's outputs. Where the package tflite-micro is installed, which nothing needs,
`python tests/frontends/test_tflite.py` writes it again; the diff belongs in a commit of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tinyredux as tr
from tinyredux.cli.app import main
from tinyredux.graph import ROUNDINGS, Add, Conv, DepthwiseConv, Graph, Mul, Op, Quant, Softmax, Tensor
from tinyredux.int8 import evaluator, interpret

pytest.importorskip("tflite", reason="tflite is not installed; pip install 'tinyredux[tflite]'")
interpreter = pytest.importorskip(
    "ai_edge_litert.interpreter", reason="ai-edge-litert is not installed; pip install 'tinyredux[tflite]'"
)
from damaged import damaged  # noqa: E402
from generated import assert_c_equals_interpreter  # noqa: E402
from tflite_field import channelled_model, field_model, gated_model, line_model, scaled_model  # noqa: E402
from tflite_models import Drawn, drawn_model  # noqa: E402
from tflite_writer import Writer, tflite_bytes  # noqa: E402

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "tflm.json"
DIGESTS = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
DRAWN, INPUTS = range(24), 20
MAKERS: dict[str, tuple[Callable[[int], bytes], range]] = {  # what draws a file, and the seeds whose digests are kept
    "drawn": (drawn_model, DRAWN), "functions": (lambda seed: drawn_model(seed, True), DRAWN),
    "field": (field_model, range(40)), "line": (line_model, range(40)), "gated": (gated_model, range(40)),
    "scaled": (scaled_model, range(40)), "channelled": (channelled_model, range(0)),
    "dilated": (lambda seed: drawn_model(seed, holes=True), range(0)),
}  # fmt: skip
MLPERF = (
    "ad01_int8", "kws_ref_model", "pretrainedResnet_quant", "pretrainedResnet_large_int8", "str_ww_ref_model", "vww_96_int8",
)  # fmt: skip
MLPERF_INPUTS = 100


def mlperf(name: str) -> Path:
    return Path(os.environ.get("TINYREDUX_DATA", "nowhere")) / "mlperf_tiny" / f"{name}.tflite"


def images_for(graph: Graph, count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-128, 128, (count, *graph.input.shape)).astype(np.int8)


def digest(outputs: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(outputs, np.int8).tobytes()).hexdigest()[:16]


def drawn(seed: int, folder: Path, kind: str = "drawn") -> Path:
    path = folder / f"{kind}{seed}.tflite"
    path.write_bytes(MAKERS[kind][0](seed))
    return path


@pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind, (_, seeds) in MAKERS.items() for seed in seeds])
def test_drawn_networks_equal_tflm(kind: str, seed: int, tmp_path: Path) -> None:
    path = drawn(seed, tmp_path, kind)
    graph = tr.load_tflite(path)
    images = images_for(graph, INPUTS)
    outputs = interpret.run(graph, images)
    assert digest(outputs) == DIGESTS[path.stem]
    np.testing.assert_array_equal(evaluator.Evaluator(graph).run(images), outputs)


def test_digests_tell_outputs_apart(tmp_path: Path) -> None:
    found = []
    for seed in DRAWN[:8]:
        graph = tr.load_tflite(drawn(seed, tmp_path))
        found += [len(np.unique(values)) for values in interpret.run_all(graph, images_for(graph, INPUTS)).values()]
        outputs = interpret.run(graph, images_for(graph, INPUTS))
        outputs.flat[0] ^= 1
        assert digest(outputs) != DIGESTS[f"drawn{seed}"]
    assert np.median(found) > 64, "the networks compute with few different values"


@pytest.mark.slow
@pytest.mark.parametrize("name", MLPERF)
def test_the_benchmark_equals_tflm(name: str) -> None:
    if not (path := mlperf(name)).is_file():
        pytest.skip("TINYREDUX_DATA has no folder mlperf_tiny")
    graph = tr.load_tflite(path)
    images = images_for(graph, MLPERF_INPUTS)
    outputs = evaluator.Evaluator(graph).run(images)
    assert digest(outputs) == DIGESTS[name]
    np.testing.assert_array_equal(interpret.run(graph, images[:2]), outputs[:2])


def litert(data: bytes, graph: Graph, images: np.ndarray) -> np.ndarray:
    """Returns what LiteRT's default interpreter gives, which rounds once."""
    theirs = interpreter.Interpreter(model_content=data, num_threads=1)
    theirs.allocate_tensors()
    (source,), (result,), found = theirs.get_input_details(), theirs.get_output_details(), []
    for image in images:
        theirs.set_tensor(source["index"], image.reshape(source["shape"]))
        theirs.invoke()
        found.append(theirs.get_tensor(result["index"]).reshape(graph.output.shape).copy())
    return np.stack(found)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("seed", range(40))
def test_drawn_networks_equal_litert_with_single_rounding(seed: int, kind: str, tmp_path: Path) -> None:
    path = drawn(seed, tmp_path, kind)
    graph = tr.load_tflite(path, rounding="single")
    images = images_for(graph, INPUTS)
    expected = litert(path.read_bytes(), graph, images)
    np.testing.assert_array_equal(interpret.run(graph, images), expected)
    np.testing.assert_array_equal(evaluator.Evaluator(graph).run(images), expected)


def test_softmax_is_litert_s_own_in_float(tmp_path: Path) -> None:
    """Of 19,200 values none differs from LiteRT's, in C either."""
    rng = np.random.default_rng(0)
    for channels, scale in ((10, 0.171875), (2, 0.0146484375), (12, 0.05)):
        shape, quants = (800, 1, channels), (Quant((scale,), 9), Quant((1 / 256,), -128))
        tensors = {name: Tensor(name, shape, "int8", quant) for name, quant in zip(("in", "out"), quants, strict=True)}
        graph = Graph("softmax", (Softmax("softmax", ("in",), "out"),), tensors, {}, ("in",), ("out",), rounding="single")
        image = np.clip(rng.normal(0, 50, (1, *shape)), -128, 127).astype(np.int8)
        expected = litert(tflite_bytes(graph), graph, image)
        np.testing.assert_array_equal(interpret.run(graph, image), expected)
        real = ((image.astype(np.float32) - 9) * np.float32(scale)).transpose(0, 3, 1, 2)
        assert tr.measure(tr.compile(graph), np.ascontiguousarray(real), target="host").bit_exact


@pytest.mark.slow
@pytest.mark.parametrize("name", MLPERF)
def test_the_benchmark_equals_litert_with_single_rounding(name: str) -> None:
    if not (path := mlperf(name)).is_file():
        pytest.skip("TINYREDUX_DATA has no folder mlperf_tiny")
    graph = tr.load_tflite(path, rounding="single")
    images = images_for(graph, MLPERF_INPUTS)
    expected = litert(path.read_bytes(), graph, images)
    np.testing.assert_array_equal(evaluator.Evaluator(graph).run(images), expected)
    np.testing.assert_array_equal(interpret.run(graph, images[:2]), expected[:2])


def test_roundings_differ_and_are_refused_by_name(tmp_path: Path) -> None:
    path = drawn(4, tmp_path)
    once, twice = (tr.load_tflite(path, rounding=rounding) for rounding in ROUNDINGS[::-1])
    images = images_for(once, INPUTS)
    differ = [
        (values != interpret.run_all(twice, images)[name]).any() for name, values in interpret.run_all(once, images).items()
    ]
    assert any(differ)
    hashes = {tr.compile(graph, kernels="reference").artifact.model_hash for graph in (once, twice)}
    assert len(hashes) == 2 and tr.compile(once).artifact.manifest["rounding"] == "single"
    with pytest.raises(ValueError, match="expected one of double, single"):
        tr.load_tflite(path, rounding="thrice")


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["fast", "reference"])
@pytest.mark.parametrize("seed", [0, 3, 5, 8])
def test_c_rounds_once(seed: int, kernels: str, tmp_path: Path) -> None:
    graph = tr.load_tflite(drawn(seed, tmp_path), rounding="single")
    model = tr.compile(graph, kernels=kernels)
    assert tr.measure(model, real_images(graph, 3), target="host").bit_exact


@pytest.mark.slow
@pytest.mark.parametrize("board", ["nucleo_l4r5zi", "nucleo_f746zg", "nucleo_u575zi_q"])
def test_boards_round_once(board: str, tmp_path: Path) -> None:
    pytest.importorskip("unicorn")
    if not shutil.which("arm-none-eabi-gcc"):
        pytest.skip("arm-none-eabi-gcc is not installed")
    for seed, kernels in ((2, "fast"), (5, "reference")):
        graph = tr.load_tflite(drawn(seed, tmp_path), rounding="single")
        assert tr.measure(tr.compile(graph, board, kernels=kernels), real_images(graph, 1)).bit_exact
    graph = tr.load_tflite(drawn(5, tmp_path), rounding="single")
    assert tr.measure(tr.compile(graph, board, schedule=tr.Partial()), real_images(graph, 1)).bit_exact


def real_images(graph: Graph, count: int) -> np.ndarray:
    """Returns float images (N, C, H, W) that stand for random bytes."""
    quant = graph.input.quant
    assert quant is not None
    real = (images_for(graph, count).astype(np.float32) - quant.zero_point) * np.float32(quant.scale[0])
    return np.ascontiguousarray(real.transpose(0, 3, 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["fast", "reference"])
@pytest.mark.parametrize(
    ("kind", "seed"), [*(("drawn", seed) for seed in (0, 3, 5, 8)), ("dilated", 1), ("dilated", 4), ("channelled", 4)]
)
def test_c_equals_the_interpreter(kind: str, seed: int, kernels: str, tmp_path: Path) -> None:
    graph = tr.load_tflite(drawn(seed, tmp_path, kind))
    assert_c_equals_interpreter(graph, tr.compile(graph, kernels=kernels).artifact)


def test_a_file_holds_what_was_written(tmp_path: Path) -> None:
    for seed in DRAWN:
        written, graph = Drawn(seed).graph, tr.load_tflite(drawn(seed, tmp_path))
        alone = [isinstance(op, DepthwiseConv) and written.tensors[op.inputs[0]].shape[2] == 1 for op in written.ops]
        kinds = [Conv if one else type(op) for one, op in zip(alone, written.ops, strict=True)]
        assert [type(op) for op in graph.ops] == kinds
        images = images_for(graph, 2)
        for ours, theirs in zip(graph.ops, written.ops, strict=True):
            assert graph.tensors[ours.output].quant == written.tensors[theirs.output].quant
            assert graph.tensors[ours.output].shape == written.tensors[theirs.output].shape
        np.testing.assert_array_equal(interpret.run(graph, images), interpret.run(written, images))


class Gated(nn.Module):
    """A map times what its channels ask for, less another map: squeeze and excite as MobileNetV3 has it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze, self.excite = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.rest, self.head, self.input_shape = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Linear(8, 5), (3, 9, 7)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(images))
        gate = torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        y = gate * x - self.rest(x)
        return self.head((y * x).mean((2, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_products_and_differences_come_back_as_they_were_written(seed: int, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    net, rng = Gated().eval(), np.random.default_rng(seed)
    written = tr.quantize(tr.export(net), rng.normal(size=(8, *net.input_shape)).astype(np.float32))
    path = tmp_path / "gated.tflite"
    path.write_bytes(tflite_bytes(written))
    graph = tr.load_tflite(path)
    kinds = [type(op).__name__ for op in graph.ops]
    assert kinds.count("Mul") == 2 and [op.subtract for op in graph.ops if isinstance(op, Add)] == [True]
    images = images_for(graph, 8)
    np.testing.assert_array_equal(interpret.run(graph, images), interpret.run(written, images))
    once = replace(graph, rounding="single")
    np.testing.assert_array_equal(interpret.run(once, images), litert(path.read_bytes(), graph, images))
    for kernels in ("fast", "reference"):
        assert tr.measure(tr.compile(once, kernels=kernels), real_images(once, 3), target="host").bit_exact
    layers = tr.compare_with_litert(path, images, rounding="single")
    assert [layer.kind for layer in layers] == kinds
    assert not any(layer.differ_alone for layer in layers if layer.kind in ("Mul", "Add"))


@pytest.mark.parametrize("seed", range(6))
def test_a_depthwise_convolution_of_one_channel_is_a_convolution(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    kernel, count = (int(rng.integers(1, 6)), int(rng.integers(1, 6))), int(rng.integers(1, 20))
    stride, padding = (int(rng.integers(1, 3)),) * 2, (0, 0, 0, 0)
    tensors = {"image": Tensor("image", (9, 8, 1), "int8", Quant((0.02,), -5))}
    tensors["map"] = Tensor(
        "map", ((9 - kernel[0]) // stride[0] + 1, (8 - kernel[1]) // stride[1] + 1, count), "int8", Quant((0.05,), 3)
    )
    scales = tuple(float(scale) for scale in rng.uniform(0.001, 0.01, count))
    op = DepthwiseConv("depthwise", ("image",), "map", "w", "b", "relu", scales, kernel, stride, padding, count)
    held = {
        "w": rng.integers(-127, 128, (*kernel, count)).astype(np.int8),
        "b": rng.integers(-4000, 4000, count).astype(np.int32),
    }
    written = Graph("one", (op,), tensors, held, ("image",), ("map",))
    path = tmp_path / "one.tflite"
    path.write_bytes(tflite_bytes(written))
    graph = tr.load_tflite(path)
    assert [type(op).__name__ for op in graph.ops] == ["Conv"]
    images = images_for(graph, 8)
    np.testing.assert_array_equal(interpret.run(graph, images), interpret.run(written, images))
    once = replace(graph, rounding="single")
    np.testing.assert_array_equal(interpret.run(once, images), litert(path.read_bytes(), graph, images))


def test_a_product_too_large_for_single_rounding_is_refused() -> None:
    quants = {"a": Quant((1.0,), 0), "b": Quant((1.0,), 0), "out": Quant((1 / 256,), 0)}
    tensors = {name: Tensor(name, (1, 1, 4), "int8", quant) for name, quant in quants.items()}
    graph = Graph("mul", (Mul("mul", ("a", "b"), "out"),), tensors, {}, ("a", "b"), ("out",), rounding="single")
    with pytest.raises(ValueError, match="mul: its factor is 256, expected less than 256; take double rounding"):
        interpret.run_op(graph, graph.ops[0], [np.zeros((1, 1, 1, 4), np.int8)] * 2)


def saved(path: Path, change: Callable[[Writer], None], seed: int = 0) -> Path:
    """Writes a drawn network to which `change` adds operators behind its end."""
    graph = Drawn(seed).graph
    writer = Writer(graph, fully_connected=True)
    inputs = [writer.activation(name) for name in graph.inputs]
    for op in graph.ops:
        writer.add(op)
    outputs = [writer.activation(graph.outputs[0])]
    writer.ends = (inputs, outputs)
    change(writer)
    path.write_bytes(writer.bytes(*writer.ends))
    return path


@pytest.mark.parametrize(
    ("code", "side"), [("DEPTH_TO_SPACE", 2), ("DEPTH_TO_SPACE", 3), ("SPACE_TO_DEPTH", 2), ("SPACE_TO_DEPTH", 3)]
)
def test_places_and_channels_change_into_each_other(code: str, side: int, tmp_path: Path) -> None:
    shape = (4, 2, 18 * side) if code == "DEPTH_TO_SPACE" else (6, 12, 5)
    size = (4 * side, 2 * side, 18 // side) if code == "DEPTH_TO_SPACE" else (6 // side, 12 // side, 5 * side * side)
    source = Tensor("in", shape, "int8", Quant((0.05,), -3))
    writer = Writer(Graph("blocks", (), {"in": source}, {}, ("in",), ("in",)))
    first, middle, last = (
        writer.activation("in"),
        *(writer.tensor(name, (1, *sizes), "int8", source.quant) for name, sizes in (("mid", shape), ("out", size))),
    )
    writer.operator("RELU", [first], middle)
    writer.operator(
        code,
        [middle],
        last,
        {"DEPTH_TO_SPACE": "DepthToSpaceOptions", "SPACE_TO_DEPTH": "SpaceToDepthOptions"}[code],
        blockSize=side,
    )
    path = tmp_path / "blocks.tflite"
    path.write_bytes(writer.bytes([first], [last]))
    graph = tr.load_tflite(path, rounding="single")
    images = images_for(graph, 4)
    np.testing.assert_array_equal(interpret.run(graph, images), litert(path.read_bytes(), graph, images))


@pytest.mark.parametrize("rounding", ["single", "double"])
@pytest.mark.parametrize("axis", [1, 2, -2])
@pytest.mark.parametrize("zero_point", [-128, -3, 127])
def test_maps_join_along_rows_and_columns(axis: int, zero_point: int, rounding: str, tmp_path: Path) -> None:
    """A concatenation is exact: whatever an int8 value is, it comes out as it went in."""
    source = Tensor("in", (4, 8, 24), "int8", Quant((0.0371,), zero_point))
    writer = Writer(Graph("joined", (), {"in": source}, {}, ("in",), ("in",)))
    first = writer.activation("in")
    middle = writer.tensor("mid", (1, *source.shape), "int8", source.quant)
    size = [1, *source.shape]
    size[axis] *= 3
    last = writer.tensor("out", tuple(size), "int8", source.quant)
    writer.operator("RELU6", [first], middle)
    writer.operator("CONCATENATION", [first, middle, first], last, "ConcatenationOptions", axis=axis)
    path = tmp_path / "joined.tflite"
    path.write_bytes(writer.bytes([first], [last]))
    graph = tr.load_tflite(path, rounding=rounding)
    images = np.resize(np.arange(-128, 128), (2, *source.shape)).astype(np.int8)
    images[1] = images_for(graph, 1)[0]
    found = interpret.run(graph, images)
    np.testing.assert_array_equal(found, litert(path.read_bytes(), graph, images))
    step = source.shape[axis - 1 if axis > 0 else axis]
    np.testing.assert_array_equal(np.split(found, [step], axis)[0], images)
    for kernels in ("reference", "fast"):
        assert tr.measure(tr.compile(graph, kernels=kernels), real_images(graph, 2)).bit_exact, kernels


def test_everything_unsupported_is_named_at_once(tmp_path: Path) -> None:
    def change(writer: Writer) -> None:
        last = writer.ends[1][0]
        for code, options in (
            ("COS", "CosOptions"),
            ("REVERSE_V2", "ReverseV2Options"),
            ("CUMSUM", "CumsumOptions"),
        ):
            result = writer.tensor(code, (1, 3), "int8", Quant((0.5,), 0))
            writer.operator(code, [last], result, options)
            last = result
        writer.ends = (writer.ends[0], [last])

    with pytest.raises(ValueError, match=r"3 of \d+ operators are not supported") as refused:
        tr.load_tflite(saved(tmp_path / "odd.tflite", change))
    for part in ("operator 9, COS", "operator 10, REVERSE_V2", "operator 11, CUMSUM (Exclusive False, Reverse False)"):
        assert part in str(refused.value)


def test_float_and_uint8_at_the_ends_are_int8_inside(tmp_path: Path) -> None:
    plain = tr.load_tflite(drawn(0, tmp_path))
    quant, shape = plain.input.quant, (1, *plain.input.shape)
    assert quant is not None
    kinds = {"float32": (None, "DequantizeOptions", "DEQUANTIZE"), "uint8": (128, "QuantizeOptions", "QUANTIZE")}
    for dtype, (offset, options, last) in kinds.items():

        def change(
            writer: Writer, dtype: str = dtype, offset: int | None = offset, options: str = options, last: str = last
        ) -> None:
            def beside(old: Quant | None) -> Quant | None:
                return None if offset is None or old is None else Quant(old.scale, old.zero_point + offset)

            (source,), (result,) = writer.ends
            outside = writer.tensor("outside", shape, dtype, beside(quant))
            given = writer.tensor("given", (1, plain.output.elements), dtype, beside(plain.output.quant))
            writer.operator("QUANTIZE", [outside], source, "QuantizeOptions")
            writer.operators.insert(0, writer.operators.pop())
            writer.operator(last, [result], given, options)
            writer.ends = ([outside], [given])

        graph = tr.load_tflite(saved(tmp_path / f"{dtype}.tflite", change))
        assert graph.input.quant == quant and graph.input.dtype == "int8"
        images = images_for(plain, 3)
        np.testing.assert_array_equal(interpret.run(graph, images), interpret.run(plain, images))


@pytest.mark.parametrize(
    ("dtype", "words"),
    [("float32", "its input outside is float32; convert with full integer"), ("uint8", "its input outside is uint8")],
)
def test_other_types_are_refused_in_words(dtype: str, words: str, tmp_path: Path) -> None:
    def change(writer: Writer) -> None:
        outside = writer.tensor("outside", (1, 4), dtype, Quant((0.5,), 3))
        writer.ends = ([outside], writer.ends[1])

    with pytest.raises(ValueError, match=words):
        tr.load_tflite(saved(tmp_path / "typed.tflite", change))


@pytest.mark.parametrize("seed", range(6))
def test_several_outputs_equal_litert_s_in_the_file_s_order(seed: int, tmp_path: Path) -> None:
    """Some of them are read inside as well."""
    whole = Drawn(seed).graph
    inner = [op.output for op in whole.ops[seed % 3 : -1 : 3]]
    path = tmp_path / "several.tflite"
    path.write_bytes(tflite_bytes(replace(whole, outputs=(*inner[:1], *whole.outputs, *inner[1:]))))
    graph = tr.load_tflite(path, rounding="single")
    images = images_for(graph, 5)
    theirs = interpreter.Interpreter(model_content=path.read_bytes(), num_threads=1)
    theirs.allocate_tensors()
    found = interpret.run(graph, images)
    assert len(found) == len(theirs.get_output_details()) >= 2
    for i, image in enumerate(images):
        theirs.set_tensor(theirs.get_input_details()[0]["index"], image[None])
        theirs.invoke()
        for values, result in zip(found, theirs.get_output_details(), strict=True):
            np.testing.assert_array_equal(values[i].ravel(), theirs.get_tensor(result["index"]).ravel())
    assert len(tr.compare_with_litert(path, images[:1])) == len(graph.ops)


def test_ends_that_are_none_and_open_sizes_are_refused_in_words(tmp_path: Path) -> None:
    def two_inputs(writer: Writer) -> None:
        writer.ends = (writer.ends[0] * 2, writer.ends[1])

    def one_output_twice(writer: Writer) -> None:
        writer.ends = (writer.ends[0], writer.ends[1] * 2)

    def the_input(writer: Writer) -> None:
        writer.ends = (writer.ends[0], [*writer.ends[1], *writer.ends[0]])

    def no_output(writer: Writer) -> None:
        writer.ends = (writer.ends[0], [])

    def open_sizes(writer: Writer) -> None:
        writer.tensors[writer.ends[0][0]].shapeSignature = [-1, -1, -1, 3]

    def variable(writer: Writer) -> None:
        writer.tensors[writer.ends[0][0]].isVariable = True

    def two_images(writer: Writer) -> None:
        shape = writer.tensors[writer.ends[0][0]].shape
        writer.tensors[writer.ends[0][0]].shape = [2, *shape[1:]]

    changes = {
        two_inputs: r"has 2 inputs \(in \(1, .*\), in .*\), expected one", one_output_twice: "the same values twice, as .* and ",
        the_input: "gives its input, as in; leave", no_output: "has no output", open_sizes: "known at run time only",
        variable: "is variable", two_images: "expected \\(1, height, width, channels\\)",
    }  # fmt: skip
    for change, words in changes.items():
        with pytest.raises(ValueError, match=words):
            tr.load_tflite(saved(tmp_path / "ends.tflite", change))

    def open_batch(writer: Writer) -> None:
        shape = writer.tensors[writer.ends[0][0]].shape
        writer.tensors[writer.ends[0][0]].shapeSignature = [-1, *shape[1:]]

    assert tr.load_tflite(saved(tmp_path / "batch.tflite", open_batch)).ops


def test_damaged_files_end_in_a_sentence(tmp_path: Path) -> None:
    """Cut at any place, or with any byte changed: a graph or a ValueError, never another exception."""
    path, refused = tmp_path / "damaged.tflite", 0
    for data in damaged(drawn_model(1), 120):
        path.write_bytes(data)
        try:
            tr.load_tflite(path)
        except ValueError as wrong:
            refused += 1
            assert str(path) in str(wrong) or "damaged" in str(wrong), str(wrong)
    assert refused > 60
    for content, words in ((b"", "is no .tflite file"), (b"\x1c\0\0\0TFL2" + bytes(100), "TFL2")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=words):
            tr.load_tflite(path)
    with pytest.raises(ValueError, match="no file"):
        tr.load_tflite(tmp_path / "nothing.tflite")


@pytest.mark.parametrize("seed", [2, 4])
def test_beside_litert_layer_by_layer(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = drawn(seed, tmp_path)
    images = images_for(tr.load_tflite(path), 12)
    once, twice = (tr.compare_with_litert(path, images, rounding) for rounding in ("single", "double"))
    assert [layer.name for layer in once] == [op.name for op in tr.load_tflite(path).ops]
    assert not any(layer.differ or layer.why for layer in once)
    expected = litert(path.read_bytes(), tr.load_tflite(path), images)
    assert twice[-1].differ == (interpret.run(tr.load_tflite(path), images) != expected).sum()
    assert any(layer.why == "LiteRT rounds once here" and layer.differ_alone and layer.largest_alone == 1 for layer in twice)
    assert all(layer.why == "its inputs differ" for layer in twice if layer.differ and not layer.differ_alone)
    assert main(["compare", str(path), "--images", "4", "--rounding", "single", "--at-most", "0", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["differ_percent"] == 0 and len(answer["layers"]) == len(once)
    assert main(["compare", "lenet"]) == 2


def test_a_changed_layer_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, usual = drawn(4, tmp_path), interpret.run_op

    def changed(graph: Graph, op: Op, inputs: list[np.ndarray], clusters: None = None) -> np.ndarray:
        found = usual(graph, op, inputs, clusters)
        return found ^ np.int8(1) if op.name == "conv2" else found

    monkeypatch.setattr(interpret, "run_op", changed)
    layers = {layer.name: layer for layer in tr.compare_with_litert(path, images_for(tr.load_tflite(path), 2), "single")}
    assert layers["conv2"].why == "another rule of this operator" and layers["conv2"].differ_alone == layers["conv2"].values
    assert not layers["conv1"].differ and layers["conv3"].why in ("its inputs differ", "")


def test_without_litert_a_sentence_says_what_to_install(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = drawn(0, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ai_edge_litert", None)
        assert main(["compare", str(path), "--images", "1"]) == 3
    assert "ai_edge_litert is missing; run: pip install" in capsys.readouterr().err


@pytest.mark.slow
def test_a_file_is_a_network_in_every_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, calls = drawn(0, tmp_path), ("measure", "plan", "compile")
    options = {"measure": ["--target", "host", "--images", "2"], "plan": [], "compile": ["--out", str(tmp_path / "c")]}
    for verb in calls:
        assert main([verb, str(path), *options[verb], "--json"]) == 0, verb
        answer = json.loads(capsys.readouterr().out)
        assert answer["net"] == str(path) and answer.get("bit_exact", True)
    assert main(["measure", str(path), "--out", str(tmp_path / "r"), "--target", "host", "--images", "1"]) == 0
    assert [one.name for one in (tmp_path / "r").iterdir()] == ["drawn0.exact.fast.disco_f469ni.host.random.json"]
    assert main(["train", str(path)]) == 2
    assert "holds int8 weights" in capsys.readouterr().err


if __name__ == "__main__":
    from tflite_micro import runtime

    def answers(data: bytes, graph: Graph, count: int) -> np.ndarray:
        theirs, found = runtime.Interpreter.from_bytes(data, arena_size=4_000_000), []
        shape = theirs.get_input_details(0)["shape"]
        for image in images_for(graph, count):
            theirs.set_input(image.reshape(shape), 0)
            theirs.invoke()
            found.append(theirs.get_output(0).reshape(graph.output.shape).copy())
        return np.stack(found)

    made = {}
    with tempfile.TemporaryDirectory() as place:
        for one in [drawn(seed, Path(place), kind) for kind, (_, seeds) in MAKERS.items() for seed in seeds]:
            made[one.stem] = digest(answers(one.read_bytes(), tr.load_tflite(one), INPUTS))
    for key in MLPERF:
        made[key] = digest(answers(mlperf(key).read_bytes(), tr.load_tflite(mlperf(key)), MLPERF_INPUTS))
    GOLDEN.write_text(json.dumps(made, indent=1) + "\n")
