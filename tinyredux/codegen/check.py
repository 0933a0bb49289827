"""Reads a kernel call as the kernel does, and compares the bytes that it walks with those of the step it was made for.

`run_schedule.verify` follows steps, which say where boxes lie; what the C gets are sizes and distances between rows and pixels,
in structs where 0 stands for a default and where not every kernel knows every field. This module knows the kernels, and nothing
of how `calls` fills the structs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from tinyredux.codegen.calls import Call, Fields
from tinyredux.graph import Array
from tinyredux.memory import Arena, Step

POOLS = ("tr_max_pool_s8", "tr_average_pool_s8", "tr_mean_pool_s8")
KNOW_GAPS = (*POOLS, "tr_depthwise_conv_s8", "tr_conv_direct_s8", "tr_conv_add_s32", "tr_conv_add_s16")


class Walk(NamedTuple):
    """The order in which a kernel walks a map: `shape` (rows, pixels, values) with the distances of rows and of pixels."""

    shape: tuple[int, int, int]
    row: int
    pixel: int

    def elements(self) -> Array:
        """Returns how far each element lies behind the first, in elements."""
        rows, pixels, values = np.ogrid[: self.shape[0], : self.shape[1], : self.shape[2]]
        return np.asarray(rows * self.row + pixels * self.pixel + values).reshape(-1)


def check_call(call: Call, step: Step, arena: Arena) -> None:
    """Raises ValueError where a call walks other bytes than the maps of its step hold."""
    views = (step.output, *step.inputs)
    maps = tuple(Walk(view.box.shape, view.row_stride, view.pixel_stride) for view in views)
    if wrong := _differs(call.kernel, call.fields, maps):
        name = views[wrong - 1].tensor
        raise ValueError(f"{call.op}: {call.kernel} walks {name} otherwise than it lies: {call.fields}, {maps[wrong - 1]}")
    for view, address in zip(views, call.arguments, strict=False):
        start = arena.offsets[view.buffer] + view.offset
        if address.base != start or start % view.element_bytes:
            raise ValueError(f"{call.op}: {call.kernel} looks for {view.tensor} at {address.base}, it lies at {start}")


@lru_cache(maxsize=100_000)
def _differs(kernel: str, fields: Fields, maps: tuple[Walk, ...]) -> int:
    """Returns the number, from 1, of the first map that the kernel walks otherwise; 0 where there is none."""
    parameters = {key.removeprefix("window."): value for key, value in fields}
    for number, (walk, there) in enumerate(zip(_walks(kernel, parameters), maps, strict=False), 1):
        lies = there.elements()
        if not np.array_equal(walk.elements() if walk else np.arange(lies.size), lies):
            return number
    return 0


def _walks(kernel: str, p: dict[str, int]) -> Sequence[Walk | None]:
    """Returns how a kernel with these parameters walks its output and its inputs; None: anywhere in a map without gaps."""
    rows = max(p.get("rows", 0), 1)
    match kernel:
        case "tr_add_s8" | "tr_sub_s8":
            return [Walk((1, rows, p["n"]), 0, p.get(key, 0)) for key in ("out_row", "a_row", "b_row")]
        case "tr_relu_s8" | "tr_lookup_s8":
            return [Walk((1, rows, p["n"]), 0, p.get(key, 0)) for key in ("out_row", "in_row")]
        case "tr_mul_s8":
            spread = not p["b_row"] and not p["b_pixel"]
            whole = (p["h"], p["w"], p["c"])
            shapes = {"out": whole, "a": whole, "b": (1, 1, p["c"]) if spread else (*whole[:2], p["c"] if p["b_each"] else 1)}
            return [Walk(shape, p[f"{side}_row"], p[f"{side}_pixel"]) for side, shape in shapes.items()]
        case "tr_bilinear_s8" | "tr_rearrange_s8":
            sides = (("out", "out_h", "out_w", "out_c"), ("in", "in_h", "in_w", "in_c"))
            return [Walk((p[h], p[w], p[c]), p[f"{side}_row"], p[f"{side}_pixel"]) for side, h, w, c in sides]
        case "tr_concat_s8":
            shape = (1, p["rows"], p["in_c"])
            return [Walk(shape, 0, p["out_c"]), Walk(shape, 0, p.get("in_row", 0) or p["in_c"])]
        case "tr_keep_s8":
            return [Walk((1, 1, p["n"]), 0, p["n"])] * 2
        case "tr_softmax_s8" | "tr_softmax_once_s8" | "tr_layer_norm_s8":
            return [Walk((1, p["rows"], p["n"]), 0, p["n"])] * 2
        case "tr_attention_s8":
            queries, heads, keys = p["queries"], p["heads"], p["keys"]
            depths = (p["value_depth"], p["depth"], p["depth"], p["value_depth"])
            return [_dense(1, many, heads * each) for many, each in zip((queries, queries, keys, keys), depths, strict=True)]
        case "tr_extend_s8":
            return [_dense(1, 1, p["before"] + p["n"] + p["behind"]), _dense(1, 1, p["n"])]
        case "tr_matmul_s8":
            return [_dense(1, p["heads"] * p["rows"], p["columns"]), None, None]
        case "tr_dense_s8":
            return [_dense(1, 1, p["out_n"]), _dense(1, 1, p["in_n"])]
        case "tr_trec_conv_s8":
            return [_dense(p["out_h"], p["out_w"], p["out_c"]), _dense(p["in_h"], p["in_w"], p["in_c"])]
    channels = p.get("c") or p.get("out_c") or p["in_c"] * p["multiplier_c"]
    sums = _dense(p["out_h"], p["out_w"], channels)
    output = _spaced(p, "out", channels)
    if kernel.startswith("tr_sums"):
        return [sums] if "start" in kernel else [output, sums]
    source = _spaced(p, "in", p.get("in_c", channels))
    if kernel in KNOW_GAPS:
        return [sums if kernel.startswith("tr_conv_add") else output, source]
    if kernel != "tr_conv_s8":
        raise ValueError(f"{kernel}: nobody has said how it walks its maps")
    alike = p["groups"] == p["kernel_h"] == p["kernel_w"] == p["stride_h"] == p["stride_w"] == 1
    pointwise = alike and p["out_h"] == p["in_h"] and p["out_w"] == p["in_w"]
    output = Walk(output.shape, p["out_w"] * output.pixel, output.pixel)  # it knows no out_row
    return [output, _dense(*source.shape) if pointwise else source]


def _spaced(p: dict[str, int], side: str, channels: int) -> Walk:
    """Returns the walk of a map whose pixels and rows may have gaps: distances of 0 stand for none."""
    height, width, pixel = p[f"{side}_h"], p[f"{side}_w"], p.get(f"{side}_pixel", 0) or channels
    return Walk((height, width, channels), p.get(f"{side}_row", 0) or width * pixel, pixel)


def _dense(height: int, width: int, channels: int) -> Walk:
    return Walk((height, width, channels), width * channels, channels)
