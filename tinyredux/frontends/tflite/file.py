"""A .tflite file as plain data: its tensors and its operators, nothing believed that the file does not hold.

Source: the schema of TensorFlow Lite, version 3, as the package `tflite` reads it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tflite  # type: ignore[import-untyped, import-not-found, unused-ignore]

from tinyredux.files import check_is_file, first_line, require
from tinyredux.graph import Array

T = TypeVar("T")
MAGIC = b"TFL3"
MOST_BYTES = 1 << 26  # of a file: more than any microcontroller holds


@dataclass(frozen=True)
class FileTensor:
    """A tensor as the file has it; `values` of a constant, `scale` and `zero_point` empty where it is not quantised.

    `odd` says what no kernel here takes: "variable", "sparse", or sizes that are known at run time only.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int
    values: Array | None
    odd: str


@dataclass(frozen=True)
class FileOperator:
    """An operator as the file has it: its code's name, tensors by number (-1: left out), options by the schema's names."""

    number: int
    code: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any]

    def __str__(self) -> str:
        """Returns the operator's place, name and options, for errors."""
        options = ", ".join(f"{key} {value}" for key, value in self.options.items())
        return f"operator {self.number}, {self.code}" + (f" ({options})" if options else "")


@dataclass(frozen=True)
class File:
    """What a .tflite file holds: tensors, operators in their order, the numbers of the network's inputs and outputs."""

    tensors: tuple[FileTensor, ...]
    operators: tuple[FileOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_file(path: Path) -> File:
    """Returns the content of a .tflite file. Raises ValueError for anything else, and for one that is cut off or damaged."""
    require(path.is_file(), f"no file {path}; expected a network in TensorFlow Lite's format, model.tflite")
    check_is_file(path, "network", most=MOST_BYTES)
    data = path.read_bytes()
    require(
        data[4:8] == MAGIC, f"{path} is no .tflite file: bytes 4 to 7 are {data[4:8]!r}, expected {MAGIC!r}; convert it again"
    )
    try:
        return _content(data)
    except MemoryError:
        raise
    except Exception as wrong:  # whatever offsets into nowhere lead the reader to
        said = f"{type(wrong).__name__}: {first_line(wrong)}"
        raise ValueError(f"{path} is cut off or damaged ({said}); copy or convert it again") from wrong


def _content(data: bytes) -> File:
    model = tflite.Model.GetRootAs(data, 0)
    graphs = _vector(data, model.SubgraphsLength(), model.Subgraphs)
    require(len(graphs) >= 1, "it has no subgraph")
    graph = graphs[0]  # others are run by operators of control flow, which are refused
    codes = _vector(data, model.OperatorCodesLength(), model.OperatorCodes)
    buffers = _vector(data, model.BuffersLength(), model.Buffers)
    tensors = tuple(_tensor(one, buffers) for one in _vector(data, graph.TensorsLength(), graph.Tensors))
    operators = tuple(_operator(i, one, codes) for i, one in enumerate(_vector(data, graph.OperatorsLength(), graph.Operators)))
    inputs, outputs = _numbers(graph.InputsAsNumpy()), _numbers(graph.OutputsAsNumpy())
    named = {*inputs, *outputs, *(i for one in operators for i in (*one.inputs, *one.outputs) if i != -1)}
    require(all(0 <= i < len(tensors) for i in named), f"it names tensors {sorted(named)[-1]}, there are {len(tensors)}")
    return File(tensors, operators, inputs, outputs)


def _vector(data: bytes, length: int, item: Callable[[int], T]) -> list[T]:
    """Returns the items of a vector, of which none is shorter than a byte."""
    require(length <= len(data), f"a vector of {length:,} items in {len(data):,} bytes")
    return [item(i) for i in range(length)]


def _numbers(found: Any) -> tuple[int, ...]:
    """Returns a vector of integers, which the package gives as an array, or as 0 where there is none."""
    return tuple(int(one) for one in np.atleast_1d(found)) if isinstance(found, np.ndarray) else ()


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _tensor(one: Any, buffers: list[Any]) -> FileTensor:
    shape, signature, quant = _numbers(one.ShapeAsNumpy()), _numbers(one.ShapeSignatureAsNumpy()), one.Quantization()
    dtype = _names(tflite.TensorType)[one.Type()].lower()
    raw = buffers[one.Buffer()].DataAsNumpy()
    values = None
    if isinstance(raw, np.ndarray) and raw.size:
        values = raw.copy() if dtype in ("string", "int4") else raw.view(np.dtype(dtype)).reshape(shape)
    odd = "variable" if one.IsVariable() else "sparse" if one.Sparsity() else ""
    if any(size < 0 for size in (*shape, *signature[1:])):  # that of the batch alone is left open by many converters
        odd = f"of sizes {signature or shape} that are known at run time only"
    scale = quant.ScaleAsNumpy() if quant else 0
    return FileTensor(
        (one.Name() or b"").decode(errors="replace"), shape, dtype,
        tuple(map(float, scale)) if isinstance(scale, np.ndarray) else (),
        _numbers(quant.ZeroPointAsNumpy()) if quant else (), quant.QuantizedDimension() if quant else 0, values, odd,
    )  # fmt: skip


def _operator(number: int, one: Any, codes: list[Any]) -> FileOperator:
    code = codes[one.OpcodeIndex()]
    name = _names(tflite.BuiltinOperator)[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
    kind = _names(tflite.BuiltinOptions)[one.BuiltinOptionsType()]
    options: dict[str, Any] = {}
    if kind != "NONE":
        table, found = one.BuiltinOptions(), getattr(tflite, kind)()
        found.Init(table.Bytes, table.Pos)
        for field, read in inspect.getmembers(found, inspect.ismethod):
            if field not in ("Init", "GetRootAs") and not inspect.signature(read).parameters and not field.startswith("GetRoot"):
                value = read()
                if isinstance(value, bool | int | float):
                    options[field] = value
    if name == "CUSTOM":
        name = f"CUSTOM {(code.CustomCode() or b'').decode(errors='replace')}"
    return FileOperator(number, name, _numbers(one.InputsAsNumpy()), _numbers(one.OutputsAsNumpy()), options)
