"""Fast convolutions: every form of named layers against the interpreter, extreme weights and inputs, and their speed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fast_tools import host_library, pointer
from form_cases import HostForms, cases_of
from strategies import Layer

from tinyredux.boards import find_board
from tinyredux.explore.bench import bench_layer, layer_graph, parse_spec
from tinyredux.graph import Graph
from tinyredux.kernels import gemm, quads, winograd
from tinyredux.kernels.winograd.tile import Tile, largest_output, split_places, transformed

NEEDS_COMPILER = pytest.mark.skipif(shutil.which("arm-none-eabi-gcc") is None, reason="arm-none-eabi-gcc is missing")
LAYERS = (
    "conv1x1:64-64@4x4",
    "conv1x1:7-5@3x3",  # neither channels nor pixels fit the blocks
    "conv1x1s2:16-6@5x5",
    "conv3x3:5-9@7x5",
    "conv5x5s2:3-4@9x9",
    "conv3x3:13-21@2x3",  # columns of an odd number of words
    "conv3x3:32-8@8x8",
    "conv3x3:8-5@7x5",  # tiles over both edges
    "conv2x2:4-3@5x5",
    "conv4x4:4-2@5x5",
    "conv1x1:300-4@2x1",
    "conv1x1:20-6@7x5",  # quads: strips and groups that overlap, padded rounds
    "conv1x1:140-9@3x2",
)
EXTREME = ("conv5x5:12-6@9x8", "conv3x3:12-6@5x8", "conv1x1:24-7@3x3", "conv1x1:64-8@3x4")
WEIGHTS: dict[str, Callable[[tuple[int, ...]], np.ndarray]] = {
    "highest": lambda shape: np.full(shape, 127),
    "lowest": lambda shape: np.full(shape, -127),
    "either": lambda shape: np.random.default_rng(5).choice([-127, 127], shape),
}


def with_weights(graph: Graph, kind: str) -> Graph:
    weights = WEIGHTS[kind](graph.constants["weights"].shape).astype(np.int8)
    return replace(graph, constants={**graph.constants, "weights": weights})


def inputs_of(graph: Graph) -> list[np.ndarray]:
    """Returns random values, both extremes in turn, and random extremes."""
    rng = np.random.default_rng(1)
    turns = np.where(np.indices(graph.input.shape).sum(axis=0) % 2, 127, -128)
    return [
        each.astype(np.int8) for each in (rng.integers(-128, 128, graph.input.shape), turns, rng.choice([-128, 127], turns.shape))
    ]


def test_every_form_equals_the_interpreter(tmp_path: Path) -> None:
    graphs = [layer_graph(parse_spec(spec)) for spec in LAYERS]
    graphs += [with_weights(layer_graph(parse_spec(spec)), kind) for spec in EXTREME for kind in WEIGHTS]
    first = {id(graph): values for graph in graphs for values in inputs_of(graph)[:1]}
    cases = cases_of([Layer(graph, (first[id(graph)],)) for graph in graphs], "cortex-m4")
    cases = [case for case in cases if case.form.name.startswith(("gemm", "quads", "winograd"))]
    assert {case.form.name.rsplit("_", 1)[0] for case in cases} == {"gemm_pointwise", "gemm_columns", "quads", "winograd"}
    forms = HostForms(cases, tmp_path)
    for i, case in enumerate(cases):
        for values in inputs_of(case.layer.graph):
            layer = replace(case.layer, inputs=(values,))
            written = forms.run(i, replace(case, layer=layer))
            np.testing.assert_array_equal(written, layer.expected(), err_msg=f"{case.form.name}: {layer.graph}")
    assert forms.close() == ""


@NEEDS_COMPILER
@pytest.mark.parametrize(
    ("spec", "board", "bound"),
    [
        ("conv1x1:64-64@16x16", "disco_f469ni", 1.25), ("conv3x3:32-32@16x16", "disco_f469ni", 0.50),
        ("conv5x5:32-64@8x8", "disco_f469ni", 0.70), ("conv1x1:64-64@16x16", "nucleo_f746zg", 0.528),
    ],
)  # fmt: skip
def test_cycles_on_the_simulated_board(spec: str, board: str, bound: float) -> None:
    time = bench_layer(spec, find_board(board), "fast")
    assert time.per_mac is not None and time.per_mac <= bound


def forms_of(graph: Graph) -> list:
    return [*gemm.forms(graph, graph.ops[0], "cortex-m4"), *winograd.forms(graph, graph.ops[0], "cortex-m4")]


def test_where_forms_do_not_apply() -> None:
    for spec in ("conv1x1:4-3@4x4", "conv1x1:8-8@1x1", "depthwise3x3:8@4x4"):
        assert not forms_of(layer_graph(parse_spec(spec)))
    assert not forms_of(with_weights(layer_graph(parse_spec("conv1x1:700-4@2x2")), "highest"))  # 127 * 128 * 700 > 2^23


def test_quads_need_room_in_their_fields() -> None:
    for spec, kind, count in (("conv1x1:64-8@4x4", "highest", 2), ("conv1x1:68-8@4x4", "highest", 0)):
        graph = with_weights(layer_graph(parse_spec(spec)), kind)
        assert len(quads.forms(graph, graph.ops[0], "cortex-m7")) == count  # 64 * 127 < 8192 <= 68 * 127


def test_bounds_of_transformed_weights_and_outputs() -> None:
    values = transformed(Tile(6, 5), WEIGHTS["either"]((3, 5, 5, 4)))
    assert abs(values).max() <= 31 * 31 * 127 and set(split_places(values)) <= {21, 22, 27, 28}
    assert largest_output(WEIGHTS["highest"]((1, 3, 3, 2))) == 255 * 127 * 18


@pytest.mark.parametrize(("rows", "k", "channels"), [(6, 32, 12), (4, 70, 5), (2, 3, 4)])
def test_products_as_sums(rows: int, k: int, channels: int, tmp_path: Path) -> None:
    """int8 rows times a matrix into int32 sums, as centroids need it."""
    rng = np.random.default_rng(k)
    shape = gemm.Shape(k, channels)
    values, weights = rng.integers(-128, 128, (rows, 4 * shape.fours)), rng.integers(-127, 128, (channels, k))
    start = rng.integers(-(2**16), 2**16, channels)
    groups = gemm.data(shape, weights, start, np.zeros((channels, 2), np.int32))
    product = gemm.product_function(shape, 2, None)
    library = host_library(tmp_path, [gemm.widen_function(shape), product])
    source, columns = values.astype(np.int8), np.zeros((rows, shape.row_words), np.int32)
    for row in range(0, rows, 2):
        library.tr_widen_rows(pointer(columns[row:]), pointer(source[row]), pointer(source[row + 1]), shape.fours)
    sums = np.zeros((rows, channels), np.int32)
    for group in range(shape.groups):
        out = sums[:, min(4 * group, channels - 4) :]
        getattr(library, product.name)(pointer(out), pointer(columns), pointer(groups[group]), rows // 2)
    assert np.array_equal(sums, values[:, :k] @ weights.T + start)
