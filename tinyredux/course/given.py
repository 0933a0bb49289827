"""What the labs give: the networks to work on. In a submission's process this stands in the place of the exercises."""

from __future__ import annotations

from typing import Any

from tinyredux.graph import Add, Conv, Dense, DepthwiseConv, Op

# A small network with a branch: input -> a -> b, input -> c, b + c -> d -> out. Bytes, and first and last step of each tensor.
BRANCH_SIZES: dict[str, int] = {"input": 3072, "a": 4096, "b": 2048, "c": 2048, "d": 4096, "out": 1024}
BRANCH_SPANS: dict[str, tuple[int, int]] = {
    "input": (0, 2), "a": (0, 1), "b": (1, 3), "c": (2, 3), "d": (3, 4), "out": (4, 4)
}  # fmt: skip

# A widening, filtering and narrowing branch beside a shortcut: tensor shapes (H, W, C), one byte per value.
SHAPES = {
    "input": (16, 16, 4), "wide": (16, 16, 24), "deep": (8, 8, 24), "narrow": (8, 8, 8), "side": (8, 8, 8), "both": (8, 8, 8),
    "classes": (1, 1, 10),
}  # fmt: skip
OPS: tuple[Op, ...] = (
    Conv("expand", ("input",), "wide"),
    DepthwiseConv("filter", ("wide",), "deep", kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1)),
    Conv("project", ("deep",), "narrow"),
    Conv("shortcut", ("input",), "side", stride=(2, 2)),
    Add("sum", ("narrow", "side"), "both"),
    Dense("classify", ("both",), "classes"),
)
EXERCISES: dict[str, Any] = {}  # none where submissions run: their grader has them
