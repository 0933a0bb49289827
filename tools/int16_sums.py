"""What 16-bit partial sums cost in accuracy: right answers in int8 with sums of 32 and of 16 bits; writes a record.

    python tools/int16_sums.py lenet:cifar10 keyword_cnn:keywords

Each network is measured twice: as its least plan with 16-bit sums computes it, which for most networks has no partial sums at
all; and with every convolution and dense layer of more than `--width` input channels summed in slices of so many, each rounded
to 16 bits, which is more than any plan does. All test images count; nothing is chosen on them.
"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tinyredux import datasets, nets
from tinyredux.frontends import export
from tinyredux.graph import Conv, Dense, Graph, Pool, Weighted, weights_of
from tinyredux.int8 import evaluator, int16_shifts, quantize
from tinyredux.partial import plan_partial

Slices = tuple[tuple[int, int], ...]  # of input channels: first, and one past the last


class SlicedLayer(evaluator.Layer):
    """A convolution or dense layer whose partial sums are kept in 16 bits: each slice rounds, and what leaves is clipped."""

    def __init__(self, graph: Graph, op: Weighted, slices: Slices) -> None:
        """Takes the weights of each slice, in torch's order, and the channels' shifts."""
        super().__init__(graph, op)
        order = {Conv: (0, 3, 1, 2), Dense: (0, 1)}[type(op)]
        parts = {part: weights_of(graph, op, (0, len(graph.constants[op.weights])), part) for part in slices}
        arrays = {part: np.ascontiguousarray(weights.astype(np.int64).transpose(order)) for part, weights in parts.items()}
        self.parts = {part: torch.from_numpy(weights).to(self.kind) for part, weights in arrays.items()}
        self.right = torch.from_numpy(int16_shifts(graph, op)).reshape(1, -1, 1, 1)

    def outputs(self, centred: torch.Tensor, pool: Pool | None = None) -> torch.Tensor:
        """Returns stored int8 values (N, C, H, W) as float32, after the max pool `pool` where there is one."""
        sums = self._rounded(self.bias)
        for (begin, end), weights in self.parts.items():
            added = evaluator.weighted_sums(self.op, centred[:, begin:end].to(self.kind), weights)
            sums = (sums + self._rounded(added.to(torch.int64))).clamp(-32768, 32767)
        values = self.requantized(sums << self.right)
        return evaluator.max_pool(values, pool) if pool else values

    def _rounded(self, sums: torch.Tensor) -> torch.Tensor:
        """Returns sums / 2^shift, halves away from zero."""
        half = (torch.ones_like(self.right) << self.right) >> 1
        return (sums + half + (sums >> 63) * (self.right > 0)) >> self.right


def run_sliced(graph: Graph, slices: dict[str, Slices], images: NDArray[np.int8]) -> NDArray[np.int8]:
    """Returns the outputs (N, H, W, C) of a network whose operators in `slices` add up those slices in 16 bits."""
    ready = evaluator.Evaluator(graph)
    for op in graph.ops:
        if op.name in slices:
            ready.layers[op.name] = SlicedLayer(graph, op, slices[op.name]), ready.layers[op.name][1]
    return ready.run(images)


def everywhere(graph: Graph, width: int) -> dict[str, Slices]:
    """Returns slices of `width` input channels for every ungrouped convolution and dense layer that has more."""
    found = {}
    for op in graph.ops:
        channels = graph.tensors[op.inputs[0]].shape[2]
        if isinstance(op, Dense) or (isinstance(op, Conv) and op.groups == 1):
            found[op.name] = tuple((i, min(i + width, channels)) for i in range(0, channels, width))
    return {name: parts for name, parts in found.items() if len(parts) > 1}


def int16_slices(graph: Graph) -> dict[str, tuple[tuple[int, int], ...]]:
    """Returns which operators the least plan with 16-bit sums computes in slices of their input channels, and in which."""
    adding = [step for step in plan_partial(graph, "int16").program.steps() if step.kind == "add_up"]
    slices = {step.op: [one.inputs[0].box for one in adding if one.op == step.op] for step in adding}
    return {name: tuple(dict.fromkeys((box.c0, box.c1) for box in boxes)) for name, boxes in slices.items()}


def run(name: str, data_name: str, width: int) -> dict[str, object]:
    """Returns one line of the record: planned peaks with both kinds of sums, and right answers."""
    data, net = nets.with_data(name, data_name)
    graph = quantize(export(net, name=name), datasets.calibration(data))
    images, planned, forced = evaluator.quantized(graph, data.test.images), int16_slices(graph), everywhere(graph, width)
    exact = evaluator.Evaluator(graph).run(images).reshape(len(images), -1)
    line: dict[str, object] = {"net": name, "data": data.name, "images": len(images)}
    for sums in ("int32", "int16"):
        line[f"partial_bytes_{sums}"] = plan_partial(graph, sums).peak_bytes
    line["correct_int32"] = int((exact.argmax(1) == data.test.labels).sum())
    for kind, slices in (("planned", planned), ("everywhere", forced)):
        rounded = run_sliced(graph, slices, images).reshape(len(images), -1) if slices else exact
        line[kind] = {
            "layers": len(slices), "correct_int16": int((rounded.argmax(1) == data.test.labels).sum()),
            "other_answers": int((rounded.argmax(1) != exact.argmax(1)).sum()),
            "largest_difference": int(np.abs(rounded.astype(int) - exact).max()),
        }  # fmt: skip
    return line


def main() -> None:
    """Measures the networks given as NET:DATA and writes the record after each; what is there already is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="+", metavar="NET:DATA")
    parser.add_argument("--width", type=int, default=8, help="channels of a slice, where every layer is summed so")
    parser.add_argument("--out", type=Path, default=Path("data/records/int16_sums.json"))
    options = parser.parse_args()
    runs = (
        {(one["net"], one["data"]): one for one in json.loads(options.out.read_text())["runs"]} if options.out.is_file() else {}
    )
    for one in options.nets:
        name, _, data = one.partition(":")
        runs[name, data] = run(name, data, options.width)
        record = {
            "schema": 1, "kind": "int16_sums", "slice_channels": options.width, "torch": torch.__version__,
            "command": shlex.join(["python", "tools/int16_sums.py", *(f"{net}:{data}" for net, data in runs)]),
            "runs": list(runs.values()),
        }  # fmt: skip
        options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
