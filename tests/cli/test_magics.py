"""Magics in a real IPython shell, on host and simulator: results, compiler errors with their line, and no dead kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import user_nets
from IPython.core.interactiveshell import InteractiveShell

from tinyredux.cli.app import main
from tinyredux.cli.magics import Trouble
from tinyredux.cli.verbs.base import Answer
from tinyredux.device.link import LinkError
from tinyredux.notebook import cell
from tinyredux.notebook.cell import CellError, CellResult, run_cell


@pytest.fixture
def shell() -> Iterator[Any]:
    made = InteractiveShell.instance()
    made.run_cell("%load_ext tinyredux")
    yield made
    made.reset()
    InteractiveShell.clear_instance()


def run(shell: Any, text: str) -> Any:
    done = shell.run_cell(text, silent=False)
    assert done.success, done.error_in_exec
    return done.result


def test_a_cell_prints_and_is_kept(shell: Any) -> None:
    run(shell, "import numpy as np; numbers = np.array([3, -4, 5], np.int32); TARGET = 'host'")
    result = run(
        shell,
        "%%firmware --target {TARGET} --input numbers --out kept\n"
        "const int32_t *x = cell_input;\n"
        'print_number("first", x[0]);\n'
        'print_numbers("all", x, 3);',
    )
    assert result.values == {"first": 3, "all": (3, -4, 5)} and shell.user_ns["kept"] is result
    assert result["all"] == (3, -4, 5)
    with pytest.raises(KeyError, match="printed no 'last'; it printed first, all"):
        result["last"]


def test_faces_of_a_result_agree() -> None:
    result = run_cell('print_number("a <b>", 7);', "host")
    bundle = result._repr_mimebundle_()
    assert bundle["text/plain"] == repr(result) == "a <b>  7"
    assert "a &lt;b&gt;" in bundle["text/html"] and bundle[cell.MIME]["values"] == {"a <b>": 7}


LONG = 'static int32_t x[600]; print_numbers("x", x, 600);'


@pytest.mark.parametrize(("text", "target", "given", "words"), [
    ("volatile int *volatile nowhere = 0; *nowhere = 1;", "host", None, "ended by a fault on the host: Segmentation fault"),
    ("__builtin_trap();", "host", None, "ended by a fault on the host: Illegal instruction"),
    ("for (volatile int i = 0;;) { (void)i; }", "host", None, "has not ended after 1 s on the host; look for a loop"),
    ("while (1) {}", "simulator", None, "endless loop in cell"), (LONG, "host", None, "print fewer numbers"),
    ("*(volatile int32_t *)0x90000000 = 1;", "simulator", None, "BusFault: write to 0x90000000"),
    ("(void)0;", "host", np.zeros(3), "expected some int8, int16 or int32"),
], ids=range(7))  # fmt: skip
def test_what_a_program_does_wrong_is_told(
    monkeypatch: pytest.MonkeyPatch, text: str, target: str, given: Any, words: str
) -> None:
    monkeypatch.setattr(cell, "PATIENCE", replace(cell.PATIENCE, run_s=1.0))
    with pytest.raises((ValueError, LinkError), match=words):
        run_cell(text, target, given=given)


def test_functions_before_the_cell_and_a_bare_body_both_work() -> None:
    triple = "#define N 3\nstatic int32_t triple(int32_t x) { return N * x; }\n"
    whole = triple + 'void cell(void)\n{\n    print_number("y", triple(5));\n}'
    assert run_cell(whole, "host")["y"] == 15
    assert run_cell('#define N 3\nprint_number("y", N * 5);', "host")["y"] == 15


@pytest.mark.parametrize(("text", "line", "words"), [
    ('int32_t x = 1;\nprint_number("x", y);', 2, "'y' undeclared"),
    ('#define N 3\n\nint32_t x = N\nprint_number("x", x);', 4, "expected"),
    ('void cell(void)\n{\n    print_number("x", nothing(3));\n}', 3, "implicit declaration of function 'nothing'"),
    ("extern void nowhere(void);\nnowhere();", 2, "undefined reference"),
])  # fmt: skip
@pytest.mark.parametrize("target", ["host", "simulator"])
def test_compiler_errors_name_the_line_of_the_cell(text: str, line: int, words: str, target: str) -> None:
    if target == "host" and "nowhere" in text:
        pytest.skip("a shared library may leave a symbol open")
    with pytest.raises(CellError) as caught:
        run_cell(text, target)
    assert f"line {line}:" in str(caught.value) and words in str(caught.value)
    assert text.splitlines()[line - 1].strip() in str(caught.value)


def test_mistakes_end_in_a_sentence_and_the_shell_lives(shell: Any) -> None:
    for text, words in (
        ("%%firmware\nint x = ;", "line 1: expected expression"),
        ("%%firmware --target moon\n(void)0;", "target is 'moon', expected host, simulator or board[:PORT]"),
        ("%%firmware --board nothing\n(void)0;", "unknown board 'nothing'"),
        ("%%firmware --input nobody\n(void)0;", "the notebook has no NumPy array of that name"),
        ("%%firmware --colour red\n(void)0;", "unrecognized arguments: --colour red"),
        ("%%firmware --target board:/dev/nothing\n(void)0;", ""), ("%serial --port /dev/nothing info", "no port /dev/nothing"),
        ("%flash nothing --port /dev/nothing", "unknown network"), ("%measure nothing", "unknown network"),
        ("%measure", "required: NET"), ("%measure lenet --images many", "invalid int value"),
    ):  # fmt: skip
        result = run(shell, text)
        assert isinstance(result, Trouble), text
        assert words in result.text and "Traceback" not in result.text
        assert result._repr_html_().startswith("<pre")
    assert run(shell, "1 + 1") == 2


def test_costs_are_those_of_the_cell_alone() -> None:
    numbers = np.arange(1000, dtype=np.int32)
    code = """const int32_t *x = cell_input;
int32_t sum = 0;
for (int32_t i = 0; i < N; i++) {
    sum += x[i];
}
print_number("s", sum);"""
    costs = {n: run_cell(f"#define N {n}\n{code}", given=numbers) for n in (500, 1000)}
    more = [getattr(costs[1000], kind) - getattr(costs[500], kind) for kind in ("instructions", "cycles")]
    assert more[0] % 500 == 0 and 2 <= more[0] // 500 <= 5 and more[1] > more[0]


def test_equal_cells_are_equal_files() -> None:
    assert cell.cell_files("(void)0;", 4) == cell.cell_files("(void)0;", 4)
    assert cell.cell_files("(void)0;", 4)[1] != cell.cell_files("(void)0;", 8)[1] != cell.cell_files("(void)1;", 8)[1]


def test_help_and_out_of_measure_is_a_folder(shell: Any, tmp_path: Path) -> None:
    """The magic and the verb write the same file into the folder."""
    assert isinstance(run(shell, "%doctor"), Answer)
    command = f"measure {user_nets.__file__}:make --target host --data random --images 1 --out {tmp_path}/"
    assert run(shell, f"%{command}magic").bit_exact and main(f"{command}verb".split()) == 0
    (by_magic,), (by_verb,) = ([*folder.iterdir()] for folder in (tmp_path / "magic", tmp_path / "verb"))
    assert by_magic.name == by_verb.name and by_magic.read_bytes() == by_verb.read_bytes()
    for name, kind in (("measure", "line"), ("flash", "line"), ("serial", "line"), ("doctor", "line"), ("firmware", "cell")):
        assert "usage:" in (shell.find_magic(name, kind).__doc__ or "")


def test_a_board_behind_a_serial_port(shell: Any, tmp_path: Path) -> None:
    """%flash, %serial and %%firmware on a served board, as with a real one."""
    from tinyredux import Settings, compile_net, simulated_board

    own = f"{user_nets.__file__}:make"
    compiled = compile_net(Settings(own, data="random"))
    board = simulated_board(compiled.model)
    try:
        answer = run(shell, f"%serial --port {board.port} info")
        assert isinstance(answer, Answer) and answer.text.startswith("info version=1 model=")
        result = run(shell, f'%%firmware --target board:{board.port}\nprint_number("six", 6);')
        assert isinstance(result, CellResult) and result["six"] == 6 and result.cycles_kind == "modelled"
        assert "name=cell" in run(shell, f"%serial --port {board.port} info").text.splitlines()[0]
        assert run(shell, f"%flash {own} --data random --port {board.port}").data["board"] == "disco_f469ni"
        folder = compiled.artifact.write(tmp_path / "lenet_c")
        assert run(shell, f"%flash {folder} --port {board.port}").data["model_hash"] == compiled.artifact.model_hash
    finally:
        board.unplug()
    assert isinstance(run(shell, f"%serial --port {board.port} info"), Trouble)
