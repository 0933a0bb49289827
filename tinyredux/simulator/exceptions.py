"""Exception entry and return as the core does them: frames on the stack, EXC_RETURN, the handler's mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinyredux.simulator.core_registers import SYSTICK
from tinyredux.simulator.emulator import BASEPRI, CONTROL, FPSCR, IPSR, LR, PC, PRIMASK, PSR, R0, R12, S0, SP

if TYPE_CHECKING:
    from tinyredux.simulator.machine import Machine

ENTRY_CYCLES = EXIT_CYCLES = 12
FRAME = (R0, R0 + 1, R0 + 2, R0 + 3, R12, LR, PC)
FLOAT_FRAME = tuple(S0 + i for i in range(16))
BASIC_BYTES, FLOAT_BYTES = 32, 72
PROCESS_STACK, FLOAT_ACTIVE = 2, 4  # bits of CONTROL
BACK, BACK_TO_THREAD, BACK_TO_PROCESS_STACK, BACK_WITHOUT_FLOAT = 0xFFFFFFE1, 8, 4, 16  # EXC_RETURN


def even(what: str, address: int) -> str:
    """Returns the fault of a branch, vector or return to an address whose bit 0 asks for Arm code, which no Cortex-M has."""
    return f"UsageFault: the {what} {address:#010x} is even, and bit 0 must be 1 for Thumb code"


def _next(machine: Machine) -> int | None:
    return machine.core.exceptions.next(machine.cpu.get(PRIMASK), machine.cpu.get(BASEPRI))


def could_deliver(machine: Machine) -> bool:
    """Whether a pending exception may be entered now."""
    machine.peripherals.wake()
    return _next(machine) is not None


def tick_may_interrupt(machine: Machine) -> bool:
    """Whether SysTick could preempt what runs now."""
    before = set(machine.core.exceptions.pending)
    machine.core.exceptions.pending.add(SYSTICK)
    found = _next(machine)
    machine.core.exceptions.pending = before
    return found is not None


def deliver(machine: Machine) -> int | None:
    """Enters the most urgent pending exception, if any may run now. Returns its number."""
    machine.peripherals.wake()
    if not machine.core.exceptions.pending:
        return None
    number = _next(machine)
    if number is not None:
        machine.core.exceptions.pending.discard(number)
        _enter(machine, number)
    return number


def _enter(machine: Machine, number: int) -> None:
    cpu, active = machine.cpu, machine.core.exceptions.active
    control, stack, place = cpu.get(CONTROL), cpu.get(SP), cpu.get(PC)
    with_float = bool(control & FLOAT_ACTIVE)
    frame = (stack - BASIC_BYTES - (FLOAT_BYTES if with_float else 0)) & ~7
    status = cpu.get(PSR) & ~0x3FF | (stack & 4) << 7 | (active[-1] if active else 0)
    words = [cpu.get(register) for register in FRAME] + [status]
    if with_float:
        words += [cpu.get(register) for register in FLOAT_FRAME] + [cpu.get(FPSCR), 0]
    try:
        cpu.write(frame, b"".join(word.to_bytes(4, "little") for word in words))
    except ValueError:
        machine.fail(f"BusFault: an exception's frame at {frame:#010x}, where there is no memory", place)
        return
    if machine.state.stack_floor <= frame < machine.state.lowest_sp:
        machine.state.lowest_sp = frame
    back = BACK | (0 if active else BACK_TO_THREAD) | (0 if with_float else BACK_WITHOUT_FLOAT)
    if control & PROCESS_STACK and not active:
        back |= BACK_TO_PROCESS_STACK
    cpu.set(SP, frame)
    active.append(number)
    cpu.set(PSR, status & 0xF80F0000 | 1 << 24)  # flags stay, no IT block
    cpu.set(IPSR, number)
    cpu.set(CONTROL, control & ~(FLOAT_ACTIVE | PROCESS_STACK))
    cpu.set(LR, back)
    entry = machine.core.vector_table + 4 * number
    try:
        handler = int.from_bytes(machine.read(entry, 4), "little")
    except ValueError:
        machine.fail(f"HardFault: the vector of exception {number} lies at {entry:#010x}, where there is no memory", place)
        return
    if not handler & 1:
        machine.fail(even(f"vector of exception {number}", handler), place)
        return
    cpu.set(PC, handler)
    machine.pricing.outside(ENTRY_CYCLES)


def leave(machine: Machine, back: int) -> None:
    """Returns from the running exception by the rules of its EXC_RETURN value."""
    cpu, active = machine.cpu, machine.core.exceptions.active
    active.pop()
    place = cpu.get(PC)
    cpu.set(IPSR, active[-1] if active else 0)
    if back & BACK_TO_PROCESS_STACK and not active:
        cpu.set(CONTROL, cpu.get(CONTROL) | PROCESS_STACK)
    frame, with_float = cpu.get(SP), not back & BACK_WITHOUT_FLOAT
    size = BASIC_BYTES + (FLOAT_BYTES if with_float else 0)
    try:
        data = machine.read(frame, size)
    except ValueError:
        machine.fail(f"BusFault: an exception's frame at {frame:#010x}, where there is no memory", place)
        return
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, size, 4)]
    if with_float:
        for register, word in zip(FLOAT_FRAME, words[8:24], strict=True):
            cpu.set(register, word)
        cpu.set(FPSCR, words[24])
    control = cpu.get(CONTROL) & ~FLOAT_ACTIVE
    cpu.set(CONTROL, control | (FLOAT_ACTIVE if with_float else 0))
    status = words[7]
    if not status & 1 << 24:
        machine.fail("UsageFault: the exception's frame has bit 24 of xPSR clear, and it must be 1 for Thumb code", place)
        return
    cpu.set(SP, frame + size + (status >> 7 & 4))
    for register, word in zip(FRAME[:-1], words[:6], strict=True):
        cpu.set(register, word)
    cpu.set(PC, words[6] | 1)
    cpu.set(PSR, status & ~0x3FF)
    cpu.set(IPSR, active[-1] if active else 0)
    machine.pricing.outside(EXIT_CYCLES)
