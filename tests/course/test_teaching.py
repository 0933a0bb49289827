"""Labs: the library's own function passes each check, a planted fault fails it, and no verdict tells the solution."""

from __future__ import annotations

import inspect
import json
from itertools import permutations
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

from tinyredux import memory
from tinyredux.course import book, exercises, handout, labs, teaching

RIGHT: dict[str, Any] = {name: exercise.expected for name, exercise in exercises.EXERCISES.items()}
ORDERS = permutations(exercises.BRANCH_SIZES)
PLACEMENTS = (memory.first_fit(order, exercises.BRANCH_SIZES, exercises.BRANCH_SPANS, 1) for order in ORDERS)
RIGHT["lab2.by_hand"] = next(
    found for found in PLACEMENTS if memory.arena_end(exercises.BRANCH_SIZES, found) == exercises.BRANCH_BOUND
)
RIGHT["lab3.by_hand"] = ["expand+filter", "project+shortcut+sum+classify"]


class Equal(int):
    """Says that it equals whatever it is compared with."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


FAULTS: dict[str, tuple[Any, ...]] = {
    "chapter4.fields": (lambda total: [total % 2**21, (total >> 21) % 2**21, total >> 42],),
    "chapter5.intact": (lambda line: True, lambda line: "*" in line),
    "chapter7.rows_needed": (lambda rows, layers: rows + sum(kernel - 1 for kernel, _ in layers),),
    "chapter0.per_element": (lambda short, long: (long[1] // long[0], 0), lambda short, long: (long[1] - short[1], short[1])),
    "chapter1.store": (
        lambda real, scale, zero_point: round(real / scale) + zero_point,
        lambda real, scale, zero_point: max(-128, min(127, int(real / scale) + zero_point)),
    ),
    "chapter3.peak": (lambda sizes, spans: sum(sizes.values()), lambda sizes, spans: max(sizes.values())),
    "chapter13.outputs": (
        lambda size, kernel, stride, before, after: (size + 2 * before - kernel) // stride + 1,
        lambda size, kernel, stride, before, after: -(-(size + before + after - kernel) // stride) + 1,
    ),
    "chapter14.verdict": (
        lambda ours, low, high, higher: "reproduced" if low <= ours <= high else "exceeded" if ours > high else "not reproduced",
        lambda ours, low, high, higher: "reproduced",
    ),
    "lab1.round_shift": (
        lambda value, exponent: value >> exponent,
        lambda value, exponent: (value + (1 << exponent >> 1)) >> exponent,
        3,  # what the first case wants, in the place of a function
        lambda value, exponent: Equal(),
    ),
    "lab1.high_mul": (lambda a, b: (a * b) >> 31, lambda a, b: (a * b + 2**30) >> 31),
    "lab1.quantize_multiplier": (lambda real: (round(real * 2**31), 0),),
    "lab1.requantize": (lambda a, m, s, z: max(-128, min(127, round(a * m * 2.0 ** (s - 31)) + z)), lambda a, m, s, z: z),
    "lab4.hash_ids": (
        lambda projections: [sum((value > 0) << h for h, value in enumerate(row)) for row in projections],
        lambda projections: [0 for _ in projections],
    ),
    "lab4.stack": (lambda ids: (ids, [ids.count(each) for each in ids]),),
    "lab4.mean": (lambda total, count: round(total / count), lambda total, count: total // count),
    "lab4.clustered_sums": (
        lambda rows, weights, bits: [[sum(map(int.__mul__, row, each)) for each in weights] for row in rows],
    ),
    "lab2.by_hand": ({name: 0 for name in exercises.BRANCH_SIZES}, {"input": 0}, None),
    "lab3.by_hand": (
        ["expand", "filter", "project", "shortcut", "sum", "classify"],
        ["expand+filter+project", "shortcut", "sum", "classify"],
        ["expand+filter", "shortcut", "project", "sum", "classify"],
        ["filter", "expand", "project", "shortcut", "sum", "classify"],
        ["expand+filter", "project", "sum", "classify"],
        ["expand+shortcut", "filter", "project", "sum", "classify"],
        "expand",
    ),
    "lab3.slice_bytes": (lambda h, w, i, o, c: h * w * (i + 2 * c + o),),
    "lab3.widest_slice": (lambda h, w, i, wide, o, budget: wide,),
    "lab2.place": (lambda sizes, spans: dict.fromkeys(sizes, 0), lambda sizes, spans: {}),
    "lab5.share": (
        lambda weights, inputs: [abs(weight) for weight in weights],
        lambda weights, inputs: [
            abs(w) * sum(row[i] for row in inputs) / len(inputs) / max(1, sum(map(abs, weights))) for i, w in enumerate(weights)
        ],
        lambda weights, inputs: [  # the mean first, then its absolute value
            abs(w * sum(row[i] for row in inputs) / len(inputs))
            / max(1.0, abs(sum(sum(map(int.__mul__, weights, row)) for row in inputs) / len(inputs)))
            for i, w in enumerate(weights)
        ],
        lambda weights, inputs: [str(each) for each in exercises.EXERCISES["lab5.share"].expected(weights, inputs)],
        None,
    ),
    "lab5.saved": (
        lambda unimportant: sum(unimportant) // 2,
        lambda u: sum(a and b for a, b in zip(u[::2], u[1::2], strict=False)),
    ),
    "lab5.repaired_bias": (lambda weights, kept, means, bias: bias, lambda weights, kept, means, bias: bias - round(sum(means))),
    "lab5.front": (sorted, lambda points: points[:1]),
}


def test_a_right_answer_may_be_written_in_other_ways() -> None:
    assert teaching.check("lab3.by_hand", ("expand + filter", "shortcut+project+sum+classify")).passed
    assert teaching.check(
        "lab4.stack", lambda ids: [np.array(part) for part in exercises.EXERCISES["lab4.stack"].expected(ids)]
    ).passed
    assert teaching.check(
        "lab5.repaired_bias",
        lambda w, kept, means, bias: round(bias + sum(a * m for a, k, m in zip(w, kept, means, strict=True) if not k)),
    ).passed


@pytest.mark.parametrize("name", exercises.EXERCISES)
def test_the_librarys_own_answer_passes(name: str) -> None:
    for seed in range(3):
        verdict = teaching.check(name, RIGHT[name], seed)
        assert verdict.passed, verdict


@pytest.mark.parametrize("name", exercises.EXERCISES)
def test_planted_faults_fail_with_a_case(name: str) -> None:
    for fault in FAULTS[name]:
        verdict = teaching.check(name, fault)
        assert not verdict.passed and len(verdict.text.splitlines()) >= 2


def test_stubs_and_exceptions_are_shown_not_raised() -> None:
    def stub(value: int, exponent: int) -> int:
        raise NotImplementedError

    assert "not written yet" in teaching.check("lab1.round_shift", stub).text
    assert "raised ZeroDivisionError" in teaching.check("lab1.round_shift", lambda value, exponent: 1 // 0).text
    assert "is a return missing" in teaching.check("lab1.round_shift", lambda value, exponent: None).text


def test_a_verdict_and_hints_do_not_tell_the_solution() -> None:
    for name, exercise in exercises.EXERCISES.items():
        told = "".join(teaching.check(name, fault).text for fault in FAULTS[name]) + "".join(exercise.hints)
        body = inspect.getsource(exercise.expected).splitlines()[2:]
        assert not any(len(line.strip()) > 20 and line.strip() in told for line in body)


def test_hints_come_one_by_one() -> None:
    assert 'hint("lab1.round_shift", 2)' in teaching.hint("lab1.round_shift")
    with pytest.raises(ValueError, match="has hints 1 to"):
        teaching.hint("lab1.round_shift", 9)
    with pytest.raises(ValueError, match=r"no exercise 'nope'; there are lab1\.round_shift"):
        teaching.check("nope", 1)


def test_answers_cannot_change_the_cases() -> None:
    def greedy(sizes: dict[str, int], spans: Any) -> dict[str, int]:
        for name in sizes:
            sizes[name] = 0
        return dict.fromkeys(sizes, 0)

    assert not teaching.check("lab2.place", greedy).passed


def handed_in(lab: str, answers: dict[str, str], folder: Path, name: str) -> Path:
    """Writes a copy of a lab in which each stub's cell is replaced by an answer's source."""
    notebook = nbformat.read(book.find_chapter(lab), as_version=4)
    for cell in notebook.cells:
        for short, source in answers.items():
            if f'check("{lab}.{short}"' in cell.source:
                cell.source = source
    path = folder / name
    nbformat.write(notebook, path)
    return path


GOOD = {
    "round_shift": "def round_shift(v, e):\n    half = 1 << e >> 1\n    return (v + half) >> e if v >= 0 else -((half - v) >> e)",
    "high_mul": "def high_mul(a, b):\n    return min(2**31 - 1, (a * b + 2**30) >> 31)",
    "quantize_multiplier": "from tinyredux.fixedpoint import quantize_multiplier",
    "requantize": "def requantize(a, m, s, z):\n    return max(-128, min(127, round_shift(high_mul(a, m), -s) + z))",
}


@pytest.mark.slow
def test_grade_a_folder(tmp_path: Path) -> None:
    """One right, one with a fault and an endless loop, one that is no notebook: a row for each exercise, no crash."""
    handed_in("lab1", GOOD, tmp_path, "ada.ipynb")
    loop = "def high_mul(a, b):\n    while True:\n        pass"
    handed_in(
        "lab1", {**GOOD, "high_mul": loop, "round_shift": "def round_shift(v, e):\n    return v >> e"}, tmp_path, "bob.ipynb"
    )
    (tmp_path / "cy.ipynb").write_text("not a notebook")
    (tmp_path / "dan.ipynb").write_text(json.dumps({"lab1.high_mul": 1}))
    marks = dict(labs.grade(tmp_path, cell_seconds=5))
    assert [v.passed for v in marks["ada.ipynb"]] == [True] * 4
    assert {v.exercise: v.passed for v in marks["bob.ipynb"]} == {
        "lab1.round_shift": False, "lab1.high_mul": False, "lab1.quantize_multiplier": True, "lab1.requantize": False,
    }  # fmt: skip
    assert [(v.exercise, v.passed) for name in ("cy", "dan") for v in marks[f"{name}.ipynb"]] == [("", False)] * 2
    rows = [row for name, verdicts in marks.items() for row in labs.csv_rows(name, verdicts)]
    assert len(rows) == 4 + 4 + 1 + 1 and sum(row[2] for row in rows) == 5


def test_labs_as_released_fail_their_checks() -> None:
    for path, names in handout.list_labs().items():
        outputs = [out for cell in nbformat.read(path, as_version=4).cells for out in cell.get("outputs", [])]
        verdicts = [out.data[teaching.VERDICT_MIME] for out in outputs if teaching.VERDICT_MIME in out.get("data", {})]
        assert [verdict["exercise"] for verdict in verdicts] == list(names)
        assert not any(verdict["passed"] for verdict in verdicts)


def test_a_check_that_is_missing_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "handed_in.ipynb"
    first_fit = "def place(sizes, spans): return memory.first_fit(sorted(sizes, key=lambda n: (-sizes[n], n)), sizes, spans, 1)"
    source = f"# lab2.place\nfrom tinyredux import memory\n{first_fit}\nby_hand = {RIGHT['lab2.by_hand']}"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    assert [(v.exercise, v.passed) for v in labs.check_lab(path)] == [("lab2.by_hand", True), ("lab2.place", True)]
