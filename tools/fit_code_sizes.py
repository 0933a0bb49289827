"""Writes tinyredux/codegen/code_sizes.json, the bytes of C in a firmware, for each core; and how far off predictions are.

    python tools/fit_code_sizes.py             compiles the kernels and builds random networks, for each core and chip family
    python tools/fit_code_sizes.py --check     predicts other networks and the built-in ones, links them, and writes
                                               data/records/predicted_bytes.json

Kernel functions, and which of them calls which, are read from their object files; the sizes of structs and of tr_model_run from
firmware. What a call in tr_model_run takes is fitted by least squares. Source: ours.
"""

import argparse
import itertools
import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection
from fit_cycles import random_net, trec_net

from tinyredux import nets
from tinyredux.boards import Board, board_names, find_board
from tinyredux.codegen import Kernels, code_sizes, emit_steps, layers
from tinyredux.codegen.calls import Weights
from tinyredux.codegen.parts import statements
from tinyredux.device import BuildError, Firmware, build_firmware, default_build_folder
from tinyredux.device.build import CROSS_COMPILER, board_flags, compiler_version, firmware_folder, option
from tinyredux.explore.fit import roomy
from tinyredux.explore.plans import int8_graph
from tinyredux.graph import ROUNDINGS, Graph, TrecConv
from tinyredux.kernels import FastSteps
from tinyredux.methods.partial import Partial

RECORD = Path("data/records/predicted_bytes.json")
BOARDS = ("disco_f469ni", "nucleo_u575zi_q", "nucleo_f746zg")  # one for each core
FITTED, CHECKED = (*range(36), *range(100, 136), *range(300, 306)), (*range(1000, 1020), *range(1100, 1118), *range(1300, 1304))
SINGLE = (*range(1020, 1024), *range(1118, 1122))
MOST_IN_PARTS = 30  # operators: planning more in parts takes minutes
Calls = dict[str, tuple[int, set[str]]]  # size and callees of each function, which is named with its file


def kernel_functions(board: Board, rounding: str) -> dict[str, list[tuple[str, int]]]:
    """Returns for each kernel that C may call all functions and constants that it draws into a firmware, with their bytes."""
    known, public, flags = Calls(), dict[str, str](), ["-DTR_SINGLE_ROUNDING=1"] * (rounding == "single")
    with tempfile.TemporaryDirectory() as folder:
        for source in sorted((firmware_folder() / "kernels").glob("*.c")):
            known |= sections(compiled(source, board, *flags, folder=Path(folder)), public)
    outside = {name for _, callees in known.values() for name in callees} - known.keys() - public.keys()
    known |= {name: (library_bytes(board, name), set()) for name in sorted(outside) if name.startswith("__aeabi")}
    return {name: sorted(reached(known, public, public[name])) for name in sorted(public)}


def library_bytes(board: Board, name: str) -> int:
    """Returns the bytes of a function of the compiler's own library with all that it needs."""
    with tempfile.TemporaryDirectory() as folder:
        (source := Path(folder) / "nothing.c").write_text("void _start(void);\nvoid _start(void) {}\n")
        sizes = []
        for more in ([], [f"-Wl,-u,{name}"]):
            link = [
                CROSS_COMPILER,
                *board_flags(board),
                *option("flags", "link").split(),
                *more,
                str(source),
                "-o",
                f"{folder}/elf",
            ]
            subprocess.run(link, check=True)
            sizes.append(
                sum(part["sh_size"] for part in ELFFile.load_from_path(f"{folder}/elf").iter_sections() if part["sh_flags"] & 2)
            )
    return sizes[1] - sizes[0]


def sections(path: Path, public: dict[str, str]) -> Calls:
    """Returns the sections of an object file's functions and constants, each padded to a word, with what they refer to; notes in
    `public` which name lies in which."""
    found, file = Calls(), ELFFile.load_from_path(path)
    parts = [*file.iter_sections()]
    names = [f"{path.stem}:{part.name}" for part in parts]
    for part, name in zip(parts, names, strict=True):
        if part.name.startswith((".text.", ".rodata")):
            found[name] = (-(-part["sh_size"] // 4) * 4, set())
        if isinstance(part, SymbolTableSection):
            defined = [
                one for one in part.iter_symbols() if one.name.startswith("tr_") and one["st_info"]["bind"] == "STB_GLOBAL"
            ]
            public |= {one.name: names[one["st_shndx"]] for one in defined if one["st_shndx"] != "SHN_UNDEF"}
    for part in parts:
        if isinstance(part, RelocationSection) and names[part["sh_info"]] in found:
            table = parts[part["sh_link"]]
            for use in part.iter_relocations():
                symbol = table.get_symbol(use["r_info_sym"])
                outside = symbol["st_shndx"] == "SHN_UNDEF"
                found[names[part["sh_info"]]][1].add(symbol.name if outside else names[symbol["st_shndx"]])
    return found


def reached(known: Calls, public: dict[str, str], first: str) -> set[tuple[str, int]]:
    """Returns the sections that one draws in, itself included."""
    todo, seen = [first], set[str]()
    while todo:
        name = todo.pop()
        name = public.get(name, name)
        if name in known and name not in seen:
            seen.add(name)
            todo += known[name][1]
    return {(name, known[name][0]) for name in seen}


def programs(board: Board, seeds: Iterable[int]) -> Iterator[FastSteps]:
    """Yields the programs of random networks."""
    for seed in seeds:
        yield from (fast for _, fast in ways(random_net(seed), board))
        if seed % 8 == 0:
            yield layers(trec_net(seed), Kernels(("fast", "reference")[seed // 8 % 2]), board)


def ways(graph: Graph, board: Board) -> Iterator[tuple[str, FastSteps]]:
    """Yields the ways in which `plan` computes a network, with their programs."""
    yield "", layers(graph, Kernels("fast"), board)
    yield "--kernels reference", layers(graph, Kernels("reference"), board)
    if len(graph.ops) < MOST_IN_PARTS and not any(isinstance(op, TrecConv) for op in graph.ops):
        yield "--method partial", Partial()(graph, board, Kernels("reference"))
        yield "--method partial --kernels fast", Partial()(graph, board, Kernels("fast"))


def built(fast: FastSteps, board: Board) -> Firmware:
    """Returns the firmware of a program."""
    artifact = emit_steps(fast, "fit")
    return build_firmware(artifact.write(default_build_folder() / "models" / artifact.model_hash), roomy(board))


def flash_of(firmware: Firmware) -> int:
    """Returns the bytes of flash that the linker has placed."""
    return firmware.flash_bytes


def sizes_in(path: Path) -> dict[str, int]:
    """Returns the sizes of all symbols of an object file or firmware."""
    tables = [part for part in ELFFile.load_from_path(path).iter_sections() if isinstance(part, SymbolTableSection)]
    return {one.name: one["st_size"] for table in tables for one in table.iter_symbols()}


def statics(elf: Path) -> int:
    """Returns the bytes of the runtime's variables, without the marks of items and the arena."""
    tables = [part for part in ELFFile.load_from_path(elf).iter_sections() if isinstance(part, SymbolTableSection)]
    return sum(
        one["st_size"]
        for table in tables
        for one in table.iter_symbols()
        if one["st_value"] >> 29 == 1 and one["st_info"]["type"] == "STT_OBJECT" and one.name not in ("tr_arena", "marks")
    )


def structs(board: Board) -> dict[str, int]:
    """Returns the bytes of every struct of tinyredux.h."""
    kinds = re.findall(r"^struct (tr_\w+) {", (firmware_folder() / "include" / "tinyredux.h").read_text(), re.M)
    text = '#include "tinyredux.h"\n' + "".join(f"char {kind}[sizeof(struct {kind})];\n" for kind in kinds)
    with tempfile.TemporaryDirectory() as folder:
        (source := Path(folder) / "sizes.c").write_text(text)
        found = sizes_in(compiled(source, board))
    return {kind: found[kind] for kind in kinds}


def compiled(source: Path, board: Board, *flags: str, folder: Path | None = None) -> Path:
    """Returns the object file of a source, in its own folder or in another."""
    target, include = (folder or source.parent) / f"{source.stem}.o", f"-I{firmware_folder() / 'include'}"
    subprocess.run([CROSS_COMPILER, *board_flags(board), include, *flags, "-c", str(source), "-o", str(target)], check=True)
    return target


def run_costs(board: Board) -> list[float]:
    """Returns what the size of tr_model_run is made of: least squares of its bytes as shares of the whole firmware's."""
    rows, sizes = list[tuple[int, ...]](), list[tuple[int, int]]()
    for fast in programs(board, FITTED):
        rows.append(code_sizes.features(*run_of(fast)))
        with tempfile.TemporaryDirectory() as folder:
            emit_steps(fast, "fit").write(Path(folder))
            run = sizes_in(compiled(Path(folder) / "model.c", board))["tr_model_run"]
        sizes.append((run, code_sizes.flash_bytes(fast, board)))
    run, total = np.array(sizes, float).T
    costs = np.linalg.lstsq(np.array(rows) / total[:, None], run / total, rcond=None)[0]
    return [round(float(cost), 2) for cost in costs]


def run_of(fast: FastSteps) -> tuple[str, int]:
    """Returns the statements of tr_model_run, and how many items the program has."""
    return "\n".join(line for item in statements(fast, Weights(fast), {}) for line in item), len(fast.program.nodes)


def left_of(fast: FastSteps, firmware: Firmware, board: Board) -> float:
    """Returns the bytes of a firmware beside what is predicted of it and tr_model_run."""
    known = code_sizes.flash_bytes(fast, board) - code_sizes.run_bytes(*run_of(fast), board)
    return flash_of(firmware) - known - sizes_in(firmware.elf)["tr_model_run"]


def fit_all() -> None:
    """Compiles, builds and writes the file; the runtime of each family is what is left of the bytes.

    The choice of kernels within a limit of flash asks the file, so it holds all cores at any time, those not yet done as before.
    """
    table: dict[str, dict[str, Any]] = json.loads(code_sizes.FILE.read_text())["cores"]
    version = compiler_version(CROSS_COMPILER)
    families = {board.family: board for board in map(find_board, reversed(board_names(every=True)))}
    for board in map(find_board, BOARDS):
        functions = {rounding: kernel_functions(board, rounding) for rounding in ROUNDINGS}
        count = len(code_sizes.features("", 0))
        costs = [*table[board.cpu]["run"], *[0.0] * count][:count]  # those of before, 0 for a new feature
        table[board.cpu] |= {"structs": structs(board), "functions": functions, "run": costs}
        write(version, table)
        runtime = {family: {"flash": 0, "sram": 0} for family, place in families.items() if place.cpu == board.cpu}
        table[board.cpu] |= {"runtime": runtime, "run": run_costs(board)}
        write(version, table)
        for family in runtime:
            place = families[family]
            tries = [(fast, built(fast, place)) for fast in programs(place, (5, 6, 7, 101, 102))]
            left = [left_of(fast, firmware, place) for fast, firmware in tries]
            runtime[family] = {"flash": round(float(np.median(left))), "sram": statics(tries[0][1].elf)}
        print(board.cpu, runtime, table[board.cpu]["run"])
    write(version, table)


def write(version: str, table: dict[str, dict[str, Any]]) -> None:
    """Writes the file, a list without lists in it on one line."""
    text = json.dumps({"compiler": version, "cores": table}, indent=1)
    code_sizes.FILE.write_text(re.sub(r"\[[^\[\]]*\]", lambda found: " ".join(found[0].split()), text) + "\n")
    code_sizes.tables.cache_clear()


def check_all() -> None:
    """Predicts and links networks that the fit has not seen, and writes the record, which holds what is done so far."""
    rows, boards = list[dict[str, Any]](), [*map(find_board, board_names(every=True))]
    for number, (name, graph) in enumerate(checked()):
        board = boards[number % len(boards)]
        for method, fast in itertools.islice(ways(graph, board), number % 2, None, 2):
            if (found := row(name, method, fast, board)) is not None:
                rows.append(found)
                print(*found.values(), flush=True)
        if rows:
            off = {kind: np.abs([one[f"{kind}_error"] for one in rows]) for kind in ("sram", "flash")}
            summary = {kind: {"mean": round(float(some.mean()), 5), "largest": float(some.max())} for kind, some in off.items()}
            record = {
                "schema": 1, "kind": "predicted_bytes", "command": "python tools/fit_code_sizes.py --check",
                "networks": len({one["net"] for one in rows}), "errors": summary, "rows": rows,
            }  # fmt: skip
            RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(summary)


def checked() -> Iterator[tuple[str, Graph]]:
    """Yields the networks of the record: random ones, and built-in ones that are planned in parts."""
    yield from ((f"random {seed}", random_net(seed)) for seed in CHECKED)
    yield from ((f"random {seed}, single rounding", replace(random_net(seed), rounding="single")) for seed in SINGLE)
    yield from ((f"trec {seed}", trec_net(seed)) for seed in range(1000, 1004))
    named = ((name, int8_graph(name, "random")) for name in nets.names())
    yield from ((name, graph) for name, graph in named if len(graph.ops) < MOST_IN_PARTS)


def row(name: str, method: str, fast: FastSteps, board: Board) -> dict[str, Any] | None:
    """Returns what is predicted and what the linker says of a program, None where it does not fit."""
    try:
        firmware = built(fast, board)
    except BuildError:
        return None
    flash, sram = flash_of(firmware), firmware.bss_bytes + firmware.data_bytes
    predicted = {"flash": code_sizes.flash_bytes(fast, board), "sram": code_sizes.sram_bytes(fast, board)}
    return {
        "net": name, "board": board.name, "method": method, "sram_predicted": predicted["sram"], "sram_linked": sram,
        "sram_error": round(predicted["sram"] / sram - 1, 5), "flash_predicted": predicted["flash"], "flash_linked": flash,
        "flash_error": round(predicted["flash"] / flash - 1, 5),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare predictions with the linker instead of fitting")
    check_all() if parser.parse_args().check else fit_all()
