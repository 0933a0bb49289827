"""Fits tinyredux/memory/costs.json: what the loops of the reference kernels cost, for the planner of partial execution.

    python tools/fit_part_costs.py            fits on random networks
    python tools/fit_part_costs.py --check    plans others, and writes data/records/part_costs.json: predicted and simulated
                                              cycles in parts against layer by layer

Every item of a program is one equation: cycles in the simulator = sum over its calls of rounds times cost. Each network gives
the items of five programs: layer by layer with scratch and without, with sums of slices, in the narrowest parts, and the plan
for few cycles. The networks that are checked are not those of the fit. Source: ours; least squares of relative errors, no cost
below zero.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinyredux import memory, nets
from tinyredux.boards import find_board
from tinyredux.codegen import board_budget
from tinyredux.codegen.parts import emit_partial
from tinyredux.device import build_firmware
from tinyredux.device.simulated import SimulatorTarget
from tinyredux.explore.plans import int8_graph
from tinyredux.graph import (
    Add,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Graph,
    Op,
    Pool,
    Quant,
    Relu,
    Softmax,
    Tensor,
    output_shape,
    verify,
)
from tinyredux.memory import Arena, Item, Loop, Program, Schedule, lower, place, rough_cycles
from tinyredux.memory.costs import FILE, counts
from tinyredux.partial import MARGIN, SLOWDOWN, Net, candidates, plan_partial

RECORD = Path("data/records/part_costs.json")
FITTED, CHECKED = range(24), range(1000, 1024)
BOARD = "disco_f469ni"
KINDS = ("conv", "conv", "conv", "pointwise", "depthwise", "max", "average", "add", "relu", "concat", "grouped")
Rows = list[tuple[dict[str, npt.NDArray[np.float64]], int]]  # rounds by kernel, cycles


def random_net(seed: int) -> Graph:
    """Returns an int8 network of about ten layers, its maps between 1x1 and 20x20 with up to 48 channels."""
    rng, quant = np.random.default_rng(seed), Quant((0.05,), -5)
    shape = (int(rng.integers(6, 21)), int(rng.integers(6, 21)), int(rng.choice([1, 3, 4, 8, 16])))
    tensors, constants, ops = {"input": Tensor("input", shape, "int8", quant)}, dict[str, npt.NDArray[np.generic]](), list[Op]()

    def add(op: Op, weights: tuple[int, ...] = (), outputs: int = 0) -> str:
        if weights:
            constants[f"{op.name}_w"] = rng.integers(-127, 128, weights).astype(np.int8)
            constants[f"{op.name}_b"] = rng.integers(-2000, 2001, outputs).astype(np.int32)
            op = replace(op, weights=f"{op.name}_w", bias=f"{op.name}_b", weight_scale=(0.002,) * outputs)  # type: ignore[call-arg]
        ops.append(op)
        found = output_shape(Graph("net", tuple(ops), tensors, constants, ("input",), ("input",)), op)
        tensors[op.output] = Tensor(op.output, found, "int8", Quant((1 / 256,), -128) if isinstance(op, Softmax) else quant)
        return op.output

    last = "input"
    for i in range(int(rng.integers(5, 12))):
        last = _layer(rng, add, tensors, last, str(rng.choice(KINDS)), f"op{i}")
    if rng.random() < 0.5:
        count = int(np.prod(tensors[last].shape))
        last = add(Dense("dense", (last,), "logits"), (10, count), 10)
        last = add(Softmax("softmax", (last,), "shares")) if seed % 2 else last
    graph = Graph("net", tuple(ops), tensors, constants, ("input",), (last,))
    verify(graph)
    return graph


def _layer(rng, add, tensors, last, kind, name):  # type: ignore[no-untyped-def]
    height, width, channels = tensors[last].shape
    outputs, out = int(rng.choice([3, 4, 8, 12, 16, 24, 32, 48])), f"{name}_out"
    side = int(rng.choice([k for k in (1, 2, 3, 3, 5) if k <= min(height, width)]))
    stride = int(rng.choice([1, 1, 1, 2])) if side > 1 else 1
    window = {"kernel": (side, side), "stride": (stride, stride), "padding": (side // 2 if rng.random() < 0.5 else 0,) * 4}
    if kind == "conv":
        return add(Conv(name, (last,), out, activation="relu", **window), (outputs, side, side, channels), outputs)
    if kind == "pointwise":
        return add(Conv(name, (last,), out), (outputs, 1, 1, channels), outputs)
    if kind == "grouped" and channels % 4 == 0:
        return add(Conv(name, (last,), out, groups=2, **window), (8, side, side, channels // 2), 8)
    if kind == "depthwise":
        return add(DepthwiseConv(name, (last,), out, **window), (side, side, channels), channels)
    if kind in ("max", "average"):
        size = min(2 + int(rng.integers(2)), height, width)
        return add(Pool(name, (last,), out, kind=kind, kernel=(size, size), stride=(min(2, size), min(2, size))))
    if kind in ("add", "concat"):
        same = [other for other, tensor in tensors.items() if tensor.shape == tensors[last].shape]
        two = (last, same[0])
        return add(Add(name, two, out) if kind == "add" or two[0] == two[1] else Concat(name, two, out))
    return add(Relu(name, (last,), out, activation="relu"))


def whole(graph: Graph, direct: bool = False) -> Program:
    """Returns a network layer by layer, convolutions with scratch or without."""
    items, names = tuple(Item((op.name,)) for op in graph.ops), frozenset(op.name for op in graph.ops)
    return lower(graph, Schedule(items, direct=names if direct else frozenset()))


def adding_up(graph: Graph, width: int) -> Program:
    """Returns a network in which all convolutions and dense layers that can add up slices of `width` channels do so."""
    net = Net(graph)
    items, taken = list[Item](), 0
    for item in sorted(candidates(net), key=lambda item: (item.kind == "accumulate", net.mask(item)), reverse=True):
        if item.kind in ("accumulate", "whole") and not taken & net.mask(item):
            items.append(replace(item, width=item.width * -(-width // item.width)) if item.width else item)
            taken |= net.mask(item)
    items.sort(key=net.mask)  # by the last operator
    return lower(graph, Schedule(tuple(items), direct=frozenset(op.name for op in graph.ops)))


def cycles_of(program: Program, arena: Arena, folder: Path) -> list[int]:
    """Returns the simulated cycles of each item."""
    graph, board = program.graph, find_board(BOARD)
    artifact = emit_partial(program, arena, "fit")
    firmware = build_firmware(artifact.write(folder / artifact.model_hash), board, folder)
    target = SimulatorTarget(firmware.elf, board, artifact.model_hash, graph.output.shape)
    try:
        found = target.measure(np.random.default_rng(0).integers(-128, 128, graph.input.shape).astype(np.int8)).cycles_per_op
    finally:
        target.close()
    assert found is not None
    return list(found)


def equations(program: Program, cycles: list[int]) -> Iterator[tuple[dict[str, npt.NDArray[np.float64]], int]]:
    """Yields for each item how often the loops of each kernel run, and its cycles."""
    by_name = {op.name: op for op in program.graph.ops}
    for nodes, count in zip(program.nodes, cycles, strict=True):
        sums: dict[str, npt.NDArray[np.float64]] = {}
        for step in Loop((nodes,)).steps():
            kernel, rounds = counts(program.graph, by_name[step.op], step)
            sums[kernel] = sums.get(kernel, 0) + np.array(rounds, float)
        if sums:
            yield sums, count


def fit(rows: Rows) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Returns the costs of each kernel, and the relative errors of all equations: mean, 95 % are below, largest."""
    sizes = {kernel: len(some) for sums, _ in rows for kernel, some in sums.items()}
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    matrix, cycles = np.zeros((len(rows), sum(sizes.values()))), np.array([count for _, count in rows], float)
    for row, (sums, _) in zip(matrix, rows, strict=True):
        for kernel, some in sums.items():
            row[starts[kernel] : starts[kernel] + len(some)] = some
    weights = cycles**0.25  # what takes long matters more
    scaled, found = matrix * (weights / cycles)[:, None], np.zeros(matrix.shape[1])
    used = np.flatnonzero(matrix.any(axis=0)).tolist()
    while True:
        solution = np.linalg.lstsq(scaled[:, used], weights, rcond=None)[0]
        if solution.min() >= 0:
            break
        used.remove(used[int(solution.argmin())])
    found[used] = solution
    errors = np.abs(matrix @ found / cycles - 1)
    quality = {"mean": errors.mean(), "95 % below": np.quantile(errors, 0.95), "largest": errors.max()}
    costs = {kernel: [round(float(c), 2) for c in found[starts[kernel] : starts[kernel] + sizes[kernel]]] for kernel in sizes}
    return costs, {name: round(float(value), 4) for name, value in quality.items()}


def fit_all() -> None:
    """Measures the networks of the fit and writes the costs."""
    rows: Rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in FITTED:
            graph = random_net(seed)
            wholes = whole(graph), whole(graph, direct=True), adding_up(graph, 1 + seed % 5)
            programs = [(program, place(program)) for program in wholes]
            programs += [(plan.program, plan.arena) for plan in (plan_partial(graph), plan_partial(graph, slowdown=SLOWDOWN))]
            for program, arena in programs:
                rows += equations(program, cycles_of(program, arena, Path(folder)))
    costs, quality = fit(rows)
    FILE.write_text(
        json.dumps({"board": BOARD, "equations": len(rows), "relative_error": quality, "cycles": costs}, indent=1) + "\n"
    )


def compared(name: str, graph: Graph, folder: Path) -> dict[str, object]:
    """Returns a network's plan for few cycles beside layer by layer: bytes, cycles, their quotient predicted and simulated."""
    plan, one = plan_partial(graph, slowdown=SLOWDOWN), whole(graph)
    predicted = rough_cycles(graph, plan.program.steps()) / rough_cycles(graph, one.steps())
    before, after = sum(cycles_of(one, place(one), folder)), sum(cycles_of(plan.program, plan.arena, folder))
    return {
        "net": name, "layerwise_bytes": plan.peaks["layerwise"], "partial_bytes": plan.peak_bytes,
        "least_bytes": plan.least_bytes, "lower_bound_bytes": plan.lower_bound_bytes,
        "layerwise_cycles": before, "partial_cycles": after,
        "predicted": round(predicted, 4), "simulated": round(after / before, 4),
    }  # fmt: skip


def check() -> None:
    """Writes the record of networks that the fit has not seen: random ones, and the built-in ones that fit the board."""
    record: dict[str, object] = {
        "schema": 1, "kind": "part_costs", "board": BOARD, "slowdown": SLOWDOWN, "margin": MARGIN,
        "command": "python tools/fit_part_costs.py --check",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        record["random"] = [compared(f"random {seed}", random_net(seed), Path(name)) for seed in CHECKED]
        named = {net: int8_graph(net, "random") for net in nets.names()}
        fitting = {net: graph for net, graph in named.items() if memory.plan(graph).total_bytes < board_budget(find_board(BOARD))}
        record["nets"] = [compared(net, graph, Path(name)) for net, graph in fitting.items()]
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare predictions with the simulator instead of fitting")
    check() if parser.parse_args().check else fit_all()
