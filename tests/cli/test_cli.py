"""Every verb of the command line: exit codes, one JSON object, one-sentence errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import user_nets

from tinyredux.boards import BOARD_FOLDER
from tinyredux.cli import app as cli
from tinyredux.cli.verbs import VERBS
from tinyredux.course.claims import Evidence
from tinyredux.settings import Settings, compile_net

NET = user_nets.__file__


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
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


def test_boards_lists_what_is_built_in_and_a_users_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYREDUX_BOARDS", str(tmp_path))
    fields = json.loads((BOARD_FOLDER / "disco_f469ni.json").read_text()) | {"name": "mine"}
    (tmp_path / "mine.json").write_text(json.dumps(fields))
    code, listed, _ = run(capsys, "boards")
    names = [board["name"] for board in listed["boards"]]
    assert code == 0 and set(names) == {path.stem for path in BOARD_FOLDER.rglob("*.json")} | {"mine"}
    assert cli.main(["boards"]) == 0 and "rpi_pico2" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["host", "simulator"])
def test_measure_reports_the_contract(capsys: pytest.CaptureFixture[str], target: str) -> None:
    code, record, _ = run(capsys, "measure", f"{NET}:make", "--target", target, "--images", "3", "--data", "random")
    assert code == 0 and record["bit_exact"] is True and record["images"] == 3 and record["accuracy"] is None
    assert record["macs_dense"] == 4 * 27 * 9 + 36 * 5
    sram = record["sram_bytes"]
    assert sram["arena"] >= 148 + 36  # input 7x7x3, up to the next word, and output 3x3x4
    if target == "simulator":
        assert record["cycles_kind"] == "modelled" and sum(op["cycles"] for op in record["per_op"]) == record["cycles"]
        assert sram["total"] == sram["arena"] + sram["scratch"] + sram["stack"] + sram["static"]
        assert record["instructions"] > 0 and record["fits"] is True


def test_equal_input_gives_equal_bytes_wherever_it_lies(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    elsewhere = shutil.copy(NET, tmp_path)
    for name, path in (("a", NET), ("b", elsewhere)):
        assert run(capsys, "compile", f"{path}:make", "--data", "random", "--out", str(tmp_path / name))[0] == 0
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == [
        "fast.S", "fast_host.c", "inputs.bin", "manifest.json", "model.c", "model.h", "outputs.bin", "weights.S", "weights.bin",
    ]  # fmt: skip
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_what_does_not_fit_is_a_no(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Other mistakes are in test_wrong_uses.py and test_wrong_files.py."""
    board = json.loads((BOARD_FOLDER / "disco_f469ni.json").read_text())
    (tmp_path / "small.json").write_text(json.dumps(board | {"sram": [board["sram"][0] | {"size_bytes": 6144}]}))
    code, answer, error = run(capsys, "measure", f"{NET}:two", "--data", "random", "--board", str(tmp_path / "small.json"))
    assert code == 1 == answer["exit"] and answer["fits"] is False and all(word in error for word in ("SRAM", "6144", "conv1"))
    code, answer, error = run(capsys, "measure", f"{NET}:make", "--data", "random", "--target", "board:/dev/nonesuch")
    assert code == 3 == answer["exit"] and "/dev/nonesuch" in error and "Traceback" not in error
    assert cli.main(["measure", f"{NET}:odd", "--data", "random", "--debug"]) == 2 and "Traceback" in capsys.readouterr().err


def test_a_claim_may_be_a_mean_over_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, cycles in (("a", 80), ("b", 100), ("c", 30), ("d", 40)):
        (tmp_path / name).write_text(json.dumps({"cycles": cycles}))
    monkeypatch.setattr("tinyredux.course.claims.ROOT", tmp_path)
    pairs = (("a#cycles", "b#cycles"), ("c#cycles", "d#cycles"))
    assert Evidence(pairs, (), 100, fewer=True).value() == 22.5
    assert Evidence((*pairs, ("a#cycles", "none#cycles")), ()).value() is None


def test_the_other_verbs_answer(capsys: pytest.CaptureFixture[str]) -> None:
    code, plan, _ = run(capsys, "plan", f"{NET}:make", "--data", "random", "--method", "partial")
    peak = plan["peak_bytes"]
    assert code == 0 and 147 <= peak["partial"] <= peak["layerwise"] >= peak["reordered"]
    assert run(capsys, "plan", f"{NET}:make", "--data", "random", "--sram", "100")[0] == 1
    code, plan, _ = run(capsys, "plan", f"{NET}:make", "--data", "random", "--board", "nucleo_l4r5zi", "--curve")
    assert code == 0 and "fits nucleo_l4r5zi" in plan["answer"] and plan["ways"][0] in plan["curve"]
    code, bench, _ = run(capsys, "bench", "--layer", "dense:64-10")
    assert code == 0 and bench["layers"][0]["cycles"] > 0
    code, labs, _ = run(capsys, "lab", "list")
    assert code == 0 and [lab["lab"][:4] for lab in labs["labs"]] == [f"lab{i}" for i in range(9)]
    code, nets, _ = run(capsys, "nets")
    assert code == 0 and {"cifarnet", "lenet"} <= {entry["name"] for entry in nets["nets"]}


def test_simulate_runs_a_firmware(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    firmware = compile_net(Settings(f"{NET}:make", data="random")).model.build()
    requests = tmp_path / "requests"
    requests.write_text("measure 1\nhalt\n")
    command = ("simulate", str(firmware.elf), "--board", "disco_f469ni", "--input", str(requests), "--symbols")
    code, result, _ = run(capsys, *command)
    assert code == 0 and result["exit"] == 0 and "measured repeats=1" in str(result["console"])
    assert result["cycles"] == result["cycles_core"] + result["cycles_memory"]
    assert "tr_model_run" in {entry["name"] for entry in result["functions"]}
    assert run(capsys, *command, "--max-instructions", "1000")[0] == 3
