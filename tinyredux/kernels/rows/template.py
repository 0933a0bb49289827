"""Forms of convolutions by packed products, a row at a time: one form per height of the strips that scratch has room for."""

from __future__ import annotations

from dataclasses import dataclass

from tinyredux.graph import Array, Conv, Graph, Op
from tinyredux.int8 import requantization
from tinyredux.kernels.asm.forms import Form, Places
from tinyredux.kernels.asm.function import Function
from tinyredux.kernels.asm.schedule import cycles_of
from tinyredux.kernels.rows.compute import convolve_function
from tinyredux.kernels.rows.layer import OFFSET, Rows, row_table, rows_of, weight_array
from tinyredux.kernels.rows.pack import pack_function
from tinyredux.kernels.rows.plan import Geometry

SMALLEST_KERNEL = 2  # columns: with one there is nothing to pack


@dataclass(frozen=True)
class RowKernel:
    """A kernel with its weights and its functions, which pack and compute a strip; `strips`: (predicted cycles, height of a
    strip), from one strip to one row each."""

    rows: Rows
    weights: Array
    functions: tuple[Function, Function]
    strips: list[tuple[float, int]]


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns the forms of a convolution at least two columns wide, those with less scratch after those with more."""
    if not isinstance(op, Conv):
        return []
    kernel = row_kernel(graph, op, geometry_of(graph, op), core)
    return [_form(kernel, op.groups, *strip) for strip in kernel.strips] if kernel else []


def row_kernel(graph: Graph, op: Conv, geometry: Geometry, core: str) -> RowKernel | None:
    """Returns the kernel of a geometry with a convolution's weights, None where there is none."""
    weights, bias = graph.constants[op.weights], graph.constants[op.bias]
    rows = rows_of(geometry, weights, bias, requantization(graph, op)) if op.kernel[1] >= SMALLEST_KERNEL else None
    if rows is None:
        return None
    pack, compute, strips = f"tr_pack_{rows.name}", f"tr_rows_{rows.name}", list[tuple[float, int]]()
    functions = [(pack_function(rows, pack, times), convolve_function(rows, compute, times)) for times in (1, 2)]
    once, twice = ([cycles_of(function, core) for function in pair] for pair in functions)
    each_row = [later - first for first, later in zip(once, twice, strict=True)]  # cycles are linear in the rows
    for height in sorted({-(-geometry.out_h // count) for count in range(1, geometry.out_h + 1)}, reverse=True):
        packed = [len(seen) for _, seen, _ in rows.strips(height)]
        cycles = len(packed) * sum(once) + (sum(packed) - len(packed)) * each_row[0]
        strips.append((cycles + (geometry.out_h - len(packed)) * each_row[1], height))
    return RowKernel(rows, weight_array(weights, bias, rows), functions[0], strips)


def geometry_of(graph: Graph, op: Conv) -> Geometry:
    """Returns the geometry of one group of a convolution between maps without gaps."""
    in_h, in_w, in_c = graph.tensors[op.inputs[0]].shape
    out_h, out_w, out_c = graph.tensors[op.output].shape
    return Geometry(
        in_h, in_w, in_c // op.groups, out_h, out_w, out_c // op.groups, op.kernel, op.stride, op.padding[0], op.padding[2],
        in_c, in_w * in_c, out_c, out_w * out_c,
    )  # fmt: skip


def _form(kernel: RowKernel, groups: int, cycles: float, height: int) -> Form:
    rows, weights, (pack, compute) = kernel.rows, kernel.weights, kernel.functions
    g = rows.geometry

    def call(places: Places) -> str:
        scratch = f"(int32_t *)(void *){places.scratch}"
        sizes = (g.in_c, g.out_c, g.out_c * weights.shape[1])
        each_in, each_out, each_weights = (f" + group * {n}" if groups > 1 else "" for n in sizes)
        lines = []
        for y, seen, start in rows.strips(height):
            source, out = f"{places.inputs[0]} + {seen.start * g.in_row}{each_in}", f"{places.out} + {y * g.out_row}{each_out}"
            flash = f"{places.arrays['packed']}{each_weights}, {places.arrays['rows']} + {start}"
            lines.append(f"{pack.name}({scratch} + {rows.weight_bytes // 4}, {source}, {len(seen)});")
            lines.append(f"{compute.name}({out}, {scratch}, {flash});")
        if groups > 1:
            lines = [f"for (int32_t group = 0; group < {groups}; group++) {{", *(f"    {line}" for line in lines), "}"]
        return "\n".join(lines)

    arrays = {"packed": weights, "rows": row_table(rows, height)}
    drained = f"fields drained every {rows.chunk * rows.unroll} of {rows.steps} steps"
    proof = f"{drained}; whatever the input, none is larger than {rows.most} of {OFFSET}"
    return Form(f"rows_{height}", round(groups * cycles), rows.scratch_bytes(height), kernel.functions, call, arrays, proof)
