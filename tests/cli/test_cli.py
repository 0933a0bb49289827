"""Every verb of the command line: exit codes, one JSON object, one-sentence errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tinyredux.cli import app as cli
from tinyredux.cli.verbs import VERBS
from tinyredux.course.claims import Evidence
from tinyredux.settings import Settings, compile_net

NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 3 * 3, 5))
    net.input_shape = (3, 7, 7)
    return net

def wide():
    net = nn.Sequential(nn.Conv2d(3, 512, 1), nn.ReLU(), nn.Conv2d(512, 2, 1))
    net.input_shape = (3, 32, 32)
    return net

def odd():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid())
    net.input_shape = (3, 7, 7)
    return net
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with small networks of a user's."""
    path = tmp_path_factory.mktemp("nets") / "mine.py"
    path.write_text(NET)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object], str]:
    """Returns exit code, the JSON object on standard output, and standard error."""
    code = cli.main([*arguments, "--json"])
    captured = capsys.readouterr()
    (line,) = captured.out.strip().splitlines()
    return code, json.loads(line), captured.err


def test_every_verb_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for name in VERBS:
        with pytest.raises(SystemExit) as ended:
            cli.main([name, "--help"])
        assert ended.value.code == 0
        assert f"example: python -m tinyredux {name}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("target", ["host", "simulator"])
def test_measure_reports_the_contract(capsys: pytest.CaptureFixture[str], net: Path, target: str) -> None:
    code, record, _ = run(capsys, "measure", f"{net}:make", "--target", target, "--images", "3", "--data", "random")
    assert code == 0 and record["bit_exact"] is True and record["images"] == 3 and record["accuracy"] is None
    assert record["macs_dense"] == 4 * 27 * 9 + 36 * 5
    sram = record["sram_bytes"]
    assert isinstance(sram, dict) and sram["arena"] >= 148 + 36  # input 7x7x3, up to the next word, and output 3x3x4
    if target == "simulator":
        assert record["cycles_kind"] == "modelled" and sum(op["cycles"] for op in record["per_op"]) == record["cycles"]
        assert sram["total"] == sram["arena"] + sram["scratch"] + sram["stack"] + sram["static"]
        assert record["instructions"] > 0 and record["fits"] is True


def test_equal_input_gives_equal_bytes_wherever_it_lies(capsys: pytest.CaptureFixture[str], net: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / net.name
    elsewhere.write_text(NET)
    for name, path in (("a", net), ("b", elsewhere)):
        assert run(capsys, "compile", f"{path}:make", "--data", "random", "--out", str(tmp_path / name))[0] == 0
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == [
        "fast.S", "fast_host.c", "inputs.bin", "manifest.json", "model.c", "model.h", "outputs.bin", "weights.S", "weights.bin",
    ]  # fmt: skip
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_what_does_not_fit_is_a_no(capsys: pytest.CaptureFixture[str], net: Path) -> None:
    """Other mistakes are in test_wrong_uses.py and test_wrong_files.py."""
    code, answer, error = run(capsys, "measure", f"{net}:wide", "--data", "random")
    assert code == 1 == answer["exit"] and answer["fits"] is False and all(word in error for word in ("SRAM", "327680", "conv1"))
    code, answer, error = run(capsys, "measure", f"{net}:make", "--data", "random", "--target", "board:/dev/nonesuch")
    assert code == 3 == answer["exit"] and "/dev/nonesuch" in error and "Traceback" not in error


def test_debug_shows_the_traceback(net: Path) -> None:
    command = [sys.executable, "-m", "tinyredux", "measure", f"{net}:odd", "--data", "random", "--debug"]
    assert "Traceback" in subprocess.run(command, capture_output=True, text=True).stderr


def test_a_claim_may_be_a_mean_over_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, cycles in (("a", 80), ("b", 100), ("c", 30), ("d", 40)):
        (tmp_path / name).write_text(json.dumps({"cycles": cycles}))
    monkeypatch.setattr("tinyredux.course.claims.ROOT", tmp_path)
    pairs = (("a#cycles", "b#cycles"), ("c#cycles", "d#cycles"))
    assert Evidence(pairs, (), 100, fewer=True).value() == 22.5
    assert Evidence((*pairs, ("a#cycles", "none#cycles")), ()).value() is None


def test_the_other_verbs_answer(capsys: pytest.CaptureFixture[str], net: Path) -> None:
    code, plan, _ = run(capsys, "plan", f"{net}:make", "--data", "random", "--method", "partial")
    peak = plan["peak_bytes"]
    assert code == 0 and 147 <= peak["partial"] <= peak["layerwise"] >= peak["reordered"]  # type: ignore[index]
    assert run(capsys, "plan", f"{net}:make", "--data", "random", "--sram", "100")[0] == 1
    code, bench, _ = run(capsys, "bench", "--layer", "dense:64-10")
    assert code == 0 and bench["layers"][0]["cycles"] > 0  # type: ignore[index]
    code, labs, _ = run(capsys, "lab", "list")
    assert code == 0 and [lab["lab"][:4] for lab in labs["labs"]] == [f"lab{i}" for i in range(7)]  # type: ignore[attr-defined]
    code, nets, _ = run(capsys, "nets")
    assert code == 0 and {"cifarnet", "lenet"} <= {entry["name"] for entry in nets["nets"]}  # type: ignore[attr-defined]
    assert run(capsys, "flash", "gone", "--port", "/dev/nonesuch")[0] == 2
    assert run(capsys, "serial", "info", "--port", "/dev/nonesuch")[0] == 3


def test_simulate_runs_a_firmware(capsys: pytest.CaptureFixture[str], net: Path, tmp_path: Path) -> None:
    firmware = compile_net(Settings(f"{net}:make", data="random")).model.build()
    requests = tmp_path / "requests"
    requests.write_text("measure 1\nhalt\n")
    command = ("simulate", str(firmware.elf), "--board", "disco_f469ni", "--input", str(requests), "--symbols")
    code, result, _ = run(capsys, *command)
    assert code == 0 and result["exit"] == 0 and "measured repeats=1" in str(result["console"])
    assert result["cycles"] == result["cycles_core"] + result["cycles_memory"]  # type: ignore[operator]
    assert "tr_model_run" in {entry["name"] for entry in result["functions"]}  # type: ignore[attr-defined]
    assert run(capsys, *command, "--max-instructions", "1000")[0] == 3
