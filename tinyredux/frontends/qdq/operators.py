"""One function per operator of ONNX: what it becomes in a Graph, or why it cannot. The one table of QDQ patterns.

Operators with integers in their names (QLinearConv) are read as the float operator between DequantizeLinear and QuantizeLinear.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tinyredux.frontends.qdq import moves, sums
from tinyredux.frontends.qdq.moves import as_map, moved
from tinyredux.frontends.qdq.values import (
    FREE,
    Call,
    Constant,
    Limits,
    Loader,
    Pending,
    RefusedError,
    Stored,
    clamped,
    rescaled,
    store,
)
from tinyredux.frontends.qdq.views import plain, sizes
from tinyredux.graph import Add, Concat, Mul, Pool, Quant, Softmax
from tinyredux.int8 import SOFTMAX_OUTPUT

# What QLinear operators read, in their order: q a map or constant with scale and zero point, y the output's, b a bias, * the rest
FORMS = {
    "QLinearConv": ("Conv", "qqyb"), "QLinearMatMul": ("MatMul", "qqy"), "QGemm": ("Gemm", "qqby"), "QLinearAdd": ("Add", "qqy"),
    "QLinearMul": ("Mul", "qqy"), "QLinearConcat": ("Concat", "y*"), "QLinearGlobalAveragePool": ("GlobalAveragePool", "qy"),
    "QLinearAveragePool": ("AveragePool", "qy"), "QLinearLeakyRelu": ("LeakyRelu", "qy"), "QLinearSigmoid": ("Sigmoid", "qy"),
    "QLinearSoftmax": ("Softmax", "qy"), "QLinearReduceMean": ("ReduceMean", "qy"),
}  # fmt: skip
FUNCTIONS = {  # of one value: ours, and ONNX's names and defaults of its parameters
    "Sigmoid": ("sigmoid", {}), "HardSwish": ("hardswish", {}), "Tanh": ("tanh", {}), "Mish": ("mish", {}), "Abs": ("abs", {}),
    "Exp": ("exp", {}), "LeakyRelu": ("leaky_relu", {"alpha": 0.01}), "Swish": ("silu", {}),
    "Elu": ("elu", {"alpha": 1.0, "scale": 1.0, "input_scale": 1.0}),
}  # fmt: skip
DYNAMIC = ("ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulIntegerToFloat")


def quant_from(scale: Constant, zero_point: Constant | None, unsigned: bool) -> tuple[Quant, bool]:
    """Returns an int8 scale and zero point, and whether the network stores uint8; `unsigned` where it has no zero point."""
    held = scale.stored.reshape(-1).astype(np.float32)
    if held.size != 1 or not 1e-30 < held[0] < 1e30:
        raise RefusedError(f"a map has {held.size} scales, expected one positive one")
    if zero_point is None:
        return Quant((float(held[0]),), -128 if unsigned else 0), unsigned
    dtype = zero_point.stored.dtype
    if dtype not in (np.int8, np.uint8):
        raise RefusedError(f"a map is stored in {dtype}, expected int8 or uint8 (activation_type QInt8 or QUInt8)")
    unsigned = dtype == np.uint8
    return Quant((float(held[0]),), int(zero_point.stored.reshape(-1)[0]) - 128 * unsigned), unsigned


def _in_scale(loader: Loader, value: object, scale: object, zero_point: object, axis: int, name: str) -> Stored | Constant:
    """Returns what is stored under a name, read by a scale and zero point; the network's input gets its scale so."""
    assert isinstance(scale, Constant) and isinstance(zero_point, Constant | None)
    if isinstance(value, Constant):
        points = None if zero_point is None else zero_point.stored.reshape(-1)
        return Constant(value.stored, scale.stored.reshape(-1), points, axis)
    was_unsigned = isinstance(value, Stored) and value.unsigned
    quant, unsigned = quant_from(scale, zero_point, was_unsigned)
    if isinstance(value, Pending) and value.is_input:
        return store(loader, value, quant, name, unsigned)
    if not isinstance(value, Stored):
        raise RefusedError(f"it reads {name}, which is not stored in integers")
    if loader.quant(value.tensor) != quant:
        there = loader.quant(value.tensor)
        raise RefusedError(f"it reads {name} by another scale or zero point, {quant}, than it was stored by, {there}")
    return value


def as_float_operator(call: Call) -> Call:
    """Returns an operator with integers in its name as the float operator, whose operands and result have their scales."""
    if call.kind not in FORMS:
        return call
    kind, form = FORMS[call.kind]
    given, names = list(call.operands), list(call.node.inputs)
    found, result, unsigned, i = list[Stored | Constant | Pending | None](), None, False, 0
    form = form.replace("*", "q" * ((len(given) - 2) // 3))
    for letter in form:
        if letter == "b":
            found.append(given[i] if i < len(given) else None)
            i += 1
        elif letter == "y":
            if i < len(given) and isinstance(given[i], Constant):
                scale, zero_point = given[i], given[i + 1] if i + 1 < len(given) else None
                assert isinstance(scale, Constant) and isinstance(zero_point, Constant | None)
                result, unsigned = quant_from(scale, zero_point, False)
            i += 2
        else:
            axis = 0 if kind == "Conv" or call.node.attributes.get("transB") else 1
            found.append(_in_scale(call.loader, given[i], given[i + 1], given[i + 2], axis, names[i]))
            i += 3
    return replace(call, kind=kind, operands=tuple(found), result=result, unsigned=unsigned)


def _dequantize(call: Call) -> None:
    axis = int(call.node.attributes.get("axis", 1))
    zero_point = call.operands[2] if call.has(2) else None
    call.write(_in_scale(call.loader, call.operands[0], call.numbers(1, "scales"), zero_point, axis, call.node.inputs[0]))


def _quantize(call: Call) -> None:
    zero_point = call.numbers(2, "zero points") if call.has(2) else None
    value, scale = call.operands[0], call.numbers(1, "scales")
    if isinstance(value, Constant):
        call.write(_stored_constant(value, scale, zero_point, int(call.node.attributes.get("axis", 1))))
        return
    quant, unsigned = quant_from(scale, zero_point, call.node.attributes.get("output_dtype", 0) != 3)  # ONNX's number of int8
    call.write(store(call.loader, call.activation(0, padded=True), quant, call.node.outputs[0], unsigned))


def _stored_constant(value: Constant, scale: Constant, zero_point: Constant | None, axis: int) -> Constant:
    """Returns a float constant as QuantizeLinear stores it."""
    points = zero_point.stored.reshape(-1) if zero_point else np.zeros(1, np.uint8)
    shape = [-1 if i == axis % max(1, value.stored.ndim) and scale.stored.size > 1 else 1 for i in range(value.stored.ndim)]
    units = np.rint(value.real.astype(np.float32) / scale.stored.astype(np.float32).reshape(shape)).astype(np.int64)
    ends = np.iinfo(points.dtype)
    shifted = np.clip(units + points.astype(np.int64).reshape(shape if points.size > 1 else [1] * len(shape)), ends.min, ends.max)
    return Constant(shifted.astype(points.dtype))


def _max_pool(call: Call) -> None:
    value, given = as_map(call, call.activation(padded=True)), call.node.attributes
    if any(value.padding) and not (isinstance(value, Stored) and call.loader.quant(value.tensor).zero_point == -128):
        raise RefusedError("it reads a map with zeros around it; pad by the pool's own pads")
    shape = call.loader.shape(value)
    kernel = [1, *(int(one) for one in given["kernel_shape"])][-2:]
    fields = sums.window(call, (kernel[0], kernel[1]), shape, value.padding, True)
    result = sums.seen_by(fields, shape, shape[2])

    def move(tensor: str) -> str:
        return call.loader.append("pool", Pool, (tensor,), call.loader.quant(tensor), kind="max", **fields)

    call.write(moved(call, value, result, plain(result, len(value.view)), move))


def _clamp(call: Call) -> None:
    """Relu and Clip: limits of what waits to be stored, or of what is stored."""
    low, high = 0.0, np.inf
    if call.kind == "Clip":
        given = call.node.attributes
        ends = [call.numbers(i, "limits").real.reshape(-1) if call.has(i) else np.empty(0) for i in (1, 2)]
        low, high = (
            float(end[0]) if len(end) else float(given.get(key, free))
            for end, key, free in zip(ends, ("min", "max"), FREE, strict=True)
        )
    value = call.activation()
    if isinstance(value, Pending):
        limits = (min(max(value.limits[0], low), high), max(min(value.limits[1], high), low))
        call.write(replace(value, limits=limits, sums=None, function=None, is_input=False))
        return

    def finish(quant: Quant, limits: Limits) -> str:
        return rescaled(call.loader, value.tensor, quant, limits)

    call.write(Pending(call.loader.shape(value), value.view, finish, (low, high), settles=call.loader.quant(value.tensor)))


def _function(call: Call) -> None:
    function, defaults = FUNCTIONS[call.kind]
    parameters = tuple(float(call.node.attributes.get(key, default)) for key, default in defaults.items())
    call.write(sums.of_one_value(call, call.stored(), function, parameters))


def _hard_sigmoid(call: Call) -> None:
    line = [float(call.node.attributes.get(key, default)) for key, default in (("alpha", 0.2), ("beta", 0.5))]
    if not np.allclose(line, (1 / 6, 0.5), rtol=1e-5):
        raise RefusedError("its slope and constant are other than torch's, expected alpha 1/6 and beta 1/2")
    call.write(sums.of_one_value(call, call.stored(), "hardsigmoid"))


def _gelu(call: Call) -> None:
    name = "gelu_tanh" if call.node.attributes.get("approximate", "none") == "tanh" else "gelu"
    call.write(sums.of_one_value(call, call.stored(), name))


def _prelu(call: Call) -> None:
    slopes = np.unique(call.numbers(1, "slopes").real)
    if slopes.size != 1:
        raise RefusedError(f"it has {slopes.size} slopes, expected one for all channels")
    call.write(sums.of_one_value(call, call.stored(), "leaky_relu", (float(slopes[0]),)))


def _softmax(call: Call) -> None:
    value, axis = call.stored(), int(call.node.attributes.get("axis", -1))
    shape, rank = call.loader.shape(value), len(value.view)
    along = value.view[axis % rank]
    if along not in ((("c", 1, shape[2]),), ()) or math.prod(sizes((along,))) != shape[2] or not shape[2]:
        raise RefusedError(f"a softmax along axis {axis} of {sizes(value.view)}, expected the channels")

    def finish(quant: Quant, limits: Limits) -> str:
        name = call.loader.append("softmax", Softmax, (value.tensor,), SOFTMAX_OUTPUT)
        return rescaled(call.loader, name, quant, limits)

    call.write(Pending(shape, value.view, finish, function=(value.tensor, "softmax", ())))


def _sum(call: Call) -> None:
    """Add and Sub, of two maps or of a map and constants."""
    sign = -1.0 if call.kind == "Sub" else 1.0
    one, other = call.operands
    if isinstance(other, Constant) and not isinstance(one, Constant):
        sums.affine(call, call.activation(), np.ones(()), sign * other.real)
        return
    if isinstance(one, Constant):
        sums.affine(call, call.activation(1), np.full((), sign), one.real)
        return
    left, right = call.stored(), call.stored(1)
    shapes = [call.loader.shape(value) for value in (left, right)]
    if shapes[0] != shapes[1] or left.view != right.view:
        raise RefusedError(f"it adds maps of {sizes(left.view)} and {sizes(right.view)}, expected one shape")

    def finish(quant: Quant, limits: Limits) -> str:
        activation, reads = clamped(call.loader, limits, quant), (left.tensor, right.tensor)
        return call.loader.append("add" if sign > 0 else "sub", Add, reads, quant, activation=activation, subtract=sign < 0)

    call.write(Pending(shapes[0], left.view, finish))


def _product(call: Call) -> None:
    """Mul and Div: of two maps, of a map and a value a channel, or of a map and constants; x * sigmoid(x) is one function."""
    held = [value for value in call.operands if isinstance(value, Constant)]
    if held:
        exact, i = held[0], int(isinstance(call.operands[0], Constant))
        if call.kind == "Div" and (i or not exact.real.all()):
            raise RefusedError("a division by a map or by 0, expected by constants")
        factor = 1 / exact.real if call.kind == "Div" else exact.real
        sums.affine(call, call.activation(i), factor, np.zeros(()), None if call.kind == "Div" else exact)
        return
    if call.kind == "Div":
        raise RefusedError("a division by a map, expected by constants")
    gates = {"sigmoid": "silu", "hardsigmoid": "hardswish"}
    for value, gate in (call.operands, call.operands[::-1]):
        if isinstance(value, Stored) and isinstance(gate, Pending) and gate.function and gate.function[0] == value.tensor:
            function, parameters = gate.function[1:]
            if function in gates and gate.view == value.view:
                call.write(sums.of_one_value(call, value, gates[function], parameters))
                return
    first, second = call.stored(), call.stored(1)
    if call.loader.shape(first)[:2] == (1, 1) != call.loader.shape(second)[:2]:
        first, second = second, first
    shape, other = call.loader.shape(first), call.loader.shape(second)
    rank = len(first.view)
    fits = other == shape and first.view == second.view
    if not fits and not (other == (1, 1, shape[2]) and first.view == plain(shape, rank) and second.view == plain(other, rank)):
        instead = "a factor for each value, or for each channel"
        raise RefusedError(f"it multiplies {sizes(first.view)} by {sizes(second.view)}, expected {instead}")

    def finish(quant: Quant, limits: Limits) -> str:
        activation = clamped(call.loader, limits, quant)
        return call.loader.append("mul", Mul, (first.tensor, second.tensor), quant, activation=activation)

    call.write(Pending(shape, first.view, finish))


def _concat(call: Call) -> None:
    """Concat along channels, rows or columns; each part is brought to the scale of all."""
    parts = [as_map(call, call.activation(i)) for i in range(len(call.operands))]
    rank = len(parts[0].view)
    axis = int(call.node.attributes["axis"]) % rank
    along = 2 if axis == min(1, rank - 1) else axis - rank + 2 if axis else -1  # of rows, columns, channels
    shapes = [call.loader.shape(part) for part in parts]
    others = {tuple(size for i, size in enumerate(shape) if i != along) for shape in shapes}
    if along < 0 or len(others) > 1 or any(len(part.view) != rank for part in parts):
        raise RefusedError(f"it joins {[sizes(part.view) for part in parts]} along axis {axis}, expected axes of a map")
    total = [*shapes[0]]
    total[along] = sum(shape[along] for shape in shapes)
    result = (total[0], total[1], total[2])

    def finish(quant: Quant, limits: Limits) -> str:
        reads = []
        for part in parts:
            value = part.finish(quant, part.limits) if isinstance(part, Pending) else part.tensor
            reads.append(rescaled(call.loader, value, quant, limits))
        if along == 2:
            return call.loader.append("concat", Concat, tuple(reads), quant)
        return moves.joined(call, reads, along, quant)

    call.write(Pending(result, plain(result, rank), finish))


def _batch_norm(call: Call) -> None:
    factor, shift, mean, variance = (call.numbers(i, "statistics").real for i in range(1, 5))
    factor = factor / np.sqrt(variance + float(call.node.attributes.get("epsilon", 1e-5)))
    rank = len(call.sizes())
    along = [-1 if i == 1 else 1 for i in range(rank)]
    sums.affine(call, call.activation(), factor.reshape(along), (shift - mean * factor).reshape(along))


HANDLERS: dict[str, Callable[[Call], None]] = {
    "QuantizeLinear": _quantize, "DequantizeLinear": _dequantize, "Conv": sums.conv, "Gemm": sums.dense, "MatMul": sums.dense,
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "ReduceMean"), sums.average), "MaxPool": _max_pool,
    **dict.fromkeys(("Relu", "Clip"), _clamp), **dict.fromkeys(FUNCTIONS, _function),
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu, "PRelu": _prelu, "Softmax": _softmax, **dict.fromkeys(("Add", "Sub"), _sum),
    **dict.fromkeys(("Mul", "Div"), _product), "Concat": _concat, "BatchNormalization": _batch_norm,
    "Neg": lambda call: sums.affine(call, call.activation(), np.full((), -1.0), np.zeros(())),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), moves.reshape), "Transpose": moves.transpose,
    **dict.fromkeys(("Identity", "Dropout", "Cast"), moves.alias), "Pad": moves.pad, "Slice": moves.slices, "Split": moves.split,
    **dict.fromkeys(("Resize", "Upsample"), moves.resize), "DepthToSpace": moves.depth_to_space,
    "SpaceToDepth": moves.space_to_depth, "Shape": moves.shape_of_map, "ConvTranspose": sums.conv_transpose,
}  # fmt: skip
