"""tinyredux: run neural networks on STM32 and other Cortex-M microcontrollers by removing redundant work.

    import tinyredux as tr

    graph = tr.quantize(tr.export(net, (3, 32, 32)), images)      a torch module and NumPy images to an int8 graph
    model = tr.compile(graph, board="nucleo_l4r5zi")              memory plan, kernels and C
    tr.measure(model, images)                                     run in the simulator, compared byte for byte
    tr.compile(graph, passes=[tr.Trec()], schedule=tr.Partial())  with a method, or with several

Each idea is a package: `trec`, `partial`, `skip` and `streaming` are the methods; `graph`, `int8` and `memory` are what they
stand on. A name is loaded when it is first asked for, so `import tinyredux` needs neither torch nor a compiler.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinyredux.boards import Board, board_names, find_board
    from tinyredux.codegen import board_budget
    from tinyredux.comparison import compare
    from tinyredux.course.teaching import check, hint
    from tinyredux.flow import compile, measure
    from tinyredux.frontends import compare_with_litert, compare_with_onnxruntime, export, load_onnx, load_tflite
    from tinyredux.graph import Graph, Quant, Tensor, total_macs, verify
    from tinyredux.int8 import quantize
    from tinyredux.int8.quantization import quant_from_range
    from tinyredux.measurement import Measurement, load
    from tinyredux.methods.layerwise import Layerwise
    from tinyredux.methods.partial import Partial
    from tinyredux.methods.skip import Skip
    from tinyredux.methods.streaming import Streaming
    from tinyredux.methods.trec import Trec
    from tinyredux.model import Model
    from tinyredux.notebook.cell import run_cell
    from tinyredux.notebook.show import recorded, refused, show, simulated_board, table
    from tinyredux.settings import Settings, compile_net, measure_compiled, measure_net
    from tinyredux.trec import Choice, exactly, with_trec

__version__ = "0.1.0"
__all__ = [
    "Board", "Choice", "Graph", "Layerwise", "Measurement", "Model", "Partial", "Quant", "Settings", "Skip", "Streaming",
    "Tensor", "Trec", "board_budget", "board_names", "check", "compare", "compare_with_litert", "compare_with_onnxruntime",
    "compile", "compile_net", "exactly", "export", "find_board", "hint", "load", "load_onnx", "load_tflite", "measure",
    "measure_compiled", "measure_net", "quant_from_range", "quantize", "recorded", "refused", "run_cell", "show",
    "simulated_board", "table", "total_macs", "verify", "with_trec",
]  # fmt: skip

_HOMES = {
    "boards": "Board board_names find_board", "codegen": "board_budget", "comparison": "compare", "course.teaching": "check hint",
    "flow": "compile measure", "frontends": "compare_with_litert compare_with_onnxruntime export load_onnx load_tflite",
    "graph": "Graph Quant Tensor total_macs verify",
    "int8": "quantize",
    "int8.quantization": "quant_from_range", "measurement": "Measurement load", "methods.layerwise": "Layerwise",
    "methods.partial": "Partial", "methods.skip": "Skip", "methods.streaming": "Streaming", "methods.trec": "Trec",
    "model": "Model", "notebook.cell": "run_cell",
    "notebook.show": "recorded refused show simulated_board table",
    "settings": "Settings compile_net measure_compiled measure_net", "trec": "Choice exactly with_trec",
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}
_PACKAGES = """course datasets device explore fixedpoint graph int8 kernels memory nets notebook partial simulator skip streaming
    train trec"""


def __getattr__(name: str) -> Any:
    """Returns a public name, loading its module on first use."""
    if name in _HOME:
        return getattr(importlib.import_module(f"tinyredux.{_HOME[name]}"), name)
    if name in _PACKAGES.split():
        return importlib.import_module(f"tinyredux.{name}")
    raise AttributeError(f"tinyredux has no {name!r}; it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    """Returns the public names."""
    return sorted([*_HOME, *_PACKAGES.split()])


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext tinyredux`: registers the magics."""
    from tinyredux.cli.magics import register

    register(shell)
