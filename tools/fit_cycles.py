"""Fits tinyredux/kernels/cycles.json, the cycles of the C kernels' loops on each core, and says how far off all prices are.

    python tools/fit_cycles.py             fits to random layers, prices others, and writes data/records/cycle_prices.json:
                                           how far off the prices are, by core and kind; a quarter of an hour
    python tools/fit_cycles.py --only lookup mul rearrange         fits these kernels alone and prices all again
    python tools/fit_cycles.py --plans     plans random and our networks in parts, and writes data/records/part_costs.json:
                                           predicted and simulated cycles against layer by layer

Random networks run in the simulator, on a board of each core whose flash never stalls. Every item of a program (an operator, or
several that run in parts) is one equation: its cycles = sum over its calls of rounds times cost. The layers whose errors are
printed are those of other networks than the fit has seen, none of them ours. Source: ours; least squares of relative errors, no
cost below zero.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from tinyredux import memory, nets
from tinyredux.boards import Board, find_board
from tinyredux.codegen import Kernels, board_budget, emit_steps, layers
from tinyredux.device import build_firmware, default_build_folder
from tinyredux.device.simulated import SimulatorTarget
from tinyredux.explore.plans import PRICE, int8_graph
from tinyredux.graph import (
    Add,
    Attention,
    Bilinear,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Graph,
    LayerNorm,
    Lookup,
    MatMul,
    Mul,
    Op,
    Pool,
    Quant,
    Rearrange,
    Relu,
    Softmax,
    Tensor,
    TrecConv,
    output_shape,
    verify,
)
from tinyredux.kernels import FastSteps, Form, cycles, trec
from tinyredux.kernels.cycles import FILE, STALLED, Counts, counts, table
from tinyredux.memory import Item, Loop, Program, Schedule, Step, lower, place
from tinyredux.partial import MARGIN, SLOWDOWN, Net, candidates, plan_partial
from tinyredux.simulator import model_name
from tinyredux.trec import Choice, trec_sizes, with_trec

RECORD, PRICES = Path("data/records/part_costs.json"), Path("data/records/cycle_prices.json")
BOARDS = ("disco_f469ni", "nucleo_u575zi_q", "nucleo_f746zg")  # one for each core
FITTED, FITTED_TREC = (*range(16), *range(16, 40, 2)), range(8)  # the even ones have convolutions of many channels
CHECKED, CHECKED_TREC = range(1000, 1010), range(1000, 1004)
KINDS = ("conv", "conv", "conv", "pointwise", "depthwise", "max", "average", "add", "relu", "concat", "grouped")
LIGHT = ("depthwise", "depthwise", "max", "average", "average", "pointwise", "add", "relu", "concat", "grouped")
VALUES = ("pointwise", "lookup", "mul", "squeeze", "crop", "split", "upsample", "shuffle", "pixels", "between", "sub")
FITTED_RESIZED = range(8)  # networks of resized maps
TOKENS = ("layer_norm", "attention", "pointwise", "pointwise", "average")
FITTED_TOKENS = range(200, 212)  # networks whose places are tokens
PRODUCTS = ("matmul", "matmul", "pointwise", "average")
FITTED_PRODUCTS = range(300, 312)  # networks of products of activations
FITTED_VALUES, CHECKED_VALUES = range(100, 112), range(1100, 1108)  # networks of products, tables and moved values
MOST_TREC_MACS, MOST_INPUTS = 2_000_000, 20_000  # of a layer with TREC; of the last dense layer
Sums = dict[str, npt.NDArray[np.float64]]  # rounds by kernel


@dataclass(frozen=True)
class Layer:
    """One item of a program that was run: how it was computed, its steps with their generated kernel, its simulated cycles."""

    way: str
    graph: Graph
    steps: tuple[Step, ...]
    form: Form | None
    simulated: int

    def price(self, core: str) -> float:
        """Returns its predicted cycles."""
        return cycles(self.graph, self.steps, core, dict.fromkeys(self.steps, self.form.cost) if self.form else {})

    def rounds(self, core: str) -> Sums:
        """Returns how often the loops of each kernel run: of a generated one, what its C around it does."""
        by_name, sums = {op.name: op for op in self.graph.ops}, Sums()
        for step in self.steps:
            op = by_name[step.op]
            generated = self.form is not None and isinstance(op, TrecConv)
            kernel, rounds = trec_rounds(self.graph, op, self.form, core) if generated else counts(self.graph, op, step)
            sums[kernel] = sums.get(kernel, 0) + np.array(rounds, float)
        return sums


def trec_rounds(graph: Graph, op: TrecConv, form: Form, core: str) -> tuple[str, Counts]:
    """Returns what `kernels.trec` counts of a form of TREC."""
    sizes = replace(trec_sizes(graph, op), slice_c=int(form.name.removeprefix("trec_")))
    (own,) = (one for one in trec.forms(graph, op, core) if one.name == form.name)
    return "trec loops", trec.rounds(sizes, trec.part_length(sizes), own.functions, core)


def random_net(seed: int) -> Graph:
    """Returns an int8 network of about ten layers, its maps between 1x1 and 20x20 with up to 48 channels. Those of seeds 100 to
    199 and from 1100 on have VALUES, those from 200 on TOKENS, those from 300 on PRODUCTS, the
    others layers with windows."""
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
    kinds = (
        PRODUCTS
        if seed % 1000 >= 300
        else TOKENS
        if seed % 1000 >= 200
        else VALUES
        if seed % 1000 >= 100
        else LIGHT
        if seed % 2
        else KINDS
    )
    for i in range(int(rng.integers(5, 12))):
        last = _layer(rng, add, tensors, last, str(rng.choice(kinds)), f"op{i}")
    if np.prod(tensors[last].shape) > MOST_INPUTS:
        last = add(Pool("pool", (last,), "means", kind="average", kernel=tensors[last].shape[:2]))
    count, outputs = int(np.prod(tensors[last].shape)), int(rng.integers(2, 40))
    last = add(Dense("dense", (last,), "logits"), (outputs, count), outputs)
    last = add(Softmax("softmax", (last,), "shares"))
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
    if kind == "layer_norm":
        return add(LayerNorm(name, (last,), out))
    if kind == "attention":
        heads = int(rng.choice([count for count in (1, 2, 3, 4, 8) if channels % count == 0]))
        return add(Attention(name, (last,) * 3, out, heads, 0.1))
    if kind == "matmul":
        return add(_product(rng, tensors[last].shape, name, last, out))
    if kind in VALUES:
        return _of_values(rng, add, tensors, last, kind, name)
    if kind in ("add", "concat"):
        same = [other for other, tensor in tensors.items() if tensor.shape == tensors[last].shape]
        two = (last, same[0])
        return add(Add(name, two, out) if kind == "add" or two[0] == two[1] else Concat(name, two, out))
    return add(Relu(name, (last,), out, activation="relu"))


def _product(rng, shape, name, last, out):  # type: ignore[no-untyped-def]
    """Returns scores of a map's tokens, features times features, or products of values that do not lie side by side."""
    height, width, channels = shape
    heads = int(rng.choice([count for count in (1, 2, 3, 4) if channels % count == 0]))
    tokens, few, depth = height * width, min(height * width, 60), min(channels // heads, 60)
    by, turned = (0, channels // heads, channels, 1), (0, channels // heads, 1, channels)
    match int(rng.integers(3)):
        case 0:
            return MatMul(name, (last, last), out, heads, few, depth, few, by, turned, (heads, few))
        case 1:
            return MatMul(name, (last, last), out, heads, depth, tokens, depth, turned, by, (depth, 1), True)
    some, right = (min(channels, 30), tokens, min(channels // 2 + channels % 2, 30)), (0, 0, channels, 2)
    return MatMul(name, (last, last), out, 1, *some, (0, 0, 1, channels), right, (some[0], 1))


def _of_values(rng, add, tensors, last, kind, name):  # type: ignore[no-untyped-def]
    """Adds a function of each value, a product, a difference, or values at other places."""
    (height, width, channels), out = tensors[last].shape, f"{name}_out"
    if kind in ("mul", "sub"):
        same = [other for other, tensor in tensors.items() if tensor.shape == tensors[last].shape]
        return add(Mul(name, (last, same[0]), out) if kind == "mul" else Add(name, (last, same[0]), out, subtract=True))
    if kind == "squeeze":
        gate = add(Pool(f"{name}_mean", (last,), f"{name}_gate", kind="average", kernel=(height, width)))
        return add(Mul(name, (last, gate), out))
    if kind == "crop" and min(height, width) > 4:
        return add(Rearrange(name, (last,), out, size=(height - 2, width - 2), channels=channels, start=(1, 1)))
    if kind == "split" and channels > 1:
        first = int(rng.integers(channels))
        return add(Rearrange(name, (last,), out, size=(height, width), channels=channels - first, first_channel=first))
    if kind in ("upsample", "between") and height * width * channels < 2000:
        size = (2 * height, 2 * width)
        return add(Rearrange(name, (last,), out, size=size, channels=channels, repeat=(2, 2), zeros=kind == "between"))
    if kind == "shuffle" and channels % 4 == 0:
        groups = int(rng.choice((2, 2, 4)))
        return add(Rearrange(name, (last,), out, size=(height, width), channels=channels, groups=groups))
    if kind == "pixels" and channels % 4 == 0:
        size = (2 * height, 2 * width)
        return add(Rearrange(name, (last,), out, size=size, channels=channels // 4, repeat=(2, 2), blocks=True))
    return add(Lookup(name, (last,), out, "hardswish"))


def resized_net(seed: int) -> Graph:
    """Returns an int8 network of three maps of other sizes, one behind the other."""
    rng, quant, shape = np.random.default_rng(seed), Quant((0.05,), -3), (5 + seed % 3, 7, (1, 3, 4, 8, 16, 24)[seed % 6])
    tensors, ops = {"input": Tensor("input", shape, "int8", quant)}, list[Op]()
    for i, last in enumerate(("input", "op0", "op1")):
        before = tensors[last].shape[:2]
        size = (int(rng.integers(4, 12)), int(rng.integers(4, 12)))
        op = Bilinear(f"op{i}", (last,), f"op{i}", size, before, (before[0] / size[0], before[1] / size[1]), True)
        tensors[op.output] = Tensor(op.output, (*size, shape[2]), "int8", quant)
        ops.append(op)
    return Graph("net", tuple(ops), tensors, {}, ("input",), (ops[-1].output,))


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


def trec_net(seed: int) -> Graph:
    """Returns an int8 network of five TREC layers that all read the input, whose values are independent of each other."""
    rng, quant = np.random.default_rng(seed), Quant((0.05,), -128)
    size, in_c = int(rng.choice((6, 8, 10, 12))), int(rng.choice((8, 12, 16, 24, 32, 48)))
    tensors, constants = {"input": Tensor("input", (size, size, in_c), "int8", quant)}, dict[str, npt.NDArray[np.generic]]()
    ops, table = list[Op](), dict[str, Choice]()
    for i in range(5):
        name, side, out_c = f"op{i}", int(rng.choice((1, 3, 3, 5))), int(rng.choice((8, 16, 24, 32, 48, 64, 96)))
        while side**2 * in_c * out_c * size**2 > MOST_TREC_MACS and out_c > 8:
            out_c //= 2
        weights = rng.normal(0, 36, (out_c, side, side, in_c))
        constants[f"{name}_w"] = np.clip(np.round(weights), -127, 127).astype(np.int8)
        constants[f"{name}_b"] = rng.integers(-4000, 4000, out_c).astype(np.int32)
        scales = 40 / (60 * 36 * weights[0].size ** 0.5) * 2.0 ** rng.uniform(-1, 1, out_c)
        window = {"kernel": (side, side), "stride": (1, 1), "padding": (side // 2,) * 4}
        arrays = {"weights": f"{name}_w", "bias": f"{name}_b", "weight_scale": tuple(float(scale) for scale in scales)}
        ops.append(Conv(name, ("input",), f"{name}_out", activation="relu", **arrays, **window))  # type: ignore[arg-type]
        tensors[f"{name}_out"] = Tensor(f"{name}_out", (size, size, out_c), "int8", quant)
        taps = int(rng.choice([count for count in range(1, side**2 + 1) if side**2 % count == 0]))
        table[name] = Choice(taps * in_c, int(rng.integers(2, min(7, out_c))))
    outputs = tuple(op.output for op in ops)
    ops.append(Concat("all", outputs, "out"))
    tensors["out"] = Tensor("out", (size, size, sum(tensors[name].shape[2] for name in outputs)), "int8", quant)
    return with_trec(Graph("net", tuple(ops), tensors, constants, ("input",), ("out",)), table)


def without_stalls(board: Board) -> Board:
    """Returns a board whose flash answers at once: what is left are the cycles of its core."""
    return replace(board, flash_timing=replace(board.flash_timing, wait_states=0, miss_cycles=0))


def simulated(fast: FastSteps, board: Board, stalls: bool = False) -> list[int]:
    """Returns the simulated cycles of each item of a program, those of its core alone or with the stalls of its flash."""
    artifact, shapes = emit_steps(fast, "fit"), fast.program.graph
    firmware = build_firmware(artifact.write(default_build_folder() / "models" / artifact.model_hash), board)
    target = SimulatorTarget(firmware.elf, board if stalls else without_stalls(board), artifact.model_hash, shapes.output.shape)
    image = np.random.default_rng(0).normal(-40, 60, shapes.input.shape).clip(-128, 127).astype(np.int8)
    try:
        found = target.measure(image).cycles_per_op
    finally:
        target.close()
    assert found is not None
    return list(found)


def run(way: str, fast: FastSteps, board: Board, stalls: bool = False) -> Iterator[Layer]:
    """Yields the items of a program as they ran."""
    for nodes, count in zip(fast.program.nodes, simulated(fast, board, stalls), strict=True):
        steps, by_form = tuple(Loop((nodes,)).steps()), fast.form_of(nodes)
        if steps:
            yield Layer(way, fast.program.graph, steps, by_form[1] if by_form else None, count)


def fitted_programs(board: Board) -> Iterator[tuple[str, FastSteps]]:
    """Yields the programs that the costs are fitted to."""
    for seed in (*FITTED, *FITTED_VALUES, *FITTED_TOKENS):
        graph = random_net(seed)
        programs = [whole(graph), plan_partial(graph).program]
        if seed % 2 == 0:
            programs += [whole(graph, direct=True), adding_up(graph, 1 + seed % 5)]
        for program in programs:
            yield "C", FastSteps(program, place(program))
        if seed % 3 == 0:
            yield "generated", layers(graph, Kernels("fast"), without_stalls(board))
    for program in map(whole, map(resized_net, FITTED_RESIZED)):
        yield "C", FastSteps(program, place(program))
    for seed in FITTED_TREC:
        for kernels in ("reference", "fast"):
            yield "TREC", layers(trec_net(seed), Kernels(kernels), without_stalls(board))


def checked_programs(board: Board, every: int = 1) -> Iterator[tuple[str, FastSteps]]:
    """Yields programs that the fit has not seen, of one network in `every`."""
    for seed in (*CHECKED[::every], *CHECKED_VALUES[::every]):
        graph = random_net(seed)
        program = whole(graph)
        yield "C kernels", FastSteps(program, place(program))
        yield "generated kernels", layers(graph, Kernels("fast"), without_stalls(board))
        if seed % 4 == 0:
            plan = plan_partial(graph, slowdown=SLOWDOWN)
            yield "C kernels in parts", FastSteps(plan.program, plan.arena)
    for seed in CHECKED_TREC[::every]:
        yield "TREC, C kernels", layers(trec_net(seed), Kernels("reference"), without_stalls(board))
        yield "TREC, generated kernels", layers(trec_net(seed), Kernels("fast"), without_stalls(board))


def run_all(programs: Iterable[tuple[str, FastSteps]], board: Board, stalls: bool = False) -> list[Layer]:
    """Returns the items of all programs as they ran."""
    return [layer for way, fast in tqdm(programs, board.name, disable=None) for layer in run(way, fast, board, stalls)]


def fit(rows: list[tuple[Sums, float]]) -> dict[str, list[float]]:
    """Returns the costs of each kernel's loops."""
    sizes = {kernel: len(some) for sums, _ in rows for kernel, some in sums.items()}
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    matrix, counted = np.zeros((len(rows), sum(sizes.values()))), np.array([count for _, count in rows], float)
    for row, (sums, _) in zip(matrix, rows, strict=True):
        for kernel, some in sums.items():
            row[starts[kernel] : starts[kernel] + len(some)] = some
    weights = counted**0.25  # what takes long matters more
    scaled, found = matrix * (weights / counted)[:, None], np.zeros(matrix.shape[1])
    used = np.flatnonzero(matrix.any(axis=0)).tolist()
    while True:
        solution = np.linalg.lstsq(scaled[:, used], weights, rcond=None)[0]
        if solution.min() >= 0:
            break
        used.remove(used[int(solution.argmin())])
    found[used] = solution
    return {kernel: [float(f"{c:.4g}") for c in found[starts[kernel] : starts[kernel] + size]] for kernel, size in sizes.items()}


def errors(found: Iterable[Layer], core: str) -> dict[str, list[float]]:
    """Returns the relative errors of the prices of layers by the way in which they are computed, and of all."""
    by_way: dict[str, list[float]] = {}
    for layer in found:
        for way in (layer.way, "all"):
            by_way.setdefault(way, []).append(layer.price(core) / layer.simulated - 1)
    return by_way


def fit_only(kernels: set[str]) -> None:
    """Fits some C kernels to the items that call no others, on every core and on the board STALLED; others keep their costs."""
    costs: dict[str, dict[str, list[float]]] = json.loads(FILE.read_text())["cycles"]
    for board, name in [*((board, board.cpu) for board in map(find_board, BOARDS)), (find_board(STALLED), STALLED)]:
        networks = [*map(random_net, (*FITTED_VALUES, *FITTED_TOKENS, *FITTED_PRODUCTS)), *map(resized_net, FITTED_RESIZED)]
        programs = (("C", FastSteps(program, place(program))) for program in map(whole, networks))
        rows = [(layer.rounds(board.cpu), layer.simulated) for layer in run_all(programs, board, stalls=name == STALLED)]
        costs[name] |= fit([(sums, count) for sums, count in rows if sums.keys() <= kernels])
    write(costs)


def write(costs: dict[str, dict[str, list[float]]]) -> None:
    """Writes the costs."""
    FILE.write_text(json.dumps({"command": "python tools/fit_cycles.py", "cycles": costs}, indent=1) + "\n")
    table.cache_clear()


def fit_all() -> None:
    """Fits every core to its layers. The entry of the board STALLED stays as it is."""
    costs: dict[str, dict[str, list[float]]] = json.loads(FILE.read_text())["cycles"]
    for board in map(find_board, BOARDS):
        found = run_all(fitted_programs(board), board)
        forms = [layer for layer in found if layer.way == "generated" and layer.form is not None]
        others = [layer for layer in found if layer.way != "generated"]
        costs[board.cpu] |= fit([(layer.rounds(board.cpu), layer.simulated) for layer in others]) | {"call": [call_cycles(forms)]}
    write(costs)


def price_all() -> None:
    """Writes how far off the prices of layers are that the fit has not seen."""
    rows = [row for board in map(find_board, BOARDS) for row in summary(board, run_all(checked_programs(board), board))]
    record = {"schema": 1, "kind": "cycle_prices", "command": "python tools/fit_cycles.py", "rows": rows}
    PRICES.write_text(json.dumps(record, indent=1) + "\n")


def call_cycles(forms: list[Layer]) -> float:
    """Returns what the call of a generated kernel costs beside its instructions."""
    weights = np.array([layer.simulated for layer in forms], float) ** -2
    beside = [layer.simulated - layer.form.cycles for layer in forms if layer.form]
    return round(float(np.average(beside, weights=weights)), 1)


def summary(board: Board, layers: Iterable[Layer]) -> Iterator[dict[str, object]]:
    """Yields a core's relative errors by the way in which layers are computed: mean, below which 95 % are, largest."""
    for way, values in errors(layers, board.cpu).items():
        off = np.abs(values)
        figures = {"mean": off.mean(), "quantile_95": np.quantile(off, 0.95), "largest": off.max()}
        rounded = {name: round(float(value), 3) for name, value in figures.items()}
        yield {"cpu": board.cpu, "timing_model": model_name(board.cpu), "kernels": way, "layers": len(off)} | rounded


def compared(name: str, graph: Graph) -> dict[str, object]:
    """Returns a network's plan for few cycles beside layer by layer: bytes, cycles, their quotient predicted and simulated."""
    plan, one, board = plan_partial(graph, slowdown=SLOWDOWN, price=PRICE), whole(graph), find_board(BOARDS[0])
    predicted = PRICE(graph, plan.program.steps()) / PRICE(graph, one.steps())
    placed = FastSteps(one, place(one)), FastSteps(plan.program, plan.arena)
    before, after = (sum(simulated(fast, board, stalls=True)) for fast in placed)
    return {
        "net": name, "layerwise_bytes": plan.peaks["layerwise"], "partial_bytes": plan.peak_bytes,
        "least_bytes": plan.least_bytes, "lower_bound_bytes": plan.lower_bound_bytes,
        "layerwise_cycles": before, "partial_cycles": after,
        "predicted": round(predicted, 4), "simulated": round(after / before, 4),
    }  # fmt: skip


def record_plans() -> None:
    """Writes the record of networks that the fit has not seen: random ones, and the built-in ones that fit the board."""
    board = find_board(BOARDS[0])
    record: dict[str, object] = {
        "schema": 1, "kind": "part_costs", "board": board.name, "slowdown": SLOWDOWN, "margin": MARGIN,
        "command": "python tools/fit_cycles.py --plans",
    }  # fmt: skip
    record["random"] = [compared(f"random {seed}", random_net(seed)) for seed in CHECKED]
    named = {net: int8_graph(net, "random") for net in nets.names()}
    fitting = {net: graph for net, graph in named.items() if memory.plan(graph).total_bytes < board_budget(board)}
    record["nets"] = [compared(net, graph) for net, graph in fitting.items()]
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", action="store_true", help="compare plans in parts with the simulator instead of fitting")
    parser.add_argument("--only", nargs="+", default=[], help="C kernels that are fitted alone")
    chosen = parser.parse_args()
    if chosen.plans:
        record_plans()
    else:
        fit_only(set(chosen.only)) if chosen.only else fit_all()
        price_all()
