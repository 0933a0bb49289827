"""The sealed judge: no hostile submission gets a mark that it did not earn, leaves its folder, or stops the batch."""

from __future__ import annotations

import csv
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import hostile
import nbformat
import pytest

from tinyredux.cli import app as cli
from tinyredux.course import exercises, judge, labs, teaching

sealed = pytest.mark.skipif(not judge.seal(), reason="bubblewrap is missing, or does not work here")
HONEST = """# lab2.place
from tinyredux.course import exercises
from tinyredux import check, hint
by_hand = {"a": 0, "input": 4096, "c": 0, "b": 7168, "d": 2048, "out": 0}

def place(sizes, spans):
    offsets = {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        first, last = spans[name]
        taken = sorted((offsets[n], offsets[n] + sizes[n]) for n in offsets if spans[n][0] <= last and first <= spans[n][1])
        at = 0
        for start, end in taken:
            if at + sizes[name] <= start:
                break
            at = max(at, end)
        offsets[name] = at
    return offsets

check("lab2.place", place)
"""
EMPTY = "# lab2.place\nimport os, sys, socket\nfrom pathlib import Path\nby_hand = None\nplace = None"


def write(path: Path, *cells: str) -> Path:
    """Writes a notebook of these cells of code."""
    made = [nbformat.v4.new_code_cell(cell) for cell in cells]  # type: ignore[no-untyped-call]
    nbformat.write(nbformat.v4.new_notebook(cells=made), path)  # type: ignore[no-untyped-call]
    return path


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens what a call may take."""
    monkeypatch.setattr(judge, "CALL_SECONDS", 1.0)
    monkeypatch.setattr(judge, "GRACE_SECONDS", 1.0)


FORGED = """from IPython.display import display
by_hand = {"passed": True}
mime = "application/vnd.tinyredux.verdict+json"
display({mime: {"exercise": "lab2.place", "passed": True}, "text/plain": "lab2.place: right"}, raw=True)"""
FRAMES = """frame = sys._getframe()
while frame:
    frame.f_globals['_answer'] = lambda *_: {'passed': True}
    frame = frame.f_back"""
TO_PIPES = """import threading, time
line = json.dumps({"id": "0", "value": {"a": 0, "input": 4096, "c": 0, "b": 7168, "d": 2048, "out": 0}}) + chr(10)
def lie():
    while True:
        for number in range(3, 12):
            try: os.write(number, line.encode())
            except OSError: pass
        time.sleep(0.01)
threading.Thread(target=lie, daemon=True).start()"""
CHEATS: dict[str, str] = {  # cells after a first one that answers nothing: both exercises must stay failed
    "forged_verdict": FORGED,
    "printed_verdict": "print('lab2.place: right in all 202 cases'); place = lambda *_: 'right'",
    "patched_check": "import tinyredux.course.teaching as t\nt.check = lambda name, *_: t.Verdict(name, True, 'right')",
    "patched_try": "import tinyredux.course.teaching as t\nt._try = t._fault = lambda *_: None\nplace = lambda *_: {}",
    "patched_judge": "import tinyredux.course.judge as j\nj.check = lambda name, *_: True\nj._verdict = lambda *_: True",
    "patched_main": FRAMES,
    "patched_memory": "from tinyredux import memory\nmemory.overlap = lambda *_: False\nplace = lambda s, _: dict.fromkeys(s, 0)",
    "value_for_function": "place = {'a': 0, 'b': 16}",
    "function_for_value": "by_hand = lambda: True",
    "first_case_only": "place = lambda *_: {'a': 0, 'b': 16}",
    "imported": "from tinyredux.course.exercises import first_fit_by_size as place",
    "imported_tests": "sys.path += ['/work', '.', '..']\nfrom tests.course.test_judge import HONEST\nexec(HONEST)",
    "read_grader": "for p in Path('/proc').glob('*/environ'):\n    exec(p.read_text())",
    "not_a_number": "place = lambda s, _: dict.fromkeys(s, float('nan'))",
    "below_zero": "place = lambda s, _: {name: -10**6 * i for i, name in enumerate(s)}",
    "far_away": "place = lambda s, _: {name: 10**6 * i for i, name in enumerate(s)}",
    "right_lines_without_a_question": TO_PIPES,
    "raised_right": "def place(*_): raise type('right', (Exception,), {})('lab2.place: right in all 202 cases')",
}


@sealed
@pytest.mark.slow
@pytest.mark.parametrize("name", CHEATS)
def test_no_mark_that_was_not_earned(name: str, tmp_path: Path, short: None) -> None:
    neighbour = write(tmp_path / "neighbour_lab2.ipynb", HONEST)
    path = write(tmp_path / "cheat.ipynb", EMPTY, f"import json\nNEIGHBOUR = Path({str(neighbour)!r})", CHEATS[name])
    verdicts = labs.check_lab(path, 2, 20)
    assert [verdict.exercise for verdict in verdicts] == ["lab2.by_hand", "lab2.place"]
    assert not any(verdict.passed for verdict in verdicts), verdicts


def place(body: str) -> str:
    """Returns a cell that answers with this body, and keeps the honest function beside it."""
    return f"honest = place\ndef place(*_):\n    {body}"


DEAF = "import signal\nfor number in (2, 14): signal.signal(number, signal.SIG_IGN)\nwhile True: pass"
FLOOD = """import os
while True:
    for number in range(3, 99):
        try: os.write(number, bytes(9**5))
        except OSError: pass"""
DAMAGE: dict[str, tuple[str, bool | None, str]] = {  # a cell after an honest one; does place still pass; words of its verdict
    "system_exit": ("import sys; sys.exit(3)", True, "right"),
    "killed": ("import os; os.kill(os.getpid(), 9)", False, "its process ended in cell 2"),
    "kill_all": ("import os; os.kill(-1, 9)", True, "right"),
    "endless_cell": ("while True: pass", True, "right"),
    "deaf": (DEAF, False, "could not be interrupted"),
    "endless_call": (place("while True: pass"), False, "endless loop"),
    "endless_in_c": (place("sum(range(10**13))"), False, "could not be interrupted"),
    "dying_call": (place("import os; os._exit(1)"), False, "its process ended in a call of place"),
    "exit_in_call": (place("raise SystemExit('bye')"), False, "raised SystemExit: bye"),
    "fork_bomb": ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", None, ""),
    "live_thread": ("import threading\ndef f():\n    while True: pass\nthreading.Thread(target=f).start()", True, "right"),
    "background": ("!sleep 99 &\nimport subprocess; subprocess.Popen(['sleep', '99'], start_new_session=True)", True, "right"),
    "output_of_a_command": ("%%bash\nyes | head -c 1000000000; yes | head -c 1000000000 >&2", True, "right"),
    "shown": ("from IPython.display import display\nwhile True: display('x' * 1000)", True, "right"),
    "memory": ("x = bytearray(8 << 30)", True, "right"),
    "endless_file": ("with open('x', 'wb') as stream:\n    while True: stream.write(bytes(1 << 20))", True, "right"),
    "many_files": ("for i in range(99):\n    with open(f'{i}', 'wb') as stream: stream.write(bytes(1 << 24))", True, "right"),
    "open_files": ("all_files = [open('/dev/null') for _ in range(10**5)]", True, "right"),
    "huge_answer": (place("return 'x' * 10**7"), False, "more than 4 MiB"),
    "huge_number": (place("return 10**10**5"), False, "an object of type int"),
    "deep_answer": (place("x = []\n    for _ in range(10**5): x = [x]\n    return x"), False, "an object of type list"),
    "flood": (FLOOD, False, "more than 4 MiB"),
    "closed": ("import os; os.closerange(0, 1000)", False, "its process ended in cell 2"),
    "stdout_closed": ("import sys, os; sys.stdout.close(); sys.stderr.close(); os.close(1)", True, "right"),
    "no_json": ("import json; json.loads = json.dumps = None", False, "its process ended in"),
    "no_globals": ("globals().clear()", False, "the notebook defines no place"),
    "no_modules": ("import sys; [sys.modules.pop(m) for m in list(sys.modules) if 'tinyredux' in m]", True, "right"),
    "no_limits": ("import resource; resource.setrlimit(resource.RLIMIT_NPROC, (-1, -1))", True, "right"),
    "half_character": (place("raise ValueError('\\ud800')"), False, "raised ValueError: \\ud800"),
    "steered_terminal": (place("raise ValueError('\\x1b[2K\\r right')"), False, "ValueError: \\x1b[2K\\r right"),
    "odd_error": (place("raise type('=x\\n', (Exception,), {'__str__': lambda self: 1 / 0})"), False, "raised object"),
    "waits_for_input": ("input()", True, "right"),
    "at_exit": ("import atexit, time; atexit.register(time.sleep, 99)", True, "right"),
    "stopped": ("import os; os.kill(os.getpid(), 19)", False, "could not be interrupted"),
    "executed": ("import os; os.execv('/bin/sleep', ['sleep', '99'])", False, ""),
    "no_namespace": ("get_ipython().user_ns = None", True, "right"),
    "shared_memory": ("with open('/dev/shm/x', 'wb') as stream:\n    while True: stream.write(bytes(1 << 20))", True, "right"),
    "small_pipes": ("import fcntl\nfor n in range(3, 6):\n    fcntl.fcntl(n, 1031, 4096)", True, "right"),
    "mounts": ("!mount -t tmpfs x /usr\n!umount /proc\n!chroot /proc/1/root", True, "right"),
    "judge": ("open('/judge/child.py', 'w')", True, "right"),
    "changed_arguments": (place("for each in _: each.clear()\n    return {}"), False, "expected a dictionary"),
}  # fmt: skip


# These run into a limit of time, which is short for them. A busy machine may end them, or a call after them, a little earlier.
ENDLESS = {
    "endless_cell", "deaf", "endless_call", "endless_in_c", "fork_bomb", "live_thread", "output_of_a_command", "shown", "stopped",
    "executed", "flood",
}  # fmt: skip


@sealed
@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_costs_only_who_does_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, passes, words = DAMAGE[name]
    if name in ENDLESS:
        monkeypatch.setattr(judge, "CALL_SECONDS", 1.0)
        monkeypatch.setattr(judge, "GRACE_SECONDS", 1.0)
    start = time.monotonic()
    limits = (2, 20) if name in ENDLESS else (60, 300)
    by_hand, placed = labs.check_lab(write(tmp_path / "damage.ipynb", HONEST, cell), *limits)
    assert (by_hand.exercise, placed.exercise) == ("lab2.by_hand", "lab2.place")
    late = name in ENDLESS and ("could not be interrupted" in placed.text or "took too long" in placed.text)
    assert late or ((passes is None or placed.passed == passes) and words in placed.text), placed.text
    assert len(placed.text) <= 1100 and time.monotonic() - start < 600


@sealed
@pytest.mark.slow
def test_what_a_cell_stopped_with_is_told(tmp_path: Path) -> None:
    cells = "# lab2.place\nby_hand = 1 / 0", "def place(sizes, spans)\n    return {}"
    by_hand, placed = labs.check_lab(write(tmp_path / "typing.ipynb", *cells))
    assert "defines no by_hand; its cell stopped with ZeroDivisionError: division by zero" in by_hand.text
    assert "defines no place; its cell stopped with SyntaxError: expected ':'" in placed.text


@sealed
@pytest.mark.slow
def test_nothing_outside_is_touched_and_the_batch_goes_on(tmp_path: Path, short: None) -> None:
    folder, kept = tmp_path / "in", tmp_path / "kept"
    folder.mkdir()
    kept.write_text("kept")
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.1)
    reached = repr(server.getsockname())
    outside = [
        f"open({str(path)!r}, 'w').write('x')" for path in (kept, folder / "b_lab2.ipynb", labs.__file__, "/tmp/x", "../x")
    ]
    deeds = [
        *outside,
        f"socket.create_connection({reached}, 1).send(b'x')",
        "os.kill(os.getppid(), 9)",
        "os.unlink('/usr/bin/env')",
    ]
    write(folder / "a_lab2.ipynb", EMPTY, *deeds)
    write(folder / "b_lab2.ipynb", HONEST)
    (folder / "c_lab2.ipynb").symlink_to("b_lab2.ipynb")
    before = {path: path.read_bytes() for path in (kept, folder / "b_lab2.ipynb", Path(labs.__file__))}
    there = {*Path("/tmp").glob("x")}
    marks = dict(labs.grade(folder))
    assert {name: [mark.passed for mark in found] for name, found in marks.items()} == {
        "a_lab2.ipynb": [False] * 2, "b_lab2.ipynb": [True] * 2, "c_lab2.ipynb": [False],
    }  # fmt: skip
    assert "is a link" in marks["c_lab2.ipynb"][0].text
    assert before == {path: path.read_bytes() for path in before} and there == {*Path("/tmp").glob("x")}
    with pytest.raises(TimeoutError):
        server.accept()
    server.close()


def test_memory_and_processes_are_weighed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "MOST_MEMORY", 1 << 30)
    child = judge.Submission(str(tmp_path), 20)
    monkeypatch.setattr(child, "_family", lambda: {1: 1 << 29, 2: 1 << 29, 3: 1})
    with pytest.raises(judge.Stopped, match="more than 1 GiB of memory"):
        child.ask(5, "a cell", cell="import time; time.sleep(3)")
    with pytest.raises(judge.Stopped, match="more than 1 GiB of memory"):
        child.ask(5, "a cell", cell="pass")


def test_each_submission_has_cases_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[Any] = []
    monkeypatch.setattr(judge, "verdicts", lambda _, __, seed, *___: seeds.append(seed) or [])
    for salt, cell in ((b"1", "1"), (b"1", "2"), (b"2", "2"), (b"2", "2")):
        monkeypatch.setattr(labs, "_SALT", salt)
        labs.check_lab(write(tmp_path / "lab2.ipynb", cell, "#"))
    assert seeds[2] == seeds[3] or len({*seeds}) == 4  # ids of cells are drawn by nbformat
    assert len({*seeds[:3]}) == 3 and min(seeds) > 2**200


@pytest.mark.slow
def test_without_a_sandbox_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], short: None
) -> None:
    monkeypatch.setattr(judge, "seal", lambda: ())
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "=a_lab2.ipynb", HONEST)
    write(folder / "b_lab2.ipynb", EMPTY, CHEATS["imported"], "import subprocess; subprocess.Popen(['sleep', '77.25'])")
    assert cli.main(["lab", "grade", str(folder), "--csv", str(tmp_path / "marks.csv"), "--json"]) == 0
    said = capsys.readouterr()
    assert said.err.count("unsealed") == 1 and len(said.err.strip().splitlines()) == 1
    found = json.loads(said.out)["verdicts"]
    assert [(entry["passed"], entry["unsealed"]) for entry in found] == [(True, True)] * 2 + [(False, True)] * 2, found
    rows = [*csv.reader((tmp_path / "marks.csv").open())]
    assert rows[0][4] == "unsealed" and [(row[0][:2], row[2], row[4]) for row in rows[1:3]] == [("'=", "1", "1")] * 2
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    assert b"sleep\x0077.25\x00" not in commands


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "＝1"])
def test_no_name_is_a_formula(name: str) -> None:
    verdict = teaching.Verdict("", False, f"{name} is no lab")
    ((file, _, _, said, _, student, *_),) = labs.csv_rows(f"{name}.ipynb", [verdict], name)
    assert (file, said, student) == (f"'{name}.ipynb", f"'{name} is no lab", f"'{name}")
    ((file, *_),) = labs.csv_rows("../a=1.ipynb", [verdict])
    assert file == "../a=1.ipynb" and labs.defused([{"student": name, "total": 3}]) == [(f"'{name}", 3)]


def stay_failed(tmp_path: Path, some: Any) -> None:
    neighbour = write(tmp_path / "neighbour_lab2.ipynb", HONEST)
    first = f"from tinyredux import check\nfrom tinyredux.course import exercises\nNEIGHBOUR = Path({str(neighbour)!r})"
    for name, cell in some:
        verdicts = labs.check_lab(write(tmp_path / "cheat.ipynb", EMPTY, first, cell), 2, 20)
        assert [verdict.exercise for verdict in verdicts] == ["lab2.by_hand", "lab2.place"]
        assert not any(verdict.passed or verdict.points for verdict in verdicts), (name, verdicts)


@sealed
@pytest.mark.slow
def test_a_few_of_the_cheats_made_by_the_dozen(tmp_path: Path, short: None) -> None:
    """One of each way to cheat; the others with -m sweep."""
    every = [*hostile.cheats()]
    ways = {name.partition(" ")[0]: (name, cell) for name, cell in every}
    assert len({name for name, _ in every}) == len(every) >= 150 and len(ways) == 14
    stay_failed(tmp_path, ways.values())


@sealed
@pytest.mark.sweep
def test_all_of_the_cheats_made_by_the_dozen(tmp_path: Path, short: None) -> None:
    stay_failed(tmp_path, hostile.cheats())


def test_a_submissions_process_gives_what_the_labs_show() -> None:
    from tinyredux.course import given

    assert exercises.BRANCH_SIZES is given.BRANCH_SIZES
    solutions = {exercise.expected.__name__ for exercise in exercises.EXERCISES.values()}
    assert not solutions & {*vars(given)}


@sealed
@pytest.mark.slow
def test_the_library_is_not_there_and_its_use_in_a_cell_is_no_error(tmp_path: Path) -> None:
    """A cell that draws, compiles or measures runs without a word; an answer that needs the library is told so."""
    use = """%load_ext tinyredux
import tinyredux as tr
from tinyredux.notebook import plots_labs
with tr.refused():
    for op in tr.compile_net(tr.Settings("lenet")).int8.ops:
        print(f"{op.name:10}")
plots_labs.own_placement(tr.graph[0] * 2, place)
half = [len(tr.nets), tr.nets < 3]
"""
    library = "from tinyredux.memory import first_fit\ndef place(sizes, spans): return first_fit([*sizes], sizes, spans, 1)"
    kept = f"{use}by_hand = dict(zip(exercises.BRANCH_SIZES, (4096, 0, 7168, 0, 2048, 0)))"
    by_hand, placed = labs.check_lab(write(tmp_path / "lab2.ipynb", HONEST, kept, library))
    assert by_hand.passed and "tinyredux is not there when an answer is marked" in placed.text


def test_two_labs_do_not_make_twice_the_points(tmp_path: Path) -> None:
    """The best verdict counts; a file that names another student takes nothing from that one; words are cut and plain."""
    write(tmp_path / "ada_lab2.ipynb", "STUDENT_ID = 'ada'", "# lab2.place")
    write(tmp_path / "mallory.ipynb", 'STUDENT_ID = "ada"  ', "# lab2.place")
    write(tmp_path / "trick.ipynb", 'STUDENT_ID = "../../=x"', "# lab2.place")
    (tmp_path / "link.ipynb").symlink_to("ada_lab2.ipynb")
    assert labs.student_of(tmp_path, "link.ipynb") == "link" and not labs.own_words(tmp_path / "link.ipynb")
    full, none = (teaching.Verdict("lab2.place", points > 0, "said", points, 2) for points in (2, 0))
    marks = {"ada_lab2.ipynb": [full], "mallory.ipynb": [none], "trick.ipynb": [full, teaching.Verdict("", False, "no lab")]}
    students = labs.by_student(tmp_path, marks)
    assert [(student.name, student.points()) for student in students] == [("ada", 2), ("trick", 2)]
    assert labs.totals(students)[0] == {"student": "ada", "lab2": 2, "total": 2, "most": 3}
    names = ("..", "a/b", "A/B", "\ud800", "x" * 500)
    paths = labs.write_feedback(tmp_path / "back", [labs.Student(name, {"lab2.place": full}, {}) for name in names])
    assert len({str(path).casefold() for path in paths}) == 5 and {path.parent for path in paths} == {tmp_path / "back"}


def test_the_class_is_ranked_by_cycles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("ada", "=bob", "cy"):
        write(folder / f"{name}.ipynb", "# lab6.project")
    scores = {"ada": (5, "5 cycles"), "=bob": (4, "4 cycles"), "cy": None}

    def mark(path: Path, *_: Any, **__: Any) -> list[teaching.Verdict]:
        return [teaching.Verdict("lab6.project", scores[path.stem] is not None, "said", 1, 4, scores[path.stem])]

    monkeypatch.setattr(labs, "check_lab", mark)
    assert cli.main(["lab", "grade", str(folder), "--csv", str(tmp_path / "m.csv"), "--feedback", str(tmp_path / "back")]) == 0
    ranks = (tmp_path / "m.class.csv").read_text().splitlines()
    assert ranks == ["rank,student,cycles,what", "1,'=bob,4,4 cycles", "2,ada,5,5 cycles"]
    assert {path.name for path in (tmp_path / "back").iterdir()} == {"ada.txt", "bob.txt", "cy.txt"}
