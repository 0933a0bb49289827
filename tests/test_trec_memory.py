"""What a network with TREC may take beside its exact form, and what a user's network becomes: grouped, strided, uneven layers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tinyredux.flow import Compiled, Settings, compile_net, measure
from tinyredux.graph import TrecConv
from tinyredux.kernels import KERNELS, TREC_SHARE
from tinyredux.measure import load
from tinyredux.trec_report import BOARDS, NETS, RECORDS

NETWORK = """
import torch
from torch import nn


def make():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 64, 5), nn.ReLU(), nn.MaxPool2d(2),  # 14x14
        nn.Conv2d(64, 64, 5), nn.ReLU(),  # 3: 10x10, 25 blocks of a tap
        nn.Conv2d(64, 128, 1), nn.ReLU(),  # 5
        nn.Conv2d(128, 64, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(64, 52, 3, stride=2, padding=1), nn.ReLU(),  # 9: 5x5, blocks of 50 leave 26 of 576 columns
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(52, 10),
    )
    net.input_shape = (3, 32, 32)
    return net
"""
TABLE = {"3": (64, 5), "5": (64, 4), "9": (50, 3)}


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("user")
    (folder / "mine.py").write_text(NETWORK)
    table = folder / "table.json"
    table.write_text(json.dumps({path: {"sub_length": length, "hash_bits": bits} for path, (length, bits) in TABLE.items()}))
    return f"{folder / 'mine.py'}:make", table


def trec_layers(compiled: Compiled) -> list[int]:
    """Returns the columns in a block of each TREC layer."""
    return [op.sub_length for op in compiled.int8.ops if isinstance(op, TrecConv)]


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_layer_without_room_stays_exact_and_the_others_stay_trec(user: tuple[str, Path], kernels: str) -> None:
    """The means of 25 blocks are larger than a tenth of the network; nobody's limit but the user's own makes room for them."""
    net, table = user
    exact = [compile_net(Settings(net, kernels=each, data="random")).plan.total_bytes for each in KERNELS]
    found = compile_net(Settings(net, "trec", kernels=kernels, data="random", trec=table))
    assert found.plan.total_bytes <= TREC_SHARE * min(exact)
    assert 64 in trec_layers(found) and len(trec_layers(found)) < len(TABLE)
    if kernels == "reference":
        roomy = compile_net(Settings(net, "trec", kernels=kernels, data="random", trec=table, sram=200_000))
        assert trec_layers(roomy) == [length for length, _ in TABLE.values()] and roomy.plan.total_bytes > TREC_SHARE * min(exact)


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_users_network_is_bit_exact(user: tuple[str, Path], kernels: str) -> None:
    net, table = user
    record = measure(Settings(net, "trec", target="host", kernels=kernels, data="random", trec=table, images=2, sram=200_000))
    assert record.bit_exact and any(op.kind == "TrecConv" for op in record.per_op)


def test_measured_networks_with_trec_take_a_tenth_more_at_most() -> None:
    """Arena and scratch of the records, with either kernels, against the exact network by whichever kernels take less."""
    seen = 0
    for net in NETS:
        for board in BOARDS:
            paths = {(method, kernels): RECORDS / f"{net}.{method}.{kernels}.{board}.simulator.cifar10.json"
                     for method in ("exact", "trec") for kernels in KERNELS}  # fmt: skip
            bytes_of = {key: sum(load(path).sram_bytes[part] or 0 for part in ("arena", "scratch"))
                        for key, path in paths.items() if path.is_file()}  # fmt: skip
            exact = min((size for (method, _), size in bytes_of.items() if method == "exact"), default=0)
            for (method, kernels), size in bytes_of.items():
                if method == "trec":
                    seen += 1
                    assert size <= TREC_SHARE * exact, f"{net} on {board} with {kernels} kernels: {size} bytes, exact {exact}"
    assert seen >= 14
