"""What the labs give: the networks to work on, in Python alone, as submissions are marked where there is no tinyredux."""

from typing import Any

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
STEPS: tuple[dict[str, Any], ...] = (  # in the order of running: what it is, its name, what it reads and writes
    {"kind": "Conv", "name": "expand", "inputs": ("input",), "output": "wide"},
    {"kind": "DepthwiseConv", "name": "filter", "inputs": ("wide",), "output": "deep", "kernel": (3, 3), "stride": (2, 2)},
    {"kind": "Conv", "name": "project", "inputs": ("deep",), "output": "narrow"},
    {"kind": "Conv", "name": "shortcut", "inputs": ("input",), "output": "side", "stride": (2, 2)},
    {"kind": "Add", "name": "sum", "inputs": ("narrow", "side"), "output": "both"},
    {"kind": "Dense", "name": "classify", "inputs": ("both",), "output": "classes"},
)
