"""Modelled cycles of our kernels, one layer at a time: a network of one operator, built for a board and run in the simulator."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyredux import flow, graph
from tinyredux.boards import Board
from tinyredux.codegen import KERNELS, board_budget, limits
from tinyredux.device.simulated import SimulatorTarget
from tinyredux.files import expect
from tinyredux.int8 import interpret
from tinyredux.kernels import Form, OnBoard, candidates
from tinyredux.methods.layerwise import Layerwise
from tinyredux.trec import Choice, with_trec

LAYERS = (
    "conv3x3:32-32@16x16", "conv5x5:3-32@32x32", "conv5x5:32-32@16x16", "conv5x5:32-64@8x8", "conv1x1:64-64@16x16",
    "depthwise3x3:64@16x16", "dense:1024-10", "max3x3s2:32@32x32", "average3x3s2:32@16x16", "add:32@16x16",
)  # fmt: skip
WINDOW, MAP = r"(?P<kernel>\d+x\d+)(?:s(?P<stride>\d+))?", r"@(?P<size>\d+x\d+)"
INPUTS, OUTPUTS = r":(?P<in_c>\d+)", r"-(?P<out_c>\d+)"
FORMS = (
    rf"(?P<kind>conv){WINDOW}{INPUTS}{OUTPUTS}{MAP}(/L(?P<sub_length>\d+)H(?P<hash_bits>\d+))?",
    rf"(?P<kind>depthwise|max|average){WINDOW}{INPUTS}{MAP}",
    rf"(?P<kind>dense){INPUTS}{OUTPUTS}",
    rf"(?P<kind>add|relu){INPUTS}{MAP}",
)
MOST_VALUES = 1 << 21  # of a map, or of the weights, which are bytes: no board of the book has more


@dataclass(frozen=True)
class LayerSpec:
    """A layer as `bench` names it. `size` is the input map's (height, width); windows are padded to out = in / stride.

    With `hash_bits` the convolution is TREC's: /L32H4 stands for blocks of 32 columns (0: of all) and 4 bits, kernel reuse.
    """

    kind: str
    in_c: int
    out_c: int
    size: tuple[int, int] = (1, 1)
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    sub_length: int = 0
    hash_bits: int = 0


@dataclass(frozen=True)
class LayerTime:
    """What one run of a layer cost. `memory_cycles` are lost to flash and caches, on top of the core's.

    `loop_cycles`: what its multiply-accumulate instructions would take, all at the pace of the block that runs most of them.
    """

    layer: str
    kernels: str
    macs: int
    outputs: int
    instructions: int
    core_cycles: int
    memory_cycles: int
    form: str = "reference"
    scratch_bytes: int = 0
    loop_cycles: int = 0

    @property
    def bound_per_mac(self) -> float | None:
        """Core cycles per multiply-accumulate if there were nothing but the inner loop; None for a layer without."""
        return self.loop_cycles / self.macs if self.macs else None

    @property
    def per_mac(self) -> float | None:
        """Core cycles per multiply-accumulate; None for a layer without."""
        return self.core_cycles / self.macs if self.macs else None

    @property
    def per_output(self) -> float:
        """Core cycles per output value."""
        return self.core_cycles / self.outputs


def parse_spec(text: str) -> LayerSpec:
    """Returns the layer that a text such as conv3x3s2:32-64@16x16 names. Raises ValueError with the forms allowed."""
    expect(str, text, "the layer", "such as 'conv3x3:32-32@16x16'")
    match = next(filter(None, (re.fullmatch(form, text, re.ASCII) for form in FORMS)), None)
    if match is None:
        raise ValueError(f"layer {text!r} is not understood; layers look like {', '.join(LAYERS)}")
    given = {name: value for name, value in match.groupdict().items() if value is not None}
    kind, length = given.pop("kind"), int(given.pop("sub_length", 0))
    pairs = {name: (int(high), int(wide)) for name, value in given.items() for high, x, wide in [value.partition("x")] if x}
    sizes = {name: int(value) for name, value in given.items() if name not in pairs}
    if 0 in (*sizes.values(), *(side for pair in pairs.values() for side in pair)):
        raise ValueError(f"layer {text!r}: sizes are 1 or more")
    spec = LayerSpec(**{"kind": kind, "out_c": sizes["in_c"], "sub_length": length, **sizes, **pairs})  # type: ignore[arg-type]
    maps = spec.size[0] * spec.size[1] * max(spec.in_c, spec.out_c)
    weights = spec.kernel[0] * spec.kernel[1] * spec.in_c * (spec.out_c if kind in ("conv", "dense") else 1)
    if (most := max(maps, weights)) > MOST_VALUES:
        raise ValueError(f"layer {text!r}: a map or its weights have {most:,} values, expected at most {MOST_VALUES:,}")
    return spec


def layer_graph(spec: LayerSpec, seed: int = 0) -> graph.Graph:
    """Returns an int8 network of that one layer: weights normal with deviation 36, outputs that rarely saturate."""
    expect(LayerSpec, spec, "the layer", "such as parse_spec('conv3x3:32-32@16x16')")
    rng, op = np.random.default_rng(seed), _operator(spec)
    tensors = {"input": graph.Tensor("input", (*spec.size, spec.in_c), "int8", graph.Quant((0.05,), -128))}
    constants: dict[str, graph.Array] = {}
    if isinstance(op, graph.Weighted):
        window = () if isinstance(op, graph.Dense) else spec.kernel
        shape = (*window, spec.in_c) if isinstance(op, graph.DepthwiseConv) else (spec.out_c, *window, spec.in_c)
        constants["weights"] = np.clip(np.round(rng.normal(0, 36, shape)), -127, 127).astype(np.int8)
        constants["bias"] = rng.integers(-4000, 4000, spec.out_c).astype(np.int32)
        products = constants["weights"].size / spec.out_c
        scales = 40 / (60 * 36 * products**0.5) * 2.0 ** rng.uniform(-1, 1, spec.out_c)
        op = replace(op, weight_scale=tuple(float(scale) for scale in scales))
    net = graph.Graph("layer", (op,), tensors, constants, ("input",), ("output",))
    quant = graph.Quant((0.07,), -20) if isinstance(op, graph.Add) else graph.Quant((0.05,), -128)
    net = replace(net, tensors=tensors | {"output": graph.Tensor("output", graph.output_shape(net, op), "int8", quant)})
    graph.verify(net)
    return with_trec(net, {"layer": Choice(spec.sub_length, spec.hash_bits)}) if spec.hash_bits else net


def _operator(spec: LayerSpec) -> graph.Op:
    names: dict[str, Any] = {"name": "layer", "inputs": ("input",), "output": "output"}
    weighted = {**names, "weights": "weights", "bias": "bias", "activation": "relu"}
    pairs = zip(spec.size, spec.kernel, strict=True)
    more = [max(0, (-(-size // spec.stride) - 1) * spec.stride + kernel - size) for size, kernel in pairs]
    padding = tuple(side for rows in more for side in (rows // 2, rows - rows // 2))
    window: dict[str, Any] = {"kernel": spec.kernel, "stride": (spec.stride, spec.stride), "padding": padding}
    match spec.kind:
        case "conv":
            return graph.Conv(**weighted, **window)
        case "depthwise":
            return graph.DepthwiseConv(**weighted, **window)
        case "dense":
            return graph.Dense(**weighted)
        case "add":
            return graph.Add(**names | {"inputs": ("input", "input")})
        case "relu":
            return graph.Relu(**names)
    return graph.Pool(**names, **window, kind=spec.kind)


def layer_forms(text: str, board: Board) -> list[Form]:
    """Returns the ways in which the fast kernels can compute a layer on a board's core, those predicted to be fastest first."""
    net = layer_graph(parse_spec(text))
    return candidates(net, net.ops[0], OnBoard(board))


def bench_layer(text: str, board: Board, kernels: str = "fast", folder: Path | None = None) -> LayerTime:
    """Returns what one layer costs on a board, by the simulator.

    Raises DoesNotFit for a layer that the board cannot hold, ValueError if its output is not the interpreter's.
    """
    expect(Board, board, "the board", "such as find_board('disco_f469ni')")
    net = layer_graph(parse_spec(text))
    sram = limits(board, None, net)[0] if kernels in KERNELS else board_budget(board)  # the naive form may take all there is
    model = flow.compile(net, board, schedule=Layerwise(sram, "board"), kernels=kernels, call=f"bench --layer {text}")
    image = np.random.default_rng(1).normal(-40, 60, net.input.shape).clip(-128, 127).astype(np.int8)
    target = SimulatorTarget(model.build(folder).elf, board, model.artifact.model_hash, net.output.shape)
    output, cost = target.run(image), target.machine.watched[-1]
    if not np.array_equal(output, interpret.run(net, image[None])[0]):
        raise ValueError(f"layer {text}: the {kernels} kernel does not write the interpreter's bytes; report this as a bug")
    form, (_, scratch) = model.artifact.manifest["ops"][0].get("form", "reference"), model.plan.scratch.get("layer", (0, 0))
    costs = (cost.instructions, cost.core_cycles, cost.memory_cycles)
    products, pace = target.machine.pricing.products()
    loop = round(products / len(target.machine.watched) * pace)
    return LayerTime(text, kernels, graph.macs(net, net.ops[0]), net.output.elements, *costs, form, scratch, loop)


def bench(board: Board, layers: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Returns one row per layer (default: LAYERS) and kernel set, with the fields of `bench --json`."""
    rows = []
    for time in (bench_layer(text, board, kernels) for text in layers or LAYERS for kernels in KERNELS):
        row = asdict(time)
        core = row.pop("core_cycles")
        row |= {"cycles": core + row.pop("memory_cycles"), "cycles_core": core, "per_output": round(time.per_output, 1)}
        row |= {
            name: value and round(value, 3) for name, value in (("per_mac", time.per_mac), ("bound_per_mac", time.bound_per_mac))
        }
        rows.append(row)
    return rows
