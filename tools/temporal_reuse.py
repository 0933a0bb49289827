"""Inexact redundancy in time: how much of a network the last frame of a film has computed already; keeps a record.

    python tools/temporal_reuse.py --net cifarnet --images 1000 --out data/records

Every convolution's output position sees a vector of its input, and so it did in the last frame. Where both vectors have the same
hash, the output of the last frame stays, and nothing is computed there. The hash is of the values without their lowest bits: with
all bits kept, what is reused is equal, and so is the answer. What later layers see is what earlier ones have reused. Here the
values themselves are compared, as a hash would do that never collides: the answers are the best that one could give.

The films are made of validation images of CIFAR-10, four frames each, since there is no film with labels: `still` is the image
again, `noise S` adds a camera's noise of S grey levels (standard deviation) to every frame, `object` moves the middle quarter of
the picture by a column each frame and leaves the rest, `pan` moves the whole picture. They say what motion does to the reuse; how
often a camera sees which of them they don't say. Counted is the last frame.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinyredux import datasets, memory, nets
from tinyredux.frontends import export
from tinyredux.graph import Conv, DepthwiseConv, Graph, macs, total_macs
from tinyredux.int8 import evaluator, interpret, quantize

FRAMES = 4
FILMS = ("still", "noise 1", "noise 2", "noise 4", "object", "object and noise 1", "pan")
DROPPED = (0, 3, 4, 5)  # lowest bits that the hash leaves out
BATCH = 100
Maps = dict[str, npt.NDArray[np.int8]]


def film(images: npt.NDArray[np.uint8], kind: str, rng: np.random.Generator) -> list[npt.NDArray[np.uint8]]:
    """Returns the frames, each (N, H, W, C) uint8, of a film that begins with the images."""
    frames = []
    for moved in range(FRAMES):
        frame = images.copy()
        if kind == "pan":
            frame = np.roll(frame, moved, axis=2)
        elif kind.startswith("object"):
            frame[:, 8:24, 8 + moved : 24 + moved] = images[:, 8:24, 8:24]
        if "noise" in kind:
            frame = np.rint(np.clip(frame + rng.normal(0, float(kind.split()[-1]), frame.shape), 0, 255)).astype(np.uint8)
        frames.append(frame)
    return frames


def next_frame(graph: Graph, last: Maps | None, images: npt.NDArray[np.int8], dropped: int) -> tuple[Maps, dict[str, float]]:
    """Returns every map of a frame, each (N, H, W, C), and by layer the share of vectors that had to be computed."""
    values: Maps = {graph.input.name: images}
    computed = {}
    for op in graph.ops:
        values[op.output] = interpret.run_op(graph, op, [values[name] for name in op.inputs])
        if last is None or not isinstance(op, Conv | DepthwiseConv):
            continue
        source = op.inputs[0]
        changed = (values[source] >> dropped != last[source] >> dropped).any(axis=3, keepdims=True)
        seen = interpret.windows(changed, op.kernel, op.stride, op.padding, False, op.dilation).any(axis=(3, 4, 5))
        values[op.output] = np.where(seen[..., None], values[op.output], last[op.output])
        computed[op.name] = float(seen.mean())
    return values, computed


def main() -> None:
    """Counts each film with each hash and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="cifarnet")
    parser.add_argument("--images", type=int, default=1000, help="validation images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("data/records"))
    options = parser.parse_args()
    data = datasets.load("cifar10", nets.load_net(options.net).input_shape)
    graph = quantize(export(nets.load_net(options.net), name=options.net), datasets.calibration(data))
    part = data.validation.first(options.images)
    layers = [op for op in graph.ops if isinstance(op, Conv | DepthwiseConv)]
    lines = []
    for kind in FILMS:
        frames = film(datasets.pixels(part.images).transpose(0, 2, 3, 1), kind, np.random.default_rng(options.seed))
        stored = [evaluator.quantized(graph, datasets.normalize(frame)) for frame in frames]
        exact = interpret.run(graph, stored[-1])
        for dropped in DROPPED:
            shares = {op.name: 0.0 for op in layers}
            outputs = []
            for at in range(0, len(part.images), BATCH):
                last = None
                for frame in stored:
                    last, computed = next_frame(graph, last, frame[at : at + BATCH], dropped)
                assert last is not None
                outputs.append(last[graph.output.name])
                for name, share in computed.items():
                    shares[name] += share * len(outputs[-1]) / len(part.images)
            found = np.concatenate(outputs).reshape(len(exact), -1)
            left = total_macs(graph) - sum(macs(graph, op) * (1 - shares[op.name]) for op in layers)
            lines.append({
                "film": kind, "dropped_bits": dropped, "computed": {name: round(share, 4) for name, share in shares.items()},
                "macs": round(left), "equal_outputs": int((found == exact.reshape(found.shape)).all(axis=1).sum()),
                "correct": int((found.argmax(axis=1) == part.labels).sum()),
                "correct_exact": int((exact.reshape(found.shape).argmax(axis=1) == part.labels).sum()),
            })  # fmt: skip
            print(lines[-1], flush=True)
    kept = {op.name: graph.tensors[op.output].size_bytes for op in layers}
    hashes = {op.name: 4 * graph.tensors[op.inputs[0]].elements // graph.tensors[op.inputs[0]].shape[2] for op in layers}
    record = {
        "schema": 1, "command": shlex.join(["python", *sys.argv]), "net": options.net, "images": len(part.images),
        "part": "validation", "frames": FRAMES, "macs": total_macs(graph), "kept_bytes": kept, "hash_bytes": hashes,
        "arena_bytes": memory.plan(graph).total_bytes, "lines": lines,
    }  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "temporal_reuse.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
