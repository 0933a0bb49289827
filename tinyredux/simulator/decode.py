"""Thumb code to `timing.Instruction` records, with Capstone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import capstone  # type: ignore[import-untyped]
from capstone import arm_const as arm

from tinyredux.simulator.timing import NO_REGISTER, PROGRAM_COUNTER, STACK_POINTER, Instruction

_ENGINE = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS | capstone.CS_MODE_V8)
_ENGINE.detail = True

_KINDS = {
    **dict.fromkeys(
        "smlad smladx smlsd smlsdx smlald smlaldx smlsld smlsldx smlal umlal umaal mla mls smlabb smlabt smlatb smlatt smlawb "
        "smlawt smmla smmlar smmls smmlsr smlalbb smlalbt smlaltb smlaltt usada8".split(),
        "mac",
    ),
    **dict.fromkeys(
        "mul umull smull smulbb smulbt smultb smultt smulwb smulwt smmul smmulr smuad smuadx smusd smusdx usad8".split(), "mul"
    ),
    **dict.fromkeys("mrs vmrs vmsr svc bkpt udf".split(), "system"),
    **dict.fromkeys("msr cps cpsid cpsie".split(), "mask"),
    **dict.fromkeys("dsb dmb isb".split(), "barrier"),
    **dict.fromkeys("nop pld".split(), "nop"),
    **dict.fromkeys("sdiv udiv".split(), "divide"),
    **dict.fromkeys("vmla vmls vnmla vnmls vfma vfms vfnma vfnms".split(), "float-mac"),
    **dict.fromkeys("vdiv vsqrt".split(), "float-divide"),
    **dict.fromkeys("bx blx bxns blxns".split(), "indirect"),
    **dict.fromkeys(
        "sxtb sxth uxtb uxth sxtb16 uxtb16 sxtab sxtah uxtab uxtah sxtab16 uxtab16 ubfx sbfx bfi bfc pkhbt pkhtb ssat usat "
        "ssat16 usat16 clz rbit rev rev16 revsh sel qadd qsub qdadd qdsub sadd16 ssub16 uadd8 usub8 sadd8 ssub8 uqsub8".split(),
        "dsp",
    ),
    "bl": "call",
}
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


def _mask(registers: Sequence[int]) -> int:
    mask = 0
    for register in registers:
        mask |= _register_bit(register)
    return mask


def _number(register: int) -> int:
    return _register_bit(register).bit_length() - 1 if register else NO_REGISTER


def is_wide(half_word: int) -> bool:
    """Whether a half-word is the first of a 32-bit Thumb instruction."""
    return half_word >> 11 in (0b11101, 0b11110, 0b11111)


def decode_block(code: bytes, in_it: int = 0) -> list[Instruction]:
    """Returns the instructions of a basic block; those under an IT instruction are marked conditional.

    `in_it` says how many of the first instructions are under an IT instruction of the block before.
    """
    found: list[Instruction] = []
    position = 0
    left = in_it
    while position < len(code):
        size = 4 if is_wide(int.from_bytes(code[position : position + 2], "little")) else 2
        instruction = decode(code[position : position + size], left > 0)
        if instruction.kind == "it":
            left = instruction.words
        elif left:
            left -= 1
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
    reads, writes = _registers(insn, name)
    fields = _memory_fields(insn, name) if name.startswith(("ldr", "str", "vldr", "vstr", "tb")) else _other_fields(insn, name)
    to_pc = bool(writes >> PROGRAM_COUNTER & 1) or name.startswith("tb")
    to_pc = to_pc or fields["kind"] in ("branch", "branch-if", "call", "indirect")
    if fields["kind"] in ("mac", "dsp"):
        fields["adds"] = _added(insn, name)
    late = name.startswith(_EXTEND_AND_ADD) or (fields["kind"] == "alu" and _shifts_an_operand(code))
    return Instruction(
        len(code), reads=reads, writes=writes, conditional=conditional, to_pc=to_pc, late=late,
        sets_flags=bool(insn.update_flags), **fields,
    )  # fmt: skip


def _registers(insn: capstone.CsInsn, name: str) -> tuple[int, int]:
    """Returns the masks of what is read and written; where Capstone lists too little or too much, from the operands."""
    reads, writes = map(_mask, insn.regs_access())
    if name.startswith(("vpush", "vpop", "vstm", "vldm")):
        stack_form = name in ("vpush", "vpop")
        base = 1 << STACK_POINTER if stack_form else _register_bit(insn.operands[0].reg)
        listed = sum(_register_bit(operand.reg) for operand in (insn.operands if stack_form else insn.operands[1:]))
        moved = base if stack_form or insn.writeback else 0
        return (base | listed, moved) if name.startswith(("vpush", "vstm")) else (base, listed | moved)
    kind = _KINDS.get(name)
    if kind in ("mac", "mul", "dsp"):
        long = name.startswith(_LONG)
        first = 0 if long and kind == "mac" else 2 if long else 1
        for operand in insn.operands[first:]:
            reads |= _register_bit(operand.reg) if operand.type == arm.ARM_OP_REG else 0
    return reads, writes


def _added(insn: capstone.CsInsn, name: str) -> int:
    """Returns the registers that an instruction adds a product or an extended part to."""
    if name.startswith(_EXTEND_AND_ADD):
        return _register_bit(insn.operands[-2].reg)
    if _KINDS[name] != "mac":
        return 0
    added = insn.operands[:2] if name.startswith(_LONG) else insn.operands[3:]
    return sum(_register_bit(operand.reg) for operand in added)


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
    base, index = _number(memory.mem.base), _number(memory.mem.index)
    suffix = name if name.startswith("tb") else name.removeprefix("v")[3:]
    words = 2 if suffix == "d" or _is_double(insn, name) else 1
    offset = 0 if insn.post_index else memory.mem.disp
    fields: dict[str, Any] = {
        "kind": "load" if name.startswith(("ldr", "vldr", "tb")) else "store",
        "base": base,
        "index": index,
        "shift": 1 if name == "tbh" else memory.shift.value if index != NO_REGISTER else 0,
        "offset": -offset if memory.subtracted and offset > 0 else offset,
        "words": words,
        "access_bytes": _ACCESS_BYTES.get(suffix, 4),
        "address_reads": _register_bit(memory.mem.base) | _register_bit(memory.mem.index),
        "write_back": insn.writeback,
    }
    if insn.writeback and base == STACK_POINTER:
        moved = insn.operands[-1].imm if insn.post_index and insn.operands[-1].type == arm.ARM_OP_IMM else memory.mem.disp
        fields["stack_bytes"] = -moved
    return fields


def _is_double(insn: capstone.CsInsn, name: str) -> bool:
    return name in ("vldr", "vstr") and arm.ARM_REG_D0 <= insn.operands[0].reg <= arm.ARM_REG_D31


def _other_fields(insn: capstone.CsInsn, name: str) -> dict[str, Any]:
    """Fields of everything that is not a plain load or store."""
    if name in ("push", "pop", "vpush", "vpop") or name.startswith(("ldm", "stm", "vldm", "vstm")):
        return _many_fields(insn, name)
    kind = "alu"
    if name in ("b", "cbz", "cbnz"):
        kind = "branch" if name == "b" and insn.cc in (arm.ARM_CC_AL, arm.ARM_CC_INVALID) else "branch-if"
    elif name in _KINDS:
        kind = _KINDS[name]
    elif name.startswith("v"):
        kind = "float"
    fields: dict[str, Any] = {"kind": kind}
    last = insn.operands[-1] if insn.operands else None
    moves_stack = name in ("sub", "subw", "add", "addw") and insn.operands[0].reg == arm.ARM_REG_SP
    if moves_stack and last is not None and last.type == arm.ARM_OP_IMM:
        fields["stack_bytes"] = last.imm if name.startswith("sub") else -last.imm
    return fields


def _many_fields(insn: capstone.CsInsn, name: str) -> dict[str, Any]:
    """Fields of a load or store of a register list."""
    stack_form = name in ("push", "pop", "vpush", "vpop")
    listed = insn.operands if stack_form else insn.operands[1:]
    words = sum(_register_bit(operand.reg).bit_count() for operand in listed)
    base = STACK_POINTER if stack_form else _number(insn.operands[0].reg)
    loads = name in ("pop", "vpop") or "ldm" in name
    moves = stack_form or (insn.writeback and base == STACK_POINTER)
    fields: dict[str, Any] = {
        "kind": "load-many" if loads else "store-many",
        "base": base,
        "words": words,
        "address_reads": 1 << base,
    }
    fields["offset"] = -4 * words if name in ("ldmdb", "vldmdb") else 0
    if moves:
        fields["stack_bytes"] = -4 * words if loads else 4 * words
    return fields
