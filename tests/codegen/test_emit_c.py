"""Generated C: equal input gives equal bytes, it compiles without a warning, and what cannot be written is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from random_nets import int8_net
from strategies import KINDS, random_layers

from tinyredux.boards import find_board
from tinyredux.codegen import Artifact
from tinyredux.codegen.calls import Weights
from tinyredux.codegen.parts import emit_partial
from tinyredux.device import build
from tinyredux.graph import Graph, Softmax, Tensor, Weighted
from tinyredux.int8 import requantization
from tinyredux.kernels import FastSteps
from tinyredux.memory import blob, place_reference


def emitted(graph: Graph, call: str = "test") -> Artifact:
    """Returns a graph's Artifact with its own plan."""
    return emit_partial(*place_reference(graph), call)


def network() -> Graph:
    """Returns a random int8 network."""
    return int8_net(11)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One build folder: runtime and kernels are compiled once."""
    return tmp_path_factory.mktemp("emit")


def test_another_process_with_another_hash_seed_gives_equal_bytes() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_golden import artifact\n"
        "print(artifact().model_hash)"
    )  # fmt: skip
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
    changed = graph.constants[op.bias] + 1
    program, arena = place_reference(graph)
    offsets = {name: offset + 16 for name, offset in arena.offsets.items()}
    moved = replace(arena, offsets=offsets, size_bytes=arena.size_bytes + 16)
    hashes = {
        emitted(graph).model_hash,
        emitted(replace(graph, constants={**graph.constants, op.bias: changed})).model_hash,
        emit_partial(program, moved, "test").model_hash,
        emitted(replace(graph, name="other")).model_hash,
    }
    assert len(hashes) == 4


def test_files(tmp_path: Path) -> None:
    graph = network()
    artifact = emitted(graph, "tinyredux compile net")
    artifact.write(tmp_path / "deep" / "folder")
    written = {path.name: path for path in (tmp_path / "deep" / "folder").iterdir()}
    assert sorted(written) == ["manifest.json", "model.c", "model.h", "weights.S", "weights.bin"]
    manifest = json.loads(written["manifest.json"].read_text())
    assert manifest["model_hash"] == artifact.model_hash and manifest["weights_bytes"] == written["weights.bin"].stat().st_size
    assert [op["name"] for op in manifest["ops"]] == [op.name for op in graph.ops]
    for name in ("model.c", "model.h"):
        head = "".join(written[name].read_text().splitlines(keepends=True)[:3])
        assert artifact.model_hash in head and "tinyredux compile net" in head and "@" not in written[name].read_text()
    assert not re.search(r"20\d\d-\d\d", written["model.c"].read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_compiles_without_a_warning(kind: str, folder: Path) -> None:
    """platformio.ini's flags: -Wall -Wextra -Wconversion -Wshadow -Werror, for this computer and for a Cortex-M4."""
    flags = build.board_flags(find_board("disco_f469ni"))
    assert {"-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"} <= set(flags)
    graph = random_layers(kind, 1, seed=8)[0].graph
    source = emitted(graph).write(folder / kind) / "model.c"
    includes = [f"-I{build.firmware_folder() / 'include'}", f"-I{folder / kind}"]
    for compiler, options in ((build.CROSS_COMPILER, flags), (build.host_compiler(), build.option("flags", "host").split())):
        subprocess.run([compiler, *options, *includes, "-c", str(source), "-o", str(folder / "model.o")], check=True)


def test_compiler_refuses_scratch_that_is_too_small(folder: Path) -> None:
    """The kernel's own figure in tinyredux.h against the planned one."""
    graph = random_layers("conv", 1, seed=9)[0].graph
    artifact = emitted(graph)
    text, count = re.subn(r"<= (\d+), \"scratch", lambda found: f'<= {int(found[1]) - 1}, "scratch', artifact.files["model.c"])
    assert count == 1
    sources = replace(artifact, files={**artifact.files, "model.c": text}).write(folder / "small")
    with pytest.raises(build.BuildError, match="scratch of op"):
        build.build_host(sources, folder)


def test_name_and_call_cannot_leave_their_place() -> None:
    graph = network()
    for name in ('a"b', "a b", "", "a\\", "a*/b", "é"):
        with pytest.raises(ValueError, match="use letters, digits and"):
            emitted(replace(graph, name=name))
    head = emitted(graph, "run */ int x;\n#error").files["model.c"].split("*/")[0]
    assert "run * / int x; #error" in head


def test_float_graph_and_wrong_plan_are_refused() -> None:
    graph = random_layers("conv", 1, seed=9)[0].graph
    floats = replace(graph, tensors={name: Tensor(name, tensor.shape) for name, tensor in graph.tensors.items()})
    with pytest.raises(ValueError, match="without quantisation; run quantize"):
        emitted(floats)
    with pytest.raises(ValueError, match="of an arena of"):
        program, arena = place_reference(graph)
        emit_partial(program, replace(arena, size_bytes=1), "test")


def test_softmax_over_more_channels_than_its_sum_holds_is_refused() -> None:
    tensors = {
        name: replace(random_layers("softmax", 1, 0)[0].graph.output, name=name, shape=(1, 1, 4096)) for name in ("in", "out")
    }
    graph = Graph("wide", (Softmax("softmax1", ("in",), "out"),), tensors, {}, ("in",), ("out",))
    with pytest.raises(ValueError, match="softmax over 4096 channels, at most 4095"):
        emitted(graph)


def test_weights_read_back_as_they_went_in() -> None:
    graph = network()
    packed = Weights(FastSteps(*place_reference(graph))).blob
    for op in graph.ops:
        if isinstance(op, Weighted):
            factors = requantization(graph, op)
            for name, values in [
                (op.weights, graph.constants[op.weights]),
                (op.bias, graph.constants[op.bias]),
                (f"{op.name}.multiplier", np.array(factors.multiplier)),
                (f"{op.name}.shift", np.array(factors.shift)),
            ]:
                entry = packed.entries[name]
                content = np.frombuffer(packed.data[entry.offset : entry.offset + entry.size_bytes], entry.dtype)
                np.testing.assert_array_equal(content.reshape(entry.shape), values)
                assert entry.offset % blob.ALIGNMENT == 0
    ends = sorted((entry.offset, entry.offset + entry.size_bytes) for entry in packed.entries.values())
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))
    assert ends[-1][1] == len(packed.data)
