"""The door for ONNX files: int8 in both forms, beside ONNX Runtime value by value, and refusals in words."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tinyredux as tr
from tinyredux.cli.app import main
from tinyredux.frontends import LayerDifference
from tinyredux.graph import Add, Bilinear, Concat, Conv, Dense, DepthwiseConv, Graph, Lookup, Mul, Op, Quant, Rearrange
from tinyredux.int8 import evaluator, interpret

onnx = pytest.importorskip("onnx", reason="onnx is not installed; pip install 'tinyredux[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; pip install 'tinyredux[onnx]'")
from damaged import damaged  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_models import dealt, drawn_file, exported, quantised  # noqa: E402
from onnxruntime.quantization import QuantFormat, QuantType  # noqa: E402

FORMS = ("QDQ", "QOperator")
DRAWN = range(52)
NO_scale = "has no scale"  # a float operator reads another one's floats: the quantiser leaves such pairs
BOARDS = ("nucleo_l4r5zi", "nucleo_f746zg")


def images_for(graph: Graph, count: int, seed: int = 0) -> np.ndarray:
    """Returns random int8 images (N, H, W, C), most near zero, some at the ends."""
    height, width, channels = graph.input.shape
    real = np.random.default_rng(seed).normal(size=(count, channels, height, width)).astype(np.float32)
    return interpret.quantize_input(graph, real)


def real_images(graph: Graph, count: int) -> np.ndarray:
    """Returns float images (N, C, H, W) that stand for those bytes."""
    quant = graph.input.quant
    assert quant is not None
    real = (images_for(graph, count).astype(np.float32) - quant.zero_point) * np.float32(quant.scale[0])
    return np.ascontiguousarray(real.transpose(0, 3, 1, 2))


def loaded(seed: int, form: str, folder: Path) -> tuple[Path, Graph] | None:
    """Returns a drawn file and its graph; None where the quantiser left floats, which is said."""
    path, _ = drawn_file(seed, form, folder)
    try:
        return path, tr.load_onnx(path)
    except ValueError as wrong:
        assert NO_scale in str(wrong), wrong
        return None


def is_exact(layer: LayerDifference, graph: Graph) -> bool:
    """Returns whether a layer is computed by a rule of ONNX Runtime's own: products, functions of one value, moved values.

    Others: averages that take the sums of real numbers there, softmax in a second scale, a float layer whose sums are rounded.
    """
    op = graph.by_name[layer.name]
    rescaled = isinstance(op, Lookup) and type(graph.producer(op.inputs[0])).__name__ in ("Softmax", "Pool")
    return isinstance(op, Lookup | Rearrange | Dense) and not rescaled


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_drawn_files_equal_onnxruntime_but_for_counted_values(form: str, tmp_path: Path) -> None:
    values, differ, largest, count = Counter[str](), Counter[str](), Counter[str](), 0
    for seed in DRAWN:
        found = loaded(seed, form, tmp_path)
        if found is None:
            continue
        path, graph = found
        count += 1
        images = images_for(graph, 6, seed)
        for layer in tr.compare_with_onnxruntime(path, images):
            assert not layer.differ_alone or not is_exact(layer, graph), f"{path.name}: {layer}"
            values[layer.kind] += layer.values
            differ[layer.kind] += layer.differ_alone
            largest[layer.kind] = max(largest[layer.kind], layer.largest_alone)
        np.testing.assert_array_equal(evaluator.Evaluator(graph).run(images), interpret.run(graph, images))
    assert count >= 40, f"of {len(DRAWN)} files {count} were taken"
    shares = {kind: differ[kind] / values[kind] for kind in values}
    assert max(shares[kind] for kind in ("Conv", "Add", "Mul", "Concat")) < 1e-4, shares
    assert shares["DepthwiseConv"] < 2e-3 and max(largest.values()) <= 2, (shares, largest)
    assert sum(values.values()) > 300_000


def test_double_rounding_differs_more(tmp_path: Path) -> None:
    differ, reasons = Counter[str](), set[str]()
    for seed in range(8):
        if (found := loaded(seed, "QOperator", tmp_path)) is not None:
            for rounding in ("single", "double"):
                layers = tr.compare_with_onnxruntime(found[0], images_for(found[1], 6), rounding)
                differ[rounding] += sum(layer.differ_alone for layer in layers)
                reasons |= {layer.why for layer in layers}
    assert differ["double"] > 40 and differ["double"] > 20 * differ["single"], differ
    assert "ONNX Runtime rounds once here" in reasons


def test_a_changed_layer_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = loaded(2, "QDQ", tmp_path)
    assert found is not None
    usual = interpret.run_op

    def changed(graph: Graph, op: Op, inputs: list[np.ndarray], clusters: None = None) -> np.ndarray:
        values = usual(graph, op, inputs, clusters)
        return values ^ np.int8(1) if op.name == "conv1" else values

    monkeypatch.setattr(interpret, "run_op", changed)
    layers = {layer.name: layer for layer in tr.compare_with_onnxruntime(found[0], images_for(found[1], 2))}
    assert layers["conv1"].differ_alone == layers["conv1"].values and layers["conv1"].why == "another rule of this operator"


def check_c(seeds: range, form: str, folder: Path, board: str | None) -> int:
    """Checks the C of drawn files against the interpreter, on this computer or in the simulator. Returns how many there were."""
    count = 0
    for seed in seeds:
        if (found := loaded(seed, form, folder)) is not None:
            kernels, graph = ("fast", "reference")[seed % 2], found[1]
            model = tr.compile(graph, board, kernels=kernels) if board else tr.compile(graph, kernels=kernels)
            images = real_images(graph, 1 if board else 3)
            assert tr.measure(model, images, target="simulator" if board else "host").bit_exact, f"{seed} {form} {kernels}"
            count += 1
    return count


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_c_equals_the_interpreter(form: str, tmp_path: Path) -> None:
    assert check_c(range(4), form, tmp_path, None) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("board", BOARDS)
def test_the_simulator_equals_the_interpreter(board: str, tmp_path: Path) -> None:
    pytest.importorskip("unicorn")
    if not shutil.which("arm-none-eabi-gcc"):
        pytest.skip("arm-none-eabi-gcc is not installed")
    assert check_c(range(10, 12), "QDQ", tmp_path, board) >= 1


@pytest.mark.sweep
@pytest.mark.parametrize("board", [None, "nucleo_l4r5zi"])
@pytest.mark.parametrize("form", FORMS)
def test_the_c_of_all_drawn_files(form: str, board: str | None, tmp_path: Path) -> None:
    assert check_c(DRAWN, form, tmp_path, board) >= 40


class Shuffled(nn.Module):
    """What a file may hold besides: channels dealt out, a last map flattened before two dense layers, 1-D convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape = (4, 6, 5)
        self.stem, self.head, self.last = nn.Conv2d(4, 8, 3, groups=2, padding=1), nn.Linear(8 * 3 * 5, 12), nn.Linear(12, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.relu(dealt(2, self.stem(images)))
        x = nn.functional.max_pool2d(x, (2, 1))
        return self.last(torch.tanh(self.head(x.flatten(1))))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dynamo", "opset"), [(False, 13), (False, 17), (True, 18), (True, 21)])
def test_exporters_and_opsets(form: str, dynamo: bool, opset: int, tmp_path: Path) -> None:
    if dynamo:
        pytest.importorskip("onnxscript", reason="onnxscript is not installed, which torch's newer exporter needs")
    torch.manual_seed(1)
    net, images = Shuffled(), np.random.default_rng(0).normal(size=(8, 4, 6, 5)).astype(np.float32)
    options = {"quant_format": QuantFormat[form], "per_channel": True, "activation_type": QuantType.QInt8}
    path = quantised(exported(net, opset, dynamo), images, tmp_path / "net.onnx", **options)
    graph = tr.load_onnx(path)
    kinds = {type(op) for op in graph.ops}
    assert {Rearrange, Dense, Conv, Lookup} <= kinds and graph.rounding == "single"
    layers = tr.compare_with_onnxruntime(path, images_for(graph, 16))
    assert not any(layer.differ for layer in layers), layers


def file_of(
    path: Path, nodes: list[object], sizes: tuple[object, ...] = (1, 3, 4, 4), constants: dict[str, object] | None = None,
    outputs: tuple[str, ...] = ("result",), inputs: tuple[str, ...] = ("images",), opset: int = 17,
) -> Path:  # fmt: skip
    """Writes a file of some nodes."""
    held = {"s": np.float32(0.0531), "z": np.int8(3), "u": np.uint8(131), "t": np.float32(0.0217), **(constants or {})}
    graph = helper.make_graph(
        nodes, "made", [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name in inputs],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString())
    return path


def between(*nodes: object, last: str = "y", zero: str = "z") -> list[object]:
    """Returns nodes that read `x` and write `last` between a pair at the beginning and one at the end."""
    return [
        helper.make_node("QuantizeLinear", ["images", "s", zero], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", zero], ["x"]),
        *nodes, helper.make_node("QuantizeLinear", [last, "t", zero], ["p"]),
        helper.make_node("DequantizeLinear", ["p", "t", zero], ["result"]),
    ]  # fmt: skip


def test_several_outputs_equal_onnxruntime_in_the_file_s_order(tmp_path: Path) -> None:
    """Two behind one map, which is an output as well."""
    relu = between(helper.make_node("Relu", ["x"], ["y"]))
    more = [
        helper.make_node("Sigmoid", ["result"], ["w"]), helper.make_node("QuantizeLinear", ["w", "f", "low"], ["v"]),
        helper.make_node("DequantizeLinear", ["v", "f", "low"], ["other"]),
        helper.make_node("GlobalAveragePool", ["result"], ["m"]), helper.make_node("QuantizeLinear", ["m", "t", "z"], ["n"]),
        helper.make_node("DequantizeLinear", ["n", "t", "z"], ["mean"]),
    ]  # fmt: skip
    constants = {"f": np.float32(1 / 256), "low": np.int8(-128)}
    path = file_of(tmp_path / "several.onnx", [*relu, *more], constants=constants, outputs=("other", "result", "mean"))
    graph, images = tr.load_onnx(path), images_for(tr.load_onnx(path), 4)
    other, result, mean = interpret.run(graph, images)
    assert other.shape == result.shape == (4, 4, 4, 3) and mean.shape == (4, 1, 1, 3)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for i, image in enumerate(real_images(graph, 4)):
        theirs = session.run(None, {"images": image[None]})
        for ours, real, (scale, zero) in zip((other, result), theirs, ((1 / 256, -128), (0.0217, 3)), strict=False):
            stored = np.rint(real[0] / np.float32(scale)) + zero
            assert np.abs(ours[i].transpose(2, 0, 1) - stored).max() <= 1
    assert len(tr.compare_with_onnxruntime(path, images)) == len(graph.ops)


TRANSPOSED: tuple[dict[str, object], ...] = (  # what a transposed convolution by a kernel of 3 x 2 may say besides
    {"strides": [2, 2], "pads": [1, 0, 1, 1]}, {"strides": [1, 1], "dilations": [2, 3], "pads": [2, 1, 0, 1]},
    {"strides": [3, 2], "output_padding": [1, 1], "pads": [2, 1, 1, 0]}, {"strides": [2, 3], "output_shape": [8, 11]},
    {"strides": [2, 3], "output_shape": [8, 10], "auto_pad": "SAME_UPPER"}, {"strides": [2, 1], "auto_pad": "SAME_LOWER"},
    {"strides": [2, 1], "auto_pad": "SAME_UPPER"},
)  # fmt: skip


def test_operators_that_the_exporter_writes_otherwise(tmp_path: Path) -> None:
    """One operator each, by hand: what it becomes, and that it equals ONNX Runtime but for halves."""
    vector = np.array([2.0, -0.5, 0.25], np.float32).reshape(1, 3, 1, 1)
    statistics = [np.array(one, np.float32) for one in ([1, -2, 3], [0.1, 0.2, 0.3], [0.5, 0, -0.5], [1, 2, 0.5])]
    weights, scales = np.arange(-54, 54, dtype=np.int8).reshape(4, 3, 3, 3), np.array([0.01, 0.02, 0.03, 0.01], np.float32)
    drawn = np.random.default_rng(0).integers(-127, 128, (12, 6, 3, 2)).astype(np.int8)
    kernels = {  # a name: weights, and scales of the first axis, or of a transposed convolution's second
        "w": (weights, scales), "t": (drawn[:3, :4], scales), "g": (drawn, scales[[0, 1, 2, 0, 1, 2]] / 4),
        "c": (drawn[:3, :1], scales[:1]),
    }  # fmt: skip
    scale = np.float32(0.0531)  # that of the input: nothing is rescaled
    made = {
        "multiplied": (["Mul", "x", "v"], {"v": vector}, {}, DepthwiseConv),
        "added": (["Add", "v", "x"], {"v": vector}, {}, DepthwiseConv),
        "subtracted": (["Sub", "v", "x"], {"v": np.float32(0.3)}, {}, Lookup),
        "divided": (["Div", "x", "v"], {"v": np.float32(3.0)}, {}, Lookup),
        "negative": (["Neg", "x"], {}, {}, Lookup),
        "normalised": (["BatchNormalization", "x", *"abcd"], dict(zip("abcd", statistics, strict=True)), {}, DepthwiseConv),
        "parametric": (["PRelu", "x", "v"], {"v": np.full((1, 1, 1), 0.3, np.float32)}, {}, Lookup),
        "clipped": (["Clip", "x", "v", "w"], {"v": np.float32(-0.7), "w": np.float32(0.9)}, {}, Lookup),
        "silu": (["Mul", "x", "g"], {}, {}, Lookup),
        "squared": (["Mul", "x", "x"], {}, {}, Mul),
        "doubled": (["Add", "x", "x"], {}, {}, Add),
        "blocks": (["DepthToSpace", "m"], {}, {"blocksize": 2, "mode": "DCR"}, Rearrange),
        "blocks in columns": (["DepthToSpace", "m"], {}, {"blocksize": 2, "mode": "CRD"}, Rearrange),
        "below each other": (["Concat", "x", "x"], {}, {"axis": 2}, Add),
        "side by side": (["Concat", "x", "x", "x"], {}, {"axis": -1}, Add),
        "places": (["SpaceToDepth", "m"], {}, {"blocksize": 2}, Concat),
        **{f"transposed {i}": (["ConvTranspose", "x", "dt"], {}, given, Conv) for i, given in enumerate(TRANSPOSED)},
        "transposed, in groups": (["ConvTranspose", "mx", "dg", "b"], {"b": np.arange(-6, 6, dtype=np.float32)},
                                  {"strides": [2, 1], "group": 2}, Conv),
        "transposed, each channel": (["ConvTranspose", "x", "dc"], {}, {"strides": [2, 2], "group": 3}, DepthwiseConv),
        "halves": (["Resize", "x", "", "v"], {"v": np.array([1, 1, 2, 3], np.float32)}, {"mode": "nearest"}, Rearrange),
        "between": (["Resize", "x", "", "v"], {"t": scale, "v": np.array([1, 1, 2, 4], np.float32)},
                    {"mode": "linear"}, Bilinear),
        "corners": (["Resize", "x", "", "", "v"], {"t": scale, "v": np.array([1, 3, 9, 9])},
                    {"mode": "linear", "coordinate_transformation_mode": "align_corners"}, Bilinear),
        "plain": (["Resize", "x", "", "", "v"], {"t": scale, "v": np.array([1, 3, 10, 5])},
                  {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}, Bilinear),
        "ceiled": (["MaxPool", "x"], {}, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, None),
        "padded": (["Conv", "x", "dw"], {}, {"auto_pad": "SAME_UPPER", "strides": [2, 3]}, Conv),
        "dilated": (["Conv", "x", "dw"], {}, {"pads": [2, 0, 1, 1], "dilations": [2, 1]}, Conv),
        "far": (["Conv", "x", "dw"], {}, {"pads": [3, 1, 3, 2], "dilations": [3, 2]}, Conv),
        "holes": (["MaxPool", "x"], {}, {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1], "dilations": [2, 3]}, None),
    }  # fmt: skip
    for name, (words, constants, attributes, kind) in made.items():
        before = [helper.make_node("Sigmoid", ["x"], ["g"]), helper.make_node("Concat", ["x", "x", "x", "x"], ["m"], axis=1)]
        before += [helper.make_node("DequantizeLinear", [f"i{one}", f"s{one}"], [f"d{one}"], axis=one != "w") for one in kernels]
        before += [
            helper.make_node("QuantizeLinear", ["m", *"sz"], ["mq"]),
            helper.make_node("DequantizeLinear", ["mq", *"sz"], ["mx"]),
        ]
        node = helper.make_node(words[0], words[1:], ["y"], **attributes)
        wanted = {*words, "m", "mq"} if "mx" in words else {*words}
        nodes = between(*[one for one in before if one.output[0] in wanted], node)
        held = {f"i{one}": values for one, (values, _) in kernels.items()} | {
            f"s{one}": each for one, (_, each) in kernels.items()
        }
        path = file_of(tmp_path / f"{name}.onnx", nodes, constants={**held, **constants})
        graph = tr.load_onnx(path)
        assert kind is None or kind in {type(op) for op in graph.ops}, (name, graph.ops)
        (*_, last) = tr.compare_with_onnxruntime(path, images_for(graph, 24))
        most = 0.03 if kind is Bilinear else 0.01  # whose float32 means of four lie on either side of a half
        assert last.differ <= most * last.values and last.largest <= 1, (name, last)
        if name in ("below each other", "side by side"):
            assert last.differ == 0, (name, last)
        if name in (
            "below each other",
            "side by side",
            "places",
            "transposed 3",
            "transposed, in groups",
            "transposed, each channel",
        ):
            assert tr.measure(tr.compile(graph), real_images(graph, 2)).bit_exact, name


def test_what_is_clamped_by_its_scale_needs_no_clamp(tmp_path: Path) -> None:
    path = file_of(tmp_path / "relu.onnx", between(helper.make_node("Relu", ["x"], ["y"]), zero="u"))
    graph = tr.load_onnx(path)
    assert [op.parameters for op in graph.ops if isinstance(op, Lookup)] == [(0.0, np.inf)] and graph.input.quant == Quant(
        (np.float32(0.0531),), 3
    )


def test_an_input_in_another_order_is_taken_as_it_lies_behind(tmp_path: Path) -> None:
    """Keras's exporters begin with a transposition of (1, H, W, C)."""
    first = helper.make_node("Transpose", ["images"], ["moved"], perm=[0, 3, 1, 2])
    nodes = between(helper.make_node("Conv", ["x", "dw"], ["y"]), helper.make_node("Identity", ["y"], ["y2"]), last="y2")
    nodes[0] = helper.make_node("QuantizeLinear", ["moved", "s", "z"], ["q"])
    weight = helper.make_node("DequantizeLinear", ["iw", "t"], ["dw"])
    values = np.random.default_rng(0).integers(-127, 128, (5, 3, 2, 2)).astype(np.int8)
    path = file_of(tmp_path / "keras.onnx", [first, weight, *nodes], (1, 6, 4, 3), {"iw": values})
    graph = tr.load_onnx(path)
    assert graph.input.shape == (6, 4, 3)
    assert not any(layer.differ for layer in tr.compare_with_onnxruntime(path, images_for(graph, 8)))


def test_everything_unsupported_is_named_at_once(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cos", ["x"], ["a"], name="wave"), helper.make_node("LRN", ["a"], ["b"], size=3)]
    nodes += [helper.make_node("Relu", ["b"], ["c"]), helper.make_node("TopK", ["x", "k"], ["d", "e"], axis=1)]
    path = file_of(tmp_path / "odd.onnx", between(*nodes, last="c"), constants={"k": np.array([1])})
    with pytest.raises(ValueError, match="3 of 8 operators are not supported") as refused:
        tr.load_onnx(path)
    for part in ("node 2 wave, Cos", "node 3, LRN (size 3)", "node 5, TopK (axis 1)"):
        assert part in str(refused.value)


def test_refusals_say_what_to_do(tmp_path: Path) -> None:
    relu = [helper.make_node("Relu", ["images"], ["result"])]
    dynamic = [
        helper.make_node("DynamicQuantizeLinear", ["images"], ["q", "a", "b"]),
        helper.make_node("Relu", ["q"], ["result"]),
    ]
    wide = between(helper.make_node("Relu", ["x"], ["y"]), zero="short")
    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    lopsided = [helper.make_node("DequantizeLinear", ["w8", "t", "low"], ["w"]), *between(conv)]
    flat = between(helper.make_node("Flatten", ["x"], ["y"]))
    other = between(helper.make_node("Relu", ["x"], ["y"]))
    other[1] = helper.make_node("DequantizeLinear", ["q", "t", "z"], ["x"])
    held = {
        "short": np.int16(0),
        "w": np.ones((2, 3, 1, 1), np.float32),
        "low": np.uint8(0),
        "w8": np.full((2, 3, 1, 1), 200, np.uint8),
    }
    cases: dict[str, tuple[list[object], dict[str, object]]] = {
        "is a float network; quantise it with onnxruntime.quantization.quantize_static": (relu, {}),
        "chooses its scales while running": (dynamic, {}),
        "stored in int16, expected int8 or uint8": (wide, {}),
        "weights are float32 without scale": (between(conv), {}),
        "quantise them symmetrically": (lopsided, {"drop": "w"}),
        "flattened or transposed at the end": (flat, {}),
        "another scale or zero point": (other, {}),
        "it gives result again, as result; leave": (
            between(helper.make_node("Relu", ["x"], ["y"])), {"outputs": ("result", "result")}),
        "its output more has no scale": (between(helper.make_node("Relu", ["x"], ["y"])), {"outputs": ("result", "more")}),
        "it gives its input again, as x": (between(helper.make_node("Relu", ["x"], ["y"])), {"outputs": ("result", "x")}),
        "has 2 inputs": (between(helper.make_node("Relu", ["x"], ["y"])), {"inputs": ("images", "more")}),
        "export it with fixed sizes": (between(helper.make_node("Relu", ["x"], ["y"])), {"sizes": (1, 3, "h", "w")}),
        "expected \\(1, channels, height, width\\)": (between(helper.make_node("Relu", ["x"], ["y"])), {"sizes": (2, 3, 4, 4)}),
    }  # fmt: skip
    for words, (nodes, options) in cases.items():
        constants = {key: value for key, value in held.items() if key != options.get("drop")}
        more = {key: value for key, value in options.items() if key != "drop"}
        with pytest.raises(ValueError, match=words):
            tr.load_onnx(file_of(tmp_path / "refused.onnx", nodes, constants=constants, **more))  # type: ignore[arg-type]
    open_batch = file_of(tmp_path / "batch.onnx", between(helper.make_node("Relu", ["x"], ["y"])), ("n", 3, 4, 4))
    assert tr.load_onnx(open_batch).ops


def test_damaged_files_end_in_a_sentence(tmp_path: Path) -> None:
    """Cut at any place, or with any byte changed: a graph or a ValueError, never another exception."""
    whole, refused = drawn_file(3, "QOperator", tmp_path)[0].read_bytes(), 0
    path = tmp_path / "damaged.onnx"
    for data in damaged(whole, 80):
        path.write_bytes(data)
        try:
            tr.load_onnx(path)
        except ValueError as wrong:
            refused += 1
            assert str(path) in str(wrong), str(wrong)
    assert refused > 40
    for content in (b"", b"no protobuf at all"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no ONNX file"):
            tr.load_onnx(path)
    with pytest.raises(ValueError, match="no file"):
        tr.load_onnx(tmp_path / "nothing.onnx")


@pytest.mark.slow
def test_a_file_is_a_network_in_every_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = loaded(2, "QDQ", tmp_path)
    assert found is not None
    path = str(found[0])
    options = {
        "measure": ["--target", "host", "--images", "2"], "plan": [], "compile": ["--out", str(tmp_path / "c")],
        "compare": ["--images", "4"],
    }  # fmt: skip
    for verb, more in options.items():
        assert main([verb, path, *more, "--json"]) == 0, verb
        answer = json.loads(capsys.readouterr().out)
        assert answer["net"] == path and answer.get("bit_exact", True)
    assert answer["runtime"] == "ONNX Runtime" and answer["rounding"] == "single"
    assert json.loads((tmp_path / "c" / "manifest.json").read_text())["rounding"] == "single"
    assert main(["measure", path, "--rounding", "double", "--target", "host", "--images", "1"]) == 0
    assert main(["train", path]) == 2
    assert "holds int8 weights" in capsys.readouterr().err


def test_without_its_packages_a_sentence_says_what_to_install(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(drawn_file(2, "QDQ", tmp_path)[0])
    for package, verb in (("onnxruntime", "compare"), ("onnx", "plan")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            patch.delitem(sys.modules, "tinyredux.frontends.qdq.onnx_file", raising=False)
            assert main([verb, path]) == 3
        assert f"{package} is missing; run: pip install" in capsys.readouterr().err


def test_a_graph_keeps_the_rounding_that_is_asked_for(tmp_path: Path) -> None:
    path, _ = drawn_file(2, "QDQ", tmp_path)
    assert [tr.load_onnx(path, rounding=one).rounding for one in ("single", "double")] == ["single", "double"]
    graph = tr.load_onnx(path)
    assert tr.compile(graph).artifact.model_hash != tr.compile(replace(graph, rounding="double")).artifact.model_hash
