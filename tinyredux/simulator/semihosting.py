"""Arm semihosting: the calls a program makes to its debugger by `bkpt 0xAB`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

SYS_OPEN, SYS_CLOSE, SYS_WRITEC, SYS_WRITE0, SYS_WRITE, SYS_READ, SYS_READC = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07
SYS_ISERROR, SYS_ISTTY, SYS_SEEK, SYS_FLEN, SYS_CLOCK, SYS_TIME, SYS_ERRNO = 0x08, 0x09, 0x0A, 0x0C, 0x10, 0x11, 0x13
SYS_GET_CMDLINE, SYS_HEAPINFO, SYS_EXIT, SYS_EXIT_EXTENDED, SYS_ELAPSED, SYS_TICKFREQ = 0x15, 0x16, 0x18, 0x20, 0x30, 0x31
APPLICATION_EXIT = 0x20026
MINUS_ONE = 0xFFFFFFFF
FEATURES = b"SHFB\x03"  # exit-extended, and stdout apart from stderr


class Memory(Protocol):
    """What semihosting needs of the machine's memory."""

    def read(self, address: int, size: int) -> bytes:
        """Returns `size` bytes at an address."""

    def write(self, address: int, data: bytes) -> None:
        """Writes bytes at an address."""


class Semihosting:
    """Serves the calls. Two files exist: the console ':tt' (no terminal, as in QEMU behind a pipe), ':semihosting-features'."""

    def __init__(
        self, memory: Memory, write: Callable[[bytes], None], read: Callable[[int], bytes], now: Callable[[], int], hertz: int
    ) -> None:
        """`write` and `read` move console bytes; `now` counts the program's cycles, `hertz` of them a second."""
        self.memory, self.write, self.read, self.now, self.hertz = memory, write, read, now, hertz
        self.exit_code: int | None = None
        self.handles: dict[int, int] = {}  # handle: bytes read of the features file, -1 for the console

    def call(self, operation: int, argument: int) -> int:
        """Returns what r0 holds after the call. Sets `exit_code` when the program ends."""
        if operation in (SYS_EXIT, SYS_EXIT_EXTENDED):
            return self._exit(operation, argument)
        if operation == SYS_WRITEC:
            self.write(self.memory.read(argument, 1))
            return argument
        if operation == SYS_WRITE0:
            self.write(self._text(argument))
            return argument
        if operation == SYS_READC:
            byte = self.read(1)
            return byte[0] if byte else MINUS_ONE
        if operation in (SYS_CLOCK, SYS_TIME, SYS_ELAPSED, SYS_TICKFREQ):
            return self._clock(operation, argument)
        if operation in (SYS_OPEN, SYS_CLOSE, SYS_WRITE, SYS_READ, SYS_ISTTY, SYS_FLEN, SYS_SEEK):
            return self._file(operation, [self._word(argument + 4 * i) for i in range(3)])
        if operation == SYS_ISERROR:
            return int(self._word(argument) >> 31)
        if operation == SYS_GET_CMDLINE:
            self.memory.write(self._word(argument), b"\0")
            self.memory.write(argument + 4, bytes(4))
            return 0
        if operation == SYS_HEAPINFO:
            self.memory.write(self._word(argument), bytes(16))
        return 0

    def _word(self, address: int) -> int:
        return int.from_bytes(self.memory.read(address, 4), "little")

    def _text(self, address: int) -> bytes:
        text = bytearray()
        while (byte := self.memory.read(address + len(text), 1)) != b"\0":
            text += byte
        return bytes(text)

    def _exit(self, operation: int, argument: int) -> int:
        reason, code = argument, 0
        if operation == SYS_EXIT_EXTENDED:
            reason, code = self._word(argument), self._word(argument + 4)
        self.exit_code = code if reason == APPLICATION_EXIT else 1
        return 0

    def _clock(self, operation: int, argument: int) -> int:
        if operation == SYS_CLOCK:
            return self.now() * 100 // self.hertz
        if operation == SYS_TIME:
            return int(time.time()) & MINUS_ONE
        if operation == SYS_TICKFREQ:
            return self.hertz
        self.memory.write(argument, self.now().to_bytes(8, "little"))
        return 0

    def _file(self, operation: int, words: list[int]) -> int:
        handle = words[0]
        if operation == SYS_OPEN:
            return self._open(self._text(words[0]))
        position = self.handles.get(handle)
        if position is None:
            return MINUS_ONE
        if operation == SYS_CLOSE:
            del self.handles[handle]
        elif operation == SYS_WRITE:
            self.write(self.memory.read(words[1], words[2]))
        elif operation == SYS_READ:
            data = self.read(words[2]) if position < 0 else FEATURES[position : position + words[2]]
            self.handles[handle] += len(data) if position >= 0 else 0
            self.memory.write(words[1], data)
            return words[2] - len(data)
        elif operation == SYS_FLEN:
            return 0 if position < 0 else len(FEATURES)
        elif operation == SYS_SEEK and position >= 0:
            self.handles[handle] = words[1]
        return 0

    def _open(self, name: bytes) -> int:
        if name not in (b":tt", b":semihosting-features"):
            return MINUS_ONE
        handle = max(self.handles, default=0) + 1
        self.handles[handle] = -1 if name == b":tt" else 0
        return handle
