"""Thumb code to `timing.Instruction` records, with Capstone."""

from collections.abc import Iterable
from functools import cache, lru_cache, reduce
from operator import or_
from typing import Any

import capstone  # type: ignore[import-untyped]
from capstone import arm_const as arm

from tinyredux.simulator.timing import BRANCHES, KINDS, NO_REGISTER, PROGRAM_COUNTER, STACK_POINTER, Instruction

_ENGINE = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS | capstone.CS_MODE_V8)
_ENGINE.detail = True

_KINDS = {mnemonic: name for name, kind in KINDS.items() for mnemonic in kind.names}
_STACK_LISTS = ("push", "pop", "vpush", "vpop")
_LONG = ("smlal", "smlsl", "umlal", "umaal", "smull", "umull")  # two registers hold the result
_EXTEND_AND_ADD = ("sxta", "uxta")
_ACCESS_BYTES = {"b": 1, "sb": 1, "h": 2, "sh": 2, "tbb": 1, "tbh": 2}


@cache
def _register_bit(number: int) -> int:
    """Mask of a Capstone register in the numbering of timing.Instruction; 0 for flags and others."""
    if arm.ARM_REG_R0 <= number <= arm.ARM_REG_R12:
        return 1 << number - int(arm.ARM_REG_R0)
    if arm.ARM_REG_S0 <= number <= arm.ARM_REG_S31:
        return 1 << 32 + number - int(arm.ARM_REG_S0)
    if arm.ARM_REG_D0 <= number <= arm.ARM_REG_D15:
        return 3 << 32 + 2 * (number - int(arm.ARM_REG_D0))
    return {arm.ARM_REG_SP: 1 << 13, arm.ARM_REG_LR: 1 << 14, arm.ARM_REG_PC: 1 << 15}.get(number, 0)


def _mask(registers: Iterable[int]) -> int:
    return reduce(or_, map(_register_bit, registers), 0)


def _listed(operands: Iterable[Any]) -> int:
    """Returns the mask of the operands that are registers."""
    return _mask(operand.reg for operand in operands if operand.type == arm.ARM_OP_REG)


def _number(mask: int) -> int:
    return mask.bit_length() - 1 if mask else NO_REGISTER


def decode_block(code: bytes) -> list[Instruction]:
    """Returns the instructions of a basic block; those under an IT instruction are marked conditional."""
    found: list[Instruction] = []
    position = left = 0
    while position < len(code):
        size = 4 if code[position + 1] >> 3 in (0b11101, 0b11110, 0b11111) else 2  # bytes
        instruction = decode(code[position : position + size], left > 0)
        left = instruction.words if instruction.kind == "it" else max(0, left - 1)
        found.append(instruction)
        position += size
    return found


@lru_cache(maxsize=100_000)
def decode(code: bytes, conditional: bool) -> Instruction:
    """Returns one instruction, decoded from its 2 or 4 bytes; an unknown one counts as a plain 1-cycle operation."""
    if len(code) == 2 and code[1] == 0xBF and code[0] & 15:
        mask = code[0] & 15
        return Instruction(2, "it", words=4 - ((mask & -mask).bit_length() - 1))
    if len(code) == 2 and code[1] == 0xBF:
        return Instruction(2, "wait" if code[0] in (0x20, 0x30) else "nop", conditional=conditional)
    insn = next(_ENGINE.disasm(code, 0), None)
    if insn is None:
        return Instruction(len(code), "alu", conditional=conditional)
    name = insn.insn_name()
    if name in _STACK_LISTS or name.startswith(("ldm", "stm", "vldm", "vstm")):
        fields = _list_fields(insn, name)
    elif name.startswith(("ldr", "str", "vldr", "vstr", "tb")):
        fields = _memory_fields(insn, name)
    else:
        fields = _other_fields(insn, name)
    reads, writes = map(_mask, insn.regs_access())
    fields = {"reads": reads, "writes": writes} | fields
    kind, size = fields["kind"], len(code)
    to_pc = bool(fields["writes"] >> PROGRAM_COUNTER & 1) or name.startswith("tb") or kind in BRANCHES
    late = name.startswith(_EXTEND_AND_ADD) or (kind == "alu" and _shifts_an_operand(code))
    return Instruction(size, conditional=conditional, to_pc=to_pc, late=late, sets_flags=bool(insn.update_flags), **fields)


def _shifts_an_operand(code: bytes) -> bool:
    """Whether a 32-bit data-processing instruction shifts its second register, or has a constant of a shifted byte."""
    if len(code) == 2:
        return False
    first, second = (int.from_bytes(code[i : i + 2], "little") for i in (0, 2))
    if first & 0xFE00 == 0xEA00:
        return bool(second & 0x70F0) and first & 0xFFEF != 0xEA4F
    return first & 0xFA00 == 0xF000 and not second & 0x8000 and bool(first & 0x400 or second & 0x4000)


def _memory_fields(insn: capstone.CsInsn, name: str) -> dict[str, Any]:
    """Fields of a single or double load or store, and of the table branches."""
    memory = next(operand for operand in insn.operands if operand.type == arm.ARM_OP_MEM)
    base_bit, index_bit = _register_bit(memory.mem.base), _register_bit(memory.mem.index)
    base, index = _number(base_bit), _number(index_bit)
    suffix = name if name.startswith("tb") else name.removeprefix("v")[3:]
    is_double = name in ("vldr", "vstr") and arm.ARM_REG_D0 <= insn.operands[0].reg <= arm.ARM_REG_D31
    offset = 0 if insn.post_index else memory.mem.disp
    fields: dict[str, Any] = {
        "kind": "load" if name.startswith(("ldr", "vldr", "tb")) else "store", "base": base, "index": index,
        "shift": 1 if name == "tbh" else memory.shift.value if index != NO_REGISTER else 0,
        "offset": -offset if memory.subtracted and offset > 0 else offset, "words": 2 if suffix == "d" or is_double else 1,
        "access_bytes": _ACCESS_BYTES.get(suffix, 4), "address_reads": base_bit | index_bit,
    }  # fmt: skip
    if insn.writeback and base == STACK_POINTER:
        last = insn.operands[-1]
        fields["stack_bytes"] = -(last.imm if insn.post_index and last.type == arm.ARM_OP_IMM else memory.mem.disp)
    return fields


def _list_fields(insn: capstone.CsInsn, name: str) -> dict[str, Any]:
    """Fields of a load or store of a register list."""
    on_stack, loads = name in _STACK_LISTS, name in ("pop", "vpop") or "ldm" in name
    base = 1 << STACK_POINTER if on_stack else _register_bit(insn.operands[0].reg)
    listed = _listed(insn.operands[0 if on_stack else 1 :])
    moved, words = base if on_stack or insn.writeback else 0, listed.bit_count()
    fields: dict[str, Any] = {
        "kind": "load-many" if loads else "store-many", "base": base.bit_length() - 1, "words": words, "address_reads": base,
        "offset": -4 * words if name in ("ldmdb", "vldmdb") else 0,
    }  # fmt: skip
    if name.startswith("v"):  # of which Capstone does not list all registers
        fields |= {"reads": base if loads else base | listed, "writes": moved | listed if loads else moved}
    if moved == 1 << STACK_POINTER:
        fields["stack_bytes"] = -4 * words if loads else 4 * words
    return fields


def _other_fields(insn: capstone.CsInsn, name: str) -> dict[str, Any]:
    """Fields of everything that is no load or store; Capstone does not list all registers that a product or a part is made of."""
    kind = _KINDS.get(name, "float" if name.startswith("v") else "alu")
    if name == "b":
        kind = "branch" if insn.cc in (arm.ARM_CC_AL, arm.ARM_CC_INVALID) else "branch-if"
    fields: dict[str, Any] = {"kind": kind}
    if kind in ("mac", "mul", "dsp"):
        long = name.startswith(_LONG)
        fields["reads"] = _mask(insn.regs_access()[0]) | _listed(insn.operands[(0 if kind == "mac" else 2) if long else 1 :])
        if name.startswith(_EXTEND_AND_ADD):
            fields["adds"] = _register_bit(insn.operands[-2].reg)
        elif kind == "mac":
            fields["adds"] = _listed(insn.operands[:2] if long else insn.operands[3:])
    elif name in ("sub", "subw", "add", "addw") and insn.operands[0].reg == arm.ARM_REG_SP:
        last = insn.operands[-1]
        if last.type == arm.ARM_OP_IMM:
            fields["stack_bytes"] = last.imm if name.startswith("sub") else -last.imm
    return fields
