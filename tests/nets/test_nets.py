"""Networks by name and by path, their weights and their records."""

from __future__ import annotations

import hashlib
import runpy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import user_nets

from tinyredux import datasets, memory, nets, train
from tinyredux.cli.verbs.network import described_nets
from tinyredux.frontends import export
from tinyredux.graph import Graph, total_macs
from tinyredux.int8 import evaluator, quantize
from tinyredux.memory import live_steps
from tinyredux.nets import user
from tinyredux.partial import plan_partial
from tinyredux.train import finetune_trec, pretrained, skip_search
from tinyredux.train.channels import channels_of

SHAPES = {  # others: CIFAR-10
    "mobilenetv2": ((3, 144, 144), 1000), "vww": ((3, 80, 80), 2), "lenet_100": ((3, 100, 100), 10),
    **dict.fromkeys(("ds_cnn", "ds_cnn_wide", "keyword_cnn", "keyword_transformer"), ((1, 49, 10), 12)),
}  # fmt: skip
WIDEST = {"mobilenetv2": 194_400, "vww": 96_000, "cifarnet": 62_720, "lenet": 36_000}  # bytes of the widest layer, as published
SOURCES = {  # millions of products and weights of convolutions, from the TREC artifact and the CMSIS-NN paper
    "cifarnet": (14.7, 107_200), "squeezenet": (52.5, 726_048), "squeezenet_bypass": (83.0, 726_048 + 339_968),
    "cifarnet_quick": (12.3, 3 * 32 * 25 + 32 * 32 * 25 + 32 * 64 * 25),
}  # fmt: skip
TARGETS = {  # int8, percent of CIFAR-10's 10,000 test images
    "cct": 82, "cifarnet": 83, "cifarnet_quick": 79, "squeezenet": 88, "squeezenet_bypass": 88, "zfnet": 85, "lenet": 72,
    "alexnet": 75,
}  # fmt: skip
TREC_LOSES = 0.025  # at most, of the test images, against the exact network
RECORDS = {Path(record.file).stem: record for record in pretrained.records()}


@cache
def exported(name: str) -> tuple[nets.Net, Graph]:
    net = nets.resolve(name)
    return net, export(net, name=name)


@pytest.mark.parametrize("name", nets.NETS)
def test_shapes_and_macs(name: str) -> None:
    """Input, logits, the widest layer's bytes and the products are those that the source states."""
    net, graph = exported(name)
    assert (net.input_shape, graph.output.elements) == SHAPES.get(name, ((3, 32, 32), 10))
    if name in WIDEST:
        assert max(step.live_bytes for step in live_steps(graph)) == 4 * WIDEST[name]  # float
    if name in SOURCES:
        convolutions = sum(part.weight.numel() for part in net.modules() if isinstance(part, torch.nn.Conv2d))
        assert (round(total_macs(graph) / 1e6, 1), convolutions) == SOURCES[name]


def test_the_table_of_sizes_is_that_of_the_networks() -> None:
    """net_sizes.json, which `nets` prints without torch, has every network with the sizes that export finds."""
    entries = {entry["name"]: entry for entry in described_nets()}
    assert list(entries) == nets.names()
    for name, entry in entries.items():
        graph = exported(name)[1]
        height, width, channels = graph.input.shape
        found = ([channels, height, width], total_macs(graph), sum(int(values.size) for values in graph.constants.values()))
        assert found == (entry["input_shape"], entry["macs"], entry["parameters"]), name


OWN = user_nets.__file__


def test_a_network_of_the_users() -> None:
    """A factory's module is taken with the weights that it holds, on data of its own shape."""
    data, net = nets.with_data(f"{OWN}:make")
    assert data.name == "random" and data.test.images.shape[1:] == (3, 7, 7) and not net.training
    assert nets.short_name(f"{OWN}:make") == "make" and nets.short_name("lenet") == "lenet"


def test_a_user_s_network_is_not_taken_for_a_built_in_of_its_name() -> None:
    """Nor for that of another file: neither weights nor tables nor records of skipping."""
    name, other = f"{OWN}:cifarnet", "other.py:cifarnet"
    assert nets.weights_file("cifarnet", "cifar10", "trec") is not None
    assert nets.weights_file(name, "cifar10", "trec") is None and nets.weights_file(name, "cifar10") is None
    assert nets.own_name("cifarnet") == "cifarnet" and len({nets.own_name(one) for one in ("cifarnet", name, other)}) == 3
    with pytest.raises(ValueError, match="no record of what"):
        skip_search.record_for(f"{OWN}:lenet", "cifar10")


def test_random_images_do_without_trained_weights() -> None:
    """A network without weights is the same every time, on random images alone."""
    data, net = nets.with_data("vww")
    again = nets.load_net("vww", "random")
    assert data.name == "random" and all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    with pytest.raises(datasets.MissingDataError, match="or use `--data random` for memory and time"):
        nets.load_net("mobilenetv2_cifar", "cifar10")


def test_weights_that_are_missing_or_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says which command makes them."""
    monkeypatch.setattr(user, "WEIGHTS_FOLDER", tmp_path)
    monkeypatch.setenv("TINYREDUX_CACHE", str(tmp_path))
    with pytest.raises(datasets.MissingDataError, match="tinyredux train lenet --data cifar10"):
        nets.load_net("lenet")
    (tmp_path / "lenet.cifar10.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(ValueError, match=r"lenet\.cifar10\.safetensors does not fit"):
        nets.load_net("lenet")


@pytest.mark.parametrize("key", RECORDS)
def test_records_belong_to_their_files(key: str) -> None:
    """Checksum and parameters of the file, accuracy targets, at most half a point lost in int8; of a pruned network the
    peaks before and after."""
    record = RECORDS[key]
    path = nets.WEIGHTS_FOLDER / record.file
    assert path.stem == key and hashlib.sha256(path.read_bytes()).hexdigest() == record.sha256
    net = finetune_trec.load_trec(record.net, record.data) if record.table else nets.load_net(record.net, record.data)
    assert sum(values.numel() for values in net.parameters()) == record.parameters
    assert record.correct_float - record.correct_int8 <= 0.005 * record.images
    if record.pruning:
        assert plan_partial(channels_of(net).graph).peak_bytes <= record.pruning["peak_bytes"] <= record.pruning["budget_bytes"]
        base = memory.plan(channels_of(nets.resolve(record.pruning["base"])).graph).total_bytes
        assert base == record.pruning["layerwise_bytes"]
    elif record.table:
        lost = RECORDS[f"{record.net}.{record.data}"].correct_int8 - record.correct_int8
        assert lost <= TREC_LOSES * record.images
    elif record.skipping:
        assert record.correct_int8 >= RECORDS[f"{record.net}.{record.data}"].correct_int8
    elif record.data == "cifar10":
        assert record.images == 10_000 and record.correct_int8 >= 100 * TARGETS[record.net]
    else:
        assert record.correct_int8 >= 0.8 * record.images


def test_the_card_is_written_from_the_records() -> None:
    """The model card of the committed weights is what tools/model_card.py makes."""
    card = runpy.run_path(str(Path(__file__).parents[2] / "tools" / "model_card.py"))["card"]
    assert (nets.WEIGHTS_FOLDER / "README.md").read_text() == card(pretrained.records())


@pytest.mark.skipif("lenet.synthetic" not in RECORDS, reason="no synthetic weights of lenet")
def test_the_record_of_lenet_on_the_synthetic_set_is_true() -> None:
    """Float and int8 counts come out again; float to within rounding, for torch's sums depend on the processor."""
    record, (data, net) = RECORDS["lenet.synthetic"], nets.with_data("lenet", "synthetic")
    right = evaluator.correct(quantize(export(net), datasets.calibration(data)), data.test)
    assert right == record.correct_int8 and abs(train.correct(net, data.test) - record.correct_float) <= 1


def test_int8_answers_need_labels_of_the_networks_classes() -> None:
    """Without labels, or with a label beyond the outputs, nothing is counted."""
    torch.manual_seed(0)
    net = nets.Net(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()), (1, 4, 4))
    images = datasets.load("random", (1, 4, 4)).test.first(20)
    graph = quantize(export(net), images.images)
    for split, words in ((images, "no labels"), (
        datasets.Split(images.images, np.full(20, 2)), "reach 2, the network has 2 outputs",
    )):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            evaluator.correct(graph, split)
    assert sum(evaluator.correct(graph, datasets.Split(images.images, np.full(20, label))) for label in (0, 1)) == 20
