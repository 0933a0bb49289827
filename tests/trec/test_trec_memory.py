"""What a network with TREC may take beside its exact form, and what a user's network becomes: grouped, strided, uneven layers."""

from __future__ import annotations

import json
import runpy
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import user_nets
from random_nets import int8_sequence
from safetensors.torch import save_file
from torch import nn

import tinyredux as tr
from tinyredux import nets
from tinyredux.codegen import KERNELS
from tinyredux.codegen.assemble import TREC_SHARE
from tinyredux.explore.bench import layer_graph, parse_spec
from tinyredux.graph import Dense, Graph, TrecConv
from tinyredux.measurement import load
from tinyredux.methods.layerwise import Layerwise
from tinyredux.notebook.trec_report import BOARDS, NETS, RECORDS
from tinyredux.settings import Settings, compile_net
from tinyredux.train import finetune_trec
from tinyredux.trec import Choice, trec_sizes, with_trec
from tinyredux.trec.layer import convert

TABLE = {"conv2": Choice(64, 5), "conv3": Choice(64, 4), "conv5": Choice(50, 3)}


@cache
def network() -> Graph:
    """A user's: blocks of one tap of 25, groups, a stride, blocks of 50 that leave 26 of 576 columns."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 64, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(64, 64, 5), nn.ReLU(), nn.Conv2d(64, 128, 1), nn.ReLU(),
        nn.Conv2d(128, 64, 3, padding=1, groups=2), nn.ReLU(), nn.Conv2d(64, 52, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(52, 10),
    )  # fmt: skip
    return int8_sequence((3, 32, 32), *layers)


@cache
def compiled(kernels: str, table: bool = True, sram: int | None = None) -> tr.Model:
    passes = [tr.Trec(TABLE, kernels=kernels, sram=sram)] if table else []
    return tr.compile(network(), kernels=kernels, passes=passes, schedule=Layerwise(sram))


def trec_layers(graph: Graph) -> list[int]:
    """Returns the columns in a block of each TREC layer."""
    return [op.sub_length for op in graph.ops if isinstance(op, TrecConv)]


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_layer_without_room_stays_exact_and_the_others_stay_trec(kernels: str) -> None:
    """The means of 25 blocks are larger than a tenth of the network; nobody's limit but the user's own makes room for them."""
    most = TREC_SHARE * min(compiled(each, table=False).plan.total_bytes for each in KERNELS)
    found = compiled(kernels)
    assert found.plan.total_bytes <= most and 0 < len(trec_layers(found.graph)) < len(TABLE) and 64 in trec_layers(found.graph)


def test_with_room_all_layers_are_trec_and_bit_exact() -> None:
    most = TREC_SHARE * min(compiled(each, table=False).plan.total_bytes for each in KERNELS)
    roomy = compiled("reference", sram=200_000)
    assert trec_layers(roomy.graph) == [choice.sub_length for choice in TABLE.values()] and roomy.plan.total_bytes > most
    for model in (roomy, compiled("fast", sram=200_000)):
        record = tr.measure(model, np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32), target="host")
        assert record.bit_exact and any(op.kind == "TrecConv" for op in record.per_op)


def test_a_users_trained_weights_stay_where_trec_loses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash of eight bits in one narrow layer costs more than it saves; the factory's weights are no others."""
    monkeypatch.setenv("TINYREDUX_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    user, table = f"{user_nets.__file__}:tiny", {"0": {"sub_length": 27, "hash_bits": 8}}
    net = nets.resolve(user)
    convert(net, finetune_trec.from_json(table))
    trained = {key: value + 0.01 * value.is_floating_point() for key, value in net.state_dict().items()}
    file = tmp_path / "weights" / f"{nets.own_name(user)}.trec.random.safetensors"
    save_file(trained, file)
    file.with_suffix(".json").write_text(json.dumps({"table": table}))
    found = compile_net(Settings(user, "trec", data="random"))
    assert trec_layers(found.int8) == []
    dense = next(op for op in found.graph.ops if isinstance(op, Dense))
    np.testing.assert_allclose(found.graph.constants[dense.bias], trained["7.bias"].numpy(), rtol=1e-6)


def test_measured_networks_with_trec_take_a_tenth_more_at_most() -> None:
    """Arena and scratch of the records, with either kernels, against the exact network by whichever kernels take less."""
    seen = 0
    for net, board in product(NETS, BOARDS):
        paths = {(method, kernels): RECORDS / f"{net}.{method}.{kernels}.{board}.simulator.cifar10.json"
                 for method in ("exact", "trec") for kernels in KERNELS}  # fmt: skip
        bytes_of = {key: load(path).planned_bytes for key, path in paths.items() if path.is_file()}
        exact = min((size for (method, _), size in bytes_of.items() if method == "exact"), default=0)
        sizes = [size for (method, _), size in bytes_of.items() if method == "trec"]
        seen += len(sizes)
        assert all(size <= TREC_SHARE * exact for size in sizes), f"{net} on {board}: {sizes} bytes, exact {exact}"
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
    measured = runpy.run_path(str(RECORDS.parents[1] / "tools" / "trec_memory.py"))["measured"]
    graph = with_trec(layer_graph(parse_spec("conv3x3:8-16@6x6")), {"layer": Choice(24, 3)})
    sizes = trec_sizes(graph, graph.ops[0])  # type: ignore[arg-type]
    for kernels, bytes_ in (("naive", sizes.naive_bytes), ("reference", sizes.scratch_bytes)):
        assert measured(graph, kernels, tmp_path)["high_water"] == bytes_
