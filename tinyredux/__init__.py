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
    "Graph": "graph", "Tensor": "graph", "Quant": "graph", "to_text": "graph.operators", "total_macs": "graph", "verify": "graph",
    "quantize": "int8", "quant_from_range": "int8.quantization",
    "Settings": "flow", "compile_net": "flow", "open_target": "flow",
    "Choice": "trec", "with_trec": "trec", "exactly": "trec", "losing": "kernels",
    "bench_layer": "explore.bench", "layer_graph": "explore.bench", "parse_spec": "explore.bench", "layer_forms": "explore.bench",
    "requantize": "kernels.asm.requantize", "scheduled": "kernels.asm.schedule", "cuts_by_reading": "skip.cuts",
    "UNITS": "skip.cuts", "layer_table": "explore.bench_record",
    "Measurement": "measurement", "load": "measurement", "run_cell": "notebook.cell",
    "check": "course.teaching", "hint": "course.teaching", "recorded": "notebook.show", "refused": "notebook.show",
    "show": "notebook.show", "simulated_board": "notebook.show", "table": "notebook.show",
}  # fmt: skip
_MODULES = {
    name: name
    for name in ("datasets", "fixedpoint", "flow", "graph", "memory", "nets", "train", "trec", "partial", "skip", "int8")
} | {
    "clustered": "trec.sums", "evaluator": "int8.evaluator", "exercises": "course.exercises",
    "exercises_partial": "course.exercises_partial", "export": "frontends.torch_export", "interpret": "int8.interpret",
    "link": "device.link", "lsh": "trec.hashing", "plan": "explore.plans", "plots": "notebook.plots",
    "plots_partial": "notebook.plots_partial", "plots_redundancy": "notebook.plots_redundancy",
    "plots_skipping": "notebook.plots_skipping", "run_schedule": "memory.run_schedule", "skip_report": "notebook.skip_report",
    "skipped": "skip.records", "teaching": "course.teaching", "timing": "simulator.timing", "train_trec": "train.finetune_trec",
    "trec_layer": "trec.layer", "trec_report": "notebook.trec_report",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Returns a public name, loading its module on first use. No function here has a module's name, which would hide it."""
    if name in _HOME:
        module = importlib.import_module(f"tinyredux.{_HOME[name]}")
        return getattr(module, name)
    if name in _MODULES:
        return importlib.import_module(f"tinyredux.{_MODULES[name]}")
    raise AttributeError(f"tinyredux has no {name!r}; it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    """Returns the public names."""
    return sorted([*_HOME, *_MODULES])


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext tinyredux`: registers the magics."""
    from tinyredux.cli.magics import register

    register(shell)
