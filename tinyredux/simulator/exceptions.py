"""Exceptions as the core has them: which are enabled, pending and active, and their entry and return by frames on the stack."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tinyredux.simulator import emulator as reg
from tinyredux.simulator.emulator import Emulator

SVCALL, PENDSV, SYSTICK, FIRST_INTERRUPT = 11, 14, 15, 16
THREAD_PRIORITY = 256
ENTRY_CYCLES = EXIT_CYCLES = 12
FRAME = (reg.R0, reg.R0 + 1, reg.R0 + 2, reg.R0 + 3, reg.R12, reg.LR, reg.PC)
FLOAT_FRAME = (*range(reg.S0, reg.S0 + 16), reg.FPSCR)
BASIC_WORDS, FLOAT_WORDS = 8, 18  # the second, on top of the first, ends with a reserved word
THUMB_STATE = 1 << 24  # of the program status register
PROCESS_STACK, FLOAT_ACTIVE = 2, 4  # bits of CONTROL
BACK, BACK_TO_THREAD, BACK_TO_PROCESS_STACK, BACK_WITHOUT_FLOAT = 0xFFFFFFE1, 8, 4, 16  # EXC_RETURN


class CoreFault(Exception):  # noqa: N818
    """The core cannot go on; the message is the sentence's first part."""


def even(what: str, address: int) -> str:
    """Returns the fault of a branch, vector or return to an address whose bit 0 asks for Arm code, which no Cortex-M has."""
    return f"UsageFault: the {what} {address:#010x} is even, and bit 0 must be 1 for Thumb code"


@dataclass
class Exceptions:
    """Which exceptions are enabled, pending and active. Numbers as in IPSR: 15 SysTick, 16 + n interrupt n."""

    enabled: set[int] = field(default_factory=lambda: {SVCALL, PENDSV, SYSTICK})
    pending: set[int] = field(default_factory=set)
    active: list[int] = field(default_factory=list)
    priority: dict[int, int] = field(default_factory=dict)
    vector_table: int = 0

    def next(self, cpu: Emulator, also: int = 0) -> int | None:
        """Returns the exception to enter now, or None; `also` counts as pending."""
        ready = (self.pending | {also}) & self.enabled
        if not ready or cpu.get(reg.PRIMASK) & 1:
            return None
        urgency, best = min((self.priority.get(number, 0), number) for number in ready)
        ceiling = min([cpu.get(reg.BASEPRI) or THREAD_PRIORITY, *(self.priority.get(number, 0) for number in self.active)])
        return best if urgency < ceiling else None

    def enter(self, cpu: Emulator, number: int) -> None:
        """Enters a pending exception. Raises CoreFault."""
        self.pending.discard(number)
        control, stack, running = cpu.get(reg.CONTROL), cpu.get(reg.SP), self.active[-1] if self.active else 0
        status = cpu.get(reg.PSR) & ~0x3FF | (stack & 4) << 7 | running
        words = [*map(cpu.get, FRAME), status]
        back = BACK | (0 if running else BACK_TO_THREAD) | BACK_WITHOUT_FLOAT
        if control & FLOAT_ACTIVE:
            words += [*map(cpu.get, FLOAT_FRAME), 0]
            back &= ~BACK_WITHOUT_FLOAT
        if control & PROCESS_STACK and not running:
            back |= BACK_TO_PROCESS_STACK
        frame = (stack - 4 * len(words)) & ~7
        try:
            cpu.write(frame, struct.pack(f"<{len(words)}I", *words))
        except ValueError:
            raise CoreFault(f"BusFault: an exception's frame at {frame:#010x}, where there is no memory") from None
        self.active.append(number)
        cpu.push_stack(frame)
        cpu.set(reg.PSR, status & 0xF80F0000 | THUMB_STATE)  # flags stay, no IT block
        cpu.set(reg.IPSR, number)
        cpu.set(reg.CONTROL, control & ~(FLOAT_ACTIVE | PROCESS_STACK))
        cpu.set(reg.LR, back)
        entry, vector = self.vector_table + 4 * number, f"vector of exception {number}"
        try:
            handler = int.from_bytes(cpu.read(entry, 4), "little")
        except ValueError:
            raise CoreFault(f"HardFault: the {vector} lies at {entry:#010x}, where there is no memory") from None
        if not handler & 1:
            raise CoreFault(even(vector, handler))
        cpu.set(reg.PC, handler)

    def leave(self, cpu: Emulator, back: int) -> None:
        """Returns from the running exception by the rules of its EXC_RETURN value. Raises CoreFault."""
        self.active.pop()
        running = self.active[-1] if self.active else 0
        cpu.set(reg.IPSR, running)
        if back & BACK_TO_PROCESS_STACK and not running:
            cpu.set(reg.CONTROL, cpu.get(reg.CONTROL) | PROCESS_STACK)
        frame, with_float = cpu.get(reg.SP), not back & BACK_WITHOUT_FLOAT
        count = BASIC_WORDS + (FLOAT_WORDS if with_float else 0)
        try:
            data = cpu.read(frame, 4 * count)
        except ValueError:
            raise CoreFault(f"BusFault: an exception's frame at {frame:#010x}, where there is no memory") from None
        *words, status = struct.unpack_from("<8I", data)
        if with_float:
            for register, word in zip(FLOAT_FRAME, struct.unpack_from("<17I", data, 4 * BASIC_WORDS), strict=True):
                cpu.set(register, word)
        cpu.set(reg.CONTROL, cpu.get(reg.CONTROL) & ~FLOAT_ACTIVE | (FLOAT_ACTIVE if with_float else 0))
        if not status & THUMB_STATE:
            raise CoreFault("UsageFault: the exception's frame has bit 24 of xPSR clear, and it must be 1 for Thumb code")
        cpu.set(reg.SP, frame + 4 * count + (status >> 7 & 4))
        words[-1] |= 1
        for register, word in zip(FRAME, words, strict=True):
            cpu.set(register, word)
        cpu.set(reg.PSR, status & ~0x3FF)
        cpu.set(reg.IPSR, running)
