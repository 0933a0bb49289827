"""Networks with several outputs: whoever computes them gives the same bytes of all, and each tells them apart."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from compiled import BOARDS
from generated import on_core, on_host
from random_graphs import random_graph
from random_nets import images_for
from torch import nn

import tinyredux as tr
from tinyredux import memory
from tinyredux.boards import find_board
from tinyredux.cli.app import main
from tinyredux.codegen import Kernels, emit_steps, layers
from tinyredux.device.build import CROSS_COMPILER, build_firmware
from tinyredux.device.served import serve_simulator
from tinyredux.graph import Graph, verify
from tinyredux.int8 import interpret
from tinyredux.int8.evaluator import Evaluator
from tinyredux.kernels import FastSteps
from tinyredux.memory import run_schedule
from tinyredux.methods.partial import Partial
from tinyredux.partial import plan_hybrid
from tinyredux.skip.saliency import importances
from tinyredux.train import loop

SEEDS = list(islice((seed for seed in count() if len(random_graph(seed).outputs) > 1), 6))
SHAPE = (3, 12, 10)


class Detector(nn.Module):
    """A head of classes and one of boxes over one backbone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.input_shape = SHAPE
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU())
        self.classes, self.boxes = nn.Linear(12, 5), nn.Conv2d(12, 4, 1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns scores (N, 5) and boxes (N, 4, 6, 5)."""
        maps = self.body(images)
        return {"scores": self.classes(maps.mean((2, 3))), "boxes": self.boxes(maps)}


def make() -> nn.Module:
    """Returns the detector, for a command line that names this file."""
    return Detector().eval()


def detector() -> Graph:
    """Returns its int8 graph."""
    return tr.quantize(tr.export(make(), name="detector"), images_for(Detector(), 8, 0))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_all_who_compute_them_agree(seed: int) -> None:
    """Interpreter, evaluator, plans, the C twin and the machine code; in parts, and in patches that compute values again."""
    graph, core = random_graph(seed), list(BOARDS)[seed % 3]
    images = np.random.default_rng(seed).integers(-128, 128, (3, *graph.input.shape)).astype(np.int8)
    expected, board = interpret.run_joined(graph, images), find_board(BOARDS[core])
    np.testing.assert_array_equal(Evaluator(graph).run(images), expected)
    apart = interpret.run(graph, images)
    assert [part.shape[1:] for part in apart] == [tensor.shape for tensor in graph.results]
    np.testing.assert_array_equal(np.concatenate([part.reshape(3, -1) for part in apart], 1), expected.reshape(3, -1))
    patched = plan_hybrid(graph, 2.0)
    ways = [layers(graph, Kernels(kernels), board) for kernels in ("fast", "reference")]
    ways += [FastSteps(patched.program, patched.arena, core), Partial()(graph, board, Kernels())]
    for steps in ways:
        memory.verify(steps.program, steps.arena)
        np.testing.assert_array_equal(run_schedule.run(steps.program, steps.arena, images[0]), expected[0])
        artifact = emit_steps(steps, "test")
        np.testing.assert_array_equal(on_host(artifact, images, expected.shape[1:]), expected)
        if shutil.which(CROSS_COMPILER):
            np.testing.assert_array_equal(on_core(artifact, images, expected.shape[1:], core), expected)


def test_a_plan_that_lets_an_output_die_is_caught() -> None:
    """Plans of the same network with one output, whose inner tensors make room for later ones."""
    row = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)))
    graph = tr.quantize(tr.export(row, SHAPE), images_for(Detector(), 8, 0))
    program, arena = memory.place_reference(graph)
    more = replace(graph, outputs=(*graph.outputs, "conv2"))
    with pytest.raises(ValueError, match=r"the end: byte \d+ no longer holds conv2\[0,0,0\]"):
        memory.verify(replace(program, graph=more), arena)
    with pytest.raises(ValueError, match=r"conv\d: conv\d at .* overlaps conv2 at"):
        memory.verify_plan(more, memory.plan(graph))
    memory.verify(*memory.place_reference(more))
    memory.verify_plan(more, memory.plan(more))


def test_what_is_no_output_of_its_own_is_refused() -> None:
    graph = detector()
    refused = {
        ("scores", "boxes", "scores"): "output scores is there twice",
        ("scores", "input"): "output input is the network's input",
        ("scores", "nothing"): "output nothing is never written",
    }
    for outputs, words in refused.items():
        with pytest.raises(ValueError, match=words):
            verify(replace(graph, outputs=outputs))
    tensors = graph.tensors | {"a b": replace(graph.tensors["conv1"], name="a b")}
    ops = [replace(op, inputs=tuple(name.replace("conv1", "a b") for name in op.inputs)) for op in graph.ops]
    named = graph.with_ops([replace(ops[0], output="a b"), *ops[1:]], tensors=tensors, outputs=("scores", "a b"))
    with pytest.raises(ValueError, match="an output's name is 'a b'; use letters"):
        tr.compile(named)


@pytest.mark.slow
def test_records_compare_all_and_count_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an output that nobody asks for the class a wrong byte is noticed; the labels are those of the scores."""
    graph, images = detector(), images_for(Detector(), 6, 1)
    source = tr.export(make(), name="detector")
    model = tr.compile(graph, "nucleo_l4r5zi", source=source)
    scores, boxes = interpret.run(graph, interpret.quantize_input(graph, images))
    labels = scores.reshape(6, -1).argmax(1)
    labels[0] += 1
    in_simulator = tr.measure(model, images, labels)
    assert in_simulator.bit_exact and in_simulator.correct == 5 and in_simulator.correct_float is not None
    with model.open("simulator") as target:
        found = target.run(interpret.quantize_input(graph, images)[0])
        assert target.info.outputs == (("scores", 5), ("boxes", 120)) and target.info.output_bytes == 125
    np.testing.assert_array_equal(found[0], scores[0])
    np.testing.assert_array_equal(found[1], boxes[0])
    on_host = model.open("host")
    assert tr.measure(model, images, labels, target="host").bit_exact

    class Wrong:
        """The host with a wrong last byte."""

        def measure(self, image: np.ndarray) -> object:
            run = on_host.measure(image)
            run.output.flat[-1] ^= 1
            return run

        def close(self) -> None:
            """Nothing to release."""

    monkeypatch.setattr(type(model), "open", lambda *_: Wrong())
    record = tr.measure(model, images, labels, target="host")
    assert not record.bit_exact and record.correct == 5


def test_the_table_in_c_and_in_the_manifest() -> None:
    artifact = tr.compile(detector()).artifact
    assert "#define TR_OUTPUTS 2\n" in artifact.files["model.h"] and "#define TR_OUTPUT_BYTES 125\n" in artifact.files["model.h"]
    assert '{"scores", tr_arena + ' in artifact.files["model.c"] and ", 120}, /* 6x5x4, scale " in artifact.files["model.c"]
    assert [entry["name"] for entry in artifact.manifest["outputs"]] == ["scores", "boxes"]
    assert artifact.manifest["output"] == artifact.manifest["outputs"][0]
    one = tr.compile(replace(detector(), outputs=("scores",))).artifact
    assert "outputs" not in one.manifest and not any("TR_OUTPUTS" in text for text in one.files.values())


@pytest.mark.slow
def test_a_served_board_answers_with_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a file of the user's to the verb `run`; the test vectors hold all outputs of an image, one after the other."""
    folder = tmp_path / "made"
    own = shutil.copy(__file__, tmp_path)  # frames of this folder are not a user's
    assert main(["compile", f"{own}:make", "--data", "random", "--images", "2", "--out", str(folder)]) == 0
    board = find_board("disco_f469ni")
    vectors = np.frombuffer((folder / "outputs.bin").read_bytes(), np.int8).reshape(2, 125)
    served = serve_simulator(build_firmware(folder, board).elf, board)
    thread = threading.Thread(target=served.serve)
    thread.start()
    capsys.readouterr()
    try:
        assert main(["run", str(folder / "inputs.bin"), "--index", "1", "--port", str(served.port), "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert main(["run", str(folder / "inputs.bin"), "--index", "1", "--port", str(served.port)]) == 0
        text = capsys.readouterr().out
    finally:
        served.stop()
        thread.join(10.0)
    assert answer["output"] == vectors[1].tolist()
    assert answer["outputs"] == {"scores": vectors[1][:5].tolist(), "boxes": vectors[1][5:].tolist()}
    assert f"output scores {vectors[1][:5].tolist()}\noutput boxes [" in text


def test_no_head_is_unimportant() -> None:
    """Skipping weighs the errors of each output, or it would leave out the heads behind which no label stands."""
    graph = detector()
    found = importances(graph, interpret.quantize_input(graph, images_for(Detector(), 8, 2)))
    assert found.keys() == {op.name for op in graph.ops if hasattr(op, "weights")}
    assert all(values.max() > 0 for values in found.values())


def test_training_refuses_in_words() -> None:
    with pytest.raises(
        ValueError, match="returns a dict, expected the logits of the classes alone: train it with your own losses"
    ):
        loop.predictions(make(), images_for(Detector(), 2, 0))
