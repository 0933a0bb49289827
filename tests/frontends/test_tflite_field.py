"""The door for .tflite files as converters write them: means, moves, shapes that the file computes, networks in one dimension.

`test_tflite.py` holds drawn ones beside TFLM and LiteRT; here is what each becomes, what is refused, and C.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tinyredux as tr
from tinyredux.graph import Conv, DepthwiseConv, Graph, Lookup, Pool, Quant, Rearrange
from tinyredux.int8 import interpret

pytest.importorskip("tflite", reason="tflite is not installed; pip install 'tinyredux[tflite]'")
interpreter = pytest.importorskip(
    "ai_edge_litert.interpreter", reason="ai-edge-litert is not installed; pip install 'tinyredux[tflite]'"
)
import ai_edge_litert.schema_py_generated as schema  # noqa: E402
import flatbuffers  # noqa: E402
from tflite_field import Field, channelled, channelled_model, field_model, gated_model, line_model, scaled_model  # noqa: E402

SHAPE = (1, 6, 4, 4)


def loaded(field: Field, folder: Path, rounding: str = "double") -> Graph:
    path = folder / "field.tflite"
    path.write_bytes(field.bytes())
    return tr.load_tflite(path, rounding)


def images_for(graph: Graph, count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-128, 128, (count, *graph.input.shape)).astype(np.int8)


def assert_litert_agrees(field: Field, folder: Path) -> None:
    """Fails unless both of LiteRT's interpreters, the reference and the default one, give our bytes."""
    kinds = {"double": interpreter.OpResolverType.BUILTIN_REF, "single": interpreter.OpResolverType.AUTO}
    for rounding, resolver in kinds.items():
        graph = loaded(field, folder, rounding)
        theirs = interpreter.Interpreter(model_content=field.bytes(), num_threads=1, experimental_op_resolver_type=resolver)
        theirs.allocate_tensors()
        (source,), (result,) = theirs.get_input_details(), theirs.get_output_details()
        for image in images_for(graph, 6):
            theirs.set_tensor(source["index"], image.reshape(source["shape"]))
            theirs.invoke()
            expected = theirs.get_tensor(result["index"]).reshape(graph.output.shape)
            np.testing.assert_array_equal(interpret.run(graph, image[None])[0], expected, err_msg=rounding)


def mean_of(axes: tuple[int, ...], keep: bool) -> Callable[[Field], None]:
    return lambda field: field.mean(axes, keep)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2), (2, 1)])
def test_means_of_few_values_equal_litert(axes: tuple[int, ...], seed: int, tmp_path: Path) -> None:
    """Two to twenty-four values: every other mean is a tie or close to one."""
    for keep in (True, False):
        field = Field(seed, (1, 2 + seed % 3, 1 + seed, 64))
        field.mean(axes, keep)
        assert_litert_agrees(field, tmp_path)
        (op,) = loaded(field, tmp_path).ops
        assert isinstance(op, Pool) and op.kind == "mean"


@pytest.mark.parametrize("seed", range(16))
def test_constants_of_channels_and_values_equal_litert(seed: int, tmp_path: Path) -> None:
    assert_litert_agrees(channelled(seed), tmp_path)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_clamps_and_nearest_values_equal_litert(seed: int, align: bool, tmp_path: Path) -> None:
    field = Field(seed, SHAPE)
    field.conv()
    field.add("RELU_0_TO_1", [field.last], field.shape, quant=field.pick(field.quant, field.coarser(1.1)))
    _, height, width, channels = field.shape
    size = (field.pick(2 * height - 1, height), field.pick(3 * width - 2, width)) if align else (2 * height, 3 * width)
    fields = {"alignCorners": align, "halfPixelCenters": not align}
    inputs = [field.last, field.constant(size)]
    field.add("RESIZE_NEAREST_NEIGHBOR", inputs, (1, *size, channels), "ResizeNearestNeighborOptions", **fields)
    assert_litert_agrees(field, tmp_path)


@pytest.mark.parametrize("rule", ["alignCorners", "halfPixelCenters", "plain"])
@pytest.mark.parametrize("seed", range(8))
def test_bilinear_resizing_equals_litert(seed: int, rule: str, tmp_path: Path) -> None:
    field = Field(seed)
    field.bilinear(rule)
    assert_litert_agrees(field, tmp_path)


def test_what_each_becomes(tmp_path: Path) -> None:
    cases: dict[str, tuple[Callable[[Field], None], list[type]]] = {
        "a computed shape": (Field.flatten, []),
        "zeros before a window": (lambda field: field.step("pad_window"), [Conv]),
        "zeros by themselves": (lambda field: field.step("pad_alone"), [DepthwiseConv, Pool]),
        "zeros beside channels": (lambda field: field.pad([(0, 0), (0, 0), (0, 0), (1, 1)]), [Conv]),
        "a part": (lambda field: field.taken("strided"), [Rearrange]),
        "nearest values": (Field.resize, [Rearrange]),
        "a limit": (lambda field: field.step("limits"), [Lookup]),
        "dense place by place": (lambda field: field.dense(5, keep=True), [Conv]),
    }
    for name, (change, kinds) in cases.items():
        field = Field(4, SHAPE)
        change(field)
        field.add("RELU", [field.last], field.shape)
        assert [type(op) for op in loaded(field, tmp_path).ops[:-1]] == kinds, name


def test_a_network_in_one_dimension_is_one_row(tmp_path: Path) -> None:
    path, rows = tmp_path / "line.tflite", 0
    for seed in range(6):
        path.write_bytes(line_model(seed))
        graph = tr.load_tflite(path)
        assert all(tensor.shape[0] == 1 for tensor in graph.tensors.values())
        rows += sum(isinstance(op, Pool) and op.kind != "mean" and op.kernel[1] > 1 for op in graph.ops)
    assert rows, "no pool of a column was read as one of the row"


def test_what_cannot_be_computed_is_said(tmp_path: Path) -> None:
    def flipped(field: Field) -> None:
        places = [field.constant(each) for each in ([0, 5, 0, 0], [1, 0, 4, 4], [1, -1, 1, 1])]
        field.add("STRIDED_SLICE", [field.last, *places], (1, 5, 4, 4), "StridedSliceOptions")

    def stretched(field: Field) -> None:
        field.add("RESIZE_NEAREST_NEIGHBOR", [field.last, field.constant((8, 4))], (1, 8, 4, 4), "ResizeNearestNeighborOptions")

    def turned(field: Field) -> None:
        field.add("TRANSPOSE", [field.last, field.constant([0, 2, 1, 3])], (1, 4, 6, 4))

    def many(field: Field) -> None:
        field.add("MAXIMUM", [field.last, field.last], field.shape, "MaximumMinimumOptions")

    def whitened(field: Field) -> None:
        value = field.writer.tensor("value", (), "int8", field.quant, np.array(77, np.int8))
        inputs = [field.last, field.constant([[0, 0], [1, 1], [0, 0], [0, 0]]), value]
        field.add("PADV2", inputs, (1, 8, 4, 4), "PadV2Options")

    def by_columns(field: Field) -> None:
        values = field.writer.tensor("values", (4, 1), "int8", Quant((0.1,), 0), np.array([[1], [2], [3], [4]], np.int8))
        field.add("MUL", [field.last, values], field.shape, "MulOptions")

    def taken_off(field: Field) -> None:
        value = field.writer.tensor("value", (), "int8", Quant((0.1,), 0), np.array(5, np.int8))
        field.add("SUB", [value, field.last], field.shape, "SubOptions")

    def gathered(field: Field) -> None:
        field.add("GATHER", [field.last, field.constant([0, 1])], (1, 2, 4, 4), "GatherOptions", axis=1)

    def deep(field: Field) -> None:
        field.reshape((1, 3, 2, 4, 4))

    def wide(field: Field) -> None:
        field.writer.tensors[field.last].type = schema.TensorType.INT16
        field.add("RELU", [field.last], field.shape)
        field.writer.tensors[field.last].type = schema.TensorType.INT16

    cases: list[tuple[Callable[[Field], None], str]] = [
        (mean_of((3,), True), "expected height, width or both"), (mean_of((1, 2, 3), True), "expected height, width or both"),
        (flipped, "expected steps of 1 or more"), (stretched, "expected each value as often"), (turned, "stay where they are"),
        (many, "its limits are not held in the file"), (whitened, "a padding of 77 goes"), (gathered, "no kernel computes it"),
        (deep, r"shape \(1, 3, 2, 4, 4\), expected \(1, height, width, channels\)"), (wide, "int16, expected"),
        (by_columns, "a factor for each channel"), (taken_off, "of SUB the second"),
        (lambda field: field.pad([(0, 1), (0, 0), (0, 0), (0, 0)]), "it pads the images"),
    ]  # fmt: skip
    for change, words in cases:
        field = Field(4, SHAPE)
        field.add("RELU", [field.last], field.shape)
        change(field)
        field.add("RELU", [field.last], field.shape)
        with pytest.raises(ValueError, match=words):
            loaded(field, tmp_path)


def test_other_subgraphs_are_left_alone(tmp_path: Path) -> None:
    field = Field(3, SHAPE)
    field.conv()
    graph, path = loaded(field, tmp_path), tmp_path / "field.tflite"
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    model.subgraphs.append(model.subgraphs[0])
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    both, images = tr.load_tflite(path), images_for(graph, 3)
    np.testing.assert_array_equal(interpret.run(both, images), interpret.run(graph, images))
    assert not any(layer.differ for layer in tr.compare_with_litert(path, images, "single"))


@pytest.mark.parametrize("seed", range(6))
def test_beside_litert_layer_by_layer(seed: int, tmp_path: Path) -> None:
    for name, make in (("field", field_model), ("line", line_model), ("gated", gated_model), ("scaled", scaled_model)):
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(make(seed))
        graph = tr.load_tflite(path)
        once, twice = (tr.compare_with_litert(path, images_for(graph, 6), rounding) for rounding in ("single", "double"))
        theirs = [op.name for op in graph.ops if not op.name.startswith("between")]  # LiteRT has no map with zeros in it
        assert [layer.name for layer in once] == theirs
        assert not any(layer.differ or layer.why for layer in once)
        assert all(layer.why in ("", "LiteRT rounds once here", "its inputs differ") for layer in twice)


def assert_c_is_exact(graph: Graph, model: tr.Model, target: str) -> None:
    quant = graph.input.quant
    assert quant is not None
    real = (images_for(graph, 2).astype(np.float32) - quant.zero_point) * np.float32(quant.scale[0])
    assert tr.measure(model, np.ascontiguousarray(real.transpose(0, 3, 1, 2)), target=target).bit_exact


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["fast", "reference"])
@pytest.mark.parametrize("rounding", ["double", "single"])
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.sweep) for seed in (2, 3))])
def test_c_equals_the_interpreter(seed: int, rounding: str, kernels: str, tmp_path: Path) -> None:
    path = tmp_path / "field.tflite"
    for make in (field_model, line_model, gated_model, scaled_model, channelled_model):
        path.write_bytes(make(seed))
        graph = tr.load_tflite(path, rounding)
        assert_c_is_exact(graph, tr.compile(graph, kernels=kernels), "host")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("board", "rounding"), [("nucleo_l4r5zi", "double"), ("nucleo_f746zg", "single"), ("nucleo_u575zi_q", "single")]
)
def test_boards_equal_the_interpreter(board: str, rounding: str, tmp_path: Path) -> None:
    pytest.importorskip("unicorn")
    path, kinds = tmp_path / "field.tflite", set[str]()
    for make, seed in ((field_model, 2), (line_model, 1), (gated_model, 1), (channelled_model, 1)):
        path.write_bytes(make(seed))
        graph = tr.load_tflite(path, rounding)
        kinds |= {getattr(op, "kind", type(op).__name__) for op in graph.ops}
        assert_c_is_exact(graph, tr.compile(graph, board), "simulator")
    assert_c_is_exact(graph, tr.compile(graph, board, schedule=tr.Partial()), "simulator")
    assert kinds >= {"mean", "Mul", "Add", "Rearrange", "AddConstant"}
