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
from tinyredux.frontends.tflite.call import Call, Loader, RefusedError, activation_quant, map_shape
from tinyredux.frontends.tflite.moves import MOVES, factors, folded, joined, map_axis, same_quant
from tinyredux.graph import (
    ACTIVATIONS,
    Add,
    AddConstant,
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
    without_dead_channels,
)
from tinyredux.int8 import fold_constant_channels

if TYPE_CHECKING:
    from tinyredux.frontends.tflite.file import FileOperator, FileTensor

FUNCTIONS = {"LOGISTIC": "sigmoid", "TANH": "tanh", "HARD_SWISH": "hardswish", "QUANTIZE": "identity"}  # of one value
OUTPUTS = {"LOGISTIC": Quant((1 / 256,), -128), "TANH": Quant((1 / 128,), 0), "SOFTMAX": Quant((1 / 256,), -128)}  # prescribed
STATEFUL = ("CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE")
STATE = "it keeps values from one call to the next; export the network that reads its whole window at once"


def _conv(call: Call) -> None:
    weights, scale = call.weights(0)
    channels = call.source().shape[2]
    groups, window = channels // weights.shape[3], call.window(weights.shape[1:3])
    weights = weights.transpose(0, 2, 1, 3) if call.turned() else weights
    call.emit_weighted("conv", Conv, weights, scale, groups=groups, **window)


def _depthwise(call: Call) -> None:
    weights, scale = call.weights(3)
    weights, channels = weights[0], call.source().shape[2]
    window = call.window(weights.shape[:2])
    weights = weights.transpose(1, 0, 2) if call.turned() else weights
    if channels == 1:  # every output channel reads the only one: a convolution, which has more kernels
        call.emit_weighted("conv", Conv, weights.transpose(2, 0, 1)[..., None], scale, **window)
        return
    call.emit_weighted("depthwise", DepthwiseConv, weights, scale, multiplier=weights.shape[2] // channels, **window)


def _dense(call: Call) -> None:
    source, (weights, scale) = call.source(flat=True), call.weights(0)
    if call.op.options["WeightsFormat"] != 0:
        raise RefusedError("its weights are shuffled, expected rows of one output each")
    if call.op.options["KeepNumDims"] and source.shape[2] == weights.shape[1] < source.elements:  # at each place by itself
        call.source()
        call.emit_weighted("conv", Conv, weights[:, None, None], scale)
        return
    call.emit_weighted("dense", Dense, weights, scale, reads=(source.name,))


def _pool(call: Call) -> None:
    kind = {"AVERAGE_POOL_2D": "average", "MAX_POOL_2D": "max"}[call.op.code]
    same_quant(call)
    window = call.window((call.op.options["FilterHeight"], call.op.options["FilterWidth"]))
    call.emit("pool", Pool, kind=kind, activation=call.fused(), **window)


def _beside_constant(call: Call, function: str) -> bool:
    """Emits an operator of which one side is constant, and returns whether it is such a one: of one value a table."""
    at = next((i for i in range(2) if call.file_tensor(i).values is not None), None)
    if at is None:
        return False
    values, quant = call.constant(at, "values"), activation_quant(call.file_tensor(at))
    source, shape = call.source(1 - at), call.file_tensor(1 - at).shape
    if call.result.shape != shape or (function == "less" and at == 0):
        what = f"its constant of shape {values.shape} is input {at} beside {shape}"
        raise RefusedError(f"{what}, expected one that makes the map no larger, and of SUB the second")
    if np.unique(values).size == 1:
        parameters = (quant.scale[0], float(quant.zero_point), float(values.flat[0]), *ACTIVATIONS[call.fused()])
        call.emit(function, Lookup, (source.name,), function=function, parameters=parameters)
    elif function == "times":
        call.emit("mul", Mul, (source.name, factors(call, source, values, quant)), activation=call.fused())
    else:
        constants = {"values": np.broadcast_to(values, shape).reshape(source.shape)}
        fields = {"values_quant": quant, "activation": call.fused(), "subtract": function == "less"}
        call.emit("add", AddConstant, (source.name,), constants, **fields)
    return True


def _add(call: Call) -> None:
    if _beside_constant(call, "plus"):
        return
    call.emit("add", Add, tuple(call.source(i).name for i in range(2)), activation=call.fused())


def _sub(call: Call) -> None:
    if _beside_constant(call, "less"):
        return
    call.emit("sub", Add, tuple(call.source(i).name for i in range(2)), activation=call.fused(), subtract=True)


def _mul(call: Call) -> None:
    """Multiplies, in whatever order the file has the map and the factors of its channels."""
    if _beside_constant(call, "times"):
        return
    first, second = (call.source(i) for i in range(2))
    if first.shape[:2] == (1, 1) and second.shape != first.shape:
        first, second = second, first
    call.emit("mul", Mul, (first.name, second.name), activation=call.fused())


def _concat(call: Call) -> None:
    same_quant(call)
    sources, axis = [call.source(i) for i in range(len(call.op.inputs))], map_axis(call, call.op.options["Axis"])
    if axis == -1 or call.fused() != "none" or (axis < 2 and any(map(call.turned, range(len(sources))))):
        raise RefusedError(f"it joins along axis {call.op.options['Axis']}, expected channels, height or width, no activation")
    if axis == 2:
        call.emit("concat", Concat, tuple(source.name for source in sources))
    else:
        joined(call, sources, axis)


def _relu(call: Call) -> None:
    """A clamp in the input's scale, or else a table that rescales as well."""
    name, limits = call.op.code.lower(), {**ACTIVATIONS, "relu_0_to_1": (0.0, 1.0)}
    if name in ACTIVATIONS and activation_quant(call.file_tensor(0)) == activation_quant(call.result):
        call.emit("relu", Relu, activation=name)
    else:
        call.emit("clamp", Lookup, function="clamp", parameters=limits[name])


def _function(call: Call) -> None:
    _prescribed(call)
    call.emit(FUNCTIONS[call.op.code], Lookup, function=FUNCTIONS[call.op.code])


def _leaky_relu(call: Call) -> None:
    call.emit("leaky_relu", Lookup, function="leaky_relu", parameters=(float(call.op.options["Alpha"]),))


def _elu(call: Call) -> None:
    call.emit("elu", Lookup, function="elu", parameters=(1.0, 1.0, 1.0))


def _limit(call: Call) -> None:
    """The larger or the smaller of each value and a constant."""
    same_quant(call)
    at = int(call.file_tensor(1).values is not None)
    values, quant = np.unique(call.constant(at, "limits")), activation_quant(call.result)
    if len(values) > 1:
        raise RefusedError(f"it has {len(values)} limits, expected one")
    limit = (int(values[0]) - quant.zero_point) * quant.scale[0]
    limits = (limit, np.inf) if call.op.code == "MAXIMUM" else (-np.inf, limit)
    call.emit("clamp", Lookup, reads=(call.source(1 - at).name,), function="clamp", parameters=limits)


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
    "RESHAPE": _reshape, "SQUEEZE": _reshape, "EXPAND_DIMS": _reshape, "DEQUANTIZE": _quantize,
    "QUANTIZE": _quantize, "LOGISTIC": _function, "TANH": _function, "HARD_SWISH": _function, "LEAKY_RELU": _leaky_relu,
    "RELU_N1_TO_1": _relu, "RELU_0_TO_1": _relu, "ELU": _elu, "MAXIMUM": _limit, "MINIMUM": _limit, **MOVES,
}  # fmt: skip


def load_tflite(path: Path | str, rounding: str = "double") -> Graph:
    """Returns the int8 Graph of a .tflite file, whose weights, scales and zero points it has.

    `rounding` is "double", every byte as TFLM computes it, or "single", every byte as LiteRT's default interpreter does.
    A network that takes float or uint8 and quantises first is read from behind that operator on: `Graph.input.quant` holds the
    scale and zero point by which `interpret.quantize_input` makes its int8. So is one that ends by going back to float.
    Several outputs keep their order; the first is the answer that labels belong to.
    Raises ImportError without the package `tflite`, ValueError for a file that is none or is damaged, for
    several inputs, and for operators that no kernel computes: all of them, each with its place, name and options.
    Channels that hold one value whatever the input, and those that nobody reads then, are not computed.
    Chapter 13.
    """
    expect(Path | str, path, "the network", "such as 'model.tflite'")
    return without_dead_channels(fold_constant_channels(replace(load_with_tensors(Path(path))[0], rounding=rounding)))


def load_with_tensors(path: Path) -> tuple[Graph, dict[str, int]]:
    """Returns the graph of `load_tflite`, and which of the file's tensors each of its tensors is."""
    from tinyredux.frontends.tflite.file import read_file

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
        if folded(loader, op):
            return
        if op.code not in HANDLERS:
            raise RefusedError(STATE if op.code in STATEFUL else "no kernel computes it")
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
