"""Fine-tuning with TREC: what is replaced, what stays frozen, resumed to the bit, saved and loaded by one command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tinyredux import datasets, nets, train
from tinyredux.cli import app as cli
from tinyredux.datasets import sets
from tinyredux.frontends import export
from tinyredux.graph import TrecConv
from tinyredux.train import finetune_trec, pretrained
from tinyredux.trec.layer import Settings, TRECConv2d, convert

TABLE = {"body.3": Settings(4, 3, "pca"), "body.5": Settings(20, 2)}
RECIPE = train.Recipe(epochs=2, batch=16, peak_rate=0.02, distil=0.5, average=0.5)


def committed(name: str) -> Path:
    """Returns the record of a network's TREC weights."""
    return nets.WEIGHTS_FOLDER / f"{name}.trec.cifar10.json"


def small() -> nn.Module:
    """Returns a seeded network of three convolutions."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip
    return nets.Net(nn.Sequential(*layers))


def test_layers_of_the_table_are_replaced_and_what_is_before_can_stay(few: datasets.Dataset) -> None:
    """With a frozen start, what comes from the first TREC layer on moves; weights and batch norm before it keep every bit.

    Else those move as well, batch norm's statistics among them.
    """
    net, whole = small(), small()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    finetune_trec.fine_tune(net, TABLE, few, replace(RECIPE, freeze=True))
    kinds = {path: (part.sub_length, part.hash) for path, part in net.named_modules() if isinstance(part, TRECConv2d)}
    assert kinds == {"body.3": (4, "pca"), "body.5": (20, "kernel")}
    moved = {key for key, value in before.items() if not torch.equal(value, net.state_dict()[key])}
    assert moved == {f"body.{i}.{name}" for i in (3, 5, 9) for name in ("weight", "bias")}
    vectors = net.state_dict()["body.3.vectors"][0]
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-5)
    after = finetune_trec.fine_tune(whole, TABLE, few, replace(RECIPE, epochs=1)).state_dict()
    assert not any(torch.equal(before[f"body.{key}"], after[f"body.{key}"]) for key in ("0.weight", "1.running_mean"))


def test_the_tables_fit_the_networks() -> None:
    """Every layer of a committed table is in its network and exports as one TREC operator."""
    for name in ("cifarnet", "squeezenet", "squeezenet_bypass", "zfnet"):
        net = nets.resolve(name)
        layers = convert(net, finetune_trec.table_for(name, net))
        assert layers and sum(isinstance(op, TrecConv) for op in export(net).ops) == len(layers)


def test_tables(tmp_path: Path) -> None:
    """A file's table and recipe, a network's own, wide convolutions otherwise, and a network that has none."""
    assert finetune_trec.table_for("cifarnet", nets.cifarnet()) == finetune_trec.table_for(
        "any", nets.lenet(), committed("cifarnet")
    )
    recipe = train.Recipe(**json.loads(committed("cifarnet").read_text())["recipe"])
    assert finetune_trec.recipe_for("cifarnet", "cifar10", seed=3) == replace(recipe, seed=3)
    assert finetune_trec.table_for("lenet", nets.lenet()) == {"body.2.0": Settings(32, 4), "body.4.0": Settings(64, 4)}
    with pytest.raises(ValueError, match="no convolution of 64 or more outputs"):
        finetune_trec.table_for("own", small())
    (tmp_path / "t.json").write_text('{"body.3": {"sub_length": 4, "hash_bits": 3, "hash": "pca"}}')
    assert finetune_trec.table_for("own", small(), tmp_path / "t.json") == {"body.3": Settings(4, 3, "pca")}
    (tmp_path / "t.json").write_text('{"table": {"body.3": {"sub_length": 4, "hash_bits": 3}}, "recipe": {"epochs": 2}}')
    assert finetune_trec.recipe_for("lenet", "cifar10", None, 1, tmp_path / "t.json") == train.Recipe(epochs=2, seed=1)
    assert finetune_trec.table_for("lenet", small(), tmp_path / "t.json") == {"body.3": Settings(4, 3)}


def test_the_command_leaves_weights_that_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], few: datasets.Dataset
) -> None:
    """`tinyredux train --method trec` starts from the exact weights; `load_trec` gives back the network it measured."""
    monkeypatch.setenv("TINYREDUX_CACHE", str(tmp_path))
    monkeypatch.setattr(sets, "synthetic", lambda: few)
    (tmp_path / "t.json").write_text(json.dumps({"body.4.0": {"sub_length": 64, "hash_bits": 2}}))
    arguments = ["train", "lenet", "--method", "trec", "--data", "synthetic", "--trec", str(tmp_path / "t.json")]
    assert cli.main([*arguments, "--epochs", "1", "--json"]) == 0
    record = pretrained.Record(**json.loads(capsys.readouterr().out))
    assert (record.net, record.file) == ("lenet", "lenet.trec.synthetic.safetensors")
    assert record.table == {"body.4.0": {"sub_length": 64, "hash_bits": 2, "hash": "kernel", "threshold": "mean"}}
    assert record.command == " ".join(["tinyredux", *arguments, "--epochs", "1"])
    net = finetune_trec.load_trec("lenet", "synthetic")
    assert train.correct(net, few.test) == record.correct_float and not net.training
    with pytest.raises(datasets.MissingDataError, match="train alexnet --method trec"):
        finetune_trec.load_trec("alexnet", "synthetic")
