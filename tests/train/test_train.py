"""Training: reproducible, resumable to the bit, refused where it cannot work, and recorded."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import user_nets
from test_train_trec import RECIPE as TREC_RECIPE
from test_train_trec import TABLE
from test_train_trec import small as three_convolutions
from torch import nn

from tinyredux import datasets, nets, train
from tinyredux.cli import app as cli
from tinyredux.train import finetune_trec, loop, pretrained, prune
from tinyredux.trec.layer import Settings

RECIPE = train.Recipe(epochs=3, batch=16, peak_rate=0.05)
PRUNING = prune.Pruning(4500, steps=3, batches=3, tune=replace(prune.TUNE, epochs=2, batch=32))


def tiny() -> nn.Module:
    """Returns a small network with batch norm and dropout, seeded."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, 4, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(256, 10)
    return nets.Net(nn.Sequential(*layers))


def same(a: nn.Module, b: nn.Module) -> bool:
    """Returns whether two networks hold the same bits."""
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_training_is_reproducible_and_depends_on_the_seed(few: datasets.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed gives the same bits, another seed others; the loss falls; the thread count is given back."""
    losses, epoch, threads = list[float](), loop._epoch, torch.get_num_threads()
    monkeypatch.setattr(loop, "_epoch", lambda *arguments: losses.append(epoch(*arguments)) or losses[-1])
    one = train.train(tiny(), few, RECIPE)
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert torch.get_num_threads() == threads
    assert same(one, train.train(tiny(), few, RECIPE))
    assert not same(one, train.train(tiny(), few, replace(RECIPE, seed=1)))


def wider() -> nn.Module:
    """Returns a small network that pruning can cut, seeded."""
    torch.manual_seed(0)
    return user_nets.tiny()


Ended = tuple[nn.Module, object]  # a network and the account of what was done to it
Work = Callable[[datasets.Dataset, Path | None], Ended]
WORKS: dict[str, Work] = {
    "train": lambda data, path: (train.train(tiny(), data, RECIPE, path), None),
    "trec": lambda data, path: (finetune_trec.fine_tune(three_convolutions(), TABLE, data, TREC_RECIPE, path), None),
    "prune": lambda data, path: ((net := wider()), prune.prune(net, data, PRUNING, path)),
}


@cache
def in_one_go(work: str) -> Ended:
    return WORKS[work](datasets.synthetic(counts=(240, 60, 60)), None)


@pytest.mark.parametrize("before", [False, True], ids=["after", "before"])
@pytest.mark.parametrize(("work", "module", "name", "last"), [
    ("train", loop, "_save", 2), ("trec", loop, "_save", 1), ("prune", prune, "choose", 2), ("prune", prune, "_save", 2),
    ("prune", loop, "_save", 1),
])  # fmt: skip
def test_what_is_interrupted_goes_on_to_the_same_bits(
    work: str, module: ModuleType, name: str, last: int, before: bool, few: datasets.Dataset, tmp_path: Path
) -> None:
    """Stopped before or after a cut, what is kept, or an epoch, and begun again: weights and account as without."""
    calls, real = list[None](), getattr(module, name)

    def interrupted(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == last and before:
            raise KeyboardInterrupt
        answer = real(*arguments)
        if len(calls) == last:
            raise KeyboardInterrupt
        return answer

    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module, name, interrupted)
        WORKS[work](few, tmp_path / "c.pt")
    assert (tmp_path / "c.pt").exists() or (before and last == 1)
    (net, account), (whole, expected) = WORKS[work](few, tmp_path / "c.pt"), in_one_go(work)
    assert same(net, whole) and account == expected
    if isinstance(account, dict):
        assert account["peak_bytes"] <= 4500 and len(account["cuts"]) == 3 and account["shapes"]


def test_a_killed_training_resumes_to_the_same_bits(own: str, few: datasets.Dataset, tmp_path: Path) -> None:
    """A process that dies in its second epoch, run again, ends with the weights of one that lived."""
    path, done = tmp_path / "c.pt", itertools.count()

    def train_until_killed() -> None:
        torch.manual_seed(0)  # an epoch has 15 steps; the process ends as a kill ends it: nothing is written or cleaned up
        watch = train.Guide(watch=lambda: os._exit(9) if next(done) == 20 else None)
        train.train(nets.resolve(own), few, RECIPE, path, watch)

    process = multiprocessing.get_context("fork").Process(target=train_until_killed)
    process.start()
    process.join(60)
    assert process.exitcode == 9
    assert loop.read_checkpoint(path, {}, "epoch")["epoch"] == 1
    steps = list[None]()
    resumed = train.train(nets.resolve(own), few, RECIPE, path, train.Guide(watch=lambda: steps.append(None)))
    assert len(steps) == 2 * 15  # the first epoch is not made again
    torch.manual_seed(0)
    assert same(resumed, train.train(nets.resolve(own), few, RECIPE))


def test_the_command_leaves_weights_and_record(
    own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`tinyredux train` writes weights and record, names the command that makes them again, drops its checkpoint."""
    monkeypatch.setenv("TINYREDUX_CACHE", str(tmp_path / "cache"))
    arguments = ["train", own, "--data", "synthetic", "--epochs", "1", "--seed", "7"]
    assert cli.main([*arguments, "--out", str(tmp_path / "out"), "--json"]) == 0
    record = pretrained.Record(**json.loads(capsys.readouterr().out))
    assert record.command == " ".join(["tinyredux", *arguments])
    assert (record.net, record.recipe["seed"], record.recipe["epochs"], record.images) == ("tiny", 7, 1, 1000)
    assert pretrained.records(tmp_path / "out") == [record] and (tmp_path / "out" / record.file).is_file()
    assert list((tmp_path / "cache" / "checkpoints").iterdir()) == []
    assert cli.main(["train", own, "--data", "random"]) == 2
    assert "no training images with labels" in capsys.readouterr().err


def test_weights_on_disk_are_those_that_were_measured(few: datasets.Dataset, tmp_path: Path) -> None:
    """Matrices in float16, the rest as it was; the record counts the answers of the file."""
    net = train.train(tiny(), few, replace(RECIPE, epochs=1))
    record = pretrained.save_weights(net, "tiny", few, RECIPE, "command", tmp_path)
    stored = safetensors.torch.load_file(tmp_path / record.file)
    assert {str(values.dtype) for values in stored.values()} == {"torch.float16", "torch.float32", "torch.int64"}
    again = tiny().eval()
    nets.load_weights(again, tmp_path / record.file)
    graph = pretrained.quantize(pretrained.export(again), datasets.calibration(few))
    right = pretrained.evaluator.correct(graph, few.test)
    assert (record.images, record.correct_float, record.correct_int8) == (60, train.correct(again, few.test), right)


def test_a_checkpoint_of_something_else_is_refused(few: datasets.Dataset, tmp_path: Path) -> None:
    """Those of another network, table and recipe, whose weights no command would make; laws/test_wrong_files.py damages them."""
    path, once, table = tmp_path / "c.pt", replace(RECIPE, epochs=1), TABLE | {"body.5": Settings(20, 3)}  # of equal shapes
    train.train(tiny(), few, once, path)
    finetune_trec.fine_tune(three_convolutions(), TABLE, few, brief := replace(TREC_RECIPE, epochs=1), tmp_path / "t.pt")
    for act, message in (
        (lambda: train.train(nets.lenet(), few, once, path), "of another network or table"),
        (lambda: train.train(tiny(), few, RECIPE, path), "made for recipe"),
        (
            lambda: finetune_trec.fine_tune(three_convolutions(), table, few, brief, tmp_path / "t.pt"),
            r"t\.pt was made .*body\.5",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            act()


def test_the_running_mean_of_the_weights_is_the_result(few: datasets.Dataset) -> None:
    """It begins at the first weights and moves by its share towards those that each batch met; the steps are the same."""
    net, met = tiny(), list[torch.Tensor]()
    weight = net.get_parameter("body.0.weight")
    guide = train.Guide(watch=lambda: met.append(weight.detach().clone()))
    train.train(net, few, replace(RECIPE, average=0.75), guide=guide)
    mean = met[0]
    for step in met[1:]:
        mean = 0.75 * mean + 0.25 * step
    torch.testing.assert_close(weight.detach(), mean)
    last = train.train(tiny(), few, RECIPE).get_parameter("body.0.weight")
    assert len(met) == 45 and not torch.allclose(last, mean) and torch.allclose(last, met[-1], atol=1e-3)


def test_adamw_decays_matrices_alone_and_goes_on_where_it_was_stopped(few: datasets.Dataset, tmp_path: Path) -> None:
    """The first step is the rate's, whatever the gradient; decay is seen in matrices; an interruption is not seen."""
    recipe = replace(RECIPE, optimizer="adamw", peak_rate=1e-3, weight_decay=0.0)
    nets_after = tiny(), tiny()
    for net, decay in zip(nets_after, (0.0, 1.0), strict=True):
        with pytest.raises(StopIteration):
            train.train(net, few, replace(recipe, weight_decay=decay), guide=train.Guide(watch=iter([None]).__next__))
    for before, plain, decayed in zip(tiny().parameters(), *(net.parameters() for net in nets_after), strict=True):
        assert 0 < (plain - before).abs().max() <= recipe.peak_rate / 20
        assert torch.equal(plain, decayed) == (plain.ndim == 1)
    path, whole = tmp_path / "c.pt", train.train(tiny(), few, recipe)
    with pytest.raises(StopIteration):
        train.train(tiny(), few, recipe, path, train.Guide(watch=iter([None] * 20).__next__))
    again = train.train(tiny(), few, recipe, path)
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), again.parameters(), strict=True))


def test_what_cannot_be_trained(few: datasets.Dataset, tmp_path: Path) -> None:
    """No labels or classes for them, no training part, nonsense in the recipe, a loss that is not finite."""
    np.savez(tmp_path / "own.npz", images=few.test.images, labels=few.test.labels)
    body = nn.Conv2d(3, 4, 3, 32, 1)
    for act, message in (
        (lambda: train.train(tiny(), datasets.load("random"), RECIPE), "random has no training images with labels; use cifar10"),
        (lambda: pretrained.train_net("lenet", str(tmp_path / "own.npz")), "no training images with labels"),
        (lambda: train.recipe_for("lenet", "cifar10", epochs=0), "epochs is 0, expected more than 0"),
        (lambda: replace(RECIPE, optimizer="adam"), "optimizer is 'adam', expected sgd or adamw"),
        (lambda: train.train(tiny(), few, replace(RECIPE, peak_rate=1e30)), "lower peak_rate"),
        (lambda: pretrained.check_trainable(body, few), r"returns \(1, 4, 1, 1\); expected \(images, classes\)"),
        (
            lambda: pretrained.check_trainable(nn.Sequential(body, nn.Flatten()), few),
            "train labels reach 9, the network has 4 outputs",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            act()


def test_augmentation_flips_and_shifts_alone() -> None:
    """Every augmented image is its original, shifted by up to four pixels, or the mirror of it."""
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8)
    changed = loop.augmented(images, torch.Generator().manual_seed(0))
    for image, found in zip(images, changed, strict=True):
        padded = nn.functional.pad(image[None], [4] * 4, mode="reflect")[0]
        shifted = [padded[:, top : top + 8, left : left + 8] for top in range(9) for left in range(9)]
        assert sum(torch.equal(found, one) or torch.equal(found, one.flip(2)) for one in shifted) >= 1
