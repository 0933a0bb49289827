"""A simulated board: memories, registers and the run loop around Unicorn."""

from __future__ import annotations

import ctypes
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unicorn import UC_ARCH_ARM, UC_HOOK_BLOCK, UC_HOOK_CODE, UC_HOOK_INTR, UC_HOOK_MEM_INVALID, UC_MODE_THUMB, Uc, UcError
from unicorn import arm_const as reg
from unicorn.unicorn_py3 import unicorn as binding

from tinyredux.boards import Board
from tinyredux.simulate import exceptions, pricing
from tinyredux.simulate.core_registers import NEVER, CoreRegisters
from tinyredux.simulate.hooks import BLOCK_HOOK, STOP_ADDRESS, STOP_LIMIT, PythonHooks, State, compiled_hooks
from tinyredux.simulate.peripherals import Console, Peripherals
from tinyredux.simulate.program import Program, load_program
from tinyredux.simulate.semihosting import Semihosting

CPU_MODELS = {
    "cortex-m4": reg.UC_CPU_ARM_CORTEX_M4,
    "cortex-m7": reg.UC_CPU_ARM_CORTEX_M7,
    "cortex-m33": reg.UC_CPU_ARM_CORTEX_M33,
}
PERIPHERALS, CORE = (0x40000000, 0x20000000), (0xE0000000, 0x100000)
NO_END = 0xFFFFFFFF
INTERRUPT_SVC, INTERRUPT_BREAKPOINT = 2, 7
IDLE_POLLS = 2000
SELF_LOOPS = 200
AFTER_MAIN_INSTRUCTIONS = 2_000_000
PATTERN, PATTERN_STEP = 0x5EC7A113, 0x01030507


@dataclass(frozen=True)
class Fault:
    """Why the program cannot go on: kind, address it happened at (and accessed), function."""

    kind: str
    address: int
    function: str

    def __str__(self) -> str:
        """Returns the sentence that people read."""
        return f"{self.kind} at {self.address:#010x} in {self.function}"


@dataclass(frozen=True)
class End:
    """How a run ended. reason: exit, main, loop, fault, limit, idle; code: the program's exit code, 3 at a limit."""

    reason: str
    code: int
    text: str


class Machine:
    """A board with a program in flash. `run` may be called again and again until `end` says the program is over.

    `cycles=False` counts instructions only and is faster. Attributes: `console` (bytes in and out), `end`, `fault`, `notes`.
    """

    def __init__(self, board: Board, elf: Path, *, cycles: bool = True, hooks: str = "auto") -> None:
        """Loads the program. `hooks`: "auto", "compiled" or "python". Raises ValueError when it does not fit the board."""
        self.board, self.counting = board, not cycles
        self.program: Program = load_program(elf)
        self.uc: Any = Uc(UC_ARCH_ARM, UC_MODE_THUMB)  # type: ignore[no-untyped-call]
        self.uc.ctl_set_cpu_model(CPU_MODELS[board.cpu])
        self.end: End | None = None
        self.fault: Fault | None = None
        self.notes: list[str] = []
        self.console = Console()
        self.core = CoreRegisters(board.cpu, board.mcu[:7].lower(), self.now, self._changed, self.console.put)
        self.peripherals = Peripherals(board, self.console, self._polled, self._pend)
        self.semihosting = Semihosting(self, self.console.put, self.console.take, self.now, board.clock_hz)
        self.slept_cycles = 0
        self._interrupt: int | None = None
        self._bad_access = 0
        self._stop_when_idle = False
        self._idle = False
        self._main_snapshot: pricing.Snapshot | None = None
        self.pricing = pricing.Pricing(board, self.program, self.read, self.counting)
        self.pricing.on_main = self._enters_main
        self.state: State = self.pricing.state
        self._map_memory()
        self._add_hooks(hooks)
        self._boot()

    # Memory -------------------------------------------------------------------------------------------------------

    def _map_memory(self) -> None:
        buffers: dict[int, Any] = {}
        for span in self.pricing.memory.spans:
            if span.backing not in buffers:
                buffers[span.backing] = (ctypes.c_uint8 * span.backing_bytes)()
            place = ctypes.addressof(buffers[span.backing]) + span.offset
            self.uc.mem_map_ptr(span.base, span.size, 5 if span.read_only else 7, place)
        self._buffers = buffers
        self._spans = self.pricing.memory.spans
        uc, core, around = self.uc, self.core, self.peripherals
        uc.mmio_map(
            *PERIPHERALS,
            lambda _, offset, size, __: self._read_peripheral(PERIPHERALS[0] + offset, size), None,
            lambda _, offset, size, value, __: self._write_peripheral(PERIPHERALS[0] + offset, size, value), None,
        )  # fmt: skip
        uc.mmio_map(
            *CORE,
            lambda _, offset, size, __: core.read(CORE[0] + offset, size), None,
            lambda _, offset, size, value, __: core.write(CORE[0] + offset, size, value), None,
        )  # fmt: skip
        uc.mmio_map(0xA0000000, 0x2000, lambda _, offset, size, __: around.read(0xA0000000 + offset, size), None,
                    lambda _, offset, size, value, __: around.write(0xA0000000 + offset, size, value), None)  # fmt: skip
        for address, data in self.program.segments:
            self.write(address, data)

    def _span(self, address: int, size: int) -> tuple[Any, int]:
        for span in self._spans:
            if span.base <= address and address + size <= span.base + span.size:
                return self._buffers[span.backing], span.offset + address - span.base
        raise ValueError(
            f"{size} bytes at {address:#010x} are outside the memories of {self.board.name}; "
            "was the program linked for another board?"
        )

    def read(self, address: int, size: int) -> bytes:
        """Returns bytes of flash or RAM. Raises ValueError outside them."""
        buffer, offset = self._span(address, size)
        return ctypes.string_at(ctypes.addressof(buffer) + offset, size)

    def write(self, address: int, data: bytes) -> None:
        """Writes bytes to flash or RAM. Raises ValueError outside them."""
        buffer, offset = self._span(address, len(data))
        ctypes.memmove(ctypes.addressof(buffer) + offset, data, len(data))

    def _bit_band(self, address: int) -> int | None:
        """Returns the byte address behind a bit-band alias of peripherals, or None."""
        in_alias = self.board.cpu == "cortex-m4" and 0x42000000 <= address < 0x44000000
        return 0x40000000 + (address - 0x42000000) // 32 if in_alias else None

    def _read_peripheral(self, address: int, size: int) -> int:
        target = self._bit_band(address)
        if target is None:
            return self.peripherals.read(address, size)
        return self.peripherals.read(target, 1) >> (address >> 2 & 7) & 1

    def _write_peripheral(self, address: int, size: int, value: int) -> None:
        target = self._bit_band(address)
        if target is None:
            self.peripherals.write(address, size, value)
            return
        bit = address >> 2 & 7
        self.peripherals.write(target, 1, self.peripherals.read(target, 1) & ~(1 << bit) | (value & 1) << bit)

    # Hooks --------------------------------------------------------------------------------------------------------

    def _add_hooks(self, kind: str) -> None:
        library = compiled_hooks() if kind != "python" else None
        if library is None and kind != "python":
            message = "no C compiler works here: the simulator runs on its Python hooks, about 50 times slower"
            if kind == "compiled":
                raise RuntimeError(f"{message}; install gcc or clang")
            self.notes.append(message)
            warnings.warn(message, stacklevel=3)
        self.uc.hook_add(UC_HOOK_INTR, self._on_interrupt)
        self.uc.hook_add(UC_HOOK_MEM_INVALID, self._on_invalid)
        if library is None:
            hooks = PythonHooks(self.state, lambda number: int(self.uc.reg_read(self._register(number))), self.uc.emu_stop)
            self.uc.hook_add(UC_HOOK_BLOCK, lambda _, address, size, __: hooks.on_block(address, size))
            if not self.counting:
                self.uc.hook_add(UC_HOOK_CODE, lambda _, address, size, __: hooks.on_instruction(address))
            return
        for i in range(13):
            self.uc.reg_write(reg.UC_ARM_REG_R0 + i, PATTERN + i * PATTERN_STEP & 0xFFFFFFFF)
        self.state.registers = library.find_registers(self.uc._uch, PATTERN, PATTERN_STEP)
        self.state.read_register = ctypes.cast(binding.uclib.uc_reg_read, ctypes.c_void_p)
        self.state.stop_emulator = ctypes.cast(binding.uclib.uc_emu_stop, ctypes.c_void_p)
        self._add_compiled(UC_HOOK_BLOCK, library.on_block)
        if not self.counting:
            self._add_compiled(UC_HOOK_CODE, library.on_instruction)
        self._library = library

    def _add_compiled(self, kind: int, function: Any) -> None:
        handle = ctypes.c_size_t()
        pointer = ctypes.cast(function, ctypes.c_void_p)
        user = ctypes.c_void_p(ctypes.addressof(self.state))
        error = binding.uclib.uc_hook_add(
            self.uc._uch, ctypes.byref(handle), kind, pointer, user, ctypes.c_uint64(1), ctypes.c_uint64(0)
        )
        if error:
            raise RuntimeError(f"Unicorn refused a hook (error {error}); version 2.1.4 is expected")

    @staticmethod
    def _register(number: int) -> int:
        return int(
            (reg.UC_ARM_REG_SP, reg.UC_ARM_REG_LR, reg.UC_ARM_REG_PC)[number - 13] if number > 12 else reg.UC_ARM_REG_R0 + number
        )

    def _on_interrupt(self, uc: Any, number: int, _: object) -> None:
        self._interrupt = number
        uc.emu_stop()

    def _on_invalid(self, _: Any, access: int, address: int, size: int, value: int, __: object) -> bool:
        self._bad_access = address
        return False

    def _changed(self) -> None:
        self.state.next_event = 0

    def _pend(self, number: int) -> None:
        self.core.exceptions.pending.add(16 + number)
        self.state.next_event = 0

    def _polled(self) -> None:
        if self.console.idle_polls >= IDLE_POLLS:
            self._idle = True
            self.state.next_event = 0

    # Time ---------------------------------------------------------------------------------------------------------

    def now(self) -> int:
        """Returns the cycle (instruction, when only counting) that the program is in, to the instruction."""
        return int(self.state.now) + self.slept_cycles - self.pricing.remaining(self.uc.reg_read(reg.UC_ARM_REG_PC))

    # Running ------------------------------------------------------------------------------------------------------

    def _boot(self) -> None:
        program = self.program
        table = self.pricing.memory.vector_table(program)
        self.core.vector_table = table if table is not None else 0
        if table is None:
            stack, start = self.board.sram[0].base + self.board.sram[0].size_bytes, program.entry
        else:
            stack, start = (int.from_bytes(self.read(table + 4 * i, 4), "little") for i in range(2))
        for i in range(13):
            self.uc.reg_write(reg.UC_ARM_REG_R0 + i, 0)
        self.uc.reg_write(reg.UC_ARM_REG_LR, 0xFFFFFFFF)
        self.uc.reg_write(reg.UC_ARM_REG_SP, stack)
        self.uc.reg_write(reg.UC_ARM_REG_PC, start | 1)
        self.initial_sp = stack
        self.state.lowest_sp = stack
        self.state.stop_address = NO_END

    def run(self, max_instructions: int | None = None, *, until_idle: bool = False) -> End | None:
        """Runs up to `max_instructions` more. Returns how the program ended, or None when it may go on.

        `until_idle` also returns when the program keeps polling the console with no input left. Without it, and without a
        limit, a program that waits for input for ever ends with reason "idle".
        """
        limit = NEVER if max_instructions is None else int(self.state.instructions) + max_instructions
        while self.end is None:
            self.state.limit_instructions = min(limit, self._grace())
            if self._idle and not self.console.received:
                self._idle, self.console.idle_polls = False, 0
                if until_idle:
                    return None
                self._finish("idle", 3, "the program waits for console input and there is none left")
                break
            self._idle = False
            if self._step() == STOP_LIMIT and self._main_snapshot is None:
                return None
        return self.end

    def _grace(self) -> int:
        snapshot = self._main_snapshot
        return NEVER if snapshot is None else snapshot.instructions + AFTER_MAIN_INSTRUCTIONS

    def _step(self) -> int:
        """Runs to the next event and deals with it. Returns the hooks' stop reason."""
        self.core.advance()
        exceptions.deliver(self)
        state = self.state
        state.stop, self._interrupt, state.self_loops = 0, None, 0
        state.pending = int(self.core.exceptions.any_ready())
        state.next_event = min(NEVER, max(0, self.core.next_tick() - self.slept_cycles))
        pc = self.uc.reg_read(reg.UC_ARM_REG_PC)
        try:
            self.uc.emu_start(pc | 1, NO_END)
        except UcError as error:
            self._emulator_fault(error)
            return 0
        self.pricing.check()
        pc = self.uc.reg_read(reg.UC_ARM_REG_PC)
        if self._interrupt is not None:
            self._exception(self._interrupt, pc)
        elif state.stop == STOP_LIMIT:
            self._limit()
        elif state.stop == STOP_ADDRESS:
            self._main_returned()
        elif self.core.reset_requested:
            self._finish("reset", 1, f"the program reset the system in {self.program.place(pc)}")
        elif state.self_loops >= SELF_LOOPS or (not state.stop and self.pricing.waits(pc)):
            self._sleep(pc)
        elif not state.stop and not self._idle:
            raise RuntimeError(f"the emulator stopped at {pc:#010x} without a reason")
        return int(state.stop)

    def _limit(self) -> None:
        if self._main_snapshot is not None:
            self._end_at_main()

    def _exception(self, number: int, pc: int) -> None:
        if number == INTERRUPT_BREAKPOINT:
            self._breakpoint(pc)
        elif number == INTERRUPT_SVC:
            self.core.exceptions.pending.add(11)
            if exceptions.deliver(self) is None:
                self.fail("SVC that is masked: HardFault", pc)
        elif pc >= 0xFFFFFF00 and self.core.exceptions.active:
            exceptions.leave(self, pc | 1)
        else:
            self.fail(
                "HardFault: branch to an address without code" if pc < 0xF0000000 else "HardFault: bad exception return", pc
            )

    def _breakpoint(self, pc: int) -> None:
        if self.read(pc, 2) != b"\xab\xbe":
            self.fail("breakpoint without a debugger: HardFault", pc)
            return
        self.uc.reg_write(reg.UC_ARM_REG_PC, pc + 2 | 1)
        operation, argument = (self.uc.reg_read(reg.UC_ARM_REG_R0 + i) for i in range(2))
        try:
            answer = self.semihosting.call(operation, argument)
        except ValueError as wrong:
            self.fail(f"semihosting call {operation:#x}: {wrong}", pc)
            return
        self.uc.reg_write(reg.UC_ARM_REG_R0, answer)
        if self.semihosting.exit_code is not None:
            self._main_snapshot = None
            self._finish("exit", self.semihosting.exit_code, "semihosting exit")

    def _sleep(self, pc: int) -> None:
        """The program waits for an interrupt: time jumps to the next one, or it is over."""
        wake = self.core.next_tick()
        if self.core.exceptions.any_ready() and exceptions.deliver(self) is not None:
            return
        if wake < NEVER and exceptions.may_interrupt(self):
            self.slept_cycles += max(0, wake - (int(self.state.now) + self.slept_cycles))
            return
        if self._main_snapshot is not None:
            self._end_at_main()
        elif self.core.exceptions.active:
            self.fail(f"endless loop in exception {self.core.exceptions.active[-1]}", pc)
        else:
            self._finish("loop", 0, f"endless loop in {self.program.place(pc)} that nothing can interrupt")

    def _enters_main(self) -> None:
        self.state.stop_address = self.uc.reg_read(reg.UC_ARM_REG_LR) & ~1
        self.state.stop_sp = self.uc.reg_read(reg.UC_ARM_REG_SP)

    def _main_returned(self) -> None:
        code = self.uc.reg_read(reg.UC_ARM_REG_R0) & 0xFF
        self._main_snapshot = self.pricing.snapshot(code, self.initial_sp - self.state.lowest_sp)
        self.state.stop_address = NO_END

    def _end_at_main(self) -> None:
        assert self._main_snapshot is not None
        self._finish("main", self._main_snapshot.exit_code, "main returned")

    def _finish(self, reason: str, code: int, text: str) -> None:
        self.end = End(reason, code, text)

    def _emulator_fault(self, error: UcError) -> None:
        pc = self.uc.reg_read(reg.UC_ARM_REG_PC)
        self.pricing.check()
        self.pricing.unwind(pc)
        text = str(error)
        if "fetch" in text.lower():
            kind = f"HardFault: execution of {pc:#010x}, where there is no code"
        elif "UNMAPPED" in text or "PROT" in text:
            verb = "write to" if "WRITE" in text else "read of"
            kind = f"BusFault: {verb} {self._bad_access:#010x}, " + (
                "read-only" if "PROT" in text else "where there is no memory"
            )
        elif "INSN_INVALID" in text:
            kind = "UsageFault: undefined instruction"
        else:
            kind = f"fault: {text}"
        self.fail(kind, pc)

    def fail(self, kind: str, pc: int) -> None:
        """Ends the run with a fault at `pc`."""
        if self._main_snapshot is not None:
            self._end_at_main()
            return
        where = self.program.place(pc)
        if self.program.function_index(pc) < 0 and self.pricing.last_function() is not None:
            where = f"{where} (last in {self.pricing.last_function()})"
        self.fault = Fault(kind, pc, where)
        self._finish("fault", 1, str(self.fault))

    def result(self) -> dict[str, Any]:
        """Returns the counts so far, with the fields of `simulate --json`."""
        depth = self.initial_sp - int(self.state.lowest_sp)
        if self._main_snapshot is not None and self.end is not None and self.end.reason == "main":
            counts = self._main_snapshot.counts | {"stack_bytes": self._main_snapshot.stack_bytes}
        else:
            counts = self.pricing.counts() | {"stack_bytes": depth}
        end = self.end or End("limit", 3, "the instruction limit was reached")
        return {
            "schema": 1,
            "board": self.board.name,
            **counts,
            "exit": end.code,
            "end": end.text,
            "console": self.console.sent.decode("utf-8", "replace"),
            "notes": self.notes,
        }


__all__ = ["BLOCK_HOOK", "End", "Fault", "Machine"]
