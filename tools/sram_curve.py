"""Accuracy against SRAM: networks pruned to one budget after another, each tuned for a while; writes a record of all points.

    python tools/sram_curve.py keywords
    python tools/sram_curve.py keywords --only keyword_cnn

A trajectory starts from a trained network and goes on from budget to budget; the teacher is always the unpruned network. To the
points of the trajectories come all built-in networks with weights for the data, unpruned. Every point has both planned peaks,
layer by layer and in parts, and the right answers of the int8 network, counted once, at the end. What lies in the user's
cache already is not made again.
"""

from __future__ import annotations

import argparse
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyredux import memory, nets
from tinyredux.explore.plans import int8_graph
from tinyredux.graph import total_macs
from tinyredux.partial import plan_partial
from tinyredux.train import pretrained


@dataclass(frozen=True)
class Trajectory:
    """A network, the budgets that it is pruned to in turn, in bytes of the partial plan, and how each is trained."""

    base: str
    budgets: tuple[int, ...]
    epochs: int
    steps: int
    aim: str = "peak"
    rate: float | None = None

    def name(self, place: int) -> str:
        """Returns the name of the network at one of the budgets; before the first it is the base."""
        suffix = "" if self.aim == "peak" else f"_{self.aim}"
        return self.base if place < 0 else f"{self.base}_{self.budgets[place]}{suffix}"


CURVES = {
    "cifar10": (
        Trajectory("squeezenet", (24576,), epochs=5, steps=3, rate=0.05),
        Trajectory("squeezenet_24576", (16384,), epochs=5, steps=2, rate=0.05),
        Trajectory("cifarnet_pruned", (4608, 4096), epochs=4, steps=2, rate=0.03),
    ),
    "keywords": (
        Trajectory("ds_cnn", (12288, 8192, 6144, 4096, 3072), epochs=40, steps=4),
        Trajectory("ds_cnn_wide", (65536, 49152, 32768, 24576, 16384), epochs=12, steps=1),
        Trajectory("keyword_cnn", (4096, 3072, 2048), epochs=40, steps=4),
        Trajectory("ds_cnn", (8192, 4096), epochs=40, steps=8, aim="anywhere"),
    ),
}  # fmt: skip


def point(record: pretrained.Record, **more: Any) -> dict[str, Any]:
    """Returns one line of the record for a network whose weights are on this machine."""
    graph = int8_graph(record.net, record.data)
    return {
        "net": record.net, **more, "layerwise_bytes": memory.plan(graph).total_bytes,
        "partial_bytes": plan_partial(graph).peak_bytes, "macs": total_macs(graph), "parameters": record.parameters,
        "validation_images": record.validation_images, "validation_correct": record.validation_correct,
        "images": record.images, "correct_int8": record.correct_int8, "sha256": record.sha256, "command": record.command,
    }  # fmt: skip


def made(trajectory: Trajectory, place: int, data: str) -> pretrained.Record:
    """Returns the record of a network of a trajectory, pruned now or before."""
    name = trajectory.name(place)
    weights = nets.weights_file(name, data)
    if weights is not None:
        return pretrained.load_record(weights.with_suffix(".json"))
    return pretrained.prune_net(
        trajectory.name(place - 1), trajectory.budgets[place], data, trajectory.epochs, None, name, trajectory.aim,
        trajectory.steps, trajectory.rate,
    )  # fmt: skip


def main() -> None:
    """Makes the points, and writes the record after each; its other points stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=tuple(CURVES))
    parser.add_argument("--only", help="the trajectories of this network, and no others")
    parser.add_argument("--out", type=Path, help="default: data/records/sram_curve.DATA.json")
    options = parser.parse_args()
    out = options.out or Path(f"data/records/sram_curve.{options.data}.json")
    points = {one["net"]: one for one in json.loads(out.read_text())["points"]} if out.is_file() else {}

    def note(record: pretrained.Record, **more: Any) -> None:
        points[record.net] = point(record, **more)
        command = shlex.join(["python", "tools/sram_curve.py", options.data])
        whole = {"schema": 1, "kind": "sram_curve", "data": options.data, "command": command}
        out.write_text(json.dumps(whole | {"points": list(points.values())}, indent=1) + "\n")

    for record in pretrained.records():
        if record.data == options.data and not record.table and not record.skipping:
            base = (record.pruning or {}).get("base")
            note(record, base=base, aim="peak" if base else None, epochs=record.recipe["epochs"])
    for trajectory in CURVES[options.data]:
        for place in range(len(trajectory.budgets) if options.only in (None, trajectory.base) else 0):
            record = made(trajectory, place, options.data)
            note(record, base=trajectory.name(place - 1), aim=trajectory.aim, epochs=trajectory.epochs)


if __name__ == "__main__":
    main()
