"""Whole networks by every method, kernel set and core: the C twin and the real instructions write the interpreter's bytes.

A case is an int8 graph compiled one way. Its C runs on this computer, its machine code in the emulator; the kernels are compiled
once. By hand, over any factory of torch modules:

    python tests/helpers/network_sweep.py FILE.py:g 0 100            networks g0 to g99, each in all ways
    python tests/helpers/network_sweep.py graphs 0 2000 done.txt     random graphs of all operators, each by three ways, with both
                                                                     roundings where they have a rule; goes on behind done.txt
"""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from compiled import BOARDS
from generated import on_core, on_host
from random_graphs import random_graph
from torch import nn
from torch.utils._pytree import tree_leaves

from tinyredux.boards import Board, find_board
from tinyredux.codegen import Artifact, Kernels, emit_steps, layers
from tinyredux.device import build
from tinyredux.frontends import export
from tinyredux.graph import Add, Conv, DepthwiseConv, Graph, Mul, Softmax, TrecConv, Weighted
from tinyredux.int8 import interpret, quant_of, quantize
from tinyredux.kernels import FastSteps
from tinyredux.memory import run_schedule
from tinyredux.methods.partial import Partial
from tinyredux.skip import Cut, skippable, windows, without
from tinyredux.skip.cuts import UNITS, together, unit_numbers
from tinyredux.trec import Choice, with_trec

Schedule = Callable[[Graph, Board, Kernels], FastSteps]


@dataclass(frozen=True)
class Case:
    """One way to compile a network for a core."""

    name: str
    core: str
    graph: Graph
    kernels: Kernels
    schedule: Schedule

    def make(self, images: np.ndarray) -> tuple[Artifact, np.ndarray]:
        """Returns the C and the outputs that are expected; sums of 16 bits have those of the plan."""
        steps = self.schedule(self.graph, find_board(BOARDS[self.core]), self.kernels)
        if getattr(self.schedule, "accumulator", "int32") == "int16":
            return emit_steps(steps, "sweep"), np.stack([run_schedule.run(steps.program, steps.arena, image) for image in images])
        return emit_steps(steps, "sweep"), interpret.run_joined(self.graph, images)


# Ways to compile ----------------------------------------------------------------------------------------------------------


def with_random_trec(graph: Graph, rng: np.random.Generator) -> Graph:
    """Returns the graph with about every second convolution of one group as a TREC layer."""
    table = {}
    for op in graph.ops:
        if isinstance(op, Conv) and op.groups == 1 and op.dilation == (1, 1) and rng.random() < 0.6:
            columns, outputs = graph.constants[op.weights][0].size, graph.tensors[op.output].shape[2]
            source, bits = str(rng.choice(["kernel", "random"])), int(rng.choice([1, 1, 2, 3, 4, 6, 8, 12]))
            whole = [n for n in range(1, columns + 1) if columns % n == 0]
            length = int(rng.choice(whole if rng.random() < 0.6 else [int(rng.integers(1, columns + 1))]))
            bits = min(bits, outputs, length) if source == "kernel" else bits
            table[op.name] = Choice(length, bits, source, str(rng.choice(["mean", "zero"])), seed=int(rng.integers(1000)))
    return with_trec(graph, table)


def with_random_skips(graph: Graph, rng: np.random.Generator) -> Graph:
    """Returns the graph without a random share of the units of each convolution."""
    unit = str(rng.choice(list(UNITS)))
    cuts = {}
    for name in skippable(graph, unit):
        weights = windows(graph, name)
        units = int(unit_numbers(weights, unit).max()) + 1
        groups = -(-len(weights) // together(weights, unit))
        cuts[name] = Cut(unit, rng.random((groups, units)) >= rng.choice([0.0, 0.2, 0.5, 0.9, 1.0]), 0.0)
    return without(graph, cuts)


def layerwise(sram: int | None = None) -> Schedule:
    """Returns the schedule of everybody, without the limit that TREC layers have."""
    return lambda graph, board, kernels: layers(graph, kernels, board, sram)


def in_more_bytes(factor: float) -> Schedule:
    """Returns the schedule in parts within so many times the bytes of the usual plan."""
    return lambda *given: Partial(int(Partial()(*given).arena.size_bytes * factor) + 64)(*given)


def ways(graph: Graph, seed: int) -> Iterator[Case]:
    """Yields every way to compile an int8 graph; what is random is the same for the same seed."""
    rng = np.random.default_rng(seed)
    skipped, clustered = with_random_skips(graph, rng), with_random_trec(graph, rng)
    both = with_random_trec(skipped, rng)
    little, more = int(rng.integers(1, 40_000)), float(rng.uniform(1, 1.5))
    limit, outside = float(rng.uniform(1, 3)), bool(rng.integers(2))
    hybrid, either = Partial(None, "int32", limit, outside), ("fast", "reference")[seed % 2]
    rows: list[tuple[str, Graph, str, Schedule]] = [
        ("exact reference", graph, "reference", layerwise()), ("exact fast in little SRAM", graph, "fast", layerwise(little)),
        ("partial reference", graph, "reference", Partial()), ("partial fast", graph, "fast", Partial()),
        ("partial fast in more SRAM", graph, "fast", in_more_bytes(more)), ("hybrid reference", graph, "reference", hybrid),
        ("hybrid fast", graph, "fast", hybrid), ("partial int16", graph, "reference", Partial(None, "int16")),
        ("skip fast", skipped, "fast", layerwise()), ("skip reference", skipped, "reference", layerwise()),
        ("skip+partial", skipped, either, Partial()), ("trec+skip", both, "fast", layerwise()),
        ("trec+skip+partial", both, "fast", Partial(mac_limit=limit if seed % 4 == 0 else 1.0)),
    ]  # fmt: skip
    if any(isinstance(op, TrecConv) for op in clustered.ops):
        rows += [(f"trec {kernels}", clustered, kernels, layerwise()) for kernels in ("fast", "reference", "naive")]
        rows += [("trec+partial", clustered, either, Partial())]
    yield from (Case("exact fast", core, graph, Kernels(), layerwise()) for core in BOARDS)
    for name, net, kernels, schedule in rows:
        yield Case(name, list(BOARDS)[seed % 3], net, Kernels(kernels, "skip" in name), schedule)


# Networks -----------------------------------------------------------------------------------------------------------------


def images_of(graph: Graph, shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Returns int8 images: as in calibration, far out of range, all values, both ends in turn."""
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(2, *shape)).astype(np.float32)
    drawn[1] *= 20
    found = interpret.quantize_input(graph, drawn)
    noise = rng.integers(-128, 128, found.shape[1:]).astype(np.int8)
    ends = rng.choice(np.array([-128, 127], np.int8), found.shape[1:])
    return np.stack([*found, noise, ends])


def int8_of(net: nn.Module, name: str, seed: int) -> tuple[Graph, Graph, np.ndarray]:
    """Returns the float graph, the int8 graph and float images (N, C, H, W)."""
    shape = tuple(net.input_shape)
    images = np.random.default_rng(seed + 7).normal(size=(8, *shape)).astype(np.float32)
    graph = export(net, name=name)
    return graph, quantize(graph, images), images


def oracle(net: nn.Module, graph: Graph, int8: Graph, images: np.ndarray) -> str:
    """Returns what is wrong with the export or the quantisation, found in floating point; empty where nothing is.

    The float graph gives torch's output. Each int8 operator gives, within one step of its output, what the float operator gives
    for the same inputs and weights taken as real numbers; and those weights are the float ones within half a step.
    """
    with torch.no_grad():
        returned = [value.numpy() for value in tree_leaves(net(torch.from_numpy(images)))]
    in_float = interpret.run_all(graph, images.transpose(0, 2, 3, 1))
    for name, wanted in zip(graph.outputs, returned, strict=True):
        wanted = wanted.transpose(0, 2, 3, 1) if wanted.ndim == 4 else wanted.reshape(len(images), 1, 1, -1)
        off = np.abs(in_float[name] - wanted).max() / max(1e-6, np.abs(wanted).max())
        if off > 1e-4:
            return f"float graph differs from torch by {off:.2g} of the largest output {name}"
    constants = {}
    for op in int8.ops:
        if isinstance(op, Weighted):
            weights, scales = int8.constants[op.weights], np.array(op.weight_scale)
            along = scales if isinstance(op, DepthwiseConv) else scales.reshape(-1, *[1] * (weights.ndim - 1))
            constants[op.weights] = weights * along
            constants[op.bias] = int8.constants[op.bias] * scales * quant_of(int8.tensors[op.inputs[0]]).scale[0]
            if (lost := float(np.abs(constants[op.weights] - graph.constants[op.weights]).max(initial=0))) > 0.51 * scales.max():
                return f"{op.name}: a weight is {lost / scales.max():.2f} steps off"
    as_real = graph.with_ops(int8.ops, constants=constants)
    stored = interpret.run_all(int8, interpret.quantize_input(int8, images))
    for op in int8.ops:
        out = quant_of(int8.tensors[op.output])
        exact = interpret.run_op(as_real, op, [_real(int8, name, stored[name]) for name in op.inputs])
        steps = np.abs(np.clip(exact / out.scale[0] + out.zero_point, -128, 127) - stored[op.output])
        if steps.max(initial=0) > (2.5 if isinstance(op, Softmax) else 1.01):
            return f"{op.name} ({type(op).__name__}) is {steps.max():.2f} steps off"
    return ""


def _real(graph: Graph, name: str, stored: np.ndarray) -> np.ndarray:
    quant = quant_of(graph.tensors[name])
    return (stored.astype(np.float64) - quant.zero_point) * quant.scale[0]


def run_case(case: Case, images: np.ndarray, real: bool) -> str:
    """Returns what is wrong with a case; empty where every byte is right."""
    artifact, expected = case.make(images)
    shape = expected.shape[1:]
    if wrong := int((on_host(artifact, images, shape) != expected).sum()):
        return f"twin: {wrong} of {expected.size} bytes"
    if real and shutil.which(build.CROSS_COMPILER):
        wrong = int((on_core(artifact, images, shape, case.core) != expected).sum())
    return f"machine code: {wrong} of {expected.size} bytes" if wrong else ""


def sweep(
    make: Callable[[], nn.Module], name: str, seed: int, only: str = "", real: bool = True, share: float = 1.0
) -> tuple[int, list[str]]:
    """Returns how many cases of a network were right, and what was wrong. A `share` below 1 draws some of its ways."""
    try:
        net = make()
        graph, int8, drawn = int8_of(net, name, seed)
    except ValueError as refused:
        return 0, [f"refused: {refused}"]
    wrong, right = [], 0
    if found := oracle(net, graph, int8, drawn):
        wrong.append(f"oracle: {found}")
    images, drawn_ways = images_of(int8, tuple(net.input_shape), seed), np.random.default_rng(seed + 3)
    for number, case in enumerate(ways(int8, seed)):
        if (only and only not in case.name) or drawn_ways.random() >= share:
            continue
        if found := what_fails(case, images, real and (number + seed) % 3 == 0):
            wrong.append(found)
        right += not found
    return right, wrong


def what_fails(case: Case, images: np.ndarray, real: bool) -> str:
    """Returns what is wrong with a case, or what it raises, behind its name; empty where every byte is right."""
    try:
        found = run_case(case, images, real)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        found = f"{type(error).__name__}: {str(error)[:300]} ({Path(last.filename).name}:{last.lineno})"
        if isinstance(error, subprocess.CalledProcessError):
            found += (error.stderr or b"").decode()[-400:]
    return f"{case.name} {case.core}: {found}" if found else ""


def graph_cases(seed: int, make: Callable[[int], Graph] = random_graph) -> Iterator[Case]:
    """Yields a random graph, of all operators unless `make` draws others, by fast kernels or by reference kernels, in parts, and
    rounded once where all of its operators have a rule for that."""
    graph, core, other = make(seed), list(BOARDS)[seed % 3], list(BOARDS)[(seed + 1) % 3]
    kernels = ("fast", "reference")[seed % 2]
    yield Case("graph", core, graph, Kernels(kernels), layerwise())
    yield Case(
        "graph in parts", other, graph, Kernels(("fast", "reference")[seed // 2 % 2]), Partial(mac_limit=(1.0, 1.5)[seed % 2])
    )
    if not any(isinstance(op, Mul) or (isinstance(op, Add) and op.subtract) for op in graph.ops):
        once = replace(graph, rounding="single")
        yield Case("graph rounded once", core, once, Kernels(kernels), Partial() if seed % 4 < 2 else layerwise())


def sweep_graph(seed: int, make: Callable[[int], Graph] = random_graph) -> tuple[int, list[str]]:
    """Returns how many cases of a random graph were right, on this computer and on a core, and what was wrong."""
    rng, results = np.random.default_rng(seed), list[str]()
    for case in graph_cases(seed, make):
        shape = case.graph.input.shape
        images = np.stack([rng.integers(-128, 128, shape), rng.choice([-128, 127], shape)]).astype(np.int8)
        results.append(what_fails(case, images, real=True))
    return results.count(""), [found for found in results if found]


def sweep_graphs(first: str, count: str, done: str) -> None:
    """Sweeps random graphs; `done` gets a line for each, and those that it has are left out."""
    path = Path(done)
    known = {int(line.split()[0]) for line in path.read_text().splitlines()} if path.is_file() else set()
    for seed in (seed for seed in range(int(first), int(first) + int(count)) if seed not in known):
        right, wrong = sweep_graph(seed)
        with path.open("a") as stream:
            stream.write(f"{seed} {right} {' | '.join(wrong)}\n")


def main(where: str, first: str, count: str, only: str = "") -> None:
    """Sweeps the networks that the command line names."""
    path, _, prefix = where.partition(":")
    module, total, share = runpy.run_path(path), 0, float(os.environ.get("SWEEP_SHARE", "1"))
    for seed in range(int(first), int(first) + int(count)):
        name = f"{prefix}{seed}"
        factory = module[name] if name in module else module["__getattr__"](name)  # names that a module makes when it is asked
        right, wrong = sweep(factory, name, seed, only, share=share)
        total += right
        print(*(f"{name}: {line}" for line in wrong), f"{name}: {total} cases right so far", sep="\n", flush=True)


if __name__ == "__main__":
    sweep_graphs(*sys.argv[2:]) if sys.argv[1] == "graphs" else main(*sys.argv[1:])
