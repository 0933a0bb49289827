"""Forms of convolutions by packed products, a row at a time: one form per height of the strips that scratch has room for."""

from __future__ import annotations

import numpy as np

from tinyredux.graph import Array, Conv, Graph, Op
from tinyredux.int8 import requantization
from tinyredux.kernels.asm.forms import Form, Places
from tinyredux.kernels.asm.function import Function
from tinyredux.kernels.asm.schedule import cycles_of
from tinyredux.kernels.rows.compute import convolve_function
from tinyredux.kernels.rows.layer import OFFSET, Rows, row_tables, rows_of, weight_array
from tinyredux.kernels.rows.pack import pack_function
from tinyredux.kernels.rows.plan import Geometry

SMALLEST_KERNEL = 2  # columns: with one there is nothing to pack


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns the forms of a convolution at least two columns wide, those with less scratch after those with more."""
    if not isinstance(op, Conv) or op.kernel[1] < SMALLEST_KERNEL:
        return []
    geometry = geometry_of(graph, op)
    weights, bias = graph.constants[op.weights], graph.constants[op.bias]
    rows = rows_of(geometry, weights, bias, requantization(graph, op))
    if rows is None:
        return []
    pack, compute, strips = strip_forms(rows, core)
    packed = weight_array(weights, bias, rows)
    return [_form(rows, height, packed, op.groups, (pack, compute), op.groups * cycles) for height, cycles in strips]


def strip_forms(rows: Rows, core: str) -> tuple[Function, Function, list[tuple[int, float]]]:
    """Returns the two functions of a kernel, and (height of a strip, predicted cycles) from one strip to one row each."""
    out_h = rows.geometry.out_h
    functions = [_programs(rows, times) for times in (1, 2)]
    once, twice = ([cycles_of(function, core) for function in pair] for pair in functions)
    each_row = [later - first for first, later in zip(once, twice, strict=True)]  # cycles are linear in the rows
    found = []
    for height in sorted({-(-out_h // strips) for strips in range(1, out_h + 1)}, reverse=True):
        strips = -(-out_h // height)
        packed_rows = sum(len(rows.strip(y, height)) for y in range(0, out_h, height))
        cycles = strips * sum(once) + (packed_rows - strips) * each_row[0] + (out_h - strips) * each_row[1]
        found.append((height, cycles))
    return *functions[0], found


def _programs(rows: Rows, times: int) -> tuple[Function, Function]:
    return pack_function(rows, f"tr_pack_{rows.name}", times), convolve_function(rows, f"tr_rows_{rows.name}", times)


def geometry_of(graph: Graph, op: Conv) -> Geometry:
    """Returns the geometry of one group of a convolution between maps without gaps."""
    in_h, in_w, in_c = graph.tensors[op.inputs[0]].shape
    out_h, out_w, out_c = graph.tensors[op.output].shape
    return Geometry(
        in_h, in_w, in_c // op.groups, out_h, out_w, out_c // op.groups, op.kernel, op.stride, op.padding[0], op.padding[2],
        in_c, in_w * in_c, out_c, out_w * out_c,
    )  # fmt: skip


def _form(rows: Rows, height: int, weights: Array, groups: int, functions: tuple[Function, Function], cycles: float) -> Form:
    g, tables = rows.geometry, row_tables(rows, height)
    strips = [(y, rows.strip(y, height)) for y in range(0, g.out_h, height)]
    pack, compute = functions
    starts = [sum(len(table) for table in tables[:i]) for i in range(len(tables))]

    def call(places: Places) -> str:
        scratch = f"(int32_t *)(void *){places.scratch}"
        sizes = (g.in_c, g.out_c, g.out_c * weights.shape[1])
        each_in, each_out, each_weights = (f" + group * {n}" if groups > 1 else "" for n in sizes)
        lines = []
        for (y, seen), start in zip(strips, starts, strict=True):
            source, out = f"{places.inputs[0]} + {seen.start * g.in_row}{each_in}", f"{places.out} + {y * g.out_row}{each_out}"
            flash = f"{places.arrays['packed']}{each_weights}, {places.arrays['rows']} + {start}"
            lines.append(f"{pack.name}({scratch} + {rows.weight_bytes // 4}, {source}, {len(seen)});")
            lines.append(f"{compute.name}({out}, {scratch}, {flash});")
        if groups > 1:
            lines = [f"for (int32_t group = 0; group < {groups}; group++) {{", *(f"    {line}" for line in lines), "}"]
        return "\n".join(lines)

    arrays = {"packed": weights, "rows": np.concatenate(tables)}
    drained = f"fields drained every {rows.chunk * rows.unroll} of {rows.steps} steps"
    proof = f"{drained}; whatever the input, none is larger than {rows.most} of {OFFSET}"
    return Form(f"rows_{height}", round(cycles), rows.scratch_bytes(height), functions, call, arrays, proof)
