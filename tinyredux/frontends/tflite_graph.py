"""A .tflite file becomes an int8 Graph: one function per operator, as `operators` has for torch.

Weights, scales and zero points are those of the file; nothing is trained, calibrated or converted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinyredux.files import expect, require
from tinyredux.frontends.tflite_call import Call, Loader, RefusedError, activation_quant, map_shape
from tinyredux.graph import (
    ACTIVATIONS,
    Add,
    Array,
    Concat,
    Conv,
    Dense,
    DepthwiseConv,
    Graph,
    Lookup,
    Mul,
    Pool,
    Quant,
    Relu,
    Softmax,
    Tensor,
    check_most,
    verify,
)

if TYPE_CHECKING:
    from tinyredux.frontends.tflite_file import FileOperator, FileTensor

FUNCTIONS = {"LOGISTIC": "sigmoid", "TANH": "tanh", "HARD_SWISH": "hardswish", "QUANTIZE": "identity"}  # of one value
OUTPUTS = {"LOGISTIC": Quant((1 / 256,), -128), "TANH": Quant((1 / 128,), 0), "SOFTMAX": Quant((1 / 256,), -128)}  # prescribed


def _dilated(weights: Array, steps: tuple[int, int]) -> Array:
    """Returns filters (O, H, W, I) with their holes written out as zeros: no kernel here skips them."""
    count, height, width, channels = weights.shape
    wide = np.zeros((count, (height - 1) * steps[0] + 1, (width - 1) * steps[1] + 1, channels), weights.dtype)
    wide[:, :: steps[0], :: steps[1]] = weights
    return wide


def _conv(call: Call) -> None:
    weights, scale = call.weights(0)
    weights, channels = _dilated(weights, _dilation(call)), call.source().shape[2]
    groups = channels // weights.shape[3]
    call.emit_weighted("conv", Conv, weights, scale, groups=groups, **call.window(weights.shape[1:3]))


def _dilation(call: Call) -> tuple[int, int]:
    return call.op.options["DilationHFactor"], call.op.options["DilationWFactor"]


def _depthwise(call: Call) -> None:
    weights, scale = call.weights(3)
    weights, channels = _dilated(weights, _dilation(call))[0], call.source().shape[2]
    window = call.window(weights.shape[:2])
    call.emit_weighted("depthwise", DepthwiseConv, weights, scale, multiplier=weights.shape[2] // channels, **window)


def _dense(call: Call) -> None:
    source, (weights, scale) = call.source(flat=True), call.weights(0)
    if call.op.options["WeightsFormat"] != 0:
        raise RefusedError("its weights are shuffled, expected rows of one output each")
    call.emit_weighted("dense", Dense, weights, scale, reads=(source.name,))


def _pool(call: Call) -> None:
    kind = {"AVERAGE_POOL_2D": "average", "MAX_POOL_2D": "max"}[call.op.code]
    _same_quant(call)
    window = call.window((call.op.options["FilterHeight"], call.op.options["FilterWidth"]))
    call.emit("pool", Pool, kind=kind, activation=call.fused(), **window)


def _same_quant(call: Call) -> None:
    """Raises for an operator that moves values and would rescale them."""
    there, result = [activation_quant(call.file_tensor(i)) for i in range(len(call.op.inputs))], activation_quant(call.result)
    if any(quant != result for quant in there):
        raise RefusedError(f"its scales and zero points differ, {there} and {result}; expected one for all")


def _add(call: Call) -> None:
    call.emit("add", Add, tuple(call.source(i).name for i in range(2)), activation=call.fused())


def _sub(call: Call) -> None:
    call.emit("sub", Add, tuple(call.source(i).name for i in range(2)), activation=call.fused(), subtract=True)


def _mul(call: Call) -> None:
    """Multiplies, in whatever order the file has the map and the factors of its channels."""
    first, second = (call.source(i) for i in range(2))
    if first.shape[:2] == (1, 1) and second.shape != first.shape:
        first, second = second, first
    call.emit("mul", Mul, (first.name, second.name), activation=call.fused())


def _concat(call: Call) -> None:
    _same_quant(call)
    axis = call.op.options["Axis"]
    if axis not in (-1, len(call.result.shape) - 1) or call.fused() != "none":
        raise RefusedError(f"it joins along axis {axis}, expected the last one, the channels, without activation")
    call.emit("concat", Concat, tuple(call.source(i).name for i in range(len(call.op.inputs))))


def _relu(call: Call) -> None:
    """A clamp in the input's scale, or else a table that rescales as well."""
    name = "relu_n1_to_1" if call.op.code == "RELU_N1_TO_1" else call.op.code.lower()
    if activation_quant(call.file_tensor(0)) == activation_quant(call.result):
        call.emit("relu", Relu, activation=name)
    else:
        call.emit("clamp", Lookup, function="clamp", parameters=ACTIVATIONS[name])


def _function(call: Call) -> None:
    _prescribed(call)
    call.emit(FUNCTIONS[call.op.code], Lookup, function=FUNCTIONS[call.op.code])


def _leaky_relu(call: Call) -> None:
    call.emit("leaky_relu", Lookup, function="leaky_relu", parameters=(float(call.op.options["Alpha"]),))


def _prescribed(call: Call) -> None:
    """Raises for an output of another scale than the format prescribes."""
    quant, wanted = activation_quant(call.result), OUTPUTS.get(call.op.code)
    if wanted not in (None, quant):
        raise RefusedError(f"it writes {quant}, expected {wanted}")


def _softmax(call: Call) -> None:
    _prescribed(call)
    if call.op.options["Beta"] != 1:
        raise RefusedError(f"its beta is {call.op.options['Beta']}, expected 1")
    call.emit("softmax", Softmax)


def _pad(call: Call) -> None:
    """Zeros around a map wait for the convolutions that read it; the least value, for the max pools."""
    before, after = call.constant(1, "paddings").T.tolist()
    rows, columns = (len(before) - 3, len(before) - 2) if len(before) > 2 else (0, 0)
    if len(before) != 4 or any((before[0], after[0], before[3], after[3])) or min((*before, *after)) < 0:
        raise RefusedError("it pads other axes than height and width")
    value = int(call.constant(2, "values").reshape(-1)[0]) if call.has(2) else activation_quant(call.file_tensor(0)).zero_point
    zero = activation_quant(call.file_tensor(0)).zero_point
    wanted = {zero: ("CONV_2D", "DEPTHWISE_CONV_2D")}.get(value, ()) + (("MAX_POOL_2D",) if value == -128 else ())
    readers = [one.code for one in call.loader.file.operators if call.op.outputs[0] in one.inputs]
    if not readers or call.op.outputs[0] in call.loader.file.outputs or not {*readers} <= {*wanted}:
        instead = " or ".join(wanted) or f"a padding of {zero}"
        raise RefusedError(f"a padding of {value} goes into {', '.join(readers) or 'the output'}, expected {instead}")
    call.source()
    call.alias()
    top, bottom, left, right = call.loader.padded.get(call.op.inputs[0], (0, 0, 0, 0))
    sides = (before[rows] + top, after[rows] + bottom, before[columns] + left, after[columns] + right)
    call.loader.padded[call.op.outputs[0]] = sides


def _reshape(call: Call) -> None:
    if call.source(flat=True).elements != int(np.prod(map_shape(call.result))):
        raise RefusedError(f"it gives {call.result.shape} the values of {call.file_tensor(0).shape}")
    call.alias()


def _quantize(call: Call) -> None:
    """The step to float, or from int8 to the same in uint8, at the end is another name; from int8 to int8 it rescales."""
    if call.op.code == "QUANTIZE" and call.result.dtype == "int8":
        _function(call)
        return
    at_end = call.op.outputs[0] in call.loader.file.outputs
    if not at_end or not (call.op.code == "DEQUANTIZE" or _is_relabelled(call.result, call.file_tensor(0))):
        raise RefusedError("it is not the last step to float, or from int8 to the same in uint8")
    call.source(flat=True)
    call.alias()


HANDLERS: dict[str, Callable[[Call], None]] = {
    "CONV_2D": _conv, "DEPTHWISE_CONV_2D": _depthwise, "FULLY_CONNECTED": _dense, "AVERAGE_POOL_2D": _pool,
    "MAX_POOL_2D": _pool, "ADD": _add, "SUB": _sub, "MUL": _mul, "CONCATENATION": _concat,
    "RELU": _relu, "RELU6": _relu, "SOFTMAX": _softmax,
    "PAD": _pad, "PADV2": _pad, "RESHAPE": _reshape, "SQUEEZE": _reshape, "EXPAND_DIMS": _reshape, "DEQUANTIZE": _quantize,
    "QUANTIZE": _quantize, "LOGISTIC": _function, "TANH": _function, "HARD_SWISH": _function, "LEAKY_RELU": _leaky_relu,
    "RELU_N1_TO_1": _relu,
}  # fmt: skip


def load_tflite(path: Path | str, rounding: str = "double") -> Graph:
    """Returns the int8 Graph of a .tflite file, whose weights, scales and zero points it has.

    `rounding` is "double", every byte as TFLM computes it, or "single", every byte as LiteRT's default interpreter does.
    A network that takes float or uint8 and quantises first is read from behind that operator on: `Graph.input.quant` holds the
    scale and zero point by which `interpret.quantize_input` makes its int8. So is one that ends by going back to float.
    Several outputs keep their order; the first is the answer that labels belong to.
    Raises ImportError without the package `tflite`, ValueError for a file that is none or is damaged, for
    several inputs, and for operators that no kernel computes: all of them, each with its place, name and options.
    Chapter 13.
    """
    expect(Path | str, path, "the network", "such as 'model.tflite'")
    return replace(load_with_tensors(Path(path))[0], rounding=rounding)


def load_with_tensors(path: Path) -> tuple[Graph, dict[str, int]]:
    """Returns the graph of `load_tflite`, and which of the file's tensors each of its tensors is."""
    from tinyredux.frontends.tflite_file import read_file

    file = read_file(path)
    several = f"{len(file.inputs)} inputs ({', '.join(f'{file.tensors[i].name} {file.tensors[i].shape}' for i in file.inputs)})"
    require(len(file.inputs) == 1, f"{path} has {several}, expected one; take the network apart before converting it")
    require(file.outputs, f"{path} has no output, expected at least one; convert it again")
    name = re.sub(r"[^\w.+-]+", "_", path.stem, flags=re.ASCII) or "net"
    loader = Loader(file, Graph(name, (), {}, {}, ("input",), ()))
    try:
        first = _take_input(loader)
    except RefusedError as wrong:
        raise ValueError(f"{path}: {wrong}") from None
    for op in file.operators:
        if op is not first:
            _take(loader, op)
    if loader.refused:
        count = f"{len(loader.refused)} of {len(file.operators)} operators"
        raise ValueError(f"{path}: {count} are not supported:\n  " + "\n  ".join(loader.refused))
    graph = replace(loader.graph, outputs=_outputs(loader, path))
    for tensor in graph.tensors.values():
        check_most(name, max(tensor.shape), "rows, columns or channels", tensor.name)
        check_most(name, tensor.elements, "values", tensor.name)
    require(graph.ops, f"{path} has no operator that computes anything")
    verify(graph)
    numbers: dict[str, int] = {}
    for number, tensor_name in loader.value.items():
        if file.tensors[number].dtype == "int8":
            numbers.setdefault(tensor_name, number)
    return graph, numbers


def _outputs(loader: Loader, path: Path) -> tuple[str, ...]:
    """Returns the graph's outputs. Raises for those of a file that are no tensors of their own."""
    found: dict[str, str] = {}
    for number in loader.file.outputs:
        output, name = loader.value[number], loader.file.tensors[number].name
        require(output not in found, f"{path} gives the same values twice, as {found.get(output)} and {name}; give them once")
        require(output != "input" or not loader.graph.ops, f"{path} gives its input, as {name}; leave this output out")
        found[output] = name
    return tuple(found)


def _take_input(loader: Loader) -> FileOperator | None:
    """Makes the graph's input, and returns the operator that makes it of float or of uint8, if any."""
    file, number = loader.file, loader.file.inputs[0]
    there, readers = file.tensors[number], [op for op in file.operators if number in op.inputs]
    first = readers[0] if there.dtype != "int8" and len(readers) == 1 and readers[0].code == "QUANTIZE" else None
    tensor = file.tensors[first.outputs[0]] if first else there
    if tensor.dtype != "int8" or (first and there.dtype != "float32" and not _is_relabelled(there, tensor)):
        found = f"its input {there.name} is {there.dtype}{' of another scale' if tensor.dtype == 'int8' else ''}"
        raise RefusedError(f"{found}; convert with full integer quantisation, inputs int8")
    loader.graph.tensors["input"] = Tensor("input", map_shape(tensor), "int8", activation_quant(tensor))
    loader.value = {number: "input"} | ({first.outputs[0]: "input"} if first else {})
    return first


def _is_relabelled(unsigned: FileTensor, tensor: FileTensor) -> bool:
    """Returns whether a uint8 tensor holds the values of an int8 one, each 128 higher."""
    zero_points = [one.zero_point[0] if one.zero_point else 0 for one in (unsigned, tensor)]
    return unsigned.dtype == "uint8" and unsigned.scale == tensor.scale and zero_points[0] == zero_points[1] + 128


def _take(loader: Loader, op: FileOperator) -> None:
    """Translates one operator, or notes why it cannot be; what it writes then stands for itself."""
    try:
        if op.code not in HANDLERS:
            raise RefusedError("no kernel computes it")
        HANDLERS[op.code](Call(loader, op))
    except (ValueError, KeyError, IndexError, TypeError) as wrong:
        said = f"its options or inputs lack {wrong}" if isinstance(wrong, KeyError | IndexError | TypeError) else str(wrong)
        loader.refused.append(f"{op}: {said}")
        for number in op.outputs:
            name = f"what operator {op.number} writes"
            try:
                shape = map_shape(loader.file.tensors[number])
            except RefusedError:
                shape = (1, 1, 1)
            loader.graph.tensors[name], loader.value[number] = Tensor(name, shape, "int8", Quant((1.0,), 0)), name
