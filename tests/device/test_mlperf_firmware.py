"""The firmware that answers MLPerf Tiny's runner, on a simulated board behind a pseudo-terminal; tests play the runner."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import serial

import tinyredux
from tinyredux import datasets, load_tflite
from tinyredux.boards import board_names, find_board
from tinyredux.device import build_firmware
from tinyredux.device.served import serve_simulator
from tinyredux.explore import mlperf
from tinyredux.graph import Dense, Graph, Quant, Tensor
from tinyredux.int8 import interpret

Bytes = npt.NDArray[np.int8]
BOARD = "nucleo_l4r5zi"
BYTES = 31  # of a db line, as the benchmark's runner sends them
AD = {"input": (0.391015232, 89), "output": (0.364498466, 96)}  # scale and zero point of ad01_int8.tflite


class Runner:
    """What the benchmark's runner does: a command with a per cent sign, and lines until m-ready."""

    def __init__(self, line: serial.Serial) -> None:
        self.line = line

    def ask(self, command: str) -> list[str]:
        self.line.write(f"{command}%".encode())
        return self.answer()

    def answer(self) -> list[str]:
        lines: list[str] = []
        while not lines or lines[-1] != "m-ready":
            read = self.line.readline().decode()
            assert read.endswith("\r\n"), f"silence after {lines} {read!r}"
            lines.append(read.strip())
        return lines[:-1]

    def load(self, data: bytes) -> None:
        assert self.ask(f"db load {len(data)}") == [f"m-[Expecting {len(data)} bytes]"]
        answers = [self.ask(f"db {data[i : i + BYTES].hex()}") for i in range(0, len(data), BYTES)]
        assert answers[-1] == ["m-load-done"] and not any(answers[:-1])

    def infer(self, times: int, warmups: int) -> tuple[list[float], float]:
        """Returns the results and the microseconds of one inference."""
        lines = self.ask(f"infer {times} {warmups}")
        before = [f"m-warmup-start-{warmups}", "m-warmup-done", f"m-infer-start-{times}"]
        assert lines[:3] == before and lines[5] == "m-infer-done" and len(lines) == 7
        first, last = (int(line.removeprefix("m-lap-us-")) for line in lines[3:5])
        found = re.fullmatch(r"m-results-\[(.*)\]", lines[6])
        assert found and self.ask("results") == [lines[6]]
        return [float(value) for value in found[1].split(",")], (last - first) / times


@contextmanager
def served(graph: Graph, folder: Path, kernels: str = "reference") -> Iterator[Runner]:
    """Serves the program with a model, and returns the runner that has heard it start."""
    model = tinyredux.compile(graph, BOARD, kernels=kernels)
    firmware = build_firmware(model.write(folder / "model"), model.board, program="mlperf")
    board = serve_simulator(firmware.elf, model.board)
    thread = threading.Thread(target=board.serve)
    thread.start()
    try:
        with serial.Serial(str(board.port), 115200, timeout=20) as line:
            runner = Runner(line)
            mode, lap, done = runner.answer()
            assert (mode, done) == ("m-timestamp-mode-performance", "m-init-done") and lap.startswith("m-lap-us-")
            yield runner
    finally:
        board.stop()
        thread.join(10.0)


def dense(name: str, count: int, outputs: int, scale: float, zero_point: int, last: Quant) -> Graph:
    """Returns an int8 network of one layer of random weights."""
    chance = np.random.default_rng(0)
    constants = {"w": chance.integers(-127, 128, (outputs, count), np.int8), "b": chance.integers(-999, 999, outputs, np.int32)}
    tensors = {
        "input": Tensor("input", (1, 1, count), "int8", Quant((scale,), zero_point)),
        "output": Tensor("output", (1, 1, outputs), "int8", last),
    }  # fmt: skip
    op = Dense("dense", ("input",), "output", "w", "b", weight_scale=(0.0002,) * outputs)
    return Graph(name, (op,), tensors, constants, ("input",), ("output",))


def expected(graph: Graph, values: Bytes) -> list[int]:
    """Returns what the interpreter gives for int8 values."""
    return [int(value) for value in interpret.run(graph, values.reshape(1, *graph.input.shape)).ravel()]


def test_words_of_the_runner(tmp_path: Path) -> None:
    """A model of none of the tests takes and gives its bytes; nonsense is answered by a line that begins with e-."""
    graph = dense("mine", 48, 5, 0.05, 3, Quant((0.05,), -4))
    data = np.random.default_rng(1).integers(-128, 128, 48, np.int8)
    with served(graph, tmp_path) as runner:
        assert runner.ask("name") == [f"m-name-dut-[tinyredux on {BOARD}]"]
        assert runner.ask("profile") == ["m-profile-[ULPMark for tinyML Firmware V0.0.1]", "m-model-[mine]"]
        assert "infer N W" in "".join(runner.ask("help")) and runner.ask("\r\ntimestamp")[0].startswith("m-lap-us-")
        nonsense = ("", "names", "infer", "db 00", "db load", "db load 49", "infer 0", "infer 1 x", "infer 1 2 3", "x" * 200)
        assert all(len(lines) == 1 and lines[0].startswith("e-[") for lines in map(runner.ask, nonsense))
        runner.load(data.tobytes())
        assert [runner.ask(f"db {word}")[0][:3] for word in ("0", "0g", "", "00")] == ["e-["] * 4
        for _ in range(2):  # the input is still there for the second one
            assert runner.infer(2, 1)[0] == expected(graph, data)
        assert [line for line in runner.ask("infer") if "start" in line] == ["m-warmup-start-10", "m-infer-start-1"]
        runner.load(bytes(48))
        assert runner.infer(1, 0)[0] == expected(graph, np.zeros(48, np.int8))


SOFTMAX = Quant((1 / 256,), -128)


@pytest.mark.parametrize(("name", "model", "pixels"), [("kws_ref_model", "kws01", 0), ("vww_96_int8", "vww01", 128)])
def test_classes_come_as_shares(name: str, model: str, pixels: int, tmp_path: Path) -> None:
    """Speech comes as int8 and pixels from 0 on; results have three digits."""
    graph = dense(name, 40, 12, 0.05, 3, SOFTMAX)
    data = np.random.default_rng(2).integers(-128, 128, 40, np.int8)
    with served(graph, tmp_path) as runner:
        assert f"m-model-[{model}]" in runner.ask("profile")
        runner.load(bytes(data.view(np.uint8) ^ pixels))
        shares, _ = runner.infer(1, 1)
    exact = [(value + 128) / 256 for value in expected(graph, data)]
    assert shares == pytest.approx(exact, abs=0.00051) and len(set(shares)) > 6


def test_the_autoencoder_gives_its_error(tmp_path: Path) -> None:
    """Features come as float32, those beyond the range too; the result is their mean squared difference from the output."""
    (scale, zero), (out_scale, out_zero) = AD["input"], AD["output"]
    graph = dense("ad01_int8", 40, 40, scale, zero, Quant((out_scale,), out_zero))
    real = np.random.default_rng(3).normal(-20, 12, 40).astype(np.float32)
    real[:2] = -1e9, 500.0
    real[2:4] = scale * 0.5, -scale * 0.5  # halves go away from zero
    stored = np.clip(np.trunc(real / np.float32(scale) + np.copysign(0.5, real)) + zero, -128, 127).astype(np.int8)
    with served(graph, tmp_path) as runner:
        assert "m-model-[ad01]" in runner.ask("profile")
        for values in (real, np.zeros(40, np.float32)):
            runner.load(values.tobytes())
            (error,), _ = runner.infer(1, 0)
            ours = stored if values is real else np.full(40, zero, np.int8)
            differ = out_scale * (np.array(expected(graph, ours)) - out_zero) - values
            assert error == pytest.approx(min(4294967.295, float(np.mean(differ**2))), abs=0.002)


@pytest.mark.parametrize("board", board_names())
def test_it_builds_for_every_board_of_the_book(board: str, tmp_path: Path) -> None:
    chip = find_board(board)
    model = tinyredux.compile(dense("mine", 48, 5, 0.05, 3, SOFTMAX), board, kernels="reference")
    sources = model.write(tmp_path)
    usual, ours = build_firmware(sources, chip), build_firmware(sources, chip, program="mlperf")
    assert usual.elf != ours.elf and ours.bss_bytes > usual.bss_bytes and ours.data_bytes == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["IC", "KWS", "VWW", "AD"])
def test_the_benchmarks_own_files(name: str, tmp_path: Path) -> None:
    """Results are the interpreter's, and the time is that of the cycles which `mlperf` measures, a copy of the input beside."""
    try:
        path = mlperf.find_files()[name]
    except (datasets.MissingDataError, KeyError):
        pytest.skip(f"the file of {name} is missing")
    test = next(one for one in mlperf.tests() if one.name == name)
    graph = load_tflite(path)
    values = mlperf.inputs(test, graph)[0][0]
    real = (values.astype(np.float32) - AD["input"][1]) * np.float32(AD["input"][0])
    data = {"AD": real.tobytes(), "KWS": values.tobytes()}.get(name, bytes(values.view(np.uint8) ^ 128))
    with served(graph, tmp_path, "fast") as runner:
        assert f"m-model-[{name.lower()}01]" in runner.ask("profile")
        runner.load(data)
        results, microseconds = runner.infer(1, 1)
    if name != "AD":
        exact = [(value + 128) / 256 for value in expected(graph, values)]
        assert results == pytest.approx(exact, abs=0.00051)
    else:
        off = AD["output"][0] * (np.array(expected(graph, values)) - AD["output"][1]) - real.ravel()
        assert results == pytest.approx([float(np.mean(off**2))], rel=1e-4)
    cycles = mlperf.measure(test, path, images=1)["cycles"]
    assert cycles < microseconds * 120 < 1.02 * cycles + 1000
