"""Unicorn wrapped: a core with memories, device registers and the two hooks. Nothing here knows of time or programs."""

import ctypes
import signal
from collections.abc import Callable, Sequence
from itertools import count
from threading import current_thread, main_thread
from typing import Any, Protocol

from unicorn import UC_ARCH_ARM, UC_HOOK_BLOCK, UC_HOOK_CODE, UC_HOOK_INTR, UC_HOOK_MEM_INVALID, UC_MODE_THUMB
from unicorn import arm_const as reg
from unicorn.unicorn_py3 import unicorn as binding

from tinyredux.simulator.hooks import State, compiled_hooks, zeroed
from tinyredux.simulator.program import MemoryMap

SP, LR, PC, PSR = reg.UC_ARM_REG_SP, reg.UC_ARM_REG_LR, reg.UC_ARM_REG_PC, reg.UC_ARM_REG_XPSR
R0, R12, S0, FPSCR = reg.UC_ARM_REG_R0, reg.UC_ARM_REG_R12, reg.UC_ARM_REG_S0, reg.UC_ARM_REG_FPSCR
IPSR, CONTROL, PRIMASK, BASEPRI = reg.UC_ARM_REG_IPSR, reg.UC_ARM_REG_CONTROL, reg.UC_ARM_REG_PRIMASK, reg.UC_ARM_REG_BASEPRI
NO_END = 0xFFFFFFFF
PATTERN_STEP = 0x01030507
_PATTERNS = count(0x5EC7A113, 0x2F0B3)  # one for each emulator: freed memory may still hold that of another


class Device(Protocol):
    """Registers in the address space."""

    def read(self, address: int, size: int) -> int:
        """Returns the value read."""

    def write(self, address: int, size: int, value: int) -> None:
        """Takes a write."""


Devices = Sequence[tuple[int, int, Device]]  # base, size, registers


class Emulator:
    """One core. Registers by the constants of this module, memory by address.

    Why `run` came back: `interrupt` is the number of a software interrupt; `error` a fault, accessing `bad_address`.
    """

    def __init__(self, cpu: str, memory: MemoryMap, devices: Devices, state: State) -> None:
        """Raises MissingTool without a C compiler."""
        emulator: Any = binding.Uc
        self._uc: Any = emulator(UC_ARCH_ARM, UC_MODE_THUMB)
        self._uc.ctl_set_cpu_model(getattr(reg, f"UC_CPU_ARM_{cpu.upper().replace('-', '_')}"))
        self._spans, self._state = memory.spans, state
        self.interrupt: int | None = None
        self.error, self.bad_address = "", 0
        self._buffers: dict[int, Any] = {}
        for span in self._spans:
            if span.kind not in self._buffers:
                self._buffers[span.kind] = zeroed(ctypes.c_uint8, span.size)
            place = ctypes.addressof(self._buffers[span.kind]) + span.offset
            self._uc.mem_map_ptr(span.base, span.size, 5 if span.kind in memory.read_only else 7, place)
        for base, size, device in devices:
            self._uc.mmio_map(base, size, *_callbacks(base, device))
        self._add_hooks()

    def _place(self, address: int, size: int) -> int:
        for span in self._spans:
            if span.holds(address, size):
                return ctypes.addressof(self._buffers[span.kind]) + span.offset + address - span.base
        raise ValueError(f"{size} bytes at {address:#010x}, where there is no memory")

    def read(self, address: int, size: int) -> bytes:
        """Returns bytes of flash or RAM. Raises ValueError outside them."""
        return ctypes.string_at(self._place(address, size), size)

    def write(self, address: int, data: bytes) -> None:
        """Writes bytes to flash or RAM. Raises ValueError outside them."""
        ctypes.memmove(self._place(address, len(data)), data, len(data))

    def get(self, register: int) -> int:
        """Returns a register."""
        return int(self._uc.reg_read(register))

    def set(self, register: int, value: int) -> None:
        """Writes a register."""
        self._uc.reg_write(register, value)

    def push_stack(self, address: int) -> None:
        """Sets the stack pointer lower, and notes how deep the stack is."""
        if self._state.stack_floor <= address < self._state.lowest_sp:
            self._state.lowest_sp = address
        self.set(SP, address)

    def run(self) -> None:
        """Runs from the program counter until a hook stops it, an instruction raises an exception, or a fault.

        Ctrl+C is kept until the emulator is back: a KeyboardInterrupt inside its callbacks would be printed and lost.
        """
        self.interrupt, self.error, self._pressed = None, "", False
        ours = current_thread() is main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if ours:
            signal.signal(signal.SIGINT, self._press)
        try:
            self._uc.emu_start(self.get(PC) | 1, NO_END)
        except binding.UcError as error:
            self.error = str(error)
        finally:
            if ours:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            if self._pressed:
                raise KeyboardInterrupt

    def _press(self, _: int, __: object) -> None:
        """Notes Ctrl+C, and lets the emulator come back at the next block."""
        self._pressed, self._state.next_event = True, 0

    def _add_hooks(self) -> None:
        """Adds the hooks, which must all be there before the first instruction runs."""
        library, state = compiled_hooks(), self._state
        self._uc.hook_add(UC_HOOK_INTR, self._on_interrupt)
        self._uc.hook_add(UC_HOOK_MEM_INVALID, self._on_invalid)
        pattern = next(_PATTERNS) & 0xFFFFFFFF
        for i in range(13):
            self.set(R0 + i, pattern + i * PATTERN_STEP & 0xFFFFFFFF)
        state.registers = library.find_registers(self._uc._uch, pattern, PATTERN_STEP)
        state.read_register = ctypes.cast(binding.uclib.uc_reg_read, ctypes.c_void_p)
        state.stop_emulator = ctypes.cast(binding.uclib.uc_emu_stop, ctypes.c_void_p)
        for kind, function in ((UC_HOOK_BLOCK, library.on_block), (UC_HOOK_CODE, library.on_instruction)):
            handle, user = ctypes.c_size_t(), ctypes.c_void_p(ctypes.addressof(state))
            pointer = ctypes.cast(function, ctypes.c_void_p)
            everywhere = (ctypes.c_uint64(1), ctypes.c_uint64(0))
            if binding.uclib.uc_hook_add(self._uc._uch, ctypes.byref(handle), kind, pointer, user, *everywhere):
                raise RuntimeError("Unicorn refused a hook; version 2.1.4 is expected: pip install unicorn==2.1.4")
        self._library = library

    def _on_interrupt(self, _: Any, number: int, __: object) -> None:
        self.interrupt = number
        self._uc.emu_stop()

    def _on_invalid(self, _: Any, access: int, address: int, size: int, value: int, __: object) -> bool:
        self.bad_address = address
        return False


def _callbacks(base: int, device: Device) -> tuple[Callable[..., int], None, Callable[..., None], None]:
    def read(_: Any, offset: int, size: int, __: object) -> int:
        return device.read(base + offset, size)

    def write(_: Any, offset: int, size: int, value: int, __: object) -> None:
        device.write(base + offset, size, value)

    return read, None, write, None
