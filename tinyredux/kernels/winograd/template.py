"""Winograd convolution as forms: square kernels at stride 1, by 4x4 or 6x6 tiles (`winograd_tile` explains the method)."""

from __future__ import annotations

from dataclasses import dataclass

from tinyredux.graph import Array, Conv, Graph, Op
from tinyredux.kernels.asm import requantize
from tinyredux.kernels.asm.forms import Form
from tinyredux.kernels.asm.function import LARGEST_IMMEDIATE, Function
from tinyredux.kernels.asm.layers import Sums, kernel_call, map_fields, sums_of
from tinyredux.kernels.asm.schedule import cycles_of
from tinyredux.kernels.winograd.code import (
    columns_function,
    input_function,
    output_function,
    product_function,
    unpack_function,
    widen_function,
)
from tinyredux.kernels.winograd.tile import TILES, Layer, Tile, bytes_of, data, largest_output, split_places, transformed
from tinyredux.simulator import RULES

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
    kernels = [_kernel(graph, op, tile, sums, core) for tile in tiles if largest < tile.output_limit]
    return [form for kernel in kernels for form in kernel.forms(graph, op)]


@dataclass(frozen=True)
class Kernel:
    """A layer's functions with the cycles of a call of each, its sums, and its transformed weights."""

    layer: Layer
    sums: Sums
    values: Array
    functions: dict[str, Function]
    cycles: dict[str, float]

    def forms(self, graph: Graph, op: Conv) -> list[Form]:
        """Returns the form with transformed weights in flash; and those that have a byte a weight there, transform them on the
        board two channels at a time, and then multiply some batches of tiles, the fewer the less scratch."""
        layer, weights = self.layer, graph.constants[op.weights]
        out_h, out_w, _ = graph.tensors[op.output].shape
        tiles = -(-out_h // layer.tile.m) * -(-out_w // layer.tile.m)
        batches = -(-tiles // TILES)
        found = [self._form(graph, op, data(layer, self.values, self.sums), (tiles, 1))]
        if "unpack" in self.functions:
            packed = bytes_of(layer, weights, self.sums)
            sizes = sorted({-(-batches // count) for count in range(1, batches + 1)}, reverse=True)
            found += [self._form(graph, op, packed, (tiles, size), unpack=True) for size in sizes]
        return found

    def _form(self, graph: Graph, op: Conv, groups: Array, work: tuple[int, int], unpack: bool = False) -> Form:
        """`work`: tiles in all, and how many batches of them are multiplied before the next two channels are."""
        layer, cost, (tiles, batches) = self.layer, self.cycles, work
        tile, passes = layer.tile, -(-tiles // (TILES * batches))
        each_tile = tile.n * (cost["widen"] + C_ROW_CYCLES) + cost["input"] + layer.groups * (cost["output"] + C_TILE_CYCLES)
        loads = layer.products * layer.pairs  # of weights, between loads from SRAM
        stalls = (-cost["chain"] if unpack else cost["chain"]) * loads
        each_batch = layer.groups * (cost["product"] + stalls + cost["columns"] + C_GROUP_CYCLES)
        cycles = tiles * each_tile + -(-tiles // TILES) * each_batch
        functions = {name: function for name, function in self.functions.items() if unpack or name != "unpack"}
        if unpack:
            cycles += passes * layer.groups * (cost["unpack"] + C_GROUP_CYCLES)
        v_words, work_words = layer.pairs * layer.step_bytes // 4, max(2 * TILES * layer.products, layer.pairs * tile.places)
        scratch_words = batches * v_words + work_words + (layer.group_words - 6 if unpack else 0)
        factors = self.sums.factors
        fields = map_fields(graph, op) | {
            "n": tile.n, "m": tile.m, "pad_top": op.padding[0], "pad_left": op.padding[2], "batches": batches,
            "group_words": groups.shape[1], "v_words": v_words, "work_words": work_words,
            "filling": (factors.input_zero_point + 128) * 0x10001,
            **{name: function.name for name, function in functions.items()},
        }  # fmt: skip
        proof = f"Winograd: |output| <= {largest_output(self.sums.rows)}, below {tile.output_limit}"
        name = f"winograd_{tile.m}x{tile.m}" + f"_bytes_{batches}" * unpack
        code, streamed = tuple(functions.values()), passes * groups.nbytes
        call = kernel_call("winograd", fields)
        return Form(name, round(cycles), 4 * scratch_words, code, call, {"groups": groups}, proof, streamed)


def _kernel(graph: Graph, op: Conv, tile: Tile, sums: Sums, core: str) -> Kernel:
    in_c, (_, out_w, out_c) = graph.tensors[op.inputs[0]].shape[2], graph.tensors[op.output].shape
    weights = graph.constants[op.weights]
    values, output = transformed(tile, weights), (sums.factors.output_zero_point, sums.factors.clamp)
    layer = Layer(tile, in_c, out_c, split_places(values))
    functions = {
        "widen": widen_function(tile, in_c), "input": input_function(layer), "product": product_function(layer),
        "columns": columns_function(layer), "output": output_function(tile, *output, out_w * out_c, out_c),
        "edge_output": output_function(tile, *output, 2 * tile.m, 2),
    }  # fmt: skip
    if (tile.n, tile.r) == (6, 3) and requantize.symmetric(weights):
        functions["unpack"] = unpack_function(layer)
    cycles = {name: cycles_of(function, core) for name, function in functions.items() if name != "edge_output"}
    return Kernel(layer, sums, values, functions, cycles | {"chain": RULES[core].chain})
