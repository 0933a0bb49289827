"""Wrong uses: networks of users that do what nobody expects, and command lines and terminals in every state.

Each ends with an exit code of the contract, in one sentence that names what was found, and with --json in one object.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tinyredux
from tinyredux import datasets, files, flow
from tinyredux.cli import app as cli
from tinyredux.cli import magics
from tinyredux.cli.verbs import VERBS
from tinyredux.cli.verbs.course import write_marks
from tinyredux.course import teaching
from tinyredux.explore import bench, plans
from tinyredux.notebook import show
from tinyredux.settings import Settings, compile_net, measure_net, write_artifact

NETS = """
from __future__ import annotations
import os, sys, threading, time
from dataclasses import dataclass
import torch
from torch import nn
from beside import WIDTH

@dataclass
class Config:
    width: int = WIDTH

class Net(nn.Module):
    def __init__(self, function=None, shape=(1, 4, 4)):
        super().__init__()
        self.__dict__["function"] = function
        self.input_shape = shape
        self.conv, self.line = nn.Conv2d(1, Config().width, 3), nn.Linear(4 * WIDTH, 3)

    def forward(self, x):
        return self.function(self, x) if self.function else self.line(self.conv(x).flatten(1))

class Closed(Net):
    input_shape = property(lambda net: raises(RuntimeError("no shape today")), lambda net, shape: None)

class Untrainable(Net):
    def train(self, mode=True):
        raises(RuntimeError("never train me"))

class Odd(BaseException):
    pass

def raises(failure):
    raise failure

def changed(change):
    net = Net()
    change(net)
    return net

def shaped(shape, *parts):
    net = nn.Sequential(*parts)
    net.input_shape = shape
    return net

def __getattr__(name):
    if name != "made_when_asked_for":
        raise AttributeError(name)
    return Net

def only_one(net, x):
    return net.line(net.conv(x).flatten(1)) if len(x) == 1 else raises(ValueError("only one"))

def whole_numbers():
    return nn.ParameterList([nn.Parameter(torch.ones(1, dtype=torch.int8), requires_grad=False)])

def chatty():
    print("made", flush=True)
    os.system("echo by a child")
    sys.stdout.close()
    threading.Thread(target=time.sleep, args=(600,)).start()
    os.chdir("/")
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    return Net()

"""
# What a name of the module is, and words of the sentence that it ends in
NETWORKS = {
    "good": ("Net", ""), "half": ("lambda: Net().half()", ""), "compiled": ("lambda: torch.compile(Net())", ""),
    "huge": ("lambda: Net(shape=(3, 10**6, 10**6))", "input_shape is (3, 1000000, 1000000), expected at most"),
    "truths": ("lambda: Net(shape=(True, 4, 4))", "input_shape is (True, 4, 4); give (channels, height, width)"),
    "flat": ("lambda: Net(shape=(4,))", "input_shape is (4,)"),
    "negative": ("lambda: Net(shape=(1, -4, 4))", "input_shape is (1, -4, 4)"),
    "batch": ("lambda: Net(shape=(1, 1, 4, 4))", "leave the images' number out"),
    "two_shapes": ("lambda: Net(shape=((1, 4, 4), (1, 4, 4)))", "stack several inputs along the channels of one"),
    "numbers": ("lambda: Net(shape=torch.tensor([1, 4, 4]))", "input_shape is tensor([1, 4, 4])"),
    "without_shape": ("lambda: nn.Linear(2, 2)", "input_shape is None; give"),
    "closed": ("Closed", "raised RuntimeError: no shape today (FILE:"), "untrainable": ("Untrainable", "never train me (FILE:"),
    "on_meta": ("lambda: Net().to('meta')", "conv.weight is on the meta device"),
    "complex_": ("lambda: Net().to(torch.complex64)", "torch.complex64"),
    "whole": ("lambda: changed(lambda n: setattr(n, 'conv', whole_numbers()))", "torch.int8"),
    "nan": ("lambda: changed(lambda n: n.conv.weight.data.fill_(float('nan')))", "NaN or infinite"),
    "constant": ("lambda: Net(lambda net, x: torch.ones(1, 3))", "returns a constant"),
    "none": ("lambda: Net(lambda net, x: None)", "returns a constant"),
    "pairs": ("lambda: Net(lambda net, x: (y := net.conv(x), y))", "the same values twice"),
    "in_list": ("lambda: Net(lambda net, x: [net.conv(x)])", ""),
    "on_values": ("lambda: Net(lambda net, x: net.conv(x) if x.sum() > 0 else net.conv(-x))", "data-dependent"),
    "one_image": ("lambda: Net(only_one)", "runs for one image, not for two: only one"),
    "flattened": ("lambda: Net(lambda net, x: net.line(net.conv(x).view(1, -1)))", "as flatten(1) does"),
    "forward_exit": ("lambda: Net(lambda net, x: raises(SystemExit(0)))", "cannot trace"),
    "forward_odd": ("lambda: Net(lambda net, x: raises(Odd('strange')))", "the network raised Odd: strange"),
    "forward_value": ("lambda: Net(lambda net, x: raises(ValueError('my value')))", "my value (FILE:"),
    "exits": ("lambda: raises(SystemExit(0))", "raised SystemExit: 0"),
    "odd": ("lambda: raises(Odd('strange'))", "Odd: strange (FILE:"),
    "value_error": ("lambda: raises(ValueError('my value\\nand more'))", "raised ValueError: my value (FILE:"),
    "hooked": ("lambda: changed(lambda n: n.conv.register_forward_hook(lambda *_: 1 / 0))", "division by zero (FILE:"),
    "memory": ("lambda: nn.Linear(10**7, 10**8)", "more memory than the machine has"),
    "two_inputs": ("lambda: changed(lambda n: n.__dict__.update(forward=lambda x, y: x + y))", "takes x, y, expected the images"),
    "number": ("5", "has no function 'number'; it has Config, Net"),
    "returns_number": ("lambda: 3", "returned int, expected a torch.nn.Module"),
    "needs": ("lambda width: Net()", "must run without arguments"),
    "wide": ("lambda: shaped((3, 4, 4), nn.Conv2d(3, 100_000, 1))", "100,000 rows, columns or channels in conv"),
    "large": ("lambda: shaped((3, 64, 64), nn.Conv2d(3, 600, 1))", "2,457,600 values in"),
    "long": ("lambda: shaped((3, 4, 4), *(nn.Conv2d(3, 3, 1) for _ in range(700)))", "700 parts, expected at most 600"),
    "heavy": ("lambda: shaped((1, 1, 1), nn.Flatten(), nn.Linear(10**8, 1, device='meta'))", "100,000,000 weights in 1.weight"),
    "made_when_asked_for": ("", ""), "made_never": ("", "has no function 'made_never'"),
    "interrupted": ("lambda: raises(KeyboardInterrupt())", "interrupted"),
}  # fmt: skip
NETS += "".join(f"{name} = {what}\n" for name, (what, _) in NETWORKS.items() if what)
FILES = {
    "with space.py": ("", None), "ünï.cødé.py": ("", None), "syntax.py": ("def make(:\n", "raised SyntaxError: invalid syntax"),
    "null.py": ("x = 1\0\n", "null bytes"), "empty.py": ("\n", "has no function 'good'; it has none"),
    "relative.py": ("from .beside import WIDTH\n", "relative import with no known parent"),
    "missing.py": ("import no_such_package\n", "No module named 'no_such_package' ("),
    "ends.py": ("raise SystemExit(0)\n", "SystemExit"), "without_ending": ("", "unknown network"),
    "none/none.py": (None, "no file"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with networks and the module beside them that they import."""
    path = tmp_path_factory.mktemp("networks")
    (path / "nets.py").write_text(NETS)
    (path / "beside.py").write_text("WIDTH = 2\n")
    return path


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Returns the exit code and the error of a command, after a look at the one object on standard output."""
    code = cli.main([*arguments, "--json"])
    (line,) = capsys.readouterr().out.strip().splitlines()
    said = str(json.loads(line).get("error", ""))
    assert code == (json.loads(line).get("exit", 0)) and "defect of tinyredux" not in said
    return code, said


@pytest.mark.parametrize("factory", NETWORKS)
def test_networks_of_users(capsys: pytest.CaptureFixture[str], folder: Path, factory: str) -> None:
    file, words = folder / "nets.py", NETWORKS[factory][1]
    code, said = answer(capsys, "plan", f"{file}:{factory}", "--data", "random")
    assert words.replace("FILE", str(file)) in said
    assert code == (2 if words else 0) or (factory, code) in (("memory", 3), ("interrupted", 130))


@pytest.mark.parametrize("name", FILES)
def test_files_of_users(capsys: pytest.CaptureFixture[str], folder: Path, name: str) -> None:
    text, words = FILES[name]
    if text is not None:
        (folder / name).write_text(text or NETS)
    code, said = answer(capsys, "plan", f"{folder / name}:good", "--data", "random")
    assert code == (2 if words else 0) and (words or "") in said


def test_neighbours_of_the_same_name_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    from tinyredux import nets

    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "beside.py").write_text("WIDTH = 5\n")
    widths = [nets.resolve(f"{where / 'nets.py'}:good").conv.out_channels for where in (folder, tmp_path, folder)]  # type: ignore[union-attr]
    assert widths == [2, 5, 2]


def test_a_user_s_interrupt_is_not_spoken_of_as_an_error(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert cli.main(["plan", f"{folder / 'nets.py'}:interrupted", "--data", "random"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")
    assert cli.main(["explore", f"{folder / 'nets.py'}:interrupted", "--data", "random"]) == 130
    assert capsys.readouterr().err == "interrupted; what was done is kept, the same command goes on from there\n"


COMMANDS = {
    "mesure lenet": "unknown verb 'mesure', expected measure", "-- measure": "invalid choice",
    "plan a\0b.py:make": "NUL character", "plan": "required: NET", "plan lenet alexnet": "unrecognized arguments: alexnet",
    "plan :": "unknown network ':'", "plan lenett": "unknown network 'lenett'", "plan LENET": "expected one of alexnet",
    "plan x.py:": "no file x.py", "plan lenet --method trec": "choose from", "plan lenet --accumulator int64": "choose from",
    "plan lenet --method exact --accumulator int16": "layer by layer there are none: add --method partial",
    "explore lenet --methods skip,skip": "methods is 'skip,skip', expected some of partial,trec,skip, each once",
    "plan lenet --mac-limit nan": "limit of MACs is nan, expected 1.0", "plan lenet --sram 0": "sram is 0",
    "plan lenet --sram 20K": "invalid int value: '20K', expected a whole number in decimal digits",
    "plan lenet --sram ٢٠": "invalid int", "plan lenet --sram=": "an argument is empty, expected a value",
    "plan lenet --board nope": "unknown board 'nope'", "plan lenet --data nope": "unknown data 'nope'",
    "measure lenet --images -1": "images is -1",
    "measure lenet --images 1000000000 --data random": "images is 1,000,000,000, the test part of random has 1,",
    "train lenet --method skip --share 2 --data synthetic": "the share of cycles to keep is 2.0",
    "measure lenet --target moon": "host", "measure lenet --kernels slow": "slow",
    "measure lenet --method trec++skip": "method is '' in 'trec++skip', expected one of exact",
    "compile lenet": "required: --out", "lab check": "needs a path", "book 99": "99",
    "book -p X 1": "parameters are for one chapter",
    "book 01 --execute -p X 1": "parameters are for one chapter, not written back", "reproduce nope": "nope",
    "data nope": "unknown data", "serial": "no JSON answer", "run nope": "does not exist",
    "run nope --index -1": "input -1 was asked for, expected 0 or more", "simulate nope --board disco_f469ni": "does not exist",
    "simulate . --board disco_f469ni": "file . is a folder; expected a file",
    "bench --layer conv٣x٣:4-4@8x8": "is not understood", "prune lenet": "required: --sram",
    "train lenet --share 0.5": "add --method skip", "train lenet --trec x.json": "add --method trec",
}  # fmt: skip


def test_an_empty_argument(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--kernels", "--out", "--trec", "--board", "--data"):
        assert answer(capsys, "measure", "lenet", option, "")[0] == 2


class Strange:
    """An object that answers no question."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("never compare me")

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise RuntimeError("never print me")


def endless_list() -> list[object]:
    found: list[object] = []
    found.append(found)
    return found


# a field of Settings, its value, what is said
SETTINGS = (
    ("net", 5, "net is 5, expected str"), ("method", None, "method is None, expected str"), ("sram", True, "sram is True"),
    ("sram", "20K", "sram is '20K', expected int or None"), ("images", 2.5, "images is 2.5, expected int"),
    ("calibration", "x.npz", "calibration is 'x.npz', expected Path or None"), ("mac_limit", 0, "limit of MACs is 0"),
    ("mac_limit", float("nan"), "limit of MACs is nan, expected 1.0"), ("input_outside", "yes", "expected bool"),
    ("target", "host:x", "target is 'host:x', expected host"), ("kernels", "", "kernels is ''"),
)  # fmt: skip
LINES = ("'x", "net.py:make --data 'a b", "x\\")
CALLS: dict[str, tuple[Callable[[], object], str]] = {
    **{f"{name} {value}": (lambda name=name, value=value: Settings(**{"net": "lenet", "method": "partial", name: value}), words)
       for name, value, words in SETTINGS},
    **{f"%{magic} {line}": (lambda magic=magic, line=line: magics.read(magic, line), "; close each quote")
       for magic in magics.MAGICS for line in LINES},
    "marks": (lambda: write_marks(Path("/dev/full"), [("file",)]), "--csv /dev/full cannot be written: No space"),
    "measure": (lambda: measure_net("lenet"), "what to compile is 'lenet', expected Settings, such as Settings('lenet')"),
    "compile_net": (lambda: compile_net(Strange()), "of type Strange, expected Settings"),
    "compile": (lambda: flow.compile("x"), "what to compile is 'x', expected Graph"),
    "measure a model": (lambda: flow.measure(None, None), "what to measure is None, expected Model"),
    "write_artifact": (lambda: write_artifact(Settings("lenet"), None), "the folder is None, expected"),
    "plan": (lambda: plans.plan("lenet", "lenet"), "what to plan is 'lenet', expected Graph"),
    "quantize": (lambda: tinyredux.quantize("x", None), "what to quantize is 'x', expected Graph"),
    "verify": (lambda: tinyredux.verify(None), "what to verify is None, expected Graph"),
    "memory.plan": (lambda: tinyredux.memory.plan(None), "what to plan is None, expected Graph"),
    "datasets.load": (lambda: datasets.load(5), "the data is 5, expected str | None"),
    "find_board": (lambda: tinyredux.find_board(469), "the board is 469, expected str"),
    "a long board": (lambda: tinyredux.find_board("x" * 300), "unknown board 'xxx"),
    "parse_spec": (lambda: bench.parse_spec(3), "the layer is 3, expected str"),
    "bench_layer": (lambda: bench.bench_layer("dense:8-4", "x"), "the board is 'x', expected Board"),
    "load": (lambda: tinyredux.load(None), "the record is None, expected"),
    "load a text": (lambda: tinyredux.load("none.json"), "record none.json does not exist"),
    "run_cell": (lambda: tinyredux.run_cell(None), "the cell is None, expected str, its C"),
    "simulated_board": (lambda: tinyredux.simulated_board(None), "the network is None, expected Model"),
    "show a number": (lambda: show.show(5), "of type int without Python source; give a Python function"),
    "show an object": (lambda: show.show(Strange()), "of type Strange without"),
    "show nothing": (lambda: show.show(""), "no C function ''"),
    "check": (lambda: teaching.check([], len), "the exercise is of type list, expected str"),
    "hint": (lambda: teaching.hint("lab1.round_shift", "x"), "the step is 'x', expected int"),
    "table": (lambda: show.table(5), "TypeError: 'int' object is not iterable; expected items"),
    "a field less": (lambda: show.table([{"a": 1}], "b"), "KeyError: 'b'; expected items that have the fields"),
    "recorded": (lambda: show.recorded("../records/x" * 99), "no record '../records/x"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_functions_are_given_something_else(name: str) -> None:
    call, words = CALLS[name]
    with pytest.raises(ValueError, match=re.escape(words)):
        call()


def test_what_is_taken_all_the_same() -> None:
    assert show.table([]).rows == ()
    assert Settings("lenet", "partial", mac_limit=2, images=np.int64(3)).images == 3  # type: ignore[arg-type]


def raises(failure: BaseException) -> Callable[..., object]:
    return lambda *arguments: (_ for _ in ()).throw(failure)


ANSWERS: tuple[tuple[object, str], ...] = (
    (raises(SystemExit(0)), "raised SystemExit: 0"), (raises(GeneratorExit()), "raised GeneratorExit"),
    (raises(type("Odd", (Exception,), {"__str__": lambda self: 1 / 0})()), "raised Odd"),
    (Strange(), "expected a function, found a value"), (lambda *arguments: Strange(), "found an object of type Strange"),
    (lambda *arguments: endless_list(), "found an object of type list"),
    (lambda *arguments: type("Array", (), {"__module__": "numpy", "__array__": raises(OSError("no"))})(), "type Array"),
)  # fmt: skip


@pytest.mark.parametrize("i", range(len(ANSWERS)))
def test_a_student_s_strange_answer_is_a_verdict(i: int) -> None:
    verdict = teaching.check("lab1.round_shift", ANSWERS[i][0])
    assert not verdict.passed and ANSWERS[i][1] in verdict.text


def test_a_home_that_is_no_folder(capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the cache is named, no home is needed, not for the simulator either."""
    monkeypatch.setenv("HOME", "~")
    monkeypatch.setenv("TINYREDUX_CACHE", str(folder / "cache"))
    assert files.cache_folder() == folder / "cache"
    monkeypatch.delenv("TINYREDUX_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(ValueError, match="the home folder is '~', expected an absolute path; set HOME"):
        files.cache_folder()


@pytest.mark.parametrize("command", COMMANDS)
def test_command_lines(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, said = answer(capsys, *command.split()) if "--" not in command.split() else (cli.main(command.split()), "")
    assert code == 2 and COMMANDS[command] in (said or capsys.readouterr().err)


@pytest.mark.parametrize("cell", ["", "\n", "#define X 1"])
def test_a_cell_without_statements_runs(cell: str) -> None:
    assert tinyredux.run_cell(cell, "host").values == {}


@pytest.mark.slow
def test_a_signal_ends_in_a_word(folder: Path) -> None:
    # Many short sleeps: a signal between the check for one and the beginning of a sleep waits for that sleep's end.
    slow = "import time\ndef make():\n    print('made', flush=True)\n    for _ in range(600):\n        time.sleep(0.1)\n"
    (folder / "slow.py").write_text(slow)
    command = [sys.executable, "-m", "tinyredux", "plan", f"{folder / 'slow.py'}:make", "--data", "random"]
    both = {
        number: subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # also where these tests run in the background
        )
        for number in (signal.SIGINT, signal.SIGTERM)
    }  # fmt: skip
    for number, running in both.items():
        assert running.stdout is not None and running.stdout.readline() == "made\n"
        running.send_signal(number)
        assert running.communicate(timeout=20) == ("", "interrupted\n") and running.returncode == 130


@pytest.mark.parametrize(("failure", "code", "words"), [
    (ModuleNotFoundError("No module named 'termios'", name="termios"), 3, "this needs termios, .* on Windows use WSL 2"),
    (ModuleNotFoundError("No module named 'torch'", name="torch"), 3, r"torch is missing; run: pip install .*\[torch\]"),
    (ImportError("libtorch_cpu.so: failed to map segment"), 3, "a package cannot be loaded: libtorch_cpu.so.* free memory"),
    (datasets.MissingDataError("no data"), 3, "no data; TINYREDUX_DATA is '/dev/null' now, which is no folder"),
    (MemoryError(), 3, "more memory than the machine has"),
    (PermissionError(13, "Permission denied", "/x"), 2, "/x: Permission denied"),
    (KeyError("x"), 2, "a defect of tinyredux, or an input that it does not foresee; --debug"),
])  # fmt: skip
def test_what_ends_a_verb(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, failure: Exception, code: int, words: str
) -> None:
    def fails(options: object) -> None:
        raise failure

    monkeypatch.setitem(VERBS, "nets", replace(VERBS["nets"], run=fails))  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("TINYREDUX_DATA", "/dev/null")
    assert cli.main(["nets"]) == code
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1
    assert re.search(words, captured.err)


def process(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Returns what a shell's command gives in which $T is the command line's program."""
    program = f"T='{sys.executable} -m tinyredux'; {command}"
    return subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=120, env=os.environ | environment)


@pytest.mark.parametrize(("command", "code", "words"), [
    ("$T nets >/dev/full", 2, "cannot write the answer to standard output: .*No space"),
    ("$T nets --json >/dev/full", 2, "No space"), ("$T measure --help >/dev/full", 2, "No space"),
    ("$T nets >&-", 2, "it is closed"), ("$T nets <&- 2>&- >/dev/null", 0, "^$"), ("$T nope 2>/dev/full", 2, "^$"),
    ("set -o pipefail; $T nets | head -1 >/dev/null", 0, "^$"), ("set -o pipefail; $T measure --help | true", 0, "^$"),
    ("$T run nöpe.npy", 2, r"n\\xf6pe.npy does not exist"), ("$T run $'n\\xff.npy' --json", 2, "does not exist"),
    ("cd $(mktemp -d) && rmdir $PWD && $T nets", 2, "the working folder was removed; change into another"),
    ("COLUMNS=1 $T lab --help >/dev/null", 0, "^$"),
])  # fmt: skip
def test_terminals(command: str, code: int, words: str) -> None:
    done = process(command, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == code and re.search(words, done.stderr) and "Traceback" not in done.stderr, done.stderr


@pytest.mark.slow
def test_a_network_that_leaves_a_thread_and_prints_by_a_child(folder: Path) -> None:
    done = process(f"$T plan {folder / 'nets.py'}:chatty --data random --json")
    assert done.returncode == 0 and json.loads(done.stdout)["net"].endswith(":chatty"), done.stderr
    assert "made" in done.stderr and "by a child" in done.stderr


def test_help_needs_no_numpy_and_blas_keeps_to_one_thread_unless_the_user_says_otherwise() -> None:
    code = (
        "import os, sys, tinyredux.__main__ as m; sys.argv[1:] = ['measure', '--help']\n"
        "try: m.main()\nfinally: print('numpy' in sys.modules, os.environ['OMP_NUM_THREADS'])"
    )
    for given, expected in ({}, "1"), ({"OMP_NUM_THREADS": "3"}, "3"):
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | given
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        assert done.stdout.splitlines()[-1] == f"False {expected}"
