"""Writes tinyredux/codegen/code_sizes.json: the bytes of C in a firmware, read from networks of one layer, built for each core.

python tools/fit_code_sizes.py
"""

import json
from pathlib import Path

import numpy as np
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from tinyredux.boards import Board, find_board
from tinyredux.codegen import emit_steps
from tinyredux.codegen.calls import Weights
from tinyredux.codegen.code_sizes import FILE, family, kernels_called, program_bytes
from tinyredux.device import build_firmware, default_build_folder
from tinyredux.explore.bench import layer_graph, parse_spec
from tinyredux.graph import Concat, Graph, Quant, Softmax, Tensor
from tinyredux.kernels import TEMPLATES, Form, naive_forms, placed, unpacked

BOARDS = ("disco_f469ni", "nucleo_f746zg", "nucleo_u575zi_q")  # one for each core
LAYERS = (
    "conv3x3:8-8@8x8", "conv3x3s2:5-7@9x9", "conv5x5:3-16@12x12", "conv1x1:16-16@8x8", "conv1x1:6-5@8x8", "depthwise3x3:8@8x8",
    "depthwise3x3s2:6@9x9", "dense:64-10", "dense:30-3", "max2x2s2:8@8x8", "max3x3s2:6@9x9", "average2x2s2:8@8x8",
    "average3x3:3@8x8", "add:16@8x8", "relu:16@8x8", "conv3x3:16-16@8x8/L36H4", "softmax", "concat",
)  # fmt: skip
GENERATED = {"tr_model_run", "tr_op_names", "layer", "layer_0", "layer_1", "parameters", "products"}  # of model.c
Sizes = list[tuple[str, int]]


def graph_of(layer: str) -> Graph:
    """Returns the network of one layer."""
    if layer not in ("softmax", "concat"):
        return layer_graph(parse_spec(layer))
    shape, quant = (4, 4, 8), Quant((1 / 256,), -128)
    out = shape if layer == "softmax" else (4, 4, 16)
    op = Softmax("layer", ("input",), "output") if layer == "softmax" else Concat("layer", ("input", "input"), "output")
    tensors = {"input": Tensor("input", shape, "int8", quant), "output": Tensor("output", out, "int8", quant)}
    return Graph("layer", (op,), tensors, {}, ("input",), ("output",))


def ways(graph: Graph, board: Board) -> list[dict[str, Form]]:
    """Returns the reference kernel and one form of each family."""
    found: dict[str, Form] = {}
    for template in (*TEMPLATES, unpacked.forms, naive_forms):
        for form in template(graph, graph.ops[0], board.cpu):
            found.setdefault(family(form), form.complete())
    return [{}, *({"layer": form} for form in found.values())]


def main() -> None:
    """Builds every layer in every way for each core and writes the file."""
    table, version = {}, ""
    for board in map(find_board, BOARDS):
        builds = []
        for layer in LAYERS:
            graph = graph_of(layer)
            for forms in ways(graph, board):
                fast = placed(graph, board.cpu, forms)
                artifact = emit_steps(fast, "fit")
                firmware = build_firmware(artifact.write(default_build_folder() / "models" / artifact.model_hash), board)
                version, total = firmware.compiler, firmware.text_bytes + firmware.rodata_bytes + firmware.data_bytes
                programs = {program.name for form in forms.values() for program in form.functions}
                found = [one for one in symbols(firmware.elf) if one[0] not in programs]
                rest = total - len(artifact.blob) - program_bytes(forms)
                builds.append((family(forms.get("layer")), kernels_called(fast, Weights(fast)), found, rest))
        table[board.cpu] = fit(builds)
        print(board.cpu, table[board.cpu])
    FILE.write_text(json.dumps({"compiler": version, "cores": table}, indent=1) + "\n")


def fit(builds: list[tuple[str, set[str], Sizes, int]]) -> dict[str, object]:
    """Returns a core's row: of each build the family of its form, the kernels it calls, all symbols, the bytes of C in all."""
    runtime = set.intersection(*({name for name, _ in found} for _, _, found, _ in builds)) - GENERATED
    functions: dict[str, set[tuple[str, int]]] = {}
    rest = list[int]()
    operators: dict[str, list[int]] = {}
    for formed, called, found, total in builds:
        own = sum(size for name, size in found if name in GENERATED)
        kernels = {one for one in found if one[0] not in runtime | GENERATED}
        for name in called:
            functions.setdefault(name, set()).update(kernels)
        rest.append(total - own - sum(size for _, size in kernels))
        operators.setdefault(formed, []).append(own)
    calls = {name: round(float(np.mean(values))) for name, values in sorted(operators.items())}
    return {
        "runtime": round(float(np.mean(rest))),
        "calls": calls,
        "functions": {name: sorted(parts) for name, parts in sorted(functions.items())},
    }


def symbols(elf: Path) -> Sizes:
    """Returns name and size of every function and constant in flash, suffixes of the compiler removed."""
    with elf.open("rb") as stream:
        file = ELFFile(stream)
        tables = [section for section in file.iter_sections() if isinstance(section, SymbolTableSection)]
        return [
            (symbol.name.split(".")[0], symbol["st_size"])
            for table in tables
            for symbol in table.iter_symbols()
            if symbol["st_size"] and symbol["st_info"]["type"] in ("STT_FUNC", "STT_OBJECT") and symbol["st_value"] >> 29 == 0
        ]


if __name__ == "__main__":
    main()
