"""The core's own: its exceptions, and its private peripherals at 0xE0000000.

`Exceptions` decides what runs next, and enters and leaves handlers by frames on the stack; `CoreRegisters` are SysTick, NVIC,
system control, cycle counter, trace output.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tinyredux.boards import Board
from tinyredux.simulator import emulator as reg
from tinyredux.simulator.chips import chip_of
from tinyredux.simulator.emulator import Emulator
from tinyredux.simulator.hooks import NEVER
from tinyredux.simulator.pricing import Pricing
from tinyredux.simulator.timing import CORES

SVCALL, PENDSV, SYSTICK, FIRST_INTERRUPT = 11, 14, 15, 16
THREAD_PRIORITY = 256
ENTRY_CYCLES = EXIT_CYCLES = 12
FRAME = (reg.R0, reg.R0 + 1, reg.R0 + 2, reg.R0 + 3, reg.R12, reg.LR, reg.PC)
FLOAT_FRAME = (*range(reg.S0, reg.S0 + 16), reg.FPSCR)
BASIC_WORDS, FLOAT_WORDS = 8, 18  # the second, on top of the first, ends with a reserved word
THUMB_STATE = 1 << 24  # of the program status register
PROCESS_STACK, FLOAT_ACTIVE = 2, 4  # bits of CONTROL
BACK, BACK_TO_THREAD, BACK_TO_PROCESS_STACK, BACK_WITHOUT_FLOAT = 0xFFFFFFE1, 8, 4, 16  # EXC_RETURN

TRACE_END = 0x80  # offsets of registers in 0xE0000000..0xE00FFFFF, by their names in the manuals
DWT_CTRL, DWT_CYCCNT, DEMCR = 0x1000, 0x1004, 0xEDFC
SYST_CSR, SYST_RVR, SYST_CVR, SYST_CALIB = 0xE010, 0xE014, 0xE018, 0xE01C
NVIC_ISER, NVIC_IABR, NVIC_IPR = 0xE100, 0xE300, 0xE400
CPUID_BASE, ICSR, VTOR, AIRCR, SHPR, CPACR = 0xED00, 0xED04, 0xED08, 0xED0C, 0xED18, 0xED88


class CoreFault(Exception):  # noqa: N818
    """The core cannot go on; the message is the sentence's first part."""


@contextmanager
def faulting(what: str) -> Iterator[None]:
    """Makes an access to memory that is not there a fault of the core."""
    try:
        yield
    except ValueError as wrong:
        raise CoreFault(f"{what}: {wrong}") from None


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
        with faulting("BusFault: an exception's frame"):
            cpu.write(frame, struct.pack(f"<{len(words)}I", *words))
        self.active.append(number)
        cpu.push_stack(frame)
        cpu.set(reg.PSR, status & 0xF80F0000 | THUMB_STATE)  # flags stay, no IT block
        cpu.set(reg.IPSR, number)
        cpu.set(reg.CONTROL, control & ~(FLOAT_ACTIVE | PROCESS_STACK))
        cpu.set(reg.LR, back)
        entry, vector = self.vector_table + 4 * number, f"vector of exception {number}"
        with faulting(f"HardFault: the {vector}"):
            handler = int.from_bytes(cpu.read(entry, 4), "little")
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
        with faulting("BusFault: an exception's frame"):
            data = cpu.read(frame, 4 * count)
        words = [*struct.unpack(f"<{count}I", data)]
        status = words.pop(BASIC_WORDS - 1)
        cpu.set(reg.CONTROL, cpu.get(reg.CONTROL) & ~FLOAT_ACTIVE | (FLOAT_ACTIVE if with_float else 0))
        if not status & THUMB_STATE:
            raise CoreFault("UsageFault: the exception's frame has bit 24 of xPSR clear, and it must be 1 for Thumb code")
        cpu.set(reg.SP, frame + 4 * count + (status >> 7 & 4))
        words[FRAME.index(reg.PC)] |= 1
        for register, word in zip((*FRAME, *FLOAT_FRAME), words, strict=False):  # as many as the frame has
            cpu.set(register, word)
        cpu.set(reg.PSR, status & ~0x3FF)
        cpu.set(reg.IPSR, running)


@dataclass
class Console:
    """Bytes to and from the program, over whichever UART or semihosting call it uses."""

    received: bytearray = field(default_factory=bytearray)
    sent: bytearray = field(default_factory=bytearray)
    idle_polls: int = 0
    patience: int = 0  # as many polls of an empty receiver mean that the program waits for input

    def take(self, count: int) -> bytes:
        """Returns up to `count` bytes of input."""
        taken = bytes(self.received[:count])
        del self.received[:count]
        return taken

    def take_sent(self) -> bytes:
        """Returns what the program has sent since the last call."""
        sent = bytes(self.sent)
        self.sent.clear()
        return sent

    def put(self, data: bytes) -> None:
        """Appends bytes that the program sent."""
        self.sent += data
        self.idle_polls = 0


class CoreRegisters:
    """Answers reads and writes at 0xE0000000..0xE00FFFFF."""

    def __init__(self, board: Board, pricing: Pricing, console: Console, now: Callable[[], int]) -> None:
        """`now()`: cycles so far; trace output goes to the console."""
        self.pricing, self.console, self.now = pricing, console, now
        self.exceptions = Exceptions()
        self.reset_requested = False
        self.tick_start, self.tick_flag_base = 0, 0
        self.cycle_base: int | None = None
        self.cycle_value = 0
        self.registers = dict.fromkeys(range(0, TRACE_END, 4), 1) | {
            CPUID_BASE: CORES[board.cpu].cpuid, 0xED14: 0x200, 0xED80: 0xF003E019, 0xED78: 0x09000003, 0xED90: 0x800,
            0xEF34: 0xC0000000, 0xEF40: 0x10110021, 0xEDF0: 0x00010001, 0x2000: 0x260,
        }  # fmt: skip
        self.registers |= dict.fromkeys((0x42000, 0x44000), 0x10000000 | chip_of(board.family).device_id)

    def _bits(self, offset: int, mask: int) -> int:
        return self.registers.get(offset, 0) & mask

    # SysTick ------------------------------------------------------------------------------------------------------

    def _period(self) -> int:
        """Returns the cycles from one wrap of the counter to the next, 0 while it stands."""
        reload = self.registers.get(SYST_RVR, 0)
        return reload + 1 if reload and self._bits(SYST_CSR, 1) else 0

    def next_tick(self) -> int:
        """Returns the cycle at which SysTick next pends its exception, or NEVER."""
        period = self._period()
        return self.tick_start + period if period and self._bits(SYST_CSR, 2) else NEVER

    def advance(self) -> None:
        """Pends SysTick when its counter has wrapped since the last call."""
        if self.now() >= self.next_tick():
            self.tick_start += (self.now() - self.tick_start) // self._period() * self._period()
            self.exceptions.pending.add(SYSTICK)

    def _read_tick(self, offset: int) -> int:
        period = self._period()
        elapsed = (self.now() - self.tick_start) % period if period else 0
        if offset == SYST_CVR:
            return period - elapsed if elapsed else 0
        wrapped = period > 0 and self.now() - self.tick_flag_base >= period
        if wrapped:
            self.tick_flag_base = self.now() - elapsed
        return self._bits(SYST_CSR, 7) | wrapped << 16

    # Cycle counter ------------------------------------------------------------------------------------------------

    def _start_counter(self) -> None:
        """Runs the counter when CYCCNTENA or TRCENA is set, keeps its value else."""
        if not (self._bits(DWT_CTRL, 1) or self._bits(DEMCR, 1 << 24)):
            self.cycle_value, self.cycle_base = self._cycles(), None
        elif self.cycle_base is None:
            self.cycle_base = self.now() - self.cycle_value

    def _cycles(self) -> int:
        return self.cycle_value if self.cycle_base is None else self.now() - self.cycle_base

    # Access -------------------------------------------------------------------------------------------------------

    def read(self, address: int, size: int) -> int:
        """Returns the value read at an address, `size` bytes wide."""
        offset = address & 0xFFFFF
        return self._read_word(offset & ~3) >> 8 * (offset & 3) & ((1 << 8 * size) - 1)

    def _read_word(self, offset: int) -> int:
        exceptions = self.exceptions
        if offset in (SYST_CSR, SYST_CVR):
            return self._read_tick(offset)
        if offset == DWT_CYCCNT:
            return self._cycles() & 0xFFFFFFFF
        if offset == ICSR:
            pending = min(exceptions.pending & exceptions.enabled, default=0)
            flags = (SYSTICK in exceptions.pending) << 26 | (PENDSV in exceptions.pending) << 28
            return (exceptions.active[-1] if exceptions.active else 0) | pending << 12 | flags
        if offset == VTOR:
            return exceptions.vector_table
        if offset == AIRCR:
            return 0xFA050000 | self._bits(AIRCR, 0x700)
        if NVIC_ISER <= offset < NVIC_IABR + 0x40:
            group = (exceptions.enabled, exceptions.pending, exceptions.active)[(offset - NVIC_ISER) >> 8]
            first = FIRST_INTERRUPT + 8 * (offset & 0x7F)
            return sum(1 << i for i in range(32) if first + i in group)
        return self.registers.get(offset, 0)

    def write(self, address: int, size: int, value: int) -> None:
        """Takes a write of `size` bytes."""
        offset = address & 0xFFFFF
        for start, end, first in ((NVIC_IPR, NVIC_IPR + 0x200, FIRST_INTERRUPT), (SHPR, SHPR + 12, 4)):
            if start <= offset < end:
                for i in range(size):
                    self.exceptions.priority[first + offset - start + i] = value >> 8 * i & 0xF0
        word, shift = offset & ~3, 8 * (offset & 3)
        mask = ((1 << 8 * size) - 1) << shift
        self._write_word(word, self.registers.get(word, 0) & ~mask | value << shift & mask, value)
        self.pricing.state.next_event = 0  # come back at the next block: this may decide on exceptions
        float_on = self._bits(CPACR, 5 << 20) == 5 << 20
        if float_on != self.pricing.state.float_on:
            self.pricing.switch_float(float_on)

    def _write_word(self, offset: int, full: int, value: int) -> None:
        """Takes a write after which the word is `full`; `value` is what was written of it."""
        if offset < TRACE_END:
            self.console.put(bytes([value & 255]))
        elif offset == DWT_CYCCNT:
            self.cycle_value = value
            self.cycle_base = None if self.cycle_base is None else self.now() - value
        elif NVIC_ISER <= offset < NVIC_IABR:
            self._change_interrupts(offset, value)
        elif offset not in (CPUID_BASE, SYST_CALIB):
            started = offset == SYST_CSR and full & 1 and not self._bits(SYST_CSR, 1)
            self.registers[offset] = full & 0xFFFFFF if offset == SYST_RVR else full
            if offset == SYST_CVR or started:
                self.tick_start = self.tick_flag_base = self.now()
            elif offset in (DWT_CTRL, DEMCR):
                self._start_counter()
            elif offset == AIRCR:
                self.reset_requested = bool(full & 4) and full >> 16 == 0x05FA
            elif offset == VTOR:
                self.exceptions.vector_table = full
            elif offset == ICSR:
                self._pend(value)

    def _pend(self, value: int) -> None:
        for number, set_bit, clear_bit in ((PENDSV, 28, 27), (SYSTICK, 26, 25)):
            if value >> set_bit & 1:
                self.exceptions.pending.add(number)
            if value >> clear_bit & 1:
                self.exceptions.pending.discard(number)

    def _change_interrupts(self, offset: int, value: int) -> None:
        first = FIRST_INTERRUPT + 8 * (offset & 0x7F)
        numbers = {first + i for i in range(32) if value >> i & 1}
        group = self.exceptions.pending if offset & 0x200 else self.exceptions.enabled
        (group.difference_update if offset & 0x80 else group.update)(numbers)
