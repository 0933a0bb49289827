"""Layer by layer beside LiteRT, whose default interpreter rounds once: it computes the file with every map as an output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyredux.files import expect
from tinyredux.frontends.layers import LayerDifference, Maps, differences
from tinyredux.frontends.tflite.load import load_with_tensors
from tinyredux.graph import Array, Graph


def compare_with_litert(path: Path | str, images: Array, rounding: str = "double") -> list[LayerDifference]:
    """Returns for each layer of a .tflite file how its int8 output differs from that of LiteRT's default interpreter.

    `images` (N, H, W, C) are int8, as the network stores them; `rounding` is that of `load_tflite`. The network's outputs are
    among them. Raises ImportError without the package ai-edge-litert, ValueError for images of another shape.
    Chapter 13.
    """
    expect(Path | str, path, "the network", "such as 'model.tflite'")
    graph, numbers = load_with_tensors(Path(path))
    graph = replace(graph, rounding=rounding)
    return differences(graph, images, _litert(Path(path), graph, numbers), "LiteRT")


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
