"""Pruning: what goes together, a smaller network equal to the masked one, cuts at the peak, resumable, recorded."""

from __future__ import annotations

import copy
import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_nets import RandomNet, images_for
from torch import nn

from tinyredux import datasets, nets, train
from tinyredux.cli import app as cli
from tinyredux.datasets import sets
from tinyredux.explore.plans import int8_graph
from tinyredux.frontends import export
from tinyredux.int8 import quantize
from tinyredux.partial import plan_partial
from tinyredux.train import pretrained, prune
from tinyredux.train.channels import Channels, channels_of, cut, without

PRUNING = prune.Pruning(4500, steps=3, batches=3, tune=replace(prune.TUNE, epochs=2, batch=32))


def exact(net: RandomNet) -> RandomNet:
    """Returns a network with whole numbers for weights in float64: sums are exact in every order, but behind averages."""
    for layer in net.layers:
        layer.double()
        for parameter in layer.parameters():
            parameter.data = (4 * parameter.data).round()
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps, layer.running_var, layer.running_mean = 0.0, torch.ones_like(layer.running_var), layer.running_mean.round()
    return net


def some_labels(found: Channels, seed: int) -> frozenset[int]:
    """Returns about half of the labels that can go, leaving a channel in every tensor."""
    chance, gone = np.random.default_rng(seed), frozenset[int]()
    for label in chance.permutation(found.count).tolist():
        if label in found.fixed or not found.footprint(label) or chance.random() < 0.5:
            continue
        if all((~np.isin(labels, [*gone, label])).any() for labels in found.tensors.values()):
            gone |= {label}
    return gone


def mask(net: nn.Module, found: Channels, gone: frozenset[int]) -> None:
    """Sets every weight that reads a channel of the labels `gone` to zero."""
    parameters = dict(net.named_parameters())
    for name, axes in found.weights.items():
        if 1 in axes:
            parameters[name].data[:, torch.from_numpy(np.isin(axes[1], list(gone)))] = 0


@pytest.mark.parametrize("seed", range(5))
def test_a_cut_network_equals_the_masked_one(seed: int) -> None:
    """Branches, residuals, concatenations, groups, depthwise and dense layers: to the bit where sums are exact; the
    shapes are those that planning foresaw."""
    net = exact(RandomNet(seed))
    found = channels_of(net)
    gone = some_labels(found, seed)
    masked, small = copy.deepcopy(net), copy.deepcopy(net)
    mask(masked, found, gone)
    cut(small, found, gone)
    images = torch.from_numpy(images_for(net, 3, seed)).double().round()
    kinds = {type(layer).__name__ for layer in net.layers} | {str(step[0]) for step in net.program}
    if kinds & {"AvgPool2d", "AdaptiveAvgPool2d", "mean", "softmax"}:
        torch.testing.assert_close(masked(images), small(images), rtol=1e-12, atol=1e-12)
    else:
        assert torch.equal(masked(images), small(images))
    foreseen = without(found, gone).tensors.values()  # a grouped convolution may have become a depthwise one
    assert [tensor.shape for tensor in export(small).tensors.values()] == [tensor.shape for tensor in foreseen]


def test_channels_that_go_together() -> None:
    """A residual ties its branches; input and logits stay, and so does a weight held under two names."""
    found = channels_of(nets.resolve("squeezenet"))
    concat1, concat2, add1 = (found.tensors[name].tolist() for name in ("concat1", "concat2", "add1"))
    assert set(concat1) == set(concat2) == set(add1) and len(set(add1)) == 128
    assert {*found.tensors["input"].tolist(), *found.tensors["conv26"].tolist()} == found.fixed
    net = nets.Net(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)), (3, 4, 4))
    net.body[2].weight = net.body[1].weight
    found = channels_of(net)
    assert set(range(found.count)) == found.fixed


def test_the_saliency_is_the_derivative_by_a_gate() -> None:
    """Weight times gradient over the readers equals what scaling a tied channel does to the loss."""
    net = RandomNet(3)
    for layer in net.layers:
        layer.double()
    found, images = channels_of(net), torch.from_numpy(images_for(net, 2, 0)).double()
    net(images).square().sum().backward()
    derivatives = prune.gate_derivatives(net, found)
    for label in [label for label in range(found.count) if found.footprint(label) and label not in found.fixed][:6]:
        loss = []
        for scale in (1 - 1e-6, 1 + 1e-6):
            scaled = copy.deepcopy(net)
            parameters = dict(scaled.named_parameters())
            for name, axes in found.weights.items():
                if 1 in axes:
                    parameters[name].data[:, torch.from_numpy(axes[1] == label)] *= scale
            loss.append(scaled(images).square().sum().item())
        assert float(derivatives[label]) == pytest.approx((loss[1] - loss[0]) / 2e-6, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("name", "target"), [("cifarnet", 5973), ("ds_cnn", 8_000)])
def test_cuts_reach_the_target_where_the_peak_is(name: str, target: int) -> None:
    """The plan of what remains fits, is the plan of the exported int8 network, and keeps a channel of every tensor."""
    net = nets.load_net(name, "random")
    found = channels_of(net)
    gone, plan = prune.choose(found, np.random.default_rng(0).uniform(1, 2, found.count), target)
    assert plan.peak_bytes <= target and not gone & found.fixed
    cut(net, found, gone)
    graph = quantize(export(net), images_for(net, 2, 0))
    assert plan_partial(graph).peak_bytes == plan.peak_bytes and graph.tensors.keys() == found.graph.tensors.keys()
    if name == "cifarnet":  # nothing but the first convolution is alive at the peak
        assert {name for label in gone for name, _ in found.footprint(label)} == {"conv1", "maxpool1"}


def test_what_goes_first() -> None:
    """Of two kinds at the peak the cheaper by saliency per byte goes, and elsewhere nothing, however worthless.

    Without aim as few as will do go in the order of saliency; with equal saliency more than aimed at the peak.
    """
    stem = nn.Conv2d(3, 16, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 8, 3, 1, 1), nn.ReLU()
    found = channels_of(nets.Net(nn.Sequential(*stem, nn.Flatten(), nn.Linear(512, 10)), (3, 16, 16)))
    first, saliency = found.tensors["conv1"], np.zeros(found.count)
    saliency[first] = np.arange(len(first)) + 1
    gone, _ = prune.choose(found, saliency, 1500)  # 1,796 bytes before
    assert gone == set(first[: len(gone)].tolist()) and gone
    saliency = np.random.default_rng(0).uniform(1, 2, found.count)
    gone, plan = prune.choose_anywhere(found, saliency, 1250)
    aimed, _ = prune.choose(found, saliency, 1250)
    movable = [label for label in range(found.count) if label not in found.fixed and found.footprint(label)]
    in_order = sorted(movable, key=lambda label: saliency[label])[: len(gone)]
    assert plan.peak_bytes <= 1250 and len(gone) > len(aimed) and gone == set(in_order)
    assert plan_partial(without(found, gone - {in_order[-1]})).peak_bytes > 1250


@pytest.mark.slow
def test_the_command_leaves_a_network_for_every_verb(
    own: str, few: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`tinyredux prune` writes weights and record; the pruned network is found by its name, in its shapes."""
    monkeypatch.setattr(sets, "synthetic", lambda: few)
    monkeypatch.setenv("TINYREDUX_CACHE", str(tmp_path))
    arguments = ["prune", own, "--sram", "4500", "--data", "synthetic", "--epochs", "1", "--steps", "2"]
    assert cli.main([*arguments, "--json"]) == 0
    record = pretrained.Record(**json.loads(capsys.readouterr().out))
    assert record.command == " ".join(["tinyredux", *arguments, "--save-as", "tiny_pruned_4500"])
    assert record.pruning is not None and record.pruning["base"] == own
    assert list((tmp_path / "checkpoints").iterdir()) == []
    net = nets.load_net("tiny_pruned_4500", "synthetic")
    shapes = record.pruning["shapes"]
    assert shapes and {name: list(net.state_dict()[name].shape) for name in shapes} == shapes
    assert net[0].out_channels == net[1].num_features == net[3].in_channels
    peak = record.pruning["peak_bytes"]
    assert plan_partial(int8_graph("tiny_pruned_4500", "synthetic")).peak_bytes == peak <= 4500
    assert cli.main(["plan", "tiny_pruned_4500", "--data", "synthetic", "--sram", str(peak)]) == 0
    further = ["prune", "tiny_pruned_4500", "--sram", "4000", "--data", "synthetic", "--steps", "2", "--epochs", "1"]
    assert cli.main([*further, "--save-as", "tinier", "--aim", "anywhere", "--json"]) == 0
    record = pretrained.Record(**json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert record.command.endswith("--epochs 1 --aim anywhere --steps 2 --save-as tinier")
    assert record.pruning is not None and record.pruning["base"] == "tiny_pruned_4500" and len(record.pruning["cuts"]) == 2
    assert plan_partial(int8_graph("tinier", "synthetic")).peak_bytes == record.pruning["peak_bytes"] <= 4000
    assert cli.main(["prune", own, "--sram", "4500", "--data", "random"]) == 2
    assert "no training images with labels" in capsys.readouterr().err


def test_what_cannot_be_pruned(own: str, few: datasets.Dataset, tmp_path: Path) -> None:
    """A budget below the input's bytes, nonsense in the settings, the checkpoint of another pruning, a taken name."""
    for wrong, message in (
        ({"budget_bytes": 3000}, "a budget of 3,000 bytes is out of reach"), ({"steps": 0}, "steps is 0, expected more than 0"),
        ({"budget_bytes": 100_000}, "no more than the budget of 100,000; give a smaller one"),
        ({"aim": "x"}, "one of peak, anywhere"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            prune.prune(nets.resolve(own), few, replace(PRUNING, **wrong))
    prune._save(tmp_path / "c.pt", nets.resolve(own), PRUNING, [])
    with pytest.raises(ValueError, match="made for pruning"):
        prune.prune(nets.resolve(own), few, replace(PRUNING, rate=0.5), tmp_path / "c.pt")
    with pytest.raises(ValueError, match="lenet is a built-in network"):
        pretrained.prune_net("lenet", 6000, "synthetic", save_as="lenet")


@pytest.mark.parametrize("data", ["cifar10", "keywords"])
def test_the_curve_of_the_record(data: str) -> None:
    """Points of committed networks are those of their weights; a pruned one fits the budget in its name; never above
    layer by layer. The points of the tool are in it, made as it says, and reach from 4 to 60 KB."""
    home = Path(__file__).parents[2]
    record = json.loads((home / "data" / "records" / f"sram_curve.{data}.json").read_text())
    points = {point["net"]: point for point in record["points"]}
    committed = [one for one in pretrained.records() if one.data == data and not one.table and not one.skipping]
    assert {one.net for one in committed} <= points.keys()
    for one in committed:
        assert (points[one.net]["sha256"], points[one.net]["correct_int8"]) == (one.sha256, one.correct_int8)
    for name, point in points.items():
        budget = next((int(part) for part in reversed(name.split("_")) if part.isdigit()), point["layerwise_bytes"])
        assert point["partial_bytes"] <= min(budget, point["layerwise_bytes"]) and point["correct_int8"] <= point["images"]
    for trajectory in runpy.run_path(str(home / "tools" / "sram_curve.py"))["CURVES"][data]:
        for place, budget in enumerate(trajectory.budgets):
            point = points[trajectory.name(place)]
            made = trajectory.name(place - 1), trajectory.aim, trajectory.epochs
            assert (point["base"], point["aim"], point["epochs"]) == made
            assert f"--sram {budget} " in point["command"] and f"--steps {trajectory.steps} " in point["command"]
    sizes = [point["partial_bytes"] for point in points.values()]
    assert min(sizes) <= 4096 and max(sizes) >= 60_000


def test_a_teacher_is_imitated(few: datasets.Dataset) -> None:
    """With all of the loss from a teacher the labels do not matter; dropout is scaled in training and given back."""
    net = nets.Net(nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3072, 10)))
    teacher, seen = copy.deepcopy(net).eval(), list[float]()
    other = replace(few, train=replace(few.train, labels=(few.train.labels + 1) % 10))
    recipe = train.Recipe(epochs=1, batch=32, peak_rate=0.01, distil=1.0, dropout_factor=0.0)
    guide = train.Guide(teacher, lambda: seen.append(net.body[1].p))
    one, two = (train.train(copy.deepcopy(net), some, recipe, guide=train.Guide(teacher)) for some in (few, other))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    train.train(net, few, recipe, guide=guide)
    assert seen and set(seen) == {0.0} and net.body[1].p == 0.5


def test_tokens_are_refused() -> None:
    """A token's channels are its last axis: what the reading of maps would take for channels are places."""
    with pytest.raises(ValueError, match="norm1 is LayerNorm: pruning follows channels"):
        channels_of(nets.resolve("keyword_transformer"))
