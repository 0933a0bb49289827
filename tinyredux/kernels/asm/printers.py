"""A function as GNU assembly for the boards and as C for the host: the same instructions in the same order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tinyredux.kernels.asm.function import Block, Function, Instruction, Node, Operand, Register, instructions

CALLEE_SAVED = ("r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "lr")
ASSEMBLY_HEAD = "    .syntax unified\n    .thumb\n"
ASSEMBLY_TAIL = '    .section .note.GNU-stack, "", %progbits\n'
C_HEAD = '#include "twin.h"\n'


def print_assembly(function: Function) -> str:
    """Returns one function in its own section; put ASSEMBLY_HEAD before the first and ASSEMBLY_TAIL behind the last."""
    name = function.name
    saved = [place for place in CALLEE_SAVED if place in function.used or place == "lr"]
    saved = ["r3", *saved] if len(saved) % 2 else saved  # the stack stays a multiple of 8
    highest = max((int(place[1:]) for place in function.used if place[0] == "s"), default=0)
    floats = [f"    vpush {{s16-s{highest}}}"] if highest >= 16 else []
    lines = [*_about(function), f'    .section .text.{name}, "ax", %progbits', "    .balign 16", f"    .global {name}"]
    lines += ["    .thumb_func", f"    .type {name}, %function", f"{name}:", f"    push.w {{{', '.join(saved)}}}", *floats]
    lines += _assembly(function.body, f".L{name}_", iter(range(1, 1 << 20)))
    lines += [text.replace("vpush", "vpop") for text in floats]
    places = ", ".join("pc" if place == "lr" else place for place in saved)
    return "\n".join([*lines, f"    pop.w {{{places}}}", f"    .size {name}, . - {name}", ""])


def print_longest_loop(function: Function) -> str:
    """Returns the assembly of the longest loop without a loop inside: where the time goes."""
    found = max(_inner_loops(function.body), key=lambda block: len(block.body))
    return "\n".join(_assembly([found], ".L", iter((1,))))


def _inner_loops(nodes: Sequence[Node]) -> Iterator[Block]:
    for node in nodes:
        if isinstance(node, Block):
            inside = list(_inner_loops(node.body))
            yield from inside or [node]


def print_c(function: Function) -> str:
    """Returns one C function of equal effect; put C_HEAD before the first."""
    arguments = {f"r_{name}": name for name in (text.split()[-1].lstrip("*") for text in function.arguments)}
    variables = [register for known in function.variables.values() for register in known]
    lines = [*_about(function), function.declaration, "{"]
    for register in variables:
        kind, argument = "uintptr_t" if register.pointer else "uint32_t", arguments.get(register.variable)
        lines.append(f"    {kind} {register.variable} = {f'({kind}){argument}' if argument else '0'};")
    sets = {flag for instruction in instructions(function.body) for flag in instruction.op.sets}
    flags = [name for flag, name in (("C", "carry"), ("G", "ge")) if flag in sets]
    lines += [f"    uint32_t {name} = 0;" for name in flags] + [f"    (void){name};" for name in flags]
    lines += [f"    (void){register.variable};" for register in variables]
    return "\n".join([*lines, *_c(function.body, 1), "}", ""])


def _about(function: Function) -> list[str]:
    if not function.about:
        return []
    first, *rest = function.about.splitlines()
    return [f"/* {first}", *(f" * {line}".rstrip() for line in rest), " */"] if rest else [f"/* {first} */"]


def _assembly(nodes: Sequence[Node], prefix: str, numbers: Iterator[int]) -> list[str]:
    lines = []
    for node in nodes:
        if isinstance(node, Instruction):
            operands = [_asm_operand(value) for value in node.operands]
            shift = ", " + node.shift.replace(" ", " #") if node.shift else ""
            lines.append("    " + node.op.asm.format(*operands, shift=shift))
        else:
            label, place = f"{prefix}{next(numbers)}", node.left.place
            test = f"subs.w {place}, {place}, #1" if node.counted else f"cmp.w {place}, {_asm_operand(node.right)}"
            lines += [f"{label}:", *_assembly(node.body, prefix, numbers), f"    {test}", f"    bne.w {label}"]
    return lines


def _asm_operand(value: Operand) -> str:
    return value.place if isinstance(value, Register) else f"#{value}"


def _c(nodes: Sequence[Node], depth: int) -> list[str]:
    indent, lines = "    " * depth, []
    for node in nodes:
        if isinstance(node, Instruction):
            lines.append(indent + _statement(node))
        else:
            lines += [f"{indent}do {{", *_c(node.body, depth + 1), f"{indent}}} while ({_test(node)});"]
    return lines


def _test(block: Block) -> str:
    left, right = block.left, block.right
    if block.counted:
        return f"({left.variable} = {left.variable} - 1) != 0"
    kind = "intptr_t" if left.pointer else "int32_t"
    return f"({kind}){left.variable} != " + (f"({kind}){right.variable}" if isinstance(right, Register) else str(right))


def _statement(node: Instruction) -> str:
    """The C statement: numbers take the type of the result, and what is added to an address is widened with its sign."""
    first, last = node.operands[0], len(node.op.roles) - 1
    wide = isinstance(first, Register) and first.pointer and node.op.roles[0] in "wm"
    operands = []
    for i, (role, value) in enumerate(zip(node.op.roles, node.operands, strict=True)):
        if isinstance(value, int):
            kind = {"n": "", "o": "(uintptr_t)", "s": "(uintptr_t)" if wide else "(uint32_t)"}[role]
            operands.append(f"{kind}({value})" if value < 0 else f"{kind}{value}")
            continue
        text = value.variable
        if node.shift and i == last:
            text = f"tw_{node.shift.split()[0]}({text}, {node.shift.split()[1]})"
        if role in "rs" and wide != value.pointer:
            text = f"(uintptr_t)(intptr_t)(int32_t){text}" if wide else f"(uint32_t){text}"
        operands.append(text)
    return node.op.c.format(*operands)
