"""The registers around the core as a program sees them: console UART, clock and power set-up, and everything else as storage.

A register that no rule knows keeps what was written. Clock, power and flash registers also answer "ready" at once. A register
that is read over and over with nothing else happening is taken for a wait: it then answers all ones and all zeros in turn.
"""

from collections.abc import Callable
from typing import NamedTuple

from tinyredux.boards import Board
from tinyredux.simulator.chips import chip_of
from tinyredux.simulator.core import FIRST_INTERRUPT, Console, Exceptions
from tinyredux.simulator.pricing import Pricing

_COMMON_USARTS = {0x40004400: 38, 0x40004800: 39, 0x40004C00: 52, 0x40005000: 53, 0x40011000: 37, 0x40011400: 71}
USARTS = {  # interrupts by address
    "usart-v1": _COMMON_USARTS | {0x40007800: 82, 0x40007C00: 83},
    "usart-v2": _COMMON_USARTS | {0x40013800: 37, 0x40008000: 70, 0x46002400: 66},
}
RECEIVED, SENT, TRANSMIT_EMPTY, ACKNOWLEDGED = 1 << 5, 1 << 6, 1 << 7, 3 << 21
SENDS = SENT | TRANSMIT_EMPTY  # at once


class Uart(NamedTuple):
    """A kind of UART: `status` register, its value with nothing received and with something; other registers; bytes of all."""

    status: int
    empty: int
    waiting: int
    receive: int
    send: int
    control: int | None
    size: int = 0x400


UARTS = {
    "usart-v1": Uart(0x00, SENDS, SENDS | RECEIVED, 0x04, 0x04, 0x0C),
    "usart-v2": Uart(0x1C, SENDS | ACKNOWLEDGED, SENDS | ACKNOWLEDGED | RECEIVED, 0x24, 0x28, 0x00),
    "nrf-uart": Uart(0x108, 0, 1, 0x518, 0x51C, None, 0x1000),  # sent at once, too: chips.json
    "pl011": Uart(0x18, 0x90, 0x80, 0x00, 0x00, None, 0x1000),
}
TIMERS = {
    *range(0x40000000, 0x40001800, 0x400), *range(0x40014000, 0x40014C00, 0x400),
    0x40010000, 0x40010400, 0x40012C00, 0x40013400,
}  # fmt: skip
TIMER_CONTROL, TIMER_EVENT, TIMER_COUNT, TIMER_PRESCALER, TIMER_RELOAD = 0x00, 0x14, 0x24, 0x28, 0x2C
POLLS_UNTIL_DOUBT = 300
BIT_BAND = 0x42000000
IDLE_POLLS = 2000  # of an empty receiver, after which a program is taken to wait for input that will never come
LINE_POLLS = 200  # the same where input may come later: what the machine does meanwhile is lost time alone


def _bit_byte(address: int) -> int:
    return 0x40000000 + (address - BIT_BAND) // 32


class Peripherals:
    """Answers reads and writes at 0x40000000..0x5FFFFFFF of a board.

    On a Cortex-M4, 0x42000000..0x43FFFFFF show each bit of the first MiB as a word of its own.
    """

    def __init__(self, board: Board, pricing: Pricing, exceptions: Exceptions, console: Console, now: Callable[[], int]) -> None:
        """`now()`: cycles so far."""
        self.pricing, self.exceptions, self.console, self.now = pricing, exceptions, console, now
        chip = chip_of(board.family)
        self.rules = {rule.address: rule for rule in chip.ready}
        self.uart = UARTS[board.uart.kind]
        self.uarts = {board.uart.base: -1} | USARTS.get(board.uart.kind, {}) | dict(chip.interrupts)
        self.timers = TIMERS if board.uart.kind in USARTS else set[int]()
        self.alias_mask = ~0x10000000 if board.cpu == "cortex-m33" else ~0
        self.bit_band = range(BIT_BAND, BIT_BAND + 0x2000000) if board.cpu == "cortex-m4" else range(0)
        self.flash_control = chip.flash_control
        self.registers: dict[int, int] = {chip.flash_control: chip.flash_control_at_reset}
        self.timer_start: dict[int, int] = {}
        self.last_read, self.repeats = -1, 0

    def read(self, address: int, size: int) -> int:
        """Returns the value read at an address, `size` bytes wide."""
        if address in self.bit_band:
            return self.read(_bit_byte(address), 1) >> (address >> 2 & 7) & 1
        address &= self.alias_mask
        return self._read_word(address & ~3) >> 8 * (address & 3) & ((1 << 8 * size) - 1)

    def write(self, address: int, size: int, value: int) -> None:
        """Takes a write of `size` bytes."""
        if address in self.bit_band:
            address, size, bit, on = _bit_byte(address), 1, 1 << (address >> 2 & 7), value & 1
            value = self.read(address, 1) & ~bit | bit * on
        address &= self.alias_mask
        word, shift = address & ~3, 8 * (address & 3)
        base, offset = self._block(word)
        self.last_read = -1
        mask = ((1 << 8 * size) - 1) << shift
        self.registers[word] = self.registers.get(word, 0) & ~mask | value << shift & mask
        if base in self.uarts:
            if offset == self.uart.send:
                self.console.put(bytes([value & 255]))
            if offset in (self.uart.send, self.uart.control):
                self.wake()
        elif base in self.timers and offset in (TIMER_CONTROL, TIMER_EVENT, TIMER_COUNT):
            self._write_timer(base, offset)
        elif word == self.flash_control:
            self.pricing.set_flash_access(self.registers[word])

    def _read_word(self, word: int) -> int:
        base, offset = self._block(word)
        stored = self.registers.get(word, 0)
        if base in self.uarts and offset in (self.uart.status, self.uart.receive):
            return self._read_uart(offset)
        if offset == TIMER_COUNT and base in self.timer_start:
            return self._timer_count(base)
        if rule := self.rules.get(word):
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

    # Timers, whose clock is the core's ----------------------------------------------------------------------------

    def _timer(self, base: int, register: int, otherwise: int = 0) -> int:
        return self.registers.get(base + register, otherwise)

    def _write_timer(self, base: int, offset: int) -> None:
        """Starts, stops or sets a timer."""
        runs = self._timer(base, TIMER_CONTROL) & 1
        if offset == TIMER_CONTROL and not runs and base in self.timer_start:
            self.registers[base + TIMER_COUNT] = self._timer_count(base)
            del self.timer_start[base]
        elif runs and (base not in self.timer_start or offset != TIMER_CONTROL):
            count = self._timer(base, TIMER_COUNT) if offset != TIMER_EVENT else 0
            self.timer_start[base] = self.now() - count * (self._timer(base, TIMER_PRESCALER) + 1)
        elif offset == TIMER_EVENT:
            self.registers[base + TIMER_COUNT] = 0

    def _timer_count(self, base: int) -> int:
        ticks = (self.now() - self.timer_start[base]) // (self._timer(base, TIMER_PRESCALER) + 1)
        return ticks % (self._timer(base, TIMER_RELOAD, 0xFFFFFFFF) + 1)

    # UARTs --------------------------------------------------------------------------------------------------------

    def _block(self, word: int) -> tuple[int, int]:
        """Returns the base of the peripheral that holds a word, and its offset there."""
        return word & -self.uart.size, word & (self.uart.size - 1)

    def _read_uart(self, offset: int) -> int:
        if offset == self.uart.receive:
            self.console.idle_polls = 0
            return int.from_bytes(self.console.take(1), "little")
        if self.console.received:
            return self.uart.waiting
        self.console.idle_polls += 1
        if self.console.idle_polls >= self.console.patience:
            self.pricing.state.next_event = 0
        return self.uart.empty

    def listens(self) -> bool:
        """Whether a UART would interrupt when input comes."""
        control = self.uart.control
        return control is not None and any(self.registers.get(base + control, 0) & RECEIVED for base in self.uarts)

    def wake(self) -> None:
        """Pends the interrupts of UARTs that ask for one: input is there, or output may be sent."""
        wanted = TRANSMIT_EMPTY | SENT | (RECEIVED if self.console.received else 0)
        for base, number in self.uarts.items():
            if number >= 0 and self.registers.get(base + (self.uart.control or 0), 0) & wanted:
                self.exceptions.pending.add(FIRST_INTERRUPT + number)
                self.pricing.state.next_event = 0
