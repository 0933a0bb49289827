"""Exception entry and return as the core does them: frames on the stack, EXC_RETURN, the handler's mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unicorn import arm_const as reg

if TYPE_CHECKING:
    from tinyredux.simulate.machine import Machine

ENTRY_CYCLES = EXIT_CYCLES = 12
FRAME = (*(reg.UC_ARM_REG_R0 + i for i in range(4)), reg.UC_ARM_REG_R12, reg.UC_ARM_REG_LR, reg.UC_ARM_REG_PC)
FLOAT_FRAME = tuple(reg.UC_ARM_REG_S0 + i for i in range(16))
BASIC_BYTES, FLOAT_BYTES = 32, 72


def may_interrupt(machine: Machine) -> bool:
    """Whether SysTick could preempt what runs now."""
    handler = machine.core.exceptions
    before = set(handler.pending)
    handler.pending.add(15)
    found = handler.next(machine.uc.reg_read(reg.UC_ARM_REG_PRIMASK), machine.uc.reg_read(reg.UC_ARM_REG_BASEPRI))
    handler.pending = before
    return found is not None


def deliver(machine: Machine) -> int | None:
    """Enters the most urgent pending exception, if any may run now. Returns its number."""
    handler = machine.core.exceptions
    if not handler.pending:
        return None
    machine.peripherals.wake()
    uc = machine.uc
    number = handler.next(uc.reg_read(reg.UC_ARM_REG_PRIMASK), uc.reg_read(reg.UC_ARM_REG_BASEPRI))
    if number is None:
        return None
    handler.pending.discard(number)
    _enter(machine, number)
    return number


def _enter(machine: Machine, number: int) -> None:
    uc, handler = machine.uc, machine.core.exceptions
    control = uc.reg_read(reg.UC_ARM_REG_CONTROL)
    with_float = bool(control & 4)
    stack = uc.reg_read(reg.UC_ARM_REG_SP)
    frame = (stack - BASIC_BYTES - (FLOAT_BYTES if with_float else 0)) & ~7
    status = uc.reg_read(reg.UC_ARM_REG_XPSR) & ~0x1FF | (stack & 4) << 7
    status |= handler.active[-1] if handler.active else 0
    words = [uc.reg_read(register) for register in FRAME] + [status]
    if with_float:
        words += [uc.reg_read(register) for register in FLOAT_FRAME] + [uc.reg_read(reg.UC_ARM_REG_FPSCR), 0]
    try:
        machine.write(frame, b"".join(word.to_bytes(4, "little") for word in words))
    except ValueError:
        machine.fail(f"BusFault: stacking an exception at {frame:#010x}", uc.reg_read(reg.UC_ARM_REG_PC))
        return
    on_process_stack = bool(control & 2) and not handler.active
    back = 0xFFFFFFE1 | (not handler.active) << 3 | on_process_stack << 2 | (not with_float) << 4
    machine.state.lowest_sp = (
        min(machine.state.lowest_sp, frame) if frame >= machine.state.stack_floor else machine.state.lowest_sp
    )
    uc.reg_write(reg.UC_ARM_REG_SP, frame)
    handler.active.append(number)
    uc.reg_write(reg.UC_ARM_REG_XPSR, status & ~0x0700FFFF | 1 << 24 | number)
    uc.reg_write(reg.UC_ARM_REG_IPSR, number)
    if with_float:
        uc.reg_write(reg.UC_ARM_REG_CONTROL, control & ~4)
    uc.reg_write(reg.UC_ARM_REG_LR, back)
    target = int.from_bytes(machine.read(machine.core.vector_table + 4 * number, 4), "little")
    uc.reg_write(reg.UC_ARM_REG_PC, target | 1)
    machine.pricing.outside(ENTRY_CYCLES)


def leave(machine: Machine, back: int) -> None:
    """Returns from the running exception by the rules of its EXC_RETURN value."""
    uc, handler = machine.uc, machine.core.exceptions
    handler.active.pop()
    uc.reg_write(reg.UC_ARM_REG_IPSR, handler.active[-1] if handler.active else 0)
    control = uc.reg_read(reg.UC_ARM_REG_CONTROL)
    if back & 8:
        uc.reg_write(reg.UC_ARM_REG_CONTROL, control & ~2 | (back >> 1 & 2))
    frame = uc.reg_read(reg.UC_ARM_REG_SP)
    with_float = not back & 16
    size = BASIC_BYTES + (FLOAT_BYTES if with_float else 0)
    try:
        data = machine.read(frame, size)
    except ValueError:
        machine.fail(f"BusFault: unstacking an exception from {frame:#010x}", uc.reg_read(reg.UC_ARM_REG_PC))
        return
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, size, 4)]
    status = words[7]
    if with_float:
        for register, word in zip(FLOAT_FRAME, words[8:24], strict=True):
            uc.reg_write(register, word)
        uc.reg_write(reg.UC_ARM_REG_FPSCR, words[24])
        uc.reg_write(reg.UC_ARM_REG_CONTROL, uc.reg_read(reg.UC_ARM_REG_CONTROL) | 4)
    uc.reg_write(reg.UC_ARM_REG_SP, frame + size + (4 if status >> 9 & 1 else 0))
    for register, word in zip(FRAME, words[:7], strict=True):
        uc.reg_write(register, word | 1 if register == reg.UC_ARM_REG_PC else word)
    uc.reg_write(reg.UC_ARM_REG_XPSR, status & ~0x1FF | (handler.active[-1] if handler.active else 0))
    machine.pricing.outside(EXIT_CYCLES)
