"""Approximate kernels: operands ranked by saliency, the insignificant ones left out of generated code.

The saliency of an operand is what leaving it out is expected to cost, judged on training images. `saliency` collects the
statistics, `cuts` ranks units of weights (blocks, pairs, input channels) by it and lets the remaining weights and the bias make
up for what is left out, `records` keeps the shares that were chosen on validation images and makes the graph from them again.

Read `cuts`. Chapter 11 teaches it.
Source: arXiv 2409.16815.
"""

from __future__ import annotations

from tinyredux.skip.cuts import (
    UNITS,
    Cut,
    Statistics,
    cuts_by_reading,
    kept_share,
    running_significance,
    share_significance,
    skip,
    skippable,
    weight_mask,
    windows,
    without,
)

__all__ = [
    "UNITS", "Cut", "Statistics", "cuts_by_reading", "kept_share", "records", "running_significance", "share_significance",
    "skip", "skippable", "weight_mask", "windows", "without",
]  # fmt: skip
