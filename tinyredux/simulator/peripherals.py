"""The registers around the core as a program sees them: console UART, clock and power set-up, and everything else as storage.

A register that no rule knows keeps what was written. Clock, power and flash registers also answer "ready" at once. A register
that is read over and over with nothing else happening is taken for a wait: it then answers all ones and all zeros in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tinyredux.boards import Board

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Ready:
    """A register whose bits follow others: (bit written, bit that answers) pairs, bits always set, bits never set."""

    address: int
    follow: Pairs = ()
    ones: int = 0
    zeros: int = 0


F4_CLOCKS: Pairs = ((0, 1), (16, 17), (24, 25), (26, 27), (28, 29))
L4_CLOCKS: Pairs = ((0, 1), (8, 10), (16, 17), (24, 25), (26, 27), (28, 29))
U5_CLOCKS: Pairs = ((0, 2), (4, 5), (8, 10), (12, 13), (14, 15), (16, 17), (24, 25), (26, 27), (28, 29))
SWITCH: Pairs = ((0, 2), (1, 3))
ON: Pairs = ((0, 1),)

_F4_F7 = (
    Ready(0x40023800, F4_CLOCKS),
    Ready(0x40023808, SWITCH),
    Ready(0x40023870, ON),
    Ready(0x40023874, ON),
    Ready(0x40007004, ((9, 3),), ones=1 << 14 | 1 << 16 | 1 << 17),
    Ready(0x40023C0C, zeros=1 << 16),
)
READY = {
    "stm32f2": _F4_F7,
    "stm32f4": _F4_F7,
    "stm32f7": _F4_F7,
    "stm32f1": (Ready(0x40021000, F4_CLOCKS), Ready(0x40021004, SWITCH), Ready(0x40021020, ON), Ready(0x40021024, ON)),
    "stm32f3": (Ready(0x40021000, F4_CLOCKS), Ready(0x40021004, SWITCH), Ready(0x40021020, ON), Ready(0x40021024, ON)),
    "stm32g4": (Ready(0x40021000, L4_CLOCKS), Ready(0x40021008, SWITCH), Ready(0x40021090, ON), Ready(0x40021094, ON)),
    "stm32l4": (
        Ready(0x40021000, L4_CLOCKS),
        Ready(0x40021008, SWITCH),
        Ready(0x40021090, ON),
        Ready(0x40021094, ON),
        Ready(0x40021098, ON),
        Ready(0x40007014, zeros=1 << 9 | 1 << 10),
        Ready(0x40022010, zeros=1 << 16),
    ),
    "stm32u5": (
        Ready(0x46020C00, U5_CLOCKS),
        Ready(0x46020C1C, SWITCH),
        Ready(0x46020CF0, ((0, 1), (7, 11), (26, 27))),
        Ready(0x46020CF4, ((26, 27), (0, 1))),
        Ready(0x4602080C, ((18, 14),), ones=1 << 15),
        Ready(0x4602083C, ((16, 16), (17, 17)), ones=1 << 15),
        Ready(0x40030404, ones=1 << 1, zeros=1),
        Ready(0x40022020, zeros=1 << 16),
    ),
}
FLASH_CONTROL_AT_RESET = {"stm32l4": 0x600, "stm32g4": 0x600}  # both caches on
_COMMON_USARTS = {0x40004400: 38, 0x40004800: 39, 0x40004C00: 52, 0x40005000: 53}
USARTS = {
    "usart-v1": _COMMON_USARTS | {0x40011000: 37, 0x40011400: 71, 0x40007800: 82, 0x40007C00: 83},
    "usart-v2": _COMMON_USARTS | {0x40011000: 37, 0x40011400: 71, 0x40013800: 37, 0x40008000: 70, 0x46002400: 66},
}
_U5_INTERRUPTS = {0x40013800: 61, 0x40004400: 62, 0x40004800: 63, 0x40004C00: 64, 0x40005000: 65, 0x46002400: 66}
TIMERS = (
    *range(0x40000000, 0x40001800, 0x400),
    0x40010000,
    0x40010400,
    0x40012C00,
    0x40013400,
    *range(0x40014000, 0x40014C00, 0x400),
)
TIMER_CONTROL, TIMER_EVENT, TIMER_COUNT, TIMER_PRESCALER, TIMER_RELOAD = 0x00, 0x14, 0x24, 0x28, 0x2C
RECEIVED, SENT, TRANSMIT_EMPTY = 1 << 5, 1 << 6, 1 << 7
POLLS_UNTIL_DOUBT = 300


@dataclass
class Console:
    """Bytes to and from the program, over whichever UART or semihosting call it uses."""

    received: bytearray = field(default_factory=bytearray)
    sent: bytearray = field(default_factory=bytearray)
    idle_polls: int = 0

    def take(self, count: int) -> bytes:
        """Returns up to `count` bytes of input."""
        taken = bytes(self.received[:count])
        del self.received[:count]
        return taken

    def put(self, data: bytes) -> None:
        """Appends bytes that the program sent."""
        self.sent += data
        self.idle_polls = 0


class Peripherals:
    """Answers reads and writes at 0x40000000..0x5FFFFFFF of a board."""

    def __init__(
        self,
        board: Board,
        console: Console,
        idle: Callable[[], None],
        interrupt: Callable[[int], None],
        flash: Callable[[int], None],
        now: Callable[[], int],
    ) -> None:
        """`idle()`: empty input is polled; `interrupt(n)` pends interrupt n; `flash(v)`: FLASH_ACR is now v; `now()`: cycles."""
        self.console, self.idle, self.interrupt, self.flash, self.now = console, idle, interrupt, flash, now
        family = board.family
        self.rules = {rule.address: rule for rule in READY.get(family, ())}
        self.layout = board.console
        self.flash_register = 0x40023C00 if family in ("stm32f2", "stm32f4", "stm32f7") else 0x40022000
        self.uarts = dict(USARTS[board.console]) | (_U5_INTERRUPTS if family == "stm32u5" else {})
        self.uarts.setdefault(board.console_base, -1)
        self.alias_mask = ~0x10000000 if board.cpu == "cortex-m33" else ~0
        self.registers: dict[int, int] = {self.flash_register: FLASH_CONTROL_AT_RESET.get(family, 0)}
        self.timer_start: dict[int, int] = {}
        self.last_read, self.repeats = -1, 0

    def read(self, address: int, size: int) -> int:
        """Returns the value read at an address, `size` bytes wide."""
        address &= self.alias_mask
        word, shift = address & ~3, 8 * (address & 3)
        return self._read_word(word) >> shift & ((1 << 8 * size) - 1)

    def write(self, address: int, size: int, value: int) -> None:
        """Takes a write of `size` bytes."""
        address &= self.alias_mask
        word, shift = address & ~3, 8 * (address & 3)
        self.last_read = -1
        mask = ((1 << 8 * size) - 1) << shift
        self.registers[word] = self.registers.get(word, 0) & ~mask | value << shift & mask
        if word & ~0x3FF in self.uarts:
            self._write_uart(word & ~0x3FF, word & 0x3FF, value)
        elif word & ~0x3FF in TIMERS and word & 0x3FF in (TIMER_CONTROL, TIMER_EVENT, TIMER_COUNT):
            self._write_timer(word & ~0x3FF, word & 0x3FF, value)
        elif word == self.flash_register:
            self.flash(self.registers[word])

    def _read_word(self, word: int) -> int:
        if word & ~0x3FF in self.uarts:
            return self._read_uart(word & 0x3FF, self.registers.get(word, 0))
        if word & 0x3FF == TIMER_COUNT and word & ~0x3FF in self.timer_start:
            return self._timer_count(word & ~0x3FF)
        stored = self.registers.get(word, 0)
        rule = self.rules.get(word)
        if rule is not None:
            for written, answers in rule.follow:
                stored = stored & ~(1 << answers) | (stored >> written & 1) << answers
            stored = (stored | rule.ones) & ~rule.zeros
        return self._doubt(word, stored)

    def _doubt(self, word: int, value: int) -> int:
        """Returns `value`, or all ones and zeros in turn when the program seems to wait for a change."""
        self.repeats = self.repeats + 1 if word == self.last_read else 0
        self.last_read = word
        turn = self.repeats // POLLS_UNTIL_DOUBT
        return value if turn == 0 else (0xFFFFFFFF, 0, value)[turn % 3 - 1]

    def _write_timer(self, base: int, offset: int, value: int) -> None:
        """Starts, stops or sets a timer. Its clock is the core's."""
        runs = self.registers.get(base + TIMER_CONTROL, 0) & 1
        if offset == TIMER_CONTROL and not runs and base in self.timer_start:
            self.registers[base + TIMER_COUNT] = self._timer_count(base)
            del self.timer_start[base]
        elif runs and (base not in self.timer_start or offset != TIMER_CONTROL):
            count = self.registers.get(base + TIMER_COUNT, 0) if offset != TIMER_EVENT else 0
            self.timer_start[base] = self.now() - count * (self.registers.get(base + TIMER_PRESCALER, 0) + 1)
        elif offset == TIMER_EVENT:
            self.registers[base + TIMER_COUNT] = 0

    def _timer_count(self, base: int) -> int:
        ticks = (self.now() - self.timer_start[base]) // (self.registers.get(base + TIMER_PRESCALER, 0) + 1)
        return ticks % (self.registers.get(base + TIMER_RELOAD, 0xFFFFFFFF) + 1)

    def listens(self) -> bool:
        """Whether a UART would interrupt when input comes."""
        control = 0x0C if self.layout == "usart-v1" else 0x00
        return any(self.registers.get(base + control, 0) & RECEIVED for base in self.uarts)

    def _read_uart(self, offset: int, stored: int) -> int:
        status, data = (0x00, 0x04) if self.layout == "usart-v1" else (0x1C, 0x24)
        if offset == status:
            if not self.console.received:
                self._poll()
            acknowledged = 0 if self.layout == "usart-v1" else 3 << 21
            return SENT | TRANSMIT_EMPTY | acknowledged | (RECEIVED if self.console.received else 0)
        if offset == data:
            self.console.idle_polls = 0
            return int.from_bytes(self.console.take(1), "little")
        return stored

    def _poll(self) -> None:
        self.console.idle_polls += 1
        self.idle()

    def _write_uart(self, base: int, offset: int, value: int) -> None:
        data, control = (0x04, 0x0C) if self.layout == "usart-v1" else (0x28, 0x00)
        if offset == data:
            self.console.put(bytes([value & 255]))
        if offset in (data, control):
            self.wake()

    def wake(self) -> None:
        """Pends the interrupts of UARTs that ask for one: input is there, or output may be sent."""
        control = 0x0C if self.layout == "usart-v1" else 0x00
        for base, number in self.uarts.items():
            enabled = self.registers.get(base + control, 0)
            if number >= 0 and enabled & (TRANSMIT_EMPTY | SENT | (RECEIVED if self.console.received else 0)):
                self.interrupt(number)


class BitBand:
    """The bit-band alias of peripherals at 0x42000000: each bit of the first MiB as a word of its own."""

    def __init__(self, peripherals: Peripherals) -> None:
        """`peripherals` hold the bits."""
        self.peripherals = peripherals

    def read(self, address: int, size: int) -> int:
        """Returns the bit."""
        return self.peripherals.read(_bit_byte(address), 1) >> (address >> 2 & 7) & 1

    def write(self, address: int, size: int, value: int) -> None:
        """Changes the bit."""
        byte, bit = _bit_byte(address), 1 << (address >> 2 & 7)
        self.peripherals.write(byte, 1, self.peripherals.read(byte, 1) & ~bit | bit * (value & 1))


def _bit_byte(address: int) -> int:
    return 0x40000000 + (address - 0x42000000) // 32
