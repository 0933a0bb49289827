"""hooks.c: its compilation at first use, and the structures that it shares with the machine."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import shutil
import subprocess
from ctypes import CFUNCTYPE, POINTER, c_int32, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

from tinyredux.files import cache_folder

SOURCE = Path(__file__).with_name("hooks.c")
STOP_NONE, STOP_EVENT, STOP_LIMIT, STOP_ADDRESS, STOP_LOOP, STOP_FLOAT, STOP_ALIGNMENT = range(7)
ALIGNED, FLOAT, NO_LOAD = 1, 2, 4  # Load.checks
END_NONE, END_DIRECT, END_CALL, END_INDIRECT, END_RETURN, END_CONDITIONAL = range(6)
MAX_BLOCKS = MAX_LOADS = 1 << 17
NEVER, ANY_STACK = (1 << 64) - 1, 0xFFFFFFFF

PRICE = CFUNCTYPE(None, c_uint32, c_uint32)


class MissingTool(RuntimeError):  # noqa: N818
    """A program or folder that the work needs is not there; the message says how to get it."""


def _words(names: str, kind: Any = c_uint32) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


def zeroed(kind: Any, count: int) -> Any:
    """Returns a ctypes array of zeros that takes memory only where it is used."""
    return (kind * count).from_buffer(mmap.mmap(-1, max(1, count * ctypes.sizeof(kind))))


class Block(ctypes.Structure):
    """struct block: what one basic block costs, and how often it ran."""

    _fields_ = (
        *_words("address end instructions cycles stack_bytes function first_line lines taken_cycles target_cycles"),
        *_words("branch predictor last_target"),
        *_words("end_kind is_entry loops_to_itself changes_masks waits", c_uint8),
        ("spare", c_uint8 * 7),
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

    _fields_ = (*_words("base size kind"), ("block", POINTER(c_uint32)), ("load", POINTER(c_uint32)))


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
        *_words("stop lowest_sp stack_floor stop_address stop_sp current last_region mispredict_cycles"),
        *_words("regions float_on self_loops pending bad_address bad_place previous spare"),
        ("region", POINTER(Region)),
        ("block", POINTER(Block)),
        ("load", POINTER(Load)),
        ("code", POINTER(Cache)),
        ("data", POINTER(Cache)),
        *_words("registers stop_emulator", c_void_p),
        ("price", PRICE),
        ("read_register", c_void_p),
    )


def compiled_library(source: Path) -> Path:
    """Returns the shared library of a C file, compiled once per content. Raises MissingTool without a working C compiler."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    library = cache_folder() / f"{source.stem}-{digest}.so"
    if library.is_file():
        return library
    names = (os.environ.get("CC", "").partition(" ")[0] or "cc", "gcc", "clang")
    compiler = next(filter(None, map(shutil.which, names)), None)
    library.parent.mkdir(parents=True, exist_ok=True)
    partial = library.with_name(f"{library.name}.{os.getpid()}")
    command = [compiler or "", "-O2", "-shared", "-fPIC", "-o", str(partial), str(source)]
    if compiler is None or subprocess.run(command, capture_output=True).returncode != 0 or not partial.is_file():
        raise MissingTool(
            f"the simulator counts in machine code, and {compiler or 'no C compiler'} "
            f"{'could not compile' if compiler else 'is there to compile'} {source.name}; "
            "run: sudo apt-get install --no-install-recommends gcc libc6-dev"
        )
    partial.replace(library)
    return library


def compiled_hooks() -> ctypes.CDLL:
    """Returns the hooks of hooks.c. Raises MissingTool without a working C compiler."""
    hooks = ctypes.CDLL(str(compiled_library(SOURCE)))
    hooks.find_registers.restype = c_void_p
    hooks.find_registers.argtypes = [c_void_p, c_uint32, c_uint32]
    return hooks


def new_cache(lines: int, ways: int, line_bytes: int, miss_cycles: int, prefetch: bool, covered_bytes: int) -> Cache:
    """Returns an empty cache of `lines` lines (0: none) in sets of `ways` over a memory of `covered_bytes`."""
    ways, sets = max(1, ways), max(1, max(1, lines) // max(1, ways))
    cache = Cache(line_bytes.bit_length() - 1, miss_cycles, prefetch, 1 << 31, sets, ways, lines > 0)
    cache.where = zeroed(c_uint32, covered_bytes // line_bytes + 2)
    cache.held, cache.used = (c_uint32 * (ways * sets))(), (c_uint64 * (ways * sets))()
    return cache
