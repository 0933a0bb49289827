"""Where the bytes of a network lie, and when: programs of steps on views, placed in one arena.

`program` and `tiles` say what a program is: loops of steps that read and write boxes of buffers. `lower` makes one from a
schedule, by what operators read for a part (`reach`); `place` gives its buffers addresses in the arena, `run_schedule` executes
and checks it byte by byte in NumPy.
`layerwise` says what is alive one operator at a time, `whole_operators` makes that a program and places it; `work` counts the
products of steps, `blob` lays out weights in flash.
Chapter 3 teaches it.
"""

from __future__ import annotations

from tinyredux.memory import run_schedule
from tinyredux.memory.blob import Blob, arrays, pack_arrays
from tinyredux.memory.layerwise import (
    Lifetime,
    LiveStep,
    MemoryPlan,
    arena_end,
    clustering,
    first_fit,
    is_pointwise,
    layerwise_peak,
    lifetimes,
    live_steps,
    lowest_gap,
    overlap,
    reference_scratch,
    verify_plan,
)
from tinyredux.memory.lower import Lowering, boxes_for, lower, moments, slices_of
from tinyredux.memory.place import Arena, blocks_of, gap, live_bytes, place, place_apart
from tinyredux.memory.program import (
    ACCUMULATOR_BYTES,
    Buffer,
    Item,
    Loop,
    Node,
    Program,
    Schedule,
    Storage,
    one_by_one,
    storages,
)
from tinyredux.memory.reach import (
    group_sizes,
    input_box,
    is_barrier,
    is_elementwise,
    is_gated,
    is_generator,
    is_spread,
    moved_from,
    reads_values,
    windows_meet_map,
)
from tinyredux.memory.run_schedule import verify
from tinyredux.memory.tiles import Box, Step, View, in_lines, row_by_row, whole
from tinyredux.memory.whole_operators import layer_by_layer, place_operators, place_reference, plan, plan_of, tensors_end
from tinyredux.memory.work import Price, computed_macs, conv_loops, executed_macs, restricted, window_rows

__all__ = [
    "ACCUMULATOR_BYTES", "Arena", "Blob", "Box", "Buffer", "Item", "Lifetime", "LiveStep", "Loop", "Lowering", "MemoryPlan",
    "Node", "Price", "Program", "Schedule", "Step", "Storage", "View", "arena_end", "arrays", "blocks_of", "boxes_for",
    "clustering", "computed_macs", "conv_loops", "executed_macs", "first_fit", "gap", "group_sizes", "in_lines",
    "input_box", "is_barrier", "is_elementwise", "is_gated", "is_generator", "is_pointwise", "is_spread",
    "layer_by_layer", "layerwise_peak", "lifetimes", "live_bytes", "live_steps", "lower", "lowest_gap", "moments", "moved_from",
    "one_by_one", "overlap", "pack_arrays", "place", "place_apart", "place_operators", "place_reference", "plan", "plan_of",
    "reads_values", "reference_scratch", "restricted", "row_by_row", "run_schedule", "slices_of", "storages", "tensors_end",
    "verify", "verify_plan", "whole", "window_rows", "windows_meet_map",
]  # fmt: skip
