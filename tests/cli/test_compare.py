"""Two records side by side: changes, limits that hold in CI, folders of two commits, CSV and LaTeX."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyredux.cli import app as cli
from tinyredux.comparison import FIGURES, compare
from tinyredux.files import ROOT
from tinyredux.measurement import load
from tinyredux.provenance import provenance

RECORD = load(ROOT / "data" / "records" / "lenet.exact.fast.disco_f469ni.simulator.cifar10.json")


def test_a_record_beside_itself_has_no_changes() -> None:
    same = compare(RECORD, RECORD)
    assert not same.settings and {row.change for row in [*same.figures, *same.operators]} == {0}
    assert [row.figure for row in same.figures] == [*FIGURES] and same.worse(dict.fromkeys(FIGURES, 0.0)) == []


@given(cycles=st.integers(1, 10**9), percent=st.floats(-90, 900), limit=st.floats(0, 900))
def test_a_limit_is_in_percent_of_the_first_record(cycles: int, percent: float, limit: float) -> None:
    later = round(cycles * (1 + percent / 100))
    found = compare(replace(RECORD, cycles=cycles), replace(RECORD, cycles=later))
    assert bool(found.worse({"cycles": limit})) == (100 * (later - cycles) / cycles > limit)


@pytest.mark.parametrize(
    ("after", "limit", "broken"), [(0.7, 9.9, True), (0.7, 10.1, False), (0.9, 0.0, False), (None, 9.0, True)]
)
def test_accuracy_is_worse_where_it_is_less_and_a_missing_figure_breaks_its_limit(
    after: float | None, limit: float, broken: bool
) -> None:
    found = compare(replace(RECORD, accuracy=0.8), replace(RECORD, accuracy=after))
    assert bool(found.worse({"accuracy": limit})) is broken


def test_wrong_outputs_and_what_does_not_fit_are_always_worse() -> None:
    assert "bit-exact" in str(compare(RECORD, replace(RECORD, bit_exact=False)).worse({}))
    assert "does not fit" in str(compare(RECORD, replace(RECORD, fits=False)).worse({}))


def test_folders_of_two_commits_and_three_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for folder, cycles, names in ((a, 1000, ("x", "y")), (b, 1030, ("x", "z"))):
        for name in names:
            replace(RECORD, cycles=cycles, commit=folder.name, kernels="fa_st").save(folder / f"{name}.json")
    (b / "other.json").write_text('{"no": "record"}')
    assert cli.main(["compare", str(a), str(b), "--limit", "cycles=2.9", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["worse"] == ["x: cycles 1,000 -> 1,030 is worse by 3.00 %, allowed 2.9"]
    assert answer["records"][0]["settings"] == {"commit": ["a", "b"]} and "y.json" in str(answer["unpaired"])
    assert cli.main(["compare", str(a), str(b), "--limit", "cycles=3"]) == 0
    assert "x: commit a -> b" in capsys.readouterr().out
    assert cli.main(["compare", str(a), str(b), "--format", "csv"]) == 0
    assert "\nx,cycles,1000,1030,3.0\n" in capsys.readouterr().out
    (a / "x.json").rename(a / "x_1.json")
    (b / "x.json").rename(b / "x_1.json")
    assert cli.main(["compare", str(a), str(b), "--format", "latex"]) == 0
    assert "x\\_1 & cycles & 1,000 & 1,030 & 3 \\\\" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--limit", "speed=2"], "expected a figure"),
        (["--limit", "cycles=fast"], "such as cycles=2"),
        (["--at-most", "2"], "take --limit"),
    ],
)
def test_wrong_words_are_refused(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(RECORD.save(tmp_path / "record.json"))
    assert cli.main(["compare", path, path, *words]) == 2 and said in capsys.readouterr().err
    assert cli.main(["compare", path, str(tmp_path)]) == 2 and "two folders of records" in capsys.readouterr().err


def test_a_record_says_where_it_comes_from_and_names_no_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["measure", "lenet", "--data", "random", "--target", "host", "--images", "1", "--seed", "3"]
    assert cli.main([*words, "--out", str(tmp_path), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["command"] == "python -m tinyredux measure lenet --target host --images 1 --data random --seed 3"
    assert record["seed"] == 3 and provenance().items() <= record.items() and str(Path.home()) not in str(provenance())
    (saved,) = tmp_path.glob("*.json")
    assert json.loads(saved.read_text()) == record
