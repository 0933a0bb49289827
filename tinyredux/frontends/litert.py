"""Layer by layer beside LiteRT: how many bytes its default interpreter computes otherwise, and why.

LiteRT computes the file with every map as an output, so what one layer reads and writes is known. Each layer is then computed
here twice: as part of the whole network, and by itself on what LiteRT's layer read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyredux.files import expect, require
from tinyredux.frontends.tflite_graph import load_with_tensors
from tinyredux.graph import Array, Graph, Op
from tinyredux.int8 import interpret

ROUNDS_TWICE = "LiteRT rounds once here"
INPUTS = "its inputs differ"
Maps = dict[str, Array]  # of the graph by name, each (N, H, W, C)
OWN_RULE = "another rule of this operator"


@dataclass(frozen=True)
class LayerDifference:
    """What differs in one layer's output over all images: values, how many in the network and by how much at most, in stored
    units; the same of the layer alone, on the inputs that it has in LiteRT; and why, empty where nothing differs."""

    name: str
    kind: str
    place: str
    values: int
    differ: int
    largest: int
    differ_alone: int
    largest_alone: int
    why: str


def compare_with_litert(path: Path | str, images: Array, rounding: str = "double") -> list[LayerDifference]:
    """Returns for each layer of a .tflite file how its int8 output differs from that of LiteRT's default interpreter.

    `images` (N, H, W, C) are int8, as the network stores them; `rounding` is that of `load_tflite`. The last one is the
    network's output. Raises ImportError without the package ai-edge-litert, ValueError for images of another shape.
    Chapter 13.
    """
    expect(Path | str, path, "the network", "such as 'model.tflite'")
    graph, numbers = load_with_tensors(Path(path))
    graph = replace(graph, rounding=rounding)
    fits = images.dtype == np.int8 and images.shape[1:] == graph.input.shape and len(images)
    require(
        fits, f"images are {images.dtype} {images.shape}, {graph.name} takes int8 (N, {', '.join(map(str, graph.input.shape))})"
    )
    run, found = _litert(Path(path), graph, numbers), [_Counted() for _ in graph.ops]
    for i in range(0, len(images), interpret.CHUNK):
        theirs, ours = run(images[i : i + interpret.CHUNK]), interpret.run_all(graph, images[i : i + interpret.CHUNK])
        for op, counted in zip(graph.ops, found, strict=True):
            counted.add(graph, op, ours[op.output], theirs)
    return [counted.difference(graph, op) for op, counted in zip(graph.ops, found, strict=True)]


@dataclass
class _Counted:
    """What differs in one layer so far; `by_rounding`: not in a layer that rounds once, on the same inputs."""

    values: int = 0
    network: tuple[int, int] = (0, 0)  # how many, and by how much at most
    alone: tuple[int, int] = (0, 0)
    by_rounding: bool = True

    def add(self, graph: Graph, op: Op, ours: Array, theirs: Maps) -> None:
        """Counts a part of the images."""
        inputs = [theirs[name] for name in op.inputs]
        own = interpret.run_op(graph, op, inputs)
        result = theirs.setdefault(op.output, own)  # a map that LiteRT does not have holds but moved values
        self.values += result.size
        self.network, self.alone = _more(self.network, ours, result), _more(self.alone, own, result)
        if not np.array_equal(own, result):
            self.by_rounding &= graph.rounding == "double" and _rounds_once(graph, op, inputs, result)

    def difference(self, graph: Graph, op: Op) -> LayerDifference:
        """Returns what was counted."""
        why = INPUTS if self.network[0] else ""
        if self.alone[0]:
            why = ROUNDS_TWICE if self.by_rounding else OWN_RULE
        place = graph.origin.get(op.name, "")
        return LayerDifference(op.name, type(op).__name__, place, self.values, *self.network, *self.alone, why)


def _rounds_once(graph: Graph, op: Op, inputs: list[Array], result: Array) -> bool:
    """Returns whether single rounding gives the result; False where it has no rule for the operator."""
    try:
        once = interpret.run_op(replace(graph, rounding="single"), op, inputs)
    except ValueError:
        return False
    return bool(np.array_equal(once, result))


def _more(counted: tuple[int, int], found: Array, result: Array) -> tuple[int, int]:
    distance = np.abs(found.astype(np.int16) - result)
    return counted[0] + int(np.count_nonzero(distance)), max(counted[1], int(distance.max(initial=0)))


def _litert(path: Path, graph: Graph, numbers: dict[str, int]) -> Callable[[Array], Maps]:
    """Returns what computes every map of the graph, each (N, H, W, C), for images by LiteRT."""
    from ai_edge_litert import interpreter  # type: ignore[import-untyped, import-not-found, unused-ignore]

    wanted = [op.output for op in graph.ops if op.output in numbers]
    model = _with_outputs(path, numbers[graph.inputs[0]], [numbers[name] for name in wanted])
    litert = interpreter.Interpreter(model_content=model, num_threads=1)
    litert.allocate_tensors()
    source = litert.get_input_details()[0]

    def run(images: Array) -> Maps:
        found: dict[str, list[Array]] = {name: [] for name in wanted}
        for image in images:
            litert.set_tensor(source["index"], image.reshape(source["shape"]))
            litert.invoke()
            for name in wanted:
                found[name].append(litert.get_tensor(numbers[name]).reshape(graph.tensors[name].shape).copy())
        return {graph.inputs[0]: images} | {name: np.stack(values) for name, values in found.items()}

    return run


def _with_outputs(path: Path, source: int, outputs: Sequence[int]) -> bytes:
    """Returns a .tflite file that begins at tensor `source` and gives the tensors `outputs`: the operators between them alone."""
    import flatbuffers  # type: ignore[import-untyped, import-not-found, unused-ignore]
    from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-untyped, import-not-found, unused-ignore]

    model: Any = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    graph, *_ = model.subgraphs
    model.subgraphs = [graph]
    graph.inputs, graph.outputs, model.signatureDefs = [source], list(outputs), None
    graph.operators = [op for op in graph.operators if source not in op.outputs and not _leaves_int8(graph, op)]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _leaves_int8(graph: Any, op: Any) -> bool:
    """Returns whether an operator writes float or uint8: the last step of a network."""
    from ai_edge_litert import schema_py_generated as schema

    return any(graph.tensors[number].type in (schema.TensorType.FLOAT32, schema.TensorType.UINT8) for number in op.outputs)
