"""The page: a network in memory to a measurement, and methods that the library has never heard of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

import tinyredux as tr


class Branches(torch.nn.Module):
    """Two convolutions of one input, added."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(3, 8, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.left(images)) + torch.relu(self.right(images))


def images(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, 16, 12)).astype("float32")


def graph() -> tr.Graph:
    torch.manual_seed(0)
    return tr.quantize(tr.export(Branches(), (3, 16, 12), name="branches"), images())


def to_even(graph: tr.Graph, board: tr.Board) -> tr.Graph:
    """A pass: every weight becomes the even number below."""
    return replace(
        graph, constants={name: value & ~1 if value.dtype == np.int8 else value for name, value in graph.constants.items()}
    )


@dataclass(frozen=True)
class RightFirst:
    """A schedule: operators that are ready run in the order of their names, backwards."""

    label = "right first"

    def __call__(self, graph: tr.Graph, board: tr.Board, kernels: object) -> tr.memory.Program:
        there, items, waiting = set(graph.inputs), list[tr.memory.Item](), list(graph.ops)
        while waiting:
            ready = max((op for op in waiting if there.issuperset(op.inputs)), key=lambda op: op.name)
            waiting.remove(ready)
            there.add(ready.output)
            items.append(tr.memory.Item((ready.name,)))
        return tr.memory.lower(graph, tr.memory.Schedule(tuple(items)))


@pytest.mark.parametrize("kernels", ["fast", "reference"])
def test_a_pass_and_a_schedule_from_outside(kernels: str) -> None:
    exact = tr.compile(graph(), "disco_f469ni", kernels=kernels)
    model = tr.compile(graph(), "disco_f469ni", passes=[to_even], schedule=RightFirst(), kernels=kernels)
    assert model.method == "to_even+right first" and exact.method == "exact"
    assert model.op_names != exact.op_names and sorted(model.op_names) == sorted(exact.op_names)
    assert all(not (value & 1).any() for value in model.graph.constants.values() if value.dtype == np.int8)
    for one in (exact, model):
        assert tr.measure(one, images(2), target="host").bit_exact
    assert not np.array_equal(model.expected(inputs(model)), exact.expected(inputs(exact)))


def inputs(model: tr.Model) -> np.ndarray:
    from tinyredux.int8 import interpret

    return interpret.quantize_input(model.graph, images(2))


def test_methods_and_their_labels() -> None:
    model = tr.compile(
        graph(), passes=[tr.Trec({"conv1": tr.Choice(27, 3)}, only_if_faster=False), tr.Skip()], schedule=tr.Partial()
    )
    assert model.method == "trec+skip+partial" and "trec+skip+partial" in repr(model) and "<table>" in model._repr_html_()
    assert tr.measure(model, images(2), target="host").bit_exact
    assert "times the cycles of layer by layer" in " ".join(tr.compile(graph(), schedule=tr.Partial()).notes)
    assert tr.compile(graph(), passes=[tr.Trec()]).notes == ("without TREC: no layer is predicted to pay, so all are exact",)


WRONG: tuple[tuple[Callable[[tr.Model], object], str], ...] = (
    (lambda model: tr.measure(model, images()[0]), r"images have shape \(3, 16, 12\), branches takes \(N, 3, 16"),
    (lambda model: tr.measure(model, images()[:, :1]), r"images have shape \(4, 1, 16, 12\)"),
    (lambda model: tr.measure(model, images(), target="moon"), "target is 'moon', expected host, simulator or board"),
    (lambda model: tr.Partial(accumulator="int8"), "accumulator is 'int8', expected one of int32, int16"),
    (lambda model: tr.Layerwise(sram=0), "sram is 0 bytes, expected 1 to"), (lambda model: tr.compile(model.graph, "no"), "no"),
    (lambda model: tr.compile(model.graph, kernels="turbo"), "kernels is 'turbo', expected one of fast, reference"),
    (lambda model: tr.export(Branches(), (16,)), r"input_shape is \(16,\); give \(channels, height, width\)"),
    (lambda model: model.code("conv9"), "branches has no operator 'conv9'; it has conv1, conv2, add1"),
)  # fmt: skip


def test_what_is_wrong_is_said_and_a_model_shows_the_c_of_an_operator() -> None:
    model = tr.compile(graph(), kernels="reference")
    for wrong, words in WRONG:
        with pytest.raises(ValueError, match=words):
            wrong(model)
    assert "tr_conv_s8(" in model.code("conv2") and model.code("conv2").count("tr_mark(") == 1


def test_what_a_notebook_shows_of_an_object_can_be_read() -> None:
    """Its weights and images have thousands of numbers; no text of it is longer than a page, and tables have a form in HTML."""
    model = tr.compile(graph(), "nucleo_l4r5zi")
    tables = (model.graph, model, tr.measure(model, images(2)))
    for each in (*tables, model.board, tr.datasets.load("random", (1, 4, 4))):
        assert len(repr(each)) < 2000 and max(map(len, repr(each).splitlines())) < 200
    assert all("<table>" in each._repr_html_() for each in tables)


def test_public_names_are_there() -> None:
    for name in dir(tr):
        assert getattr(tr, name) is not None
