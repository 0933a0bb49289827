"""The shared structures of hooks.c, its compilation at first use, and the same two hooks in Python."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import shutil
import subprocess
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, c_int32, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

from tinyredux.files import cache_folder

SOURCE = Path(__file__).with_name("hooks.c")
STOP_NONE, STOP_EVENT, STOP_LIMIT, STOP_ADDRESS, STOP_FLOAT, STOP_ALIGNMENT = range(6)
ALIGNED, FLOAT, NO_LOAD = 1, 2, 4  # Load.checks
END_NONE, END_DIRECT, END_CALL, END_INDIRECT, END_RETURN, END_CONDITIONAL = range(6)
MAX_BLOCKS = MAX_LOADS = 1 << 17
NEVER, ANY_STACK = (1 << 64) - 1, 0xFFFFFFFF

BLOCK_HOOK = CFUNCTYPE(None, c_void_p, c_uint64, c_uint32, c_void_p)
PRICE = CFUNCTYPE(None, c_uint32, c_uint32)


def _words(names: str, kind: Any = c_uint32) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


def zeroed(kind: Any, count: int) -> Any:
    """Returns a ctypes array of zeros that takes memory only where it is used."""
    return (kind * count).from_buffer(mmap.mmap(-1, max(1, count * ctypes.sizeof(kind))))


class Block(ctypes.Structure):
    """struct block: what one basic block costs, and how often it ran."""

    _fields_ = (
        *_words("address end instructions cycles stack_bytes function first_line lines taken_cycles target_cycles"),
        *_words("predictor last_target"),
        *_words("end_kind is_entry loops_to_itself changes_masks waits", c_uint8),
        ("spare", c_uint8 * 3),
        *_words("runs calls extra_core extra_memory", c_uint64),
    )


class Load(ctypes.Structure):
    """struct load: where an address comes from, what a load may cost on top, and what must hold or the instruction faults."""

    _fields_ = (
        *_words("base index shift bytes chained after_stack conditional_cycles unaligned_cycles", c_uint8),
        ("offset", c_int32),
        ("total_bytes", c_uint16),
        *_words("checks spare", c_uint8),
    )


class Region(ctypes.Structure):
    """struct region: memory with its tables of blocks and loads, one entry per half-word."""

    _fields_ = (*_words("base size kind flash_offset"), ("block", POINTER(c_uint32)), ("load", POINTER(c_uint32)))


class Cache(ctypes.Structure):
    """struct cache: lines kept, least recently used leaves first."""

    _fields_ = (
        *_words("line_shift miss_cycles prefetch last sets ways enabled spare"),
        *_words("last_time time", c_uint64),
        ("where", POINTER(c_uint32)),
        ("held", POINTER(c_uint32)),
        ("used", POINTER(c_uint64)),
    )


class State(ctypes.Structure):
    """struct state: counters and switches shared by the hooks and the machine."""

    _fields_ = (
        *_words("instructions core memory limit_instructions next_event now", c_uint64),
        *_words("stop lowest_sp stack_floor stop_address stop_sp current last_region counting"),
        *_words("mispredict_cycles regions flash_kind flash_size stack_kind float_on"),
        *_words("self_loops self_loop_limit pending bad_address bad_place previous"),
        ("region", POINTER(Region)),
        ("block", POINTER(Block)),
        ("load", POINTER(Load)),
        ("code", POINTER(Cache)),
        ("data", POINTER(Cache)),
        ("registers", c_void_p),
        ("stop_emulator", c_void_p),
        ("price", PRICE),
        ("read_register", c_void_p),
    )


def compiled_library(source: Path) -> Path | None:
    """Returns the shared library of a C file, compiled once per content, or None without a working C compiler."""
    compiler = shutil.which(os.environ.get("CC", "").partition(" ")[0] or "cc") or shutil.which("gcc") or shutil.which("clang")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    library = cache_folder() / f"{source.stem}-{digest}.so"
    if compiler is not None and not library.is_file():
        library.parent.mkdir(parents=True, exist_ok=True)
        partial = library.with_name(f"{library.name}.{os.getpid()}")
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(partial), str(source)]
        if subprocess.run(command, capture_output=True).returncode == 0:
            partial.replace(library)
    return library if compiler is not None and library.is_file() else None


def compiled_hooks() -> ctypes.CDLL | None:
    """Returns the hooks of hooks.c, or None without a working C compiler."""
    library = compiled_library(SOURCE)
    if library is None:
        return None
    hooks = ctypes.CDLL(str(library))
    hooks.find_registers.restype = c_void_p
    hooks.find_registers.argtypes = [c_void_p, c_uint32, c_uint32]
    return hooks


def new_cache(lines: int, ways: int, line_bytes: int, miss_cycles: int, prefetch: bool, covered_bytes: int) -> Cache:
    """Returns an empty cache of `lines` lines (0: none) in sets of `ways` over a memory of `covered_bytes`."""
    cache = Cache(line_shift=line_bytes.bit_length() - 1, miss_cycles=miss_cycles, prefetch=int(prefetch), last=1 << 31)
    cache.enabled, lines, ways = int(lines > 0), max(1, lines), max(1, ways)
    cache.ways, cache.sets = ways, max(1, lines // ways)
    cache.where = zeroed(c_uint32, covered_bytes // line_bytes + 2)
    cache.held = (c_uint32 * (cache.ways * cache.sets))()
    cache.used = (c_uint64 * (cache.ways * cache.sets))()
    return cache


class PythonHooks:
    """The two hooks of hooks.c in Python: the same figures, some fifty times slower."""

    def __init__(self, state: State, register: Callable[[int], int], stop: Callable[[], None]) -> None:
        """`register(n)` reads a core register; `stop()` stops the emulator."""
        self.state, self.register, self.stop = state, register, stop

    def _region(self, address: int) -> Region | None:
        for index in range(self.state.regions):
            region: Region = self.state.region[index]
            if region.base <= address < region.base + region.size:
                return region
        return None

    def _fetch(self, cache: Cache, line: int, now: int) -> int:
        same, lost = line == cache.last, int(cache.miss_cycles)
        if cache.prefetch and line == cache.last + 1:
            lost = max(0, lost - (now - cache.last_time))
        cache.last, cache.last_time = line, now
        if not cache.enabled:
            return 0 if same else lost
        cache.time += 1
        if cache.where[line]:
            cache.used[cache.where[line] - 1] = cache.time
            return 0
        first = line % cache.sets * cache.ways
        victim = min(range(first, first + cache.ways), key=lambda slot: cache.used[slot])
        if cache.used[victim]:
            cache.where[cache.held[victim]] = 0
        cache.held[victim], cache.used[victim], cache.where[line] = line, cache.time, victim + 1
        return lost

    def _branch_cycles(self, source: Block, target: Block) -> int:
        taken = source.end != target.address
        if source.end_kind == END_NONE:
            return 0
        if not self.state.mispredict_cycles:
            return int(source.taken_cycles + target.target_cycles) if taken else 0
        if source.end_kind == END_CONDITIONAL:
            wrong = (source.predictor >> 1) != taken
            source.predictor = min(3, source.predictor + 1) if taken else max(0, source.predictor - 1)
            return int(self.state.mispredict_cycles if wrong else source.taken_cycles * taken)
        if source.end_kind == END_INDIRECT and source.last_target != target.address:
            source.last_target = target.address
            return int(self.state.mispredict_cycles)
        return int(source.taken_cycles * taken)

    def _must_stop(self, block: Block) -> bool:
        state = self.state
        before = state.block[state.current]
        if state.stop >= STOP_FLOAT:
            pass  # the emulator does not stop within an IT block
        elif state.now >= state.next_event or (state.pending and before.changes_masks) or before.waits:
            state.stop = STOP_EVENT
        elif state.instructions >= state.limit_instructions:
            state.stop = STOP_LIMIT
        elif block.address == state.stop_address and state.stop_sp in (ANY_STACK, self.register(13)):
            state.stop = STOP_ADDRESS
        elif block.loops_to_itself and state.self_loops >= state.self_loop_limit:
            state.stop = STOP_EVENT
        else:
            state.self_loops += block.loops_to_itself
            return False
        self.stop()
        return True

    def on_block(self, address: int, size: int) -> None:
        """Called before each basic block."""
        state = self.state
        region = self._region(address)
        if region is None:
            return
        slot = (address - region.base) >> 1
        if not region.block[slot] or state.block[region.block[slot]].end - address != size:
            state.price(address, size)
        block = state.block[region.block[slot]]
        if self._must_stop(block):
            return
        source = state.block[state.current]
        if block.is_entry and (source.function != block.function or source.end_kind == END_CALL):
            block.calls += 1
        if not state.counting:
            cycles = self._branch_cycles(source, block)
            state.core += cycles
            source.extra_core += cycles
        state.previous, state.current = state.current, region.block[slot]
        block.runs += 1
        state.instructions += block.instructions
        low = (self.register(13) - block.stack_bytes) & 0xFFFFFFFF
        if state.stack_floor <= low < state.lowest_sp:
            state.lowest_sp = low
        if state.counting:
            state.now = state.instructions
            return
        lost = 0
        for i in range(block.lines):
            lost += self._fetch(
                state.code[0], block.first_line + i, state.core + state.memory + lost + block.cycles * i // block.lines
            )
        state.core += block.cycles
        state.memory += lost
        block.extra_memory += lost
        state.now = state.core + state.memory

    def _fault(self, stop: int, place: int, address: int) -> None:
        state = self.state
        if state.stop < STOP_FLOAT:
            state.stop, state.bad_place, state.bad_address = stop, place, address
        self.stop()

    def on_instruction(self, address: int) -> None:
        """Called before each instruction that is executed: prices what a load's address decides."""
        state = self.state
        region = self._region(address)
        index = region.load[(address - region.base) >> 1] if region else 0
        if not index:
            return
        load = state.load[index]
        if state.stop >= STOP_FLOAT or (load.checks & FLOAT and not state.float_on):
            self._fault(STOP_FLOAT, address, 0)
            return
        where = load.offset + (self.register(load.base) if load.base != 15 else 0)
        where += self.register(load.index) << load.shift if load.index != 16 else 0
        where &= 0xFFFFFFFF
        if load.checks & ALIGNED and where & 3:
            self._fault(STOP_ALIGNMENT, address, where)
        if load.checks & NO_LOAD or state.stop >= STOP_FLOAT:
            return
        target = self._region(where)
        kind = target.kind if target else 0
        cycles, lost = load.conditional_cycles, 0
        cycles += bool(load.chained and kind != (state.stack_kind if load.after_stack else state.last_region))
        cycles += load.unaligned_cycles if where & (load.bytes - 1) else 0
        state.last_region = kind
        if target and kind == state.flash_kind:
            offset, cache = where - target.base + target.flash_offset, state.data[0]
            for line in range(offset >> cache.line_shift, ((offset + load.total_bytes - 1) >> cache.line_shift) + 1):
                lost += self._fetch(cache, line, state.now)
        state.core += cycles
        state.memory += lost
        state.now += cycles + lost
        block = state.block[state.current]
        block.extra_core += cycles
        block.extra_memory += lost
