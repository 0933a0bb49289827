"""Skipped networks: a record is found on validation images alone, makes the same graph again, and runs to the bit."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tinyredux import evaluator, interpret, nets, skipped
from tinyredux.boards import find_board
from tinyredux.build import build_host
from tinyredux.datasets import Dataset, Split
from tinyredux.export import export
from tinyredux.graph import Graph
from tinyredux.kernels import assemble
from tinyredux.passes.quantize import quantize
from tinyredux.passes.skipping import kept_share
from tinyredux.targets.host import HostTarget


@cache
def small() -> tuple[Graph, Dataset]:
    """A network of two convolutions, and images labelled with its own answers."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 4))
    images = np.random.default_rng(0).normal(size=(300, 3, 8, 8)).astype(np.float32)
    graph = quantize(export(nets.Net(body, (3, 8, 8)).eval(), "small"), images[:64])
    answers = evaluator.Evaluator(graph).run(evaluator.quantized(graph, images)).reshape(300, -1).argmax(axis=1)
    splits = [Split(images[a:b], answers[a:b]) for a, b in ((0, 100), (100, 300), (300, 300))]
    return graph, Dataset("made", "made", *splits)


@cache
def found() -> skipped.Record:
    return skipped.find("small", *small(), loss=10)


def test_a_search_leaves_something_out_and_keeps_to_its_limit() -> None:
    record = found()
    assert record.validation_exact == 200 and 190 <= record.validation_skipped <= 200
    assert 0 < max(record.shares.values()) <= skipped.LARGEST
    none = skipped.find("small", *small(), loss=0)
    assert none.validation_skipped == 200 and sum(none.shares.values()) <= sum(record.shares.values())


def test_a_record_makes_the_graph_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, data = small()
    monkeypatch.setattr(skipped, "RECORDS", tmp_path)
    found().save(tmp_path / "small.made.json")
    again = skipped.apply(graph, data, skipped.record_for("path/to/net.py:small", "made"))
    right = evaluator.correct(again, data.validation)
    assert right == found().validation_skipped
    for op, share in found().shares.items():
        assert kept_share(again, op, "block") <= 1 - share + 0.03
    with pytest.raises(ValueError, match=r"no record of what lenet can leave out on made; there are small\.made"):
        skipped.record_for("lenet", "made")


def test_the_generated_code_runs_to_the_bit(tmp_path: Path) -> None:
    graph, data = small()
    again = skipped.apply(graph, data, found())
    for kernels in ("reference", "fast"):
        plan, artifact = assemble(again, "test", kernels, find_board("disco_f469ni"), unpack=True)
        assert plan.total_bytes > 0
        library = build_host(artifact.write(tmp_path / artifact.model_hash), tmp_path)
        target = HostTarget(library, graph.input.shape, graph.output.shape)
        images = evaluator.quantized(graph, data.validation.images[:3])
        for image, expected in zip(images, interpret.run(again, images), strict=True):
            assert np.array_equal(target.run(image), expected)


def test_committed_records_fit_their_networks() -> None:
    for path in skipped.RECORDS.glob("*.json"):
        name, data = path.stem.split(".")
        record = skipped.record_for(name, data)
        assert record.net == name and record.validation_skipped >= record.validation_exact
        graph = export(nets.resolve(name), name)
        assert set(record.shares) == set(skipped.skippable(graph))


def test_a_network_without_training_images_says_so() -> None:
    graph, data = small()
    with pytest.raises(ValueError, match="no training images"):
        skipped.statistics_of(graph, Dataset("mine", "mine", data.test, data.test, data.validation))


def test_a_record_is_read_from_a_file_or_a_front(tmp_path: Path) -> None:
    path, front = found().save(tmp_path / "one.json"), tmp_path / "front.json"
    assert skipped.load(str(path)) == found()
    mixed = replace(found(), units={"conv2": "pair"})
    front.write_text(json.dumps({"front": [{"skip": asdict(found())}, {"skip": asdict(mixed)}, {"skip": None}]}))
    assert skipped.load(f"{front}#1") == mixed and mixed.unit_of("conv2") == "pair" and mixed.unit_of("conv1") == "block"
    for wrong, message in ((f"{front}", "designs 0 to 2"), (f"{front}#3", "designs 0 to 2"), (f"{front}#2", "neither a record")):
        with pytest.raises(ValueError, match=message):
            skipped.load(wrong)
    with pytest.raises(ValueError, match="no record of skipping"):
        skipped.load(str(tmp_path / "absent.json"))
