"""Skipped networks: a record is found on validation images alone, makes the same graph again, and runs to the bit."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from generated import assert_c_equals_interpreter
from random_nets import int8_sequence
from torch import nn

from tinyredux import datasets, nets
from tinyredux.boards import find_board
from tinyredux.codegen import assemble, compacted
from tinyredux.datasets import Dataset, Split
from tinyredux.frontends import export
from tinyredux.graph import Graph
from tinyredux.int8 import evaluator, quantize
from tinyredux.methods import skip
from tinyredux.settings import Settings, measure_net
from tinyredux.skip import kept_share, records, windows
from tinyredux.train import finetune_skip, skip_search


@cache
def small() -> tuple[Graph, Dataset]:
    """A network of two convolutions, and images labelled with its own answers."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 4)
    graph = replace(int8_sequence((3, 8, 8), *layers), name="small")
    images = np.random.default_rng(0).normal(size=(300, 3, 8, 8)).astype(np.float32)
    answers = evaluator.Evaluator(graph).run(evaluator.quantized(graph, images)).reshape(300, -1).argmax(axis=1)
    splits = [Split(images[a:b], answers[a:b]) for a, b in ((0, 100), (100, 300), (300, 300))]
    return graph, Dataset("made", "made", *splits)


@cache
def found(unit: str = "block") -> records.Record:
    return skip_search.find("small", *small(), unit, loss=10)


def test_a_search_leaves_something_out_and_keeps_to_its_limit() -> None:
    record = found()
    assert record.validation_exact == 200 and 190 <= record.validation_skipped <= 200
    assert 0 < max(record.shares.values()) <= records.LARGEST
    none = skip_search.find("small", *small(), loss=0)
    assert none.validation_skipped == 200 and sum(none.shares.values()) <= sum(record.shares.values())


@pytest.mark.parametrize("unit", ["block", "input"])
def test_a_record_makes_the_graph_again(unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, data = small()
    monkeypatch.setattr(skip_search, "RECORDS", tmp_path)
    found(unit).save(tmp_path / "small.made.json")
    again = records.apply(graph, data, skip_search.record_for("small", "made"))
    right = evaluator.correct(again, data.validation)
    assert right == found(unit).validation_skipped
    for op, share in found(unit).shares.items():
        assert kept_share(again, op, unit) <= 1 - share + 0.03
    with pytest.raises(ValueError, match=r"no record of what lenet can leave out on made; there are small\.made"):
        skip_search.record_for("lenet", "made")
    with pytest.raises(ValueError, match="the record was made for other, the network is small"):
        records.apply(graph, data, replace(found(unit), net="other"))


def channels_left_out() -> Graph:
    """The small network without four of six channels behind the first convolution, and four of eight behind the second."""
    graph, data = small()
    return records.apply(graph, data, replace(found("input"), shares={"conv1": 0.0, "conv2": 4 / 6, "dense1": 0.5}))


def test_channels_that_nobody_reads_are_not_computed() -> None:
    again = channels_left_out()
    cheap = compacted(again, unpack=True)
    assert [cheap.tensors[op.output].shape[2] for op in cheap.ops] == [4, 4, 4]
    assert compacted(again, unpack=False) is again and compacted(small()[0], unpack=True) is small()[0]
    assert skip_search.predicted_cycles(again) < 0.8 * skip_search.predicted_cycles(small()[0])


def test_tuning_keeps_what_is_left_out_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "STATISTICS_IMAGES", 64)
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)
    net, (_, data) = nets.Net(nn.Sequential(*layers), (3, 8, 8)).eval(), small()
    exact = skip_search.predicted_cycles(quantize(export(net), datasets.calibration(data)))
    made = finetune_skip.fine_tune(net, data, 0.75, replace(finetune_skip.TUNE, epochs=1, batch=64))
    assert made["predicted"] <= 0.75 and made["channels"]
    tuned = quantize(export(net), datasets.calibration(data))
    for op, gone in made["channels"].items():
        assert gone and not windows(tuned, op)[..., gone].any()
    assert skip_search.predicted_cycles(tuned) == pytest.approx(made["predicted"] * exact, rel=0.01)
    with pytest.raises(ValueError, match=r"leads to 0\.\d+ of the cycles, not to 0\.01"):
        finetune_skip.fine_tune(net, data, 0.01, finetune_skip.TUNE)


def test_the_generated_code_runs_to_the_bit() -> None:
    graph, data = small()
    cases = (
        (records.apply(graph, data, found()), "reference"),
        (channels_left_out(), "fast"),
        (channels_left_out(), "reference"),
    )
    for again, kernels in cases:
        _, artifact = assemble(again, "test", kernels, find_board("disco_f469ni"), unpack=True)
        assert_c_equals_interpreter(again, artifact, evaluator.quantized(graph, data.validation.images[:3]))


def test_fast_kernels_take_the_tuned_weights_by_themselves() -> None:
    found = measure_net(Settings("lenet", "skip", target="host", data="synthetic", images=2))
    assert found.kernels == "fast" and found.bit_exact and found.macs_dense == 4_548_608
    assert found.macs_executed == sum(op.macs_executed for op in found.per_op) < 0.9 * found.macs_dense
    conv2 = next(op for op in found.per_op if op.name == "conv2")
    assert conv2.skipped == pytest.approx(1 - conv2.macs_executed / conv2.macs_dense, abs=1e-4) and conv2.skipped > 0
    assert not skip.is_tuned("lenet", "cifar10", None, "reference")
    assert skip.is_tuned("lenet", "synthetic", None, "reference")  # no record of finer units
    assert not skip.is_tuned("lenet", "cifar10", "front.json#0", "fast")


def test_committed_records_fit_their_networks() -> None:
    for path in skip_search.RECORDS.glob("*.json"):
        name, data = path.stem.split(".")
        record = skip_search.record_for(name, data)
        assert record.net == name and record.validation_skipped >= record.validation_exact
        graph = export(nets.resolve(name), name=name)
        assert set(record.shares) == set(records.skippable(graph))


def test_a_network_without_training_images_says_so() -> None:
    graph, data = small()
    with pytest.raises(ValueError, match="no training images"):
        records.statistics_of(graph, Dataset("mine", "mine", data.test, data.test, data.validation))


def test_a_record_is_read_from_a_file_or_a_front(tmp_path: Path) -> None:
    path, front = found().save(tmp_path / "one.json"), tmp_path / "front.json"
    mixed = replace(found(), units={"conv2": "pair"})
    front.write_text(json.dumps({"front": [{"skip": asdict(found())}, {"skip": asdict(mixed)}]}))
    assert records.load(str(path)) == found() and records.load(f"{front}#1") == mixed
    assert mixed.unit_of("conv2") == "pair" and mixed.unit_of("conv1") == "block"
