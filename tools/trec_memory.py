"""Bytes of scratch of TREC's naive and its space-efficient form, computed and found in C: writes a record that chapter 9 reads.

    python tools/trec_memory.py

Each layer that a network's committed TREC weights have is compiled by itself: in the naive form, in plain C, and with generated
loops. It runs on this computer twice, in memory painted with one byte and with another; a byte of scratch that has changed in
either run was written. Its output is compared with the interpreter's. Weights and inputs are random: bytes depend on shapes, and
random inputs use every cluster.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tinyredux import nets
from tinyredux.boards import find_board
from tinyredux.codegen import assemble
from tinyredux.device import build_host
from tinyredux.device.host import HostTarget
from tinyredux.frontends import export
from tinyredux.graph import Graph, TrecConv, constant_names
from tinyredux.int8 import interpret, quantize
from tinyredux.notebook.trec_report import NETS
from tinyredux.train import finetune_trec
from tinyredux.trec import trec_sizes
from tinyredux.trec.layer import convert
from tinyredux.trec.rewrite import module_path

FORMS = {"naive": "naive", "ours": "reference", "generated": "fast"}  # and the kernels that compute them
PAINTS = (0xA5 - 256, 0x5A)


def layers(name: str) -> Iterator[tuple[str, Graph]]:
    """Yields path and int8 graph of each layer of a network's committed TREC table, by itself."""
    net = nets.resolve(name)
    convert(net, finetune_trec.table_for(name, net))
    torch.manual_seed(0)
    shape = export(net.eval(), name=name).input.shape
    samples = np.random.default_rng(0).normal(size=(4, shape[2], *shape[:2])).astype(np.float32)
    int8 = quantize(export(net, name=name), samples)
    for op in int8.ops:
        if isinstance(op, TrecConv):
            kept = {key: int8.constants[key] for key in constant_names(op)}
            tensors = {key: int8.tensors[key] for key in (*op.inputs, op.output)}
            yield module_path(int8, op), Graph("layer", (op,), tensors, kept, op.inputs, (op.output,))


def measured(graph: Graph, kernels: str, folder: Path) -> dict[str, int]:
    """Returns the bytes of scratch that a layer is compiled with, those that C wrote, and one more than the last of them.

    Raises ValueError where the output is not the interpreter's.
    """
    plan, artifact = assemble(graph, "trec_memory", kernels, find_board("disco_f469ni"))
    library = build_host(artifact.write(folder / artifact.model_hash), folder)
    target = HostTarget(library, graph.input.shape, graph.output.shape)
    arena = np.ctypeslib.as_array((ctypes.c_int8 * plan.total_bytes).in_dll(ctypes.CDLL(str(library)), "tr_arena"))
    image = np.random.default_rng(1).integers(-128, 128, (1, *graph.input.shape)).astype(np.int8)
    start, size = plan.scratch[graph.ops[0].name]
    written = np.zeros(size, bool)
    for paint in PAINTS:
        arena[:] = paint
        if not np.array_equal(target.run(image[0]), interpret.run(graph, image)[0]):
            raise ValueError(f"{graph.ops[0].name} with {kernels} kernels does not give the interpreter's output")
        written |= arena[start : start + size] != paint
    return {"planned": size, "written": int(written.sum()), "high_water": int(np.flatnonzero(written)[-1]) + 1}


def line(net: str, path: str, graph: Graph, folder: Path) -> dict[str, Any]:
    """Returns a layer's computed and measured bytes."""
    op = graph.ops[0]
    assert isinstance(op, TrecConv)
    sizes = trec_sizes(graph, op)
    found = {name: measured(graph, kernels, folder) for name, kernels in FORMS.items()}
    computed = {"naive": sizes.naive_bytes, "ours": sizes.scratch_bytes}
    return {"net": net, "layer": path, "sub_length": op.sub_length, "hash_bits": op.hash_bits, "computed": computed} | found


def main() -> None:
    """Measures the layers of all networks with committed TREC weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("data/records/trec_memory.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = [line(net, path, graph, Path(folder)) for net in NETS for path, graph in layers(net)]
    record = {"schema": 1, "kind": "trec_memory", "command": shlex.join(["python", *sys.argv]), "layers": lines}
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
