"""The tables the hooks work on: blocks priced on first sight, caches, counters; and the report made of them."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinyredux.boards import Board
from tinyredux.simulator import hooks
from tinyredux.simulator.decode import decode_block
from tinyredux.simulator.program import FLASH_KIND, STACK_KIND, MemoryMap, Program
from tinyredux.simulator.timing import (
    NO_REGISTER,
    PROGRAM_COUNTER,
    RULES,
    STACK_POINTER,
    Instruction,
    LoadPrice,
    cycles_kind,
    error_band,
    model_name,
    price_block,
)

SYSM_PSP = 9
CACHE_SWITCHES = ("stm32f2", "stm32f4", "stm32l4", "stm32g4")  # instruction and data cache have bits in FLASH_ACR
WAYS = {"cortex-m7": (2, 4), "cortex-m33": (2, 2)}


@dataclass(frozen=True)
class Snapshot:
    """The counts when main returned."""

    exit_code: int
    instructions: int
    stack_bytes: int
    counts: dict[str, Any]


class Pricing:
    """Owns the shared State. `read(address, size)` returns code bytes."""

    def __init__(
        self, board: Board, program: Program, read: Callable[[int, int], bytes], counting: bool, on_main: Callable[[], None]
    ) -> None:
        """Builds empty tables for the memories of a board. `on_main()` is called when main is about to run."""
        self.board, self.program, self.read, self.counting = board, program, read, counting
        self.rules = RULES[board.cpu]
        self.memory = MemoryMap(board)
        self.on_main = on_main
        self.main_address = program.symbols.get("main", 0) & ~1
        self.error: BaseException | None = None
        self.state = hooks.State(counting=int(counting), mispredict_cycles=self.rules.mispredict, self_loop_limit=200)
        self.state.flash_kind, self.state.stack_kind = FLASH_KIND, STACK_KIND
        self.blocks = hooks.zeroed(hooks.Block, hooks.MAX_BLOCKS)
        self.loads = hooks.zeroed(hooks.Load, hooks.MAX_LOADS)
        self.block_count = self.load_count = 1
        self.decoded: dict[int, list[Instruction]] = {}
        self._callback = hooks.PRICE(self._price_safely)
        self.state.price = self._callback
        self.state.block, self.state.load = self.blocks, self.loads
        self.watch_float, self.was_on = True, False  # off at reset; most programs switch it on once
        self._add_regions()
        self._add_caches()

    def _add_regions(self) -> None:
        spans = self.memory.spans
        self.regions = (hooks.Region * len(spans))()
        for region, span in zip(self.regions, spans, strict=True):
            region.base, region.size, region.kind = span.base, span.size, span.kind
            region.flash_offset = span.offset if span.kind == FLASH_KIND else 0
            region.block = hooks.zeroed(ctypes.c_uint32, span.size // 2 + 1)
            region.load = hooks.zeroed(ctypes.c_uint32, span.size // 2 + 1)
        self.state.region, self.state.regions = self.regions, len(spans)

    def _add_caches(self) -> None:
        timing, covered = self.board.flash_timing, self.board.flash_bytes
        code_ways, data_ways = WAYS.get(self.board.cpu, (timing.code_lines, timing.data_lines))
        miss = timing.miss_cycles if timing.miss_cycles is not None else timing.wait_states
        self.code = hooks.new_cache(timing.code_lines, code_ways, timing.line_bytes, miss, timing.prefetch, covered)
        self.data = self.code
        if timing.data_lines:
            self.data = hooks.new_cache(timing.data_lines, data_ways, timing.line_bytes, miss, False, covered)
        self.state.code, self.state.data = ctypes.pointer(self.code), ctypes.pointer(self.data)

    def set_flash_access(self, control: int) -> None:
        """Takes the program's setting of the flash access control register: latency, prefetch, caches."""
        if self.board.flash_timing.miss_cycles is None:
            self.code.miss_cycles = self.data.miss_cycles = control & 15
        self.code.prefetch = control >> 8 & 1
        if self.board.family in CACHE_SWITCHES:
            self.code.enabled, self.data.enabled = control >> 9 & 1, control >> 10 & 1

    # Pricing ------------------------------------------------------------------------------------------------------

    def _price_safely(self, address: int, size: int) -> None:
        try:
            self._price(address, size)
        except BaseException as error:
            self.error = self.error or error
            self.state.next_event = 0

    def check(self) -> None:
        """Raises what went wrong while a block was priced."""
        if self.error is not None:
            raise self.error

    def _price(self, address: int, size: int) -> None:
        if self.block_count >= hooks.MAX_BLOCKS or self.load_count + size // 2 >= hooks.MAX_LOADS:
            raise ValueError(f"the program has more than {hooks.MAX_BLOCKS} basic blocks: it seems to write code as it runs")
        content = self.read(address, size)
        instructions = decode_block(content)
        price = price_block(self.rules, instructions, address)
        region = next(r for r in self.regions if r.base <= address < r.base + r.size)
        block = self.blocks[self.block_count]
        block.address, block.end, block.instructions = address, address + size, len(instructions)
        block.cycles = len(instructions) if self.counting else price.cycles
        block.stack_bytes = _stack_reach(instructions)
        block.function = 1 + self.program.function_index(address)
        block.is_entry = int(block.function > 0 and self.program.functions[block.function - 1].start == address)
        if region.kind == FLASH_KIND and not self.counting:
            first = (address - region.base + region.flash_offset) >> self.code.line_shift
            last = (address + size - 1 - region.base + region.flash_offset) >> self.code.line_shift
            block.first_line, block.lines = first, last - first + 1
        block.taken_cycles = price.taken_cycles
        block.target_cycles = self.rules.wide_target if address & 2 and instructions[0].size == 4 else 0
        block.end_kind = _end_kind(instructions[-1])
        block.predictor = 1
        code = self.read(address + size - 2, 2)
        if instructions[-1].kind == "mask" and instructions[-1].size == 4 and code[0] == SYSM_PSP:
            self.state.stack_floor = self.program.data_end  # a second stack: do not take it for depth of the first
        block.loops_to_itself = int(code == b"\xfe\xe7" and len(instructions) <= 2)
        block.changes_masks = int(instructions[-1].kind == "mask")
        block.waits = int(instructions[-1].kind == "wait")
        if not self.counting:
            loads = self._add_loads(address, instructions, price.loads, region)
            self._add_checks(address, content, instructions, loads, region)
        self.decoded[self.block_count] = instructions
        region.block[(address - region.base) >> 1] = self.block_count
        self.block_count += 1
        if address == self.main_address and address:
            self.main_address = 0
            self.on_main()

    def _add_loads(
        self, address: int, block: list[Instruction], prices: tuple[LoadPrice, ...], region: hooks.Region
    ) -> dict[int, hooks.Load]:
        """Returns the entry of each load whose address is to be looked at, by its position in the block."""
        places = list(itertools.accumulate((instruction.size for instruction in block), initial=address))
        found: dict[int, hooks.Load] = {}
        for price in prices:
            load = found[price.position] = self._new_load(block[price.position], places[price.position], region)
            load.chained, load.after_stack = price.chained, price.after_stack
            load.conditional_cycles = price.conditional_cycles
            load.unaligned_cycles = self.rules.unaligned
        return found

    def _new_load(self, instruction: Instruction, place: int, region: hooks.Region) -> hooks.Load:
        load: hooks.Load = self.loads[self.load_count]
        load.base, load.index, load.shift = instruction.base, instruction.index, instruction.shift
        load.offset = instruction.offset
        if instruction.base == PROGRAM_COUNTER:
            pc = place + 4 if instruction.index != NO_REGISTER else (place + 4) & ~3
            load.offset = ctypes.c_int32(pc + instruction.offset).value
        load.bytes, load.total_bytes = instruction.access_bytes, max(instruction.access_bytes, 4 * instruction.words)
        if instruction.access_bytes < 4:
            load.total_bytes = instruction.access_bytes
        region.load[(place - region.base) >> 1] = self.load_count
        self.load_count += 1
        return load

    def _add_checks(
        self, address: int, content: bytes, block: list[Instruction], loads: dict[int, hooks.Load], region: hooks.Region
    ) -> None:
        """Marks what may fault: words that must be aligned, and floating point while its unit is off or has been."""
        place = 0
        for position, instruction in enumerate(block):
            here, place = place, place + instruction.size
            is_float = instruction.size == 4 and content[here + 1] & 0xEC == 0xEC and content[here + 3] & 0x0E == 0x0A
            if not is_float and not instruction.words:
                continue
            checks = hooks.FLOAT if is_float and self.watch_float else 0
            checks |= hooks.ALIGNED if _must_be_aligned(instruction, is_float) else 0
            if checks and position not in loads:
                loads[position] = self._new_load(instruction, address + here, region)
                if instruction.base == NO_REGISTER:
                    loads[position].base = PROGRAM_COUNTER
                checks |= hooks.NO_LOAD
            if checks:
                loads[position].checks = checks

    def switch_float(self, on: bool) -> None:
        """Takes the program's switch of its floating-point unit."""
        if not on and self.state.float_on and not self.watch_float:
            self.watch_float = True
            for block in self.blocks[1 : self.block_count]:  # met while it was on: to be looked at again
                region = next(r for r in self.regions if r.base <= block.address < r.base + r.size)
                region.block[(block.address - region.base) >> 1] = 0
        elif on:
            self.watch_float = self.watch_float and self.was_on
            self.was_on = True
        self.state.float_on = int(on)

    # Asked by the machine -----------------------------------------------------------------------------------------

    def remaining(self, pc: int) -> int:
        """Returns the cycles of the running block from the instruction at `pc` on: counted already, not yet spent."""
        block = self.blocks[self.state.current]
        if not block.address < pc + 1 <= block.end:
            return 0
        before, place = 0, block.address
        instructions = self.decoded[self.state.current]
        while place < pc and before < len(instructions):
            place += instructions[before].size
            before += 1
        if self.counting:
            return len(instructions) - before
        return int(block.cycles) - (price_block(self.rules, instructions[:before], block.address).cycles if before else 0)

    def unwind(self, pc: int) -> None:
        """Takes back what was counted for the instructions from `pc` on, which a fault kept from running."""
        block = self.blocks[self.state.current]
        cycles = self.remaining(pc)
        if not cycles:
            return
        place, missing = block.end, 0
        for instruction in reversed(self.decoded[self.state.current]):
            if place <= pc:
                break
            place -= instruction.size
            missing += 1
        self.state.instructions -= missing
        if not self.counting:
            self.state.core -= cycles

    def outside(self, cycles: int) -> None:
        """Adds cycles that no instruction took: exception entry and return."""
        self.state.current = 0
        if self.counting:
            return
        self.state.core += cycles
        self.state.now += cycles
        self.blocks[0].extra_core += cycles

    def waits(self) -> bool:
        """Whether the instruction that ran last waits for an interrupt; asked once."""
        block = self.blocks[self.state.current]
        if block.waits or block.changes_masks:
            self.state.current = 0  # or the hook would stop again at once
        return bool(block.waits)

    def has_waited(self, pc: int) -> bool:
        """Whether the block that ran last waits for an interrupt, and ended right before `pc`."""
        block = self.blocks[self.state.current]
        return bool(block.waits and block.end == pc)

    def last_function(self, before: bool = False) -> str:
        """Returns the name of the function whose block ran last, or, of the block `before` that."""
        index = int(self.blocks[self.state.previous if before else self.state.current].function)
        return self.program.functions[index - 1].name if index else "code without a name"

    def snapshot(self, exit_code: int, stack_bytes: int) -> Snapshot:
        """Returns the counts of this moment."""
        return Snapshot(exit_code, int(self.state.instructions), stack_bytes, self.counts())

    def counts(self) -> dict[str, Any]:
        """Returns instructions, cycles and functions so far, as `simulate --json` names them."""
        totals: dict[int, list[int]] = {}
        for block in self.blocks[: self.block_count]:
            entry = totals.setdefault(block.function, [0, 0, 0])
            entry[0] += block.calls
            entry[1] += block.runs * block.instructions
            entry[2] += block.runs * block.cycles + block.extra_core + block.extra_memory
        functions = [
            {"name": self.program.functions[index - 1].name, "calls": calls, "instructions": instructions, "cycles": cycles}
            for index, (calls, instructions, cycles) in sorted(totals.items(), key=lambda item: -item[1][2])
            if index
        ]
        if self.counting:
            functions = [entry | {"cycles": None} for entry in functions]
        state = self.state
        return {
            "instructions": int(state.instructions),
            "cycles": None if self.counting else int(state.core + state.memory),
            "cycles_core": None if self.counting else int(state.core),
            "cycles_memory": None if self.counting else int(state.memory),
            "cycles_kind": None if self.counting else cycles_kind(self.board.cpu),
            "timing_model": None if self.counting else model_name(self.board.cpu),
            "error_band": None if self.counting else list(error_band(self.board.cpu)),
            "functions": functions,
        }


def _stack_reach(block: list[Instruction]) -> int:
    """Returns how far below its value at the start a block takes the stack pointer."""
    depth = reach = 0
    for instruction in block:
        depth += instruction.stack_bytes
        reach = max(reach, depth)
    return reach


def _must_be_aligned(instruction: Instruction, is_float: bool) -> bool:
    """Whether an access faults at an address that is no multiple of 4. The stack pointer and literals are always aligned."""
    if instruction.base in (STACK_POINTER, PROGRAM_COUNTER, NO_REGISTER):
        return False
    many = instruction.kind in ("load-many", "store-many")
    return many or (instruction.kind in ("load", "store") and (instruction.words > 1 or is_float))


def _end_kind(last: Instruction) -> int:
    if not last.to_pc:
        return hooks.END_NONE
    if last.kind == "branch-if" or last.conditional:
        return hooks.END_CONDITIONAL
    if last.kind == "branch":
        return hooks.END_DIRECT
    if last.kind == "call" or last.writes >> 14 & 1:
        return hooks.END_CALL
    return hooks.END_RETURN if last.kind == "load-many" or last.reads >> 14 & 1 else hooks.END_INDIRECT
