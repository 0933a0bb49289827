"""Labs: the library's own function passes each check, a planted fault fails it, and no verdict tells the solution."""

from __future__ import annotations

import copy
import inspect
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

from tinyredux import fixedpoint, memory
from tinyredux.cli import app as cli
from tinyredux.course import book, exercises, handout, labs, teaching
from tinyredux.device import BuildError, MissingTool
from tinyredux.notebook.plots_style import Picture
from tinyredux.trec import hashing

RIGHT: dict[str, Any] = {
    name: exercise.expected() if exercise.expected.__name__ == "<lambda>" else exercise.expected
    for name, exercise in exercises.EXERCISES.items()
}
ORACLES: dict[str, Callable[..., Any]] = {  # what the library says, for the exercises that are about one of its functions
    "lab1.round_shift": lambda *case: int(fixedpoint.rounding_divide_by_power_of_two(*case)),
    "lab1.high_mul": lambda *case: int(fixedpoint.saturating_rounding_doubling_high_mul(*case)),
    "lab1.quantize_multiplier": fixedpoint.quantize_multiplier,
    "lab1.requantize": lambda a, m, s, z: int(fixedpoint.clamp_int8(fixedpoint.multiply_by_quantized_multiplier(a, m, s) + z)),
    "lab2.place": lambda sizes, spans: memory.first_fit(sorted(sizes, key=lambda n: (-sizes[n], n)), sizes, spans, 1),
    "lab4.hash_ids": lambda rows: hashing.hash_ids(hashing.hash_bits(np.array(rows)[None], "mean"))[0].tolist(),
    "lab4.mean": lambda total, count: int(fixedpoint.rounded_mean(np.array(total), np.array(count))),
    "lab4.clustered_sums": lambda rows, weights, bits: block_sums(np.array(rows), np.array(weights), bits).tolist(),
}


def block_sums(rows: Any, weights: Any, bits: int) -> Any:
    """Returns what a TREC operator of one block adds up, by the library's own parts."""
    exact = rows @ weights.T
    found = hashing.cluster(hashing.hash_ids(hashing.hash_bits(exact[None, :, :bits], "mean")))
    means = fixedpoint.rounded_mean(found.sums(rows).astype(np.int64), found.counts[:, None])
    shared = (means @ weights.T)[found.slot]
    shared[:, :bits] = exact[:, :bits]
    return shared


@pytest.mark.parametrize("name", ORACLES)
def test_a_solution_is_what_the_library_computes(name: str) -> None:
    exercise, chance = exercises.EXERCISES[name], random.Random(7)
    for case in (*exercise.edges, *(exercise.draw(chance) for _ in range(teaching.CASES))):
        assert exercise.expected(*copy.deepcopy(case)) == ORACLES[name](*case), case


FAULTS: dict[str, tuple[Any, ...]] = {
    "chapter4.fields": (lambda total: [total % 2**21, (total >> 21) % 2**21, total >> 42],),
    "chapter5.intact": (lambda line: "*" in line,),
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
    ),
    "chapter15.survivors": (
        lambda first, end, by, kernel, stride, above: (
            by // stride,
            (first + above) // stride,
            (end + above - kernel) // stride + 1,
        ),
        lambda first, end, by, kernel, stride, above: (by, first + above, end + above - kernel + 1),
    ),
    "chapter16.centred_and_spread": (
        lambda token: ([value - sum(token) // len(token) for value in token], 0),
        lambda token: (
            [len(token) * value - sum(token) for value in token],
            sum(value * value for value in token) - sum(token) ** 2,
        ),
    ),
    "chapter16.products_left": (
        lambda rows, bits, clusters, outputs: bits / outputs[0] + clusters / rows,
        lambda rows, bits, clusters, outputs: clusters / rows,
    ),
    "lab1.round_shift": (
        lambda value, exponent: value >> exponent,
        lambda value, exponent: (value + (1 << exponent >> 1)) >> exponent,
        3,  # what the first case wants, in the place of a function
    ),
    "lab1.high_mul": (lambda a, b: (a * b) >> 31, lambda a, b: (a * b + 2**30) >> 31),
    "lab1.quantize_multiplier": (lambda real: (round(real * 2**31), 0),),
    "lab1.requantize": (lambda a, m, s, z: max(-128, min(127, round(a * m * 2.0 ** (s - 31)) + z)), lambda a, m, s, z: z),
    "chapter8.floor": (
        lambda bits, rows, blocks, images: max(0.0, 1 - 2**bits / rows),
        lambda bits, rows, blocks, images: max(0.0, 1 - 2**bits / (rows * blocks * images)),
    ),
    "chapter9.cost": (lambda n, k, m, bits, clusters: bits / m + clusters / n,),
    "chapter10.row_gradients": (lambda gradients, slots: [[float(value) for value in row] for row in gradients],),
    "lab0.first_difference": (lambda one, other: next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), -1),),  # noqa: B905
    "lab0.honest": (lambda readings: (sorted(readings)[len(readings) // 2], min(readings), max(readings)),),
    "lab0.milliseconds": (lambda cycles, before, clock_hz: 1000 * (cycles - before) / clock_hz, lambda *_: float("nan")),
    "lab6.project": ({"method": "magic"}, {"kernels": "fast"}, {"method": "exact", "sram": True}, {"method": "exact", "x": 1}, 3),
    "lab4.hash_ids": (lambda projections: [sum((value > 0) << h for h, value in enumerate(row)) for row in projections],),
    "lab4.stack": (lambda ids: (ids, [ids.count(each) for each in ids]),),
    "lab4.mean": (lambda total, count: round(total / count), lambda total, count: total // count),
    "lab4.clustered_sums": (
        lambda rows, weights, bits: [[sum(map(int.__mul__, row, each)) for each in weights] for row in rows],
    ),
    "lab2.by_hand": ({name: 0 for name in exercises.BRANCH_SIZES}, {"input": 0}, None),
    "lab3.by_hand": (
        ["expand", "filter", "project", "shortcut", "sum", "classify"],
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
        lambda weights, inputs: [
            abs(w) * sum(row[i] for row in inputs) / len(inputs) / max(1, sum(map(abs, weights))) for i, w in enumerate(weights)
        ],
        lambda weights, inputs: [  # the mean first, then its absolute value
            abs(w * sum(row[i] for row in inputs) / len(inputs))
            / max(1.0, abs(sum(sum(map(int.__mul__, weights, row)) for row in inputs) / len(inputs)))
            for i, w in enumerate(weights)
        ],
    ),
    "lab5.saved": (lambda u: sum(u) // 2, lambda u: sum(a and b for a, b in zip(u[::2], u[1::2], strict=False))),
    "lab5.repaired_bias": (lambda weights, kept, means, bias: bias, lambda weights, kept, means, bias: bias - round(sum(means))),
    "lab5.front": (sorted, lambda points: points[:1]),
    "lab7.kept": (
        lambda height, kernels: [(height - kernel, height) for kernel in kernels],
        lambda height, kernels: [(height - kernel, height - 1) for kernel in kernels],
    ),
    "lab7.computed": (
        lambda height, kernels: [2 * sum(kernel // 2 for kernel in kernels[: i + 1]) + 1 for i in range(len(kernels))],
        lambda height, kernels: [min(height, kernel) for kernel in kernels],
    ),
    "lab7.push": (
        lambda state, value, taps: (sum(a * b for a, b in zip([*state, value], taps, strict=False)), [*state, value][1:]),
        lambda state, value, taps: (None, [*state, value]),
    ),
    "lab8.weights": (
        lambda scores, step: [int(4096 * 2.0 ** ((score - max(scores)) * step / 256)) for score in scores],
        lambda scores, step: [int(4096 * 2.0 ** (score * step / 256) + 0.5) for score in scores],
    ),
    "lab8.once": (
        lambda queries: ([i for i, query in enumerate(queries) if queries.count(query) == 1], [*range(len(queries))]),
        lambda queries: ([*range(len(queries))], [queries.index(query) for query in queries]),
    ),
    "lab8.block_left": (
        lambda t, w, q, qb, m, mb: ((q + 3 * t + 4 * m) * w * w + 2 * q * t * w) / (8 * t * w * w + 2 * t * t * w),
        lambda t, w, q, qb, m, mb: 8 * (q / t + m / t) / 16,
    ),
}


def test_a_right_answer_may_be_written_in_other_ways() -> None:
    assert teaching.check("lab3.by_hand", ("expand + filter", "shortcut+project+sum+classify")).passed

    def repaired(weights: Any, kept: Any, means: Any, bias: float) -> int:
        return round(bias + sum(w * m for w, k, m in zip(weights, kept, means, strict=True) if not k))

    assert teaching.check("lab5.repaired_bias", repaired).passed


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.sweep] * (name == "lab6.project")) for name in exercises.EXERCISES]
)
def test_a_solution_passes(name: str) -> None:
    for seed in range(3):
        verdict = teaching.check(name, RIGHT[name], seed)
        assert verdict.passed and verdict.points == verdict.most == exercises.EXERCISES[name].points, verdict


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
    assert json.loads((teaching.EXERCISE_FOLDER / "hints.json").read_text()).keys() == exercises.EXERCISES.keys()
    assert 'hint("lab1.round_shift", 2)' in teaching.hint("lab1.round_shift")
    with pytest.raises(ValueError, match="has hints 1 to"):
        teaching.hint("lab1.round_shift", 9)
    with pytest.raises(ValueError, match=r"no exercise 'nope'; there are lab0\.first_difference"):
        teaching.check("nope", 1)


def test_answers_cannot_change_the_cases() -> None:
    def greedy(sizes: dict[str, int], spans: Any) -> dict[str, int]:
        for name in sizes:
            sizes[name] = 0
        return dict.fromkeys(sizes, 0)

    assert not teaching.check("lab2.place", greedy).passed


def test_labs_as_released_fail_their_checks() -> None:
    for path, names in handout.list_labs().items():
        outputs = [out for cell in nbformat.read(path, as_version=4).cells for out in cell.get("outputs", [])]
        verdicts = [out.data[teaching.VERDICT_MIME] for out in outputs if teaching.VERDICT_MIME in out.get("data", {})]
        assert [verdict["exercise"] for verdict in verdicts] == list(names)
        assert not any(verdict["passed"] for verdict in verdicts)


def test_a_check_that_is_missing_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "handed_in.ipynb"
    source = f"{handout.solution_of(exercises.EXERCISES['lab2.place'])}\nby_hand = {RIGHT['lab2.by_hand']}\n# lab2.place"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    assert [(v.exercise, v.passed) for v in labs.check_lab(path)] == [("lab2.by_hand", True), ("lab2.place", True)]


def test_a_list_is_as_good_as_a_tuple_and_a_float_is_no_int() -> None:
    stack, shift = (exercises.EXERCISES[name].expected for name in ("lab4.stack", "lab1.round_shift"))
    for answer in (stack, lambda ids: [*stack(ids)], lambda ids: tuple(np.array(part) for part in stack(ids))):
        assert teaching.check("lab4.stack", answer).text.endswith("cases")
    floats = teaching.check("lab1.round_shift", lambda value, exponent: float(shift(value, exponent)))
    assert not floats.passed and "only the type differs: expected int 3, found float 3.0" in floats.text


def test_hints_go_up_with_failures_and_are_shown_without_quotes() -> None:
    teaching._failures.clear()
    said = [teaching.check("lab1.round_shift", None).text.splitlines()[-1] for _ in range(4)]
    assert [line[-3:] for line in said] == ['t")', " 2)", " 3)", " 3)"]
    assert repr(teaching.hint("lab1.round_shift")) == str(teaching.hint("lab1.round_shift"))
    assert "hint" not in teaching.judged("lab1.round_shift", None).text


DRAWN: dict[str, tuple[Any, str]] = {  # a wrong answer, and words of its picture
    "lab2.by_hand": (RIGHT["lab2.by_hand"] | {"b": 5000}, "red: input and b, b and d share bytes"),
    "lab2.place": (lambda sizes, spans: dict.fromkeys(sizes, 0), "red: a and b share bytes"),
    "lab3.by_hand": (["expand", "filter", "project", "shortcut", "sum", "classify"], "7168, 7232, 3072"),
    "lab4.hash_ids": (lambda rows: [0 for _ in rows], "1 of 2 rows differ: 1."),
    "lab4.stack": (lambda ids: (ids, [1]), "1 of 1 rows differ: 0."),
    "lab4.clustered_sums": (lambda rows, weights, bits: rows[:1], "3 of 3 rows differ"),
    "lab5.front": (lambda points: points[:1], "2 missed, 1 too many"),
}


@pytest.mark.parametrize("name", DRAWN)
def test_the_first_wrong_case_is_drawn(name: str) -> None:
    answer, words = DRAWN[name]
    verdict = teaching.check(name, answer)
    assert verdict.draw is not None
    picture = verdict.draw()
    assert isinstance(picture, Picture) and words in picture.text, picture.text
    assert {each for each, exercise in exercises.EXERCISES.items() if exercise.picture} == {*DRAWN}


def test_what_cannot_be_drawn_is_said_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    teaching.check("lab2.by_hand", {"a": "x"})._ipython_display_()
    teaching.check("lab3.by_hand", ["nothing"])._ipython_display_()
    assert capsys.readouterr().out.count("text/plain") == 2


def test_a_schedule_earns_points_by_its_peak() -> None:
    schedules = (
        ["expand+filter", "project", "shortcut", "sum", "classify"],
        ["shortcut", "expand+filter+project", "sum", "classify"],
        ["expand", "filter", "project", "shortcut", "sum", "classify"],
    )
    points = [(verdict.points, verdict.passed) for verdict in (teaching.check("lab3.by_hand", each) for each in schedules)]
    assert points == [(2, False), (1, False), (0, False)]


def test_a_project_is_marked_by_its_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    measuring = exercises.MODULES["measuring"]
    for cycles, points in ((9_000_000, 1), (7_000_000, 2), (5_000_000, 4)):
        monkeypatch.setattr(measuring, "_built", lambda asked, score=(cycles, f"{cycles:,} cycles"): (score, None))
        verdict = teaching.check("lab6.project", {"method": "partial", "sram": 20_000})
        assert verdict.passed and (verdict.points, verdict.score) == (points, (cycles, f"{cycles:,} cycles")), verdict
    monkeypatch.setattr(measuring, "_built", lambda asked: (None, "too large"))
    verdict = teaching.check("lab6.project", {"method": "exact"})
    assert not verdict.passed and verdict.points == 0 and "too large" in verdict.text


@pytest.mark.slow
def test_release_grade_and_solutions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The way of an instructor: labs handed out to two, one hands in what was handed out, the other the solutions."""
    out, names = tmp_path / "out", tmp_path / "names.txt"
    names.write_text("ada\nbob-7\n")
    release = ["lab", *f"release lab4 --out {out} --seed 2026 --due Friday --students {names}".split()]
    assert cli.main([*release, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["release"]
    assert (row["lab"], row["files"], row["stubs_failed"]) == ("lab4_hashing_and_clustering", 2, 4) and row["cells_run"] >= 7
    given = {name: nbformat.read(out / name / f"{row['lab']}.ipynb", as_version=4) for name in ("ada", "bob-7")}
    for name, handed in given.items():
        assert handed.cells[1].source.startswith(f"STUDENT_ID = {name!r}\nSEED = '2026 ' + STUDENT_ID")
        assert "Due: Friday" in handed.cells[0].source and "chapters 8 and 9" in handed.cells[0].source
        assert "](../" not in json.dumps(handed), "a link to a chapter leads nowhere from there"
        assert all(not cell.outputs and cell.execution_count is None for cell in handed.cells if cell.cell_type == "code")
    assert cli.main(release) == 2 and "is there already" in capsys.readouterr().err
    (out / "bob-7" / f"{row['lab']}.ipynb").write_text(json.dumps(handout.solved(given["bob-7"])))
    assert cli.main(["lab", "grade", str(out), "--csv", str(tmp_path / "marks.csv"), "--lab", "lab4", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [(each["student"], each["total"], each["most"]) for each in answer["students"]] == [("ada", 0, 5), ("bob-7", 5, 5)]
    assert (tmp_path / "marks.students.csv").read_text().splitlines() == ["student,lab4,total,most", "ada,0,0,5", "bob-7,5,5,5"]
    told = {path.name: path.read_text() for path in (tmp_path / "marks_feedback").iterdir()}
    assert told.keys() == {"ada.txt", "bob-7.txt"}
    assert "5 of 5 points" in told["bob-7.txt"] and "not written yet" in told["ada.txt"]


@pytest.mark.slow
@pytest.mark.parametrize("lab", ["lab0", "lab1", "lab2", "lab3", "lab5"])
def test_solutions_pass_where_submissions_are_marked(lab: str, tmp_path: Path) -> None:
    (row,) = handout.solutions(tmp_path, lab)
    assert row["points"] == row["most"] > 0


def test_a_lab_that_is_right_as_it_stands_is_not_handed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = handout.named_in("", Path("lab3.ipynb"))
    outputs = [
        [nbformat.v4.new_output("display_data", {teaching.VERDICT_MIME: {"exercise": n, "passed": n == names[0]}})] for n in names
    ]
    cells = [nbformat.v4.new_code_cell("", outputs=output) for output in outputs]
    monkeypatch.setattr(handout, "_run", lambda *_: cells)
    with pytest.raises(BuildError, match=r"lab3_partial_schedule is not fit to be handed out: lab3.by_hand is right"):
        handout.release(tmp_path, "lab3")
    monkeypatch.setattr(handout, "_run", lambda *_: cells[1:])
    with pytest.raises(BuildError, match=r"checks lab3\.slice_bytes, lab3\.widest_slice; expected"):
        handout.release(tmp_path, "lab3")
    assert not [*tmp_path.iterdir()]


def test_a_pack_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    commands: list[list[str]] = []

    def ran(command: list[str]) -> str:
        commands.append(command)
        if "download" in command:
            return "no network; where there is a network, run: pip"
        (tmp_path / "pack" / "wheels" / "tinyredux-0.1.0-py3-none-any.whl").write_bytes(b"wheel")
        return ""

    def render(folder: Path) -> Path:
        raise MissingTool("the book needs Sphinx")

    monkeypatch.setattr(handout, "_ran", ran)
    monkeypatch.setattr(book, "render", render)
    assert cli.main(["lab", "pack", "--out", str(tmp_path / "pack"), "--json"]) == 1
    parts = {part["what"]: part for part in json.loads(capsys.readouterr().out)["pack"]}
    assert [part["files"] > 0 for part in parts.values()] == [True, False, False, True, True]
    assert "no network" in parts["wheels of what it needs"]["missing"] and "Sphinx" in parts["pages of the book"]["missing"]
    assert commands[1][-1].endswith("py3-none-any.whl[lab]") and (tmp_path / "pack" / "README.txt").is_file()
    assert len([*(tmp_path / "pack" / "labs").iterdir()]) == len(handout.list_labs())
    assert f"are for Python 3.{sys.version_info.minor} on" in (tmp_path / "pack" / "README.txt").read_text()
