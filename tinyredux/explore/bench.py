"""Modelled cycles of our kernels, one layer at a time: a network of one operator, built for a board and run in the simulator."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyredux import graph
from tinyredux.boards import Board
from tinyredux.codegen import KERNELS, assemble, board_budget
from tinyredux.device import DoesNotFit, build_firmware, default_build_folder
from tinyredux.device.simulated import SimulatorTarget
from tinyredux.files import expect
from tinyredux.int8 import interpret
from tinyredux.kernels import Form, candidates
from tinyredux.trec import Choice, with_trec

LAYERS = (
    "conv3x3:32-32@16x16", "conv5x5:3-32@32x32", "conv5x5:32-32@16x16", "conv5x5:32-64@8x8", "conv1x1:64-64@16x16",
    "depthwise3x3:64@16x16", "dense:1024-10", "max3x3s2:32@32x32", "average3x3s2:32@16x16", "add:32@16x16",
)  # fmt: skip
SPEC = re.compile(
    r"(conv|depthwise|dense|max|average|add|relu)(?:(\d+)x(\d+))?(?:s(\d+))?:(\d+)(?:-(\d+))?(?:@(\d+)x(\d+))?(?:/L(\d+)H(\d+))?",
    re.ASCII,
)
WINDOWED = ("conv", "depthwise", "max", "average")


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
    """What one run of a layer cost. `memory_cycles` are lost to flash and caches, on top of the core's."""

    layer: str
    kernels: str
    macs: int
    outputs: int
    instructions: int
    core_cycles: int
    memory_cycles: int
    form: str = "reference"
    scratch_bytes: int = 0

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
    match = SPEC.fullmatch(text)
    if match is None:
        raise ValueError(f"layer {text!r} is not understood; layers look like {', '.join(LAYERS)}")
    kind, numbers = match[1], [None if value is None else int(value) for value in match.groups()[1:]]
    kernel_h, kernel_w, stride, in_c, out_c, height, width, length, bits = numbers
    for what, value, needed in (
        ("kernel", kernel_h, kind in WINDOWED), ("-OUTPUTS", out_c, kind in ("conv", "dense")), ("@HxW", height, kind != "dense"),
    ):  # fmt: skip
        if (value is not None) != needed:
            says = f"{kind} {'needs' if needed else 'takes no'} {what}"
            raise ValueError(f"layer {text!r}: {says}; layers look like {', '.join(LAYERS)}")
    if bits is not None and kind != "conv":
        raise ValueError(f"layer {text!r}: only conv takes /LENGTHHBITS; layers look like {', '.join(LAYERS)}")
    if (stride is not None and kind not in WINDOWED) or 0 in (*numbers[:7], bits):
        raise ValueError(f"layer {text!r}: sizes are 1 or more, and only {', '.join(WINDOWED)} have a stride")
    size, kernel, channels = (height or 1, width or 1), (kernel_h or 1, kernel_w or 1), in_c or 1
    return LayerSpec(kind, channels, out_c or channels, size, kernel, stride or 1, length or 0, bits or 0)


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
            return graph.Add("layer", ("input", "input"), "output")
        case "relu":
            return graph.Relu(**names)
    return graph.Pool(**names, **window, kind=spec.kind)


def layer_forms(text: str, board: Board) -> list[Form]:
    """Returns the ways in which the fast kernels can compute a layer on a board's core, those predicted to be fastest first."""
    net = layer_graph(parse_spec(text))
    return candidates(net, net.ops[0], board.cpu)


def bench_layer(text: str, board: Board, kernels: str = "fast", folder: Path | None = None) -> LayerTime:
    """Returns what one layer costs on a board, by the simulator.

    Raises DoesNotFit for a layer that the board cannot hold, ValueError if its output is not the interpreter's.
    """
    spec, folder = parse_spec(text), folder or default_build_folder()
    expect(Board, board, "the board", "such as find_board('disco_f469ni')")
    check_size(spec, text, board)
    net = layer_graph(spec)
    plan, artifact = assemble(net, f"bench --layer {text}", kernels, board)
    firmware = build_firmware(artifact.write(folder / "models" / artifact.model_hash), board, folder)
    image = np.random.default_rng(1).normal(-40, 60, net.input.shape).clip(-128, 127).astype(np.int8)
    target = SimulatorTarget(firmware.elf, board, artifact.model_hash, net.output.shape)
    output, cost = target.run(image), target.machine.watched[-1]
    if not np.array_equal(output, interpret.run(net, image[None])[0]):
        raise ValueError(f"layer {text}: the {kernels} kernel does not write the interpreter's bytes; report this as a bug")
    form, (_, scratch) = artifact.manifest["ops"][0].get("form", "reference"), plan.scratch.get("layer", (0, 0))
    costs = (cost.instructions, cost.core_cycles, cost.memory_cycles)
    return LayerTime(text, kernels, graph.macs(net, net.ops[0]), net.output.elements, *costs, form, scratch)


def check_size(spec: LayerSpec, text: str, board: Board) -> None:
    """Raises DoesNotFit where a layer's maps exceed a board's SRAM or its weights the flash."""
    taps = spec.kernel[0] * spec.kernel[1] * (spec.in_c if spec.kind in ("conv", "dense") else 1)
    pixels = spec.size[0] * spec.size[1]
    maps = pixels * spec.in_c + pixels // spec.stride**2 * spec.out_c
    for section, region, needed, there in (
        (".bss (activations)", "SRAM", maps, board_budget(board)),
        (".rodata (weights)", "FLASH", taps * spec.out_c, board.flash_bytes),
    ):
        if needed > there:
            raise DoesNotFit(section, region, needed, there, board.name, f"layer {text}")


def bench(board: Board, layers: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Returns one row per layer (default: LAYERS) and kernel set, with the fields of `bench --json`."""
    times = [bench_layer(text, board, kernels) for text in layers or LAYERS for kernels in KERNELS]
    return [
        {
            "layer": time.layer, "kernels": time.kernels, "macs": time.macs, "outputs": time.outputs,
            "instructions": time.instructions, "cycles": time.core_cycles + time.memory_cycles, "cycles_core": time.core_cycles,
            "per_mac": None if time.per_mac is None else round(time.per_mac, 3), "per_output": round(time.per_output, 1),
            "form": time.form, "scratch_bytes": time.scratch_bytes,
        }
        for time in times
    ]  # fmt: skip
