"""The flash and the SRAM of a network's firmware, predicted before anything is built.

Arrays lie as `blob` packs them, and the code of every generated function is known to the byte. What is left is C. code_sizes.json
has the bytes of every kernel function with all that it calls, of every struct of parameters, and of the runtime of each chip
family; of the calls in tr_model_run it has what a call, an argument, a loop takes on average (`features`). It was read from
compiled sources and built firmware by tools/fit_code_sizes.py, with the compiler that it names; another one differs a little. How
far off predictions are is data/records/predicted_bytes.json.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from tinyredux.boards import Board
from tinyredux.codegen.artifact import NOTHING, Copies
from tinyredux.codegen.calls import Weights
from tinyredux.codegen.parts import Declared, statements
from tinyredux.kernels import FastSteps, code_bytes

COPY_ALIGNMENT = 16  # of what start-up copies to RAM
GAP_BYTES = 5  # before a generated function, which begins at a multiple of 16: the mean, whatever lies before it
VENEER_BYTES = 8  # of the jump by which code in flash reaches a function in RAM, too far for a branch
LOOP = re.compile(r"for \(int32_t \w+ = (\d+); \w+ < (\d+); \w+(?:\+\+| \+= (\d+))\)")  # between two constants
# Two or three rounds of a body without blocks, which the compiler may write out.
REPEATED = re.compile(r"for \(int32_t \w+ = [^;]*; \w+ < ([23]); [^)]*\) \{\n([^{}]*)\}")
FILE = Path(__file__).with_name("code_sizes.json")


def flash_bytes(fast: FastSteps, board: Board, copies: Copies = NOTHING) -> int:
    """Returns the predicted bytes of flash of a firmware: weights, code and runtime, every function once. Start-up copies
    `copies` from there."""
    table, weights, structs = tables()[board.cpu], Weights(fast), dict[Declared, str]()
    text = "\n".join(line for item in statements(fast, weights, structs) for line in item)
    kept = set(re.findall(r"&(\w+)", text))  # a struct that only copies are made of becomes constants in code
    parameters = [kind for (kind, _, _), name in structs.items() if name in kept]
    parameters += re.findall(r"const struct (\w+) \w+ = ", text)
    pointers = sum(4 * (names.count(",") + 1) for names in re.findall(r"products\[\] = \{(.*?)\}", text, re.S))
    kernels = table["functions"][fast.program.graph.rounding]
    parts = {tuple(part) for name in re.findall(r"\b(tr_\w+)\(", text) for part in kernels.get(name, [])}
    return int(
        runtime(board)["flash"]
        + name_bytes(fast)
        + run_bytes(text, len(fast.program.nodes), board)
        + sum(table["structs"][kind] for kind in parameters)
        + pointers
        + sum(size for _, size in parts)
        + program_bytes(fast)
        + len(weights.blob.data)
        + VENEER_BYTES * len(copies.functions)
    )


def array_bytes(fast: FastSteps) -> int:
    """Returns the bytes of all arrays of a program: its weights and tables."""
    return len(Weights(fast).blob.data)


def sram_bytes(fast: FastSteps, board: Board) -> int:
    """Returns the predicted bytes of SRAM beside the stack: the runtime with a mark for each item, then the arena."""
    before = runtime(board)["sram"] + 4 * (len(fast.program.nodes) + 1)
    return -(-(-(-before // 16) * 16 + fast.arena.size_bytes) // 8) * 8


def run_bytes(text: str, items: int, board: Board) -> float:
    """Returns the predicted bytes of tr_model_run, whose statements are `text`."""
    costs: list[float] = tables()[board.cpu]["run"]
    return sum(cost * count for cost, count in zip(costs, features(text, items), strict=True))


def features(text: str, items: int) -> tuple[int, ...]:
    """Returns what the size of tr_model_run depends on: itself, items; calls, their arguments, those on the stack, loops, calls
    in loops, structs that are copied to the stack, addresses that grow from part to part; branches, choices, pointers, large
    constants, variables; loops of one, of two, of three or four rounds, which the compiler may take apart, and repeated calls.
    """
    lines = text.splitlines()
    calls = [(line, line.count(", ") + 1) for line in lines if re.search(r"\b\w+\(.*\);$", line) and "_part." not in line]
    rounds = [-((int(first) - int(end)) // int(step or 1)) for first, end, step in LOOP.findall(text)]
    return (
        1, items, len(calls), sum(count for _, count in calls), sum(max(0, count - 4) for _, count in calls),
        text.count("for ("), sum(line.startswith("     ") for line, _ in calls),
        len(re.findall(r"^(?!.*static).*struct \w+ \w+ = ", text, re.M)),
        sum(len(re.findall(r"\* [a-z]\b|\b[a-z] \*", line)) for line in lines),
        text.count("if ("), text.count(" ? "), text.count("int8_t *const"), len(re.findall(r"\d{5,}u", text)),
        len(re.findall(r"const int32_t \w+ = ", text)),
        rounds.count(1), rounds.count(2), rounds.count(3) + rounds.count(4),
        sum((int(times) - 1) * body.count(");") for times, body in REPEATED.findall(text)),
    )  # fmt: skip


def name_bytes(fast: FastSteps) -> int:
    """Returns the bytes of the names of the items, each at a word and with a pointer to it."""
    return sum(4 + (len("+".join(item.ops)) + 4) // 4 * 4 for item in fast.program.schedule.items)


def program_bytes(fast: FastSteps) -> int:
    """Returns the bytes of all generated functions, each once, and of the gaps before them."""
    found = {code.name: code for code in (*fast.codes(), *(code for form in fast.forms.values() for code in form.functions))}
    later = sum(form.later.code_bytes for form in fast.forms.values() if form.later)
    return sum(map(code_bytes, found.values())) + GAP_BYTES * len(found) + later


def runtime(board: Board) -> dict[str, int]:
    """Returns the bytes of flash and SRAM that the runtime takes on a board; of an unknown chip family, those of the largest."""
    families: dict[str, dict[str, int]] = tables()[board.cpu]["runtime"]
    return families.get(board.family) or max(families.values(), key=lambda sizes: sizes["flash"])


@cache
def tables() -> dict[str, dict[str, Any]]:
    """Returns the sizes of each core."""
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text())["cores"]
    return found
