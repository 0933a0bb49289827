"""The private peripherals of the core at 0xE0000000: SysTick, NVIC, system control, cycle counter, trace output.

Exceptions: `Exceptions` keeps what is enabled, pending and active and decides what runs next; machine.py moves the registers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

SVCALL, PENDSV, SYSTICK, FIRST_INTERRUPT = 11, 14, 15, 16
THREAD_PRIORITY = 256
CPUID = {"cortex-m4": 0x410FC241, "cortex-m7": 0x410FC271, "cortex-m33": 0x410FD214}
DEVICE_ID = {"stm32f4": 0x434, "stm32f7": 0x449, "stm32l4": 0x470, "stm32u5": 0x482}
NEVER = (1 << 64) - 1


@dataclass
class Exceptions:
    """Which exceptions are enabled, pending and active. Numbers as in IPSR: 15 SysTick, 16 + n interrupt n."""

    enabled: set[int] = field(default_factory=lambda: {SVCALL, PENDSV, SYSTICK})
    pending: set[int] = field(default_factory=set)
    active: list[int] = field(default_factory=list)
    priority: dict[int, int] = field(default_factory=dict)

    def next(self, primask: int, basepri: int) -> int | None:
        """Returns the exception to enter now, or None."""
        ready = [number for number in self.pending if number in self.enabled]
        if not ready or primask & 1:
            return None
        best = min(ready, key=lambda number: (self.priority.get(number, 0), number))
        ceiling = min([THREAD_PRIORITY, *(self.priority.get(number, 0) for number in self.active)])
        if basepri:
            ceiling = min(ceiling, basepri)
        return best if self.priority.get(best, 0) < ceiling else None

    def any_ready(self) -> bool:
        """Whether an enabled exception is pending, masked or not."""
        return bool(self.pending & self.enabled)


class CoreRegisters:
    """Answers reads and writes at 0xE0000000..0xE00FFFFF."""

    def __init__(
        self, cpu: str, family: str, now: Callable[[], int], changed: Callable[[], None], put: Callable[[bytes], None]
    ) -> None:
        """`now()`: cycles so far; `changed()`: something that decides on exceptions was written; `put`: trace output."""
        self.now, self.changed, self.put = now, changed, put
        self.exceptions = Exceptions()
        self.vector_table = 0
        self.reset_requested = False
        self.tick_start, self.tick_flag_base = 0, 0
        self.cycle_base: int | None = None
        self.cycle_value = 0
        self.registers = {
            0xED00: CPUID[cpu], 0xED14: 0x200, 0xED80: 0xF003E019, 0xED78: 0x09000003, 0xED90: 0x800, 0xEF34: 0xC0000000,
            0xEDF0: 0x00010001, 0x2000: 0x260,
        }  # fmt: skip
        self.registers |= dict.fromkeys((0x42000, 0x44000), 0x10000000 | DEVICE_ID.get(family, 0))
        self.registers |= dict.fromkeys(range(0, 0x80, 4), 1)
        self.registers[0xEF40] = 0x10110021

    # SysTick ------------------------------------------------------------------------------------------------------

    def _period(self) -> int:
        return self.registers.get(0xE014, 0) + 1

    def _tick_enabled(self) -> bool:
        return bool(self.registers.get(0xE010, 0) & 1) and self._period() > 1

    def next_tick(self) -> int:
        """Returns the cycle at which SysTick next pends its exception, or NEVER."""
        if not self._tick_enabled() or not self.registers.get(0xE010, 0) & 2:
            return NEVER
        return self.tick_start + self._period()

    def advance(self) -> None:
        """Pends SysTick when its counter has wrapped since the last call."""
        if self._tick_enabled() and self.registers.get(0xE010, 0) & 2 and self.now() >= self.next_tick():
            self.tick_start += (self.now() - self.tick_start) // self._period() * self._period()
            self.exceptions.pending.add(SYSTICK)

    def _read_tick(self, offset: int) -> int:
        elapsed = self.now() - self.tick_start if self._tick_enabled() else 0
        if offset == 0xE018:
            return (self._period() - elapsed % self._period()) % self._period()
        wrapped = self.now() - self.tick_flag_base >= self._period() if self._tick_enabled() else False
        if wrapped:
            self.tick_flag_base = self.now() - elapsed % self._period()
        return self.registers.get(0xE010, 0) & 7 | wrapped << 16

    # Cycle counter ------------------------------------------------------------------------------------------------

    def _start_counter(self) -> None:
        """Runs the counter when CYCCNTENA or TRCENA is set, keeps its value else."""
        runs = bool(self.registers.get(0x1000, 0) & 1 or self.registers.get(0xEDFC, 0) & 1 << 24)
        if runs and self.cycle_base is None:
            self.cycle_base = self.now() - self.cycle_value
        if not runs and self.cycle_base is not None:
            self.cycle_value = self.now() - self.cycle_base
            self.cycle_base = None

    def _cycles(self) -> int:
        return self.cycle_value if self.cycle_base is None else self.now() - self.cycle_base

    def float_on(self) -> bool:
        """Whether the program has switched its floating-point unit on, in CPACR."""
        return self.registers.get(0xED88, 0) >> 20 & 5 == 5

    # Access -------------------------------------------------------------------------------------------------------

    def read(self, address: int, size: int) -> int:
        """Returns the value read at an address, `size` bytes wide."""
        offset = address & 0xFFFFF
        return self._read_word(offset & ~3) >> 8 * (offset & 3) & ((1 << 8 * size) - 1)

    def _read_word(self, offset: int) -> int:
        exceptions = self.exceptions
        if offset in (0xE010, 0xE018):
            return self._read_tick(offset)
        if offset == 0x1004:
            return self._cycles() & 0xFFFFFFFF
        if offset == 0xED04:
            pending = min(exceptions.pending & exceptions.enabled, default=0)
            flags = (SYSTICK in exceptions.pending) << 26 | (PENDSV in exceptions.pending) << 28
            return (exceptions.active[-1] if exceptions.active else 0) | pending << 12 | flags
        if offset == 0xED08:
            return self.vector_table
        if offset == 0xED0C:
            return 0xFA050000 | self.registers.get(offset, 0) & 0x700
        if 0xE100 <= offset < 0xE340:
            group = {0: exceptions.enabled, 1: exceptions.pending, 2: set(exceptions.active)}[(offset - 0xE100) >> 8]
            first = FIRST_INTERRUPT + 8 * (offset & 0x7F)
            return sum(1 << i for i in range(32) if first + i in group)
        return self.registers.get(offset, 0)

    def write(self, address: int, size: int, value: int) -> None:
        """Takes a write of `size` bytes."""
        offset = address & 0xFFFFF
        if 0xE400 <= offset < 0xE600:
            for i in range(size):
                self.exceptions.priority[FIRST_INTERRUPT + offset - 0xE400 + i] = value >> 8 * i & 0xF0
        if 0xED18 <= offset < 0xED24:
            for i in range(size):
                self.exceptions.priority[4 + offset - 0xED18 + i] = value >> 8 * i & 0xF0
        word, shift = offset & ~3, 8 * (offset & 3)
        mask = ((1 << 8 * size) - 1) << shift
        full = self.registers.get(word, 0) & ~mask | value << shift & mask
        self._write_word(word, full, value)
        self.changed()

    def _write_word(self, offset: int, full: int, value: int) -> None:
        if offset < 0x80:
            self.put(bytes([value & 255]))
            return
        if offset == 0x1004:
            self.cycle_value = value
            self.cycle_base = None if self.cycle_base is None else self.now() - value
            return
        if 0xE100 <= offset < 0xE300:
            self._change_interrupts(offset, value)
            return
        if offset in (0xED00, 0xE01C):
            return
        if offset == 0xE014:
            full &= 0xFFFFFF
        started = offset == 0xE010 and full & 1 and not self.registers.get(0xE010, 0) & 1
        if offset == 0xED0C:
            self.reset_requested = bool(full & 4) and full >> 16 == 0x05FA
        self.registers[offset] = full
        if offset == 0xE018 or started:
            self.tick_start = self.tick_flag_base = self.now()
        if offset in (0x1000, 0xEDFC):
            self._start_counter()
        if offset == 0xED08:
            self.vector_table = full
        if offset == 0xED04:
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
        group = self.exceptions.enabled if offset < 0xE200 else self.exceptions.pending
        if offset & 0x80:
            group -= numbers
        else:
            group |= numbers
