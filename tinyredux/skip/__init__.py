"""Approximate kernels: operands ranked by saliency, the insignificant ones left out of generated code.

The saliency of a weight is the share of a layer's sums that its products make on training images. `saliency` collects the
statistics, `cuts` ranks units of weights (blocks, pairs, input channels) by the loss expected without them and repairs the
bias of what is left out, `records` keeps the shares that were chosen on validation images and makes the graph from them again.

Read `cuts`. Chapter 8 teaches it.
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
    "UNITS",
    "Cut",
    "Statistics",
    "cuts_by_reading",
    "kept_share",
    "records",
    "running_significance",
    "share_significance",
    "skip",
    "skippable",
    "weight_mask",
    "windows",
    "without",
]
