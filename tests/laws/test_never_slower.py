"""Fast kernels are never slower than reference kernels: operators of odd shapes, timed with both in the simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import BOARDS, NEEDS_COMPILER
from random_graphs import PLAIN, random_graph

from tinyredux.boards import find_board
from tinyredux.codegen import assemble
from tinyredux.device import build_firmware
from tinyredux.device.simulated import SimulatorTarget
from tinyredux.explore.bench import bench_layer
from tinyredux.graph import Conv, DepthwiseConv, Graph, Pair, Quant, Tensor, total_macs
from tinyredux.int8 import interpret

pytestmark = NEEDS_COMPILER
SEEDS = (1, 4, 7)  # 1 and 7 have pointwise layers that the cost model once got wrong
LAYERS = (
    "conv3x3s2:3-20@19x17", "conv1x1:30-11@13x9", "conv5x1:9-2@14x3", "depthwise5x5s2:9@15x14", "max2x2:7@9x9", "dense:5-33",
)  # fmt: skip


def cycles(graph: Graph, kernels: str, board_name: str, folder: Path) -> tuple[list[str], list[int]]:
    """Returns the form and the cycles of each operator, flash stalls included; its output has the interpreter's bytes."""
    board = find_board(board_name)
    _, artifact = assemble(graph, "test_never_slower", kernels, board)
    firmware = build_firmware(artifact.write(folder / artifact.model_hash), board)
    target = SimulatorTarget(firmware.elf, board, artifact.model_hash, graph.joined_shape)
    image = np.random.default_rng(1).integers(-128, 128, graph.input.shape).astype(np.int8)
    run = target.measure(image)
    assert np.array_equal(run.output, interpret.run_joined(graph, image[None])[0]) and run.cycles_per_op is not None
    return [op.get("form", "reference") for op in artifact.manifest["ops"]], list(run.cycles_per_op)


@pytest.mark.parametrize(("seed", "board"), list(zip(SEEDS, BOARDS.values(), strict=True)))
def test_operators_of_random_networks(seed: int, board: str, tmp_path: Path) -> None:
    """Operators that keep their reference kernel are the same code; theirs differ only by what a cache holds when they begin."""
    graph = random_graph(seed, 14, PLAIN)
    _, plain = cycles(graph, "reference", board, tmp_path)
    forms, fast = cycles(graph, "fast", board, tmp_path)
    for op, form, there, here in zip(graph.ops, forms, plain, fast, strict=True):
        assert form == "reference" or here <= there, f"{op} takes {here} by {form}, {there} by reference"
    assert any(form != "reference" for form in forms)


def dilated(dilation: Pair) -> Graph:
    """Two convolutions and a depthwise one in a row, padded so that all maps have one size."""
    rng, quant, sides = np.random.default_rng(0), Quant((0.05,), -3), tuple(side for step in dilation for side in (step, step))
    shapes = {"a": (8, 3, 3, 4), "b": (8, 3, 3, 8), "c": (3, 3, 8)}
    constants = {name: rng.integers(-127, 128, shape).astype(np.int8) for name, shape in shapes.items()}
    constants["bias"] = rng.integers(-2000, 2000, 8).astype(np.int32)
    window: dict[str, Any] = {"weight_scale": (0.002,) * 8, "kernel": (3, 3), "padding": sides, "dilation": dilation}
    ops = tuple(
        kind(name, (source,), name, weights=name, bias="bias", **window)
        for kind, name, source in ((Conv, "a", "in"), (Conv, "b", "a"), (DepthwiseConv, "c", "b"))
    )
    tensors = {name: Tensor(name, (14, 13, 4 if name == "in" else 8), "int8", quant) for name in ("in", "a", "b", "c")}
    return Graph("dilated", ops, tensors, constants, ("in",), ("c",))


@pytest.mark.parametrize(("dilation", "board"), [((2, 2), BOARDS["cortex-m4"]), ((4, 1), BOARDS["cortex-m33"])])
def test_windows_with_holes_cost_about_what_they_do_without(dilation: Pair, board: str, tmp_path: Path) -> None:
    """Products, weights and, by the C kernel, cycles are those of the undilated layers; generated kernels are faster still."""
    holes, none = dilated(dilation), dilated((1, 1))
    assert total_macs(holes) == total_macs(none)
    _, near = cycles(none, "reference", board, tmp_path)
    _, plain = cycles(holes, "reference", board, tmp_path)
    forms, fast = cycles(holes, "fast", board, tmp_path)
    assert all(there <= 1.3 * here for here, there in zip(near, plain, strict=True)), (near, plain)
    assert all(form.endswith("_phases") for form in forms)
    assert all(here <= there for here, there in zip(fast, plain, strict=True)), (fast, plain)


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "board"), list(zip(LAYERS, [*BOARDS.values()] * 2, strict=True)))
def test_layers_of_odd_shapes(layer: str, board: str) -> None:
    fast, plain = (bench_layer(layer, find_board(board), kernels) for kernels in ("fast", "reference"))
    assert fast.core_cycles + fast.memory_cycles <= plain.core_cycles + plain.memory_cycles
