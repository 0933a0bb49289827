"""Flash foreseen: networks as wholes, with all kernels and with random things left out, against what the linker makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import NEEDS_COMPILER
from network_sweep import with_random_skips
from random_nets import int8_net

from tinyredux import nets
from tinyredux.boards import find_board
from tinyredux.codegen import code_sizes, compacted, emit_steps, limits, templates_of
from tinyredux.device import build_firmware
from tinyredux.frontends import export
from tinyredux.graph import Graph
from tinyredux.int8 import quantize
from tinyredux.kernels import OnBoard, choose

BOARDS = ("disco_f469ni", "nucleo_u575zi_q", "nucleo_f746zg")


def named(name: str) -> Graph:
    """A built-in network with random weights."""
    net = nets.resolve(name).eval()
    return quantize(export(net, name=name), np.random.default_rng(0).normal(size=(4, *net.input_shape)).astype(np.float32))


@NEEDS_COMPILER
@pytest.mark.parametrize(("which", "kernels", "board"), [
    ("lenet", "fast", 0), pytest.param("alexnet", "fast", 1, marks=pytest.mark.sweep), ("alexnet", "reference", 0),
    *[(str(seed), "reference" if seed % 2 else "fast", seed % 3) for seed in range(5)],
])  # fmt: skip
def test_the_flash_of_a_network_is_foreseen_within_one_per_cent(which: str, kernels: str, board: int, tmp_path: Path) -> None:
    place = find_board(BOARDS[board])
    graph = int8_net(int(which))[0] if which.isdigit() else with_random_skips(named(which), np.random.default_rng(board))
    graph = compacted(graph, unpack=True)
    choice = choose(graph, OnBoard(place), *limits(place, None, graph), templates_of(kernels, unpack=True))
    firmware = build_firmware(emit_steps(choice, "test").write(tmp_path / "model"), place)
    found = firmware.flash_bytes
    assert code_sizes.flash_bytes(choice, place) == pytest.approx(found, rel=0.01)
    assert code_sizes.sram_bytes(choice, place) == firmware.bss_bytes + firmware.data_bytes
