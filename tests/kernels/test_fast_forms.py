"""Every form against the interpreter, bit for bit: under sanitizers on this computer, and as machine code in the emulator.

A case is a layer with its weights, one of its forms, and an input. A hundred thousand of them and more: pytest -m sweep
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from compiled import NEEDS_COMPILER
from form_cases import Case, cases_of, right_cases
from generated import CPU_MODELS
from strategies import KINDS, Layer, named_layer, random_layers

from tinyredux.boards import find_board
from tinyredux.explore.bench import parse_spec
from tinyredux.graph import Attention, output_shape
from tinyredux.kernels import OnBoard, attention, gemm, quads, winograd
from tinyredux.kernels.winograd.tile import Tile, largest_output, split_places, transformed

FORMLESS = ("concat", "softmax", "rearrange", "mul_gate", "mean", "bilinear", "layer_norm", "matmul", "extend", "add_constant")
FORMED = [kind for kind in KINDS if kind not in FORMLESS]
SMALL_CACHE = OnBoard(find_board("nucleo_l4r5zi"))  # where loops are smaller
BATCH = 25  # layers compiled together
PADDED = ("conv1x1s2:16-5@5x5", "conv3x3:8-5@7x5", "conv5x2s3:3-4@6x8", "depthwise1x3s2:6@9x7", "depthwise2x1s3:5@8x6")
NAMED = (
    "conv1x1:64-64@4x4", "conv1x1:7-5@3x3",  # neither channels nor pixels fit the blocks
    "conv1x1s2:16-6@5x5", "conv3x3:5-9@7x5", "conv5x5s2:3-4@9x9", "conv3x3:13-21@2x3",  # columns of an odd number of words
    "conv3x3:32-8@8x8", "conv3x3:8-5@7x5",  # tiles over both edges
    "conv2x2:4-3@5x5", "conv4x4:4-2@5x5", "conv7x5s3:13-2@20x17", "conv1x1:300-4@2x1",
    "conv10x4s2:1-9@13x10", "conv3x3:1-3@7x6", "depthwise5x4s2:1@9x10",  # one input channel: a depthwise layer of many filters
    "depthwise7x5:5@2x3", "depthwise5x5s2:3@1x2",  # taps that never see the map
    "conv1x1:20-6@7x5", "conv1x1:140-9@3x2", "conv1x1:12-7@3x23",  # quads: strips and groups that overlap, padded rounds
)  # fmt: skip
GROUPED = (  # height, width, channels in and out, groups, stride
    (5, 7, 16, 16, 2, 1), (3, 23, 24, 20, 2, 1), (4, 4, 32, 48, 4, 1), (9, 9, 16, 8, 2, 1), (7, 6, 16, 12, 2, 2),
)  # fmt: skip
EXTREME = (
    "dense:3000-6", "dense:1043-5", "depthwise7x7:5@9x8", "depthwise3x3s2:6@11x10", "conv5x5:12-6@9x8", "conv3x3:12-6@5x8",
    "conv5x5:24-3@5x5", "conv1x1:24-7@3x3", "conv1x1:64-8@3x4",
)  # fmt: skip
WEIGHTS: dict[str, Callable[[tuple[int, ...]], np.ndarray]] = {
    "highest": lambda shape: np.full(shape, 127),
    "lowest": lambda shape: np.full(shape, -127),
    "either": lambda shape: np.random.default_rng(5).choice([-127, 127], shape),
}
BEYOND = ((1, 1), (2, 5))  # rows or columns that the padding is wider than the window, before and after


def many(layers: list[Layer], inputs: int, core: str, kinds: str, folder: Path) -> int:
    """Returns how many times the forms of layers are right, BATCH layers in a program."""
    parts = [layers[first : first + BATCH] for first in range(0, len(layers), BATCH)]
    made = ((i, cases) for i, part in enumerate(parts) if (cases := cases_of(part, core)))
    return sum(right_cases(cases, inputs, folder / str(i), core, kinds) for i, cases in made)


@pytest.mark.parametrize("kind", FORMED)
def test_forms_under_sanitizers(tmp_path: Path, kind: str) -> None:
    right_cases(cases_of(random_layers(kind, 16, seed=11), "cortex-m4"), 1, tmp_path)


@pytest.mark.slow
@NEEDS_COMPILER
@pytest.mark.parametrize("core", CPU_MODELS)
def test_twin_and_machine_code(core: str, tmp_path: Path) -> None:
    """The instructions for a core and their C twin, in the order that the core gets."""
    layers = [layer for kind in FORMED for layer in random_layers(kind, 3, seed=22)]
    assert many(layers, 6, core, "host core", tmp_path) >= 300


@pytest.mark.sweep
def test_a_hundred_thousand_twins(tmp_path: Path) -> None:
    layers = [layer for kind in FORMED for layer in random_layers(kind, 100, seed=21)]
    assert many(layers, 65, "cortex-m4", "host", tmp_path) >= 100_000


@pytest.mark.sweep
@NEEDS_COMPILER
@pytest.mark.parametrize("core", CPU_MODELS)
def test_seventy_thousand_cases_as_machine_code(core: str, tmp_path: Path) -> None:
    """On other layers than the twins'."""
    layers = [layer for kind in FORMED for layer in random_layers(kind, 150, seed=23 + list(CPU_MODELS).index(core))]
    assert many(layers, 30, core, "core", tmp_path) >= 70_000


def test_every_form_of_named_layers_and_the_largest_sums(tmp_path: Path) -> None:
    """Weights and inputs at their ends overflow nothing."""
    cases = cases_of([named_layer(spec) for spec in NAMED], "cortex-m4")
    names = {case.form.name.rsplit("_", 1)[0] for case in cases}
    assert {"gemm_pointwise", "gemm_columns", "quads", "winograd", "rows"} <= names
    right_cases(cases, 3, tmp_path)
    right_cases(cases_of([named_layer(spec) for spec in NAMED], SMALL_CACHE), 3, tmp_path / "small")
    extreme = [named_layer(spec, weights) for spec in EXTREME for weights in WEIGHTS.values()]
    right_cases(cases_of(extreme, "cortex-m4"), 6, tmp_path / "extreme")


def wide_layers() -> Iterator[Layer]:
    """Yields each layer with padding wider than its window: above and below, and all around."""
    for (seed, spec), (before, after), x in product(enumerate(PADDED), BEYOND, (0, 1)):
        layer, (rows, columns) = named_layer(spec, seed=seed), parse_spec(spec).kernel
        op = replace(layer.op, padding=(rows + before, rows + after, x * (columns + after), x * (columns + before)))  # type: ignore[call-arg]
        output = replace(layer.graph.output, shape=output_shape(layer.graph, op))
        yield replace(layer, graph=replace(layer.graph, ops=(op,), tensors=layer.graph.tensors | {"output": output}))


def grouped_layers() -> Iterator[Layer]:
    """Yields 1x1 convolutions in groups."""
    for seed, (height, width, in_c, out_c, groups, stride) in enumerate(GROUPED):
        layer = named_layer(f"conv1x1s{stride}:{in_c // groups}-{out_c}@{height}x{width}", seed=seed)
        tensors = layer.graph.tensors | {"input": replace(layer.graph.input, shape=(height, width, in_c))}
        graph = replace(layer.graph, ops=(replace(layer.op, groups=groups),), tensors=tensors)  # type: ignore[call-arg]
        yield replace(layer, graph=graph, inputs=(np.zeros((height, width, in_c), np.int8),))


@NEEDS_COMPILER
def test_every_form_of_groups(tmp_path: Path) -> None:
    for core in ("cortex-m4", "cortex-m7"):
        cases = cases_of(list(grouped_layers()), core)
        assert {case.form.name.rsplit("_", 1)[0] for case in cases} >= {"gemm_pointwise", "gemm_columns"}
        right_cases(cases, 2, tmp_path / core, core, "sanitized core")


def test_every_form_where_windows_see_no_pixel(tmp_path: Path) -> None:
    """Windows that lie wholly in the padding, which torch allows for convolutions."""
    cases = cases_of(list(wide_layers()), "cortex-m4")
    assert {case.form.name.split("_")[0] for case in cases} >= {"gemm", "depthwise"}
    right_cases(cases, 1, tmp_path)


def equal_queries(seed: int, count: int) -> Iterator[Case]:
    """Yields attentions without a bias whose queries are repeated in any order, by the form that computes equal ones once."""
    rng = np.random.default_rng(seed)
    for layer in random_layers("attention", count, seed):
        (queries, *others), op = layer.inputs, layer.op
        assert isinstance(op, Attention)
        if not op.bias and (forms := attention.forms(layer.graph, op, "cortex-m4")):  # with a bias equal queries are not alike
            rows = queries.reshape(-1, queries.shape[2])
            repeated = rows[rng.integers(0, min(len(rows), int(rng.integers(1, 6))), len(rows))].reshape(queries.shape)
            form = attention.shared_form(layer.graph, op, "cortex-m4", 3.0)
            assert form.scratch_bytes > forms[0].scratch_bytes
            yield Case(replace(layer, inputs=(repeated, *others)), form)


@NEEDS_COMPILER
def test_equal_queries_are_computed_once(tmp_path: Path) -> None:
    """To the bytes of the interpreter, which knows nothing of it; queries that all differ among them."""
    cases = list(equal_queries(31, 40))
    assert len(cases) > 15
    right_cases(cases, 3, tmp_path, kinds="sanitized core")


def test_where_forms_do_not_apply() -> None:
    def forms_of(spec: str, templates: tuple, core: str = "cortex-m4", weights: str = "") -> list:  # type: ignore[type-arg]
        graph = named_layer(spec, WEIGHTS.get(weights)).graph
        return [form for template in templates for form in template.forms(graph, graph.ops[0], core)]

    products = (gemm, winograd)
    assert not any(forms_of(spec, products) for spec in ("conv1x1:4-3@4x4", "conv1x1:8-8@1x1", "depthwise3x3:8@4x4"))
    assert not forms_of("conv1x1:700-4@2x2", products, weights="highest")  # 127 * 128 * 700 > 2^23
    for spec, count in (("conv1x1:64-8@4x4", 2), ("conv1x1:68-8@4x4", 0)):  # 64 * 127 < 8192 <= 68 * 127
        assert len(forms_of(spec, (quads,), "cortex-m7", "highest")) == count


def test_bounds_of_transformed_weights_and_outputs() -> None:
    values = transformed(Tile(6, 5), WEIGHTS["either"]((3, 5, 5, 4)))
    assert abs(values).max() <= 31 * 31 * 127 and set(split_places(values)) <= {21, 22, 27, 28}
    assert largest_output(WEIGHTS["highest"]((1, 3, 3, 2))) == 255 * 127 * 18
