"""Generated C: equal input gives equal bytes, it compiles without a warning, and what cannot be written is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from random_nets import int8_net
from strategies import KINDS, random_layers

from tinyredux.boards import find_board
from tinyredux.codegen import Artifact
from tinyredux.codegen.calls import Weights
from tinyredux.codegen.parts import emit_partial
from tinyredux.device import build
from tinyredux.graph import Graph, Softmax, Tensor, Weighted
from tinyredux.kernels import FastSteps
from tinyredux.memory import blob, place_reference


def emitted(graph: Graph, call: str = "test") -> Artifact:
    """Returns a graph's Artifact with its own plan."""
    return emit_partial(*place_reference(graph), call)


def network() -> Graph:
    """Returns a random int8 network."""
    return int8_net(11)[0]


def test_another_process_with_another_hash_seed_gives_equal_bytes() -> None:
    program = "import sys; sys.path.insert(0, sys.argv[1]); from test_golden import artifact; print(artifact().model_hash)"
    hashes = set()
    for seed in ("1", "2"):
        command = [sys.executable, "-c", program, str(Path(__file__).parents[1])]
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": str(build.ROOT)}
        hashes.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(hashes) == 1


def test_the_hash_covers_every_file() -> None:
    """Another weight, another placement, another name: another hash."""
    graph = network()
    op = next(op for op in graph.ops if isinstance(op, Weighted))
    program, arena = place_reference(graph)
    moved = replace(arena, offsets={name: at + 16 for name, at in arena.offsets.items()}, size_bytes=arena.size_bytes + 16)
    heavier = replace(graph, constants={**graph.constants, op.bias: graph.constants[op.bias] + 1})
    made = [*map(emitted, (graph, heavier, replace(graph, name="other"))), emit_partial(program, moved, "test")]
    assert len({artifact.model_hash for artifact in made}) == 4


def test_files(tmp_path: Path) -> None:
    graph = network()
    artifact = emitted(graph, "tinyredux compile net")
    artifact.write(tmp_path / "deep" / "folder")
    written = {path.name: path for path in (tmp_path / "deep" / "folder").iterdir()}
    assert sorted(written) == ["manifest.json", "model.c", "model.h", "weights.S", "weights.bin"]
    manifest, entries = json.loads(written["manifest.json"].read_text()), Weights(FastSteps(*place_reference(graph))).blob.entries
    assert all(entry.offset % blob.ALIGNMENT == 0 for entry in entries.values())
    assert manifest["model_hash"] == artifact.model_hash and manifest["weights_bytes"] == written["weights.bin"].stat().st_size
    assert [op["name"] for op in manifest["ops"]] == [op.name for op in graph.ops]
    for name in ("model.c", "model.h"):
        head = "".join(written[name].read_text().splitlines(keepends=True)[:3])
        assert artifact.model_hash in head and "tinyredux compile net" in head and "@" not in written[name].read_text()
    assert not re.search(r"20\d\d-\d\d", written["model.c"].read_text())


def test_every_kind_compiles_without_a_warning(tmp_path: Path) -> None:
    """platformio.ini's flags: -Wall -Wextra -Wconversion -Wshadow -Werror, for this computer and for a Cortex-M4."""
    flags = build.board_flags(find_board("disco_f469ni"))
    assert {"-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"} <= set(flags)
    sources = []
    for kind in KINDS:
        sources.append(emitted(random_layers(kind, 1, seed=8)[0].graph).write(tmp_path / kind) / f"{kind}.c")
        (tmp_path / kind / "model.c").rename(sources[-1])  # one object file each
    for compiler, options in ((build.CROSS_COMPILER, flags), (build.host_compiler(), build.option("flags", "host").split())):
        command = [compiler, *options, f"-I{build.firmware_folder() / 'include'}", "-c", *map(str, sources)]
        subprocess.run(command, check=True, cwd=tmp_path)


def test_compiler_refuses_scratch_that_is_too_small(tmp_path: Path) -> None:
    """The kernel's own figure in tinyredux.h against the planned one."""
    artifact = emitted(random_layers("conv", 1, seed=9)[0].graph)
    text, count = re.subn(r"<= (\d+), \"scratch", lambda found: f'<= {int(found[1]) - 1}, "scratch', artifact.files["model.c"])
    source = replace(artifact, files={**artifact.files, "model.c": text}).write(tmp_path) / "model.c"
    command = [*build.host_command(), f"-I{build.firmware_folder() / 'include'}", "-fsyntax-only", str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert count == 1 and done.returncode and "scratch of op" in done.stderr


def test_name_and_call_cannot_leave_their_place() -> None:
    head = emitted(network(), "run */ int x;\n#error").files["model.c"].split("*/")[0]
    assert "run * / int x; #error" in head


def test_what_cannot_be_written_is_refused() -> None:
    """Names that C cannot hold, a float graph, a plan of another graph, a softmax whose sum would overflow."""
    graph = random_layers("conv", 1, seed=9)[0].graph
    floats = replace(graph, tensors={name: Tensor(name, tensor.shape) for name, tensor in graph.tensors.items()})
    wide = replace(random_layers("softmax", 1, 0)[0].graph.output, shape=(1, 1, 4096))
    softmax = Graph(
        "wide", (Softmax("softmax1", ("in",), "out"),), {n: replace(wide, name=n) for n in ("in", "out")}, {}, ("in",), ("out",)
    )
    program, arena = place_reference(graph)
    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: emitted(floats), "without quantisation; run quantize"),
        (lambda: emit_partial(program, replace(arena, size_bytes=1), "test"), "of an arena of"),
        (lambda: emitted(softmax), "softmax over 4096 channels, at most 4095"),
    ]
    refused += [
        (partial(emitted, replace(graph, name=name)), "use letters, digits and")
        for name in ('a"b', "a b", "", "a\\", "a*/b", "é")
    ]
    for make, words in refused:
        with pytest.raises(ValueError, match=words):
            make()
