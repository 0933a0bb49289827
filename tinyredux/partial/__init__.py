"""Partial execution: operators are computed in parts, so that their whole outputs never lie in SRAM at once.

A chain of operators (a region) runs slice by slice of its channels, or patch by patch of its rows; between two slices only the
part that is alive needs bytes. `regions` finds the chains that can run in parts and what each part keeps alive, `order` the
order of all items with the least peak, `patches` cuts early layers into patches that compute shared rows again, `widths` gives
slices the widest size that costs no byte more. `plan` puts the pieces together and places the result.

Read `plan.plan_partial`, then `regions`. Chapters 6 and 7 teach it.
Source: Pex, arXiv 2211.17246; MCUNetV2, arXiv 2110.15352 for patches.
"""

from __future__ import annotations

from tinyredux.partial.order import given_order, problem, replayed
from tinyredux.partial.plan import (
    MARGIN,
    SLOWDOWN,
    PartialPlan,
    arena_plan,
    check_macs,
    hybrids,
    item_bytes,
    layerwise_price,
    plan_hybrid,
    plan_partial,
    within_bytes,
)
from tinyredux.partial.regions import Net, candidates, internal_bytes, item_costs

__all__ = [
    "MARGIN", "SLOWDOWN", "Net", "PartialPlan", "arena_plan", "candidates", "check_macs", "given_order", "hybrids",
    "internal_bytes", "item_bytes", "item_costs", "layerwise_price", "plan_hybrid", "plan_partial", "problem",
    "replayed", "within_bytes",
]  # fmt: skip
