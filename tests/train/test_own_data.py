"""A stranger's network on a stranger's data, of no built-in shape: by command line and in memory, from training to a front."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import user_nets
from torch.utils.data import DataLoader, TensorDataset

from tinyredux import Skip, compile, datasets, explore, export, measure, nets, quantize, train
from tinyredux.cli import app as cli
from tinyredux.settings import Settings, compile_net
from tinyredux.train import finetune_skip, finetune_trec, loop, pretrained, prune, skip_search
from tinyredux.trec.layer import Settings as TrecSettings

STRANGERS = {"words": ((1, 49, 10), 6), "motion": ((6, 128, 1), 4)}


def arrays(name: str, count: int, seed: int) -> tuple[datasets.Images, datasets.Labels]:
    """Returns images of classes that differ in their means, sorted by class as files often are."""
    shape, classes = STRANGERS[name]
    labels = np.sort(np.arange(count) % classes)
    means = np.linspace(-2, 2, classes)[labels].reshape(-1, 1, 1, 1)
    return (means + np.random.default_rng(seed).normal(size=(count, *shape))).astype(np.float32), labels


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with both networks, their data, and a cache of its own."""
    monkeypatch.setenv("TINYREDUX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(Path(user_nets.__file__).read_text())
    for name in STRANGERS:
        parts = {"train": arrays(name, 120, 1), "test": arrays(name, 24, 2)}
        both = {
            f"{part}_{kind}": array
            for part, pair in parts.items()
            for kind, array in zip(("images", "labels"), pair, strict=True)
        }
        np.savez(f"{name}.npz", **both)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], command: str, code: int = 0) -> dict[str, Any]:
    """Returns what a command answers as JSON."""
    assert cli.main([*command.split(), "--json"]) == code
    answer: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return answer


@pytest.mark.parametrize("name", STRANGERS)
def test_weights_that_train_leaves_are_those_of_every_verb(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The record says data, sizes, seed and command; the weights are found for this data alone, and a note says so."""
    command = f"train nets.py:{name} --data {name}.npz --epochs 16 --seed 3"
    record = pretrained.Record(**said(capsys, command))
    data = datasets.load(f"{name}.npz")
    assert (record.command, record.data, record.data_sha256) == (f"tinyredux {command}", data.name, data.sha256)
    assert (record.training_images, record.validation_images, record.images, record.recipe["seed"]) == (108, 12, 24, 3)
    assert record.recipe["augment"] is False and min(record.correct_float, record.correct_int8) >= 20
    compiled = compile_net(Settings(f"nets.py:{name}", data=f"{name}.npz"))
    assert pretrained.evaluator.correct(compiled.int8, data.test) == record.correct_int8
    assert compiled.model.notes == (f"weights that `train` left for this data, {record.file}, in place of the factory's own",)
    images, labels = arrays(name, 24, 2)
    np.savez("other.npz", images=images + 1, labels=labels)
    factory = nets.resolve(f"nets.py:{name}").state_dict()
    for other in ("other.npz", "random"):
        data, net = nets.with_data(f"nets.py:{name}", other)
        assert all(torch.equal(value, factory[key]) for key, value in net.state_dict().items())
    refused = said(capsys, f"train nets.py:{name} --data other.npz", 2)
    assert "no training images with labels; an array images alone is a test part" in refused["error"]
    np.savez("other.npz", images=images, labels=labels + 2)
    assert "test labels reach" in said(capsys, f"measure nets.py:{name} --data other.npz", 2)["error"].replace(
        "labels", "test labels"
    )


def test_a_command_that_was_interrupted_goes_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the same weights; with other data it begins anew."""

    def weights(sums: list[str]) -> list[str]:
        return [*sums, pretrained.train_net("nets.py:words", "words.npz", epochs=2).sha256]

    whole, real, calls = weights([]), loop._save, list[int]()

    def interrupted(*arguments: Any) -> None:
        real(*arguments)
        calls.append(arguments[3])
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        weights([])
    assert weights([]) == whole and calls == [1, 2]
    np.savez("words.npz", **dict(np.load("words.npz")) | {"train_labels": np.arange(120) % 6})
    assert weights([]) != whole and calls == [1, 2, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["words", pytest.param("motion", marks=pytest.mark.sweep)])
def test_every_method_by_command(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pruned, tuned for both methods, measured with each, explored: from what was trained, each by its own weights. Motion goes
    through the same methods in memory, below."""
    net, budget = f"nets.py:{name} --data {name}.npz", {"words": 1100, "motion": 1000}[name]
    said(capsys, f"train {net} --epochs 16")
    pruned = said(capsys, f"prune {net} --sram {budget} --epochs 2 --steps 2")
    assert pruned["pruning"]["peak_bytes"] <= budget and pruned["data_sha256"] == datasets.load(f"{name}.npz").sha256
    layer = {"words": "3", "motion": "2"}[name]
    Path("table.json").write_text(json.dumps({layer: {"sub_length": 8, "hash_bits": 3, "hash": "learned"}}))
    said(capsys, f"train {net} --method trec --trec table.json --epochs 1")
    said(capsys, f"train {net} --method skip --share 0.9 --epochs 1")
    in_parts = f"{pruned['net']} --data {name}.npz --method partial --sram {budget}"
    for run in (net, in_parts, f"{net} --method trec --kernels naive", f"{net} --method skip"):
        found = said(capsys, f"measure {run} --images 2")
        assert found["bit_exact"] and found["correct"] is not None, run
    front = said(capsys, f"explore {net} --trials 2 --finalists 1")
    assert front["front"] and front["validation"]["images"] == 12 and front["test"]["images"] == 24


def test_a_module_in_memory_is_trained_and_pruned() -> None:
    """Without input_shape, on tensors and a loader; it learns, shrinks and is measured. A loader by itself is no data."""
    net = torch.nn.Sequential(*user_nets.words())
    images, labels = (torch.from_numpy(array) for array in arrays("words", 120, 1))
    loader = DataLoader(TensorDataset(images, labels), batch_size=32)
    data = datasets.of(train=loader, test=arrays("words", 24, 2), shape=(1, 49, 10))
    recipe = train.Recipe(epochs=16, batch=16, peak_rate=0.035)
    assert train.correct(train.train(net, data, recipe), data.test) >= 20
    account = prune.prune(
        net, data, prune.Pruning(1100, steps=2, batches=4, tune=replace(prune.TUNE, epochs=8, batch=16, peak_rate=0.035))
    )
    assert account["peak_bytes"] <= 1100 and train.correct(net, data.test) >= 16
    with pytest.raises(ValueError, match=r"the data is .*, expected Dataset, such as datasets.of\(train="):
        train.train(net, loader, recipe)


@pytest.mark.slow
def test_a_module_in_memory_by_every_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tuned, cut by a record, compiled, measured and explored, with no name and no file of its own."""
    pytest.importorskip("optuna")
    monkeypatch.setenv("TINYREDUX_CACHE", str(tmp_path))
    data = datasets.of(train=arrays("motion", 120, 1), validation=arrays("motion", 40, 3), test=arrays("motion", 24, 2))
    net = train.train(torch.nn.Sequential(*user_nets.motion()), data, train.Recipe(epochs=6, batch=16, peak_rate=0.035))
    finetune_skip.fine_tune(net, data, 0.9, replace(finetune_skip.TUNE, epochs=2, batch=16))
    graph = quantize(export(net, data.shape), data.train.images)
    record = skip_search.find("motion", graph, data, "input", loss=2)
    model = compile(graph, passes=[Skip(record, data)])
    found = measure(model, data.test.images[:4], data.test.labels[:4])
    assert found.bit_exact and found.correct is not None
    front = explore.front(graph, data, methods=("skip", "partial"), trials=2, finalists=1)
    assert front["net"] == graph.name and front["validation"]["images"] == 40 and front["no_loss"]["test_points_lost"] < 20
    table = {"2": TrecSettings(8, 3)}
    tuned = finetune_trec.fine_tune(net, table, data, replace(finetune_trec.TUNE, epochs=2, batch=16, peak_rate=0.01))
    assert train.correct(tuned, data.test) >= 16
