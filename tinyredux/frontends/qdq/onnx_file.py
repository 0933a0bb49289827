"""An ONNX file as plain data: nodes and constants. Source: operators of onnx.ai, opset 7 to 21, and of com.microsoft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from tinyredux.files import check_is_file, first_line, require
from tinyredux.frontends.qdq.network import Network, Node
from tinyredux.graph import Array

MOST_BYTES = 1 << 28  # of a file: weights of a float network, which is refused in words
DOMAINS = ("", "ai.onnx", "com.microsoft")


def read_model(path: Path) -> Any:
    """Returns the protobuf of an ONNX file. Raises ValueError for anything else, and for one that is cut off or damaged."""
    require(path.is_file(), f"no file {path}; expected a network in ONNX's format, model.onnx")
    check_is_file(path, "network", most=MOST_BYTES)
    try:
        model = onnx.load(str(path))
        require(model.graph.node, "it has no nodes")
        return model
    except MemoryError:
        raise
    except Exception as wrong:  # protobuf's own exceptions, and files beside it that are missing
        said = f"{type(wrong).__name__}: {first_line(wrong)}"
        raise ValueError(f"{path} is no ONNX file, or is cut off or damaged ({said}); export it again") from wrong


def network_of(model: Any, where: str) -> Network:
    """Returns a model as plain data. Raises ValueError for several inputs or outputs, and for sizes that are left open."""
    graph = model.graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    inputs = [one for one in graph.input if one.name not in constants]
    for what, ends in (("inputs", inputs), ("outputs", graph.output)):
        require(len(ends) == 1, f"{where} has {len(ends)} {what}, expected one; take the network apart before exporting it")
    kind, versions = inputs[0].type.tensor_type, {one.domain: one.version for one in model.opset_import}
    sizes = tuple(int(one.dim_value) for one in kind.shape.dim)
    sizes = (sizes[0] if sizes[0] > 0 else 1, *sizes[1:]) if sizes else ()
    require(
        sizes and min(sizes) > 0,
        f"{where}: its input {inputs[0].name} has sizes {sizes}, of which 0 is left open; export it with fixed sizes",
    )
    nodes, written = [], {}
    for i, one in enumerate(graph.node):
        if one.op_type == "Constant":
            constants[one.output[0]] = _constant(one)
            continue
        attributes = {each.name: _attribute(each) for each in one.attribute}
        place = f"node {i}" + (f" {one.name}" if one.name else "")
        kind_of = one.op_type if one.domain in DOMAINS else f"{one.domain}.{one.op_type}"
        written[one.output[0]] = one
        nodes.append(Node(place, kind_of, tuple(one.input), tuple(one.output), attributes))

    def fold(node: Node, values: list[Array | None]) -> list[Array]:
        single = onnx.helper.make_graph(
            [written[node.outputs[0]]], "fold", [], [onnx.helper.make_empty_tensor_value_info(name) for name in node.outputs]
        )
        imports = [onnx.helper.make_opsetid("", versions.get("", 1))]
        given = {name: value for name, value in zip(node.inputs, values, strict=True) if value is not None}
        single.input.extend(onnx.helper.make_empty_tensor_value_info(name) for name in given)
        found = ReferenceEvaluator(onnx.helper.make_model(single, opset_imports=imports)).run(None, given)
        return [np.asarray(one) for one in found]

    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    return Network(tuple(nodes), constants, inputs[0].name, sizes, dtype, graph.output[0].name, fold)


def _attribute(attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return (
        value.decode(errors="replace") if isinstance(value, bytes) else list(value) if isinstance(value, tuple | list) else value
    )


def _constant(node: Any) -> Array:
    """Returns the value of a Constant node."""
    (attribute,) = node.attribute
    return np.asarray(_attribute(attribute))
