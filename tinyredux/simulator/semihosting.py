"""Arm semihosting: the calls a program makes to its debugger by `bkpt 0xAB`."""

import time
from collections.abc import Callable
from io import BytesIO

from tinyredux.simulator.core import Console
from tinyredux.simulator.emulator import Emulator

SYS_OPEN, SYS_CLOSE, SYS_WRITEC, SYS_WRITE0, SYS_WRITE, SYS_READ, SYS_READC = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07
SYS_ISERROR, SYS_ISTTY, SYS_SEEK, SYS_FLEN, SYS_CLOCK, SYS_TIME = 0x08, 0x09, 0x0A, 0x0C, 0x10, 0x11
SYS_GET_CMDLINE, SYS_HEAPINFO, SYS_EXIT, SYS_EXIT_EXTENDED, SYS_ELAPSED, SYS_TICKFREQ = 0x15, 0x16, 0x18, 0x20, 0x30, 0x31
FILE_CALLS = (SYS_CLOSE, SYS_WRITE, SYS_READ, SYS_ISTTY, SYS_FLEN, SYS_SEEK)
APPLICATION_EXIT = 0x20026
MINUS_ONE = 0xFFFFFFFF
FEATURES = b"SHFB\x03"  # exit-extended, and stdout apart from stderr
FILES = {b":tt": None, b":semihosting-features": FEATURES}  # what they hold; None: the console


class Semihosting:
    """Serves the calls. Two files exist: the console ':tt' (no terminal, as in QEMU behind a pipe), ':semihosting-features'."""

    def __init__(self, memory: Emulator, console: Console, now: Callable[[], int], hertz: int) -> None:
        """`now` counts the program's cycles, `hertz` of them a second."""
        self.memory, self.console, self.now = memory, console, now
        self.exit_code: int | None = None
        self.answers: dict[int, Callable[[int], int]] = {  # calls that only return something
            SYS_READC: lambda _: next(iter(console.take(1)), MINUS_ONE),
            SYS_CLOCK: lambda _: now() * 100 // hertz,
            SYS_TIME: lambda _: int(time.time()) & MINUS_ONE,
            SYS_TICKFREQ: lambda _: hertz,
            SYS_OPEN: lambda argument: self._open(self._text(self._word(argument))),
            SYS_ISERROR: lambda argument: self._word(argument) >> 31,
        }
        self.handles: dict[int, BytesIO | None] = {}  # None: the console

    def call(self, operation: int, argument: int) -> int:
        """Returns what r0 holds after the call. Sets `exit_code` when the program ends."""
        if operation in (SYS_EXIT, SYS_EXIT_EXTENDED):
            reason, code = (argument, 0) if operation == SYS_EXIT else (self._word(argument), self._word(argument + 4))
            self.exit_code = code if reason == APPLICATION_EXIT else 1
        elif operation in (SYS_WRITEC, SYS_WRITE0):
            self.console.put(self.memory.read(argument, 1) if operation == SYS_WRITEC else self._text(argument))
            return argument
        elif operation in self.answers:
            return self.answers[operation](argument)
        elif operation == SYS_ELAPSED:
            self.memory.write(argument, self.now().to_bytes(8, "little"))
        elif operation in FILE_CALLS:
            return self._file(operation, *(self._word(argument + i) for i in (0, 4, 8)))
        elif operation == SYS_GET_CMDLINE:
            self.memory.write(self._word(argument), b"\0")
            self.memory.write(argument + 4, bytes(4))
        elif operation == SYS_HEAPINFO:
            self.memory.write(self._word(argument), bytes(16))
        return 0

    def _word(self, address: int) -> int:
        return int.from_bytes(self.memory.read(address, 4), "little")

    def _text(self, address: int) -> bytes:
        text = bytearray()
        while (byte := self.memory.read(address + len(text), 1)) != b"\0":
            text += byte
        return bytes(text)

    def _open(self, name: bytes) -> int:
        if name not in FILES:
            return MINUS_ONE
        handle = max(self.handles, default=0) + 1
        content = FILES[name]
        self.handles[handle] = None if content is None else BytesIO(content)
        return handle

    def _file(self, operation: int, handle: int, place: int, size: int) -> int:
        """Returns the answer to a call on an open file; `place` is an address in memory or a position in the file."""
        if handle not in self.handles:
            return MINUS_ONE
        file = self.handles[handle]
        if operation == SYS_CLOSE:
            del self.handles[handle]
        elif operation == SYS_WRITE:
            self.console.put(self.memory.read(place, size))
        elif operation == SYS_READ:
            data = file.read(size) if file else self.console.take(size)
            self.memory.write(place, data)
            return size - len(data)
        elif operation == SYS_FLEN and file:
            return len(file.getvalue())
        elif operation == SYS_SEEK and file:
            file.seek(place)
        return 0
