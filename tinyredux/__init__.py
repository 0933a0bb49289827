"""tinyredux: run CNNs on STM32 microcontrollers by removing redundant work.

The names below are the ones that the book uses; each is loaded when it is first asked for, so `import tinyredux`
needs neither torch nor a compiler.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Board": "boards", "board_names": "boards", "find_board": "boards",
    "Graph": "graph", "Tensor": "graph", "Quant": "graph", "to_text": "graph", "total_macs": "graph", "verify": "graph",
    "quantize": "passes.quantize", "quant_from_range": "passes.quantize",
    "Settings": "flow", "compile_net": "flow", "open_target": "flow",
    "Choice": "passes.trec", "with_trec": "passes.trec", "exactly": "clustered", "losing": "fast.trec_cost",
    "bench_layer": "bench", "layer_graph": "bench", "parse_spec": "bench", "layer_forms": "bench",
    "requantize": "fast.requantize", "scheduled": "fast.schedule", "cuts_by_reading": "passes.skipping",
    "UNITS": "passes.skipping", "layer_table": "bench_record",
    "Measurement": "measure", "load": "measure", "run_cell": "cell",
    "check": "teaching", "hint": "teaching", "recorded": "teaching", "refused": "teaching", "show": "teaching",
    "simulated_board": "teaching", "table": "teaching",
}  # fmt: skip
_MODULES = (
    "clustered", "datasets", "evaluator", "exercises", "exercises_partial", "export", "fixedpoint", "flow", "graph",
    "interpret", "link", "lsh", "memory", "nets", "plan", "plots", "plots_partial", "plots_redundancy", "plots_skipping",
    "run_schedule", "skip_report", "skipped", "teaching", "timing", "train", "train_trec",
    "trec_layer", "trec_report",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    """Returns a public name, loading its module on first use. No function here has a module's name, which would hide it."""
    if name in _HOME:
        module = importlib.import_module(f"tinyredux.{_HOME[name]}")
        return getattr(module, name)
    if name in _MODULES:
        return importlib.import_module(f"tinyredux.{name}")
    raise AttributeError(f"tinyredux has no {name!r}; it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    """Returns the public names."""
    return sorted([*_HOME, *_MODULES])


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext tinyredux`: registers the magics."""
    from tinyredux.magics import register

    register(shell)
