"""Layer by layer beside ONNX Runtime: it computes the file with every map that is stored as an output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyredux.files import expect
from tinyredux.frontends.layers import LayerDifference, Maps, differences
from tinyredux.frontends.onnx_graph import load_with_names
from tinyredux.frontends.qdq.values import Loader
from tinyredux.frontends.qdq.views import places, sizes
from tinyredux.graph import Array, Graph, Quant
from tinyredux.int8 import quant_of


def compare_with_onnxruntime(path: Path | str, images: Array, rounding: str = "single") -> list[LayerDifference]:
    """Returns for each layer of an ONNX file how its int8 output differs from that of ONNX Runtime on this computer.

    `images` (N, H, W, C) are int8, as the network stores them; `rounding` is that of `load_onnx`. The last one is the network's
    output; a layer that ONNX Runtime does not store by itself is counted with the one behind it.
    Raises ImportError without the package onnxruntime, ValueError for images of another shape. Chapter 13.
    """
    expect(Path | str, path, "the network", "such as 'model.onnx'")
    graph, loader = load_with_names(Path(path))
    graph = replace(graph, rounding=rounding)
    return differences(graph, images, _onnxruntime(Path(path), graph, loader), "ONNX Runtime")


def _onnxruntime(path: Path, graph: Graph, loader: Loader) -> Callable[[Array], Maps]:
    """Returns what computes every map that the file stores, each (N, H, W, C), for int8 images by ONNX Runtime."""
    import onnx
    import onnxruntime  # type: ignore[import-untyped, import-not-found, unused-ignore]

    model = onnx.load(str(path))
    written = {name for node in model.graph.node for name in node.output}
    ends = {one.name for one in model.graph.output}
    wanted = {tensor: held for tensor, held in loader.theirs.items() if tensor in graph.tensors and held.name in written}
    for name in sorted({held.name for held in wanted.values()} - ends):
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]

    def run(images: Array) -> Maps:
        found: dict[str, list[Array]] = {tensor: [] for tensor in (*wanted, *graph.outputs)}
        for image in _as_taken(graph, loader, images):
            given = dict(zip(names, session.run(None, {loader.network.input: image}), strict=True))
            for tensor, held in wanted.items():
                values = given[held.name].reshape(-1).astype(np.int16) - 128 * held.unsigned
                found[tensor].append(_in_places(values, held.view, graph, tensor))
            for tensor in {*graph.outputs} - {*wanted}:  # a softmax behind all that is stored
                values = _stored(given[loader.network.output], quant_of(graph.tensors[tensor]))
                found[tensor].append(values.reshape(graph.tensors[tensor].shape))
        return {name: np.stack(values) for name, values in found.items()} | {graph.inputs[0]: images}

    return run


def _in_places(values: Array, view: Any, graph: Graph, tensor: str) -> Array:
    shape = graph.tensors[tensor].shape
    result = np.empty(values.size, np.int8)
    result[places(view, shape)] = values
    return result.reshape(shape)


def _stored(real: Array, quant: Quant) -> Array:
    return np.asarray(np.clip(np.rint(real / np.float32(quant.scale[0])) + quant.zero_point, -128, 127), np.int8)


def _as_taken(graph: Graph, loader: Loader, images: Array) -> list[Array]:
    """Returns int8 images (N, H, W, C) one by one as the network takes them: in its axes, as real numbers or stored ones."""
    quant, network = quant_of(graph.input), loader.network
    values = images.transpose(0, 3, 1, 2)
    if len(loader.input_view) < 4:
        values = values.reshape(len(values), *sizes(loader.input_view)[1:])
    for undo in reversed(loader.to_input):
        values = undo(values)
    if network.dtype == "float32":
        values = ((values.astype(np.float32) - quant.zero_point) * np.float32(quant.scale[0])).astype(np.float32)
    elif network.dtype == "uint8":
        values = (values.astype(np.int16) + 128).astype(np.uint8)
    return [np.ascontiguousarray(value).reshape(network.sizes) for value in values]
