"""What a Program costs on a core, predicted from its text: cycles without flash stalls, and bytes of code.

Every straight line of instructions is priced by the timing model, times how often it runs (`times` of the blocks around it).
What depends on addresses is left out: unaligned words, chains of loads broken between flash and SRAM.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinyredux.fast.printers import CALLEE_SAVED
from tinyredux.fast.program import Block, Comment, Instruction, Node, Program, Register, instructions
from tinyredux.timing import NO_REGISTER, RULES, Rules, price_block
from tinyredux.timing import Instruction as Timed

CALL_CYCLES = 8  # branch with link, arguments into registers, pipeline refill
COMPARE, BRANCH = Timed(4, "alu"), Timed(4, "branch-if", to_pc=True)


def program_cycles(program: Program, core: str) -> float:
    """Returns the cycles of one call, its saving of registers included."""
    rules = RULES[core]
    saved = 1 + sum(place in program.used for place in CALLEE_SAVED if place != "lr")
    return CALL_CYCLES + 2 * (rules.many + saved) + rules.taken_indirect + _cycles(program.body, rules)


def code_bytes(program: Program) -> int:
    """Returns the bytes of a Program's code: words, but for conditional moves."""
    words = 2 + sum(node.op.asm.count("\n") + 1 for node in instructions(program.body)) + 2 * _blocks(program.body)
    return 4 * words


def _blocks(nodes: Sequence[Node]) -> int:
    return sum(1 + _blocks(node.body) for node in nodes if isinstance(node, Block))


def _cycles(nodes: Sequence[Node], rules: Rules) -> float:
    """Returns the cycles of one run of `nodes`."""
    total, line = 0.0, list[Timed]()
    for node in nodes:
        if isinstance(node, Comment):
            continue
        if isinstance(node, Instruction):
            line += timed(node)
            continue
        if node.kind == "if":
            line += [COMPARE, BRANCH]
            total += (1 - node.times) * rules.taken + node.times * _cycles(node.body, rules)
            continue
        total, line = total + _line(line, rules), []
        if any(isinstance(inner, Block) for inner in node.body):
            once = _cycles(node.body, rules) + _line([COMPARE, BRANCH], rules)
        else:
            body = [each for inner in node.body if isinstance(inner, Instruction) for each in timed(inner)]
            once = _line([*body, COMPARE, BRANCH], rules)
        total += node.times * once + (node.times - 1) * rules.taken
    return total + _line(line, rules)


def _line(line: Sequence[Timed], rules: Rules) -> int:
    return price_block(rules, line).cycles if line else 0


def timed(node: Instruction) -> list[Timed]:
    """Returns the machine instructions of one of a Program as the timing model sees them."""
    reads = writes = address = 0
    base = index = NO_REGISTER
    for role, value in zip(node.op.roles, node.operands, strict=True):
        if not isinstance(value, Register):
            continue
        bit = 1 << _number(value.place)
        reads |= bit if role in "rsmab" else 0
        writes |= bit if role in "wmb" else 0
        if role in "ab":
            address |= bit
            base, index = (_number(value.place), index) if base == NO_REGISTER else (base, _number(value.place))
    words = node.op.roles.count("w" if "load" in node.op.kind else "r") if node.op.kind.endswith("many") else 1
    one = Timed(4, node.op.kind, reads, writes, address, base, index, words=words)
    return [one] * (2 if "\n" in node.op.asm else 1)


def _number(place: str) -> int:
    if place[0] == "s":
        return 32 + int(place[1:])
    return 14 if place == "lr" else int(place[1:])
