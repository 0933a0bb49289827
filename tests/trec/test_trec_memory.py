"""What a network with TREC may take beside its exact form, and what a user's network becomes: grouped, strided, uneven layers."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from tinyredux import nets
from tinyredux.codegen import KERNELS
from tinyredux.codegen.assemble import TREC_SHARE
from tinyredux.explore.bench import layer_graph, parse_spec
from tinyredux.graph import Dense, TrecConv
from tinyredux.measurement import load
from tinyredux.notebook.trec_report import BOARDS, NETS, RECORDS
from tinyredux.settings import Compiled, Settings, compile_net, measure_net
from tinyredux.train import finetune_trec
from tinyredux.trec import Choice, trec_sizes, with_trec
from tinyredux.trec.layer import convert

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


@cache
def exact_bytes(net: str) -> list[int]:
    """Returns the exact network's bytes with each kernel set."""
    return [compile_net(Settings(net, kernels=each, data="random")).plan.total_bytes for each in KERNELS]


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_layer_without_room_stays_exact_and_the_others_stay_trec(user: tuple[str, Path], kernels: str) -> None:
    """The means of 25 blocks are larger than a tenth of the network; nobody's limit but the user's own makes room for them."""
    net, table = user
    exact = exact_bytes(net)
    found = compile_net(Settings(net, "trec", kernels=kernels, data="random", trec=table))
    assert found.plan.total_bytes <= TREC_SHARE * min(exact)
    assert 64 in trec_layers(found) and len(trec_layers(found)) < len(TABLE)
    if kernels == "reference":
        roomy = compile_net(Settings(net, "trec", kernels=kernels, data="random", trec=table, sram=200_000))
        assert trec_layers(roomy) == [length for length, _ in TABLE.values()] and roomy.plan.total_bytes > TREC_SHARE * min(exact)


def test_a_users_network_is_bit_exact(user: tuple[str, Path]) -> None:
    net, table = user
    record = measure_net(Settings(net, "trec", target="host", data="random", trec=table, images=1, sram=200_000))
    assert record.bit_exact and any(op.kind == "TrecConv" for op in record.per_op)


def test_a_users_trained_weights_stay_where_trec_loses(
    user: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hash of eight bits in one layer of one pixel's channels costs more than it saves; the factory's weights are no others."""
    monkeypatch.setenv("TINYREDUX_CACHE", str(tmp_path))
    net = nets.resolve(user[0])
    convert(net, finetune_trec.from_json({"9": {"sub_length": 64, "hash_bits": 8}}))
    trained = {key: value + 0.01 for key, value in net.state_dict().items()}
    (tmp_path / "weights").mkdir()
    file = tmp_path / "weights" / f"{nets.own_name(user[0])}.trec.random.safetensors"
    save_file(trained, file)
    file.with_suffix(".json").write_text(json.dumps({"table": {"9": {"sub_length": 64, "hash_bits": 8}}}))
    found = compile_net(Settings(user[0], "trec", data="random"))
    assert trec_layers(found) == []
    dense = next(op for op in found.graph.ops if isinstance(op, Dense))
    np.testing.assert_allclose(found.graph.constants[dense.bias], trained["13.bias"].numpy(), rtol=1e-6)


def test_measured_networks_with_trec_take_a_tenth_more_at_most() -> None:
    """Arena and scratch of the records, with either kernels, against the exact network by whichever kernels take less."""
    seen = 0
    for net in NETS:
        for board in BOARDS:
            paths = {(method, kernels): RECORDS / f"{net}.{method}.{kernels}.{board}.simulator.cifar10.json"
                     for method in ("exact", "trec") for kernels in KERNELS}  # fmt: skip
            bytes_of = {key: load(path).planned_bytes
                        for key, path in paths.items() if path.is_file()}  # fmt: skip
            exact = min((size for (method, _), size in bytes_of.items() if method == "exact"), default=0)
            for (method, kernels), size in bytes_of.items():
                if method == "trec":
                    seen += 1
                    assert size <= TREC_SHARE * exact, f"{net} on {board} with {kernels} kernels: {size} bytes, exact {exact}"
    assert seen >= 14


def test_bytes_of_both_forms_are_those_that_c_writes(tmp_path: Path) -> None:
    """Of every layer in the committed tables by the record, of one more by running it. The last byte planned is written."""
    record = json.loads((RECORDS / "trec_memory.json").read_text())
    committed = {(net, path) for net in NETS for path in finetune_trec.table_for(net, nets.resolve(net))}
    assert {(line["net"], line["layer"]) for line in record["layers"]} == committed
    for line in record["layers"]:
        for form, bytes_ in line["computed"].items():
            assert line[form]["planned"] == line[form]["high_water"] == bytes_ and line[form]["written"] > 0.97 * bytes_
        assert line["naive"]["high_water"] >= 2 * line["ours"]["high_water"]
        assert line["naive"]["high_water"] >= 2 * line["generated"]["high_water"]
    spec = importlib.util.spec_from_file_location("trec_memory", RECORDS.parents[1] / "tools" / "trec_memory.py")
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    graph = with_trec(layer_graph(parse_spec("conv3x3:8-16@6x6")), {"layer": Choice(24, 3)})
    sizes = trec_sizes(graph, graph.ops[0])  # type: ignore[arg-type]
    for kernels, bytes_ in (("naive", sizes.naive_bytes), ("reference", sizes.scratch_bytes)):
        assert tool.measured(graph, kernels, tmp_path)["high_water"] == bytes_
