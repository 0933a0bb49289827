"""What a function costs on a core, predicted from its text: cycles without flash stalls, and bytes of code.

Every straight line of instructions is priced by the timing model, times how often it runs (`times` of the blocks around it).
A chain of loads breaks where it goes from flash to SRAM or back: pointers to constant 16- or 32-bit numbers are taken to point
at flash. Words that are not aligned, and stalls of the flash (`stalls`), are left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

from tinyredux.kernels.asm.function import ADDRESS, READ, WRITTEN, Block, Function, Instruction, Node, Register, straight_lines
from tinyredux.kernels.asm.instructions import Op
from tinyredux.kernels.asm.printers import CALLEE_SAVED
from tinyredux.simulator import NO_REGISTER, RULES, Rules, price_block
from tinyredux.simulator import Instruction as Timed

CALL_CYCLES = 8  # branch with link, arguments into registers, pipeline refill
COMPARE, BRANCH = Timed(4, "alu"), Timed(4, "branch-if", to_pc=True)


def function_cycles(function: Function, core: str) -> float:
    """Returns the cycles of one call, its saving of registers included."""
    rules = RULES[core]
    saved = 1 + sum(place in function.used for place in CALLEE_SAVED if place != "lr")
    flash = frozenset(text.split()[-1].lstrip("*") for text in function.arguments if re.match(r"const int(16|32)_t \*", text))
    return CALL_CYCLES + 2 * (rules.many + saved) + rules.taken_indirect + _cycles(function.body, rules, flash)


def code_bytes(function: Function) -> int:
    """Returns the bytes of a function's code: words, of which a narrow comparison and the `it` behind it are one."""
    kept = any(place[0] == "s" and int(place[1:]) >= 16 for place in function.used)  # which are saved and restored too
    return 4 * (2 + 2 * kept + _words(function.body))


def _words(nodes: Sequence[Node]) -> int:
    lines = (2 + _words(node.body) if isinstance(node, Block) else node.op.asm.count("\n") + 1 for node in nodes)
    return sum(lines) - sum(not isinstance(node, Block) and "\n    it " in node.op.asm for node in nodes)


def _cycles(nodes: Sequence[Node], rules: Rules, flash: frozenset[str], end: Sequence[Timed] = ()) -> float:
    """Returns the cycles of one run of `nodes` and of the instructions at their `end`."""
    total, line = 0.0, list[Timed]()
    for part in straight_lines(nodes):
        if isinstance(part, Block):
            total, line = total + _line(line, rules), []
            total += part.times * _cycles(part.body, rules, flash, (COMPARE, BRANCH)) + (part.times - 1) * rules.taken
        else:
            line = [each for node in part for each in timed(node)]
            total += rules.chain * sum(_breaks(before, node, flash) for before, node in pairwise(part))
    return total + _line([*line, *end], rules)


def _line(line: Sequence[Timed], rules: Rules) -> int:
    return price_block(rules, line).cycles if line else 0


def _breaks(before: Instruction, node: Instruction, flash: frozenset[str]) -> bool:
    """Returns whether two loads that follow each other read from different memories."""
    if before.op.kind != "load" or node.op.kind != "load":
        return False
    return (before.registers(ADDRESS)[0].name in flash) != (node.registers(ADDRESS)[0].name in flash)


def timed(node: Instruction) -> list[Timed]:
    """Returns the machine instructions that one of a function stands for, as the timing model sees them."""
    places = tuple(value.place if isinstance(value, Register) else "" for value in node.operands)
    return _timed(node.op, node.name, places, bool(node.shift))


@cache
def _timed(op: Op, name: str, places: tuple[str, ...], shifted: bool) -> list[Timed]:
    """Returns the same of an instruction whose operands lie in `places`, "" for a number: most are met again and again."""

    def registers(roles: str) -> list[str]:
        return [place for role, place in zip(op.roles, places, strict=True) if place and role in roles]

    reads, writes, address = (_mask(registers(roles)) for roles in (READ, WRITTEN, ADDRESS))
    base, index = (*map(_number, registers(ADDRESS)), NO_REGISTER, NO_REGISTER)[:2]
    words = op.roles.count("w" if "load" in op.kind else "r") if op.kind.endswith("many") else 1
    extends = name.startswith(("sxta", "uxta"))
    late = extends or (op.kind == "alu" and shifted)
    added = [1] if extends else [0, 1] if op.roles == "mmrr" else [3] if op.kind == "mac" else []
    adds = _mask([places[i] for i in added if places[i]])
    one = Timed(4, op.kind, reads, writes, address, base, index, words=words, adds=adds, late=late)
    return [one] * (2 if "\n" in op.asm else 1)


def _mask(places: Sequence[str]) -> int:
    return sum({1 << _number(place) for place in places})


def _number(place: str) -> int:
    if place[0] == "s":
        return 32 + int(place[1:])
    return 14 if place == "lr" else int(place[1:])
