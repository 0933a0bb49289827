"""Winograd convolution as forms: square kernels at stride 1, by 4x4 or 6x6 tiles (`winograd_tile` explains the method)."""

from __future__ import annotations

from tinyredux.graph import Conv, Graph, Op
from tinyredux.kernels.asm import requantize
from tinyredux.kernels.asm.forms import Form
from tinyredux.kernels.asm.function import LARGEST_IMMEDIATE
from tinyredux.kernels.asm.layers import Sums, kernel_call, map_fields, sums_of
from tinyredux.kernels.asm.schedule import cycles_of
from tinyredux.kernels.winograd.code import columns_function, input_function, output_function, product_function, widen_function
from tinyredux.kernels.winograd.tile import TILES, Layer, Tile, data, largest_output, split_places, transformed

FUNCTIONS = ("widen", "input", "product", "columns", "output", "edge_output")
OUTPUTS_MAX = 5  # of a tile, along an axis
C_ROW_CYCLES, C_GROUP_CYCLES, C_TILE_CYCLES = 40, 24, 40  # of the C around: a row of a tile, two channels, a tile of them


def forms(graph: Graph, op: Op, core: str) -> list[Form]:
    """Returns a form per tile size for a square kernel at stride 1 whose sums stay in their bounds."""
    if not isinstance(op, Conv) or op.groups > 1 or op.stride != (1, 1) or op.kernel[0] != op.kernel[1] or op.kernel[0] < 2:
        return []
    in_c, out_c = graph.tensors[op.inputs[0]].shape[2], graph.tensors[op.output].shape[2]
    sums = sums_of(graph, op)
    if in_c % 4 or out_c < 2 or OUTPUTS_MAX * out_c > LARGEST_IMMEDIATE or not requantize.applies(sums.factors):
        return []
    tiles = [Tile(n, op.kernel[0]) for n in (4, 6) if op.kernel[0] < n]
    largest = largest_output(sums.rows)
    if abs(sums.start - 128 * sums.rows.sum(axis=1)).max() + largest >= requantize.SUM_LIMIT:
        return []
    return [_form(graph, op, core, tile, sums) for tile in tiles if largest < tile.output_limit]


def _form(graph: Graph, op: Conv, core: str, tile: Tile, sums: Sums) -> Form:
    (_, _, in_c), (out_h, out_w, out_c) = graph.tensors[op.inputs[0]].shape, graph.tensors[op.output].shape
    values, factors = transformed(tile, graph.constants[op.weights]), sums.factors
    layer = Layer(tile, in_c, out_c, split_places(values))
    output = (factors.output_zero_point, factors.clamp)
    functions = (
        widen_function(tile, in_c), input_function(layer), product_function(layer), columns_function(layer),
        output_function(tile, *output, out_w * out_c, out_c), output_function(tile, *output, 2 * tile.m, 2),
    )  # fmt: skip
    widen, transform, product, columns, output_cycles, _ = (cycles_of(function, core) for function in functions)
    tiles = -(-out_h // tile.m) * -(-out_w // tile.m)
    batches = -(-tiles // TILES)
    broken = 0 if core == "cortex-m7" else layer.products * layer.pairs  # chains of loads, between flash and SRAM
    cycles = tiles * (tile.n * (widen + C_ROW_CYCLES) + transform + layer.groups * (output_cycles + C_TILE_CYCLES))
    cycles += batches * layer.groups * (product + columns + broken + C_GROUP_CYCLES)
    v_words = layer.pairs * layer.step_bytes // 4
    scratch_words = v_words + max(2 * TILES * layer.products, layer.pairs * tile.places)
    fields = map_fields(graph, op) | {
        "n": tile.n, "m": tile.m, "pad_top": op.padding[0], "pad_left": op.padding[2],
        "group_words": layer.group_words, "v_words": v_words, "filling": (factors.input_zero_point + 128) * 0x10001,
        **{field: function.name for field, function in zip(FUNCTIONS, functions, strict=True)},
    }  # fmt: skip
    call = kernel_call("winograd", fields)
    proof = f"Winograd: |output| <= {largest_output(sums.rows)}, below {tile.output_limit}"
    arrays = {"groups": data(layer, values, sums)}
    streamed = batches * arrays["groups"].nbytes
    return Form(f"winograd_{tile.m}x{tile.m}", round(cycles), 4 * scratch_words, functions, call, arrays, proof, streamed)
