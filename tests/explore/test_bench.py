"""The bench, and the bar that the reference kernels keep: at most 10 % above CMSIS-NN, layer by layer."""

from __future__ import annotations

import pytest
from compiled import NEEDS_COMPILER

from tinyredux.boards import find_board
from tinyredux.explore.bench import LAYERS, LayerSpec, bench_layer, layer_graph, parse_spec
from tinyredux.explore.bench_record import BOARDS, CMSIS_NN, layer_table
from tinyredux.graph import TrecConv, macs
from tinyredux.notebook.show import recorded

F469 = find_board("disco_f469ni")
MARGIN = 1.10


@NEEDS_COMPILER
@pytest.mark.parametrize("layer", LAYERS)
def test_reference_kernels_are_as_fast_as_cmsis_nn(layer: str) -> None:
    time = bench_layer(layer, F469, "reference")
    cycles = time.per_mac if time.macs else time.per_output
    assert cycles is not None and cycles <= MARGIN * CMSIS_NN[layer][0]
    assert time.memory_cycles > 0 and time.instructions < time.core_cycles
    assert time.bound_per_mac is None or 0.5 <= time.bound_per_mac <= cycles, "SMLAD makes two products in a cycle"


def test_unknown_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="kernels is 'warp', expected one of fast, reference"):
        bench_layer(LAYERS[0], F469, kernels="warp")


def test_a_spec_names_a_layer() -> None:
    assert parse_spec("conv3x5s2:3-32@16x12") == LayerSpec("conv", 3, 32, (16, 12), (3, 5), 2)
    assert parse_spec("depthwise3x3:64@16x16") == LayerSpec("depthwise", 64, 64, (16, 16), (3, 3), 1)
    assert parse_spec("conv3x3:8-16@4x4/L72H3") == LayerSpec("conv", 8, 16, (4, 4), (3, 3), 1, 72, 3)
    assert isinstance(layer_graph(parse_spec("conv3x3:8-16@4x4/L0H3")).ops[0], TrecConv)
    graph = layer_graph(parse_spec("conv5x5s2:3-8@9x9"))
    assert graph.output.shape == (5, 5, 8) and macs(graph, graph.ops[0]) == 25 * 8 * 75


WRONG = ("conv", "lstm:3-4@8x8", "conv:3-32@8x8", "conv3x3:32@8x8", "conv3x3:3-32", "dense3x3:8-4", "add:32-32@8x8")
WRONG += ("dense:8-4@2x2", "denses2:8-4", "relus2:8@8x8", "dense:8-4/L8H2")


@pytest.mark.parametrize(("text", "message"), [
    *((text, "is not understood; layers look like conv3x3") for text in WRONG), ("conv3x3s0:3-32@8x8", "sizes are 1 or more"),
    ("conv3x3:3-32@8x8/L8H0", "sizes are 1 or more"),
    ("conv3x3:8-8@99999x99999", "have 79,998,400,008 values, expected at most 2,097,152"),
    ("dense:99999-99999", "have 9,999,800,001 values"),
])  # fmt: skip
def test_a_wrong_spec_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_spec(text)


def test_the_record_of_layers_keeps_the_bars() -> None:
    """Against CMSIS-NN on an M4 and an M7, within 13 KiB of scratch, and never slower than the reference kernels."""
    rows = layer_table(recorded("layers"))
    assert [row["layer"] for row in rows] == list(LAYERS)
    for row in rows:
        for board in BOARDS if row["per"] == "MAC" else ():
            assert 0 < row[f"{board}_bound"] <= row[f"{board}_fast"], "an inner loop alone takes no longer than the layer"
        assert all(row[f"{board}_fast"] < row[f"{board}_reference"] for board in ("F469", "F746", "U575")), row
        assert all(row[f"{board}_scratch"] <= 13 * 1024 for board in ("F469", "F746", "U575")), row
        assert row["F469_times"] >= 1.5 and (row["F746_times"] >= 2.5 or "conv" not in row["layer"]), row
