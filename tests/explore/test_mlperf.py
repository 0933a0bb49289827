"""The table of MLPerf Tiny: which files it wants, what a row holds, what it says without files and without LiteRT."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tflite_models import drawn_model

from tinyredux import load_tflite
from tinyredux.cli import app as cli
from tinyredux.datasets import MissingDataError
from tinyredux.explore import mlperf

TESTS = mlperf.tests()


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a folder with drawn networks in the place of the benchmark's files of KWS and AD."""
    sums = {}
    for seed, test in enumerate(TESTS):
        if test.name in ("KWS", "AD"):
            (tmp_path / test.file).write_bytes(drawn_model(seed))
            sums[test.name] = hashlib.sha256(drawn_model(seed)).hexdigest()
    known = tuple(replace(test, data=None, sha256=sums.get(test.name, test.sha256)) for test in TESTS)
    monkeypatch.setattr(mlperf, "tests", lambda: known)
    return tmp_path


def test_without_files_a_sentence_says_which_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TINYREDUX_DATA", str(tmp_path))
    assert cli.main(["mlperf"]) == 3
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "--record" in said and "$TINYREDUX_DATA/mlperf_tiny" in said
    for test in TESTS:
        assert all(word in said for word in (test.file, test.sha256, test.folder, "https://github.com/mlcommons/tiny"))
    monkeypatch.delenv("TINYREDUX_DATA")
    with pytest.raises(MissingDataError, match="TINYREDUX_DATA is not set"):
        mlperf.find_files()


def test_another_file_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / TESTS[0].file).write_bytes(b"another")
    with pytest.raises(ValueError, match=rf"{TESTS[0].file} has sha256 \w+, expected {TESTS[0].sha256}"):
        mlperf.find_files(tmp_path)


@pytest.mark.parametrize(("rounding", "boards"), [("double", ("nucleo_l4r5zi", "nucleo_f746zg")), ("single", ("nucleo_l4r5zi",))])
def test_the_table_has_the_files_that_are_there(
    rounding: str, boards: tuple[str, ...], stand_in: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["mlperf", "--folder", str(stand_in), "--rounding", rounding, "--images", "1", "--json"]
    assert cli.main([*words, *(word for board in boards for word in ("--board", board))]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["test"], row["board"]) for row in rows] == [(test, board) for board in boards for test in ("KWS", "AD")]
    for row in rows:
        assert row["bit_exact"] and row["data"] == "random" and row["correct"] is None and row["cycles"] > 0
        assert (row["oracle"], row["oracle_differs"]) == {"double": ("not compared", None), "single": ("LiteRT", 0)}[rounding]
        assert row["published"] == mlperf.best(row["test"], row["board"]) and row["cycles_kind"].startswith("modelled")
    shown, (low, high) = mlperf.table(rows), rows[0]["error_band"]
    assert shown[0]["on_a_board"] == f"{rows[0]['cycles'] * low / 1e6:.3g} to {rows[0]['cycles'] * high / 1e6:.3g}"
    assert shown[0]["equals"] == f"interpreter, {'oracle not compared' if rounding == 'double' else 'LiteRT'}"


def test_without_litert_nothing_is_compared(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    row = next(mlperf.mlperf(rounding="single", images=1, folder=stand_in))
    assert row["bit_exact"] and row["oracle_differs"] is None and row["oracle"] == "not compared"


def test_a_byte_that_differs_is_a_no(stand_in: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    row = mlperf.measure(TESTS[4], stand_in / TESTS[4].file, images=1)
    no = ({"bit_exact": False}, "NOT interpreter"), ({"oracle": "LiteRT", "oracle_differs": 3}, "NOT LiteRT (3)")
    for change, words in (({}, "interpreter"), *no):
        monkeypatch.setattr(mlperf, "measure", lambda *given, change=change: row | change)
        assert cli.main(["mlperf", "--folder", str(stand_in)]) == int(bool(change)) and words in capsys.readouterr().out


def test_more_images_than_inputs_are_refused(stand_in: Path) -> None:
    with pytest.raises(ValueError, match=r"images is 101, expected 1 to 100, the inputs of AD"):
        mlperf.measure(TESTS[4], stand_in / TESTS[4].file, images=101)


def test_the_best_of_others_is_the_least_of_a_board() -> None:
    assert mlperf.best("IC", "nucleo_l4r5zi") == {"by": "ST", "version": "v1.2", "million_cycles": 19.8}
    assert mlperf.best("IC02", "nucleo_l4r5zi") is None and mlperf.best("IC", "disco_f469ni") is None
    known = {test.name for test in TESTS}
    for row in mlperf.facts()["published"]:
        assert set(row["million_cycles"]) <= known and row["beside"] in (
            None,
            "nucleo_l4r5zi",
            "nucleo_u575zi_q",
            "nucleo_f746zg",
        )


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.name)
def test_real_inputs_are_the_bytes_that_the_file_takes(test: mlperf.Test) -> None:
    try:
        graph = load_tflite(mlperf.find_files()[test.name])
    except (MissingDataError, KeyError):
        pytest.skip("the benchmark's file is missing")
    values, labels, data = mlperf.inputs(test, graph)
    assert values.dtype == np.int8 and values.shape[1:] == graph.input.shape and (labels is None) == (data == "random")
    assert labels is None or (len(labels) == len(values) and 0 <= labels.min() and labels.max() < graph.output.elements)


def test_the_record_is_whole_and_every_byte_in_it_equal() -> None:
    record = json.loads(mlperf.RECORD.read_text())
    assert {(row["test"], row["board"], row["rounding"]) for row in record["rows"]} == {
        (test.name, board, rounding)
        for test in TESTS
        for board in ("nucleo_l4r5zi", "nucleo_u575zi_q", "nucleo_f746zg")
        for rounding in ("double", "single")
    }
    assert all(row["bit_exact"] and not row["oracle_differs"] for row in record["rows"])
    compared = {(row["test"], row["rounding"]) for row in record["compared"]}
    assert {(test.name, rounding) for test in TESTS for rounding in ("double", "single")} == compared
    assert all(row["random_inputs"] == 100 for row in record["compared"])
    assert all(set(row["differ"].values()) == {0} and len(row["differ"]) == 4 for row in record["compared"])
    once = {row["test"]: row for row in record["counted"] if row["rounding"] == "single"}
    assert {name: row["images"] for name, row in once.items()} == {"IC": 10000, "IC02": 10000, "KWS": 1000}
    assert all(not row["images_that_differ_from_litert"] and row["correct"] == row["correct_litert"] for row in once.values())
    assert record["published"] == mlperf.facts()["published"]


def test_the_record_is_shown_without_files(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("TINYREDUX_DATA", raising=False)
    assert cli.main(["mlperf", "--record", "--rounding", "single"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and [line.split()[0] for line in lines[1:]] == [test.name for test in TESTS]
    with pytest.raises(ValueError, match=r"the record has no rows of disco_f469ni; it has those of nucleo_f746zg, .*"):
        mlperf.recorded(("disco_f469ni", "nucleo_l4r5zi"))
