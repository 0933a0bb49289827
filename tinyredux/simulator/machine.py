"""A simulated board: the emulated core, its devices and its clock, and the run loop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tinyredux.boards import Board
from tinyredux.simulator import core, hooks
from tinyredux.simulator.core import Console, CoreFault, CoreRegisters, even, faulting
from tinyredux.simulator.emulator import LR, PC, PSR, R0, SP, Devices, Emulator
from tinyredux.simulator.hooks import NEVER
from tinyredux.simulator.peripherals import IDLE_POLLS, LINE_POLLS, Peripherals
from tinyredux.simulator.pricing import Pricing
from tinyredux.simulator.program import MemoryMap, load_image
from tinyredux.simulator.semihosting import Semihosting

INTERRUPT_SVC, INTERRUPT_BREAKPOINT = 2, 7
WAIT_FOR_EVENT, SEND_EVENT, SEMIHOSTING_CALL = b"\x20\xbf", b"\x40\xbf", b"\xab\xbe"
INTERRUPTS = {  # of the emulator, that are faults: what it says of them
    17: "UsageFault: an instruction of a coprocessor that is not there or switched off",
    4: "UsageFault: an exclusive access to an address that is no multiple of its size",
}
SLICE_CYCLES = 20_000_000  # the emulator comes back at least so often, so that Ctrl+C is heard
INTERRUPTED = 130  # exit code, as shells have it
NO_ADDRESS = 0xFFFFFFFF
AFTER_MAIN_INSTRUCTIONS = 2_000_000
QUIET_WAITS, ENDLESS_WAITS = 20, 5000  # of one place, for SysTick, without output: taken for the end of the program


class End(NamedTuple):
    """How a program ended.

    reason: exit, return, fault, limit, interrupted; code: its exit code, 1 after a fault, 3 at the limit or when it waits for
    input that never comes, 130 when interrupted; fault: its kind, and where the instruction stands.
    """

    reason: str
    code: int
    text: str
    fault: dict[str, Any] | None = None


class Watched(NamedTuple):
    """What one call of a watched function cost: instructions, cycles of the core, cycles lost to memory, of them to data."""

    instructions: int
    core_cycles: int
    memory_cycles: int
    data_cycles: int


class Machine:
    """A board with a program in flash, at its reset vector. `run` may be called again until `end` says that the program is over.

    Attributes for others: `console` (append to `received`, take from `sent`), `end`, `slept_cycles` (time nothing ran),
    `idles` (the last `run` came back because the program waits for input), `watched` (see `watch`).
    """

    def __init__(self, board: Board, elf: Path) -> None:
        """Loads the program. Raises ValueError when it does not fit the board, MissingTool without a C compiler."""
        self.board, self.program, memory = board, load_image(elf, board.cpu), MemoryMap(board)
        self.end: End | None = None
        self.slept_cycles = 0
        self.idles = self._running = self._event = False
        self.console = Console()
        self.pricing = Pricing(board, self.program, memory, self.read, self._stop_at_return)
        self.memory, self.state = memory, self.pricing.state
        self.core = CoreRegisters(board, self.pricing, self.console, self.now)
        self.exceptions = self.core.exceptions
        self.peripherals = Peripherals(board, self.pricing, self.exceptions, self.console, self.now)
        around = self.peripherals
        devices: Devices = [(0x40000000, 1 << 29, around), (0xA0000000, 0x2000, around), (0xE0000000, 1 << 20, self.core)]
        self.cpu = Emulator(board.cpu, memory, devices, self.state)
        self.semihosting = Semihosting(self.cpu, self.console, self.now, board.clock_hz)
        self.watched: list[Watched] = []
        self._watch = NO_ADDRESS
        self._watch_start: Watched | None = None
        self._main: dict[str, Any] | None = None  # the counts when main returned, with its exit code
        self._quiet: dict[str, Any] = {}  # the counts when the program fell quiet
        self._waiting, self._waits = (0, 0), 0
        self._boot()

    def _boot(self) -> None:
        self.memory.check(self.program)
        for segment in self.program.segments:
            self.cpu.write(segment.load_address, segment.data)
        table = self.memory.vector_table(self.program)
        if table is None:
            stack, start = self.board.sram[0].base + self.board.sram[0].size_bytes, self.program.entry | 1
        else:
            self.exceptions.vector_table = table
            stack, start = (int.from_bytes(self.read(table + 4 * i, 4), "little") for i in range(2))
        registers = dict.fromkeys(range(R0, R0 + 13), 0) | {LR: NO_ADDRESS, SP: stack, PC: start | 1}
        for register, value in registers.items():
            self.cpu.set(register, value)
        self.initial_sp = self.state.lowest_sp = stack
        self.state.stop_address = NO_ADDRESS
        if not start & 1:
            self.fail(even("reset vector", start))

    def read(self, address: int, size: int) -> bytes:
        """Returns bytes of flash or RAM. Raises ValueError outside them."""
        return self.cpu.read(address, size)

    @property
    def stack_bytes(self) -> int:
        """Deepest use of the stack so far, in bytes below the stack pointer of the vector table."""
        return int(self.initial_sp - self.state.lowest_sp)

    def now(self) -> int:
        """Returns the cycle that the program is in, to the instruction."""
        counted = int(self.state.now) + self.slept_cycles
        return counted - self.pricing.remaining(self.cpu.get(PC))[1] if self._running else counted

    # What devices and hooks report --------------------------------------------------------------------------------

    def _stop_at_return(self) -> None:
        self.state.stop_address, self.state.stop_sp = self.cpu.get(LR) & ~1, self.cpu.get(SP)

    def watch(self, function: str) -> None:
        """From now on `watched` gets the cost of each call of a function. Takes the place of noticing main's return."""
        self._watch = self.program.symbols.get(function, NO_ADDRESS) & ~1
        self.pricing.main_address = 0
        self.state.stop_address, self.state.stop_sp = self._watch, hooks.ANY_STACK

    def _watched_address(self) -> None:
        """Main returns, or the watched function begins or ends. After main the program may still flush output, or exit."""
        state = self.state
        spent = Watched(int(state.instructions), int(state.core), int(state.memory), int(state.data_memory))
        if self._watch == NO_ADDRESS:
            self._main = self.counts() | {"exit": self.cpu.get(R0) & 0xFF}
            self.state.stop_address = NO_ADDRESS
        elif self._watch_start is None:
            self._watch_start = spent
            self._stop_at_return()
        else:
            self.watched.append(Watched(*(after - before for before, after in zip(self._watch_start, spent, strict=True))))
            self._watch_start = None
            self.state.stop_address, self.state.stop_sp = self._watch, hooks.ANY_STACK

    # Running ------------------------------------------------------------------------------------------------------

    def run(
        self, max_instructions: int | None = None, *, until_idle: bool = False, between: Callable[[], None] | None = None
    ) -> End | None:
        """Runs up to `max_instructions` more. Returns how the program ended, or None when it may go on.

        `between()` is called at least every SLICE_CYCLES. `until_idle` also returns when the program keeps polling the console
        with no input left. Without it such a program ends with reason "limit", for it would wait for ever.
        """
        limit = NEVER if max_instructions is None else int(self.state.instructions) + max_instructions
        self.idles, self.console.patience = False, LINE_POLLS if until_idle else IDLE_POLLS
        while self.end is None:
            if self.console.idle_polls >= self.console.patience:
                self.console.idle_polls = 0
                if not self.console.received:
                    self.idles = until_idle
                    if not until_idle:
                        self.end = End("limit", 3, "the program waits for console input and there is none left")
                    break
            after_main = NEVER if self._main is None else self._main["instructions"] + AFTER_MAIN_INSTRUCTIONS
            self.state.limit_instructions = min(limit, after_main)
            try:
                self._step()
            except CoreFault as fault:
                self.fail(str(fault))
            if between is not None:
                between()
            if self.state.stop == hooks.STOP_LIMIT and self.end is None:
                if self._main is None:
                    break
                self._end_at_main()
        return self.end

    def _step(self) -> None:
        """Runs to the next event and deals with it."""
        state = self.state
        self.core.advance()
        self._deliver()
        state.stop, state.self_loops = hooks.STOP_NONE, 0
        state.pending = int(bool(self.exceptions.pending & self.exceptions.enabled))
        state.next_event = max(0, min(self.core.next_tick() - self.slept_cycles, int(state.now) + SLICE_CYCLES))
        self._running = True
        try:
            self.cpu.run()
        finally:
            self._running = False
        if self.pricing.error is not None:  # while a block was priced
            raise self.pricing.error
        pc = self.cpu.get(PC)
        if state.stop in (hooks.STOP_FLOAT, hooks.STOP_ALIGNMENT):
            self._forbidden()
        elif self.cpu.error:
            self._emulator_fault(self.cpu.error, pc)
        elif self.cpu.interrupt is not None:
            self._software_interrupt(self.cpu.interrupt, pc)
        elif state.stop == hooks.STOP_ADDRESS:
            self._watched_address()
        elif self.core.reset_requested:
            self.end = End("exit", 1, f"the program reset the system in {self.program.place(pc)}")
        elif (waits := self.pricing.waits()) or state.stop == hooks.STOP_LOOP:
            self._wait(pc, waits)

    def _deliver(self) -> bool:
        """Enters the most urgent pending exception, if any may run now."""
        self.peripherals.wake()
        number = self.exceptions.next(self.cpu)
        if number is not None:
            self.exceptions.enter(self.cpu, number)
            self.pricing.outside(core.ENTRY_CYCLES)
        return number is not None

    def _software_interrupt(self, number: int, pc: int) -> None:
        if number == INTERRUPT_BREAKPOINT:
            self._breakpoint(pc)
        elif number == INTERRUPT_SVC:
            self.exceptions.pending.add(core.SVCALL)
            if not self._deliver():
                raise CoreFault("HardFault: SVC while it is masked")
        elif pc >= 0xFFFFFF00 and self.exceptions.active:
            self.exceptions.leave(self.cpu, pc | 1)
            self.pricing.outside(core.EXIT_CYCLES)
            self._event = True
        elif number in INTERRUPTS:
            self.pricing.unwind(pc)
            raise CoreFault(INTERRUPTS[number])
        else:
            raise CoreFault(f"HardFault: branch to {pc:#010x}, where there is no code")

    def _forbidden(self) -> None:
        """The instruction that stopped may not run: floating point that is switched off, or words at an odd place."""
        self.pricing.unwind(int(self.state.bad_place))
        self.cpu.set(PC, int(self.state.bad_place) | 1)
        if self.state.stop == hooks.STOP_FLOAT:
            raise CoreFault("UsageFault: floating point while its unit is off; set bits 20 to 23 of CPACR (0xE000ED88)")
        raise CoreFault(f"UsageFault: words at {int(self.state.bad_address):#010x}, which is no multiple of 4")

    def _breakpoint(self, pc: int) -> None:
        if self.read(pc, 2) != SEMIHOSTING_CALL:
            raise CoreFault("HardFault: breakpoint without a debugger")
        operation, argument = self.cpu.get(R0), self.cpu.get(R0 + 1)
        with faulting(f"semihosting call {operation:#x}"):
            self.cpu.set(R0, self.semihosting.call(operation, argument))
        self.cpu.set(PC, pc + 2 | 1)
        if self.semihosting.exit_code is not None:
            self.end = End("exit", self.semihosting.exit_code, "semihosting exit")

    def _wait(self, pc: int, for_event: bool) -> None:
        """The program waits for an interrupt, by WFI or in an empty loop: time jumps to the next one, or the program is over."""
        wake = self.core.next_tick()
        if not for_event and self._main is None and self.program.place(pc).partition("+")[0] in ("_exit", "exit", "_Exit"):
            self.end = End("exit", self.cpu.get(R0) & 0xFF, "exit was called")
            return
        self.peripherals.wake()
        if self.exceptions.next(self.cpu) is not None:
            return
        if self._event and self.read(pc - 2, 2) == WAIT_FOR_EVENT:
            self._event = False
        elif wake < NEVER and (for_event or self.exceptions.next(self.cpu, also=core.SYSTICK) is not None):
            self.slept_cycles += max(0, wake - int(self.state.now) - self.slept_cycles)
            self._count_wait(pc)
        elif self._main is not None:
            self._end_at_main()
        elif self.peripherals.listens() and not self.exceptions.active:
            self.console.idle_polls = IDLE_POLLS
        elif self.exceptions.active:
            raise CoreFault(f"endless loop in the handler of exception {self.exceptions.active[-1]}")
        else:
            self._quiet = {}
            self.end = End("return", 0, f"endless loop in {self.program.place(pc)} that nothing can interrupt")

    def _count_wait(self, pc: int) -> None:
        """Ends a program that has nothing left to do but count SysTick; the counts are those of when it fell quiet."""
        place = pc, len(self.console.sent)
        self._waits = self._waits + 1 if place == self._waiting else 0
        self._waiting = place
        if self._waits == QUIET_WAITS:
            self._quiet = self.counts()
        elif self._waits < ENDLESS_WAITS:
            return
        elif self.peripherals.listens():
            self.console.idle_polls, self._waits = IDLE_POLLS, 0
        elif self._main is not None:
            self._end_at_main()
        else:
            self.end = End("return", 0, f"endless loop in {self.program.place(pc)} that only SysTick interrupts")

    # Ends ---------------------------------------------------------------------------------------------------------

    def _end_at_main(self) -> None:
        assert self._main is not None
        self._quiet = self._main
        self.end = End("return", self._main["exit"], "main returned")

    def _emulator_fault(self, error: str, pc: int) -> None:
        if "INSN_INVALID" in error and self.pricing.has_waited(pc):  # WFE, which the emulator does not know
            self._event |= self.memory.holds(pc - 4) and self.read(pc - 4, 2) == SEND_EVENT
            return
        self.pricing.unwind(pc)
        if "FETCH" in error:
            kind = f"HardFault: branch to {pc:#010x}, where there is no code"
        elif "UNMAPPED" in error or "PROT" in error:
            reason = "which is read-only" if "PROT" in error else "where there is no memory"
            kind = f"BusFault: {'write to' if 'WRITE' in error else 'read of'} {self.cpu.bad_address:#010x}, {reason}"
        elif "INSN_INVALID" in error and not self.cpu.get(PSR) & core.THUMB_STATE:
            kind = f"{even('branch target', pc)}, coming from {self.pricing.last_function(before=True)}"
        elif "INSN_INVALID" in error:
            kind = "UsageFault: undefined instruction"
        else:
            kind = f"fault: {error}"
        raise CoreFault(kind)

    def fail(self, kind: str) -> None:
        """Ends the run with a fault of the next instruction; after main has returned it is the end of the program."""
        if self._main is not None:
            self._end_at_main()
            return
        pc = self.cpu.get(PC) & ~1
        where = self.program.place(pc)
        if self.program.function_index(pc) < 0 and "coming from" not in kind:
            where += f", coming from {self.pricing.last_function()}"
        self.end = End("fault", 1, f"{kind}, at {pc:#010x} in {where}", {"kind": kind, "address": pc, "function": where})

    def interrupt(self) -> None:
        """Ends the run because its user wants so; what was counted stays."""
        if self.end is None:
            self.end = End("interrupted", INTERRUPTED, f"interrupted in {self.program.place(self.cpu.get(PC) & ~1)}")

    def counts(self) -> dict[str, Any]:
        """Returns the counts so far, with the fields of `simulate --json`."""
        return self.pricing.counts() | {"stack_bytes": self.stack_bytes}

    def result(self) -> dict[str, Any]:
        """Returns what `simulate --json` prints: the counts of when the program ended its work, and how it ended."""
        end = self.end or End("limit", 3, "the instruction limit was reached")
        counts = (self._quiet if end.reason == "return" else {}) or self.counts()
        return {"schema": 1, "board": self.board.name} | counts | {
            "reason": end.reason, "exit": end.code, "end": end.text,
            "console": self.console.sent.decode("utf-8", "replace"), "fault": end.fault,
        }  # fmt: skip
