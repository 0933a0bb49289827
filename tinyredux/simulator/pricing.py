"""The tables the hooks work on: blocks priced on first sight, caches, counters; and the report made of them."""

import ctypes
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from tinyredux.boards import Board
from tinyredux.simulator import hooks, timing
from tinyredux.simulator.chips import chip_of
from tinyredux.simulator.decode import decode_block
from tinyredux.simulator.program import FLASH_KIND, Image, MemoryMap
from tinyredux.simulator.timing import NO_REGISTER, PROGRAM_COUNTER, STACK_POINTER, Instruction, LoadPrice, price_block

SYSM_PSP = 9
SYSTEM = 0x20000000  # from here on instructions come over the system bus. Source: Arm DDI 0337G, table 4-1


class Pricing:
    """Owns the shared State. `read(address, size)` returns code bytes."""

    def __init__(
        self, board: Board, image: Image, memory: MemoryMap, read: Callable[[int, int], bytes], on_main: Callable[[], None]
    ) -> None:
        """Builds empty tables for the memories of a board. `on_main()` is called when main is about to run."""
        self.board, self.image, self.read, self.on_main = board, image, read, on_main
        self.rules = timing.RULES[board.cpu]
        self.main_address = image.symbols.get("main", 0) & ~1
        self.error: BaseException | None = None
        self.blocks = hooks.zeroed(hooks.Block, hooks.MAX_BLOCKS)
        self.loads = hooks.zeroed(hooks.Load, hooks.MAX_LOADS)
        self.block_count = self.load_count = 1
        self.decoded: dict[int, list[Instruction]] = {}
        self.left: dict[tuple[int, int], tuple[int, int]] = {}  # what `remaining` has said of a block and a place in it
        self.branches: dict[int, int] = {}  # the first block that ends at an address
        self.watch_float, self.was_on = True, False  # off at reset; most programs switch it on once
        self.regions = (hooks.Region * len(memory.spans))()
        for region, span in zip(self.regions, memory.spans, strict=True):
            region.base, region.size, region.kind = span.base, span.size, span.kind
            region.block = hooks.zeroed(ctypes.c_uint32, span.size // 2 + 1)
            region.load = hooks.zeroed(ctypes.c_uint32, span.size // 2 + 1)
        flash, covered = board.flash_timing, board.flash_bytes
        code_ways, data_ways = timing.CORES[board.cpu].cache_ways or (flash.code_lines, flash.data_lines)
        miss = flash.miss_cycles if flash.miss_cycles is not None else flash.wait_states
        self.code = hooks.new_cache(flash.code_lines, code_ways, flash.line_bytes, miss, flash.prefetch, covered)
        self.data = self.code
        if flash.data_lines:
            self.data = hooks.new_cache(flash.data_lines, data_ways, flash.line_bytes, miss, False, covered)
        self.code.next_cycles = self.data.next_cycles = flash.next_cycles
        self._callback = hooks.PRICE(self._price_safely)
        self.state = hooks.State(
            mispredict_cycles=self.rules.mispredict, regions=len(self.regions), region=self.regions, block=self.blocks,
            load=self.loads, code=ctypes.pointer(self.code), data=ctypes.pointer(self.data),
            price=ctypes.cast(self._callback, ctypes.c_void_p),
        )  # fmt: skip

    def set_flash_access(self, control: int) -> None:
        """Takes the program's setting of the flash access control register: latency, prefetch, caches."""
        if self.board.flash_timing.miss_cycles is None:
            self.code.miss_cycles = self.data.miss_cycles = control & 15
        self.code.prefetch = control >> 8 & 1
        for cache, bit in zip((self.code, self.data), chip_of(self.board.family).cache_bits, strict=False):
            cache.enabled = control >> bit & 1

    def switch_float(self, on: bool) -> None:
        """Takes the program's switch of its floating-point unit."""
        if not on and self.state.float_on and not self.watch_float:
            self.watch_float = True
            for block in self.blocks[1 : self.block_count]:  # met while it was on: to be looked at again
                self._set(block.address, "block", 0)
        elif on:
            self.watch_float = self.watch_float and self.was_on
            self.was_on = True
        self.state.float_on = int(on)

    # Pricing ------------------------------------------------------------------------------------------------------

    def _region(self, address: int) -> Any:
        return next(region for region in self.regions if region.base <= address < region.base + region.size)

    def _set(self, address: int, table: str, index: int) -> None:
        """Notes the block or load at an address in the table of its region."""
        region = self._region(address)
        getattr(region, table)[(address - region.base) >> 1] = index

    def _price_safely(self, address: int, size: int) -> None:
        try:
            self._price(address, size)
        except BaseException as error:
            self.error = self.error or error
            self.state.next_event = 0

    def _price(self, address: int, size: int) -> None:
        if self.block_count >= hooks.MAX_BLOCKS or self.load_count + size // 2 >= hooks.MAX_LOADS:
            raise ValueError(f"the program has more than {hooks.MAX_BLOCKS} basic blocks: it seems to write code as it runs")
        content = self.read(address, size)
        instructions = self.decoded[self.block_count] = decode_block(content)
        last, price, region = instructions[-1], price_block(self.rules, instructions, address), self._region(address)
        function = self.image.function_index(address)
        lines = range(0)
        if region.kind == FLASH_KIND:
            first, end = ((place - region.base) >> self.code.line_shift for place in (address, address + size - 1))
            lines = range(first, end + 1)
        words = (address + size + 3) // 4 - address // 4
        if last.kind == "mask" and last.size == 4 and content[-2] == SYSM_PSP:
            self.state.stack_floor = self.image.data_end  # a second stack: do not take it for depth of the first
        self.blocks[self.block_count] = hooks.Block(
            address=address, end=address + size, instructions=len(instructions), cycles=price.cycles,
            taken_cycles=price.taken_cycles, stack_bytes=max(0, *accumulate(one.stack_bytes for one in instructions)),
            function=1 + function, is_entry=function >= 0 and self.image.functions[function].start == address,
            first_line=lines.start, lines=len(lines), predictor=1, end_kind=_end_kind(last),
            wait_cycles=self.rules.system_fetch * words * (address >= SYSTEM),
            branch=self.branches.setdefault(address + size, self.block_count),
            target_cycles=self.rules.wide_target if address & 2 and instructions[0].size == 4 else 0,
            loops_to_itself=content[-2:] == b"\xfe\xe7" and len(instructions) <= 2,
            changes_masks=last.kind == "mask", waits=last.kind == "wait",
        )  # fmt: skip
        loads, place = {load.position: load for load in price.loads}, address
        for position, instruction in enumerate(instructions):
            self._look_at(instruction, loads.get(position), place, content[place - address :][: instruction.size])
            place += instruction.size
        self._set(address, "block", self.block_count)
        self.block_count += 1
        if address == self.main_address and address:
            self.main_address = 0
            self.on_main()

    def _look_at(self, instruction: Instruction, price: LoadPrice | None, place: int, code: bytes) -> None:
        """Has an instruction looked at when it runs, where its address decides on its price, or on whether it may run."""
        is_float = len(code) == 4 and code[1] & 0xEC == 0xEC and code[3] & 0x0E == 0x0A
        checks = (hooks.FLOAT if is_float and self.watch_float else 0) | _must_be_aligned(instruction, is_float)
        if price is None and not checks:
            return
        base, offset = instruction.base, instruction.offset
        if base == PROGRAM_COUNTER:
            offset += place + 4 if instruction.index != NO_REGISTER else (place + 4) & ~3
        words = max(1, instruction.words) if instruction.access_bytes == 4 else 1
        _, chained, after_stack, conditional_cycles = price or (0, False, False, 0)
        self.loads[self.load_count] = hooks.Load(
            base=PROGRAM_COUNTER if base == NO_REGISTER else base,  # so that the hook reads no register
            index=instruction.index, shift=instruction.shift, offset=offset, bytes=instruction.access_bytes,
            total_bytes=words * instruction.access_bytes, unaligned_cycles=self.rules.unaligned,
            checks=checks if price else checks | hooks.NO_LOAD,
            chained=chained, after_stack=after_stack, conditional_cycles=conditional_cycles,
        )  # fmt: skip
        self._set(place, "load", self.load_count)
        self.load_count += 1

    # Asked by the machine -----------------------------------------------------------------------------------------

    def remaining(self, pc: int) -> tuple[int, int]:
        """Returns instructions and cycles of the running block from the instruction at `pc` on: counted, not yet spent."""
        current = int(self.state.current)
        block, instructions = self.blocks[current], self.decoded.get(current, [])
        if not block.address <= pc < block.end:
            return 0, 0
        if (current, pc) not in self.left:  # a loop that looks at the cycle counter asks the same each time
            places = accumulate((instruction.size for instruction in instructions), initial=block.address)
            before = sum(place < pc for place in places)
            spent = price_block(self.rules, instructions[:before], block.address).cycles if before else 0
            self.left[current, pc] = len(instructions) - before, int(block.cycles) - spent
        return self.left[current, pc]

    def unwind(self, pc: int) -> None:
        """Takes back what was counted for the instructions from `pc` on, which a fault kept from running."""
        missing, cycles = self.remaining(pc)
        if cycles:
            self.state.instructions -= missing
            self.state.core -= cycles

    def outside(self, cycles: int) -> None:
        """Adds cycles that no instruction took: exception entry and return."""
        self.state.current = 0
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
        return self.image.functions[index - 1].name if index else "code without a name"

    def products(self) -> tuple[int, float]:
        """Returns the multiply-accumulate instructions that ran, and the cycles that each takes in the block that ran most.

        That block is the inner loop of a program that does little else; flash stalls and mispredicted branches are left out.
        """
        blocks = [(self.blocks[index], instructions) for index, instructions in self.decoded.items()]
        ran = [(block.runs * sum(each.kind == "mac" for each in instructions), block) for block, instructions in blocks]
        most, busiest = max(ran, key=lambda entry: entry[0])
        taken = busiest.runs * (busiest.cycles + busiest.taken_cycles)
        return sum(count for count, _ in ran), taken / most if most else 0.0

    def counts(self) -> dict[str, Any]:
        """Returns instructions, cycles and functions so far, as `simulate --json` names them."""
        totals: dict[int, dict[str, int]] = {}
        for block in self.blocks[: self.block_count]:
            entry = totals.setdefault(block.function, {"calls": 0, "instructions": 0, "cycles": 0})
            entry["calls"] += block.calls
            entry["instructions"] += block.runs * block.instructions
            entry["cycles"] += block.runs * block.cycles + block.extra_core + block.extra_memory
        ordered = sorted(totals.items(), key=lambda item: -item[1]["cycles"])
        functions = [{"name": self.image.functions[index - 1].name} | entry for index, entry in ordered if index]
        core, memory, cpu = int(self.state.core), int(self.state.memory), self.board.cpu
        return {
            "instructions": int(self.state.instructions), "cycles": core + memory, "cycles_core": core, "cycles_memory": memory,
            "cycles_data": int(self.state.data_memory),
            "cycles_kind": timing.cycles_kind(cpu), "timing_model": timing.model_name(cpu),
            "error_band": list(timing.error_band(cpu)), "functions": functions,
        }  # fmt: skip


def _must_be_aligned(instruction: Instruction, is_float: bool) -> int:
    """Returns ALIGNED where an access faults at no multiple of 4. The stack pointer and literals are always aligned."""
    if instruction.base in (STACK_POINTER, PROGRAM_COUNTER, NO_REGISTER):
        return 0
    many = instruction.kind in ("load-many", "store-many")
    return hooks.ALIGNED if many or (instruction.kind in ("load", "store") and (instruction.words > 1 or is_float)) else 0


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
