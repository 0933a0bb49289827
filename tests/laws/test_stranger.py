"""A stranger types what the pages say: every command of them is one that the programs take, and the short ones do what they say.

Commands of README, of the help, of claims, records and chapters are parsed, not run; with `-m sweep` those of README run too, on
what a fresh machine has: no CIFAR-10, an empty cache, the folder above the clone.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import importlib
import itertools
import json
import re
import runpy
import shlex
import shutil
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import user_nets

from tinyredux import nets
from tinyredux.boards import find_board
from tinyredux.cli import app as cli
from tinyredux.cli import magics
from tinyredux.cli.verbs import VERBS, network
from tinyredux.course import book
from tinyredux.course.claims import Evidence, all_claims, reproduce
from tinyredux.explore import mlperf
from tinyredux.measurement import load

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "data/README.md", "tinyredux/weights/README.md", *(
    f"book/{path.name}" for path in (ROOT / "book").glob("*.md")
))  # fmt: skip
OURS = re.compile(r"(?:tinyredux|python -m tinyredux|(?:python )?tools/\S+\.py|make|pio|papermill|%%?\w+)(?: .*)?$")
Run = Callable[..., tuple[int, str, str]]
PLACEHOLDER = re.compile(r"[A-Z_]+$")


def commands_of(text: str) -> Iterator[str]:
    """Yields the commands of a page: in backticks, and on indented lines, where two spaces end a command."""
    indented = [re.split(r"\s{2,}", line.strip())[0] for line in text.splitlines() if line.startswith("    ")]
    yield from (found for found in (*re.findall(r"`([^`\n]+)`", text), *indented) if OURS.match(found))


def all_commands() -> Iterator[tuple[str, str]]:
    """Yields (where it stands, command) of all that a stranger may read."""
    for page in PAGES:
        yield from ((page, found) for found in commands_of((ROOT / page).read_text(encoding="utf-8")))
    for path in book.notebooks():
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                yield from ((path.stem, found) for found in commands_of(cell.source))
            else:
                typed = (line.lstrip("!") for line in cell.source.splitlines() if line[:1] in "!%")
                yield from ((path.stem, line) for line in typed if OURS.match(line))
    for path in sorted((ROOT / "tinyredux").rglob("*.py")):  # what errors advise
        advice = re.findall(r"(?:`|: |python -m )tinyredux ([a-z]+ [^`\"\n;,]+)", path.read_text(encoding="utf-8"))
        yield from ((path.name, "tinyredux " + re.sub(r"\{.*?\}", "NET", found)) for found in advice)
    yield from ((f"help of {name}", f"tinyredux {verb.example}") for name, verb in VERBS.items())
    for claim in reproduce():
        yield from ((f"claim {claim['id']}", found) for found in claim["command"].split("; ") if found)
    for path in sorted([*(ROOT / "data" / "records").rglob("*.json"), *(ROOT / "tinyredux" / "weights").rglob("*.json")]):
        record = json.loads(path.read_text())
        if isinstance(record, dict):
            said = record.get("commands", [record["command"]] if record.get("command") else [])
            yield from ((path.name, found) for found in said)


class Parsed(Exception):  # noqa: N818 (it is an answer, not an error)
    """The options that a tool has read, before it does anything."""


def parse_tool(tool: str, words: list[str]) -> argparse.Namespace:
    """Returns the options that a tool of tools/ reads from the words. Raises SystemExit or ArgumentError for wrong ones."""
    path, parse = ROOT / tool, argparse.ArgumentParser.parse_args
    if "argparse" not in path.read_text():
        assert not words, f"{tool} takes no options"
        return argparse.Namespace()

    def read(parser: argparse.ArgumentParser, *_: Any) -> Any:
        raise Parsed(parse(parser, words))

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path.parent)
        patch.setattr(argparse.ArgumentParser, "parse_args", read)
        with pytest.raises(Parsed) as done:
            runpy.run_path(str(path), run_name="__main__")
    options: argparse.Namespace = done.value.args[0]
    return options


def parse(command: str) -> argparse.Namespace | None:
    """Returns the options of a command, None where it has none that can be read without running it. Raises for a wrong one."""
    words = shlex.split(command)
    if words[:3] == ["python", "-m", "tinyredux"]:
        words = words[2:]
    match words[1:] if words[0] == "python" else words:
        case ["tinyredux"]:
            return None
        case ["tinyredux", verb] if VERBS[verb]:
            return None  # the verb's name, or a verb without arguments, which all have defaults where README shows it so
        case ["tinyredux", *rest]:
            return checked(cli._parser().parse_args(rest))
        case [tool] if tool.startswith("tools/") and command == tool:
            assert (ROOT / tool).is_file(), f"{tool} is not there"
        case [tool, *rest] if tool.startswith("tools/"):
            return parse_tool(tool, rest)
        case ["make", *goals]:
            named = [goal for goal in goals if "=" not in goal]
            assert all(re.search(rf"^{goal}:", (ROOT / "Makefile").read_text(), re.M) for goal in named), command
        case ["pio", *rest]:
            plan = configparser.ConfigParser()
            plan.read([ROOT / "platformio.ini", ROOT / "firmware" / "boards" / "platformio.ini"])
            chosen = [name for flag, name in itertools.pairwise(rest) if flag == "-e"]
            assert chosen and all(plan.has_section(f"env:{name}") for name in chosen), command
        case ["papermill", chapter, _, *rest]:
            assert (ROOT / "book" / chapter).is_file() and rest[::3] == ["-p"] * (len(rest) // 3), command
        case [magic, *rest] if magic.lstrip("%") in magics.MAGICS and rest:
            return magics.arguments(magic.lstrip("%")).parse_args(rest)
    return None


def checked(options: argparse.Namespace) -> argparse.Namespace:
    """Returns the options; raises ValueError where a value is none that its verb takes."""
    net, board = getattr(options, "net", None), getattr(options, "board", None)
    if net and not PLACEHOLDER.match(net) and ":" not in net and net not in ("model.tflite", "model.onnx"):  # a reader's own
        nets.resolve(net)
    if board and not PLACEHOLDER.match(board) and "{" not in board:
        find_board(board)
    if options.verb in ("measure", "compile"):
        network.named_run(options)
    if options.verb == "book" and options.chapter:
        book.find_chapter(options.chapter)
    return options


def test_every_command_that_is_written_somewhere_can_be_typed() -> None:
    wrong, seen = [], set()
    for where, command in all_commands():
        if command in seen:
            continue
        seen.add(command)
        try:
            parse(command)
        except (Exception, SystemExit, pytest.fail.Exception) as error:
            wrong.append(f"{where}: {command}: {type(error).__name__} {error}")
    assert not wrong, "\n".join(wrong)
    assert len(seen) > 100


def test_a_wrong_command_would_be_found() -> None:
    for command in (
        "tinyredux evaluate lenet", "tinyredux plan lenet --json > plan.json", "tinyredux measure lonet --images 2",
        "tools/trec_sweep.py layer", "tools/none.py", "make chapter", "pio run -e nucleo", "%measure lenet --kernals fast",
    ):  # fmt: skip
        with pytest.raises((Exception, SystemExit)):
            parse(command)


def written_by(command: str) -> Path:
    """Returns the record that a claim's command writes, from its options alone."""
    options = parse(f"python {command}" if command.startswith("tools/") else f"tinyredux {command}")
    assert options is not None
    if command.startswith("tools/"):
        return Path(getattr(options, "out", None) or f"data/records/trec_{options.sweep}.json")
    if options.verb == "plan":
        return Path(options.out / f"{options.net}.plan-x{options.mac_limit:.2f}.json")
    settings = network.named_run(options)
    name = f"{settings.net}.{settings.method}.{settings.kernel_set}.{settings.board}.{settings.target}.{settings.data}.json"
    record = load(ROOT / options.out / name)
    found = (record.net, record.method, record.kernels, record.board, record.target, record.data, record.images)
    assert found == (*name.split(".")[:-1], settings.images), f"{command} does not make {name}"
    return Path(options.out / name)


@pytest.mark.parametrize("claim", [claim for claim in all_claims() if claim.evidence], ids=lambda claim: claim.id)
def test_a_claims_commands_make_the_records_that_it_reads(claim: Any) -> None:
    evidence: Evidence = claim.evidence
    assert {written_by(command) for command in evidence.commands} == evidence.records
    assert len(evidence.commands) == len(evidence.records) and evidence.value() is not None
    if evidence.ratios[0][0].endswith("/arena"):
        arenas = [load(ROOT / record).sram_bytes["arena"] for record in evidence.records]
        assert all(f"{arena:,} " in claim.differs for arena in arenas), f"the text speaks of other bytes than {arenas}"
    assert claim.band is None or re.search(r"\d", claim.published), "a verdict needs a published figure"


def folder_above(tmp_path: Path) -> Path:
    """Returns a folder in which the checkout lies under its usual name, with claims' records of its own."""
    (tmp_path / "data" / "records").mkdir(parents=True)
    for name in ("tinyredux", "tools", "firmware", "platformio.ini"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.slow
def test_full_goes_on_after_a_command_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three claims: one is made again, one command ends badly, one has a record that its command does not write."""
    monkeypatch.setattr("tinyredux.course.claims.ROOT", folder_above(tmp_path))
    plan, wrong = f"plan {user_nets.__file__}:make --data random --out data", "simulate nothing.elf --board disco_f469ni"
    here, other = Path("data/make.plan-partial.json"), Path("data/other.json")
    (tmp_path / other).write_text('{"placement_bytes": 1}')
    rows = [
        {"id": name, "paper": "", "where": "", "metric": "", "published": "9", "chapter": "", "differs": "", "band": [0, 1e6],
         "evidence": {"ratios": [[f"{record}#placement_bytes"]], "commands": [command]}}
        for name, record, command in (("a", here, plan), ("b", other, wrong), ("c", other, "nets"))
    ]  # fmt: skip
    (tmp_path / "claims.json").write_text(json.dumps(rows))
    monkeypatch.setattr("tinyredux.course.claims.CLAIMS_FILE", tmp_path / "claims.json")
    first, second, third = reproduce((), "full")
    assert (first["verdict"], first["basis"], first["failed"]) == ("reproduced", "remade", "")
    assert (second["verdict"], second["basis"], second["ours"]) == ("reproduced", "recorded", 1)
    assert f"`python -m tinyredux {wrong}` ended with exit code 2: " in second["failed"]
    assert "nothing.elf does not exist" in second["failed"]
    assert (third["basis"], third["failed"]) == ("recorded", "")
    assert cli.main(["reproduce", "b", "--profile", "full"]) == 1 and cli.main(["reproduce", "c"]) == 0


def test_no_verdict_without_a_published_figure() -> None:
    (space,) = reproduce(["trec.space"])
    assert space["ours"] > 2 and space["verdict"] == "not attempted" and space["basis"] == "recorded"


@pytest.mark.sweep
@pytest.mark.parametrize("name", [claim.id for claim in all_claims() if claim.evidence and claim.id != "trec.kernel_reuse"])
def test_full_makes_the_record_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each claim but one, which trains for hours; its records are not there before."""
    monkeypatch.setattr("tinyredux.course.claims.ROOT", ROOT)
    (before,) = reproduce([name])
    monkeypatch.setattr("tinyredux.course.claims.ROOT", folder_above(tmp_path))
    (after,) = reproduce([name], "full")
    assert after["failed"] == "" and after["basis"] == "remade"
    assert (after["ours"], after["verdict"]) == (before["ours"], before["verdict"])


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Returns what runs a command line above a clone, without CIFAR-10, with its own cache, and gives its code and words."""
    (tmp_path / "tinyredux").symlink_to(ROOT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TINYREDUX_DATA", raising=False)
    monkeypatch.setenv("TINYREDUX_CACHE", str(tmp_path / "cache"))

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.main([*words])
        return code, *capsys.readouterr()

    return run


def test_without_the_arm_compiler_a_sentence_says_how_to_get_it_and_the_host_works(
    stranger: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("gcc", "as", "ld"):
        (tools / name).symlink_to(shutil.which(name) or "none")
    monkeypatch.setenv("PATH", str(tools))
    code, out, said = stranger("bench", "--layer", "dense:8-4")
    assert code == 3 and out == "" and said.count("\n") == 1 and "apt-get install" in said and "gcc-arm-none-eabi" in said
    own = f"{user_nets.__file__}:make"
    code, out, said = stranger("measure", own, "--data", "random", "--target", "host", "--images", "1", "--kernels", "reference")
    assert code == 0 and "1 of random" in out, said


SHORTER = {"train": ["--epochs", "1"], "prune": ["--epochs", "1", "--steps", "1"], "explore": ["--trials", "2", "--images", "50"]}
README_TEXT = (ROOT / "README.md").read_text()
README = [shlex.split(found)[3:] for found in commands_of(README_TEXT) if "-m tinyredux" in found]


@pytest.mark.sweep
@pytest.mark.parametrize("words", [words for words in README if words[0] not in ("simulate", "compare")], ids=" ".join)
def test_readme_on_a_fresh_machine(words: list[str], stranger: Run) -> None:
    """Every command of README but those with files of a user; long ones with fewer rounds, without boards and data nobody has."""
    code, out, said = stranger(*words, *SHORTER.get(words[0], []))
    assert code == (1 if words[0] == "reproduce" else 0), said[-2000:]
    assert out and "Traceback" not in said


def test_figures_of_readme_are_those_of_the_records() -> None:
    def record(net: str, method: str, kernels: str) -> dict[str, Any]:
        (path,) = (ROOT / "data" / "records").glob(f"{net}.{method}.{kernels}.disco_f469ni.simulator.*.json")
        return json.loads(path.read_text())

    def size(run: dict[str, Any]) -> str:
        return f"{run['sram_bytes']['arena'] + run['sram_bytes']['scratch']:,}"

    lines = [line for line in README_TEXT.splitlines() if re.match(r"\| \w+ \| [\d.]+ M", line)]
    assert len(lines) == 5
    for line in lines:
        net, _, reference, fast, method, whole, parts = (cell.strip() for cell in line.split("|")[1:-1])
        runs = {reference: record(net, "exact", "reference"), fast: record(net, "exact", "fast")}
        if found := re.match(r"([\d.]+) \((\w+)\)", method):
            runs[found[1]] = record(net, found[2], "fast")
        assert [f"{run['cycles'] / 1e6:.1f}" for run in runs.values()] == [*runs], net
        assert whole == size(runs[fast]) and parts in ("", size(record(net, "partial", "reference")) if parts else ""), net


def test_figures_of_mlperf_tiny_in_readme_are_those_of_the_record() -> None:
    rows = {row["test"]: row for row in mlperf.recorded()["rows"]}
    (tflm,) = (row for row in mlperf.facts()["published"] if row["by"] == "TFLM, reference" and row["beside"] == mlperf.BOARD)
    lines = re.findall(r"\| (\w+), (.+) \| ([\d.]+) \| ([\d.]+) \((.+)\) \| ([\d.]+) \|", README_TEXT)
    assert [line[0] for line in lines] == ["IC", "KWS", "VWW", "AD"]
    for test, shape, ours, best, who, reference in lines:
        row, other = rows[test], rows[test]["published"]
        assert (shape, ours) == (row["network"], f"{row['cycles'] / 1e6:.3g}") and row["oracle_differs"] in (0, None)
        assert (best, who) == (str(other["million_cycles"]), f"{other['by']} {other['version']}")
        assert reference == str(tflm["million_cycles"][test])
    assert f"a board takes {' to '.join(map(str, rows['IC']['error_band']))}" in README_TEXT


@pytest.mark.parametrize("path", sorted((ROOT / "tools").glob("*.py")), ids=lambda path: path.stem)
def test_what_a_tool_uses_of_the_library_is_there(path: Path) -> None:
    """A record can be made again only by a tool whose names exist; tools take too long to run here."""
    tree, used = ast.parse(path.read_text()), dict[str, Any]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tinyredux"):
            room = importlib.import_module(node.module or "")
            for name in node.names:
                found = getattr(room, name.name, None) or importlib.import_module(f"{node.module}.{name.name}")
                used[name.asname or name.name] = found
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = used.get(node.value.id)
            assert not isinstance(owner, types.ModuleType) or hasattr(owner, node.attr), f"line {node.lineno}: {node.attr}"
