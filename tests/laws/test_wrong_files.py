"""Files that are wrong, places that cannot be written, processes that meet: each ends in a sentence or in the right bytes."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import user_nets

from tinyredux import boards, datasets, files, nets, train
from tinyredux.cli import app as cli
from tinyredux.codegen import Artifact
from tinyredux.datasets import sets
from tinyredux.device import build
from tinyredux.skip import records
from tinyredux.train import pretrained, prune

BOARD = json.loads((boards.BOARD_FOLDER / "disco_f469ni.json").read_text())
RAM = BOARD["sram"][0]
SKIP = {
    "net": "own", "data": "synthetic", "unit": "block", "shares": {"conv1": 0.3}, "thresholds": {"conv1": 0.1},
    "validation_images": 10, "validation_exact": 5, "validation_skipped": 5,
}  # fmt: skip
TREC = {"sub_length": 5, "hash_bits": 3}
RANDOM = ["--data", "random", "--target", "host", "--images", "1"]
FLASH = BOARD["flash_timing"]


SMALL = datasets.synthetic(counts=(128, 20, 20))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a user's networks in it, and a cache of its own for what is trained."""
    shutil.copy(user_nets.__file__, tmp_path / "net.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sets, "synthetic", lambda: SMALL)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str, code: int = 2) -> None:
    """Checks that the command line ends with a code and a sentence with some words in it, on one line."""
    capsys.readouterr()
    found = cli.main(arguments)
    error = capsys.readouterr().err
    assert found == code and words in error and "Traceback" not in error, error


# Files of JSON ---------------------------------------------------------------------------------------------------------

BOARDS: dict[str, tuple[object, str]] = {
    "a list": ([], "holds a list, expected an object"), "nothing": (b"", "the file is empty"),
    "no JSON": (b"{name", "is no JSON"), "nested deeply": (b"[" * 100_000, "nested too deeply"),
    "other bytes": (b"\xff\xfe{}", "no text in UTF-8 (byte 0)"),
    "a name twice": (b'{"name": "a", "name": "b"}', "the name 'name' is there twice"),
    "NaN": (json.dumps(BOARD).replace("180000000", "NaN").encode(), "NaN is no number"),
    "infinity": (json.dumps(BOARD).replace("180000000", "1e999").encode(), "clock_hz is Infinity, expected a whole number"),
    "5,000 digits": (json.dumps(BOARD).replace("180000000", "1" * 5000).encode(), "is no JSON"),
    "a misspelt field": (BOARD | {"clok_hz": 3}, "field clok_hz is unknown; did you mean clock_hz?"),
    "another chip": (BOARD | {"mcu": "host"}, "expected a name that begins with stm32"),
    "a title of lines": (BOARD | {"title": "a\nb"}, "expected printable text"),
    "a title that ends a comment": (BOARD | {"title": "a */ b"}, "expected text without */"),
    "a clock in MHz": (BOARD | {"clock_hz": 180.5}, "field clock_hz is 180.5, expected a whole number"),
    "a clock that stands": (BOARD | {"clock_hz": 0}, "clock_hz is 0, expected 1 to"),
    "a name that leads up": (BOARD | {"name": "../up"}, "board name is '../up'"),
    "a clock that is true": (BOARD | {"clock_hz": True}, "field clock_hz is true, expected a whole number"),
    "a clock of 2^100": (BOARD | {"clock_hz": 1 << 100}, "expected 1 to 4294967295"),
    "bypass as a number": (BOARD | {"oscillator_bypass": 1}, "expected true or false"),
    "timing as text": (BOARD | {"flash_timing": "fast"}, 'field flash_timing is "fast", expected an object'),
    "timing with a null": (BOARD | {"flash_timing": FLASH | {"code_lines": None}}, "field flash_timing.code_lines is null"),
    "timing without end": (BOARD | {"flash_timing": FLASH | {"wait_states": 10**30}}, "expected 0 to 15"),
    "lines of 15 bytes": (BOARD | {"flash_timing": FLASH | {"line_bytes": 15}}, "expected a power of two"),
    "console without a pin": (BOARD | {"console": BOARD["console"] | {"tx": "B10"}}, "field console: console pin is 'B10'"),
    "no memory": (BOARD | {"sram": []}, "no SRAM"),
    "memory as an object": (BOARD | {"sram": RAM}, "field sram is an object, expected a list"),
    "memory without end": (BOARD | {"sram": [RAM | {"size_bytes": 10**30}]}, "expected 1 to 134217728"),
    "console as a list": (BOARD | {"console": []}, "field console is a list"),
    "memory on peripherals": (BOARD | {"sram": [RAM | {"base": "0x40000000"}]}, "where peripherals begin"),
    "memory that overlaps": (BOARD | {"sram": [RAM, RAM | {"name": "more"}]}, "memories sram and more overlap"),
    "two of one name": (BOARD | {"sram": [RAM, BOARD["sram"][1] | {"name": "SRAM"}]}, "two memories have one name"),
    "a name that C has not": (BOARD | {"sram": [RAM | {"name": "a b"}]}, "memory's name is 'a b'"),
}  # fmt: skip


TRECS: dict[str, tuple[object, str]] = {
    "13 bits": ({"0": TREC | {"hash_bits": 13}}, "field 0: sub_length is 5 and hash_bits 13"),
    "more bits than filters": ({"0": TREC | {"hash_bits": 5}}, "hash_bits is 5, expected 1 to 4"),
    "no bits": ({"0": TREC | {"hash_bits": 0}}, "hash_bits 0"), "no layer": ({}, "names no layer"),
    "a length beyond the window": ({"0": TREC | {"sub_length": 76}}, "sub_length is 76, expected 1 to 75"),
    "another hash": ({"0": TREC | {"hash": "md5"}}, "hash is 'md5', expected one of kernel"),
    "another field": ({"0": TREC | {"length": 5}}, "field 0.length is unknown; did you mean sub_length?"),
    "no such layer": ({"conv1": TREC}, "no convolution or linear layer 'conv1' for TREC; it has 0"),
    "null": ({"table": None}, "the content is null"),
    "another recipe": ({"table": {"0": TREC}, "recipe": {"epochs": 0}}, "recipe: epochs is 0"),
    "a recipe in words": ({"table": {"0": TREC}, "recipe": {"seed": "one"}}, 'field seed is "one", expected a whole number'),
}  # fmt: skip
GOOD = np.random.default_rng(0).normal(size=(8, 3, 7, 7)).astype(np.float32)


def header(shape: str, kind: str = "'<f4'", version: int = 1) -> bytes:
    """The beginning of an .npy file that claims what it likes."""
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(text)) + text.encode()


CLAIMS: dict[str, tuple[bytes, str]] = {
    "terabytes": (header("(1000000000000, 3, 7, 7)"), "Unable to allocate"),
    "nothing, of a huge shape": (header("(0, 1000000000000, 1000000000, 7)"), "not an .npz archive"),
    "more than there is": (header("(8, 3, 7, 7)") + bytes(100), "expected 4704 bytes got 100"),
    "a call": (header("__import__('os')"), "not an .npz archive without pickles"), "no array": (b"hello", "images are |S5"),
    "another version": (header("(1, 3, 7, 7)", version=9), "not (9, 0)"),
    "an unknown type": (header("(1, 3, 7, 7)", "'zz'"), "not a valid dtype"),
}  # fmt: skip


def zipped(content: bytes, name: str = "images.npy", flag: int = 0) -> bytes:
    """An archive with one file; the flag 1 says that it is encrypted."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, content)
    whole = bytearray(packed.getvalue())
    whole[6] |= flag
    whole[whole.rindex(b"PK\x01\x02") + 8] |= flag
    return bytes(whole)


def saved(**arrays: Any) -> bytes:
    """The bytes of an .npz archive."""
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


ARCHIVES: dict[str, tuple[bytes, str]] = {
    "another byte order": (saved(images=GOOD.astype(">f4")), "images are >f4, expected float32"),
    "other labels": (saved(images=GOOD, labels=np.full(8, 2**63, np.uint64)), "labels go from 9223372036854775808"),
    "too large labels": (saved(images=GOOD, labels=np.full(8, 5)), "labels reach 5, the network has 5 outputs"),
    "an array by itself": (header("(1,)") + bytes(4), "not an .npz archive without pickles (File is not a zip file)"),
    "encrypted": (zipped(header("(1,)") + bytes(4), flag=1), "is encrypted"),
    **{name: (zipped(content), words) for name, (content, words) in CLAIMS.items()},
}  # fmt: skip
BY_TREC = "train net.py:labelled --data synthetic --method trec --trec own.json"
# Numbers out of range, and a network that could be trained, but not compiled afterwards
NUMBERS = {
    "plan net.py:make --data random --mac-limit=1e308": "limit of MACs is 1e+308",
    "measure net.py:make --data random --method partial --mac-limit=-1": "limit of MACs is -1",
    f"measure net.py:make --data random --sram={10**30}": "expected 1 to 4,294,967,295",
    f"measure net.py:make --data random --seed={1 << 32}": "seed is 4294967296, expected 0 to 4294967295",
    "train net.py:labelled --data synthetic --seed=-1": "seed is -1",
    "prune net.py:labelled --data synthetic --sram=3500 --rate=nan": "peak_rate is nan",
    f"prune net.py:labelled --data synthetic --sram={10**30}": "budget_bytes is 1000",
    "prune net.py:labelled --data synthetic --sram=3500 --save-as ../up": "name is '../up'",
    "train net.py:odd --data synthetic": "GroupNorm",
}
Row = tuple[str, object, str, str]  # a file's name, its content, a command that reads it, words of the sentence
ROWS: dict[str, Row] = {
    **{command: ("own.json", b"", command, words) for command, words in NUMBERS.items()},
    **{f"board: {name}": ("own.json", content, "bench --layer dense:8-4 --board own.json", words)
       for name, (content, words) in BOARDS.items()},
    **{f"table: {name}": ("own.json", content, BY_TREC, words) for name, (content, words) in TRECS.items()},
    **{f"archive: {name}": ("own.npz", content, "measure net.py:make --target host --data own.npz", words)
       for name, (content, words) in ARCHIVES.items()},
    **{f"array: {name}": ("own.npy", content.replace(b"<f4", b"|i1"), "run own.npy --port /dev/none", "not a NumPy array file")
       for name, (content, words) in CLAIMS.items()},
}  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_files_and_numbers(capsys: pytest.CaptureFixture[str], here: Path, case: str) -> None:
    name, content, command, words = ROWS[case]
    (here / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    refused(capsys, command.split(), words)


def test_a_board_with_less_memory_than_the_runtime_takes(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    (here / "tiny.json").write_text(json.dumps(BOARD | {"sram": [RAM | {"size_bytes": 64}]}))
    assert cli.main(["plan", "net.py:make", "--data", "random", "--board", "tiny.json"]) == 1
    assert "budget 0 bytes: does not fit" in capsys.readouterr().out
    refused(capsys, ["measure", "net.py:make", "--data", "random", "--board", "tiny.json"], "needs 176 bytes of 0;", 1)


def test_a_byte_order_mark_and_hexadecimal_text_are_fine(here: Path) -> None:
    (here / "own.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(BOARD).encode())
    assert boards.find_board("own.json") == boards.find_board("disco_f469ni")


def test_what_is_no_file_is_not_waited_for(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    """A folder, a pipe that nobody writes into, a device without end, nothing; for every kind of file that is read."""
    os.mkfifo("pipe.npy")
    for suffix in (".json", ".npz"):
        os.mkfifo(f"pipe{suffix}")
        os.symlink("/dev/zero", f"zero{suffix}")
        os.mkdir(f"folder{suffix}")
    readers = (
        "plan net.py:make --board .json", "measure net.py:labelled --method skip --data synthetic --skip .json",
        "train net.py:labelled --data synthetic --method trec --trec .json", "plan net.py:make --data .npz", "run .npy",
        "measure net.py:make --data random --calibration .npz",
    )  # fmt: skip
    kinds = {"pipe": "is a pipe or a device", "zero": "is a pipe or a device", "folder": "is a folder"}
    for name, reader in [*(("pipe", reader) for reader in readers), *((name, readers[i]) for i in (0, 3) for name in kinds)]:
        refused(capsys, [name + word if word[0] == "." else word for word in reader.split()], kinds[name])
    refused(capsys, ["plan", "net.py:make", "--board", "gone.json"], "board file gone.json does not exist")


SKIPS: dict[str, tuple[object, str]] = {
    "another unit": (SKIP | {"unit": "bit"}, "unit is 'bit', expected one of pair, block"),
    "units of layers": (SKIP | {"units": {"conv1": "bit"}}, "unit is 'bit'"),
    "all of a layer": (SKIP | {"shares": {"conv1": 1}}, "field shares.conv1 is 1, expected 0 or more and less than 1"),
    "a share in words": (SKIP | {"shares": {"conv1": "half"}}, 'field shares.conv1 is "half", expected a number'),
    "no such layer": (SKIP | {"shares": {"conv9": 0.1}}, "the record cuts conv9 by block"),
    "counts below zero": (SKIP | {"validation_exact": -1}, "-1 and 5 of 10 validation images are right, expected 0 to all"),
    "more right than there are": (SKIP | {"validation_exact": 11}, "11 and 5 of 10 validation images are right"),
    "a misspelt field": (SKIP | {"share": {}}, "field share is unknown; did you mean shares?"),
    "less than nothing": (SKIP | {"shares": {"conv1": -0.1}}, "field shares.conv1 is -0.1"),
    "an empty front": ({"front": []}, "holds no designs"), "a front of something else": ({"front": 3}, "holds no designs"),
}  # fmt: skip


@pytest.fixture(scope="module")
def graph() -> Any:
    """The labelled network's int8 graph."""
    return pretrained.quantize(pretrained.export(user_nets.labelled().eval()), SMALL.train.images)


@pytest.mark.parametrize("case", SKIPS)
def test_records_of_skipping(here: Path, graph: Any, case: str) -> None:
    content, words = SKIPS[case]
    (here / "skip.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=re.escape(words)):
        records.apply(graph, SMALL, records.load("skip.json"))


@pytest.mark.parametrize(("suffix", "words"), [
    ("", "holds designs 0 to 3"), ("#-1", "holds designs"), ("#99999999999999999999", "holds designs"),
    ("#\u0663", "holds designs"), ("#1", "neither a record of skipping nor a skipping design"), ("#3", "is a list"),
])  # fmt: skip
def test_designs_of_a_front(here: Path, suffix: str, words: str) -> None:
    (here / "front.json").write_text(json.dumps({"front": [{"skip": SKIP}, {"skip": None}, 3, {"skip": []}]}))
    assert records.load("front.json#0").shares == {"conv1": 0.3}
    with pytest.raises(ValueError, match=words):
        records.load(f"front.json{suffix}")


def test_every_damaged_byte_of_an_archive(here: Path) -> None:
    """Each of some hundred bits of an archive, flipped, and each of its beginnings: refused in words, or the same arrays."""
    np.savez("own.npz", images=GOOD, labels=np.arange(8) % 5)
    whole = (here / "own.npz").read_bytes()
    damaged = [whole[:size] for size in range(0, len(whole), 301)]
    for place in range(0, len(whole), 41):
        damaged.append(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
    for i, content in enumerate(damaged):
        (here / f"{i}.npz").write_bytes(content)
        try:
            found = datasets.from_file(here / f"{i}.npz", (3, 7, 7)).test
        except ValueError as wrong:
            assert f"{i}.npz" in str(wrong)
        else:
            assert np.array_equal(found.images, GOOD)


def test_cifar10_that_is_damaged(capsys: pytest.CaptureFixture[str], here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*(f"cifar10_train_{i}.npz" for i in range(1, 6)), "cifar10_test.npz"):
        (here / name).write_bytes(b"PK\x03\x04 cut short")
    monkeypatch.setenv("TINYREDUX_DATA", str(here))
    refused(capsys, ["measure", "lenet", "--data", "cifar10"], "cifar10_train_1.npz is not an .npz archive")


def test_a_network_that_does_not_fit_is_a_no_on_the_host_too(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    assert cli.main(["measure", "net.py:make", *RANDOM, "--sram", "1", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["fits"] is False and answer["bit_exact"] is True


# Places ----------------------------------------------------------------------------------------------------------------

WRITERS = (
    "plan net.py:make --data random --out .", "measure net.py:make --data random --out .", "compile net.py:make --out .",
    "bench --out .", "explore net.py:labelled --data synthetic --trials 1 --out .", "lab grade in --csv ./marks.csv",
    "train net.py:labelled --data synthetic --out .", "train cifarnet --data synthetic --method trec --out .",
    "train net.py:labelled --data synthetic --method skip --out .", "prune net.py:labelled --data synthetic --sram 3500 --out .",
)  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS)
def test_places_are_tried_before_the_work(capsys: pytest.CaptureFixture[str], here: Path, writer: str) -> None:
    if "explore" in writer:
        pytest.importorskip("optuna")
    os.symlink("loop", "loop")
    os.mkdir("in")
    before = sorted(here.iterdir())
    places = ("net.py", "net.py/deeper", "/dev/full", "/proc/none", "n" * 300, "loop")
    for place in places if writer == WRITERS[0] else places[:1]:
        refused(capsys, [place + word[1:] if word[0] == "." else word for word in writer.split()], "nothing can be written into")
    assert sorted(here.iterdir()) == before


def test_a_full_disk_at_the_end_does_not_lose_the_result(
    capsys: pytest.CaptureFixture[str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes | str) -> Path:
        raise OSError(errno.ENOSPC, "cannot be written: No space left on device", str(path))

    monkeypatch.setattr("tinyredux.cli.verbs.base.write_whole", full)
    assert cli.main(["measure", "net.py:make", *RANDOM, "--out", "records", "--json"]) == 3
    answer = json.loads(capsys.readouterr().out)
    assert answer["bit_exact"] is True and "No space left on device; the result is here alone" in answer["unsaved"]


def test_a_write_that_fails_leaves_what_was_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_whole(here / "a", "old")

    def fails(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(OSError, match="cannot be written: No space left"):
        files.write_whole(here / "a", "new")
    assert (here / "a").read_text() == "old" and len(list(here.iterdir())) == 2


def test_a_folder_with_files_of_others_is_trained_into(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A foreign, an empty and a damaged JSON do not matter, and stay."""
    monkeypatch.setenv("TINYREDUX_CACHE", str(here / "cache"))
    out = here / "out"
    out.mkdir()
    for name, text in {"README.md": "mine", "empty.json": "", "foreign.json": "[3]", "a.json": "{}", "a.safetensors": ""}.items():
        (out / name).write_text(text)
    record = pretrained.train_net("net.py:labelled", "synthetic", 1, out=out)
    assert (out / "README.md").read_text() == "mine" and pretrained.records(out) == [record]


# What was kept ---------------------------------------------------------------------------------------------------------

RECIPE = train.Recipe(epochs=2, batch=64, peak_rate=0.01)


def flips(path: Path, count: int) -> Iterator[int]:
    """Yields after each of `count` bits of a file, from its first byte to its last, was flipped."""
    whole = path.read_bytes()
    for place in np.linspace(0, len(whole) - 1, count).astype(int):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << int(place) % 8]) + whole[place + 1 :])
        yield place
    path.write_bytes(whole)


def test_no_damaged_checkpoint_is_gone_on_from(here: Path) -> None:
    path = here / "c.pt"
    train.train(user_nets.labelled(), SMALL, replace(RECIPE, epochs=2), path)
    for place in flips(path, 120):
        with pytest.raises(ValueError, match=r"c\.pt is no checkpoint, or damaged; remove it"):
            train.train(user_nets.labelled(), SMALL, RECIPE, path)
            pytest.fail(f"byte {place}")
    train.train(user_nets.labelled(), SMALL, RECIPE, path)
    with pytest.raises(ValueError, match=r"is no checkpoint of this kind: it lacks cuts"):
        prune._resume(path, user_nets.labelled(), prune.Pruning(1000))


def test_no_damaged_weights_are_used(here: Path) -> None:
    path = here / "small.synthetic.safetensors"
    record = pretrained.save_weights(user_nets.labelled(), "small", SMALL, RECIPE, "command", here)
    for _ in flips(path, 60):
        with pytest.raises(ValueError, match=f"is damaged: its sha256 is .*, its record says {record.sha256}"):
            nets.load_weights(user_nets.labelled(), path)
    nets.load_weights(user_nets.labelled(), path)
    path.with_suffix(".json").unlink()
    nets.load_weights(user_nets.labelled(), path)  # a user's own, without a record


@pytest.mark.parametrize("pruning", [3, {"base": 3, "shapes": {}}, {"base": "lenet", "shapes": {"a": "b"}}], ids=range(3))
def test_records_of_pruned_networks(here: Path, monkeypatch: pytest.MonkeyPatch, pruning: object) -> None:
    monkeypatch.setenv("TINYREDUX_CACHE", str(here))
    (here / "weights").mkdir()
    (here / "weights" / "mine.cifar10.safetensors").write_bytes(b"")
    (here / "weights" / "mine.cifar10.json").write_text(json.dumps({"pruning": pruning}))
    with pytest.raises(ValueError, match=r"mine.cifar10.json, pruning\.(base|shapes): .*prune the network again"):
        nets.pruning_of("mine", ("cifar10",))


# Builds ----------------------------------------------------------------------------------------------------------------

WRITES = """
    import sys
    from pathlib import Path
    from tinyredux.codegen import Artifact
    for i in range(40):
        text = "/* " + "xy"[i % 2] * 3_000_000 + " */\\n"
        Artifact({"model.c": text}, b"y" * 3_000_000, {"a": 1}, "h").write(Path(sys.argv[1]))
"""


def test_two_processes_write_one_artifact(here: Path) -> None:
    """Whoever looks meanwhile sees each file whole or not at all, and nothing is left beside them."""
    command = [sys.executable, "-c", textwrap.dedent(WRITES), "a"]
    writers = [subprocess.Popen(command) for _ in range(2)]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        try:
            text = (here / "a" / "model.c").read_text()
        except FileNotFoundError:
            continue
        seen += 1
        assert len(text) == 3_000_007
    assert [writer.returncode for writer in writers] == [0, 0] and seen
    Artifact({"model.c": "new"}, b"", {}, "h").write(here / "a")
    assert sorted(path.name for path in (here / "a").iterdir()) == ["manifest.json", "model.c", "weights.bin"]


@pytest.mark.parametrize(("named", "words"), [
    ("false", "CC is 'false', which is no C compiler"), ("nonesuch", "CC is 'nonesuch': no such program"),
    ("gcc '", "CC is \"gcc '\": No closing quotation"),
])  # fmt: skip
def test_what_is_no_compiler(
    capsys: pytest.CaptureFixture[str], here: Path, monkeypatch: pytest.MonkeyPatch, named: str, words: str
) -> None:
    monkeypatch.setenv("CC", named)
    refused(capsys, ["measure", "net.py:make", *RANDOM], words, 3)


def test_a_compiler_that_makes_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "cc").write_text("#!/bin/sh\necho 1.0\n")
    (here / "cc").chmod(0o755)
    monkeypatch.setenv("CC", str(here / "cc"))
    with pytest.raises(build.MissingTool, match="it is no C compiler; set CC to one"):
        build.build_host(None, here / "build")


def test_a_compiler_with_arguments_and_a_cache_beside_the_user(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "gcc -g0")
    monkeypatch.setenv("TINYREDUX_CACHE", "cache")
    assert datasets.cache_folder() == here / "cache" and build.default_build_folder() == here / "cache" / "build"
    monkeypatch.setattr(build, "source_files", lambda kind: [Path("firmware/kernels/relu.c")])
    assert build.build_host(None).is_relative_to(here / "cache" / "build" / "host")
