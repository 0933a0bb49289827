"""How redundant real images are inside the networks: writes a record that chapter 8 reads.

    python tools/trec_redundancy.py

Every convolution behind the first one, exact weights, float activations of `--images` validation images of CIFAR-10, blocks of
one tap, kernel reuse with mean thresholds. One image at a time for every number of bits; one layer also with several images
clustered together. Nothing is trained and nothing chosen here.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tinyredux import datasets, nets
from tinyredux.frontends import export
from tinyredux.graph import Conv, Graph
from tinyredux.int8 import interpret
from tinyredux.trec import hashing
from tinyredux.trec.rewrite import module_path

NETS = ("cifarnet", "zfnet", "squeezenet", "squeezenet_bypass")
BITS = (1, 2, 3, 4, 5, 6, 8, 10)
TOGETHER = ("cifarnet", "body.2.0", 10, (10, 100))  # network, layer, bits, images clustered together


def rows_of(graph: Graph, op: Conv, maps: np.ndarray) -> np.ndarray:
    """Returns the sub-vectors (images, taps, N, channels) that a layer sees."""
    seen = interpret.windows(maps, op.kernel, op.stride, op.padding, 0.0)
    images, high, wide, kernel_h, kernel_w, channels = seen.shape
    return np.moveaxis(seen.reshape(images, high * wide, kernel_h * kernel_w, channels), 2, 1)


def measured(graph: Graph, op: Conv, rows: np.ndarray, bits: int, together: int = 1) -> dict[str, float]:
    """Returns the redundancy of a layer's rows by its own first filters, `together` images as one."""
    images, taps, count, channels = rows.shape
    filters = graph.constants[op.weights].reshape(-1, taps, channels)[:bits].transpose(1, 2, 0)
    groups = rows.reshape(images // together, together, taps, count, channels).swapaxes(1, 2)
    groups = groups.reshape(-1, together * count, channels)
    found = hashing.measure(groups, np.tile(filters, (images // together, 1, 1)))
    return {"images_together": together} | {key: round(value, 4) for key, value in asdict(found).items()}


def main() -> None:
    """Measures every network and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("data/records/trec_redundancy.json"))
    options = parser.parse_args()
    images = datasets.load("cifar10").validation.images[: options.images].transpose(0, 2, 3, 1)
    layers = []
    for name in NETS:
        graph = export(nets.load_net(name, "cifar10"), name=name)
        values = interpret.run_all(graph, images)
        for op in graph.ops:
            if not isinstance(op, Conv) or op.groups != 1 or op.inputs == graph.inputs:
                continue
            rows = rows_of(graph, op, values[op.inputs[0]].astype(np.float32))
            most = min(rows.shape[3], graph.tensors[op.output].shape[2])
            found = [measured(graph, op, rows, bits) for bits in BITS if bits <= most]
            if (name, module_path(graph, op)) == TOGETHER[:2]:
                found += [measured(graph, op, rows, TOGETHER[2], count) for count in TOGETHER[3]]
            layers.append({"net": name, "layer": module_path(graph, op), "rows": rows.shape[2], "points": found})
    record = {
        "schema": 1, "kind": "trec_redundancy", "data": "cifar10", "images": options.images, "sub_vectors": "one tap",
        "hash": "kernel", "threshold": "mean", "command": shlex.join(["python", *sys.argv]), "layers": layers,
    }  # fmt: skip
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
